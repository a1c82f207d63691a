//! From a tree to a working folder.
//!
//! The folder is walked beside the tree, and only what differs is touched: a file that the stat
//! cache vouches for is left alone, one of the right length is compared, everything else is written
//! anew under its own name. A crash leaves a folder of which no tree is known; checking out again
//! finishes the work.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bytes::Bytes;
use helix_objects::{ObjectError, ObjectStore};
use helix_protocol::{FileMode, ObjectId};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::folder::{self, c_name, open_folder_for_change};
use super::policy::ScanPolicy;
use super::stat_cache::{FileStat, StatCache};
use crate::read::push_name;
use crate::tree::{MAX_DEPTH, Tree, TreeEntry};
use crate::{VersionError, show_path};

/// Objects are read from the store in batches of about this many bytes.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_FILES: usize = 256;

/// What a checkout did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedOut {
    /// Files and links written.
    pub written: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Files, links and folders removed.
    pub removed: u64,
    /// Files and links that were looked at and were right already.
    pub kept: u64,
    /// Files of those written that share their blocks with another folder's.
    pub cloned: u64,
}

/// Makes `root` (created where it is missing) hold exactly `tree`, named caches and the root's
/// `.git` aside. Nothing else may write there meanwhile. Fails with `Missing` where the store lacks an
/// object, with the system's reason where a write fails; then, as after a crash, it can be repeated.
pub fn checkout(
    root: &Path,
    tree: ObjectId,
    store: &dyn ObjectStore,
    cache: &mut StatCache,
    policy: &ScanPolicy,
) -> Result<CheckedOut, VersionError> {
    std::fs::create_dir_all(root).map_err(|error| VersionError::io(root, error))?;
    let folder = folder::open_root(root)?;
    cache.begin_checkout()?;
    let mut work = Work { root, store, cache, policy, done: CheckedOut::default(), path: Vec::new() };
    work.folder(folder.as_fd(), tree, 0, Extras::Remove)?;
    let done = work.done;
    cache.end_checkout(tree)?;
    Ok(done)
}

/// What to do with names the tree does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extras {
    Remove,
    /// In a cache of which the tree has a part.
    Keep,
}

struct Work<'a> {
    root: &'a Path,
    store: &'a dyn ObjectStore,
    cache: &'a mut StatCache,
    policy: &'a ScanPolicy,
    done: CheckedOut,
    path: Vec<u8>,
}

