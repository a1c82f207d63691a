//! Keeping the index up to date.
//!
//! A refresh gathers the paths that may be other than the index says (from events, from another base, from files with several
//! names), looks at those, and merges what it saw. Where events are missing the one path is the root. Whatever
//! goes wrong half-way, the next refresh looks at everything; so does the first one after all of it was let go.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use helix_objects::ObjectStore;
use helix_protocol::ObjectId;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::compare::compare;
use super::events::{Told, Watcher, device};
use super::folder;
use super::fresh::{BaseTrees, Fresh, Held};
use super::ignore::{Chain, Sort};
use super::index::{Entry, FolderKey, HeldFile, Index, Known};
use super::merge::Merge;
use super::notes::Notes;
use super::outer::Outer;
use super::rules::{Events, FolderRules};
use super::stat_cache::{FileClock, FileStat, StatCache};
use super::visit::{Pass, inode, is_ignore_file};
use super::working_folder::{ScanReason, Tracking};
use crate::diff::diff_entries;
use crate::names::is_outside;
use crate::read::push_name;
use crate::{VersionError, show_path};

/// When this many files were read, what is known is saved at once, so that a process that is killed leaves it to the next.
const SAVE_FROM: usize = 1000;
/// What a path takes in a set beside its bytes.
pub(super) const PATH_BYTES: usize = size_of::<Vec<u8>>() * 11 / 7 + 16;

/// A working folder's index, and what it takes to believe it.
#[derive(Debug)]
pub(super) struct Live {
    root: PathBuf,
    state: PathBuf,
    rules: FolderRules,
    pub(super) index: Index,
    /// What an earlier process knew, or a move has written. Emptied by the next pass.
    saved: StatCache,
    /// It is what an earlier process left on disk.
    saved_on_disk: bool,
    watcher: Option<Watcher>,
    tracking: Tracking,
    /// Paths that may be other than the index says.
    dirty: BTreeSet<Vec<u8>>,
    everything: bool,
    /// The base of the last pass.
    base: Option<ObjectId>,
    outer: Outer,
    pub(super) notes: Notes,
    pub(super) held: Held,
    /// Files that were read since the state was saved.
    pub(super) unsaved: usize,
    /// Nothing is in memory, and no event is heard, until the next look.
    asleep: bool,
}

impl Live {
    pub(super) fn open(root: PathBuf, state: PathBuf, rules: FolderRules) -> Result<Self, VersionError> {
        let mut live = Self::asleep(root, state, rules);
        live.wake()?;
        Ok(live)
    }

    fn asleep(root: PathBuf, state: PathBuf, rules: FolderRules) -> Self {
        Self {
            root,
            state,
            rules,
            index: Index::new(),
            saved: StatCache::new(),
            saved_on_disk: true,
            watcher: None,
            tracking: Tracking::Scan(ScanReason::Asked),
            dirty: BTreeSet::new(),
            everything: true,
            base: None,
            outer: Outer::default(),
            notes: Notes::default(),
            held: Held::default(),
            unsaved: 0,
            asleep: true,
        }
    }

    /// Takes up what is on disk of the files, and begins with events where the rules and the system allow them.
    fn wake(&mut self) -> Result<(), VersionError> {
        self.saved = StatCache::open(&self.state.join("stat"))?;
        let opened = match self.rules.events {
            Events::Ignore => Err(ScanReason::Asked),
            Events::Use => folder::open_root(&self.root).map_err(|_| ScanReason::NoEvents).and_then(|root| {
                let stat = fstat(&root).map_err(|_| ScanReason::NoEvents)?;
                let mut watcher = Watcher::open(&root, device(&stat), &self.state)?;
                // Shows that events arrive at all.
                watcher.listen()?;
                Ok(watcher)
            }),
        };
        match opened {
            Ok(watcher) => (self.watcher, self.tracking) = (Some(watcher), Tracking::Events),
            Err(reason) => self.tracking = Tracking::Scan(reason),
        }
        self.asleep = false;
        Ok(())
    }

