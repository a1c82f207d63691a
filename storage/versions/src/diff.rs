//! What differs between two trees.

use std::cmp::Ordering;
use std::collections::HashSet;

use helix_objects::ObjectStore;
use helix_protocol::{Change, ChangeKind, FileMode, ObjectId};

use crate::read::{check_depth, entry_at, push_name};
use crate::tree::{Tree, TreeEntry, TreeSource};
use crate::{VersionError, show_path};

/// One path whose entries differ. Folders appear only where they are empty: the rest is told by what
/// they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    /// From the root, as bytes.
    pub path: Vec<u8>,
    /// In the older tree.
    pub before: Option<TreeEntry>,
    /// In the newer tree.
    pub after: Option<TreeEntry>,
}

/// The paths, ascending, that `changed` has otherwise than `onto`, and that going from `from` to `to` makes another thing than
/// `changed` has: what is staged and would be lost.
pub fn in_the_way(
    store: &dyn ObjectStore,
    (onto, changed): (ObjectId, ObjectId),
    (from, to): (ObjectId, ObjectId),
) -> Result<Vec<Vec<u8>>, VersionError> {
    let mut paths = Vec::new();
    for EntryChange { path, .. } in diff_entries(store, Some(onto), changed)? {
        let at = |tree| entry_at(store, tree, &path).map(|entry| entry.map(|entry| (entry.mode, entry.id)));
        let wanted = at(to)?;
        if wanted != at(from)? && wanted != at(changed)? {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The files that differ between an older and a newer tree, by path. A folder that is empty is
/// listed with a `/` at its end, since nothing else would tell of it.
pub fn diff(store: &dyn ObjectStore, older: ObjectId, newer: ObjectId) -> Result<Vec<Change>, VersionError> {
    diff_entries(store, Some(older), newer).map(|changes| to_changes(&changes))
}

/// As [`diff`], with both entries of each path. Without an older tree everything is added.
pub fn diff_entries(store: &dyn ObjectStore, older: Option<ObjectId>, newer: ObjectId) -> Result<Vec<EntryChange>, VersionError> {
    Comparison::run(&store, older, newer).map(|comparison| comparison.changes)
}

/// The objects of `newer` that `older` does not have at the same path, folders included, each once.
/// What a store that holds `older` needs to hold `newer`.
pub fn objects_between(store: &dyn ObjectStore, older: Option<ObjectId>, newer: ObjectId) -> Result<Vec<ObjectId>, VersionError> {
    Comparison::run(&store, older, newer).map(Comparison::objects)
}

impl EntryChange {
    /// As people and programs are told of it.
    pub fn describe(&self) -> Change {
        let kind = match (&self.before, &self.after) {
            (None, _) => ChangeKind::Added,
            (Some(_), Some(_)) => ChangeKind::Modified,
            (Some(_), None) => ChangeKind::Removed,
        };
        let shown = self.after.as_ref().or(self.before.as_ref());
        let slash = if shown.is_some_and(|entry| entry.mode == FileMode::Directory) { "/" } else { "" };
        Change { path: show_path(&self.path) + slash, kind, size: self.after.as_ref().map_or(0, |entry| entry.size) }
    }
}

pub(crate) fn to_changes(changes: &[EntryChange]) -> Vec<Change> {
    changes.iter().map(EntryChange::describe).collect()
}

/// Two trees walked side by side. Equal folders are not entered.
pub(crate) struct Comparison<'a, S> {
    source: &'a S,
    pub(crate) changes: Vec<EntryChange>,
    /// Folders of the newer tree that the older one does not have at their path.
    pub(crate) folders: Vec<ObjectId>,
}

impl<'a, S: TreeSource> Comparison<'a, S> {
    pub(crate) fn run(source: &'a S, older: Option<ObjectId>, newer: ObjectId) -> Result<Self, VersionError> {
        let mut comparison = Self { source, changes: Vec::new(), folders: Vec::new() };
        if older != Some(newer) {
            comparison.folder(older, Some(newer), &mut Vec::new(), 0)?;
        }
        Ok(comparison)
    }

    /// Files and folders that are new at their path, each once.
    pub(crate) fn objects(self) -> Vec<ObjectId> {
        let files = self.changes.iter().filter_map(|change| {
            let after = change.after.as_ref()?;
            let same = change.before.as_ref().is_some_and(|before| before.id == after.id);
            (after.mode != FileMode::Directory && !same).then_some(after.id)
        });
        let mut seen = HashSet::new();
        files.chain(self.folders.iter().copied()).filter(|id| seen.insert(*id)).collect()
    }

    fn folder(
        &mut self,
        older: Option<ObjectId>,
        newer: Option<ObjectId>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), VersionError> {
        let load = |id: Option<ObjectId>| match id {
            Some(id) => check_depth(id, depth).and_then(|()| self.source.tree(id)),
            None => Ok(Tree::default()),
        };
        let (before, after) = (load(older)?, load(newer)?);
        self.folders.extend(newer);
        let (mut before, mut after) = (before.entries().iter().peekable(), after.entries().iter().peekable());
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let old = if order.is_le() { before.next() } else { None };
            let new = if order.is_ge() { after.next() } else { None };
            self.entry(old, new, path, depth)?;
        }
    }

    fn entry(
        &mut self,
        old: Option<&TreeEntry>,
        new: Option<&TreeEntry>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), VersionError> {
        let Some(name) = old.or(new).map(|entry| &entry.name) else { return Ok(()) };
        if old == new {
            return Ok(());
        }
        let length = push_name(path, name);
        let is_folder = |entry: &&TreeEntry| entry.mode == FileMode::Directory;
        let (old_folder, new_folder) = (old.filter(is_folder), new.filter(is_folder));
        if old_folder.is_none() && new_folder.is_none() {
            self.changes.push(EntryChange { path: path.clone(), before: old.cloned(), after: new.cloned() });
        } else {
            let (old_file, new_file) = (old.filter(|entry| !is_folder(entry)), new.filter(|entry| !is_folder(entry)));
            if old_file.is_some() || new_file.is_some() {
                self.changes.push(EntryChange { path: path.clone(), before: old_file.cloned(), after: new_file.cloned() });
            }
            let seen = self.changes.len();
            self.folder(old_folder.map(|entry| entry.id), new_folder.map(|entry| entry.id), path, depth + 1)?;
            if self.changes.len() == seen && (old_folder.is_none() || new_folder.is_none()) {
                self.changes.push(EntryChange { path: path.clone(), before: old_folder.cloned(), after: new_folder.cloned() });
            }
        }
        path.truncate(length);
        Ok(())
    }
}
