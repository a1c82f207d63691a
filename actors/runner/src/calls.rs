//! Calls that run and calls whose results are kept, as pure logic.
//!
//! A repeated key joins the running call or is answered with the kept result, so a request may be
//! repeated on a new connection without being done twice. What is kept is bounded per task; the node
//! repeats only calls of the step it is making.

use std::collections::{HashMap, VecDeque};

use helix_protocol::{CallKey, TaskId};

/// What becomes of a call that is asked for. `W` waits for results `R`.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun<W, R> {
    /// It is new: the caller runs it and tells [`Calls::finish`].
    Start,
    /// It runs already; the waiter was added.
    Joined,
    /// It has ended: here is the waiter back, and the result for it.
    Kept(W, R),
}

/// The table.
#[derive(Debug)]
pub struct Calls<W, R> {
    limit: usize,
    tasks: HashMap<TaskId, Table<W, R>>,
}

#[derive(Debug)]
struct Table<W, R> {
    running: HashMap<CallKey, Vec<W>>,
    kept: HashMap<CallKey, R>,
    order: VecDeque<CallKey>,
}

impl<W, R: Clone> Calls<W, R> {
    /// Keeps at most `limit` results of each task.
    pub fn new(limit: usize) -> Self {
        Self { limit, tasks: HashMap::new() }
    }

    /// Somebody asks for a call.
    pub fn begin(&mut self, task: TaskId, key: &CallKey, waiter: W) -> Begun<W, R> {
        let table = self.tasks.entry(task).or_insert_with(|| Table {
            running: HashMap::new(),
            kept: HashMap::new(),
            order: VecDeque::new(),
        });
        if let Some(result) = table.kept.get(key) {
            return Begun::Kept(waiter, result.clone());
        }
        if let Some(waiters) = table.running.get_mut(key) {
            waiters.push(waiter);
            return Begun::Joined;
        }
        table.running.insert(key.clone(), vec![waiter]);
        Begun::Start
    }

    /// A call has ended. Everybody who waits is to be told `result`, which is kept where it is given
    /// again for the same key: `keep` is false for refusals, which another try may not meet.
    pub fn finish(&mut self, task: TaskId, key: &CallKey, result: R, keep: Keep) -> Vec<W> {
        let Some(table) = self.tasks.get_mut(&task) else { return Vec::new() };
        let waiters = table.running.remove(key).unwrap_or_default();
        if keep == Keep::Result && table.kept.insert(key.clone(), result).is_none() {
            table.order.push_back(key.clone());
            if table.order.len() > self.limit
                && let Some(oldest) = table.order.pop_front()
            {
                table.kept.remove(&oldest);
            }
        }
        waiters
    }

    /// Forgets the results of a task: its workspace holds something else now. What runs stays.
    pub fn forget(&mut self, task: TaskId) {
        if let Some(table) = self.tasks.get_mut(&task) {
            table.kept.clear();
            table.order.clear();
            if table.running.is_empty() {
                self.tasks.remove(&task);
            }
        }
    }

    /// The calls of a task that run or are kept, sorted.
    pub fn keys(&self, task: TaskId) -> Vec<CallKey> {
        let Some(table) = self.tasks.get(&task) else { return Vec::new() };
        let mut keys: Vec<_> = table.running.keys().chain(table.kept.keys()).cloned().collect();
        keys.sort();
        keys
    }
}

/// Whether a result is given again for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It was done.
    Result,
    /// It was refused; the next try may go better.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: u8) -> CallKey {
        CallKey(format!("{name:064}"))
    }

    #[test]
    fn a_repeated_call_joins_the_running_one_and_then_gets_its_result() {
        let (mut calls, task) = (Calls::new(4), TaskId::new());
        assert_eq!(calls.begin(task, &key(1), "first"), Begun::Start);
        assert_eq!(calls.begin(task, &key(1), "second"), Begun::Joined);
        assert_eq!(calls.begin(TaskId::new(), &key(1), "of another task"), Begun::Start);
        assert_eq!(calls.finish(task, &key(1), 7, Keep::Result), ["first", "second"]);
        assert_eq!(calls.begin(task, &key(1), "third"), Begun::Kept("third", 7));
        assert_eq!(calls.keys(task), [key(1)]);
        calls.forget(task);
        assert_eq!(calls.begin(task, &key(1), "fourth"), Begun::Start);
    }

    #[test]
    fn a_refusal_is_told_and_not_kept() {
        let (mut calls, task) = (Calls::new(4), TaskId::new());
        calls.begin(task, &key(1), "first");
        assert_eq!(calls.finish(task, &key(1), 7, Keep::Nothing), ["first"]);
        assert_eq!(calls.begin(task, &key(1), "second"), Begun::Start);
    }

    proptest! {
        #[test]
        fn a_call_never_runs_twice_at_once_and_the_table_stays_bounded(script in proptest::collection::vec((any::<bool>(), 0..12u8), 0..200)) {
            let (mut calls, task) = (Calls::new(4), TaskId::new());
            let mut running = std::collections::HashSet::new();
            let mut waiting = 0usize;
            for (begin, name) in script {
                if begin {
                    match calls.begin(task, &key(name), ()) {
                        Begun::Start => { prop_assert!(running.insert(name)); waiting += 1; }
                        Begun::Joined => { prop_assert!(running.contains(&name)); waiting += 1; }
                        Begun::Kept((), result) => prop_assert_eq!(result, name),
                    }
                } else if running.remove(&name) {
                    waiting -= calls.finish(task, &key(name), name, Keep::Result).len();
                }
                prop_assert!(calls.keys(task).len() <= running.len() + 4);
            }
            for name in running {
                waiting -= calls.finish(task, &key(name), name, Keep::Result).len();
            }
            prop_assert_eq!(waiting, 0);
        }
    }
}