    /// Lets go of everything in memory, and of events; what is known of the files goes to disk before. The next look is one at
    /// everything. The base stays: what is ignored and carried for its sake is carried also where the next look is told of none.
    pub(super) fn let_go(&mut self) {
        if let Err(error) = self.save() {
            // It only spares the next look some reading.
            tracing::warn!(%error, "what is known of a folder's files was not kept");
        }
        let (root, state) = (std::mem::take(&mut self.root), std::mem::take(&mut self.state));
        let asleep = Self::asleep(root, state, self.rules.clone());
        *self = Self { tracking: self.tracking, base: self.base, ..asleep };
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Memory in bytes, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        if self.asleep {
            return 0;
        }
        let dirty: usize = self.dirty.iter().map(|path| PATH_BYTES + path.len()).sum();
        self.index.memory_bytes() + self.saved.memory_bytes() + self.notes.memory_bytes() + self.held.memory_bytes() + dirty
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn tracking(&self) -> Tracking {
        self.tracking
    }

    pub(super) fn distrust(&mut self) {
        self.everything = true;
    }

    /// A file is not what the index says, whatever its `stat` is.
    pub(super) fn mistrust(&mut self, path: Vec<u8>) {
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (self.index.find(&path[..cut]), &path[cut + 1..]),
            None => (Some(Index::ROOT), path.as_slice()),
        };
        if let Some(folder) = folder
            && let Some(Entry::File(file)) = self.index.folder(folder).entries.get(name)
        {
            let file = HeldFile { read_at: FileClock::NEVER, ..*file };
            self.index.touch(folder, name, file);
        }
        self.dirty.insert(path);
    }

    /// As if watching had failed in the middle of a pass.
    #[cfg(test)]
    pub(super) fn lose_events(&mut self, reason: ScanReason) {
        self.watcher.as_ref().expect("events are in use").fail(reason);
        self.dirty.insert(b"d".to_vec());
    }

    /// Lets events go, for good.
    fn fall_back(&mut self, reason: ScanReason) {
        tracing::info!(folder = %self.root.display(), ?reason, "changes are found by scans");
        self.watcher = None;
        self.tracking = Tracking::Scan(reason);
        self.everything = true;
    }

    fn hear(&mut self, told: Result<Told, ScanReason>) {
        match told {
            Ok(told) => {
                self.everything |= told.lost;
                if self.everything {
                    return;
                }
                for (folder, name) in told.names {
                    let mut path = self.index.path(folder);
                    if !is_ignore_file(&name) {
                        push_name(&mut path, &name);
                    }
                    self.dirty.insert(path);
                }
            }
            Err(reason) => self.fall_back(reason),
        }
    }

    /// Takes what the queue of events holds, so that it does not overflow.
    pub(super) fn absorb(&mut self) {
        if let Some(told) = self.watcher.as_mut().map(Watcher::absorb) {
            self.hear(told);
        }
    }

    /// Makes the index hold what was in the folder when this was called, or later. With `keep` content that was read goes
    /// into the store where it exceeds its room. Answers with the tree.
    pub(super) fn bring(
        &mut self,
        store: &dyn ObjectStore,
        base: Option<ObjectId>,
        keep: bool,
    ) -> Result<(ObjectId, u64), VersionError> {
        let root = self.look(store, base, keep)?;
        if self.unsaved >= SAVE_FROM
            && let Err(error) = self.save()
        {
            // It only spares the next process some reading.
            tracing::warn!(%error, "what is known of a folder's files was not kept");
            self.unsaved = 0;
        }
        Ok(root)
    }

    /// As [`bring`](Self::bring), and writes nothing of what is known then.
    pub(super) fn look(
        &mut self,
        store: &dyn ObjectStore,
        base: Option<ObjectId>,
        keep: bool,
    ) -> Result<(ObjectId, u64), VersionError> {
        if self.asleep {
            self.wake()?;
        }
        if let Some(told) = self.watcher.as_mut().map(Watcher::listen) {
            self.hear(told);
        }
        let root = folder::open_root(&self.root)?;
        let root_inode = inode(&fstat(&root).map_err(|errno| VersionError::io(&self.root, errno))?);
        self.everything |= self.watcher.is_none() || root_inode != self.index.folder(Index::ROOT).inode;
        // Where an ignore file outside has changed, everything may be ignored otherwise.
        self.everything |= self.outer.refresh(&self.root, &self.rules.excludes);
        self.notice_base(store, base);
        if !self.everything {
            self.dirty.extend(self.notes.linked.iter().cloned());
            self.dirty.extend(self.notes.torn.iter().cloned());
        }
        let mut again = true;
        while again && (self.everything || !self.dirty.is_empty()) {
            again = self.pass(store, base, keep, &root)?;
        }
        Ok(self.index.fold(&mut |_| ()))
    }

