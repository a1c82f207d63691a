//! What node and worker say to each other.
//!
//! A frame is a four-byte big-endian length and one MessagePack value with named fields. Control
//! frames are at most [`MAX_CONTROL_FRAME`] long, bulk data is cut into chunks of at most
//! [`MAX_CHUNK`], so a heartbeat never waits behind more than one chunk. Both sides may send
//! requests; `id` pairs a reply with its request on one connection. Any frame proves life.
//!
//! Connections are cheap and come and go; what must happen once carries a [`CallKey`]. A request
//! that is repeated with its key on a new connection joins the running call, or is answered with its
//! kept result.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    AgentTurn, CallKey, Change, Confinement, Environment, Epoch, ExitReport, Failure, NodeId, ObjectId, RunId, SkippedFile, TaskId,
    ToolCall, ToolOutcome, TurnReport, WorkerFacts, WorkerId,
};

/// The newest protocol version this build speaks.
pub const VERSION: u16 = 1;
/// The oldest one it still speaks.
pub const OLDEST_VERSION: u16 = 1;
/// The largest control frame in bytes. A longer one closes the connection.
pub const MAX_CONTROL_FRAME: usize = 8 * 1024 * 1024;
/// The largest piece of bulk data in bytes.
pub const MAX_CHUNK: usize = 64 * 1024;
/// How many unacknowledged bytes a bulk stream may have in flight when it opens.
pub const INITIAL_CREDIT: u32 = 1024 * 1024;

/// The capability of workers that know [`Request::Turn`].
pub const AGENT_TURNS: &str = "agent-turns";

/// A bulk stream's number, unique per connection and side.
pub type StreamId = u32;

/// Everything that crosses the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "t", content = "c")]
pub enum Frame {
    /// The node opens.
    Hello(Hello),
    /// The worker answers, or refuses.
    Welcome(Result<Welcome, Failure>),
    /// The worker lives. Sent every heartbeat interval.
    Heartbeat(Heartbeat),
    /// The node heard it: renews the lease of every task it names, counted from that heartbeat's sending.
    HeartbeatAck(HeartbeatAck),
    /// Something is asked.
    Request {
        /// Pairs the reply with it.
        id: u64,
        /// What.
        body: Request,
    },
    /// It is answered.
    Reply {
        /// The request's.
        id: u64,
        /// The answer.
        result: Result<Response, Failure>,
    },
    /// The asker has gone away; the reply is not wanted. What runs under a key goes on.
    Abandon {
        /// The request's.
        id: u64,
    },
    /// A piece of a bulk stream.
    Bulk {
        /// The stream.
        stream: StreamId,
        /// At most [`MAX_CHUNK`] bytes.
        data: Bytes,
    },
    /// The bulk stream is complete.
    BulkEnd {
        /// The stream.
        stream: StreamId,
    },
    /// The sender gives the bulk stream up; what came of it is incomplete.
    BulkFailed {
        /// The stream.
        stream: StreamId,
        /// Why.
        failure: Failure,
    },
    /// The reader took this many bytes of the stream.
    Credit {
        /// The stream.
        stream: StreamId,
        /// How many more bytes may be sent.
        bytes: u32,
    },
    /// The worker tells of something nobody asked for.
    Notice(Notice),
}

/// The node's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version the node speaks.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
    /// The node. A worker serves one node; another node is refused until its lease has ended.
    pub node: NodeId,
    /// What the node calls this worker.
    pub worker: WorkerId,
    /// Grows with every connection the node makes to this worker. The greatest one is the connection; older ones are closed.
    pub connection: u64,
    /// Lease times, in milliseconds.
    pub lease: LeaseTimes,
    /// The node's other workers. A machine that is one of them is reached under two addresses, and refuses to be another.
    #[serde(default)]
    pub others: Vec<OtherWorker>,
}

/// Another worker of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherWorker {
    /// Its id.
    pub worker: WorkerId,
    /// What people call it.
    pub name: String,
}

/// Lease times in milliseconds, counted on CLOCK_BOOTTIME of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTimes {
    /// Between two heartbeats of a worker.
    pub heartbeat_ms: u64,
    /// The node calls a worker suspect after this much silence.
    pub suspect_ms: u64,
    /// The worker freezes its tasks this long after it *sent* its last acknowledged heartbeat.
    pub fence_ms: u64,
    /// The node reassigns a worker's tasks after this much silence.
    pub reassign_ms: u64,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { heartbeat_ms: 1_000, suspect_ms: 3_000, fence_ms: 8_000, reassign_ms: 10_000 }
    }
}

