//! Our trees and files as git's objects, added to a pack.
//!
//! A tree becomes the one git tree that git itself would make of such a folder: folders without files are left out, as are names
//! that git refuses. Where the map says that a git tree held more or other entries (submodules, old modes), those are put in again,
//! and the result must have the id it had. What the repository is known to have is neither read nor written.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::hashtable::{HashMap as IdMap, HashSet as IdSet};
use gix::objs::Kind;
use helix_objects::RecordStore;
use helix_protocol::{FileMode, ObjectId};

use super::bounded::BoundedMap;
use super::convert_trees::Hint;
use super::id_hash::IdHash;
use super::map::GitMap;
use super::pack_writer::PackWriter;
use super::read_ahead::ReadAhead;
use super::segment::Row;
use super::source::{Reader, git_id};
use super::tree_text::{Names, RawEntry, entries, git_order, mode_digits, push};
use crate::names::leads_into_git;
use crate::read::{check_depth, gone};
use crate::tree::MAX_DEPTH;
use crate::{Tree, TreeEntry, VersionError};

/// How many conversions are remembered.
const REMEMBERED: usize = 2 << 20;
/// Bytes of decoded trees, and of objects that later ones may resemble.
const TREES_BYTES: usize = 32 << 20;
const RECENT_BYTES: usize = 96 << 20;

/// See the module.
pub(super) struct GitObjects<'a> {
    store: &'a dyn RecordStore,
    pub(super) map: &'a GitMap,
    pub(super) pack: PackWriter,
    /// What was read before it is asked for.
    pub(super) ahead: Option<ReadAhead>,
    /// Reads what the repository has; `None` where it has nothing.
    reader: Option<Reader>,
    /// What the repository's refs reach already, as far as it was looked at, and the trees that were looked at.
    present: IdSet<GitId>,
    learnt: IdSet<GitId>,
    blobs: BoundedMap<ObjectId, GitId, IdHash>,
    /// `None`: the folder holds no files.
    folders: BoundedMap<ObjectId, Option<GitId>, IdHash>,
    trees: BoundedMap<ObjectId, Arc<Tree>, IdHash>,
    recent: BoundedMap<GitId, Bytes, gix::hashtable::hash::Builder>,
    /// Trees made here that do not follow from ours.
    pub(super) rows: IdMap<GitId, Row>,
    /// What was purged and is not back.
    gone: HashSet<ObjectId>,
    /// What of it was left out, and the folders of ours that git gets without something beneath them.
    pub(super) left_out: BTreeSet<ObjectId>,
    altered: HashSet<ObjectId>,
}

/// What a git tree has beside or instead of what follows from ours.
struct Residue {
    /// Whether these are all entries there are.
    complete: bool,
    raw: Bytes,
}

impl<'a> GitObjects<'a> {
    pub(super) fn new(
        store: &'a dyn RecordStore,
        map: &'a GitMap,
        pack: PackWriter,
        reader: Option<Reader>,
    ) -> Result<Self, VersionError> {
        Ok(Self {
            gone: gone(store)?,
            left_out: BTreeSet::new(),
            altered: HashSet::new(),
            store,
            map,
            pack,
            ahead: None,
            reader,
            present: IdSet::default(),
            learnt: IdSet::default(),
            blobs: BoundedMap::new(REMEMBERED),
            folders: BoundedMap::new(REMEMBERED),
            trees: BoundedMap::new(TREES_BYTES),
            recent: BoundedMap::new(RECENT_BYTES),
            rows: IdMap::default(),
        })
    }

    /// Whether git gets this folder without something beneath it that was purged.
    pub(super) fn is_altered(&self, ours: ObjectId) -> bool {
        self.altered.contains(&ours)
    }

    /// Adds an object unless it is there.
    pub(super) fn add(&mut self, kind: Kind, bytes: Bytes, resembles: Option<GitId>) -> Result<GitId, VersionError> {
        let id = git_id(kind, &bytes);
        if !self.present.contains(&id) && !self.pack.has(id) {
            let base = resembles.filter(|base| *base != id).and_then(|base| Some((base, self.recent.get(&base)?)));
            self.pack.add(id, kind, bytes.clone(), base)?;
            if kind != Kind::Commit {
                let weight = bytes.len() + 64;
                self.recent.insert(id, bytes, weight);
            }
        }
        Ok(id)
    }

