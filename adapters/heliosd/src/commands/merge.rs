//! `helios merge`: another line of work into this one.

use clap::Parser;
use helix_protocol::{Failure, FileMode, ObjectId};
use helix_versions::{
    FastForward, LocalChanges, MergeKind, MergeOutcome, MergeRequest, MergingKind, Undo, Unresolved, VersionError, WorkingFolder,
    Workspace, diff_entries,
};
use serde_json::json;

use super::Verb;
use super::follow::Moved;
use super::keep::{Doomed, Reach, keep};
use super::unfinished::{self, Move};
use crate::console::{FATAL, NO, OK};
use crate::context::Context;
use crate::here::{Here, text_of};
use crate::render::changes::{self, Renames, Shape};
use crate::render::path;

/// Merges a branch or a snapshot into the current branch
///
/// Where both sides changed the same lines, both stand in the file between markers, the paths are listed, and the merge waits:
/// edit them, add them and commit, or give up with --abort. The conflicts are kept in the repository too, with all three sides.
#[derive(Parser)]
#[command(
    name = "merge",
    after_help = "Examples:\n  helios merge agent-1\n  helios merge 3f2a9c017d44 -m 'take the winner'\n  helios merge --abort\n\nExit codes: 0 merged, 1 conflicts, changes in the way or nothing of that name, 128 anything else"
)]
pub struct Merge {
    /// A branch or a snapshot
    #[arg(required_unless_present = "abort")]
    target: Option<String>,
    /// Gives a merge up: the files that it touched, and those that were added since, are the head's again. What was edited in
    /// these is kept in a snapshot first; other edits stay
    #[arg(long, conflicts_with_all = ["target", "message"])]
    abort: bool,
    /// The merge's message
    #[arg(short, long)]
    message: Option<String>,
    /// Makes a snapshot also where moving the branch forward would do
    #[arg(long, conflicts_with = "ff_only")]
    no_ff: bool,
    /// Only where moving the branch forward does
    #[arg(long)]
    ff_only: bool,
    /// Stops before the commit
    #[arg(long)]
    no_commit: bool,
    /// Also where the histories have nothing in common
    #[arg(long)]
    allow_unrelated_histories: bool,
    /// Something to remember with it
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::commit::key_value)]
    meta: Vec<(String, String)>,
}

impl Verb for Merge {
    const IS_DATED: bool = true;

    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        if self.abort {
            return abort(context, &here, MergingKind::Merge);
        }
        let label = self.target.clone().unwrap_or_default();
        let folder = here.folder()?;
        let mut folder = super::take_turn(context, &here, &folder, LocalChanges::Keep)?;
        context.console.failing_with(FATAL, none_waits(&here))?;
        let other = context.console.failing_with(NO, here.resolve(&label))?;
        let request = MergeRequest {
            message: self.message.as_ref().map(|message| format!("{}\n", message.trim_end())),
            fast_forward: match (self.no_ff, self.ff_only) {
                (true, _) => FastForward::Never,
                (_, true) => FastForward::Only,
                _ => FastForward::Allow,
            },
            allow_unrelated: self.allow_unrelated_histories,
            no_commit: self.no_commit,
            metadata: self.meta.into_iter().collect(),
            ..MergeRequest::new(here.caller(context, None), other, label)
        };
        let from = here.repository().tree_of(&here.repository().head(here.name())?)?;
        Move { from, to: None }.begin(&here, here.name());
        let outcome = here.repository().merge(&request);
        let code = if matches!(outcome, Err(VersionError::WouldOverwrite { .. })) { NO } else { FATAL };
        let outcome = context.console.failing_with(code, outcome)?;
        follow(context, &here, &mut folder, &outcome, "merge")?;
        drop(folder);
        tell(context, &here, &outcome, MergingKind::Merge, "Merge made by the three-way strategy.")
    }
}

/// Refuses to begin where a merge waits, before a move of files is noted: they are not the head's.
pub fn none_waits(here: &Here) -> Result<(), Failure> {
    match here.repository().workspace(here.name())?.merging {
        None => Ok(()),
        Some(merging) => Err(VersionError::merge_waits(here.name(), merging.kind).into()),
    }
}

/// Refuses to end a merge as a pick, or a pick as a merge. A pick and a revert can be ended as either, as in git.
pub fn waits_as(before: &Workspace, kind: MergingKind) -> Result<(), VersionError> {
    let is_merge = |kind| kind == MergingKind::Merge;
    match before.merging.as_ref().map(|merging| merging.kind) {
        None => Err(VersionError::NoMerge),
        Some(begun) if is_merge(begun) == is_merge(kind) => Ok(()),
        Some(begun) => Err(VersionError::Refused {
            message: format!("no {} has begun, but a {}", kind.verb(), begun.verb()),
            hint: match begun {
                MergingKind::Merge => "`helios commit` concludes it, `helios merge --abort` gives it up",
                MergingKind::CherryPick => "`helios commit` concludes it, `helios cherry-pick --abort` gives it up",
                MergingKind::Revert => "`helios commit` concludes it, `helios revert --abort` gives it up",
            },
        }),
    }
}

