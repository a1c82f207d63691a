//! `helios blame`: which snapshot each line of a file came with.

use std::ffi::OsString;

use clap::Parser;
use helios_client::Text;
use helix_protocol::{Code, Failure};
use helix_versions::BlameLine;
use serde_json::json;

use super::{Verb, words};
use crate::console::OK;
use crate::context::Context;
use crate::here::Here;
use crate::pathspec::Pathspec;
use crate::render::{date, history};

/// Shows which snapshot each line of a file came with
#[derive(Parser)]
#[command(
    name = "blame",
    after_help = "Examples:\n  helios blame src/parser.rs\n  helios blame HEAD~3 src/parser.rs\n  helios blame src/parser.rs --at agent-1 --json"
)]
pub struct Blame {
    /// The file; before it a snapshot, where it is to be as it is there
    words: Vec<OsString>,
    /// As it is in this snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    at: Option<String>,
    /// The file
    #[arg(last = true)]
    file: Option<OsString>,
}

impl Verb for Blame {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let (at, file) = match (self.words.as_slice(), &self.file, &self.at) {
            ([file], None, at) | ([], Some(file), at) => (at.as_deref().unwrap_or("HEAD"), file),
            ([at, file], None, None) | ([at], Some(file), None) => (words::text(at)?, file),
            _ => {
                return Err(Failure::new(Code::InvalidRequest, "blame takes one file, and one snapshot before it at most")
                    .hint("`helios blame [SNAPSHOT] [--] FILE`"));
            }
        };
        let file = Pathspec::plain(&here, &cwd, file, "blame")?;
        let at = here.resolve(at)?;
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
