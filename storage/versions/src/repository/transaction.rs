//! The one way anything is written: what is read is checked, what is written goes into one batch, and the batch has its entry in
//! the operation log.
//!
//! Writers of one process take turns. A writer elsewhere that was faster makes the batch fail as a whole; then everything is read
//! again and tried again, so nobody is ever told that something is locked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, Mark, NewObject, ObjectError, RecordChange};
use helix_protocol::{ObjectId, SnapshotId};

use crate::{Signature, Snapshot, VersionError};

use super::live::LiveTrees;
use super::names::WorkspaceName;
use super::records::{Cause, ChangeRecord, OperationRecord, Record, SnapshotRecord};
use super::{Repository, oplog};

/// How often a change is tried against writers of other processes.
const ATTEMPTS: usize = 64;

/// How many records are kept in memory.
const MOST_KNOWN: usize = 16_384;

/// Who asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The workspace whose head is meant.
    pub workspace: WorkspaceName,
    /// Who, and when: stands in the operation log and in what is committed.
    pub who: Signature,
    /// Who stands in what is committed instead, where that is to have another date.
    pub committer: Option<Signature>,
    /// When the change counts as made; `None` for the repository's own class. The batch is written in one's turn, the sync is made
    /// after it, so those who wait at the same time share one, whichever of both synced classes they asked for.
    pub durability: Option<Durability>,
}

impl Caller {
    /// Who stands in what is committed.
    pub fn committer(&self) -> &Signature {
        self.committer.as_ref().unwrap_or(&self.who)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The entry of the operation log; `None` where nothing had to be changed.
    pub operation: Option<u64>,
    /// Everything is on disk once the store is synced up to here.
    pub mark: Mark,
    /// Whether it is on disk already.
    pub on_disk: bool,
}

/// What writers share: the number of the next entry, and the trees they edit.
#[derive(Default)]
pub(crate) struct Writer {
    next: Option<u64>,
    pub(crate) live: LiveTrees,
    /// The trees of heads, as far as they were asked for since the last change.
    roots: HashMap<WorkspaceName, ObjectId>,
    /// Refs and workspaces as this process knows them. What is written is checked against the store all the same.
    known: HashMap<(Family, Bytes), Option<Bytes>>,
}

impl Writer {
    pub(crate) fn root(&self, workspace: &WorkspaceName) -> Option<ObjectId> {
        self.roots.get(workspace).copied()
    }

    pub(crate) fn set_root(&mut self, workspace: &WorkspaceName, root: ObjectId) {
        self.roots.insert(workspace.clone(), root);
    }

    /// Forgets what was read: the store has something else, or nobody knows what.
    fn forget(&mut self) {
        self.next = None;
        self.roots.clear();
        self.known.clear();
        self.live.clear();
    }

    fn know(&mut self, family: Family, key: &Bytes, value: Option<Bytes>) {
        if matches!(family, Family::Refs | Family::Workspaces) {
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert((family, key.clone()), value);
        }
    }
}

/// Whether a change is told to the operation log, and can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    Told,
    Silent,
}

struct Touched {
    before: Option<Bytes>,
    /// `None`: only read, and checked.
    after: Option<Option<Bytes>>,
    log: Log,
}

/// A change while it is made.
pub(crate) struct Transaction<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) writer: &'a mut Writer,
    objects: Vec<NewObject>,
    touched: BTreeMap<(Family, Bytes), Touched>,
    snapshots: HashMap<SnapshotId, (Arc<Snapshot>, SnapshotRecord)>,
    roots: Vec<(WorkspaceName, ObjectId)>,
    cause: Cause,
    /// It has an entry in the log also where nothing changes.
    noted: bool,
}

impl Recorded {
    pub(crate) const NOTHING: Self = Self { operation: None, mark: Mark(0), on_disk: true };
}

