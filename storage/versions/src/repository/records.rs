//! The records of a repository, and their encodings.
//!
//! Each value begins with the byte 0x01, its version; what has another one is refused. Numbers and byte strings are those of
//! trees and snapshots: LEB128 in its shortest form, and bytes behind their length. `id` is 32 bytes, `time` 8 bytes of
//! microseconds since 1970 (little endian, signed), `option X` the byte 0 or the byte 1 and X, `list X` a number and that many X,
//! `signature` a name, an address, a time and two bytes of minutes east of UTC, `map` a list of two texts, ascending.
//!
//! ```text
//! family       key                 value
//! refs         refs/heads/main     id, option (signature, text)                        the second: an annotated tag
//! snapshots    32 bytes            number, time                                        depth (a root has 1), committed when
//! workspaces   NAME                text, time, head                                    where it is, made when
//!              NAME/staged         id, id or nothing                                   a tree, the head's that it was made of
//!              NAME/merging        kind, option id, id, id, text, list unresolved      began at, other side, tree, message,
//!                                  signature or nothing                                its author
//! oplog        8 bytes, big endian time, text, text, text, text, cause, list change    who, workspace, verb, what
//! experiments  NAME                id, goal, state, time, map                          base
//!              NAME/VARIANT        text, time, number, option scored, option scored    branch, scores, best, last
//! settings     repository          number, text, durability, time                      format, first branch
//!              purged/ 32 bytes    8 bytes of time, without a version: that content was removed on purpose
//!
//! head         0 and a text (a branch) | 1 and an id (detached)
//! kind         0 merge | 1 cherry-pick | 2 revert
//! unresolved   bytes (path), option id (what stands there), three times option (mode, id): base, ours, theirs
//! cause        0 | 1 and a number (undoes that entry) | 2 and a number (redoes that one)
//! change       family, bytes (key), option bytes (before), option bytes (after)
//! goal         0 the highest score is best | 1 the lowest
//! state        0 open | 1, text and id (promoted: variant, snapshot) | 2 discarded
//! scored       id, 8 bytes (a float's bits), time, map
//! ```

mod forms;

#[cfg(feature = "testing")]
pub(crate) use forms::fuzz;

use std::collections::BTreeMap;

use bytes::Bytes;
use helix_objects::{Durability, Family};
use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use crate::codec::{Reader, Reason};
use crate::{BranchName, Signature, VersionError};

use super::names::{VariantName, WorkspaceName};

const VERSION: u8 = 1;

/// Something a record holds.
pub(crate) trait Record: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> Result<Self, Reason>;

    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(96);
        out.push(VERSION);
        self.write(&mut out);
        Bytes::from(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, Reason> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != [VERSION] {
            return Err("its version is not known");
        }
        let value = Self::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    /// Decodes a record's value and says which record it is where that fails.
    fn of(family: Family, key: &[u8], bytes: &[u8]) -> Result<Self, VersionError> {
        Self::decode(bytes).map_err(|reason| VersionError::DamagedRecord {
            family: family.name(),
            key: show_key(family, key),
            reason,
        })
    }
}

/// A key as people see it.
pub(crate) fn show_key(family: Family, key: &[u8]) -> String {
    match (family, <[u8; 8]>::try_from(key)) {
        (Family::Oplog, Ok(number)) => u64::from_be_bytes(number).to_string(),
        (Family::Snapshots | Family::GitMap, _) => key.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

/// What an annotated tag says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Who made it, and when.
    pub tagger: Signature,
    /// Why.
    pub message: String,
}

/// A ref: the snapshot it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefRecord {
    pub(crate) target: SnapshotId,
    pub(crate) annotation: Option<Annotation>,
}

/// What is known of a snapshot without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotRecord {
    /// Greater than every parent's.
    pub(crate) depth: u64,
    pub(crate) time: Timestamp,
}

/// What a workspace's head is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadTarget {
    /// A branch: a commit moves it.
    Branch(BranchName),
    /// A snapshot: a commit moves only this head.
    Detached(SnapshotId),
}

/// A workspace's head with the snapshot it is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// A branch or a snapshot.
    pub target: HeadTarget,
    /// `None` where the branch has no snapshot yet.
    pub snapshot: Option<SnapshotId>,
}

/// A workspace's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkspaceRecord {
    pub(crate) root: String,
    pub(crate) made: Timestamp,
    pub(crate) head: HeadTarget,
}

