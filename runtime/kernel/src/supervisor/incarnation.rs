//! One incarnation of a child, from its start until nothing of it runs any more.
//!
//! Each has a task of its own, [`live`], that waits for it, so that its supervisor need not. Only
//! when that task has told the end may the next incarnation start: an actor's name and reference
//! are free before its `post_stop` has ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use helix_protocol::{Code, Failure};
use ractor::{ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::branch::Key;
use super::{SupervisorMsg, SupervisorSpec};
use crate::{Admission, Admitted};

/// An incarnation that has been started.
pub(crate) struct Incarnation {
    /// Stops it.
    pub cell: ActorCell,
    /// Completes when its task is gone; `None` once it has.
    pub task: Option<JoinHandle<()>>,
    /// What else a supervisor's incarnation has.
    pub below: Option<Below>,
}

/// What is known of a supervisor's incarnation besides its task.
pub(crate) struct Below {
    /// Answered when all its children run, or why they do not.
    pub ready: oneshot::Receiver<Result<(), Failure>>,
    /// Closed when nothing below it runs any more.
    pub alive: mpsc::Receiver<()>,
    /// How it ended.
    pub verdict: oneshot::Receiver<Option<Failure>>,
}

impl Incarnation {
    /// Waits until all its children run. An actor is ready once it is started.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        match &mut self.below {
            None => Ok(()),
            Some(below) => (&mut below.ready)
                .await
                .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the supervisor ended while its children were starting"))),
        }
    }

    /// Waits until nothing of it runs any more.
    pub async fn ended(&mut self) {
        if let Some(task) = &mut self.task {
            // How it ended is told by its supervision event; here only that it is gone counts.
            let _ = task.await;
            self.task = None;
        }
        if let Some(below) = &mut self.below {
            while below.alive.recv().await.is_some() {}
        }
    }

    /// Waits for the end of a root, which has nobody above who hears of it.
    pub async fn verdict(mut self) -> Option<Failure> {
        self.ended().await;
        let below = self.below?;
        below.verdict.await.unwrap_or_else(|_| Some(Failure::new(Code::Internal, "the supervisor was killed")))
    }
}

/// Starts incarnations of one child. The types of the actor end here.
pub(crate) trait Incarnate: Send + Sync {
    /// Starts an incarnation, linked to `supervisor`. Dropping the future gives the start up.
    fn start(self: Arc<Self>, supervisor: ActorCell) -> BoxFuture<'static, Result<Incarnation, Failure>>;
    /// Asks an incarnation to end in order.
    fn stop(&self, cell: &ActorCell);
    /// Nobody answers any more.
    fn unbind(&self);
    /// What waits for the child.
    fn admission(&self) -> &Admission;
    /// The spec where the child is a branch.
    fn branch(&self) -> Option<&SupervisorSpec>;
    /// The child has ended and its supervisor will not start it again.
    fn gone(&self, failure: Option<&Failure>);
}

/// One incarnation, as its task sees it.
pub(crate) struct Life {
    pub key: Key,
    pub child: Arc<dyn Incarnate>,
    /// How long it may take to stop.
    pub limit: Option<Duration>,
    /// Cancelled when it is to stop, or its supervisor is gone.
    pub stop: CancellationToken,
    pub myself: ActorRef<Admitted<SupervisorMsg>>,
    /// Tells those above that something below is not yet gone.
    pub _alive: mpsc::Sender<()>,
}

/// Starts an incarnation, stops it when that is asked for, and tells when nothing of it runs.
pub(crate) async fn live(life: Life) {
    let key = life.key;
    let message = match life.begin().await {
        Err(failure) => SupervisorMsg::StartFailed { key, id: None, failure },
        Ok(mut incarnation) => {
            let id = incarnation.cell.get_id();
            match life.ready(&mut incarnation).await {
                Err(failure) => {
                    life.end(&mut incarnation).await;
                    SupervisorMsg::StartFailed { key, id: Some(id), failure }
                }
                Ok(()) => {
                    life.tell(SupervisorMsg::Started { key });
                    life.run(&mut incarnation).await;
                    SupervisorMsg::Ended { key, id }
                }
            }
        }
    };
    life.child.unbind();
    life.tell(message);
}

impl Life {
    fn tell(&self, message: SupervisorMsg) {
        // An error means that the supervisor is gone, and this child's incarnation with it.
        let _ = self.myself.send_message(Admitted::internal(message));
    }

