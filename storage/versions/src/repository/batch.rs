//! Many things in one batch: what an import makes.

use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{Expect, Family, NewObject, RecordChange};
use helix_protocol::SnapshotId;

use crate::{Snapshot, VersionError};

use super::Repository;
use super::names::RefName;
use super::records::{Annotation, Record, RefRecord};
use super::transaction::{Caller, Log, Recorded};
use super::workspaces::ref_key;

/// Objects, snapshots, refs and records that are written together. Nothing is written before [`write`](Self::write).
pub struct Batch {
    repository: Repository,
    objects: Vec<NewObject>,
    snapshots: Vec<(NewObject, Arc<Snapshot>)>,
    refs: Vec<(RefName, RefExpect, Option<RefRecord>)>,
    records: Vec<RecordChange>,
}

/// What a ref must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefExpect {
    /// Whatever it is.
    Anything,
    /// It must not exist.
    Absent,
    /// It must name this snapshot.
    At(SnapshotId),
}

impl Repository {
    /// An empty batch.
    pub fn batch(&self) -> Batch {
        Batch { repository: self.clone(), objects: Vec::new(), snapshots: Vec::new(), refs: Vec::new(), records: Vec::new() }
    }
}

impl Batch {
    /// Adds files and trees.
    pub fn objects(&mut self, objects: impl IntoIterator<Item = NewObject>) {
        self.objects.extend(objects);
    }

    /// Adds a snapshot. Its tree and its parents must be in the store or in this batch, parents first.
    pub fn snapshot(&mut self, snapshot: Snapshot) -> SnapshotId {
        let object = snapshot.encode();
        let id = SnapshotId(object.id());
        self.snapshots.push((object, Arc::new(snapshot)));
        id
    }

    /// Makes, moves or removes a ref.
    pub fn set_ref(&mut self, name: RefName, expect: RefExpect, target: Option<(SnapshotId, Option<Annotation>)>) {
        self.refs.push((name, expect, target.map(|(target, annotation)| RefRecord { target, annotation })));
    }

    /// Changes a record of a family that is not the repository's own: the map to git's objects, a setting. It cannot be undone.
    pub fn record(&mut self, family: Family, key: Bytes, value: Option<Bytes>) {
        self.records.push(RecordChange { family, key, expect: Expect::Anything, value });
    }

    /// As [`record`](Self::record), where the record must have this value, or not exist. Fails with `Moved`
    /// where it has another one.
    pub fn record_from(&mut self, family: Family, key: Bytes, before: Option<Bytes>, value: Option<Bytes>) {
        let expect = before.map_or(Expect::Absent, Expect::Value);
        self.records.push(RecordChange { family, key, expect, value });
    }

    /// How many bytes of content it holds.
    pub fn bytes(&self) -> usize {
        self.objects.iter().map(|object| object.bytes().len()).sum()
    }

    /// Writes everything, and one entry of the operation log where refs change. Fails with `Moved` where a ref is not what it was
    /// expected to be. Refused where a branch would move beneath a merge that waits.
    pub fn write(&self, caller: &Caller, verb: &str, text: &str) -> Result<Recorded, VersionError> {
        let written = self.repository.change(caller, verb, |change| {
            change.objects(&self.objects);
            for (object, snapshot) in &self.snapshots {
                change.encoded_snapshot(object.clone(), snapshot.clone())?;
            }
            for (name, expect, record) in &self.refs {
                let now: Option<RefRecord> = change.read(Family::Refs, &ref_key(name))?;
                let now = now.map(|record| record.target);
                let expected = match expect {
                    RefExpect::Anything => now,
                    RefExpect::Absent => None,
                    RefExpect::At(id) => Some(*id),
                };
                if expected != now {
                    let show = |id: Option<SnapshotId>| id.map_or("nothing".to_owned(), |id| id.short());
                    return Err(VersionError::Moved { name: name.to_string(), expected: show(expected), now: show(now) });
                }
                if let Some(record) = record {
                    change.look_at(record.target)?;
                }
                if let Some(branch) = name.as_branch().filter(|_| record.as_ref().map(|record| record.target) != now) {
                    for workspace in self.repository.workspaces_on(&branch)? {
                        change.no_merge(&workspace)?;
                    }
                }
                change.write(Family::Refs, &ref_key(name), record.as_ref().map(Record::encode), Log::Told)?;
            }
            for RecordChange { family, key, expect, value } in &self.records {
                if !expect.allows(change.raw(*family, key)?.as_deref()) {
                    let (name, expected, now) = (family.name().to_owned(), "as it was".to_owned(), "something else".to_owned());
                    return Err(VersionError::Moved { name, expected, now });
                }
                change.write(*family, key, value.clone(), Log::Silent)?;
            }
            Ok(((), text.to_owned()))
        })?;
        Ok(written.1)
    }
}
