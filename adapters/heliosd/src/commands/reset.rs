//! `helios reset`: moves the head and its branch.

use std::ffi::OsString;

use clap::Parser;
use helix_protocol::{Code, Failure, ObjectId, SnapshotId};
use helix_versions::{LocalChanges, ResetKind, WorkingFolder, Workspace};
use serde_json::json;

use super::Verb;
use super::follow::Moved;
use super::keep::{Doomed, Reach, keep};
use super::restore::Manner;
use super::unfinished::Move;
use super::words::{self, Words};
use crate::console::{FATAL, OK};
use crate::context::Context;
use crate::here::{Here, queue};
use crate::pathspec::Pathspec;
use crate::render::history;

/// Moves the head and its branch to a snapshot
///
/// --soft keeps the files and stages what the commits had; --mixed, which is usual, keeps the files alone; --hard makes every
/// committed file what it is there, and gives up a merge that waits. What no commit has and would be overwritten, untracked files
/// too, is kept in a snapshot first, which is named. `helios undo` takes any of it back as far as it was committed.
#[derive(Parser)]
#[command(
    name = "reset",
    after_help = "Examples:\n  helios reset --hard HEAD~1\n  helios reset --soft HEAD~3\n  helios reset -- src/parser.rs\n  helios reset src/parser.rs"
)]
pub struct Reset {
    /// The snapshot, HEAD where none is given; then paths, as behind --
    words: Vec<OsString>,
    /// The files too
    #[arg(long, group = "kind")]
    hard: bool,
    /// The head alone
    #[arg(long, group = "kind")]
    soft: bool,
    /// The head and what is staged
    #[arg(long, group = "kind")]
    mixed: bool,
    /// Says nothing
    #[arg(short, long)]
    quiet: bool,
    /// Takes these paths off the stage, and moves nothing
    #[arg(last = true, conflicts_with = "kind")]
    paths: Vec<OsString>,
}

impl Verb for Reset {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let repository = here.repository();
        let Words { revisions, paths } = words::split(context, &here, &self.words, &self.paths)?;
        let target = match revisions.as_slice() {
            [] => "HEAD",
            [one] => one.as_str(),
            [_, second, ..] => {
                let message = format!("reset takes one snapshot, and {second:?} is a second");
                return Err(Failure::new(Code::InvalidRequest, message).hint("`helios reset [SNAPSHOT] -- [PATH...]`"));
            }
        };
        if !paths.is_empty() {
            if self.hard || self.soft {
                let kind = if self.hard { "hard" } else { "soft" };
                let message = format!("Cannot do {kind} reset with paths");
                return Err(Failure::new(Code::InvalidRequest, message)
                    .hint("`helios restore --source SNAPSHOT PATH` makes files what they were"));
            }
            let is_unborn = target == "HEAD" && repository.head(here.name())?.snapshot.is_none();
            let source = if is_unborn { repository.empty_tree() } else { here.resolve_tree(&cwd, target)? };
            let trees = [source, here.index(&here.workspace()?)?];
            let found = Pathspec::all(&here, &cwd, &paths)?.into_iter().map(|pathspec| pathspec.paths_in(here.store(), &trees));
            let paths = found.collect::<Result<Vec<_>, _>>()?.concat();
            let folder = here.folder()?;
            let turn = queue(&folder, &context.console)?;
            let staged = super::restore::stage(&here, &paths, source, Manner::Restore)?;
            drop(turn);
            return super::restore::tell_staged(context, &paths, staged);
        }
        let folder = here.folder()?;
        let mut folder =
            super::take_turn(context, &here, &folder, if self.hard { LocalChanges::Discard } else { LocalChanges::Keep })?;
        let before = here.workspace()?;
        let kind = match (self.hard, self.soft) {
            (true, _) => ResetKind::Hard,
            (_, true) => ResetKind::Soft,
            _ => ResetKind::Mixed,
        };
        if before.head.snapshot.is_none() && target == "HEAD" {
            // Before the first commit there is only what is staged to take back.
            repository.stage(here.name(), None, &[])?;
            return super::restore::tell_staged(context, &[Vec::new()], repository.empty_tree());
        }
        let index = here.index(&before)?;
        // Only now, in turn: what HEAD~1 is depends on who committed before.
        let to = here.resolve(target)?;
        let tree = if kind == ResetKind::Hard {
            hard(context, &here, &mut folder, (&before, index), to)?
        } else {
            let reset = repository.reset(&here.caller(context, None), to, kind);
            context.console.failing_with(FATAL, reset)?.to
        };
        drop(folder);
        if context.is_json() {
            context.console.json(&json!({"snapshot": to, "tree": tree}))?;
        } else if kind == ResetKind::Hard && !self.quiet {
            let snapshot = repository.snapshot(to)?;
            context.console.line(format!("HEAD is now at {} {}", to.short(), history::subject(&snapshot)))?;
        }
        Ok(OK)
    }
}

/// The files too. `base` is what is staged: a file that only this has goes.
fn hard(
    context: &mut Context<'_>,
    here: &Here,
    folder: &mut WorkingFolder,
    (before, base): (&Workspace, ObjectId),
    target: SnapshotId,
) -> Result<ObjectId, Failure> {
    let (verb, changes) = ("reset", LocalChanges::Discard);
    let to = here.repository().tree(target)?;
    let mut doomed = Doomed { here, workspace: before, verb, base, to, reach: Reach::All, seen: None };
    let back = keep(context, folder, &mut doomed)?.tree;
    let in_the_way = folder.foresee(here.store(), Some(base), to, changes)?;
    if !in_the_way.is_empty() {
        return Err(super::in_the_way(&in_the_way, verb));
    }
    Move { from: base, to: None }.begin(here, here.name());
    let operation = here.repository().reset(&here.caller(context, None), target, ResetKind::Hard)?.recorded.operation;
    let mut moved = Moved { here, workspace: here.name(), verb, operation, from: base, to, back, changes };
    moved.back = match keep(context, folder, &mut doomed) {
        Ok(kept) => kept.tree,
        Err(failure) => return Err(moved.take_back(context, folder, failure)),
    };
    moved.follow(context, folder)?;
    Ok(to)
}
