//! What the binary `heliosd` is made of: the engine that does what `helios` is asked, for one user and any number of repositories.
//!
//! `serve` is the engine that stays; `--one-shot` does one command in the foreground with the same code, where no engine can run.
//! It is a library so that its parsers can be fed by tests; nothing but the binary is meant to use it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acceptors;
mod author;
mod commands;
mod compose;
mod console;
mod context;
mod detach;
mod engine;
pub mod fuzzing;
mod git_config;
mod here;
mod log_file;
mod memory;
mod one_shot;
mod operations;
mod pathspec;
mod render;
mod serve;
mod session;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use helix_protocol::{Code, Failure};

use crate::serve::Serve;

const HELP: &str = "heliosd, the engine of helios

  heliosd serve [--detached] [--idle DURATION]   serves the helios commands of this user; leaves when idle (default 15m)
  heliosd --one-shot ARGUMENTS                   does one command of helios in the foreground and ends
  heliosd --version

The idle time can also be set by HELIOS_ENGINE_IDLE. `helios` starts the engine by itself; `helios engine status` and
`helios engine stop` look after it.
";

/// Does what the process was started for, by its arguments.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("--one-shot") => one_shot::run(arguments),
        Some("serve") => match serve_options(arguments) {
            Ok(options) => serve::serve(&options),
            Err(failure) => refuse(&failure),
        },
        Some("--version" | "-V") => {
            println!("heliosd {}", helios_client::RELEASE);
            ExitCode::SUCCESS
        }
        Some("--help" | "-h" | "help") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            console::USAGE.into()
        }
    }
}

fn serve_options(mut arguments: impl Iterator<Item = OsString>) -> Result<Serve, Failure> {
    let mut options = Serve { detached: false, idle: Duration::from_secs(15 * 60) };
    if let Ok(text) = std::env::var("HELIOS_ENGINE_IDLE") {
        match duration(&text) {
            Ok(idle) => options.idle = idle,
            // Whoever has it in their environment still needs an engine.
            Err(failure) => eprintln!("warning: HELIOS_ENGINE_IDLE: {}: {}", failure.message, failure.hint),
        }
    }
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--detached") => options.detached = true,
            Some("--idle") => {
                let text = arguments.next().unwrap_or_default();
                options.idle = duration(&text.to_string_lossy())?;
            }
            _ => {
                let message = format!("heliosd serve has no argument {}", argument.display());
                return Err(Failure::new(Code::InvalidRequest, message).hint("`heliosd --help` lists them"));
            }
        }
    }
    Ok(options)
}

fn duration(text: &str) -> Result<Duration, Failure> {
    crate::context::duration(text).ok_or_else(|| {
        Failure::new(Code::InvalidRequest, format!("{text:?} is not a duration")).hint("write a number and s, m, h or d, as in 15m")
    })
}

fn refuse(failure: &Failure) -> ExitCode {
    eprintln!("fatal: {}\nhint: {}", failure.message, failure.hint);
    console::FATAL.into()
}
