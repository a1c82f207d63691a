//! `helios rev-parse`: what a name stands for.

use std::path::Path;

use clap::Parser;
use helix_protocol::{Code, Failure};
use helix_versions::{HeadTarget, Resolved};
use serde_json::json;

use super::Verb;
use crate::console::OK;
use crate::context::Context;
use crate::here::Here;

/// Prints the ids that revisions stand for
#[derive(Parser)]
#[command(
    name = "rev-parse",
    after_help = "Examples:\n  helios rev-parse HEAD\n  helios rev-parse --short main~2\n  helios rev-parse --abbrev-ref HEAD\n  helios rev-parse --show-toplevel"
)]
pub struct RevParse {
    /// Revisions: main, HEAD~2, v1^{tree}, @{1}, 3f2a9c01, main:src
    revisions: Vec<String>,
    /// The fewest digits that are enough, twelve at least
    #[arg(long)]
    short: bool,
    /// The branch that HEAD is
    #[arg(long)]
    abbrev_ref: bool,
    /// Exactly one, and nothing but a snapshot
    #[arg(long)]
    verify: bool,
    /// The workspace's folder
    #[arg(long)]
    show_toplevel: bool,
    /// The repository's own folder
    #[arg(long, alias = "git-dir")]
    helios_dir: bool,
}

impl Verb for RevParse {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        if self.show_toplevel {
            folder(context, "toplevel", &here.location.root)?;
        }
        if self.helios_dir {
            folder(context, "helios_dir", &here.location.own_folder())?;
        }
        if self.verify && self.revisions.len() != 1 {
            return Err(Failure::new(Code::InvalidRequest, "a single revision is needed").hint("`helios rev-parse --verify HEAD`"));
        }
        for revision in &self.revisions {
            let shown = self.show(&here, &cwd, revision)?;
            if context.is_json() {
                context.console.json(&json!({"revision": revision, "id": shown}))?;
            } else {
                context.console.line(shown)?;
            }
        }
        Ok(OK)
    }
}

fn folder(context: &mut Context<'_>, name: &str, folder: &Path) -> Result<(), Failure> {
    let folder = folder.display().to_string();
    if context.is_json() { context.console.json(&json!({name: folder})) } else { context.console.line(folder) }
}

impl RevParse {
    fn show(&self, here: &Here, cwd: &Path, revision: &str) -> Result<String, Failure> {
        let repository = here.repository();
        if self.abbrev_ref {
            return match (revision, repository.head(here.name())?.target) {
                ("HEAD" | "@", HeadTarget::Branch(branch)) => Ok(branch.to_string()),
                ("HEAD" | "@", HeadTarget::Detached(_)) => Ok("HEAD".to_owned()),
                _ => here.resolve(revision).map(|_| revision.to_owned()),
            };
        }
        if self.verify {
            let id = here.resolve(revision)?;
            return if self.short { Ok(repository.short_id(id)?) } else { Ok(id.to_string()) };
        }
        Ok(match here.resolve_object(cwd, revision)? {
            Resolved::Snapshot(id) if self.short => repository.short_id(id)?,
            Resolved::Snapshot(id) => id.to_string(),
            Resolved::Entry(entry) if self.short => entry.id.short(),
            Resolved::Entry(entry) => entry.id.to_string(),
        })
    }
}
