//! `helios cat-file`: what the store holds under an id.

use clap::Parser;
use helix_protocol::{Code, Failure};
use helix_versions::{Annotation, Signature, Snapshot, Tree};

use super::Verb;
use crate::console::OK;
use crate::context::Context;
use crate::here::Here;
use crate::render::changes;
use crate::render::object::{self, Object};
use crate::render::path::{self, Quote};

/// Shows an object of the store
///
/// With --json, -t, -s and -e give its id, kind and size, and -p what is in it too.
#[derive(Parser)]
#[command(
    name = "cat-file",
    after_help = "Examples:\n  helios cat-file -p HEAD\n  helios cat-file -t main:src\n  helios cat-file -p main:src/parser.rs\n  helios cat-file -p HEAD --json"
)]
pub struct CatFile {
    /// An object's id, or its first digits, or a revision
    object: String,
    /// Prints it for people
    #[arg(short, group = "what")]
    pretty: bool,
    /// Prints its kind: commit, tree, blob, or tag for an annotated tag
    #[arg(short = 't', group = "what")]
    kind: bool,
    /// Prints its size in bytes
    #[arg(short, group = "what")]
    size: bool,
    /// Succeeds where it is there
    #[arg(short, group = "what")]
    exists: bool,
}

impl Verb for CatFile {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let tag = here.annotated(&self.object)?.filter(|_| (self.pretty || self.kind || self.size) && !context.is_json());
        if let Some((tag, Annotation { tagger, message })) = tag {
            let head = format!("object {}\ntype commit\ntag {}\n", tag.target, tag.name);
            let text = format!("{head}{}\n{message}", who("tagger", &tagger));
            let told = if self.kind {
                "tag\n".to_owned()
            } else if self.size {
                format!("{}\n", text.len())
            } else {
                text
            };
            context.console.write(told.as_bytes())?;
            return Ok(OK);
        }
        let id = here.object(&cwd, &self.object)?;
        let bytes = here.store().read(id)?;
        let object = Object::of(id, &bytes);
        if !(self.exists || self.kind || self.size || self.pretty) {
            return Err(
                Failure::new(Code::InvalidRequest, "cat-file needs one of -p, -t, -s and -e").hint("`helios cat-file -p HEAD`")
            );
        }
        if context.is_json() {
            let value = if self.pretty { object.to_json(id, &bytes) } else { object.summary(id, &bytes) };
            context.console.json(&value)?;
        } else if self.kind {
            context.console.line(object.kind())?;
        } else if self.size {
            context.console.line(bytes.len().to_string())?;
        } else if self.pretty {
            match &object {
                Object::Snapshot(snapshot) => commit(context, snapshot)?,
                Object::Tree(entries) => tree(context, entries)?,
                Object::File => context.console.write(&bytes)?,
            }
        }
        Ok(OK)
    }
}

fn commit(context: &mut Context<'_>, snapshot: &Snapshot) -> Result<(), Failure> {
    let mut text = format!("tree {}\n", snapshot.tree);
    snapshot.parents.iter().for_each(|parent| text.push_str(&format!("parent {parent}\n")));
    text.push_str(&format!("{}{}", who("author", &snapshot.author), who("committer", &snapshot.committer)));
    snapshot.metadata.iter().for_each(|(key, value)| text.push_str(&format!("meta {key}={value}\n")));
    context.console.write(format!("{text}\n{}", snapshot.message).as_bytes())
}

fn who(role: &str, who: &Signature) -> String {
    let offset = who.offset_minutes.unsigned_abs();
    let sign = if who.offset_minutes < 0 { '-' } else { '+' };
    let seconds = who.time.0.div_euclid(1_000_000);
    format!("{role} {} <{}> {seconds} {sign}{:02}{:02}\n", who.name, who.email, offset / 60, offset % 60)
}

fn tree(context: &mut Context<'_>, tree: &Tree) -> Result<(), Failure> {
    for entry in tree.entries() {
        context.console.line(format!(
            "{} {} {}\t{}",
            changes::mode(entry.mode),
            object::kind(entry.mode),
            entry.id,
            path::show(&entry.name, Quote::Unusual)
        ))?;
    }
    Ok(())
}
