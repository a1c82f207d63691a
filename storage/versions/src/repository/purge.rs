//! What names a content: for who must remove it from everywhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, RecordChange};
use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use crate::read::{check_depth, entry_at, push_name, walk};
use crate::tree::Tree;
use crate::{VersionError, show_path};

use super::Repository;
use super::gc::{ObjectKind, RootKind};

/// Where it is remembered that a content was removed on purpose.
const PURGED: &str = "purged/";

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// One file, wherever it is.
    Object(ObjectId),
    /// Whatever was ever at a path, or beneath it.
    Path(Vec<u8>),
}

/// What names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgePlan {
    /// The files to remove from the store.
    pub objects: Vec<ObjectId>,
    /// The snapshots that have them, each with the paths where it has them. They stay; those paths cannot be read any more.
    pub snapshots: Vec<(SnapshotId, Vec<String>)>,
}

impl Repository {
    /// Which files a purge removes, and which snapshots have them. Changes nothing.
    pub fn plan_purge(&self, target: &PurgeTarget) -> Result<PurgePlan, VersionError> {
        let snapshots = self.all_snapshots()?;
        let objects = match target {
            PurgeTarget::Object(id) => HashSet::from([*id]),
            PurgeTarget::Path(path) => self.ever_at(&snapshots, path)?,
        };
        let mut search = Search { repository: self, wanted: &objects, found: HashMap::new() };
        let mut plan = PurgePlan::default();
        for (id, tree) in snapshots {
            if search.has(tree, 0)? {
                let mut paths = Vec::new();
                search.paths(tree, &mut Vec::new(), &mut paths)?;
                plan.snapshots.push((id, paths));
            }
        }
        plan.objects = objects.into_iter().collect();
        plan.objects.sort_unstable();
        Ok(plan)
    }

    /// The records from which an object (a file, a folder, a snapshot) is reached.
    pub fn reached_from(&self, id: ObjectId) -> Result<Vec<String>, VersionError> {
        let wanted = HashSet::from([id]);
        let mut search = Search { repository: self, wanted: &wanted, found: HashMap::new() };
        let mut reaches: HashSet<SnapshotId> = HashSet::new();
        let mut by_depth = Vec::new();
        for (snapshot, tree) in self.all_snapshots()? {
            by_depth.push((self.depth(snapshot)?, snapshot, tree));
        }
        // Parents first: what they reach, their children reach.
        by_depth.sort_unstable();
        for (_, snapshot, tree) in by_depth {
            let inherited = self.snapshot(snapshot)?.parents.iter().any(|parent| reaches.contains(parent));
            if inherited || snapshot.0 == id || search.has(tree, 0)? {
                reaches.insert(snapshot);
            }
        }
        let mut found = Vec::new();
        for root in self.roots(None)? {
            let reached = match root.is {
                RootKind::Snapshot(snapshot) => reaches.contains(&snapshot),
                RootKind::Tree(tree) => search.has(tree, 0)?,
                RootKind::File(file) => file == id,
            };
            if reached && found.last() != Some(&root.by) {
                found.push(root.by);
            }
        }
        Ok(found)
    }

    /// Remembers that contents were removed on purpose, so that a check does not call it damage.
    pub fn remember_purged(&self, objects: &[ObjectId], now: Timestamp) -> Result<(), VersionError> {
        let change = |id: &ObjectId| {
            let key = Bytes::from([PURGED.as_bytes(), &id.0].concat());
            RecordChange {
                family: Family::Settings,
                key,
                expect: Expect::Anything,
                value: Some(now.0.to_le_bytes().to_vec().into()),
            }
        };
        let changes: Vec<RecordChange> = objects.iter().map(change).collect();
        self.store().commit(&[], &changes, Durability::Group)?;
        Ok(())
    }

    /// The contents that were removed on purpose, with when.
    pub fn purged(&self) -> Result<BTreeMap<ObjectId, Timestamp>, VersionError> {
        let mut purged = BTreeMap::new();
        self.each_record(Family::Settings, PURGED.as_bytes(), |key, value| {
            if let (Ok(id), Ok(time)) = (key[PURGED.len()..].try_into(), value.as_ref().try_into()) {
                purged.insert(ObjectId(id), Timestamp(i64::from_le_bytes(time)));
            }
            Ok(())
        })?;
        Ok(purged)
    }

    /// Every snapshot that is kept, with its tree.
    fn all_snapshots(&self) -> Result<Vec<(SnapshotId, ObjectId)>, VersionError> {
        let mut heads = self.roots(None)?;
        heads.retain(|root| matches!(root.is, RootKind::Snapshot(_)));
        let mut ids = Vec::new();
        self.mark(&heads, |alive| {
            if alive.kind == ObjectKind::Snapshot {
                ids.push(SnapshotId(alive.id));
            }
        })?;
        ids.into_iter().map(|id| Ok((id, self.tree(id)?))).collect()
    }

    fn ever_at(&self, snapshots: &[(SnapshotId, ObjectId)], path: &[u8]) -> Result<HashSet<ObjectId>, VersionError> {
        let store = &**self.store();
        let (mut objects, mut folders) = (HashSet::new(), HashSet::new());
        for (_, tree) in snapshots {
            match entry_at(store, *tree, path)? {
                Some(entry) if entry.mode == FileMode::Directory => {
                    if folders.insert(entry.id) {
                        let files = walk(store, entry.id)?.into_iter().filter(|entry| entry.mode != FileMode::Directory);
                        objects.extend(files.map(|entry| entry.id));
                    }
                }
                entry => objects.extend(entry.map(|entry| entry.id)),
            }
        }
        match objects.is_empty() {
            true => Err(VersionError::Unknown { kind: "path in any snapshot", name: show_path(path), nearest: None }),
            false => Ok(objects),
        }
    }
}

/// Looks for files in trees, each folder once.
struct Search<'a> {
    repository: &'a Repository,
    wanted: &'a HashSet<ObjectId>,
    found: HashMap<ObjectId, bool>,
}

impl Search<'_> {
    fn has(&mut self, id: ObjectId, depth: usize) -> Result<bool, VersionError> {
        if let Some(found) = self.found.get(&id) {
            return Ok(*found);
        }
        check_depth(id, depth)?;
        let mut found = self.wanted.contains(&id);
        for entry in Tree::load(&**self.repository.store(), id)?.entries() {
            found |= match entry.mode {
                FileMode::Directory => self.has(entry.id, depth + 1)?,
                _ => self.wanted.contains(&entry.id),
            };
        }
        self.found.insert(id, found);
        Ok(found)
    }

    /// The paths of a tree that was looked through.
    fn paths(&self, id: ObjectId, path: &mut Vec<u8>, paths: &mut Vec<String>) -> Result<(), VersionError> {
        for entry in Tree::load(&**self.repository.store(), id)?.entries() {
            let length = push_name(path, &entry.name);
            match entry.mode {
                FileMode::Directory if self.found.get(&entry.id) == Some(&true) => self.paths(entry.id, path, paths)?,
                FileMode::Directory => {}
                _ if self.wanted.contains(&entry.id) => paths.push(show_path(path)),
                _ => {}
            }
            path.truncate(length);
        }
        Ok(())
    }
}
