//! What is said of an import, an export or a sync, on the way and at its end.

use helix_protocol::{Failure, ObjectId};
use helix_versions::git::{Converted, Phase, Progress, RefOutcome, RefReport};
use serde_json::{Value, json};

use crate::console::Console;
use crate::context::Context;

/// Warns of what was purged before git could have it.
pub(super) fn tell_left_out(console: &mut Console<'_>, ids: &[ObjectId]) -> Result<(), Failure> {
    for id in ids {
        console.note(format!("warning: {} is left out: it was removed with `helios purge`", id.short()))?;
    }
    if !ids.is_empty() {
        console.note("warning: commits that had such files, and those that came of them, have other ids in git than before")?;
    }
    Ok(())
}

/// Warns of files that show as changed, since git's working folder has them otherwise than git's commits.
pub(super) fn tell_unlike(context: &mut Context<'_>, files: &[Converted]) -> Result<(), Failure> {
    let Some(Converted { path, by }) = files.first() else { return Ok(()) };
    let more = if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
    let text = format!("warning: git converts {path} ({by}){more} on the way into the folder: here such files show as changed");
    context.console.note(format!("{text}\nhint: leave them to git: what `helios commit` takes is what lies in the folder"))
}

/// Warns of what git got as it lies in the folder.
pub(super) fn tell_converted(console: &mut Console<'_>, files: &[Converted]) -> Result<(), Failure> {
    files.iter().try_for_each(|Converted { path, by }| {
        console.note(format!("warning: git gets {path} as it lies in the folder, without what it does to it itself ({by})"))
    })
}

pub(super) fn converted_json(files: &[Converted]) -> Vec<Value> {
    files.iter().map(|Converted { path, by }| json!({"path": path, "by": by})).collect()
}

fn outcome(outcome: &RefOutcome) -> String {
    match outcome {
        RefOutcome::Created => "created".to_owned(),
        RefOutcome::Forwarded => "forwarded".to_owned(),
        RefOutcome::Unchanged => "unchanged".to_owned(),
        RefOutcome::Ahead => "left, the other side is ahead:".to_owned(),
        RefOutcome::Diverged => "left, both sides have gone on:".to_owned(),
        RefOutcome::Removed => "left, it was removed on this side:".to_owned(),
        RefOutcome::Kept => "kept for export only:".to_owned(),
        RefOutcome::InTheWay { name } => format!("left, {name} is in its way:"),
        RefOutcome::CheckedOut { worktree } => format!("left, it is checked out in {worktree}:"),
    }
}

pub(super) fn refs_json(refs: &[RefReport]) -> Vec<Value> {
    let told = |report: &RefReport| {
        let mut value = json!({"ref": report.name, "outcome": outcome(&report.outcome)});
        if let Some(commit) = report.theirs.as_ref().filter(|_| report.name.starts_with("refs/heads/")) {
            value["to_merge"] = json!(commit);
        }
        value
    };
    refs.iter().map(told).collect()
}

/// Which way commits go, for a person.
pub(super) struct Way {
    /// What stands before each ref; nothing where there is only one way.
    mark: &'static str,
    /// A ref that was left since it is further where it would have been moved.
    ahead: &'static str,
    /// A ref that was left since it was removed there.
    removed: &'static str,
}

pub(super) const IMPORT: Way =
    Way { mark: "", ahead: "left, it is further here than in git:", removed: "left, it was removed here:" };
pub(super) const EXPORT: Way =
    Way { mark: "", ahead: "left, it is further in git than here:", removed: "left, it was removed in git:" };
pub(super) const FROM_GIT: Way = Way { mark: "git → here: ", ..IMPORT };
pub(super) const TO_GIT: Way = Way { mark: "here → git: ", ..EXPORT };

/// Names the refs that something became of.
pub(super) fn tell_refs<'r>(
    console: &mut Console<'_>,
    way: &Way,
    refs: impl IntoIterator<Item = &'r RefReport>,
) -> Result<(), Failure> {
    for report in refs.into_iter().filter(|report| report.outcome != RefOutcome::Unchanged) {
        let mark = if way.mark.is_empty() || report.outcome != RefOutcome::Diverged { way.mark } else { "git ↔ here: " };
        let became = match &report.outcome {
            RefOutcome::Ahead => way.ahead.to_owned(),
            RefOutcome::Removed => way.removed.to_owned(),
            other => outcome(other),
        };
        console.line(format!("  {mark}{became} {}", report.name))?;
        if let Some(next) = next_step(report) {
            console.line(format!("    {next}"))?;
        }
    }
    Ok(())
}

/// What brings a ref together that was left.
fn next_step(report: &RefReport) -> Option<String> {
    if matches!(report.outcome, RefOutcome::InTheWay { .. }) {
        return Some("no branch is beneath another one: rename one of them".to_owned());
    }
    if report.outcome != RefOutcome::Diverged {
        return None;
    }
    let (branch, tag) = (report.name.strip_prefix("refs/heads/"), report.name.strip_prefix("refs/tags/"));
    Some(match (branch, tag, &report.theirs) {
        (Some(branch), _, Some(commit)) => {
            format!("on branch {branch}: `helios merge {commit}` takes git's commit into it, then export or sync again")
        }
        (Some(_), _, None) => "`helios import` or `helios sync` takes git's commit first, and names it".to_owned(),
        (None, Some(tag), Some(commit)) => format!(
            "tags stay where they are: `helios tag -f {tag} {commit}` takes git's, `git tag -d {tag}` makes room for the one here"
        ),
        (None, Some(tag), None) => format!("tags stay where they are: `git tag -d {tag}` makes room for the one here"),
        (None, None, _) => return None,
    })
}

/// How far it is, on standard error, where there is a terminal.
pub(super) struct ProgressLine {
    shown: bool,
    used: bool,
}

impl ProgressLine {
    pub fn new(quiet: bool, columns: u16) -> Self {
        Self { shown: !quiet && columns > 0, used: false }
    }

    pub fn tell(&mut self, console: &mut Console<'_>, verb: &str, progress: &Progress) {
        if !self.shown {
            return;
        }
        let phase = match progress.phase {
            Phase::Finding => "finding commits",
            Phase::Copying => verb,
            Phase::Finishing => "finishing",
        };
        let line = format!(
            "\r\x1b[K{phase}: {}/{} commits, {} objects, {:.0}/s",
            progress.done, progress.total, progress.objects, progress.per_second
        );
        // Whoever does not see it any more still gets the work done.
        let _ = console.aside(&line);
        self.used = true;
    }

    pub fn end(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        if self.used { console.aside("\r\x1b[K") } else { Ok(()) }
    }
}
