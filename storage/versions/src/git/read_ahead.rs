//! Trees and files of many snapshots, read by a thread of their own before they are asked for.
//!
//! It goes through the snapshots in the order in which they are written and reads what each has that the one before it had not.
//! What it sends is only a help: whoever asks for something else reads it from the store.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use helix_objects::ObjectStore;
use helix_protocol::{FileMode, ObjectId};

use super::bounded::BoundedMap;
use super::id_hash::{ByObject, IdHash, Objects};
use crate::tree::MAX_DEPTH;
use crate::{Tree, TreeEntry, VersionError};

/// Parcels that wait to be asked for, and about how many bytes are in each.
const QUEUED: usize = 8;
const PARCEL_BYTES: usize = 512 << 10;
/// What was sent and not asked for is forgotten when it has so many bytes.
const HELD_BYTES: usize = 32 << 20;
/// Decoded trees that the reader keeps for comparing, in bytes.
const TREES_BYTES: usize = 16 << 20;
/// How many ids the reader remembers having sent.
const REMEMBERED: usize = 4 << 20;

/// A root folder, and the one that was written before it.
pub(super) type Step = (ObjectId, Option<ObjectId>);

enum Loaded {
    Folder(Arc<Tree>),
    File(Bytes),
}

type Parcel = Vec<(ObjectId, Loaded)>;

/// The receiving side.
pub(super) struct ReadAhead {
    parcels: Receiver<Parcel>,
    folders: ByObject<Arc<Tree>>,
    files: ByObject<Bytes>,
    held: usize,
}

impl ReadAhead {
    /// Both sides; the second one is run by a thread.
    pub(super) fn new<'a>(store: &'a dyn ObjectStore) -> (Self, Reading<'a>) {
        let (sender, parcels) = sync_channel(QUEUED);
        let trees = BoundedMap::new(TREES_BYTES);
        let reading = Reading { store, sender, parcel: Vec::new(), bytes: 0, sent: Objects::default(), trees };
        (Self { parcels, folders: ByObject::default(), files: ByObject::default(), held: 0 }, reading)
    }

    pub(super) fn folder(&mut self, id: ObjectId) -> Option<Arc<Tree>> {
        while !self.folders.contains_key(&id) && self.receive() {}
        self.folders.remove(&id)
    }

    pub(super) fn file(&mut self, id: ObjectId) -> Option<Bytes> {
        while !self.files.contains_key(&id) && self.receive() {}
        self.files.remove(&id)
    }

    /// Takes the next parcel. False where there is none, or where so much was passed by that what is asked for will hardly come.
    fn receive(&mut self) -> bool {
        if self.held > HELD_BYTES {
            (self.held, self.folders, self.files) = (0, ByObject::default(), ByObject::default());
            return false;
        }
        let Ok(parcel) = self.parcels.recv() else { return false };
        self.held += PARCEL_BYTES;
        for (id, loaded) in parcel {
            match loaded {
                Loaded::Folder(tree) => drop(self.folders.insert(id, tree)),
                Loaded::File(bytes) => drop(self.files.insert(id, bytes)),
            }
        }
        if self.folders.is_empty() && self.files.is_empty() {
            self.held = 0;
        }
        true
    }
}

/// The reading side.
pub(super) struct Reading<'a> {
    store: &'a dyn ObjectStore,
    sender: SyncSender<Parcel>,
    parcel: Parcel,
    bytes: usize,
    sent: Objects,
    trees: BoundedMap<ObjectId, Arc<Tree>, IdHash>,
}

impl Reading<'_> {
    /// Reads until everything is sent, nobody listens any more, or something cannot be read: who needs it will find that too.
    pub(super) fn run(mut self, steps: &[Step]) {
        for (tree, before) in steps {
            if self.folder(*tree, *before, 0).is_err() || !self.is_heard() {
                return;
            }
        }
        self.bytes = PARCEL_BYTES;
        self.is_heard();
    }

    fn is_heard(&mut self) -> bool {
        if self.bytes < PARCEL_BYTES {
            return true;
        }
        self.bytes = 0;
        self.sender.send(std::mem::take(&mut self.parcel)).is_ok()
    }

    fn folder(&mut self, id: ObjectId, before: Option<ObjectId>, depth: usize) -> Result<(), VersionError> {
        if depth >= MAX_DEPTH || !self.is_new(id) {
            return Ok(());
        }
        let tree = self.load(id)?;
        let before = before.map(|before| self.load(before)).transpose()?;
        self.send(id, 96 * tree.entries().len(), Loaded::Folder(tree.clone()));
        for (entry, before) in tree.beside(before.as_deref()) {
            if before.is_some_and(|before| before.id == entry.id) {
                continue;
            }
            if entry.mode == FileMode::Directory {
                let is_folder = |before: &&TreeEntry| before.mode == FileMode::Directory;
                self.folder(entry.id, before.filter(is_folder).map(|before| before.id), depth + 1)?;
            } else if self.is_new(entry.id) {
                let bytes = self.store.read(entry.id)?;
                self.send(entry.id, bytes.len(), Loaded::File(bytes));
            }
            if !self.is_heard() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_new(&mut self, id: ObjectId) -> bool {
        if self.sent.len() >= REMEMBERED {
            self.sent.clear();
        }
        self.sent.insert(id)
    }

    fn send(&mut self, id: ObjectId, bytes: usize, loaded: Loaded) {
        self.bytes += bytes + 64;
        self.parcel.push((id, loaded));
    }

    fn load(&mut self, id: ObjectId) -> Result<Arc<Tree>, VersionError> {
        if let Some(tree) = self.trees.get(&id) {
            return Ok(tree);
        }
        let tree = Arc::new(Tree::load(self.store, id)?);
        let weight = 96 * tree.entries().len() + 64;
        self.trees.insert(id, tree.clone(), weight);
        Ok(tree)
    }
}
