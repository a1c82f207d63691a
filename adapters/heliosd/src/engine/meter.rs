//! What is counted and timed of a repository while it is open.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

/// The latest commits whose latency is kept.
const KEPT: usize = 10_000;

/// Latencies of commits.
#[derive(Default)]
pub struct Meter {
    latencies: Mutex<VecDeque<Duration>>,
}

/// Percentiles of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Half are quicker.
    pub p50: f64,
    /// 95 of 100 are quicker.
    pub p95: f64,
    /// 99 of 100 are quicker.
    pub p99: f64,
}

impl Meter {
    /// A commit took this long in the engine.
    pub fn committed(&self, took: Duration) {
        let mut latencies = self.latencies.lock();
        if latencies.len() == KEPT {
            latencies.pop_front();
        }
        latencies.push_back(took);
    }

    /// How many commits the percentiles are of.
    pub fn commits(&self) -> usize {
        self.latencies.lock().len()
    }

    /// The percentiles of the latest commits; `None` before the first.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted: Vec<Duration> = self.latencies.lock().iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(place).map(|latency| latency.as_secs_f64() * 1_000.0)
        };
        Some(Percentiles { p50: at(50)?, p95: at(95)?, p99: at(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_latest_commits() {
        let meter = Meter::default();
        assert_eq!(meter.percentiles(), None);
        (1..=100).for_each(|milliseconds| meter.committed(Duration::from_millis(milliseconds)));
        assert_eq!(meter.percentiles(), Some(Percentiles { p50: 50.0, p95: 95.0, p99: 99.0 }));
        (0..KEPT).for_each(|_| meter.committed(Duration::from_millis(7)));
        assert_eq!((meter.commits(), meter.percentiles()), (KEPT, Some(Percentiles { p50: 7.0, p95: 7.0, p99: 7.0 })));
    }
}
