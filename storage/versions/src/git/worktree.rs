//! What a person's working folder holds: tracked files as they are now, and untracked ones that git
//! does not ignore. Only reads, never takes a lock, and never follows a link.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bytes::Bytes;
use gix::bstr::ByteSlice;
use gix::index::entry::{Flags, Mode, Stage};
use gix::worktree::stack::state::ignore::Source;
use helix_protocol::{FileMode, SkipReason, SkippedFile};
use rustix::fs::{FileType, Stat, readlinkat};
use rustix::io::Errno;

use super::convert::{Files, entries_into, file_mode};
use super::{failed, place};
use crate::read::push_name;
use crate::tree::MAX_DEPTH;
use crate::workspace::folder::{self, Cursor, c_name};
use crate::workspace::{FileContent, read_steady};
use crate::{VersionError, show_path};

/// HEAD's files.
type AtHead = BTreeMap<Vec<u8>, (FileMode, gix::ObjectId)>;

/// What was found beside the files.
#[derive(Default)]
pub(super) struct Found {
    pub(super) submodules: Vec<String>,
    pub(super) skipped: Vec<SkippedFile>,
    /// Tracked files whose change is not carried.
    pub(super) unread: Vec<SkippedFile>,
    /// Paths that differ from HEAD.
    pub(super) differing: u64,
}

/// Puts the working folder's files into `files`.
pub(super) fn read_worktree(
    repository: &gix::Repository,
    cap: u64,
    at_head: &AtHead,
    files: &mut Files<'_>,
) -> Result<Found, VersionError> {
    let root = place(repository);
    let index = repository.index_or_empty().map_err(|error| failed(&root, error))?;
    let folder = folder::open_root(&root)?;
    let mut work = Work {
        repository,
        root: &root,
        fd: folder.as_fd(),
        cap,
        at_head,
        files,
        found: Found::default(),
        tracked: BTreeSet::new(),
        trust_mode: repository.config_snapshot().boolean("core.fileMode").unwrap_or(true),
        written_at: (index.timestamp().unix_seconds(), index.timestamp().nanoseconds()),
    };
    work.tracked(&index)?;
    let mut ignores =
        repository.excludes(&index, None, Source::WorktreeThenIdMappingIfNotSkipped).map_err(|error| failed(&root, error))?;
    work.untracked(folder.as_fd(), &mut Vec::new(), 0, &mut ignores)?;
    let missing = at_head.keys().filter(|path| !work.files.by_path().contains_key(*path)).count() as u64;
    work.found.differing += missing;
    work.found.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    work.found.unread.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(work.found)
}

struct Work<'a, 's> {
    repository: &'a gix::Repository,
    root: &'a Path,
    fd: BorrowedFd<'a>,
    cap: u64,
    at_head: &'a AtHead,
    files: &'a mut Files<'s>,
    found: Found,
    /// Paths in the index, submodules included.
    tracked: BTreeSet<Vec<u8>>,
    trust_mode: bool,
    /// When the index was written, in seconds and nanoseconds: a younger file may have changed unseen.
    written_at: (i64, u32),
}

impl Work<'_, '_> {
    fn io(&self, path: &[u8], error: Errno) -> VersionError {
        VersionError::io(&self.root.join(show_path(path)), error)
    }

    fn tracked(&mut self, index: &gix::index::State) -> Result<(), VersionError> {
        let mut cursor = Cursor::new(self.fd);
        for entry in index.entries() {
            let path = entry.path(index).to_vec();
            if entry.mode == Mode::COMMIT {
                self.found.submodules.push(show_path(&path));
                self.tracked.insert(path);
            } else if entry.mode == Mode::DIR {
                self.sparse(&path, entry.id)?;
            } else if self.tracked.insert(path.clone()) {
                self.tracked_file(&mut cursor, path, entry)?;
            }
        }
        Ok(())
    }

    /// A folder that is left out of the working folder on purpose.
    fn sparse(&mut self, path: &[u8], tree: gix::ObjectId) -> Result<(), VersionError> {
        let mut beneath = Vec::new();
        let mut prefix = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        entries_into(self.repository, tree, &mut prefix, 0, &mut beneath)?;
        for entry in beneath {
            self.tracked.insert(entry.path.clone());
            if let Some(mode) = file_mode(entry.kind) {
                self.files.add_blob(self.repository, entry.path, mode, entry.id)?;
            }
        }
        Ok(())
    }

