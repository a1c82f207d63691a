//! How long what was done is remembered.
//!
//! A snapshot stays as long as a name, a workspace or another snapshot needs it. Beside these, the operation log keeps what it can
//! bring back, and a closed experiment what it measured; these rules say for how long. The history behind a name is never cut.

use std::time::Duration;

use helix_objects::{Durability, Expect, Family, RecordChange};
use helix_protocol::Timestamp;

use crate::VersionError;

use super::names::ExperimentName;
use super::records::{ExperimentState, OperationRecord};
use super::{Repository, oplog};

/// Entries removed in one batch.
const AT_ONCE: usize = 4_096;

/// Which operations and closed experiments stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What is older goes (`cleanup.snapshot_ttl`, `gc --remove-old-snapshots --before`). Without, nothing is too old.
    pub ttl: Option<Duration>,
    /// Of the operations at most so many stay (`cleanup.max_operations`). Without, any number.
    pub operations: Option<u64>,
}

impl Retention {
    /// Whether something of that time is too old at `now`.
    pub fn is_expired(&self, time: Timestamp, now: Timestamp) -> bool {
        // A clock that was ahead makes an entry look young: it stays longer, which does no harm.
        self.ttl.is_some_and(|ttl| time.after(ttl) < now)
    }

    /// The first operation that stays, of a log from `first` to `last`; `time` tells when one was. The last one always stays. It
    /// ends at the first that is not too old, so one entry of a clock that was behind for a while takes no younger ones with it.
    pub fn first_kept<E>(
        &self,
        (first, last): (u64, u64),
        now: Timestamp,
        mut time: impl FnMut(u64) -> Result<Timestamp, E>,
    ) -> Result<u64, E> {
        let fits = self.operations.map_or(first, |count| (last + 1).saturating_sub(count.max(1)));
        let mut kept = first.max(fits);
        while kept < last && self.is_expired(time(kept)?, now) {
            kept += 1;
        }
        Ok(kept)
    }
}

/// What a rule lets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// The first operation that stays; `None` where there is no log.
    pub first_kept: Option<u64>,
    /// How many operations go.
    pub operations: u64,
    /// The closed experiments that go.
    pub experiments: Vec<ExperimentName>,
}

impl Repository {
    /// What a rule would let go. Changes nothing.
    pub fn expired(&self, rule: &Retention, now: Timestamp) -> Result<Expired, VersionError> {
        let store = &**self.store();
        let (first_kept, operations) = match (oplog::first(store)?, oplog::last(store)?) {
            (Some(first), Some(last)) => {
                let time = |number| match self.read_record::<OperationRecord>(Family::Oplog, &oplog::key(number))? {
                    Some(record) => Ok(record.time),
                    None => Ok::<_, VersionError>(now),
                };
                let kept = rule.first_kept((first, last), now, time)?;
                (Some(kept), kept - first)
            }
            _ => (None, 0),
        };
        let closed = self.experiments()?.into_iter().filter(|experiment| experiment.state != ExperimentState::Open);
        let old = closed.filter(|experiment| {
            let scored = experiment.variants.iter().filter_map(|variant| variant.last.as_ref()).map(|score| score.time);
            rule.is_expired(scored.fold(experiment.made, Timestamp::max), now)
        });
        Ok(Expired { first_kept, operations, experiments: old.map(|experiment| experiment.name).collect() })
    }

    /// Forgets what a rule lets go. What it kept alive goes with the next collection.
    pub fn expire(&self, expired: &Expired) -> Result<(), VersionError> {
        let mut changes = Vec::new();
        for name in &expired.experiments {
            let own = [bytes::Bytes::copy_from_slice(name.as_str().as_bytes())];
            let variants = self.variant_records(name)?.into_iter().map(|(variant, _)| format!("{name}/{variant}").into());
            changes.extend(own.into_iter().chain(variants).map(|key| gone(Family::Experiments, key)));
        }
        if !changes.is_empty() {
            self.store().commit(&[], &changes, Durability::NoSync)?;
        }
        let (Some(kept), Some(mut next)) = (expired.first_kept, oplog::first(&**self.store())?) else { return Ok(()) };
        // From the front, so that the numbers have no gaps wherever it is interrupted.
        while next < kept {
            let end = kept.min(next + AT_ONCE as u64);
            let changes: Vec<RecordChange> = (next..end).map(|number| gone(Family::Oplog, oplog::key(number))).collect();
            self.store().commit(&[], &changes, Durability::NoSync)?;
            next = end;
        }
        Ok(())
    }
}

fn gone(family: Family, key: bytes::Bytes) -> RecordChange {
    RecordChange { family, key, expect: Expect::Anything, value: None }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use helix_protocol::Timestamp;
    use proptest::prelude::*;

    use super::Retention;

    fn kept(rule: Retention, times: &[i64], now: i64) -> u64 {
        let last = times.len() as u64 + 9;
        let time = |number: u64| Ok::<_, Infallible>(Timestamp(times[usize::try_from(number - 10).unwrap()] * 1_000_000));
        rule.first_kept((10, last), Timestamp(now * 1_000_000), time).unwrap()
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_the_last_one_stays() {
        let times = [1, 2, 3, 4, 5];
        let ttl = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(kept(Retention::default(), &times, 1_000), 10);
        assert_eq!(kept(Retention { ttl: ttl(2), operations: None }, &times, 6), 13, "an entry as old as the limit stays");
        assert_eq!(kept(Retention { ttl: ttl(2), operations: None }, &times, 1_000), 14);
        assert_eq!(kept(Retention { ttl: None, operations: Some(2) }, &times, 6), 13);
        assert_eq!(kept(Retention { ttl: None, operations: Some(0) }, &times, 6), 14);
        assert_eq!(kept(Retention { ttl: ttl(1), operations: Some(4) }, &times, 6), 14);
        assert_eq!(kept(Retention { ttl: ttl(2), operations: None }, &[1, 9_999, 3], 6), 11, "a clock that was ahead keeps more");
    }

    proptest! {
        #[test]
        fn nothing_young_goes_and_a_longer_limit_keeps_no_less(
            times in prop::collection::vec(0_i64..100, 1..20), ttl in 0_u64..100, more in 0_u64..100, now in 0_i64..200,
        ) {
            let rule = |seconds| Retention { ttl: Some(Duration::from_secs(seconds)), operations: None };
            let first = kept(rule(ttl), &times, now);
            let gone = &times[..usize::try_from(first - 10).unwrap()];
            prop_assert!(gone.iter().all(|time| time + i64::try_from(ttl).unwrap() < now));
            prop_assert!(kept(rule(ttl + more), &times, now) <= first);
        }
    }
}
