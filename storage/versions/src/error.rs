//! What can go wrong with versions.

use std::path::Path;

use helix_objects::ObjectError;
use helix_protocol::{Code, Failure, ObjectId};

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
    /// Git content could not be read or written.
    #[error("{path}: {reason}")]
    Git {
        /// The repository.
        path: String,
        /// The reason.
        reason: String,
    },
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
}

impl From<VersionError> for Failure {
    fn from(error: VersionError) -> Self {
        let message = error.to_string();
        match error {
            VersionError::Object(error) => error.into(),
            VersionError::Damaged { .. } => {
                Failure::new(Code::CorruptObject, message).hint("run `helix doctor` to check the store")
            }
            VersionError::Io { path, source } => Failure::io(path, &source),
            VersionError::NotFound { .. } => Failure::new(Code::FileNotFound, message),
            VersionError::InvalidPath(_) => {
                Failure::new(Code::PathEscapes, message).hint("give a path relative to the workspace's root")
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
            VersionError::Git { .. } => Failure::new(Code::GitFailed, message).hint("`git fsck` in that repository says more"),
        }
    }
}
