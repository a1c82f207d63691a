//! Files and folders by the first digits of their ids, as `diff` prints them.

use std::collections::{BTreeSet, HashSet};

use helix_protocol::{FileMode, ObjectId};

use super::Repository;
use crate::VersionError;
use crate::tree::Tree;

impl Repository {
    /// Every file and folder of a snapshot, or of what is staged, whose id begins with these lowercase hexadecimal digits. Reads
    /// each folder of the history once.
    pub fn objects_like(&self, digits: &str) -> Result<BTreeSet<ObjectId>, VersionError> {
        let snapshots = self.all_snapshots()?.into_iter().map(|(_, tree)| tree);
        let mut open: Vec<ObjectId> = snapshots.chain(self.staged_trees()?.into_iter().map(|(_, tree)| tree)).collect();
        let (mut seen, mut found): (HashSet<ObjectId>, _) = (HashSet::new(), BTreeSet::new());
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            found.extend(Some(id).filter(|id| id.to_string().starts_with(digits)));
            for entry in Tree::load(&**self.store(), id)?.entries() {
                if entry.mode == FileMode::Directory {
                    open.push(entry.id);
                } else if seen.insert(entry.id) && entry.id.to_string().starts_with(digits) {
                    found.insert(entry.id);
                }
            }
        }
        Ok(found)
    }
}
