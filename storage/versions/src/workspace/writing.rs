//! Writing and removing single names, so that nobody ever reads half a file and a full disk leaves the old one.
//!
//! A new name is written under itself. What takes another's place is written beside it and exchanged with it: unlike renaming
//! over a file, that does not make ext4 write the content to disk at once.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use helix_protocol::FileMode;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, fchmod, fstat, mkdirat, openat, renameat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::folder::{self, c_name, open_folder_for_change};
use super::plan::Over;
use super::stat_cache::FileStat;
use crate::names::{DRAFT_PREFIX, is_repository};

/// What became of a name that was to go.
pub(super) enum Removed {
    Yes,
    Gone,
    /// It is not what it was, so it was left alone.
    Changed,
}

/// Removes a file or link. With `known` only while it looks so.
pub(super) fn remove(folder: BorrowedFd<'_>, name: &CStr, known: Option<FileStat>) -> Result<Removed, Errno> {
    let Some(now) = folder::stat(folder, name)? else { return Ok(Removed::Gone) };
    if FileType::from_raw_mode(now.st_mode) == FileType::Directory || known.is_some_and(|known| FileStat::new(&now) != known) {
        return Ok(Removed::Changed);
    }
    let_go(folder, name).map(|()| Removed::Yes)
}

/// Removes a file without waiting until the disk has what was last written to it, as the removal of a file under writeback does:
/// that wait is left to a thread that closes the last descriptor.
fn let_go(folder: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    static CLOSER: OnceLock<Option<SyncSender<OwnedFd>>> = OnceLock::new();
    let closer = CLOSER.get_or_init(|| {
        let (sender, files) = sync_channel::<OwnedFd>(64);
        let close = move || files.into_iter().for_each(drop);
        thread::Builder::new().name("helios-closer".into()).spawn(close).is_ok().then_some(sender)
    });
    let held = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let removed = folder::remove_file(folder, name);
    if let (Some(closer), Ok(held)) = (closer, held) {
        // Where many wait already it is closed here.
        drop(closer.try_send(held));
    }
    removed
}

/// Removes a folder with all that is in it, or a file; counts what went.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<u64, Errno> {
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

/// Where a folder holds a repository of its own, at whatever depth: nothing of that is in any tree, so it cannot be brought back.
/// The path of what makes it one, from the folder.
pub(super) fn repository_in(parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<Option<Vec<u8>>, Errno> {
    let is_folder = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if !folder::stat(parent, name)?.is_some_and(is_folder) {
        return Ok(None);
    }
    if depth > 4 * crate::tree::MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    let fd = open_folder_for_change(parent, name)?;
    for child in folder::names(fd.as_fd())? {
        if is_repository(child.to_bytes()) {
            return Ok(Some(child.into_bytes()));
        }
        if let Some(beneath) = repository_in(fd.as_fd(), &child, depth + 1)? {
            return Ok(Some([child.to_bytes(), b"/", &beneath].concat()));
        }
    }
    Ok(None)
}

/// Makes a folder; what has its name and is none (an ignored file) gives way.
pub(super) fn make_folder(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
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
pub(super) fn set_mode(folder: BorrowedFd<'_>, name: &CStr, mode: FileMode) -> Result<FileStat, Errno> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let bits = fstat(&file)?.st_mode;
    let bits = if mode == FileMode::Executable { bits | ((bits & 0o444) >> 2) | 0o100 } else { bits & !0o111 };
    fchmod(&file, Mode::from_raw_mode(bits & 0o7777))?;
    Ok(FileStat::new(&fstat(&file)?))
}

/// Where a file's content comes from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Bytes(&'a Bytes),
    /// A file whose blocks are shared, where the file system can: `put` fails with what the system says otherwise.
    Clone(BorrowedFd<'a>),
}

/// Writes a file. With `known` what has the name must still look so; otherwise it is left alone, and the answer is `None`. So is a
/// folder with a repository of its own.
pub(super) fn put(
    folder: BorrowedFd<'_>,
    name: &CStr,
    mode: FileMode,
    source: Source<'_>,
    over: Over,
    known: Option<FileStat>,
) -> Result<Option<FileStat>, Errno> {
    let bits = Mode::from_raw_mode(if mode == FileMode::Executable { 0o777 } else { 0o666 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if over == Over::Nothing {
        match openat(folder, name, flags, bits) {
            Ok(opened) => {
                let written = fill(opened, source).and_then(|file| Ok(Some(FileStat::new(&fstat(&file)?))));
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
        Err(Errno::EXIST) => remove_tree(folder, &draft, 0).and_then(|_| openat(folder, &*draft, flags, bits)),
        opened => opened,
    }?;
    let finish = || {
        let file = fill(opened, source)?;
        if !take_place(folder, &draft, name, known)? {
            return Ok(None);
        }
        // Renaming is a change too, so the file is looked at afterwards.
        Ok(Some(FileStat::new(&fstat(&file)?)))
    };
    finish().inspect_err(|_| discard(folder, &draft))
}

fn fill(opened: OwnedFd, source: Source<'_>) -> Result<File, Errno> {
    let mut file = File::from(opened);
    match source {
        Source::Bytes(content) => file.write_all(content).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?,
        Source::Clone(from) => rustix::fs::ioctl_ficlone(&file, from)?,
    }
    Ok(file)
}

/// Writes a link. `known` as for [`put`]; false where what has the name was left alone.
pub(super) fn link(folder: BorrowedFd<'_>, name: &CStr, content: &Bytes, known: Option<FileStat>) -> Result<bool, Errno> {
    let target = c_name(content)?;
    match symlinkat(&*target, folder, name) {
        Err(Errno::EXIST) => {
            let draft = draft_name(name);
            remove_tree(folder, &draft, 0)?;
            symlinkat(&*target, folder, &*draft)?;
            take_place(folder, &draft, name, known).inspect_err(|_| discard(folder, &draft))
        }
        made => made.map(|()| true),
    }
}

/// Gives a finished draft its name; what had it goes, a folder with all that is in it unless that is a repository of its own. With
/// `known` it must be a file that still looks so. Otherwise the draft goes, and the answer is false.
fn take_place(folder: BorrowedFd<'_>, draft: &CStr, name: &CStr, known: Option<FileStat>) -> Result<bool, Errno> {
    if repository_in(folder, name, 0)?.is_some() {
        let_go(folder, draft)?;
        return Ok(false);
    }
    match renameat_with(folder, draft, folder, name, RenameFlags::EXCHANGE) {
        Ok(()) => {
            let before = folder::stat(folder, draft)?;
            let same = |known: FileStat| before.is_some_and(|before| known.is_same_content(&FileStat::new(&before)));
            // Once more: one may have been made meanwhile.
            let found = repository_in(folder, draft, 0);
            if !known.is_none_or(same) || found != Ok(None) {
                renameat_with(folder, draft, folder, name, RenameFlags::EXCHANGE)?;
                let_go(folder, draft)?;
                return found.map(|_| false);
            }
            match before {
                Some(before) if FileType::from_raw_mode(before.st_mode) == FileType::Directory => {
                    remove_tree(folder, draft, 0)?;
                }
                _ => let_go(folder, draft)?,
            }
            return Ok(true);
        }
        // Nothing has the name any more, or the file system cannot exchange.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    match renameat(folder, draft, folder, name) {
        Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            if repository_in(folder, name, 0)?.is_some() {
                let_go(folder, draft)?;
                return Ok(false);
            }
            remove_tree(folder, name, 0)?;
            renameat(folder, draft, folder, name).map(|()| true)
        }
        renamed => renamed.map(|()| true),
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
