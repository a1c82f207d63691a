//! Looking at folders: what their names are now, held against what the index has.
//!
//! A pass visits some names of some folders, and every folder it meets whole. Nothing is changed: the result is
//! merged into the index afterwards. Where there is much to see several threads do it; a folder with very many names is divided
//! among them.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use helix_objects::NewObject;
use helix_protocol::{ObjectId, SkipReason};
use rustix::fs::{FileType, RawDir, Stat, fstat, readlinkat};
use rustix::io::Errno;

use super::events::Watcher;
use super::folder;
use super::fresh::{BaseTrees, Fresh};
use super::ignore::{Chain, Patterns, Sort};
use super::index::{Entry, FolderKey, HeldFile, Index};
use super::reading::{FileContent, read_steady_in};
use super::stat_cache::{FileClock, FileStat, StatCache};
use super::teamwork::Team;
use crate::VersionError;
use crate::names::is_outside;
use crate::read::push_name;
use crate::tree::{MAX_DEPTH, TreeEntry};

/// The files of ignore patterns in a folder, the weaker first.
const IGNORE_FILES: [&CStr; 2] = [c".gitignore", c".heliosignore"];
/// Larger files of patterns are not read, as in git.
const IGNORE_FILE_BYTES: u64 = 100 << 20;
/// A folder with more names than this is divided.
const PART: usize = 512;

/// Whether a name, when it changes, changes what is ignored in its folder.
pub(super) fn is_ignore_file(name: &[u8]) -> bool {
    IGNORE_FILES.iter().any(|file| file.to_bytes() == name)
}

/// What every thread of a pass reads.
pub(super) struct Pass<'a> {
    pub(super) index: &'a Index,
    /// What an earlier process knew, until the index knows better.
    pub(super) saved: &'a StatCache,
    pub(super) base: &'a BaseTrees<'a>,
    pub(super) fresh: &'a Fresh<'a>,
    pub(super) watcher: Option<&'a Watcher>,
    pub(super) cap: u64,
    /// The clock before anything was looked at.
    pub(super) started: FileClock,
    /// So many files are what `saved` has of them.
    pub(super) believed: AtomicUsize,
}

/// A folder that is looked at.
struct Place {
    ticket: usize,
    /// The folder in which its names may be known.
    known: Option<FolderKey>,
    path: Vec<u8>,
    depth: usize,
    ignored: bool,
    /// While it is not open yet: its parent's.
    chain: Option<Arc<Chain>>,
}

/// A folder that is open.
pub(super) struct OpenPlace {
    at: Place,
    fd: OwnedFd,
}

/// One piece of work.
pub(super) enum Job {
    /// A folder to be opened and listed.
    Folder(Inner),
    /// Names to be looked at.
    Names { place: Arc<OpenPlace>, names: Vec<(CString, FileType)> },
}

/// A folder in a folder.
pub(super) struct Inner {
    at: Place,
    parent: Arc<OpenPlace>,
    name: CString,
}

/// What was seen of a folder.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) path: Vec<u8>,
    pub(super) opened: Opened,
    /// Every name of the folder is among the sights; what is not is gone.
    pub(super) whole: bool,
    pub(super) ignored: bool,
    pub(super) chain: Option<Arc<Chain>>,
    pub(super) inode: u64,
    pub(super) watch: Option<i32>,
    pub(super) sights: Vec<(CString, Sight)>,
}

/// Whether a folder could be looked into.
#[derive(Default)]
pub(super) enum Opened {
    /// It was gone, or no folder any more, before it could be.
    #[default]
    Gone,
    Yes,
    /// The system does not allow it; with what the base has there.
    Refused(Option<TreeEntry>),
}

/// What a name is.
pub(super) enum Sight {
    /// Nothing, or nothing that is carried.
    Absent,
    File {
        file: HeldFile,
        torn: bool,
        tie: Tie,
    },
    Link {
        size: u64,
        id: ObjectId,
        tie: Tie,
    },
    /// See the folder of this ticket.
    Folder {
        ticket: usize,
        tie: Tie,
    },
    /// Something that cannot be carried, with what the base has there.
    Skipped {
        reason: SkipReason,
        size: u64,
        base: Option<TreeEntry>,
    },
}

