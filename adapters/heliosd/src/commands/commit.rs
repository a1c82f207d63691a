//! `helios commit`: makes a snapshot.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::{CommitRequest, Committed, EntryChange, LocalChanges, Undecided, VersionError, Workspace};
use serde_json::json;

use super::{Verb, unfinished};
use crate::console::{FATAL, OK};
use crate::context::Context;
use crate::engine::settings;
use crate::here::{Here, queue};
use crate::pathspec::Pathspec;
use crate::render::{changes, path};

/// Makes a snapshot of the files
///
/// What is staged with `helios add` is committed; where nothing is staged, everything in the workspace is. --all commits what is
/// staged and what became of files that are committed or staged already, and no new ones, as git does. --work PATH commits what is
/// beneath that path as it is now, and always makes a snapshot, so that a loop of commits and resets stays in step. Without a
/// message the snapshot says which files changed.
///
/// A commit is one batch: it is there as a whole or not at all. --durability says when it counts as made: `nosync` survives the
/// death of every process and not of the machine (what git does by default), `group` is on disk in a sync shared with
/// whoever commits at the same time, `sync` in one of its own.
///
/// The author is HELIOS_AUTHOR_NAME and HELIOS_AUTHOR_EMAIL, else what git would use, else the login. GIT_AUTHOR_DATE and
/// GIT_COMMITTER_DATE, or HELIOS_AUTHOR_DATE and HELIOS_COMMITTER_DATE, date it, in git's formats.
#[derive(Parser)]
#[command(
    name = "commit",
    after_help = "Examples:\n  helios commit --work .\n  helios commit -m 'parse numbers' --meta model=gpt-4 --meta score=0.93\n  helios commit -a -F notes.txt\n  helios commit --work . -m 'fix' --expect 3f2a9c017d44 --durability group\n\nExit codes: 0 committed, 1 nothing to commit, an empty message, or the head is not the expected one, 128 anything else"
)]
pub struct Commit {
    /// Why; several make paragraphs
    #[arg(short, long)]
    message: Vec<String>,
    /// A file with the message
    #[arg(short = 'F', long, value_name = "PATH", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// Commits what is beneath this path as it is now
    #[arg(long, value_name = "PATH")]
    work: Option<OsString>,
    /// Also what became of files that are committed or staged already, but no new ones
    #[arg(short, long, conflicts_with = "work")]
    all: bool,
    /// Refused where the head is another snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    expect: Option<String>,
    /// Something to remember with it, and to search for with `log --where`
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// nosync, group or sync
    #[arg(long, value_name = "CLASS", value_parser = ["nosync", "group", "sync"])]
    durability: Option<String>,
    /// Also where nothing has changed
    #[arg(long)]
    allow_empty: bool,
    /// Takes the place of the last commit
    #[arg(long)]
    amend: bool,
    /// Commits undecided paths of a merge as they stand, with their markers
    #[arg(long)]
    keep_conflicts: bool,
    /// Says nothing
    #[arg(short, long)]
    quiet: bool,
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as key=value".to_owned()),
    }
}

/// What is to be committed.
struct Content {
    tree: ObjectId,
    fresh: Vec<helix_objects::NewObject>,
    /// Against the head, as far as they are known without reading trees.
    changes: Option<Vec<EntryChange>>,
}

impl Verb for Commit {
    const IS_DATED: bool = true;

