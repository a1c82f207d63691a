//! One sync for everybody who waits for one.
//!
//! Writers that were released together come back together. Whoever is first would sync for itself alone while the
//! others are still writing, so every other sync would cover one commit. It waits for as many as there were last time instead,
//! for at most half of what the last sync took.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Tells up to where the log is on disk, and lets one of the callers that need more do the work
/// for all of them.
#[derive(Debug, Default)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    done: Condvar,
    arrived: Condvar,
}

/// Nobody is waited for longer than this.
const PATIENCE: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct State {
    synced: u64,
    running: bool,
    syncs: u64,
    /// The marks that are waited for.
    waiting: Vec<u64>,
    /// How many there were when the last sync began, and how long it took.
    last: usize,
    took: Duration,
}

impl GroupSync {
    pub(crate) fn new(synced: u64) -> Self {
        Self { state: Mutex::new(State { synced, ..State::default() }), ..Self::default() }
    }

    /// Returns once everything up to `mark` is on disk. `written` tells up to where the log was written
    /// at the time it is asked; `sync` puts all of that on disk and is told how far that is. Who fails tells only its own
    /// caller: the others try themselves.
    pub(crate) fn reach<E>(&self, mark: u64, written: impl Fn() -> u64, sync: impl Fn(u64) -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock();
        if state.synced >= mark {
            return Ok(());
        }
        state.waiting.push(mark);
        self.arrived.notify_one();
        let mut outcome = Ok(());
        while state.synced < mark && outcome.is_ok() {
            if state.running {
                self.done.wait(&mut state);
            } else {
                state.running = true;
                self.gather(&mut state);
                outcome = self.run(&mut state, &written, &sync);
            }
        }
        if outcome.is_err()
            && let Some(place) = state.waiting.iter().position(|waiting| *waiting == mark)
        {
            state.waiting.swap_remove(place);
        }
        outcome
    }

    /// As [`reach`](Self::reach), in a sync that begins after this call.
    pub(crate) fn alone<E>(&self, written: impl Fn() -> u64, sync: impl Fn(u64) -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock();
        while state.running {
            self.done.wait(&mut state);
        }
        state.running = true;
        self.run(&mut state, &written, &sync)
    }

    /// Waits a little for those who were there last time.
    fn gather(&self, state: &mut MutexGuard<'_, State>) {
        let deadline = Instant::now() + PATIENCE.min(state.took / 2);
        while state.waiting.len() < state.last && !self.arrived.wait_until(state, deadline).timed_out() {}
    }

    /// Syncs, for all who wait; `running` is set already.
    fn run<E>(
        &self,
        state: &mut MutexGuard<'_, State>,
        written: &impl Fn() -> u64,
        sync: &impl Fn(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        state.last = state.waiting.len();
        let covers = written();
        let began = Instant::now();
        let outcome = MutexGuard::unlocked(state, || sync(covers));
        state.took = began.elapsed();
        state.running = false;
        if outcome.is_ok() {
            state.synced = state.synced.max(covers);
            state.waiting.retain(|mark| *mark > covers);
            state.syncs += 1;
        }
        self.done.notify_all();
        outcome
    }

    /// How many syncs there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::GroupSync;

    #[test]
    fn writers_that_wait_together_share_a_sync() {
        let (group, written, entered) = (GroupSync::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (leader_syncs, release) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            written.store(1, Ordering::SeqCst);
            scope.spawn(|| {
                group.reach(
                    1,
                    || written.load(Ordering::SeqCst),
                    |_| {
                        leader_syncs.wait();
                        release.wait();
                        Ok::<(), ()>(())
                    },
                )
            });
            leader_syncs.wait();
            // The first sync is under way: nine more write and wait for the next one.
            written.store(10, Ordering::SeqCst);
            for mark in 2..=10 {
                let (group, written, entered) = (&group, &written, &entered);
                scope.spawn(move || {
                    group.reach(
                        mark,
                        || written.load(Ordering::SeqCst),
                        |_| {
                            entered.fetch_add(1, Ordering::SeqCst);
                            Ok::<(), ()>(())
                        },
                    )
                });
            }
            release.wait();
        });
        assert_eq!((entered.load(Ordering::SeqCst), group.syncs()), (1, 2));
    }

    #[test]
    fn what_is_synced_already_costs_nothing_and_a_failure_is_told_and_not_remembered() {
        let group = GroupSync::new(5);
        assert_eq!(group.reach(5, || 9, |_| Err("not called")), Ok(()));
        assert_eq!(group.reach(6, || 9, |_| Err("disk")), Err("disk"));
        assert_eq!(group.reach(6, || 9, |_| Ok::<(), &str>(())), Ok(()));
        assert_eq!(group.reach(9, || 9, |_| Err("the sync before covered it")), Ok(()));
    }
}
