//! What is fed with arbitrary bytes: each parser with what must hold of it whatever it is given.

use helix_objects::hash;
use helix_protocol::SnapshotId;

use crate::{Snapshot, Tree, repository};

/// A tree: what is read is the one encoding of what it says.
pub fn tree(bytes: &[u8]) {
    if let Ok(tree) = Tree::decode(hash(bytes), bytes) {
        assert_eq!(tree.encode().bytes().as_ref(), bytes);
    }
}

/// A snapshot: likewise.
pub fn snapshot(bytes: &[u8]) {
    if let Ok(snapshot) = Snapshot::decode(SnapshotId(hash(bytes)), bytes) {
        assert_eq!(snapshot.encode().bytes().as_ref(), bytes);
    }
}

/// A record of any family: likewise.
pub fn records(bytes: &[u8]) {
    repository::fuzz_records(bytes);
}

/// What is remembered of a folder's files, without the hash before it.
pub fn stat_cache(bytes: &[u8]) {
    crate::workspace::fuzz_stat_cache(bytes);
}

/// Ignore rules: they are read whatever they are, and say the same of a path each time.
#[cfg(feature = "git")]
pub fn ignore_rules(bytes: &[u8]) {
    crate::workspace::fuzz_ignore_rules(bytes);
}

/// What is read of a git repository: see [`crate::git`].
#[cfg(feature = "git")]
pub fn git(bytes: &[u8]) {
    crate::git::fuzz(bytes);
}
