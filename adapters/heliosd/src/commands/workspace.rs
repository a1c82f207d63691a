//! `helios workspace`: more folders of one repository, each with a head of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use helix_protocol::{Code, Failure};
use helix_versions::{BranchName, Caller, HeadTarget, Start, Undo, Workspace, WorkspaceName};
use serde_json::json;

use super::Verb;
use super::unfinished::{self, Move};
use crate::console::OK;
use crate::context::Context;
use crate::engine::location::{Location, MARKER};
use crate::here::{Here, queue};

/// Gives each agent a folder and a head of its own
///
/// All workspaces share one repository: what is committed in one can be seen, merged and compared in every other at once.
#[derive(Parser)]
#[command(
    name = "workspace",
    after_help = "Examples:\n  helios workspace add ../agent-1\n  helios workspace add ../agent-2 main --branch try-2\n  helios workspace list\n  helios workspace repair ../moved\n  helios workspace remove agent-1 --delete"
)]
pub struct WorkspaceCommand {
    #[command(subcommand)]
    verb: WorkspaceVerb,
}

#[derive(Subcommand)]
enum WorkspaceVerb {
    /// Makes a workspace in a folder
    #[command(
        after_help = "Examples:\n  helios workspace add ../agent-1\n  helios workspace add ../agent-2 main --branch try-2\n  helios workspace add ../look HEAD~3 --detach"
    )]
    Add {
        /// The folder: missing or empty
        folder: PathBuf,
        /// Where it starts; the head here where nothing is said
        start: Option<String>,
        /// Its branch, made where it is missing; the workspace's name where nothing is said
        #[arg(short, long, value_name = "BRANCH", conflicts_with = "detach")]
        branch: Option<String>,
        /// On no branch
        #[arg(short, long)]
        detach: bool,
        /// Its name; the folder's last name where nothing is said
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists the workspaces
    ///
    /// A folder that does not say itself that it is this workspace is elsewhere: it was moved, or this repository is a copy and the
    /// folder is the original's. No command touches its files.
    #[command(after_help = "Examples:\n  helios workspace list\n  helios workspace list --json")]
    List,
    /// Takes a workspace whose folder was moved, or whose repository was, where it is now
    #[command(after_help = "Examples:\n  mv ../agent-1 ../moved && helios workspace repair ../moved")]
    Repair {
        /// Where the folder is now
        folder: PathBuf,
    },
    /// Forgets a workspace; its branch stays
    #[command(after_help = "Examples:\n  helios workspace remove agent-1\n  helios workspace remove ../agent-1 --delete")]
    Remove {
        /// Its name, or its folder
        workspace: String,
        /// Deletes its folder too
        #[arg(long)]
        delete: bool,
        /// Also where changes that no commit has are lost
        #[arg(short, long)]
        force: bool,
    },
}

impl Verb for WorkspaceCommand {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        match self.verb {
            WorkspaceVerb::Add { folder, start, branch, detach, name } => {
                let name = match name {
                    Some(name) => name,
                    None => folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                };
                let name: WorkspaceName = name.parse()?;
                let start = start_at(&here, &name, start.as_deref(), branch.as_deref(), detach)?;
                add(context, &here, &cwd.join(folder), name, &start)
            }
            WorkspaceVerb::List => list(context, &here),
            WorkspaceVerb::Repair { folder } => repair(context, &here, &cwd.join(folder)),
            WorkspaceVerb::Remove { workspace, delete, force } => remove(context, &here, &workspace, Removal { delete, force }),
        }
    }
}

fn start_at(here: &Here, name: &WorkspaceName, start: Option<&str>, branch: Option<&str>, detach: bool) -> Result<Start, Failure> {
    let repository = here.repository();
    if detach {
        return Ok(Start::Detached(here.resolve(start.unwrap_or("HEAD"))?));
    }
    // As with git's worktrees, an existing branch that is named as the start is the one to be on.
    let named = branch.map(str::to_owned).or_else(|| start.filter(|start| is_branch(here, start)).map(str::to_owned));
    let branch: BranchName = named.unwrap_or_else(|| name.to_string()).parse()?;
    if repository.branch(&branch)?.is_some() {
        return Ok(Start::Branch(branch));
    }
    match (start, repository.head(here.name())?.snapshot) {
        (None, None) => Ok(Start::Unborn(branch)),
        (start, _) => Ok(Start::NewBranch(branch, here.resolve(start.unwrap_or("HEAD"))?)),
    }
}

fn is_branch(here: &Here, name: &str) -> bool {
    name.parse().ok().and_then(|name| here.repository().branch(&name).ok().flatten()).is_some()
}