impl Transaction<'_> {
    /// A record as this change has it. It is checked when the change is written.
    pub(crate) fn read<R: Record>(&mut self, family: Family, key: &Bytes) -> Result<Option<R>, VersionError> {
        self.raw(family, key)?.map(|bytes| R::of(family, key, &bytes)).transpose()
    }

    /// As [`read`](Self::read), as bytes.
    pub(crate) fn raw(&mut self, family: Family, key: &Bytes) -> Result<Option<Bytes>, VersionError> {
        let place = (family, key.clone());
        if let Some(touched) = self.touched.get(&place) {
            return Ok(touched.after.as_ref().unwrap_or(&touched.before).clone());
        }
        let before = match self.writer.known.get(&place) {
            Some(known) => known.clone(),
            None => {
                let found = self.repository.store().record(family, key)?;
                self.writer.know(family, key, found.clone());
                found
            }
        };
        self.touched.insert(place, Touched { before: before.clone(), after: None, log: Log::Silent });
        Ok(before)
    }

    /// Changes a record, or removes it.
    pub(crate) fn write(&mut self, family: Family, key: &Bytes, value: Option<Bytes>, log: Log) -> Result<(), VersionError> {
        self.raw(family, key)?;
        let touched = self.touched.get_mut(&(family, key.clone())).expect("it was read just now");
        touched.after = Some(value);
        touched.log = log;
        Ok(())
    }

    /// As [`write`](Self::write), for a value that is encoded.
    pub(crate) fn put<R: Record>(&mut self, family: Family, key: &Bytes, value: Option<&R>, log: Log) -> Result<(), VersionError> {
        self.write(family, key, value.map(Record::encode), log)
    }

    /// Objects that go into the batch.
    pub(crate) fn objects(&mut self, objects: &[NewObject]) {
        self.objects.extend_from_slice(objects);
    }

    /// A snapshot that goes into the batch. Its parents must be in the store or in this change.
    pub(crate) fn snapshot(&mut self, snapshot: Snapshot) -> Result<SnapshotId, VersionError> {
        self.encoded_snapshot(snapshot.encode(), Arc::new(snapshot))
    }

    /// As [`snapshot`](Self::snapshot), encoded already.
    pub(crate) fn encoded_snapshot(&mut self, object: NewObject, snapshot: Arc<Snapshot>) -> Result<SnapshotId, VersionError> {
        let id = SnapshotId(object.id());
        let mut depth = 0;
        for parent in &snapshot.parents {
            depth = depth.max(match self.snapshots.get(parent) {
                Some((_, record)) => record.depth,
                None => self.repository.depth(*parent)?,
            });
        }
        let record = SnapshotRecord { depth: depth + 1, time: snapshot.committer.time };
        self.objects.push(object);
        self.snapshots.insert(id, (snapshot, record));
        Ok(id)
    }

    /// A snapshot of the store or of this change.
    pub(crate) fn look_at(&self, id: SnapshotId) -> Result<Arc<Snapshot>, VersionError> {
        match self.snapshots.get(&id) {
            Some((snapshot, _)) => Ok(snapshot.clone()),
            None => {
                self.repository.name_again(id)?;
                self.repository.snapshot(id)
            }
        }
    }

    /// Says what the tree of a workspace's head is once this change is made.
    pub(crate) fn root_after(&mut self, workspace: &WorkspaceName, root: ObjectId) {
        self.roots.push((workspace.clone(), root));
    }

    /// Says that this change undoes or redoes another.
    pub(crate) fn caused_by(&mut self, cause: Cause) {
        self.cause = cause;
    }

    /// Says that this change stands in the log even if it changes nothing.
    pub(crate) fn note(&mut self) {
        self.noted = true;
    }

    /// A record that is not what was read: what follows from it is not so.
    fn stale(&self) -> Result<Option<(Family, Bytes)>, VersionError> {
        for ((family, key), touched) in &self.touched {
            if self.repository.store().record(*family, key)? != touched.before {
                return Ok(Some((*family, key.clone())));
            }
        }
        Ok(None)
    }

    fn commit(self, caller: &Caller, verb: &str, text: String) -> Result<Recorded, VersionError> {
        let changed = |touched: &Touched| touched.after.as_ref().is_some_and(|after| *after != touched.before);
        if !self.noted && self.objects.is_empty() && !self.touched.values().any(changed) {
            return match self.stale()? {
                None => Ok(Recorded::NOTHING),
                Some((family, key)) => Err(ObjectError::Moved { family, key }.into()),
            };
        }
        let Self { repository, writer, objects, touched, snapshots, roots, cause, noted } = self;
        let logged: Vec<ChangeRecord> = touched
            .iter()
            .filter(|(_, touched)| touched.log == Log::Told && changed(touched))
            .map(|((family, key), touched)| {
                let after = touched.after.clone().flatten();
                ChangeRecord { family: *family, key: key.clone(), before: touched.before.clone(), after }
            })
            .collect();
        let mut changes = repository.no_longer_purged(&objects)?;
        changes.reserve(touched.len() + snapshots.len() + 1);
        let news: Vec<_> = touched.iter().filter_map(|(place, touched)| Some((place.clone(), touched.after.clone()?))).collect();
        changes.extend(touched.into_iter().map(|((family, key), touched)| {
            let value = touched.after.unwrap_or_else(|| touched.before.clone());
            RecordChange { family, key, expect: touched.before.map_or(Expect::Absent, Expect::Value), value }
        }));
        changes.extend(snapshots.iter().map(|(id, (_, record))| {
            let key = Bytes::copy_from_slice(&id.0.0);
            RecordChange { family: Family::Snapshots, key, expect: Expect::Anything, value: Some(record.encode()) }
        }));
        let operation = match logged.is_empty() && !noted {
            true => None,
            false => {
                let number = match writer.next {
                    Some(number) => number,
                    None => oplog::last(&**repository.store())?.map_or(1, |last| last + 1),
                };
                let (who, workspace) = (caller.who.name.clone(), caller.workspace.to_string());
                let entry =
                    OperationRecord { time: caller.who.time, who, workspace, verb: verb.to_owned(), text, cause, changes: logged };
                changes.push(RecordChange {
                    family: Family::Oplog,
                    key: oplog::key(number),
                    expect: Expect::Absent,
                    value: Some(entry.encode()),
                });
                Some(number)
            }
        };
        // Others need not wait for a sync: it is made after the turn has ended.
        let mark = repository.store().commit(&objects, &changes, Durability::NoSync)?;
        if let Some(number) = operation {
            writer.next = Some(number + 1);
        }
        for ((family, key), value) in news {
            writer.know(family, &key, value);
        }
        repository.made(snapshots.keys().copied());
        // Heads may have moved; only what this change says of them is known.
        writer.roots.clear();
        writer.roots.extend(roots);
        for (id, (snapshot, record)) in snapshots {
            repository.remember(id, snapshot, record);
        }
        Ok(Recorded { operation, mark, on_disk: false })
    }
}

