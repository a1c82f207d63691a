//! `helios rev-parse`: what a name stands for.

use std::path::Path;

use clap::Parser;
use helix_protocol::{Code, Failure, SnapshotId};
use helix_versions::{HeadTarget, Resolved};
use serde_json::json;

use super::Verb;
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::Here;

/// Prints the ids that revisions stand for
#[derive(Parser)]
#[command(
    name = "rev-parse",
    after_help = "Examples:\n  helios rev-parse HEAD\n  helios rev-parse --short=7 main~2\n  helios rev-parse --verify -q agent-1\n  helios rev-parse --abbrev-ref HEAD\n  helios rev-parse --show-toplevel"
)]
pub struct RevParse {
    /// Revisions: main, HEAD~2, v1^{tree}, @{1}, 3f2a9c01, main:src
    revisions: Vec<String>,
    /// The fewest digits that are enough, twelve or this many at least
    #[arg(long, value_name = "DIGITS", num_args = 0..=1, require_equals = true, default_missing_value = "12")]
    short: Option<usize>,
    /// The branch that HEAD is
    #[arg(long)]
    abbrev_ref: bool,
    /// Exactly one, and nothing but a snapshot
    #[arg(long)]
    verify: bool,
    /// With --verify: ends with 1 and says nothing where there is no such snapshot
    #[arg(short, long, requires = "verify")]
    quiet: bool,
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
            if self.quiet {
                return Ok(NO);
            }
            return Err(Failure::new(Code::InvalidRequest, "a single revision is needed").hint("`helios rev-parse --verify HEAD`"));
        }
        for revision in &self.revisions {
            let shown = match self.show(&here, &cwd, revision) {
                Err(failure) if self.quiet && is_no_name(&failure) => return Ok(NO),
                shown => shown?,
            };
            if context.is_json() {
                context.console.json(&json!({"revision": revision, "id": shown}))?;
            } else {
                context.console.line(shown)?;
            }
        }
        Ok(OK)
    }
}

/// Whether nothing in the history has that name; a damaged store is told of all the same.
fn is_no_name(failure: &Failure) -> bool {
    matches!(failure.code, Code::NotFound | Code::FileNotFound | Code::InvalidRequest | Code::AmbiguousId)
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
            return self.digits(here, here.resolve(revision)?);
        }
        Ok(match here.resolve_object(cwd, revision)? {
            Resolved::Snapshot(id) => self.digits(here, id)?,
            Resolved::Entry(entry) => {
                let whole = entry.id.to_string();
                self.short.and_then(|least| whole.get(..least.max(4))).unwrap_or(&whole).to_owned()
            }
        })
    }

    fn digits(&self, here: &Here, id: SnapshotId) -> Result<String, Failure> {
        Ok(self.short.map_or_else(|| Ok(id.to_string()), |least| here.repository().short_id(id, least))?)
    }
}
