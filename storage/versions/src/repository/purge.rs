//! What names a content: for who must remove it from everywhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use helix_objects::{Collect, Durability, Expect, Family, Kind, NewObject, PURGED, RecordChange, Swept};
use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use crate::read::{check_depth, entry_at, push_name, walk};
use crate::tree::Tree;
use crate::{VersionError, show_path};

use super::Repository;
use super::gc::{Root, RootKind};

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
    pub snapshots: Vec<(SnapshotId, Vec<Vec<u8>>)>,
    /// As `snapshots`, for what is staged and for merges that are not concluded: the record that has it, and where.
    pub staged: Vec<(String, Vec<Vec<u8>>)>,
}

impl Repository {
    /// Which files a purge removes, and which snapshots have them. Changes nothing.
    pub fn plan_purge(&self, target: &PurgeTarget) -> Result<PurgePlan, VersionError> {
        let (snapshots, staged) = (self.all_snapshots()?, self.staged_trees()?);
        let trees = snapshots.iter().map(|(_, tree)| *tree).chain(staged.iter().map(|(_, tree)| *tree));
        let objects = match target {
            PurgeTarget::Object(id) => HashSet::from([*id]),
            PurgeTarget::Path(path) => self.ever_at(trees, path)?,
        };
        let mut search = Search { repository: self, wanted: &objects, found: HashMap::new() };
        let mut plan = PurgePlan::default();
        for (id, tree) in &snapshots {
            plan.snapshots.extend(search.paths_of(*tree)?.map(|paths| (*id, paths)));
        }
        for (by, tree) in staged {
            let Some(paths) = search.paths_of(tree)? else { continue };
            match plan.staged.iter_mut().find(|(known, _)| *known == by) {
                Some((_, known)) => {
                    known.extend(paths);
                    known.sort_unstable();
                    known.dedup();
                }
                None => plan.staged.push((by, paths)),
            }
        }
        if let PurgeTarget::Object(id) = target {
            let is_more = search.found.contains_key(id) || snapshots.iter().any(|(snapshot, _)| snapshot.0 == *id);
            self.refuse_no_file(*id, is_more, &plan)?;
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

    /// Removes contents from `store`, which is the one underneath this repository, and remembers that it was meant, so that a check
    /// does not call it damage. Nobody else writes meanwhile.
    pub fn purge(&self, store: &dyn Collect, objects: &[ObjectId], now: Timestamp) -> Result<Swept, VersionError> {
        let mut turn = self.writer();
        let value = Bytes::copy_from_slice(&now.0.to_le_bytes());
        let changes: Vec<RecordChange> = objects.iter().map(|id| purged_record(*id, Some(value.clone()))).collect();
        // First: whatever happens then, it is known that it was meant.
        self.store().commit(&[], &changes, Durability::Group)?;
        *self.inner.purged.lock() = None;
        // Nobody reads before the turn ends.
        turn.live.forget_contents();
        Ok(store.purge(objects)?)
    }

    /// What forgets, in the batch that stores `objects`, that some of them were removed once.
    pub(super) fn no_longer_purged(&self, objects: &[NewObject]) -> Result<Vec<RecordChange>, VersionError> {
        let mut known = self.inner.purged.lock();
        let purged = match &mut *known {
            Some(purged) => purged,
            None => known.insert(self.store().purged()?),
        };
        let back = objects.iter().map(NewObject::id).filter(|id| purged.contains(id));
        Ok(back.map(|id| purged_record(id, None)).collect())
    }

    /// Forgets that contents were removed that are back by another way than a change's batch.
    pub(super) fn forget_returned(&self) -> Result<(), VersionError> {
        let _turn = self.writer();
        let purged: Vec<ObjectId> = self.store().purged()?.into_iter().collect();
        let missing: HashSet<ObjectId> = self.store().missing(&purged)?.into_iter().collect();
        let back: Vec<RecordChange> = purged.iter().filter(|id| !missing.contains(id)).map(|id| purged_record(*id, None)).collect();
        if !back.is_empty() {
            self.store().commit(&[], &back, Durability::NoSync)?;
        }
        Ok(())
    }

    /// A purge of something that is no file, or that nobody has, is refused.
    fn refuse_no_file(&self, id: ObjectId, is_more: bool, plan: &PurgePlan) -> Result<(), VersionError> {
        if is_more {
            return Err(VersionError::Refused {
                message: format!("{} is a folder or a snapshot, and others may need what is in it", id.short()),
                hint: "name a path, or the object of a file: `helios ls-files --stage` lists them",
            });
        }
        if plan.snapshots.is_empty() && plan.staged.is_empty() && !self.store().missing(&[id])?.is_empty() {
            return Err(VersionError::Unknown { kind: "object", name: id.to_string(), nearest: None });
        }
        Ok(())
    }

    /// The contents that were removed on purpose, with when.
    pub fn purged(&self) -> Result<BTreeMap<ObjectId, Timestamp>, VersionError> {
        let mut purged = BTreeMap::new();
        self.each_record(Family::Settings, PURGED, |key, value| {
            if let (Ok(id), Ok(time)) = (key[PURGED.len()..].try_into(), value.as_ref().try_into()) {
                purged.insert(ObjectId(id), Timestamp(i64::from_le_bytes(time)));
            }
            Ok(())
        })?;
        Ok(purged)
    }

    /// Every snapshot that is kept, with its tree.
    pub(super) fn all_snapshots(&self) -> Result<Vec<(SnapshotId, ObjectId)>, VersionError> {
        let mut heads = self.roots(None)?;
        heads.retain(|root| matches!(root.is, RootKind::Snapshot(_)));
        let mut ids = Vec::new();
        self.mark(&heads, |alive| {
            if alive.kind == Kind::Snapshot {
                ids.push(SnapshotId(alive.id));
            }
        })?;
        ids.into_iter().map(|id| Ok((id, self.tree(id)?))).collect()
    }

    /// What is staged, and what merges are to give, with the records that have it.
    pub(super) fn staged_trees(&self) -> Result<Vec<(String, ObjectId)>, VersionError> {
        let is_tree = |root: Root| match root.is {
            RootKind::Tree(tree) if tree != self.empty_tree() => Some((root.by, tree)),
            _ => None,
        };
        Ok(self.roots(None)?.into_iter().filter_map(is_tree).collect())
    }

    fn ever_at(&self, trees: impl Iterator<Item = ObjectId>, path: &[u8]) -> Result<HashSet<ObjectId>, VersionError> {
        let store = &**self.store();
        let (mut objects, mut folders) = (HashSet::new(), HashSet::new());
        for tree in trees {
            match entry_at(store, tree, path)? {
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

fn purged_record(id: ObjectId, value: Option<Bytes>) -> RecordChange {
    let key = Bytes::from([PURGED, &id.0].concat());
    RecordChange { family: Family::Settings, key, expect: Expect::Anything, value }
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

    /// Where a tree has what is looked for; `None` where it has none of it.
    fn paths_of(&mut self, tree: ObjectId) -> Result<Option<Vec<Vec<u8>>>, VersionError> {
        if !self.has(tree, 0)? {
            return Ok(None);
        }
        let mut paths = Vec::new();
        self.paths(tree, &mut Vec::new(), &mut paths)?;
        Ok(Some(paths))
    }

    /// The paths of a tree that was looked through.
    fn paths(&self, id: ObjectId, path: &mut Vec<u8>, paths: &mut Vec<Vec<u8>>) -> Result<(), VersionError> {
        for entry in Tree::load(&**self.repository.store(), id)?.entries() {
            let length = push_name(path, &entry.name);
            match entry.mode {
                FileMode::Directory if self.found.get(&entry.id) == Some(&true) => self.paths(entry.id, path, paths)?,
                FileMode::Directory => {}
                _ if self.wanted.contains(&entry.id) => paths.push(path.clone()),
                _ => {}
            }
            path.truncate(length);
        }
        Ok(())
    }
}
