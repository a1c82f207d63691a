//! `helios checkout` and `helios switch`: another branch or snapshot, or files of one.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Parser;
use helix_objects::Durability;
use helix_protocol::{Code, Failure, ObjectId, SnapshotId};
use helix_versions::{BranchName, Conflict, ConflictKind, Elsewhere, Head, HeadTarget, LocalChanges, Start, TreeEntry};
use serde_json::json;

use super::follow::Moved;
use super::keep::{Doomed, Reach, keep};
use super::unfinished::Move;
use super::{Verb, merge, restore, words};
use crate::console::{FATAL, NO, OK};
use crate::context::Context;
use crate::here::Here;
use crate::pathspec::Pathspec;
use crate::render::history;

/// Goes to a branch or a snapshot, or takes files from one
///
/// Changes that no commit has stay; where one is in the way, nothing is touched and the files are named. With paths, these files
/// become what they are in the snapshot, or in what is staged, whatever was edited in them; a file that is not there stays.
#[derive(Parser)]
#[command(
    name = "checkout",
    after_help = "Examples:\n  helios checkout agent-1\n  helios checkout -b try-2 HEAD~3\n  helios checkout 3f2a9c017d44\n  helios checkout HEAD~1 -- src/parser.rs\n  helios checkout HEAD~1 src/parser.rs\n\nExit codes: 0 done, 1 changes are in the way or nothing has that name, 128 anything else"
)]
pub struct Checkout {
    /// A branch, a snapshot, or - for where the head was before; then paths, as behind --
    words: Vec<OsString>,
    /// Makes this branch there and goes to it
    #[arg(short = 'b', value_name = "BRANCH")]
    new: Option<String>,
    /// On no branch, even where the name is one
    #[arg(short, long)]
    detach: bool,
    /// Overwrites changes that no commit has, and keeps them in a snapshot first
    #[arg(short, long)]
    force: bool,
    /// Says nothing
    #[arg(short, long)]
    quiet: bool,
    /// Files and folders to take
    #[arg(last = true)]
    paths: Vec<OsString>,
}

/// Goes to a branch
#[derive(Parser)]
#[command(
    name = "switch",
    after_help = "Examples:\n  helios switch main\n  helios switch -c try-2\n  helios switch --detach HEAD~3\n\nExit codes: 0 done, 1 changes are in the way, 128 anything else"
)]
pub struct Switch {
    /// A branch, or - for where the head was before; with --create where it starts
    target: Option<String>,
    /// Makes this branch and goes to it
    #[arg(short, long, value_name = "BRANCH")]
    create: Option<String>,
    /// To a snapshot, on no branch
    #[arg(short, long)]
    detach: bool,
    /// Overwrites changes that no commit has, and keeps them in a snapshot first
    #[arg(short = 'f', long, alias = "force")]
    discard_changes: bool,
    /// Says nothing
    #[arg(short, long)]
    quiet: bool,
}

/// Where to go, and how.
struct Journey {
    start: Start,
    changes: LocalChanges,
    quiet: bool,
    /// The exit code where a merge waits.
    busy: u8,
}

impl Verb for Checkout {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let (target, paths) = self.told_apart(context, &here)?;
        if !paths.is_empty() {
            if self.new.is_some() {
                let message = "paths cannot be taken while a branch is made";
                return Err(Failure::new(Code::InvalidRequest, message).hint("first `helios checkout -b BRANCH`, then the paths"));
            }
            let source = target.as_deref().map(|revision| here.resolve_tree(&cwd, revision)).transpose()?;
            return restore::files(context, &here, &paths, source, restore::Manner::Checkout);
        }
        let changes = if self.force { LocalChanges::Discard } else { LocalChanges::Keep };
        let start = match (&self.new, &target) {
            (Some(new), at) => new_branch(&here, new, at.as_deref())?,
            (None, None) => return Err(nowhere("checkout")),
            (None, Some(target)) => {
                let start = destination(&here, target, self.detach);
                context.console.failing_with(NO, start)?
            }
        };
        go(context, &here, &Journey { start, changes, quiet: self.quiet, busy: NO })
    }
}