    /// Starts the incarnation. One that is to stop meanwhile may finish its start within the time
    /// it has for stopping, so that it can be stopped in order.
    async fn begin(&self) -> Result<Incarnation, Failure> {
        let start = AssertUnwindSafe(Arc::clone(&self.child).start(self.myself.get_cell())).catch_unwind();
        tokio::pin!(start);
        let started = tokio::select! {
            biased;
            started = &mut start => Some(started),
            () = self.stop.cancelled() => within(self.limit, &mut start).await,
        };
        match started {
            Some(Ok(started)) => started,
            Some(Err(_)) => Err(Failure::new(Code::Internal, "what makes the actor panicked")),
            None => Err(Failure::new(Code::TimedOut, "its start was given up because it was to stop")),
        }
    }

    /// Waits until everything below the incarnation runs.
    async fn ready(&self, incarnation: &mut Incarnation) -> Result<(), Failure> {
        tokio::select! {
            biased;
            ready = incarnation.ready() => ready,
            () = self.stop.cancelled() => Err(Failure::new(Code::Cancelled, "it was to stop before it was ready")),
        }
    }

    /// Waits for the end of the incarnation: its own, or the one it is asked for.
    async fn run(&self, incarnation: &mut Incarnation) {
        tokio::select! {
            biased;
            () = incarnation.ended() => return,
            () = self.stop.cancelled() => {}
        }
        self.end(incarnation).await;
    }

    /// Ends the incarnation: in order within its limit, else by a kill.
    async fn end(&self, incarnation: &mut Incarnation) {
        self.child.stop(&incarnation.cell);
        if within(self.limit, incarnation.ended()).await.is_none() {
            incarnation.cell.kill();
            // A kill takes effect where the actor next awaits. Until it does, no other incarnation
            // may start, however long that is.
            incarnation.ended().await;
        }
    }
}

async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

/// A kill and a cancelled task arrive as terminations with a reason; every other reason is the
/// actor's own and means that it ended in order.
pub(crate) fn abnormal(reason: Option<String>) -> Option<Failure> {
    match reason.as_deref() {
        Some("killed") => Some(Failure::new(Code::Internal, "it was killed")),
        Some("actor_task_cancelled") => Some(Failure::new(Code::Internal, "its task was cancelled")),
        _ => None,
    }
}

/// Why an actor did not start.
pub(crate) fn start_failure(error: SpawnErr) -> Failure {
    match error {
        SpawnErr::StartupFailed(reason) => failure_of(reason),
        other => Failure::new(Code::Internal, other.to_string()),
    }
}

/// What an actor ended with. A `Failure` keeps its code and hint.
pub(crate) fn failure_of(error: ActorProcessingErr) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(other) => Failure::new(Code::Internal, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, SupervisionEvent};

    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Msg = ();
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    /// Hands on how what it supervises ended.
    struct Listener;

    impl Actor for Listener {
        type Msg = ();
        type State = mpsc::UnboundedSender<Option<Failure>>;
        type Arguments = mpsc::UnboundedSender<Option<Failure>>;

        async fn pre_start(&self, _myself: ActorRef<()>, ends: Self::Arguments) -> Result<Self::State, ActorProcessingErr> {
            Ok(ends)
        }

        async fn handle_supervisor_evt(
            &self,
            _myself: ActorRef<()>,
            event: SupervisionEvent,
            ends: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            if let SupervisionEvent::ActorTerminated(_, _, reason) = event {
                ends.send(abnormal(reason))?;
            }
            Ok(())
        }
    }

    /// ractor tells of a kill and of a cancelled task by the reason's text alone, so this test
    /// fails if a later version words it otherwise.
    #[tokio::test]
    async fn a_kill_and_a_cancelled_task_are_abnormal_and_a_stop_with_any_reason_is_not() {
        let (tell, mut ends) = mpsc::unbounded_channel();
        let (listener, _task) = Listener::spawn(None, Listener, tell).await.expect("it starts");
        let mut end = async |how: fn(&ActorRef<()>, &tokio::task::JoinHandle<()>)| {
            let (idle, task) = Idle::spawn_linked(None, Idle, (), listener.get_cell()).await.expect("it starts");
            how(&idle, &task);
            ends.recv().await.expect("its end is told").map(|failure| failure.message)
        };
        assert_eq!(end(|idle, _| idle.kill()).await.as_deref(), Some("it was killed"));
        assert_eq!(end(|_, task| task.abort()).await.as_deref(), Some("its task was cancelled"));
        assert_eq!(end(|idle, _| idle.stop(None)).await, None);
        assert_eq!(end(|idle, _| idle.stop(Some("its work is done".to_owned()))).await, None);
        assert_eq!(end(|idle, _| drop(idle.drain())).await, None);
    }
}
