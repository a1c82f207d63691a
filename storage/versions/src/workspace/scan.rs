//! From a working folder to a tree.
//!
//! Three passes: look at every name (one thread, no file is opened), read what the stat cache does
//! not vouch for (in parallel where there is much), and put the folders together from the leaves up.

mod assemble;
mod reading;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bytes::Bytes;
use helix_objects::{Durability, NewObject, ObjectStore};
use helix_protocol::{Change, FileMode, ObjectId, SkipReason, SkippedFile};
use rustix::fs::{FileType, readlinkat};
use rustix::io::Errno;

use self::assemble::Overlay;
use self::reading::{Outcome, read_files};
use super::folder::{self, Cursor};
use super::policy::ScanPolicy;
use super::reading::read_once;
use super::stat_cache::{FileClock, FileStat, StatCache};
use crate::diff::{Comparison, EntryChange, to_changes};
use crate::read::push_name;
use crate::tree::MAX_DEPTH;
use crate::{VersionError, entry_at, show_path};

/// A scan that meets content which changed behind the stat cache starts again, at most this often.
const ROUNDS: usize = 4;

/// What a working folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The root folder.
    pub tree: ObjectId,
    /// Objects of the tree that the base does not have at the same path. All of them are in the store.
    pub new_objects: Vec<ObjectId>,
    /// Against the base.
    pub changes: Vec<Change>,
    /// What the tree does not carry. Where the base has such a path, the tree keeps the base's entry.
    pub skipped: Vec<SkippedFile>,
    /// Files that changed whenever they were read: their content is of some moment, not of one.
    pub torn: Vec<String>,
    /// Everything in the tree, in bytes.
    pub logical_bytes: u64,
}

impl Scan {
    /// The new objects with their bytes, read one by one so that they need not fit into memory.
    pub fn objects<'a>(&'a self, store: &'a dyn ObjectStore) -> impl Iterator<Item = Result<NewObject, VersionError>> + 'a {
        self.new_objects.iter().map(|id| Ok(NewObject::checked(*id, store.read(*id)?)?))
    }
}

/// Reads the folder `root` and stores what `base` lacks of it, unsynced. Git-ignored files are
/// carried; what is not is in `skipped`. Without a base everything is new.
pub fn scan(
    root: &Path,
    base: Option<ObjectId>,
    store: &dyn ObjectStore,
    cache: &mut StatCache,
    policy: &ScanPolicy,
) -> Result<Scan, VersionError> {
    let mut round = 1;
    loop {
        let job = Job { root, base, store, policy, last: round == ROUNDS };
        match job.run(cache)? {
            Some(scan) => return Ok(scan),
            None => round += 1,
        }
    }
}

struct Job<'a> {
    root: &'a Path,
    base: Option<ObjectId>,
    store: &'a dyn ObjectStore,
    policy: &'a ScanPolicy,
    last: bool,
}

