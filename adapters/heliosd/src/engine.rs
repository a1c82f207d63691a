//! What all commands of one engine share: the open repositories, who is connected, and whether it is leaving.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};

/// One engine, whether it stays or does one command.
pub struct Engine {
    presence: Mutex<Presence>,
    left: Condvar,
    leaving: AtomicBool,
    wake: OwnedFd,
    started: Instant,
    /// Held for life by an engine that stays.
    lock: Option<File>,
}

struct Presence {
    sessions: usize,
    /// When the last session ended.
    since: Instant,
}

/// A session's place in the engine; the engine does not leave while one is taken.
pub struct Seat {
    engine: Arc<Engine>,
}

impl Engine {
    /// With the lock of an engine that stays, or without for one command.
    pub fn new(lock: Option<File>) -> Self {
        Self {
            presence: Mutex::new(Presence { sessions: 0, since: Instant::now() }),
            left: Condvar::new(),
            leaving: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .expect("a process has a descriptor to spare when it starts"),
            started: Instant::now(),
            lock,
        }
    }

    /// Whether this engine stays after the command.
    pub fn stays(&self) -> bool {
        self.lock.is_some()
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// A seat for a session, where fewer than `most` are taken and the engine is not leaving.
    pub fn seat(self: &Arc<Self>, most: usize) -> Option<Seat> {
        let mut presence = self.presence.lock();
        if presence.sessions >= most || self.is_leaving() {
            return None;
        }
        presence.sessions += 1;
        Some(Seat { engine: Arc::clone(self) })
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.presence.lock().sessions
    }

    /// How long there has been no session.
    pub fn idle_for(&self) -> Duration {
        let presence = self.presence.lock();
        if presence.sessions > 0 { Duration::ZERO } else { presence.since.elapsed() }
    }

    /// No new session is seated from now on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        // Where the count is full the waiter has been told already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Leaves where `seat` is the only one taken; says whether it does.
    pub fn leave_if_alone(&self, _seat: &Seat) -> bool {
        let presence = self.presence.lock();
        let alone = presence.sessions == 1;
        if alone {
            self.leave();
        }
        alone
    }

    /// Whether it is about to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Becomes readable when the engine is to leave.
    pub fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// Returns once every session has ended, or after this time.
    pub fn wait_for_sessions(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut presence = self.presence.lock();
        while presence.sessions > 0 && !self.left.wait_until(&mut presence, until).timed_out() {}
    }

    /// Gives up what nobody has used for a while.
    pub fn tidy(&self) {}

    /// Closes every repository.
    pub fn close(&self) {}
}

impl Seat {
    /// The engine it is in.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut presence = self.engine.presence.lock();
        presence.sessions -= 1;
        presence.since = Instant::now();
        self.engine.left.notify_all();
    }
}
