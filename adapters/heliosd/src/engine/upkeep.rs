//! What keeps a store small: letting go of what nothing keeps, and packing the rest.

use std::time::Duration;

use helix_objects::{ObjectStore, Sweep};
use helix_protocol::{Failure, Timestamp};
use helix_rocks::{Effort, Kind, PackHint, Packed, similarity};
use helix_versions::{CollectOptions, Collected, ObjectKind, Retention};

use super::OpenRepository;

/// How hard packing tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// What is not packed yet.
    Plain,
    /// Everything anew.
    Aggressive,
}

/// What was done.
pub struct Upkeep {
    /// What was let go.
    pub collected: Collected,
    /// What was packed.
    pub packed: Packed,
    /// The store's size before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

/// How long writers that began before a collection may go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets go of what nothing keeps; what the operation log has is kept, as far as it is not older than `ttl`. Then packs.
pub fn collect(open: &OpenRepository, ttl: Option<Duration>, how: Sweep, thoroughness: Thoroughness) -> Result<Upkeep, Failure> {
    let bytes_before = open.store.stats()?.stored_bytes;
    let options = CollectOptions { rule: Retention { ttl, operations: None }, now: Timestamp::now(), how, patience: PATIENCE };
    let collected = open.repository.collect(&open.store, &options)?;
    let packed = if how == Sweep::Drop { pack(open, thoroughness)? } else { Packed::default() };
    Ok(Upkeep { collected, packed, bytes_before, bytes_after: open.store.stats()?.stored_bytes })
}

/// Packs what is alive.
pub fn pack(open: &OpenRepository, thoroughness: Thoroughness) -> Result<Packed, Failure> {
    let mut hints = Vec::new();
    open.repository.mark(&open.repository.roots(None)?, |alive| {
        let kind = match alive.kind {
            ObjectKind::File => Kind::File,
            ObjectKind::Tree => Kind::Tree,
            ObjectKind::Snapshot => Kind::Snapshot,
        };
        hints.push(PackHint { id: alive.id, kind, near: similarity(alive.path) });
    })?;
    let effort = if thoroughness == Thoroughness::Aggressive { Effort::Aggressive } else { Effort::Idle };
    let rocks = open.store.store();
    let mut packed = rocks.pack(&hints, effort)?;
    let again = rocks.repack()?;
    packed.groups += again.groups;
    rocks.compact()?;
    Ok(packed)
}
