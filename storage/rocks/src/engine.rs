//! The database: its column families, and what their keys and values are.
//!
//! | family | key | value |
//! |---|---|---|
//! | `idx` | the object's id, 32 bytes | where it is: its ordinal, 8 bytes big endian, or one byte 1, group and member |
//! | `hot` | the ordinal, 8 bytes big endian | one byte 0, then the object's bytes; or one byte 1, then a zstd frame |
//! | `packs` | a group, 8 bytes big endian, then `d` | one byte 1, the number of members, how long each is |
//! | | a group, then `f` | a zstd frame: the members one behind the other |
//! | `pins` | task (16 bytes), epoch (8 bytes big endian), object id | nothing |
//! | `refs`, `snapshots`, `oplog`, `workspaces`, `experiments`, `gitmap`, `settings` | a record's key | its value |
//! | `meta` | `head` | last ordinal, objects, their bytes: 8 bytes big endian each |
//!
//! Group, member and lengths are numbers of seven bits per byte, the lowest first. Ordinals are given in the order of arrival, so
//! values that were written together lie together, and an id is kept once. A batch that changes records takes an ordinal too,
//! which no object has. `head` is written in the same batch as the objects it counts.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use helix_objects::{Family, ObjectError, RecordChange};
use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties::{
    BLOCK_CACHE_USAGE, CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_PENDING_COMPACTION_BYTES, ESTIMATE_TABLE_READERS_MEM, LIVE_SST_FILES_SIZE,
    PropName,
};
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamily, CompactOptions, DB, DBPinnableSlice, ErrorKind, FlushOptions, WriteBatch,
};
use zstd::bulk::Compressor;

use crate::{Compression, RocksOptions};

mod content;
mod logs;
mod options_file;
mod pins;
mod tuning;
mod unpacked;

pub(crate) use content::Indexed;
use logs::{Logs, WholeLogs};
use options_file::OptionsFile;
use tuning::{Damage, Replayed};
use unpacked::UnpackedGroups;

const IDX: &str = "idx";
const HOT: &str = "hot";
const PACKS: &str = "packs";
const PINS: &str = "pins";
pub(crate) const META: &str = "meta";
const HEAD: &[u8] = b"head";
/// Reading more than this again makes whoever opens the database wait longer than a process takes to start.
const LONG_LOG_BYTES: u64 = 256 << 10;
/// With so many logs, closing the database writes out what is in them.
const MANY_LOGS: usize = 8;
/// With so many, as after deaths, opening it does.
const MOST_LOGS: usize = 16;

/// What is there, as of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last ordinal given.
    pub(crate) ordinal: u64,
    pub(crate) objects: u64,
    pub(crate) logical_bytes: u64,
}

pub(crate) struct Engine {
    path: PathBuf,
    db: DB,
    /// Blocks of tables; all families share it.
    blocks: Cache,
    blocks_bytes: usize,
    compression: Compression,
    /// For content as it arrives; used by who writes.
    compressor: Mutex<Option<Compressor<'static>>>,
    unpacked: UnpackedGroups,
    /// The greatest number of a group given since the database was opened.
    last_group: Mutex<u64>,
    options_file: Option<OptionsFile>,
}

/// What RocksDB says, as ours.
pub(crate) fn failed(error: rocksdb::Error) -> ObjectError {
    match error.kind() {
        ErrorKind::Corruption => ObjectError::Damaged(error.into_string()),
        _ => ObjectError::Backend(error.into_string()),
    }
}

fn every_family() -> impl Iterator<Item = &'static str> {
    [IDX, HOT, PACKS, PINS, META].into_iter().chain(Family::ALL.map(Family::name))
}

impl Engine {
    /// Opens for writing. What is behind a damage of the log is dropped.
    pub(crate) fn open(path: &Path, options: &RocksOptions) -> Result<Self, ObjectError> {
        Self::open_whole(path, options)?.map_or_else(|| Self::open_damaged(path, options), Ok)
    }