/// The worker's first frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both speak from now on.
    pub version: u16,
    /// The worker program's version.
    pub build: String,
    /// A new number with every start of the worker process.
    pub incarnation: u64,
    /// The worker's process id on its machine.
    pub pid: u32,
    /// What the machine has.
    pub facts: WorkerFacts,
    /// Workspaces the worker holds, with the epoch it knows.
    pub holds: Vec<Holding>,
}

/// A workspace that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The task.
    pub task: TaskId,
    /// The epoch under which the worker last worked on it.
    pub epoch: Epoch,
    /// The tree it last checked out or snapshotted.
    pub tree: ObjectId,
    /// Calls that run or whose results are kept.
    pub calls: Vec<CallKey>,
}

/// The worker lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts heartbeats of this connection.
    pub sequence: u64,
    /// Runnable processes averaged over a minute.
    pub load: f64,
    /// Memory in use, percent.
    pub memory_percent: u8,
    /// Disk in use where workspaces are, percent.
    pub disk_percent: u8,
    /// What is free; a worker of an older build does not say it.
    #[serde(default)]
    pub free: Option<Free>,
}

/// What is free of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// Memory for programs, in MiB.
    pub memory_mib: u64,
    /// Disk where workspaces are, in MiB.
    pub disk_mib: u64,
}

/// The node heard a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The heartbeat's.
    pub sequence: u64,
}

/// What can be asked over the link. Unless said otherwise the node asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "r", content = "c")]
pub enum Request {
    /// Which of these does the worker lack?
    Missing {
        /// At most 65,536 ids.
        objects: Vec<ObjectId>,
    },
    /// Takes objects: a bulk stream of (32-byte id, four-byte big-endian length, bytes) records.
    Store {
        /// The stream that carries them.
        stream: StreamId,
    },
    /// Takes (or takes over) a task's workspace under an epoch and makes it hold `tree`.
    /// Everything that still runs in it under a smaller epoch is killed first. Refused with
    /// `objects_missing` where the worker lacks content, `stale_owner` where it knows a greater epoch.
    Open(Box<OpenWorkspace>),
    /// Takes over a workspace as it is, for the node that was away while its worker went on: the epoch grows, and
    /// nothing else changes. What runs goes on, results stay kept under their keys, files are as the step in the
    /// making left them. Refused with `not_found` where the workspace is not one to go on with: it was not opened since
    /// the worker started, the step in the making began from another tree, or the result of one of its calls is not
    /// kept any more; `stale_owner` where the worker knows a greater epoch. After any refusal the node sends
    /// [`Request::Open`]. A peer that does not know this request closes the connection, and is asked to open on the next.
    Adopt {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// The files from which the step in the making began.
        tree: ObjectId,
    },
    /// Runs a tool in a workspace. Refused with `stale_owner` under another epoch, `lease_expired` while fenced.
    Tool {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// The call; its key makes a repetition harmless.
        call: ToolCall,
        /// What it finds around it.
        limits: ToolLimits,
    },
    /// Runs a command to its end. As `Tool`, with output spooled whole.
    Run {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// Names the run for good.
        key: CallKey,
        /// The run's id for output paging.
        run: RunId,
        /// For `sh -c`.
        command: String,
        /// Killed, with everything it started, after this many milliseconds.
        timeout_ms: Option<u64>,
    },
    /// Has an agent of somebody else's making take a turn in a workspace, as a command that is started and watched. As `Run`. Only
    /// workers whose capabilities name [`AGENT_TURNS`] know it.
    Turn {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// Names the turn for good.
        key: CallKey,
        /// The run's id for output paging: what the agent says, as it says it.
        run: RunId,
        /// The turn.
        turn: Box<AgentTurn>,
    },
    /// Stops what runs under a key: SIGTERM, then SIGKILL after `grace_ms`, the whole group.
    Cancel {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// The call or run.
        key: CallKey,
        /// Between the two signals.
        grace_ms: u64,
    },
    /// Snapshots a workspace. The reply names a bulk stream of the objects that `since` lacks.
    Snapshot {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// A tree the node has; the changes are against it.
        since: ObjectId,
        /// Globs whose matches are listed in the reply.
        artifacts: Vec<String>,
    },
    /// Pages a run's spooled output, stdout and stderr interleaved as they came.
    ReadOutput {
        /// The run.
        run: RunId,
        /// From this byte on.
        offset: u64,
        /// At most this many bytes, and at most [`MAX_CHUNK`].
        limit: u32,
        /// Wait this long for more where there is none yet.
        wait_ms: u64,
    },
    /// Gives a workspace up: kills what runs in it and deletes it.
    Close {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Looks at the machine again.
    Inspect,
    /// Answers at once. For measuring the link, and for steps that do nothing.
    Ping,
    /// The worker ends: kills what runs and leaves. Its workspaces stay unless `wipe`.
    Stop {
        /// Deletes every workspace and the spill store too.
        wipe: bool,
    },
}

/// What a workspace is opened with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenWorkspace {
    /// The task.
    pub task: TaskId,
    /// The epoch.
    pub epoch: Epoch,
    /// What it must hold.
    pub tree: ObjectId,
    /// What commands find around them. Secrets are resolved: see `secrets`.
    pub environment: Environment,
    /// Secret variables with their values: kept in memory, masked in output.
    pub secrets: Vec<(String, String)>,
    /// Files larger than this are not carried by snapshots, in bytes.
    pub file_cap_bytes: u64,
}

