//! Carrying out a plan.
//!
//! A file that takes another's place is written beside it and renamed over it, so that nobody ever reads half of it and a full disk
//! leaves the old one. A move that ends half-way leaves some files of either tree and no damage; it can be repeated.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use helix_objects::{ObjectError, ObjectStore};
use helix_protocol::FileMode;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::checkout::CheckedOut;
use super::folder::{self, Cursor, c_name, open_folder_for_change};
use super::live::Live;
use super::plan::{Manner, Over, Plan, Write};
use super::stat_cache::FileStat;
use super::visit::DRAFT_PREFIX;
use crate::{VersionError, show_path};

/// Objects are read from the store in batches of about this many bytes, and files.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_FILES: usize = 256;

/// Does what a plan says, and lets `live` know what was written.
pub(super) fn apply(live: &mut Live, store: &dyn ObjectStore, plan: Plan, manner: Manner) -> Result<CheckedOut, VersionError> {
    let ids: Vec<_> = plan.writes.iter().map(|write| write.entry.id).collect();
    // Before anything is touched.
    if let Some(id) = store.missing(&ids)?.first() {
        return Err(ObjectError::Missing(*id).into());
    }
    let root = folder::open_root(live.root())?;
    let done = CheckedOut { kept: plan.kept, ..CheckedOut::default() };
    let mut work = Work { live, manner, done, written: Vec::new(), changed: Vec::new() };
    work.clear_the_way(root.as_fd(), &plan)?;
    work.write_all(root.as_fd(), store, &plan.writes)?;
    let Work { done, written, changed, .. } = work;
    live.wrote(written);
    if !changed.is_empty() {
        return Err(VersionError::WouldOverwrite { paths: changed });
    }
    Ok(done)
}

struct Work<'a> {
    live: &'a mut Live,
    manner: Manner,
    done: CheckedOut,
    written: Vec<(Vec<u8>, FileStat, helix_protocol::ObjectId)>,
    /// Files that somebody changed since the plan was made, and that are therefore left alone.
    changed: Vec<String>,
}

impl Work<'_> {
    fn error(&self, path: &[u8], errno: Errno) -> VersionError {
        let path = self.live.root().join(show_path(path)).display().to_string();
        VersionError::Io { path, source: errno.into() }
    }

    /// Removes what goes and makes the folders that are needed.
    fn clear_the_way(&mut self, root: BorrowedFd<'_>, plan: &Plan) -> Result<(), VersionError> {
        let mut cursor = Cursor::for_change(root);
        for (path, stat) in &plan.removals {
            let removed = cursor.parent(path).and_then(|(folder, name)| remove(folder, &c_name(name)?, *stat, self.manner));
            match removed {
                Ok(Removed::Yes) => self.done.removed += 1,
                Ok(Removed::Changed) => self.changed.push(show_path(path)),
                Ok(Removed::Gone) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(self.error(path, errno)),
            }
        }
        for path in plan.clearings.iter().filter(|_| self.changed.is_empty()) {
            let cleared = cursor.parent(path).and_then(|(folder, name)| remove_tree(folder, &c_name(name)?, 0));
            self.done.removed += cleared.map_err(|errno| self.error(path, errno))?;
        }
        for path in &plan.prunings {
            let pruned = cursor.parent(path).and_then(|(folder, name)| unlinkat(folder, &*c_name(name)?, AtFlags::REMOVEDIR));
            match pruned {
                Ok(()) => self.done.removed += 1,
                // Something that is in no tree is left in it, or it is gone already.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::BUSY) => {}
                Err(errno) => return Err(self.error(path, errno)),
            }
        }
        let mut cursor = Cursor::for_change(root);
        for path in &plan.folders {
            let made = cursor.parent(path).and_then(|(folder, name)| make_folder(folder, &c_name(name)?));
            made.map_err(|errno| self.error(path, errno))?;
        }
        Ok(())
    }

    fn write_all(&mut self, root: BorrowedFd<'_>, store: &dyn ObjectStore, mut writes: &[Write]) -> Result<(), VersionError> {
        let mut cursor = Cursor::for_change(root);
        while !writes.is_empty() {
            let mut bytes = 0;
            let fits = |write: &&Write| {
                bytes += write.entry.size;
                bytes <= BATCH_BYTES
            };
            let count = writes.iter().take(BATCH_FILES).take_while(fits).count().max(1);
            let (batch, rest) = writes.split_at(count);
            let contents = store.get_many(&batch.iter().map(|write| write.entry.id).collect::<Vec<_>>())?;
            for (write, content) in batch.iter().zip(contents) {
                let content = content.ok_or(ObjectError::Missing(write.entry.id))?;
                let (folder, name) = cursor.parent(&write.path).map_err(|errno| self.error(&write.path, errno))?;
                let name = c_name(name).map_err(|errno| self.error(&write.path, errno))?;
                self.write(folder, &name, write, &content)?;
            }
            // Our own events must not make the queue overflow.
            self.live.absorb();
            writes = rest;
        }
        Ok(())
    }

    fn write(&mut self, folder: BorrowedFd<'_>, name: &CStr, write: &Write, content: &Bytes) -> Result<(), VersionError> {
        if let (Manner::Keep, Over::File(known) | Over::Mode(known)) = (self.manner, write.over)
            && folder::stat(folder, name).is_ok_and(|now| now.is_some_and(|now| FileStat::new(&now) != known))
        {
            self.changed.push(show_path(&write.path));
            return Ok(());
        }
        let stat = match (write.entry.mode, write.over) {
            (FileMode::Symlink, _) => link(folder, name, content).map(|()| None),
            (mode, Over::Mode(_)) => set_mode(folder, name, mode).map(Some),
            (mode, over) => put(folder, name, mode, content, over).map(Some),
        };
        let stat = stat.map_err(|errno| self.error(&write.path, errno))?;
        self.written.extend(stat.map(|stat| (write.path.clone(), stat, write.entry.id)));
        self.done.written += 1;
        self.done.written_bytes += content.len() as u64;
        Ok(())
    }
}

