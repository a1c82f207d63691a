//! The worker's process: the real link, the real fence, the real tables of calls and steps, over workspaces in memory.
//!
//! What the machine does not simulate is left out (programs, output, set-up); what decides who may act, and what is done once, is
//! the worker's own code or follows it line by line.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_actor_runner::calls::{Begun, Calls, Keep};
use helix_actor_runner::fence::{Fence, Standing};
use helix_link::{Asked, Event, Link, LinkHandle, Options, accept_as_worker};
use helix_objects::{Durability, NewObject, ObjectStore as _};
use helix_protocol::link::{Heartbeat, Hello, Holding, Notice, OpenWorkspace, Request, Response, Snapshotted, StreamId, Welcome};
use helix_protocol::{
    CallKey, Capability, Code, Epoch, ExitReport, Failure, NodeId, ObjectId, Resources, RunId, Sandboxing, TaskId, ToolCall,
    ToolOutcome, WorkerFacts,
};
use helix_versions::missing_closure;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpStream;

use crate::machine::Machine;
use crate::workspaces::{Part, changes, encode, load, parse};

type Answer = Result<Response, Failure>;

/// Results kept of each task.
const KEPT: usize = 64;
/// Between two looks at the fence.
const LOOK_AT_FENCE: Duration = Duration::from_millis(500);
/// Between two looks of the guard at what is frozen.
const LOOK: Duration = Duration::from_millis(100);

/// Who is served.
#[derive(Default)]
struct Served {
    node: Option<NodeId>,
    current: Option<(u64, Option<LinkHandle>)>,
}

/// A running worker.
pub struct Process {
    machine: Arc<Machine>,
    incarnation: u64,
    dead: CancellationToken,
    fence: Mutex<Fence>,
    /// What the guard was told last: past it nothing runs.
    deadline: Mutex<Option<Duration>>,
    calls: Mutex<Calls<oneshot::Sender<Answer>, Answer>>,
    /// The openings of this incarnation.
    opened: Mutex<BTreeMap<TaskId, Epoch>>,
    running: Mutex<HashMap<(TaskId, CallKey), CancellationToken>>,
    served: Mutex<Served>,
}

fn stale(known: Epoch) -> Failure {
    Failure::new(Code::StaleOwner, format!("the worker knows epoch {known}"))
}

fn not_open() -> Failure {
    Failure::new(Code::NotFound, "the workspace is not open")
}

/// The lease.
impl Process {
    fn standing(&self) -> Standing {
        self.fence.lock().standing(self.machine.now())
    }

    fn check_lease(&self) -> Result<(), Failure> {
        match self.standing() {
            Standing::Live { .. } => Ok(()),
            _ => Err(Failure::new(Code::LeaseExpired, "the worker has fenced itself")),
        }
    }

    fn acknowledged(&self, connection: u64, sequence: u64) {
        if let Some(until) = self.fence.lock().acknowledged(connection, sequence) {
            *self.deadline.lock() = Some(until);
        }
    }

    /// One node at a time, and its newest connection.
    fn admit(&self, hello: &Hello) -> Result<(), Failure> {
        let mut served = self.served.lock();
        let live = matches!(self.standing(), Standing::Live { .. });
        if served.node.is_some_and(|node| node != hello.node) && live {
            return Err(Failure::new(Code::InvalidState, "the worker serves another node"));
        }
        let stands = |handle: &Option<LinkHandle>| handle.as_ref().is_none_or(|handle| !handle.is_closed());
        let newer = served.current.as_ref().is_some_and(|(number, handle)| stands(handle) && *number >= hello.connection);
        if newer && served.node == Some(hello.node) {
            return Err(Failure::new(Code::InvalidState, "a newer connection of this node stands"));
        }
        if let Some((_, Some(handle))) = served.current.take() {
            handle.abort();
        }
        served.node = Some(hello.node);
        served.current = Some((hello.connection, None));
        let lasts = Duration::from_millis(hello.lease.fence_ms);
        self.fence.lock().connected(hello.connection, lasts, self.machine.now());
        Ok(())
    }
}

