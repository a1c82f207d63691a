//! `helios cherry-pick` and `helios revert`: what one snapshot changed, again or taken back.

use clap::Parser;
use helix_protocol::{Code, Failure, SnapshotId};
use helix_versions::{LocalChanges, MergingKind, PickRequest, VersionError};

use super::commit::Commit;
use super::unfinished::Move;
use super::{Verb, merge};
use crate::console::{FATAL, NO, OK};
use crate::context::Context;
use crate::here::Here;

/// Repeats what snapshots changed on the current branch
#[derive(Parser)]
#[command(
    name = "cherry-pick",
    after_help = "Examples:\n  helios cherry-pick agent-1\n  helios cherry-pick 3f2a9c017d44 8b1e22c90f31\n  helios cherry-pick --continue\n\nExit codes: 0 done, 1 conflicts or nothing to do, 128 anything else, changes in the way too"
)]
pub struct CherryPick {
    #[command(flatten)]
    picked: Picked,
}

/// Takes back what snapshots changed, as new snapshots
#[derive(Parser)]
#[command(
    name = "revert",
    after_help = "Examples:\n  helios revert HEAD\n  helios revert -m 1 8b1e22c90f31\n\nExit codes: 0 done, 1 conflicts or nothing to do, 128 anything else, changes in the way too"
)]
pub struct Revert {
    #[command(flatten)]
    picked: Picked,
}

/// Which, and what of those that wait.
#[derive(clap::Args)]
struct Picked {
    /// The snapshots, in this order
    #[arg(required_unless_present_any = ["abort", "conclude"])]
    snapshots: Vec<String>,
    /// Gives one up that waits for conflicts to be decided, as `helios merge --abort` does with a merge
    #[arg(long, conflicts_with_all = ["snapshots", "mainline"])]
    abort: bool,
    /// Commits one whose conflicts are decided, as `helios commit` does
    #[arg(long = "continue", conflicts_with_all = ["snapshots", "mainline", "abort"])]
    conclude: bool,
    /// For a merge: the parent that the change is against, counted from 1
    #[arg(short, long, value_name = "NUMBER")]
    mainline: Option<usize>,
}

impl Verb for CherryPick {
    const IS_DATED: bool = true;

    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        self.picked.run(context, MergingKind::CherryPick)
    }
}

impl Verb for Revert {
    const IS_DATED: bool = true;

    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        self.picked.run(context, MergingKind::Revert)
    }
}

impl Picked {
    fn run(&self, context: &mut Context<'_>, kind: MergingKind) -> Result<u8, Failure> {
        match Waiting::of(self.abort, self.conclude) {
            Some(waiting) => waiting.end(context, kind),
            None => pick(context, &self.snapshots, self.mainline, kind),
        }
    }
}

/// What to do with one that waits.
enum Waiting {
    GiveUp,
    Conclude,
}

impl Waiting {
    fn of(abort: bool, conclude: bool) -> Option<Self> {
        abort.then_some(Self::GiveUp).or(conclude.then_some(Self::Conclude))
    }

    fn end(self, context: &mut Context<'_>, kind: MergingKind) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        match self {
            Self::GiveUp => merge::abort(context, &here, kind),
            Self::Conclude => {
                context.console.failing_with(FATAL, merge::waits_as(&here.workspace()?, kind))?;
                Commit::parse_from(["commit"]).run(context)
            }
        }
    }
}

fn pick(context: &mut Context<'_>, revisions: &[String], mainline: Option<usize>, kind: MergingKind) -> Result<u8, Failure> {
    let cwd = context.caller.cwd.clone();
    let here = Here::find(context, &cwd)?;
    // All of them first: what HEAD~1 is must not change on the way.
    let snapshots = revisions.iter().map(|revision| here.resolve(revision)).collect::<Result<Vec<_>, _>>()?;
    for (place, snapshot) in snapshots.iter().copied().enumerate() {
        let folder = here.folder()?;
        let mut folder = super::take_turn(context, &here, &folder, LocalChanges::Keep)?;
        context.console.failing_with(FATAL, merge::none_waits(&here))?;
        let from = here.repository().tree_of(&here.repository().head(here.name())?)?;
        Move { from, to: None }.begin(&here, here.name());
        let request = PickRequest { caller: here.caller(context, None), snapshot, mainline };
        let verb = kind.verb();
        let outcome = match kind {
            MergingKind::Revert => here.repository().revert(&request),
            MergingKind::CherryPick | MergingKind::Merge => here.repository().cherry_pick(&request),
        };
        let code = if matches!(outcome, Err(VersionError::NothingToCommit(_))) { NO } else { FATAL };
        let outcome = context.console.failing_with(code, outcome.map_err(|error| empty(error, snapshot)))?;
        let followed = merge::follow(context, &here, &mut folder, &outcome, verb);
        context.console.failing_with(FATAL, followed)?;
        drop(folder);
        let made = outcome.snapshot.map_or_else(String::new, |id| format!("{verb}: {}", id.short()));
        let code = merge::tell(context, &here, &outcome, kind, &made)?;
        if code != OK {
            let left = snapshots[place + 1..].iter().map(SnapshotId::short).collect::<Vec<_>>().join(" ");
            if !left.is_empty() {
                context.console.note(format!("hint: not picked yet: once this one is committed, `helios {verb} {left}`"))?;
            }
            return Ok(code);
        }
    }
    Ok(OK)
}

/// A pick that changes nothing is told as one: there is no option that makes a snapshot of it.
fn empty(error: VersionError, snapshot: SnapshotId) -> Failure {
    match error {
        VersionError::NothingToCommit(_) => {
            Failure::new(Code::InvalidState, format!("nothing to commit: what {} changed is so here already", snapshot.short()))
                .hint("leave it out")
        }
        error => error.into(),
    }
}
