//! A circuit breaker, as pure code: it is told the time.
//!
//! Each call counts once, however often it is repeated.

use std::time::Duration;

use helix_messages::{Circuit, Outage};
use helix_protocol::{Failure, Timestamp};
use tokio::time::Instant;

/// Keeps calls away from a provider or a model that fails, and lets one try after a while.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    cooldown: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Calls pass; so many failed in a row.
    Closed(u32),
    /// No call passes before the pause ends.
    Open(Pause),
    /// One call tries; if nothing is heard of it before the pause ends, another may.
    Trying(Pause),
}

/// Whether a call meets a failure for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    First,
    Again,
}

impl Met {
    /// `Again` where it was met before.
    pub fn after(before: bool) -> Self {
        if before { Self::Again } else { Self::First }
    }
}

/// A time without service, and why.
#[derive(Clone, Debug)]
pub(crate) struct Pause {
    pub since: Instant,
    pub until: Instant,
    pub failure: Failure,
}

impl Pause {
    /// What is left of it; `None` where it has ended.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        (now < self.until).then(|| self.until - now)
    }

    /// For listings; `clock` is the wall clock's `now`.
    pub fn outage(&self, now: Instant, clock: Timestamp) -> Outage {
        let next_try_at = match self.left(now) {
            Some(left) => clock.after(left),
            None => clock.before(now - self.until),
        };
        Outage { since: clock.before(now - self.since), next_try_at, failure: self.failure.clone() }
    }
}

impl Breaker {
    pub fn new(threshold: u32, cooldown: Duration) -> Self {
        Self { threshold: threshold.max(1), cooldown, state: State::Closed(0) }
    }

