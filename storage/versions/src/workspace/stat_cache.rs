//! What is known of files by their `stat`, so that an unchanged file is not read again.
//!
//! An entry is believed only where the file's times, size, inode and mode are the recorded ones *and*
//! its times are older than the moment at which it was read: a file that is written twice within
//! one tick of the clock looks the same both times, so a file as young as its reading is read again.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use helix_objects::{hash, write_no_follow};
use helix_protocol::ObjectId;
use rustix::fs::Stat;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::VersionError;

/// The file format this program writes; another one is not read, which costs one full scan.
const FORMAT: u32 = 2;

/// Remembers the files of one workspace. With a file of its own it survives the process.
#[derive(Debug, Default)]
pub struct StatCache {
    file: Option<PathBuf>,
    tree: Option<ObjectId>,
    entries: HashMap<Vec<u8>, Known>,
    /// Written by the checkout that is under way: believed from its end on.
    fresh: Vec<Vec<u8>>,
}

/// Nanoseconds of the clock that the kernel stamps files with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FileClock(i64);

impl FileClock {
    /// Before every file.
    pub(crate) const NEVER: Self = Self(i64::MIN);

    pub(crate) fn now() -> Self {
        #[cfg(target_os = "linux")]
        let now = clock_gettime(ClockId::RealtimeCoarse);
        #[cfg(not(target_os = "linux"))]
        let now = clock_gettime(ClockId::Realtime);
        Self::of(now.tv_sec, now.tv_nsec)
    }

    /// Waits until everything that was written before is older than the clock. One tick is not enough: files may be
    /// stamped more finely than it goes, and it may lag.
    #[cfg(all(test, feature = "git"))]
    pub(crate) fn pass() {
        use std::os::unix::fs::MetadataExt;
        let probe = tempfile::tempfile().expect("a file can be made").metadata().expect("an open file has metadata");
        let stamp = Self::of(probe.ctime(), probe.ctime_nsec());
        while Self::now() <= stamp {
            std::hint::spin_loop();
        }
    }

    #[allow(clippy::unnecessary_cast)]
    fn of(seconds: i64, nanoseconds: impl Into<i64>) -> Self {
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.into()))
    }
}

/// What `stat` says of a file, as far as it tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStat {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) modified: FileClock,
    pub(crate) changed: FileClock,
}

impl FileStat {
    // The fields' types differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    pub(crate) fn new(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode as u32,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino as u64,
            modified: FileClock::of(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: FileClock::of(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// Whether this is the same file, with the same content, though perhaps under another name or mode.
    #[cfg(feature = "git")]
    pub(crate) fn is_same_content(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }

    /// Whether the file's times lie before a moment of the clock.
    pub(crate) fn is_older_than(&self, moment: FileClock) -> bool {
        self.modified < moment && self.changed < moment
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stat: FileStat,
    id: ObjectId,
    read_at: FileClock,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    tree: Option<ObjectId>,
    entries: Vec<(ByteBuf, Known)>,
}

impl StatCache {
    /// A cache that lives as long as the value.
    pub fn new() -> Self {
        Self::default()
    }

    /// A cache in a file, which must lie outside the workspace. A file that is missing, damaged, of
    /// another format or left by an interrupted checkout gives an empty cache: it can only cost time.
    pub fn open(file: &Path) -> Result<Self, VersionError> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(VersionError::io(file, error)),
        };
        Ok(Self { file: Some(file.to_owned()), ..Self::decode(&bytes).unwrap_or_default() })
    }

    /// A damaged id would be committed as if the file had been read, so the bytes must be the ones that were written.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (sum, bytes) = bytes.split_first_chunk()?;
        if ObjectId(*sum) != hash(bytes) {
            return None;
        }
        let saved: Saved = rmp_serde::from_slice(bytes).ok().filter(|saved: &Saved| saved.format == FORMAT)?;
        let entries = saved.entries.into_iter().map(|(path, known)| (path.into_vec(), known)).collect();
        Some(Self { tree: saved.tree, entries, ..Self::default() })
    }

    fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|(path, known)| (ByteBuf::from(path.clone()), *known)).collect();
        let saved = Saved { format: FORMAT, tree: self.tree, entries };
        let bytes = rmp_serde::to_vec(&saved).expect("numbers and bytes can always be encoded");
        [&hash(&bytes).0, bytes.as_slice()].concat()
    }

    /// An empty cache that will be saved to a file.
    #[cfg(feature = "git")]
    pub(crate) fn at(file: &Path, tree: Option<ObjectId>) -> Self {
        Self { file: Some(file.to_owned()), tree, ..Self::default() }
    }

    /// The tree that the workspace held when it was last scanned or checked out whole; `None` where
    /// that is not known, or a checkout was interrupted.
    pub fn tree(&self) -> Option<ObjectId> {
        self.tree
    }

    /// Writes the cache to its file, if it has one. An old file is no danger, only slow.
    pub fn save(&self) -> Result<(), VersionError> {
        let Some(file) = &self.file else { return Ok(()) };
        let draft = file.with_extension("new");
        let written = write_no_follow(&draft, &self.encode()).and_then(|()| fs::rename(&draft, file));
        written.map_err(|error| VersionError::io(file, error))
    }

    /// The content of a file that looks as it did when it was read.
    pub(crate) fn lookup(&self, path: &[u8], stat: &FileStat) -> Option<ObjectId> {
        self.read(path, stat).map(|(id, _)| id)
    }

    /// As [`lookup`](Self::lookup), with the clock before it was read.
    pub(crate) fn read(&self, path: &[u8], stat: &FileStat) -> Option<(ObjectId, FileClock)> {
        let known = self.entries.get(path)?;
        (known.stat == *stat && stat.is_older_than(known.read_at)).then_some((known.id, known.read_at))
    }

    /// Records what a scan that began at `read_at` found.
    pub(crate) fn record(&mut self, path: Vec<u8>, stat: FileStat, id: ObjectId, read_at: FileClock) {
        self.entries.insert(path, Known { stat, id, read_at });
    }

    /// Records a file that a checkout has just written. Nobody else writes during a checkout, so it
    /// will be believed unless the clock still stands at the file's time when the checkout ends.
    pub(crate) fn wrote(&mut self, path: Vec<u8>, stat: FileStat, id: ObjectId) {
        self.entries.insert(path.clone(), Known { stat, id, read_at: FileClock::NEVER });
        self.fresh.push(path);
    }

    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.entries.remove(path);
    }

    /// Drops entries of files that are gone.
    pub(crate) fn keep(&mut self, seen: impl Fn(&[u8]) -> bool) {
        self.entries.retain(|path, _| seen(path));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes in what another cache knows.
    #[cfg(feature = "git")]
    pub(crate) fn add(&mut self, other: &Self) {
        self.entries.extend(other.entries.iter().map(|(path, known)| (path.clone(), *known)));
    }

    /// Memory in bytes, roughly: a map is as large as it once had to be, and a path is a block of its own.
    #[cfg(feature = "git")]
    pub(crate) fn memory_bytes(&self) -> usize {
        let paths: usize = self.entries.keys().map(|path| path.len() + 16).sum();
        self.entries.capacity() * 8 / 7 * (size_of::<(Vec<u8>, Known)>() + 1) + paths
    }

    pub(crate) fn holds(&mut self, tree: ObjectId) {
        self.tree = Some(tree);
    }

    /// Before a checkout's first change: from here on, and in a process that starts after a crash,
    /// the workspace holds no known tree.
    pub(crate) fn begin_checkout(&mut self) -> Result<(), VersionError> {
        self.tree = None;
        self.fresh.clear();
        let Some(file) = &self.file else { return Ok(()) };
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(VersionError::io(file, error)),
            _ => Ok(()),
        }
    }

    /// After its last one.
    pub(crate) fn end_checkout(&mut self, tree: ObjectId) -> Result<(), VersionError> {
        let now = FileClock::now();
        for path in std::mem::take(&mut self.fresh) {
            if let Some(known) = self.entries.get_mut(&path) {
                known.read_at = now;
            }
        }
        self.tree = Some(tree);
        self.save()
    }
}

/// What a cache's file says behind the hash of it: what is read says the same when it is written and read again.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let sealed = [&hash(bytes).0, bytes].concat();
    if let Some(cache) = StatCache::decode(&sealed) {
        let again = StatCache::decode(&cache.encode()).expect("what was written can be read");
        assert_eq!((again.tree, again.entries), (cache.tree, cache.entries));
    }
}
