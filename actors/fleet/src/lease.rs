//! A worker's lease as the node sees it: pure, fed with instants of CLOCK_BOOTTIME.
//!
//! The worker fences itself `fence_ms` after *sending* its last acknowledged heartbeat; the node waits
//! for `reassign_ms` after *receiving* its last frame. Waiting too long is always safe, so every doubt
//! prolongs: a node that was itself not running first reads what came meanwhile, and the start of
//! the node counts as a receipt, which is the time in which workers may return to be adopted.

use std::time::Duration;

use helix_kernel::Boottime;
use helix_protocol::link::LeaseTimes;

/// What time did to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Heartbeats are late.
    Suspect {
        /// Nothing was heard for so long.
        silent: Duration,
    },
    /// A suspect was heard again.
    Recovered,
    /// The lease has ended: by now the worker has fenced itself.
    Over {
        /// Nothing was heard for so long.
        silent: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Held,
    Suspect,
    Over,
}

/// One worker's lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    heartbeat: Duration,
    suspect: Duration,
    reassign: Duration,
    phase: Phase,
    heard: Boottime,
    observed: Boottime,
    /// Until then the node reads what came while it did not run.
    catching_up: Option<Boottime>,
}

impl Lease {
    /// A lease that begins now.
    pub(crate) fn begin(times: LeaseTimes, now: Boottime) -> Self {
        Self {
            heartbeat: Duration::from_millis(times.heartbeat_ms),
            suspect: Duration::from_millis(times.suspect_ms),
            reassign: Duration::from_millis(times.reassign_ms),
            phase: Phase::Held,
            heard: now,
            observed: now,
            catching_up: None,
        }
    }

    /// Some frame came at `at`. A lease that is over stays over: the worker comes back with a new one.
    pub(crate) fn hear(&mut self, at: Boottime) -> Option<Passed> {
        self.heard = self.heard.max(at);
        if self.phase == Phase::Suspect && self.observed.since(self.heard) < self.suspect {
            self.phase = Phase::Held;
            return Some(Passed::Recovered);
        }
        None
    }

    /// Looks at the clock. Call it at least every [`next_look`](Self::next_look), after [`hear`](Self::hear).
    pub(crate) fn look(&mut self, now: Boottime) -> Option<Passed> {
        // Twice the longest pause between two looks: the node itself did not run meanwhile.
        if now.since(self.observed) > self.heartbeat * 2 {
            self.catching_up = Some(now.after(self.heartbeat));
        }
        self.observed = self.observed.max(now);
        if self.catching_up.is_some_and(|until| now < until) {
            return None;
        }
        self.catching_up = None;
        let silent = now.since(self.heard);
        match self.phase {
            Phase::Held | Phase::Suspect if silent >= self.reassign => {
                self.phase = Phase::Over;
                Some(Passed::Over { silent })
            }
            Phase::Held if silent >= self.suspect => {
                self.phase = Phase::Suspect;
                Some(Passed::Suspect { silent })
            }
            _ => None,
        }
    }

    /// The worker is proven dead: true where the lease still ran.
    pub(crate) fn end(&mut self) -> bool {
        let ran = self.phase != Phase::Over;
        self.phase = Phase::Over;
        ran
    }

    /// True from its end on.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// True while heartbeats are late.
    pub(crate) fn is_suspect(&self) -> bool {
        self.phase == Phase::Suspect
    }

    /// How long nothing has been heard.
    pub(crate) fn silent(&self, now: Boottime) -> Duration {
        now.since(self.heard)
    }

