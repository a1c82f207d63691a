//! `helios engine`: the process behind the commands.

use clap::{Parser, Subcommand};
use helix_protocol::Failure;
use serde_json::json;

use super::Verb;
use crate::console::OK;
use crate::context::Context;

/// Shows or stops the engine
///
/// The engine is a process that starts with the first command, serves every repository of its user, and leaves when it has
/// been idle for 15 minutes (HELIOS_ENGINE_IDLE sets another time when it starts). Stopping it loses nothing.
#[derive(Parser)]
#[command(name = "engine", after_help = "Examples:\n  helios engine status\n  helios engine stop")]
pub struct EngineCommand {
    #[command(subcommand)]
    verb: EngineVerb,
}

#[derive(Subcommand)]
enum EngineVerb {
    /// Says what the engine is doing
    Status,
    /// Lets the engine finish what runs, and end
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
    let roots: Vec<String> = engine.open_roots().iter().map(|root| root.display().to_string()).collect();
    if context.is_json() {
        let value = json!({"repositories": roots, "pid": pid, "release": release, "stays": engine.stays(), "seconds": seconds, "sessions": sessions});
        context.console.json(&value)?;
    } else if engine.stays() {
        context.console.line(format!("engine {release}, process {pid}, running for {seconds} s, {sessions} connected"))?;
        roots.iter().try_for_each(|root| context.console.line(format!("  open: {root}")))?;
    } else {
        context.console.line(format!("no engine stays: this command has one of its own ({release}, process {pid})"))?;
    }
    Ok(OK)
}

fn stop(context: &mut Context<'_>) -> Result<u8, Failure> {
    let stays = context.engine.stays();
    context.engine.leave();
    if context.is_json() {
        context.console.json(&json!({"stopping": stays}))?;
    } else if stays {
        context.console.line(format!("engine {} is stopping", std::process::id()))?;
    } else {
        context.console.line("no engine stays")?;
    }
    Ok(OK)
}
