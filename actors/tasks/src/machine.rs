//! The states of a task, and what leads from one to another.
//!
//! Every change of a task's state that this crate asks for is built here. The records check the same states again inside the
//! transaction, and the rest is theirs alone (`rules` of `helix_database`): a question parks its task, the answer frees it, and
//! going back to before it pauses the task; those that wait for a task are freed or fail with it; and one that is resumed or tried
//! again is not pending but waits, where its question is open or something that it needs has not completed.

use helix_database::StatusChange;
use helix_protocol::{Code, Epoch, Failure, TaskId, TaskStatus};

use TaskStatus::{
    Assigned, Cancelled, Completed, Failed, Paused, Pending, Running, WaitingForDependencies, WaitingForInput, WaitingForWorker,
};

/// What this crate does to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// The scheduler gave it to a worker; also the same task again, after a restart of the node.
    Claim,
    /// Its first step began.
    Step,
    /// Files of its step were kept, which is no progress: the retries that were used stay used.
    KeepRunning,
    /// The last step was made.
    Finish,
    /// It cannot go on.
    Fail,
    /// A step failed and will be tried again.
    TryAgain,
    /// Its worker is gone, and no other is free.
    LoseWorker,
    /// It moves away from its worker at a step boundary.
    Yield,
    /// Somebody, or a stopping node, parks it.
    Pause,
    /// Somebody lets it go on.
    Resume,
    /// Somebody gave it another budget with an answer that lets it go on.
    NewBudget,
    /// Somebody gives it up.
    Cancel,
    /// Somebody wants it tried again after its end.
    Retry,
    /// Somebody moves its head back. Where that leads is the records' to say.
    Rollback,
}

impl Happening {
    /// Everything that can happen.
    pub const ALL: [Happening; 14] = [
        Self::Claim,
        Self::Step,
        Self::KeepRunning,
        Self::Finish,
        Self::Fail,
        Self::TryAgain,
        Self::LoseWorker,
        Self::Yield,
        Self::Pause,
        Self::Resume,
        Self::NewBudget,
        Self::Cancel,
        Self::Retry,
        Self::Rollback,
    ];

