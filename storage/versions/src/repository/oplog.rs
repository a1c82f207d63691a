//! The operation log: what was done to refs, heads and experiments, and taking it back.
//!
//! An entry has each record before and after. Undoing one is an operation too: it puts the records back that are still as the entry
//! left them, and is told to the log like any other; so it can be undone itself.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use helix_objects::{Family, RecordStore};
use helix_protocol::{ObjectId, SnapshotId, Timestamp};

use crate::VersionError;

use super::Repository;
use super::names::{KEPT, WorkspaceName};
use super::records::{
    Cause, ChangeRecord, Head, HeadTarget, Merging, OperationRecord, Record, RefRecord, WorkspaceKeys, WorkspaceRecord, show_key,
};
use super::transaction::{Caller, Log, Recorded, Transaction};

/// An entry of the operation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number: 1 for the first, then one more each.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub who: String,
    /// In which workspace.
    pub workspace: String,
    /// What kind of change: `commit`, `reset`, `branch`, …
    pub verb: String,
    /// What was done, in a few words.
    pub text: String,
    /// Why.
    pub cause: OperationCause,
    /// What became of each record.
    pub changes: Vec<OperationChange>,
}

/// Why an operation was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationCause {
    /// Somebody wanted it.
    Itself,
    /// It takes that one back.
    Undoes(u64),
    /// It makes that one's taking back undone.
    Redoes(u64),
}

/// One name before and after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationChange {
    /// `refs/heads/main`, `workspace agent-1`, `experiment parser/a`.
    pub name: String,
    /// A snapshot's id, a branch, a few words; `None` where it did not exist.
    pub before: Option<String>,
    /// As `before`.
    pub after: Option<String>,
}

/// What to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// The last operation of the caller's workspace that was not taken back yet: again and again, it goes further back. What was
    /// kept before it was overwritten stays kept.
    Last,
    /// One operation, wherever it is in the log. Refused where something of it was changed since.
    Entry(u64),
    /// Everything behind this operation.
    To(u64),
}

/// What taking back did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The operations that were taken back, the newest first.
    pub operations: Vec<u64>,
    /// Workspaces whose tree is another one now: their files are the caller's.
    pub moved: Vec<MovedHead>,
    /// For [`Undo::Last`]: the last operation that could be taken back, where it is another workspace's and so was left.
    pub left: Option<Operation>,
    /// What was written.
    pub recorded: Recorded,
}

/// A workspace whose tree became another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedHead {
    /// Which.
    pub workspace: WorkspaceName,
    /// The tree it was at.
    pub from: ObjectId,
    /// The tree it is at.
    pub to: ObjectId,
    /// Its head now.
    pub head: Head,
}

/// What a workspace's files came of.
pub(crate) struct Folder {
    head: Head,
    /// The head's, or where a merge waits what is staged of it.
    tree: ObjectId,
    merging: Option<Merging>,
}

/// The key of an entry.
pub(crate) fn key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number of the last entry. Numbers have no gaps, so it is found by doubling steps and then halving them.
pub(crate) fn last(store: &dyn RecordStore) -> Result<Option<u64>, VersionError> {
    let Some(first) = first(store)? else { return Ok(None) };
    let exists = |number: u64| Ok::<_, VersionError>(store.record(Family::Oplog, &key(number))?.is_some());
    let (mut there, mut step) = (first, 1_u64);
    while exists(there + step)? {
        there += step;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if exists(there + step)? {
            there += step;
        }
    }
    Ok(Some(there))
}

/// The number of the first entry that is kept.
pub(crate) fn first(store: &dyn RecordStore) -> Result<Option<u64>, VersionError> {
    let found = store.records(Family::Oplog, b"", None, 1)?;
    let Some((key, _)) = found.first() else { return Ok(None) };
    let number = <[u8; 8]>::try_from(key.as_ref()).map_err(|_| damaged(key, "its key is no number"))?;
    Ok(Some(u64::from_be_bytes(number)))
}

