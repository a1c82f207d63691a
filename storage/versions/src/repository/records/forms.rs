//! How each record is written and read.

use std::collections::BTreeMap;

use bytes::Bytes;
use helix_objects::{Durability, Family};
use helix_protocol::{FileMode, SnapshotId, Timestamp};

use crate::codec::{Reader, Reason, put_bytes, put_number};
use crate::{BranchName, Signature};

use super::{
    Annotation, Cause, ChangeRecord, ExperimentRecord, ExperimentState, Goal, HeadTarget, Merging, MergingKind, OperationRecord,
    Record, RefRecord, RepositoryRecord, Score, SnapshotRecord, Staged, Unresolved, VariantRecord, WorkspaceRecord,
};

impl Record for RefRecord {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.target.0.0);
        put_option(out, self.annotation.as_ref(), |out, annotation| {
            put_signature(out, &annotation.tagger);
            put_bytes(out, annotation.message.as_bytes());
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let target = reader.id().map(SnapshotId)?;
        let annotation = option(reader, |reader| Ok(Annotation { tagger: signature(reader)?, message: reader.text()? }))?;
        Ok(Self { target, annotation })
    }
}

impl Record for SnapshotRecord {
    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.depth);
        put_time(out, self.time);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        Ok(Self { depth: reader.number()?, time: time(reader)? })
    }
}

impl Record for WorkspaceRecord {
    fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.root.as_bytes());
        put_time(out, self.made);
        match &self.head {
            HeadTarget::Branch(branch) => {
                out.push(0);
                put_bytes(out, branch.as_str().as_bytes());
            }
            HeadTarget::Detached(id) => {
                out.push(1);
                out.extend_from_slice(&id.0.0);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let (root, made) = (reader.text()?, time(reader)?);
        let head = match reader.array()? {
            [0] => HeadTarget::Branch(branch(reader)?),
            [1] => HeadTarget::Detached(reader.id().map(SnapshotId)?),
            _ => return Err("its head is of an unknown kind"),
        };
        Ok(Self { root, made, head })
    }
}

impl Record for Staged {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tree.0);
        if let Some(onto) = self.onto {
            out.extend_from_slice(&onto.0);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let tree = reader.id()?;
        let onto = if reader.remaining() > 0 { Some(reader.id()?) } else { None };
        Ok(Self { tree, onto })
    }
}

impl Record for Merging {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self.kind {
            MergingKind::Merge => 0,
            MergingKind::CherryPick => 1,
            MergingKind::Revert => 2,
        });
        put_option(out, self.began.as_ref(), |out, id| out.extend_from_slice(&id.0.0));
        out.extend_from_slice(&self.other.0.0);
        out.extend_from_slice(&self.tree.0);
        put_bytes(out, self.message.as_bytes());
        put_list(out, &self.unresolved, |out, path| {
            put_bytes(out, &path.path);
            put_option(out, path.stands.as_ref(), |out, id| out.extend_from_slice(&id.0));
            for side in [&path.base, &path.ours, &path.theirs] {
                put_option(out, side.as_ref(), |out, (mode, id)| {
                    out.push(mode_number(*mode));
                    out.extend_from_slice(&id.0);
                });
            }
        });
        // Records from before it was noted end here.
        if let Some(author) = &self.author {
            put_signature(out, author);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let kind = match reader.array()? {
            [0] => MergingKind::Merge,
            [1] => MergingKind::CherryPick,
            [2] => MergingKind::Revert,
            _ => return Err("the merge is of an unknown kind"),
        };
        let began = option(reader, |reader| reader.id().map(SnapshotId))?;
        let (other, tree, message) = (reader.id().map(SnapshotId)?, reader.id()?, reader.text()?);
        let side = |reader: &mut Reader<'_>| option(reader, |reader| Ok((mode(reader)?, reader.id()?)));
        let unresolved = list(reader, |reader| {
            let (path, stands) = (reader.bytes()?.to_vec(), option(reader, |reader| reader.id())?);
            Ok(Unresolved { path, stands, base: side(reader)?, ours: side(reader)?, theirs: side(reader)? })
        })?;
        let author = if reader.remaining() > 0 { Some(signature(reader)?) } else { None };
        Ok(Self { kind, began, other, tree, message, unresolved, author })
    }
}

