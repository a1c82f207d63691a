//! A circuit breaker, as pure code: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

/// Keeps calls away from a provider that fails, and lets one try after a while.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    cooldown: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls pass; so many failed in a row.
    Closed(u32),
    /// No call passes before this instant.
    Open(Instant),
    /// One call tries since this instant; if nothing is heard of it for a cooldown, another may.
    Trying(Instant),
}

impl Breaker {
    pub fn new(threshold: u32, cooldown: Duration) -> Self {
        Self { threshold: threshold.max(1), cooldown, state: State::Closed(0) }
    }

    /// Lets a call pass, or says how long to wait before asking again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed(_) => Ok(()),
            State::Open(until) if now < until => Err(until - now),
            State::Trying(since) if now < since + self.cooldown => Err(since + self.cooldown - now),
            State::Open(_) | State::Trying(_) => {
                self.state = State::Trying(now);
                Ok(())
            }
        }
    }

    /// How long no call passes; `None` where one would.
    pub fn open_for(&self, now: Instant) -> Option<Duration> {
        let until = match self.state {
            State::Closed(_) => return None,
            State::Open(until) => until,
            State::Trying(since) => since + self.cooldown,
        };
        (now < until).then(|| until - now)
    }

    /// The provider answered, be it with a refusal.
    pub fn answered(&mut self) {
        self.state = State::Closed(0);
    }

    /// The provider failed. True where that opened the circuit.
    pub fn failed(&mut self, now: Instant) -> bool {
        let failures = match self.state {
            State::Closed(failures) => failures + 1,
            State::Trying(_) => self.threshold,
            // A call from before it opened.
            State::Open(_) => return false,
        };
        if failures < self.threshold {
            self.state = State::Closed(failures);
            return false;
        }
        self.state = State::Open(now + self.cooldown);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(10);

    #[test]
    fn failures_in_a_row_open_it_and_one_call_at_a_time_tries_again() {
        let start = Instant::now();
        let mut breaker = Breaker::new(2, COOLDOWN);
        assert!(!breaker.failed(start));
        assert_eq!(breaker.admit(start), Ok(()));
        assert!(breaker.failed(start));
        assert_eq!(breaker.admit(start + COOLDOWN / 2), Err(COOLDOWN / 2));
        assert_eq!(breaker.open_for(start + COOLDOWN / 2), Some(COOLDOWN / 2));
        assert_eq!(breaker.open_for(start + COOLDOWN), None);
        assert_eq!(breaker.admit(start + COOLDOWN), Ok(()), "the one that tries");
        assert_eq!(breaker.admit(start + COOLDOWN), Err(COOLDOWN), "the others wait for it");
        assert!(breaker.failed(start + COOLDOWN), "one failure is enough while trying");
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
        breaker.answered();
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, COOLDOWN);
        breaker.failed(now);
        breaker.answered();
        assert!(!breaker.failed(now));
    }

    #[test]
    fn a_call_that_tries_and_is_never_heard_of_does_not_block_for_ever() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, COOLDOWN);
        breaker.failed(start);
        assert_eq!(breaker.admit(start + COOLDOWN), Ok(()));
        assert_eq!(breaker.admit(start + COOLDOWN * 2), Ok(()));
    }
}
