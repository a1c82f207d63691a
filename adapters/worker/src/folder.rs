//! A worker's folder: its lock, its sockets, and whether a worker lives in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use helix_protocol::{Code, Failure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The longest path a socket can have is 107 bytes; beyond this a short one is used.
const LONGEST_SOCKET: usize = 100;
/// Somebody who only looks whether the lock is free holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Where a worker keeps everything.
#[derive(Clone, Debug)]
pub struct WorkerFolder {
    path: PathBuf,
}

/// Held by the one worker of a folder, until its process ends.
#[derive(Debug)]
pub struct FolderLock(File);

/// What a connection attempt says about the worker.
#[derive(Debug)]
pub enum Reached {
    /// It answers.
    Connected(UnixStream),
    /// Nobody listens and nobody holds the lock: no worker runs.
    Dead,
    /// Somebody holds the lock and does not answer.
    Busy,
}

impl WorkerFolder {
    /// A folder, by its absolute path.
    pub fn new(path: PathBuf) -> Self {
        let absolute = std::path::absolute(&path).unwrap_or(path);
        // The same folder must have one name, for its socket's and for the processes that work in it.
        Self { path: fs::canonicalize(&absolute).unwrap_or(absolute) }
    }

    /// The same folder, made where it is missing, for its owner alone.
    pub fn make(self) -> Result<Self, Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| Failure::io(self.path.display(), &error))?;
        Ok(Self::new(self.path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.path.join("worker.log")
    }

    /// What a starting worker says before its log stands.
    pub fn start_log(&self) -> PathBuf {
        self.path.join("start.log")
    }

    /// Where nodes connect.
    pub fn socket(&self) -> Result<PathBuf, Failure> {
        self.socket_named("worker")
    }

    /// Where `status` and `stop` connect.
    pub fn control_socket(&self) -> Result<PathBuf, Failure> {
        self.socket_named("control")
    }

    fn socket_named(&self, name: &str) -> Result<PathBuf, Failure> {
        let here = self.path.join(format!("{name}.sock"));
        if here.as_os_str().len() <= LONGEST_SOCKET {
            return Ok(here);
        }
        let user = rustix::process::getuid().as_raw();
        let folder = PathBuf::from(format!("/tmp/helix-{user}"));
        let failed = |error: io::Error| Failure::io(folder.display(), &error);
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(&folder).map_err(failed)?;
        if !found.is_dir() || found.uid() != user || found.permissions().mode() & 0o077 != 0 {
            return Err(Failure::new(
                Code::StorageFailed,
                format!("{} belongs to somebody else or is open to others, so no socket is put there", folder.display()),
            )
            .hint("give the worker a folder with a shorter path"));
        }
        Ok(folder.join(format!("{}-{name}.sock", helix_objects::hash(self.path.as_os_str().as_bytes()).short())))
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Takes the folder for this process. Refused with `invalid_state` where another worker has it.
    pub fn lock(&self) -> Result<FolderLock, Failure> {
        let path = self.lock_file();
        let failed = |error: io::Error| Failure::io(path.display(), &error);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let start = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(FolderLock(file)),
                Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                Err(Errno::WOULDBLOCK) => {
                    return Err(Failure::new(Code::InvalidState, format!("another worker runs in {}", self.path.display()))
                        .hint("`helix-worker status --folder` shows it, `helix-worker stop --folder` ends it"));
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// Whether nobody holds the lock. A folder without one never had a worker.
    pub fn is_free(&self) -> Result<bool, Failure> {
        let path = self.lock_file();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Failure::io(path.display(), &error)),
        };
        // Shared: two who look at once must not take each other for a worker.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(Failure::io(path.display(), &error.into())),
        }
    }

    /// Connects to the worker, or says for certain that none runs.
    pub fn reach(&self, socket: &Path) -> Result<Reached, Failure> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Reached::Connected(stream)),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                Ok(if self.is_free()? { Reached::Dead } else { Reached::Busy })
            }
            Err(error) => Err(Failure::new(Code::WorkerUnreachable, format!("{}: {error}", socket.display()))),
        }
    }
}

impl FolderLock {
    /// The file that is locked; it must stay open.
    pub fn file(&self) -> &File {
        &self.0
    }
}
