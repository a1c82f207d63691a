//! How long something took, as counts in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two is divided into so many buckets, so a percentile is at most an eighth too high.
const PARTS: u64 = 8;
const BUCKETS: usize = 64 * PARTS as usize;

/// Microseconds in buckets that any thread may add to.
#[derive(Debug)]
pub(crate) struct Latencies {
    buckets: Box<[AtomicU64]>,
}

/// Percentiles of a latency, in microseconds; zeros where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// Half took no longer.
    pub p50_us: u64,
    /// 95 of 100 took no longer.
    pub p95_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

/// Which bucket a number belongs to: those below `PARTS` have one each.
fn bucket(number: u64) -> usize {
    let power = u64::from(number.max(1).ilog2());
    let shift = power.saturating_sub(u64::from(PARTS.ilog2()));
    (shift * PARTS + (number >> shift)) as usize
}

/// The greatest number of a bucket.
fn greatest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let first = (PARTS + bucket % PARTS) << shift;
    first + ((1 << shift) - 1)
}

impl Latencies {
    pub(crate) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros).min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let at = |percent: u64| {
            let wanted = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.map_or(0, greatest)
        };
        Percentiles { count, p50_us: at(50), p95_us: at(95), p99_us: at(99) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{BUCKETS, Latencies, Percentiles, bucket, greatest};

    #[test]
    fn percentiles_of_nothing_and_of_known_latencies() {
        let latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), Percentiles::default());
        (1..=10).for_each(|micros| latencies.add(Duration::from_micros(micros)));
        assert_eq!(latencies.percentiles(), Percentiles { count: 10, p50_us: 5, p95_us: 10, p99_us: 10 });
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_numbers_and_is_narrow(number in any::<u64>()) {
            let bucket = bucket(number);
            prop_assert!(bucket < BUCKETS);
            prop_assert!(greatest(bucket) >= number);
            prop_assert!(greatest(bucket) - number <= number / 8);
            prop_assert!(bucket == 0 || greatest(bucket - 1) < number);
        }
    }
}