/// Its life, and its connections.
impl Process {
    pub fn new(machine: Arc<Machine>, incarnation: u64) -> Arc<Self> {
        Arc::new(Self {
            machine,
            incarnation,
            dead: CancellationToken::new(),
            fence: Mutex::default(),
            deadline: Mutex::default(),
            calls: Mutex::new(Calls::new(KEPT)),
            opened: Mutex::default(),
            running: Mutex::default(),
            served: Mutex::default(),
        })
    }

    pub fn die(&self) {
        self.dead.cancel();
        if let Some((_, Some(handle))) = self.served.lock().current.take() {
            handle.abort();
        }
    }

    fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Waits while the process does not run. Gives `None` once it is dead.
    async fn awake(&self) -> Option<()> {
        self.dead.run_until_cancelled(self.machine.runs(|now| !now.stopped && !now.suspended)).await?;
        (!self.is_dead()).then_some(())
    }

    /// Serves a connection to its end.
    pub async fn serve(self: Arc<Self>, stream: TcpStream) -> Option<()> {
        self.awake().await?;
        let machine = Arc::clone(&self.machine);
        let options = Options { clock: Arc::new(move || machine.now()), ..Options::default() };
        let greeting = self.dead.run_until_cancelled(accept_as_worker(stream, options)).await?.ok()?;
        self.awake().await?;
        let hello = greeting.hello().clone();
        let version = greeting.version().ok()?;
        if let Err(failure) = self.admit(&hello) {
            return greeting.refuse(failure).await.ok();
        }
        let pid = u32::try_from(self.incarnation).expect("few starts");
        let (incarnation, holds) = (self.incarnation, self.holds());
        let welcome = Welcome { version, build: "simulated".to_owned(), incarnation, pid, facts: facts(), holds };
        let link = greeting.welcome(welcome).await.ok()?;
        self.machine.oracle.tell(&self.machine.name, "serves a node");
        let connection = hello.connection;
        match &mut self.served.lock().current {
            Some((number, handle)) if *number == connection => *handle = Some(link.handle.clone()),
            _ => link.handle.abort(),
        }
        let every = Duration::from_millis(hello.lease.heartbeat_ms);
        let beating = tokio::spawn(Arc::clone(&self).beat(link.handle.clone(), connection, every));
        let looking = tokio::spawn(Arc::clone(&self).look(link.handle.clone()));
        let heard = self.dead.run_until_cancelled(Arc::clone(&self).hear(link, connection)).await;
        beating.abort();
        looking.abort();
        heard
    }

    async fn beat(self: Arc<Self>, link: LinkHandle, connection: u64, every: Duration) -> Option<()> {
        for sequence in 1.. {
            self.awake().await?;
            self.fence.lock().sent(connection, sequence, self.machine.now());
            link.heartbeat(Heartbeat { sequence, load: 0.0, memory_percent: 10, disk_percent: 10, free: None }).await.ok()?;
            tokio::time::sleep(every).await;
        }
        None
    }

    /// Tells the node of the fence.
    async fn look(self: Arc<Self>, link: LinkHandle) -> Option<()> {
        let mut told = false;
        loop {
            tokio::time::sleep(LOOK_AT_FENCE).await;
            self.awake().await?;
            let frozen = matches!(self.standing(), Standing::Fenced { .. });
            if frozen != told {
                told = frozen;
                link.notify(Notice::Fenced { frozen }).await.ok()?;
            }
        }
    }

    async fn hear(self: Arc<Self>, mut link: Link, connection: u64) {
        loop {
            let event = link.incoming.next().await;
            if self.awake().await.is_none() {
                return;
            }
            match event {
                Event::Request(asked) => {
                    if !matches!(asked.body, Request::Close { .. }) {
                        self.acknowledged(connection, 0);
                    }
                    tokio::spawn(Arc::clone(&self).answer(link.handle.clone(), asked));
                }
                Event::HeartbeatAck(ack) => self.acknowledged(connection, ack.sequence),
                Event::Closed(_) => return,
                _ => link.handle.abort(),
            }
        }
    }

