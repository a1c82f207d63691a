//! Limits on what may wait in a mailbox.
//!
//! ractor's mailboxes are unbounded. An [`Address`](crate::Address) therefore takes a permit for
//! every message it posts, and the permit travels with the message until the actor takes it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many messages from outside may wait for one actor.
#[derive(Clone, Debug)]
pub struct Admission {
    limit: usize,
    waiting: Arc<AtomicUsize>,
}

impl Admission {
    /// Admits at most `limit` waiting messages.
    pub fn new(limit: usize) -> Self {
        Self { limit, waiting: Arc::new(AtomicUsize::new(0)) }
    }

    /// How many messages wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The most that may wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Wraps `message` with a permit, or hands it back where the limit is reached.
    pub fn admit<M>(&self, message: M) -> Result<Admitted<M>, M> {
        let admitted = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < self.limit).then_some(now + 1));
        match admitted {
            Ok(_) => Ok(Admitted { message, permit: Some(Permit(Arc::clone(&self.waiting))) }),
            Err(_) => Err(message),
        }
    }
}

/// A message with the permit under which it waits. Every actor's `Msg` is `Admitted<ItsMsg>`.
#[derive(Debug)]
pub struct Admitted<M> {
    message: M,
    permit: Option<Permit>,
}

impl<M> Admitted<M> {
    /// A message an actor sends itself (a timer, the result of work it started): never refused.
    pub fn internal(message: M) -> Self {
        Self { message, permit: None }
    }

    /// Takes the message out and gives the permit back: the first line of every `handle`.
    pub fn take(self) -> M {
        drop(self.permit);
        self.message
    }
}

#[derive(Debug)]
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_hands_the_message_back_and_admits_again_once_one_is_taken() {
        let admission = Admission::new(2);
        let first = admission.admit("a").expect("one of two");
        let _second = admission.admit("b").expect("two of two");
        assert_eq!(admission.admit("c").map(Admitted::take), Err("c"));
        assert_eq!(first.take(), "a");
        assert_eq!(admission.waiting(), 1);
        assert!(admission.admit("c").is_ok());
    }

    #[test]
    fn a_message_that_is_dropped_unread_gives_its_permit_back() {
        let admission = Admission::new(1);
        drop(admission.admit(()).expect("one of one"));
        assert_eq!(admission.waiting(), 0);
    }
}
