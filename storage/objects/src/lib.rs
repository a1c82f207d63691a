//! Content by BLAKE3.
//!
//! An object is bytes; its id is their BLAKE3 hash. What the bytes mean (a file, a tree, a
//! snapshot) is the business of storage/versions. [`ObjectStore`] is the one trait every tier
//! implements: memory, the spill store of a worker, RocksDB on the node.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cached;
mod collect;
mod folder;
mod hashing;
mod memory;
mod pack;
mod pins;
mod records;
mod spill;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use cached::{CacheStats, Cached, ContentCache};
pub use collect::{Collect, Collection, Displaced, Lease, Ledger, Sweep, Swept};
pub use folder::{StoreFolder, StoreLock, no_follow, write_no_follow};
pub use hashing::{hash, hash_reader};
pub use memory::MemoryStore;
pub use pack::{Kind, Pack, PackHint, Packed, similarity};
pub use records::{Expect, Family, PURGED, RecordChange, RecordStore, purged_by_records};
pub use spill::{SpillOptions, SpillStore};
pub use store::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin, StoreStats};