/// What is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The whole tree that the next commit is to have.
    pub tree: ObjectId,
    /// The head's tree that it was made of: what is staged is where the two differ. `None` in records from before this was noted.
    pub onto: Option<ObjectId>,
}

/// What kind of merge waits for its conflicts to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergingKind {
    /// Another line of work is merged.
    Merge,
    /// What one snapshot changed is repeated.
    CherryPick,
    /// What one snapshot changed is taken back.
    Revert,
}

impl MergingKind {
    /// The command that began it, and that gives it up with `--abort`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::CherryPick => "cherry-pick",
            Self::Revert => "revert",
        }
    }
}

/// A path of a merge that somebody must decide about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// From the root, as bytes.
    pub path: Vec<u8>,
    /// What the merged tree has there: for texts, both sides between conflict markers.
    pub stands: Option<ObjectId>,
    /// In the common ancestor.
    pub base: Option<(FileMode, ObjectId)>,
    /// On this side.
    pub ours: Option<(FileMode, ObjectId)>,
    /// On the other side.
    pub theirs: Option<(FileMode, ObjectId)>,
}

/// A merge that has begun and is not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merging {
    /// What it is.
    pub kind: MergingKind,
    /// Where the head was when it began: what giving it up goes back to.
    pub began: Option<SnapshotId>,
    /// The other side, or the snapshot that is picked or reverted.
    pub other: SnapshotId,
    /// What the merge made, conflict markers included.
    pub tree: ObjectId,
    /// The message its commit has where nobody gives another.
    pub message: String,
    /// What is not decided yet.
    pub unresolved: Vec<Unresolved>,
    /// The author its commit has: whoever made the snapshot that is picked.
    pub author: Option<Signature>,
}

impl Merging {
    /// The tree that a folder's files came of while the merge waits.
    pub(crate) fn folder_tree(&self, staged: Option<Staged>) -> ObjectId {
        staged.map_or(self.tree, |staged| staged.tree)
    }
}

/// Why an entry of the operation log was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Itself,
    Undoes(u64),
    Redoes(u64),
}

/// One record before and after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeRecord {
    pub(crate) family: Family,
    pub(crate) key: Bytes,
    pub(crate) before: Option<Bytes>,
    pub(crate) after: Option<Bytes>,
}

/// An entry of the operation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationRecord {
    pub(crate) time: Timestamp,
    pub(crate) who: String,
    pub(crate) workspace: String,
    pub(crate) verb: String,
    pub(crate) text: String,
    pub(crate) cause: Cause,
    pub(crate) changes: Vec<ChangeRecord>,
}

/// Which score is best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// The highest.
    #[default]
    Highest,
    /// The lowest.
    Lowest,
}

/// Where an experiment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExperimentState {
    /// Variants are made and scored.
    Open,
    /// One variant was taken.
    Promoted {
        /// Which.
        variant: VariantName,
        /// Its snapshot.
        snapshot: SnapshotId,
    },
    /// None was taken.
    Discarded,
}

/// A score that a snapshot of a variant was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Never NaN.
    pub value: f64,
    /// When it was given.
    pub time: Timestamp,
    /// Whatever else was measured.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExperimentRecord {
    pub(crate) base: SnapshotId,
    pub(crate) goal: Goal,
    pub(crate) state: ExperimentState,
    pub(crate) made: Timestamp,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VariantRecord {
    pub(crate) branch: BranchName,
    pub(crate) made: Timestamp,
    pub(crate) scores: u64,
    pub(crate) best: Option<Score>,
    pub(crate) last: Option<Score>,
}

/// The repository's own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepositoryRecord {
    pub(crate) format: u64,
    pub(crate) branch: BranchName,
    pub(crate) durability: Durability,
    pub(crate) made: Timestamp,
}

/// The keys of a workspace's records.
pub(crate) struct WorkspaceKeys<'a>(pub(crate) &'a WorkspaceName);

impl WorkspaceKeys<'_> {
    pub(crate) fn head(&self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_str().as_bytes())
    }

    pub(crate) fn staged(&self) -> Bytes {
        Bytes::from(format!("{}/staged", self.0))
    }

    pub(crate) fn merging(&self) -> Bytes {
        Bytes::from(format!("{}/merging", self.0))
    }
}

#[cfg(test)]
mod tests;
