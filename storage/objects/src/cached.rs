//! L1: recently used content in memory, LZ4-compressed, in front of any store.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use helix_protocol::ObjectId;
use parking_lot::Mutex;

use crate::{
    Collect, Collection, Durability, Family, Lease, Mark, NewObject, ObjectError, ObjectStore, Pack, PackHint, Packed, Pin,
    RecordChange, RecordStore, StoreStats, Sweep, Swept,
};

mod shard;

use shard::{Content, Shard};

/// Content is spread over this many locks by the first byte of its id.
const SHARDS: usize = 8;
/// When so much of a shard waits to be compressed, or a sixteenth of it, the thread that does it is woken; from four times
/// as much on writers help.
const FRESH_BYTES: usize = 1 << 20;

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

/// Content in memory, in front of whatever store.
pub trait ContentCache: Send + Sync {
    /// See [`Cached::cache_stats`].
    fn cache_stats(&self) -> CacheStats;
    /// See [`Cached::shrink`].
    fn shrink(&self, bytes: usize);
}

impl<S: ObjectStore> ContentCache for Cached<S> {
    fn cache_stats(&self) -> CacheStats {
        Cached::cache_stats(self)
    }

    fn shrink(&self, bytes: usize) {
        Cached::shrink(self, bytes);
    }
}

/// A store with a cache in front of it: least recently used content goes first once the bound in
/// bytes is reached. Writes go through and are remembered; whether an object exists is always the
/// store's answer, never the cache's.
///
/// What is written is compressed a little later, by a thread of its own, so that no commit waits for it.
#[derive(Debug)]
pub struct Cached<S> {
    store: S,
    cache: Arc<Cache>,
    /// Wakes the thread that compresses; it ends with this.
    squeeze: OnceLock<Option<SyncSender<()>>>,
}

#[derive(Debug)]
struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<S: ObjectStore> Cached<S> {
    /// Puts a cache of at most `limit_bytes` in front of `store`.
    pub fn new(store: S, limit_bytes: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(Shard::new(limit_bytes / SHARDS)));
        let cache = Cache { shards, hits: AtomicU64::new(0), misses: AtomicU64::new(0) };
        Self { store, cache: Arc::new(cache), squeeze: OnceLock::new() }
    }

    /// The store behind it.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Counters since it was made, and its present size.
    pub fn cache_stats(&self) -> CacheStats {
        let mut stats = CacheStats {
            hits: self.cache.hits.load(Ordering::Relaxed),
            misses: self.cache.misses.load(Ordering::Relaxed),
            ..CacheStats::default()
        };
        for shard in &self.cache.shards {
            let shard = shard.lock();
            stats.objects += shard.objects() as u64;
            stats.bytes += shard.bytes as u64;
        }
        stats
    }

    /// Bounds it anew, and lets go of what is above that.
    pub fn set_limit(&self, limit_bytes: usize) {
        for shard in &self.cache.shards {
            let mut shard = shard.lock();
            shard.limit = limit_bytes / SHARDS;
            shard.shrink(limit_bytes / SHARDS);
        }
    }

    /// Compresses everything that is kept as it came: for when nobody asks for anything.
    pub fn squeeze(&self) {
        self.cache.squeeze(|_| true);
    }

    /// As [`squeeze`](Self::squeeze), and keeps only about `bytes` of what was used last.
    pub fn shrink(&self, bytes: usize) {
        self.squeeze();
        self.cache.shards.iter().for_each(|shard| shard.lock().shrink(bytes / SHARDS));
    }

    fn remember(&self, id: ObjectId, bytes: &Bytes) {
        let waits = {
            let mut shard = self.cache.shard(&id).lock();
            // One object must not push out everything else.
            if bytes.len() > shard.limit / 4 {
                return;
            }
            shard.insert_fresh(id, bytes);
            shard.fresh_bytes / fresh_limit(&shard)
        };
        if waits >= 4 || (waits > 0 && !self.wake()) {
            // The thread does not keep up, or there is none.
            self.cache.squeeze_one(self.cache.shard(&id));
        }
    }

    /// Wakes the thread that compresses; false where there is none.
    fn wake(&self) -> bool {
        let start = || {
            let (send, woken) = sync_channel(1);
            let cache = Arc::downgrade(&self.cache);
            let compress = move || {
                while let (Ok(()), Some(cache)) = (woken.recv(), cache.upgrade()) {
                    cache.squeeze(|shard| shard.fresh_bytes * 2 > fresh_limit(shard));
                }
            };
            std::thread::Builder::new().name("cache".to_owned()).spawn(compress).ok().map(|_| send)
        };
        let squeeze = self.squeeze.get_or_init(start);
        // Where it is full the thread has been woken already.
        squeeze.as_ref().is_some_and(|squeeze| !matches!(squeeze.try_send(()), Err(TrySendError::Disconnected(()))))
    }
}

fn fresh_limit(shard: &Shard) -> usize {
    FRESH_BYTES.min(shard.limit / 16).max(1)
}

impl Cache {
    fn shard(&self, id: &ObjectId) -> &Mutex<Shard> {
        &self.shards[usize::from(id.0[0]) % SHARDS]
    }

    fn get(&self, id: &ObjectId) -> Option<Bytes> {
        let content = self.shard(id).lock().touch(id);
        let bytes = content.and_then(|content| content.expand());
        let counter = if bytes.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        bytes
    }

