//! A machine with a worker on it, in memory: another implementation of the port, and a node around the branch.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use helix_actor_fleet::{FleetArgs, branch};
use helix_config::WorkersConfig;
use helix_database::{Applied, RecordStore, StatusChange, Write};
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Clock, SimulatedClock, SupervisorHandle, start};
use helix_link::{Asked, Event, LinkHandle, Options, accept_as_worker};
use helix_messages::{AddWorker, Fleet, LostWorker, Records, RecordsMsg, Tasks, TasksMsg, WorkerView};
use helix_objects::{Durability, MemoryStore, NewObject, ObjectStore};
use helix_ports::{ConnectError, DeathProof, Duplex, InstallReport, WorkerTransport};
use helix_protocol::link::{Free, Heartbeat, Holding, Request, Response, Snapshotted, Welcome};
use helix_protocol::{
    AttemptId, CallKey, Capability, Code, CommandSpec, Failure, Lifecycle, Needs, NodeId, ObjectId, Principal, ProjectId,
    Resources, Sandboxing, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork, Timestamp, ToolOutcome, WorkerFacts, WorkerHealth,
    WorkerId, WorkerRecord, WorkerStatus, WorkerTarget,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

/// What a test does to a machine.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The network lets connections through.
    pub reachable: bool,
    /// The worker's process runs.
    pub running: bool,
    /// It is stopped, not dead: connections are accepted and nothing is said.
    pub frozen: bool,
    /// The program may be installed.
    pub installable: bool,
    /// Calls are answered; while false they run.
    pub answering: bool,
    /// Which process runs.
    pub incarnation: u64,
    /// Connections made before the last cut are dead.
    pub cuts: u64,
}

/// A machine.
pub struct Machine {
    pub conditions: watch::Sender<Conditions>,
    /// How often each call was asked for, and how often it was run.
    pub calls: Mutex<HashMap<CallKey, (u32, u32)>>,
    pub store: MemoryStore,
    pub stored: Mutex<u64>,
    /// What it says that it lacks although nobody asked about it.
    pub also_missing: Mutex<Vec<ObjectId>>,
    pub holds: Mutex<Vec<Holding>>,
    /// The worker that it serves as.
    pub serves: Mutex<Option<WorkerId>>,
    pub snapshot: Mutex<(ObjectId, Vec<(ObjectId, Bytes)>)>,
    pub starts: Mutex<u32>,
    /// Of the process that runs, and of the one that a start brings.
    pub build: Mutex<String>,
    pub installed: Mutex<String>,
    pub memory_percent: Mutex<u8>,
    pub capabilities: Mutex<Vec<Capability>>,
    /// The connection that was made last.
    pub link: Mutex<Option<LinkHandle>>,
}

impl Machine {
    pub fn running() -> Arc<Self> {
        let conditions = Conditions {
            reachable: true,
            running: true,
            frozen: false,
            installable: true,
            answering: true,
            incarnation: 1,
            cuts: 0,
        };
        Arc::new(Self {
            conditions: watch::Sender::new(conditions),
            calls: Mutex::default(),
            store: MemoryStore::new(),
            stored: Mutex::default(),
            also_missing: Mutex::default(),
            holds: Mutex::default(),
            serves: Mutex::default(),
            snapshot: Mutex::new((helix_objects::hash(b""), Vec::new())),
            starts: Mutex::default(),
            build: Mutex::new("fake".to_owned()),
            installed: Mutex::new("fake".to_owned()),
            memory_percent: Mutex::new(10),
            capabilities: Mutex::default(),
            link: Mutex::default(),
        })
    }

    pub fn set(&self, change: impl FnOnce(&mut Conditions)) {
        self.conditions.send_modify(change);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.set(|now| {
            now.running = false;
            now.cuts += 1;
        });
    }

