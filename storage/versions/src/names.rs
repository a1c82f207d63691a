//! Names in a folder that are not its user's: of a repository's own folder, and of a file while a checkout writes it.

/// Names of a repository's own folder. They are never looked at, at any depth.
#[cfg(feature = "git")]
const REPOSITORIES: [&[u8]; 2] = [b".git", b".helios"];
/// How a file is called while a checkout writes it.
pub(crate) const DRAFT_PREFIX: &[u8] = b".helios-draft-";

/// Whether a name is none of our business.
#[cfg(feature = "git")]
pub(crate) fn is_outside(name: &[u8]) -> bool {
    is_repository(name) || is_draft(name)
}

/// Whether a name in a folder makes it a repository of its own.
#[cfg(feature = "git")]
pub(crate) fn is_repository(name: &[u8]) -> bool {
    REPOSITORIES.contains(&name)
}

/// Whether a name is that of a file which is still being written.
pub(crate) fn is_draft(name: &[u8]) -> bool {
    name.starts_with(DRAFT_PREFIX)
}

/// Whether a name in a working folder leads into a repository, git's or helios', on whatever system it is checked out: both
/// obey what they find there.
pub fn leads_into_a_repository(name: &[u8]) -> bool {
    leads_into_git(name) || name.eq_ignore_ascii_case(b".helios")
}

/// Names that git refuses in a tree, on whatever system it is checked out.
pub(crate) fn leads_into_git(name: &[u8]) -> bool {
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    name[..end].eq_ignore_ascii_case(b".git") || name[..end].eq_ignore_ascii_case(b"git~1")
}
