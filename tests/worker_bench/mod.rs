//! A worker process in a temporary folder, and a node's end of the link to it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use bytes::Bytes;
use helix_link::{Link, LinkHandle, Options, connect_as_node};
use helix_protocol::link::{HeartbeatAck, Hello, LeaseTimes, Welcome};
use helix_protocol::{CallKey, NodeId, WorkerId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Longer than anything takes that works.
pub const SOON: Duration = Duration::from_secs(20);
/// A lease short enough for a test and long enough for a loaded machine.
pub const FAST: LeaseTimes = LeaseTimes { heartbeat_ms: 50, suspect_ms: 300, fence_ms: 1_000, reassign_ms: 1_500 };

/// The tree of an empty folder.
pub fn empty_tree() -> ObjectId {
    helix_versions::Tree::new(Vec::new()).expect("no entries").encode().id()
}

/// The key of the call of this number.
pub fn key(number: u32) -> CallKey {
    CallKey(format!("{number:064x}"))
}

/// Looks again and again until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < SOON, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A worker in a folder of its own.
pub struct Bench {
    folder: Arc<tempfile::TempDir>,
    pid: Pid,
    pub incarnation: u64,
    pub node: NodeId,
    worker: WorkerId,
    /// What the worker finds in its environment beside ours.
    variables: Vec<(&'static str, PathBuf)>,
    /// Whose it is, where it is not ours, and the program that this user may run.
    user: Option<(u32, PathBuf)>,
}

/// A user who is nobody in particular.
const NOBODY: u32 = 65_534;

impl Bench {
    /// Starts a worker.
    pub fn start() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::start_in(folder, NodeId::new(), WorkerId::new(), Vec::new(), None)
    }

    /// Starts one of a user who is not root, whoever runs the test.
    pub fn start_as_no_root() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::start();
        }
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        // The build's own may lie where only root may go. Another process copies it: what this one has open for writing, a child that
        // another test starts meanwhile may hold for a moment, and a program that is being written cannot be run.
        let program = folder.path().join("helix-worker");
        let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_helix-worker")).arg(&program).status();
        assert!(copied.expect("cp is everywhere").success(), "copied");
        let variables = vec![("HOME", folder.path().to_owned())];
        Self::start_in(folder, NodeId::new(), WorkerId::new(), variables, Some((NOBODY, program)))
    }

    /// Starts one whose user has this home, in a folder beside it.
    pub fn start_at(home: &Path) -> Self {
        let beside = home.parent().expect("a home is in a folder");
        let folder = Arc::new(tempfile::tempdir_in(beside).expect("a folder"));
        Self::start_in(folder, NodeId::new(), WorkerId::new(), vec![("HOME", home.to_owned())], None)
    }

    /// Starts one in the folder of another, which has died.
    pub fn start_again(&self) -> Self {
        Self::start_in(Arc::clone(&self.folder), self.node, self.worker, self.variables.clone(), self.user.clone())
    }

    fn start_in(
        folder: Arc<tempfile::TempDir>,
        node: NodeId,
        worker: WorkerId,
        variables: Vec<(&'static str, PathBuf)>,
        user: Option<(u32, PathBuf)>,
    ) -> Self {
        let mut bench = Self { folder, pid: rustix::process::getpid(), incarnation: 0, node, worker, variables, user };
        let (code, said) = bench.verb(&["start"]);
        assert_eq!((code, said["started"].as_bool()), (Some(0), Some(true)), "{said}");
        bench.pid = pid_in(&said["pid"].to_string());
        bench.incarnation = said["incarnation"].as_u64().expect("a number");
        bench
    }

    pub fn folder(&self) -> PathBuf {
        std::fs::canonicalize(self.folder.path()).map(|path| path.join("w")).expect("it is there")
    }

    pub fn root(&self, task: TaskId) -> PathBuf {
        self.folder().join("tasks").join(task.to_string()).join("files")
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The guard's process.
    pub fn guard(&self) -> Option<Pid> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero())).into_iter().flatten().flatten();
        let all = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok()).collect::<String>();
        let guards = |pid: &&str| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"guard"))
        };
        all.split_whitespace().find(guards).map(pid_in)
    }

    /// Whether a guard holds its lock.
    pub fn guard_is_ready(&self) -> bool {
        let lock = std::fs::File::open(self.folder().join("guard.lock")).expect("there was a guard");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Runs the program on this folder: exit code, and the line it said.
    pub fn verb(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
        let output = self.command(arguments).output().expect("it runs");
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        (output.status.code(), serde_json::from_slice(&said).unwrap_or_default())
    }

    /// What a bridge ends with that finds no worker.
    pub fn attach_exit(&self) -> (Option<i32>, serde_json::Value) {
        self.verb(&["attach", "--stdio"])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = self.user.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_helix-worker")), |(_, program)| program);
        let mut command = Command::new(program);
        if let Some((user, _)) = self.user {
            command.uid(user).gid(user);
        }
        command.args(arguments).arg("--folder").arg(self.folder.path().join("w")).stdin(Stdio::null());
        command.env("OPENAI_API_KEY", "a key of the shell that started it");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn open_request(task: TaskId, epoch: Epoch, tree: ObjectId) -> OpenWorkspace {
        OpenWorkspace { task, epoch, tree, environment: Environment::default(), secrets: Vec::new(), file_cap_bytes: 1 << 20 }
    }

    pub async fn connect(&self, connection: u64) -> Node {
        self.try_connect_as(self.node, connection).await.expect("connected")
    }

    pub async fn try_connect_as(&self, node: NodeId, connection: u64) -> Result<Node, Failure> {
        let stream = UnixStream::connect(self.folder().join("worker.sock")).await.expect("it listens");
        self.greet(stream, node, connection).await
    }

    async fn greet<IO: AsyncRead + AsyncWrite + Send + 'static>(
        &self,
        io: IO,
        node: NodeId,
        connection: u64,
    ) -> Result<Node, Failure> {
        let hello = Hello { oldest: 1, newest: 1, node, worker: self.worker, connection, lease: FAST, others: Vec::new() };
        let (link, welcome) = connect_as_node(io, hello, Options::default()).await?;
        Ok(Node::new(link, welcome))
    }

    /// A connection through `attach --stdio`.
    pub async fn bridge(&self, connection: u64) -> Bridge {
        let mut command = tokio::process::Command::from(self.command(&["attach", "--stdio"]));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let io = tokio::io::join(process.stdout.take().expect("piped"), process.stdin.take().expect("piped"));
        let node = self.greet(io, self.node, connection).await.expect("connected");
        Bridge { process, node }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let path: &Path = self.folder.path();
        if path.join("w").exists() {
            let _ = kill_process(self.pid, Signal::CONT);
            let _ = self.command(&["stop", "--wipe"]).output();
        }
    }
}

