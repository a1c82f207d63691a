//! Records: small named values beside the content, changed in one batch with it.
//!
//! A branch's head, an entry of the operation log, the state of an experiment. Who changes a record says
//! what it must be at that moment; where one of a batch is something else, nothing of the batch is done.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use helix_protocol::ObjectId;

use crate::{Durability, Mark, NewObject, ObjectError, ObjectStore};

/// What a record is about. Each family has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Names for snapshots.
    Refs,
    /// Every snapshot by its id: short ids, listings, and how deep its history is.
    Snapshots,
    /// What was done, entry by entry.
    Oplog,
    /// Working folders with their heads.
    Workspaces,
    /// Groups of variants with their scores.
    Experiments,
    /// Which snapshot is which git object.
    GitMap,
    /// Settings and counters.
    Settings,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 7] =
        [Self::Refs, Self::Snapshots, Self::Oplog, Self::Workspaces, Self::Experiments, Self::GitMap, Self::Settings];

    /// A short, stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refs => "refs",
            Self::Snapshots => "snapshots",
            Self::Oplog => "oplog",
            Self::Workspaces => "workspaces",
            Self::Experiments => "experiments",
            Self::GitMap => "gitmap",
            Self::Settings => "settings",
        }
    }
}

/// What a record must be for its change to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    Anything,
    /// It must not exist.
    Absent,
    /// It must have this value.
    Value(Bytes),
}

impl Expect {
    /// Whether a record that is `found` may be changed.
    pub fn allows(&self, found: Option<&[u8]>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => found.is_none(),
            Self::Value(value) => found == Some(value.as_ref()),
        }
    }
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// Its family.
    pub family: Family,
    /// Its key, any bytes.
    pub key: Bytes,
    /// What it must be.
    pub expect: Expect,
    /// What it becomes; `None` removes it. With the expected value itself it is only checked.
    pub value: Option<Bytes>,
}

/// A store that keeps records too.
pub trait RecordStore: ObjectStore {
    /// A record's value.
    fn record(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ObjectError>;

    /// The records whose keys begin with `prefix`, ascending by key, at most `limit`, beginning behind
    /// the key `after`.
    fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError>;

    /// Stores objects and changes records in one batch, all of it or nothing. Fails with `Moved` where a record is
    /// not what it was expected to be. The mark covers the batch, and grows with every batch that changes a record.
    fn commit(&self, objects: &[NewObject], changes: &[RecordChange], durability: Durability) -> Result<Mark, ObjectError>;
}

/// Records of [`Family::Settings`] whose keys begin so name content that was removed on purpose: 32 bytes of its id.
pub const PURGED: &[u8] = b"purged/";

/// What the records of a store say was removed on purpose.
pub fn purged_by_records(store: &dyn RecordStore) -> Result<HashSet<ObjectId>, ObjectError> {
    const AT_ONCE: usize = 1_024;
    let (mut purged, mut after) = (HashSet::new(), None::<Bytes>);
    loop {
        let found = store.records(Family::Settings, PURGED, after.as_deref(), AT_ONCE)?;
        purged.extend(found.iter().filter_map(|(key, _)| key[PURGED.len()..].try_into().ok().map(ObjectId)));
        match found.last() {
            Some((last, _)) if found.len() == AT_ONCE => after = Some(last.clone()),
            _ => return Ok(purged),
        }
    }
}

/// A shared store is a store.
impl<S: RecordStore + ?Sized> RecordStore for Arc<S> {
    fn record(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ObjectError> {
        (**self).record(family, key)
    }

    fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError> {
        (**self).records(family, prefix, after, limit)
    }

    fn commit(&self, objects: &[NewObject], changes: &[RecordChange], durability: Durability) -> Result<Mark, ObjectError> {
        (**self).commit(objects, changes, durability)
    }
}
