//! Opening a repository's store: by what names its folder wherever that is moved to, and waiting for whoever has it.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use helix_objects::{Cached, ObjectError, StoreLock, no_follow};
use helix_protocol::Failure;
use helix_rocks::{Compression, Loss, RocksOptions, RocksStore};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::location::Location;
use super::settings::Settings;
use crate::console::Console;
use crate::here::bisecting;

/// After this long without a word from its holder, whoever waits for a store is told why.
const QUIET: Duration = Duration::from_secs(1);

/// The ways on for a store that lost writes.
const ON_LOSS: &str = "`helios backup restore --replace BACKUP` puts a backup in its place and sets this store aside\n\
                       `helios backup accept-loss` says what is missing, and with --yes goes on without it";

/// The ways on for a store that may only be read.
const ON_UNWRITABLE: &str = "helios writes to .helios also where it only reads: copy the folder with `cp -r` and work in the copy\n\
                             or have whoever owns the repository let you write to its .helios";

/// The file on which somebody who waits for the store has a lock; an engine that has nothing to do with it lets it go then. It
/// stays, with or without locks: theirs go with them however they end, and nobody takes another's word away.
const WANTED: &str = "wanted";

/// The variable that names, for a program that `helios bisect run` runs, the repository whose store may be the bisecting process's.
pub const BISECTING: &str = "HELIOS_BISECTING";

/// A store that was opened by a descriptor of its folder.
///
/// The database writes and deletes files by path, in the background too. Were the folder moved away and another
/// repository put in its place, it would do so in that one. Through the descriptor it reaches the folder it was opened
/// in, whatever its name is by then.
pub struct PinnedStore {
    /// The store, with compressed content in memory.
    pub store: Arc<Cached<RocksStore>>,
    /// To be kept until the store is closed.
    pub pin: Pin,
}

/// A folder by descriptor.
pub struct Pin {
    folder: PathBuf,
    by_descriptor: PathBuf,
    _descriptor: OwnedFd,
}

impl Pin {
    fn new(folder: &Path) -> Result<Self, Failure> {
        let io = |error: &std::io::Error| Failure::io(folder.display(), error);
        fs::create_dir_all(folder).map_err(|error| io(&error))?;
        let descriptor =
            open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| io(&error.into()))?;
        let named = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        // Without /proc the plain path must do.
        let by_descriptor = if named.is_dir() { named } else { folder.to_owned() };
        Ok(Self { folder: folder.to_owned(), by_descriptor, _descriptor: descriptor })
    }

    /// Whether the folder that has the name is still this one.
    fn is_current(&self) -> bool {
        let same = |named: &fs::Metadata, own: &fs::Metadata| (named.dev(), named.ino()) == (own.dev(), own.ino());
        fs::metadata(&self.folder).is_ok_and(|named| fs::metadata(&self.by_descriptor).is_ok_and(|own| same(&named, &own)))
    }

    /// A failure with the path that people know.
    pub fn plain(&self, failure: Failure) -> Failure {
        let (by_descriptor, folder) = (self.by_descriptor.display().to_string(), self.folder.display().to_string());
        Failure { message: failure.message.replace(&by_descriptor, &folder), ..failure }
    }
}

impl PinnedStore {
    /// Opens the store, waiting while another process has it: the caller is told after a second, and may go away.
    pub fn open(location: &Location, settings: &Settings, console: &mut Console<'_>) -> Result<Self, Failure> {
        let (store, pin) = once_free(location, console, |folder| RocksStore::open_with(folder, options(settings)))?;
        Ok(Self { store: cached(store, settings), pin })
    }

    /// What of the store was acknowledged and is not there any more. Changes nothing.
    pub fn loss(location: &Location, settings: &Settings, console: &mut Console<'_>) -> Result<Option<Loss>, Failure> {
        Ok(once_free(location, console, |folder| RocksStore::loss(folder, options(settings)))?.0)
    }

    /// The lock of a store that is to be replaced, which need not be one that can be opened.
    pub fn lock(location: &Location, console: &mut Console<'_>) -> Result<StoreLock, Failure> {
        Ok(once_free(location, console, StoreLock::take)?.0)
    }

