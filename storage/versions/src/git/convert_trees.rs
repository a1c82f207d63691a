//! Git trees and blobs as ours, many commits at a time.
//!
//! One window of commits: first their trees are read, each once, those of a level together, and what is new in them noted; then the
//! new blobs are read; then our trees are made, children first. Trees and blobs are read in the order of the packs by several
//! threads. What was converted before is remembered up to a limit, and converted again where it was forgotten.

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::hashtable::{HashMap as IdMap, HashSet as IdSet};
use gix::objs::Kind;
use helix_objects::{NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use super::bounded::BoundedMap;
use super::failed;
use super::map::{GitMap, MapChanges};
use super::segment::Row;
use super::sink::Sink;
use super::source::{Reader, Source};
use super::tree_text::{Names, RawEntry, entries, git_order, push};
use crate::tree::{EntryRef, MAX_DEPTH, encode};
use crate::{Tree, VersionError};

/// How many conversions are remembered.
const REMEMBERED: usize = 2 << 20;
/// How many bytes of trees a window holds at most: little, because what one window made is written while the next one is read.
const WINDOW_BYTES: usize = 4 << 20;
/// A thread of its own is worth it from this many objects on.
const OBJECTS_PER_THREAD: usize = 64;
/// More threads than this would wait for the one that writes.
const MOST_THREADS: usize = 8;

/// What a git object became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) ours: ObjectId,
    pub(super) size: u64,
    /// Whether the git object follows from ours.
    pub(super) follows: bool,
}

/// A git tree and the tree of ours it became earlier, at the same path.
pub(super) type Hint = (GitId, ObjectId);

/// See the module.
pub(super) struct Converter<'a> {
    store: &'a dyn ObjectStore,
    source: &'a Source,
    map: &'a GitMap,
    /// One for each thread that reads; the first is this thread's own.
    readers: Vec<Reader>,
    sink: Sink,
    remembered: BoundedMap<GitId, Known, gix::hashtable::hash::Builder>,
    window: Window,
    /// Our tree without entries.
    empty: ObjectId,
    /// Objects read so far.
    pub(super) objects: u64,
}

#[derive(Default)]
struct Window {
    /// Trees that were read, until they are converted.
    trees: IdMap<GitId, Bytes>,
    /// Those that somebody asks for, in this order.
    roots: Vec<GitId>,
    /// Trees and blobs that were noted; apart, so that what is named as both is read as both, and refused as one of them.
    listed: IdSet<GitId>,
    listed_blobs: IdSet<GitId>,
    bytes: usize,
    blobs: Vec<GitId>,
    found: IdMap<GitId, Known>,
}

impl<'a> Converter<'a> {
    pub(super) fn new(store: &'a dyn ObjectStore, source: &'a Source, map: &'a GitMap, sink: Sink) -> Self {
        let (remembered, empty) = (BoundedMap::new(REMEMBERED), Tree::default().encode().id());
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let readers = source.readers(threads);
        Self { store, source, map, readers, sink, remembered, window: Window::default(), empty, objects: 0 }
    }

    /// Reads a commit or a tag.
    pub(super) fn read(&mut self, id: GitId, kind: Kind) -> Result<Bytes, VersionError> {
        self.objects += 1;
        self.read_again(id, kind)
    }

    /// As [`read`](Self::read), of what was counted before.
    pub(super) fn read_again(&mut self, id: GitId, kind: Kind) -> Result<Bytes, VersionError> {
        self.readers[0].read(id, kind)
    }

    /// Hands an object to the store.
    pub(super) fn put(&mut self, object: NewObject) -> Result<(), VersionError> {
        Ok(self.sink.put(object)?)
    }

    /// Hands over everything.
    pub(super) fn flush(&mut self) -> Result<(), VersionError> {
        Ok(self.sink.flush()?)
    }

