//! A store in memory: for tests, and for content that need not outlive the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use helix_protocol::ObjectId;
use parking_lot::RwLock;

use crate::pins::Pins;
use crate::{
    Collect, Collection, Displaced, Durability, Family, Lease, Ledger, Mark, NewObject, ObjectError, ObjectStore, Pin,
    RecordChange, RecordStore, StoreStats, Sweep, Swept, purged_by_records,
};

/// Objects in a hash table. "On disk" means nothing here, so every mark is synced at once.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<State>,
    ledger: Ledger,
}

#[derive(Debug, Default)]
struct State {
    objects: HashMap<ObjectId, Bytes>,
    pins: Pins,
    records: BTreeMap<(Family, Bytes), Bytes>,
    mark: u64,
    bytes: u64,
    closed: bool,
}

impl State {
    fn put(&mut self, objects: &[NewObject]) {
        for object in objects {
            if self.objects.insert(object.id(), object.bytes().clone()).is_none() {
                self.mark += 1;
                self.bytes += object.bytes().len() as u64;
            }
        }
    }
}

impl State {
    fn remove(&mut self, ids: &[ObjectId], how: Sweep) -> Swept {
        let mut swept = Swept::default();
        for id in ids {
            let Some(bytes) = self.objects.get(id).map(|bytes| bytes.len() as u64) else { continue };
            swept.dropped += 1;
            swept.dropped_bytes += bytes;
            if how == Sweep::Drop {
                self.objects.remove(id);
                self.bytes -= bytes;
            }
        }
        let counted = if how == Sweep::DryRun { swept.dropped } else { 0 };
        swept.kept = self.objects.len() as u64 - counted;
        swept
    }
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
    fn never_blocks(&self) -> bool {
        true
    }

    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.open()?.objects.get(&id).cloned())
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        self.ledger.name(ids.iter().copied());
        let state = self.open()?;
        Ok(ids.iter().copied().filter(|id| !state.objects.contains_key(id)).collect())
    }

    fn put(&self, objects: &[NewObject], _durability: Durability) -> Result<Mark, ObjectError> {
        let mut state = self.open_mut()?;
        self.ledger.name(objects.iter().map(NewObject::id));
        state.put(objects);
        Ok(Mark(state.mark))
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        let recovered = Mark(self.open()?.mark);
        if mark > recovered { Err(ObjectError::LostWrites { recovered, acknowledged: mark }) } else { Ok(()) }
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        let mut state = self.open_mut()?;
        self.ledger.name(ids.iter().copied());
        state.pins.add(pin, ids);
        Ok(())
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.open_mut()?.pins.release(up_to);
        Ok(())
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        Ok(self.open()?.pins.list())
    }

    fn purged(&self) -> Result<HashSet<ObjectId>, ObjectError> {
        purged_by_records(self)
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

impl RecordStore for MemoryStore {
    fn record(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.open()?.records.get(&(family, Bytes::copy_from_slice(key))).cloned())
    }

    fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((family, Bytes::copy_from_slice(after))),
            _ => Bound::Included((family, Bytes::copy_from_slice(prefix))),
        };
        let state = self.open()?;
        let found = state.records.range((from, Bound::Unbounded));
        let found = found.take_while(|((other, key), _)| *other == family && key.starts_with(prefix));
        Ok(found.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, objects: &[NewObject], changes: &[RecordChange], _durability: Durability) -> Result<Mark, ObjectError> {
        let mut state = self.open_mut()?;
        let refused = |change: &&RecordChange| {
            !change.expect.allows(state.records.get(&(change.family, change.key.clone())).map(|value| value.as_ref()))
        };
        if let Some(change) = changes.iter().find(refused) {
            return Err(ObjectError::Moved { family: change.family, key: change.key.clone() });
        }
        self.ledger.name(objects.iter().map(NewObject::id));
        state.put(objects);
        for change in changes {
            let key = (change.family, change.key.clone());
            let lost = match &change.value {
                Some(value) => state.records.insert(key, value.clone()),
                None => state.records.remove(&key),
            };
            if let Some(value) = lost {
                self.ledger.displace(|| Displaced { family: change.family, key: change.key.clone(), value });
            }
        }
        state.mark += u64::from(!changes.is_empty());
        Ok(Mark(state.mark))
    }
}

impl Collect for MemoryStore {
    fn lease(&self) -> Lease {
        self.ledger.lease()
    }

    fn begin_collection(&self, patience: Duration) -> Result<Collection, ObjectError> {
        let collection = {
            let _no_writer = self.open_mut()?;
            self.ledger.begin()?
        };
        collection.wait(patience)?;
        Ok(collection)
    }

    fn sweep(&self, collection: &Collection, live: &(dyn Fn(ObjectId) -> bool + Sync), how: Sweep) -> Result<Swept, ObjectError> {
        let mut state = self.open_mut()?;
        collection.dropping(|named| {
            let keeps = |state: &State, id: &ObjectId| live(*id) || named(id) || state.pins.holds(id);
            let dead: Vec<ObjectId> = state.objects.keys().filter(|id| !keeps(&state, id)).copied().collect();
            Ok(state.remove(&dead, how))
        })
    }

    fn purge(&self, ids: &[ObjectId]) -> Result<Swept, ObjectError> {
        Ok(self.open_mut()?.remove(ids, Sweep::Drop))
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
        testing::record_contract(&MemoryStore::new());
        testing::collect_contract(&MemoryStore::new());
    }
}
