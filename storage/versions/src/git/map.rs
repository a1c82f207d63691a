//! The git map: what was imported and exported, and what of it a tree or snapshot of ours cannot say.
//!
//! Most of a git repository follows from ours: a blob's id from the file's bytes, a canonical tree from our tree, an ordinary
//! commit from its snapshot. The map has a row for each commit (so that the next import stops there) and for each object that
//! does not follow: a commit kept as it stands, a tree with what our tree leaves out, a tag, a blob that no tree names.
//!
//! All of it hangs on one snapshot, which the record `head` of [`Family::GitMap`] names: its parents are what git's refs named
//! (so that imported history stays as long as the map does), its tree holds the rows in segments, the refs as they were last
//! seen in git, and objects that nothing else would keep. So collecting garbage needs to know nothing about git but this root,
//! and the map changes from one state to the next in the one batch that changes the refs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::objs::Kind;
use helix_objects::{Family, NewObject, RecordStore};
use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use super::commit_text::tag_target;
use super::segment::{Row, Segment};
use crate::{Signature, Snapshot, Tree, TreeEntry, VersionError};

/// The record's key, and its value's first byte.
const KEY: &[u8] = b"head";
const FORMAT: u8 = 1;
const REFS: &[u8] = b"refs";
/// Rows are put into segments of about this many bytes; smaller segments are put together later.
pub(super) const SEGMENT_BYTES: usize = 8 << 20;

/// Where a git ref pointed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GitTarget {
    Object(GitId),
    /// Another ref's full name.
    Ref(Vec<u8>),
}

/// Git's refs by full name, `HEAD` among them.
pub(super) type GitRefs = BTreeMap<Vec<u8>, GitTarget>;

/// What is known about git objects. See the module.
#[derive(Clone, Debug, Default)]
pub struct GitMap {
    /// The record's value.
    found: Option<Bytes>,
    segments: Vec<Segment>,
    pub(super) refs: GitRefs,
    kept: BTreeMap<Vec<u8>, TreeEntry>,
    tips: BTreeSet<SnapshotId>,
}

impl GitMap {
    /// The map of a store; an empty one where nothing was imported or exported yet.
    pub fn load(store: &dyn RecordStore) -> Result<Self, VersionError> {
        let Some(value) = store.record(Family::GitMap, KEY)? else { return Ok(Self::default()) };
        let id = root_of(&value)?;
        let snapshot = Snapshot::load(store, id)?;
        let mut map = Self { found: Some(value), tips: snapshot.parents.into_iter().collect(), ..Self::default() };
        for entry in Tree::load(store, snapshot.tree)?.entries() {
            if entry.name.starts_with(b"map-") {
                map.segments.push(Segment::decode(entry.id, store.read(entry.id)?)?);
            } else if entry.name == REFS {
                let damaged = |reason| VersionError::Damaged { id: entry.id, expected: "list of git refs", reason };
                map.refs = read_refs(&store.read(entry.id)?).map_err(damaged)?;
            } else {
                map.kept.insert(entry.name.clone(), entry.clone());
            }
        }
        Ok(map)
    }

    /// The snapshot of a git commit, given in hexadecimal.
    pub fn snapshot_of(&self, commit: &str) -> Option<SnapshotId> {
        let row = self.find(GitId::from_hex(commit.as_bytes()).ok()?)?;
        (row.kind == Kind::Commit).then_some(SnapshotId(row.ours))
    }

    /// The snapshots of git commits whose ids begin with these lowercase hexadecimal digits, and of commits
    /// that such a tag leads to.
    pub fn snapshots_like(&self, digits: &str) -> BTreeSet<SnapshotId> {
        let found = self.segments.iter().flat_map(|segment| segment.starting_with(digits));
        let peeled = found.filter_map(|row| if row.kind == Kind::Tag { self.peel(row.git) } else { Some(row) });
        peeled.filter(|row| row.kind == Kind::Commit).map(|row| SnapshotId(row.ours)).collect()
    }

    /// The git commit of a snapshot in hexadecimal, where it was imported or exported.
    pub fn commit_of(&self, snapshot: SnapshotId) -> Option<String> {
        self.commit(snapshot).map(|row| row.git.to_string())
    }

    /// How many git objects have a row.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Whether nothing was imported or exported yet.
    pub fn is_empty(&self) -> bool {
        self.found.is_none()
    }

    pub(super) fn find(&self, git: GitId) -> Option<Row> {
        self.segments.iter().rev().find_map(|segment| segment.find(git))
    }

    pub(super) fn commit(&self, snapshot: SnapshotId) -> Option<Row> {
        let mut found = self.segments.iter().rev().flat_map(|segment| segment.find_ours(snapshot.0));
        found.find(|row| row.kind == Kind::Commit)
    }

    /// The row of what an object leads to behind its tags.
    pub(super) fn peel(&self, id: GitId) -> Option<Row> {
        let row = self.find(id)?;
        match (row.kind, row.extra.as_deref().and_then(tag_target)) {
            (Kind::Tag, Some(target)) => self.peel(target),
            _ => Some(row),
        }
    }

    /// Whether a snapshot is kept for itself.
    pub(super) fn keeps(&self, snapshot: SnapshotId) -> bool {
        self.tips.contains(&snapshot)
    }

