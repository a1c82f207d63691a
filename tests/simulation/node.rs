//! A node: the real branches cluster, storage, fleet and tasks over the shared records and the shared content. It waits for the
//! lease on the records, drives everything while it has it, and waits again once it has lost it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use helix_actor_cluster::ClusterArgs;
use helix_actor_fleet::FleetArgs;
use helix_actor_storage::StorageArgs;
use helix_actor_tasks::TasksArgs;
use helix_config::{LeaseConfig, TasksConfig, WorkersConfig, WorkspaceConfig};
use helix_database::RecordStore;
use helix_kernel::{Address, ChildSpec, Clock, Restart, Strategy, SupervisorHandle, SupervisorSpec};
use helix_messages::{CreateTask, DailyLimits, Events, Fleet, Models, Records, ResumeTask, Spending, Takeover, Tasks, Versions};
use helix_objects::{MemoryStore, ObjectStore};
use helix_protocol::{Code, Event, Failure, Lifecycle, NodeId, Principal, ProjectId, TaskId, TaskSpec, WorkerId};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use crate::models::{FakeModels, ModelLog};
use crate::oracle::Oracle;
use crate::records::Reached;
use crate::talk::Talk;
use crate::transport::Network;

/// What people want. Whichever node drives sees to it, and a wish whose answer was lost is wished again.
#[derive(Clone, Debug)]
pub enum Wish {
    Create(Box<TaskSpec>),
    Pause(TaskId),
    Resume(TaskId),
    Lifecycle(WorkerId, Lifecycle),
}

/// What every node stands on.
pub struct Ground {
    pub objects: Arc<MemoryStore>,
    pub models: ModelLog,
    pub oracle: Arc<Oracle>,
    pub wishes: Mutex<VecDeque<Wish>>,
    pub snapshot_interval_ms: u64,
}

/// A node's machine.
pub struct NodeHost {
    pub name: String,
    pub node: NodeId,
    pub ground: Arc<Ground>,
    pub records: Arc<Reached>,
    /// Its wall clock is wrong by so much.
    pub wrong_by: Mutex<i64>,
    /// It is to stop in order.
    pub leaving: Mutex<bool>,
}

/// The handles of a node that drives.
struct Driving {
    tree: SupervisorHandle,
    tasks: Tasks,
    fleet: Fleet,
    watched: broadcast::Receiver<Event>,
}

