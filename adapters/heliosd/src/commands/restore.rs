//! `helios restore`: files as they are elsewhere.

use std::ffi::OsString;

use clap::Parser;
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::{Staged, Unresolved, entry_at};
use serde_json::{Value, json};

use super::Verb;
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::{Here, queue};
use crate::pathspec::Pathspec;
use crate::render::path;

/// Makes files what they are in a snapshot, or takes them off the stage
///
/// What the snapshot lacks beneath a path is removed where it is staged or committed; `checkout` with paths removes nothing. What
/// the files were before is kept nowhere.
#[derive(Parser)]
#[command(
    name = "restore",
    after_help = "Examples:\n  helios restore src/parser.rs\n  helios restore --source HEAD~2 .\n  helios restore --staged src/parser.rs"
)]
pub struct Restore {
    /// Files and folders
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// The snapshot; what is staged where nothing is said, or the head with --staged
    #[arg(short, long, value_name = "SNAPSHOT")]
    source: Option<String>,
    /// What is staged becomes it
    #[arg(short = 'S', long)]
    staged: bool,
    /// The files become it, which they do unless --staged is said
    #[arg(short = 'W', long)]
    worktree: bool,
}

/// What becomes of files that the source lacks, and of what is staged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As `restore`: the files go where they are staged, and what is staged stays.
    Restore,
    /// As `checkout`: the files stay, a path of which the source has nothing is refused, and what is staged becomes the source's.
    Checkout,
}

impl Verb for Restore {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let source = self.source.as_deref().map(|revision| here.resolve_tree(&cwd, revision)).transpose()?;
        if !self.staged {
            return files(context, &here, &self.paths, source, Manner::Restore);
        }
        let head = here.repository().head(here.name())?;
        let source = match source {
            Some(tree) => tree,
            None => here.repository().tree_of(&head)?,
        };
        let index = here.index(&here.workspace()?)?;
        let paths = known(context, &here, &self.paths, &[source, index])?;
        if self.worktree {
            // Before what is staged no longer has what goes.
            files(context, &here, &self.paths, Some(source), Manner::Restore)?;
        }
        let folder = here.folder()?;
        let turn = queue(&folder, &context.console)?;
        let staged = stage(&here, &paths, source, Manner::Restore)?;
        drop(turn);
        if self.worktree { Ok(OK) } else { tell_staged(context, &paths, staged) }
    }
}

/// Makes files of the folder what they are in a tree, or in what is staged.
pub fn files(
    context: &mut Context<'_>,
    here: &Here,
    typed: &[OsString],
    source: Option<ObjectId>,
    manner: Manner,
) -> Result<u8, Failure> {
    let folder = here.folder()?;
    let mut folder = queue(&folder, &context.console)?;
    let index = here.index(&here.workspace()?)?;
    let tree = source.unwrap_or(index);
    // What is in neither the tree nor the base stays as it is.
    let (base, trees) = match manner {
        Manner::Restore => (index, [tree, index]),
        Manner::Checkout => (tree, [tree, tree]),
    };
    let paths = known(context, here, typed, &trees)?;
    let done = folder.restore(here.store(), Some(base), tree, &paths)?;
    if manner == Manner::Checkout && source.is_some() {
        stage(here, &paths, tree, manner)?;
    }
    drop(folder);
    if context.is_json() {
        let paths: Vec<Value> = paths.iter().map(|path| path::to_json(path)).collect();
        context.console.json(&json!({"paths": paths, "written": done.written, "removed": done.removed}))?;
    }
    Ok(OK)
}

/// The paths that were typed, as some trees have them. One that none of them has is refused.
fn known(context: &mut Context<'_>, here: &Here, typed: &[OsString], trees: &[ObjectId]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut known = Vec::new();
    for pathspec in Pathspec::all(here, &context.caller.cwd, typed)? {
        let paths = pathspec.paths_in(here.store(), trees)?;
        let is_nothing = trees.iter().all(|tree| *tree == here.repository().empty_tree());
        if paths.is_empty() || is_nothing {
            let message = format!("pathspec '{}' did not match any file known to helios", pathspec.typed.display());
            let failure = Failure::new(Code::FileNotFound, message).hint("`helios ls-files` lists the files");
            return context.console.failing_with(NO, Err(failure));
        }
        known.extend(paths);
    }
    Ok(known)
}

/// Says in JSON what is staged.
pub fn tell_staged(context: &mut Context<'_>, paths: &[Vec<u8>], staged: ObjectId) -> Result<u8, Failure> {
    if context.is_json() {
        let paths: Vec<Value> = paths.iter().map(|path| path::to_json(path)).collect();
        context.console.json(&json!({"tree": staged, "paths": paths}))?;
    }
    Ok(OK)
}

/// Makes what is staged at these paths what a tree has there: all of it, or in the manner of `checkout` what the tree has. Of a
/// merge that waits that is decided with it. To be called in the folder's turn. Gives the tree that is staged then.
pub fn stage(here: &Here, paths: &[Vec<u8>], source: ObjectId, manner: Manner) -> Result<ObjectId, Failure> {
    let workspace = here.workspace()?;
    let index = here.index(&workspace)?;
    let mut fresh = here.with_fresh(Vec::new());
    let staged = paths.iter().try_fold(index, |staged, path| match manner {
        Manner::Restore => fresh.splice(staged, source, path),
        Manner::Checkout => fresh.overlay(staged, source, path),
    })?;
    if staged != index {
        let head = here.repository().tree_of(&workspace.head)?;
        let made = Some(Staged { tree: staged, onto: Some(head) }).filter(|_| staged != head || workspace.merging.is_some());
        here.repository().stage(here.name(), made, &fresh.into_objects())?;
    }
    if let Some(merging) = &workspace.merging {
        let mut decided = Vec::new();
        for Unresolved { path, .. } in &merging.unresolved {
            let is_meant = paths.iter().any(|meant| path::is_beneath(path, meant));
            if is_meant && (manner == Manner::Restore || entry_at(here.store(), source, path)?.is_some()) {
                decided.push(path.as_slice());
            }
        }
        here.repository().mark_resolved(here.name(), &decided)?;
    }
    Ok(staged)
}
