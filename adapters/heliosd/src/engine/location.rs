//! Where a repository is, seen from a folder.
//!
//! A repository's own folder is `.helios` in its main working folder, with the store in `.helios/store` and what is remembered of
//! each workspace's files in `.helios/workspaces/NAME`. Another workspace has a file `.helios` in its root that names both, as
//! git's worktrees have a file `.git`.
//!
//! Invariant: both sides say the same before either is believed. A folder that is no repository's main one is worked in only where
//! its file names the repository and the workspace ([`Location::at`]), and the workspace's record names the folder
//! ([`OpenRepository::admit`](super::OpenRepository::admit)). A copy, a clone or a restored backup has only one of the two.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use helix_objects::write_no_follow;
use helix_protocol::{Code, Failure};
use helix_versions::WorkspaceName;

use super::trust;

/// The name in a working folder.
pub const MARKER: &str = ".helios";

/// One workspace of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The main working folder, without symbolic links.
    pub repository: PathBuf,
    /// Which of its workspaces.
    pub workspace: WorkspaceName,
    /// That workspace's folder, without symbolic links.
    pub root: PathBuf,
}

impl Location {
    /// The main workspace of the repository in a folder.
    pub fn main(root: PathBuf) -> Self {
        Self { repository: root.clone(), workspace: WorkspaceName::main(), root }
    }

    /// The workspace that a path lies in.
    pub fn find(path: &Path) -> Result<Self, Failure> {
        let path = fs::canonicalize(path).map_err(|error| Failure::io(path.display(), &error))?;
        for folder in path.ancestors() {
            if let Some(found) = Self::at(folder)? {
                return Ok(found);
            }
        }
        let message = format!("{} is in no helios repository, nor is any folder above it", path.display());
        Err(Failure::new(Code::NotFound, message).hint("`helios init` makes one here"))
    }

    /// The workspace whose root a folder, a path without symbolic links, says that it is.
    pub fn at(folder: &Path) -> Result<Option<Self>, Failure> {
        match fs::symlink_metadata(folder.join(MARKER)) {
            Ok(found) if found.is_file() => {
                trust::refuse_others(folder, &found)?;
                Self::read(folder).map(Some)
            }
            _ => Ok(Self::is_main(folder)?.then(|| Self::main(folder.to_owned()))),
        }
    }

    /// What the file in a folder names: a repository's main working folder, and a workspace of it.
    pub fn named_in(folder: &Path) -> Result<(PathBuf, WorkspaceName), Failure> {
        let marker = folder.join(MARKER);
        let text = fs::read_to_string(&marker).map_err(|error| Failure::io(marker.display(), &error))?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let named = value("repository").map(PathBuf::from).zip(value("workspace").and_then(|name| name.parse().ok()));
        named.filter(|(_, workspace)| *workspace != WorkspaceName::main()).ok_or_else(|| {
            let message = format!("{} does not name a repository and a workspace", marker.display());
            Failure::new(Code::InvalidState, message).hint("it is written by `helios workspace add`; make the workspace again")
        })
    }

    /// Writes the file that makes a folder a workspace.
    pub fn write_marker(&self) -> io::Result<()> {
        let text = format!("repository: {}\nworkspace: {}\n", self.repository.display(), self.workspace);
        write_no_follow(&self.root.join(MARKER), text.as_bytes())
    }

    /// The repository's own folder.
    pub fn own_folder(&self) -> PathBuf {
        self.repository.join(MARKER)
    }

    /// Where the content is.
    pub fn store(&self) -> PathBuf {
        self.own_folder().join("store")
    }

    /// Where it is remembered what this workspace's files are.
    pub fn state(&self) -> PathBuf {
        self.own_folder().join("workspaces").join(self.workspace.as_str())
    }

    /// Whether a folder is the main one of a repository.
    fn is_main(folder: &Path) -> Result<bool, Failure> {
        let own = folder.join(MARKER);
        match fs::symlink_metadata(&own) {
            Ok(found) if found.is_dir() && own.join("store").is_dir() => trust::refuse_others(folder, &found).map(|()| true),
            _ => Ok(false),
        }
    }

    /// What the file in a folder says, where the repository is where it says.
    fn read(folder: &Path) -> Result<Self, Failure> {
        let (repository, workspace) = Self::named_in(folder)?;
        let Ok(repository) = fs::canonicalize(&repository) else {
            let message = format!("the repository of this workspace is gone: {}", repository.display());
            let hint = format!("put it back, or where it was moved to: `helios workspace repair {}`", folder.display());
            return Err(Failure::new(Code::NotFound, message).hint(hint));
        };
        if !Self::is_main(&repository)? {
            let message = format!("{} is not a helios repository any more", repository.display());
            let hint = format!("where it is now: `helios workspace repair {}`", folder.display());
            return Err(Failure::new(Code::NotFound, message).hint(hint));
        }
        Ok(Self { repository, workspace, root: folder.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_is_found_from_beneath_it() {
        let folder = tempfile::tempdir().unwrap();
        let main = fs::canonicalize(folder.path()).unwrap().join("main");
        let other = main.with_file_name("other");
        fs::create_dir_all(main.join(".helios/store")).unwrap();
        fs::create_dir_all(main.join("src/deep")).unwrap();
        fs::create_dir_all(other.join("src")).unwrap();
        assert_eq!(Location::find(&main.join("src/deep")).unwrap(), Location::main(main.clone()));
        let location = Location { repository: main, workspace: "agent-1".parse().unwrap(), root: other.clone() };
        location.write_marker().unwrap();
        assert_eq!(Location::find(&other.join("src")).unwrap(), location);
        fs::write(other.join(".helios"), "nonsense").unwrap();
        assert_eq!(Location::find(&other).unwrap_err().code, Code::InvalidState);
    }
}
