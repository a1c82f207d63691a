//! How snapshots descend, on random histories with clocks that jump, against sets.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

/// Snapshots, each with some of those before it as parents, made when the clock showed anything.
fn made(bed: &Bed, history: &[(Vec<prop::sample::Index>, i64)]) -> Vec<SnapshotId> {
    let mut batch = bed.repository.batch();
    let mut ids: Vec<SnapshotId> = Vec::new();
    for (count, (parents, time)) in history.iter().enumerate() {
        let chosen: BTreeSet<SnapshotId> =
            if ids.is_empty() { BTreeSet::new() } else { parents.iter().map(|parent| ids[parent.index(ids.len())]).collect() };
        ids.push(batch.snapshot(Snapshot {
            tree: bed.repository.empty_tree(),
            parents: chosen.into_iter().collect(),
            author: who("ada", 0),
            committer: who("ada", *time),
            message: count.to_string(),
            metadata: BTreeMap::new(),
        }));
    }
    batch.write(&bed.caller(), "import", "history").unwrap();
    ids
}

fn ancestors(bed: &Bed, id: SnapshotId) -> HashSet<SnapshotId> {
    let (mut seen, mut open) = (HashSet::new(), vec![id]);
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(&bed.repository.snapshot(id).unwrap().parents);
        }
    }
    seen
}

#[test]
fn the_last_ones_turned_around_are_the_last_ones() {
    let bed = Bed::new();
    let ids: Vec<SnapshotId> = (0..5).map(|count| bed.commit(&[("f", Some(&count.to_string()))], "x").unwrap()).collect();
    let log = |skip: usize, limit: Option<usize>| -> Vec<SnapshotId> {
        let query = LogQuery { include: vec![bed.head()], order: Order::Reverse, skip, limit, ..LogQuery::default() };
        bed.repository.log(&query).unwrap().map(|entry| entry.unwrap().id).collect()
    };
    assert_eq!(log(0, Some(2)), ids[3..]);
    assert_eq!(log(1, Some(2)), ids[2..4]);
    assert_eq!((log(3, None), log(0, Some(9))), (ids[..2].to_vec(), ids.clone()));
    assert_eq!(log(9, None), Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn by_date_no_snapshot_comes_before_one_that_was_made_from_it_in_the_same_instant(
        history in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 1..3), any::<bool>()), 1..24),
        tips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let bed = Bed::new();
        let mut now = 0;
        let history: Vec<_> = history
            .into_iter()
            .map(|(parents, ticks)| {
                now += i64::from(ticks);
                (parents, now)
            })
            .collect();
        let ids = made(&bed, &history);
        let include = tips.iter().map(|tip| ids[tip.index(ids.len())]).collect();
        let query = LogQuery { include, ..LogQuery::default() };
        let log: Vec<LogEntry> = bed.repository.log(&query).unwrap().map(Result::unwrap).collect();
        let place = |id: &SnapshotId| log.iter().position(|entry| entry.id == *id);
        for (child, entry) in log.iter().enumerate() {
            for parent in entry.snapshot.parents.iter().filter_map(place) {
                prop_assert!(child < parent, "{child} is shown after its parent {parent}");
            }
        }
    }

    #[test]
    fn what_is_common_and_what_is_between_agrees_with_sets(
        history in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..4), 0_i64..20), 1..24),
        one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), forget in any::<bool>(),
    ) {
        let bed = Bed::new();
        let ids = made(&bed, &history);
        let repository = if forget { Repository::open(bed.repository.store().clone()).unwrap() } else { bed.repository.clone() };
        let (one, other) = (ids[one.index(ids.len())], ids[other.index(ids.len())]);
        let (ones, others) = (ancestors(&bed, one), ancestors(&bed, other));
        let common: HashSet<SnapshotId> = ones.intersection(&others).copied().collect();
        let best: BTreeSet<SnapshotId> = common
            .iter()
            .filter(|id| !common.iter().any(|made| made != *id && ancestors(&bed, *made).contains(id)))
            .copied()
            .collect();
        let bases = repository.merge_bases(one, other).unwrap();
        prop_assert_eq!(bases.len(), best.len());
        prop_assert_eq!(bases.into_iter().collect::<BTreeSet<_>>(), best);
        prop_assert_eq!(repository.is_ancestor(one, other).unwrap(), others.contains(&one));
        let only = (ones.difference(&others).count() as u64, others.difference(&ones).count() as u64);
        prop_assert_eq!(repository.ahead_behind(one, other).unwrap(), only);
        for order in [Order::Date, Order::Topological, Order::Reverse] {
            let query = LogQuery { include: vec![one], exclude: vec![other], order, ..LogQuery::default() };
            let log: Vec<LogEntry> = repository.log(&query).unwrap().map(Result::unwrap).collect();
            let told: HashSet<SnapshotId> = log.iter().map(|entry| entry.id).collect();
            prop_assert_eq!((log.len(), &told), (told.len(), &ones.difference(&others).copied().collect()));
            let place = |id: &SnapshotId| log.iter().position(|entry| entry.id == *id);
            for entry in &log {
                for parent in entry.snapshot.parents.iter().filter_map(place) {
                    let child = place(&entry.id).unwrap();
                    prop_assert!(order == Order::Date || (order == Order::Reverse) == (parent < child), "{:?}", order);
                }
            }
        }
    }
}
