//! Calls that run and calls whose results are kept, as pure logic.
//!
//! A repeated key joins the running call or is answered with the kept result, so a request may be
//! repeated on a new connection without being done twice. What is kept is bounded per task; the node
//! repeats only calls of the step it is making. Beside them is noted which calls that step has made, for the node that
//! comes back to it.

use std::collections::{HashMap, VecDeque};

use helix_protocol::{CallKey, ObjectId, TaskId};

use crate::making::{Calling, Making};

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
    running: HashMap<CallKey, Running<W>>,
    kept: HashMap<CallKey, (Option<u64>, R)>,
    order: VecDeque<CallKey>,
    /// `None` where the workspace is not one to go on with.
    making: Option<Making>,
}

#[derive(Debug)]
struct Running<W> {
    /// Its number among the calls since the workspace was opened.
    number: Option<u64>,
    waiters: Vec<W>,
}

impl<W, R> Default for Table<W, R> {
    fn default() -> Self {
        Self { running: HashMap::new(), kept: HashMap::new(), order: VecDeque::new(), making: None }
    }
}

impl<W, R> Table<W, R> {
    fn lose(&mut self, number: Option<u64>) {
        if let (Some(making), Some(number)) = (&mut self.making, number) {
            making.lost(number);
        }
    }
}

impl<W, R: Clone> Calls<W, R> {
    /// Keeps at most `limit` results of each task.
    pub fn new(limit: usize) -> Self {
        Self { limit, tasks: HashMap::new() }
    }

    /// Somebody asks for a call.
    pub fn begin(&mut self, task: TaskId, key: &CallKey, waiter: W) -> Begun<W, R> {
        let table = self.tasks.entry(task).or_default();
        if let Some((_, result)) = table.kept.get(key) {
            return Begun::Kept(waiter, result.clone());
        }
        if let Some(running) = table.running.get_mut(key) {
            running.waiters.push(waiter);
            return Begun::Joined;
        }
        let number = table.making.as_mut().map(Making::call);
        table.running.insert(key.clone(), Running { number, waiters: vec![waiter] });
        Begun::Start
    }

    /// A call has ended. Answers with everybody who is to be told the result.
    pub fn finish(&mut self, task: TaskId, key: &CallKey, result: R, keep: Keep) -> Vec<W> {
        let Some(table) = self.tasks.get_mut(&task) else { return Vec::new() };
        let Some(Running { number, waiters }) = table.running.remove(key) else { return Vec::new() };
        match keep {
            Keep::Result => {
                if table.kept.insert(key.clone(), (number, result)).is_none() {
                    table.order.push_back(key.clone());
                }
                if table.order.len() > self.limit
                    && let Some(oldest) = table.order.pop_front()
                    && let Some((number, _)) = table.kept.remove(&oldest)
                {
                    table.lose(number);
                }
            }
            Keep::Refusal => {}
            Keep::Nothing => table.lose(number),
        }
        waiters
    }

    /// Forgets the results of a task: its workspace holds something else now. What runs stays.
    pub fn forget(&mut self, task: TaskId) {
        if let Some(table) = self.tasks.get_mut(&task) {
            table.kept.clear();
            table.order.clear();
            table.making = None;
            if table.running.is_empty() {
                self.tasks.remove(&task);
            }
        }
    }

    /// The workspace of a task holds `tree`, and a step begins from it.
    pub fn opened(&mut self, task: TaskId, tree: ObjectId) {
        self.tasks.entry(task).or_default().making = Some(Making::opened(tree));
    }

    /// The workspace changes hands, or its step is given up: nobody goes on with it before it is opened again.
    pub fn give_up(&mut self, task: TaskId) {
        if let Some(table) = self.tasks.get_mut(&task) {
            table.making = None;
        }
    }

    /// The workspace was snapshotted for a step that began from `since`.
    pub fn snapshotted(&mut self, task: TaskId, since: ObjectId, tree: ObjectId) {
        if let Some(table) = self.tasks.get_mut(&task)
            && let Some(making) = &mut table.making
        {
            let calling = if table.running.is_empty() { Calling::Rests } else { Calling::Runs };
            making.snapshotted(since, tree, calling);
        }
    }

    /// A node that was away goes on with the step that began from `tree`. False where it cannot: see [`Making`].
    pub fn resume(&mut self, task: TaskId, tree: ObjectId) -> bool {
        self.tasks.get_mut(&task).and_then(|table| table.making.as_mut()).is_some_and(|making| making.resume(tree))
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
    /// It was refused before anything was done; the next try may go better.
    Refusal,
    /// It failed on its way, and nobody knows how far it came; the next try may go better.
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
        for keep in [Keep::Refusal, Keep::Nothing] {
            assert_eq!(calls.begin(task, &key(1), "first"), Begun::Start);
            assert_eq!(calls.finish(task, &key(1), 7, keep), ["first"]);
        }
        assert_eq!(calls.begin(task, &key(1), "second"), Begun::Start);
    }

    #[test]
    fn a_step_is_resumed_while_every_answer_of_it_can_be_given() {
        let (tree, task) = (ObjectId([1; 32]), TaskId::new());
        let mut calls = Calls::new(2);
        let call = |calls: &mut Calls<(), u8>, name: u8, keep: Keep| {
            calls.begin(task, &key(name), ());
            calls.finish(task, &key(name), name, keep);
        };
        call(&mut calls, 1, Keep::Result);
        assert!(!calls.resume(task, tree), "it was never opened");
        calls.forget(task);
        calls.opened(task, tree);
        call(&mut calls, 1, Keep::Result);
        call(&mut calls, 2, Keep::Refusal);
        call(&mut calls, 2, Keep::Result);
        assert!(calls.resume(task, tree) && !calls.resume(task, ObjectId([2; 32])));
        call(&mut calls, 3, Keep::Result);
        assert!(!calls.resume(task, tree), "the first answer was dropped for the third");
        calls.opened(task, tree);
        call(&mut calls, 4, Keep::Nothing);
        assert!(!calls.resume(task, tree), "nobody knows what the call did");
        calls.opened(task, tree);
        calls.begin(task, &key(5), ());
        assert!(calls.resume(task, tree));
        calls.give_up(task);
        assert!(!calls.resume(task, tree));
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
