//! Objects on their way into the store, in batches, written by a thread of their own while others are made.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender};

use helix_objects::{Durability, Mark, NewObject, ObjectError, ObjectStore};
use helix_protocol::ObjectId;

/// A batch has about this many bytes, or this many objects: few enough that the memory of one is used again for the next.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_OBJECTS: usize = 1_024;
/// Batches that wait for the store at most.
pub(super) const QUEUED: usize = 16;

/// Takes objects from one thread. What is dropped without [`flush`](Self::flush) is not written.
pub(super) struct Sink {
    sender: SyncSender<Vec<NewObject>>,
    batch: Vec<NewObject>,
    bytes: usize,
}

impl Sink {
    pub(super) fn new(sender: SyncSender<Vec<NewObject>>) -> Self {
        Self { sender, batch: Vec::new(), bytes: 0 }
    }

    /// A sink for another thread.
    pub(super) fn another(&self) -> Self {
        Self::new(self.sender.clone())
    }

    pub(super) fn put(&mut self, object: NewObject) -> Result<(), ObjectError> {
        self.bytes += object.bytes().len();
        self.batch.push(object);
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_OBJECTS { self.flush() } else { Ok(()) }
    }

    /// Hands over what is gathered. Fails with `Closed` where the store failed; what it said is the writer's result.
    pub(super) fn flush(&mut self) -> Result<(), ObjectError> {
        self.bytes = 0;
        match std::mem::take(&mut self.batch) {
            batch if batch.is_empty() => Ok(()),
            batch => self.sender.send(batch).map_err(|_| ObjectError::Closed),
        }
    }
}

/// Writes what sinks hand over, until all of them are gone.
pub(super) fn write_batches(store: &dyn ObjectStore, batches: Receiver<Vec<NewObject>>) -> Result<Mark, ObjectError> {
    let mut mark = Mark::default();
    for batch in batches {
        mark = mark.max(store.put(&batch, Durability::NoSync)?);
    }
    Ok(mark)
}

/// As [`write_batches`], but only what the store has not, and nothing of `gone`. Returns how many objects that were.
pub(super) fn write_missing(
    store: &dyn ObjectStore,
    batches: Receiver<Vec<NewObject>>,
    gone: &HashSet<ObjectId>,
) -> Result<u64, ObjectError> {
    let mut stored = 0;
    for mut batch in batches {
        let ids: Vec<ObjectId> = batch.iter().map(NewObject::id).collect();
        let missing: HashSet<ObjectId> = store.missing(&ids)?.into_iter().filter(|id| !gone.contains(id)).collect();
        batch.retain(|object| missing.contains(&object.id()));
        store.put(&batch, Durability::NoSync)?;
        stored += missing.len() as u64;
    }
    Ok(stored)
}
