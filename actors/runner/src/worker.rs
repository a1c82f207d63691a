//! The worker: one actor that decides who is served, and a task per connection that serves.
//!
//! Parent: the worker process's own supervisor, which restarts it; what a restart loses is which
//! connection is the current one, and the node then makes a new one. Workspaces, calls, lease and fence
//! live in the engine and survive it.

mod connection;

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, ChildSpec, Reply, Strategy, SupervisorHandle, SupervisorSpec};
use helix_link::LinkHandle;
use helix_protocol::link::{Hello, Holding, Notice};
use helix_protocol::{Code, Failure, NodeId};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::engine::{Engine, Settings, Wipe};
use crate::facts::Pace;
use crate::fence::Standing;
use crate::served::another;

/// How often the fence is looked at, to tell the node and to notice that nobody needs this worker.
const LOOK: Duration = Duration::from_millis(500);
/// How long the actor may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Messages that may wait for the actor.
const MAILBOX: usize = 256;

/// Why a worker has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked it to; with `Yes` its workspaces are gone.
    Stopped(Wipe),
    /// No node was heard for so long.
    Idle(Duration),
}

/// What a worker says of itself to whoever asks on its machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// Its process.
    pub pid: u32,
    /// New with every start.
    pub incarnation: u64,
    /// The program's version.
    pub build: String,
    /// The node it serves.
    pub node: Option<NodeId>,
    /// Whether that node is connected.
    pub connected: bool,
    /// `unowned`, `live` or `fenced`.
    pub lease: String,
    /// Milliseconds the lease still lasts.
    pub lease_left_ms: u64,
    /// The workspaces it holds.
    pub holds: Vec<Holding>,
}

/// A running worker. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    engine: Arc<Engine>,
    address: Address<WorkerMsg>,
    supervisor: SupervisorHandle,
    ended: watch::Receiver<Option<Ended>>,
}

impl Worker {
    /// Starts in a folder whose lock the caller holds. Leaves by itself when no lease was live for `idle_exit`.
    pub async fn start(settings: Settings, idle_exit: Duration) -> Result<Self, Failure> {
        let engine = Engine::open(settings).await?;
        let (ending, ended) = watch::channel(None);
        let ending = Arc::new(ending);
        let address = Address::unbound("worker", MAILBOX);
        let args = {
            let engine = Arc::clone(&engine);
            move || WorkerArgs { engine: Arc::clone(&engine), idle_exit, ending: Arc::clone(&ending) }
        };
        let child = ChildSpec::actor("worker", &address, move || (WorkerActor, args()));
        let supervisor = helix_kernel::start(SupervisorSpec::new("helix-worker", Strategy::OneForOne).child(child)).await?;
        let looking = Arc::clone(&engine);
        tokio::spawn(async move { looking.inspector().look(Pace::Quiet).await });
        Ok(Self { engine, address, supervisor, ended })
    }

    /// Serves one connection to its end.
    pub async fn serve<IO>(&self, io: IO) -> Result<(), Failure>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        connection::serve(&self.engine, &self.address, io).await
    }

    /// A number that is new with every start.
    pub fn incarnation(&self) -> u64 {
        self.engine.incarnation()
    }

    /// What it says of itself.
    pub async fn status(&self) -> Result<WorkerStatus, Failure> {
        self.address.ask(ASK, |reply| WorkerMsg::Status { reply }).await
    }

    /// Ends everything that runs and leaves; [`ended`](Self::ended) tells when it has.
    pub fn stop(&self, wipe: Wipe) -> Result<(), Failure> {
        self.address.tell(WorkerMsg::Stop { wipe })
    }

    /// Resolves once the worker has ended: nothing of it runs, its store is closed.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let how = match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone(),
            Err(_) => None,
        };
        if let Err(failure) = self.supervisor.shutdown().await {
            tracing::warn!(%failure, "the worker's actor did not end in order");
        }
        how.unwrap_or(Ended::Stopped(Wipe::No))
    }
}

/// What the worker's actor is told. Senders: connections, the program, its own clock.
pub(crate) enum WorkerMsg {
    /// A node wants to be served. Refused with `invalid_state` while another node's lease lasts, or where a newer
    /// connection of the same node stands, and with `another_worker` where that node has it as another worker.
    Hello { hello: Hello, reply: Reply<()> },
    /// The connection that was admitted stands.
    Connected { connection: u64, handle: LinkHandle },
    /// It has ended.
    Gone { connection: u64 },
    /// What the worker says of itself.
    Status { reply: Reply<WorkerStatus> },
    /// Leave.
    Stop { wipe: Wipe },
    /// Look at the fence.
    Look,
}

struct WorkerActor;

struct WorkerArgs {
    engine: Arc<Engine>,
    idle_exit: Duration,
    ending: Arc<watch::Sender<Option<Ended>>>,
}

struct WorkerState {
    engine: Arc<Engine>,
    idle_exit: Duration,
    ending: Arc<watch::Sender<Option<Ended>>>,
    node: Option<NodeId>,
    current: Option<Current>,
    /// What the node was last told of the fence.
    frozen: bool,
    /// The clock's reading when a lease was last live.
    last_live: Duration,
    stopping: bool,
}

/// The connection that is served.
struct Current {
    number: u64,
    handle: Option<LinkHandle>,
}

