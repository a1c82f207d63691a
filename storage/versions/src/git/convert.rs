//! Git objects as ours.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use gix::objs::tree::EntryKind;
use helix_objects::{Durability, Mark, NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use crate::read::push_name;
use crate::tree::{MAX_DEPTH, Tree, TreeEntry};
use crate::{VersionError, show_path};

/// Objects are handed to the store in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) mode: FileMode,
    pub(super) size: u64,
    pub(super) id: ObjectId,
}

/// Files by path, on their way into the store.
pub(super) struct Files<'a> {
    store: &'a dyn ObjectStore,
    batch: Vec<NewObject>,
    batch_bytes: usize,
    mark: Mark,
    blobs: HashMap<gix::ObjectId, (ObjectId, u64)>,
    by_path: BTreeMap<Vec<u8>, Content>,
}

impl<'a> Files<'a> {
    pub(super) fn new(store: &'a dyn ObjectStore) -> Self {
        Self { store, batch: Vec::new(), batch_bytes: 0, mark: Mark(0), blobs: HashMap::new(), by_path: BTreeMap::new() }
    }

    pub(super) fn by_path(&self) -> &BTreeMap<Vec<u8>, Content> {
        &self.by_path
    }

    /// Adds a file whose bytes are given.
    pub(super) fn add_bytes(&mut self, path: Vec<u8>, mode: FileMode, bytes: Bytes) -> Result<(), VersionError> {
        let size = bytes.len() as u64;
        let id = self.put(bytes)?;
        self.by_path.insert(path, Content { mode, size, id });
        Ok(())
    }

    /// Adds a file whose bytes are a blob of the repository.
    pub(super) fn add_blob(
        &mut self,
        repository: &gix::Repository,
        path: Vec<u8>,
        mode: FileMode,
        blob: gix::ObjectId,
    ) -> Result<(), VersionError> {
        let (id, size) = match self.blobs.get(&blob) {
            Some(known) => *known,
            None => {
                let mut object = repository.find_blob(blob).map_err(|error| super::failed(&super::place(repository), error))?;
                let bytes = Bytes::from(object.take_data());
                let size = bytes.len() as u64;
                let id = self.put(bytes)?;
                self.blobs.insert(blob, (id, size));
                (id, size)
            }
        };
        self.by_path.insert(path, Content { mode, size, id });
        Ok(())
    }

    fn put(&mut self, bytes: Bytes) -> Result<ObjectId, VersionError> {
        self.batch_bytes += bytes.len();
        let object = NewObject::new(bytes);
        let id = object.id();
        self.batch.push(object);
        if self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(id)
    }

    fn flush(&mut self) -> Result<(), VersionError> {
        self.batch_bytes = 0;
        self.mark = self.mark.max(self.store.put(&std::mem::take(&mut self.batch), Durability::NoSync)?);
        Ok(())
    }

    /// Stores the folders and returns the root with the mark that covers everything.
    pub(super) fn finish(mut self) -> Result<(ObjectId, Mark), VersionError> {
        let files: Vec<(Vec<u8>, Content)> = std::mem::take(&mut self.by_path).into_iter().collect();
        let mut rest = files.as_slice();
        let root = self.folder(&mut rest, &[], 0)?.id;
        self.flush()?;
        Ok((root, self.mark))
    }

    /// Takes every file beneath `prefix` from the front of `rest`, which is in the order of the paths.
    fn folder(&mut self, rest: &mut &[(Vec<u8>, Content)], prefix: &[u8], depth: usize) -> Result<Content, VersionError> {
        if depth >= MAX_DEPTH {
            return Err(VersionError::InvalidPath(show_path(prefix)));
        }
        let mut entries = Vec::new();
        while let Some((path, content)) = rest.first() {
            let Some(tail) = path.strip_prefix(prefix) else { break };
            match tail.iter().position(|byte| *byte == b'/') {
                None => {
                    entries.push(TreeEntry { name: tail.to_vec(), mode: content.mode, size: content.size, id: content.id });
                    *rest = &rest[1..];
                }
                Some(slash) => {
                    let name = tail[..slash].to_vec();
                    let deeper = path[..=prefix.len() + slash].to_vec();
                    let Content { mode, size, id } = self.folder(rest, &deeper, depth + 1)?;
                    entries.push(TreeEntry { name, mode, size, id });
                }
            }
        }
        let tree = Tree::new(entries)?;
        let object = tree.encode();
        let content = Content { mode: FileMode::Directory, size: tree.size(), id: object.id() };
        self.batch_bytes += object.bytes().len();
        self.batch.push(object);
        Ok(content)
    }
}

/// Something a git tree names, with its whole path.
pub(super) struct GitEntry {
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) id: gix::ObjectId,
}

/// Everything in a git tree but the folders themselves.
pub(super) fn entries(repository: &gix::Repository, tree: gix::ObjectId) -> Result<Vec<GitEntry>, VersionError> {
    let mut found = Vec::new();
    entries_into(repository, tree, &mut Vec::new(), 0, &mut found)?;
    Ok(found)
}

/// As [`entries`], beneath a path.
pub(super) fn entries_into(
    repository: &gix::Repository,
    tree: gix::ObjectId,
    path: &mut Vec<u8>,
    depth: usize,
    found: &mut Vec<GitEntry>,
) -> Result<(), VersionError> {
    if depth >= MAX_DEPTH {
        return Err(VersionError::InvalidPath(show_path(path)));
    }
    let failed = |error: gix::Error| super::failed(&super::place(repository), error);
    let tree = repository.find_tree(tree).map_err(failed)?;
    for entry in tree.iter() {
        let entry = entry.map_err(|error| super::failed(&super::place(repository), error))?;
        let length = push_name(path, entry.filename());
        match entry.mode().kind() {
            EntryKind::Tree => entries_into(repository, entry.object_id(), path, depth + 1, found)?,
            kind => found.push(GitEntry { path: path.clone(), kind, id: entry.object_id() }),
        }
        path.truncate(length);
    }
    Ok(())
}

/// Our mode of a git entry; `None` for a submodule and for a folder.
pub(super) fn file_mode(kind: EntryKind) -> Option<FileMode> {
    match kind {
        EntryKind::Blob => Some(FileMode::Regular),
        EntryKind::BlobExecutable => Some(FileMode::Executable),
        EntryKind::Link => Some(FileMode::Symlink),
        EntryKind::Commit | EntryKind::Tree => None,
    }
}
