//! The life of the content store.
//!
//! Parent: storage, rest for one, permanent. It owns no content: reads and writes go straight through the store's shared face.
//! It has what nothing names collected on a timer, and what has come to rest packed when nobody writes
//! ([`upkeep`](crate::upkeep)). What survives a restart is the store itself; a collection that was under way has dropped nothing
//! but what nothing named, and is made again.

use std::sync::Arc;
use std::time::Duration;

use helix_database::RecordStore;
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Work};
use helix_objects::{Collection, ObjectError, ObjectStore, StoreStats};

use crate::upkeep::{self, ContentUpkeep, Done, Due, Rhythm, UpkeepError};

/// Between two looks at the store.
const INTERVAL: Duration = Duration::from_secs(30);

/// What the actor tells itself.
pub enum ContentMsg {
    /// It is time to look.
    Look,
    /// What the look found.
    Looked(Result<StoreStats, ObjectError>),
    /// A collection has begun, or could not.
    Began(Result<Collection, UpkeepError>),
    /// Its grace is over.
    Sweep(Collection),
    /// Content was looked after.
    LookedAfter(Result<Done, UpkeepError>),
}

/// Watches the store and leaves it synced.
pub struct ContentActor;

/// What it stands on.
#[derive(Clone)]
pub struct ContentArgs {
    /// The store, open.
    pub objects: Arc<dyn ObjectStore>,
    /// The records, which name content.
    pub records: Arc<dyn RecordStore>,
    /// How the store is kept small; `None` for one that cannot be.
    pub upkeep: Option<ContentUpkeep>,
}

/// What it knows.
pub struct ContentState {
    args: ContentArgs,
    work: Work<ContentMsg>,
    failing: bool,
    rhythm: Rhythm,
    /// Whether content is being looked after at present.
    busy: bool,
}

impl Actor for ContentActor {
    type Msg = Admitted<ContentMsg>;
    type State = ContentState;
    type Arguments = ContentArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: ContentArgs) -> Result<ContentState, ActorProcessingErr> {
        let rhythm = Rhythm::new(args.upkeep.as_ref().map_or(Duration::ZERO, |upkeep| upkeep.interval));
        let mut state = ContentState { args, work: Work::of(&myself), failing: false, rhythm, busy: false };
        state.look_in(Duration::ZERO);
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut ContentState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ContentMsg::Look => state.look(),
            ContentMsg::Looked(found) => state.judge(found),
            ContentMsg::Began(begun) => state.wait_for_names(begun),
            ContentMsg::Sweep(collection) => state.look_after(Some(collection)),
            ContentMsg::LookedAfter(done) => state.looked_after(done),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut ContentState) -> Result<(), ActorProcessingErr> {
        let objects = Arc::clone(&state.args.objects);
        if objects.never_blocks() {
            return Ok(objects.sync_all()?);
        }
        tokio::task::spawn_blocking(move || objects.sync_all()).await??;
        Ok(())
    }
}

impl ContentState {
    fn look_in(&mut self, delay: Duration) {
        self.work.start(async move {
            tokio::time::sleep(delay).await;
            ContentMsg::Look
        });
    }

    fn look(&mut self) {
        let objects = Arc::clone(&self.args.objects);
        self.work.start(async move {
            if objects.never_blocks() {
                return ContentMsg::Looked(objects.stats());
            }
            let looked = tokio::task::spawn_blocking(move || objects.stats()).await;
            ContentMsg::Looked(looked.unwrap_or_else(|_| Err(ObjectError::Backend("looking at the store panicked".to_owned()))))
        });
    }

    /// Says once that the store fails, and once that it works again.
    fn judge(&mut self, found: Result<StoreStats, ObjectError>) {
        match found {
            Ok(stats) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(objects = stats.objects, "the content store works again");
                }
                tracing::debug!(objects = stats.objects, stored_bytes = stats.stored_bytes, "content store");
                self.keep_small(stats.objects);
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, "the content store fails; steps are not acknowledged until it works again");
            }
            Err(_) => {}
        }
        self.look_in(self.interval());
    }

    /// Between two looks: the usual time, or less where collections are more frequent.
    fn interval(&self) -> Duration {
        let collections = self.args.upkeep.as_ref().map(|upkeep| upkeep.interval).filter(|interval| !interval.is_zero());
        collections.map_or(INTERVAL, |interval| interval.min(INTERVAL))
    }

    /// Begins what is due, unless the last such work is still under way.
    fn keep_small(&mut self, objects: u64) {
        let Some(upkeep) = self.args.upkeep.clone().filter(|_| !self.busy) else { return };
        match self.rhythm.look(objects, self.interval()) {
            Due::Nothing => {}
            Due::Pack => self.look_after(None),
            Due::Collect => {
                self.busy = true;
                self.work.start(async move {
                    let begun = tokio::task::spawn_blocking(move || upkeep::begin(&upkeep)).await;
                    ContentMsg::Began(begun.unwrap_or(Err(UpkeepError::Panicked)))
                });
            }
        }
    }

    /// Gives what was stored before the collection began the time to be named.
    fn wait_for_names(&mut self, begun: Result<Collection, UpkeepError>) {
        let grace = self.args.upkeep.as_ref().map_or(Duration::ZERO, |upkeep| upkeep.grace);
        match begun {
            Ok(collection) => {
                self.work.start(async move {
                    tokio::time::sleep(grace).await;
                    ContentMsg::Sweep(collection)
                });
            }
            Err(error) => self.looked_after(Err(error)),
        }
    }

    fn look_after(&mut self, collection: Option<Collection>) {
        let ContentArgs { records, upkeep: Some(upkeep), .. } = self.args.clone() else { return };
        self.busy = true;
        self.work.start(async move { ContentMsg::LookedAfter(upkeep::look_after(upkeep, records, collection).await) });
    }

    fn looked_after(&mut self, done: Result<Done, UpkeepError>) {
        self.busy = false;
        match done {
            Ok(Done { swept, packed, stats }) => {
                self.rhythm.packed(stats.objects);
                tracing::info!(
                    dropped = swept.dropped,
                    dropped_bytes = swept.dropped_bytes,
                    packed = packed.objects,
                    objects = stats.objects,
                    stored_bytes = stats.stored_bytes,
                    "content was looked after"
                );
            }
            // It is tried again when it is due again: nothing depends on it but space.
            Err(error) => tracing::warn!(%error, "content could not be looked after"),
        }
    }
}
