//! How snapshots descend from each other.
//!
//! Each snapshot has a depth, greater than that of each parent. Walking by depth meets every snapshot after all that were made from
//! it, whatever the clocks said when they were made; so a walk can stop early and still be right.

use std::collections::{BinaryHeap, HashMap, HashSet};

use helix_objects::Family;
use helix_protocol::SnapshotId;

use crate::VersionError;

use super::Repository;
use super::records::SnapshotRecord;

const ONE: u8 = 1;
const OTHER: u8 = 2;
/// Beneath a common ancestor that was found already.
const STALE: u8 = 4;

impl Repository {
    /// How deep the history of a snapshot is: 1 for one without parents, else one more than the deepest parent.
    pub(crate) fn depth(&self, id: SnapshotId) -> Result<u64, VersionError> {
        let known = |id: SnapshotId| -> Result<Option<u64>, VersionError> {
            if let Some(depth) = self.inner.depths.lock().get(&id) {
                return Ok(Some(depth));
            }
            let record: Option<SnapshotRecord> = self.read_record(Family::Snapshots, &id.0.0)?;
            if let Some(record) = record {
                self.inner.depths.lock().put(id, record.depth);
            }
            Ok(record.map(|record| record.depth))
        };
        if let Some(depth) = known(id)? {
            return Ok(depth);
        }
        // Written by somebody who keeps no records: counted here, without recursion, and remembered for this walk at least.
        let mut depths: HashMap<SnapshotId, u64> = HashMap::new();
        let mut open = vec![id];
        while let Some(next) = open.last().copied() {
            let (mut deepest, waiting) = (0, open.len());
            for parent in &self.snapshot(next)?.parents {
                match depths.get(parent).copied().map_or_else(|| known(*parent), |depth| Ok(Some(depth)))? {
                    Some(depth) => deepest = deepest.max(depth),
                    None => open.push(*parent),
                }
            }
            if open.len() == waiting {
                open.pop();
                depths.insert(next, deepest + 1);
                self.inner.depths.lock().put(next, deepest + 1);
            }
        }
        Ok(depths[&id])
    }

    /// Whether `older` is `newer` or is among what it was made from.
    pub fn is_ancestor(&self, older: SnapshotId, newer: SnapshotId) -> Result<bool, VersionError> {
        let limit = self.depth(older)?;
        let mut walk = Walk::default();
        walk.add(self, newer, ONE)?;
        while let Some((depth, id, _)) = walk.next() {
            if id == older {
                return Ok(true);
            }
            if depth > limit {
                walk.add_parents(self, id, ONE)?;
            }
        }
        Ok(false)
    }

    /// The best common ancestors of two snapshots: those that no other common ancestor was made from. The first one made is last.
    /// None where they have nothing in common, several where lines crossed.
    pub fn merge_bases(&self, one: SnapshotId, other: SnapshotId) -> Result<Vec<SnapshotId>, VersionError> {
        self.merge_bases_of(&[one], &[other])
    }

    /// As [`merge_bases`](Self::merge_bases), of what several snapshots have together.
    pub(crate) fn merge_bases_of(&self, ones: &[SnapshotId], others: &[SnapshotId]) -> Result<Vec<SnapshotId>, VersionError> {
        let mut walk = Walk::default();
        for id in ones {
            walk.add(self, *id, ONE)?;
        }
        for id in others {
            walk.add(self, *id, OTHER)?;
        }
        let mut bases = Vec::new();
        while walk.fresh > 0 {
            let Some((_, id, mut marks)) = walk.next() else { break };
            if marks == ONE | OTHER {
                bases.push(id);
                marks |= STALE;
            }
            walk.add_parents(self, id, marks)?;
        }
        let time = |id: &SnapshotId| self.snapshot(*id).map(|snapshot| (snapshot.committer.time, *id));
        let mut timed = bases.iter().map(time).collect::<Result<Vec<_>, _>>()?;
        timed.sort_unstable_by(|a, b| b.cmp(a));
        Ok(timed.into_iter().map(|(_, id)| id).collect())
    }

    /// What of the history of `exclude` the history of `include` runs into.
    pub(crate) fn excluded(&self, include: &[SnapshotId], exclude: &[SnapshotId]) -> Result<HashSet<SnapshotId>, VersionError> {
        let mut excluded = HashSet::new();
        if exclude.is_empty() {
            return Ok(excluded);
        }
        let mut walk = Walk::default();
        for id in include {
            walk.add(self, *id, ONE)?;
        }
        for id in exclude {
            // Stale: nothing has to be looked at once only such are left.
            walk.add(self, *id, OTHER | STALE)?;
        }
        while walk.fresh > 0 {
            let Some((_, id, marks)) = walk.next() else { break };
            if marks & STALE != 0 {
                excluded.insert(id);
            }
            walk.add_parents(self, id, marks)?;
        }
        // What is left in the queue is on the excluded side, and the included side may have it as a parent.
        excluded.extend(walk.queue.into_iter().map(|(_, id)| id));
        Ok(excluded)
    }

    /// How many snapshots only `one` has in its history, and how many only `other` has.
    pub fn ahead_behind(&self, one: SnapshotId, other: SnapshotId) -> Result<(u64, u64), VersionError> {
        let mut walk = Walk::default();
        walk.add(self, one, ONE)?;
        walk.add(self, other, OTHER)?;
        let (mut ahead, mut behind) = (0, 0);
        while walk.fresh > 0 {
            let Some((_, id, mut marks)) = walk.next() else { break };
            match marks {
                ONE => ahead += 1,
                OTHER => behind += 1,
                _ => marks |= STALE,
            }
            walk.add_parents(self, id, marks)?;
        }
        Ok((ahead, behind))
    }
}

/// Snapshots waiting to be looked at, the deepest first, each once.
#[derive(Default)]
struct Walk {
    queue: BinaryHeap<(u64, SnapshotId)>,
    marks: HashMap<SnapshotId, u8>,
    /// How many in the queue are not stale.
    fresh: usize,
}

impl Walk {
    fn add(&mut self, repository: &Repository, id: SnapshotId, marks: u8) -> Result<(), VersionError> {
        match self.marks.get_mut(&id) {
            Some(had) => {
                // It is still in the queue: whatever marks it is deeper than it.
                let was_fresh = *had & STALE == 0;
                *had |= marks;
                self.fresh -= usize::from(was_fresh && *had & STALE != 0);
            }
            None => {
                self.queue.push((repository.depth(id)?, id));
                self.marks.insert(id, marks);
                self.fresh += usize::from(marks & STALE == 0);
            }
        }
        Ok(())
    }

    fn add_parents(&mut self, repository: &Repository, id: SnapshotId, marks: u8) -> Result<(), VersionError> {
        repository.snapshot(id)?.parents.iter().try_for_each(|parent| self.add(repository, *parent, marks))
    }

    fn next(&mut self) -> Option<(u64, SnapshotId, u8)> {
        let (depth, id) = self.queue.pop()?;
        let marks = self.marks[&id];
        self.fresh -= usize::from(marks & STALE == 0);
        Some((depth, id, marks))
    }
}
