//! Objects on their way into the store, in batches, written by a thread of their own while others are made.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender};

use helix_objects::{Durability, Mark, NewObject, ObjectError, ObjectStore};
use helix_protocol::ObjectId;

/// A batch has about this many bytes, or this many objects: few enough that the memory of one is used again for the next.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_OBJECTS: usize = 1_024;
/// Batches that wait for the store at most. One of longer objects takes the room of as many as it is long, so that what waits is
/// little memory however long objects are.
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
        let (batch, bytes) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.bytes));
        if batch.is_empty() {
            return Ok(());
        }
        let room = (bytes / BATCH_BYTES).clamp(1, QUEUED);
        let batches = std::iter::once(batch).chain((1..room).map(|_| Vec::new()));
        for batch in batches {
            self.sender.send(batch).map_err(|_| ObjectError::Closed)?;
        }
        Ok(())
    }
}

/// Writes what sinks hand over, until all of them are gone.
pub(super) fn write_batches(store: &dyn ObjectStore, batches: Receiver<Vec<NewObject>>) -> Result<Mark, ObjectError> {
    let mut mark = Mark::default();
    for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
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
    for mut batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
        let ids: Vec<ObjectId> = batch.iter().map(NewObject::id).collect();
        let missing: HashSet<ObjectId> = store.missing(&ids)?.into_iter().filter(|id| !gone.contains(id)).collect();
        batch.retain(|object| missing.contains(&object.id()));
        store.put(&batch, Durability::NoSync)?;
        stored += missing.len() as u64;
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_long_object_takes_the_room_of_as_many_batches_as_it_is_long() {
        let (sender, receiver) = sync_channel(3 * QUEUED);
        let mut sink = Sink::new(sender);
        for mebibytes in [0, 3, 1, QUEUED + 2] {
            sink.put(NewObject::new(Bytes::from(vec![0; mebibytes << 20]))).unwrap();
            sink.flush().unwrap();
        }
        drop(sink);
        let sent: Vec<usize> = receiver.into_iter().map(|batch| batch.len()).collect();
        let expected = [&[1][..], &[1, 0, 0], &[1], &[1], &[0; QUEUED - 1]].concat();
        assert_eq!(sent, expected);
    }
}
