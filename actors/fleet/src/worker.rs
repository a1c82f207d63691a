//! One worker's connection: dials, heartbeats, its lease, its row.
//!
//! Parent: `connections`. Restart: permanent. What survives a restart is the line (calls under way and the last
//! view), the records, and the worker itself.

mod connecting;
mod machine;
mod row;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Boottime, Reply, Work};
use helix_link::{Closed, Event, Incoming, LinkHandle, Side};
use helix_messages::{FleetMsg, LostWorker, Records, WorkerView};
use helix_ports::{ConnectError, DeathProof};
use helix_protocol::link::{Heartbeat, HeartbeatAck, Notice};
use helix_protocol::{Code, EventKind, Failure, Lifecycle, Severity, WorkerFacts, WorkerHealth, WorkerStatus};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::AbortHandle;

use self::machine::Looks;
use self::row::{Report, Row};
use crate::backoff::{Attempts, Starts};
use crate::dial::{Dialled, Dialler};
use crate::health::Health;
use crate::lease::{Lease, Passed};
use crate::line::Line;

/// What a connection's actor is told, all of it by its own work except where it says so.
pub(crate) enum WorkerMsg {
    /// A connection attempt ended.
    Dialled { errand: u64, outcome: Result<Box<Dialled>, ConnectError> },
    /// An attempt to start the worker's process ended.
    Started { errand: u64, outcome: Result<(), ConnectError> },
    /// The pause before the next attempt is over.
    Due { errand: u64 },
    /// A heartbeat came, and was acknowledged.
    Heard { connection: u64, beat: Heartbeat },
    /// The worker has looked at its machine again, or could not.
    Inspected { connection: u64, outcome: Result<Box<WorkerFacts>, Failure> },
    /// The worker tells something.
    Noticed { connection: u64, notice: Notice },
    /// The connection ended.
    Closed { connection: u64, how: Closed },
    /// It is time to look at the lease.
    Look,
    /// The row was written, or not.
    Recorded { outcome: Result<(), Failure> },
    /// The pause after a failed write is over.
    Rewrite,
    /// What the operator wants; answered when it is durable. Sent by the fleet.
    SetLifecycle { lifecycle: Lifecycle, reply: Reply<WorkerView> },
    /// Nothing is dialled or started any more, because the worker is being removed (or, with `false`, is not after all).
    /// Sent by the provisioner.
    Retire { retired: bool, reply: Reply<()> },
}

/// What the actor is started with, each time anew.
#[derive(Clone)]
pub(crate) struct WorkerArgs {
    pub line: Arc<Line>,
    pub dialler: Dialler,
    pub records: Records,
    pub fleet: Address<FleetMsg>,
    /// From when silence counts: the node's start, or the worker's addition.
    pub since: Boottime,
    /// The connection that the provisioner made when the worker was added.
    pub first: Arc<Mutex<Option<Dialled>>>,
}

/// The actor.
pub(crate) struct WorkerActor;

pub(crate) struct WorkerState {
    args: WorkerArgs,
    me: ActorRef<Admitted<WorkerMsg>>,
    work: Work<WorkerMsg>,
    view: WorkerView,
    lease: Lease,
    health: Health,
    looks: Looks,
    link: Option<(u64, LinkHandle)>,
    /// What is under way while there is no connection: a dial, a start or a pause. Older ones do not count.
    errand: u64,
    running: Option<AbortHandle>,
    attempts: Attempts,
    starts: Starts,
    retired: bool,
    /// The older build that was replaced last.
    renewed: Option<String>,
    row: Row,
    untold: VecDeque<Report>,
}