impl Job<'_> {
    /// `None`: a file turned out to be another than the stat cache had said; it is forgotten there.
    fn run(&self, cache: &mut StatCache) -> Result<Option<Scan>, VersionError> {
        let root = folder::open_root(self.root)?;
        let mut look = Look::new(self.policy, cache);
        let nodes = look.folder(root.as_fd(), &mut Vec::new(), 0).map_err(|error| VersionError::io(self.root, error))?;
        let Look { started, pending, mut skipped, mut seen, links, .. } = look;

        let outcomes = read_files(self, root.as_fd(), &pending)?;
        let mut torn = Vec::new();
        let mut skip = |path: &[u8], reason, size| skipped.push(SkippedFile { path: show_path(path), reason, size });
        for (file, outcome) in pending.iter().zip(&outcomes) {
            match outcome {
                Outcome::Read { id, stat, torn: false } => cache.record(file.path.clone(), *stat, *id, started),
                Outcome::Read { torn: true, .. } => {
                    torn.push(show_path(&file.path));
                    cache.forget(&file.path);
                }
                Outcome::TooLarge { size } => skip(&file.path, SkipReason::TooLarge, *size),
                Outcome::Unreadable => skip(&file.path, SkipReason::Unreadable, file.size),
                Outcome::Gone => {
                    seen.remove(&file.path);
                }
            }
        }
        if cache.len() > seen.len() {
            cache.keep(|path| seen.contains(path));
        }

        let mut overlay = Overlay::new(self.store, links);
        let (tree, logical_bytes) = overlay.assemble(nodes, &|place| self.resolve(place, &pending, &outcomes))?;
        let comparison = Comparison::run(&overlay, self.base, tree)?;
        let changes = to_changes(&comparison.changes);
        if !self.bring(root.as_fd(), &overlay, &comparison.changes, cache)? {
            return Ok(None);
        }
        let new_objects = comparison.objects();
        self.put(new_objects.iter().filter_map(|id| overlay.made(*id)).collect())?;
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        torn.sort();
        cache.holds(tree);
        Ok(Some(Scan { tree, new_objects, changes, skipped, torn, logical_bytes }))
    }

    /// What stands at a place in the tree: what was read, or what the base has where nothing can be carried.
    fn resolve(&self, place: Place, pending: &[Pending], outcomes: &[Outcome]) -> Result<Option<Content>, VersionError> {
        let path = match place {
            Place::Known(content) => return Ok(Some(content)),
            Place::Base(path) => path,
            Place::Pending(number) => match &outcomes[number] {
                Outcome::Read { id, stat, .. } => return Ok(Some(Content { mode: file_mode(stat), size: stat.size, id: *id })),
                Outcome::Gone => return Ok(None),
                Outcome::TooLarge { .. } | Outcome::Unreadable => pending[number].path.clone(),
            },
        };
        let Some(base) = self.base else { return Ok(None) };
        Ok(entry_at(self.store, base, &path)?.map(|entry| Content { mode: entry.mode, size: entry.size, id: entry.id }))
    }

    /// Stores objects, pinned first so that a bounded store keeps them.
    fn put(&self, objects: Vec<NewObject>) -> Result<(), VersionError> {
        if objects.is_empty() {
            return Ok(());
        }
        if let Some(pin) = self.policy.pin {
            self.store.pin(pin, &objects.iter().map(NewObject::id).collect::<Vec<_>>())?;
        }
        self.store.put(&objects, Durability::NoSync)?;
        Ok(())
    }

    /// Reads once more what the stat cache vouched for and the store does not hold, for example
    /// because it is bounded. False where such a file is not what the cache had said.
    fn bring(
        &self,
        root: BorrowedFd<'_>,
        overlay: &Overlay<'_>,
        changes: &[EntryChange],
        cache: &mut StatCache,
    ) -> Result<bool, VersionError> {
        let files: Vec<(&[u8], ObjectId)> = changes
            .iter()
            .filter_map(|change| Some((change.path.as_slice(), change.after.as_ref()?)))
            .filter(|(_, entry)| entry.mode != FileMode::Directory && overlay.made(entry.id).is_none())
            .map(|(path, entry)| (path, entry.id))
            .collect();
        let missing = self.store.missing(&files.iter().map(|(_, id)| *id).collect::<Vec<_>>())?;
        if missing.is_empty() {
            return Ok(true);
        }
        let missing: HashSet<ObjectId> = missing.into_iter().collect();
        let mut cursor = Cursor::new(root);
        let mut same = true;
        for (path, id) in files.into_iter().filter(|(_, id)| missing.contains(id)) {
            match read_once(&mut cursor, path) {
                Some(bytes) if helix_objects::hash(&bytes) == id => self.put(vec![NewObject::new(bytes)])?,
                _ => {
                    cache.forget(path);
                    same = false;
                }
            }
        }
        if !same && self.last {
            return Err(VersionError::io(self.root, std::io::Error::other("files change faster than they can be read")));
        }
        Ok(same)
    }
}

/// A name in a folder, on its way to a tree entry.
enum Node {
    File(Place),
    Folder(Vec<(Vec<u8>, Node)>),
}

/// How the content of a name is found.
enum Place {
    /// It is known.
    Known(Content),
    /// The outcome of the pending file of this number.
    Pending(usize),
    /// Whatever the base has at this path, since what is there cannot be carried.
    Base(Vec<u8>),
}

