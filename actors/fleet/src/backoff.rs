//! How long to wait before trying again: pure.

use std::time::Duration;

use helix_kernel::Boottime;

/// Pauses between connection attempts: none before the first, then a random time between half of a ceiling and all of
/// it, which starts at 50 ms and doubles: to a second while the lease runs, because a worker that is reachable again
/// keeps its tasks; to five afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    const FIRST: Duration = Duration::from_millis(50);
    const MOST_LEASED: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(5);

    /// One more failed. `share`, from 0 to 1, is the jitter.
    pub(crate) fn pause(&mut self, leased: Leased, share: f64) -> Duration {
        let most = match leased {
            Leased::Runs => Self::MOST_LEASED,
            Leased::Over => Self::MOST,
        };
        let ceiling = Self::FIRST.saturating_mul(1 << self.0.min(10)).min(most);
        self.0 = self.0.saturating_add(1);
        ceiling.mul_f64(0.5 + share.clamp(0.0, 1.0) / 2.0)
    }

    /// The longest pause: for what only a person mends.
    pub(crate) fn long(share: f64) -> Duration {
        Self::MOST.mul_f64(1.0 + share.clamp(0.0, 1.0))
    }
}

/// Whether there is a lease to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leased {
    /// A connection in time keeps the worker's tasks with it.
    Runs,
    /// They have gone elsewhere.
    Over,
}

/// How often a worker's process may be started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts(Vec<Boottime>);

impl Starts {
    /// More than so many starts ...
    pub(crate) const MOST: usize = 5;
    /// ... in this time are too many.
    pub(crate) const PERIOD: Duration = Duration::from_secs(30);

    /// Counts a start, and says how long it must wait: not at all the first time, doubling within the
    /// period, and to the period's end once there were too many.
    pub(crate) fn take(&mut self, now: Boottime) -> Duration {
        self.0.retain(|start| now.since(*start) < Self::PERIOD);
        let so_far = self.0.len();
        let wait = match self.0.first() {
            None => Duration::ZERO,
            Some(first) if so_far >= Self::MOST => Self::PERIOD.saturating_sub(now.since(*first)),
            Some(_) => Duration::from_millis(50) * (1 << so_far.min(7)),
        };
        self.0.push(now.after(wait));
        wait
    }

    /// True where the period's starts are used up.
    pub(crate) fn too_many(&self) -> bool {
        self.0.len() > Self::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_five_seconds_or_to_one_within_the_lease_and_keep_at_least_half() {
        let all = |leased| {
            let mut attempts = Attempts::default();
            (0..9).map(|_| attempts.pause(leased, 1.0).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(all(Leased::Over), [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(all(Leased::Runs), [50, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000]);
        assert_eq!(Attempts::default().pause(Leased::Runs, 0.0), Duration::from_millis(25));
    }

    #[test]
    fn a_process_that_keeps_dying_waits_for_its_period() {
        let mut starts = Starts::default();
        let now = Boottime(Duration::from_secs(100));
        let waits: Vec<u128> = (0..6).map(|_| starts.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 30_000]);
        assert!(starts.too_many());
        assert_eq!(starts.take(now.after(Duration::from_secs(61))), Duration::ZERO);
        assert!(!starts.too_many());
    }
}
