//! What one turn has tried, and what it does next: the rules of the one retry loop, as pure code. Times
//! count from the turn's start.
//!
//! Retry is the same group again, fallback is another group. A group is left once the wait for any of its deployments is longer
//! than [`LOYALTY`]; it is asked again when its time has come and nobody else has answered.

use std::time::Duration;

/// How long a turn waits for its own group while another could answer.
pub(crate) const LOYALTY: Duration = Duration::from_secs(2);

/// A deployment, as one turn sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// 0 for the group that was asked for, then its fallbacks, then whoever the turn does not fit.
    pub tier: usize,
    /// How often it was asked.
    pub tries: u32,
    /// How often it may be asked again.
    pub retries: u32,
    /// A wait longer than this is none for this turn.
    pub patience: Duration,
    /// Nothing is sent to it before.
    pub ready: Duration,
    /// It is asked no more.
    pub out: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask this one.
    Ask(usize),
    /// Look again after this time.
    Wait(Duration),
    /// Nobody is left whom it is worth to wait for.
    Stop,
}

/// Every deployment of a turn, tier by tier, within a tier the preferred one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries(pub Vec<Slot>);

impl Tries {
    /// What to do at `now`.
    pub fn next(&self, now: Duration) -> Next {
        let tiers = self.0.iter().map(|slot| slot.tier + 1).max().unwrap_or(0);
        let mut shortest: Option<Duration> = None;
        for tier in 0..tiers {
            let live = || self.0.iter().enumerate().filter(move |(_, slot)| slot.tier == tier && !slot.out);
            if let Some((index, _)) = live().filter(|(_, slot)| slot.ready <= now).min_by_key(|(_, slot)| slot.tries) {
                return Next::Ask(index);
            }
            let patient = live().filter(|(_, slot)| slot.ready - now <= slot.patience);
            let Some(wait) = patient.map(|(_, slot)| slot.ready - now).min() else { continue };
            if wait <= LOYALTY {
                return Next::Wait(wait);
            }
            shortest = Some(shortest.map_or(wait, |shortest| shortest.min(wait)));
        }
        shortest.map_or(Next::Stop, Next::Wait)
    }

    /// It failed in a way that passes, and may be asked again at `ready`.
    pub fn failed(&mut self, index: usize, ready: Duration) {
        let slot = &mut self.0[index];
        slot.tries += 1;
        slot.ready = ready;
        slot.out = slot.tries > slot.retries;
    }

    /// Nothing may be sent to it before `ready`; it was not asked.
    pub fn hold(&mut self, index: usize, ready: Duration) {
        self.0[index].ready = ready;
    }

    /// It cannot serve this turn.
    pub fn give_up(&mut self, index: usize) {
        self.0[index].tries += 1;
        self.0[index].out = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(tier: usize) -> Slot {
        Slot { tier, tries: 0, retries: 2, patience: Duration::from_secs(60), ready: Duration::ZERO, out: false }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_neighbour_in_the_group_is_asked_at_once_and_another_group_only_when_the_wait_is_long() {
        let mut tries = Tries(vec![slot(0), slot(0), slot(1)]);
        assert_eq!(tries.next(secs(0)), Next::Ask(0));
        tries.failed(0, secs(1));
        assert_eq!(tries.next(secs(0)), Next::Ask(1));
        tries.failed(1, secs(5));
        assert_eq!(tries.next(secs(0)), Next::Wait(secs(1)), "its own group first");
        assert_eq!(tries.next(secs(1)), Next::Ask(0));
        tries.failed(0, secs(9));
        assert_eq!(tries.next(secs(1)), Next::Ask(2), "another can answer meanwhile");
        tries.give_up(2);
        assert_eq!(tries.next(secs(1)), Next::Wait(secs(4)));
        assert_eq!(tries.next(secs(5)), Next::Ask(1));
    }

    #[test]
    fn a_wait_beyond_patience_is_no_wait() {
        let mut tries = Tries(vec![slot(0)]);
        tries.failed(0, secs(61));
        assert_eq!(tries.next(secs(0)), Next::Stop);
        assert_eq!(tries.next(secs(2)), Next::Wait(secs(59)));
    }

    proptest! {
        #[test]
        fn it_ends_and_asks_nobody_too_often_or_too_early(
            tiers in proptest::collection::vec((0..3usize, 0..4u32, 1..40u64), 0..6),
            outcomes in proptest::collection::vec((0..3u8, 0..50u64), 64),
        ) {
            let slots = tiers.iter().map(|(tier, retries, patience)| Slot { tier: *tier, retries: *retries, patience: secs(*patience), ..slot(0) });
            let mut tries = Tries(slots.collect());
            let (mut now, mut outcomes, mut holds) = (secs(0), outcomes.into_iter().cycle(), 20);
            for step in 0.. {
                prop_assert!(step < 200, "it goes on for ever");
                match tries.next(now) {
                    Next::Stop => break,
                    Next::Wait(wait) => {
                        prop_assert!(!wait.is_zero());
                        now += wait;
                    }
                    Next::Ask(index) => {
                        prop_assert!(!tries.0[index].out && tries.0[index].ready <= now);
                        match outcomes.next() {
                            Some((0, wait)) => tries.failed(index, now + secs(wait)),
                            Some((1, wait)) if holds > 0 => {
                                holds -= 1;
                                tries.hold(index, now + secs(wait));
                            }
                            _ => tries.give_up(index),
                        }
                        prop_assert!(tries.0[index].tries <= tries.0[index].retries + 1);
                    }
                }
            }
        }
    }
}
