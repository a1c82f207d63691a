//! `helios import`, `helios export` and `helios sync`: histories from and to git.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::git::{
    Converted, ExportRefs, GitHead, ImportReport, Phase, Progress, RefOutcome, RefReport, SyncFailed, converted, export_history,
    import_history, import_history_again, sync, working_folder,
};
use helix_versions::{BranchName, Elsewhere, LocalChanges, RefName, Start, Undo, VersionError, WorkspaceName};
use serde_json::{Value, json};

use super::follow::go_back;
use super::{Verb, init};
use crate::console::{Console, NO, OK};
use crate::context::Context;
use crate::engine::location::Location;
use crate::here::{Here, queue};

/// Takes the whole history of a git repository
///
/// All commits, branches and tags come with their times, authors and messages; what is exported again later has the ids it
/// had. Nothing of the git repository is changed. Where there is no helios repository yet, one is made here.
#[derive(Parser)]
#[command(
    name = "import",
    after_help = "Examples:\n  cd project && helios import --from-git .\n  helios import --from-git /path/to/git/repo\n  helios import --from-git . --again"
)]
pub struct Import {
    /// The git repository
    #[arg(long, value_name = "PATH")]
    from_git: PathBuf,
    /// Reads also what was imported before, and stores again what is missing of it
    #[arg(long)]
    again: bool,
    /// Says nothing on the way
    #[arg(short, long)]
    quiet: bool,
}

/// Writes the history into a git repository
///
/// What came from git has the ids it had there. A repository is made, bare, where there is none. Branches that have diverged there,
/// or are checked out, are left and named.
#[derive(Parser)]
#[command(
    name = "export",
    after_help = "Examples:\n  helios export --to-git ../project.git\n  helios export --to-git ../project.git --branch main"
)]
pub struct Export {
    /// The git repository
    #[arg(long, value_name = "PATH")]
    to_git: PathBuf,
    /// Only this branch
    #[arg(long, value_name = "BRANCH")]
    branch: Vec<String>,
    /// Says nothing on the way
    #[arg(short, long)]
    quiet: bool,
}

/// Brings this repository and the git repository beside it together
///
/// New commits go both ways; branches are only moved forward. Each leaves the other's folder alone. A branch that has gone on on both
/// sides is left, and the command is named that merges git's commit into it here; the sync after that brings git forward.
#[derive(Parser)]
#[command(
    name = "sync",
    after_help = "Examples:\n  helios sync\n  helios sync --git /path/to/project\n\nExit codes: 0 both sides are brought together, 1 a branch has gone on on both, a name is in another's way, or something is refused, 128 anything else"
)]
pub struct Sync {
    /// A folder of the git repository; the one that works in this folder where nothing is said
    #[arg(long, value_name = "PATH")]
    git: Option<PathBuf>,
    /// Says nothing on the way
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Import {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let source = cwd.join(&self.from_git);
        if !source.exists() {
            return Err(
                Failure::new(Code::NotFound, format!("there is no {}", source.display())).hint("name a folder of a git repository")
            );
        }
        if Location::find(&cwd).is_ok() {
            return self.take(context, &cwd, &source);
        }
        let root = fs::canonicalize(&cwd).map_err(|error| Failure::io(cwd.display(), &error))?;
        let made = init::make(context, &root, "main".parse()?, false)?;
        let outcome = self.take(context, &cwd, &source);
        // An import that was broken off is gone on with by the next one; one that failed leaves no repository nobody asked for.
        let failed = outcome.as_ref().is_err_and(|failure| failure.code != Code::Cancelled);
        if failed && made == init::Made::New && is_without_branches(context, &cwd) {
            let own = Location::main(root.clone()).own_folder();
            context.engine.with_closed(&root, || fs::remove_dir_all(&own).map_err(|error| Failure::io(own.display(), &error)))?;
        }
        outcome
    }
}

/// Whether nothing that was imported has a name.
fn is_without_branches(context: &mut Context<'_>, cwd: &Path) -> bool {
    Here::find(context, cwd).is_ok_and(|here| here.repository().branches().is_ok_and(|branches| branches.is_empty()))
}

