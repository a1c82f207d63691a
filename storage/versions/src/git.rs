//! Git repositories: content in, commits out. A person's working folder and index are only read.

mod bounded;
mod commit_text;
mod convert;
mod convert_trees;
mod date;
mod export;
mod filters;
mod git_objects;
mod history_export;
mod history_import;
mod history_refs;
mod id_hash;
mod import;
mod map;
mod pack_writer;
mod packs;
mod patch;
mod progress;
mod reach;
mod read_ahead;
mod segment;
mod sink;
mod source;
mod sync;
mod tree_text;
mod trust;
mod worktree;
mod write_refs;

use std::path::{Path, PathBuf};

use crate::VersionError;

pub use date::parse_date;
pub use export::{BranchAt, Export, ExportCommit, Exported, Line, export, left_out};
pub use filters::{Converted, converted};
pub use history_export::{ExportRefs, ExportReport, export_history};
pub use history_import::{GitHead, ImportReport, import_history, import_history_again};
pub use history_refs::{RefOutcome, RefReport};
pub use import::{ImportCounts, Imported, IncludeUncommitted, import, import_commit};
pub use map::GitMap;
pub use patch::patch;
pub use progress::{Phase, Progress};
pub use sync::{SyncFailed, SyncReport, sync};
pub use trust::{is_safe_directory, tracks};

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
            if has_git { Err(whole(path, &error)) } else { Err(VersionError::NotARepository(path.display().to_string())) }
        }
    }
}

/// The folder that the git repository works in which a path lies in, without symbolic links; `None` where it is bare.
pub fn working_folder(path: &Path) -> Result<Option<PathBuf>, VersionError> {
    let repository = open(path)?;
    repository.workdir().map(|folder| folder.canonicalize().map_err(|error| VersionError::io(folder, error))).transpose()
}

fn failed(path: &Path, error: impl std::fmt::Display) -> VersionError {
    VersionError::Git { path: path.display().to_string(), reason: error.to_string() }
}

/// As [`failed`], with what lies behind the error.
fn whole(path: &Path, error: &gix::Error) -> VersionError {
    let mut reasons: Vec<String> = error.iter_errors().map(ToString::to_string).collect();
    reasons.dedup();
    failed(path, reasons.join(": "))
}

/// The folder a person would call the repository.
fn place(repository: &gix::Repository) -> PathBuf {
    repository.workdir().unwrap_or(repository.git_dir()).to_owned()
}

/// What a git repository that somebody else made may hold: a tree, a commit, a tag, a difference of a pack. None of them panics; a
/// tree is read as it stands.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut is_tree = true;
    for entry in tree_text::entries(bytes) {
        match entry {
            Ok(entry) => {
                let _ = (entry.is_safe(), entry.has_canonical_mode());
                tree_text::push(&mut again, entry.mode, entry.name, entry.id);
            }
            Err(_) => is_tree = false,
        }
    }
    assert!(!is_tree || again == bytes);
    if let Ok(text) = commit_text::parse(bytes) {
        let nothing = helix_protocol::ObjectId([0; 32]);
        let parents = vec![helix_protocol::SnapshotId(nothing); text.parents.len()];
        commit_text::read(bytes, &text, text.tree, nothing, parents, true).snapshot.encode();
    }
    if commit_text::tag_target(bytes).is_some() {
        commit_text::read_tag(bytes);
    }
    if let Some((cut, rest)) = bytes.split_first() {
        let (base, difference) = rest.split_at(usize::from(*cut).min(rest.len()));
        packs::applied(base, difference);
    }
}
