//! Carrying out a plan.
//!
//! A move that ends half-way leaves some files of either tree and no damage; it can be repeated. Many files are written by
//! several threads.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use helix_objects::{ObjectError, ObjectStore};
use helix_protocol::{FileMode, ObjectId};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::checkout::CheckedOut;
use super::folder::{self, Cursor, c_name};
use super::index::{Entry, Index};
use super::live::Live;
use super::plan::{Manner, Over, Plan, Write};
use super::stat_cache::FileStat;
use super::teamwork::most_threads;
use super::writing::{Removed, Source, link, make_folder, put, remove, remove_tree, repository_in, set_mode};
use crate::{VersionError, show_path};

/// Objects are read from the store in batches of about this many bytes, and files.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_FILES: usize = 128;
/// Smaller files are written: cloning costs as much, and shares nothing.
const CLONE_FROM: u64 = 4096;

/// Another working folder of the same repository, from which files are cloned where the file system can.
pub(super) struct Like<'a> {
    index: &'a Index,
    root: OwnedFd,
    /// The file system has refused once.
    refused: AtomicBool,
}

impl<'a> Like<'a> {
    pub(super) fn new(live: &'a Live) -> Result<Self, VersionError> {
        Ok(Self { index: &live.index, root: folder::open_root(live.root())?, refused: AtomicBool::new(false) })
    }

    /// The file with this content at this path, if it is surely there.
    fn open(&self, cursor: &mut Cursor<'_>, write: &Write) -> Option<(OwnedFd, FileStat)> {
        if write.entry.size < CLONE_FROM || write.entry.mode == FileMode::Symlink || self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let held = match self.index.entry(&write.path) {
            Some(Entry::File(file)) if file.id == write.entry.id => *file,
            _ => return None,
        };
        let (folder, name) = cursor.parent(&write.path).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(folder, &*c_name(name).ok()?, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let stat = (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| FileStat::new(&stat))?;
        held.vouches_for(&stat).then_some((file, stat))
    }
}

/// Does what a plan says, and lets `live` know what was written.
pub(super) fn apply(
    live: &mut Live,
    store: &dyn ObjectStore,
    plan: Plan,
    manner: Manner,
    like: Option<&Like<'_>>,
) -> Result<CheckedOut, VersionError> {
    // Before anything is touched.
    all_there(store, &plan)?;
    let folder = folder::open_root(live.root())?;
    let root = live.root().to_owned();
    let work = Work { root: &root, folder: folder.as_fd(), store, manner, like, next: AtomicUsize::new(0) };
    let mut share = Share { done: CheckedOut { kept: plan.kept, ..CheckedOut::default() }, ..Share::default() };
    let done = work.clear_the_way(&plan, &mut share).and_then(|()| work.write_all(live, &plan.writes, &mut share));
    // What was written is known even if not all of it was.
    live.wrote(share.written);
    done?;
    if !share.changed.is_empty() {
        share.changed.sort();
        return Err(VersionError::WouldOverwrite { paths: share.changed });
    }
    Ok(share.done)
}

/// Whether a file's bytes are written, and not its mode alone.
fn needs_content(write: &Write) -> bool {
    !matches!(write.over, Over::Mode(_))
}

/// Fails where content that a plan writes is missing.
pub(super) fn all_there(store: &dyn ObjectStore, plan: &Plan) -> Result<(), VersionError> {
    let ids: Vec<_> = plan.writes.iter().filter(|write| needs_content(write)).map(|write| write.entry.id).collect();
    match store.missing(&ids)?.first() {
        Some(id) => Err(ObjectError::Missing(*id).into()),
        None => Ok(()),
    }
}

struct Work<'a> {
    root: &'a Path,
    folder: BorrowedFd<'a>,
    store: &'a dyn ObjectStore,
    manner: Manner,
    like: Option<&'a Like<'a>>,
    /// The first write that nobody has taken.
    next: AtomicUsize,
}

