//! `helios add`: says what the next commit is to have.

use std::ffi::OsString;

use clap::Parser;
use helix_protocol::{Code, Failure};
use helix_versions::{LocalChanges, Staged};
use serde_json::json;

use super::{Verb, unfinished};
use crate::console::OK;
use crate::context::Context;
use crate::here::{Here, queue};
use crate::render::path;

/// Stages files for the next commit
///
/// Staging is optional: `helios commit --work .` takes everything. What is staged stays so until a commit or a reset,
/// whatever moves the head meanwhile.
#[derive(Parser)]
#[command(name = "add", after_help = "Examples:\n  helios add src/parser.rs\n  helios add .\n  helios add -A\n  helios add -u")]
pub struct Add {
    /// Files and folders, with what is gone in them
    #[arg(required_unless_present_any = ["all", "update"])]
    paths: Vec<OsString>,
    /// Everything in the workspace
    #[arg(short = 'A', long, conflicts_with = "paths")]
    all: bool,
    /// Only files that are committed or staged already: what became of them, and no new ones. Without paths in the whole workspace
    #[arg(short, long, conflicts_with = "all")]
    update: bool,
    /// Names what is staged
    #[arg(short, long)]
    verbose: bool,
}

impl Verb for Add {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let mut paths: Vec<Vec<u8>> = if self.all || self.paths.is_empty() {
            vec![Vec::new()]
        } else {
            self.paths.iter().map(|typed| here.path(&cwd, typed)).collect::<Result<_, _>>()?
        };
        let folder = here.folder()?;
        let mut folder = queue(&folder, &context.console)?;
        unfinished::settle(context, &here, here.name(), &mut folder, LocalChanges::Keep)?;
        let _lease = here.lease();
        let workspace = here.workspace()?;
        let index = here.index(&workspace)?;
        let refreshed = folder.refresh(here.store(), Some(index))?;
        let mut fresh = here.with_fresh(refreshed.objects);
        let mut staged = index;
        for (path, typed) in paths.iter().zip(self.paths.iter().map(Some).chain(std::iter::repeat(None))) {
            let known = path.is_empty() || fresh.entry(refreshed.tree, path)?.is_some() || fresh.entry(index, path)?.is_some();
            if !known {
                let typed = typed.map_or_else(String::new, |typed| typed.display().to_string());
                let message = format!("pathspec '{typed}' did not match any files");
                return Err(Failure::new(Code::NotFound, message)
                    .hint("an ignored or missing file cannot be staged; `helios status --ignored` lists what is ignored"));
            }
            if !self.update {
                staged = fresh.splice(staged, refreshed.tree, path)?;
            }
        }
        let decided = paths.clone();
        if self.update {
            let known = refreshed.changes.iter().filter(|change| change.before.is_some()).map(|change| &change.path);
            paths = known.filter(|path| paths.iter().any(|above| path::is_beneath(path, above))).cloned().collect();
            staged = paths.iter().try_fold(staged, |staged, path| fresh.splice(staged, refreshed.tree, path))?;
        }
        let chosen = |change: &&helix_versions::EntryChange| paths.iter().any(|path| path::is_beneath(&change.path, path));
        let names: Vec<&[u8]> = refreshed.changes.iter().filter(chosen).map(|change| change.path.as_slice()).collect();
        if staged != index {
            let onto = Some(here.repository().tree_of(&workspace.head)?);
            here.repository().stage(here.name(), Some(Staged { tree: staged, onto }), &fresh.into_objects())?;
        }
        if workspace.merging.is_some() {
            let decided: Vec<&[u8]> = decided.iter().map(Vec::as_slice).collect();
            here.repository().mark_resolved(here.name(), &decided)?;
        }
        if context.is_json() {
            context
                .console
                .json(&json!({"tree": staged, "staged": names.iter().map(|name| path::to_json(name)).collect::<Vec<_>>()}))?;
        } else if self.verbose {
            names.iter().try_for_each(|name| context.console.line(format!("add '{}'", path::plain(name))))?;
        }
        super::tell_skipped(context, &refreshed.skipped, &refreshed.torn)?;
        Ok(OK)
    }
}
