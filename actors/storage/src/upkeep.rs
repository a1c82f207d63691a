//! Keeping the node's content small: letting go of what nothing names, and packing what has come to rest.
//!
//! A collection has two moments. When it begins, the store starts to remember whatever is stored, asked for or pinned from then on.
//! A while later, the grace, it is read what is named: first the pins, then the records. What is neither named nor was remembered
//! goes. So content that is about to be named has the grace for it, and content that was pinned while the records were read is seen
//! in one of the two: its owner lets its pins go only after the step that names it was committed.

use std::sync::Arc;
use std::time::Duration;

use helix_database::{RecordError, RecordStore};
use helix_objects::{Collection, ObjectError, ObjectStore, Pack, Packed, StoreStats, Sweep, Swept};
use helix_protocol::ObjectId;
use helix_versions::Reached;

/// How long writers that hold a lease may go on before a collection is put off.
const PATIENCE: Duration = Duration::from_secs(60);
/// From so many new objects on, what has come to rest is packed.
const PACK_FROM: u64 = 2_000;

/// A store that its actor looks after.
#[derive(Clone)]
pub struct ContentUpkeep {
    /// The same store as everybody's.
    pub store: Arc<dyn Pack>,
    /// Between two collections; zero for none.
    pub interval: Duration,
    /// How long content may be there before anything names it.
    pub grace: Duration,
}

/// Why content was not looked after.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store refused.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// What is named could not be read.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// A thread ended early.
    #[error("looking after the content panicked")]
    Panicked,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What went.
    pub swept: Swept,
    /// What was packed.
    pub packed: Packed,
    /// What the store holds afterwards.
    pub stats: StoreStats,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// What is not packed is to be packed: nobody is writing.
    Pack,
    /// What nothing names is to go.
    Collect,
}

/// Decides what is due from what the store holds at each look.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    interval: Duration,
    /// As of the last look.
    seen: Option<u64>,
    /// When content was last looked after.
    kept: u64,
    since_collection: Duration,
    /// Whether anything has been stored since the last collection.
    stored: bool,
}

impl Rhythm {
    /// With this long between collections; zero for none.
    pub fn new(interval: Duration) -> Self {
        // What an earlier process left is not known, so the first collection has something to look at.
        Self { interval, seen: None, kept: 0, since_collection: Duration::ZERO, stored: true }
    }

    /// What is due when the store holds so many objects and the last look was so long ago.
    pub fn look(&mut self, objects: u64, passed: Duration) -> Due {
        let idle = self.seen == Some(objects);
        self.stored |= !idle;
        self.seen = Some(objects);
        self.since_collection += passed;
        if !self.interval.is_zero() && self.stored && self.since_collection >= self.interval {
            (self.since_collection, self.stored) = (Duration::ZERO, false);
            Due::Collect
        } else if idle && objects >= self.kept + PACK_FROM {
            Due::Pack
        } else {
            Due::Nothing
        }
    }

    /// Everything that was there is packed.
    pub fn packed(&mut self, objects: u64) {
        (self.kept, self.seen) = (objects, Some(objects));
    }
}

/// Begins a collection: from now on what is stored stays.
pub fn begin(upkeep: &ContentUpkeep) -> Result<Collection, UpkeepError> {
    Ok(upkeep.store.begin_collection(PATIENCE)?)
}

/// Lets go of what nothing names where there is a collection, and packs the rest.
pub async fn look_after(
    upkeep: ContentUpkeep,
    records: Arc<dyn RecordStore>,
    collection: Option<Collection>,
) -> Result<Done, UpkeepError> {
    let store = Arc::clone(&upkeep.store);
    let mut roots: Vec<ObjectId> = vec![helix_versions::empty_tree().id(), helix_versions::empty_snapshot().id()];
    // In this order: see above.
    roots.extend(on_thread(move || Ok(store.pinned()?)).await?.into_iter().map(|(_, id)| id));
    roots.extend(records.named_content().await?);
    on_thread(move || {
        let store: &dyn Pack = &*upkeep.store;
        let Reached { live, hints, missing } = helix_versions::reach(store, roots)?;
        if missing > 0 {
            tracing::warn!(missing, "content that is named is not there; `helix doctor` says which steps are affected");
        }
        let swept = match &collection {
            Some(collection) => store.sweep(collection, &|id| live.contains(&id), Sweep::Drop)?,
            None => Swept::default(),
        };
        drop(collection);
        let packed = store.pack_at_rest(&hints)?;
        if swept.dropped > 0 || packed.groups > 0 {
            store.give_room_back()?;
        }
        Ok(Done { swept, packed, stats: store.stats()? })
    })
    .await
}

/// Does what may wait for a disk.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, UpkeepError> + Send + 'static) -> Result<T, UpkeepError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(UpkeepError::Panicked))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const LOOK: Duration = Duration::from_secs(30);

    #[test]
    fn content_is_packed_when_nobody_writes_and_there_is_much_of_it() {
        let mut rhythm = Rhythm::new(Duration::ZERO);
        assert_eq!(rhythm.look(PACK_FROM, LOOK), Due::Nothing, "somebody may be writing");
        assert_eq!(rhythm.look(PACK_FROM + 1, LOOK), Due::Nothing);
        assert_eq!(rhythm.look(PACK_FROM + 1, LOOK), Due::Pack);
        rhythm.packed(PACK_FROM + 1);
        assert_eq!(rhythm.look(PACK_FROM + 1, HOUR), Due::Nothing, "and never collected where that is off");
    }

    #[test]
    fn content_is_collected_each_interval_in_which_something_was_stored() {
        let mut rhythm = Rhythm::new(HOUR);
        assert_eq!((rhythm.look(1, LOOK), rhythm.look(1, HOUR)), (Due::Nothing, Due::Collect));
        assert_eq!((rhythm.look(1, HOUR), rhythm.look(1, HOUR)), (Due::Nothing, Due::Nothing), "nothing new can have become old");
        assert_eq!((rhythm.look(2, LOOK), rhythm.look(2, HOUR)), (Due::Collect, Due::Nothing));
    }
}