    /// Compresses what is fresh of every shard while `more` says so.
    fn squeeze(&self, more: impl Fn(&Shard) -> bool) {
        for shard in &self.shards {
            while more(&shard.lock()) && self.squeeze_one(shard) {}
        }
    }

    /// Compresses the oldest fresh content of a shard; false where there is none. Nobody waits meanwhile.
    fn squeeze_one(&self, shard: &Mutex<Shard>) -> bool {
        let Some((id, bytes)) = shard.lock().next_fresh() else { return false };
        let content = Content::compress(&bytes);
        shard.lock().replace(&id, content);
        true
    }

    fn forget(&self, which: &dyn Fn(ObjectId) -> bool) {
        self.shards.iter().for_each(|shard| shard.lock().forget(which));
    }
}

impl<S: ObjectStore> ObjectStore for Cached<S> {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        if let Some(bytes) = self.cache.get(&id) {
            return Ok(Some(bytes));
        }
        let found = self.store.get(id)?;
        if let Some(bytes) = &found {
            self.remember(id, bytes);
        }
        Ok(found)
    }

    fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        let mut found: Vec<Option<Bytes>> = ids.iter().map(|id| self.cache.get(id)).collect();
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

    fn sync_all(&self) -> Result<(), ObjectError> {
        self.store.sync_all()
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

    fn purged(&self) -> Result<HashSet<ObjectId>, ObjectError> {
        self.store.purged()
    }

    fn close(&self) -> Result<(), ObjectError> {
        for shard in &self.cache.shards {
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
impl<S: Pack> Pack for Cached<S> {
    fn pack_at_rest(&self, hints: &[PackHint]) -> Result<Packed, ObjectError> {
        self.store.pack_at_rest(hints)
    }

    fn give_room_back(&self) -> Result<(), ObjectError> {
        self.store.give_room_back()
    }
}

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
            self.cache.forget(&|id| !live(id));
        }
        swept
    }

    fn purge(&self, ids: &[ObjectId]) -> Result<Swept, ObjectError> {
        let swept = self.store.purge(ids);
        let purged: HashSet<ObjectId> = ids.iter().copied().collect();
        self.cache.forget(&|id| purged.contains(&id));
        swept
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::Cached;
    use crate::{Durability, MemoryStore, NewObject, ObjectStore, testing};

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
        // So large that the thread is not woken for it.
        let cached = Cached::new(store, 64 << 20);
        let reads: Vec<Bytes> = (0..3).map(|_| cached.read(object.id()).unwrap()).collect();
        assert_eq!(reads, vec![object.bytes().clone(); 3]);
        let stats = cached.cache_stats();
        assert_eq!((stats.hits, stats.misses, stats.objects), (2, 1, 1));
        assert!(stats.bytes > 13_000);
        cached.squeeze();
        assert_eq!(cached.read(object.id()).unwrap(), object.bytes());
        let stats = cached.cache_stats();
        assert!(stats.bytes < 2_000, "13,000 repeating bytes are kept compressed, not in {} bytes", stats.bytes);
    }

    #[test]
    fn a_cache_that_shrinks_keeps_what_was_used_last() {
        let cached = Cached::new(MemoryStore::new(), 8 << 20);
        let objects: Vec<NewObject> =
            (0..2_000).map(|number| NewObject::new(Bytes::from(format!("line of text {number}\n").repeat(200)))).collect();
        cached.put(&objects, Durability::NoSync).unwrap();
        cached.read(objects[0].id()).unwrap();
        let before = cached.cache_stats();
        cached.shrink(64 << 10);
        let after = cached.cache_stats();
        assert!(before.bytes > 64 << 10 && after.bytes <= 64 << 10, "from {} to {} bytes", before.bytes, after.bytes);
        cached.read(objects[0].id()).unwrap();
        assert_eq!(cached.cache_stats().hits, after.hits + 1, "it was used last");
        assert_eq!(&cached.read(objects[1].id()).unwrap(), objects[1].bytes());
        assert_eq!(cached.cache_stats().misses, after.misses + 1);
    }

    #[test]
    fn a_bound_that_is_set_later_holds_at_once_and_from_then_on() {
        let cached = Cached::new(MemoryStore::new(), 8 << 20);
        let objects: Vec<NewObject> =
            (0..2_000).map(|number| NewObject::new(Bytes::from(format!("line of text {number}\n").repeat(200)))).collect();
        cached.put(&objects[..1_000], Durability::NoSync).unwrap();
        assert!(cached.cache_stats().bytes > 256 << 10);
        cached.set_limit(256 << 10);
        assert!(cached.cache_stats().bytes <= 256 << 10);
        cached.put(&objects[1_000..], Durability::NoSync).unwrap();
        let stats = cached.cache_stats();
        assert!(stats.bytes <= 256 << 10 && stats.objects > 0, "{stats:?}");
    }

    #[test]
    fn what_is_written_is_compressed_before_it_fills_the_cache() {
        let cached = Cached::new(MemoryStore::new(), 1 << 20);
        let objects: Vec<NewObject> =
            (0..2_000).map(|number| NewObject::new(Bytes::from(format!("line of text {number}\n").repeat(200)))).collect();
        cached.put(&objects, Durability::NoSync).unwrap();
        cached.squeeze();
        let stats = cached.cache_stats();
        assert!(stats.bytes <= 1 << 20, "{} bytes", stats.bytes);
        assert!(stats.objects > 1_000, "{} objects of 4 KB in 1 MiB", stats.objects);
        for object in &objects {
            assert_eq!(&cached.read(object.id()).unwrap(), object.bytes());
        }
    }
}
