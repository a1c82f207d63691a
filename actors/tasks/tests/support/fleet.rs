//! Workers in memory: workspaces of flat files, epochs that only grow, results kept by call key. A worker can die, and return
//! empty or with what it held.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_kernel::Admitted;
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_messages::{FleetMsg, LostWorker, ReceivedSnapshot, Tasks, TasksMsg, WorkerView};
use helix_objects::{Durability, NewObject, ObjectStore, Pin};
use helix_ports::DeathProof;
use helix_protocol::link::{Holding, OpenWorkspace, Request, Response, Snapshotted};
use helix_protocol::{
    Capability, Change, ChangeKind, Code, Epoch, ExitReport, Failure, FileMode, Lifecycle, ObjectId, Resources, Sandboxing, TaskId,
    Timestamp, ToolCall, ToolOutcome, WorkerFacts, WorkerHealth, WorkerId, WorkerRecord, WorkerStatus, WorkerTarget,
};
use helix_versions::{Tree, TreeEntry};
use parking_lot::Mutex;

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
struct Space {
    epoch: Epoch,
    tree: Option<ObjectId>,
    files: Files,
    /// What runs in the background, and when it changes them.
    background: Vec<(tokio::time::Instant, String)>,
    /// What calls answer, and when.
    kept: HashMap<String, (tokio::time::Instant, Response)>,
    /// The epoch it was opened under, where the step in the making began, and where the next one does if that is over.
    opened: Epoch,
    began: Option<ObjectId>,
    next: Option<ObjectId>,
}

impl Space {
    /// A new call: the node makes none before the last step stands.
    fn call(&mut self) {
        self.began = self.next.take().or(self.began);
    }

    /// Does what a call asks for, and answers how long it takes.
    fn tool(&mut self, call: &ToolCall) -> Duration {
        let now = tokio::time::Instant::now();
        match (call.name.as_str(), call.input.as_str()) {
            ("shell", Some(command)) => {
                let (wait, _) = shell(command, &mut Files::new());
                self.background.push((now + wait, command.to_owned()));
                Duration::ZERO
            }
            (_, Some(ms)) => Duration::from_millis(ms.parse().expect("milliseconds")),
            _ => {
                let text = |field: &str| call.input[field].as_str().unwrap_or_default().to_owned();
                self.files.entry(text("path")).or_default().extend(text("text").bytes());
                Duration::ZERO
            }
        }
    }

    /// The files with what ran in the background up to now.
    fn files_now(&mut self) -> &Files {
        let now = tokio::time::Instant::now();
        for (_, command) in self.background.extract_if(.., |(ends, _)| *ends <= now) {
            shell(&command, &mut self.files);
        }
        &self.files
    }

    fn adopt(&mut self, epoch: Epoch, tree: ObjectId) -> Result<Response, Failure> {
        if self.epoch > epoch {
            return Err(stale(self.epoch));
        }
        if ![self.began, self.next].contains(&Some(tree)) {
            return Err(Failure::new(Code::NotFound, "the step began elsewhere"));
        }
        (self.epoch, self.began, self.next) = (epoch, Some(tree), None);
        Ok(Response::Adopted { opened: self.opened })
    }
}

struct Machine {
    view: WorkerView,
    alive: bool,
    /// Between node and machine nothing arrives.
    cut: bool,
    /// The fleet has given it up.
    lost: bool,
    /// Its disk has no byte left.
    full: bool,
    spaces: HashMap<TaskId, Space>,
}

struct State {
    machines: BTreeMap<WorkerId, Machine>,
    tasks: Option<Tasks>,
    /// Every effect in order: worker, task, epoch, what.
    effects: Vec<(WorkerId, TaskId, Epoch, String)>,
    opened: u64,
    /// How often a workspace was looked at.
    looks: u64,
    closed: Vec<(WorkerId, TaskId)>,
}

/// Every machine. Outlives the node.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    objects: Arc<helix_objects::MemoryStore>,
}

fn stale(known: Epoch) -> Failure {
    Failure::new(Code::StaleOwner, format!("the worker knows epoch {known}"))
}

fn no_space() -> Failure {
    Failure::new(Code::DiskFull, "the machine's disk is full").hint("free some space on that disk; work goes on by itself")
}

