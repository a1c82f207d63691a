//! The database: its column families, what their keys and values are, and how it is tuned.
//!
//! | family | key | value |
//! |---|---|---|
//! | `idx` | the object's id, 32 bytes | its ordinal, 8 bytes big endian |
//! | `hot` | the ordinal, 8 bytes big endian | one byte 0, then the object's bytes |
//! | `pins` | task (16 bytes), epoch (8 bytes big endian), object id | nothing |
//! | `refs`, `oplog`, `workspaces`, `experiments`, `gitmap`, `settings` | a record's key | its value |
//! | `meta` | `head` | last ordinal, objects, their bytes: 8 bytes big endian each |
//!
//! Ordinals are given in the order of arrival, so values that were written together lie together, and
//! an id is kept once. A value's first byte leaves room for content that lies elsewhere or is
//! kept as a difference. A batch that changes records takes an ordinal too, which no object has. `head` is written in the same batch as the objects it counts.

use std::path::Path;

use bytes::Bytes;
use helix_objects::{Family, ObjectError, Pin, RecordChange, hash};
use helix_protocol::{Epoch, ObjectId, TaskId};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBPinnableSlice, DBRecoveryMode,
    Direction, InfoLogger, IteratorMode, LogLevel, Options, WriteBatch,
};

use crate::RocksOptions;

const IDX: &str = "idx";
const HOT: &str = "hot";
const PINS: &str = "pins";
const META: &str = "meta";
const HEAD: &[u8] = b"head";
/// The value is the object's bytes.
const WHOLE: u8 = 0;

/// What is there, as of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last ordinal given.
    pub(crate) ordinal: u64,
    pub(crate) objects: u64,
    pub(crate) logical_bytes: u64,
}

pub(crate) struct Engine {
    db: DB,
}

/// What RocksDB says, as ours.
pub(crate) fn failed(error: rocksdb::Error) -> ObjectError {
    ObjectError::Backend(error.into_string())
}

impl Engine {
    pub(crate) fn open(path: &Path, options: &RocksOptions) -> Result<Self, ObjectError> {
        let db = DB::open_cf_descriptors(&database_options(), path, families(options)).map_err(failed)?;
        Ok(Self { db })
    }

    /// What opening would recover, found without changing anything.
    pub(crate) fn look(path: &Path, options: &RocksOptions) -> Result<Head, ObjectError> {
        let mut read_only = database_options();
        read_only.create_if_missing(false);
        read_only.create_missing_column_families(false);
        let db = DB::open_cf_descriptors_read_only(&read_only, path, families(options), false).map_err(failed)?;
        Self { db }.head()
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family is named when the database is opened")
    }

    pub(crate) fn head(&self) -> Result<Head, ObjectError> {
        let Some(bytes) = self.db.get_pinned_cf(self.family(META), HEAD).map_err(failed)? else { return Ok(Head::default()) };
        match bytes.as_chunks::<8>() {
            ([ordinal, objects, logical], []) => Ok(Head {
                ordinal: u64::from_be_bytes(*ordinal),
                objects: u64::from_be_bytes(*objects),
                logical_bytes: u64::from_be_bytes(*logical),
            }),
            _ => Err(ObjectError::Backend("the head record is damaged".to_owned())),
        }
    }

    /// The ordinals of objects, `None` for those that are not there.
    pub(crate) fn ordinals(&self, ids: &[ObjectId]) -> Result<Vec<Option<u64>>, ObjectError> {
        let keys = ids.iter().map(|id| &id.0);
        let found = self.db.batched_multi_get_cf(self.family(IDX), keys, false);
        found.into_iter().map(|value| value.map_err(failed)?.map(|value| ordinal(&value)).transpose()).collect()
    }

