//! The records behind one trait.
//!
//! SQL alone decides: who owns a task, which step is its head, what was spent. [`RecordStore`] has
//! three implementations (memory, SQLite, PostgreSQL) that pass one contract suite. Writes are
//! values of [`Write`]: the writer actor gathers those of many callers and applies them as one
//! group, in which each member succeeds or is refused by itself.

mod store;
mod write;

pub use store::{EventFilter, NodeLease, RecordError, RecordStore, TaskFilter};
pub use write::{Applied, StatusChange, Write};
