//! The threads that take connections and serve them.
//!
//! One waits for the next connection. When it comes, another takes its place, and the first serves it: no connection is handed from
//! thread to thread, and hardly ever is a thread made for one. A thread that has served stays for the next connections.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::engine::{Engine, Seat};
use crate::session;

/// More connections than this are told to come back.
const MOST_SESSIONS: usize = 512;
/// So many threads stay when they have nothing to do …
const STAY: usize = 16;
/// … for so long.
const REST: Duration = Duration::from_secs(10);
/// How long no connection is taken after the system has refused one, as it does where no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// What the threads share.
pub struct Acceptors {
    engine: Arc<Engine>,
    listener: UnixListener,
    turn: Mutex<Turn>,
    free: Condvar,
}

#[derive(Default)]
struct Turn {
    /// Somebody waits for the next connection.
    taken: bool,
    /// So many wait for the turn.
    resting: usize,
}

impl Acceptors {
    /// Takes connections from now on, until the engine leaves. The listener does not block.
    pub fn begin(engine: &Arc<Engine>, listener: UnixListener) -> io::Result<()> {
        let acceptors = Self { engine: Arc::clone(engine), listener, turn: Mutex::default(), free: Condvar::new() };
        Arc::new(acceptors).add()
    }

    fn add(self: Arc<Self>) -> io::Result<()> {
        thread::Builder::new().name("session".to_owned()).spawn(move || self.work()).map(drop)
    }

    fn work(self: Arc<Self>) {
        while self.take_turn() {
            let taken = self.next();
            let mut turn = self.turn.lock();
            turn.taken = false;
            let Some((stream, seat)) = taken else {
                self.free.notify_all();
                return;
            };
            let followed = self.free.notify_one() || Arc::clone(&self).add().is_ok();
            drop(turn);
            if !followed {
                tracing::warn!("no thread for another connection; it waits for this one's end");
            }
            session::serve(&seat, &stream);
        }
    }

    /// Waits for the turn; false where it is not needed any more.
    fn take_turn(&self) -> bool {
        let mut turn = self.turn.lock();
        while turn.taken {
            if turn.resting >= STAY || self.engine.is_leaving() {
                return false;
            }
            turn.resting += 1;
            let tired = self.free.wait_for(&mut turn, REST).timed_out();
            turn.resting -= 1;
            if tired && turn.taken {
                return false;
            }
        }
        turn.taken = true;
        true
    }

    /// The next connection that is to be served; none once the engine leaves.
    fn next(&self) -> Option<(UnixStream, Seat)> {
        while !self.engine.is_leaving() {
            let mut waited =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::from_borrowed_fd(self.engine.wake().as_fd(), PollFlags::IN)];
            match poll(&mut waited, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the engine cannot wait for connections");
                    self.engine.leave();
                    return None;
                }
            }
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Some(seat) = self.admit(&stream) {
                        return Some((stream, seat));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    thread::sleep(PAUSE);
                }
            }
        }
        None
    }

    fn admit(&self, stream: &UnixStream) -> Option<Seat> {
        if !is_own_user(stream) {
            tracing::warn!("another user's connection was refused");
            return None;
        }
        let seat = self.engine.seat(MOST_SESSIONS);
        // A client that is hung up on by an engine that leaves starts another one.
        if seat.is_none() && !self.engine.is_leaving() {
            session::refuse_crowd(stream);
        }
        seat
    }
}

fn is_own_user(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == geteuid())
}
