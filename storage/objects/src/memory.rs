//! A store in memory: for tests, and for content that need not outlive the process.

use std::collections::HashMap;

use bytes::Bytes;
use helix_protocol::ObjectId;
use parking_lot::RwLock;

use crate::pins::Pins;
use crate::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin, StoreStats};

/// Objects in a hash table. "On disk" means nothing here, so every mark is synced at once.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: HashMap<ObjectId, Bytes>,
    pins: Pins,
    mark: u64,
    bytes: u64,
    closed: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&self) -> Result<parking_lot::RwLockReadGuard<'_, State>, ObjectError> {
        let state = self.state.read();
        if state.closed { Err(ObjectError::Closed) } else { Ok(state) }
    }

    fn open_mut(&self) -> Result<parking_lot::RwLockWriteGuard<'_, State>, ObjectError> {
        let state = self.state.write();
        if state.closed { Err(ObjectError::Closed) } else { Ok(state) }
    }
}

impl ObjectStore for MemoryStore {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.open()?.objects.get(&id).cloned())
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        let state = self.open()?;
        Ok(ids.iter().copied().filter(|id| !state.objects.contains_key(id)).collect())
    }

    fn put(&self, objects: &[NewObject], _durability: Durability) -> Result<Mark, ObjectError> {
        let mut state = self.open_mut()?;
        for object in objects {
            if state.objects.insert(object.id(), object.bytes().clone()).is_none() {
                state.mark += 1;
                state.bytes += object.bytes().len() as u64;
            }
        }
        Ok(Mark(state.mark))
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        let recovered = Mark(self.open()?.mark);
        if mark > recovered { Err(ObjectError::LostWrites { recovered, acknowledged: mark }) } else { Ok(()) }
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.open_mut()?.pins.add(pin, ids);
        Ok(())
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.open_mut()?.pins.release(up_to);
        Ok(())
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        Ok(self.open()?.pins.list())
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        let state = self.open()?;
        Ok(StoreStats { objects: state.objects.len() as u64, logical_bytes: state.bytes, stored_bytes: state.bytes })
    }

    fn close(&self) -> Result<(), ObjectError> {
        let mut state = self.state.write();
        state.closed = true;
        state.objects.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::MemoryStore;
    use crate::testing;

    #[test]
    fn the_memory_store_keeps_the_contract() {
        testing::contract(&|| Arc::new(MemoryStore::new()));
    }
}