    /// As [`open`](Self::open), where nothing is damaged that has to be read for it. Else it is `None`, and nothing was changed.
    pub(crate) fn open_whole(path: &Path, options: &RocksOptions) -> Result<Option<Self>, ObjectError> {
        // Each opening begins a log, and each one that is kept is read again at the next: so there are never many.
        let replayed = if Logs::of(path)?.count < MOST_LOGS { Replayed::Kept } else { Replayed::Written };
        match Self::open_as(path, options, replayed, Damage::Refused) {
            Ok(opened) => opened.map(Some),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// As [`open`](Self::open), where the log is damaged in a way in which it can only be opened without what is behind the damage.
    /// That is kept beside the database.
    pub(crate) fn open_cut(path: &Path, options: &RocksOptions) -> Result<Self, ObjectError> {
        logs::cut(path)?;
        Self::open_damaged(path, options)
    }

    /// Nothing of the damaged log is needed afterwards: the next opening would meet it beside newer tables, and fail.
    fn open_damaged(path: &Path, options: &RocksOptions) -> Result<Self, ObjectError> {
        Self::open_as(path, options, Replayed::Written, Damage::Dropped).map_err(failed)?
    }

    fn open_as(
        path: &Path,
        options: &RocksOptions,
        replayed: Replayed,
        damage: Damage,
    ) -> Result<Result<Self, ObjectError>, rocksdb::Error> {
        let database = tuning::database(options, replayed, damage)?;
        let blocks = Cache::new_lru_cache(options.block_cache_bytes);
        let db = DB::open_cf_descriptors(&database, path, tuning::families(options, &blocks))?;
        Ok(OptionsFile::take(path).map(|options_file| Self::over(path, db, blocks, options, options_file)))
    }

    /// Opens without changing anything: what is read is what opening for writing would recover.
    pub(crate) fn open_read_only(path: &Path, options: &RocksOptions) -> Result<Self, ObjectError> {
        Self::open_to_read(path, options, path)
    }

    /// As [`open_read_only`](Self::open_read_only), and as [`open_cut`](Self::open_cut) would open it.
    /// `None` where the log is whole.
    pub(crate) fn open_read_only_cut(path: &Path, options: &RocksOptions) -> Result<Option<Self>, ObjectError> {
        let Some(logs) = WholeLogs::beside(path)? else { return Ok(None) };
        Self::open_to_read(path, options, logs.folder()).map(Some)
    }

    fn open_to_read(path: &Path, options: &RocksOptions, logs: &Path) -> Result<Self, ObjectError> {
        let mut read_only = tuning::database(options, Replayed::Kept, Damage::Dropped).map_err(failed)?;
        read_only.create_if_missing(false);
        read_only.create_missing_column_families(false);
        read_only.set_wal_dir(logs);
        // An older program made it perhaps, and knew fewer families.
        let there = DB::list_cf(&read_only, path).map_err(failed)?;
        let blocks = Cache::new_lru_cache(options.block_cache_bytes);
        let families =
            tuning::families(options, &blocks).into_iter().filter(|family| there.iter().any(|name| name == family.name()));
        let db = DB::open_cf_descriptors_read_only(&read_only, path, families, false).map_err(failed)?;
        Ok(Self::over(path, db, blocks, options, None))
    }

    fn over(path: &Path, db: DB, blocks: Cache, options: &RocksOptions, options_file: Option<OptionsFile>) -> Self {
        let unpacked = UnpackedGroups::new(options.pack_cache_bytes);
        Self {
            path: path.to_owned(),
            db,
            blocks,
            blocks_bytes: options.block_cache_bytes,
            compression: options.compression,
            compressor: Mutex::default(),
            unpacked,
            last_group: Mutex::default(),
            options_file,
        }
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family is named when the database is opened")
    }

    pub(crate) fn head(&self) -> Result<Head, ObjectError> {
        // A list of families that was damaged may lack this one.
        let Some(meta) = self.db.cf_handle(META) else { return Ok(Head::default()) };
        let Some(bytes) = self.db.get_pinned_cf(meta, HEAD).map_err(failed)? else { return Ok(Head::default()) };
        match bytes.as_chunks::<8>() {
            ([ordinal, objects, logical], []) => Ok(Head {
                ordinal: u64::from_be_bytes(*ordinal),
                objects: u64::from_be_bytes(*objects),
                logical_bytes: u64::from_be_bytes(*logical),
            }),
            _ => Err(ObjectError::Damaged("the head record is damaged".to_owned())),
        }
    }

    pub(crate) fn add_head(&self, batch: &mut WriteBatch, head: Head) {
        let value = [head.ordinal, head.objects, head.logical_bytes].map(u64::to_be_bytes).concat();
        batch.put_cf(self.family(META), HEAD, value);
    }

    pub(crate) fn record(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, ObjectError> {
        self.db.get_pinned_cf(self.family(family.name()), key).map_err(failed)
    }

    /// The records whose keys begin with `prefix`, behind `after`.
    pub(crate) fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError> {
        let from = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let mut found = Vec::new();
        let mut rows = self.db.raw_iterator_cf(self.family(family.name()));
        rows.seek(from);
        while let (true, Some((key, value))) = (found.len() < limit, rows.item()) {
            if !key.starts_with(prefix) {
                break;
            }
            if Some(key) != after {
                found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
            rows.next();
        }
        rows.status().map_err(failed)?;
        Ok(found)
    }

    pub(crate) fn add_change(&self, batch: &mut WriteBatch, change: &RecordChange) {
        let family = self.family(change.family.name());
        match &change.value {
            Some(value) => batch.put_cf(family, &change.key, value),
            None => batch.delete_cf(family, &change.key),
        }
    }

    /// Writes a batch to the log and the tables, without a sync.
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), ObjectError> {
        self.db.write(batch).map_err(failed)
    }

    /// Puts everything that was written on disk.
    pub(crate) fn sync(&self) -> Result<(), ObjectError> {
        self.db.flush_wal(true).map_err(failed)
    }

    /// Writes into tables what would take long to read again from the log. Closing is when nobody waits for it.
    pub(crate) fn shorten_log(&self) -> Result<(), ObjectError> {
        let logs = Logs::of(&self.path)?;
        if logs.bytes < LONG_LOG_BYTES && logs.count < MANY_LOGS { Ok(()) } else { self.flush() }
    }

    /// Writes into tables what is in none yet.
    pub(crate) fn flush(&self) -> Result<(), ObjectError> {
        let families: Vec<&ColumnFamily> = every_family().map(|name| self.family(name)).collect();
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_cfs_opt(&families, &flush).map_err(failed)
    }

    /// Lets go of what was read and can be read again: unpacked groups and blocks of tables.
    pub(crate) fn forget_read(&self) {
        self.unpacked.clear();
        let mut blocks = self.blocks.clone();
        blocks.set_capacity(0);
        blocks.set_capacity(self.blocks_bytes);
    }

    /// Bytes that are in memory and in the log, and in no table.
    pub(crate) fn buffered_bytes(&self) -> Result<u64, ObjectError> {
        self.sum(&[CUR_SIZE_ALL_MEM_TABLES])
    }

    /// Writes everything into tables and merges them, so that nothing that was deleted is left.
    pub(crate) fn compact(&self) -> Result<(), ObjectError> {
        self.unpacked.clear();
        self.flush()?;
        let mut compact = CompactOptions::default();
        compact.set_exclusive_manual_compaction(false);
        compact.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        for name in every_family() {
            self.db.compact_range_cf_opt(self.family(name), None::<&[u8]>, None::<&[u8]>, &compact);
        }
        Ok(())
    }

    /// Rows of the family `hot`.
    pub(crate) fn hot_rows(&self) -> Result<u64, ObjectError> {
        self.count(HOT)
    }

    /// Reads a whole family and counts its rows. One that an older program did not know has none.
    pub(crate) fn count(&self, family: &str) -> Result<u64, ObjectError> {
        let Some(family) = self.db.cf_handle(family) else { return Ok(0) };
        let mut rows = self.db.raw_iterator_cf(family);
        rows.seek_to_first();
        let mut count = 0;
        while rows.valid() {
            count += 1;
            rows.next();
        }
        rows.status().map_err(failed)?;
        Ok(count)
    }

    /// Bytes of tables, and of the log, which has what is in no table yet.
    pub(crate) fn stored_bytes(&self) -> Result<u64, ObjectError> {
        Ok(self.sum(&[LIVE_SST_FILES_SIZE])? + Logs::of(&self.path)?.bytes)
    }

    /// Bytes of tables that wait to be merged.
    pub(crate) fn pending_bytes(&self) -> Result<u64, ObjectError> {
        self.sum(&[ESTIMATE_PENDING_COMPACTION_BYTES])
    }

    /// Memory of buffers, of tables' indexes, of the block cache and of unpacked groups.
    pub(crate) fn memory_bytes(&self) -> Result<u64, ObjectError> {
        let families = self.sum(&[CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_TABLE_READERS_MEM])?;
        // All families share one cache.
        let blocks = self.db.property_int_value_cf(self.family(HOT), BLOCK_CACHE_USAGE).map_err(failed)?.unwrap_or(0);
        Ok(families + blocks + self.unpacked.bytes() as u64)
    }

    fn sum(&self, properties: &[&PropName]) -> Result<u64, ObjectError> {
        let mut sum = 0;
        for family in every_family() {
            for property in properties {
                sum += self.db.property_int_value_cf(self.family(family), *property).map_err(failed)?.unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// Copies the database, as of now, into a folder that does not exist yet.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), ObjectError> {
        let copy = || Checkpoint::new(&self.db).and_then(|point| point.create_checkpoint(path)).map_err(failed);
        match &self.options_file {
            Some(file) => {
                file.with(copy)?;
                OptionsFile::take(path).map(drop)
            }
            None => copy(),
        }
    }

    /// Waits for what runs in the background, so that dropping does not.
    pub(crate) fn finish(&self) {
        self.db.cancel_all_background_work(true);
    }
}
