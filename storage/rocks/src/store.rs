//! The store over the database: who writes when, what is acknowledged when, and how it comes back
//! from a full disk.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use helix_objects::{
    Durability, Family, Mark, NewObject, ObjectError, ObjectStore, Pin, RecordChange, RecordStore, StoreFolder, StoreStats,
};
use helix_protocol::ObjectId;
use parking_lot::{Mutex, RwLock};
use rocksdb::WriteBatch;

use crate::engine::{Engine, Head};
use crate::group_sync::GroupSync;

/// The folder's format this program writes.
const FORMAT: u32 = 2;

/// How the database is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Content is gathered in memory up to this many bytes before it becomes a table.
    pub write_buffer_bytes: usize,
    /// Blocks of tables kept in memory, in bytes.
    pub block_cache_bytes: usize,
    /// Writes are refused as on a full disk while less than this many bytes are free: tables are
    /// written and merged in the background and need room.
    pub reserve_bytes: u64,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { write_buffer_bytes: 32 << 20, block_cache_bytes: 64 << 20, reserve_bytes: 128 << 20 }
    }
}

/// The node's store. A [`Mark`] is the ordinal of the last object written.
pub struct RocksStore {
    path: PathBuf,
    options: RocksOptions,
    folder: Mutex<Option<StoreFolder>>,
    engine: RwLock<State>,
    writer: Mutex<Writer>,
    /// The writer's `head.ordinal`, for who does not hold it.
    written: AtomicU64,
    group: GroupSync,
}

enum State {
    Open(Engine),
    /// A write failed and opening the database again failed too.
    Broken(String),
    Closed,
}

struct Writer {
    head: Head,
    /// A write or a sync failed: the database takes no more until it is opened again.
    failed: bool,
}

impl RocksStore {
    /// Opens the store in `path`, which is made where it is missing. Fails with `InUse` where another
    /// process has it, with `NewerFormat` where a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, ObjectError> {
        Self::open_with(path, RocksOptions::default())
    }

    /// As [`open`](Self::open), tuned.
    pub fn open_with(path: &Path, options: RocksOptions) -> Result<Self, ObjectError> {
        let mut folder = StoreFolder::open(path, FORMAT)?;
        // Format 1 lacks families that format 2 has. An older program would not open what has them.
        folder.raise_format(FORMAT)?;
        let engine = Engine::open(&path.join("db"), &options)?;
        let head = engine.head()?;
        Ok(Self {
            path: path.to_owned(),
            options,
            folder: Mutex::new(Some(folder)),
            engine: RwLock::new(State::Open(engine)),
            writer: Mutex::new(Writer { head, failed: false }),
            written: AtomicU64::new(head.ordinal),
            // What was recovered was read from disk; whether it is on disk only a sync can tell.
            group: GroupSync::new(0),
        })
    }

    /// The last mark there is. After opening: how far the store was recovered.
    pub fn mark(&self) -> Mark {
        Mark(self.written.load(Ordering::Acquire))
    }

    /// Compares what was recovered with the greatest mark that was ever acknowledged, which the
    /// caller keeps elsewhere. Fails with `LostWrites` where there is less: RocksDB itself leaves out
    /// what follows a damaged or missing part of its log without a word.
    pub fn verify_acknowledged(&self, acknowledged: Mark) -> Result<(), ObjectError> {
        let recovered = self.mark();
        if recovered < acknowledged { Err(ObjectError::LostWrites { recovered, acknowledged }) } else { Ok(()) }
    }

    /// How many shared syncs there were since it was opened.
    pub fn syncs(&self) -> u64 {
        self.group.syncs()
    }

    fn with<T>(&self, act: impl FnOnce(&Engine) -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        match &*self.engine.read() {
            State::Open(engine) => act(engine),
            State::Broken(reason) => Err(ObjectError::Backend(reason.clone())),
            State::Closed => Err(ObjectError::Closed),
        }
    }

    /// Writes under the writer's lock. An error of the database leaves it failed until the next write
    /// opens it again.
    fn write(&self, fill: impl FnOnce(&Engine, &mut WriteBatch, &mut Head) -> Result<(), ObjectError>) -> Result<(), ObjectError> {
        let mut writer = self.writer.lock();
        self.recover(&mut writer)?;
        let mut head = writer.head;
        let outcome = self.with(|engine| {
            let mut batch = WriteBatch::default();
            fill(engine, &mut batch, &mut head)?;
            if batch.is_empty() {
                return Ok(Ok(()));
            }
            self.check_space(batch.size_in_bytes() as u64 + self.options.reserve_bytes)?;
            if head != writer.head {
                engine.add_head(&mut batch, head);
            }
            Ok(engine.write(batch))
        })?;
        match outcome {
            Ok(()) => {
                writer.head = head;
                self.written.store(head.ordinal, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                writer.failed = true;
                Err(error)
            }
        }
    }

    /// Opens the database again after it failed, once there is room for it. What was handed out must
    /// be there again.
    fn recover(&self, writer: &mut Writer) -> Result<(), ObjectError> {
        if !writer.failed {
            return Ok(());
        }
        self.check_space(self.options.reserve_bytes.max(self.options.write_buffer_bytes as u64 / 4))?;
        let mut state = self.engine.write();
        if matches!(*state, State::Closed) {
            return Err(ObjectError::Closed);
        }
        // The old one must be gone before its lock can be taken again.
        *state = State::Broken("the database is being opened again".to_owned());
        let head = match Engine::open(&self.path.join("db"), &self.options).and_then(|engine| Ok((engine.head()?, engine))) {
            Ok((head, engine)) => {
                *state = State::Open(engine);
                head
            }
            Err(error) => {
                *state = State::Broken(error.to_string());
                return Err(error);
            }
        };
        drop(state);
        if head.ordinal < writer.head.ordinal {
            return Err(ObjectError::LostWrites { recovered: Mark(head.ordinal), acknowledged: Mark(writer.head.ordinal) });
        }
        tracing::info!(path = %self.path.display(), ordinal = head.ordinal, "the content store writes again");
        *writer = Writer { head, failed: false };
        self.written.store(head.ordinal, Ordering::Release);
        Ok(())
    }

    /// Returns once what was written up to `mark` is as durable as was asked.
    fn acknowledge(&self, mark: Mark, durability: Durability) -> Result<Mark, ObjectError> {
        match durability {
            Durability::NoSync => {}
            Durability::Group => self.sync(mark)?,
            Durability::Sync if mark > Mark::default() => self.sync_log()?,
            Durability::Sync => {}
        }
        Ok(mark)
    }

    fn check_space(&self, needed: u64) -> Result<(), ObjectError> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| ObjectError::io(&self.path, error))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < needed {
            return Err(ObjectError::io(&self.path, std::io::Error::from(ErrorKind::StorageFull)));
        }
        Ok(())
    }

    /// Syncs the log; after a failure nobody knows what is on disk, so the database is opened again.
    fn sync_log(&self) -> Result<(), ObjectError> {
        self.with(Engine::sync).inspect_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "the content store's log could not be synced");
            self.writer.lock().failed = true;
        })
    }
}

