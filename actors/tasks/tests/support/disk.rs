//! The node's content store on a disk that is full at a chosen write.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin, StoreStats};
use helix_protocol::ObjectId;
use parking_lot::Mutex;

#[derive(Default)]
struct State {
    count: u64,
    full_at: BTreeSet<u64>,
}

/// Content in memory, of which chosen writes find no space.
#[derive(Clone)]
pub struct Disk {
    store: Arc<helix_objects::MemoryStore>,
    state: Arc<Mutex<State>>,
}

impl Disk {
    pub fn of(store: Arc<helix_objects::MemoryStore>) -> Self {
        Self { store, state: Arc::default() }
    }

    /// At write number `at`, counted from 0.
    pub fn fill_at(&self, at: u64) {
        self.state.lock().full_at.insert(at);
    }

    pub fn writes(&self) -> u64 {
        self.state.lock().count
    }

    fn next(&self) -> Result<(), ObjectError> {
        let mut state = self.state.lock();
        let at = state.count;
        state.count += 1;
        if state.full_at.remove(&at) {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(ObjectError::Io { path: "the test's disk".to_owned(), source });
        }
        Ok(())
    }
}

impl ObjectStore for Disk {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        self.store.get(id)
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        self.store.missing(ids)
    }

    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        self.next()?;
        self.store.put(objects, durability)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        self.next()?;
        self.store.sync(mark)
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.next()?;
        self.store.pin(pin, ids)
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.next()?;
        self.store.unpin(up_to)
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.store.pinned()
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        self.store.stats()
    }

    fn close(&self) -> Result<(), ObjectError> {
        self.store.close()
    }

    fn never_blocks(&self) -> bool {
        true
    }
}
