//! The engine that stays: it takes the lock, listens, and leaves when it is idle.
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
use rustix::time::Timespec;

use crate::acceptors::Acceptors;
use crate::console::FATAL;
use crate::engine::{Engine, TICK};
use crate::{detach, log_file, memory};

/// How the engine is to serve.
pub struct Serve {
    /// Leaves the terminal it was started from, and says `ready` on standard output once it listens.
    pub detached: bool,
    /// How long it stays without a connection.
    pub idle: Duration,
}

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
    memory::keep_little();
    match listen(options) {
        Ok(Some((engine, socket))) => {
            stay(&engine, &socket, options.idle);
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
fn listen(options: &Serve) -> io::Result<Option<(Arc<Engine>, Socket)>> {
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
    Acceptors::begin(&engine, listener)?;
    tracing::info!(socket = %path.display(), release = helios_client::RELEASE, "the engine listens");
    if options.detached {
        detach::say("ready")?;
    }
    Ok(Some((engine, Socket { path, inode })))
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

/// Until it is idle, or told to leave.
fn stay(engine: &Arc<Engine>, socket: &Socket, idle: Duration) {
    while !engine.is_leaving() {
        if let Err(error) = wait(engine) {
            tracing::error!(%error, "the engine cannot wait");
            break;
        }
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

/// Until somebody says that the engine shall leave, or a tick has passed.
fn wait(engine: &Engine) -> io::Result<()> {
    let tick = Timespec { tv_sec: TICK.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::from_borrowed_fd(engine.wake().as_fd(), PollFlags::IN)], Some(&tick)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
