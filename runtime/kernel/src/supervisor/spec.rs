//! What a supervisor is told about its children before any of them runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use helix_protocol::Failure;
use ractor::{Actor, ActorCell};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::actor::{SupervisorActor, SupervisorArgs};
use super::{SupervisorHandle, SupervisorMsg};
use crate::{Address, Admission, Admitted};

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

/// An incarnation that has been started.
pub(crate) struct Incarnation {
    /// Stops it.
    pub cell: ActorCell,
    /// Completes when its task is gone.
    pub task: JoinHandle<()>,
    /// Completes when everything below it is gone too; `None` for an actor, which has nothing below.
    pub below: Option<mpsc::Receiver<()>>,
}

/// Starts incarnations of one child. The types of the actor end here.
pub(crate) trait Incarnate: Send + Sync {
    /// Starts an incarnation, linked to `supervisor`. Dropping the future gives the start up.
    fn start(&self, supervisor: ActorCell) -> BoxFuture<'static, Result<Incarnation, String>>;
    /// Asks an incarnation to end in order.
    fn stop(&self, cell: &ActorCell);
    /// Nobody answers any more.
    fn unbind(&self);
    /// What waits for the child.
    fn admission(&self) -> &Admission;
    /// The spec where the child is a branch.
    fn branch(&self) -> Option<&SupervisorSpec>;
    /// The child has ended and will not be started again.
    fn gone(&self, reason: Option<&str>);
}

type Told = Arc<dyn Fn(Option<String>) + Send + Sync>;

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

    /// Calls `told` when the child has ended and will not be started again, with the reason if it
    /// failed. It runs inside the supervisor, so it must not block: it posts a message and returns.
    #[must_use]
    pub fn when_gone(mut self, told: impl Fn(Option<String>) + Send + Sync + 'static) -> Self {
        self.told = Some(Arc::new(told));
        self
    }

    /// The name in failures, logs and the live tree; unique among its siblings.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn gone(&self, reason: Option<&str>) {
        self.incarnate.gone(reason);
        if let Some(told) = &self.told {
            told(reason.map(str::to_owned));
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
    fn start(&self, supervisor: ActorCell) -> BoxFuture<'static, Result<Incarnation, String>> {
        let (actor, arguments) = (self.start)();
        let address = self.address.clone();
        async move {
            let (actor, task) = A::spawn_linked(None, actor, arguments, supervisor).await.map_err(|error| describe(&error))?;
            let cell = actor.get_cell();
            address.bind(actor);
            Ok(Incarnation { cell, task, below: None })
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

    fn gone(&self, _reason: Option<&str>) {}
}