/// Whether an entry has nothing but what was kept before it would have been overwritten: there is nothing in it to take back.
fn only_keeps(record: &OperationRecord) -> bool {
    !record.changes.is_empty() && record.changes.iter().all(is_kept)
}

/// Whether an entry made a workspace. What is older was done in another one of that name.
fn makes(record: &OperationRecord, workspace: &WorkspaceName) -> bool {
    let head = WorkspaceKeys(workspace).head();
    record.changes.iter().any(|change| change.family == Family::Workspaces && change.key == head && change.before.is_none())
}

fn damaged(key: &[u8], reason: &'static str) -> VersionError {
    VersionError::DamagedRecord { family: Family::Oplog.name(), key: show_key(Family::Oplog, key), reason }
}

impl Repository {
    /// The operations before `before` (from the last one without), the newest first, at most `limit`.
    pub fn operations(&self, before: Option<u64>, limit: usize) -> Result<Vec<Operation>, VersionError> {
        let mut operations = Vec::new();
        self.each_operation(before, |number, record| {
            operations.push(operation(number, record));
            Ok(operations.len() < limit)
        })?;
        Ok(operations)
    }

    /// The number of the oldest operation that is kept.
    pub fn first_operation(&self) -> Result<Option<u64>, VersionError> {
        first(&**self.store())
    }

    /// Entries from the newest back, until there is none or `act` says false.
    pub(crate) fn each_operation(
        &self,
        before: Option<u64>,
        mut act: impl FnMut(u64, OperationRecord) -> Result<bool, VersionError>,
    ) -> Result<(), VersionError> {
        const AT_ONCE: u64 = 128;
        let mut before = match before {
            Some(number) => number,
            None => last(&**self.store())?.map_or(0, |last| last + 1),
        };
        while before > 1 {
            // The keys of one step: those behind `start`, below `before`.
            let start = before.saturating_sub(AT_ONCE + 1);
            let limit = usize::try_from(before - start - 1).expect("a step is small");
            let found = self.store().records(Family::Oplog, b"", Some(&key(start)), limit)?;
            for (key, value) in found.iter().rev() {
                let number = <[u8; 8]>::try_from(key.as_ref()).map_err(|_| damaged(key, "its key is no number"))?;
                let number = u64::from_be_bytes(number);
                if number < before && !act(number, OperationRecord::of(Family::Oplog, key, value)?)? {
                    return Ok(());
                }
            }
            if found.is_empty() {
                return Ok(());
            }
            before = start + 1;
        }
        Ok(())
    }

    /// Writes something into the log that changed no name: what happened to the store itself.
    pub fn note(&self, caller: &Caller, verb: &str, text: &str) -> Result<Recorded, VersionError> {
        let ((), recorded) = self.change(caller, verb, |change| {
            change.note();
            Ok(((), text.to_owned()))
        })?;
        Ok(recorded)
    }

    /// Takes operations back, in one batch. Fails where something of them was changed since, and says by what.
    pub fn undo(&self, caller: &Caller, what: Undo) -> Result<Undone, VersionError> {
        let ((operations, moved, left), recorded) = self.change(caller, "undo", |change| {
            let before = change.folders()?;
            let mut left = None;
            let (operations, text) = match what {
                Undo::To(number) => {
                    let operations = change.restore(number)?;
                    (operations, format!("to operation {number}"))
                }
                Undo::Last => {
                    let number;
                    (number, left) = self.next_to_undo(&caller.workspace)?;
                    change.caused_by(Cause::Undoes(number));
                    let text = change.take_back(number)?;
                    (vec![number], text)
                }
                Undo::Entry(number) => {
                    change.caused_by(Cause::Undoes(number));
                    let text = change.take_back(number)?;
                    (vec![number], text)
                }
            };
            Ok(((operations, change.moved_since(&before)?, left), text))
        })?;
        Ok(Undone { operations, moved, left, recorded })
    }

