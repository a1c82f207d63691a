//! Branches: names for snapshots, moved by compare-and-swap.
//!
//! In Helix a branch is a projection of a task's head, which is in the records and nowhere else; so
//! these live in memory and are filled again at start.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use helix_protocol::SnapshotId;
use parking_lot::RwLock;

use crate::VersionError;

/// A branch's name, within what git allows too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchName(String);

impl BranchName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BranchName {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        let part_fits = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let fits = text.len() <= 200
            && !text.starts_with('-')
            && !text.ends_with('.')
            && text != "@"
            && text != "HEAD"
            && !text.contains("..")
            && !text.contains("@{")
            && !text.contains(forbidden)
            && text.split('/').all(part_fits);
        if fits { Ok(Self(text.to_owned())) } else { Err(VersionError::InvalidBranch(text.to_owned())) }
    }
}

/// Branches with their heads.
#[derive(Debug, Default)]
pub struct Branches {
    heads: RwLock<BTreeMap<BranchName, SnapshotId>>,
}

impl Branches {
    /// The branches of the heads given.
    pub fn new(heads: impl IntoIterator<Item = (BranchName, SnapshotId)>) -> Self {
        Self { heads: RwLock::new(heads.into_iter().collect()) }
    }

    /// A branch's head.
    pub fn head(&self, branch: &BranchName) -> Option<SnapshotId> {
        self.heads.read().get(branch).copied()
    }

    /// Every branch with its head, by name.
    pub fn list(&self) -> Vec<(BranchName, SnapshotId)> {
        self.heads.read().iter().map(|(name, head)| (name.clone(), *head)).collect()
    }

    /// Moves a branch from `expected` to `new`; `None` stands for no branch of that name. Fails with
    /// `BranchMoved` where it is elsewhere.
    pub fn move_head(
        &self,
        branch: &BranchName,
        expected: Option<SnapshotId>,
        new: Option<SnapshotId>,
    ) -> Result<(), VersionError> {
        let mut heads = self.heads.write();
        if heads.get(branch).copied() != expected {
            return Err(VersionError::BranchMoved { branch: branch.to_string() });
        }
        match new {
            Some(head) => heads.insert(branch.clone(), head),
            None => heads.remove(branch),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use helix_objects::hash;
    use helix_protocol::SnapshotId;

    use super::{BranchName, Branches};

    #[test]
    fn a_branch_moves_only_from_where_it_is_expected() {
        let (one, two) = (SnapshotId(hash(b"1")), SnapshotId(hash(b"2")));
        let main: BranchName = "main".parse().unwrap();
        let branches = Branches::new([(main.clone(), one)]);
        assert!(branches.move_head(&main, None, Some(two)).is_err());
        branches.move_head(&main, Some(one), Some(two)).unwrap();
        assert_eq!(branches.list(), vec![(main.clone(), two)]);
        branches.move_head(&main, Some(two), None).unwrap();
        assert_eq!(branches.head(&main), None);
    }

    #[test]
    fn names_that_git_refuses_are_refused() {
        for name in
            ["", "-x", "a..b", "a b", "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "a@{1}", "@", "a.", "a\\b", "HEAD", "a\nb"]
        {
            assert!(name.parse::<BranchName>().is_err(), "{name:?}");
        }
        for name in ["main", "helix/3f2a9c01", "feature/a.b_c-d", "ä"] {
            assert!(name.parse::<BranchName>().is_ok(), "{name:?}");
        }
    }
}
