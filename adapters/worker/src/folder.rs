//! A worker's folder: that it is one, its lock, its sockets, and whether a worker lives in it.

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

/// The file that says of a folder that it is a worker's, made before anything else of it.
const MARK: &str = ".helix-worker";
/// For whoever looks into it.
const MARK_TEXT: &str =
    "This folder is a Helix worker's. `helix worker remove` and `helix-worker stop --wipe` delete what it has here.\n";
/// What every worker that served has made, those that set no mark as well.
const ALWAYS: [&str; 2] = [LOCK, "guard.lock"];
/// Held by the worker.
const LOCK: &str = "lock";

/// Where a worker keeps everything.
#[derive(Clone, Debug)]
pub struct WorkerFolder {
    path: PathBuf,
}

/// Held by the one worker of a folder, until its process ends.
#[derive(Debug)]
pub struct FolderLock(File);

/// What lies in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// Nothing, or there is no folder.
    Nothing,
    /// A worker has it.
    Workers,
    /// Only what no worker made.
    SomebodyElses,
}

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

    /// The same folder, made where it is missing, for its owner alone, and marked as a worker's. Refused with `invalid_request`
    /// where something lies in it that no worker made.
    pub fn make(self) -> Result<Self, Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| Failure::io(self.path.display(), &error))?;
        let made = Self::new(self.path);
        if made.holding()? == Holding::SomebodyElses {
            return Err(made.not_ours("so no worker is started there", "name a folder that is empty or not there yet"));
        }
        let mark = made.path.join(MARK);
        if !mark.exists() {
            fs::write(&mark, MARK_TEXT).map_err(|error| Failure::io(mark.display(), &error))?;
        }
        Ok(made)
    }

    fn holding(&self) -> Result<Holding, Failure> {
        // Looked at before the mark is: who starts a worker at the same time sets the mark first.
        let first = match fs::read_dir(&self.path) {
            Ok(mut entries) => entries.next(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::io(self.path.display(), &error)),
        };
        let is_file = |name: &&str| self.path.join(name).is_file();
        Ok(match first {
            None => Holding::Nothing,
            Some(_) if is_file(&MARK) || ALWAYS.iter().all(is_file) => Holding::Workers,
            Some(_) => Holding::SomebodyElses,
        })
    }

    fn not_ours(&self, so: &str, hint: &str) -> Failure {
        let message = format!("{} has files in it and is no worker's folder, {so}", self.path.display());
        Failure::new(Code::InvalidRequest, message).hint(hint)
    }

    /// Whether there is anything of a worker to be deleted. Refused with `invalid_request` where what lies there is no worker's.
    pub fn can_be_wiped(&self) -> Result<bool, Failure> {
        match self.holding()? {
            Holding::Nothing => Ok(false),
            Holding::Workers => Ok(true),
            Holding::SomebodyElses => {
                Err(self.not_ours("so nothing of it is deleted", "name the worker's folder; `helix worker show` has it"))
            }
        }
    }

    /// Deletes what workers made in it, and the folder itself where nothing else lies there. The caller holds its lock.
    pub fn wipe(&self) -> Result<(), Failure> {
        helix_actor_runner::wipe(&self.path)?;
        let log = self.log();
        let files = [self.socket()?, self.control_socket()?, self.start_log(), log.with_extension("log.1"), log];
        // The mark goes last: until then it is known whose the rest is.
        for file in files.into_iter().chain([LOCK, MARK].map(|name| self.path.join(name))) {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::io(file.display(), &error)),
                _ => {}
            }
        }
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("{} stays, because no worker made what is left in it: {error}", self.path.display());
        }
        Ok(())
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
        self.path.join(LOCK)
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