    fn tracked_file(&mut self, cursor: &mut Cursor<'_>, path: Vec<u8>, entry: &gix::index::Entry) -> Result<(), VersionError> {
        let indexed = match entry.mode {
            Mode::FILE_EXECUTABLE => FileMode::Executable,
            Mode::SYMLINK => FileMode::Symlink,
            _ => FileMode::Regular,
        };
        let stat = match cursor.parent(&path) {
            Ok((folder, name)) => folder::stat(folder, &c_name(name).map_err(|error| self.io(&path, error))?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        };
        let conflicted = entry.stage() != Stage::Unconflicted;
        let fallback = (!conflicted).then_some((indexed, entry.id));
        let as_indexed = entry.flags.intersects(Flags::SKIP_WORKTREE | Flags::ASSUME_VALID) && !conflicted;
        let stat = match stat {
            // Its folder may not be entered.
            Err(Errno::ACCESS | Errno::PERM) if as_indexed => None,
            Err(Errno::ACCESS | Errno::PERM) => return self.leave(path, SkipReason::Unreadable, 0, fallback),
            stat => stat.map_err(|error| self.io(&path, error))?,
        };
        match stat {
            None if as_indexed => self.take_indexed(path, indexed, entry.id),
            None => Ok(()),
            Some(_) if entry.flags.contains(Flags::ASSUME_VALID) && !conflicted => self.take_indexed(path, indexed, entry.id),
            Some(stat) if !conflicted && self.looks_unchanged(entry, indexed, &stat) => self.take_indexed(path, indexed, entry.id),
            Some(stat) => self.take_present(cursor, path, &stat, indexed, fallback),
        }
    }

    fn take_indexed(&mut self, path: Vec<u8>, mode: FileMode, blob: gix::ObjectId) -> Result<(), VersionError> {
        if self.at_head.get(&path) != Some(&(mode, blob)) {
            self.found.differing += 1;
        }
        self.files.add_blob(self.repository, path, mode, blob)
    }

    /// Whether git would believe the index without reading the file.
    // The fields' types differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    fn looks_unchanged(&self, entry: &gix::index::Entry, indexed: FileMode, stat: &Stat) -> bool {
        let known = &entry.stat;
        let modified = (stat.st_mtime as i64, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        let same_time = modified.0 == i64::from(known.mtime.secs) && (known.mtime.nsecs == 0 || modified.1 == known.mtime.nsecs);
        let older = if known.mtime.nsecs == 0 { modified.0 < self.written_at.0 } else { modified < self.written_at };
        same_time
            && older
            && known.size == stat.st_size as u32
            && known.ino == stat.st_ino as u32
            && self.mode_of(stat, indexed) == Some(indexed)
    }

    /// What a file's `stat` says it is; where the file system's executable bit means nothing, the index's word counts.
    fn mode_of(&self, stat: &Stat, indexed: FileMode) -> Option<FileMode> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Some(FileMode::Symlink),
            FileType::RegularFile if !self.trust_mode && indexed != FileMode::Symlink => Some(indexed),
            FileType::RegularFile if stat.st_mode & 0o100 != 0 => Some(FileMode::Executable),
            FileType::RegularFile => Some(FileMode::Regular),
            _ => None,
        }
    }

    /// Reads a file as it is now. What cannot be read is listed, and the index's version taken where there is one.
    fn take_present(
        &mut self,
        cursor: &mut Cursor<'_>,
        path: Vec<u8>,
        stat: &Stat,
        indexed: FileMode,
        fallback: Option<(FileMode, gix::ObjectId)>,
    ) -> Result<(), VersionError> {
        let reason = match self.mode_of(stat, indexed) {
            None if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(()),
            None => SkipReason::Special,
            Some(FileMode::Symlink) => match read_link(cursor, &path) {
                Ok(target) => return self.changed(path, FileMode::Symlink, target),
                Err(_) => SkipReason::Unreadable,
            },
            Some(mode) => match read_steady(cursor, &path, self.cap) {
                Ok(FileContent::Whole { bytes, .. }) => return self.changed(path, mode, bytes),
                Ok(FileContent::TooLarge { size }) => match fallback {
                    Some(indexed) if self.is_as_indexed(cursor, &path, size, (mode, indexed)) => {
                        return self.take_indexed(path, indexed.0, indexed.1);
                    }
                    _ => SkipReason::TooLarge,
                },
                Ok(FileContent::NoFile) | Err(Errno::NOENT) => return Ok(()),
                Err(_) => SkipReason::Unreadable,
            },
        };
        self.leave(path, reason, u64::try_from(stat.st_size).unwrap_or(0), fallback)
    }

    /// Lists a file that cannot be taken, and takes the index's version where there is one.
    fn leave(
        &mut self,
        path: Vec<u8>,
        reason: SkipReason,
        size: u64,
        fallback: Option<(FileMode, gix::ObjectId)>,
    ) -> Result<(), VersionError> {
        let left = SkippedFile { path: show_path(&path), reason, size };
        if self.tracked.contains(&path) {
            self.found.unread.push(left)
        } else {
            self.found.skipped.push(left)
        }
        match fallback {
            Some((mode, blob)) if reason != SkipReason::Special => self.take_indexed(path, mode, blob),
            _ => Ok(()),
        }
    }

    /// Whether a file over the cap is what the index has, so that nothing of it is left out. Only one of the blob's size is read.
    fn is_as_indexed(
        &self,
        cursor: &mut Cursor<'_>,
        path: &[u8],
        size: u64,
        (mode, (indexed, blob)): (FileMode, (FileMode, gix::ObjectId)),
    ) -> bool {
        if mode != indexed || !self.repository.find_header(blob).is_ok_and(|header| header.size() == size) {
            return false;
        }
        let Ok(FileContent::Whole { bytes, .. }) = read_steady(cursor, path, size) else { return false };
        gix::objs::compute_hash(self.repository.object_hash(), gix::objs::Kind::Blob, &bytes).is_ok_and(|hash| hash == blob)
    }

    fn changed(&mut self, path: Vec<u8>, mode: FileMode, bytes: Bytes) -> Result<(), VersionError> {
        let hash = gix::objs::compute_hash(self.repository.object_hash(), gix::objs::Kind::Blob, &bytes);
        let blob = hash.map_err(|error| failed(self.root, error))?;
        if self.at_head.get(&path) != Some(&(mode, blob)) {
            self.found.differing += 1;
        }
        self.files.add_bytes(path, mode, bytes)
    }

    fn untracked(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        depth: usize,
        ignores: &mut gix::AttributeStack<'_>,
    ) -> Result<(), VersionError> {
        let names = match folder::names(fd) {
            // It may be opened, and not entered.
            Err(Errno::ACCESS | Errno::PERM) if depth > 0 => return self.unreadable(path),
            names => names.map_err(|error| self.io(path, error))?,
        };
        if depth > 0 && names.iter().any(|name| name.to_bytes() == b".git") {
            // Somebody else's repository: git itself does not look into it.
            self.found.submodules.push(show_path(path));
            return Ok(());
        }
        for name in names {
            let length = push_name(path, name.to_bytes());
            if path != b".git" && !self.tracked.contains(path) {
                let stat = folder::stat(fd, &name).map_err(|error| self.io(path, error))?;
                let is_folder = stat.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                let mode = if is_folder { Mode::DIR } else { Mode::FILE };
                let ignored = ignores.at_entry(path.as_bstr(), Some(mode)).map_err(|error| failed(self.root, error))?.is_excluded();
                match stat {
                    Some(stat) if !ignored && !is_folder => {
                        let mut cursor = Cursor::new(self.fd);
                        self.take_present(&mut cursor, path.clone(), &stat, FileMode::Regular, None)?;
                    }
                    Some(_) if !ignored && depth + 1 < MAX_DEPTH => self.untracked_folder(fd, &name, path, depth, ignores)?,
                    _ => {}
                }
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Lists a folder that may not be read.
    fn unreadable(&mut self, path: &[u8]) -> Result<(), VersionError> {
        self.found.skipped.push(SkippedFile { path: show_path(path), reason: SkipReason::Unreadable, size: 0 });
        Ok(())
    }

    fn untracked_folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        path: &mut Vec<u8>,
        depth: usize,
        ignores: &mut gix::AttributeStack<'_>,
    ) -> Result<(), VersionError> {
        match folder::open_folder(parent, name) {
            Ok(fd) => self.untracked(fd.as_fd(), path, depth + 1, ignores),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(Errno::ACCESS | Errno::PERM) => self.unreadable(path),
            Err(error) => Err(self.io(path, error)),
        }
    }
}

fn read_link(cursor: &mut Cursor<'_>, path: &[u8]) -> Result<Bytes, Errno> {
    let (folder, name) = cursor.parent(path)?;
    readlinkat(folder, &*c_name(name)?, Vec::new()).map(|target| Bytes::from(target.into_bytes()))
}