    /// A row of the map, or of what was made here.
    pub(super) fn find(&self, git: GitId) -> Option<Row> {
        self.rows.get(&git).cloned().or_else(|| self.map.find(git))
    }

    /// Remembers what a tree that the repository has says about its entries. What is beneath them is looked at when something
    /// beneath differs.
    fn learn(&mut self, (git, ours): Hint) -> Result<(), VersionError> {
        let Some(reader) = self.reader.as_mut().filter(|_| !self.pack.has(git) && self.learnt.insert(git)) else { return Ok(()) };
        let raw = reader.read(git, Kind::Tree)?;
        let tree = self.tree_of(ours)?;
        self.present.insert(git);
        for entry in entries(&raw).filter_map(Result::ok).filter(|entry| entry.names() != Names::Submodule) {
            self.present.insert(entry.id);
            match (entry.names(), tree.get(entry.name)) {
                (Names::Folder, Some(known)) if known.mode == FileMode::Directory && self.find(entry.id).is_none() => {
                    self.folders.insert(known.id, Some(entry.id), 1);
                }
                (Names::File(_), Some(known)) if known.mode != FileMode::Directory => self.blobs.insert(known.id, entry.id, 1),
                _ => {}
            }
        }
        Ok(())
    }

    fn tree_of(&mut self, id: ObjectId) -> Result<Arc<Tree>, VersionError> {
        if let Some(tree) = self.trees.get(&id) {
            return Ok(tree);
        }
        let tree = match self.ahead.as_mut().and_then(|ahead| ahead.folder(id)) {
            Some(tree) => tree,
            None => Arc::new(Tree::load(self.store, id)?),
        };
        let weight = tree.entries().len() * 96 + 64;
        self.trees.insert(id, tree.clone(), weight);
        Ok(tree)
    }

    /// A file's blob.
    pub(super) fn blob(&mut self, ours: ObjectId, resembles: Option<GitId>) -> Result<GitId, VersionError> {
        if let Some(known) = self.blobs.get(&ours) {
            return Ok(known);
        }
        let bytes = match self.ahead.as_mut().and_then(|ahead| ahead.file(ours)) {
            Some(bytes) => bytes,
            None => self.store.read(ours)?,
        };
        let id = self.add(Kind::Blob, bytes, resembles)?;
        self.blobs.insert(ours, id, 1);
        Ok(id)
    }

    /// The git tree of ours: `wanted` where it is known which, else the one that follows. `before` is what stood at the same path
    /// earlier.
    pub(super) fn tree(&mut self, ours: ObjectId, wanted: Option<GitId>, before: Option<Hint>) -> Result<GitId, VersionError> {
        match self.tree_at(ours, wanted, before, 0)? {
            Some(id) => Ok(id),
            None => self.add(Kind::Tree, Bytes::new(), None),
        }
    }

    fn tree_at(
        &mut self,
        ours: ObjectId,
        wanted: Option<GitId>,
        before: Option<Hint>,
        depth: usize,
    ) -> Result<Option<GitId>, VersionError> {
        if let Some(wanted) = wanted {
            if self.present.contains(&wanted) || self.pack.has(wanted) {
                return Ok(Some(wanted));
            }
            if let Some(residue) = self.find(wanted).and_then(|row| residue(&row)) {
                let made = self.build(ours, Some(&residue), before, depth)?;
                return if made == Some(wanted) || self.is_altered(ours) { Ok(made) } else { Err(differs(ours)) };
            }
        }
        if let Some(known) = self.folders.get(&ours) {
            return Ok(known);
        }
        let made = self.build(ours, None, before, depth)?;
        self.folders.insert(ours, made, 1);
        let fits = |wanted: GitId| made == Some(wanted) || (made.is_none() && wanted.is_empty_tree());
        if !wanted.is_none_or(fits) && !self.is_altered(ours) {
            return Err(differs(ours));
        }
        Ok(made)
    }