/// Whether an entry would be another with another base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    Free,
    /// It is ignored, and carried because the base has it.
    ToBase,
}

impl Pass<'_> {
    /// Looks at the root, just opened, with all beneath. The root's ticket is 0. `outer` is what is ignored
    /// whatever the folder says.
    pub(super) fn everything(&self, root: OwnedFd, outer: Option<Arc<Chain>>) -> Result<Vec<Seen>, VersionError> {
        let team = Team::new();
        let at =
            Place { ticket: team.ticket(), known: Some(Index::ROOT), path: Vec::new(), depth: 0, ignored: false, chain: outer };
        self.open(&team, at, root)?;
        team.work(&|job| self.job(&team, job))
    }

    /// Looks at these names of folders that the index has; each folder's ticket is its place in the list. A folder that cannot be
    /// opened has nothing seen in it: the event that says why is still to come.
    pub(super) fn some(&self, root: &OwnedFd, folders: Vec<(FolderKey, Vec<CString>)>) -> Result<Vec<Seen>, VersionError> {
        let team = Team::new();
        let mut cursor = folder::Cursor::new(root.as_fd());
        for (key, names) in folders {
            let ticket = team.ticket();
            let held = self.index.folder(key);
            let path = self.index.path(key);
            let fd = match cursor.folder(&path) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM) => continue,
                Err(errno) => return Err(VersionError::Io { path: crate::show_path(&path), source: errno.into() }),
            };
            let depth = if path.is_empty() { 0 } else { path.split(|byte| *byte == b'/').count() };
            team.see(ticket, Seen { path: path.clone(), opened: Opened::Yes, ignored: held.ignored, ..Seen::default() });
            let at = Place { ticket, known: Some(key), path, depth, ignored: held.ignored, chain: held.chain.clone() };
            let names = names.into_iter().map(|name| (name, FileType::Unknown)).collect();
            team.give(Job::Names { place: Arc::new(OpenPlace { at, fd }), names });
        }
        team.work(&|job| self.job(&team, job))
    }

    fn job(&self, team: &Team, job: Job) -> Result<(), VersionError> {
        let Inner { at, parent, name } = match job {
            Job::Names { place, names } => return self.names(team, &place, names),
            Job::Folder(inner) => inner,
        };
        let opened = if at.depth < MAX_DEPTH { folder::open_folder(parent.fd.as_fd(), &name) } else { Err(Errno::LOOP) };
        match opened {
            Ok(fd) => self.open(team, at, fd),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(Errno::MFILE | Errno::NFILE) => Err(VersionError::Io {
                path: crate::show_path(&at.path),
                source: std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error()),
            }),
            // Without permission, nested too deep, or a link took its place.
            Err(_) => {
                let base = self.base.entry(&at.path)?;
                team.see(at.ticket, Seen { path: at.path, opened: Opened::Refused(base), ..Seen::default() });
                Ok(())
            }
        }
    }

    /// Watches a folder, then lists it, so that nothing comes in between unseen.
    fn open(&self, team: &Team, mut at: Place, fd: OwnedFd) -> Result<(), VersionError> {
        let refused = |errno: Errno| VersionError::Io { path: crate::show_path(&at.path), source: errno.into() };
        let stat = fstat(&fd).map_err(refused)?;
        let watch = self.watcher.and_then(|watcher| watcher.watch(&fd, &stat));
        // A folder that was moved is still watched: its names are known where it was.
        at.known = at.known.or_else(|| self.watcher.and_then(|watcher| watcher.folder_of(watch?)));
        let (names, opened) = match list(&fd) {
            Ok(names) => (names, Opened::Yes),
            Err(Errno::ACCESS | Errno::PERM) => (Vec::new(), Opened::Refused(self.base.entry(&at.path)?)),
            // It was deleted since it was opened.
            Err(Errno::NOENT) if at.depth > 0 => return Ok(()),
            Err(errno) => return Err(VersionError::Io { path: crate::show_path(&at.path), source: errno.into() }),
        };
        if !at.ignored && names.iter().any(|(name, _)| is_ignore_file(name.to_bytes())) {
            at.chain = Chain::with(at.chain.take(), &at.path, ignore_patterns(&fd));
        }
        let seen = Seen {
            path: at.path.clone(),
            opened,
            whole: true,
            ignored: at.ignored,
            chain: at.chain.clone(),
            inode: inode(&stat),
            watch,
            sights: Vec::new(),
        };
        team.see(at.ticket, seen);
        let place = Arc::new(OpenPlace { at, fd });
        if names.len() <= 2 * PART {
            return self.names(team, &place, names);
        }
        let mut names = names.into_iter();
        loop {
            let part: Vec<_> = names.by_ref().take(PART).collect();
            if part.is_empty() {
                return Ok(());
            }
            team.give(Job::Names { place: Arc::clone(&place), names: part });
        }
    }

    fn names(&self, team: &Team, place: &Arc<OpenPlace>, names: Vec<(CString, FileType)>) -> Result<(), VersionError> {
        let mut path = place.at.path.clone();
        let mut sights = Vec::with_capacity(names.len());
        for (name, kind) in names {
            let length = push_name(&mut path, name.to_bytes());
            let sight = self.name(team, place, &name, kind, &path)?;
            sights.push((name, sight));
            path.truncate(length);
        }
        team.add(place.at.ticket, sights);
        Ok(())
    }

    fn name(&self, team: &Team, place: &Arc<OpenPlace>, name: &CStr, kind: FileType, path: &[u8]) -> Result<Sight, VersionError> {
        if is_outside(name.to_bytes()) {
            return Ok(Sight::Absent);
        }
        let mut stat = None;
        let kind = match kind {
            FileType::Unknown => match self.stat(place, name, path)? {
                Some(found) => {
                    stat = Some(found);
                    FileType::from_raw_mode(found.st_mode)
                }
                None => return Ok(Sight::Absent),
            },
            known => known,
        };
        let sort = if kind == FileType::Directory { Sort::Folder } else { Sort::Other };
        let ignored = place.at.ignored || Chain::ignores(place.at.chain.as_ref(), path, sort);
        let tie = if ignored {
            let tracked = self.base.entry(path)?;
            let same_sort = |entry: &TreeEntry| (entry.mode == helix_protocol::FileMode::Directory) == (sort == Sort::Folder);
            if !tracked.is_some_and(|entry| same_sort(&entry)) {
                return Ok(Sight::Absent);
            }
            Tie::ToBase
        } else {
            Tie::Free
        };
        match kind {
            FileType::Directory => {
                let ticket = team.ticket();
                let known = place.at.known.and_then(|key| match self.index.folder(key).entries.get(name.to_bytes()) {
                    Some(Entry::Folder(inner)) => Some(*inner),
                    _ => None,
                });
                let (depth, chain) = (place.at.depth + 1, place.at.chain.clone());
                let at = Place { ticket, known, path: path.to_owned(), depth, ignored, chain };
                team.give(Job::Folder(Inner { at, parent: Arc::clone(place), name: name.to_owned() }));
                Ok(Sight::Folder { ticket, tie })
            }
            FileType::RegularFile => {
                let found = match stat {
                    Some(found) => Some(found),
                    None => self.stat(place, name, path)?,
                };
                match found {
                    Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
                        self.file(place, name, path, &found, tie)
                    }
                    // Another thing took its place since it was listed: look again, by what it is now.
                    Some(_) => self.name(team, place, name, FileType::Unknown, path),
                    None => Ok(Sight::Absent),
                }
            }
            FileType::Symlink => {
                let Ok(target) = readlinkat(&place.fd, name, Vec::new()) else { return Ok(Sight::Absent) };
                let link = NewObject::new(Bytes::from(target.into_bytes()));
                let (size, id) = (link.bytes().len() as u64, link.id());
                let known = place.at.known.and_then(|key| self.index.folder(key).entries.get(name.to_bytes()));
                if !matches!(known, Some(Entry::Link { id: same, .. }) if *same == id) {
                    self.fresh.take(link)?;
                }
                Ok(Sight::Link { size, id, tie })
            }
            _ => Ok(Sight::Skipped { reason: SkipReason::Special, size: 0, base: None }),
        }
    }

    fn stat(&self, place: &OpenPlace, name: &CStr, path: &[u8]) -> Result<Option<Stat>, VersionError> {
        match folder::stat(place.fd.as_fd(), name) {
            Ok(found) => Ok(found),
            // The folder may be listed but not entered.
            Err(Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(errno) => Err(VersionError::Io { path: crate::show_path(path), source: errno.into() }),
        }
    }

    fn file(&self, place: &OpenPlace, name: &CStr, path: &[u8], raw: &Stat, tie: Tie) -> Result<Sight, VersionError> {
        let stat = FileStat::new(raw);
        let linked = raw.st_nlink > 1;
        if stat.size > self.cap {
            return Ok(Sight::Skipped { reason: SkipReason::TooLarge, size: stat.size, base: self.base.entry(path)? });
        }
        let known = place.at.known.and_then(|key| self.index.folder(key).entries.get(name.to_bytes()));
        let known = match known {
            Some(Entry::File(file)) if file.vouches_for(&stat) => Some((file.id, file.read_at)),
            _ => self.saved.read(path, &stat).inspect(|_| {
                self.believed.fetch_add(1, Ordering::Relaxed);
            }),
        };
        if let Some((id, read_at)) = known {
            return Ok(Sight::File { file: HeldFile { stat, id, read_at, linked }, torn: false, tie });
        }
        let _turn = self.fresh.turn(stat.size);
        match read_steady_in(place.fd.as_fd(), name, self.cap) {
            Ok(FileContent::Whole { bytes, stat, torn }) => {
                let object = NewObject::new(bytes);
                let id = object.id();
                self.fresh.take(object)?;
                // A torn file is believed by nobody.
                let read_at = if torn { FileClock::NEVER } else { self.started };
                Ok(Sight::File { file: HeldFile { stat, id, read_at, linked }, torn, tie })
            }
            Ok(FileContent::TooLarge { size }) => {
                Ok(Sight::Skipped { reason: SkipReason::TooLarge, size, base: self.base.entry(path)? })
            }
            Ok(FileContent::NoFile) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Sight::Absent),
            Err(error) => {
                tracing::debug!(path = %crate::show_path(path), %error, "a file cannot be read");
                Ok(Sight::Skipped { reason: SkipReason::Unreadable, size: stat.size, base: self.base.entry(path)? })
            }
        }
    }
}

/// The inode's number; its type differs between platforms.
#[allow(clippy::unnecessary_cast)]
pub(super) fn inode(stat: &Stat) -> u64 {
    stat.st_ino as u64
}

/// The names in a folder that was just opened: they are read by this descriptor, from where it stands.
fn list(fd: &OwnedFd) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// The patterns of a folder's own ignore files, as one list. Links are not followed, as in git.
fn ignore_patterns(fd: &OwnedFd) -> Patterns {
    let mut patterns = Patterns::default();
    for name in IGNORE_FILES {
        if let Ok(FileContent::Whole { bytes, .. }) = read_steady_in(fd.as_fd(), name, IGNORE_FILE_BYTES) {
            patterns.append(Patterns::parse(&bytes));
        }
    }
    patterns
}

/// The patterns of a file outside the folder.
pub(super) fn outer_patterns(file: &std::path::Path) -> Patterns {
    std::fs::read(file).map_or_else(|_| Patterns::default(), |bytes| Patterns::parse(&bytes))
}