    /// Whether the window holds as much as it may.
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// How many bytes it may still take.
    pub(super) fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.window.bytes)
    }

    /// Notes trees with everything in them that is new. With a hint, what the hint's trees share with one is not read.
    pub(super) fn note_trees(&mut self, trees: Vec<(GitId, Option<Hint>)>) -> Result<(), VersionError> {
        self.window.roots.extend(trees.iter().map(|(tree, _)| *tree));
        let mut level = trees;
        for _ in 0..MAX_DEPTH {
            let mut fresh: IdMap<GitId, Option<Hint>> = IdMap::default();
            for (tree, hint) in level {
                if self.is_new_tree(tree, hint)? {
                    fresh.insert(tree, hint);
                }
            }
            if fresh.is_empty() {
                return Ok(());
            }
            level = Vec::new();
            for (tree, raw) in self.read_all(fresh.keys().copied().collect(), Kind::Tree, |raw, _| Ok(raw))? {
                let beneath = fresh[&tree].map(|hint| self.learn(hint)).transpose()?.unwrap_or_default();
                self.note_entries(tree, &raw, &beneath, &mut level)?;
                self.window.bytes += raw.len();
                self.window.trees.insert(tree, raw);
            }
        }
        level.first().map_or(Ok(()), |(tree, _)| Err(self.too_deep(*tree)))
    }

    /// Whether a tree is to be read: nobody has converted it, and nobody is about to.
    fn is_new_tree(&mut self, tree: GitId, hint: Option<Hint>) -> Result<bool, VersionError> {
        if self.window.listed.contains(&tree) || self.is_known(tree) {
            return Ok(false);
        }
        if let Some((_, ours)) = hint.filter(|(earlier, _)| *earlier == tree) {
            let size = Tree::load(self.store, ours)?.size();
            self.window.found.insert(tree, Known { ours, size, follows: self.map.find(tree).is_none() });
            return Ok(false);
        }
        Ok(self.window.listed.insert(tree))
    }

    /// Notes what a tree names: its files, and on the next level its folders.
    fn note_entries(
        &mut self,
        tree: GitId,
        raw: &[u8],
        beneath: &[(Vec<u8>, Hint)],
        level: &mut Vec<(GitId, Option<Hint>)>,
    ) -> Result<(), VersionError> {
        for entry in entries(raw) {
            let entry = entry.map_err(|reason| failed(&self.source.place, format!("tree {tree} is damaged: {reason}")))?;
            match entry.names() {
                Names::Folder if self.window.listed.contains(&entry.id) => {}
                Names::Folder => {
                    let hint = beneath.iter().find(|(name, _)| name == entry.name).map(|(_, hint)| *hint);
                    level.push((entry.id, hint));
                }
                Names::File(_) => self.note_blob(entry.id),
                Names::Submodule => {}
            }
        }
        Ok(())
    }

    fn too_deep(&self, tree: GitId) -> VersionError {
        failed(&self.source.place, format!("folders in tree {tree} are nested deeper than {MAX_DEPTH}"))
    }

    /// Notes a blob.
    pub(super) fn note_blob(&mut self, blob: GitId) {
        if !self.window.listed_blobs.contains(&blob) && !self.is_known(blob) {
            self.window.listed_blobs.insert(blob);
            self.window.blobs.push(blob);
        }
    }

    /// What a noted tree or blob became, once the window is converted.
    pub(super) fn converted(&self, id: GitId) -> Known {
        self.window.found[&id]
    }

    /// Begins the next window.
    pub(super) fn close_window(&mut self) {
        for (id, known) in std::mem::take(&mut self.window).found {
            self.remembered.insert(id, known, 1);
        }
    }

    fn is_known(&mut self, id: GitId) -> bool {
        if self.window.found.contains_key(&id) {
            return true;
        }
        // Taken into the window: what is remembered may be forgotten before the window is converted.
        let known = self.remembered.get(&id);
        known.is_some_and(|known| self.window.found.insert(id, known).is_none())
    }

    /// Remembers what a tree converted earlier says about its entries, and returns its folders with what they became.
    fn learn(&mut self, (git, ours): Hint) -> Result<Vec<(Vec<u8>, Hint)>, VersionError> {
        let raw = self.read_again(git, Kind::Tree)?;
        let tree = Tree::load(self.store, ours)?;
        let (mut folders, mut seen) = (Vec::new(), std::collections::HashSet::new());
        for entry in entries(&raw).filter_map(Result::ok) {
            let Some(known) = tree.get(entry.name).filter(|_| seen.insert(entry.name)) else { continue };
            let is_folder = entry.names() == Names::Folder;
            if is_folder != (known.mode == FileMode::Directory) || entry.names() == Names::Submodule {
                continue;
            }
            if is_folder {
                folders.push((entry.name.to_vec(), (entry.id, known.id)));
            }
            let follows = !is_folder || self.map.find(entry.id).is_none();
            self.window.found.insert(entry.id, Known { ours: known.id, size: known.size, follows });
        }
        Ok(folders)
    }

    /// Converts what was noted. Rows for what does not follow go into `changes`.
    pub(super) fn convert(&mut self, changes: &mut MapChanges) -> Result<(), VersionError> {
        let blobs = std::mem::take(&mut self.window.blobs);
        let found = self.read_all(blobs, Kind::Blob, |bytes, sink| {
            let object = NewObject::new(bytes);
            let known = Known { ours: object.id(), size: object.bytes().len() as u64, follows: true };
            sink.put(object)?;
            Ok(known)
        })?;
        self.window.found.extend(found);
        for root in std::mem::take(&mut self.window.roots) {
            self.convert_tree(root, 0, changes)?;
        }
        Ok(())
    }

    /// Reads objects in the order of the packs, on several threads where they are many. Each thread has a stretch of the packs for
    /// itself, because neighbours are stored as differences from each other.
    fn read_all<T: Send>(
        &mut self,
        mut ids: Vec<GitId>,
        kind: Kind,
        take: impl Fn(Bytes, &mut Sink) -> Result<T, VersionError> + Sync,
    ) -> Result<Vec<(GitId, T)>, VersionError> {
        self.objects += ids.len() as u64;
        ids.sort_by_cached_key(|id| self.source.position(*id));
        let threads = (ids.len() / OBJECTS_PER_THREAD).clamp(1, self.readers.len());
        let read = |ids: &[GitId], reader: &mut Reader, sink: &mut Sink| -> Result<Vec<(GitId, T)>, VersionError> {
            let found =
                ids.iter().map(|id| Ok((*id, take(reader.read(*id, kind)?, sink)?))).collect::<Result<_, VersionError>>()?;
            sink.flush()?;
            Ok(found)
        };
        let stretch = ids.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let mut stretches = ids.chunks(stretch).zip(&mut self.readers);
            let own = stretches.next();
            let started: Vec<_> = stretches
                .map(|(stretch, reader)| {
                    let (mut sink, read) = (self.sink.another(), &read);
                    scope.spawn(move || read(stretch, reader, &mut sink))
                })
                .collect();
            let mut found = own.map_or(Ok(Vec::new()), |(stretch, reader)| read(stretch, reader, &mut self.sink))?;
            for thread in started {
                found.extend(thread.join().expect("reading objects does not panic")?);
            }
            Ok(found)
        })
    }

    /// Converts a tree that was noted and is not converted yet, and before it what it names.
    fn convert_tree(&mut self, id: GitId, depth: usize, changes: &mut MapChanges) -> Result<(), VersionError> {
        let Some(raw) = self.window.trees.remove(&id) else { return Ok(()) };
        if depth >= MAX_DEPTH {
            return Err(self.too_deep(id));
        }
        let listed: Vec<RawEntry<'_>> = entries(&raw).filter_map(Result::ok).collect();
        for entry in listed.iter().filter(|entry| entry.names() == Names::Folder) {
            self.convert_tree(entry.id, depth + 1, changes)?;
        }
        let (mut ours, mut residue) = (Vec::with_capacity(listed.len()), Vec::new());
        let has_twins = has_twins(&listed);
        let (mut last, mut in_order) = (None, !has_twins);
        for entry in &listed {
            let place = (entry.name, entry.names());
            in_order &= last.is_none_or(|last| git_order(last, place).is_lt());
            last = Some(place);
            let is_twin = has_twins && ours.iter().any(|other: &EntryRef<'_>| other.name == entry.name);
            let taken = entry.is_safe() && !is_twin;
            if !self.take_entry(entry, taken, &mut ours, changes) {
                push(&mut residue, entry.mode, entry.name, entry.id);
            }
        }
        ours.sort_unstable_by_key(|entry| entry.name);
        let size = ours.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size));
        let object = encode(ours.into_iter());
        let follows = in_order && residue.is_empty();
        if !follows {
            // The first byte: whether the entries that follow are all there are.
            let extra = if in_order { [&[0], residue.as_slice()].concat() } else { [&[1], raw.as_ref()].concat() };
            changes.rows.push(Row { git: id, ours: object.id(), kind: Kind::Tree, extra: Some(Bytes::from(extra)) });
        }
        self.window.found.insert(id, Known { ours: object.id(), size, follows });
        self.put(object)
    }

    /// Takes an entry into our tree where that can hold it. Returns whether the entry follows from ours.
    fn take_entry<'e>(&self, entry: &RawEntry<'e>, taken: bool, ours: &mut Vec<EntryRef<'e>>, changes: &mut MapChanges) -> bool {
        let mode = match entry.names() {
            Names::File(mode) => mode,
            Names::Folder => FileMode::Directory,
            Names::Submodule => return false,
        };
        let known = self.window.found[&entry.id];
        if mode == FileMode::Directory && known.ours == self.empty {
            // A folder without files is in no tree that is made of a working folder either.
            return false;
        }
        if taken {
            ours.push(EntryRef { name: entry.name, mode, size: known.size, id: known.ours });
        } else {
            // No tree of ours names it, so the map does.
            changes.keep(entry.id, mode, known.size, known.ours);
            if known.follows {
                let kind = if mode == FileMode::Directory { Kind::Tree } else { Kind::Blob };
                let extra = (kind == Kind::Tree).then(|| Bytes::from_static(&[0]));
                changes.rows.push(Row { git: entry.id, ours: known.ours, kind, extra });
            }
        }
        taken && known.follows && entry.has_canonical_mode()
    }
}

/// Whether a name occurs twice, which git does not make.
fn has_twins(listed: &[RawEntry<'_>]) -> bool {
    if listed.windows(2).all(|pair| pair[0].name < pair[1].name) {
        return false;
    }
    let mut names: Vec<&[u8]> = listed.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}