fn add(context: &mut Context<'_>, here: &Here, folder: &Path, name: WorkspaceName, start: &Start) -> Result<u8, Failure> {
    let io = |error: std::io::Error| Failure::io(folder.display(), &error);
    let made = !folder.exists();
    fs::create_dir_all(folder).map_err(io)?;
    let root = fs::canonicalize(folder).map_err(io)?;
    let location = Location { repository: here.location.repository.clone(), workspace: name.clone(), root: root.clone() };
    let caller = here.caller(context, None);
    let added =
        admit(here, &root).and_then(|()| Ok(here.repository().add_workspace(&caller, &name, &root.to_string_lossy(), start)?));
    let remove_folder = || {
        if made {
            // It is empty; where it stays it is in nobody's way.
            let _ = fs::remove_dir(&root);
        }
    };
    let added = added.inspect_err(|_| remove_folder())?;
    let filled = here.repository().workspace(&name).map_err(Failure::from).and_then(|workspace| {
        let written = fill(context, here, &location, &workspace)?;
        Ok((workspace, written))
    });
    let (workspace, written) = match filled {
        Ok(filled) => filled,
        Err(failure) => {
            let failure = take_back(here, &caller, &location, added.operation, failure);
            remove_folder();
            return Err(failure);
        }
    };
    if context.is_json() {
        context.console.json(&json!({"workspace": name.to_string(), "folder": root.display().to_string(), "snapshot": workspace.head.snapshot, "written": written}))?;
    } else {
        let at = workspace.head.snapshot.map_or_else(|| "no commit yet".to_owned(), |id| id.short());
        let on = match &workspace.head.target {
            HeadTarget::Branch(branch) => format!("on branch {branch}"),
            HeadTarget::Detached(_) => "detached".to_owned(),
        };
        context.console.line(format!("workspace {name} in {} {on} at {at}", root.display()))?;
    }
    Ok(OK)
}

/// Makes a folder the workspace that was made for it. Says how many files it got.
fn fill(context: &Context<'_>, here: &Here, location: &Location, workspace: &Workspace) -> Result<u64, Failure> {
    location.write_marker().map_err(|error| Failure::io(location.root.display(), &error))?;
    let tree = here.repository().tree_of(&workspace.head)?;
    here.open.forget_folder(&workspace.name);
    Move { from: here.repository().empty_tree(), to: Some(tree) }.begin(here, &workspace.name);
    let files = here.open.folder(location)?;
    // Nobody else knows the new folder yet, so its turn is never waited for.
    let (mut filled, like) = (queue(&files, &context.console)?, here.folder()?);
    let written = filled.populate(here.store(), tree, &*queue(&like, &context.console)?)?.written;
    unfinished::end(here, &workspace.name);
    Ok(written)
}

/// Leaves nothing of a workspace whose folder, which was empty, could not be filled.
fn take_back(here: &Here, caller: &Caller, location: &Location, operation: Option<u64>, failure: Failure) -> Failure {
    here.open.forget_folder(&location.workspace);
    // The files first: on a full disk they are the room for the rest.
    let files = clear(&location.root);
    // It is only a memory of the files.
    let _ = fs::remove_dir_all(location.state());
    let record = operation.map_or(Ok(()), |number| here.repository().undo(caller, Undo::Entry(number)).map(drop));
    let left = files.err().map(|error| error.to_string()).or(record.err().map(|error| error.to_string()));
    let Some(left) = left else { return failure };
    let (name, message) = (&location.workspace, failure.message);
    Failure::new(failure.code, format!("{message}\nwhat there is of workspace {name} could not be removed: {left}"))
        .hint(format!("when that is mended: `helios workspace remove {name} --delete --force`"))
}

