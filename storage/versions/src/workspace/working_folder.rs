//! A working folder that stays open: what it holds is known, and kept up to date.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::AsFd;
use std::path::Path;

use bytes::Bytes;
use helix_objects::{Durability, MemoryStore, NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId, SkippedFile};
use rustix::fs::readlinkat;
use rustix::io::Errno;

use super::apply::{Like, all_there, apply};
use super::checkout::CheckedOut;
use super::compare::{Compared, compare};
use super::folder::{self, Cursor, c_name};
use super::index::{Entry, Index, Known};
use super::live::Live;
use super::plan::{Manner, Plan, Planner};
use super::reading::read_once;
use super::rules::FolderRules;
use super::writing::repository_in;
use crate::diff::EntryChange;
use crate::read::gone;
use crate::tree::encode;
use crate::{VersionError, entry_at, show_path};

/// A refresh that meets files which are other than it had just read begins again, at most this often.
const ROUNDS: usize = 4;
/// Content that a commit's batch may carry; what is more goes into the store ahead.
const ROOM: usize = 32 << 20;

/// One working folder: its files as a tree in memory, brought up to date by file events where the
/// system gives them and by a scan where not.
///
/// Not `Sync`: commands in one folder take turns, and whoever owns the value keeps the queue.
#[derive(Debug)]
pub struct WorkingFolder {
    pub(super) live: Live,
    /// See [`take_left_out`](Self::take_left_out).
    left_out: Vec<Vec<u8>>,
}

/// What a folder holds, with what a commit of it needs.
#[derive(Debug)]
pub struct Refreshed {
    /// The root folder's tree.
    pub tree: ObjectId,
    /// Objects of the tree that the store does not hold yet, each once: to go into the commit's one batch.
    /// Bounded: what exceeds the room for it, and files above 8 MiB, was put into the store ahead
    /// (unsynced, before this returned), so a sweep needs a lease from before the refresh until after the commit.
    pub objects: Vec<NewObject>,
    /// Against the base, ascending by path.
    pub changes: Vec<EntryChange>,
    /// What is there and not carried (too large, unreadable, sockets and pipes; not what is ignored).
    /// Where the base has such a path, the tree keeps the base's entry.
    pub skipped: Vec<SkippedFile>,
    /// Files that changed whenever they were read: their content is of some moment, not of one.
    pub torn: Vec<String>,
    /// Everything in the tree, in bytes.
    pub logical_bytes: u64,
    /// How the changes were found.
    pub tracking: Tracking,
}

/// What a folder holds against a base. Nothing is stored.
#[derive(Debug)]
pub struct Status {
    /// The tree that a commit now would have.
    pub tree: ObjectId,
    /// Against the base, ascending by path.
    pub changes: Vec<EntryChange>,
    /// As in [`Refreshed::skipped`].
    pub skipped: Vec<SkippedFile>,
    /// As in [`Refreshed::torn`].
    pub torn: Vec<String>,
    /// How the changes were found.
    pub tracking: Tracking,
}

/// How changes in a folder are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// By file events: a refresh costs what has changed.
    Events,
    /// By looking at every name, and why.
    Scan(ScanReason),
}

/// Why a folder is scanned each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanReason {
    /// The rules say so.
    Asked,
    /// Others can change files on this file system without an event here: its name.
    FileSystem(&'static str),
    /// The system allows no more watches (`fs.inotify.max_user_watches`) or instances.
    WatchLimit,
    /// The system has no file events, or they do not arrive.
    NoEvents,
}

/// What happens to changes that are in no snapshot when a folder moves from one tree to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalChanges {
    /// Files that are the same in both trees stay as they are. Where a change or an untracked file is in the way, the
    /// move is refused with [`VersionError::WouldOverwrite`] before anything is touched: `switch`, and how a merge is written.
    Keep,
    /// Every file of either tree becomes the new tree's; untracked files stay unless they are in the way: `reset --hard`.
    /// Repositories that lie in the folder stay: where one is in the way, the move is refused.
    Discard,
}

