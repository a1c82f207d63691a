//! What a supervisor is told about its children before any of them runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use helix_protocol::Failure;
use ractor::{Actor, ActorCell};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::actor::{SupervisorActor, SupervisorArgs};
use super::incarnation::{Below, Incarnate, Incarnation, start_failure};
use super::{Standing, SupervisorHandle, SupervisorMsg, TreeNode};
use crate::{Address, Admission, Admitted};

/// How many requests may wait for a supervisor.
const MAILBOX: usize = 1024;

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Only after an abnormal end: a panic, an `Err`, a kill, a cancelled task.
    Transient,
    /// Never.
    Temporary,
    /// Never after an end of its own: an abnormal one is that of its supervisor, because nothing beside it may go on without it.
    /// (Erlang's significant children end their supervisor with a normal end too.)
    Significant,
}

/// Which children are restarted when one of them failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The failed one.
    OneForOne,
    /// All of them: stopped in reverse order, started in order.
    OneForAll,
    /// The failed one and those after it, which were started on its shoulders.
    RestForOne,
}

/// How many restarts a supervisor bears: more than `restarts` within `period`, and it stops its
/// children and fails itself, so that its own supervisor decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intensity {
    /// The most restarts.
    pub restarts: u32,
    /// Within this time.
    pub period: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { restarts: 5, period: Duration::from_secs(30) }
    }
}

/// How long a restart is put off: a random time below a ceiling that starts at `first`, doubles
/// with each failure up to `most`, and starts over once the child has run for `most` without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The ceiling after the first failure.
    pub first: Duration,
    /// The highest ceiling, and the quiet time after which failures are forgotten.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), most: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The ceiling of the delay after so many failures in a row, the first being 1.
    pub(crate) fn ceiling(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).filter(|factor| *factor != 0).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

type Told = Arc<dyn Fn(Option<Failure>) + Send + Sync>;

/// One child: how it is started, when it is restarted, how long it may take to stop.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) name: String,
    pub(crate) restart: Restart,
    pub(crate) backoff: Backoff,
    /// `None`: as long as it takes, which is right for a branch, whose children each have a limit.
    pub(crate) shutdown_within: Option<Duration>,
    pub(crate) incarnate: Arc<dyn Incarnate>,
    told: Option<Told>,
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChildSpec({}, {:?})", self.name, self.restart)
    }
}

impl ChildSpec {
    /// An actor, bound to `address` at each start. `start` makes the actor and its arguments anew,
    /// so whatever must survive a restart is behind a handle that `start` clones.
    pub fn actor<A, M>(
        name: impl Into<String>,
        address: &Address<M>,
        start: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Msg = Admitted<M>>,
        M: Send + 'static,
    {
        Self {
            name: name.into(),
            restart: Restart::default(),
            backoff: Backoff::default(),
            shutdown_within: Some(Duration::from_secs(5)),
            incarnate: Arc::new(Leaf { address: address.clone(), start }),
            told: None,
        }
    }

    /// A branch. Its escalation counts as its failure.
    pub fn supervisor(spec: SupervisorSpec) -> Self {
        Self {
            name: spec.name.clone(),
            restart: Restart::default(),
            backoff: Backoff::default(),
            shutdown_within: None,
            incarnate: Arc::new(spec),
            told: None,
        }
    }

    /// When it is started again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long restarts are put off.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long it may take to empty its mailbox and run its `post_stop` before it is killed.
    #[must_use]
    pub fn shutdown_within(mut self, limit: Duration) -> Self {
        self.shutdown_within = Some(limit);
        self
    }

    /// Calls `told` when the child has ended and its supervisor will not start it again, with the
    /// failure if it failed or had to end because something else did. It runs inside the
    /// supervisor, so it must not block: it posts a message and returns.
    #[must_use]
    pub fn when_gone(mut self, told: impl Fn(Option<Failure>) + Send + Sync + 'static) -> Self {
        self.told = Some(Arc::new(told));
        self
    }

    /// The name in failures, logs and the live tree; unique among its siblings.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn gone(&self, failure: Option<&Failure>) {
        self.incarnate.gone(failure);
        if let Some(told) = &self.told {
            told(failure.cloned());
        }
    }
}

struct Leaf<M: Send + 'static, F> {
    address: Address<M>,
    start: F,
}