impl Actor for WorkerActor {
    type Msg = Admitted<WorkerMsg>;
    type State = WorkerState;
    type Arguments = WorkerArgs;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, args: WorkerArgs) -> Result<WorkerState, ActorProcessingErr> {
        args.line.cut();
        let mut view = args.line.view();
        view.ready = false;
        let mut lease = Lease::begin(args.dialler.lease, args.since);
        if args.line.is_lost() {
            lease.end();
        }
        let mut state = WorkerState {
            work: Work::of(&me),
            me,
            view,
            lease,
            health: Health::default(),
            looks: Looks::default(),
            link: None,
            errand: 0,
            running: None,
            attempts: Attempts::default(),
            starts: Starts::default(),
            retired: false,
            renewed: None,
            row: Row::default(),
            untold: VecDeque::new(),
            args,
        };
        let first = state.args.first.lock().take();
        match first {
            Some(dialled) => state.connected(dialled),
            None => state.dial(),
        }
        state.look_later();
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut WorkerState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            WorkerMsg::Dialled { errand, outcome } if errand == state.errand => match outcome {
                Ok(dialled) => state.connected(*dialled),
                Err(error) => state.not_connected(error),
            },
            WorkerMsg::Started { errand, outcome } if errand == state.errand => state.started(outcome),
            WorkerMsg::Due { errand } if errand == state.errand => state.dial(),
            WorkerMsg::Dialled { .. } | WorkerMsg::Started { .. } | WorkerMsg::Due { .. } => {}
            WorkerMsg::Heard { connection, beat } if state.is_current(connection) => state.heard(&beat),
            WorkerMsg::Inspected { connection, outcome } if state.is_current(connection) => state.inspected(outcome),
            WorkerMsg::Noticed { connection, notice } if state.is_current(connection) => state.noticed(&notice),
            WorkerMsg::Closed { connection, how } if state.is_current(connection) => state.closed(&how),
            WorkerMsg::Heard { .. } | WorkerMsg::Inspected { .. } | WorkerMsg::Noticed { .. } | WorkerMsg::Closed { .. } => {}
            WorkerMsg::Look => state.look(),
            WorkerMsg::Recorded { outcome } => state.recorded(outcome),
            WorkerMsg::Rewrite => state.rewrite(),
            WorkerMsg::SetLifecycle { lifecycle, reply } => state.set_lifecycle(lifecycle, reply),
            WorkerMsg::Retire { retired, reply } => state.retire(retired, reply),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut WorkerState) -> Result<(), ActorProcessingErr> {
        if let Some((_, link)) = state.link.take() {
            link.close();
        }
        state.args.line.cut();
        Ok(())
    }
}

/// While it is connected.
impl WorkerState {
    fn is_current(&self, connection: u64) -> bool {
        self.link.as_ref().is_some_and(|(number, _)| *number == connection)
    }

    fn saw(&mut self) {
        let now = self.args.dialler.clock.wall();
        self.args.line.saw(now);
        self.view.record.last_seen_at = Some(now);
    }

    fn noticed(&mut self, notice: &Notice) {
        let name = self.args.line.name();
        match notice {
            Notice::Fenced { frozen: true } => {
                tracing::warn!(worker = name, "the worker fenced itself: its tasks are frozen");
                // It is heard, and does not hear. Another connection works both ways, or is the silence that ends the lease.
                if let Some((_, link)) = &self.link {
                    link.abort();
                }
            }
            Notice::Fenced { frozen: false } => tracing::info!(worker = name, "the worker's tasks go on"),
            Notice::DiskFull { message } => {
                let detail = json!({ "message": message });
                self.tell(EventKind::WorkerHealthDegraded, Severity::Error, "has a full disk", detail);
                self.write_row();
            }
        }
    }

    fn closed(&mut self, how: &Closed) {
        self.link = None;
        self.args.line.cut();
        let failure = how.failure(Side::Node);
        self.tell(EventKind::WorkerDisconnected, Severity::Info, "is disconnected", json!({ "reason": failure.message }));
        self.view.ready = false;
        self.set_status(WorkerStatus::Inactive, &failure.message);
        self.report();
        self.dial();
    }

    fn set_lifecycle(&mut self, lifecycle: Lifecycle, reply: Reply<WorkerView>) {
        if self.view.record.lifecycle != lifecycle {
            self.view.record.lifecycle = lifecycle;
            if self.link.is_some() {
                self.view.record.status = self.connected_status();
            }
            let (words, detail) = match lifecycle {
                Lifecycle::Open => ("takes tasks again", "open"),
                Lifecycle::Cordoned => ("takes no new tasks", "cordoned"),
                Lifecycle::Draining => ("is drained", "draining"),
            };
            self.tell(EventKind::WorkerLifecycleChanged, Severity::Info, words, json!({ "lifecycle": detail }));
        }
        self.row.asked.push(reply);
        self.write_row();
    }

