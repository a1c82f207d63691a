//! Work that an actor starts, and whose result it receives as a message.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use ractor::ActorRef;
use tokio::task::{AbortHandle, JoinSet};

use crate::Admitted;

/// What an actor has started and not yet heard of. It belongs in the actor's state: a handler
/// never awaits, it starts work here and goes on. When the actor ends, its work is aborted.
///
/// Aborting takes effect where the work next awaits; what may not be done twice is fenced.
#[derive(Debug)]
pub struct Work<M: Send + 'static> {
    myself: ActorRef<Admitted<M>>,
    tasks: JoinSet<()>,
}

impl<M: Send + 'static> Work<M> {
    /// Work whose results `myself` receives.
    pub fn of(myself: &ActorRef<Admitted<M>>) -> Self {
        Self { myself: myself.clone(), tasks: JoinSet::new() }
    }

    /// Starts `work`. Its output arrives as a message that is never refused, unless the actor has
    /// ended or the work is aborted through the handle. A panic in it is the actor's failure: the
    /// actor is killed, because it would wait for ever for a message that does not come.
    pub fn start(&mut self, work: impl Future<Output = M> + Send + 'static) -> AbortHandle {
        self.reap();
        let myself = self.myself.clone();
        // On the heap by itself: as part of another future it would be there twice, and be copied with it again and again.
        let work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        self.tasks.spawn(async move {
            match work.await {
                // An error means that the actor has ended and nobody waits for the result.
                Ok(message) => drop(myself.send_message(Admitted::internal(message))),
                Err(_) => {
                    tracing::error!(actor = %myself.get_id(), "work of an actor panicked, so the actor is killed");
                    myself.kill();
                }
            }
        })
    }

    /// How much of it runs.
    pub fn running(&mut self) -> usize {
        self.reap();
        self.tasks.len()
    }

    fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }
}
