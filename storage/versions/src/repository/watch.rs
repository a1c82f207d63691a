//! What changes tell a collection that runs.

use std::collections::HashSet;
use std::sync::Arc;

use helix_objects::ObjectError;
use helix_protocol::{ObjectId, SnapshotId};

use crate::VersionError;

use super::Repository;

/// What changes name while a collection runs. A snapshot that nothing reaches any more can be named by its id, and so come back:
/// before the sweep it is marked with the rest, and during it that is refused.
#[derive(Default)]
pub(crate) struct Watched {
    named: Vec<SnapshotId>,
    made: HashSet<SnapshotId>,
    live: Option<Arc<HashSet<ObjectId>>>,
}

/// A collection that changes are told of, until it is dropped.
pub(super) struct Watch<'a> {
    repository: &'a Repository,
}

impl<'a> Watch<'a> {
    /// Fails with `Busy` where another one runs.
    pub(super) fn begin(repository: &'a Repository) -> Result<Self, VersionError> {
        let mut watched = repository.inner.watched.lock();
        if watched.is_some() {
            return Err(ObjectError::Busy("another collection is under way".to_owned()).into());
        }
        *watched = Some(Watched::default());
        Ok(Self { repository })
    }

    /// Marks what changes named so far, with no change under way, and from then on refuses what is not alive.
    pub(super) fn marked(
        &self,
        mark: impl FnOnce(&[SnapshotId]) -> Result<HashSet<ObjectId>, VersionError>,
    ) -> Result<Arc<HashSet<ObjectId>>, VersionError> {
        let _turn = self.repository.writer();
        let named = self.repository.inner.watched.lock().as_mut().map(|watched| std::mem::take(&mut watched.named));
        let live = Arc::new(mark(&named.unwrap_or_default())?);
        if let Some(watched) = &mut *self.repository.inner.watched.lock() {
            watched.live = Some(live.clone());
        }
        Ok(live)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        *self.repository.inner.watched.lock() = None;
    }
}

impl Repository {
    /// A change is about to name a snapshot that was there before.
    pub(super) fn name_again(&self, id: SnapshotId) -> Result<(), VersionError> {
        let mut watched = self.inner.watched.lock();
        let Some(watched) = &mut *watched else { return Ok(()) };
        match &watched.live {
            _ if watched.made.contains(&id) => Ok(()),
            None => {
                watched.named.push(id);
                Ok(())
            }
            Some(live) if live.contains(&id.0) => Ok(()),
            Some(_) => Err(VersionError::Refused {
                message: format!("nothing names {} any more, and it is being dropped", id.short()),
                hint: "`helios oplog` lists what can still be brought back",
            }),
        }
    }

    /// A change has made snapshots.
    pub(super) fn made(&self, ids: impl Iterator<Item = SnapshotId>) {
        if let Some(watched) = &mut *self.inner.watched.lock() {
            watched.made.extend(ids);
        }
    }
}