/// Limits on a tool's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolLimits {
    /// Most bytes of an answer.
    pub output_bytes: u32,
    /// Most milliseconds a command may take where its call does not say.
    pub timeout_ms: u64,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self { output_bytes: 32 * 1024, timeout_ms: 120_000 }
    }
}

/// Answers to [`Request`]s, of the same names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "r", content = "c")]
pub enum Response {
    /// The ids that are lacking.
    Missing {
        /// In the order asked.
        objects: Vec<ObjectId>,
    },
    /// The objects are stored.
    Stored {
        /// How many.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The workspace holds the tree.
    Opened {
        /// Its folder on the worker.
        folder: String,
        /// The ports it was given.
        ports: Vec<u16>,
        /// The setup command's report where it ran.
        setup: Option<ExitReport>,
        /// True where the worker already held exactly this tree.
        warm: bool,
    },
    /// The workspace goes on under the new epoch.
    Adopted {
        /// The epoch under which it was opened: runs are named after it.
        opened: Epoch,
    },
    /// The tool's answer.
    Tool {
        /// The answer.
        outcome: ToolOutcome,
    },
    /// The command ended.
    Ran {
        /// How.
        report: ExitReport,
    },
    /// The agent's turn ended.
    Turned {
        /// What came of it.
        turn: Box<TurnReport>,
        /// How its program ended.
        report: ExitReport,
    },
    /// Whether there was anything to stop.
    Cancelled {
        /// True where something was stopped.
        stopped: bool,
    },
    /// The snapshot.
    Snapshotted(Snapshotted),
    /// Output.
    Output {
        /// The bytes from the asked offset on.
        data: Bytes,
        /// True where the run has ended and nothing follows.
        ended: bool,
    },
    /// The workspace is gone.
    Closed,
    /// The machine.
    Inspected {
        /// What it has.
        facts: WorkerFacts,
    },
    /// Here.
    Pong,
    /// The worker ends after this frame.
    Stopping,
}

/// A workspace's snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshotted {
    /// The root tree.
    pub tree: ObjectId,
    /// Against the tree it was asked for.
    pub changes: Vec<Change>,
    /// What it does not carry.
    pub skipped: Vec<SkippedFile>,
    /// Files that changed while they were read.
    pub torn: Vec<String>,
    /// Matches of the artifact globs.
    pub artifacts: Vec<String>,
    /// The bulk stream with the new objects, from the worker; `None` where there are none.
    pub stream: Option<StreamId>,
    /// The new objects' bytes.
    pub bytes: u64,
    /// Everything in the tree, in bytes.
    pub logical_bytes: u64,
    /// What the workspace's commands run under; `None` from a worker that does not say.
    #[serde(default)]
    pub confinement: Option<Confinement>,
}

/// What a worker tells unasked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "n", content = "c")]
pub enum Notice {
    /// Its fence fell or was lifted.
    Fenced {
        /// True while its tasks are frozen.
        frozen: bool,
    },
    /// The disk where workspaces are is full.
    DiskFull {
        /// What failed.
        message: String,
    },
}
