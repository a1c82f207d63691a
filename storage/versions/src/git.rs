//! Git repositories: content in, commits out. A person's working folder and index are only read.

mod bounded;
mod commit_text;
mod convert;
mod convert_trees;
mod export;
mod git_objects;
mod history_export;
mod history_import;
mod history_refs;
mod id_hash;
mod import;
mod map;
mod pack_writer;
mod progress;
mod reach;
mod read_ahead;
mod segment;
mod sink;
mod source;
mod sync;
mod tree_text;
mod worktree;
mod write_refs;

use std::path::{Path, PathBuf};

use crate::VersionError;

pub use export::{BranchAt, Export, ExportCommit, Exported, export};
pub use history_export::{ExportRefs, ExportReport, export_history};
pub use history_import::{GitHead, ImportReport, import_history};
pub use history_refs::{RefOutcome, RefReport};
pub use import::{ImportCounts, Imported, IncludeUncommitted, import, import_commit};
pub use map::{GitMap, map_root};
pub use progress::{Phase, Progress};
pub use sync::{SyncReport, sync};

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod tests;

/// Opens the repository that a path lies in.
fn open(path: &Path) -> Result<gix::Repository, VersionError> {
    match gix::discover(path) {
        Ok(repository) => Ok(repository),
        Err(error) => {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let has_git = absolute.ancestors().any(|folder| folder.join(".git").exists());
            if has_git { Err(failed(path, error)) } else { Err(VersionError::NotARepository(path.display().to_string())) }
        }
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> VersionError {
    VersionError::Git { path: path.display().to_string(), reason: error.to_string() }
}

/// The folder a person would call the repository.
fn place(repository: &gix::Repository) -> PathBuf {
    repository.workdir().unwrap_or(repository.git_dir()).to_owned()
}