    /// Makes the last undo of the caller's workspace undone, where nothing else was done in it since.
    pub fn redo(&self, caller: &Caller) -> Result<Undone, VersionError> {
        let ((operations, moved), recorded) = self.change(caller, "redo", |change| {
            let before = change.folders()?;
            let number = self.next_to_redo(&caller.workspace)?;
            change.caused_by(Cause::Redoes(number));
            let text = change.take_back(number)?;
            Ok(((vec![number], change.moved_since(&before)?), text))
        })?;
        Ok(Undone { operations, moved, left: None, recorded })
    }

    /// The last operation of a workspace that is in effect and is itself no undo, and that of the others where it is newer.
    fn next_to_undo(&self, workspace: &WorkspaceName) -> Result<(u64, Option<Operation>), VersionError> {
        let (mut cancelled, mut found, mut left) = (HashSet::new(), None, None);
        self.each_operation(None, |number, record| {
            if cancelled.contains(&number) {
                return Ok(true);
            }
            match record.cause {
                Cause::Undoes(other) | Cause::Redoes(other) => drop(cancelled.insert(other)),
                // A note has nothing that could be taken back.
                Cause::Itself if record.changes.is_empty() || only_keeps(&record) => {}
                Cause::Itself if record.workspace == workspace.as_str() => found = Some(number),
                Cause::Itself => {
                    let is_before = !makes(&record, workspace);
                    left.get_or_insert_with(|| operation(number, record));
                    return Ok(is_before);
                }
            }
            Ok(found.is_none())
        })?;
        let Some(found) = found else {
            let last = left.map_or_else(String::new, |Operation { number, workspace, verb, text, .. }| {
                format!(": the last operation, {number} ({verb} {text}), is that of workspace {workspace}")
            });
            return Err(VersionError::Refused {
                message: format!("there is nothing to undo in workspace {workspace}{last}"),
                hint: "`helios oplog` lists what was done and is still kept; `helios undo NUMBER` takes back that of any workspace",
            });
        };
        Ok((found, left))
    }

    /// The last undo of a workspace that is in effect, where nothing else was done in it since.
    fn next_to_redo(&self, workspace: &WorkspaceName) -> Result<u64, VersionError> {
        let (mut cancelled, mut found) = (HashSet::new(), None);
        self.each_operation(None, |number, record| {
            if cancelled.contains(&number) {
                return Ok(true);
            }
            let is_own = record.workspace == workspace.as_str();
            match record.cause {
                Cause::Redoes(other) => drop(cancelled.insert(other)),
                Cause::Undoes(_) => found = Some(number).filter(|_| is_own),
                Cause::Itself if is_own => return Ok(only_keeps(&record)),
                Cause::Itself => return Ok(!makes(&record, workspace)),
            }
            Ok(found.is_none())
        })?;
        found.ok_or_else(|| VersionError::Refused {
            message: format!("there is nothing to redo in workspace {workspace}"),
            hint: "an undo can be redone until something else is done in the same workspace",
        })
    }

    /// Each snapshot that a ref was at, the newest first, without the one it is at now.
    pub(crate) fn ref_history(&self, name: &str, limit: usize) -> Result<Vec<Option<SnapshotId>>, VersionError> {
        let mut past = Vec::new();
        self.each_operation(None, |_, record| {
            for change in record.changes.iter().filter(|change| change.family == Family::Refs && change.key == name) {
                past.push(ref_target(change.before.as_deref())?);
            }
            Ok(past.len() < limit)
        })?;
        Ok(past)
    }

    /// What a workspace's head was before each change of it, and the change's verb, the newest first.
    pub(crate) fn each_head(
        &self,
        workspace: &WorkspaceName,
        mut act: impl FnMut(HeadTarget, &str) -> Result<bool, VersionError>,
    ) -> Result<(), VersionError> {
        self.each_operation(None, |_, record| {
            let is_head = |change: &&ChangeRecord| change.family == Family::Workspaces && change.key == workspace.as_str();
            match record.changes.iter().find(is_head) {
                None => Ok(true),
                Some(ChangeRecord { before: None, .. }) => Ok(false),
                Some(ChangeRecord { before: Some(before), key, .. }) => {
                    act(WorkspaceRecord::of(Family::Workspaces, key, before)?.head, &record.verb)
                }
            }
        })
    }

