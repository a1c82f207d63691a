//! The index against a tree: what has changed, and which objects that takes.

use std::cmp::Ordering;

use helix_objects::ObjectStore;
use helix_protocol::{FileMode, ObjectId};

use super::index::{Entry, FolderKey, Index, Known};
use crate::VersionError;
use crate::diff::EntryChange;
use crate::read::push_name;
use crate::tree::{MAX_DEPTH, Tree, TreeEntry};

/// What differs. Folders with equal ids are not entered.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// As [`diff_entries`](crate::diff_entries) has them.
    pub(super) changes: Vec<EntryChange>,
    /// Folders whose tree the older one does not have at their path.
    pub(super) folders: Vec<FolderKey>,
}

/// Compares an index in which nothing is marked.
pub(super) fn compare(index: &Index, store: &dyn ObjectStore, base: Option<ObjectId>) -> Result<Compared, VersionError> {
    let own = match index.folder(Index::ROOT).known {
        Known::Tree { id, .. } => Some(id),
        Known::Empty | Known::Changed => None,
    };
    let mut walk = Walk { index, store, done: Compared::default(), path: Vec::new() };
    if own.is_none() || own != base {
        walk.folder(base, Some(Index::ROOT), 0)?;
    }
    Ok(walk.done)
}

struct Walk<'a> {
    index: &'a Index,
    store: &'a dyn ObjectStore,
    done: Compared,
    path: Vec<u8>,
}

impl Walk<'_> {
    fn folder(&mut self, before: Option<ObjectId>, after: Option<FolderKey>, depth: usize) -> Result<(), VersionError> {
        let before = match before {
            Some(id) if depth > MAX_DEPTH => {
                return Err(VersionError::Damaged { id, expected: "tree", reason: "folders are nested too deep" });
            }
            Some(id) => Tree::load(self.store, id)?,
            None => Tree::default(),
        };
        self.done.folders.extend(after);
        let index = self.index;
        let after = after.into_iter().flat_map(|key| &index.folder(key).entries);
        let mut after = after.filter_map(|(name, entry)| Some((index.tree_entry(name, entry)?, entry))).peekable();
        let mut before = before.entries().iter().peekable();
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some((new, _))) => old.name.as_slice().cmp(new.name),
            };
            let old = if order.is_le() { before.next() } else { None };
            let new = if order.is_ge() { after.next() } else { None };
            if let (Some(old), Some((new, _))) = (old, &new)
                && (old.mode, old.id, old.size) == (new.mode, new.id, new.size)
            {
                continue;
            }
            let new = new.map(|(new, entry)| (new.owned(), entry));
            self.entry(old, new.as_ref().map(|(new, entry)| (new, *entry)), depth)?;
        }
    }

    fn entry(&mut self, old: Option<&TreeEntry>, new: Option<(&TreeEntry, &Entry)>, depth: usize) -> Result<(), VersionError> {
        let Some(name) = old.or(new.map(|(new, _)| new)).map(|entry| &entry.name) else { return Ok(()) };
        let length = push_name(&mut self.path, name);
        let old_folder = old.filter(|old| old.mode == FileMode::Directory);
        let new_folder = match new {
            Some((_, Entry::Folder(key))) => Some(*key),
            _ => None,
        };
        let old_file = old.filter(|_| old_folder.is_none());
        let new_file = new.filter(|_| new_folder.is_none()).map(|(new, _)| new);
        if old_file.is_some() || new_file.is_some() {
            self.done.changes.push(EntryChange { path: self.path.clone(), before: old_file.cloned(), after: new_file.cloned() });
        }
        if old_folder.is_some() || new_folder.is_some() {
            let seen = self.done.changes.len();
            self.folder(old_folder.map(|old| old.id), new_folder, depth + 1)?;
            // The base had a folder with nothing in it.
            if self.done.changes.len() == seen && new_folder.is_none() && old_file.is_none() && new_file.is_none() {
                self.done.changes.push(EntryChange { path: self.path.clone(), before: old_folder.cloned(), after: None });
            }
        }
        self.path.truncate(length);
        Ok(())
    }
}
