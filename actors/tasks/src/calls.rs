//! Model calls under way.
//!
//! A call belongs to its step, not to the owner that made it: when the worker dies while a model is thinking, the answer is as
//! good for the next owner on this node. So a call goes on when its owner is dropped, the next one joins it by its key, and the
//! answer is kept until it is in the journal. What is set aside for it is settled by the call itself once it is answered, whoever
//! is there to hear that; what dies with the node is charged as uncertain, as the journal says. A call whose owner was dropped
//! while it recorded the reservation was certainly not made: the next one makes it on that reservation.

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
    /// Until it is made: from then on it is the call's own.
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

    /// True of a call that was made and whose answer is not known to be in the journal.
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
        let Call { set_aside, made, .. } = calls.entry(key.clone()).or_insert_with(|| Call { task, set_aside: None, made: None });
        let made = made.get_or_insert_with(|| {
            let set_aside = set_aside.take();
            let running = tokio::spawn(async move {
                let answer = make.await;
                if let Some(set_aside) = set_aside {
                    settle(set_aside, &answer);
                }
                answer
            });
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

    /// The answer is in the journal.
    pub fn forget(&self, key: &CallKey) {
        self.0.lock().remove(key);
    }

    /// The journal was read of the step that the task is at: of its calls that were made those stay which are `open` there. The
    /// answer of any other is in the journal, whether its owner heard of that or not, or nobody will ask for it again.
    pub fn keep_open(&self, task: TaskId, open: impl Fn(&CallKey) -> bool) {
        let is_over = |key: &CallKey, call: &mut Call| call.task == task && call.made.is_some() && !open(key);
        let over: Vec<Call> = self.0.lock().extract_if(is_over).map(|(_, call)| call).collect();
        over.into_iter().for_each(Call::end);
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

/// Takes what a call used from what was set aside for it: all of that where it may have been billed for an answer nobody has.
fn settle(set_aside: SetAside, answer: &Answer) {
    match answer {
        Ok(reply) => set_aside.settle(Spent { money: reply.usage.cost, tokens: reply.usage.total_tokens() }),
        Err(ProviderError::Uncertain(_)) => drop(set_aside),
        Err(_) => set_aside.free(),
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
        calls.forget(&key);
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
    async fn a_call_is_settled_once_it_is_answered_whether_anybody_hears_of_it_or_not() {
        let uncertain = || ProviderError::Uncertain(Failure::new(Code::ModelFailed, "half an answer"));
        let cost = |money| Usage { cost: Money(money), ..Usage::default() };
        let cases = [
            (Ok(ModelReply { usage: cost(30), ..reply() }), 30),
            (Err(uncertain()), 80),
            (Err(ProviderError::Final(Failure::new(Code::ModelRefused, "no"))), 0),
        ];
        for (answer, used) in cases {
            let (calls, spending, task, key) = (Calls::default(), spending(), TaskId::new(), CallKey("k".to_owned()));
            let payers = Payers { owner: OwnerId::LOCAL, project: ProjectId::DEFAULT };
            let most = |money| Most { money: Some(Money(money)), tokens: 1 };
            calls.reserve(task, &key, spending.admit(payers, most(80)).await.expect("within the limit"));
            assert_eq!(calls.join(task, &key, std::future::ready(answer.clone())).await, answer);
            // Its owner is dropped, and the next one reads that it is answered, or the task ends: neither settles it again.
            calls.keep_open(task, |_| true);
            assert!(calls.is_made(&key), "it is open");
            calls.keep_open(task, |_| false);
            assert!(!calls.has(&key));
            calls.give_up(task);
            spending.admit(payers, most(100 - used)).await.expect("no more is spent").free();
            assert!(spending.admit(payers, most(101 - used)).await.is_err(), "{used} are spent");
        }
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