impl Actor for WorkerActor {
    type Msg = Admitted<WorkerMsg>;
    type State = WorkerState;
    type Arguments = WorkerArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: WorkerArgs) -> Result<WorkerState, ActorProcessingErr> {
        let WorkerArgs { engine, idle_exit, ending } = args;
        myself.send_interval(LOOK, || Admitted::internal(WorkerMsg::Look));
        let last_live = engine.lease().now();
        Ok(WorkerState { engine, idle_exit, ending, node: None, current: None, frozen: false, last_live, stopping: false })
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut WorkerState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            WorkerMsg::Hello { hello, reply } => {
                let _ = reply.send(state.admit(&hello));
            }
            WorkerMsg::Connected { connection, handle } => state.connected(connection, handle),
            WorkerMsg::Gone { connection } => state.gone(connection),
            WorkerMsg::Status { reply } => {
                let _ = reply.send(Ok(state.status()));
            }
            WorkerMsg::Stop { wipe } => state.stop(Ended::Stopped(wipe)),
            WorkerMsg::Look => state.look(),
        }
        Ok(())
    }
}

impl WorkerState {
    fn admit(&mut self, hello: &Hello) -> Result<(), Failure> {
        if self.stopping {
            return Err(Failure::new(Code::ShuttingDown, "the worker is stopping"));
        }
        let live = matches!(self.engine.lease().standing(), Standing::Live { .. });
        if let Some(node) = self.node.filter(|node| *node != hello.node)
            && live
        {
            return Err(Failure::new(Code::InvalidState, format!("the worker serves node {node} until that node's lease ends"))
                .hint("stop that node or wait for the lease to end, or give this node a worker of its own"));
        }
        let served = self.engine.served();
        served.check(hello)?;
        let stands = self.current.as_ref().filter(|current| current.handle.as_ref().is_none_or(|handle| !handle.is_closed()));
        // It may be about to be added, and no worker of the node yet.
        if stands.is_some() && served.is_called_otherwise(hello) {
            return Err(another("a worker of this node"));
        }
        if let Some(current) = stands
            && self.node == Some(hello.node)
            && current.number >= hello.connection
        {
            return Err(Failure::new(
                Code::InvalidState,
                format!("connection {} of this node stands, and this is its older connection {}", current.number, hello.connection),
            ));
        }
        if let Some(Current { handle: Some(handle), .. }) = self.current.take() {
            handle.abort();
        }
        served.note(hello);
        self.node = Some(hello.node);
        self.current = Some(Current { number: hello.connection, handle: None });
        // The welcome that follows counts as the connection's first heartbeat.
        self.engine.lease().connected(hello.connection, Duration::from_millis(hello.lease.fence_ms));
        Ok(())
    }

    fn connected(&mut self, connection: u64, handle: LinkHandle) {
        match &mut self.current {
            Some(current) if current.number == connection => current.handle = Some(handle),
            // A newer one was admitted meanwhile.
            _ => handle.abort(),
        }
    }

    fn gone(&mut self, connection: u64) {
        if self.current.as_ref().is_some_and(|current| current.number == connection) {
            self.current = None;
        }
    }

    fn look(&mut self) {
        let now = self.engine.lease().now();
        let standing = self.engine.lease().standing();
        if matches!(standing, Standing::Live { .. }) {
            self.last_live = now;
        }
        let frozen = matches!(standing, Standing::Fenced { .. });
        if frozen != self.frozen {
            self.frozen = frozen;
            tracing::info!(frozen, "the fence moved");
            self.tell(Notice::Fenced { frozen });
        }
        let unused = now.saturating_sub(self.last_live);
        if unused > self.idle_exit {
            self.stop(Ended::Idle(unused));
        }
    }

    fn tell(&self, notice: Notice) {
        if let Some(Current { handle: Some(handle), .. }) = &self.current {
            let handle = handle.clone();
            tokio::spawn(async move { handle.notify(notice).await });
        }
    }

    fn stop(&mut self, how: Ended) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        tracing::info!(?how, "stopping");
        let handle = self.current.take().and_then(|current| current.handle);
        let (engine, ending) = (Arc::clone(&self.engine), Arc::clone(&self.ending));
        tokio::spawn(async move {
            let wipe = if how == Ended::Stopped(Wipe::Yes) { Wipe::Yes } else { Wipe::No };
            if let Err(failure) = engine.shut(wipe).await {
                tracing::error!(%failure, "the worker did not end in order");
            }
            if let Some(handle) = handle {
                handle.close();
                let _ = tokio::time::timeout(Duration::from_secs(1), handle.closed()).await;
            }
            ending.send_replace(Some(how));
        });
    }

    fn status(&self) -> WorkerStatus {
        let lease = self.engine.lease();
        let (word, left) = match lease.standing() {
            Standing::Unowned => ("unowned", Duration::ZERO),
            Standing::Live { until } => ("live", until.saturating_sub(lease.now())),
            Standing::Fenced { .. } => ("fenced", Duration::ZERO),
        };
        WorkerStatus {
            pid: std::process::id(),
            incarnation: self.engine.incarnation(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node,
            connected: self.current.as_ref().is_some_and(|current| current.handle.is_some()),
            lease: word.to_owned(),
            lease_left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            holds: self.engine.holds(),
        }
    }
}
