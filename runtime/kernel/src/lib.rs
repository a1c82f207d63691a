//! What every actor of Helix stands on.
//!
//! ractor runs actors; this crate adds what it lacks (restart strategies, intensity, backoff,
//! ordered shutdown, admission, addresses that outlive a restart) and re-exports it as [`actor`],
//! so that no other crate names ractor.

mod address;
mod admission;

pub use address::{Address, Reply};
pub use admission::{Admission, Admitted};
/// The actor system underneath.
pub use ractor as actor;