    /// Lets a call pass, or says how long to wait before asking again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let (State::Open(pause) | State::Trying(pause)) = &self.state else { return Ok(()) };
        if let Some(left) = pause.left(now) {
            return Err(left);
        }
        self.state = State::Trying(Pause { until: now + self.cooldown, ..pause.clone() });
        Ok(())
    }

    /// How long no call passes; `None` where one would.
    pub fn open_for(&self, now: Instant) -> Option<Duration> {
        match &self.state {
            State::Closed(_) => None,
            State::Open(pause) | State::Trying(pause) => pause.left(now),
        }
    }

    /// For listings; `clock` is the wall clock's `now`.
    pub fn circuit(&self, now: Instant, clock: Timestamp) -> Circuit {
        match &self.state {
            State::Closed(_) => Circuit::Closed,
            State::Open(pause) if pause.left(now).is_some() => Circuit::Open(pause.outage(now, clock)),
            State::Open(pause) | State::Trying(pause) => Circuit::HalfOpen(pause.outage(now, clock)),
        }
    }

    /// The provider begins to answer. Calls pass again; one failure is enough to keep them away until an
    /// answer has come to its end.
    pub fn began(&mut self) {
        if !matches!(self.state, State::Closed(_)) {
            self.state = State::Closed(self.threshold - 1);
        }
    }

    /// The provider answered, be it with a refusal.
    pub fn answered(&mut self) {
        self.state = State::Closed(0);
    }

    /// The provider failed. True where that opened the circuit.
    pub fn failed(&mut self, now: Instant, failure: &Failure, met: Met) -> bool {
        let since = match &self.state {
            State::Closed(_) if met == Met::Again => return false,
            State::Closed(failures) if failures + 1 < self.threshold => {
                self.state = State::Closed(failures + 1);
                return false;
            }
            State::Closed(_) => now,
            State::Trying(pause) => pause.since,
            // A call from before it opened.
            State::Open(_) => return false,
        };
        self.state = State::Open(Pause { since, until: now + self.cooldown, failure: failure.clone() });
        true
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::Code;

    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(10);

    fn busy() -> Failure {
        Failure::new(Code::ModelFailed, "busy")
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_call_at_a_time_tries_again() {
        let start = Instant::now();
        let mut breaker = Breaker::new(2, COOLDOWN);
        assert!(!breaker.failed(start, &busy(), Met::First));
        assert_eq!(breaker.admit(start), Ok(()));
        assert!(breaker.failed(start, &busy(), Met::First));
        assert_eq!(breaker.admit(start + COOLDOWN / 2), Err(COOLDOWN / 2));
        assert_eq!(breaker.open_for(start + COOLDOWN / 2), Some(COOLDOWN / 2));
        assert_eq!(breaker.open_for(start + COOLDOWN), None);
        assert_eq!(breaker.admit(start + COOLDOWN), Ok(()), "the one that tries");
        assert_eq!(breaker.admit(start + COOLDOWN), Err(COOLDOWN), "the others wait for it");
        assert!(breaker.failed(start + COOLDOWN, &busy(), Met::First), "one failure is enough while trying");
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
        breaker.answered();
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, COOLDOWN);
        breaker.failed(now, &busy(), Met::First);
        breaker.answered();
        assert!(!breaker.failed(now, &busy(), Met::First));
    }

    #[test]
    fn a_call_that_fails_again_and_again_counts_once_and_keeps_open_what_it_tried() {
        let start = Instant::now();
        let mut breaker = Breaker::new(2, COOLDOWN);
        for met in [Met::First, Met::Again, Met::Again] {
            assert!(!breaker.failed(start, &busy(), met), "{met:?}");
        }
        assert!(breaker.failed(start, &busy(), Met::First), "the second call");
        assert_eq!(breaker.admit(start + COOLDOWN), Ok(()), "it tries");
        assert!(breaker.failed(start + COOLDOWN, &busy(), Met::Again));
        assert_eq!(breaker.admit(start + COOLDOWN), Err(COOLDOWN));
    }

    #[test]
    fn an_answer_that_begins_lets_calls_pass_and_one_that_breaks_off_counts_as_the_failures_before_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, COOLDOWN);
        for opens in [false, true] {
            breaker.began();
            assert_eq!(breaker.failed(now, &busy(), Met::First), opens);
        }
        assert_eq!(breaker.admit(now + COOLDOWN), Ok(()));
        breaker.began();
        assert_eq!(breaker.admit(now + COOLDOWN), Ok(()), "others pass while it goes on");
        assert!(breaker.failed(now + COOLDOWN, &busy(), Met::First), "it broke off");
        breaker.answered();
        breaker.began();
        assert!(!breaker.failed(now, &busy(), Met::First), "the count began anew");
    }

    #[test]
    fn a_call_that_tries_and_is_never_heard_of_does_not_block_for_ever() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, COOLDOWN);
        breaker.failed(start, &busy(), Met::First);
        assert_eq!(breaker.admit(start + COOLDOWN), Ok(()));
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
    }

    #[test]
    fn a_circuit_is_shown_with_when_it_opened_why_and_when_it_is_tried_next() {
        let (start, clock) = (Instant::now(), Timestamp(1_000_000_000));
        let at = |after: Duration| (start + after, clock.after(after));
        let mut breaker = Breaker::new(1, COOLDOWN);
        let shown = |breaker: &Breaker, after: Duration| breaker.circuit(at(after).0, at(after).1);
        assert_eq!(shown(&breaker, Duration::ZERO), Circuit::Closed);
        breaker.failed(start, &busy(), Met::First);
        let outage =
            |until: Duration, failure: &Failure| Outage { since: clock, next_try_at: at(until).1, failure: failure.clone() };
        assert_eq!(shown(&breaker, COOLDOWN / 2), Circuit::Open(outage(COOLDOWN, &busy())));
        assert_eq!(shown(&breaker, COOLDOWN * 2), Circuit::HalfOpen(outage(COOLDOWN, &busy())), "the next call tries");
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
        assert_eq!(shown(&breaker, COOLDOWN * 2), Circuit::HalfOpen(outage(COOLDOWN * 3, &busy())), "it is under way");
        let gone = Failure::new(Code::ModelFailed, "gone");
        breaker.failed(start + COOLDOWN * 2, &gone, Met::First);
        assert_eq!(
            shown(&breaker, COOLDOWN * 2),
            Circuit::Open(outage(COOLDOWN * 3, &gone)),
            "out of service since it first failed"
        );
        breaker.answered();
        assert_eq!(shown(&breaker, COOLDOWN * 2), Circuit::Closed);
    }
}