/// What a tree entry says beside its name.
#[derive(Clone, Copy)]
struct Content {
    mode: FileMode,
    size: u64,
    id: ObjectId,
}

/// A file that must be read.
struct Pending {
    path: Vec<u8>,
    size: u64,
}

fn file_mode(stat: &FileStat) -> FileMode {
    if stat.mode & 0o100 == 0 { FileMode::Regular } else { FileMode::Executable }
}

/// The first pass.
struct Look<'a> {
    policy: &'a ScanPolicy,
    cache: &'a StatCache,
    started: FileClock,
    pending: Vec<Pending>,
    skipped: Vec<SkippedFile>,
    seen: HashSet<Vec<u8>>,
    links: HashMap<ObjectId, NewObject>,
}

impl<'a> Look<'a> {
    fn new(policy: &'a ScanPolicy, cache: &'a StatCache) -> Self {
        Self {
            policy,
            cache,
            started: FileClock::now(),
            pending: Vec::new(),
            skipped: Vec::new(),
            seen: HashSet::with_capacity(cache.len()),
            links: HashMap::new(),
        }
    }

    fn folder(&mut self, fd: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize) -> Result<Vec<(Vec<u8>, Node)>, Errno> {
        let names = folder::names(fd)?;
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            let length = push_name(path, name.to_bytes());
            if let Some(node) = self.name(fd, &name, path, depth)? {
                nodes.push((name.into_bytes(), node));
            }
            path.truncate(length);
        }
        Ok(nodes)
    }

    fn name(&mut self, fd: BorrowedFd<'_>, name: &CString, path: &mut Vec<u8>, depth: usize) -> Result<Option<Node>, Errno> {
        if self.policy.is_outside(path) {
            return Ok(None);
        }
        let Some(raw) = folder::stat(fd, name)? else { return Ok(None) };
        if self.policy.is_cache(path) {
            return Ok(Some(self.skip(path, SkipReason::Cache, 0)));
        }
        match FileType::from_raw_mode(raw.st_mode) {
            FileType::Directory => {
                let opened = if depth + 1 < MAX_DEPTH { folder::open_folder(fd, name) } else { Err(Errno::LOOP) };
                match opened.and_then(|fd| self.folder(fd.as_fd(), path, depth + 1)) {
                    Ok(nodes) => Ok(Some(Node::Folder(nodes))),
                    Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                    Err(Errno::ACCESS | Errno::PERM | Errno::LOOP) => Ok(Some(self.skip(path, SkipReason::Unreadable, 0))),
                    Err(error) => Err(error),
                }
            }
            FileType::RegularFile => Ok(Some(self.file(path, FileStat::new(&raw)))),
            FileType::Symlink => {
                let Ok(target) = readlinkat(fd, name, Vec::new()) else { return Ok(None) };
                let link = NewObject::new(Bytes::from(target.into_bytes()));
                let content = Content { mode: FileMode::Symlink, size: link.bytes().len() as u64, id: link.id() };
                self.links.insert(link.id(), link);
                Ok(Some(Node::File(Place::Known(content))))
            }
            _ => {
                self.skipped.push(SkippedFile { path: show_path(path), reason: SkipReason::Special, size: 0 });
                Ok(None)
            }
        }
    }

    fn file(&mut self, path: &[u8], stat: FileStat) -> Node {
        self.seen.insert(path.to_owned());
        if let Some(id) = self.cache.lookup(path, &stat) {
            return Node::File(Place::Known(Content { mode: file_mode(&stat), size: stat.size, id }));
        }
        if stat.size > self.policy.file_cap_bytes {
            return self.skip(path, SkipReason::TooLarge, stat.size);
        }
        self.pending.push(Pending { path: path.to_owned(), size: stat.size });
        Node::File(Place::Pending(self.pending.len() - 1))
    }

    /// Lists a path that is not carried.
    fn skip(&mut self, path: &[u8], reason: SkipReason, size: u64) -> Node {
        self.skipped.push(SkippedFile { path: show_path(path), reason, size });
        Node::File(Place::Base(path.to_owned()))
    }
}
