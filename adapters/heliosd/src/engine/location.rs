//! Where a repository is, seen from a folder.
//!
//! A repository's own folder is `.helios` in its main working folder, with the store in `.helios/store` and what is remembered of
//! each workspace's files in `.helios/workspaces/NAME`. Another workspace has a file `.helios` in its root that names both, as
//! git's worktrees have a file `.git`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use helix_protocol::{Code, Failure};
use helix_versions::WorkspaceName;

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
            let marker = folder.join(MARKER);
            match fs::symlink_metadata(&marker) {
                Ok(found) if found.is_dir() && marker.join("store").is_dir() => return Ok(Self::main(folder.to_owned())),
                Ok(found) if found.is_file() => return Self::read(&marker, folder),
                _ => {}
            }
        }
        let message = format!("{} is in no helios repository, nor is any folder above it", path.display());
        Err(Failure::new(Code::NotFound, message).hint("`helios init` makes one here"))
    }

    /// Writes the file that makes a folder a workspace.
    pub fn write_marker(&self) -> io::Result<()> {
        let text = format!("repository: {}\nworkspace: {}\n", self.repository.display(), self.workspace);
        fs::write(self.root.join(MARKER), text)
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

    fn read(marker: &Path, folder: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(marker).map_err(|error| Failure::io(marker.display(), &error))?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let named = value("repository").map(PathBuf::from).zip(value("workspace").and_then(|name| name.parse().ok()));
        let Some((repository, workspace)) = named else {
            let message = format!("{} does not name a repository and a workspace", marker.display());
            return Err(
                Failure::new(Code::InvalidState, message).hint("it is written by `helios workspace add`; make the workspace again")
            );
        };
        let Ok(repository) = fs::canonicalize(&repository) else {
            let message = format!("the repository of this workspace is gone: {}", repository.display());
            return Err(Failure::new(Code::NotFound, message).hint("put it back, or correct its path in the file .helios here"));
        };
        if !repository.join(MARKER).join("store").is_dir() {
            let message = format!("{} is not a helios repository any more", repository.display());
            return Err(Failure::new(Code::NotFound, message).hint("correct the path in the file .helios here"));
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