impl Import {
    fn take(&self, context: &mut Context<'_>, cwd: &Path, source: &Path) -> Result<u8, Failure> {
        let here = Here::find(context, cwd)?;
        let _lease = here.lease();
        let caller = here.caller(context, None);
        let began_empty = here.repository().head(here.name())?.snapshot.is_none();
        let mut before = Folders::look(&here)?;
        if began_empty {
            before.0.retain(|(name, _)| name != here.name());
        }
        let mut meter = ProgressLine::new(self.quiet, context.caller.columns);
        let import = if self.again { import_history_again } else { import_history };
        let report =
            import(here.repository(), &caller, source, &mut |progress| meter.tell(&mut context.console, "importing", progress))
                .map_err(|error| no_git(error, "--from-git"))?;
        meter.end(&mut context.console)?;
        let git = git_folder(source);
        before.follow(context, &here, &report, git.as_deref())?;
        if began_empty {
            arrive(context, &here, &report.head, git.as_deref())?;
        }
        if git.is_some_and(|git| git == here.location.root) {
            tell_unlike(context, &converted(source)?)?;
        }
        if context.is_json() {
            context
                .console
                .json(&json!({"commits": report.commits, "objects": report.objects, "stored": report.stored, "refs": refs_json(&report.refs)}))?;
        } else {
            tell_refs(&mut context.console, &IMPORT, &report.refs)?;
            context.console.line(format!("imported {} commits ({} objects)", report.commits, report.objects))?;
            if let Some(stored) = report.stored {
                context.console.line(format!("{stored} objects were not here, and are now"))?;
            }
        }
        Ok(OK)
    }
}

/// Puts the head where git's is, unless that is nowhere here; the branch that it stays on may have come all the same. Files that are here
/// already stay; those that are not are made, but in the folder that git itself works in: there they were deleted.
fn arrive(context: &mut Context<'_>, here: &Here, head: &GitHead, git: Option<&Path>) -> Result<(), Failure> {
    let repository = here.repository();
    let start = match head {
        GitHead::Ref(name) => {
            let branch = name.strip_prefix("refs/heads/").and_then(|name| name.parse::<BranchName>().ok());
            match branch {
                Some(branch) if repository.branch(&branch)?.is_some() => Some(Start::Branch(branch)),
                _ => None,
            }
        }
        GitHead::Detached(id) => Some(Start::Detached(*id)),
        GitHead::Elsewhere(_) => None,
    };
    let folder = here.folder()?;
    let mut folder = queue(&folder, &context.console)?;
    let empty = repository.empty_tree();
    let has_files = !folder.status(here.store(), Some(empty))?.changes.is_empty();
    let to = match start {
        Some(start) => repository.switch(&here.caller(context, None), &start, Elsewhere::Refuse)?.to,
        None => repository.tree_of(&repository.head(here.name())?)?,
    };
    if !has_files || git != Some(&*here.location.root) {
        go_back(here, &mut folder, empty, to)?;
    }
    Ok(())
}

impl Verb for Export {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let _lease = here.lease();
        let caller = here.caller(context, None);
        let which = if self.branch.is_empty() {
            ExportRefs::All
        } else {
            let names = self.branch.iter().map(|name| Ok(RefName::branch(&name.parse()?)));
            ExportRefs::Some(names.collect::<Result<_, Failure>>()?)
        };
        let mut meter = ProgressLine::new(self.quiet, context.caller.columns);
        let target = cwd.join(&self.to_git);
        let report = export_history(here.repository(), &caller, &target, &which, &mut |progress| {
            meter.tell(&mut context.console, "exporting", progress)
        })?;
        meter.end(&mut context.console)?;
        if context.is_json() {
            context.console.json(&json!({"repository": report.repository.display().to_string(), "created": report.created, "commits": report.commits, "objects": report.objects, "refs": refs_json(&report.refs), "left_out": report.left_out, "converted": converted_json(&report.converted)}))?;
        } else {
            tell_refs(&mut context.console, &EXPORT, &report.refs)?;
            context.console.line(format!(
                "exported {} commits ({} objects) to {}",
                report.commits,
                report.objects,
                report.repository.display()
            ))?;
        }
        tell_left_out(&mut context.console, &report.left_out)?;
        tell_converted(&mut context.console, &report.converted)?;
        Ok(OK)
    }
}

