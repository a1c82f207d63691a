//! L1: recently used content in memory, LZ4-compressed, in front of any store.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use helix_protocol::ObjectId;
use parking_lot::Mutex;

use crate::{
    Collect, Collection, Durability, Family, Lease, Mark, NewObject, ObjectError, ObjectStore, Pin, RecordChange, RecordStore,
    StoreStats, Sweep, Swept,
};

/// Content is spread over this many locks by the first byte of its id.
const SHARDS: usize = 8;
/// Beneath this many bytes compression costs more than it saves.
const COMPRESS_FROM: usize = 256;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 96;

/// How a cache does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads it answered.
    pub hits: u64,
    /// Reads it passed on.
    pub misses: u64,
    /// Objects it holds.
    pub objects: u64,
    /// Memory they take.
    pub bytes: u64,
}

/// A store with a cache in front of it: least recently used content goes first once the bound in
/// bytes is reached. Writes go through and are remembered; whether an object exists is always the
/// store's answer, never the cache's.
#[derive(Debug)]
pub struct Cached<S> {
    store: S,
    shards: [Mutex<Shard>; SHARDS],
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<S: ObjectStore> Cached<S> {
    /// Puts a cache of at most `limit_bytes` in front of `store`.
    pub fn new(store: S, limit_bytes: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(Shard::new(limit_bytes / SHARDS)));
        Self { store, shards, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The store behind it.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Counters since it was made, and its present size.
    pub fn cache_stats(&self) -> CacheStats {
        let mut stats = CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..CacheStats::default()
        };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.objects += shard.slots.len() as u64;
            stats.bytes += shard.bytes as u64;
        }
        stats
    }

    fn shard(&self, id: &ObjectId) -> &Mutex<Shard> {
        &self.shards[usize::from(id.0[0]) % SHARDS]
    }

    fn cached(&self, id: &ObjectId) -> Option<Bytes> {
        let content = self.shard(id).lock().touch(id);
        let bytes = content.and_then(|content| content.expand());
        let counter = if bytes.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        bytes
    }

    fn forget(&self, which: &dyn Fn(ObjectId) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let gone: Vec<ObjectId> = shard.places.keys().copied().filter(|id| which(*id)).collect();
            for id in gone {
                if let Some(place) = shard.places.get(&id).copied() {
                    shard.remove(place);
                }
            }
        }
    }

    fn remember(&self, id: ObjectId, bytes: &Bytes) {
        // One object must not push out everything else.
        if bytes.len() <= self.shard(&id).lock().limit / 4 {
            let content = Content::compress(bytes);
            self.shard(&id).lock().insert(id, content);
        }
    }
}

impl<S: ObjectStore> ObjectStore for Cached<S> {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        if let Some(bytes) = self.cached(&id) {
            return Ok(Some(bytes));
        }
        let found = self.store.get(id)?;
        if let Some(bytes) = &found {
            self.remember(id, bytes);
        }
        Ok(found)
    }

    fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        let mut found: Vec<Option<Bytes>> = ids.iter().map(|id| self.cached(id)).collect();
        let (places, lacking): (Vec<usize>, Vec<ObjectId>) =
            ids.iter().enumerate().filter(|(place, _)| found[*place].is_none()).map(|(place, id)| (place, *id)).unzip();
        for (place, bytes) in places.into_iter().zip(self.store.get_many(&lacking)?) {
            if let Some(bytes) = &bytes {
                self.remember(ids[place], bytes);
            }
            found[place] = bytes;
        }
        Ok(found)
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        self.store.missing(ids)
    }

    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        let mark = self.store.put(objects, durability)?;
        for object in objects {
            self.remember(object.id(), object.bytes());
        }
        Ok(mark)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        self.store.sync(mark)
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.store.pin(pin, ids)
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.store.unpin(up_to)
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.store.pinned()
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        self.store.stats()
    }

    fn close(&self) -> Result<(), ObjectError> {
        for shard in &self.shards {
            shard.lock().clear();
        }
        self.store.close()
    }
}

impl<S: RecordStore> RecordStore for Cached<S> {
    fn record(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ObjectError> {
        self.store.record(family, key)
    }

    fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError> {
        self.store.records(family, prefix, after, limit)
    }

    fn commit(&self, objects: &[NewObject], changes: &[RecordChange], durability: Durability) -> Result<Mark, ObjectError> {
        let mark = self.store.commit(objects, changes, durability)?;
        for object in objects {
            self.remember(object.id(), object.bytes());
        }
        Ok(mark)
    }
}

/// The cache forgets what the store drops.
impl<S: Collect> Collect for Cached<S> {
    fn lease(&self) -> Lease {
        self.store.lease()
    }

    fn begin_collection(&self, patience: Duration) -> Result<Collection, ObjectError> {
        self.store.begin_collection(patience)
    }

    fn sweep(&self, collection: &Collection, live: &(dyn Fn(ObjectId) -> bool + Sync), how: Sweep) -> Result<Swept, ObjectError> {
        let swept = self.store.sweep(collection, live, how);
        if how == Sweep::Drop {
            self.forget(&|id| !live(id));
        }
        swept
    }