    fn build(
        &mut self,
        ours: ObjectId,
        residue: Option<&Residue>,
        before: Option<Hint>,
        depth: usize,
    ) -> Result<Option<GitId>, VersionError> {
        check_depth(ours, depth)?;
        if let Some(before) = before {
            self.learn(before)?;
        }
        let tree = self.tree_of(ours)?;
        let earlier = match before {
            Some((_, earlier)) => Some(self.tree_of(earlier)?),
            None => None,
        };
        let listed: Vec<RawEntry<'_>> =
            residue.map(|residue| entries(&residue.raw).filter_map(Result::ok).collect()).unwrap_or_default();
        let overridden = |name: &[u8]| listed.iter().any(|entry| entry.name == name);
        let mut made: Vec<(&[u8], &[u8], Names, GitId)> = Vec::with_capacity(tree.entries().len());
        if residue.is_none_or(|residue| !residue.complete) {
            let wanted = |entry: &TreeEntry| !leads_into_git(&entry.name) && !overridden(&entry.name);
            for (entry, earlier) in tree.beside(earlier.as_deref()).filter(|(entry, _)| wanted(entry)) {
                let found = self.entry(entry, earlier, depth)?;
                if self.altered.contains(&entry.id) || (found.is_none() && entry.mode != FileMode::Directory) {
                    self.altered.insert(ours);
                }
                if let Some(id) = found {
                    let names = if entry.mode == FileMode::Directory { Names::Folder } else { Names::File(entry.mode) };
                    made.push((mode_digits(entry.mode), &entry.name, names, id));
                }
            }
        }
        for entry in &listed {
            self.listed(entry, &tree, depth)?;
            made.push((entry.mode, entry.name, entry.names(), entry.id));
        }
        if residue.is_none_or(|residue| !residue.complete) {
            made.sort_by(|a, b| git_order((a.1, a.2), (b.1, b.2)));
        }
        if made.is_empty() {
            return Ok(None);
        }
        let mut raw = Vec::with_capacity(made.iter().map(|(mode, name, ..)| mode.len() + name.len() + 22).sum());
        made.iter().for_each(|(mode, name, _, id)| push(&mut raw, mode, name, *id));
        self.add(Kind::Tree, Bytes::from(raw), before.map(|(git, _)| git)).map(Some)
    }

    /// The git object of an entry of ours; `None` for a folder without files, and for a file that was purged.
    fn entry(&mut self, entry: &TreeEntry, earlier: Option<&TreeEntry>, depth: usize) -> Result<Option<GitId>, VersionError> {
        let same_kind = |earlier: &&TreeEntry| (earlier.mode == FileMode::Directory) == (entry.mode == FileMode::Directory);
        let earlier = earlier.filter(same_kind).filter(|earlier| earlier.id != entry.id);
        if entry.mode == FileMode::Directory {
            let before = earlier.and_then(|earlier| Some((self.folders.get(&earlier.id)??, earlier.id)));
            self.tree_at(entry.id, None, before, depth + 1)
        } else if self.gone.contains(&entry.id) && self.blobs.get(&entry.id).is_none() {
            self.left_out.insert(entry.id);
            Ok(None)
        } else {
            let resembles = earlier.and_then(|earlier| self.blobs.get(&earlier.id));
            self.blob(entry.id, resembles).map(Some)
        }
    }

    /// Adds what an entry names that does not follow from ours.
    fn listed(&mut self, entry: &RawEntry<'_>, tree: &Tree, depth: usize) -> Result<(), VersionError> {
        let names = entry.names();
        if names == Names::Submodule || self.present.contains(&entry.id) || self.pack.has(entry.id) {
            return Ok(());
        }
        if entry.id.is_empty_tree() {
            return self.add(Kind::Tree, Bytes::new(), None).map(drop);
        }
        let ours = self.find(entry.id).map(|row| row.ours).or_else(|| tree.get(entry.name).map(|entry| entry.id));
        let ours = ours.ok_or_else(|| differs(ObjectId([0; 32])))?;
        let made = match names {
            Names::Folder => self.tree_at(ours, Some(entry.id), None, depth + 1)?,
            _ => Some(self.blob(ours, None)?),
        };
        if made == Some(entry.id) { Ok(()) } else { Err(differs(ours)) }
    }