impl From<LocalChanges> for Manner {
    fn from(changes: LocalChanges) -> Self {
        match changes {
            LocalChanges::Keep => Self::Keep,
            LocalChanges::Discard => Self::Discard,
        }
    }
}

/// Something that a move to another tree would overwrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path, `/`-separated.
    pub path: Vec<u8>,
    /// What would be lost.
    pub kind: ConflictKind,
}

/// What a move to another tree would overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// The file differs from the base, and the new tree has it otherwise or not at all.
    LocalChange,
    /// The base has no such file, and the new tree has something else there. Ignored files do not count, as in git.
    Untracked,
    /// A repository of its own lies in a folder that the new tree has as a file. No tree has it, so it is spared
    /// however the move is made.
    Repository,
}

/// An entry of the working folder, read from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveEntry {
    /// What it is.
    pub mode: FileMode,
    /// Bytes of the file or of the link's target; of a folder that changed since the last refresh, its last known size.
    pub size: u64,
    /// Its content; `None` for a folder that changed since the last refresh.
    pub id: Option<ObjectId>,
}

impl WorkingFolder {
    /// Opens a folder. `state` is a folder of its own, for what is remembered of files between processes; it must not lie where it
    /// would be scanned (`.helios` is fine). Cheap: what the folder holds is found by the first call. Refused with
    /// [`VersionError::TooBroad`] for a home folder or `/`.
    pub fn open(root: &Path, state: &Path, rules: FolderRules) -> Result<Self, VersionError> {
        let root = root.canonicalize().map_err(|error| VersionError::io(root, error))?;
        let home = std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
        rules.admit(&root, home.as_deref())?;
        std::fs::create_dir_all(state).map_err(|error| VersionError::io(state, error))?;
        let state = state.canonicalize().map_err(|error| VersionError::io(state, error))?;
        Ok(Self { live: Live::open(root, state, rules)?, left_out: Vec::new() })
    }

    /// Looks at the folder while there is no store yet to hold it against. Nothing is written. It is never needed: where it fails,
    /// the first call that has a store begins anew.
    pub fn look_ahead(&mut self) {
        if let Err(error) = self.live.look(&MemoryStore::default(), None, false) {
            tracing::debug!(%error, folder = %self.root().display(), "a folder could not be looked at ahead");
        }
    }

    /// Brings what is known up to date, and gathers what the store needs for a commit. Everything that was written before the
    /// call is in the answer. `base` is the tree of the workspace's head: its objects are surely in the store, ignored files that
    /// it has stay tracked, and `changes` are against it.
    pub fn refresh(&mut self, store: &dyn ObjectStore, base: Option<ObjectId>) -> Result<Refreshed, VersionError> {
        for _ in 0..ROUNDS {
            let (tree, logical_bytes) = self.live.bring(store, base, true)?;
            let Compared { changes, folders } = compare(&self.live.index, store, base)?;
            let Some(mut objects) = self.gather(store, &changes)? else { continue };
            for key in folders {
                let object = self.live.index.encode_folder(key).0;
                objects.push(object.unwrap_or_else(|| encode(std::iter::empty())));
            }
            let mut seen = HashSet::new();
            objects.retain(|object| seen.insert(object.id()));
            self.live.held.clear();
            let (skipped, torn) = self.notes();
            return Ok(Refreshed { tree, objects, changes, skipped, torn, logical_bytes, tracking: self.live.tracking() });
        }
        let error = std::io::Error::other("files change faster than they can be read");
        Err(VersionError::io(self.live.root(), error))
    }

    /// As [`refresh`](Self::refresh), without gathering or storing anything.
    pub fn status(&mut self, store: &dyn ObjectStore, base: Option<ObjectId>) -> Result<Status, VersionError> {
        let (tree, _) = self.live.bring(store, base, false)?;
        let changes = compare(&self.live.index, store, base)?.changes;
        let (skipped, torn) = self.notes();
        Ok(Status { tree, changes, skipped, torn, tracking: self.live.tracking() })
    }

