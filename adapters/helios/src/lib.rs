//! What client and engine have in common: the protocol, where the socket is, and how an engine is started.
//!
//! Nothing here links the database, an async runtime or an argument parser: the binary `helios` is made of this.

mod base64;
#[cfg(before_libc)]
pub mod begin;
mod caller;
mod connection;
mod place;
mod protocol;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod quick;
mod start;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod system;

pub use base64::{decode as decode_base64, encode as encode_base64};
pub use caller::{caller, offset_minutes};
pub use connection::{Connection, Outcome, Streams};
pub use place::Place;
pub use protocol::{
    Answer, Hello, LONGEST_LINE, Line, PROTOCOL, RELEASE, Release, Request, Run, Text, Welcome, is_environment_that_matters,
    read_line,
};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use quick::quick;
pub use start::{Started, exec_one_shot, find_engine, start_engine};