    async fn answer(self: Arc<Self>, link: LinkHandle, asked: Asked) -> Option<()> {
        let result = self.dead.run_until_cancelled(self.request(&link, asked.body)).await?;
        self.awake().await?;
        asked.reply.send(result).await;
        Some(())
    }

    fn holds(&self) -> Vec<Holding> {
        let calls = self.calls.lock();
        let spaces = self.machine.spaces.lock();
        let held = |(task, space): (&TaskId, &crate::machine::Space)| {
            Some(Holding { task: *task, epoch: space.epoch, tree: space.tree?, calls: calls.keys(*task) })
        };
        spaces.iter().filter_map(held).collect()
    }
}

/// What is asked.
impl Process {
    async fn request(self: &Arc<Self>, link: &LinkHandle, request: Request) -> Answer {
        match request {
            Request::Ping => Ok(Response::Pong),
            Request::Inspect => Ok(Response::Inspected { facts: facts() }),
            Request::Missing { objects } => Ok(Response::Missing { objects: self.machine.objects.missing(&objects)? }),
            Request::Store { stream } => self.take(link, stream).await,
            Request::Open(open) => self.open(&open),
            Request::Adopt { task, epoch, tree } => self.adopt(task, epoch, tree),
            Request::Tool { task, epoch, call, .. } => self.tool(task, epoch, call).await,
            Request::Run { task, epoch, key, run, command, .. } => self.run(task, epoch, key, run, command).await,
            Request::Cancel { task, epoch, key, .. } => self.cancel(task, epoch, key),
            Request::Snapshot { task, epoch, since, .. } => self.snapshot(link, task, epoch, since),
            Request::Close { task, epoch } => self.close(task, epoch),
            other => Err(Failure::new(Code::InvalidRequest, format!("machines do not simulate {other:?}"))),
        }
    }

    async fn take(&self, link: &LinkHandle, stream: StreamId) -> Answer {
        let received = link.receive_objects(stream).collect_all().await?;
        let checked = received.into_iter().map(|(id, bytes)| NewObject::checked(id, bytes)).collect::<Result<Vec<_>, _>>()?;
        self.machine.objects.put(&checked, Durability::NoSync)?;
        Ok(Response::Stored { objects: checked.len() as u64, bytes: 0 })
    }

    /// Everything that runs in a workspace ends.
    fn clear(&self, task: TaskId) {
        for ((of, _), stop) in self.running.lock().iter() {
            if *of == task {
                stop.cancel();
            }
        }
        self.opened.lock().remove(&task);
    }

    fn open(&self, open: &OpenWorkspace) -> Answer {
        self.check_lease()?;
        let (task, epoch) = (open.task, open.epoch);
        {
            let mut spaces = self.machine.spaces.lock();
            let space = spaces.entry(task).or_default();
            if epoch < space.epoch {
                return Err(stale(space.epoch));
            }
            space.epoch = epoch;
        }
        self.calls.lock().give_up(task);
        self.clear(task);
        let missing = missing_closure(&self.machine.objects, open.tree)?;
        if let Some(first) = missing.first() {
            return Err(Failure::new(Code::ObjectsMissing, format!("{first} and others are missing")));
        }
        let files = load(&self.machine.objects, open.tree)?;
        let mut calls = self.calls.lock();
        calls.forget(task);
        calls.opened(task, open.tree);
        self.machine.spaces.lock().insert(task, crate::machine::Space { epoch, tree: Some(open.tree), files });
        self.opened.lock().insert(task, epoch);
        self.machine.oracle.tell_of(&self.machine.name, task, &format!("is opened under {epoch}"));
        Ok(Response::Opened { folder: "/w".to_owned(), ports: Vec::new(), setup: None, warm: false })
    }

