//! L2: the object store on RocksDB.
//!
//! The folder: `format` and `lock` as every store folder has them, `db`, the database, whose content is described in
//! [`engine`], and `mark`, which says how far writes were acknowledged: see [`mark_file`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod engine;
#[cfg(feature = "testing")]
pub mod fuzzing;
mod group_sync;
mod latency;
mod mark_file;
mod options;
mod pack;
mod store;

pub use latency::Percentiles;
pub use options::{Compression, RocksOptions};
pub use pack::Effort;
pub use store::{Backup, Checked, Loss, RocksStats, RocksStore};
