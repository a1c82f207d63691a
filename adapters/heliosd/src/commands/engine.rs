//! `helios engine`: the process behind the commands.

use clap::{Parser, Subcommand};
use helix_protocol::Failure;
use serde_json::{Value, json};

use super::Verb;
use crate::console::OK;
use crate::context::Context;

/// Shows or stops the engine
///
/// The engine is a process that starts with the first command, serves every repository of its user, and leaves when it has
/// been idle for 15 minutes (HELIOS_ENGINE_IDLE sets another time when it starts). Stopping it loses nothing. Where none runs,
/// these commands start none.
#[derive(Parser)]
#[command(name = "engine", after_help = "Examples:\n  helios engine status\n  helios engine stop")]
pub struct EngineCommand {
    #[command(subcommand)]
    verb: EngineVerb,
}

#[derive(Subcommand)]
enum EngineVerb {
    /// Says what the engine is doing
    #[command(after_help = "Examples:\n  helios engine status\n  helios engine status --json")]
    Status,
    /// Lets the engine finish what runs, and end
    #[command(after_help = "Examples:\n  helios engine stop")]
    Stop,
}

impl Verb for EngineCommand {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        match self.verb {
            EngineVerb::Status => status(context),
            EngineVerb::Stop => stop(context),
        }
    }
}

fn status(context: &mut Context<'_>) -> Result<u8, Failure> {
    let engine = context.engine;
    let (pid, release) = (std::process::id(), helios_client::RELEASE);
    let (seconds, sessions) = (engine.age().as_secs(), engine.sessions());
    if !engine.stays() {
        return tell_none(
            context,
            json!({"repositories": [], "pid": null, "release": release, "stays": false, "seconds": null, "sessions": 0}),
        );
    }
    let roots: Vec<String> = engine.open_roots().iter().map(|root| root.display().to_string()).collect();
    if context.is_json() {
        let value =
            json!({"repositories": roots, "pid": pid, "release": release, "stays": true, "seconds": seconds, "sessions": sessions});
        context.console.json(&value)?;
    } else {
        context.console.line(format!("engine {release}, process {pid}, running for {seconds} s, {sessions} connected"))?;
        roots.iter().try_for_each(|root| context.console.line(format!("  open: {root}")))?;
    }
    Ok(OK)
}

fn stop(context: &mut Context<'_>) -> Result<u8, Failure> {
    if !context.engine.stays() {
        return tell_none(context, json!({"stopping": false}));
    }
    context.engine.leave();
    if context.is_json() {
        context.console.json(&json!({"stopping": true}))?;
    } else {
        context.console.line(format!("engine {} is stopping", std::process::id()))?;
    }
    Ok(OK)
}

/// This command is done in a process of its own.
fn tell_none(context: &mut Context<'_>, json: Value) -> Result<u8, Failure> {
    if context.is_json() {
        context.console.json(&json)?;
    } else if context.caller.variable("HELIOS_NO_ENGINE").is_some_and(|value| value != "0") {
        context.console.line("HELIOS_NO_ENGINE is set: no engine is asked, each command does its own work")?;
    } else {
        context.console.line("no engine runs: a command that needs one starts it")?;
    }
    Ok(OK)
}