    /// Opens a store that goes on without what it lost.
    pub fn open_accepting_loss(location: &Location, settings: &Settings, console: &mut Console<'_>) -> Result<Self, Failure> {
        let ((store, _), pin) = once_free(location, console, |folder| RocksStore::open_accepting_loss(folder, options(settings)))?;
        Ok(Self { store: cached(store, settings), pin })
    }
}

fn cached(store: RocksStore, settings: &Settings) -> Arc<Cached<RocksStore>> {
    Arc::new(Cached::new(store, settings.bounds().content))
}

/// Opens the store's folder as soon as no other process has it.
fn once_free<T>(
    location: &Location,
    console: &mut Console<'_>,
    open: impl Fn(&Path) -> Result<T, ObjectError>,
) -> Result<(T, Pin), Failure> {
    let started = Instant::now();
    let (mut waiting, mut told) = (None, false);
    loop {
        let pin = Pin::new(&location.store())?;
        match open(&pin.by_descriptor) {
            Ok(opened) if pin.is_current() => return Ok((opened, pin)),
            // Another store has taken its place meanwhile.
            Ok(_) => continue,
            Err(ObjectError::InUse { .. }) => {}
            Err(error) => return Err(pin.plain(refused(error))),
        }
        console.check()?;
        if env::var_os(BISECTING).is_some_and(|bisected| *bisected == *location.repository) {
            return Err(bisecting());
        }
        if waiting.is_none() && started.elapsed() > Duration::from_millis(50) {
            waiting = Wanted::say(&location.own_folder());
        }
        if !told && started.elapsed() > QUIET {
            told = true;
            console.note(format!("waiting for another process that has {} open", location.repository.display()))?;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a person can do about a store that lost what it had acknowledged, or that is not theirs to write to.
fn refused(error: ObjectError) -> Failure {
    let hint = match &error {
        ObjectError::LostWrites { .. } | ObjectError::Unmarked { .. } => Some(ON_LOSS),
        ObjectError::Io { source, .. } if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            Some(ON_UNWRITABLE)
        }
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn options(settings: &Settings) -> RocksOptions {
    let compression = match settings.text("performance.compression").as_deref() {
        Some("zstd") => Compression::Zstd,
        _ => Compression::Lz4,
    };
    RocksOptions {
        compression,
        write_buffers: u32::try_from(settings.number("storage.rocksdb.max_write_buffer_number")).unwrap_or(u32::MAX),
        write_buffer_bytes: usize::try_from(settings.bytes("storage.rocksdb.write_buffer_size")).unwrap_or(usize::MAX),
        block_cache_bytes: usize::try_from(settings.bytes("storage.rocksdb.block_cache_size")).unwrap_or(usize::MAX),
        ..RocksOptions::default()
    }
}

/// The word that somebody waits, there as long as they do.
struct Wanted {
    _locked: File,
}

impl Wanted {
    /// `None` where it cannot be said now: the file cannot be written, or an engine is looking whether somebody waits.
    fn say(own_folder: &Path) -> Option<Self> {
        let file = no_follow().create(true).truncate(false).read(true).write(true).open(own_folder.join(WANTED)).ok()?;
        flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
        Some(Self { _locked: file })
    }
}

/// Whether somebody waits for the store of a repository.
pub fn is_wanted(own_folder: &Path) -> bool {
    // For both, since network file systems ask for one or the other with the kind of lock.
    let Ok(file) = no_follow().read(true).write(true).open(own_folder.join(WANTED)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_may_only_be_read_is_refused_with_the_next_step() {
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let refusal = refused(ObjectError::io(Path::new("/r/.helios/store/lock"), std::io::Error::from(kind)));
            assert!(refusal.message.contains("/r/.helios/store/lock") && refusal.hint == ON_UNWRITABLE, "{refusal:?}");
        }
        let other = refused(ObjectError::io(Path::new("/r"), std::io::Error::from(ErrorKind::NotFound)));
        assert_ne!(other.hint, ON_UNWRITABLE);
    }

    #[test]
    fn a_store_is_wanted_as_long_as_one_of_those_who_wait_is_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_wanted(folder.path()));
        let (one, other) = (Wanted::say(folder.path()).unwrap(), Wanted::say(folder.path()).unwrap());
        assert!(is_wanted(folder.path()));
        drop(one);
        assert!(is_wanted(folder.path()), "the other one still waits");
        drop(other);
        assert!(!is_wanted(folder.path()), "the file alone says nothing");
    }
}
