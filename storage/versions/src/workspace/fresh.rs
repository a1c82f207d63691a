//! Beside a pass: the content it has just read, and the trees of the base it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use helix_objects::{Durability, NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};
use parking_lot::{Mutex, MutexGuard};

use crate::VersionError;
use crate::tree::{Tree, TreeEntry};

/// Larger content is put into the store at once, and only one file as large is in memory at a time.
const LARGE: u64 = 8 << 20;
/// Room for content that waits for its commit, and for content that was read when nobody meant to commit.
const ROOM: u64 = 32 << 20;
const IDLE_ROOM: u64 = 4 << 20;

/// Content that was read and that the store may not hold yet. Bounded: what there is no room for goes into the store ahead
/// of the commit, or is let go where nothing is to be stored; then it is read again when it is needed.
pub(super) struct Fresh<'a> {
    store: Option<&'a dyn ObjectStore>,
    held: Mutex<Held>,
    large: Mutex<()>,
}

/// See [`Fresh`].
#[derive(Debug, Default)]
pub(super) struct Held {
    objects: HashMap<ObjectId, NewObject>,
    bytes: u64,
}

impl Held {
    pub(super) fn get(&self, id: ObjectId) -> Option<&NewObject> {
        self.objects.get(&id)
    }

    /// Memory in bytes, roughly: the content, and what each of the objects takes beside it.
    pub(super) fn memory_bytes(&self) -> usize {
        let places = self.objects.capacity() * 8 / 7 * (size_of::<(ObjectId, NewObject)>() + 1);
        usize::try_from(self.bytes).unwrap_or(usize::MAX).saturating_add(places + self.objects.len() * 16)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<'a> Fresh<'a> {
    /// With a store: what exceeds the room is put there. `held` is what earlier passes left.
    pub(super) fn new(store: Option<&'a dyn ObjectStore>, held: Held) -> Self {
        Self { store, held: Mutex::new(held), large: Mutex::new(()) }
    }

    /// Waits until a file of this size may be read into memory.
    pub(super) fn turn(&self, size: u64) -> Option<MutexGuard<'_, ()>> {
        (size > LARGE).then(|| self.large.lock())
    }

    pub(super) fn take(&self, object: NewObject) -> Result<(), VersionError> {
        let size = object.bytes().len() as u64;
        if size > LARGE {
            if let Some(store) = self.store {
                store.put(&[object], Durability::NoSync)?;
            }
            return Ok(());
        }
        let mut held = self.held.lock();
        if held.bytes + size > if self.store.is_some() { ROOM } else { IDLE_ROOM } {
            let full = std::mem::take(&mut *held);
            if let Some(store) = self.store {
                // The lock is kept: others wait, so that memory stays bounded while the store writes.
                store.put(&full.objects.into_values().collect::<Vec<_>>(), Durability::NoSync)?;
            }
        }
        if held.objects.insert(object.id(), object).is_none() {
            held.bytes += size;
        }
        Ok(())
    }

    pub(super) fn into_held(self) -> Held {
        self.held.into_inner()
    }
}

/// The base's folders, loaded when somebody asks about a path that hangs on them.
pub(super) struct BaseTrees<'a> {
    store: &'a dyn ObjectStore,
    root: Option<ObjectId>,
    folders: Mutex<HashMap<Vec<u8>, Option<Arc<Tree>>>>,
}

impl<'a> BaseTrees<'a> {
    pub(super) fn new(store: &'a dyn ObjectStore, root: Option<ObjectId>) -> Self {
        Self { store, root, folders: Mutex::new(HashMap::new()) }
    }

    /// What the base has at a path that is not the root's.
    pub(super) fn entry(&self, path: &[u8]) -> Result<Option<TreeEntry>, VersionError> {
        if self.root.is_none() {
            return Ok(None);
        }
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&path[..0], path),
        };
        Ok(self.folder(folder)?.and_then(|tree| tree.get(name).cloned()))
    }

    fn folder(&self, path: &[u8]) -> Result<Option<Arc<Tree>>, VersionError> {
        if let Some(known) = self.folders.lock().get(path) {
            return Ok(known.clone());
        }
        let id = if path.is_empty() {
            self.root
        } else {
            self.entry(path)?.filter(|entry| entry.mode == FileMode::Directory).map(|entry| entry.id)
        };
        let tree = id.map(|id| Tree::load(self.store, id)).transpose()?.map(Arc::new);
        self.folders.lock().insert(path.to_owned(), tree.clone());
        Ok(tree)
    }
}