impl Record for OperationRecord {
    fn write(&self, out: &mut Vec<u8>) {
        put_time(out, self.time);
        for text in [&self.who, &self.workspace, &self.verb, &self.text] {
            put_bytes(out, text.as_bytes());
        }
        match self.cause {
            Cause::Itself => out.push(0),
            Cause::Undoes(number) => {
                out.push(1);
                put_number(out, number);
            }
            Cause::Redoes(number) => {
                out.push(2);
                put_number(out, number);
            }
        }
        put_list(out, &self.changes, |out, change| {
            out.push(family_number(change.family));
            put_bytes(out, &change.key);
            for value in [&change.before, &change.after] {
                put_option(out, value.as_ref(), |out, value| put_bytes(out, value));
            }
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let time = time(reader)?;
        let (who, workspace, verb, text) = (reader.text()?, reader.text()?, reader.text()?, reader.text()?);
        let cause = match reader.array()? {
            [0] => Cause::Itself,
            [1] => Cause::Undoes(reader.number()?),
            [2] => Cause::Redoes(reader.number()?),
            _ => return Err("its cause is of an unknown kind"),
        };
        let value = |reader: &mut Reader<'_>| option(reader, |reader| reader.bytes().map(Bytes::copy_from_slice));
        let changes = list(reader, |reader| {
            let [number] = reader.array()?;
            let family = Family::ALL.into_iter().find(|family| family_number(*family) == number).ok_or("a family is unknown")?;
            let key = Bytes::copy_from_slice(reader.bytes()?);
            Ok(ChangeRecord { family, key, before: value(reader)?, after: value(reader)? })
        })?;
        Ok(Self { time, who, workspace, verb, text, cause, changes })
    }
}

impl Record for ExperimentRecord {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base.0.0);
        out.push(u8::from(self.goal == Goal::Lowest));
        match &self.state {
            ExperimentState::Open => out.push(0),
            ExperimentState::Promoted { variant, snapshot } => {
                out.push(1);
                put_bytes(out, variant.as_str().as_bytes());
                out.extend_from_slice(&snapshot.0.0);
            }
            ExperimentState::Discarded => out.push(2),
        }
        put_time(out, self.made);
        put_map(out, &self.metadata);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let base = reader.id().map(SnapshotId)?;
        let goal = match reader.array()? {
            [0] => Goal::Highest,
            [1] => Goal::Lowest,
            _ => return Err("its goal is unknown"),
        };
        let state = match reader.array()? {
            [0] => ExperimentState::Open,
            [1] => {
                let variant = reader.text()?.parse().map_err(|_| "a variant has no proper name")?;
                ExperimentState::Promoted { variant, snapshot: reader.id().map(SnapshotId)? }
            }
            [2] => ExperimentState::Discarded,
            _ => return Err("its state is unknown"),
        };
        Ok(Self { base, goal, state, made: time(reader)?, metadata: map(reader)? })
    }
}

impl Record for VariantRecord {
    fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.branch.as_str().as_bytes());
        put_time(out, self.made);
        put_number(out, self.scores);
        for score in [&self.best, &self.last] {
            put_option(out, score.as_ref(), |out, score| {
                out.extend_from_slice(&score.snapshot.0.0);
                out.extend_from_slice(&score.value.to_bits().to_le_bytes());
                put_time(out, score.time);
                put_map(out, &score.metadata);
            });
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let (branch, made, scores) = (branch(reader)?, time(reader)?, reader.number()?);
        let score = |reader: &mut Reader<'_>| {
            option(reader, |reader| {
                let (snapshot, value) = (reader.id().map(SnapshotId)?, f64::from_bits(u64::from_le_bytes(reader.array()?)));
                if value.is_nan() {
                    return Err("a score is not a number");
                }
                Ok(Score { snapshot, value, time: time(reader)?, metadata: map(reader)? })
            })
        };
        Ok(Self { branch, made, scores, best: score(reader)?, last: score(reader)? })
    }
}