    /// One look at what is dirty. True where other names of the same files turned up that must be looked at too.
    fn pass(&mut self, store: &dyn ObjectStore, base: Option<ObjectId>, keep: bool, root: &OwnedFd) -> Result<bool, VersionError> {
        let everything = self.everything || self.dirty.contains(b"".as_slice());
        // Whatever fails from here on, the next pass looks at everything.
        self.everything = true;
        let dirty = std::mem::take(&mut self.dirty);
        let targets = if everything { Vec::new() } else { self.targets(&dirty) };
        let base_trees = BaseTrees::new(store, base);
        let fresh = Fresh::new(keep.then_some(store), std::mem::take(&mut self.held));
        let pass = Pass {
            index: &self.index,
            saved: &self.saved,
            base: &base_trees,
            fresh: &fresh,
            watcher: self.watcher.as_ref(),
            cap: self.rules.file_cap_bytes,
            started: FileClock::now(),
            believed: AtomicUsize::new(0),
        };
        let keys: Vec<FolderKey> = if everything { vec![Index::ROOT] } else { targets.iter().map(|(key, _)| *key).collect() };
        let mut seen = if everything {
            let root = folder::open_folder(root.as_fd(), c".").map_err(|errno| VersionError::io(&self.root, errno))?;
            pass.everything(root, self.outer.chain())?
        } else {
            pass.some(root, targets)?
        };
        // What the disk has already need not be written to it again.
        let on_disk = if self.saved_on_disk { pass.believed.load(Ordering::Relaxed) } else { 0 };
        self.held = fresh.into_held();
        let before = self.notes.linked.clone();
        let changed = Merge::new(&mut self.index, &mut self.notes, self.watcher.as_mut(), &mut seen).run(&keys);
        self.unsaved += changed.saturating_sub(on_disk);
        self.base = base;
        self.everything = false;
        if self.saved.len() > 0 {
            self.saved = StatCache::new();
        }
        self.saved_on_disk = false;
        if let Some(reason) = self.watcher.as_ref().and_then(Watcher::failed) {
            self.fall_back(reason);
            // This pass was complete nevertheless, unless it saw only a part.
            self.everything = !everything;
            return Ok(!everything);
        }
        Ok(!everything && self.other_names(&before))
    }

    /// Where a file turned out to have several names, the others are dirty too.
    fn other_names(&mut self, before: &BTreeSet<Vec<u8>>) -> bool {
        let inode_of = |index: &Index, path: &[u8]| match index.entry(path) {
            Some(Entry::File(file)) => Some(file.stat.inode),
            _ => None,
        };
        let new: HashSet<u64> = self.notes.linked.difference(before).filter_map(|path| inode_of(&self.index, path)).collect();
        if new.is_empty() {
            return false;
        }
        let mut found = Vec::new();
        self.index.files(&mut |path, file| {
            if !file.linked && new.contains(&file.stat.inode) {
                found.push(path.to_owned());
            }
        });
        let any = !found.is_empty();
        self.dirty.extend(found);
        any
    }