impl NodeHost {
    /// The host's life.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        loop {
            match self.start().await {
                Ok(mut driving) => {
                    self.tell("drives");
                    let ended = self.drive(&mut driving).await;
                    self.tell(&format!(
                        "drives no more: {}",
                        ended.map_or_else(|failure| failure.message, |()| "it was told to stop".to_owned())
                    ));
                }
                Err(failure) if failure.code == Code::NodeRunning => {}
                Err(failure) => self.tell(&format!("does not start: {failure}")),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn tell(&self, what: &str) {
        self.ground.oracle.tell(&self.name, what);
    }

    async fn start(&self) -> Result<Driving, Failure> {
        let (clock, machine) = Clock::simulated();
        machine.suspend(turmoil::sim_elapsed().expect("asked on the node"));
        machine.jump(*self.wrong_by.lock());
        let store: Arc<dyn RecordStore> = Arc::clone(&self.records) as Arc<dyn RecordStore>;
        let objects: Arc<dyn ObjectStore> = Arc::clone(&self.ground.objects) as Arc<dyn ObjectStore>;
        let (events, takeover, node) = (Events::new(4_096), Takeover::AfterLease, self.node);
        let watched = events.watch();
        self.ground.oracle.begins(&self.name);
        let storage = StorageArgs {
            records: Arc::clone(&store),
            objects: Arc::clone(&objects),
            cache: None,
            upkeep: None,
            file_cap_bytes: 64 << 20,
            events: events.clone(),
            writer: StorageArgs::writer_address(),
            repositories: StorageArgs::repositories_address(),
        };
        let (models_address, tasks_address) = (Address::unbound("models", 4_096), Address::unbound("tasks", 4_096));
        let records = Records::new(storage.writer.clone(), Arc::clone(&store), Duration::from_secs(45));
        let tasks = Tasks::new(tasks_address.clone());
        let fleet = FleetArgs {
            address: FleetArgs::unbound_address(),
            records: records.clone(),
            objects: Arc::clone(&objects),
            tasks: tasks.clone(),
            transports: vec![Arc::new(Network)],
            node,
            config: WorkersConfig { connect_timeout_ms: 3_000, ..WorkersConfig::default() },
            clock: clock.clone(),
        };
        let handle = fleet.handle();
        let tasks_args = TasksArgs {
            gateway: helix_config::GatewayConfig::default(),
            node,
            address: tasks_address,
            spending: Spending::new(records.clone(), DailyLimits::default(), clock.clone()),
            records,
            objects,
            versions: Versions::new(storage.repositories.clone()),
            fleet: handle.clone(),
            models: Models::new(models_address.clone(), Duration::from_secs(60)),
            events,
            kinds: vec![Arc::new(Talk)],
            tasks: TasksConfig {
                snapshot_interval_ms: self.ground.snapshot_interval_ms,
                retry_backoff_ms: 50,
                ..TasksConfig::default()
            },
            workspace: WorkspaceConfig::default(),
            lease: LeaseConfig::default(),
            takeover,
            clock,
        };
        let log = self.ground.models.clone();
        let root = SupervisorSpec::new("helix", Strategy::OneForOne)
            .child(
                ChildSpec::supervisor(helix_actor_cluster::branch(ClusterArgs { records: store, node, takeover }))
                    .restart(Restart::Significant),
            )
            .child(ChildSpec::supervisor(helix_actor_storage::branch(storage)))
            .child(ChildSpec::actor("models", &models_address, move || (FakeModels, log.clone())))
            .child(ChildSpec::supervisor(helix_actor_fleet::branch(fleet)))
            .child(ChildSpec::supervisor(helix_actor_tasks::branch(tasks_args)));
        Ok(Driving { tree: helix_kernel::start(root).await?, tasks, fleet: handle, watched })
    }

    /// Sees to what people want until the tree ends or is to end.
    async fn drive(&self, driving: &mut Driving) -> Result<(), Failure> {
        loop {
            tokio::select! {
                biased;
                ended = driving.tree.ended() => return ended,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            self.watch(&mut driving.watched);
            if std::mem::take(&mut *self.leaving.lock()) {
                let _ = driving.tasks.park(Duration::from_secs(2)).await;
                return driving.tree.shutdown().await;
            }
            let Some(wish) = self.ground.wishes.lock().pop_front() else { continue };
            let carried_out = tokio::select! {
                biased;
                ended = driving.tree.ended() => {
                    self.ground.wishes.lock().push_front(wish);
                    return ended;
                }
                done = tokio::time::timeout(Duration::from_secs(10), carry_out(driving, &wish)) => done.is_ok_and(|heard| heard),
            };
            if !carried_out {
                self.ground.wishes.lock().push_back(wish);
            }
        }
    }

    /// Reads what the node told whoever watches.
    fn watch(&self, watched: &mut broadcast::Receiver<Event>) {
        loop {
            match watched.try_recv() {
                // Those of sequence 0 are shown and not kept.
                Ok(event) if event.sequence > 0 => self.ground.oracle.told(&self.name, event.sequence),
                Ok(_) => {}
                Err(TryRecvError::Lagged(missed)) => panic!("{missed} events were told faster than anybody reads"),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

/// True once the wish was heard. A crash in between loses a wish; people wish again.
async fn carry_out(driving: &Driving, wish: &Wish) -> bool {
    let me = || Principal::local("somebody");
    match wish {
        Wish::Create(spec) => {
            let (spec, key) = ((**spec).clone(), Some(spec.title.clone()));
            let create = CreateTask { spec, principal: me(), project: ProjectId::DEFAULT, idempotency_key: key };
            driving.tasks.create(create).await.is_ok()
        }
        Wish::Pause(task) => {
            let _ = driving.tasks.pause(*task, me()).await;
            true
        }
        Wish::Resume(task) => {
            let _ = driving.tasks.resume(*task, ResumeTask::default(), me()).await;
            true
        }
        Wish::Lifecycle(worker, lifecycle) => driving.fleet.set_lifecycle(*worker, *lifecycle).await.is_ok(),
    }
}
