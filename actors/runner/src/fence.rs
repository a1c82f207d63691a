//! The worker's lease, as pure logic.
//!
//! A lease lasts `fence_ms` from the moment its last acknowledged heartbeat was *sent*, so it always
//! ends here before the node, which counts from receipt, gives the tasks away. Instants are readings of
//! CLOCK_BOOTTIME: the wall clock has no say, and a suspended machine's time counts. Only the current
//! connection can renew.

use std::collections::VecDeque;
use std::time::Duration;

/// Heartbeats that may wait for their acknowledgement; older ones are forgotten.
const MOST_SENT: usize = 64;

/// Whether the worker may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No node ever granted anything.
    Unowned,
    /// It may act until this reading of the clock.
    Live {
        /// The reading at which the lease ends.
        until: Duration,
    },
    /// The lease ended at this reading.
    Fenced {
        /// The reading at which it ended.
        since: Duration,
    },
}

/// The lease's state.
#[derive(Debug, Default)]
pub struct Fence {
    connection: u64,
    lasts: Duration,
    sent: VecDeque<(u64, Duration)>,
    until: Option<Duration>,
}

impl Fence {
    /// A connection stands. Its welcome, sent at `now`, counts as heartbeat 0: any request on the
    /// connection proves that the node received it.
    pub fn connected(&mut self, connection: u64, lasts: Duration, now: Duration) {
        self.connection = connection;
        self.lasts = lasts;
        self.sent.clear();
        self.sent.push_back((0, now));
    }

    /// A heartbeat is about to be sent; one of a connection that was replaced does not count.
    pub fn sent(&mut self, connection: u64, sequence: u64, now: Duration) {
        if connection != self.connection {
            return;
        }
        if self.sent.len() == MOST_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
    }

    /// The node heard a heartbeat. Gives the lease's new end where it moved: never backwards, and not
    /// for a connection that was replaced or a heartbeat that was never sent.
    pub fn acknowledged(&mut self, connection: u64, sequence: u64) -> Option<Duration> {
        if connection != self.connection {
            return None;
        }
        let (_, at) = *self.sent.iter().find(|(sent, _)| *sent == sequence)?;
        self.sent.retain(|(sent, _)| *sent > sequence);
        let until = at + self.lasts;
        if self.until.is_some_and(|known| known >= until) {
            return None;
        }
        self.until = Some(until);
        Some(until)
    }

    /// Whether the worker may act at `now`.
    pub fn standing(&self, now: Duration) -> Standing {
        match self.until {
            None => Standing::Unowned,
            Some(until) if now < until => Standing::Live { until },
            Some(until) => Standing::Fenced { since: until },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LASTS: Duration = Duration::from_secs(8);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_the_acknowledged_heartbeat() {
        let mut fence = Fence::default();
        assert_eq!(fence.standing(at(5)), Standing::Unowned);
        fence.connected(1, LASTS, at(10));
        assert_eq!(fence.acknowledged(1, 0), Some(at(18)));
        fence.sent(1, 1, at(11));
        fence.sent(1, 2, at(12));
        // Acknowledged late, it still counts from 11.
        assert_eq!(fence.acknowledged(1, 1), Some(at(19)));
        assert_eq!(fence.standing(at(18)), Standing::Live { until: at(19) });
        assert_eq!(fence.standing(at(19)), Standing::Fenced { since: at(19) });
        // A renewed grant lifts the fence.
        fence.sent(1, 3, at(30));
        assert_eq!(fence.acknowledged(1, 3), Some(at(38)));
        assert_eq!(fence.standing(at(31)), Standing::Live { until: at(38) });
    }

    #[test]
    fn an_old_connection_an_unsent_heartbeat_and_a_repeated_acknowledgement_renew_nothing() {
        let mut fence = Fence::default();
        fence.connected(1, LASTS, at(10));
        fence.connected(2, LASTS, at(11));
        assert_eq!((fence.acknowledged(1, 0), fence.acknowledged(2, 9)), (None, None));
        assert_eq!(fence.acknowledged(2, 0), Some(at(19)));
        assert_eq!(fence.acknowledged(2, 0), None);
    }

    proptest! {
        /// Whatever arrives in whatever order, the worker never thinks itself live later than `LASTS`
        /// after the newest heartbeat the node has really acknowledged was sent.
        #[test]
        fn the_fence_falls_no_later_than_the_newest_acknowledged_sending_allows(
            script in proptest::collection::vec((0..3u8, 0..20u64, 0..2000u64), 1..100)
        ) {
            let mut fence = Fence::default();
            let (mut now, mut connection, mut sequence) = (Duration::ZERO, 1, 0);
            let mut sendings = vec![(1, 0, now)];
            fence.connected(1, LASTS, now);
            let mut newest = None;
            for (what, pick, wait) in script {
                now += Duration::from_millis(wait);
                match what {
                    0 => {
                        sequence += 1;
                        fence.sent(connection, sequence, now);
                        sendings.push((connection, sequence, now));
                    }
                    1 => {
                        let (of, sequence, sent) = sendings[usize::try_from(pick).expect("below 20") % sendings.len()];
                        let renewed = fence.acknowledged(of, sequence);
                        if of == connection {
                            newest = newest.max(Some(sent));
                        } else {
                            prop_assert_eq!(renewed, None);
                        }
                    }
                    _ => {
                        connection += 1;
                        sequence = 0;
                        fence.connected(connection, LASTS, now);
                        sendings.push((connection, 0, now));
                    }
                }
                if let Standing::Live { until } = fence.standing(now) {
                    prop_assert!(Some(until) <= newest.map(|sent| sent + LASTS));
                }
            }
        }
    }
}
