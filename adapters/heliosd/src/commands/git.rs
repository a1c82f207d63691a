//! `helios import`, `helios export` and `helios sync`: histories from and to git.

mod folders;
mod told;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use helix_protocol::{Code, Failure};
use helix_versions::git::{
    ExportRefs, GitHead, RefOutcome, RefReport, SyncFailed, converted, export_history, import_history, import_history_again, sync,
};
use helix_versions::{RefName, VersionError};
use serde_json::json;

use self::folders::{Folders, arrive, beside, git_folder};
use self::told::{
    EXPORT, FROM_GIT, IMPORT, ProgressLine, TO_GIT, converted_json, refs_json, tell_converted, tell_left_out, tell_refs,
    tell_unlike,
};
use super::{Verb, init};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::engine::location::Location;
use crate::here::Here;

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
/// New commits go both ways; branches are only moved forward. Each leaves the other's folder alone. A branch that has gone on on
/// both sides is left, and the command is named that merges git's commit into it here; the sync after that brings git forward.
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
        match Location::find(&cwd) {
            Ok(_) => return self.take(context, &cwd, &source),
            Err(failure) if failure.code != Code::NotFound => return Err(failure),
            Err(_) => {}
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
        let git = git_folder(source);
        let before = Folders::look(&here, git.as_deref())?;
        let mut meter = ProgressLine::new(self.quiet, context.caller.columns);
        let import = if self.again { import_history_again } else { import_history };
        let report =
            import(here.repository(), &caller, source, &mut |progress| meter.tell(&mut context.console, "importing", progress))
                .map_err(|error| no_git(error, "--from-git"))?;
        meter.end(&mut context.console)?;
        if began_empty {
            before.without(here.name()).follow(context, &here, &report)?;
            arrive(context, &here, &report.head, git.as_deref())?;
        } else {
            before.follow(context, &here, &report)?;
        }
        if git.is_some_and(|git| git == here.location.root) {
            match converted(source) {
                Ok(files) => tell_unlike(context, &files)?,
                Err(error) => context.console.note(format!("warning: what git filters is not known: {error}"))?,
            }
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
        let before = Folders::look(&here, git_folder(&git).as_deref())?;
        let mut meter = ProgressLine::new(self.quiet, context.caller.columns);
        let synced = sync(here.repository(), &caller, &git, &mut |progress| meter.tell(&mut context.console, "syncing", progress));
        meter.end(&mut context.console)?;
        let report = match synced {
            Ok(report) => report,
            Err(SyncFailed { imported, error }) => {
                if let Some(imported) = imported {
                    before.follow(context, &here, &imported)?;
                }
                return Err(no_git(error, "--git"));
            }
        };
        before.follow(context, &here, &report.imported)?;
        let (from, to) = (&report.imported, &report.exported);
        if context.is_json() {
            context.console.json(&json!({"from_git": {"commits": from.commits, "refs": refs_json(&from.refs)}, "to_git": {"commits": to.commits, "refs": refs_json(&to.refs), "converted": converted_json(&to.converted)}}))?;
        } else {
            // What is further here goes to git in the same run, or it is said there why not. What both have
            // gone on with is said once.
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