    /// An object's bytes, checked against its id.
    pub(crate) fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        let Some(key) = self.db.get_pinned_cf(self.family(IDX), id.0).map_err(failed)? else { return Ok(None) };
        let value = self.db.get_pinned_cf(self.family(HOT), ordinal(&key)?.to_be_bytes()).map_err(failed)?;
        value.map(|value| content(id, &value)).unwrap_or(Err(ObjectError::Missing(id))).map(Some)
    }

    /// As [`get`](Self::get), for many at once.
    pub(crate) fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        let ordinals = self.ordinals(ids)?;
        let keys: Vec<[u8; 8]> = ordinals.iter().flatten().map(|ordinal| ordinal.to_be_bytes()).collect();
        let mut values = self.db.batched_multi_get_cf(self.family(HOT), &keys, false).into_iter();
        let mut found = Vec::with_capacity(ids.len());
        for (id, ordinal) in ids.iter().zip(ordinals) {
            found.push(match ordinal.and_then(|_| values.next()) {
                Some(value) => Some(content(*id, &value.map_err(failed)?.ok_or(ObjectError::Missing(*id))?)?),
                None => None,
            });
        }
        Ok(found)
    }

    pub(crate) fn add_object(&self, batch: &mut WriteBatch, ordinal: u64, id: ObjectId, bytes: &[u8]) {
        let key = ordinal.to_be_bytes();
        let mut value = Vec::with_capacity(bytes.len() + 1);
        value.push(WHOLE);
        value.extend_from_slice(bytes);
        batch.put_cf(self.family(IDX), id.0, key);
        batch.put_cf(self.family(HOT), key, value);
    }

    pub(crate) fn add_head(&self, batch: &mut WriteBatch, head: Head) {
        let value = [head.ordinal, head.objects, head.logical_bytes].map(u64::to_be_bytes).concat();
        batch.put_cf(self.family(META), HEAD, value);
    }

    pub(crate) fn add_pins(&self, batch: &mut WriteBatch, pin: Pin, ids: &[ObjectId]) {
        for id in ids {
            batch.put_cf(self.family(PINS), pin_key(pin, *id), []);
        }
    }

    /// Adds the deletion of every pin of the task up to and including the epoch.
    pub(crate) fn add_release(&self, batch: &mut WriteBatch, up_to: Pin) -> Result<(), ObjectError> {
        let first = pin_key(Pin { epoch: Epoch(0), ..up_to }, ObjectId([0; 32]));
        for item in self.db.iterator_cf(self.family(PINS), IteratorMode::From(&first, Direction::Forward)) {
            let (key, _) = item.map_err(failed)?;
            if pin_of(&key)?.0 > up_to {
                break;
            }
            batch.delete_cf(self.family(PINS), key);
        }
        Ok(())
    }

    pub(crate) fn pins(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.db.iterator_cf(self.family(PINS), IteratorMode::Start).map(|item| pin_of(&item.map_err(failed)?.0)).collect()
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

    /// Bytes of tables and of what is not in tables yet.
    pub(crate) fn stored_bytes(&self) -> Result<u64, ObjectError> {
        let mut sum = 0;
        for family in [IDX, HOT, PINS, META].into_iter().chain(Family::ALL.map(Family::name)) {
            for property in [rocksdb::properties::LIVE_SST_FILES_SIZE, rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES] {
                sum += self.db.property_int_value_cf(self.family(family), property).map_err(failed)?.unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// Waits for what runs in the background, so that dropping does not.
    pub(crate) fn finish(&self) {
        self.db.cancel_all_background_work(true);
    }
}

fn ordinal(value: &[u8]) -> Result<u64, ObjectError> {
    let value = <[u8; 8]>::try_from(value).map_err(|_| ObjectError::Backend("an index record is damaged".to_owned()))?;
    Ok(u64::from_be_bytes(value))
}

fn content(id: ObjectId, value: &[u8]) -> Result<Bytes, ObjectError> {
    let Some((&WHOLE, bytes)) = value.split_first() else {
        return Err(ObjectError::Backend(format!("object {id} is kept in a way this version does not know")));
    };
    let found = hash(bytes);
    if found == id { Ok(Bytes::copy_from_slice(bytes)) } else { Err(ObjectError::Corrupt { id, found }) }
}

fn pin_key(pin: Pin, id: ObjectId) -> [u8; 56] {
    let mut key = [0; 56];
    key[..16].copy_from_slice(pin.task.0.as_bytes());
    key[16..24].copy_from_slice(&pin.epoch.0.to_be_bytes());
    key[24..].copy_from_slice(&id.0);
    key
}

fn pin_of(key: &[u8]) -> Result<(Pin, ObjectId), ObjectError> {
    let damaged = || ObjectError::Backend("a pin record is damaged".to_owned());
    let (task, rest) = key.split_first_chunk::<16>().ok_or_else(damaged)?;
    let (epoch, id) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let id = <[u8; 32]>::try_from(id).map_err(|_| damaged())?;
    let pin = Pin { task: TaskId(uuid::Uuid::from_bytes(*task)), epoch: Epoch(u64::from_be_bytes(*epoch)) };
    Ok((pin, ObjectId(id)))
}

fn families(options: &RocksOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let mut families = vec![
        ColumnFamilyDescriptor::new(IDX, index_options(options, &cache)),
        ColumnFamilyDescriptor::new(HOT, content_options(options, &cache)),
        ColumnFamilyDescriptor::new(PINS, Options::default()),
        ColumnFamilyDescriptor::new(META, Options::default()),
    ];
    families.extend(Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), record_options(&cache))));
    families
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // What follows a damaged record is not replayed. Whether acknowledged writes were among it, the mark tells.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_recycle_log_file_num(2);
    options.set_manual_wal_flush(false);
    options.set_max_total_wal_size(256 << 20);
    options.set_max_background_jobs(2);
    options.set_max_file_opening_threads(2);
    options.set_skip_stats_update_on_db_open(true);
    options.set_bytes_per_sync(1 << 20);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |_, line| {
        tracing::warn!(line = line.trim_end(), "the database says");
    }));
    options
}

/// Random keys, tiny values, mostly asked for what is not there.
fn index_options(options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.write_buffer_bytes / 4);
    family.set_compression_type(DBCompressionType::None);
    family
}

/// Few and small beside the content.
fn record_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(4 << 20);
    family.set_compression_type(DBCompressionType::Lz4);
    family
}

/// Ascending keys, large values.
fn content_options(options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_compression_type(DBCompressionType::Lz4);
    family
}
