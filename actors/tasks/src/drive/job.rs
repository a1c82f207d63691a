//! What a driver is given, what it may be asked for on the way, and how it ends.

use helix_messages::LostWorker;
use helix_protocol::{Failure, TaskId, TaskRecord, WorkerId};
use parking_lot::Mutex;

/// What is to be driven, and where.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub task: TaskId,
    /// As the scheduler has it; `None` where it may have changed since.
    pub record: Option<Box<TaskRecord>>,
    pub worker: WorkerId,
    pub name: String,
    /// The worker it lost.
    pub lost: Option<LostWorker>,
    /// Where it was before, if its workspace may still be there.
    pub previous: Option<WorkerId>,
    /// What of the workspace on this worker.
    pub handover: Handover,
}

/// How the next owner takes a workspace over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// With the files of the last step: what runs in it is ended.
    Open,
    /// As it is, where the worker went on with the step while the node was away; otherwise as with `Open`.
    Adopt,
}

/// What is to happen at the next step boundary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// The next step.
    #[default]
    GoOn,
    /// The worker drains: the task goes back to the scheduler.
    Yield,
    /// Somebody parks it.
    Pause {
        /// Who.
        actor: String,
    },
    /// The node stops: it stays as it is, to be adopted.
    Park,
}

impl Boundary {
    fn strength(&self) -> u8 {
        match self {
            Self::GoOn => 0,
            Self::Yield => 1,
            Self::Park => 2,
            Self::Pause { .. } => 3,
        }
    }
}

/// How the task's actor tells the work what is wanted. Of several wishes the strongest is done.
#[derive(Debug, Default)]
pub(crate) struct Control(Mutex<Vec<Boundary>>);

impl Control {
    pub fn wish(&self, boundary: Boundary) {
        let mut wishes = self.0.lock();
        if wishes.iter().all(|wish| wish.strength() != boundary.strength()) {
            wishes.push(boundary);
        }
    }

    /// Takes wishes back.
    pub fn withdraw(&self, is_it: impl Fn(&Boundary) -> bool) {
        self.0.lock().retain(|wish| !is_it(wish));
    }

    pub fn get(&self) -> Boundary {
        self.0.lock().iter().max_by_key(|wish| wish.strength()).cloned().unwrap_or_default()
    }
}

/// How driving ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The task reached a final state.
    Final(Box<TaskRecord>),
    /// It is parked: paused, or it waits for an answer.
    Parked(Box<TaskRecord>),
    /// It waits for its turn again: a retry, or its worker drains.
    Waiting(Box<TaskRecord>),
    /// The worker went away or fenced itself.
    WorkerGone,
    /// Somebody else owns it.
    Stale,
    /// The node stops: it stays assigned.
    Held,
    /// Something that should not happen; nothing was recorded.
    Broken(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_wishes_the_strongest_is_done_and_one_that_is_withdrawn_leaves_the_others() {
        let control = Control::default();
        let pause = |actor: &str| Boundary::Pause { actor: actor.to_owned() };
        control.wish(Boundary::Yield);
        control.wish(pause("one"));
        control.wish(pause("two"));
        assert_eq!(control.get(), pause("one"));
        control.withdraw(|wish| matches!(wish, Boundary::Pause { .. }));
        assert_eq!(control.get(), Boundary::Yield);
        control.withdraw(|wish| *wish == Boundary::Yield);
        assert_eq!(control.get(), Boundary::GoOn);
    }
}