impl Verb for Sync {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let _lease = here.lease();
        let caller = here.caller(context, None);
        let git = match &self.git {
            Some(git) => cwd.join(git),
            None => beside(&here.location)?,
        };
        let before = Folders::look(&here)?;
        let mut meter = ProgressLine::new(self.quiet, context.caller.columns);
        let synced = sync(here.repository(), &caller, &git, &mut |progress| meter.tell(&mut context.console, "syncing", progress));
        meter.end(&mut context.console)?;
        let folder = git_folder(&git);
        let report = match synced {
            Ok(report) => report,
            Err(SyncFailed { imported, error }) => {
                if let Some(imported) = imported {
                    before.follow(context, &here, &imported, folder.as_deref())?;
                }
                return Err(no_git(error, "--git"));
            }
        };
        before.follow(context, &here, &report.imported, folder.as_deref())?;
        let (from, to) = (&report.imported, &report.exported);
        if context.is_json() {
            context.console.json(&json!({"from_git": {"commits": from.commits, "refs": refs_json(&from.refs)}, "to_git": {"commits": to.commits, "refs": refs_json(&to.refs), "converted": converted_json(&to.converted)}}))?;
        } else {
            // What is further here goes to git in the same run, or it is said there why not. What both have gone on with is said once.
            let given = |name: &str| to.refs.iter().any(|report| report.name == name);
            let taken = from.refs.iter().filter(|report| report.outcome != RefOutcome::Ahead || !given(&report.name));
            let told = |report: &&RefReport| report.outcome != RefOutcome::Diverged || !from.refs.contains(*report);
            tell_refs(&mut context.console, &FROM_GIT, taken)?;
            tell_refs(&mut context.console, &TO_GIT, to.refs.iter().filter(told))?;
            context.console.line(format!("{} commits from git, {} to git", from.commits, to.commits))?;
        }
        let is_head = |moved: &&RefReport| matches!(&from.head, GitHead::Ref(head) if *head == moved.name);
        if let Some(moved) = to.refs.iter().filter(is_head).find(|moved| moved.outcome == RefOutcome::Forwarded) {
            let name = moved.name.trim_start_matches("refs/heads/");
            let text = format!("hint: git's index is still that of the commit before: `git reset` makes it follow {name}");
            context.console.note(text)?;
        }
        tell_left_out(&mut context.console, &to.left_out)?;
        tell_converted(&mut context.console, &to.converted)?;
        let is_left = |outcome: &RefOutcome| matches!(outcome, RefOutcome::Diverged | RefOutcome::InTheWay { .. });
        let is_apart = from.refs.iter().chain(&to.refs).any(|report| is_left(&report.outcome));
        Ok(if is_apart { NO } else { OK })
    }
}

