//! The records behind one trait.
//!
//! SQL alone decides: who owns a task, which step is its head, what was spent. [`RecordStore`] has
//! three implementations (memory, SQLite, PostgreSQL) that pass one contract suite. Writes are
//! values of [`Write`]: the writer actor gathers those of many callers and applies them as one
//! group, in which each member succeeds or is refused by itself.
//!
//! What each write does is written once, in `rules`, over what `rows` gives; the memory store and the
//! SQL stores differ only below that.

mod charge;
mod clock;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod descendants;
mod memory;
mod named;
mod open;
mod plain;
mod postgres;
mod reach;
mod rows;
mod rules;
mod sql;
mod sqlite;
mod store;
mod summary;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod write;

pub use clock::Clock;
pub use descendants::{Descendant, held};
pub use memory::MemoryStore;
pub use open::{open, probe};
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use store::{EventFilter, LedgerFilter, NodeLease, RecordError, RecordStore, TaskFilter};
pub use write::{Applied, StatusChange, Then, Write};
