//! The groups that were unpacked last.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::pack::Unpacked;

/// A few groups in memory, the one used last at the end.
#[derive(Debug)]
pub(crate) struct UnpackedGroups {
    limit_bytes: usize,
    groups: Mutex<Vec<(u64, Arc<Unpacked>)>>,
}

impl UnpackedGroups {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, groups: Mutex::default() }
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<Unpacked>> {
        let mut groups = self.groups.lock();
        let place = groups.iter().position(|(other, _)| *other == number)?;
        let used = groups.remove(place);
        let group = Arc::clone(&used.1);
        groups.push(used);
        Some(group)
    }

    pub(crate) fn insert(&self, number: u64, group: &Arc<Unpacked>) {
        let mut groups = self.groups.lock();
        groups.retain(|(other, _)| *other != number);
        groups.push((number, Arc::clone(group)));
        let mut bytes: usize = groups.iter().map(|(_, group)| group.bytes()).sum();
        while bytes > self.limit_bytes && groups.len() > 1 {
            bytes -= groups.remove(0).1.bytes();
        }
    }

    pub(crate) fn forget(&self, number: u64) {
        self.groups.lock().retain(|(other, _)| *other != number);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.groups.lock().iter().map(|(_, group)| group.bytes()).sum()
    }

    pub(crate) fn clear(&self) {
        self.groups.lock().clear();
    }
}