    fn run(mut self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let started = Instant::now();
        let cwd = context.caller.cwd.clone();
        if let Some(file) = &self.file {
            self.message = vec![message_in(&cwd.join(file))?];
        }
        let start = self.work.as_ref().map_or_else(|| cwd.clone(), |work| existing(cwd.join(work)));
        let here = Here::find(context, &start)?;
        let beneath = self.work.as_ref().map(|work| Pathspec::plain(&here, &cwd, work, "commit --work")).transpose()?;
        let durability = self.durability.as_deref().and_then(settings::durability);
        let expect = self.expect.as_deref().map(|revision| here.resolve(revision)).transpose()?;
        let folder = here.folder()?;
        let mut folder = queue(&folder, &context.console)?;
        unfinished::settle(context, &here, here.name(), &mut folder, LocalChanges::Keep)?;
        let _lease = here.lease();
        let workspace = here.workspace()?;
        let content = self.gather(context, &here, &workspace, &mut folder, beneath.as_deref())?;
        let head_tree = here.repository().tree_of(&workspace.head)?;
        let changed = match content.changes {
            Some(changes) => changes,
            None => changed_since(&here, head_tree, content.tree, &content.fresh)?,
        };
        let (caller, author) = here.caller_and_author(context, durability);
        let mut request = CommitRequest::new(caller, content.tree, self.text(&workspace, &here, &changed)?);
        // What is picked stays its author's, also where conflicts were decided in between.
        let picked = workspace.merging.as_ref().and_then(|merging| merging.author.clone());
        request.author = Some(picked.unwrap_or(author));
        request.onto = Some(head_tree);
        request.objects = content.fresh;
        request.expect = expect;
        request.metadata = self.meta.iter().cloned().collect::<BTreeMap<_, _>>();
        request.allow_empty = self.allow_empty || self.work.is_some();
        request.amend = self.amend;
        request.undecided = if self.keep_conflicts { Undecided::Keep } else { Undecided::Refuse };
        let committed = here.repository().commit(&request);
        let committed = match committed {
            Err(VersionError::Unresolved(_)) => context.console.failing_with(FATAL, committed)?,
            committed => committed?,
        };
        drop(folder);
        here.open.meter.committed(started.elapsed());
        self.tell(context, &committed, &request, &changed)
    }
}

impl Commit {
    fn gather(
        &self,
        context: &mut Context<'_>,
        here: &Here,
        workspace: &Workspace,
        folder: &mut helix_versions::WorkingFolder,
        beneath: Option<&[u8]>,
    ) -> Result<Content, Failure> {
        if self.work.is_none()
            && !self.all
            && let Some(staged) = workspace.staged
        {
            return Ok(Content { tree: staged.tree, fresh: Vec::new(), changes: None });
        }
        if self.amend && self.work.is_none() && !self.all && workspace.staged.is_none() {
            // As in git: the message alone is changed.
            let tree = here.repository().tree_of(&workspace.head)?;
            return Ok(Content { tree, fresh: Vec::new(), changes: Some(Vec::new()) });
        }
        let index = here.index(workspace)?;
        let refreshed = folder.refresh(here.store(), Some(index))?;
        super::tell_skipped(context, &refreshed.skipped, &refreshed.torn)?;
        let changes = workspace.staged.is_none().then(|| refreshed.changes.clone());
        match beneath.filter(|path| !path.is_empty()) {
            None if self.all => {
                let mut fresh = here.with_fresh(refreshed.objects);
                let tracked: Vec<EntryChange> = refreshed.changes.into_iter().filter(|change| change.before.is_some()).collect();
                let tree = fresh.with_changes(index, tracked.iter())?;
                Ok(Content { tree, fresh: fresh.into_objects(), changes: changes.map(|_| tracked) })
            }
            None => Ok(Content { tree: refreshed.tree, fresh: refreshed.objects, changes }),
            Some(path) => {
                let mut fresh = here.with_fresh(refreshed.objects);
                if fresh.entry(refreshed.tree, path)?.is_none() && fresh.entry(index, path)?.is_none() {
                    let message = format!("pathspec '{}' did not match any files", path::plain(path));
                    return Err(
                        Failure::new(Code::NotFound, message).hint("name a file or folder of the workspace that is not ignored")
                    );
                }
                let tree = fresh.splice(index, refreshed.tree, path)?;
                let changes =
                    changes.map(|changes| changes.into_iter().filter(|change| path::is_beneath(&change.path, path)).collect());
                Ok(Content { tree, fresh: fresh.into_objects(), changes })
            }
        }
    }

