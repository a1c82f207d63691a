//! The store over the database: who writes when, what is acknowledged when, and how it comes back
//! from a full disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use helix_objects::{
    Durability, Family, Ledger, Mark, NewObject, ObjectError, ObjectStore, Pin, RecordChange, RecordStore, StoreFolder, StoreStats,
    purged_by_records,
};
use helix_protocol::ObjectId;
use parking_lot::{Mutex, RwLock};
use rocksdb::WriteBatch;

use crate::RocksOptions;
use crate::engine::{Engine, Head};
use crate::group_sync::GroupSync;
use crate::latency::Latencies;
use crate::mark_file::{Acknowledged, MarkFile};

mod backup;
mod check;
mod collect;
mod commit;
#[cfg(feature = "testing")]
mod copies;
mod loss;
mod packing;
mod writer;

pub use backup::Backup;
pub use check::{Checked, RocksStats};
use commit::{Draft, Queue};
pub use loss::Loss;
use loss::{Found, look};
use writer::{Room, Writer};

/// The folder's format this program writes.
const FORMAT: u32 = 2;
/// So much that only the log has on disk becomes tables when the store rests.
const MUCH_BUFFERED: u64 = 16 << 20;
/// The file that says how far writes were acknowledged.
const MARK: &str = "mark";

/// A store in a folder. A [`Mark`] is the ordinal of the last object or record change written.
///
/// A store that lost acknowledged writes is not opened: `LostWrites` says how far they are there. Then either the store is
/// restored from a backup, or somebody who knows what that means calls [`open_accepting_loss`](Self::open_accepting_loss).
pub struct RocksStore {
    path: PathBuf,
    options: RocksOptions,
    folder: Mutex<Option<StoreFolder>>,
    engine: RwLock<State>,
    writer: Mutex<Writer>,
    queue: Queue,
    /// Who writes, and what was named since a collection began.
    ledger: Ledger,
    /// Held by what moves or drops content: packing, sweeping, purging, merging tables.
    upkeep: Mutex<()>,
    latencies: Latencies,
    mark_file: MarkFile,
    /// The writer's `head.ordinal`, for who does not hold it.
    written: AtomicU64,
    group: GroupSync,
    #[cfg(feature = "testing")]
    copies: copies::Copies,
}

enum State {
    Open(Box<Engine>),
    /// A write failed and opening the database again failed too.
    Broken(String),
    Closed,
}