    /// Each snapshot that a workspace's head was at, the newest first, without the one it is at now.
    pub(crate) fn head_history(&self, workspace: &WorkspaceName, limit: usize) -> Result<Vec<Option<SnapshotId>>, VersionError> {
        let mut head = self.head(workspace)?;
        let mut past = Vec::new();
        // The refs as they were at that point of the past, as far as it is known by then.
        let mut refs: BTreeMap<String, Option<SnapshotId>> = BTreeMap::new();
        self.each_operation(None, |_, record| {
            let mut touched = false;
            for change in &record.changes {
                match change.family {
                    Family::Refs => {
                        let name = String::from_utf8_lossy(&change.key).into_owned();
                        refs.insert(name, ref_target(change.before.as_deref())?);
                    }
                    Family::Workspaces if change.key == workspace.as_str() => {
                        let Some(before) = &change.before else { return Ok(false) };
                        head.target = WorkspaceRecord::of(Family::Workspaces, &change.key, before)?.head;
                        touched = true;
                    }
                    _ => {}
                }
            }
            let is_at = match &head.target {
                HeadTarget::Detached(id) => Some(*id),
                HeadTarget::Branch(branch) => match refs.get(&format!("refs/heads/{branch}")) {
                    Some(target) => *target,
                    None => self.branch(branch)?,
                },
            };
            if touched || is_at != head.snapshot {
                past.push(is_at);
                head.snapshot = is_at;
            }
            Ok(past.len() < limit)
        })?;
        Ok(past)
    }
}

impl Transaction<'_> {
    fn entry(&mut self, number: u64) -> Result<OperationRecord, VersionError> {
        let record = self.repository.read_record(Family::Oplog, &key(number))?;
        record.ok_or_else(|| VersionError::Unknown { kind: "operation", name: number.to_string(), nearest: None })
    }

    /// Puts back what one operation changed.
    fn take_back(&mut self, number: u64) -> Result<String, VersionError> {
        let record = self.entry(number)?;
        if record.changes.is_empty() {
            return Err(VersionError::Refused {
                message: format!("operation {number} changed nothing that could be put back"),
                hint: "`helios oplog` lists what was done",
            });
        }
        let concludes = record.changes.iter().any(|change| change.key.ends_with(b"/merging"));
        for change in record.changes {
            let now = self.raw(change.family, &change.key)?;
            if now != change.after && is_kept(&change) || is_committed(&change, &record.verb, concludes) {
                continue;
            }
            if now != change.after && !is_fleeting(change.family, &change.key) {
                let name = name_of(change.family, &change.key);
                return Err(VersionError::Refused {
                    message: format!("operation {number} cannot be undone alone: {name} was changed since"),
                    hint: "undo what came after it first, or go back as a whole with `helios undo --to N`",
                });
            }
            self.write(change.family, &change.key, change.before, Log::Told)?;
        }
        Ok(format!("{number}: {} {}", record.verb, record.text))
    }

    /// Puts everything back as it was right after an operation.
    fn restore(&mut self, number: u64) -> Result<Vec<u64>, VersionError> {
        self.entry(number)?;
        let (mut taken, mut before) = (Vec::new(), BTreeMap::new());
        self.repository.each_operation(None, |later, record| {
            if later == number {
                return Ok(false);
            }
            taken.push(later);
            // The oldest one's state is what stays.
            let changes = record.changes.into_iter().filter(|change| !is_kept(change));
            before.extend(changes.map(|change| ((change.family, change.key), change.before)));
            Ok(true)
        })?;
        for ((family, key), value) in before {
            self.write(family, &key, value, Log::Told)?;
        }
        Ok(taken)
    }

    /// What each workspace's files came of.
    pub(crate) fn folders(&mut self) -> Result<Vec<(WorkspaceName, Folder)>, VersionError> {
        let names = self.repository.workspace_names()?;
        let folders = names.into_iter().map(|name| Ok(self.folder(&name)?.map(|folder| (name, folder))));
        folders.filter_map(Result::transpose).collect()
    }

    fn folder(&mut self, workspace: &WorkspaceName) -> Result<Option<Folder>, VersionError> {
        let keys = WorkspaceKeys(workspace);
        let Some(record) = self.read::<WorkspaceRecord>(Family::Workspaces, &keys.head())? else { return Ok(None) };
        let merging = self.merging(workspace)?;
        let tree = match &merging {
            Some(merging) => merging.folder_tree(self.read(Family::Workspaces, &keys.staged())?),
            None => self.head_tree(&record.head)?,
        };
        Ok(Some(Folder { head: self.head(&record.head)?, tree, merging }))
    }

    /// The workspaces whose files are to become other ones than they came of. Refused where a head has moved beneath a merge that
    /// waits: what came of the merge is without what the head has now.
    pub(crate) fn moved_since(&mut self, before: &[(WorkspaceName, Folder)]) -> Result<Vec<MovedHead>, VersionError> {
        let mut moved = Vec::new();
        for (workspace, before) in before {
            let Some(Folder { head, tree: to, merging }) = self.folder(workspace)? else { continue };
            if merging.is_some() && merging == before.merging && head.snapshot != before.head.snapshot {
                self.no_merge(workspace)?;
            }
            if to != before.tree {
                moved.push(MovedHead { workspace: workspace.clone(), from: before.tree, to, head });
            }
        }
        Ok(moved)
    }
}