fn gone(worker: WorkerId) -> Failure {
    Failure::new(Code::WorkerLost, format!("worker {} is dead", worker.short()))
}

impl World {
    pub fn new(objects: Arc<helix_objects::MemoryStore>) -> Self {
        let state = State { machines: BTreeMap::new(), tasks: None, effects: Vec::new(), opened: 0, looks: 0, closed: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), objects }
    }

    /// Adds a machine that is ready.
    pub fn add(&self, name: &str, slots: u32) -> WorkerId {
        let id = WorkerId::new();
        let facts = WorkerFacts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            hostname: name.to_owned(),
            capabilities: vec![Capability(Sandboxing::CAPABILITY.to_owned())],
            toolchains: Vec::new(),
            resources: Resources {
                cores: 64,
                memory_mib: 1 << 20,
                memory_free_mib: 1 << 20,
                disk_mib: 1 << 20,
                disk_free_mib: 1 << 20,
                ..Resources::default()
            },
            sandbox: Sandboxing { landlock: 7, seccomp: true, namespaces: true, lacks: Vec::new() },
        };
        let record = WorkerRecord {
            id,
            name: name.to_owned(),
            target: WorkerTarget::Local { folder: String::new() },
            slots,
            lifecycle: Lifecycle::Open,
            status: WorkerStatus::Active,
            health: WorkerHealth::Healthy,
            facts: Some(facts),
            reason: String::new(),
            created_at: Timestamp(0),
            last_seen_at: None,
            version: 1,
        };
        let view = WorkerView { record, ready: true, lost: false, incarnation: 1, pid: None, holds: Vec::new() };
        self.state
            .lock()
            .machines
            .insert(id, Machine { view, alive: true, cut: false, lost: false, full: false, spaces: HashMap::new() });
        self.changed();
        id
    }

    /// From now on a machine's kernel has nothing to put around commands, or has it again.
    pub fn set_sandbox(&self, worker: WorkerId, sandbox: Sandboxing) {
        if let Some(facts) = self.state.lock().machines.get_mut(&worker).and_then(|machine| machine.view.record.facts.as_mut()) {
            facts.capabilities = sandbox.is_enough().then(|| Capability(Sandboxing::CAPABILITY.to_owned())).into_iter().collect();
            facts.sandbox = sandbox;
        }
        self.changed();
    }

    /// Whom the fleet reports to.
    pub fn tell_to(&self, tasks: Option<Tasks>) {
        self.state.lock().tasks = tasks;
        self.changed();
    }

    fn changed(&self) {
        let workers = self.views();
        self.tell(TasksMsg::FleetChanged { workers });
    }

    fn tell(&self, message: TasksMsg) {
        let tasks = self.state.lock().tasks.clone();
        if let Some(tasks) = tasks {
            let _ = tasks.address().tell(message);
        }
    }

    pub fn views(&self) -> Vec<WorkerView> {
        self.state.lock().machines.values().map(|machine| machine.view.clone()).collect()
    }

    /// A machine's process dies, and its line with it; the fleet does not know why yet.
    pub fn crash(&self, worker: WorkerId) {
        self.state.lock().machines.get_mut(&worker).expect("it was added").alive = false;
        self.changed();
    }

    /// A machine's process dies; the fleet knows and says so: first that it is given up, then why.
    pub fn kill(&self, worker: WorkerId) {
        let lost = {
            let mut state = self.state.lock();
            let machine = state.machines.get_mut(&worker).expect("it was added");
            machine.alive = false;
            (machine.view.ready, machine.view.lost) = (false, true);
            LostWorker {
                worker,
                name: machine.view.record.name.clone(),
                incarnation: machine.view.incarnation,
                proof: DeathProof::ConnectionRefused,
                silent_ms: 5,
            }
        };
        self.changed();
        self.tell(TasksMsg::WorkerLost { lost });
    }

    /// It is started again, with the workspaces on its disk.
    pub fn revive(&self, worker: WorkerId) {
        {
            let mut state = self.state.lock();
            let machine = state.machines.get_mut(&worker).expect("it was added");
            machine.alive = true;
            (machine.view.ready, machine.view.lost) = (true, false);
            machine.view.incarnation += 1;
            machine.view.holds = machine
                .spaces
                .iter()
                .filter_map(|(task, space)| Some(Holding { task: *task, epoch: space.epoch, tree: space.tree?, calls: Vec::new() }))
                .collect();
        }
        self.changed();
    }

    /// Nothing arrives any more, in either direction. The machine lives on.
    pub fn cut(&self, worker: WorkerId) {
        {
            let mut state = self.state.lock();
            let machine = state.machines.get_mut(&worker).expect("it was added");
            machine.cut = true;
            machine.view.ready = false;
        }
        self.changed();
    }

    /// Its lease has ended: the fleet says so.
    pub fn expire(&self, worker: WorkerId, silent_ms: u64) {
        let lost = {
            let mut state = self.state.lock();
            let machine = state.machines.get_mut(&worker).expect("it was added");
            if !machine.cut || machine.lost {
                return;
            }
            machine.lost = true;
            let proof = DeathProof::LeaseExpired { silent_ms };
            LostWorker { worker, name: machine.view.record.name.clone(), incarnation: machine.view.incarnation, proof, silent_ms }
        };
        self.tell(TasksMsg::WorkerLost { lost });
    }

    /// The line is mended, or the machine started again.
    pub fn mend(&self, worker: WorkerId) {
        let alive = {
            let mut state = self.state.lock();
            let machine = state.machines.get_mut(&worker).expect("it was added");
            (machine.cut, machine.lost) = (false, false);
            machine.alive
        };
        if alive {
            // The same process, with what it held.
            self.state.lock().machines.get_mut(&worker).expect("it was added").view.incarnation -= 1;
        }
        self.revive(worker);
    }

    /// Waits until something arrives at the machine, or the fleet has given it up.
    async fn reach(&self, worker: WorkerId) -> Result<(), Failure> {
        loop {
            {
                let state = self.state.lock();
                match state.machines.get(&worker) {
                    Some(machine) if machine.alive && machine.cut && !machine.lost => {}
                    Some(machine) if machine.alive && !machine.lost => return Ok(()),
                    _ => return Err(gone(worker)),
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn reachable(&self, worker: WorkerId) -> bool {
        self.state.lock().machines.get(&worker).is_some_and(|machine| machine.alive && !machine.cut)
    }

    pub fn set_ready(&self, worker: WorkerId, ready: bool) {
        self.state.lock().machines.get_mut(&worker).expect("it was added").view.ready = ready;
        self.changed();
    }

    /// Fills the machine's disk, or makes room on it.
    pub fn set_full(&self, worker: WorkerId, full: bool) {
        self.state.lock().machines.get_mut(&worker).expect("it was added").full = full;
    }

    pub fn set_lifecycle(&self, worker: WorkerId, lifecycle: Lifecycle) {
        self.state.lock().machines.get_mut(&worker).expect("it was added").view.record.lifecycle = lifecycle;
        self.changed();
        self.tell(TasksMsg::WorkerLifecycle { worker, lifecycle });
    }

    pub fn effects(&self) -> Vec<(WorkerId, TaskId, Epoch, String)> {
        self.state.lock().effects.clone()
    }

    pub fn closed(&self) -> Vec<(WorkerId, TaskId)> {
        self.state.lock().closed.clone()
    }

    /// The worker drops what it knows of its workspaces' steps.
    pub fn forget_answers(&self, worker: WorkerId) {
        let mut state = self.state.lock();
        for space in state.machines.get_mut(&worker).expect("it was added").spaces.values_mut() {
            (space.began, space.next) = (None, None);
            space.kept.clear();
        }
    }

    pub fn opened(&self) -> u64 {
        self.state.lock().opened
    }

    pub fn looks(&self) -> u64 {
        self.state.lock().looks
    }

    pub fn read_tree(&self, tree: ObjectId) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("tests write text");
        self.load(tree).expect("the tree is there").into_iter().map(|(name, bytes)| (name, text(bytes))).collect()
    }

    fn load(&self, tree: ObjectId) -> Result<Files, Failure> {
        let tree = Tree::load(&*self.objects, tree)?;
        let mut files = Files::new();
        for entry in tree.entries() {
            let name = String::from_utf8(entry.name.clone()).expect("tests use plain names");
            files.insert(name, self.objects.read(entry.id)?.to_vec());
        }
        Ok(files)
    }

    fn open(&self, worker: WorkerId, open: &OpenWorkspace) -> Result<Response, Failure> {
        let mut state = self.state.lock();
        state.opened += 1;
        let machine = state.machines.get_mut(&worker).filter(|machine| machine.alive).ok_or_else(|| gone(worker))?;
        if machine.full {
            return Err(no_space());
        }
        let space = machine.spaces.entry(open.task).or_default();
        if space.epoch > open.epoch {
            return Err(stale(space.epoch));
        }
        let warm = space.tree == Some(open.tree);
        *space = Space {
            epoch: open.epoch,
            tree: Some(open.tree),
            files: self.load(open.tree)?,
            background: Vec::new(),
            kept: HashMap::new(),
            opened: open.epoch,
            began: Some(open.tree),
            next: None,
        };
        Ok(Response::Opened { folder: "/w".to_owned(), ports: Vec::new(), setup: None, warm })
    }

    /// What a request does at once; a duration where it takes time before its answer.
    fn request(&self, worker: WorkerId, request: Request) -> (Duration, Result<Response, Failure>) {
        let mut state = self.state.lock();
        let Some(machine) = state.machines.get_mut(&worker).filter(|machine| machine.alive) else {
            return (Duration::ZERO, Err(gone(worker)));
        };
        let now = |answer| (Duration::ZERO, answer);
        match request {
            Request::Ping => now(Ok(Response::Pong)),
            Request::Close { task, epoch } => {
                if machine.spaces.get(&task).is_some_and(|space| space.epoch > epoch) {
                    return now(Err(Failure::new(Code::StaleOwner, "newer")));
                }
                machine.spaces.remove(&task);
                state.closed.push((worker, task));
                now(Ok(Response::Closed))
            }
            Request::Adopt { task, epoch, tree } => {
                let lacks = || Failure::new(Code::NotFound, "no workspace");
                now(machine.spaces.get_mut(&task).ok_or_else(lacks).and_then(|space| space.adopt(epoch, tree)))
            }
            Request::Cancel { .. } => now(Ok(Response::Cancelled { stopped: true })),
            Request::Tool { .. } | Request::Run { .. } if machine.full => now(Err(no_space())),
            Request::Tool { task, epoch, call, .. } => {
                let Some(space) = machine.spaces.get_mut(&task) else {
                    return now(Err(Failure::new(Code::NotFound, "no workspace")));
                };
                if space.epoch != epoch {
                    return now(Err(stale(space.epoch)));
                }
                if let Some((ends, kept)) = space.kept.get(&call.key.0) {
                    return (ends.saturating_duration_since(tokio::time::Instant::now()), Ok(kept.clone()));
                }
                space.call();
                let wait = space.tool(&call);
                let answer = Response::Tool { outcome: ToolOutcome::ok("done") };
                space.kept.insert(call.key.0.clone(), (tokio::time::Instant::now() + wait, answer.clone()));
                state.effects.push((worker, task, epoch, call.name));
                (wait, Ok(answer))
            }
            Request::Run { task, epoch, key, run, command, .. } => {
                let Some(space) = machine.spaces.get_mut(&task) else {
                    return now(Err(Failure::new(Code::NotFound, "no workspace")));
                };
                if space.epoch != epoch {
                    return now(Err(stale(space.epoch)));
                }
                if let Some((ends, kept)) = space.kept.get(&key.0) {
                    return (ends.saturating_duration_since(tokio::time::Instant::now()), Ok(kept.clone()));
                }
                space.call();
                let (wait, exit_code) = shell(&command, &mut space.files);
                let report =
                    ExitReport { run, command: command.clone(), exit_code, tail: "tail".to_owned(), output: None, output_bytes: 4 };
                let answer = Response::Ran { report };
                space.kept.insert(key.0, (tokio::time::Instant::now() + wait, answer.clone()));
                state.effects.push((worker, task, epoch, command));
                (wait, Ok(answer))
            }
            other => now(Err(Failure::new(Code::InvalidRequest, format!("not part of the test: {other:?}")))),
        }
    }

    fn snapshot(&self, worker: WorkerId, task: TaskId, epoch: Epoch, since: ObjectId) -> Result<ReceivedSnapshot, Failure> {
        let before = self.load(since)?;
        let mut state = self.state.lock();
        state.looks += 1;
        let machine = state.machines.get_mut(&worker).filter(|machine| machine.alive).ok_or_else(|| gone(worker))?;
        let space = machine.spaces.get_mut(&task).ok_or_else(|| Failure::new(Code::NotFound, "no workspace"))?;
        if space.epoch != epoch {
            return Err(stale(space.epoch));
        }
        let (mut objects, mut entries) = (Vec::new(), Vec::new());
        for (name, bytes) in space.files_now() {
            let object = NewObject::new(Bytes::from(bytes.clone()));
            entries.push(TreeEntry {
                name: name.clone().into_bytes(),
                mode: FileMode::Regular,
                size: bytes.len() as u64,
                id: object.id(),
            });
            objects.push(object);
        }
        let tree = Tree::new(entries)?.encode();
        let id = tree.id();
        objects.push(tree);
        let mark = self.objects.put(&objects, Durability::Group)?;
        self.objects.pin(Pin { task, epoch }, &objects.iter().map(NewObject::id).collect::<Vec<_>>())?;
        space.tree = Some(id);
        (space.began, space.next) = (Some(since), Some(id));
        let changes = changes(&before, &space.files);
        let snapshot = Snapshotted {
            tree: id,
            changes,
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            stream: None,
            bytes: 0,
            logical_bytes: 0,
            confinement: None,
        };
        Ok(ReceivedSnapshot { snapshot, mark })
    }
}

fn changes(before: &Files, after: &Files) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, bytes) in after {
        let kind = match before.get(path) {
            None => ChangeKind::Added,
            Some(old) if old != bytes => ChangeKind::Modified,
            Some(_) => continue,
        };
        changes.push(Change { path: path.clone(), kind, size: bytes.len() as u64 });
    }
    let removed = before.keys().filter(|path| !after.contains_key(*path));
    changes.extend(removed.map(|path| Change { path: path.clone(), kind: ChangeKind::Removed, size: 0 }));
    changes
}

