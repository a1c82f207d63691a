//! Reading a file that others may be writing.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::folder::{Cursor, c_name};
use super::stat_cache::FileStat;

/// A file that changes while it is read is read this often at most.
const TRIES: usize = 4;

/// What reading a file gave.
pub(crate) enum FileContent {
    /// Its bytes; torn where it changed during every try.
    Whole { bytes: Bytes, stat: FileStat, torn: bool },
    /// It is larger than the cap.
    TooLarge { size: u64 },
    /// Something else has that name.
    NoFile,
}

/// Reads a file until it is the same before and after, or the tries are used up.
pub(crate) fn read_steady(cursor: &mut Cursor<'_>, path: &[u8], cap: u64) -> Result<FileContent, Errno> {
    let (folder, name) = cursor.parent(path)?;
    read_steady_in(folder, &c_name(name)?, cap)
}

/// As [`read_steady`], by the file's folder and name.
pub(crate) fn read_steady_in(folder: BorrowedFd<'_>, name: &CStr, cap: u64) -> Result<FileContent, Errno> {
    let mut tried = 1;
    loop {
        // Non-blocking, so that a pipe that took the file's place does not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(openat(folder, name, flags, Mode::empty())?);
        let raw = fstat(&file)?;
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
            return Ok(FileContent::NoFile);
        }
        let before = FileStat::new(&raw);
        let mut bytes = Vec::with_capacity(usize::try_from(before.size.min(cap)).unwrap_or(0).saturating_add(1));
        let read = (&mut file).take(cap.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let after = FileStat::new(&fstat(&file)?);
        if bytes.len() as u64 > cap {
            return Ok(FileContent::TooLarge { size: after.size });
        }
        let steady = before == after && bytes.len() as u64 == after.size;
        if steady || tried == TRIES {
            let stat = FileStat { size: bytes.len() as u64, ..after };
            return Ok(FileContent::Whole { bytes: bytes.into(), stat, torn: !steady });
        }
        tried += 1;
    }
}

/// A file's bytes as they are now; `None` where it is no readable file.
pub(crate) fn read_once(cursor: &mut Cursor<'_>, path: &[u8]) -> Option<Bytes> {
    match read_steady(cursor, path, u64::MAX - 1) {
        Ok(FileContent::Whole { bytes, torn: false, .. }) => Some(bytes),
        _ => None,
    }
}
