//! Model calls under way.
//!
//! A call belongs to its step, not to the owner that made it: when the worker dies while a model is thinking, the answer is as
//! good for the next owner on this node. So a call goes on when its owner is dropped, the next one joins it by its key, and the
//! answer is kept until it is in the journal. What is set aside for it is so until then; what dies with the node is charged as
//! uncertain, as the journal says.

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

/// Every call under way, and every answer that is not in the journal yet.
#[derive(Default)]
pub(crate) struct Calls(Mutex<HashMap<CallKey, Call>>);

struct Call {
    task: TaskId,
    set_aside: Option<SetAside>,
    answer: Shared<BoxFuture<'static, Answer>>,
    abort: AbortHandle,
}

impl Calls {
    /// True of a call that is under way, or whose answer waits to be journalled.
    pub fn has(&self, key: &CallKey) -> bool {
        self.0.lock().contains_key(key)
    }

    /// Joins the call of this key; makes it where there is none, with what was set aside for it. Dropping the answer
    /// leaves the call under way.
    pub fn join(
        &self,
        task: TaskId,
        key: &CallKey,
        set_aside: Option<SetAside>,
        make: impl Future<Output = Answer> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Answer>> {
        let mut calls = self.0.lock();
        let call = calls.entry(key.clone()).or_insert_with(|| {
            let running = tokio::spawn(make);
            let abort = running.abort_handle();
            let answer = running.map(|ended| {
                ended.unwrap_or_else(|error| {
                    let failure = Failure::new(Code::Cancelled, format!("the model call ended early: {error}"));
                    Err(ProviderError::Uncertain(failure))
                })
            });
            Call { task, set_aside, answer: answer.boxed().shared(), abort }
        });
        call.answer.clone()
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
        self.0.lock().retain(|_, call| {
            if call.task == task {
                call.abort.abort();
            }
            call.task != task
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use helix_protocol::{StopReason, Usage};
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
        drop(calls.join(task, &key, None, call(Arc::clone(&made), waiting)));
        assert!(calls.has(&key));
        let next = calls.join(task, &key, None, call(Arc::clone(&made), oneshot::channel().1));
        answer.send(()).expect("the call is under way");
        assert_eq!(next.await, Ok(reply()));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        calls.settle(&key, Spent::default());
        assert!(!calls.has(&key));
    }

    #[tokio::test]
    async fn a_task_that_ended_closes_its_calls() {
        let (calls, task, key) = (Calls::default(), TaskId::new(), CallKey("k".to_owned()));
        let answer = calls.join(task, &key, None, std::future::pending());
        calls.give_up(task);
        assert!(matches!(answer.await, Err(ProviderError::Uncertain(_))));
        assert!(!calls.has(&key));
    }
}
