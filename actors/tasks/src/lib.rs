//! The tasks branch: what a task is while it is not finished.
//!
//! Pure modules decide ([`machine`], [`steps`], [`replay`], [`schedule`], [`budget`], [`dependencies`], [`retry`]); they know no
//! clock and no I/O. The scheduler keeps who waits and who is free, one actor per running task drives it step by step, and the door
//! carries out what people ask. Everything that must survive is in the records: a task's head, epoch and state are read from there,
//! and changed there, by one fenced write each.

pub mod budget;
mod calls;
mod children;
mod command;
mod commit;
mod day;
pub mod dependencies;
mod drive;
mod failing;
mod gateway;
mod host;
pub mod machine;
mod rehearsal;
pub mod replay;
mod requests;
pub mod retry;
mod said;
pub mod schedule;
mod scheduler;
mod secrets;
mod shared;
pub mod steps;
mod supervisor;
mod task;
mod tasks;
mod telling;

pub use command::CommandKind;
pub use shared::TasksArgs;
pub use supervisor::branch;
