//! A repository of ours beside a living `.git` in the same folder: what is new on either side goes to the other.
//!
//! First git's commits are taken, then ours are given. A branch that only one side moved is moved on the other; where both did, it
//! is left on both and reported. Neither side's folder is looked into by the other, and git's index is not touched: after a branch
//! that is checked out was moved, `git reset` makes the index follow, the files are right already.

use std::io::Write;
use std::path::Path;

use super::history_export::{ExportRefs, ExportReport, give_history};
use super::history_import::{ImportReport, Known, Taking, take_history};
use super::history_refs::RemovedHere;
use super::progress::Progress;
use super::source::open_sha1;
use super::write_refs::Target;
use crate::{Caller, Repository, VersionError};

/// What a sync did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// What came from git.
    pub imported: ImportReport,
    /// What went to git.
    pub exported: ExportReport,
}

/// A sync that failed.
#[derive(Debug)]
pub struct SyncFailed {
    /// What had come from git by then.
    pub imported: Option<Box<ImportReport>>,
    /// Why.
    pub error: VersionError,
}

impl From<VersionError> for SyncFailed {
    fn from(error: VersionError) -> Self {
        Self { imported: None, error }
    }
}

/// Brings both sides together. `path` lies in the git repository's working folder.
pub fn sync(
    repository: &Repository,
    caller: &Caller,
    path: &Path,
    progress: &mut dyn FnMut(&Progress),
) -> Result<SyncReport, SyncFailed> {
    let git = open_sha1(path)?;
    if let Some(workdir) = git.workdir().filter(|workdir| workdir.join(".helios").exists()) {
        exclude_ours(git.common_dir(), workdir)?;
    }
    let root = git.workdir().unwrap_or(git.git_dir()).to_owned();
    let taking = Taking { removed: RemovedHere::Leave, known: Known::Skipped };
    let imported = take_history(repository, caller, &root, taking, progress)?;
    match give_history(repository, caller, &root, &ExportRefs::All, Target::Beside, progress) {
        Ok(exported) => Ok(SyncReport { imported, exported }),
        Err(error) => Err(SyncFailed { imported: Some(Box::new(imported)), error }),
    }
}

/// Tells git not to look at our folder, in the file that is only this clone's.
fn exclude_ours(git_dir: &Path, workdir: &Path) -> Result<(), VersionError> {
    let info = git_dir.join("info");
    let exclude = info.join("exclude");
    let text = match std::fs::read(&exclude) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(VersionError::io(&exclude, error)),
    };
    if text
        .split(|byte| *byte == b'\n')
        .any(|line| matches!(line.trim_ascii(), b"/.helios" | b".helios" | b"/.helios/" | b".helios/"))
    {
        return Ok(());
    }
    tracing::info!(workdir = %workdir.display(), "git is told not to look at .helios");
    let line: &[u8] = if text.is_empty() || text.ends_with(b"\n") { b"/.helios\n" } else { b"\n/.helios\n" };
    let appended = std::fs::create_dir_all(&info).and_then(|()| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&exclude)?;
        file.write_all(line)
    });
    appended.map_err(|error| VersionError::io(&exclude, error))
}
