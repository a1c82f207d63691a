//! Keeping the index up to date.
//!
//! A refresh gathers the paths that may be other than the index says (from events, from another base, from files with several
//! names), looks at those, and merges what it saw. Where events are missing the one path is the root. Whatever
//! goes wrong half-way, the next refresh looks at everything.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helix_objects::ObjectStore;
use helix_protocol::{ObjectId, SkipReason};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::events::{Told, Watcher, device};
use super::folder;
use super::fresh::{BaseTrees, Fresh, Held};
use super::ignore::{Chain, Sort};
use super::index::{Entry, Folder, FolderKey, HeldFile, Index, Known};
use super::rules::{Events, FolderRules};
use super::stat_cache::{FileClock, FileStat, StatCache};
use super::visit::{Opened, Pass, Seen, Sight, Tie, inode, is_ignore_file, is_outside, outer_patterns};
use super::working_folder::{ScanReason, Tracking};
use crate::diff::diff_entries;
use crate::read::push_name;
use crate::tree::TreeEntry;
use crate::{VersionError, show_path};

/// A working folder's index, and what it takes to believe it.
#[derive(Debug)]
pub(super) struct Live {
    root: PathBuf,
    state: PathBuf,
    rules: FolderRules,
    pub(super) index: Index,
    /// What an earlier process knew, or a move has written. Emptied by the next pass.
    saved: StatCache,
    watcher: Option<Watcher>,
    tracking: Tracking,
    /// Paths that may be other than the index says.
    dirty: BTreeSet<Vec<u8>>,
    everything: bool,
    /// The base of the last pass.
    base: Option<ObjectId>,
    /// Ignore files outside the folder, as they were when they were read.
    outer: Option<(Vec<Option<Stamp>>, Option<Arc<Chain>>)>,
    pub(super) notes: Notes,
    pub(super) held: Held,
    /// Files that were read since the state was saved.
    pub(super) unsaved: usize,
}

/// A file as it looks from outside.
type Stamp = (u64, u64, std::time::SystemTime);

/// What is to be said of paths beside their entries.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) skipped: BTreeMap<Vec<u8>, (SkipReason, u64)>,
    pub(super) torn: BTreeSet<Vec<u8>>,
    /// Ignored, and carried because the base has them.
    tied: BTreeSet<Vec<u8>>,
    /// Files with several names.
    linked: BTreeSet<Vec<u8>>,
}

impl Notes {
    /// Forgets a path, and all beneath where it was a folder.
    fn forget(&mut self, path: &[u8], beneath: bool) {
        self.skipped.remove(path);
        self.torn.remove(path);
        self.tied.remove(path);
        self.linked.remove(path);
        if beneath {
            let start = [path, b"/"].concat();
            // "0" follows "/".
            let range = start.clone()..[path, b"0"].concat();
            for set in [&mut self.torn, &mut self.tied, &mut self.linked] {
                let gone: Vec<Vec<u8>> = set.range(range.clone()).cloned().collect();
                for path in gone {
                    set.remove(&path);
                }
            }
            let gone: Vec<Vec<u8>> = self.skipped.range(range).map(|(path, _)| path.clone()).collect();
            for path in gone {
                self.skipped.remove(&path);
            }
        }
    }
}

impl Notes {
    /// Forgets what was skipped in a folder and is not among the names it has now.
    fn forget_absent(&mut self, folder: &[u8], there: &HashSet<&[u8]>) {
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        self.skipped.retain(|path, _| {
            let inside = path.len() > skip && path.starts_with(folder) && (skip == 0 || path[skip - 1] == b'/');
            let name = path.get(skip..).and_then(|rest| rest.split(|byte| *byte == b'/').next());
            !inside || name.is_some_and(|name| there.contains(name))
        });
    }
}

impl Live {
    pub(super) fn new(root: PathBuf, state: PathBuf, rules: FolderRules, saved: StatCache) -> Self {
        Self {
            root,
            state,
            rules,
            index: Index::new(),
            saved,
            watcher: None,
            tracking: Tracking::Scan(ScanReason::Asked),
            dirty: BTreeSet::new(),
            everything: true,
            base: None,
            outer: None,
            notes: Notes::default(),
            held: Held::default(),
            unsaved: 0,
        }
        .with_events()
    }

