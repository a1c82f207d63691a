//! The cluster branch: this node's lease on the records.
//!
//! The records are driven by one node at a time, whatever data folders there are: the lease is a row, by the database's own clock.
//! A node that finds it taken does not start; one that has lost it ends, and nothing it still writes is taken, because every write
//! is fenced by its task's epoch.

mod lease;
mod supervisor;

pub use lease::take;
pub use supervisor::{ClusterArgs, branch};
