//! Git trees as bytes: reading them as they are, and making them as git makes them.
//!
//! What git calls a tree is a list of entries, `mode SP name NUL id`. Repositories hold trees that git
//! itself would not make today: old modes, entries out of order, names that no checkout may write. They are read
//! as they are; what of them a tree of ours cannot hold is kept beside it (see `map`).

use std::cmp::Ordering;

use gix::ObjectId as GitId;
use helix_protocol::FileMode;

/// The bytes of an id.
pub(super) const ID_BYTES: usize = 20;

/// One entry as it stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawEntry<'a> {
    /// The octal digits.
    pub(super) mode: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) id: GitId,
}

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// A blob, which is a file or a link.
    File(FileMode),
    /// A tree.
    Folder,
    /// A commit of another repository.
    Submodule,
}

impl RawEntry<'_> {
    /// What it names, as git decides it from the mode.
    pub(super) fn names(&self) -> Names {
        let bits = self.mode.iter().fold(0_u32, |bits, digit| (bits << 3) | u32::from(digit & 7));
        match bits & 0o170_000 {
            0o040_000 => Names::Folder,
            0o120_000 => Names::File(FileMode::Symlink),
            0o100_000 if bits & 0o100 != 0 => Names::File(FileMode::Executable),
            0o100_000 => Names::File(FileMode::Regular),
            _ => Names::Submodule,
        }
    }

    /// Whether git would write the mode with these digits, and a tree of ours can say it.
    pub(super) fn has_canonical_mode(&self) -> bool {
        match self.names() {
            Names::File(mode) => self.mode == mode_digits(mode),
            Names::Folder => self.mode == mode_digits(FileMode::Directory),
            Names::Submodule => false,
        }
    }

    /// Whether a working folder may have the name.
    pub(super) fn is_safe(&self) -> bool {
        !crate::names::leads_into_a_repository(self.name) && crate::tree::is_name(self.name)
    }
}

/// The digits git writes.
pub(super) fn mode_digits(mode: FileMode) -> &'static [u8] {
    match mode {
        FileMode::Regular => b"100644",
        FileMode::Executable => b"100755",
        FileMode::Symlink => b"120000",
        FileMode::Directory => b"40000",
    }
}

/// Git's order: by name, a folder's as if it ended with a slash.
pub(super) fn git_order(a: (&[u8], Names), b: (&[u8], Names)) -> Ordering {
    let shared = a.0.len().min(b.0.len());
    let next = |(name, names): (&[u8], Names)| name.get(shared).copied().or((names == Names::Folder).then_some(b'/')).unwrap_or(0);
    a.0[..shared].cmp(&b.0[..shared]).then_with(|| next(a).cmp(&next(b)))
}

/// The entries of a tree, in the order they stand there.
pub(super) fn entries(raw: &[u8]) -> Entries<'_> {
    Entries { rest: raw }
}

/// See [`entries`].
pub(super) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RawEntry<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = split(self.rest);
        match entry {
            Some((_, rest)) => self.rest = rest,
            None => self.rest = &[],
        }
        Some(entry.map(|(entry, _)| entry).ok_or("an entry of it ends too early"))
    }
}

fn split(raw: &[u8]) -> Option<(RawEntry<'_>, &[u8])> {
    let space = raw.iter().take(16).position(|byte| *byte == b' ')?;
    let (mode, rest) = (&raw[..space], &raw[space + 1..]);
    if mode.is_empty() || !mode.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (id, after) = rest[end + 1..].split_first_chunk::<ID_BYTES>()?;
    Some((RawEntry { mode, name: &rest[..end], id: GitId::Sha1(*id) }, after))
}

/// Appends an entry.
pub(super) fn push(out: &mut Vec<u8>, mode: &[u8], name: &[u8], id: GitId) {
    out.extend_from_slice(mode);
    out.push(b' ');
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(id.as_slice());
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use gix::ObjectId as GitId;
    use helix_protocol::FileMode;
    use proptest::prelude::*;

    use super::{Names, RawEntry, entries, git_order, push};

    #[test]
    fn folders_sort_as_if_they_ended_with_a_slash() {
        let (file, folder) = (Names::File(FileMode::Regular), Names::Folder);
        assert_eq!(git_order((b"a.b", file), (b"a", folder)), Ordering::Less);
        assert_eq!(git_order((b"a.b", file), (b"a", file)), Ordering::Greater);
        assert_eq!(git_order((b"a0", file), (b"a", folder)), Ordering::Greater);
        assert_eq!(git_order((b"a", file), (b"a", folder)), Ordering::Less);
    }

    #[test]
    fn modes_mean_what_they_mean_to_git() {
        let names = |mode: &'static [u8]| RawEntry { mode, name: b"x", id: GitId::null(gix::hash::Kind::Sha1) }.names();
        assert_eq!(names(b"100664"), Names::File(FileMode::Regular));
        assert_eq!(names(b"100775"), Names::File(FileMode::Executable));
        assert_eq!(names(b"040000"), Names::Folder);
        assert_eq!(names(b"120000"), Names::File(FileMode::Symlink));
        assert_eq!(names(b"160000"), Names::Submodule);
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_reading_ends_and_what_was_read_is_what_stands_there(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let with_entry = [b"100644 a\0".as_slice(), &[7; 20], &bytes].concat();
            for raw in [bytes, with_entry] {
                let mut again = Vec::new();
                for entry in entries(&raw) {
                    match entry {
                        Ok(entry) => push(&mut again, entry.mode, entry.name, entry.id),
                        Err(_) => break,
                    }
                }
                prop_assert!(raw.starts_with(&again));
            }
        }
    }
}
