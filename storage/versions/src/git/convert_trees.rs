//! Git trees and blobs as ours, many commits at a time.
//!
//! One window of commits: first their trees are read, each once, and what is new in them noted; then the new blobs are
//! read in the order of the packs by several threads; then our trees are made, children first. What was converted before is
//! remembered up to a limit, and converted again where it was forgotten.

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
use crate::tree::MAX_DEPTH;
use crate::{Tree, TreeEntry, VersionError};

/// How many conversions are remembered.
const REMEMBERED: usize = 2 << 20;
/// How many bytes of trees a window holds at most.
pub(super) const WINDOW_BYTES: usize = 64 << 20;
/// A thread of its own is worth it from this many blobs on.
const BLOBS_PER_THREAD: usize = 64;

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
    reader: Reader,
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
    /// Children before parents.
    trees: Vec<(GitId, Vec<u8>)>,
    listed: IdSet<GitId>,
    bytes: usize,
    blobs: Vec<GitId>,
    found: IdMap<GitId, Known>,
}

impl<'a> Converter<'a> {
    pub(super) fn new(store: &'a dyn ObjectStore, source: &'a Source, map: &'a GitMap, sink: Sink) -> Self {
        let (remembered, empty) = (BoundedMap::new(REMEMBERED), Tree::default().encode().id());
        Self { store, source, map, reader: source.reader(), sink, remembered, window: Window::default(), empty, objects: 0 }
    }

    /// Reads a commit or a tag.
    pub(super) fn read(&mut self, id: GitId, kind: Kind) -> Result<Vec<u8>, VersionError> {
        self.objects += 1;
        self.read_again(id, kind)
    }

    /// As [`read`](Self::read), of what was counted before.
    pub(super) fn read_again(&mut self, id: GitId, kind: Kind) -> Result<Vec<u8>, VersionError> {
        self.reader.read(id, kind)?;
        Ok(self.reader.take())
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
        self.window.bytes >= WINDOW_BYTES
    }

    /// Notes a tree with everything in it that is new. With a hint, what the hint's trees share with it is not read.
    pub(super) fn note_tree(&mut self, tree: GitId, hint: Option<Hint>) -> Result<(), VersionError> {
        self.note_at(tree, hint, 0)
    }