    /// Makes the folder hold exactly `tree`, ignored files aside, touching only what differs. Refused with `WouldOverwrite` where a
    /// repository of its own would go.
    pub fn checkout(&mut self, store: &dyn ObjectStore, tree: ObjectId) -> Result<CheckedOut, VersionError> {
        let base = self.live.base();
        self.live.bring(store, base, false)?;
        let plan = self.plan(store, base, tree, Manner::Exactly)?;
        refuse(&plan)?;
        self.left_out.extend_from_slice(&plan.left_out);
        apply(&mut self.live, store, plan, Manner::Exactly, None)
    }

    /// Moves the folder from `base` (the tree of its head) to `tree`, touching only what differs between what it holds and `tree`.
    /// Untracked files stay. With [`LocalChanges::Keep`] a file that somebody changes while this runs is left alone and named by
    /// `WouldOverwrite`; the others have been moved by then.
    pub fn switch(
        &mut self,
        store: &dyn ObjectStore,
        base: Option<ObjectId>,
        tree: ObjectId,
        changes: LocalChanges,
    ) -> Result<CheckedOut, VersionError> {
        self.live.bring(store, base, false)?;
        let manner = changes.into();
        let plan = self.plan(store, base, tree, manner)?;
        refuse(&plan)?;
        self.left_out.extend_from_slice(&plan.left_out);
        apply(&mut self.live, store, plan, manner, None)
    }

    /// Fills a folder that holds nothing, as `switch` from nothing with [`LocalChanges::Keep`], sharing the blocks of files
    /// that `like` has unchanged at the same path where the file system can (copy on write), and writing the others. What `like`
    /// has is what its last refresh found: nothing where it was let go since.
    pub fn populate(&mut self, store: &dyn ObjectStore, tree: ObjectId, like: &Self) -> Result<CheckedOut, VersionError> {
        self.live.bring(store, None, false)?;
        let plan = self.plan(store, None, tree, Manner::Keep)?;
        refuse(&plan)?;
        self.left_out.extend_from_slice(&plan.left_out);
        apply(&mut self.live, store, plan, Manner::Keep, Some(&Like::new(&like.live)?))
    }

    /// What [`switch`](Self::switch) with [`LocalChanges::Keep`] would refuse to overwrite, ascending by path.
    pub fn conflicts_with(
        &mut self,
        store: &dyn ObjectStore,
        base: Option<ObjectId>,
        tree: ObjectId,
    ) -> Result<Vec<Conflict>, VersionError> {
        self.live.bring(store, base, false)?;
        Ok(self.plan(store, base, tree, Manner::Keep)?.conflicts)
    }

    /// Whether [`switch`](Self::switch) can begin: fails where content of files that it would write is missing, before anything is
    /// touched. With [`LocalChanges::Keep`] it answers as [`conflicts_with`](Self::conflicts_with). With [`LocalChanges::Discard`]
    /// only repositories of their own are in the way, and the last refresh is gone by.
    pub fn foresee(
        &mut self,
        store: &dyn ObjectStore,
        base: Option<ObjectId>,
        tree: ObjectId,
        changes: LocalChanges,
    ) -> Result<Vec<Conflict>, VersionError> {
        if changes == LocalChanges::Keep || self.live.is_asleep() {
            self.live.bring(store, base, false)?;
        }
        let plan = self.plan(store, base, tree, changes.into())?;
        all_there(store, &plan)?;
        Ok(plan.conflicts)
    }

    /// Makes these paths (files, or folders with all beneath) what they are in `tree`; what `tree` lacks beneath them and `base`
    /// has is removed. An empty path is the whole folder. Fails with `NotFound` for a path that neither tree has, and with
    /// `WouldOverwrite` where a repository of its own would go.
    pub fn restore(
        &mut self,
        store: &dyn ObjectStore,
        base: Option<ObjectId>,
        tree: ObjectId,
        paths: &[Vec<u8>],
    ) -> Result<CheckedOut, VersionError> {
        self.live.bring(store, base, false)?;
        let mut planner = self.planner(store, Manner::Discard)?;
        for path in paths {
            if path.is_empty() {
                planner.folder(Some(Index::ROOT), base, Some(tree), 0)?;
                continue;
            }
            let before = base.map_or(Ok(None), |base| entry_at(store, base, path))?;
            let wanted = entry_at(store, tree, path)?;
            if before.is_none() && wanted.is_none() {
                return Err(VersionError::NotFound { tree, path: show_path(path) });
            }
            planner.need_parents(path);
            planner.path.clone_from(path);
            let depth = path.split(|byte| *byte == b'/').count();
            planner.name(self.live.index.entry(path), before.as_ref(), wanted.as_ref(), depth)?;
            planner.path.clear();
        }
        let mut plan = planner.finish();
        plan.prune_above();
        let plan = self.with_repositories(plan)?;
        refuse(&plan)?;
        self.left_out.extend_from_slice(&plan.left_out);
        apply(&mut self.live, store, plan, Manner::Discard, None)
    }

