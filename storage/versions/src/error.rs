//! What can go wrong with versions.

use std::path::Path;

use helix_objects::ObjectError;
use helix_protocol::{Code, Failure, ObjectId, SnapshotId};

use crate::{MergingKind, WorkspaceName};

/// A version library failure.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The store refused, or lacks an object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// An object is not the tree or snapshot it should be.
    #[error("object {id} is not a {expected}: {reason}")]
    Damaged {
        /// The object.
        id: ObjectId,
        /// What it should be.
        expected: &'static str,
        /// Why it is not.
        reason: &'static str,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The tree has no such path.
    #[error("there is no {path} in tree {}", tree.short())]
    NotFound {
        /// The tree.
        tree: ObjectId,
        /// The path.
        path: String,
    },
    /// A path that does not stay beneath the root.
    #[error("{0:?} is not a path beneath the workspace's root")]
    InvalidPath(String),
    /// A file that no working folder can hold.
    #[error("{path:?} cannot be a file: {reason}")]
    NoFile {
        /// The path.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// A folder that nobody means to version whole.
    #[error("{0} is a home folder or lies above one")]
    TooBroad(String),
    /// A move to another tree would lose what is in no snapshot.
    #[error("{} would be overwritten: {}", if paths.len() == 1 { "a file" } else { "files" }, list(paths))]
    WouldOverwrite {
        /// The paths, ascending.
        paths: Vec<String>,
    },
    /// A pattern for caches that cannot be read.
    #[error("{pattern:?} is not a pattern: {reason}")]
    InvalidPattern {
        /// As it was given.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// A name no branch can have.
    #[error("{0:?} cannot be a branch's name")]
    InvalidBranch(String),
    /// The branch is not where the caller thought it was.
    #[error("branch {branch} has moved")]
    BranchMoved {
        /// The branch.
        branch: String,
    },
    /// The branch is checked out, and moving it would leave that worktree behind.
    #[error("branch {branch} is checked out in {worktree}")]
    BranchCheckedOut {
        /// The branch.
        branch: String,
        /// The worktree that has it.
        worktree: String,
    },
    /// The folder is in no git repository.
    #[error("{0} is not in a git repository")]
    NotARepository(String),
    /// The repository has no such commit.
    #[error("{repository} has no commit {revision:?}")]
    NoSuchCommit {
        /// The repository.
        repository: String,
        /// As it was asked for.
        revision: String,
    },
    /// Nothing has this name.
    #[error("there is no {kind} {name:?}{}", .nearest.as_ref().map(|near| format!(", the nearest is {near:?}")).unwrap_or_default())]
    Unknown {
        /// What was looked for: revision, branch, tag, workspace, experiment, variant, operation.
        kind: &'static str,
        /// As it was given.
        name: String,
        /// The name most like it.
        nearest: Option<String>,
    },
    /// There is no merge to be concluded or given up.
    #[error("no merge has begun")]
    NoMerge,
    /// The head's branch has no snapshot yet.
    #[error("HEAD has no snapshot yet")]
    Unborn,
    /// A short id that fits several snapshots.
    #[error("{revision} is short for {}", .candidates.join(", "))]
    Ambiguous {
        /// As it was given.
        revision: String,
        /// Some of what it fits, at least two.
        candidates: Vec<String>,
    },
    /// A revision that cannot be read as one.
    #[error("{revision:?} is not a revision: {reason}")]
    InvalidRevision {
        /// As it was given.
        revision: String,
        /// Why not.
        reason: &'static str,
    },
    /// A name that a branch, a tag, a workspace or an experiment cannot have.
    #[error("{name:?} cannot be the name of {} {kind}", article(kind))]
    InvalidName {
        /// What it was to name.
        kind: &'static str,
        /// As it was given.
        name: String,
    },
    /// The name is taken.
    #[error("there is {} {kind} {name:?} already", article(kind))]
    Exists {
        /// What has it.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A name is not where the caller thought it was.
    #[error("{name} has moved: it was expected at {expected} and is at {now}")]
    Moved {
        /// What moved.
        name: String,
        /// A short id, or "nothing".
        expected: String,
        /// A short id, or "nothing".
        now: String,
    },
    /// Other writers were faster every time.
    #[error("{0} is changed by others faster than it can be read")]
    Contended(String),
    /// The tree is the one of the snapshot it would follow.
    #[error("nothing to commit: the files are as in {}", .0.as_ref().map_or("the empty repository".to_owned(), SnapshotId::short))]
    NothingToCommit(Option<SnapshotId>),
    /// A workspace has the branch checked out.
    #[error("branch {branch} is checked out in workspace {workspace}")]
    HeldByWorkspace {
        /// The branch.
        branch: String,
        /// The workspace.
        workspace: String,
    },
    /// The head does not reach what the branch has.
    #[error("branch {0} is not fully merged")]
    Unmerged(String),
    /// Paths of a merge that nobody decided yet.
    #[error("{} not decided yet: {}", if .0.len() == 1 { "one path of the merge is" } else { "paths of the merge are" }, .0.join(", "))]
    Unresolved(Vec<String>),
    /// The state of the workspace, of an experiment or of the repository does not allow this.
    #[error("{message}")]
    Refused {
        /// What is in the way.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A record that cannot be read.
    #[error("the record {key:?} of {family} is damaged: {reason}")]
    DamagedRecord {
        /// Its family.
        family: &'static str,
        /// Its key, as people see it.
        key: String,
        /// Why it cannot be read.
        reason: &'static str,
    },
    /// The repository was written by a newer version.
    #[error("the repository has format {found}, and this version knows formats up to {known}")]
    NewerFormat {
        /// Its format.
        found: u64,
        /// The newest known one.
        known: u64,
    },
    /// Git content could not be read or written.
    #[error("{path}: {reason}")]
    Git {
        /// The repository.
        path: String,
        /// The reason.
        reason: String,
    },
}

/// The article of a word.
fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// Paths for a message: the first few, and how many more.
fn list(paths: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = paths.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN { format!("{shown} and {} more", paths.len() - SHOWN) } else { shown }
}

impl VersionError {
    /// A file system error at a path.
    pub(crate) fn io(path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::Io { path: path.display().to_string(), source: source.into() }
    }

    /// The refusal of what cannot be done in a workspace while a merge waits there, or a pick.
    pub fn merge_waits(workspace: &WorkspaceName, kind: MergingKind) -> Self {
        Self::Refused {
            message: format!("workspace {workspace} is in the middle of a {}", kind.verb()),
            hint: match kind {
                MergingKind::Merge => "commit it, or give it up with `helios merge --abort`",
                MergingKind::CherryPick => "commit it, or give it up with `helios cherry-pick --abort`",
                MergingKind::Revert => "commit it, or give it up with `helios revert --abort`",
            },
        }
    }
}

impl From<VersionError> for Failure {
    fn from(error: VersionError) -> Self {
        let message = error.to_string();
        match error {
            VersionError::Object(error) => error.into(),
            VersionError::Damaged { .. } => {
                Failure::new(Code::CorruptObject, message).hint("check the store; a backup brings it back")
            }
            VersionError::Io { path, source } => Failure::io(path, &source),
            VersionError::NotFound { .. } => Failure::new(Code::FileNotFound, message),
            VersionError::InvalidPath(_) => {
                Failure::new(Code::PathEscapes, message).hint("give a path relative to the workspace's root")
            }
            VersionError::NoFile { .. } => {
                Failure::new(Code::InvalidRequest, message).hint("choose another path, or another content")
            }
            VersionError::TooBroad(_) => {
                Failure::new(Code::InvalidRequest, message).hint("choose a project's folder, or force it if it is meant")
            }
            VersionError::WouldOverwrite { .. } => {
                Failure::new(Code::InvalidState, message).hint("commit them, move them away, or discard them")
            }
            VersionError::InvalidPattern { .. } => {
                Failure::new(Code::InvalidRequest, message).hint("correct it in the project file")
            }
            VersionError::InvalidBranch(_) => {
                Failure::new(Code::InvalidRequest, message).hint("use letters, digits and . _ - / as git's branch names do")
            }
            VersionError::BranchMoved { .. } => Failure::new(Code::InvalidState, message).hint("look at it, then export again"),
            VersionError::BranchCheckedOut { .. } => Failure::new(Code::InvalidState, message).hint("choose another branch name"),
            VersionError::NotARepository(_) => {
                Failure::new(Code::NotARepository, message).hint("name one with `--repo`, or run `git init` there and commit once")
            }
            VersionError::NoSuchCommit { .. } => {
                Failure::new(Code::InvalidRequest, message).hint("name a commit, a branch or a tag of it; `git log` lists commits")
            }
            VersionError::Unknown { kind: "revision", .. } => Failure::new(Code::NotFound, message)
                .hint("name a branch, a tag, HEAD~n, or at least four digits of a snapshot's id; `helios log` lists them"),
            VersionError::NoMerge => Failure::new(Code::InvalidState, message).hint("`helios status` says what is going on"),
            VersionError::Unborn => Failure::new(Code::NotFound, message).hint("make the first one with `helios commit`"),
            VersionError::Unknown { .. } => Failure::new(Code::NotFound, message),
            VersionError::Ambiguous { .. } => Failure::new(Code::AmbiguousId, message).hint("type more of its digits"),
            VersionError::InvalidRevision { .. } => Failure::new(Code::InvalidRequest, message)
                .hint("revisions are written as in git: main, HEAD~2, v1^{}, @{1}, 3f2a9c01, main:path"),
            VersionError::InvalidName { .. } => {
                Failure::new(Code::InvalidRequest, message).hint("use letters, digits and . _ - as git's names do")
            }
            VersionError::Exists { kind: "branch" | "tag", .. } => {
                Failure::new(Code::InvalidState, message).hint("choose another name, or move it with `--force`")
            }
            VersionError::Exists { .. } => Failure::new(Code::InvalidState, message).hint("choose another name"),
            VersionError::Moved { .. } => {
                Failure::new(Code::InvalidState, message).hint("look at what is there now, then try again")
            }
            VersionError::Contended(_) => Failure::new(Code::Overloaded, message).hint("try again in a moment"),
            VersionError::NothingToCommit(_) => {
                Failure::new(Code::InvalidState, message).hint("change a file, or allow an empty commit with `--allow-empty`")
            }
            VersionError::HeldByWorkspace { .. } => Failure::new(Code::InvalidState, message)
                .hint("work there, choose another branch, or detach with `helios switch --detach`"),
            VersionError::Unmerged(_) => Failure::new(Code::InvalidState, message)
                .hint("merge it first, or delete it anyway with `-D`; `helios undo` brings it back"),
            VersionError::Unresolved(_) => Failure::new(Code::InvalidState, message)
                .hint("edit those files and `helios add` them; `helios status` says how to give up instead"),
            VersionError::Refused { hint, .. } => Failure::new(Code::InvalidState, message).hint(hint),
            VersionError::DamagedRecord { .. } => {
                Failure::new(Code::CorruptObject, message).hint("run `helios fsck`; a backup brings it back")
            }
            VersionError::NewerFormat { .. } => Failure::new(Code::NewerFormat, message).hint("install the newer version again"),
            VersionError::Git { .. } => Failure::new(Code::GitFailed, message).hint("`git fsck` in that repository says more"),
        }
    }
}
