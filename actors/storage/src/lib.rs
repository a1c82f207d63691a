//! The storage branch: the content store's life, the one writer of the records, and the repositories.
//!
//! Stores are opened by whoever wires the tree and are read through their shared faces; the actors here own what
//! must be done by one: watching, gathering writes, and long work on repositories.

mod cache;
mod content;
mod repositories;
mod supervisor;
mod upkeep;
mod writer;

pub use supervisor::{StorageArgs, branch};
pub use upkeep::ContentUpkeep;