    /// Notes a blob.
    pub(super) fn note_blob(&mut self, blob: GitId) {
        if !self.is_known(blob) && self.window.listed.insert(blob) {
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

    fn note_at(&mut self, tree: GitId, hint: Option<Hint>, depth: usize) -> Result<(), VersionError> {
        if depth >= MAX_DEPTH {
            return Err(failed(&self.source.place, format!("folders in tree {tree} are nested deeper than {MAX_DEPTH}")));
        }
        if self.is_known(tree) {
            return Ok(());
        }
        if let Some((_, ours)) = hint.filter(|(earlier, _)| *earlier == tree) {
            let size = Tree::load(self.store, ours)?.size();
            self.window.found.insert(tree, Known { ours, size, follows: self.map.find(tree).is_none() });
            return Ok(());
        }
        if !self.window.listed.insert(tree) {
            return Ok(());
        }
        let beneath = hint.map(|hint| self.learn(hint)).transpose()?.unwrap_or_default();
        let raw = self.read(tree, Kind::Tree)?;
        for entry in entries(&raw) {
            let entry = entry.map_err(|reason| failed(&self.source.place, format!("tree {tree} is damaged: {reason}")))?;
            match entry.names() {
                Names::Folder => {
                    let hint = beneath.iter().find(|(name, _)| name == entry.name).map(|(_, hint)| *hint);
                    self.note_at(entry.id, hint, depth + 1)?;
                }
                Names::File(_) => self.note_blob(entry.id),
                Names::Submodule => {}
            }
        }
        self.window.bytes += raw.len();
        self.window.trees.push((tree, raw));
        Ok(())
    }

    /// Remembers what a tree converted earlier says about its entries, and returns its folders with what they became.
    fn learn(&mut self, (git, ours): Hint) -> Result<Vec<(Vec<u8>, Hint)>, VersionError> {
        let raw = self.reader.read(git, Kind::Tree)?.to_vec();
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
        self.convert_blobs()?;
        for (id, raw) in std::mem::take(&mut self.window.trees) {
            let known = self.convert_tree(id, raw, changes)?;
            self.window.found.insert(id, known);
        }
        Ok(())
    }

    fn convert_blobs(&mut self) -> Result<(), VersionError> {
        let mut blobs = std::mem::take(&mut self.window.blobs);
        self.objects += blobs.len() as u64;
        blobs.sort_by_cached_key(|blob| self.source.position(*blob));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (blobs.len() / BLOBS_PER_THREAD).clamp(1, cores);
        let read = |blobs: &[GitId], reader: &mut Reader, sink: &mut Sink| -> Result<Vec<Known>, VersionError> {
            let mut found = Vec::with_capacity(blobs.len());
            for blob in blobs {
                reader.read(*blob, Kind::Blob)?;
                let object = NewObject::new(Bytes::from(reader.take()));
                found.push(Known { ours: object.id(), size: object.bytes().len() as u64, follows: true });
                sink.put(object)?;
            }
            sink.flush()?;
            Ok(found)
        };
        // Each thread has a stretch of the packs for itself, because neighbours are stored as differences from each other.
        let stretch = blobs.len().div_ceil(threads).max(1);
        let found = std::thread::scope(|scope| {
            let mut stretches = blobs.chunks(stretch);
            let own = stretches.next().unwrap_or_default();
            let started: Vec<_> = stretches
                .map(|stretch| {
                    let (mut reader, mut sink) = (self.source.reader(), self.sink.another());
                    scope.spawn(move || read(stretch, &mut reader, &mut sink))
                })
                .collect();
            let mut found = read(own, &mut self.reader, &mut self.sink)?;
            for thread in started {
                found.extend(thread.join().expect("reading blobs does not panic")?);
            }
            Ok::<_, VersionError>(found)
        })?;
        self.window.found.extend(blobs.into_iter().zip(found));
        Ok(())
    }

    fn convert_tree(&mut self, id: GitId, raw: Vec<u8>, changes: &mut MapChanges) -> Result<Known, VersionError> {
        let (mut ours, mut residue) = (Vec::new(), Vec::new());
        let listed: Vec<RawEntry<'_>> = entries(&raw).filter_map(Result::ok).collect();
        let mut names: Vec<&[u8]> = listed.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        let has_twins = names.windows(2).any(|pair| pair[0] == pair[1]);
        let (mut last, mut in_order) = (None, !has_twins);
        ours.reserve_exact(listed.len());
        for entry in &listed {
            let place = (entry.name, entry.names());
            in_order &= last.is_none_or(|last| git_order(last, place).is_lt());
            last = Some(place);
            let is_twin = has_twins && ours.iter().any(|other: &TreeEntry| other.name == entry.name);
            let taken = entry.is_safe() && !is_twin;
            if !self.take_entry(entry, taken, &mut ours, changes) {
                push(&mut residue, entry.mode, entry.name, entry.id);
            }
        }
        let tree = Tree::new(ours)?;
        let object = tree.encode();
        let follows = in_order && residue.is_empty();
        if !follows {
            // The first byte: whether the entries that follow are all there are.
            let extra = if in_order { [&[0], residue.as_slice()].concat() } else { [&[1], raw.as_slice()].concat() };
            changes.rows.push(Row { git: id, ours: object.id(), kind: Kind::Tree, extra: Some(Bytes::from(extra)) });
        }
        let known = Known { ours: object.id(), size: tree.size(), follows };
        self.put(object)?;
        Ok(known)
    }

    /// Takes an entry into our tree where that can hold it. Returns whether the entry follows from ours.
    fn take_entry(&self, entry: &RawEntry<'_>, taken: bool, ours: &mut Vec<TreeEntry>, changes: &mut MapChanges) -> bool {
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
            ours.push(TreeEntry { name: entry.name.to_vec(), mode, size: known.size, id: known.ours });
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
