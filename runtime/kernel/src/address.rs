//! Addresses that resolve after a restart.
//!
//! A ractor `ActorRef` is dead once its actor is. An [`Address`] is a slot that each incarnation
//! binds itself to, so a holder never learns of a restart except by a refused message.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use helix_protocol::{Code, Failure};
use ractor::{ActorRef, ActorStatus, RpcReplyPort};

use crate::{Admission, Admitted};

/// Where a request's answer goes. A refused request is an answer too.
pub type Reply<T> = RpcReplyPort<Result<T, Failure>>;

/// Where an actor is reached, whichever incarnation of it runs. Cheap to clone.
pub struct Address<M: Send + 'static> {
    name: Arc<str>,
    slot: Arc<ArcSwapOption<ActorRef<Admitted<M>>>>,
    admission: Admission,
}

impl<M: Send + 'static> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), slot: Arc::clone(&self.slot), admission: self.admission.clone() }
    }
}

impl<M: Send + 'static> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}, {}/{} waiting)", self.name, self.admission.waiting(), self.admission.limit())
    }
}

impl<M: Send + 'static> Address<M> {
    /// An address nobody answers yet. `limit` is how many messages may wait.
    pub fn unbound(name: impl Into<Arc<str>>, limit: usize) -> Self {
        Self { name: name.into(), slot: Arc::new(ArcSwapOption::empty()), admission: Admission::new(limit) }
    }

    /// From now on `actor` answers. Called by the supervisor after each start.
    pub fn bind(&self, actor: ActorRef<Admitted<M>>) {
        self.slot.store(Some(Arc::new(actor)));
    }

    /// Nobody answers any more. Called by the supervisor when the actor has ended.
    pub fn unbind(&self) {
        self.slot.store(None);
    }

    /// The name used in failures, logs and the live tree.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many messages wait, and how many may.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Posts a message nobody waits for.
    ///
    /// Refused with `overloaded` where the mailbox is full and with `shutting_down` where no
    /// incarnation runs.
    pub fn tell(&self, message: M) -> Result<(), Failure> {
        let slot = self.slot.load();
        let actor = slot.as_ref().filter(|actor| accepts(actor)).ok_or_else(|| self.absent())?;
        let admitted = self.admission.admit(message).map_err(|_| {
            Failure::new(
                Code::Overloaded,
                format!("{} has {} requests waiting, which is its limit", self.name, self.admission.limit()),
            )
            .hint("try again in a moment")
        })?;
        actor.send_message(admitted).map_err(|_| self.absent())
    }

    /// Posts the message that `make` builds around a reply port, and waits for the answer.
    ///
    /// Besides the answer's own failures: those of [`tell`](Self::tell), `timed_out` after
    /// `timeout`, and `shutting_down` where the actor ended without answering.
    pub async fn ask<T: Send + 'static>(&self, timeout: Duration, make: impl FnOnce(Reply<T>) -> M) -> Result<T, Failure> {
        let (reply, answer) = ractor::concurrency::oneshot();
        self.tell(make(reply.into()))?;
        match ractor::concurrency::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.absent()),
            Err(_) => Err(Failure::new(Code::TimedOut, format!("{} did not answer within {} ms", self.name, timeout.as_millis()))
                .hint("the request may still be carried out; asking again is safe")),
        }
    }

    fn absent(&self) -> Failure {
        Failure::new(Code::ShuttingDown, format!("{} is not running at present", self.name)).hint("try again in a moment")
    }
}

/// False once an incarnation has begun to stop: what it is sent then would be lost.
fn accepts<M: Send + 'static>(actor: &Arc<ActorRef<Admitted<M>>>) -> bool {
    !matches!(actor.get_status(), ActorStatus::Draining | ActorStatus::Stopping | ActorStatus::Stopped)
}