impl Repository {
    /// Makes a change: `act` reads and writes, and says in a few words what was done. It may be called again where another process
    /// was faster.
    pub(crate) fn change<T>(
        &self,
        caller: &Caller,
        verb: &str,
        mut act: impl FnMut(&mut Transaction<'_>) -> Result<(T, String), VersionError>,
    ) -> Result<(T, Recorded), VersionError> {
        let (value, recorded) = self.take_turn(caller, verb, &mut act)?;
        self.settle(caller, recorded).map(|recorded| (value, recorded))
    }

    fn take_turn<T>(
        &self,
        caller: &Caller,
        verb: &str,
        act: &mut impl FnMut(&mut Transaction<'_>) -> Result<(T, String), VersionError>,
    ) -> Result<(T, Recorded), VersionError> {
        let mut writer = self.writer();
        for _ in 0..ATTEMPTS {
            let mut transaction = Transaction {
                repository: self,
                writer: &mut writer,
                objects: Vec::new(),
                touched: BTreeMap::new(),
                snapshots: HashMap::new(),
                roots: Vec::new(),
                cause: Cause::Itself,
                noted: false,
            };
            let (value, text) = match act(&mut transaction) {
                Ok(done) => done,
                Err(error) if transaction.stale()?.is_none() => return Err(error),
                Err(_) => {
                    writer.forget();
                    continue;
                }
            };
            match transaction.commit(caller, verb, text) {
                Err(VersionError::Object(ObjectError::Moved { .. })) => writer.forget(),
                Err(error) => {
                    // What the store has now is not known, so nothing is taken from memory.
                    writer.forget();
                    return Err(error);
                }
                Ok(recorded) => return Ok((value, recorded)),
            }
        }
        Err(VersionError::Contended("the repository".to_owned()))
    }

    /// Waits until a change is on disk, where its class asks for that.
    fn settle(&self, caller: &Caller, recorded: Recorded) -> Result<Recorded, VersionError> {
        if recorded.on_disk || caller.durability.unwrap_or(self.durability()) == Durability::NoSync {
            return Ok(recorded);
        }
        self.store().sync(recorded.mark)?;
        Ok(Recorded { on_disk: true, ..recorded })
    }
}
