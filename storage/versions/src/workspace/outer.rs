//! Ignore files outside the folder: git's `info/exclude`, and what the rules name.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::ignore::Chain;
use super::visit::outer_patterns;

/// Their patterns, and how the files looked when they were read.
#[derive(Debug, Default)]
pub(super) struct Outer {
    stamps: Option<Vec<Option<Stamp>>>,
    chain: Option<Arc<Chain>>,
}

/// A file's size, inode and time.
type Stamp = (u64, u64, SystemTime);

impl Outer {
    /// What every folder's own patterns stand in front of.
    pub(super) fn chain(&self) -> Option<Arc<Chain>> {
        self.chain.clone()
    }

    /// Reads them again where one has changed; whether that was so.
    pub(super) fn refresh(&mut self, root: &Path, excludes: &[PathBuf]) -> bool {
        // The weakest first.
        let exclude = git_folder(root).map(|git| git.join("info/exclude"));
        let files = excludes.iter().chain(&exclude);
        let stamps: Vec<Option<Stamp>> = files.clone().map(|file| stamp(file)).collect();
        if self.stamps.as_ref() == Some(&stamps) {
            return false;
        }
        self.chain = files.fold(None, |chain, file| Chain::with(chain, b"", outer_patterns(file)));
        self.stamps = Some(stamps);
        true
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.len(), meta.ino(), meta.modified().ok()?))
}

/// The folder with the `info` that speaks for a root with a `.git`: a worktree shares its repository's.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    let meta = std::fs::symlink_metadata(&git).ok()?;
    if meta.is_dir() {
        return Some(git);
    }
    let text = std::fs::read_to_string(&git).ok()?;
    let own = root.join(text.strip_prefix("gitdir:")?.trim());
    match std::fs::read_to_string(own.join("commondir")) {
        Ok(common) => Some(own.join(common.trim())),
        Err(_) => Some(own),
    }
}
