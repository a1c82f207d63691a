//! Names, each checked when it is made.

use std::fmt;
use std::str::FromStr;

use crate::{BranchName, VersionError};

/// Where branches are among the refs.
pub(crate) const HEADS: &str = "refs/heads/";
/// Where tags are among the refs.
pub(crate) const TAGS: &str = "refs/tags/";
/// Where among the refs is what was kept before it was overwritten.
pub(crate) const KEPT: &str = "refs/kept/";

macro_rules! words {
    ($($(#[$doc:meta])+ $name:ident = $kind:literal;)+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(String);

            impl $name {
                /// The name.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }

            impl FromStr for $name {
                type Err = VersionError;

                fn from_str(text: &str) -> Result<Self, VersionError> {
                    let fits = text.parse::<BranchName>().is_ok() && !text.contains('/');
                    if fits { Ok(Self(text.to_owned())) } else { Err(VersionError::InvalidName { kind: $kind, name: text.to_owned() }) }
                }
            }
        )+
    };
}

words! {
    /// A workspace's name: what a branch's may be, without a slash.
    WorkspaceName = "workspace";
    /// An experiment's name: what a branch's may be, without a slash.
    ExperimentName = "experiment";
    /// A variant's name within its experiment: what a branch's may be, without a slash.
    VariantName = "variant";
}

impl WorkspaceName {
    /// The workspace that a repository is made with.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}

/// A ref's full name: `refs/heads/main`, `refs/tags/v1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

impl RefName {
    /// The ref of a branch.
    pub fn branch(name: &BranchName) -> Self {
        Self(format!("{HEADS}{name}"))
    }

    /// The ref of what a workspace had that no commit has, before that was overwritten. The operation log has the ones before.
    pub fn kept(workspace: &WorkspaceName) -> Self {
        Self(format!("{KEPT}{workspace}"))
    }

    /// The ref of a tag. A tag's name is whatever a branch's may be.
    pub fn tag(name: &BranchName) -> Self {
        Self(format!("{TAGS}{name}"))
    }

    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As people call it: without `refs/heads/` or `refs/tags/`.
    pub fn short(&self) -> &str {
        self.0.strip_prefix(HEADS).or_else(|| self.0.strip_prefix(TAGS)).unwrap_or(&self.0)
    }

    /// The branch it is, where it is one.
    pub fn as_branch(&self) -> Option<BranchName> {
        self.0.strip_prefix(HEADS).and_then(|name| name.parse().ok())
    }

    /// A ref's name as a record's key has it; it was checked when it was written.
    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        std::str::from_utf8(key).ok().and_then(|text| text.parse().ok())
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RefName {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let rest = text.strip_prefix("refs/").and_then(|rest| rest.split_once('/'));
        let fits =
            rest.is_some_and(|(_, name)| name.parse::<BranchName>().is_ok()) && text["refs/".len()..].parse::<BranchName>().is_ok();
        if fits { Ok(Self(text.to_owned())) } else { Err(VersionError::InvalidName { kind: "ref", name: text.to_owned() }) }
    }
}

/// The name most like `wanted`, where one is like it at all.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (wanted.chars().count() / 2).clamp(1, 4);
    let distances = names.into_iter().map(|name| (distance(wanted, name, limit), name));
    distances.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name.to_owned())
}

/// How many characters must be inserted, removed or replaced to make one of the other; anything above `limit` where it is more.
pub(crate) fn distance(one: &str, other: &str, limit: usize) -> usize {
    let other: Vec<char> = other.chars().take(256).collect();
    let one: Vec<char> = one.chars().take(256).collect();
    if one.len().abs_diff(other.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::{RefName, WorkspaceName, nearest};

    #[test]
    fn names_with_slashes_dots_or_spaces_are_no_workspaces() {
        for name in ["", "a/b", "a b", "..", "-x", "HEAD", "a\0b"] {
            assert!(name.parse::<WorkspaceName>().is_err(), "{name:?}");
        }
        assert_eq!("agent-7".parse::<WorkspaceName>().unwrap().as_str(), "agent-7");
    }

    #[test]
    fn a_ref_has_a_kind_and_a_name() {
        for name in ["main", "refs/main", "refs//x", "refs/heads/", "refs/heads/a..b", "refs/../heads/x"] {
            assert!(name.parse::<RefName>().is_err(), "{name:?}");
        }
        let name: RefName = "refs/heads/feature/x".parse().unwrap();
        assert_eq!((name.short(), name.as_branch().unwrap().as_str()), ("feature/x", "feature/x"));
    }

    #[test]
    fn the_nearest_name_is_told_only_where_it_is_near() {
        let names = ["main", "feature/login", "v1.0"];
        assert_eq!(nearest("mian", names), Some("main".to_owned()));
        assert_eq!(nearest("feature/logon", names), Some("feature/login".to_owned()));
        assert_eq!(nearest("zzz", names), None);
    }
}
