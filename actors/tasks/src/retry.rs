//! Which failures are worth another try, and when.
//!
//! The loss of a worker is no failure: such a task goes on elsewhere at once and no retry is used.

use std::time::Duration;

use helix_protocol::Code;

/// What a failed step means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The step may work the next time: a retry is used, after a backoff.
    Retry,
    /// The worker's disk is full, which is no fault of the step: it is made again until there is space, and no retry is used.
    NoSpace,
    /// It would fail in the same way again.
    Final,
    /// The task parks and asks for money.
    OutOfBudget,
    /// What may be spent in a day is spent: the task parks and asks, and goes on by itself when the day turns; no retry is used.
    NextDay,
    /// No model answers at present: the step is made again when one may, and no retry is used.
    Unserved,
    /// The worker went away or fenced itself: the task goes on elsewhere, and no retry is used.
    WorkerGone,
    /// Somebody else owns the task: nothing may be touched.
    Stale,
}

/// Sorts a failure by its code.
pub fn verdict(code: Code) -> Verdict {
    match code {
        Code::StaleOwner => Verdict::Stale,
        Code::BudgetExhausted => Verdict::OutOfBudget,
        Code::DayLimitReached => Verdict::NextDay,
        Code::NoModelAnswers => Verdict::Unserved,
        Code::DiskFull => Verdict::NoSpace,
        Code::WorkerLost | Code::WorkerUnreachable | Code::LeaseExpired => Verdict::WorkerGone,
        Code::InvalidRequest
        | Code::InvalidConfig
        | Code::InvalidState
        | Code::InvalidToolCall
        | Code::NotFound
        | Code::DependencyCycle
        | Code::CommandFailed
        | Code::ProgramMissing
        | Code::AgentNotStarted
        | Code::TaskFailed
        | Code::StepLimit
        | Code::ModelRefused
        | Code::ModelUnavailable
        // Whatever can be made shorter was made shorter before it is said.
        | Code::ContextOverflow
        | Code::IsolationUnavailable
        | Code::PathEscapes
        | Code::CorruptObject
        | Code::NewerFormat
        | Code::Cancelled => Verdict::Final,
        _ => Verdict::Retry,
    }
}

/// The bounds of a retry's delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest delay before the first retry.
    pub first: Duration,
    /// The longest delay of all.
    pub most: Duration,
}

impl Backoff {
    /// The longest delay before retry number `retry`, counted from 0: it doubles each time.
    pub fn ceiling(&self, retry: u32) -> Duration {
        let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }

    /// The delay: anywhere between nothing and the ceiling, so that tasks which failed together do not come back together.
    /// `chance` is uniform in 0..1.
    pub fn delay(&self, retry: u32, chance: f64) -> Duration {
        self.ceiling(retry).mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_delay() {
        let ceilings: Vec<u64> = (0..8).map(|retry| BACKOFF.ceiling(retry).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_failed_command_is_not_tried_again_and_a_failed_model_is() {
        assert_eq!(verdict(Code::CommandFailed), Verdict::Final);
        assert_eq!(verdict(Code::ModelFailed), Verdict::Retry);
        assert_eq!((verdict(Code::AgentFailed), verdict(Code::AgentNotStarted)), (Verdict::Retry, Verdict::Final));
        assert_eq!(verdict(Code::ContextOverflow), Verdict::Final);
        assert_eq!(verdict(Code::NoModelAnswers), Verdict::Unserved);
        assert_eq!(verdict(Code::WorkerLost), Verdict::WorkerGone);
        assert_eq!(verdict(Code::StaleOwner), Verdict::Stale);
        assert_eq!(verdict(Code::BudgetExhausted), Verdict::OutOfBudget);
        assert_eq!(verdict(Code::DayLimitReached), Verdict::NextDay);
        assert_eq!(verdict(Code::DiskFull), Verdict::NoSpace);
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_nothing_and_its_ceiling(retry in 0_u32..100, chance in 0.0_f64..1.0) {
            let delay = BACKOFF.delay(retry, chance);
            prop_assert!(delay <= BACKOFF.ceiling(retry));
            prop_assert!(BACKOFF.ceiling(retry) <= BACKOFF.most);
        }
    }
}
