//! Ways to reach a worker: a process on this machine, the system's `ssh`, and the SSH client built in.
//!
//! What is done on a host (look, install, start, attach, remove) is written once, as shell scripts over a
//! `RemoteShell`; the two SSH clients only bring such a shell.

mod local;
mod programs;
mod refusal;
mod remote;
mod russh;
mod scripts;
mod shell;
mod system;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;

pub use local::LocalTransport;
pub use programs::Programs;
pub use russh::Russh;
pub use system::SystemSsh;
pub use transport::Ssh;
