//! The worker's side: workspaces, processes, tools, and the fence.
//!
//! [`Worker`] is what a program starts and hands byte streams to. Pure logic is apart: `fence` (the
//! lease), `calls` (what runs under which key), `making` (where the step began that makes them), and the
//! matching of edits.

pub mod calls;
mod command;
mod confine;
mod engine;
mod facts;
pub mod fence;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
pub mod guard;
mod lease;
pub mod making;
mod processes;
pub mod sandbox;
mod served;
mod spool;
mod surroundings;
mod tools;
pub mod turn;
mod worker;
mod workspace;

pub use engine::{Settings, Wipe, wipe};
pub use facts::{Inspector, Pace};
pub use surroundings::is_private;
pub use worker::{Ended, Worker, WorkerStatus};
