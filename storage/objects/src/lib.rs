//! Content by BLAKE3.
//!
//! An object is bytes; its id is their BLAKE3 hash. What the bytes mean (a file, a tree, a
//! snapshot) is the business of storage/versions. [`ObjectStore`] is the one trait every tier
//! implements: memory, the spill store of a worker, RocksDB on the node.

mod store;

pub use store::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin, StoreStats, hash};
