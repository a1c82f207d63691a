//! L2: the object store on RocksDB.
//!
//! The folder: `format` and `lock` as every store folder has them, and `db`, the database. What it
//! holds is described in [`engine`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod engine;
mod group_sync;
mod store;

pub use store::{RocksOptions, RocksStore};