/// What was kept before it would have been overwritten stays kept, whatever is taken back.
fn is_kept(change: &ChangeRecord) -> bool {
    change.family == Family::Refs && change.key.starts_with(KEPT.as_bytes())
}

/// What a commit took off the stage is in it, and the files follow the head back: to stage it again would be a change that nobody
/// sees in them. What is staged of a merge stays with it.
fn is_committed(change: &ChangeRecord, verb: &str, concludes: bool) -> bool {
    change.family == Family::Workspaces && change.key.ends_with(b"/staged") && verb == "commit" && !concludes
}

/// What is staged and what of a merge is decided changes without the log's knowing, so it is in nobody's way.
fn is_fleeting(family: Family, key: &[u8]) -> bool {
    family == Family::Workspaces && (key.ends_with(b"/staged") || key.ends_with(b"/merging"))
}

fn ref_target(value: Option<&[u8]>) -> Result<Option<SnapshotId>, VersionError> {
    value.map(|value| RefRecord::of(Family::Refs, b"", value).map(|record| record.target)).transpose()
}

fn name_of(family: Family, key: &[u8]) -> String {
    match family {
        Family::Workspaces => format!("workspace {}", show_key(family, key)),
        Family::Experiments => format!("experiment {}", show_key(family, key)),
        _ => show_key(family, key),
    }
}

fn operation(number: u64, record: OperationRecord) -> Operation {
    let OperationRecord { time, who, workspace, verb, text, cause, changes } = record;
    let cause = match cause {
        Cause::Itself => OperationCause::Itself,
        Cause::Undoes(other) => OperationCause::Undoes(other),
        Cause::Redoes(other) => OperationCause::Redoes(other),
    };
    let changes = changes
        .into_iter()
        .map(|change| OperationChange {
            name: name_of(change.family, &change.key),
            before: change.before.map(|value| show_value(change.family, &value)),
            after: change.after.map(|value| show_value(change.family, &value)),
        })
        .collect();
    Operation { number, time, who, workspace, verb, text, cause, changes }
}

fn show_value(family: Family, value: &[u8]) -> String {
    let shown = match family {
        Family::Refs => RefRecord::decode(value).map(|record| record.target.to_string()).ok(),
        Family::Workspaces => WorkspaceRecord::decode(value).ok().map(|record| match record.head {
            HeadTarget::Branch(branch) => format!("on {branch}"),
            HeadTarget::Detached(id) => format!("at {id}"),
        }),
        _ => None,
    };
    shown.unwrap_or_else(|| "set".to_owned())
}