impl Record for RepositoryRecord {
    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.format);
        put_bytes(out, self.branch.as_str().as_bytes());
        out.push(match self.durability {
            Durability::NoSync => 0,
            Durability::Group => 1,
            Durability::Sync => 2,
        });
        put_time(out, self.made);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let (format, branch) = (reader.number()?, branch(reader)?);
        let durability = match reader.array()? {
            [0] => Durability::NoSync,
            [1] => Durability::Group,
            [2] => Durability::Sync,
            _ => return Err("its durability is unknown"),
        };
        Ok(Self { format, branch, durability, made: time(reader)? })
    }
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::Refs => 0,
        Family::Oplog => 1,
        Family::Workspaces => 2,
        Family::Experiments => 3,
        Family::GitMap => 4,
        Family::Settings => 5,
        Family::Snapshots => 6,
    }
}

fn mode_number(mode: FileMode) -> u8 {
    match mode {
        FileMode::Regular => 0,
        FileMode::Executable => 1,
        FileMode::Symlink => 2,
        FileMode::Directory => 3,
    }
}

fn mode(reader: &mut Reader<'_>) -> Result<FileMode, Reason> {
    let modes = [FileMode::Regular, FileMode::Executable, FileMode::Symlink, FileMode::Directory];
    let [number] = reader.array()?;
    modes.get(usize::from(number)).copied().ok_or("a mode is unknown")
}

fn branch(reader: &mut Reader<'_>) -> Result<BranchName, Reason> {
    reader.text()?.parse().map_err(|_| "a branch has no proper name")
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.0.to_le_bytes());
}

fn time(reader: &mut Reader<'_>) -> Result<Timestamp, Reason> {
    Ok(Timestamp(i64::from_le_bytes(reader.array()?)))
}

fn put_signature(out: &mut Vec<u8>, signature: &Signature) {
    put_bytes(out, signature.name.as_bytes());
    put_bytes(out, signature.email.as_bytes());
    put_time(out, signature.time);
    out.extend_from_slice(&signature.offset_minutes.to_le_bytes());
}

fn signature(reader: &mut Reader<'_>) -> Result<Signature, Reason> {
    let (name, email, time) = (reader.text()?, reader.text()?, time(reader)?);
    Ok(Signature { name, email, time, offset_minutes: i16::from_le_bytes(reader.array()?) })
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn option<T>(reader: &mut Reader<'_>, read: impl FnOnce(&mut Reader<'_>) -> Result<T, Reason>) -> Result<Option<T>, Reason> {
    match reader.array()? {
        [0] => Ok(None),
        [1] => read(reader).map(Some),
        _ => Err("something is neither there nor absent"),
    }
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    put_number(out, items.len() as u64);
    for item in items {
        put(out, item);
    }
}

fn list<T>(reader: &mut Reader<'_>, mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Reason>) -> Result<Vec<T>, Reason> {
    // Grown as it is read: a count that is not true takes no memory.
    let count = reader.number()?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(reader)?);
    }
    Ok(items)
}

fn put_map(out: &mut Vec<u8>, map: &BTreeMap<String, String>) {
    put_number(out, map.len() as u64);
    for (key, value) in map {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn map(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, Reason> {
    let mut map = BTreeMap::<String, String>::new();
    for _ in 0..reader.number()? {
        let key = reader.text()?;
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err("a map is not in order");
        }
        map.insert(key, reader.text()?);
    }
    Ok(map)
}

/// Reads bytes as each kind of record; what is read is the one encoding of what it says.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    fn one<R: Record>(bytes: &[u8]) {
        if let Ok(record) = R::decode(bytes) {
            assert_eq!(record.encode().as_ref(), bytes);
        }
    }
    one::<RefRecord>(bytes);
    one::<SnapshotRecord>(bytes);
    one::<WorkspaceRecord>(bytes);
    one::<Staged>(bytes);
    one::<Merging>(bytes);
    one::<OperationRecord>(bytes);
    one::<ExperimentRecord>(bytes);
    one::<VariantRecord>(bytes);
    one::<RepositoryRecord>(bytes);
}