    fn adopt(&self, task: TaskId, epoch: Epoch, tree: ObjectId) -> Answer {
        self.check_lease()?;
        let mut spaces = self.machine.spaces.lock();
        let space = spaces.get_mut(&task).ok_or_else(not_open)?;
        if epoch < space.epoch {
            return Err(stale(space.epoch));
        }
        let opened = self.opened.lock().get(&task).copied();
        match opened {
            Some(opened) if self.calls.lock().resume(task, tree) => {
                space.epoch = epoch;
                self.machine.oracle.adopted(&self.machine.name, task, epoch);
                Ok(Response::Adopted { opened })
            }
            _ => Err(Failure::new(Code::NotFound, "the step cannot go on here")),
        }
    }

    /// The opening, for the owner, while the lease lasts.
    fn enter(&self, task: TaskId, epoch: Epoch) -> Result<Epoch, Failure> {
        self.check_lease()?;
        self.check(task, epoch)?;
        self.opened.lock().get(&task).copied().ok_or_else(not_open)
    }

    fn check(&self, task: TaskId, epoch: Epoch) -> Result<(), Failure> {
        let known = self.machine.spaces.lock().get(&task).ok_or_else(not_open)?.epoch;
        if known == epoch { Ok(()) } else { Err(stale(known)) }
    }

    async fn tool(self: &Arc<Self>, task: TaskId, epoch: Epoch, call: ToolCall) -> Answer {
        let opening = self.enter(task, epoch)?;
        let text = |field: &str| call.input[field].as_str().unwrap_or_default().to_owned();
        let part = Part::Append(text("path"), text("text"));
        let (process, key) = (Arc::clone(self), call.key.clone());
        let work = async move {
            process.act(task, opening, &key, vec![part]).await?;
            Ok(Response::Tool { outcome: ToolOutcome::ok("done") })
        };
        let answer = self.once(task, call.key, work).await;
        self.answer_of(answer, task, epoch)
    }

    async fn run(self: &Arc<Self>, task: TaskId, epoch: Epoch, key: CallKey, run: RunId, command: String) -> Answer {
        let opening = self.enter(task, epoch)?;
        let (process, run_key) = (Arc::clone(self), key.clone());
        let work = async move {
            let exit_code = process.act(task, opening, &run_key, parse(&command)).await?;
            let report = ExitReport { run, command, exit_code, tail: String::new(), output: None, output_bytes: 0 };
            Ok(Response::Ran { report })
        };
        let answer = self.once(task, key, work).await;
        self.answer_of(answer, task, epoch)
    }

    fn answer_of(&self, answer: Answer, task: TaskId, epoch: Epoch) -> Answer {
        let response = answer?;
        self.check(task, epoch)?;
        self.check_lease()?;
        Ok(response)
    }

    async fn once(self: &Arc<Self>, task: TaskId, key: CallKey, work: impl Future<Output = Answer> + Send + 'static) -> Answer {
        let (waiter, result) = oneshot::channel();
        let begun = self.calls.lock().begin(task, &key, waiter);
        match begun {
            Begun::Kept(_, kept) => return kept,
            Begun::Joined => {}
            Begun::Start => {
                let process = Arc::clone(self);
                tokio::spawn(async move {
                    let result = process.dead.run_until_cancelled(work).await?;
                    let keep = match &result {
                        Ok(_) => Keep::Result,
                        Err(failure) if matches!(failure.code, Code::LeaseExpired | Code::StaleOwner) => Keep::Refusal,
                        Err(_) => Keep::Nothing,
                    };
                    let waiters = process.calls.lock().finish(task, &key, result.clone(), keep);
                    for waiter in waiters {
                        let _ = waiter.send(result.clone());
                    }
                    Some(())
                });
            }
        }
        result.await.unwrap_or_else(|_| Err(Failure::new(Code::ShuttingDown, "the worker is stopping")))
    }

