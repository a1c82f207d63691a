//! What all commands of one engine share: the open repositories, who is connected, and whether it is leaving.

mod changes;
mod live;
pub mod location;
mod meter;
mod open;
pub mod settings;
mod shared;
mod store;
pub mod trust;
pub mod upkeep;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use helix_protocol::{Code, Failure};
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};

use crate::console::Console;
use crate::memory;
use live::Live;
use location::Location;
pub use open::{MOVING, OpenRepository};
pub use shared::SharedFolder;
pub use store::{BISECTING, PinnedStore};
use upkeep::Due;

/// One engine, whether it stays or does one command.
pub struct Engine {
    presence: Mutex<Presence>,
    left: Condvar,
    leaving: AtomicBool,
    wake: OwnedFd,
    started: Instant,
    /// Held for life by an engine that stays.
    lock: Option<File>,
    /// By main working folder. The inner lock is held while one is being opened, so that others wait for it.
    open: Mutex<HashMap<PathBuf, Place>>,
    live: Live,
}

/// Where a repository is opened, and then is.
type Place = Arc<Mutex<Option<Arc<OpenRepository>>>>;

/// How long whoever replaces a repository waits for those who only look.
const MOMENT: Duration = Duration::from_secs(2);
/// How often that is looked after.
const GLANCE: Duration = Duration::from_millis(5);
/// A repository that nobody has used for this long is closed.
const UNUSED: Duration = Duration::from_secs(5 * 60);
/// One that nobody has used for this long lets go of memory.
const RESTING: Duration = Duration::from_secs(10);
/// One that another process waits for is closed when nobody has used it for this long.
pub const WANTED: Duration = Duration::from_millis(200);
/// How often it is looked for something to give up.
pub const TICK: Duration = Duration::from_secs(1);

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
            open: Mutex::default(),
            live: Live::default(),
        }
    }

    /// The repository of a location, opened where it is not. Refused where its `.helios` is not to be trusted, and where the
    /// location is not the workspace that it says it is.
    pub fn repository(&self, location: &Location, console: &mut Console<'_>) -> Result<Arc<OpenRepository>, Failure> {
        let repository = self.opened(location, console)?;
        repository.admit(location)?;
        Ok(repository)
    }

    fn opened(&self, location: &Location, console: &mut Console<'_>) -> Result<Arc<OpenRepository>, Failure> {
        let place = Arc::clone(self.open.lock().entry(location.repository.clone()).or_default());
        let mut open = place.lock();
        if let Some(repository) = &*open {
            if repository.is_still_there() {
                repository.touch();
                return Ok(Arc::clone(repository));
            }
            // Commands that are in the old one still have it; it is closed with the last of them.
            *open = None;
        }
        trust::admit(&location.repository)?;
        let repository = Arc::new(OpenRepository::open(location, &self.live, console)?);
        *open = Some(Arc::clone(&repository));
        Ok(repository)
    }

    /// A failure with paths that people know, and with what somebody who has this program can do about it.
    pub fn plain(&self, failure: Failure) -> Failure {
        let failure = match failure.code {
            Code::CorruptObject => {
                failure.hint("`helios fsck` says what else is damaged; `helios backup restore --replace` brings it back")
            }
            Code::ObjectsMissing => {
                failure.hint("`helios purge` may have removed it; `helios fsck` says where else something is missing")
            }
            _ => failure,
        };
        let open: Vec<Place> = self.open.lock().values().map(Arc::clone).collect();
        open.iter().fold(failure, |failure, place| match place.try_lock().as_deref() {
            Some(Some(repository)) => repository.plain(failure),
            _ => failure,
        })
    }

    /// Lets a repository go before somebody makes or replaces it. Fails while commands are in it, and where its
    /// `.helios` is not to be trusted.
    pub fn with_closed<T>(&self, root: &std::path::Path, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let place = Arc::clone(self.open.lock().entry(root.to_owned()).or_default());
        let mut open = place.lock();
        if let Some(repository) = open.take() {
            // Whoever only looks, as a watch does, is done in a moment; others cannot come meanwhile.
            let deadline = Instant::now() + MOMENT;
            while Arc::strong_count(&repository) > 1 && Instant::now() < deadline {
                thread::sleep(GLANCE);
            }
            if Arc::strong_count(&repository) > 1 {
                *open = Some(repository);
                let message = format!("other commands are using {}", root.display());
                return Err(Failure::new(Code::InvalidState, message).hint("try again when they have ended"));
            }
            repository.close();
        }
        trust::admit(root)?;
        act()
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

    /// Closes repositories that nobody has used for a while, lets others rest, and closes those that another process waits for.
    pub fn tidy(&self) {
        // Folders that were looked at ahead count too.
        self.make_room();
        self.close_where(|repository| {
            let unused = repository.unused_for();
            unused > UNUSED || (unused > WANTED && (repository.is_wanted() || !repository.is_still_there()))
        });
        let mut rested = false;
        for repository in self.unused() {
            rested |= repository.unused_for() > RESTING && repository.rest();
            let due = repository.due();
            if due != Due::Nothing {
                // It holds the repository open until it is done.
                let work = move || {
                    upkeep::look_after(&repository, due);
                    repository.tire();
                };
                if let Err(error) = thread::Builder::new().name("upkeep".to_owned()).spawn(work) {
                    tracing::warn!(%error, "no thread to look after a repository");
                }
            }
        }
        if rested {
            memory::give_back();
        }
    }

    /// Open repositories that no command is in.
    fn unused(&self) -> Vec<Arc<OpenRepository>> {
        let open = self.open.lock();
        let alone = |place: &Place| {
            let open = place.try_lock()?;
            open.as_ref().filter(|repository| Arc::strong_count(repository) == 1).map(Arc::clone)
        };
        open.values().filter_map(alone).collect()
    }

    /// Closes every repository.
    pub fn close(&self) {
        self.close_where(|_| true);
    }

    fn close_where(&self, chosen: impl Fn(&OpenRepository) -> bool) {
        self.open.lock().retain(|_, place| {
            // One that is being opened, or that a command is in, stays.
            let Some(mut open) = place.try_lock() else { return true };
            match open.take() {
                Some(repository) if Arc::strong_count(&repository) == 1 && chosen(&repository) => {
                    repository.close();
                    // Who has the place in hand already opens it there.
                    Arc::strong_count(place) > 1
                }
                Some(repository) => {
                    *open = Some(repository);
                    true
                }
                None => Arc::strong_count(place) > 1,
            }
        });
    }

    /// The repositories that are open.
    pub fn open_roots(&self) -> Vec<PathBuf> {
        let open = self.open.lock();
        let mut roots: Vec<PathBuf> = open
            .iter()
            .filter(|(_, place)| place.try_lock().is_none_or(|open| open.is_some()))
            .map(|(root, _)| root.clone())
            .collect();
        roots.sort();
        roots
    }
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
