//! The options of the database and of each family.

use helix_objects::Family;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options};

use super::{HOT, IDX, META, PACKS, PINS};
use crate::{Compression, RocksOptions};

pub(super) fn families(options: &RocksOptions, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let mut families = vec![
        ColumnFamilyDescriptor::new(IDX, index(options, cache)),
        ColumnFamilyDescriptor::new(HOT, content(options, cache)),
        ColumnFamilyDescriptor::new(PACKS, packs(cache)),
        ColumnFamilyDescriptor::new(PINS, records(cache)),
        ColumnFamilyDescriptor::new(META, records(cache)),
    ];
    families.extend(Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), records(cache))));
    families
}

/// What becomes of what was only in the log when the database was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// It stays in memory, and the log stays.
    Kept,
    /// It is written into a table of each family: several files and a dozen syncs.
    Written,
}

/// What becomes of a log with a damaged or torn record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The database is not opened.
    Refused,
    /// What follows is not replayed. Whether acknowledged writes were among it, the mark tells.
    Dropped,
}

pub(super) fn database(options: &RocksOptions, replayed: Replayed, damage: Damage) -> Result<Options, rocksdb::Error> {
    let write_buffer_bytes = options.write_buffer_bytes as u64;
    // The bindings have no functions for these. The list of tables goes on where it ended, instead of being written anew with three
    // syncs at each opening; one with a torn end is not gone on with.
    let named = format!(
        "avoid_flush_during_recovery={}; reuse_manifest_on_open=true; optimize_manifest_for_recovery=true",
        replayed == Replayed::Kept
    );
    let mut options = Options::default().get_options_from_string(named)?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(match damage {
        Damage::Refused => DBRecoveryMode::AbsoluteConsistency,
        Damage::Dropped => DBRecoveryMode::PointInTime,
    });
    // A log that is used again keeps its size and what was purged.
    options.set_recycle_log_file_num(0);
    options.set_manual_wal_flush(false);
    // What is in the log is read again at the next start after a kill.
    options.set_max_total_wal_size(write_buffer_bytes.max(16 << 20));
    options.set_max_background_jobs(2);
    // It would start the second one anew for each family, which costs more than opening a few files.
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_bytes_per_sync(1 << 20);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, line| {
        // More than a thousand lines about itself come at each opening, whatever level was asked for.
        if matches!(level, LogLevel::Warn | LogLevel::Error | LogLevel::Fatal) {
            tracing::warn!(line = line.trim_end(), "the database says");
        }
    }));
    Ok(options)
}

/// Random keys, tiny values, mostly asked for what is not there. The hash does not compress, what the database adds to it does.
fn index(options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.write_buffer_bytes / 4);
    // New content is asked for once before it is written, and is not found: neither in memory nor in tables is it searched for.
    family.set_memtable_whole_key_filtering(true);
    family.set_memtable_prefix_bloom_ratio(0.02);
    family.set_compression_type(DBCompressionType::Lz4);
    family
}

/// Ascending keys, large values.
fn content(options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(i32::try_from(options.write_buffers.max(2)).unwrap_or(i32::MAX));
    // Keys ascend, so first-level tables do not overlap: reading looks into one of them however many there are.
    family.set_level_zero_file_num_compaction_trigger(8);
    match options.compression {
        // What is written first is merged soon, and is compressed then.
        Compression::Lz4 => {
            let mut levels = [DBCompressionType::Lz4; 7];
            levels[0] = DBCompressionType::None;
            family.set_compression_per_level(&levels);
        }
        // Values come compressed.
        Compression::Zstd | Compression::None => family.set_compression_type(DBCompressionType::None),
    }
    family
}

/// Ascending keys; large values that do not compress.
fn packs(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(32 << 20);
    family.set_compression_type(DBCompressionType::None);
    family
}

/// Few and small beside the content.
fn records(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(4 << 20);
    family.set_compression_type(DBCompressionType::Lz4);
    family
}