/// Adds what the store lacks of `objects`; the greatest ordinal among all of them.
fn add_objects(engine: &Engine, batch: &mut WriteBatch, head: &mut Head, objects: &[NewObject]) -> Result<Mark, ObjectError> {
    let ids: Vec<ObjectId> = objects.iter().map(NewObject::id).collect();
    let mut given: HashMap<ObjectId, u64> = HashMap::new();
    let mut mark = Mark::default();
    for (object, known) in objects.iter().zip(engine.ordinals(&ids)?) {
        let ordinal = known.unwrap_or_else(|| {
            *given.entry(object.id()).or_insert_with(|| {
                head.ordinal += 1;
                head.objects += 1;
                head.logical_bytes += object.bytes().len() as u64;
                engine.add_object(batch, head.ordinal, object.id(), object.bytes());
                head.ordinal
            })
        });
        mark = mark.max(Mark(ordinal));
    }
    Ok(mark)
}

impl RecordStore for RocksStore {
    fn record(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ObjectError> {
        self.with(|engine| Ok(engine.record(family, key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError> {
        self.with(|engine| engine.records(family, prefix, after, limit))
    }

    fn commit(&self, objects: &[NewObject], changes: &[RecordChange], durability: Durability) -> Result<Mark, ObjectError> {
        let mut mark = Mark::default();
        self.write(|engine, batch, head| {
            for change in changes {
                if !change.expect.allows(engine.record(change.family, &change.key)?.as_deref()) {
                    return Err(ObjectError::Moved { family: change.family, key: change.key.clone() });
                }
            }
            mark = add_objects(engine, batch, head, objects)?;
            changes.iter().for_each(|change| engine.add_change(batch, change));
            if !changes.is_empty() {
                head.ordinal += 1;
                mark = Mark(head.ordinal);
            }
            Ok(())
        })?;
        self.acknowledge(mark, durability)
    }
}

impl ObjectStore for RocksStore {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        self.with(|engine| engine.get(id))
    }

    fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        self.with(|engine| engine.get_many(ids))
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        let ordinals = self.with(|engine| engine.ordinals(ids))?;
        Ok(ids.iter().zip(ordinals).filter(|(_, ordinal)| ordinal.is_none()).map(|(id, _)| *id).collect())
    }

    /// The mark is the greatest ordinal among the objects, so that a put of known content waits for
    /// nobody else's sync.
    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        let mut mark = Mark::default();
        self.write(|engine, batch, head| {
            mark = add_objects(engine, batch, head, objects)?;
            Ok(())
        })?;
        self.acknowledge(mark, durability)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        let recovered = self.mark();
        if mark > recovered {
            return Err(ObjectError::LostWrites { recovered, acknowledged: mark });
        }
        self.group.reach(mark.0, || self.written.load(Ordering::Acquire), || self.sync_log())
    }

    /// Written at once, on disk with the next sync.
    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.write(|engine, batch, _| {
            engine.add_pins(batch, pin, ids);
            Ok(())
        })
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.write(|engine, batch, _| engine.add_release(batch, up_to))
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.with(Engine::pins)
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        let head = self.writer.lock().head;
        let stored_bytes = self.with(Engine::stored_bytes)?;
        Ok(StoreStats { objects: head.objects, logical_bytes: head.logical_bytes, stored_bytes })
    }

    fn close(&self) -> Result<(), ObjectError> {
        let mut state = self.engine.write();
        let outcome = match &*state {
            State::Open(engine) => {
                let outcome = engine.sync();
                engine.finish();
                outcome
            }
            State::Broken(_) | State::Closed => Ok(()),
        };
        *state = State::Closed;
        self.folder.lock().take();
        outcome
    }
}

#[cfg(test)]
mod tests;