/// Gives up a merge, or what was picked or reverted.
pub fn abort(context: &mut Context<'_>, here: &Here, kind: MergingKind) -> Result<u8, Failure> {
    let folder = here.folder()?;
    let mut folder = super::take_turn(context, here, &folder, LocalChanges::Keep)?;
    let before = here.workspace()?;
    let caller = here.caller(context, None);
    let to = here.repository().tree_of(&before.head)?;
    context.console.failing_with(FATAL, waits_as(&before, kind))?;
    let from = here.repository().folder_tree(&before)?;
    let touched: Vec<_> = diff_entries(here.store(), Some(from), to)?.into_iter().map(|change| change.path).collect();
    let (verb, reach) = (&*format!("{} --abort", kind.verb()), Reach::Paths(&touched));
    let kept = keep(context, &mut folder, &mut Doomed { here, workspace: &before, verb, base: from, to, reach, seen: None })?;
    let changes = LocalChanges::Keep;
    let mut in_the_way = folder.foresee(here.store(), Some(from), to, changes)?;
    in_the_way.retain(|conflict| !kept.lost.iter().any(|lost| path::is_beneath(&conflict.path, lost)));
    if !in_the_way.is_empty() {
        return Err(super::in_the_way(&in_the_way, verb));
    }
    // What is kept is first made what the merge made it; then the merge is undone like any step that nobody has edited after.
    folder.restore(here.store(), Some(to), from, &kept.lost)?;
    Move { from, to: None }.begin(here, here.name());
    let switched = context.console.failing_with(FATAL, here.repository().abort_merge(&caller))?;
    let operation = switched.recorded.operation;
    Moved { here, workspace: here.name(), verb, operation, from, to, back: kept.tree, changes }.follow(context, &mut folder)?;
    if context.is_json() {
        context.console.json(&json!({"aborted": true, "snapshot": switched.head.snapshot}))?;
    }
    Ok(OK)
}

/// Lets the files follow what was merged. Where changes that no commit has are in the way, the merge is taken back.
pub fn follow(
    context: &mut Context<'_>,
    here: &Here,
    folder: &mut WorkingFolder,
    outcome: &MergeOutcome,
    verb: &str,
) -> Result<(), Failure> {
    if outcome.from == outcome.to {
        unfinished::end(here, here.name());
        return Ok(());
    }
    let (from, to, operation, changes) = (outcome.from, outcome.to, outcome.recorded.operation, LocalChanges::Keep);
    let seen = folder.foresee(here.store(), Some(from), to, changes).map_err(Failure::from);
    let failure = match seen {
        Ok(in_the_way) if in_the_way.is_empty() => {
            return Moved { here, workspace: here.name(), verb, operation, from, to, back: from, changes }.follow(context, folder);
        }
        Ok(in_the_way) => super::in_the_way(&in_the_way, verb),
        Err(failure) => failure,
    };
    // No file was touched.
    if let Some(number) = operation {
        here.repository().undo(&here.caller(context, None), Undo::Entry(number))?;
    }
    Err(failure)
}

fn conflict(unresolved: &Unresolved) -> String {
    let path = path::plain(&unresolved.path);
    let is_folder = |side: &Option<(FileMode, ObjectId)>| side.is_some_and(|(mode, _)| mode == FileMode::Directory);
    if is_folder(&unresolved.ours) != is_folder(&unresolved.theirs) && unresolved.ours.is_some() && unresolved.theirs.is_some() {
        return format!("CONFLICT (file/directory): {path} is a file on one side and a folder on the other; ours stays");
    }
    match (&unresolved.base, &unresolved.ours, &unresolved.theirs) {
        (None, Some(_), Some(_)) => format!("CONFLICT (add/add): both sides added {path}"),
        (Some(_), None, Some(_)) => format!("CONFLICT (modify/delete): {path} is deleted here, and changed on the other side"),
        (Some(_), Some(_), None) => format!("CONFLICT (modify/delete): {path} is changed here, and deleted on the other side"),
        _ => format!("CONFLICT (content): both sides changed {path}"),
    }
}

/// Says what came of it.
pub fn tell(context: &mut Context<'_>, here: &Here, outcome: &MergeOutcome, kind: MergingKind, made: &str) -> Result<u8, Failure> {
    let conflicts: Vec<&[u8]> = outcome.unresolved.iter().map(|path| path.path.as_slice()).collect();
    let code = if conflicts.is_empty() { OK } else { NO };
    if context.is_json() {
        let kind = match outcome.kind {
            MergeKind::UpToDate => "up_to_date",
            MergeKind::FastForward => "fast_forward",
            MergeKind::Merged => "merged",
            MergeKind::Stopped => "stopped",
        };
        context.console.json(&json!({"result": kind, "snapshot": outcome.snapshot, "tree": outcome.to, "conflicts": conflicts.iter().map(|path| path::to_json(path)).collect::<Vec<_>>()}))?;
        return Ok(code);
    }
    match outcome.kind {
        MergeKind::UpToDate => context.console.line("Already up to date.")?,
        MergeKind::FastForward => context.console.line("Fast-forward")?,
        MergeKind::Merged => context.console.line(made)?,
        MergeKind::Stopped if conflicts.is_empty() => {
            context.console.line("stopped before the commit as asked: `helios commit` makes it")?
        }
        MergeKind::Stopped => {
            for path in &outcome.unresolved {
                context.console.line(conflict(path))?;
            }
            let hint = format!("fix them, `helios add` them and commit, or give up with `helios {} --abort`", kind.verb());
            context.console.line(format!("Automatic merge failed; {hint}"))?;
        }
    }
    if matches!(outcome.kind, MergeKind::FastForward | MergeKind::Merged) {
        let changed = diff_entries(here.store(), Some(outcome.from), outcome.to)?;
        let (columns, read) = (context.caller.columns, |id| text_of(here.store(), id));
        let changed = Renames::Found.of(changed, &read)?;
        context.console.write(changes::render(&changed, Shape::Stat { columns }, false, &read)?.as_bytes())?;
    }
    Ok(code)
}