/// A bridge process with a connection over it.
pub struct Bridge {
    pub process: tokio::process::Child,
    pub node: Node,
}

/// The node's end: acknowledges heartbeats by itself unless it is told not to.
pub struct Node {
    pub link: LinkHandle,
    pub welcome: Welcome,
    pub events: mpsc::UnboundedReceiver<Event>,
    acknowledges: Arc<AtomicBool>,
}

impl Node {
    fn new(link: Link, welcome: Welcome) -> Self {
        let Link { handle, mut incoming } = link;
        let acknowledges = Arc::new(AtomicBool::new(true));
        let (sender, events) = mpsc::unbounded_channel();
        let (acking, does) = (handle.clone(), Arc::clone(&acknowledges));
        tokio::spawn(async move {
            loop {
                match incoming.next().await {
                    Event::Heartbeat(beat) if does.load(Ordering::Relaxed) => {
                        let _ = acking.acknowledge(HeartbeatAck { sequence: beat.sequence }).await;
                    }
                    Event::Heartbeat(_) => {}
                    Event::Closed(_) => return,
                    event => {
                        let _ = sender.send(event);
                    }
                }
            }
        });
        Self { link: handle, welcome, events, acknowledges }
    }

    pub fn stop_acknowledging(&self) {
        self.acknowledges.store(false, Ordering::Relaxed);
    }

    pub fn acknowledge_again(&self) {
        self.acknowledges.store(true, Ordering::Relaxed);
    }

    pub async fn ask(&self, body: Request) -> Result<Response, Failure> {
        self.link.request(body, SOON).await
    }

    pub async fn open(&self, task: TaskId, epoch: Epoch, tree: ObjectId) -> TaskId {
        let opened = self.ask(Request::Open(Box::new(Bench::open_request(task, epoch, tree)))).await;
        assert!(matches!(opened, Ok(Response::Opened { .. })), "{opened:?}");
        task
    }

    pub async fn run(&self, task: TaskId, epoch: Epoch, number: u32, command: &str) -> Result<ExitReport, Failure> {
        let body =
            Request::Run { task, epoch, key: key(number), run: RunId::new(), command: command.into(), timeout_ms: Some(15_000) };
        match self.ask(body).await? {
            Response::Ran { report } => Ok(report),
            other => panic!("{other:?}"),
        }
    }

    pub async fn tool(
        &self,
        task: TaskId,
        epoch: Epoch,
        number: u32,
        name: &str,
        input: serde_json::Value,
    ) -> Result<ToolOutcome, Failure> {
        let call = ToolCall { key: key(number), name: name.into(), input };
        match self.ask(Request::Tool { task, epoch, call, limits: ToolLimits::default() }).await? {
            Response::Tool { outcome } => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    pub async fn snapshot(&self, task: TaskId, epoch: Epoch, since: ObjectId) -> (Snapshotted, Vec<(ObjectId, Bytes)>) {
        match self.ask(Request::Snapshot { task, epoch, since, artifacts: Vec::new() }).await {
            Ok(Response::Snapshotted(snapshot)) => {
                let objects = match snapshot.stream {
                    Some(stream) => self.link.receive_objects(stream).collect_all().await.expect("whole"),
                    None => Vec::new(),
                };
                (snapshot, objects)
            }
            other => panic!("{other:?}"),
        }
    }
}
