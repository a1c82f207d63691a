//! What every actor of Helix stands on.
//!
//! ractor runs actors; this crate adds what it lacks (restart strategies, intensity, backoff,
//! ordered shutdown, admission, addresses that outlive a restart) and re-exports it as [`actor`],
//! so that no other crate names ractor.

mod address;
mod admission;
mod clock;
mod shutdown;
mod supervisor;
pub mod telemetry;
mod work;

pub use address::{Address, Reply};
pub use admission::{Admission, Admitted};
pub use clock::{Boottime, Clock, SimulatedClock};
pub use shutdown::Shutdown;
pub use supervisor::{
    Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorHandle, SupervisorSpec, TreeKind, TreeNode, TreeState, start,
};
pub use work::Work;

/// The actor system underneath.
pub use ractor as actor;
