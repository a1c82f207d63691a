//! The engine that stays: it takes the lock, listens, serves each connection on a thread, and leaves when it is idle.
//!
//! Whoever holds `engine.lock` is the engine; only they touch the socket's name. A start that finds the lock held waits until
//! the holder answers, or until it has the lock itself, because the holder may be about to leave.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use helios_client::Place;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::time::Timespec;

use crate::console::FATAL;
use crate::engine::Engine;
use crate::{detach, log_file, session};

/// How the engine is to serve.
pub struct Serve {
    /// Leaves the terminal it was started from, and says `ready` on standard output once it listens.
    pub detached: bool,
    /// How long it stays without a connection.
    pub idle: Duration,
}

/// More connections than this are told to come back.
const MOST_SESSIONS: usize = 512;

/// How often it looks for something to give up …
const EACH: Duration = Duration::from_secs(1);
/// … and so waits no longer than this.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How long a leaving engine waits for the commands that run.
const FAREWELL: Duration = Duration::from_secs(30);

/// How long a start waits for a lock whose holder does not answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Serves until idle or stopped.
pub fn serve(options: &Serve) -> ExitCode {
    if options.detached {
        detach::close_inherited();
        detach::leave_session();
    }
    match listen(options) {
        Ok(Some((engine, listener, socket))) => {
            accept(&engine, &listener, &socket, options.idle);
            engine.close();
            tracing::info!("the engine has left");
            ExitCode::SUCCESS
        }
        Ok(None) => tell(options, "another", ExitCode::SUCCESS),
        Err(error) => tell(options, &error.to_string(), FATAL.into()),
    }
}

fn tell(options: &Serve, word: &str, code: ExitCode) -> ExitCode {
    if options.detached {
        // The exit code says it too.
        let _ = detach::say(word);
    } else {
        eprintln!("heliosd: {word}");
    }
    code
}

/// Takes the lock and listens; `None` where another engine does.
fn listen(options: &Serve) -> io::Result<Option<(Arc<Engine>, UnixListener, Socket)>> {
    let place = Place::find()?;
    let Some(mut lock) = take_lock(&place)? else { return Ok(None) };
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    log_file::init(&place.log())?;
    let path = place.socket();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&path)?.ino();
    let engine = Arc::new(Engine::new(Some(lock)));
    tracing::info!(socket = %path.display(), release = helios_client::RELEASE, "the engine listens");
    if options.detached {
        detach::say("ready")?;
    }
    Ok(Some((engine, listener, Socket { path, inode })))
}

/// The lock, once nobody else has it; `None` once somebody else has it and answers.
fn take_lock(place: &Place) -> io::Result<Option<File>> {
    let path = place.lock();
    let started = Instant::now();
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_named(&file, &path)? => return Ok(Some(file)),
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        if UnixStream::connect(place.socket()).is_ok() {
            return Ok(None);
        }
        if started.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("another engine has {} and does not answer", path.display())));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the file is still the one of that name: a runtime folder may have been swept meanwhile.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let named = fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let own = file.metadata()?;
    Ok(named.is_ok_and(|named| named == (own.dev(), own.ino())))
}

/// The name others find us by.
struct Socket {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }
}

fn accept(engine: &Arc<Engine>, listener: &UnixListener, socket: &Socket, idle: Duration) {
    let mut looked = Instant::now();
    while !engine.is_leaving() {
        if let Err(error) = wait(engine, listener) {
            tracing::error!(%error, "the engine cannot wait for connections");
            break;
        }
        take_connections(engine, listener);
        if looked.elapsed() < EACH {
            continue;
        }
        looked = Instant::now();
        // Without its name nobody finds it any more: it gives way to the next one.
        if engine.idle_for() >= idle || (engine.sessions() == 0 && !socket.is_ours()) {
            break;
        }
        engine.tidy();
    }
    engine.leave();
    if socket.is_ours() {
        // Connections that nobody has taken yet end without a welcome, and their clients start another engine.
        let _ = fs::remove_file(&socket.path);
    }
    engine.wait_for_sessions(FAREWELL);
}

/// Until there is a connection, somebody says that the engine shall leave, or a tick has passed.
fn wait(engine: &Engine, listener: &UnixListener) -> io::Result<()> {
    let mut waited = [PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(engine.wake().as_fd(), PollFlags::IN)];
    match poll(&mut waited, Some(&TICK)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn take_connections(engine: &Arc<Engine>, listener: &UnixListener) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                return;
            }
        };
        if !is_own_user(&stream) {
            tracing::warn!("another user's connection was refused");
            continue;
        }
        let Some(seat) = engine.seat(MOST_SESSIONS) else {
            // A client that is hung up on by an engine that leaves starts another one.
            if !engine.is_leaving() {
                session::refuse_crowd(&stream);
            }
            continue;
        };
        let spawned = thread::Builder::new().name("session".to_owned()).spawn(move || session::serve(&seat, &stream));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for another connection");
        }
    }
}

fn is_own_user(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == geteuid())
}
