//! The life of the content store.
//!
//! Parent: storage, rest for one, permanent. It owns no content: reads and writes go straight through the
//! store's shared face. What survives a restart is the store itself.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Work};
use helix_objects::{ObjectError, ObjectStore, StoreStats};

/// Between two looks at the store.
const INTERVAL: Duration = Duration::from_secs(30);

/// What the actor tells itself.
pub enum ContentMsg {
    /// It is time to look.
    Look,
    /// What the look found.
    Looked(Result<StoreStats, ObjectError>),
}

/// Watches the store and leaves it synced.
pub struct ContentActor;

/// What it stands on.
#[derive(Clone)]
pub struct ContentArgs {
    /// The store, open.
    pub objects: Arc<dyn ObjectStore>,
}

/// What it knows.
pub struct ContentState {
    objects: Arc<dyn ObjectStore>,
    work: Work<ContentMsg>,
    failing: bool,
}

impl Actor for ContentActor {
    type Msg = Admitted<ContentMsg>;
    type State = ContentState;
    type Arguments = ContentArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: ContentArgs) -> Result<ContentState, ActorProcessingErr> {
        let mut state = ContentState { objects: args.objects, work: Work::of(&myself), failing: false };
        state.look_in(Duration::ZERO);
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut ContentState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ContentMsg::Look => state.look(),
            ContentMsg::Looked(found) => state.judge(found),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut ContentState) -> Result<(), ActorProcessingErr> {
        let objects = Arc::clone(&state.objects);
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
        let objects = Arc::clone(&self.objects);
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
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, "the content store fails; steps are not acknowledged until it works again");
            }
            Err(_) => {}
        }
        self.look_in(INTERVAL);
    }
}
