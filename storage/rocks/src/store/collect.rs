//! Dropping content: sweeping what nothing names, and purging.
//!
//! Objects are dropped in small batches under the writer's lock, each a batch of the database, so a process that dies has
//! dropped some of them and nothing else. A packed object loses its index row only; its bytes go when its group is packed
//! again or has no member left.

use std::collections::HashSet;
use std::time::Duration;

use helix_objects::{Collect, Collection, Lease, ObjectError, Sweep, Swept};
use helix_protocol::ObjectId;
use rocksdb::WriteBatch;

use super::{RocksStore, Room};
use crate::engine::{Engine, Head, Indexed};

/// Rows of the index looked at in one go: while some are dropped, writers wait.
const STRIDE: usize = 1_000;

impl Collect for RocksStore {
    fn lease(&self) -> Lease {
        self.ledger.lease()
    }

    fn begin_collection(&self, patience: Duration) -> Result<Collection, ObjectError> {
        let collection = {
            // A write under way is finished, so its records are seen; later ones name what they put.
            let _no_writer = self.writer.lock();
            self.ledger.begin()?
        };
        collection.wait(patience)?;
        Ok(collection)
    }

    fn sweep(&self, collection: &Collection, live: &(dyn Fn(ObjectId) -> bool + Sync), how: Sweep) -> Result<Swept, ObjectError> {
        let _upkeep = self.upkeep.lock();
        let pinned: HashSet<ObjectId> = self.with(Engine::pins)?.into_iter().map(|(_, id)| id).collect();
        let mut swept = Swept::default();
        let mut after = None;
        loop {
            let rows = self.with(|engine| engine.index(after, STRIDE))?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            let seen = rows.len() as u64;
            let dead: Vec<ObjectId> = rows.iter().map(|row| row.id).filter(|id| !live(*id) && !pinned.contains(id)).collect();
            let dropped = if dead.is_empty() { Swept::default() } else { self.drop_unnamed(collection, &dead, how)? };
            swept.dropped += dropped.dropped;
            swept.dropped_bytes += dropped.dropped_bytes;
            swept.kept += seen - dropped.dropped;
        }
        if how == Sweep::Drop {
            self.drop_empty_groups()?;
        }
        Ok(swept)
    }

    fn purge(&self, ids: &[ObjectId]) -> Result<Swept, ObjectError> {
        let _upkeep = self.upkeep.lock();
        let mut swept = Swept::default();
        self.write(Room::Frees, |engine, batch, head| {
            swept = remove(engine, batch, head, ids, Sweep::Drop)?;
            Ok(())
        })?;
        // Its bytes may lie in groups and tables still.
        self.repack_wasteful(0)?;
        self.with(Engine::compact)?;
        swept.kept = self.writer.lock().head.objects;
        Ok(swept)
    }
}

impl RocksStore {
    /// Drops those of `dead` that nobody named since the collection began.
    fn drop_unnamed(&self, collection: &Collection, dead: &[ObjectId], how: Sweep) -> Result<Swept, ObjectError> {
        let mut swept = Swept::default();
        let mut writer = self.writer.lock();
        // Whoever asks whether an object is there is kept out until it is either named or gone.
        collection.dropping(|named| {
            self.write_locked(&mut writer, Room::Frees, 0, |engine, batch, head| {
                let unnamed: Vec<ObjectId> = dead.iter().filter(|id| !named(id)).copied().collect();
                swept = remove(engine, batch, head, &unnamed, how)?;
                Ok(())
            })
        })?;
        Ok(swept)
    }
}

/// Adds the deletion of those of `ids` that are there.
fn remove(engine: &Engine, batch: &mut WriteBatch, head: &mut Head, ids: &[ObjectId], how: Sweep) -> Result<Swept, ObjectError> {
    let mut swept = Swept::default();
    for (id, place) in ids.iter().zip(engine.places(ids)?) {
        let Some(place) = place else { continue };
        swept.dropped += 1;
        // An object whose bytes are lost is dropped all the same.
        swept.dropped_bytes += engine.length(place)?.unwrap_or_default();
        if how == Sweep::Drop {
            engine.add_removal(batch, Indexed { id: *id, place });
        }
    }
    if how == Sweep::Drop {
        head.objects = head.objects.saturating_sub(swept.dropped);
        head.logical_bytes = head.logical_bytes.saturating_sub(swept.dropped_bytes);
    }
    Ok(swept)
}