impl Checkout {
    /// Where to go, and the paths to take. As in git, one word alone is a revision first; several are one
    /// and paths, or paths alone.
    fn told_apart(&self, context: &Context<'_>, here: &Here) -> Result<(Option<String>, Vec<OsString>), Failure> {
        let is_new = self.new.is_some();
        match self.words.as_slice() {
            [] => Ok((None, self.paths.clone())),
            [one] if context.has_dashes || is_new => Ok((Some(words::text(one)?.to_owned()), self.paths.clone())),
            [one] => match one.to_str() {
                Some(target) if destination(here, target, self.detach).is_ok() => Ok((Some(target.to_owned()), Vec::new())),
                _ if is_path(here, &context.caller.cwd, one) => Ok((None, vec![one.clone()])),
                _ => Ok((Some(words::text(one)?.to_owned()), Vec::new())),
            },
            [first, ..] if !context.has_dashes && !words::is_revision(here, &context.caller.cwd, first) => {
                Ok((None, self.words.clone()))
            }
            [first, rest @ ..] => {
                let told = words::split(context, here, std::slice::from_ref(first), &self.paths)?;
                Ok((told.revisions.into_iter().next(), [rest, &self.paths].concat()))
            }
        }
    }
}

impl Verb for Switch {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let changes = if self.discard_changes { LocalChanges::Discard } else { LocalChanges::Keep };
        let start = match (&self.create, &self.target) {
            (Some(new), at) => new_branch(&here, new, at.as_deref())?,
            (None, None) => return Err(nowhere("switch")),
            (None, Some(target)) => match destination(&here, target, self.detach)? {
                Start::Detached(_) if !self.detach && target != "-" => {
                    let message = format!("a branch is expected, and {target:?} is a snapshot");
                    return Err(Failure::new(Code::InvalidRequest, message).hint("to be on no branch, say --detach"));
                }
                start => start,
            },
        };
        go(context, &here, &Journey { start, changes, quiet: self.quiet, busy: FATAL })
    }
}

fn nowhere(verb: &str) -> Failure {
    Failure::new(Code::InvalidRequest, format!("{verb} needs a branch or a snapshot")).hint("`helios branch` lists the branches")
}

fn new_branch(here: &Here, name: &str, at: Option<&str>) -> Result<Start, Failure> {
    let name: BranchName = name.parse()?;
    match (at, here.repository().head(here.name())?.snapshot) {
        // Before the first commit a branch has nothing to be at.
        (None, None) => Ok(Start::Unborn(name)),
        (at, _) => Ok(Start::NewBranch(name, here.resolve(at.unwrap_or("HEAD"))?)),
    }
}

fn destination(here: &Here, target: &str, detach: bool) -> Result<Start, Failure> {
    let repository = here.repository();
    let before = if target == "-" { repository.head_before(here.name(), 1)? } else { None };
    let branch = match before {
        Some(HeadTarget::Detached(id)) => return Ok(Start::Detached(id)),
        Some(HeadTarget::Branch(branch)) => Some(branch),
        None => target.parse::<BranchName>().ok(),
    };
    if let Some(branch) = branch.filter(|_| !detach)
        && (repository.branch(&branch)?.is_some() || repository.head(here.name())?.target == HeadTarget::Branch(branch.clone()))
    {
        return Ok(Start::Branch(branch));
    }
    Ok(Start::Detached(here.resolve(if target == "-" { "@{-1}" } else { target })?))
}

fn is_path(here: &Here, cwd: &Path, word: &OsStr) -> bool {
    let Ok(pathspec) = Pathspec::read(here, cwd, word) else { return false };
    let index = here.workspace().and_then(|workspace| here.index(&workspace));
    index.is_ok_and(|index| pathspec.paths_in(here.store(), &[index]).is_ok_and(|paths| !paths.is_empty()))
}

