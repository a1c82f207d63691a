//! One command in the foreground, where no engine can run: the same code, with this process's streams.

use std::ffi::OsString;
use std::process::ExitCode;

use helix_protocol::Failure;

use crate::commands;
use crate::console::{Console, OwnStreams};
use crate::engine::Engine;

/// Does the command that the arguments name, and gives its exit code.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut streams = OwnStreams;
    let run = match helios_client::caller(arguments) {
        Ok(run) => run,
        Err(error) => return Console::new(&mut streams).fail(&Failure::io("the current folder", &error), false).into(),
    };
    let engine = Engine::new(None);
    let code = commands::run(&engine, run, &mut streams);
    engine.close();
    code.into()
}
