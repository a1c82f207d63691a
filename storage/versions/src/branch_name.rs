//! What a branch may be called.

use std::fmt;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::BranchName;

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
