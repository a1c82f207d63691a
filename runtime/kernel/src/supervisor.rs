//! Supervisors: they start children in order, restart what fails, and stop in reverse order.
//!
//! A branch is data ([`SupervisorSpec`]); what it does is decided by pure code (`branch`), and
//! carried out by an actor (`actor`) that never waits: each incarnation of a child has a task of
//! its own (`incarnation`) that starts it, stops it and waits for its end.

mod actor;
mod branch;
mod incarnation;
mod spec;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use helix_protocol::{Code, Failure};
use ractor::ActorId;
use tokio::sync::{oneshot, watch};

use self::branch::Key;
use self::incarnation::Incarnate;
pub use self::spec::{Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorSpec};
pub use self::tree::{TreeKind, TreeNode, TreeState};
use crate::{Address, Reply};

/// How long the live tree may take to answer, all branches together.
const TREE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a supervisor is asked, and what its children's tasks tell it.
pub(crate) enum SupervisorMsg {
    /// Start one more child; answered when it has started.
    StartChild { child: ChildSpec, reply: oneshot::Sender<Result<(), Failure>> },
    /// Stop a child for good; answered when it has ended.
    StopChild { name: String, reply: oneshot::Sender<Result<(), Failure>> },
    /// The branch as it is now.
    Tree { within: Duration, reply: Reply<TreeNode> },
    /// Stop all children in reverse order, then end.
    Shutdown,
    /// An incarnation runs.
    Started { key: Key },
    /// An incarnation did not start, and nothing of it runs.
    StartFailed { key: Key, id: Option<ActorId>, failure: Failure },
    /// Nothing of the incarnation `id` runs any more.
    Ended { key: Key, id: ActorId },
    /// A restart's delay is over.
    Due { key: Key, delay: u64 },
}

/// Whether a supervisor is there, as the one above it sees it.
#[derive(Clone, Debug)]
enum Standing {
    /// It was never started.
    Unstarted,
    /// It runs, or is being restarted.
    Started,
    /// It has ended and is not started again; in order, or by this failure.
    Ended(Result<(), Failure>),
}

/// Where a supervisor is reached. Usable once it is started; restarts do not change it.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    address: Address<SupervisorMsg>,
    standing: watch::Receiver<Standing>,
}

impl SupervisorHandle {
    /// Starts one more child, after those that are there, and waits until it has started.
    ///
    /// The child is not kept if it does not start. It is lost when its supervisor restarts, and
    /// forgotten when it has ended for good.
    pub async fn start_child(&self, child: ChildSpec) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        self.address.tell(SupervisorMsg::StartChild { child, reply })?;
        answer.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// Stops a child for good, and waits until it has ended.
    pub async fn stop_child(&self, name: &str) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        self.address.tell(SupervisorMsg::StopChild { name: name.to_owned(), reply })?;
        answer.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// The live tree from here down.
    pub async fn tree(&self) -> Result<TreeNode, Failure> {
        self.address.ask(TREE_TIMEOUT, |reply| SupervisorMsg::Tree { within: TREE_TIMEOUT, reply }).await
    }

    /// Stops all children in reverse order, then the supervisor; returns when nothing runs any
    /// more. For a root: a branch that is shut down is restarted by its supervisor, unless it is
    /// stopped with [`stop_child`](Self::stop_child).
    pub async fn shutdown(&self) -> Result<(), Failure> {
        let started = matches!(*self.standing.borrow(), Standing::Started);
        match self.address.tell(SupervisorMsg::Shutdown) {
            // It is ending already.
            Err(failure) if failure.code == Code::ShuttingDown && started => {}
            Err(failure) if !matches!(*self.standing.borrow(), Standing::Ended(_)) => return Err(failure),
            _ => {}
        }
        self.ended().await
    }

    /// Waits until the supervisor has ended and the one above, if there is one, will not start it
    /// again: `Ok` after an orderly shutdown, else why it failed.
    pub async fn ended(&self) -> Result<(), Failure> {
        let mut standing = self.standing.clone();
        let standing = standing.wait_for(|standing| matches!(standing, Standing::Ended(_))).await.map_err(|_| self.lost())?;
        match &*standing {
            Standing::Ended(end) => end.clone(),
            Standing::Unstarted | Standing::Started => Err(self.lost()),
        }
    }

    fn lost(&self) -> Failure {
        Failure::new(Code::ShuttingDown, format!("{} ended before it answered", self.address.name())).hint("try again in a moment")
    }
}

/// Starts a tree and returns when all of it runs.
///
/// A child that does not start is the tree's failure: those already started are stopped.
pub async fn start(spec: SupervisorSpec) -> Result<SupervisorHandle, Failure> {
    let handle = spec.handle();
    let spec = Arc::new(spec);
    let mut root = Arc::clone(&spec).launch(None).await?;
    let ready = root.ready().await;
    let end = async move {
        let failure = root.verdict().await;
        spec.unbind();
        spec.gone(failure.as_ref());
    };
    match ready {
        Ok(()) => {
            tokio::spawn(end);
            Ok(handle)
        }
        Err(failure) => {
            end.await;
            Err(failure)
        }
    }
}
