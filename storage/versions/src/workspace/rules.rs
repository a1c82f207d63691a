//! What a person's folder carries, and which folders are refused.

use std::path::{Path, PathBuf};

use crate::VersionError;

/// What is carried of a person's working folder, and how it is followed.
///
/// Never looked at, at any depth: `.git` and `.helios`. Not carried unless the base tree has them:
/// what git ignores (`.gitignore` in every folder, `.git/info/exclude`, [`excludes`](Self::excludes)), what
/// `.heliosignore` names in the same form (it is asked after the `.gitignore` beside it and so outdoes it), and files
/// above the cap. Folders that hold nothing are not carried, as in git.
#[derive(Clone, Debug)]
pub struct FolderRules {
    /// Larger files are listed as skipped instead of carried, in bytes. `u64::MAX` carries everything.
    pub file_cap_bytes: u64,
    /// More files of ignore patterns, the weakest first: what git calls `core.excludesFile`. A missing one is as good as empty.
    pub excludes: Vec<PathBuf>,
    /// Whether a home folder, or the root of the file system, may be followed.
    pub breadth: Breadth,
    /// Whether file events are used where the system has them.
    pub events: Events,
}

/// Whether very broad folders are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breadth {
    /// A home folder, a folder above it and `/` are refused with [`VersionError::TooBroad`].
    #[default]
    Refuse,
    /// The person has said that it is meant.
    Allow,
}

/// How changes in a folder are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Events {
    /// By file events, where the system and the file system give them.
    #[default]
    Use,
    /// By a scan each time.
    Ignore,
}

impl Default for FolderRules {
    fn default() -> Self {
        Self { file_cap_bytes: 64 << 20, excludes: Vec::new(), breadth: Breadth::default(), events: Events::default() }
    }
}

impl FolderRules {
    /// Refuses a folder that nobody means to version whole. `root` has no symbolic links in it.
    pub(crate) fn admit(&self, root: &Path, home: Option<&Path>) -> Result<(), VersionError> {
        let broad = root.parent().is_none() || home.is_some_and(|home| home.starts_with(root));
        match self.breadth {
            Breadth::Refuse if broad => Err(VersionError::TooBroad(root.display().to_string())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Breadth, FolderRules};

    #[test]
    fn a_home_folder_and_what_lies_above_it_are_refused_unless_forced() {
        let home = Some(Path::new("/home/person"));
        let (careful, forced) = (FolderRules::default(), FolderRules { breadth: Breadth::Allow, ..FolderRules::default() });
        for broad in ["/", "/home", "/home/person"] {
            assert!(careful.admit(Path::new(broad), home).is_err(), "{broad}");
            assert!(forced.admit(Path::new(broad), home).is_ok(), "{broad}");
        }
        for fine in ["/home/person/project", "/home/persons", "/srv"] {
            assert!(careful.admit(Path::new(fine), home).is_ok(), "{fine}");
        }
        assert!(careful.admit(Path::new("/"), None).is_err());
    }
}
