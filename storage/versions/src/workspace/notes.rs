//! What is known of paths beside what they are.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use helix_protocol::SkipReason;

use super::live::PATH_BYTES;

/// What is to be said of paths beside their entries.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) skipped: BTreeMap<Vec<u8>, (SkipReason, u64)>,
    pub(super) torn: BTreeSet<Vec<u8>>,
    /// Ignored, and carried because the base has them.
    pub(super) tied: BTreeSet<Vec<u8>>,
    /// Files with several names.
    pub(super) linked: BTreeSet<Vec<u8>>,
}

impl Notes {
    /// Memory in bytes, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        let sets = [&self.torn, &self.tied, &self.linked];
        let paths = sets.into_iter().flatten().chain(self.skipped.keys());
        paths.map(|path| PATH_BYTES + path.len()).sum()
    }

    /// Forgets a path, and all beneath where it was a folder.
    pub(super) fn forget(&mut self, path: &[u8], beneath: bool) {
        self.skipped.remove(path);
        self.torn.remove(path);
        self.tied.remove(path);
        self.linked.remove(path);
        if beneath {
            let start = [path, b"/"].concat();
            // "0" follows "/".
            let range = start.clone()..[path, b"0"].concat();
            for set in [&mut self.torn, &mut self.tied, &mut self.linked] {
                let gone: Vec<Vec<u8>> = set.range(range.clone()).cloned().collect();
                for path in gone {
                    set.remove(&path);
                }
            }
            let gone: Vec<Vec<u8>> = self.skipped.range(range).map(|(path, _)| path.clone()).collect();
            for path in gone {
                self.skipped.remove(&path);
            }
        }
    }

    /// Forgets what was skipped in a folder and is not among the names it has now.
    pub(super) fn forget_absent(&mut self, folder: &[u8], there: &HashSet<&[u8]>) {
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        self.skipped.retain(|path, _| {
            let inside = path.len() > skip && path.starts_with(folder) && (skip == 0 || path[skip - 1] == b'/');
            let name = path.get(skip..).and_then(|rest| rest.split(|byte| *byte == b'/').next());
            !inside || name.is_some_and(|name| there.contains(name))
        });
    }
}