    /// The states it can happen in.
    pub fn from(self) -> &'static [TaskStatus] {
        match self {
            Self::Claim => &[Pending, WaitingForWorker, Assigned, Running],
            Self::Step | Self::Finish | Self::TryAgain | Self::LoseWorker | Self::Yield => &[Assigned, Running],
            Self::KeepRunning => &[Running],
            // A task whose kind this node does not know fails before it has a worker.
            Self::Fail => &[Pending, WaitingForWorker, Assigned, Running],
            Self::Pause => &[Pending, WaitingForDependencies, WaitingForWorker, WaitingForInput, Assigned, Running],
            Self::Resume => &[Paused, WaitingForInput],
            Self::NewBudget => &[Pending],
            Self::Cancel => &[Pending, WaitingForDependencies, WaitingForWorker, WaitingForInput, Paused, Assigned, Running],
            Self::Retry => &[Failed, Cancelled],
            Self::Rollback => {
                &[Pending, WaitingForDependencies, WaitingForWorker, WaitingForInput, Paused, Completed, Failed, Cancelled]
            }
        }
    }

    /// The state it leads to from `from`, or `None` where it cannot happen there.
    pub fn to(self, from: TaskStatus) -> Option<TaskStatus> {
        if !self.from().contains(&from) {
            return None;
        }
        Some(match self {
            Self::TryAgain | Self::Yield | Self::Resume | Self::NewBudget | Self::Retry => Pending,
            Self::Fail => Failed,
            Self::Claim => Assigned,
            Self::Step | Self::KeepRunning => Running,
            Self::Finish => Completed,
            Self::LoseWorker => WaitingForWorker,
            Self::Pause => Paused,
            Self::Cancel => Cancelled,
            Self::Rollback => from,
        })
    }

    /// True where the present owner, if there is one, must not write any more.
    pub fn fences(self) -> bool {
        matches!(self, Self::LoseWorker | Self::Cancel | Self::Rollback | Self::Retry)
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
            Self::Retry => "tried again",
            Self::Rollback => "rolled back",
            _ => "changed in this way",
        }
    }

    /// Refuses with `invalid_state`, naming the state and what is possible.
    pub fn check(self, task: TaskId, status: TaskStatus) -> Result<TaskStatus, Failure> {
        self.to(status).ok_or_else(|| {
            let possible: Vec<&str> = self.from().iter().map(|status| status.as_str()).collect();
            let message = format!("task {} is {status}, so it cannot be {}", task.short(), self.verb());
            let pause = if self == Self::Rollback && status.is_active() {
                format!("; `helix task pause {}` parks it", task.short())
            } else {
                String::new()
            };
            Failure::new(Code::InvalidState, message).hint(format!("that is possible while it is {}{pause}", possible.join(", ")))
        })
    }

    /// The change to be recorded. `epoch` is the writer's own, or `None` for what a person does whoever owns the task.
    pub fn change(self, task: TaskId, epoch: Option<Epoch>, reason: impl Into<String>) -> StatusChange {
        let from = self.from();
        StatusChange {
            task,
            epoch,
            from: from.to_vec(),
            to: self.to(from[0]).expect("what a happening starts from has a target"),
            reason: reason.into(),
            hint: String::new(),
            fence: self.fences(),
            retries: None,
            not_before: None,
            budget: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_but_a_person_leaves_a_final_state() {
        for status in TaskStatus::ALL.into_iter().filter(|status| status.is_final()) {
            let leaving: Vec<Happening> =
                Happening::ALL.into_iter().filter(|event| event.to(status).is_some_and(|to| to != status)).collect();
            let expected = if status == Completed { vec![] } else { vec![Happening::Retry] };
            assert_eq!(leaving, expected, "{status}");
        }
    }

    #[test]
    fn every_state_is_reached_and_none_that_is_not_final_is_a_dead_end() {
        for status in TaskStatus::ALL {
            let reached = status == Pending
                || Happening::ALL
                    .iter()
                    .any(|event| TaskStatus::ALL.iter().any(|from| *from != status && event.to(*from) == Some(status)));
            // What is waited for is the records' to say.
            assert!(reached || [WaitingForDependencies, WaitingForInput].contains(&status), "{status}");
            let left = Happening::ALL.iter().any(|event| event.to(status).is_some_and(|to| to != status));
            assert!(left || status == Completed, "{status}");
        }
    }

    #[test]
    fn a_refusal_names_the_state_and_what_is_possible() {
        let task = TaskId(uuid::Uuid::from_u128(1));
        let refused = Happening::Resume.check(task, Completed).expect_err("it has ended");
        assert_eq!(refused.code, Code::InvalidState);
        assert_eq!(refused.message, "task 00000001 is completed, so it cannot be resumed");
        assert_eq!(refused.hint, "that is possible while it is paused, waiting_for_input");
        let refused = Happening::Rollback.check(task, Running).expect_err("it is at work");
        assert!(refused.hint.ends_with("; `helix task pause 00000001` parks it"), "{}", refused.hint);
    }

    proptest! {
        #[test]
        fn a_task_is_only_ever_active_under_a_claim(events in prop::collection::vec(0..Happening::ALL.len(), 0..60)) {
            let (mut status, mut claimed) = (Pending, false);
            for event in events {
                let event = Happening::ALL[event];
                if let Some(next) = event.to(status) {
                    status = next;
                    claimed = if event == Happening::Claim { true } else { claimed && next.is_active() };
                }
                prop_assert_eq!(status.is_active(), claimed, "{:?} led to {}", event, status);
            }
        }

        #[test]
        fn a_recorded_change_leads_where_the_table_says(event in 0..Happening::ALL.len()) {
            let event = Happening::ALL[event];
            if event != Happening::Rollback {
                let change = event.change(TaskId::new(), None, "");
                for from in change.from {
                    prop_assert_eq!(event.to(from), Some(change.to));
                }
            }
        }
    }
}
