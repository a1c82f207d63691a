//! Snapshots that were stored in bulk, and get their records behind it.

use std::collections::HashMap;

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, RecordChange};
use helix_protocol::{SnapshotId, Timestamp};

use crate::VersionError;

use super::Repository;
use super::records::{Record, SnapshotRecord};

/// How many records of stored snapshots go into one batch.
const RECORDS_PER_BATCH: usize = 16_384;

/// A snapshot that is in the store, for its record.
pub(crate) struct StoredSnapshot {
    pub(crate) id: SnapshotId,
    pub(crate) parents: Vec<SnapshotId>,
    pub(crate) time: Timestamp,
}

impl Repository {
    /// Writes the records of snapshots that were stored in bulk, parents first, so that their short ids and depths are known. They
    /// say nothing about what is reachable, so it does no harm where this is interrupted.
    pub(crate) fn record_stored(&self, snapshots: &[StoredSnapshot]) -> Result<(), VersionError> {
        self.made(snapshots.iter().map(|snapshot| snapshot.id));
        let mut depths: HashMap<SnapshotId, u64> = HashMap::with_capacity(snapshots.len());
        for some in snapshots.chunks(RECORDS_PER_BATCH) {
            let mut changes = Vec::with_capacity(some.len());
            for StoredSnapshot { id, parents, time } in some {
                let mut deepest = 0;
                for parent in parents {
                    deepest = deepest.max(depths.get(parent).map_or_else(|| self.depth(*parent), |depth| Ok(*depth))?);
                }
                depths.insert(*id, deepest + 1);
                let value = Some(SnapshotRecord { depth: deepest + 1, time: *time }.encode());
                let key = Bytes::copy_from_slice(&id.0.0);
                changes.push(RecordChange { family: Family::Snapshots, key, expect: Expect::Anything, value });
            }
            self.store().commit(&[], &changes, Durability::NoSync)?;
        }
        Ok(())
    }
}