enum Removed {
    Yes,
    Gone,
    /// It is not what it was, so it was left alone.
    Changed,
}

fn remove(folder: BorrowedFd<'_>, name: &CStr, known: Option<FileStat>, manner: Manner) -> Result<Removed, Errno> {
    let Some(now) = folder::stat(folder, name)? else { return Ok(Removed::Gone) };
    if FileType::from_raw_mode(now.st_mode) == FileType::Directory {
        return Ok(Removed::Changed);
    }
    if manner == Manner::Keep && known.is_some_and(|known| FileStat::new(&now) != known) {
        return Ok(Removed::Changed);
    }
    folder::remove_file(folder, name).map(|()| Removed::Yes)
}

/// Removes a folder with all that is in it, or a file; counts what went.
fn remove_tree(parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<u64, Errno> {
    let Some(stat) = folder::stat(parent, name)? else { return Ok(0) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return folder::remove_file(parent, name).map(|()| 1);
    }
    if depth > 4 * crate::tree::MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    let fd = open_folder_for_change(parent, name)?;
    let mut removed = 1;
    for child in folder::names(fd.as_fd())? {
        removed += remove_tree(fd.as_fd(), &child, depth + 1)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(removed)
}

/// Makes a folder; what has its name and is none (an ignored file) gives way.
fn make_folder(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o777);
    match mkdirat(parent, name, mode) {
        Err(Errno::EXIST) => match folder::stat(parent, name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
            _ => {
                folder::remove_file(parent, name)?;
                mkdirat(parent, name, mode)
            }
        },
        made => made,
    }
}

/// Gives a file the right mode.
fn set_mode(folder: BorrowedFd<'_>, name: &CStr, mode: FileMode) -> Result<FileStat, Errno> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let bits = fstat(&file)?.st_mode;
    let bits = if mode == FileMode::Executable { bits | ((bits & 0o444) >> 2) | 0o100 } else { bits & !0o111 };
    fchmod(&file, Mode::from_raw_mode(bits & 0o7777))?;
    Ok(FileStat::new(&fstat(&file)?))
}

/// Writes a file: under its own name where nothing has it, otherwise beside it and over it.
fn put(folder: BorrowedFd<'_>, name: &CStr, mode: FileMode, content: &Bytes, over: Over) -> Result<FileStat, Errno> {
    let bits = Mode::from_raw_mode(if mode == FileMode::Executable { 0o777 } else { 0o666 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fill = |opened: rustix::fd::OwnedFd| {
        let mut file = File::from(opened);
        file.write_all(content).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(file)
    };
    if over == Over::Nothing {
        match openat(folder, name, flags, bits) {
            Ok(opened) => {
                let written = fill(opened).and_then(|file| Ok(FileStat::new(&fstat(&file)?)));
                return written.inspect_err(|_| discard(folder, name));
            }
            // Something that is not carried: it gives way.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    let draft = draft_name(name);
    let opened = match openat(folder, &*draft, flags, bits) {
        // Left by a process that died.
        Err(Errno::EXIST) => folder::remove_file(folder, &draft).and_then(|()| openat(folder, &*draft, flags, bits)),
        opened => opened,
    }?;
    let finish = || {
        let file = fill(opened)?;
        rename_over(folder, &draft, name)?;
        // Renaming is a change too, so the file is looked at afterwards.
        Ok(FileStat::new(&fstat(&file)?))
    };
    finish().inspect_err(|_| discard(folder, &draft))
}

fn link(folder: BorrowedFd<'_>, name: &CStr, content: &Bytes) -> Result<(), Errno> {
    let target = c_name(content)?;
    match symlinkat(&*target, folder, name) {
        Err(Errno::EXIST) => {
            let draft = draft_name(name);
            folder::remove_file(folder, &draft)?;
            symlinkat(&*target, folder, &*draft)?;
            rename_over(folder, &draft, name).inspect_err(|_| discard(folder, &draft))
        }
        made => made,
    }
}

/// Renames a finished draft to its name; a folder there, of which nothing is carried, gives way.
fn rename_over(folder: BorrowedFd<'_>, draft: &CStr, name: &CStr) -> Result<(), Errno> {
    match renameat(folder, draft, folder, name) {
        Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            remove_tree(folder, name, 0)?;
            renameat(folder, draft, folder, name)
        }
        renamed => renamed,
    }
}

/// Removes what could not be finished. The error that led here is the one to tell of.
fn discard(folder: BorrowedFd<'_>, name: &CStr) {
    let _ = folder::remove_file(folder, name);
}

/// A name of bounded length for what is being written; only one process writes into a folder at a time.
fn draft_name(name: &CStr) -> CString {
    let digest = helix_objects::hash(name.to_bytes()).to_string();
    let name = [DRAFT_PREFIX, &digest.as_bytes()[..16]].concat();
    CString::new(name).expect("a prefix and hex digits have no NUL")
}
