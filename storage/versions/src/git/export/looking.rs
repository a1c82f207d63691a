//! What an export would leave out, without exporting anything.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use helix_objects::ObjectStore;
use helix_protocol::ObjectId;

use super::{Content, Writer, parse};
use crate::VersionError;
use crate::git::{failed, open, place};

/// A line of trees as an export would make commits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// A path in the repository; `None` where there is none: then the rules are those of the trees and the person's own.
    pub repository: Option<&'a Path>,
    /// The commit beneath the first tree, in hexadecimal.
    pub parent: Option<&'a str>,
    /// Oldest first.
    pub trees: &'a [ObjectId],
}

/// For each tree the paths that an export would leave out of it; a whole folder is listed once, with a `/` behind it. By the very
/// code that exports, over a repository whose new objects stay in memory: nothing of it is changed.
pub fn left_out(store: &dyn ObjectStore, line: &Line<'_>) -> Result<Vec<Vec<String>>, VersionError> {
    let empty;
    let path = match line.repository {
        Some(path) => path,
        None => {
            empty = EmptyRepository::new()?;
            &empty.0
        }
    };
    let repository = open(path)?.with_object_memory();
    let root = place(&repository);
    let mut writer = Writer::new(store, &repository, &root, Content::Left);
    if let (Some(_), Some(parent)) = (line.repository, line.parent) {
        writer.track(parse(&root, parent)?)?;
    }
    line.trees.iter().map(|tree| writer.root(*tree).map(|(_, left_out)| left_out)).collect()
}

/// A repository for as long as its rules are asked.
struct EmptyRepository(PathBuf);

impl EmptyRepository {
    fn new() -> Result<Self, VersionError> {
        let path = std::env::temp_dir().join(format!("helix-rules-{:016x}", rand::random::<u64>()));
        // Refused where it is there already: the place is everybody's.
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| failed(&path, error))?;
        let made = Self(path);
        gix::init_bare(&made.0).map_err(|error| failed(&made.0, error))?;
        Ok(made)
    }
}

impl Drop for EmptyRepository {
    fn drop(&mut self) {
        // Nobody needs it; what stays is a folder in the place for such.
        let _ = fs::remove_dir_all(&self.0);
    }
}
