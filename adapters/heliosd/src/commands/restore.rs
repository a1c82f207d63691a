//! `helios restore`: files as they are elsewhere.

use std::ffi::OsString;

use clap::Parser;
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::Staged;
use serde_json::{Value, json};

use super::Verb;
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::{Here, queue};
use crate::render::path;

/// Makes files what they are in a snapshot, or takes them off the stage
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

/// Whether what is staged becomes the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// It does.
    Stage,
    /// It stays.
    Nothing,
}

impl Verb for Restore {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let source = self.source.as_deref().map(|revision| here.resolve_tree(&cwd, revision)).transpose()?;
        if !self.staged {
            return files(context, &here, &self.paths, source, Also::Nothing);
        }
        let paths: Vec<Vec<u8>> = self.paths.iter().map(|typed| here.path(&cwd, typed)).collect::<Result<_, _>>()?;
        let head = here.repository().head(here.name())?;
        let source = match source {
            Some(tree) => tree,
            None => here.repository().tree_of(&head)?,
        };
        let index = here.index(&here.workspace()?)?;
        known(context, &here, (&self.paths, &paths), [source, index])?;
        let staged = stage(&here, &paths, source)?;
        if self.worktree {
            files(context, &here, &self.paths, Some(source), Also::Nothing)
        } else {
            tell_staged(context, &paths, staged)
        }
    }
}

/// Makes files of the folder what they are in a tree, or in what is staged.
pub fn files(
    context: &mut Context<'_>,
    here: &Here,
    typed: &[OsString],
    source: Option<ObjectId>,
    also: Also,
) -> Result<u8, Failure> {
    let cwd = context.caller.cwd.clone();
    let paths: Vec<Vec<u8>> = typed.iter().map(|typed| here.path(&cwd, typed)).collect::<Result<_, _>>()?;
    let folder = here.folder()?;
    let mut folder = queue(&folder, &context.console)?;
    let index = here.index(&here.workspace()?)?;
    let tree = source.unwrap_or(index);
    known(context, here, (typed, &paths), [tree, index])?;
    let done = folder.restore(here.store(), Some(index), tree, &paths)?;
    drop(folder);
    if also == Also::Stage && source.is_some() {
        stage(here, &paths, tree)?;
    }
    if context.is_json() {
        let paths: Vec<Value> = paths.iter().map(|path| path::to_json(path)).collect();
        context.console.json(&json!({"paths": paths, "written": done.written, "removed": done.removed}))?;
    }
    Ok(OK)
}

/// Refuses paths, told as they were typed, that neither tree has.
fn known(context: &mut Context<'_>, here: &Here, paths: (&[OsString], &[Vec<u8>]), trees: [ObjectId; 2]) -> Result<(), Failure> {
    for (typed, path) in paths.0.iter().zip(paths.1).filter(|(_, path)| !path.is_empty()) {
        let found = trees.into_iter().map(|tree| Ok(helix_versions::entry_at(here.store(), tree, path)?.is_some()));
        if !found.collect::<Result<Vec<bool>, Failure>>()?.contains(&true) {
            let message = format!("pathspec '{}' did not match any file known to helios", typed.display());
            let failure = Failure::new(Code::FileNotFound, message).hint("`helios ls-files` lists the files");
            return context.console.failing_with(NO, Err(failure));
        }
    }
    Ok(())
}

/// Says in JSON what is staged.
pub fn tell_staged(context: &mut Context<'_>, paths: &[Vec<u8>], staged: ObjectId) -> Result<u8, Failure> {
    if context.is_json() {
        let paths: Vec<Value> = paths.iter().map(|path| path::to_json(path)).collect();
        context.console.json(&json!({"tree": staged, "paths": paths}))?;
    }
    Ok(OK)
}

/// Makes what is staged at these paths what a tree has there. Gives the tree that is staged then.
pub fn stage(here: &Here, paths: &[Vec<u8>], source: ObjectId) -> Result<ObjectId, Failure> {
    let workspace = here.workspace()?;
    let index = here.index(&workspace)?;
    let mut fresh = here.with_fresh(Vec::new());
    let staged = paths.iter().try_fold(index, |staged, path| fresh.splice(staged, source, path))?;
    if staged != index {
        let head = here.repository().tree_of(&workspace.head)?;
        let made = Some(Staged { tree: staged, onto: Some(head) }).filter(|_| staged != head);
        here.repository().stage(here.name(), made, &fresh.into_objects())?;
    }
    Ok(staged)
}
