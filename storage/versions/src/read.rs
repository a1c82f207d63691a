//! Reading trees: by path, whole, and what of them a store lacks.

#[cfg(feature = "git")]
use std::collections::HashSet;

use bytes::Bytes;
use helix_objects::{ObjectError, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use crate::tree::{MAX_DEPTH, Tree, TreeEntry};
use crate::{VersionError, show_path};

/// Something in a tree, with its whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathEntry {
    /// From the root, `/`-separated, as bytes.
    pub path: Vec<u8>,
    /// What it is.
    pub mode: FileMode,
    /// As in [`TreeEntry::size`].
    pub size: u64,
    /// Its object.
    pub id: ObjectId,
}

/// What was removed on purpose and is not back: trees name it, and nobody has it.
#[cfg(feature = "git")]
pub(crate) fn gone(store: &dyn ObjectStore) -> Result<HashSet<ObjectId>, VersionError> {
    let purged: Vec<ObjectId> = store.purged()?.into_iter().collect();
    Ok(if purged.is_empty() { HashSet::new() } else { store.missing(&purged)?.into_iter().collect() })
}

/// The entry at a path; `None` where there is none. A path that is not beneath the root is refused.
pub fn entry_at(store: &dyn ObjectStore, tree: ObjectId, path: &[u8]) -> Result<Option<TreeEntry>, VersionError> {
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    let mut folder = tree;
    while let Some(part) = parts.next() {
        if matches!(part, b"" | b"." | b"..") {
            return Err(VersionError::InvalidPath(show_path(path)));
        }
        let Some(entry) = Tree::load(store, folder)?.get(part).cloned() else { return Ok(None) };
        match (parts.peek(), entry.mode) {
            (None, _) => return Ok(Some(entry)),
            (Some(_), FileMode::Directory) => folder = entry.id,
            (Some(_), _) => return Ok(None),
        }
    }
    Ok(None)
}

/// A file's bytes, or a link's target. Fails with `NotFound` where there is no file at that path.
pub fn read_file(store: &dyn ObjectStore, tree: ObjectId, path: &[u8]) -> Result<Bytes, VersionError> {
    match entry_at(store, tree, path)? {
        Some(entry) if entry.mode != FileMode::Directory => Ok(store.read(entry.id)?),
        _ => Err(VersionError::NotFound { tree, path: show_path(path) }),
    }
}

/// Everything in a tree, folders before what they hold, in the order of the names. The tree itself
/// is not among it.
pub fn walk(store: &dyn ObjectStore, tree: ObjectId) -> Result<Vec<PathEntry>, VersionError> {
    let mut found = Vec::new();
    walk_into(store, tree, &mut Vec::new(), 0, &mut found)?;
    Ok(found)
}

fn walk_into(
    store: &dyn ObjectStore,
    id: ObjectId,
    path: &mut Vec<u8>,
    depth: usize,
    found: &mut Vec<PathEntry>,
) -> Result<(), VersionError> {
    check_depth(id, depth)?;
    for TreeEntry { name, mode, size, id } in Tree::load(store, id)?.entries() {
        let length = push_name(path, name);
        found.push(PathEntry { path: path.clone(), mode: *mode, size: *size, id: *id });
        if *mode == FileMode::Directory {
            walk_into(store, *id, path, depth + 1, found)?;
        }
        path.truncate(length);
    }
    Ok(())
}

/// Every object of a tree that the store lacks, the tree itself included. What lies beneath a
/// missing folder cannot be known, so the answer is complete only once no folder is missing.
pub fn missing_closure(store: &dyn ObjectStore, tree: ObjectId) -> Result<Vec<ObjectId>, VersionError> {
    let mut missing = Vec::new();
    missing_into(store, tree, 0, &mut missing)?;
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

fn missing_into(store: &dyn ObjectStore, id: ObjectId, depth: usize, missing: &mut Vec<ObjectId>) -> Result<(), VersionError> {
    check_depth(id, depth)?;
    let tree = match Tree::load(store, id) {
        Err(VersionError::Object(ObjectError::Missing(id))) => {
            missing.push(id);
            return Ok(());
        }
        tree => tree?,
    };
    let (folders, files): (Vec<&TreeEntry>, Vec<&TreeEntry>) =
        tree.entries().iter().partition(|entry| entry.mode == FileMode::Directory);
    let files: Vec<ObjectId> = files.iter().map(|entry| entry.id).collect();
    missing.extend(store.missing(&files)?);
    folders.iter().try_for_each(|folder| missing_into(store, folder.id, depth + 1, missing))
}

pub(crate) fn check_depth(id: ObjectId, depth: usize) -> Result<(), VersionError> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(VersionError::Damaged { id, expected: "tree", reason: "folders are nested too deep" })
}

/// Appends a name to a path and returns the length to truncate to afterwards.
pub(crate) fn push_name(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}