    fn retire(&mut self, retired: bool, reply: Reply<()>) {
        self.retired = retired;
        self.errand += 1;
        if let Some(running) = self.running.take() {
            running.abort();
        }
        if retired {
            self.view.ready = false;
            self.report();
        } else if self.link.is_none() {
            self.dial();
        }
        // An error means that the provisioner has ended; nobody waits.
        let _ = reply.send(Ok(()));
    }
}

/// The lease.
impl WorkerState {
    fn look_later(&mut self) {
        let pause = self.lease.next_look(self.now());
        self.work.start(async move {
            tokio::time::sleep(pause).await;
            WorkerMsg::Look
        });
    }

    /// Tells the lease when the link last heard anything: any frame proves life.
    fn read_lease(&mut self) {
        let Some((_, link)) = &self.link else { return };
        if self.lease.hear(Boottime(link.last_heard())) == Some(Passed::Recovered) {
            self.set_health(self.health.told());
            self.report();
        }
    }

    fn look(&mut self) {
        self.read_lease();
        match self.lease.look(self.now()) {
            Some(Passed::Suspect { silent }) => self.suspect(silent),
            Some(Passed::Over { silent }) => {
                // Without a connection some errand is under way already.
                let connected = self.link.is_some();
                self.lose(DeathProof::LeaseExpired { silent_ms: millis(silent) });
                if connected {
                    self.dial();
                }
            }
            Some(Passed::Recovered) | None => {}
        }
        self.retell();
        self.look_later();
    }

    /// Heartbeats are late. The connection may be half open, so a new one is made: it brings a fresh link, or the proof.
    fn suspect(&mut self, silent: Duration) {
        let detail = json!({ "silent_ms": millis(silent) });
        self.tell(EventKind::WorkerHeartbeatMissed, Severity::Warning, "is silent", detail);
        if self.view.record.health == WorkerHealth::Healthy {
            self.view.record.health = WorkerHealth::Degraded;
        }
        self.write_row();
        match &self.link {
            Some((_, link)) => link.abort(),
            None => self.report(),
        }
    }

    /// The worker is gone: what waits is answered, the tasks branch is told, and only then the row is written.
    fn lose(&mut self, proof: DeathProof) {
        if let Some((_, link)) = self.link.take() {
            link.abort();
        }
        let silent_ms = millis(self.lease.silent(self.now()));
        let why = proof.to_string();
        self.args.line.lose(&why);
        let lost = LostWorker {
            worker: self.args.line.worker(),
            name: self.args.line.name().to_owned(),
            incarnation: self.view.incarnation,
            proof: proof.clone(),
            silent_ms,
        };
        self.tell(
            EventKind::WorkerLost,
            Severity::Error,
            &format!("is lost: {why}"),
            json!({ "proof": proof, "silent_ms": silent_ms }),
        );
        self.view.ready = false;
        self.view.holds = Vec::new();
        self.set_status(WorkerStatus::Offline, &why);
        self.report();
        self.untold.push_back(Report::Lost(Box::new(lost)));
        self.retell();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Drains a connection: heartbeats are acknowledged here, at once, and then told.
async fn pump(connection: u64, mut incoming: Incoming, link: LinkHandle, me: ActorRef<Admitted<WorkerMsg>>) -> WorkerMsg {
    let tell = |message| {
        // An error means that the actor has ended, and the link with it.
        let _ = me.send_message(Admitted::internal(message));
    };
    loop {
        match incoming.next().await {
            Event::Heartbeat(beat) => {
                // An error is followed by `Closed`.
                let _ = link.acknowledge(HeartbeatAck { sequence: beat.sequence }).await;
                tell(WorkerMsg::Heard { connection, beat });
            }
            Event::Notice(notice) => tell(WorkerMsg::Noticed { connection, notice }),
            Event::Request(asked) => {
                let refusal = Failure::new(Code::InvalidRequest, "a node answers no requests of its workers");
                asked.reply.send(Err(refusal)).await;
            }
            Event::HeartbeatAck(_) => {}
            Event::Closed(how) => return WorkerMsg::Closed { connection, how },
        }
    }
}