    /// The state after this one: objects and the change of the record, for the batch that changes the refs.
    pub(super) fn next(mut self, changes: MapChanges) -> Result<NextMap, VersionError> {
        let mut rows = changes.rows;
        // Small segments are put together, so that there are few of them however often something is added.
        while self.segments.last().is_some_and(|last| last.bytes() < SEGMENT_BYTES && last.len() <= rows.len() * 2) {
            rows.extend(self.segments.pop().expect("there is a last one").rows());
        }
        let mut objects = Vec::new();
        let mut entries: Vec<TreeEntry> = self.kept.into_values().collect();
        entries.extend(changes.kept.into_iter().map(|(name, entry)| TreeEntry { name, ..entry }));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        let made = (!rows.is_empty()).then(|| Segment::new(rows));
        for (place, segment) in self.segments.iter().chain(&changes.segments).chain(&made).enumerate() {
            let object = segment.encode();
            entries.push(file(format!("map-{place:06}").into_bytes(), &object));
            objects.push(object);
        }
        let refs = NewObject::new(Bytes::from(write_refs(&changes.refs)));
        entries.push(file(REFS.to_vec(), &refs));
        let tree = Tree::new(entries)?.encode();
        let tips: BTreeSet<SnapshotId> =
            self.tips.union(&changes.tips).filter(|tip| !changes.covered.contains(tip)).copied().collect();
        let nobody = Signature { name: "helios".into(), email: String::new(), time: Timestamp(0), offset_minutes: 0 };
        let snapshot = Snapshot {
            tree: tree.id(),
            parents: tips.into_iter().collect(),
            author: nobody.clone(),
            committer: nobody,
            message: "what is known about git objects\n".into(),
            metadata: BTreeMap::new(),
        };
        let snapshot = snapshot.encode();
        let value = [&[FORMAT][..], &snapshot.id().0].concat();
        objects.extend([refs, tree, snapshot]);
        Ok(NextMap { objects, family: Family::GitMap, key: Bytes::from_static(KEY), before: self.found, value: Bytes::from(value) })
    }
}

/// The next state of a map, to be written.
pub(super) struct NextMap {
    pub(super) objects: Vec<NewObject>,
    pub(super) family: Family,
    pub(super) key: Bytes,
    /// What the record must be: somebody else may have changed the map meanwhile.
    pub(super) before: Option<Bytes>,
    pub(super) value: Bytes,
}

/// What an import or an export adds.
#[derive(Debug, Default)]
pub(super) struct MapChanges {
    pub(super) rows: Vec<Row>,
    /// Rows that are in the store already.
    pub(super) segments: Vec<Segment>,
    /// Git's refs as they are now.
    pub(super) refs: GitRefs,
    /// Objects that no snapshot names, by the name they are kept under.
    pub(super) kept: BTreeMap<Vec<u8>, TreeEntry>,
    /// Snapshots to keep.
    pub(super) tips: BTreeSet<SnapshotId>,
    /// Snapshots that are ancestors of the tips, so that they need not be kept for themselves.
    pub(super) covered: BTreeSet<SnapshotId>,
}

impl MapChanges {
    /// Whether anything differs from the map as it is.
    pub(super) fn differs(&self, map: &GitMap) -> bool {
        !self.rows.is_empty() || !self.segments.is_empty() || !self.kept.is_empty() || self.refs != map.refs
    }

    /// Keeps an object that no snapshot names.
    pub(super) fn keep(&mut self, git: GitId, mode: FileMode, size: u64, ours: ObjectId) {
        let name = format!("keep-{git}").into_bytes();
        self.kept.insert(name.clone(), TreeEntry { name, mode, size, id: ours });
    }
}

/// The snapshot that keeps a store's git map with everything it names.
#[cfg(test)]
pub(super) fn map_root(store: &dyn RecordStore) -> Result<Option<SnapshotId>, VersionError> {
    store.record(Family::GitMap, KEY)?.map(|value| root_of(&value)).transpose()
}

fn root_of(value: &[u8]) -> Result<SnapshotId, VersionError> {
    match value.split_first() {
        Some((&FORMAT, id)) if id.len() == 32 => Ok(SnapshotId(ObjectId(id.try_into().expect("its length was looked at")))),
        Some((&format, _)) if format > FORMAT => {
            Err(VersionError::NewerFormat { found: u64::from(format), known: u64::from(FORMAT) })
        }
        _ => Err(VersionError::DamagedRecord {
            family: Family::GitMap.name(),
            key: "head".to_owned(),
            reason: "it is no snapshot's id",
        }),
    }
}

fn file(name: Vec<u8>, object: &NewObject) -> TreeEntry {
    TreeEntry { name, mode: FileMode::Regular, size: object.bytes().len() as u64, id: object.id() }
}

/// One line per ref: an id, or `@` and another ref's name; a space; the name.
fn write_refs(refs: &GitRefs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, target) in refs {
        match target {
            GitTarget::Object(id) => out.extend_from_slice(id.to_string().as_bytes()),
            GitTarget::Ref(other) => {
                out.push(b'@');
                out.extend_from_slice(other);
            }
        }
        out.push(b' ');
        out.extend_from_slice(name);
        out.push(b'\n');
    }
    out
}

fn read_refs(text: &[u8]) -> Result<GitRefs, &'static str> {
    let mut refs = GitRefs::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let space = line.iter().position(|byte| *byte == b' ').ok_or("a line has no name")?;
        let (target, name) = (&line[..space], &line[space + 1..]);
        let target = match target.strip_prefix(b"@") {
            Some(other) => GitTarget::Ref(other.to_vec()),
            None => GitTarget::Object(GitId::from_hex(target).map_err(|_| "a line has no id")?),
        };
        refs.insert(name.to_vec(), target);
    }
    Ok(refs)
}