/// The git repository that works in this folder, or in the main one. One of a folder above has more in its branches than is here.
fn beside(location: &Location) -> Result<PathBuf, Failure> {
    let mut above = None;
    for root in [&location.root, &location.repository] {
        match working_folder(root) {
            Ok(Some(folder)) if folder == *root => return Ok(folder),
            Ok(folder) => above = folder,
            Err(VersionError::NotARepository(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let root = location.repository.display();
    let failure = Failure::new(Code::NotARepository, format!("{root} has no git repository of its own"));
    Err(match above {
        Some(above) => failure.hint(format!("`helios sync --git {}` takes the one of a folder above, whole", above.display())),
        None => failure.hint("name a folder of one with `--git`, or run `git init` there and commit once"),
    })
}

/// The trees that the files of workspaces came of, before an import moves branches.
struct Folders(Vec<(WorkspaceName, ObjectId)>);

impl Folders {
    fn look(here: &Here) -> Result<Self, Failure> {
        let workspaces = here.repository().workspaces()?.into_iter();
        let trees = workspaces.map(|workspace| Ok((workspace.name.clone(), here.repository().folder_tree(&workspace)?)));
        trees.collect::<Result<_, Failure>>().map(Self)
    }

    /// Lets files follow their branches, but in the folder that git itself works in: there they are right already. Where changes that no
    /// commit has are in the way, no file is touched and the import is taken back.
    fn follow(&self, context: &mut Context<'_>, here: &Here, report: &ImportReport, git: Option<&Path>) -> Result<(), Failure> {
        let verb = "import";
        let repository = here.repository();
        let (mut moved, mut in_the_way) = (Vec::new(), Vec::new());
        for (name, from) in &self.0 {
            let workspace = repository.workspace(name)?;
            let (to, location) = (repository.folder_tree(&workspace)?, here.place_of(&workspace));
            if to == *from || !location.root.is_dir() || git == Some(&*location.root) {
                continue;
            }
            let folder = here.open.folder(&location)?;
            in_the_way.extend(queue(&folder, &context.console)?.foresee(here.store(), Some(*from), to, LocalChanges::Keep)?);
            moved.push((name, folder, *from, to));
        }
        if !in_the_way.is_empty() {
            if let Some(number) = report.recorded.operation {
                repository.undo(&here.caller(context, None), Undo::Entry(number))?;
            }
            return Err(super::in_the_way(&in_the_way, verb));
        }
        for (name, folder, from, to) in moved {
            let followed = queue(&folder, &context.console)?.switch(here.store(), Some(from), to, LocalChanges::Keep);
            if let Err(error) = followed {
                let text = format!("warning: the files of workspace {name} stay as they are: {error}");
                context.console.note(format!(
                    "{text}\nhint: `helios reset --hard` there makes them the head's before anything is committed"
                ))?;
            }
        }
        Ok(())
    }
}

/// The folder that a git repository works in, where it has one.
fn git_folder(git: &Path) -> Option<PathBuf> {
    working_folder(git).ok().flatten()
}

/// Names the option that names the git repository, where there is none.
fn no_git(error: VersionError, option: &str) -> Failure {
    let failure = Failure::from(error);
    match failure.code {
        Code::NotARepository => {
            failure.hint(format!("name a folder of one with `{option}`, or run `git init` there and commit once"))
        }
        _ => failure,
    }
}

/// Warns of what was purged before git could have it.
fn tell_left_out(console: &mut Console<'_>, ids: &[ObjectId]) -> Result<(), Failure> {
    for id in ids {
        console.note(format!("warning: {} is left out: it was removed with `helios purge`", id.short()))?;
    }
    if !ids.is_empty() {
        console.note("warning: commits that had such files, and those that came of them, have other ids in git than before")?;
    }
    Ok(())
}

/// Warns of files that show as changed, since git's working folder has them otherwise than git's commits.
fn tell_unlike(context: &mut Context<'_>, files: &[Converted]) -> Result<(), Failure> {
    let Some(Converted { path, by }) = files.first() else { return Ok(()) };
    let more = if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
    let text = format!("warning: git converts {path} ({by}){more} on the way into the folder: here such files show as changed");
    context.console.note(format!("{text}\nhint: leave them to git: what `helios commit` takes is what lies in the folder"))
}

/// Warns of what git got as it lies in the folder.
fn tell_converted(console: &mut Console<'_>, files: &[Converted]) -> Result<(), Failure> {
    files.iter().try_for_each(|Converted { path, by }| {
        console.note(format!("warning: git gets {path} as it lies in the folder, without what it does to it itself ({by})"))
    })
}

fn converted_json(files: &[Converted]) -> Vec<Value> {
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

fn refs_json(refs: &[RefReport]) -> Vec<Value> {
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
struct Way {
    /// What stands before each ref; nothing where there is only one way.
    mark: &'static str,
    /// A ref that was left since it is further where it would have been moved.
    ahead: &'static str,
    /// A ref that was left since it was removed there.
    removed: &'static str,
}

const IMPORT: Way = Way { mark: "", ahead: "left, it is further here than in git:", removed: "left, it was removed here:" };
const EXPORT: Way = Way { mark: "", ahead: "left, it is further in git than here:", removed: "left, it was removed in git:" };
const FROM_GIT: Way = Way { mark: "git → here: ", ..IMPORT };
const TO_GIT: Way = Way { mark: "here → git: ", ..EXPORT };

/// Names the refs that something became of.
fn tell_refs<'r>(console: &mut Console<'_>, way: &Way, refs: impl IntoIterator<Item = &'r RefReport>) -> Result<(), Failure> {
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
struct ProgressLine {
    shown: bool,
    used: bool,
}

impl ProgressLine {
    fn new(quiet: bool, columns: u16) -> Self {
        Self { shown: !quiet && columns > 0, used: false }
    }

    fn tell(&mut self, console: &mut Console<'_>, verb: &str, progress: &Progress) {
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

    fn end(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        if self.used { console.aside("\r\x1b[K") } else { Ok(()) }
    }
}