    /// Does the parts of a command one after the other. Answers with its exit code.
    async fn act(&self, task: TaskId, opening: Epoch, key: &CallKey, parts: Vec<Part>) -> Result<i32, Failure> {
        let stop = CancellationToken::new();
        self.running.lock().insert((task, key.clone()), stop.clone());
        let mut done = Ok(0);
        for part in parts {
            done = match part {
                Part::Sleep(ms) => match stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(ms))).await {
                    Some(()) => Ok(0),
                    None => Ok(143),
                },
                Part::Append(file, text) => self.append(task, opening, &stop, &file, &text).await,
            };
            if done != Ok(0) {
                break;
            }
        }
        self.running.lock().remove(&(task, key.clone()));
        if self.opened.lock().get(&task) != Some(&opening) {
            return Err(stale(opening));
        }
        done
    }

    /// The effect. It comes when the machine runs and the guard lets it, unless the command was ended meanwhile.
    async fn append(&self, task: TaskId, opening: Epoch, stop: &CancellationToken, file: &str, text: &str) -> Result<i32, Failure> {
        loop {
            self.machine.runs(|now| !now.suspended).await;
            if stop.is_cancelled() || self.is_dead() {
                return Ok(143);
            }
            if self.opened.lock().get(&task) != Some(&opening) {
                return Err(stale(opening));
            }
            if self.deadline.lock().is_some_and(|deadline| self.machine.now() < deadline) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut spaces = self.machine.spaces.lock();
        let space = spaces.get_mut(&task).ok_or_else(not_open)?;
        space.files.entry(file.to_owned()).or_default().extend(format!("{text}\n").bytes());
        let epoch = space.epoch;
        drop(spaces);
        self.machine.oracle.effect(self.machine.worker, task, epoch, &format!("append {file} {text}"));
        Ok(0)
    }

    fn cancel(&self, task: TaskId, epoch: Epoch, key: CallKey) -> Answer {
        self.enter(task, epoch)?;
        self.calls.lock().give_up(task);
        let stop = self.running.lock().get(&(task, key)).cloned();
        Ok(Response::Cancelled { stopped: stop.inspect(CancellationToken::cancel).is_some() })
    }

    fn snapshot(&self, link: &LinkHandle, task: TaskId, epoch: Epoch, since: ObjectId) -> Answer {
        self.enter(task, epoch)?;
        let files = self.machine.spaces.lock().get(&task).map(|space| space.files.clone()).ok_or_else(not_open)?;
        let (tree, objects) = encode(&files)?;
        self.machine.objects.put(&objects, Durability::NoSync)?;
        let before = load(&self.machine.objects, since)?;
        if let Some(space) = self.machine.spaces.lock().get_mut(&task) {
            space.tree = Some(tree);
        }
        self.calls.lock().snapshotted(task, since, tree);
        self.check(task, epoch)?;
        self.check_lease()?;
        let mut stream = None;
        if tree != since {
            let mut writer = link.send_objects();
            stream = Some(writer.stream());
            let content: Vec<(ObjectId, Bytes)> = objects.iter().map(|object| (object.id(), object.bytes().clone())).collect();
            tokio::spawn(async move {
                for (id, bytes) in content {
                    writer.write(id, bytes).await?;
                }
                writer.finish().await
            });
        }
        Ok(Response::Snapshotted(Snapshotted {
            tree,
            changes: changes(&before, &files),
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            stream,
            bytes: 0,
            logical_bytes: 0,
            confinement: None,
        }))
    }

    fn close(&self, task: TaskId, epoch: Epoch) -> Answer {
        let Some(known) = self.machine.spaces.lock().get(&task).map(|space| space.epoch) else { return Ok(Response::Closed) };
        if epoch < known {
            return Err(stale(known));
        }
        self.calls.lock().give_up(task);
        self.clear(task);
        self.machine.spaces.lock().remove(&task);
        self.calls.lock().forget(task);
        Ok(Response::Closed)
    }
}

fn facts() -> WorkerFacts {
    let much = 1 << 20;
    WorkerFacts {
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: "simulated".to_owned(),
        capabilities: vec![Capability(Sandboxing::CAPABILITY.to_owned())],
        toolchains: Vec::new(),
        resources: Resources {
            cores: 64,
            memory_mib: much,
            memory_free_mib: much,
            disk_mib: much,
            disk_free_mib: much,
            ..Resources::default()
        },
        sandbox: Sandboxing { landlock: 7, seccomp: true, namespaces: true, lacks: Vec::new() },
    }
}
