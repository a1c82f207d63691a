//! Several threads that share the work of one pass.

use std::ffi::CString;
use std::num::NonZero;
use std::sync::OnceLock;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::visit::{Job, Seen, Sight};
use crate::VersionError;

/// Beneath this many names, threads cost more than they bring.
const ALONE: usize = 1000;
const MOST_THREADS: usize = 8;

/// How many threads one pass may use. Asked once: the answer takes reading several files.
pub(super) fn most_threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS))
}

/// The jobs that are left, the last given first, so that few folders are open at once; and what was seen.
pub(super) struct Team {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    seen: Vec<Seen>,
    names: usize,
    working: usize,
    failed: Option<VersionError>,
}

impl Team {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    /// A number for a folder, under which what is seen of it will stand.
    pub(super) fn ticket(&self) -> usize {
        let mut state = self.state.lock();
        state.seen.push(Seen::default());
        state.seen.len() - 1
    }

    pub(super) fn see(&self, ticket: usize, seen: Seen) {
        self.state.lock().seen[ticket] = seen;
    }

    pub(super) fn add(&self, ticket: usize, mut sights: Vec<(CString, Sight)>) {
        let mut state = self.state.lock();
        state.names += sights.len();
        state.seen[ticket].sights.append(&mut sights);
    }

    pub(super) fn give(&self, job: Job) {
        self.state.lock().jobs.push(job);
        self.changed.notify_one();
    }

    /// Does the jobs, and those they give, and answers with what was seen by ticket.
    pub(super) fn work(&self, run: &(dyn Fn(Job) -> Result<(), VersionError> + Sync)) -> Result<Vec<Seen>, VersionError> {
        loop {
            let job = {
                let mut state = self.state.lock();
                if state.names >= ALONE { None } else { state.jobs.pop() }
            };
            let Some(job) = job else { break };
            run(job)?;
        }
        if !self.state.lock().jobs.is_empty() {
            let threads = most_threads();
            thread::scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|| self.share(run));
                }
                self.share(run);
            });
        }
        let mut state = self.state.lock();
        match state.failed.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.seen)),
        }
    }

    /// Takes jobs until there are none and nobody can give more.
    fn share(&self, run: &(dyn Fn(Job) -> Result<(), VersionError> + Sync)) {
        let mut state = self.state.lock();
        loop {
            if state.failed.is_some() {
                break;
            }
            if let Some(job) = state.jobs.pop() {
                state.working += 1;
                drop(state);
                let working = Working(self);
                let done = run(job);
                drop(working);
                state = self.state.lock();
                if let Err(error) = done {
                    state.failed.get_or_insert(error);
                }
            } else if state.working == 0 {
                break;
            } else {
                self.changed.wait(&mut state);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// A job under way; one that panics must not leave the others waiting.
struct Working<'a>(&'a Team);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.state.lock().working -= 1;
        self.0.changed.notify_all();
    }
}