    fn purge(&self, ids: &[ObjectId]) -> Result<Swept, ObjectError> {
        let swept = self.store.purge(ids);
        let purged: HashSet<ObjectId> = ids.iter().copied().collect();
        self.forget(&|id| purged.contains(&id));
        swept
    }
}

/// An object's bytes as the cache keeps them.
#[derive(Clone, Debug)]
enum Content {
    Plain(Bytes),
    Lz4 { packed: Bytes, length: usize },
}

impl Content {
    fn compress(bytes: &Bytes) -> Self {
        if bytes.len() < COMPRESS_FROM {
            // A copy, so that a small piece does not keep a large buffer alive.
            return Self::Plain(Bytes::copy_from_slice(bytes));
        }
        let packed = lz4_flex::block::compress(bytes);
        if packed.len() * 8 < bytes.len() * 7 {
            Self::Lz4 { packed: packed.into(), length: bytes.len() }
        } else {
            Self::Plain(Bytes::copy_from_slice(bytes))
        }
    }

    fn expand(self) -> Option<Bytes> {
        match self {
            Self::Plain(bytes) => Some(bytes),
            Self::Lz4 { packed, length } => lz4_flex::block::decompress(&packed, length).ok().map(Bytes::from),
        }
    }

    fn cost(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Plain(bytes) => bytes.len(),
                Self::Lz4 { packed, .. } => packed.len(),
            }
    }
}

/// No slot: the end of the list.
const END: usize = usize::MAX;

/// One lock's part: a hash table into slots that form a doubly linked list, newest first.
#[derive(Debug)]
struct Shard {
    places: HashMap<ObjectId, usize>,
    slots: Vec<Slot>,
    newest: usize,
    oldest: usize,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Slot {
    id: ObjectId,
    content: Content,
    newer: usize,
    older: usize,
}

impl Shard {
    fn new(limit: usize) -> Self {
        Self { places: HashMap::new(), slots: Vec::new(), newest: END, oldest: END, bytes: 0, limit }
    }

    fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    fn touch(&mut self, id: &ObjectId) -> Option<Content> {
        let place = *self.places.get(id)?;
        self.unlink(place);
        self.link_newest(place);
        Some(self.slots[place].content.clone())
    }

    fn insert(&mut self, id: ObjectId, content: Content) {
        if self.touch(&id).is_some() {
            return;
        }
        self.bytes += content.cost();
        while self.bytes > self.limit && self.oldest != END {
            self.remove(self.oldest);
        }
        if self.bytes > self.limit {
            self.bytes -= content.cost();
            return;
        }
        let place = self.slots.len();
        self.slots.push(Slot { id, content, newer: END, older: END });
        self.places.insert(id, place);
        self.link_newest(place);
    }

    /// Takes a slot out; the last slot moves into its place so that the slots stay dense.
    fn remove(&mut self, place: usize) {
        self.unlink(place);
        let gone = self.slots.swap_remove(place);
        self.places.remove(&gone.id);
        self.bytes -= gone.content.cost();
        if let Some(moved) = self.slots.get(place) {
            let (id, newer, older) = (moved.id, moved.newer, moved.older);
            self.places.insert(id, place);
            match self.slots.get_mut(newer) {
                Some(slot) => slot.older = place,
                None => self.newest = place,
            }
            match self.slots.get_mut(older) {
                Some(slot) => slot.newer = place,
                None => self.oldest = place,
            }
        }
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.slots[place].newer, self.slots[place].older);
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        self.slots[place].newer = END;
        self.slots[place].older = self.newest;
        match self.slots.get_mut(self.newest) {
            Some(slot) => slot.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Cached, Content, ENTRY_BYTES, Shard};
    use crate::{Durability, MemoryStore, NewObject, ObjectStore, hash, testing};

    #[test]
    fn a_cached_store_keeps_the_contract() {
        testing::contract(&|| Arc::new(Cached::new(MemoryStore::new(), 64 * 1024)));
        testing::contract(&|| Arc::new(Cached::new(MemoryStore::new(), 0)));
        testing::record_contract(&Cached::new(MemoryStore::new(), 64 * 1024));
        testing::collect_contract(&Cached::new(MemoryStore::new(), 64 * 1024));
    }

    #[test]
    fn a_second_read_is_a_hit_and_returns_the_same_bytes() {
        let store = MemoryStore::new();
        let object = NewObject::new(Bytes::from(b"line of text\n".repeat(1000)));
        store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
        let cached = Cached::new(store, 1 << 20);
        let reads: Vec<Bytes> = (0..3).map(|_| cached.read(object.id()).unwrap()).collect();
        assert_eq!(reads, vec![object.bytes().clone(); 3]);
        let stats = cached.cache_stats();
        assert_eq!((stats.hits, stats.misses, stats.objects), (2, 1, 1));
        assert!(stats.bytes < 2_000, "13,000 repeating bytes are kept compressed, not in {} bytes", stats.bytes);
    }

    proptest! {
        #[test]
        fn a_shard_keeps_exactly_the_most_recently_used(uses in prop::collection::vec(0_u8..24, 1..300)) {
            let keeps = 8;
            let mut shard = Shard::new(keeps * (ENTRY_BYTES + 1));
            let mut model: Vec<u8> = Vec::new();
            for byte in uses {
                let id = hash(&[byte]);
                let hit = shard.touch(&id).is_some();
                prop_assert_eq!(hit, model.contains(&byte));
                if !hit {
                    shard.insert(id, Content::compress(&Bytes::copy_from_slice(&[byte])));
                }
                model.retain(|other| *other != byte);
                model.insert(0, byte);
                model.truncate(keeps);
                prop_assert_eq!(shard.slots.len(), model.len());
                prop_assert!(shard.bytes <= shard.limit);
            }
        }
    }
}