impl RocksStore {
    /// Opens the store in `path`, which is made where it is missing. Fails with `InUse` where another
    /// process has it, with `NewerFormat` where a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, ObjectError> {
        Self::open_with(path, RocksOptions::default())
    }

    /// As [`open`](Self::open), tuned.
    pub fn open_with(path: &Path, options: RocksOptions) -> Result<Self, ObjectError> {
        let folder = take_folder(path)?;
        let mark_file = open_mark_file(&folder)?;
        let Acknowledged { mark: acknowledged, clean } = mark_file.says();
        let database = path.join("db");
        // What was closed is whole. Opening for writing drops what follows a damaged part of the log for ever, so else look first.
        let whole = if clean { Engine::open_whole(&database, &options)? } else { None };
        let engine = match whole {
            Some(engine) => engine,
            None => {
                look(&database, &options)?.complete(acknowledged)?;
                Engine::open(&database, &options)?
            }
        };
        let head = engine.head()?;
        Found { head, is_cut: false }.complete(acknowledged)?;
        Self::assemble(folder, options, mark_file, engine, head)
    }

    /// What [`open_accepting_loss`](Self::open_accepting_loss) would accept. Changes nothing.
    pub fn loss(path: &Path, options: RocksOptions) -> Result<Option<Loss>, ObjectError> {
        let folder = take_folder(path)?;
        let acknowledged = acknowledged(&folder)?;
        Ok(Loss::between(look(&path.join("db"), &options)?, acknowledged))
    }

    /// As [`open_with`](Self::open_with), but a store that lost acknowledged writes goes on with what is there, and says what was
    /// lost. Where that is only possible without a part of the log, that is kept in a folder `log.damaged-1` (2, 3, …) beside the
    /// database. Marks go on behind the greatest one acknowledged, so that none is ever given twice.
    pub fn open_accepting_loss(path: &Path, options: RocksOptions) -> Result<(Self, Option<Loss>), ObjectError> {
        let folder = take_folder(path)?;
        let acknowledged = acknowledged(&folder)?;
        let database = path.join("db");
        let found = look(&database, &options)?;
        let engine = if found.is_cut { Engine::open_cut(&database, &options)? } else { Engine::open(&database, &options)? };
        let loss = Loss::between(found, acknowledged);
        let found = engine.head()?;
        let head = Head { ordinal: found.ordinal.max(acknowledged.unwrap_or_default().0), ..found };
        let mut batch = WriteBatch::default();
        engine.add_head(&mut batch, head);
        engine.write(batch)?;
        engine.sync()?;
        let mark_file = MarkFile::make(&path.join(MARK), Acknowledged { mark: Mark(head.ordinal), clean: false })?;
        if let Some(loss) = loss {
            tracing::warn!(path = %path.display(), ?loss, "the content store goes on without writes that were acknowledged");
        }
        Ok((Self::assemble(folder, options, mark_file, engine, head)?, loss))
    }

    fn assemble(
        folder: StoreFolder,
        options: RocksOptions,
        mark_file: MarkFile,
        engine: Engine,
        head: Head,
    ) -> Result<Self, ObjectError> {
        mark_file.begin()?;
        Ok(Self {
            path: folder.path().to_owned(),
            options,
            folder: Mutex::new(Some(folder)),
            engine: RwLock::new(State::Open(Box::new(engine))),
            writer: Mutex::new(Writer::new(head)),
            queue: Queue::default(),
            ledger: Ledger::default(),
            upkeep: Mutex::default(),
            latencies: Latencies::default(),
            mark_file,
            written: AtomicU64::new(head.ordinal),
            // What was recovered was read from disk; whether it is on disk only a sync can tell.
            group: GroupSync::new(0),
            #[cfg(feature = "testing")]
            copies: copies::Copies::default(),
        })
    }

    /// The last mark there is. After opening: how far the store was recovered.
    pub fn mark(&self) -> Mark {
        Mark(self.written())
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

    /// Returns once what was written up to `mark` is as durable as was asked.
    fn acknowledge(&self, mark: Mark, durability: Durability) -> Result<Mark, ObjectError> {
        match durability {
            Durability::NoSync => {}
            Durability::Group => self.sync(mark)?,
            Durability::Sync if mark > Mark::default() => self.group.alone(|| self.written(), |covers| self.sync_log(covers))?,
            Durability::Sync => self.sync(self.mark())?,
        }
        Ok(mark)
    }

    /// Syncs the log and says so in the mark file; after a failure nobody knows what is on disk, so the database is
    /// opened again.
    fn sync_log(&self, covers: u64) -> Result<(), ObjectError> {
        self.with(Engine::sync).inspect_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "the content store's log could not be synced");
            self.writer.lock().failed = true;
        })?;
        self.mark_file.advance(Mark(covers))
    }

    /// Lets go of memory that can be had again, for when nobody uses the store: what was read, and what was written where that is
    /// much; it becomes tables.
    pub fn rest(&self) -> Result<(), ObjectError> {
        let buffered = self.with(|engine| {
            engine.forget_read();
            engine.buffered_bytes()
        })?;
        if buffered >= MUCH_BUFFERED {
            self.check_space(buffered + self.options.reserve_bytes)?;
            self.with(Engine::flush)?;
        }
        Ok(())
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

fn take_folder(path: &Path) -> Result<StoreFolder, ObjectError> {
    let mut folder = StoreFolder::open(path, FORMAT)?;
    if folder.format() < FORMAT {
        // Format 1 lacks column families and the mark file. An older program would not open what has them.
        MarkFile::open(&path.join(MARK))?;
        folder.raise_format(FORMAT)?;
    }
    Ok(folder)
}

fn open_mark_file(folder: &StoreFolder) -> Result<MarkFile, ObjectError> {
    let path = folder.path().join(MARK);
    // It is made before the database is.
    if folder.path().join("db/CURRENT").exists() && !path.exists() {
        return Err(ObjectError::Unmarked { path: path.display().to_string(), reason: "is gone" });
    }
    MarkFile::open(&path)
}

/// How far writes were acknowledged; `None` where the file that says so is damaged or gone.
fn acknowledged(folder: &StoreFolder) -> Result<Option<Mark>, ObjectError> {
    match open_mark_file(folder) {
        Ok(file) => Ok(Some(file.says().mark)),
        Err(ObjectError::Unmarked { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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
        let started = Instant::now();
        let mark = self.write_draft(Draft { objects, changes })?;
        let mark = self.acknowledge(mark, durability)?;
        self.latencies.add(started.elapsed());
        Ok(mark)
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
        self.ledger.name(ids.iter().copied());
        let places = self.with(|engine| engine.places(ids))?;
        Ok(ids.iter().zip(places).filter(|(_, place)| place.is_none()).map(|(id, _)| *id).collect())
    }

    /// The mark is the greatest ordinal among the objects, so that a put of known content waits for
    /// nobody else's sync.
    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        let mark = self.write_draft(Draft { objects, changes: &[] })?;
        self.acknowledge(mark, durability)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        let recovered = self.mark();
        if mark > recovered {
            return Err(ObjectError::LostWrites { recovered, acknowledged: mark });
        }
        self.group.reach(mark.0, || self.written(), |covers| self.sync_log(covers))
    }

    /// Written at once, on disk with the next sync.
    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.write(Room::Takes, |engine, batch, _| {
            self.ledger.name(ids.iter().copied());
            engine.add_pins(batch, pin, ids);
            Ok(())
        })
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.write(Room::Frees, |engine, batch, _| engine.add_release(batch, up_to))
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.with(Engine::pins)
    }

    fn purged(&self) -> Result<HashSet<ObjectId>, ObjectError> {
        purged_by_records(self)
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        let head = self.writer.lock().head;
        let stored_bytes = self.with(Engine::stored_bytes)?;
        Ok(StoreStats { objects: head.objects, logical_bytes: head.logical_bytes, stored_bytes })
    }

    fn close(&self) -> Result<(), ObjectError> {
        // Whoever writes finishes first.
        let _writer = self.writer.lock();
        let mut state = self.engine.write();
        let outcome = match &*state {
            State::Open(engine) => {
                if let Err(error) = engine.shorten_log() {
                    // Everything is in the log.
                    tracing::warn!(path = %self.path.display(), %error, "the log stays long");
                }
                let outcome = engine.sync().and_then(|()| self.mark_file.close(self.mark()));
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