    /// Begins with events where the rules and the system allow them.
    fn with_events(mut self) -> Self {
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
        self
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
        if let Some(told) = self.watcher.as_mut().map(Watcher::listen) {
            self.hear(told);
        }
        let root = folder::open_root(&self.root)?;
        let root_inode = inode(&fstat(&root).map_err(|errno| VersionError::io(&self.root, errno))?);
        self.everything |= self.watcher.is_none() || root_inode != self.index.folder(Index::ROOT).inode;
        self.notice_outer();
        self.notice_base(store, base)?;
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
        };
        let keys: Vec<FolderKey> = if everything { vec![Index::ROOT] } else { targets.iter().map(|(key, _)| *key).collect() };
        let outer = self.outer.as_ref().and_then(|(_, chain)| chain.clone());
        let mut seen = if everything {
            let root = rustix::io::fcntl_dupfd_cloexec(root, 0).map_err(|errno| VersionError::io(&self.root, errno))?;
            pass.everything(root, outer)?
        } else {
            pass.some(root, targets)?
        };
        self.held = fresh.into_held();
        let before = self.notes.linked.clone();
        let claimed: HashSet<i32> = seen.iter().filter_map(|seen| seen.watch).collect();
        let mut merge = Merge { live: self, seen: &mut seen, claimed };
        for (ticket, key) in keys.into_iter().enumerate() {
            merge.folder(key, ticket);
        }
        self.base = base;
        self.everything = false;
        if self.saved.len() > 0 {
            self.saved = StatCache::new();
        }
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
    fn notice_base(&mut self, store: &dyn ObjectStore, base: Option<ObjectId>) -> Result<(), VersionError> {
        if self.everything || base == self.base {
            return Ok(());
        }
        let own = match self.index.folder(Index::ROOT).known {
            Known::Tree { id, .. } => Some(id),
            Known::Empty | Known::Changed => None,
        };
        let before = std::mem::replace(&mut self.base, base);
        if base.is_some() && base == own {
            return Ok(());
        }
        self.dirty.extend(self.notes.tied.iter().chain(self.notes.skipped.keys()).cloned());
        let Some(base) = base else { return Ok(()) };
        let changes = diff_entries(store, before, base).inspect_err(|_| self.everything = true)?;
        for change in changes {
            if change.after.is_some() && self.index.entry(&change.path).is_none() {
                self.dirty.insert(change.path);
            }
        }
        Ok(())
    }

    /// Where an ignore file outside the folder has changed, everything may be ignored otherwise.
    fn notice_outer(&mut self) {
        let files = self.outer_files();
        let stamp = |file: &PathBuf| {
            use std::os::unix::fs::MetadataExt;
            let meta = std::fs::metadata(file).ok()?;
            Some((meta.len(), meta.ino(), meta.modified().ok()?))
        };
        let stamps: Vec<Option<Stamp>> = files.iter().map(stamp).collect();
        if self.outer.as_ref().is_some_and(|(known, _)| *known == stamps) {
            return;
        }
        let chain = files.iter().fold(None, |chain, file| Chain::with(chain, b"", outer_patterns(file)));
        self.outer = Some((stamps, chain));
        self.everything = true;
    }

    /// The weakest first.
    fn outer_files(&self) -> Vec<PathBuf> {
        let mut files = self.rules.excludes.clone();
        files.extend(git_folder(&self.root).map(|git| git.join("info/exclude")));
        files
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
        for name in folder::names(fd)? {
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
        if self.unsaved == 0 {
            return Ok(());
        }
        let tree = match self.index.folder(Index::ROOT).known {
            Known::Tree { id, .. } => Some(id),
            Known::Empty | Known::Changed => None,
        };
        let mut cache = StatCache::at(&self.state.join("stat"), tree);
        self.index.files(&mut |path, file| cache.record(path.to_owned(), file.stat, file.id, file.read_at));
        cache.save()?;
        self.unsaved = 0;
        Ok(())
    }
}

/// The folder with the `info` that speaks for a root with a `.git`: a worktree shares its repository's.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    let meta = std::fs::symlink_metadata(&git).ok()?;
    if meta.is_dir() {
        return Some(git);
    }
    let text = std::fs::read_to_string(&git).ok()?;
    let own = root.join(text.strip_prefix("gitdir:")?.trim());
    match std::fs::read_to_string(own.join("commondir")) {
        Ok(common) => Some(own.join(common.trim())),
        Err(_) => Some(own),
    }
}

/// Takes what a pass saw into the index.
struct Merge<'a> {
    live: &'a mut Live,
    seen: &'a mut [Seen],
    /// Watches that folders of this pass have.
    claimed: HashSet<i32>,
}