    /// The git tree of a snapshot made here: what its parent's git tree had that ours cannot say (submodules, old modes) is carried
    /// on where it still fits. Returns it, and whether it follows from ours alone.
    pub(super) fn carried(&mut self, ours: ObjectId, before: Hint) -> Result<(GitId, bool), VersionError> {
        let made = self.carried_at(ours, before, 0)?;
        let id = match made {
            Some(id) => id,
            None => self.add(Kind::Tree, Bytes::new(), None)?,
        };
        Ok((id, self.find(id).is_none_or(|row| residue(&row).is_none())))
    }

    fn carried_at(&mut self, ours: ObjectId, before: Hint, depth: usize) -> Result<Option<GitId>, VersionError> {
        if depth >= MAX_DEPTH {
            return Err(differs(ours));
        }
        let (git, earlier) = before;
        let Some(from) = self.find(git).and_then(|row| residue(&row)) else {
            return self.tree_at(ours, None, Some(before), depth);
        };
        if ours == earlier && !from.complete {
            return self.tree_at(ours, Some(git), None, depth);
        }
        let (tree, earlier) = (self.tree_of(ours)?, self.tree_of(earlier)?);
        let (mut raw, empty) = (Vec::new(), Tree::default().encode().id());
        for entry in entries(&from.raw).filter_map(Result::ok) {
            let (now, then) = (tree.get(entry.name), earlier.get(entry.name));
            match entry.names() {
                // A folder in its place is what git checked out there: the files of another repository.
                Names::Submodule if now.is_none_or(|now| now.mode == FileMode::Directory) => {
                    push(&mut raw, entry.mode, entry.name, entry.id);
                }
                Names::Folder => {
                    let then = then.filter(|then| then.mode == FileMode::Directory).map(|then| then.id);
                    let then = then.or_else(|| self.find(entry.id).map(|row| row.ours));
                    match (now.filter(|now| now.mode == FileMode::Directory), then) {
                        (Some(now), Some(then)) => {
                            let made = self.carried_at(now.id, (entry.id, then), depth + 1)?;
                            if let Some(made) = made.filter(|made| self.find(*made).is_some_and(|row| residue(&row).is_some())) {
                                push(&mut raw, mode_digits(FileMode::Directory), entry.name, made);
                            }
                        }
                        // Nothing of it was ever in ours: a folder of submodules, or one that leads into a store.
                        (None, Some(then)) if now.is_none() && is_own(&entry, then, empty) => {
                            push(&mut raw, entry.mode, entry.name, entry.id);
                        }
                        _ => {}
                    }
                }
                Names::File(_) if leads_into_git(entry.name) || !crate::tree::is_name(entry.name) => {}
                Names::File(_) if !entry.has_canonical_mode() && now.is_some() && now == then => {
                    push(&mut raw, entry.mode, entry.name, entry.id)
                }
                Names::File(_) if now.is_none() && then.is_none() => push(&mut raw, entry.mode, entry.name, entry.id),
                Names::File(_) | Names::Submodule => {}
            }
        }
        if raw.is_empty() {
            return self.tree_at(ours, None, Some(before), depth);
        }
        let carried = Residue { complete: false, raw: Bytes::from(raw) };
        let made = self.build(ours, Some(&carried), Some(before), depth)?;
        if let Some(git) = made {
            let extra = Some(Bytes::from([&[0], carried.raw.as_ref()].concat()));
            self.rows.insert(git, Row { git, ours, kind: Kind::Tree, extra });
        }
        Ok(made)
    }
}

/// Whether a folder of git is kept although ours has none: because it holds no files, or because ours may not have it.
fn is_own(entry: &RawEntry<'_>, ours: ObjectId, empty: ObjectId) -> bool {
    let is_possible = !leads_into_git(entry.name) && crate::tree::is_name(entry.name);
    is_possible && (ours == empty || !entry.is_safe()) && !entry.id.is_empty_tree()
}

fn residue(row: &Row) -> Option<Residue> {
    let extra = row.extra.as_ref().filter(|extra| row.kind == Kind::Tree && extra.len() > 1)?;
    Some(Residue { complete: extra[0] != 0, raw: extra.slice(1..) })
}

fn differs(id: ObjectId) -> VersionError {
    VersionError::Damaged { id, expected: "tree of the git map", reason: "it does not give the git tree it was made from" }
}