    fn facts(&self) -> WorkerFacts {
        WorkerFacts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            hostname: "fake".to_owned(),
            capabilities: self.capabilities.lock().clone(),
            toolchains: Vec::new(),
            resources: Resources { cores: 4, memory_mib: 100, disk_mib: 100, ..Resources::default() },
            sandbox: Sandboxing::default(),
        }
    }

    /// The worker tells something.
    pub async fn notice(&self, notice: helix_protocol::link::Notice) {
        let link = self.link.lock().clone().expect("it is connected");
        link.notify(notice).await.expect("the connection stands");
    }

    /// Every connection ends; the process lives.
    pub fn cut(&self) {
        self.set(|now| now.cuts += 1);
    }

    async fn serve(self: Arc<Self>, io: impl AsyncRead + AsyncWrite + Send + 'static) -> Option<()> {
        let mut conditions = self.conditions.subscribe();
        let Conditions { incarnation, cuts, .. } = *conditions.borrow();
        conditions.wait_for(|now| !now.frozen).await.ok()?;
        let greeting = accept_as_worker(io, Options::default()).await.ok()?;
        let hello = greeting.hello().clone();
        let served = self.serves.lock().filter(|served| *served != hello.worker);
        if hello.others.iter().any(|other| Some(other.worker) == served) {
            return greeting.refuse(Failure::new(Code::AnotherWorker, "another worker")).await.ok();
        }
        *self.serves.lock() = Some(hello.worker);
        let heartbeat = Duration::from_millis(hello.lease.heartbeat_ms);
        let version = greeting.version().ok()?;
        let welcome = Welcome {
            version,
            build: self.build.lock().clone(),
            incarnation,
            pid: 4_000 + u32::try_from(incarnation).unwrap(),
            facts: self.facts(),
            holds: self.holds.lock().clone(),
        };
        let link = greeting.welcome(welcome).await.ok()?;
        *self.link.lock() = Some(link.handle.clone());
        let beats = tokio::spawn(Arc::clone(&self).beat(link.handle.clone(), heartbeat));
        let mut incoming = link.incoming;
        loop {
            tokio::select! {
                event = incoming.next() => match event {
                    Event::Request(asked) => drop(tokio::spawn(Arc::clone(&self).answer(link.handle.clone(), asked))),
                    Event::Closed(_) => break,
                    _ => {}
                },
                _ = conditions.wait_for(|now| now.cuts != cuts) => {
                    link.handle.abort();
                    break;
                }
            }
        }
        beats.abort();
        Some(())
    }

    async fn beat(self: Arc<Self>, link: LinkHandle, every: Duration) {
        let mut sequence = 0;
        loop {
            if !self.conditions.borrow().frozen {
                let memory_percent = *self.memory_percent.lock();
                if link
                    .heartbeat(Heartbeat {
                        sequence,
                        load: 0.0,
                        memory_percent,
                        disk_percent: 10,
                        free: Some(Free { memory_mib: 100 - u64::from(memory_percent), disk_mib: 90 }),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
                sequence += 1;
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn answer(self: Arc<Self>, link: LinkHandle, asked: Asked) {
        let mut conditions = self.conditions.subscribe();
        let result = match asked.body {
            Request::Tool { call, .. } => {
                let first = {
                    let mut calls = self.calls.lock();
                    let (times, runs) = calls.entry(call.key).or_default();
                    *times += 1;
                    *runs += u32::from(*times == 1);
                    *times == 1
                };
                let content = if first { "first" } else { "joined" };
                let _ = conditions.wait_for(|now| now.answering && !now.frozen).await;
                Ok(Response::Tool { outcome: ToolOutcome::ok(content) })
            }
            Request::Ping => {
                let _ = conditions.wait_for(|now| now.answering && !now.frozen).await;
                Ok(Response::Pong)
            }
            Request::Open(open) => match helix_versions::missing_closure(&self.store, open.tree) {
                Ok(lacking) if lacking.is_empty() => {
                    Ok(Response::Opened { folder: "/w".to_owned(), ports: Vec::new(), setup: None, warm: false })
                }
                _ => Err(Failure::new(Code::ObjectsMissing, "content is missing")),
            },
            Request::Close { task, .. } => {
                let _ = conditions.wait_for(|now| now.answering && !now.frozen).await;
                self.holds.lock().retain(|held| held.task != task);
                Ok(Response::Closed)
            }
            Request::Missing { objects } => {
                let also = self.also_missing.lock().clone();
                Ok(Response::Missing { objects: [self.store.missing(&objects).unwrap(), also].concat() })
            }
            Request::Store { stream } => match link.receive_objects(stream).collect_all().await {
                Ok(received) => {
                    let objects: Vec<NewObject> =
                        received.into_iter().map(|(id, bytes)| NewObject::checked(id, bytes).unwrap()).collect();
                    self.store.put(&objects, Durability::NoSync).unwrap();
                    *self.stored.lock() += objects.len() as u64;
                    Ok(Response::Stored { objects: objects.len() as u64, bytes: 0 })
                }
                Err(failure) => Err(failure),
            },
            Request::Snapshot { .. } => {
                let (tree, objects) = self.snapshot.lock().clone();
                return self.send_snapshot(link, asked.reply, tree, objects).await;
            }
            Request::Stop { .. } => {
                asked.reply.send(Ok(Response::Stopping)).await;
                return self.kill();
            }
            Request::Inspect => Ok(Response::Inspected { facts: self.facts() }),
            other => Err(Failure::new(Code::InvalidRequest, format!("the fake worker does not do {other:?}"))),
        };
        asked.reply.send(result).await;
    }

    async fn send_snapshot(&self, link: LinkHandle, reply: helix_link::Replier, tree: ObjectId, objects: Vec<(ObjectId, Bytes)>) {
        let mut writer = (!objects.is_empty()).then(|| link.send_objects());
        let snapshot = Snapshotted {
            tree,
            changes: Vec::new(),
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            stream: writer.as_ref().map(helix_link::ObjectWriter::stream),
            bytes: 0,
            logical_bytes: 0,
            confinement: None,
        };
        reply.send(Ok(Response::Snapshotted(snapshot))).await;
        if let Some(mut writer) = writer.take() {
            for (id, bytes) in objects {
                let _ = writer.write(id, bytes).await;
            }
            let _ = writer.finish().await;
        }
    }
}

/// Reaches machines by their folder.
#[derive(Default)]
pub struct FakeTransport {
    pub machines: Mutex<HashMap<String, Arc<Machine>>>,
}

impl FakeTransport {
    fn machine(&self, target: &WorkerTarget) -> Arc<Machine> {
        let WorkerTarget::Local { folder } = target else { panic!("only local targets") };
        Arc::clone(self.machines.lock().get(folder).expect("a machine of that folder"))
    }
}

fn unreachable() -> ConnectError {
    ConnectError::Unreachable(Failure::new(Code::WorkerUnreachable, "no route"))
}

#[async_trait]
impl WorkerTransport for FakeTransport {
    fn serves(&self, target: &WorkerTarget) -> bool {
        matches!(target, WorkerTarget::Local { .. })
    }

    async fn install(&self, target: &WorkerTarget) -> Result<InstallReport, ConnectError> {
        match *self.machine(target).conditions.borrow() {
            Conditions { reachable: false, .. } => Err(unreachable()),
            Conditions { installable: false, .. } => {
                Err(ConnectError::Refused(Failure::new(Code::InstallFailed, "the disk is read-only")))
            }
            _ => Ok(InstallReport { arch: "x86_64".to_owned(), program: "/p".to_owned(), present: true, uploaded_bytes: 0 }),
        }
    }

    async fn start(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        let machine = self.machine(target);
        machine.set(|now| {
            if !now.running {
                now.running = true;
                now.incarnation += 1;
                *machine.starts.lock() += 1;
                machine.build.lock().clone_from(&machine.installed.lock());
            }
        });
        Ok(())
    }

    async fn connect(&self, target: &WorkerTarget) -> Result<Box<dyn Duplex>, ConnectError> {
        let machine = self.machine(target);
        let now = machine.conditions.borrow().clone();
        match now {
            Conditions { reachable: false, .. } => Err(unreachable()),
            Conditions { running: false, .. } => Err(ConnectError::Dead(DeathProof::ConnectionRefused)),
            _ => {
                let (node, worker) = tokio::io::duplex(256 * 1024);
                tokio::spawn(machine.serve(worker));
                Ok(Box::new(node))
            }
        }
    }

    async fn remove(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        let machine = self.machine(target);
        if !machine.conditions.borrow().reachable {
            return Err(unreachable());
        }
        machine.kill();
        Ok(())
    }
}

/// Applies writes at once, while there is a database.
struct Writer;

impl Actor for Writer {
    type Msg = Admitted<RecordsMsg>;
    type State = (Arc<dyn RecordStore>, watch::Receiver<bool>);
    type Arguments = Self::State;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, store: Self::State) -> Result<Self::State, ActorProcessingErr> {
        Ok(store)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let RecordsMsg::Write { write, reply } = message.take() else { return Ok(()) };
        let (store, writable) = state;
        if !*writable.borrow() {
            let _ = reply.send(Err(Failure::new(Code::DatabaseUnavailable, "there is no database")));
            return Ok(());
        }
        let answer = store.apply(vec![*write]).await.expect("memory answers").remove(0);
        let _ = reply.send(answer.map_err(Into::into));
        Ok(())
    }
}

/// Hands what the tasks branch is told to the test.
struct Ear;

impl Actor for Ear {
    type Msg = Admitted<TasksMsg>;
    type State = mpsc::UnboundedSender<TasksMsg>;
    type Arguments = mpsc::UnboundedSender<TasksMsg>;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, told: Self::State) -> Result<Self::State, ActorProcessingErr> {
        Ok(told)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, told: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let _ = told.send(message.take());
        Ok(())
    }
}

/// A node's fleet branch with what it stands on.
pub struct Node {
    pub fleet: Fleet,
    pub store: Arc<dyn RecordStore>,
    /// Whether the database takes writes.
    pub writable: watch::Sender<bool>,
    pub objects: Arc<MemoryStore>,
    pub transport: Arc<FakeTransport>,
    pub told: mpsc::UnboundedReceiver<TasksMsg>,
    pub clock: Clock,
    pub machine_clock: SimulatedClock,
    pub tree: SupervisorHandle,
}

impl Node {
    /// A node that knows these workers from its records.
    pub async fn start(machines: &[(&str, &Arc<Machine>)]) -> Self {
        Self::wire(machines, None).await
    }

    /// A node on this machine's clock, which reaches its workers by this transport.
    pub async fn real(transport: Arc<dyn WorkerTransport>) -> Self {
        Self::wire(&[], Some(transport)).await
    }

    async fn wire(machines: &[(&str, &Arc<Machine>)], real: Option<Arc<dyn WorkerTransport>>) -> Self {
        let transport = Arc::new(FakeTransport::default());
        let store: Arc<dyn RecordStore> = Arc::new(helix_database::MemoryStore::new());
        for (name, machine) in machines {
            transport.machines.lock().insert((*name).to_owned(), Arc::clone(machine));
            let write = Write::Worker { worker: Box::new(record(name)), events: Vec::new() };
            store.apply(vec![write]).await.unwrap().remove(0).unwrap();
        }
        let (writable, writing) = watch::channel(true);
        let (writer, ear) = (Address::unbound("writer", 1_000), Address::unbound("tasks", 1_000));
        writer.bind(Actor::spawn(None, Writer, (Arc::clone(&store), writing)).await.unwrap().0);
        let (tell, told) = mpsc::unbounded_channel();
        ear.bind(Actor::spawn(None, Ear, tell).await.unwrap().0);
        let (simulated, machine_clock) = Clock::simulated();
        let (clock, transports) = match real {
            Some(real) => (Clock::system(), vec![real]),
            None => (simulated, vec![transport.clone() as Arc<dyn WorkerTransport>]),
        };
        let objects = Arc::new(MemoryStore::new());
        let args = FleetArgs {
            address: FleetArgs::unbound_address(),
            records: Records::new(writer, Arc::clone(&store), Duration::from_secs(10)),
            objects: objects.clone(),
            tasks: Tasks::new(ear),
            transports,
            node: NodeId::new(),
            config: WorkersConfig::default(),
            clock: clock.clone(),
        };
        let fleet = args.handle();
        let tree = start(branch(args)).await.expect("the branch starts");
        Self { fleet, store, writable, objects, transport, told, clock, machine_clock, tree }
    }

    /// Waits for a picture of the fleet in which the first worker is as `fits` says.
    pub async fn until(&mut self, fits: impl Fn(&WorkerView) -> bool) -> WorkerView {
        loop {
            if let TasksMsg::FleetChanged { workers } = self.told.recv().await.expect("the fleet runs")
                && let Some(view) = workers.into_iter().find(|view| fits(view))
            {
                return view;
            }
        }
    }

    /// Waits for a loss.
    pub async fn lost(&mut self) -> LostWorker {
        loop {
            if let TasksMsg::WorkerLost { lost } = self.told.recv().await.expect("the fleet runs") {
                return lost;
            }
        }
    }

    /// Everything that was told so far is forgotten; true where a loss was among it.
    pub fn drain_losses(&mut self) -> Vec<LostWorker> {
        let mut losses = Vec::new();
        while let Ok(message) = self.told.try_recv() {
            if let TasksMsg::WorkerLost { lost } = message {
                losses.push(lost);
            }
        }
        losses
    }

    /// A task in the records that nobody has.
    pub async fn created(&self) -> TaskRecord {
        self.asked_for(TaskSpec::new("work", TaskWork::Command(CommandSpec::default()))).await
    }

    /// A task in the records that is to run on this worker alone.
    pub async fn pinned(&self, worker: WorkerId) -> TaskRecord {
        let needs = Needs { worker: Some(worker), ..Needs::default() };
        self.asked_for(TaskSpec { needs, ..TaskSpec::new("work", TaskWork::Command(CommandSpec::default())) }).await
    }

    async fn asked_for(&self, spec: TaskSpec) -> TaskRecord {
        let id = TaskId::new();
        self.written(Write::CreateTask {
            id,
            attempt: AttemptId(id.0),
            spec: Box::new(spec),
            principal: Principal::local("test"),
            project: ProjectId::DEFAULT,
            idempotency_key: None,
            paused: None,
        })
        .await
    }

    /// A task in the records that the worker of this name has.
    pub async fn claimed(&self, name: &str) -> TaskRecord {
        let task = self.created().await;
        let workers = self.store.workers().await.unwrap();
        let worker = workers.iter().find(|worker| worker.name == name).expect("it is known").id;
        self.written(Write::Claim { task: task.id, expected: task.epoch, node: NodeId::new(), worker, events: Vec::new() }).await
    }

    /// The task after its worker was given up and no other was free.
    pub async fn waiting(&self, task: &TaskRecord) -> TaskRecord {
        let change = StatusChange {
            task: task.id,
            epoch: Some(task.epoch),
            from: vec![task.status],
            to: TaskStatus::WaitingForWorker,
            fence: true,
            reason: String::new(),
            hint: String::new(),
            retries: None,
            not_before: None,
            budget: None,
        };
        self.written(Write::Status { change: Box::new(change), events: Vec::new() }).await
    }

    async fn written(&self, write: Write) -> TaskRecord {
        match self.store.apply(vec![write]).await.unwrap().remove(0).unwrap() {
            Applied::Task { task, .. } => *task,
            other => panic!("{other:?}"),
        }
    }

    /// The kinds of events recorded so far.
    pub async fn events(&self) -> Vec<&'static str> {
        let filter = helix_database::EventFilter { after: 0, task: None, limit: 1_000 };
        self.store.events(filter).await.unwrap().iter().map(|event| event.event.kind.as_str()).collect()
    }
}

/// A worker's row.
pub fn record(name: &str) -> WorkerRecord {
    WorkerRecord {
        id: WorkerId::new(),
        name: name.to_owned(),
        target: target(name),
        slots: 4,
        lifecycle: Lifecycle::Open,
        status: WorkerStatus::Inactive,
        health: WorkerHealth::Unknown,
        facts: None,
        reason: String::new(),
        created_at: Timestamp(0),
        last_seen_at: None,
        version: 0,
    }
}

pub fn target(name: &str) -> WorkerTarget {
    WorkerTarget::Local { folder: name.to_owned() }
}

pub fn addition(name: &str) -> AddWorker {
    AddWorker { name: String::new(), target: target(name), slots: None }
}
