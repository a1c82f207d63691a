//! The fleet: workers, their connections and their leases as the node sees them.

use std::time::Duration;

use helix_kernel::{Address, Reply};
use helix_objects::Mark;
use helix_protocol::link::{Holding, OpenWorkspace, Request, Response, Snapshotted};
use helix_protocol::{Epoch, Failure, Lifecycle, ObjectId, TaskId, WorkerId, WorkerRecord, WorkerTarget};
use serde::{Deserialize, Serialize};

/// A worker to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddWorker {
    /// Its name; taken from the target where empty.
    #[serde(default)]
    pub name: String,
    /// How it is reached.
    pub target: WorkerTarget,
    /// How many tasks it may hold; `None` for its number of cores.
    #[serde(default)]
    pub slots: Option<u32>,
}

/// A worker as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The row.
    pub record: WorkerRecord,
    /// True while its heartbeats arrive: it may be given tasks.
    pub ready: bool,
    /// It was given up: what it held is ended before anything is granted to it again, and its tasks may go elsewhere.
    #[serde(default)]
    pub lost: bool,
    /// The worker process that answered last; 0 before the first.
    pub incarnation: u64,
    /// The process id it gave, on its machine.
    pub pid: Option<u32>,
    /// Workspaces it said it holds when it connected.
    pub holds: Vec<Holding>,
}

/// A snapshot whose objects are in the node's store, synced.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedSnapshot {
    /// What the worker said.
    pub snapshot: Snapshotted,
    /// Covers its objects: durable.
    pub mark: Mark,
}

/// What the fleet can be asked.
pub enum FleetMsg {
    /// Adds a worker: installs the program where it is missing, starts it, connects, records it. Answers when it is
    /// ready. The refusal names what is in the way; nothing is recorded then. Sent by the HTTP face.
    Add {
        /// The worker.
        worker: Box<AddWorker>,
        /// The answer.
        reply: Reply<WorkerView>,
    },
    /// Every worker, by name. Sent by the HTTP face.
    List {
        /// The answer.
        reply: Reply<Vec<WorkerView>>,
    },
    /// Cordons, drains or opens a worker. Sent by the HTTP face.
    SetLifecycle {
        /// The worker.
        worker: WorkerId,
        /// What is wanted.
        lifecycle: Lifecycle,
        /// The answer.
        reply: Reply<WorkerView>,
    },
    /// Stops a worker, deletes what was installed, forgets it. Refused with `invalid_state` while it holds tasks, unless
    /// forced: then they are reassigned; and while tasks name it as the only one, unless forced: then they stay. Answers when the
    /// records have it; that goes on where the asker does not wait so long, and ends with the node.
    Remove {
        /// The worker.
        worker: WorkerId,
        /// Whether tasks it holds stand in the way.
        force: bool,
        /// The answer.
        reply: Reply<()>,
    },
    /// One request to a worker. A request with a call key survives a cut connection: it is sent again on the next one, and
    /// the worker answers it once. Refused with `worker_lost` when the worker is dead or its lease has ended. Sent by task actors.
    Request {
        /// The worker.
        worker: WorkerId,
        /// The request.
        request: Box<Request>,
        /// Bounds the wait, reconnections included; `None` until the lease decides.
        timeout: Option<Duration>,
        /// The answer.
        reply: Reply<Response>,
    },
    /// Opens a workspace, sending the objects that the worker lacks. Answers `Response::Opened`. Sent by task actors.
    Open {
        /// The worker.
        worker: WorkerId,
        /// The workspace.
        open: Box<OpenWorkspace>,
        /// The answer.
        reply: Reply<Response>,
    },
    /// Snapshots a workspace and takes its objects: verified, pinned under (task, epoch), synced. Sent by task actors.
    Snapshot {
        /// The worker.
        worker: WorkerId,
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// A tree the node has.
        since: ObjectId,
        /// Globs of artifacts.
        artifacts: Vec<String>,
        /// The answer.
        reply: Reply<ReceivedSnapshot>,
    },
    /// The connection of a worker came to a new state. Sent by the fleet's own connection actors.
    ConnectionChanged {
        /// What the connection knows now.
        view: Box<WorkerView>,
    },
    /// A worker's process is dead or its lease has ended. Sent by the fleet's own connection actors.
    ConnectionLost {
        /// The worker.
        lost: Box<crate::LostWorker>,
    },
}

/// The fleet branch.
#[derive(Clone, Debug)]
pub struct Fleet {
    address: Address<FleetMsg>,
}

const QUICK: Duration = Duration::from_secs(10);
/// Installing over a slow line.
const INSTALL: Duration = Duration::from_secs(600);
/// Longer than any request waits by itself.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);

impl Fleet {
    /// A handle.
    pub fn new(address: Address<FleetMsg>) -> Self {
        Self { address }
    }

    /// Adds a worker.
    pub async fn add(&self, worker: AddWorker) -> Result<WorkerView, Failure> {
        self.address.ask(INSTALL, |reply| FleetMsg::Add { worker: Box::new(worker), reply }).await
    }

    /// Every worker.
    pub async fn list(&self) -> Result<Vec<WorkerView>, Failure> {
        self.address.ask(QUICK, |reply| FleetMsg::List { reply }).await
    }

    /// Cordons, drains or opens.
    pub async fn set_lifecycle(&self, worker: WorkerId, lifecycle: Lifecycle) -> Result<WorkerView, Failure> {
        self.address.ask(QUICK, |reply| FleetMsg::SetLifecycle { worker, lifecycle, reply }).await
    }

    /// Removes a worker.
    pub async fn remove(&self, worker: WorkerId, force: bool) -> Result<(), Failure> {
        self.address.ask(INSTALL, |reply| FleetMsg::Remove { worker, force, reply }).await
    }

    /// One request to a worker.
    pub async fn request(&self, worker: WorkerId, request: Request, timeout: Option<Duration>) -> Result<Response, Failure> {
        let request = Box::new(request);
        let wait = timeout.map_or(LONG, |limit| limit + QUICK);
        self.address.ask(wait, |reply| FleetMsg::Request { worker, request, timeout, reply }).await
    }

    /// Opens a workspace with its content.
    pub async fn open(&self, worker: WorkerId, open: OpenWorkspace) -> Result<Response, Failure> {
        self.address.ask(LONG, |reply| FleetMsg::Open { worker, open: Box::new(open), reply }).await
    }

    /// Snapshots a workspace into the node's store.
    pub async fn snapshot(
        &self,
        worker: WorkerId,
        task: TaskId,
        epoch: Epoch,
        since: ObjectId,
        artifacts: Vec<String>,
    ) -> Result<ReceivedSnapshot, Failure> {
        self.address.ask(LONG, |reply| FleetMsg::Snapshot { worker, task, epoch, since, artifacts, reply }).await
    }

    /// Where the fleet's own actors report.
    pub fn address(&self) -> &Address<FleetMsg> {
        &self.address
    }
}
