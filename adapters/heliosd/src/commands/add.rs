//! `helios add`: says what the next commit is to have.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use clap::Parser;
use helix_protocol::{Code, Failure};
use helix_versions::{EntryChange, LocalChanges, Staged, WorkingFolder};
use serde_json::json;

use super::{Verb, unfinished};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::{Here, queue};
use crate::pathspec::Pathspec;
use crate::render::path;

/// Stages files for the next commit
///
/// Staging is optional: `helios commit --work .` takes everything. What is staged stays so until a commit or a reset,
/// whatever moves the head meanwhile.
#[derive(Parser)]
#[command(
    name = "add",
    after_help = "Examples:\n  helios add src/parser.rs\n  helios add .\n  helios add -A\n  helios add '*.py'\n  helios add -u"
)]
pub struct Add {
    /// Files and folders with what is gone in them, and what fits these patterns
    #[arg(required_unless_present_any = ["all", "update"])]
    paths: Vec<OsString>,
    /// Everything in the workspace, or beneath these paths
    #[arg(short = 'A', long)]
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
        // The whole workspace where none is named.
        let root = [here.location.root.clone().into_os_string()];
        let pathspecs = Pathspec::all(&here, &cwd, if self.paths.is_empty() { &root } else { &self.paths })?;
        let folder = here.folder()?;
        let mut folder = queue(&folder, &context.console)?;
        unfinished::settle(context, &here, here.name(), &mut folder, LocalChanges::Keep)?;
        let _lease = here.lease();
        let workspace = here.workspace()?;
        let index = here.index(&workspace)?;
        let refreshed = folder.refresh(here.store(), Some(index))?;
        let mut fresh = here.with_fresh(refreshed.objects);
        let (among, what) =
            if self.update { (vec![index], "any file known to helios") } else { (vec![refreshed.tree, index], "any files") };
        let mut paths = Vec::new();
        for pathspec in &pathspecs {
            let found = pathspec.paths_in(&fresh, &among)?;
            if found.is_empty() && (self.update || !is_empty_folder(context, &here, &folder, pathspec)?) {
                let message = format!("pathspec '{}' did not match {what}", pathspec.typed.display());
                return Err(Failure::new(Code::NotFound, message).hint("`helios status` lists what could be staged"));
            }
            paths.extend(found);
        }
        let is_meant = |change: &&EntryChange| {
            (!self.update || change.before.is_some()) && paths.iter().any(|path| path::is_beneath(&change.path, path))
        };
        let meant: Vec<&EntryChange> = refreshed.changes.iter().filter(is_meant).collect();
        let staged = if self.update {
            fresh.with_changes(index, meant.iter().copied())?
        } else {
            paths.iter().try_fold(index, |staged, path| fresh.splice(staged, refreshed.tree, path))?
        };
        let names: Vec<&[u8]> = meant.iter().map(|change| change.path.as_slice()).collect();
        if staged != index {
            let onto = Some(here.repository().tree_of(&workspace.head)?);
            here.repository().stage(here.name(), Some(Staged { tree: staged, onto }), &fresh.into_objects())?;
        }
        if workspace.merging.is_some() {
            let decided: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
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

/// Whether a path of which nothing can be staged is a folder: then there is nothing to do. What is there and ignored is refused.
fn is_empty_folder(context: &mut Context<'_>, here: &Here, folder: &WorkingFolder, pathspec: &Pathspec) -> Result<bool, Failure> {
    let place = here.location.root.join(OsStr::from_bytes(&pathspec.path));
    let Ok(there) = fs::symlink_metadata(&place) else { return Ok(false) };
    // Behind a link it is another folder's, and what is in a repository is that one's.
    if fs::canonicalize(&place).ok().as_ref() != Some(&place) || [".git", ".helios"].iter().any(|name| place.join(name).exists()) {
        return Ok(false);
    }
    let is_above = |ignored: &Vec<u8>| path::is_beneath(&pathspec.path, ignored.strip_suffix(b"/").unwrap_or(ignored));
    if folder.ignored()?.iter().any(is_above) {
        let message = format!("{} is ignored by a .gitignore or .heliosignore", pathspec.typed.display());
        let failure = Failure::new(Code::InvalidRequest, message)
            .hint("a rule such as `!NAME` in .heliosignore takes it in; `helios status --ignored` lists what is ignored");
        return context.console.failing_with(NO, Err(failure));
    }
    Ok(there.is_dir())
}