    /// How long until the clock may matter: never more than a heartbeat, because a timer does not count suspended time.
    pub(crate) fn next_look(&self, now: Boottime) -> Duration {
        let mark = match self.phase {
            Phase::Held => self.suspect,
            Phase::Suspect => self.reassign,
            Phase::Over => return self.heartbeat,
        };
        let left = mark.saturating_sub(self.silent(now));
        left.clamp(Duration::from_millis(1), self.heartbeat.max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: LeaseTimes = LeaseTimes { heartbeat_ms: 1_000, suspect_ms: 3_000, fence_ms: 8_000, reassign_ms: 10_000 };

    fn at(ms: u64) -> Boottime {
        Boottime(Duration::from_millis(3_600_000 + ms))
    }

    fn watch(lease: &mut Lease, from: u64, to: u64) -> Vec<(u64, Passed)> {
        let mut told = Vec::new();
        let mut now = from;
        while now < to {
            now = (now + u64::try_from(lease.next_look(at(now)).as_millis()).expect("under a second")).min(to);
            told.extend(lease.look(at(now)).map(|passed| (now, passed)));
        }
        told
    }

    #[test]
    fn silence_makes_a_suspect_and_then_the_lease_is_over_once() {
        let mut lease = Lease::begin(TIMES, at(0));
        let silent = Duration::from_millis;
        assert_eq!(
            watch(&mut lease, 0, 60_000),
            [(3_000, Passed::Suspect { silent: silent(3_000) }), (10_000, Passed::Over { silent: silent(10_000) })]
        );
        assert!(lease.is_over() && lease.hear(at(60_001)).is_none() && lease.is_over());
    }

    #[test]
    fn a_suspect_that_is_heard_again_is_none() {
        let mut lease = Lease::begin(TIMES, at(0));
        watch(&mut lease, 0, 5_000);
        assert!(lease.is_suspect());
        assert_eq!(lease.hear(at(5_000)), Some(Passed::Recovered));
        assert_eq!(watch(&mut lease, 5_000, 7_900), []);
    }

    #[test]
    fn a_node_that_was_suspended_reads_what_came_before_it_judges() {
        let mut lease = Lease::begin(TIMES, at(0));
        assert_eq!(lease.look(at(500)), None);
        assert_eq!(lease.look(at(3_600_000)), None, "nothing was read since the node slept");
        assert_eq!(lease.hear(at(3_600_100)), None);
        assert_eq!(watch(&mut lease, 3_600_100, 3_602_000), []);
        // And if nothing came, it is over a heartbeat later.
        let mut silent = Lease::begin(TIMES, at(0));
        assert_eq!(silent.look(at(3_600_000)), None);
        assert_eq!(silent.look(at(3_601_000)), Some(Passed::Over { silent: Duration::from_millis(3_601_000) }));
    }

    #[test]
    fn a_proven_death_ends_a_lease_once() {
        let mut lease = Lease::begin(TIMES, at(0));
        assert!(lease.end());
        assert!(!lease.end());
        assert_eq!(watch(&mut lease, 0, 60_000), []);
    }

    proptest! {
        /// Whatever is heard whenever, and however irregularly the node looks: a lease never ends before `reassign_ms` of
        /// silence, never ends twice, and has ended by the time it is looked at regularly for that long and a heartbeat.
        #[test]
        fn a_lease_ends_exactly_for_silence(steps in proptest::collection::vec((1u64..20_000, any::<bool>()), 1..60)) {
            let mut lease = Lease::begin(TIMES, at(0));
            let (mut now, mut heard, mut ended) = (0, 0, false);
            for (pause, hears) in steps {
                now += pause;
                if hears {
                    lease.hear(at(now));
                    heard = now;
                }
                if let Some(Passed::Over { silent }) = lease.look(at(now)) {
                    prop_assert!(!ended, "a lease ended twice");
                    prop_assert!(now - heard >= TIMES.reassign_ms);
                    prop_assert_eq!(silent, Duration::from_millis(now - heard));
                    ended = true;
                }
                prop_assert_eq!(lease.is_over(), ended);
            }
            watch(&mut lease, now, now + TIMES.reassign_ms + TIMES.heartbeat_ms);
            prop_assert!(lease.is_over());
        }
    }
}