impl Work<'_> {
    fn error(&self, errno: Errno) -> VersionError {
        VersionError::Io { path: self.root.join(show_path(&self.path)).display().to_string(), source: errno.into() }
    }

    fn folder(&mut self, fd: BorrowedFd<'_>, id: ObjectId, depth: usize, extras: Extras) -> Result<(), VersionError> {
        if depth >= MAX_DEPTH {
            return Err(VersionError::Damaged { id, expected: "tree", reason: "folders are nested too deep" });
        }
        let tree = Tree::load(self.store, id)?;
        let mut present = HashMap::new();
        for name in folder::names(fd).map_err(|errno| self.error(errno))? {
            let length = push_name(&mut self.path, name.to_bytes());
            if tree.get(name.to_bytes()).is_some() {
                let stat = folder::stat(fd, &name).map_err(|errno| self.error(errno))?;
                present.extend(stat.map(|stat| (name.into_bytes(), stat)));
            } else if extras == Extras::Remove {
                self.remove_extra(fd, &name, depth)?;
            }
            self.path.truncate(length);
        }
        let mut writes: Vec<&TreeEntry> = Vec::new();
        for entry in tree.entries() {
            let length = push_name(&mut self.path, &entry.name);
            if !self.policy.is_outside(&self.path) {
                let name = c_name(&entry.name).map_err(|errno| self.error(errno))?;
                let stat = present.get(&entry.name);
                if entry.mode == FileMode::Directory {
                    self.subfolder(fd, &name, entry, stat, depth, extras)?;
                } else if self.is_right(fd, &name, entry, stat)? {
                    self.done.kept += 1;
                } else {
                    self.clear(fd, &name, stat, depth)?;
                    writes.push(entry);
                }
            }
            self.path.truncate(length);
        }
        self.write_all(fd, &writes)
    }

    fn subfolder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        entry: &TreeEntry,
        stat: Option<&Stat>,
        depth: usize,
        extras: Extras,
    ) -> Result<(), VersionError> {
        if !stat.is_some_and(is_folder) {
            self.clear(parent, name, stat, depth)?;
            mkdirat(parent, name, Mode::from_raw_mode(0o777)).map_err(|errno| self.error(errno))?;
        }
        let fd = open_folder_for_change(parent, name).map_err(|errno| self.error(errno))?;
        let extras = if self.policy.is_cache(&self.path) { Extras::Keep } else { extras };
        self.folder(fd.as_fd(), entry.id, depth + 1, extras)
    }

    /// Whether a file or link is the tree's already.
    fn is_right(
        &mut self,
        fd: BorrowedFd<'_>,
        name: &CString,
        entry: &TreeEntry,
        stat: Option<&Stat>,
    ) -> Result<bool, VersionError> {
        let Some(raw) = stat else { return Ok(false) };
        let kind = FileType::from_raw_mode(raw.st_mode);
        if entry.mode == FileMode::Symlink {
            let same = |target: CString| helix_objects::hash(target.as_bytes()) == entry.id;
            return Ok(kind == FileType::Symlink && readlinkat(fd, name, Vec::new()).is_ok_and(same));
        }
        let stat = FileStat::new(raw);
        if kind != FileType::RegularFile || stat.size != entry.size || raw.st_nlink > 1 {
            return Ok(false);
        }
        let executable = entry.mode == FileMode::Executable;
        let right_mode = (stat.mode & 0o100 != 0) == executable;
        let known = self.cache.lookup(&self.path, &stat);
        if known == Some(entry.id) && right_mode {
            return Ok(true);
        }
        if known.is_some_and(|id| id != entry.id) {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(opened) = openat(fd, name, flags, Mode::empty()) else { return Ok(false) };
        let mut file = File::from(opened);
        if known.is_none() {
            let mut bytes = Vec::new();
            if (&mut file).take(entry.size + 1).read_to_end(&mut bytes).is_err() || helix_objects::hash(&bytes) != entry.id {
                return Ok(false);
            }
        }
        if !right_mode {
            let bits = if executable { stat.mode | ((stat.mode & 0o444) >> 2) | 0o100 } else { stat.mode & !0o111 };
            fchmod(&file, Mode::from_raw_mode(bits & 0o7777)).map_err(|errno| self.error(errno))?;
        }
        let now = FileStat::new(&fstat(&file).map_err(|errno| self.error(errno))?);
        self.cache.wrote(self.path.clone(), now, entry.id);
        Ok(true)
    }

    /// Takes whatever stands in the way of a name.
    fn clear(&mut self, fd: BorrowedFd<'_>, name: &CString, stat: Option<&Stat>, depth: usize) -> Result<(), VersionError> {
        self.cache.forget(&self.path);
        match stat {
            None => Ok(()),
            Some(stat) if is_folder(stat) => {
                if self.remove_folder(fd, name, depth, Caches::Remove)? {
                    return Ok(());
                }
                Err(self.error(Errno::NOTEMPTY))
            }
            Some(_) => folder::remove_file(fd, name).map_err(|errno| self.error(errno)),
        }
    }

    /// Removes a name that the tree does not have, except caches.
    fn remove_extra(&mut self, fd: BorrowedFd<'_>, name: &CString, depth: usize) -> Result<(), VersionError> {
        if self.policy.is_outside(&self.path) || self.policy.is_cache(&self.path) {
            return Ok(());
        }
        self.cache.forget(&self.path);
        let stat = folder::stat(fd, name).map_err(|errno| self.error(errno))?;
        if stat.as_ref().is_some_and(is_folder) {
            self.remove_folder(fd, name, depth, Caches::Keep)?;
        } else {
            folder::remove_file(fd, name).map_err(|errno| self.error(errno))?;
            self.done.removed += 1;
        }
        Ok(())
    }

    /// Removes a folder with what it holds; false where a kept cache is left in it.
    fn remove_folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        depth: usize,
        caches: Caches,
    ) -> Result<bool, VersionError> {
        if depth >= 4 * MAX_DEPTH {
            return Err(self.error(Errno::LOOP));
        }
        let fd = open_folder_for_change(parent, name).map_err(|errno| self.error(errno))?;
        let mut empty = true;
        for child in folder::names(fd.as_fd()).map_err(|errno| self.error(errno))? {
            let length = push_name(&mut self.path, child.to_bytes());
            let stat = folder::stat(fd.as_fd(), &child).map_err(|errno| self.error(errno))?;
            if caches == Caches::Keep && self.policy.is_cache(&self.path) {
                empty = false;
            } else if stat.as_ref().is_some_and(is_folder) {
                empty &= self.remove_folder(fd.as_fd(), &child, depth + 1, caches)?;
            } else {
                self.cache.forget(&self.path);
                folder::remove_file(fd.as_fd(), &child).map_err(|errno| self.error(errno))?;
                self.done.removed += 1;
            }
            self.path.truncate(length);
        }
        if empty {
            unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(|errno| self.error(errno))?;
            self.done.removed += 1;
        }
        Ok(empty)
    }

    /// Writes the files and links of one folder, reading the store in batches.
    fn write_all(&mut self, fd: BorrowedFd<'_>, mut writes: &[&TreeEntry]) -> Result<(), VersionError> {
        while !writes.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &&&TreeEntry| {
                bytes += entry.size;
                bytes <= BATCH_BYTES
            };
            let count = writes.iter().take(BATCH_FILES).take_while(fits).count().max(1);
            let (batch, rest) = writes.split_at(count);
            let contents = self.store.get_many(&batch.iter().map(|entry| entry.id).collect::<Vec<_>>())?;
            for (entry, content) in batch.iter().zip(contents) {
                let content = content.ok_or(ObjectError::Missing(entry.id))?;
                let length = push_name(&mut self.path, &entry.name);
                self.write(fd, entry, &content)?;
                self.path.truncate(length);
            }
            writes = rest;
        }
        Ok(())
    }

    fn write(&mut self, fd: BorrowedFd<'_>, entry: &TreeEntry, content: &Bytes) -> Result<(), VersionError> {
        let name = c_name(&entry.name).map_err(|errno| self.error(errno))?;
        if entry.mode == FileMode::Symlink {
            let target = c_name(content).map_err(|errno| self.error(errno))?;
            symlinkat(&target, fd, &name).map_err(|errno| self.error(errno))?;
        } else {
            let bits = if entry.mode == FileMode::Executable { 0o777 } else { 0o666 };
            // The name was cleared, so a file or link that is there nevertheless is somebody else's: refuse it.
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(fd, &name, flags, Mode::from_raw_mode(bits)).map_err(|errno| self.error(errno))?);
            file.write_all(content).map_err(|error| VersionError::io(&self.root.join(show_path(&self.path)), error))?;
            let stat = fstat(&file).map_err(|errno| self.error(errno))?;
            self.cache.wrote(self.path.clone(), FileStat::new(&stat), entry.id);
        }
        self.done.written += 1;
        self.done.written_bytes += content.len() as u64;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Caches {
    Keep,
    Remove,
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
