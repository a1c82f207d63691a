//! Model calls under way.
//!
//! A call belongs to its step, not to the owner that made it: when the worker dies while a model is thinking, the answer is as
//! good for the next owner on this node. So a call goes on when its owner is dropped, the next one joins it by its key, and the
//! answer is kept until it is in the journal. What is set aside for it is so until then; what dies with the node is charged as
//! uncertain, as the journal says. A call whose owner was dropped while it recorded the reservation was certainly not made: the
//! next one makes it on that reservation.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use helix_messages::SetAside;
use helix_ports::ProviderError;
use helix_protocol::{CallKey, Code, Failure, ModelReply, Spent, TaskId};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// What a model answered.
type Answer = Result<ModelReply, ProviderError>;

/// Every call that is about to be made or under way, and every answer that is not in the journal yet.
#[derive(Default)]
pub(crate) struct Calls(Mutex<HashMap<CallKey, Call>>);

struct Call {
    task: TaskId,
    set_aside: Option<SetAside>,
    /// `None` where it is only reserved.
    made: Option<Made>,
}

struct Made {
    answer: Shared<BoxFuture<'static, Answer>>,
    abort: AbortHandle,
}

impl Calls {
    /// True of a call that is about to be made or under way, or whose answer waits to be journalled.
    pub fn has(&self, key: &CallKey) -> bool {
        self.0.lock().contains_key(key)
    }

    /// True of a call that was made and not settled.
    pub fn is_made(&self, key: &CallKey) -> bool {
        self.0.lock().get(key).is_some_and(|call| call.made.is_some())
    }

    /// Keeps what is set aside for a call that is about to be made.
    pub fn reserve(&self, task: TaskId, key: &CallKey, set_aside: SetAside) {
        self.0.lock().insert(key.clone(), Call { task, set_aside: Some(set_aside), made: None });
    }

    /// A call that was reserved is not made.
    pub fn release(&self, key: &CallKey) {
        let mut calls = self.0.lock();
        if calls.get(key).is_some_and(|call| call.made.is_none()) {
            calls.remove(key).into_iter().for_each(Call::end);
        }
    }

    /// Joins the call of this key; makes it where that was not done. Dropping the answer leaves the call under way.
    pub fn join(
        &self,
        task: TaskId,
        key: &CallKey,
        make: impl Future<Output = Answer> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Answer>> {
        let mut calls = self.0.lock();
        let call = calls.entry(key.clone()).or_insert_with(|| Call { task, set_aside: None, made: None });
        let made = call.made.get_or_insert_with(|| {
            let running = tokio::spawn(make);
            let abort = running.abort_handle();
            let answer = running.map(|ended| {
                ended.unwrap_or_else(|error| {
                    let failure = Failure::new(Code::Cancelled, format!("the model call ended early: {error}"));
                    Err(ProviderError::Uncertain(failure))
                })
            });
            Made { answer: answer.boxed().shared(), abort }
        });
        made.answer.clone()
    }

    /// The answer is in the journal, with what the call used.
    pub fn settle(&self, key: &CallKey, used: Spent) {
        let call = self.0.lock().remove(key);
        if let Some(set_aside) = call.and_then(|call| call.set_aside) {
            set_aside.settle(used);
        }
    }

    /// The task has ended: nobody will want its answers. What is under way is closed.
    pub fn give_up(&self, task: TaskId) {
        let ended: Vec<Call> = self.0.lock().extract_if(|_, call| call.task == task).map(|(_, call)| call).collect();
        ended.into_iter().for_each(Call::end);
    }
}

impl Call {
    /// Nobody wants its answer. One that was not made has cost nothing.
    fn end(self) {
        match (self.made, self.set_aside) {
            (Some(made), _) => made.abort.abort(),
            (None, Some(set_aside)) => set_aside.free(),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use helix_database::MemoryStore;
    use helix_kernel::{Address, Clock};
    use helix_messages::{DailyLimits, Payers, Records, Spending};
    use helix_protocol::{Budget, Money, Most, OwnerId, ProjectId, StopReason, Usage};
    use tokio::sync::oneshot;

    use super::*;

    fn reply() -> ModelReply {
        ModelReply { model: "m".to_owned(), blocks: Vec::new(), stop: StopReason::EndTurn, usage: Usage::default() }
    }

    #[tokio::test]
    async fn a_call_outlives_its_owner_and_the_next_owner_is_given_its_answer() {
        let (calls, made) = (Calls::default(), Arc::new(AtomicU32::new(0)));
        let (task, key) = (TaskId::new(), CallKey("k".to_owned()));
        let (answer, waiting) = oneshot::channel::<()>();
        let call = |count: Arc<AtomicU32>, waiting: oneshot::Receiver<()>| async move {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = waiting.await;
            Ok(reply())
        };
        drop(calls.join(task, &key, call(Arc::clone(&made), waiting)));
        assert!(calls.has(&key));
        let next = calls.join(task, &key, call(Arc::clone(&made), oneshot::channel().1));
        answer.send(()).expect("the call is under way");
        assert_eq!(next.await, Ok(reply()));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        calls.settle(&key, Spent::default());
        assert!(!calls.has(&key));
    }

    fn spending() -> Spending {
        let records = Records::new(Address::unbound("records", 1), Arc::new(MemoryStore::new()), Duration::from_secs(1));
        let limits = DailyLimits { owner: Budget { money: Some(Money(100)), tokens: None }, ..DailyLimits::default() };
        Spending::new(records, limits, Clock::system())
    }

    #[tokio::test]
    async fn what_was_set_aside_for_a_call_that_was_never_made_is_free_once_it_is_not_wanted() {
        let (calls, spending, task, key) = (Calls::default(), spending(), TaskId::new(), CallKey("k".to_owned()));
        let payers = Payers { owner: OwnerId::LOCAL, project: ProjectId::DEFAULT };
        let most = Most { money: Some(Money(80)), tokens: 1 };
        calls.reserve(task, &key, spending.admit(payers, most).await.expect("within the limit"));
        assert!(calls.has(&key) && !calls.is_made(&key));
        assert!(spending.admit(payers, most).await.is_err(), "it is set aside");
        calls.release(&key);
        calls.reserve(task, &key, spending.admit(payers, most).await.expect("it is free again"));
        calls.give_up(task);
        spending.admit(payers, most).await.expect("it is free again").free();
    }

    #[tokio::test]
    async fn a_task_that_ended_closes_its_calls() {
        let (calls, task, key) = (Calls::default(), TaskId::new(), CallKey("k".to_owned()));
        let answer = calls.join(task, &key, std::future::pending());
        calls.give_up(task);
        assert!(matches!(answer.await, Err(ProviderError::Uncertain(_))));
        assert!(!calls.has(&key));
    }
}
