//! Folders by file descriptor. Every name is opened relative to its folder and never through a
//! symbolic link, so nothing that runs in a workspace can lead us out of it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, chmod, fstat, open, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::VersionError;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a workspace's root. Only here a symbolic link is followed: the caller chose the path.
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, VersionError> {
    open(root, FOLDER, Mode::empty()).map_err(|error| VersionError::io(root, error))
}

/// Opens a folder in a folder.
pub(crate) fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a folder whose entries are to be changed, giving its owner the permission bits for it.
pub(crate) fn open_folder_for_change(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let opened = match open_folder(parent, name) {
        Err(Errno::ACCESS) => {
            // A path descriptor needs no permission, and names this folder whatever happens to its name meanwhile.
            let place = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::RWXU)?;
            open_folder(parent, name)?
        }
        opened => opened?,
    };
    let mode = Mode::from_raw_mode(fstat(&opened)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(&opened, mode | Mode::RWXU)?;
    }
    Ok(opened)
}

/// The names in a folder, in order, without `.` and `..`.
pub(crate) fn names(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            found.push(name.to_owned());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What a name is, without following it; `None` where there is nothing of that name.
pub(crate) fn stat(folder: BorrowedFd<'_>, name: &CStr) -> Result<Option<Stat>, Errno> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes a file, a link or anything else that is not a folder; a name that is gone already is fine.
pub(crate) fn remove_file(folder: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Opens files by their path from the root, remembering the last folder, since files come in its order.
pub(crate) struct Cursor<'a> {
    root: BorrowedFd<'a>,
    at: Option<(Vec<u8>, OwnedFd)>,
    open: fn(BorrowedFd<'_>, &CStr) -> Result<OwnedFd, Errno>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, at: None, open: open_folder }
    }

    /// As [`new`](Self::new), with the permission to change what is in the folders.
    #[cfg(feature = "git")]
    pub(crate) fn for_change(root: BorrowedFd<'a>) -> Self {
        Self { root, at: None, open: open_folder_for_change }
    }

    /// The folder at `path`; the empty path is the root.
    #[cfg(feature = "git")]
    pub(crate) fn folder(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(self.root, 0);
        }
        let (parent, name) = self.parent(path)?;
        open_folder(parent, &c_name(name)?)
    }

    /// The folder that holds `path`, and its name in it.
    pub(crate) fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p [u8]), Errno> {
        let Some(cut) = path.iter().rposition(|byte| *byte == b'/') else { return Ok((self.root, path)) };
        let (folder, name) = (&path[..cut], &path[cut + 1..]);
        if self.at.as_ref().is_none_or(|(at, _)| at != folder) {
            let mut opened: Option<OwnedFd> = None;
            for part in folder.split(|byte| *byte == b'/') {
                let parent = opened.as_ref().map_or(self.root, AsFd::as_fd);
                opened = Some((self.open)(parent, &c_name(part)?)?);
            }
            self.at = opened.map(|fd| (folder.to_owned(), fd));
        }
        Ok((self.at.as_ref().map_or(self.root, |(_, fd)| fd.as_fd()), name))
    }
}

/// A name for a system call.
pub(crate) fn c_name(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::INVAL)
}