/// `append FILE TEXT`, `sleep MS`, `exit CODE`, joined by `;`. Files change at once, the answer comes when it has slept.
fn shell(command: &str, files: &mut Files) -> (Duration, i32) {
    let mut slept = Duration::ZERO;
    for part in command.split(';') {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words.as_slice() {
            ["append", file, text] => {
                let file = files.entry((*file).to_owned()).or_default();
                file.extend(format!("{text}\n").bytes());
            }
            ["sleep", ms] => slept += Duration::from_millis(ms.parse().expect("milliseconds")),
            ["exit", code] => return (slept, code.parse().expect("a code")),
            _ => return (slept, 127),
        }
    }
    (slept, 0)
}

pub struct FakeFleet;

impl Actor for FakeFleet {
    type Msg = Admitted<FleetMsg>;
    type State = World;
    type Arguments = (World, Tasks);

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (world, _): Self::Arguments) -> Result<World, ActorProcessingErr> {
        Ok(world)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, world: &mut World) -> Result<(), ActorProcessingErr> {
        match message.take() {
            FleetMsg::List { reply } => drop(reply.send(Ok(world.views()))),
            FleetMsg::Open { worker, open, reply } => {
                let world = world.clone();
                tokio::spawn(async move {
                    let reached = world.reach(worker).await;
                    let _ = reply.send(reached.and_then(|()| world.open(worker, &open)));
                });
            }
            FleetMsg::Request { worker, request, reply, .. } if !world.reachable(worker) => {
                let world = world.clone();
                tokio::spawn(async move {
                    if let Err(failure) = world.reach(worker).await {
                        let _ = reply.send(Err(failure));
                        return;
                    }
                    let (wait, answer) = world.request(worker, *request);
                    tokio::time::sleep(wait).await;
                    let reached = world.reach(worker).await;
                    let _ = reply.send(reached.and(answer));
                });
            }
            FleetMsg::Request { worker, request, reply, .. } => {
                let (wait, answer) = world.request(worker, *request);
                if wait.is_zero() {
                    let _ = reply.send(answer);
                } else {
                    let world = world.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(wait).await;
                        let reached = world.reach(worker).await;
                        let _ = reply.send(reached.and(answer));
                    });
                }
            }
            FleetMsg::Snapshot { worker, task, epoch, since, reply, .. } => {
                drop(reply.send(world.snapshot(worker, task, epoch, since)))
            }
            _ => {}
        }
        Ok(())
    }
}