/// Removes everything in a folder.
fn clear(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Takes a workspace's folder where it is. Its record and its file name each other from then on.
fn repair(context: &mut Context<'_>, here: &Here, folder: &Path) -> Result<u8, Failure> {
    let root = fs::canonicalize(folder).map_err(|error| Failure::io(folder.display(), &error))?;
    let (named, name) = Location::named_in(&root)?;
    let repository = &here.location.repository;
    let others =
        fs::canonicalize(&named).ok().filter(|named| named != repository && Location::main(named.clone()).store().is_dir());
    if let Some(other) = others {
        let message = format!("{} is workspace {name} of {}", root.display(), other.display());
        return Err(Failure::new(Code::InvalidState, message).hint("`helios workspace add` makes one of this repository"));
    }
    let workspace = here.repository().workspace(&name)?;
    let place = here.place_of(&workspace).root;
    if place != root && place.is_dir() {
        let message = format!("workspace {name} is in {}, and a workspace has one folder", place.display());
        return Err(Failure::new(Code::InvalidState, message).hint("`helios workspace add` makes another one"));
    }
    can_be_named(&root)?;
    here.repository().repair_workspace(&here.caller(context, None), &name, &root.to_string_lossy())?;
    let location = Location { repository: repository.clone(), workspace: name.clone(), root: root.clone() };
    location.write_marker().map_err(|error| Failure::io(root.display(), &error))?;
    here.open.forget_folder(&name);
    if context.is_json() {
        context.console.json(&json!({"workspace": name.to_string(), "folder": root.display().to_string()}))?;
    } else {
        context.console.line(format!("workspace {name} is in {}", root.display()))?;
    }
    Ok(OK)
}

/// Whether a folder, which is there, can be a workspace.
fn admit(here: &Here, root: &Path) -> Result<(), Failure> {
    let repository = &here.location.repository;
    if let Some(outer) = Location::find(root).ok().filter(|outer| outer.repository == *repository) {
        let message = if outer.root == root {
            format!("{} is workspace {} already", root.display(), outer.workspace)
        } else {
            format!("{} lies in workspace {}, which would carry its files too", root.display(), outer.workspace)
        };
        let free = free_beside(here, &outer.root)?;
        let hint =
            format!("choose another folder beside it, as in {}; `helios workspace list` shows those there are", free.display());
        return Err(Failure::new(Code::InvalidState, message).hint(hint));
    }
    can_be_named(root)?;
    can_be_named(repository)?;
    if fs::read_dir(root).map_err(|error| Failure::io(root.display(), &error))?.next().is_some() {
        let message = format!("{} is not empty", root.display());
        return Err(Failure::new(Code::InvalidState, message).hint("name a folder that is missing or empty"));
    }
    Ok(())
}

fn can_be_named(path: &Path) -> Result<(), Failure> {
    if path.to_str().is_none_or(|path| path.contains('\n')) {
        let message = format!("a workspace and its repository name each other, and {} cannot be written down", path.display());
        return Err(Failure::new(Code::InvalidRequest, message).hint("choose a path that is UTF-8 and has no line ends"));
    }
    Ok(())
}

/// A folder beside a workspace's that is not there yet, and whose name no workspace and no branch has.
fn free_beside(here: &Here, root: &Path) -> Result<PathBuf, Failure> {
    let taken = here.repository().workspaces()?;
    let is_free = |name: &str, path: &Path| {
        !path.exists() && !is_branch(here, name) && taken.iter().all(|workspace| workspace.name.as_str() != name)
    };
    let beside = (1..).map(|number| format!("agent-{number}")).find(|name| is_free(name, &root.with_file_name(name)));
    Ok(root.with_file_name(beside.expect("numbers do not end")))
}

fn list(context: &mut Context<'_>, here: &Here) -> Result<u8, Failure> {
    let workspaces = here.repository().workspaces()?;
    for workspace in &workspaces {
        let branch = match &workspace.head.target {
            HeadTarget::Branch(branch) => Some(branch.to_string()),
            HeadTarget::Detached(_) => None,
        };
        let place = here.place_of(workspace).root;
        let is_elsewhere = place.as_os_str().is_empty() && !workspace.root.is_empty();
        let folder = if is_elsewhere { workspace.root.clone() } else { place.display().to_string() };
        if context.is_json() {
            context.console.json(&json!({
                "workspace": workspace.name.to_string(), "folder": folder, "elsewhere": is_elsewhere, "branch": branch, "snapshot": workspace.head.snapshot,
                "merging": workspace.merging.is_some(), "staged": workspace.staged.is_some(), "current": workspace.name == *here.name(),
            }))?;
        } else {
            let at = workspace.head.snapshot.map_or_else(|| "-".repeat(12), |id| id.short());
            let branch = branch.map_or_else(|| "(detached HEAD)".to_owned(), |branch| format!("[{branch}]"));
            let elsewhere = if is_elsewhere { " (elsewhere)" } else { "" };
            context.console.line(format!("{:<16} {at} {branch} {folder}{elsewhere}", workspace.name.to_string()))?;
        }
    }
    Ok(OK)
}

struct Removal {
    delete: bool,
    force: bool,
}

fn remove(context: &mut Context<'_>, here: &Here, typed: &str, how: Removal) -> Result<u8, Failure> {
    let root = fs::canonicalize(context.caller.cwd.join(typed)).ok();
    let workspaces = here.repository().workspaces()?;
    let by_folder = workspaces.iter().find(|workspace| root.as_deref().is_some_and(|root| root == Path::new(&workspace.root)));
    let name: WorkspaceName = match by_folder {
        Some(workspace) => workspace.name.clone(),
        None => typed.parse()?,
    };
    let workspace = here.repository().workspace(&name)?;
    let location = here.place_of(&workspace);
    let there = location.root.is_dir();
    if there && how.delete && !how.force {
        let folder = here.open.folder(&location)?;
        let mut folder = queue(&folder, &context.console)?;
        let head = here.repository().tree_of(&workspace.head)?;
        if !folder.status(here.store(), Some(head))?.changes.is_empty() {
            let message = format!("workspace {name} has changes that no commit has");
            return Err(Failure::new(Code::InvalidState, message).hint("commit them there, or say --force"));
        }
    }
    here.repository().remove_workspace(&here.caller(context, None), &name)?;
    here.open.forget_folder(&name);
    let mut gone = fs::remove_dir_all(location.state())
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
    if there {
        gone = gone.and(if how.delete { fs::remove_dir_all(&location.root) } else { fs::remove_file(location.root.join(MARKER)) });
    }
    gone.map_err(|error| Failure::io(location.root.display(), &error))?;
    if how.delete && !there && !workspace.root.is_empty() {
        let text = "is gone, or does not say that it is this workspace: no folder was deleted";
        context.console.note(format!("warning: {} {text}", workspace.root))?;
    }
    if context.is_json() {
        context.console.json(&json!({"removed": name.to_string()}))?;
    }
    Ok(OK)
}