    /// What was ignored when the folder was last looked at: files, and folders (with a final `/`) that are ignored as such,
    /// ascending. Walks the folder.
    pub fn ignored(&self) -> Result<Vec<Vec<u8>>, VersionError> {
        self.live.ignored()
    }

    /// Paths that moves of this folder left out since this was asked last, ascending for each move: their content was purged.
    pub fn take_left_out(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.left_out)
    }

    /// Where the folder has one of these contents, as of the last refresh, ascending.
    pub fn holding(&self, ids: &HashSet<ObjectId>) -> Vec<Vec<u8>> {
        let mut paths: Vec<Vec<u8>> = self.live.index.holding(ids).map(|(path, _)| path).collect();
        paths.sort_unstable();
        paths
    }

    /// The entry at a path as of the last refresh, from memory.
    pub fn entry(&self, path: &[u8]) -> Option<LiveEntry> {
        let index = &self.live.index;
        let (mode, size, id) = match index.entry(path)? {
            Entry::File(file) => (file.mode(), file.stat.size, Some(file.id)),
            Entry::Link { size, id } => (FileMode::Symlink, *size, Some(*id)),
            Entry::Kept { mode, size, id } => (*mode, *size, Some(*id)),
            Entry::Folder(key) => match index.folder(*key).known {
                Known::Tree { id, size } => (FileMode::Directory, size, Some(id)),
                Known::Empty | Known::Changed => (FileMode::Directory, 0, None),
            },
        };
        Some(LiveEntry { mode, size, id })
    }

    /// Files, links and folders that are known at present.
    pub fn len(&self) -> usize {
        self.live.index.len()
    }

    /// Whether nothing is known to be in the folder.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How changes are found at present.
    pub fn tracking(&self) -> Tracking {
        self.live.tracking()
    }

    /// Reads the queue of events without looking at files, so that it does not overflow while many files change and nobody asks.
    /// Never needed for a right answer: an overflow costs one scan.
    pub fn absorb(&mut self) {
        self.live.absorb();
    }

    /// Lets the next call look at every name whatever events say: for programs that write through memory maps.
    pub fn distrust(&mut self) {
        self.live.distrust();
    }

    /// Memory that the tree and what else is known of the files take, in bytes, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.live.memory_bytes()
    }

    /// Lets go of all that memory, and of file events, until the next call that looks at the folder. That one finds everything
    /// by a scan, with what is known of the files' times, which is on disk by then; its answer is the same.
    pub fn let_go(&mut self) {
        self.live.let_go();
    }

    /// Remembers on disk what is known of files, so that the next process need not read them. Called by whoever lets the folder go.
    pub fn save(&mut self) -> Result<(), VersionError> {
        self.live.save()
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.live.root()
    }

    fn notes(&self) -> (Vec<SkippedFile>, Vec<String>) {
        let notes = &self.live.notes;
        let skipped = notes.skipped.iter();
        let skipped = skipped.map(|(path, (reason, size))| SkippedFile { path: show_path(path), reason: *reason, size: *size });
        (skipped.collect(), notes.torn.iter().map(|path| show_path(path)).collect())
    }

    /// The content of changed files that the store does not hold. None where a file turned out to be another than was
    /// known, or where it is gone: it must be looked at again.
    fn gather(&mut self, store: &dyn ObjectStore, changes: &[EntryChange]) -> Result<Option<Vec<NewObject>>, VersionError> {
        let mut objects = Vec::new();
        let gone = gone(store)?;
        // What was purged and still lies here is stored again, although nothing of it has changed: a commit has what it names.
        let again: Vec<(Vec<u8>, ObjectId)> = if gone.is_empty() { Vec::new() } else { self.live.index.holding(&gone).collect() };
        let mut elsewhere: BTreeMap<ObjectId, &[u8]> = again.iter().map(|(path, id)| (*id, path.as_slice())).collect();
        for change in changes {
            let Some(after) = &change.after else { continue };
            let same = change.before.as_ref().is_some_and(|before| before.id == after.id);
            if same || after.mode == FileMode::Directory {
                continue;
            }
            match self.live.held.get(after.id) {
                Some(object) => objects.push(object.clone()),
                None => {
                    elsewhere.insert(after.id, &change.path);
                }
            }
        }
        let missing = store.missing(&elsewhere.keys().copied().collect::<Vec<_>>())?;
        if missing.is_empty() {
            return Ok(Some(objects));
        }
        let root = folder::open_root(self.live.root())?;
        let mut cursor = Cursor::new(root.as_fd());
        let mut bytes = objects.iter().map(|object| object.bytes().len()).sum::<usize>();
        let (mut batch, mut wrong) = (Vec::new(), Vec::new());
        for id in missing {
            let path = elsewhere[&id];
            match read_content(&mut cursor, path).map(NewObject::new) {
                Some(object) if object.id() == id => {
                    bytes += object.bytes().len();
                    batch.push(object);
                    if bytes > ROOM {
                        store.put(&batch, Durability::NoSync)?;
                        (bytes, batch) = (0, Vec::new());
                    }
                }
                _ => wrong.push(path.to_owned()),
            }
        }
        objects.append(&mut batch);
        let right = wrong.is_empty();
        for path in wrong {
            self.live.mistrust(path);
        }
        Ok(right.then_some(objects))
    }

    fn planner<'a>(&'a self, store: &'a dyn ObjectStore, manner: Manner) -> Result<Planner<'a>, VersionError> {
        let (index, skipped) = (&self.live.index, &self.live.notes.skipped);
        Ok(Planner { index, skipped, store, manner, gone: gone(store)?, path: Vec::new(), plan: Plan::default() })
    }

    fn plan(&self, store: &dyn ObjectStore, base: Option<ObjectId>, tree: ObjectId, manner: Manner) -> Result<Plan, VersionError> {
        let mut planner = self.planner(store, manner)?;
        planner.folder(Some(Index::ROOT), base, Some(tree), 0)?;
        self.with_repositories(planner.finish())
    }

    /// A plan with the repositories that it would remove among what is in its way.
    fn with_repositories(&self, mut plan: Plan) -> Result<Plan, VersionError> {
        if plan.clearings.is_empty() {
            return Ok(plan);
        }
        let root = folder::open_root(self.live.root())?;
        let mut cursor = Cursor::new(root.as_fd());
        for path in &plan.clearings {
            let found = cursor.parent(path).and_then(|(folder, name)| repository_in(folder, &c_name(name)?, 0));
            match found {
                Ok(Some(beneath)) => {
                    let path = [path, b"/".as_slice(), &beneath].concat();
                    plan.conflicts.push(Conflict { path, kind: ConflictKind::Repository });
                }
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(VersionError::io(&self.live.root().join(show_path(path)), errno)),
            }
        }
        plan.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(plan)
    }
}

/// A plan that would lose something is not carried out.
fn refuse(plan: &Plan) -> Result<(), VersionError> {
    if plan.conflicts.is_empty() {
        return Ok(());
    }
    Err(VersionError::WouldOverwrite { paths: plan.conflicts.iter().map(|conflict| show_path(&conflict.path)).collect() })
}

/// A file's bytes or a link's target, as they are now.
fn read_content(cursor: &mut Cursor<'_>, path: &[u8]) -> Option<Bytes> {
    if let Some(bytes) = read_once(cursor, path) {
        return Some(bytes);
    }
    let (folder, name) = cursor.parent(path).ok()?;
    let target = readlinkat(folder, c_name(name).ok()?, Vec::new()).ok()?;
    Some(target.into_bytes().into())
}