impl Merge<'_> {
    fn folder(&mut self, key: FolderKey, ticket: usize) {
        let seen = std::mem::take(&mut self.seen[ticket]);
        if !matches!(seen.opened, Opened::Yes) {
            return;
        }
        if seen.whole {
            self.adopt(key, &seen);
            self.drop_unseen(key, &seen);
        }
        let mut path = seen.path;
        for (name, sight) in seen.sights {
            let length = push_name(&mut path, &name);
            self.name(key, &name, sight, &path);
            path.truncate(length);
        }
    }

    /// What is known of the folder itself.
    fn adopt(&mut self, key: FolderKey, seen: &Seen) {
        let folder = self.live.index.folder_mut(key);
        (folder.ignored, folder.inode) = (seen.ignored, seen.inode);
        folder.chain.clone_from(&seen.chain);
        let before = std::mem::replace(&mut folder.watch, seen.watch);
        if let Some(watcher) = &mut self.live.watcher {
            if let Some(before) = before.filter(|before| seen.watch != Some(*before)) {
                watcher.release(before, key, &|watch| self.claimed.contains(&watch));
            }
            if let Some(watch) = seen.watch {
                watcher.assign(watch, key);
            }
        }
    }

    fn drop_unseen(&mut self, key: FolderKey, seen: &Seen) {
        let entries = &self.live.index.folder(key).entries;
        if entries.is_empty() && self.live.notes.skipped.is_empty() {
            return;
        }
        let there: HashSet<&[u8]> = seen.sights.iter().map(|(name, _)| &**name).collect();
        let gone: Vec<Box<[u8]>> = entries.keys().filter(|name| !there.contains(&***name)).cloned().collect();
        let mut path = seen.path.clone();
        for name in gone {
            let length = push_name(&mut path, &name);
            self.name(key, &name, Sight::Absent, &path);
            path.truncate(length);
        }
        self.live.notes.forget_absent(&seen.path, &there);
    }

    fn name(&mut self, key: FolderKey, name: &[u8], sight: Sight, path: &[u8]) {
        let was_folder = match self.live.index.folder(key).entries.get(name) {
            Some(Entry::Folder(inner)) => Some(*inner),
            _ => None,
        };
        match sight {
            Sight::Folder { ticket, tie } => return self.inner(key, name, path, ticket, tie, was_folder),
            Sight::Absent => self.set(key, name, path, None, was_folder.is_some()),
            Sight::Skipped { reason, size, base } => {
                self.set(key, name, path, base.map(kept), was_folder.is_some());
                self.live.notes.skipped.insert(path.to_owned(), (reason, size));
            }
            Sight::Link { size, id, tie } => {
                let same =
                    matches!(self.live.index.folder(key).entries.get(name), Some(Entry::Link { id: same, .. }) if *same == id);
                if same {
                    self.live.notes.forget(path, false);
                } else {
                    self.set(key, name, path, Some(Entry::Link { size, id }), was_folder.is_some());
                }
                self.tie(path, tie);
            }
            Sight::File { file, torn, tie } => {
                self.file(key, name, path, file, was_folder.is_some());
                self.tie(path, tie);
                if torn {
                    self.live.notes.torn.insert(path.to_owned());
                }
                if file.linked {
                    self.live.notes.linked.insert(path.to_owned());
                }
            }
        }
    }

    fn file(&mut self, key: FolderKey, name: &[u8], path: &[u8], file: HeldFile, was_folder: bool) {
        match self.live.index.folder(key).entries.get(name) {
            Some(Entry::File(before))
                if before.id == file.id && before.mode() == file.mode() && before.stat.size == file.stat.size =>
            {
                if *before != file {
                    self.live.unsaved += 1;
                    self.live.index.touch(key, name, file);
                }
                self.live.notes.forget(path, false);
            }
            _ => {
                self.live.unsaved += 1;
                self.set(key, name, path, Some(Entry::File(file)), was_folder);
            }
        }
    }

    fn inner(&mut self, parent: FolderKey, name: &[u8], path: &[u8], ticket: usize, tie: Tie, was: Option<FolderKey>) {
        match &mut self.seen[ticket].opened {
            Opened::Gone => self.set(parent, name, path, None, was.is_some()),
            Opened::Refused(base) => {
                let base = base.take();
                self.set(parent, name, path, base.map(kept), was.is_some());
                self.live.notes.skipped.insert(path.to_owned(), (SkipReason::Unreadable, 0));
            }
            Opened::Yes => {
                self.live.notes.forget(path, false);
                let key = was.unwrap_or_else(|| {
                    let folder = Folder {
                        parent: Some(parent),
                        name: name.into(),
                        entries: BTreeMap::new(),
                        known: Known::Changed,
                        inode: 0,
                        watch: None,
                        ignored: false,
                        chain: None,
                    };
                    let mut gone = Vec::new();
                    let key = self.live.index.add_folder(folder, &mut gone);
                    self.release(gone);
                    key
                });
                self.folder(key, ticket);
            }
        }
        self.tie(path, tie);
    }

    fn tie(&mut self, path: &[u8], tie: Tie) {
        if tie == Tie::ToBase {
            self.live.notes.tied.insert(path.to_owned());
        }
    }

    fn set(&mut self, key: FolderKey, name: &[u8], path: &[u8], entry: Option<Entry>, was_folder: bool) {
        self.live.notes.forget(path, was_folder);
        let mut gone = Vec::new();
        self.live.index.set(key, name, entry, &mut gone);
        self.release(gone);
    }

    fn release(&mut self, gone: Vec<(FolderKey, Folder)>) {
        let Some(watcher) = &mut self.live.watcher else { return };
        for (key, folder) in gone {
            if let Some(watch) = folder.watch {
                watcher.release(watch, key, &|watch| self.claimed.contains(&watch));
            }
        }
    }
}

fn kept(entry: TreeEntry) -> Entry {
    Entry::Kept { mode: entry.mode, size: entry.size, id: entry.id }
}