impl<A, M, F> Incarnate for Leaf<M, F>
where
    A: Actor<Msg = Admitted<M>>,
    M: Send + 'static,
    F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
{
    fn start(self: Arc<Self>, supervisor: ActorCell) -> BoxFuture<'static, Result<Incarnation, Failure>> {
        async move {
            let (actor, arguments) = (self.start)();
            let (actor, task) = A::spawn_linked(None, actor, arguments, supervisor).await.map_err(start_failure)?;
            let cell = actor.get_cell();
            self.address.bind(actor);
            Ok(Incarnation { cell, task: Some(task), below: None })
        }
        .boxed()
    }

    fn stop(&self, cell: &ActorCell) {
        // An error means that the actor has ended by itself, which is what is wanted.
        let _ = cell.drain();
    }

    fn unbind(&self) {
        self.address.unbind();
    }

    fn admission(&self) -> &Admission {
        self.address.admission()
    }

    fn branch(&self) -> Option<&SupervisorSpec> {
        None
    }

    fn gone(&self, _failure: Option<&Failure>) {}
}

/// A supervisor and the children it starts with.
#[derive(Clone)]
pub struct SupervisorSpec {
    /// Its name in failures, logs and the live tree.
    pub name: String,
    /// Which children are restarted together.
    pub strategy: Strategy,
    /// How many restarts it bears.
    pub intensity: Intensity,
    /// Started in this order, stopped in the reverse one.
    pub children: Vec<ChildSpec>,
    address: Address<SupervisorMsg>,
    standing: watch::Sender<Standing>,
}

impl SupervisorSpec {
    /// A supervisor without children.
    pub fn new(name: impl Into<String>, strategy: Strategy) -> Self {
        let name = name.into();
        let address = Address::unbound(name.as_str(), MAILBOX);
        Self {
            name,
            strategy,
            intensity: Intensity::default(),
            children: Vec::new(),
            address,
            standing: watch::Sender::new(Standing::Unstarted),
        }
    }

    /// How many restarts it bears.
    #[must_use]
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = intensity;
        self
    }

    /// One more child, started after those before it.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Where the supervisor is reached once it is started, whichever incarnation of it runs.
    pub fn handle(&self) -> SupervisorHandle {
        SupervisorHandle { address: self.address.clone(), standing: self.standing.subscribe() }
    }

    /// Starts an incarnation, whose children start while it already answers.
    pub(crate) async fn launch(self: Arc<Self>, above: Option<ActorCell>) -> Result<Incarnation, Failure> {
        let (ready, is_ready) = oneshot::channel();
        let (verdict, has_verdict) = oneshot::channel();
        let (alive, nobody_alive) = mpsc::channel(1);
        let arguments = SupervisorArgs { spec: Arc::clone(&self), ready, verdict, alive };
        let spawned = match above {
            Some(above) => SupervisorActor::spawn_linked(None, SupervisorActor, arguments, above).await,
            None => SupervisorActor::spawn(None, SupervisorActor, arguments).await,
        };
        let (actor, task) = spawned.map_err(start_failure)?;
        self.standing.send_replace(Standing::Started);
        let cell = actor.get_cell();
        self.address.bind(actor);
        Ok(Incarnation {
            cell,
            task: Some(task),
            below: Some(Below { ready: is_ready, alive: nobody_alive, verdict: has_verdict }),
        })
    }

    /// Asks the branch for its part of the live tree.
    pub(crate) async fn tree(&self, within: Duration) -> Result<TreeNode, Failure> {
        self.address.ask(within, |reply| SupervisorMsg::Tree { within, reply }).await
    }
}

impl fmt::Debug for SupervisorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSpec")
            .field("name", &self.name)
            .field("strategy", &self.strategy)
            .field("intensity", &self.intensity)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

impl Incarnate for SupervisorSpec {
    fn start(self: Arc<Self>, supervisor: ActorCell) -> BoxFuture<'static, Result<Incarnation, Failure>> {
        self.launch(Some(supervisor)).boxed()
    }

    fn stop(&self, cell: &ActorCell) {
        // An error means that it has ended by itself, which is what is wanted.
        let _ = cell.send_message(Admitted::internal(SupervisorMsg::Shutdown));
    }

    fn unbind(&self) {
        self.address.unbind();
    }

    fn admission(&self) -> &Admission {
        self.address.admission()
    }

    fn branch(&self) -> Option<&SupervisorSpec> {
        Some(self)
    }

    fn gone(&self, failure: Option<&Failure>) {
        self.standing.send_replace(Standing::Ended(failure.map_or(Ok(()), |failure| Err(failure.clone()))));
    }
}
