//! A node without processes: the tasks branch over records and content in memory, with workers and models
//! that are actors of the test.

#![allow(dead_code, unused_imports)]

mod disk;
mod fleet;
mod models;
mod recalls;
mod talk;
mod turns;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use helix_actor_tasks::TasksArgs;
use helix_config::{LeaseConfig, TasksConfig, WorkspaceConfig};
use helix_database::{MemoryStore, RecordStore};
use helix_kernel::{Address, ChildSpec, Clock, SimulatedClock, Strategy, SupervisorHandle, SupervisorSpec};
use helix_messages::{
    CreateTask, DailyLimits, Events, Fleet, Models, Payers, Records, SetAside, Spending, Takeover, Tasks, TasksMsg, Versions,
};
use helix_objects::ObjectStore;
use helix_protocol::{
    AttemptId, CommandSpec, EventKind, Failure, Money, Most, NewEvent, NodeId, OwnerId, Payer, Principal, ProjectId, StepSummary,
    TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};

pub use disk::Disk;
pub use fleet::{FakeFleet, World};
pub use models::{FakeModels, ModelLog};
pub use recalls::Recalls;
pub use talk::{AFTER_A_REST, Talk};
pub use turns::Turns;
pub use writer::{FakeWriter, Fault, Faults};

pub const LEASE: LeaseConfig = LeaseConfig { heartbeat_ms: 100, suspect_ms: 300, fence_ms: 800, reassign_ms: 1_000 };

/// What outlives a node: records, content, workers, and what models were asked.
#[derive(Clone)]
pub struct Outside {
    pub node: NodeId,
    pub records: Arc<MemoryStore>,
    pub objects: Arc<helix_objects::MemoryStore>,
    /// The same, as the node sees it.
    pub disk: Disk,
    pub world: World,
    pub log: ModelLog,
    pub faults: Faults,
    pub tasks: TasksConfig,
    pub limits: DailyLimits,
    pub clock: Clock,
    /// What may happen to a simulated clock.
    pub machine: Option<SimulatedClock>,
}

impl Outside {
    pub fn new() -> Self {
        let (clock, machine) = Clock::simulated();
        Self { machine: Some(machine), ..Self::on(clock) }
    }

    /// On the machine's clock.
    pub fn new_real() -> Self {
        Self::on(Clock::system())
    }

    fn on(clock: Clock) -> Self {
        let told = clock.clone();
        let objects = Arc::new(helix_objects::MemoryStore::new());
        Self {
            node: NodeId::new(),
            records: Arc::new(MemoryStore::with_clock(helix_database::Clock::new(move || told.wall()))),
            world: World::new(Arc::clone(&objects)),
            disk: Disk::of(Arc::clone(&objects)),
            objects,
            log: ModelLog::default(),
            faults: Faults::default(),
            tasks: TasksConfig::default(),
            limits: DailyLimits::default(),
            clock,
            machine: None,
        }
    }

    /// Starts a node over it.
    pub async fn start(&self) -> Node {
        let (writer, fleet, models) =
            (Address::unbound("writer", 65_536), Address::unbound("fleet", 65_536), Address::unbound("models", 4_096));
        let tasks_address: Address<TasksMsg> = Address::unbound("tasks", 65_536);
        let tasks = Tasks::new(tasks_address.clone());
        let events = Events::new(65_536);
        let store: Arc<dyn RecordStore> = Arc::clone(&self.records) as Arc<dyn RecordStore>;
        let records = Records::new(writer.clone(), Arc::clone(&store), Duration::from_secs(5));
        let spending = Spending::new(records.clone(), self.limits, self.clock.clone());
        let args = TasksArgs {
            gateway: helix_config::GatewayConfig::default(),
            node: self.node,
            address: tasks_address,
            records: records.clone(),
            objects: Arc::new(self.disk.clone()),
            // Nothing here compares trees.
            versions: Versions::new(Address::unbound("repositories", 1)),
            fleet: Fleet::new(fleet.clone()),
            models: Models::new(models.clone(), Duration::from_secs(60)),
            events: events.clone(),
            kinds: vec![Arc::new(Talk), Arc::new(Recalls), Arc::new(Turns)],
            tasks: self.tasks.clone(),
            workspace: WorkspaceConfig::default(),
            spending: spending.clone(),
            lease: LEASE,
            takeover: Takeover::Never,
            clock: self.clock.clone(),
        };
        let (faults, world, log) = (self.faults.clone(), self.world.clone(), self.log.clone());
        let published = events.clone();
        let told = tasks.clone();
        let root = SupervisorSpec::new("helix", Strategy::OneForOne)
            .child(ChildSpec::actor("writer", &writer, move || {
                (FakeWriter, (Arc::clone(&store), published.clone(), faults.clone()))
            }))
            .child(ChildSpec::actor("models", &models, move || (FakeModels, log.clone())))
            .child(ChildSpec::actor("fleet", &fleet, move || (FakeFleet, (world.clone(), told.clone()))))
            .child(ChildSpec::supervisor(helix_actor_tasks::branch(args)));
        let handle = helix_kernel::start(root).await.expect("the node starts");
        self.world.tell_to(Some(tasks.clone()));
        Node { outside: self.clone(), handle, tasks, events, records, spending }
    }
}

/// A running node.
pub struct Node {
    pub outside: Outside,
    pub handle: SupervisorHandle,
    pub tasks: Tasks,
    pub events: Events,
    pub records: Records,
    pub spending: Spending,
}

pub fn spec(work: TaskWork) -> TaskSpec {
    TaskSpec::new("a test", work)
}

