//! The life of the content that is kept in memory (L1).
//!
//! Parent: storage, rest for one, permanent. Reads and writes go straight through the cache, which bounds itself. What the actor
//! does is to take back the memory of a node that nobody asks for anything: content that has not been read for a while is let go,
//! what was used longest ago first. Nothing here has to survive; the cache fills again from the store behind it.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Work};
use helix_objects::{CacheStats, ContentCache};

/// Between two looks at the cache.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
/// After so many looks in a row between which nobody read or wrote, most of it is let go.
const QUIET_LOOKS: u32 = 5;

/// What the actor tells itself.
pub enum CacheMsg {
    /// It is time to look.
    Look,
    /// Memory was taken back.
    Shrunk,
}

/// Watches the cache.
pub struct CacheActor;

/// What it knows.
pub struct CacheState {
    cache: Arc<dyn ContentCache>,
    work: Work<CacheMsg>,
    quiet: Quiet,
}

impl Actor for CacheActor {
    type Msg = Admitted<CacheMsg>;
    type State = CacheState;
    type Arguments = Arc<dyn ContentCache>;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, cache: Arc<dyn ContentCache>) -> Result<CacheState, ActorProcessingErr> {
        let mut state = CacheState { cache, work: Work::of(&myself), quiet: Quiet::default() };
        state.look_later();
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut CacheState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            CacheMsg::Look => state.look(),
            CacheMsg::Shrunk => state.look_later(),
        }
        Ok(())
    }
}

impl CacheState {
    fn look_later(&mut self) {
        self.work.start(async {
            tokio::time::sleep(INTERVAL).await;
            CacheMsg::Look
        });
    }

    fn look(&mut self) {
        let stats = self.cache.cache_stats();
        tracing::debug!(
            hits = stats.hits,
            misses = stats.misses,
            objects = stats.objects,
            bytes = stats.bytes,
            "content in memory"
        );
        let Some(keep) = self.quiet.look(stats) else { return self.look_later() };
        let cache = Arc::clone(&self.cache);
        self.work.start(async move {
            if tokio::task::spawn_blocking(move || cache.shrink(keep)).await.is_err() {
                tracing::error!("letting content in memory go panicked");
            }
            CacheMsg::Shrunk
        });
    }
}

/// When memory is taken back.
#[derive(Debug, Default)]
struct Quiet {
    seen: CacheStats,
    looks: u32,
}

impl Quiet {
    /// How many bytes to keep, where most is to be let go.
    fn look(&mut self, now: CacheStats) -> Option<usize> {
        let used = |stats: CacheStats| (stats.hits, stats.misses, stats.objects);
        self.looks = if used(now) == used(self.seen) { self.looks + 1 } else { 0 };
        self.seen = now;
        if self.looks < QUIET_LOOKS || now.bytes == 0 {
            return None;
        }
        // What goes is no use of it: the next look begins a new count.
        self.looks = 0;
        Some(usize::try_from(now.bytes / 4).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use helix_kernel::{Address, ChildSpec, Strategy, SupervisorSpec, start};
    use helix_objects::{Cached, Durability, MemoryStore, NewObject, ObjectStore};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn content_that_nobody_asks_for_is_let_go_and_what_is_in_use_stays() {
        let cached = Arc::new(Cached::new(MemoryStore::new(), 1 << 20));
        let objects: Vec<NewObject> = (0..100_u32).map(|number| NewObject::new(number.to_le_bytes().repeat(200).into())).collect();
        cached.put(&objects, Durability::NoSync).unwrap();
        let (address, cache) = (Address::unbound("cache", 1), Arc::clone(&cached) as Arc<dyn ContentCache>);
        let spec = SupervisorSpec::new("storage", Strategy::OneForOne)
            .child(ChildSpec::actor("cache", &address, move || (CacheActor, Arc::clone(&cache))));
        let _handle = start(spec).await.unwrap();
        for _ in 0..20 {
            assert!(cached.get(objects[7].id()).unwrap().is_some());
            tokio::time::sleep(INTERVAL).await;
        }
        assert_eq!(cached.cache_stats().objects, 100, "somebody reads now and then");
        let began = tokio::time::Instant::now();
        while cached.cache_stats().bytes > 0 {
            assert!(began.elapsed() < INTERVAL * 100, "{:?}", cached.cache_stats());
            tokio::time::sleep(INTERVAL).await;
            // What lets go works on threads of its own.
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.unwrap();
        }
        assert!(began.elapsed() >= INTERVAL * QUIET_LOOKS);
        assert!(objects.iter().all(|object| cached.read(object.id()).unwrap() == object.bytes()), "it is in the store");
    }
}
