//! The two clocks: one that leases are measured with, one that people read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use helix_protocol::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Time since the machine started, the time it was suspended included; nobody can set it.
///
/// Only instants of one machine since one start of it compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boottime(pub Duration);

impl Boottime {
    /// How long before this instant `earlier` was; nothing if it was later.
    pub fn since(self, earlier: Boottime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant moved by `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Boottime {
        Boottime(self.0.saturating_add(by))
    }
}

/// Where the time comes from. Cheap to clone; all clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated(SimulatedClock),
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that follows tokio's time, which a test pauses and advances, and what can be done
    /// to it beyond that. It starts at an hour after boot, 2026-01-01 00:00 UTC.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn simulated() -> (Self, SimulatedClock) {
        let simulated = SimulatedClock {
            start: Instant::now(),
            suspended_micros: Arc::new(AtomicU64::new(0)),
            set_by_micros: Arc::new(AtomicI64::new(0)),
        };
        (Self(Source::Simulated(simulated.clone())), simulated)
    }

    /// Time since boot, suspends included: for leases and deadlines.
    pub fn boottime(&self) -> Boottime {
        match &self.0 {
            Source::System => {
                let now = clock_gettime(ClockId::Boottime);
                Boottime(Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)))
            }
            Source::Simulated(simulated) => Boottime(HOUR + simulated.elapsed()),
        }
    }

    /// The wall clock: for people and records. It may jump.
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Simulated(simulated) => {
                let now = NEW_YEAR_2026.after(simulated.elapsed());
                Timestamp(now.0.saturating_add(simulated.set_by_micros.load(Ordering::Relaxed)))
            }
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const NEW_YEAR_2026: Timestamp = Timestamp(1_767_225_600_000_000);

/// What happens to a simulated clock besides the passing of tokio's time.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    start: Instant,
    suspended_micros: Arc<AtomicU64>,
    set_by_micros: Arc<AtomicI64>,
}

impl SimulatedClock {
    /// The machine sleeps: both clocks go on by `time`, no timer does.
    pub fn suspend(&self, time: Duration) {
        self.suspended_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Somebody sets the wall clock forward, or back.
    pub fn jump(&self, micros: i64) {
        self.set_by_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed() + Duration::from_micros(self.suspended_micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspended_machine_loses_lease_time_and_a_set_clock_does_not() {
        let (clock, machine) = Clock::simulated();
        let (boot, wall) = (clock.boottime(), clock.wall());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((clock.boottime().since(boot), clock.wall()), (Duration::from_secs(1), wall.after(Duration::from_secs(1))));
        machine.suspend(HOUR);
        assert_eq!(clock.boottime().since(boot), HOUR + Duration::from_secs(1));
        machine.jump(-3_600_000_000);
        assert_eq!(clock.boottime().since(boot), HOUR + Duration::from_secs(1));
        assert_eq!(clock.wall(), wall.after(Duration::from_secs(1)));
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let clock = Clock::system();
        let first = clock.boottime();
        let second = clock.boottime();
        assert!(second >= first && first > Boottime::default());
        assert_eq!(first.since(second.after(HOUR)), Duration::ZERO);
    }
}