fn go(context: &mut Context<'_>, here: &Here, journey: &Journey) -> Result<u8, Failure> {
    let repository = here.repository();
    let folder = here.folder()?;
    let mut folder = super::take_turn(context, here, &folder, journey.changes)?;
    let before = here.workspace()?;
    context.console.failing_with(journey.busy, merge::none_waits(here))?;
    // Before the first commit a branch is only named: what is staged stays.
    let is_born = before.head.snapshot.is_some();
    let from = repository.tree_of(&before.head)?;
    let to = tree_of(here, &before.head, &journey.start)?;
    let verb = "checkout";
    let discards = journey.changes == LocalChanges::Discard;
    let index = here.index(&before)?;
    let _lease = here.lease();
    let base = match discards {
        true if is_born => index,
        true => from,
        false => settled(here, from, index, to)?,
    };
    let mut doomed = Doomed { here, workspace: &before, verb, base, to, reach: Reach::All, seen: None };
    let back = if discards { keep(context, &mut folder, &mut doomed)?.tree } else { base };
    let mut in_the_way = folder.foresee(here.store(), Some(base), to, journey.changes)?;
    if !discards {
        let mut staged = helix_versions::in_the_way(here.store(), (from, index), (from, to))?;
        staged.retain(|path| in_the_way.iter().all(|other| other.path != *path));
        in_the_way.extend(staged.into_iter().map(|path| Conflict { path, kind: ConflictKind::LocalChange }));
    }
    if !in_the_way.is_empty() {
        return Err(super::in_the_way(&in_the_way, verb));
    }
    Move { from, to: None }.begin(here, here.name());
    let switched = repository.switch(&here.caller(context, None), &journey.start, Elsewhere::Refuse);
    let switched = context.console.failing_with(FATAL, switched)?;
    let operation = switched.recorded.operation;
    // A branch that has moved meanwhile is another tree than was looked at.
    let base = if discards || switched.to == to { base } else { from };
    let (workspace, to, changes) = (here.name(), switched.to, journey.changes);
    let mut moved = Moved { here, workspace, verb, operation, from: base, to, back, changes };
    if discards {
        doomed.to = switched.to;
        moved.back = match keep(context, &mut folder, &mut doomed) {
            Ok(kept) => kept.tree,
            Err(failure) => return Err(moved.take_back(context, &mut folder, failure)),
        };
    }
    moved.follow(context, &mut folder)?;
    if discards && is_born {
        repository.stage(here.name(), None, &[])?;
    }
    drop(folder);
    if context.is_json() {
        let branch = if let HeadTarget::Branch(branch) = &switched.head.target { Some(branch.to_string()) } else { None };
        context.console.json(&json!({"branch": branch, "snapshot": switched.head.snapshot, "tree": switched.to}))?;
        return Ok(OK);
    }
    if !journey.quiet {
        tell(context, here, &before.head, &switched.head, &journey.start)?;
    }
    Ok(OK)
}

/// `from`, with what is staged already as `to` has it: there is nothing to be done at those paths, whatever their files are by now.
fn settled(here: &Here, from: ObjectId, index: ObjectId, to: ObjectId) -> Result<ObjectId, Failure> {
    let mut fresh = here.with_fresh(Vec::new());
    let content = |entry: Option<TreeEntry>| entry.map(|entry| (entry.mode, entry.id));
    let mut changes = Vec::new();
    for change in helix_versions::diff_entries(here.store(), Some(from), index)? {
        if content(fresh.entry(to, &change.path)?) == content(change.after.clone()) {
            changes.push(change);
        }
    }
    let base = fresh.with_changes(from, changes.iter())?;
    here.store().put(&fresh.into_objects(), Durability::NoSync)?;
    Ok(base)
}

fn tree_of(here: &Here, head: &Head, start: &Start) -> Result<ObjectId, Failure> {
    let repository = here.repository();
    let tree = |id: SnapshotId| repository.tree(id);
    Ok(match start {
        Start::Branch(branch) => repository.branch(branch)?.map_or(Ok(repository.empty_tree()), tree)?,
        Start::NewBranch(_, id) | Start::Detached(id) => tree(*id)?,
        Start::Unborn(_) => repository.tree_of(head)?,
    })
}

/// As git tells it, on standard error.
fn tell(context: &mut Context<'_>, here: &Here, before: &Head, after: &Head, start: &Start) -> Result<(), Failure> {
    match (&before.target, &after.target) {
        (before, HeadTarget::Branch(branch)) => {
            let line = match start {
                Start::NewBranch(..) | Start::Unborn(_) => format!("Switched to a new branch '{branch}'"),
                _ if *before == HeadTarget::Branch(branch.clone()) => format!("Already on '{branch}'"),
                _ => format!("Switched to branch '{branch}'"),
            };
            context.console.note(line)
        }
        (_, HeadTarget::Detached(id)) => {
            let snapshot = here.repository().snapshot(*id)?;
            let line = format!("HEAD is now at {} {}", id.short(), history::subject(&snapshot));
            context
                .console
                .note(format!("{line}\nhint: on no branch: `helios switch -c NAME` keeps what is committed here under a name"))
        }
    }
}