    fn text(&self, workspace: &Workspace, here: &Here, changed: &[EntryChange]) -> Result<String, Failure> {
        if !self.message.is_empty() {
            let text = self.message.join("\n\n");
            if text.trim().is_empty() {
                return Err(Failure::new(Code::InvalidState, "Aborting commit due to empty commit message")
                    .hint("say why with -m, or leave it out: the message then names the files"));
            }
            return Ok(format!("{}\n", text.trim_end()));
        }
        if let Some(merging) = &workspace.merging {
            return Ok(merging.message.clone());
        }
        if let Some(head) = workspace.head.snapshot.filter(|_| self.amend) {
            return Ok(here.repository().snapshot(head)?.message.clone());
        }
        Ok(format!("{}\n", describe(changed)))
    }

    fn tell(
        &self,
        context: &mut Context<'_>,
        committed: &Committed,
        request: &CommitRequest,
        changed: &[EntryChange],
    ) -> Result<u8, Failure> {
        if context.is_json() {
            context.console.json(&json!({
                "snapshot": committed.snapshot, "tree": committed.tree, "parents": committed.parents,
                "branch": committed.branch.as_ref().map(ToString::to_string), "files_changed": changed.len(),
                "on_disk": committed.recorded.on_disk, "mark": committed.recorded.mark.0,
            }))?;
        } else if !self.quiet {
            let place = committed.branch.as_ref().map_or("detached HEAD".to_owned(), ToString::to_string);
            let root = if committed.parents.is_empty() { " (root-commit)" } else { "" };
            let subject = request.message.lines().next().unwrap_or_default();
            context.console.line(format!("[{place}{root} {}] {subject}", committed.snapshot.short()))?;
            if !changed.is_empty() {
                let files =
                    if changed.len() == 1 { "1 file changed".to_owned() } else { format!("{} files changed", changed.len()) };
                context.console.line(format!(" {files}"))?;
            }
        }
        Ok(OK)
    }
}

/// The message that somebody wrote to a file.
fn message_in(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io(path.display(), &error))?;
    Ok(text.trim_start_matches(['\n', '\r']).to_owned())
}

/// What became of the files, as a message.
fn describe(changed: &[EntryChange]) -> String {
    let Some(first) = changed.first() else { return "snapshot without changes".to_owned() };
    let word = match changes::letter(first) {
        'A' => "add",
        'D' => "remove",
        _ => "update",
    };
    let name = path::plain(&first.path);
    match changed.len() {
        1 => format!("{word} {name}"),
        2 => format!("{word} {name} and 1 more file"),
        more => format!("{word} {name} and {} more files", more - 1),
    }
}

fn changed_since(
    here: &Here,
    older: ObjectId,
    newer: ObjectId,
    fresh: &[helix_objects::NewObject],
) -> Result<Vec<EntryChange>, Failure> {
    Ok(helix_versions::diff_entries(&here.with_fresh(fresh.to_vec()), Some(older), newer)?)
}

/// The path itself, or the nearest folder above it that there is: a file that is gone can be committed as gone.
fn existing(path: PathBuf) -> PathBuf {
    path.ancestors().find(|path| path.exists()).map_or(path.clone(), std::path::Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{describe, key_value};

    #[test]
    fn metadata_is_a_key_and_a_value() {
        assert_eq!(key_value("model=a=b"), Ok(("model".to_owned(), "a=b".to_owned())));
        assert!(key_value("=x").is_err() && key_value("model").is_err());
    }

    #[test]
    fn a_message_that_nobody_gave_names_the_files() {
        let change = |path: &str| helix_versions::EntryChange { path: path.as_bytes().to_vec(), before: None, after: None };
        assert_eq!(describe(&[]), "snapshot without changes");
        assert_eq!(describe(&[change("a")]), "add a");
        assert_eq!(describe(&[change("a"), change("b"), change("c")]), "add a and 2 more files");
    }
}