    /// The names to look at, by folder. What lies beneath another dirty path is seen with that; what lies in a folder that
    /// the index does not have is seen with the first folder that is missing.
    fn targets(&self, dirty: &BTreeSet<Vec<u8>>) -> Vec<(FolderKey, Vec<CString>)> {
        let mut tops: BTreeSet<Vec<u8>> = BTreeSet::new();
        for path in dirty {
            let cut = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
            let top = cut.clone().find(|cut| dirty.contains(&path[..*cut]) || self.index.find(&path[..*cut]).is_none());
            tops.insert(top.map_or(path.as_slice(), |cut| &path[..cut]).to_owned());
        }
        let mut targets: BTreeMap<FolderKey, Vec<CString>> = BTreeMap::new();
        for path in tops {
            let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(cut) => (self.index.find(&path[..cut]), &path[cut + 1..]),
                None => (Some(Index::ROOT), path.as_slice()),
            };
            if let (Some(folder), Ok(name)) = (folder, CString::new(name)) {
                targets.entry(folder).or_default().push(name);
            }
        }
        targets.into_iter().collect()
    }

    /// Another base decides otherwise about ignored and skipped files.
    fn notice_base(&mut self, store: &dyn ObjectStore, base: Option<ObjectId>) {
        if self.everything || base == self.base {
            return;
        }
        let own = match self.index.folder(Index::ROOT).known {
            Known::Tree { id, .. } => Some(id),
            Known::Empty | Known::Changed => None,
        };
        let before = std::mem::replace(&mut self.base, base);
        if base.is_some() && base == own {
            return;
        }
        self.dirty.extend(self.notes.tied.iter().chain(self.notes.skipped.keys()).cloned());
        let Some(base) = base else { return };
        let tracked: Result<Vec<Vec<u8>>, _> = match before {
            // A first look without a base: nearly all of the folder is the base's, and that is not entered.
            None => compare(&self.index, store, Some(base)).map(|compared| {
                compared.changes.into_iter().filter(|change| change.before.is_some()).map(|change| change.path).collect()
            }),
            Some(_) => diff_entries(store, before, base)
                .map(|changes| changes.into_iter().filter(|change| change.after.is_some()).map(|change| change.path).collect()),
        };
        match tracked {
            Ok(tracked) => self.dirty.extend(tracked.into_iter().filter(|path| self.index.entry(path).is_none())),
            // The older base need not be in the store any more.
            Err(_) => self.everything = true,
        }
    }

    /// What is ignored, as of the last pass, ascending: files, and folders of which nothing is carried with a final `/`.
    pub(super) fn ignored(&self) -> Result<Vec<Vec<u8>>, VersionError> {
        let root = folder::open_root(&self.root)?;
        let mut found = Vec::new();
        let walked = self.ignored_in(Index::ROOT, root.as_fd(), &mut Vec::new(), &mut found);
        walked.map_err(|errno| VersionError::io(&self.root, errno))?;
        found.sort_unstable();
        Ok(found)
    }

    fn ignored_in(&self, key: FolderKey, fd: BorrowedFd<'_>, path: &mut Vec<u8>, found: &mut Vec<Vec<u8>>) -> Result<(), Errno> {
        let held = self.index.folder(key);
        let names = match folder::names(fd) {
            // It was deleted since it was opened.
            Err(Errno::NOENT) => return Ok(()),
            names => names?,
        };
        for name in names {
            if is_outside(name.to_bytes()) {
                continue;
            }
            let length = push_name(path, name.to_bytes());
            match held.entries.get(name.to_bytes()) {
                Some(Entry::Folder(inner)) => match folder::open_folder(fd, &name) {
                    Ok(fd) => self.ignored_in(*inner, fd.as_fd(), path, found)?,
                    Err(errno) => tracing::debug!(path = %show_path(path), %errno, "a folder cannot be read"),
                },
                Some(_) => {}
                None => {
                    let stat = folder::stat(fd, &name)?;
                    let is_folder = stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                    let sort = if is_folder { Sort::Folder } else { Sort::Other };
                    if held.ignored || Chain::ignores(held.chain.as_ref(), path, sort) {
                        let slash: &[u8] = if is_folder { b"/" } else { b"" };
                        found.push([path.as_slice(), slash].concat());
                    }
                }
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// The base of the last pass.
    pub(super) fn base(&self) -> Option<ObjectId> {
        self.base
    }

    /// Remembers files that a move has just written, as a hint for the next pass. Nobody else writes during a move, so they are
    /// believed unless the clock still stands at a file's time.
    pub(super) fn wrote(&mut self, files: Vec<(Vec<u8>, FileStat, ObjectId)>) {
        let now = FileClock::now();
        for (path, stat, id) in files {
            self.saved.record(path, stat, id, now);
        }
    }

    /// What is known of files, for the next process.
    pub(super) fn save(&mut self) -> Result<(), VersionError> {
        let moved = !self.saved_on_disk && self.saved.len() > 0;
        if self.unsaved == 0 && !moved {
            return Ok(());
        }
        let tree = match self.index.folder(Index::ROOT).known {
            Known::Tree { id, .. } if !moved => Some(id),
            Known::Tree { .. } | Known::Empty | Known::Changed => None,
        };
        let mut cache = StatCache::at(&self.state.join("stat"), tree);
        self.index.files(&mut |path, file| cache.record(path.to_owned(), file.stat, file.id, file.read_at));
        if moved {
            cache.add(&self.saved);
        }
        cache.save()?;
        self.unsaved = 0;
        Ok(())
    }
}