/// What one thread has done.
#[derive(Default)]
struct Share {
    done: CheckedOut,
    written: Vec<(Vec<u8>, FileStat, ObjectId)>,
    /// Files that somebody changed since the plan was made, and that are therefore left alone.
    changed: Vec<String>,
}

impl Share {
    fn join(&mut self, other: Self) {
        self.done.written += other.done.written;
        self.done.written_bytes += other.done.written_bytes;
        self.done.cloned += other.done.cloned;
        self.written.extend(other.written);
        self.changed.extend(other.changed);
    }
}

impl Work<'_> {
    fn error(&self, path: &[u8], errno: Errno) -> VersionError {
        VersionError::Io { path: self.root.join(show_path(path)).display().to_string(), source: errno.into() }
    }

    /// What must still be as it was for a file to be touched.
    fn known(&self, stat: Option<FileStat>) -> Option<FileStat> {
        stat.filter(|_| self.manner == Manner::Keep)
    }

    /// Removes what goes and makes the folders that are needed.
    fn clear_the_way(&self, plan: &Plan, share: &mut Share) -> Result<(), VersionError> {
        let mut cursor = Cursor::for_change(self.folder);
        for (path, stat) in &plan.removals {
            let removed = cursor.parent(path).and_then(|(folder, name)| remove(folder, &c_name(name)?, self.known(*stat)));
            match removed {
                Ok(Removed::Yes) => share.done.removed += 1,
                Ok(Removed::Changed) => share.changed.push(show_path(path)),
                Ok(Removed::Gone) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(self.error(path, errno)),
            }
        }
        if share.changed.is_empty() {
            for path in &plan.clearings {
                self.clear(&mut cursor, path, share).map_err(|errno| self.error(path, errno))?;
            }
        }
        for path in &plan.prunings {
            let pruned = cursor.parent(path).and_then(|(folder, name)| unlinkat(folder, &*c_name(name)?, AtFlags::REMOVEDIR));
            match pruned {
                Ok(()) => share.done.removed += 1,
                // Something that is in no tree is left in it, or it is gone already.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::BUSY) => {}
                Err(errno) => return Err(self.error(path, errno)),
            }
        }
        let mut cursor = Cursor::for_change(self.folder);
        for path in &plan.folders {
            let made = cursor.parent(path).and_then(|(folder, name)| make_folder(folder, &c_name(name)?));
            made.map_err(|errno| self.error(path, errno))?;
        }
        Ok(())
    }

    /// Removes a folder that is to be something else, unless there is a repository of its own in it by now.
    fn clear(&self, cursor: &mut Cursor<'_>, path: &[u8], share: &mut Share) -> Result<(), Errno> {
        let (folder, name) = cursor.parent(path)?;
        let name = c_name(name)?;
        match repository_in(folder, &name, 0)? {
            Some(beneath) => share.changed.push(show_path(&[path, b"/", &beneath].concat())),
            None => share.done.removed += remove_tree(folder, &name, 0)?,
        }
        Ok(())
    }

    fn write_all(&self, live: &mut Live, writes: &[Write], share: &mut Share) -> Result<(), VersionError> {
        let threads = most_threads().min(writes.len() / (2 * BATCH_FILES) + 1);
        thread::scope(|scope| {
            let helper = || {
                let mut share = Share::default();
                let done = self.write_some(writes, &mut share, &mut || ());
                (share, done)
            };
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(helper)).collect();
            // Our own events must not make the queue overflow.
            let mut done = self.write_some(writes, share, &mut || live.absorb());
            for helper in helpers {
                let (other, result) = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                share.join(other);
                done = done.and(result);
            }
            done
        })
    }

    /// Takes neighbouring files, so that they lie in one folder, until there are none.
    fn write_some(&self, writes: &[Write], share: &mut Share, after_each: &mut dyn FnMut()) -> Result<(), VersionError> {
        let mut cursors =
            Cursors { ours: Cursor::for_change(self.folder), like: self.like.map(|like| Cursor::new(like.root.as_fd())) };
        loop {
            let first = self.next.fetch_add(BATCH_FILES, Ordering::Relaxed);
            let Some(mut rest) = writes.get(first..).map(|rest| &rest[..rest.len().min(BATCH_FILES)]) else { return Ok(()) };
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |write: &&Write| {
                    bytes += write.entry.size;
                    bytes <= BATCH_BYTES
                };
                let count = rest.iter().take_while(fits).count().max(1);
                let (batch, others) = rest.split_at(count);
                self.write_batch(&mut cursors, batch, share).inspect_err(|_| self.next.store(writes.len(), Ordering::Relaxed))?;
                rest = others;
            }
            after_each();
        }
    }

    fn write_batch(&self, cursors: &mut Cursors<'_>, batch: &[Write], share: &mut Share) -> Result<(), VersionError> {
        let mut rest = Vec::with_capacity(batch.len());
        for write in batch {
            if !self.clone(cursors, write, share) {
                rest.push(write);
            }
        }
        let (read, there): (Vec<&Write>, Vec<&Write>) = rest.into_iter().partition(|write| needs_content(write));
        let contents = self.store.get_many(&read.iter().map(|write| write.entry.id).collect::<Vec<_>>())?;
        for write in there {
            self.write(cursors, write, &Bytes::new(), share).map_err(|errno| self.error(&write.path, errno))?;
        }
        for (write, content) in read.into_iter().zip(contents) {
            let content = content.ok_or(ObjectError::Missing(write.entry.id))?;
            self.write(cursors, write, &content, share).map_err(|errno| self.error(&write.path, errno))?;
        }
        Ok(())
    }

    /// Makes a file by sharing another's blocks; false where that cannot be.
    fn clone(&self, cursors: &mut Cursors<'_>, write: &Write, share: &mut Share) -> bool {
        let (Some(like), Some(cursor), Over::Nothing) = (self.like, &mut cursors.like, write.over) else { return false };
        let Some((source, known)) = like.open(cursor, write) else { return false };
        let made = cursors.ours.parent(&write.path).and_then(|(folder, name)| {
            let name = c_name(name)?;
            let stat = put(folder, &name, write.entry.mode, Source::Clone(source.as_fd()), Over::Nothing, None)?;
            if FileStat::new(&fstat(&source)?) != known {
                // It was being written: what was cloned is of no certain moment.
                folder::remove_file(folder, &name)?;
                return Ok(None);
            }
            Ok(stat)
        });
        match made {
            Ok(Some(stat)) => {
                share.note(write, Some(stat));
                share.done.cloned += 1;
                true
            }
            Ok(None) => false,
            Err(_) => {
                like.refused.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    fn write(&self, cursors: &mut Cursors<'_>, write: &Write, content: &Bytes, share: &mut Share) -> Result<(), Errno> {
        let (folder, name) = cursors.ours.parent(&write.path)?;
        let name = c_name(name)?;
        let known = match write.over {
            Over::File(known) | Over::Mode(known) => self.known(Some(known)),
            Over::Nothing | Over::Other => None,
        };
        if let Some(known) = known
            && folder::stat(folder, &name)?.is_some_and(|now| FileStat::new(&now) != known)
        {
            share.changed.push(show_path(&write.path));
            return Ok(());
        }
        let stat = match (write.entry.mode, write.over) {
            (FileMode::Symlink, _) => link(folder, &name, content, known)?.then_some(None),
            (mode, Over::Mode(_)) => Some(Some(set_mode(folder, &name, mode)?)),
            (mode, over) => put(folder, &name, mode, Source::Bytes(content), over, known)?.map(Some),
        };
        match stat {
            Some(stat) => share.note(write, stat),
            None => share.changed.push(show_path(&write.path)),
        }
        Ok(())
    }
}

impl Share {
    fn note(&mut self, write: &Write, stat: Option<FileStat>) {
        self.written.extend(stat.map(|stat| (write.path.clone(), stat, write.entry.id)));
        self.done.written += 1;
        self.done.written_bytes += write.entry.size;
    }
}

/// The folders in which a thread is at work.
struct Cursors<'a> {
    ours: Cursor<'a>,
    like: Option<Cursor<'a>>,
}
