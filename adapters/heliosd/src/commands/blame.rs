//! `helios blame`: which snapshot each line of a file came with.

use std::ffi::OsString;

use clap::Parser;
use helios_client::Text;
use helix_protocol::Failure;
use helix_versions::BlameLine;
use serde_json::json;

use super::Verb;
use crate::console::OK;
use crate::context::Context;
use crate::here::Here;
use crate::render::{date, history};

/// Shows which snapshot each line of a file came with
#[derive(Parser)]
#[command(name = "blame", after_help = "Examples:\n  helios blame src/parser.rs\n  helios blame src/parser.rs --at agent-1 --json")]
pub struct Blame {
    /// The file
    file: OsString,
    /// As it is in this snapshot
    #[arg(long, default_value = "HEAD", value_name = "SNAPSHOT")]
    at: String,
}

impl Verb for Blame {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let file = here.path(&cwd, &self.file)?;
        let at = here.resolve(&self.at)?;
        for (index, BlameLine { snapshot: id, text, .. }) in here.repository().blame(at, &file)?.into_iter().enumerate() {
            let snapshot = here.repository().snapshot(id)?;
            let (author, number) = (&snapshot.author, index + 1);
            let text = text.strip_suffix(b"\n").unwrap_or(&text);
            if context.is_json() {
                let time = date::iso(author.time, author.offset_minutes);
                context.console.json(&json!({
                    "line": number, "snapshot": id, "author": author.name, "time": time, "subject": history::subject(&snapshot),
                    "metadata": snapshot.metadata, "text": Text::new(text),
                }))?;
            } else {
                let time = date::short(author.time, author.offset_minutes);
                context.console.write(format!("{} ({} {time} {number:>4}) ", id.short(), author.name).as_bytes())?;
                context.console.write(text)?;
                context.console.write(b"\n")?;
            }
        }
        Ok(OK)
    }
}
