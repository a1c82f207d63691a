//! Looking for the snapshot that broke something, by halves.

use std::collections::{HashMap, HashSet};

use helix_protocol::SnapshotId;

use crate::VersionError;

use super::Repository;
use super::history::{LogEntry, LogQuery, Order};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BisectStep {
    /// Test this one.
    Test {
        /// Which.
        snapshot: SnapshotId,
        /// How many may be the one that broke it, this one included.
        left: usize,
        /// How many more tests it takes, about.
        steps: u32,
    },
    /// This one broke it.
    Found(SnapshotId),
    /// One of these broke it: the others cannot be tested.
    OneOf(Vec<SnapshotId>),
    /// No snapshot is between the good ones and the bad one.
    Nothing,
}

impl Repository {
    /// The next snapshot to test, where `bad` is broken, `good` ones are not, and `skipped` ones cannot be tested. Nothing is
    /// remembered: who asks adds the answer to what is known and asks again.
    pub fn bisect(&self, bad: SnapshotId, good: &[SnapshotId], skipped: &HashSet<SnapshotId>) -> Result<BisectStep, VersionError> {
        let query = LogQuery { include: vec![bad], exclude: good.to_vec(), order: Order::Reverse, ..LogQuery::default() };
        let candidates: Vec<LogEntry> = self.log(&query)?.collect::<Result<_, _>>()?;
        if candidates.is_empty() {
            return Ok(BisectStep::Nothing);
        }
        let total = candidates.len();
        let weights = weights(&candidates);
        // The bad one is known to be bad: testing it says nothing.
        let testable = candidates.iter().filter(|entry| entry.id != bad && !skipped.contains(&entry.id));
        let half = |entry: &&LogEntry| weights[&entry.id].min(total - weights[&entry.id]);
        let best = testable.rev().max_by_key(half);
        match best {
            Some(entry) => {
                let steps = (total as u64).ilog2();
                Ok(BisectStep::Test { snapshot: entry.id, left: total, steps })
            }
            None if total == 1 => Ok(BisectStep::Found(bad)),
            None => Ok(BisectStep::OneOf(candidates.into_iter().rev().map(|entry| entry.id).collect())),
        }
    }
}

/// For each candidate, how many candidates are in its history, itself included. Parents come first.
fn weights(candidates: &[LogEntry]) -> HashMap<SnapshotId, usize> {
    let parents: HashMap<SnapshotId, &[SnapshotId]> =
        candidates.iter().map(|entry| (entry.id, entry.snapshot.parents.as_slice())).collect();
    let mut weights: HashMap<SnapshotId, usize> = HashMap::with_capacity(candidates.len());
    for entry in candidates {
        let within: Vec<SnapshotId> = parents[&entry.id].iter().copied().filter(|id| parents.contains_key(id)).collect();
        let weight = match within.as_slice() {
            [] => 1,
            [parent] => weights[parent] + 1,
            several => {
                // What lines have in common counts once.
                let (mut seen, mut open) = (HashSet::new(), several.to_vec());
                while let Some(id) = open.pop() {
                    if seen.insert(id) {
                        open.extend(parents[&id].iter().filter(|id| parents.contains_key(*id)));
                    }
                }
                seen.len() + 1
            }
        };
        weights.insert(entry.id, weight);
    }
    weights
}
