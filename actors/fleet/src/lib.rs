//! The fleet branch: workers, their connections, and their leases as the node sees them.
//!
//! [`branch`] gives the branch's spec. Requests ride on a worker's *line*, which outlives connections: the actor of a
//! connection dials, watches the lease and reports, while calls wait on the line for whichever connection comes next.

mod backoff;
mod courier;
mod dial;
mod directory;
mod fleet;
mod health;
mod lease;
mod line;
mod provision;
mod supervisor;
mod transfer;
mod worker;

pub use supervisor::{FleetArgs, branch};