pub fn commands(commands: &[&str]) -> TaskSpec {
    spec(TaskWork::Command(CommandSpec {
        commands: commands.iter().map(|text| (*text).to_owned()).collect(),
        artifacts: Vec::new(),
    }))
}

/// A task of `steps` turns: each asks a model, runs a tool with what it said, and asks again.
pub fn talk(steps: u64) -> TaskSpec {
    spec(TaskWork::Custom { name: "talk".to_owned(), input: serde_json::json!({ "steps": steps }) })
}

/// A task of as many turns as calls: `shell` with its command in the background, any other tool with the milliseconds it looks for.
pub fn turns(calls: &[(&str, &str)]) -> TaskSpec {
    let call = |(tool, input): &(&str, &str)| serde_json::json!({ "tool": tool, "input": input });
    let calls: Vec<_> = calls.iter().map(call).collect();
    spec(TaskWork::Custom { name: "turns".to_owned(), input: serde_json::json!({ "calls": calls }) })
}

pub fn me() -> Principal {
    Principal::local("test")
}

impl Node {
    pub async fn create(&self, spec: TaskSpec) -> Result<TaskRecord, Failure> {
        let create = CreateTask { spec, principal: me(), project: ProjectId::DEFAULT, idempotency_key: None };
        self.tasks.create(create).await
    }

    pub async fn task(&self, task: TaskId) -> TaskRecord {
        self.outside.records.task(task).await.expect("readable").expect("it was made")
    }

    /// Waits until the records show the state, or panics with what they show after a (simulated) while.
    pub async fn until(&self, task: TaskId, status: TaskStatus) -> TaskRecord {
        self.until_within(task, &[status], Duration::from_secs(600)).await
    }

    pub async fn until_within(&self, task: TaskId, wanted: &[TaskStatus], within: Duration) -> TaskRecord {
        self.until_it_within(task, |record| wanted.contains(&record.status), within).await
    }

    /// Waits until the records show what is wanted, as above.
    pub async fn until_it(&self, task: TaskId, is_wanted: impl Fn(&TaskRecord) -> bool) -> TaskRecord {
        self.until_it_within(task, is_wanted, Duration::from_secs(600)).await
    }

    async fn until_it_within(&self, task: TaskId, is_wanted: impl Fn(&TaskRecord) -> bool, within: Duration) -> TaskRecord {
        let mut events = self.events.watch();
        let began = tokio::time::Instant::now();
        loop {
            let record = self.task(task).await;
            if is_wanted(&record) {
                return record;
            }
            assert!(
                began.elapsed() < within,
                "task {task} is {} ({}), which is not what was waited for",
                record.status,
                record.reason
            );
            let _ = tokio::time::timeout(Duration::from_secs(1), events.recv()).await;
        }
    }

    /// The files a task's head has, as text.
    pub async fn files(&self, task: TaskId) -> Vec<(String, String)> {
        let head = self.task(task).await.head.expect("a step");
        let step = self.outside.records.step(head).await.expect("readable").expect("there");
        self.outside.world.read_tree(step.step.tree)
    }

    pub async fn line(&self, task: TaskId) -> Vec<StepSummary> {
        match self.task(task).await.head {
            Some(head) => self.outside.records.lineage(head).await.expect("readable"),
            None => Vec::new(),
        }
    }

    /// True where the node takes just as much of the day for spent, and for set aside, as the records say.
    pub async fn counts_as_the_records_do(&self) -> bool {
        let day = self.outside.clock.wall().day_start();
        let (spent, _) = self.outside.records.spent_since(Payer::Owner(OwnerId::LOCAL), day).await.expect("readable");
        let limit = self.outside.limits.owner.money.expect("the test limits the day");
        let payers = Payers { owner: OwnerId::LOCAL, project: ProjectId::DEFAULT };
        let has = async |left: Money| {
            let admitted = self.spending.admit(payers, Most { money: Some(left), tokens: 0 }).await;
            admitted.map(SetAside::free).is_ok()
        };
        let left = Money(limit.0 - spent.0);
        has(left).await && !has(left + Money(1)).await
    }

    /// Ends the node at once, as SIGKILL would: nothing is written any more.
    pub async fn kill(self) {
        self.outside.faults.cut();
        self.outside.world.tell_to(None);
        self.handle.shutdown().await.expect("it ends");
        self.outside.faults.mend();
    }

    pub async fn stop(self) {
        self.handle.shutdown().await.expect("it ends");
    }
}

pub fn attempt() -> AttemptId {
    AttemptId::new()
}

impl Outside {
    pub async fn all_tasks(&self) -> Vec<TaskRecord> {
        self.records.tasks(helix_database::TaskFilter::default()).await.expect("readable")
    }

    pub async fn records_step(&self, step: helix_protocol::StepId) -> helix_protocol::StepRecord {
        self.records.step(step).await.expect("readable").expect("there")
    }

    /// The names of a task's recorded events, in order.
    pub async fn events_of(&self, task: TaskId) -> Vec<String> {
        self.recorded(task).await.into_iter().map(|event| event.kind.as_str().to_owned()).collect()
    }

    /// What was recorded of its being taken from workers.
    pub async fn reassignments(&self, task: TaskId) -> Vec<String> {
        let events = self.recorded(task).await.into_iter().filter(|event| event.kind == EventKind::TaskReassigned);
        events.map(|event| event.message).collect()
    }

    async fn recorded(&self, task: TaskId) -> Vec<NewEvent> {
        let filter = helix_database::EventFilter { after: 0, task: Some(task), limit: 10_000 };
        self.records.events(filter).await.expect("readable").into_iter().map(|event| event.event).collect()
    }
}
