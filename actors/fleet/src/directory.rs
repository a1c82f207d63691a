//! Which workers there are, and the line to each: the one table that requests are routed by.

use std::sync::Arc;

use helix_kernel::{ChildSpec, SupervisorHandle};
use helix_messages::{FleetMsg, Records, WorkerView};
use helix_protocol::{Code, Failure, WorkerId, WorkerRecord};
use parking_lot::Mutex;

use crate::dial::{Dialled, Dialler, Lines};
use crate::line::{Line, child_name};
use crate::worker::{WorkerActor, WorkerArgs};

/// The fleet's lines, and how one more is opened. It outlives the restart of any actor of the branch.
pub(crate) struct Directory {
    lines: Lines,
    connections: SupervisorHandle,
    dialler: Dialler,
    records: Records,
    fleet: helix_kernel::Address<FleetMsg>,
}

impl Directory {
    /// An empty one, whose connections' actors run under `connections`.
    pub(crate) fn new(
        connections: SupervisorHandle,
        dialler: Dialler,
        records: Records,
        fleet: helix_kernel::Address<FleetMsg>,
    ) -> Self {
        Self { lines: Arc::clone(&dialler.lines), connections, dialler, records, fleet }
    }

    /// How connections are made.
    pub(crate) fn dialler(&self) -> &Dialler {
        &self.dialler
    }

    /// The records.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// Where the fleet's actor is reached.
    pub(crate) fn fleet(&self) -> &helix_kernel::Address<FleetMsg> {
        &self.fleet
    }

    /// A worker's line.
    pub(crate) fn line(&self, worker: WorkerId) -> Result<Arc<Line>, Failure> {
        self.lines.read().get(&worker).cloned().ok_or_else(|| {
            Failure::new(Code::NotFound, format!("there is no worker {worker}")).hint("`helix worker list` shows those there are")
        })
    }

    /// Every worker as it is now, by name.
    pub(crate) fn views(&self) -> Vec<WorkerView> {
        let mut views: Vec<WorkerView> = self.lines.read().values().map(|line| line.view()).collect();
        views.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        views
    }

    /// Starts a worker's connection. A worker whose connection runs already keeps it.
    pub(crate) async fn employ(
        self: &Arc<Self>,
        line: Arc<Line>,
        since: helix_kernel::Boottime,
        first: Option<Dialled>,
    ) -> Result<(), Failure> {
        let worker = line.worker();
        if self.lines.read().contains_key(&worker) {
            return Ok(());
        }
        self.lines.write().insert(worker, Arc::clone(&line));
        let args = WorkerArgs {
            line: Arc::clone(&line),
            dialler: self.dialler.clone(),
            records: self.records.clone(),
            fleet: self.fleet.clone(),
            since,
            first: Arc::new(Mutex::new(first)),
        };
        let directory = Arc::downgrade(self);
        let child = ChildSpec::actor(child_name(line.name()), line.address(), move || (WorkerActor, args.clone())).when_gone(
            move |reason| {
                line.lose(reason.as_ref().map_or("it was removed", |failure| failure.message.as_str()));
                if let Some(directory) = directory.upgrade() {
                    directory.lines.write().remove(&worker);
                }
            },
        );
        let started = self.connections.start_child(child).await;
        if started.is_err() {
            self.lines.write().remove(&worker);
        }
        started
    }

    /// Ends a worker's connection and forgets its line: what waits on it is answered `worker_lost`.
    pub(crate) async fn dismiss(&self, line: &Line) -> Result<(), Failure> {
        let stopped = self.connections.stop_child(&child_name(line.name())).await;
        self.lines.write().remove(&line.worker());
        line.lose("it was removed");
        stopped
    }

    /// Refuses a name or a target that another worker has.
    pub(crate) fn check_new(&self, record: &WorkerRecord) -> Result<(), Failure> {
        let taken = |what: String| Failure::new(Code::InvalidState, what).hint("`helix worker list` shows those there are");
        for line in self.lines.read().values() {
            if line.name() == record.name {
                return Err(taken(format!("another worker is called {:?}", record.name)));
            }
            if line.view().record.target == record.target {
                return Err(taken(format!("worker {} is at {} already", line.name(), record.target)));
            }
        }
        Ok(())
    }
}
