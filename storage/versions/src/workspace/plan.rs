//! What moving a folder to another tree takes, and what it would lose.
//!
//! Three trees are walked side by side: what the folder holds, the base it started from, and the tree it is to have. Nothing is
//! touched here. Folders that are the same where it matters are not entered.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use helix_objects::ObjectStore;
use helix_protocol::{FileMode, ObjectId, SkipReason};

use super::index::{Entry, FolderKey, Index, Known};
use super::stat_cache::FileStat;
use super::working_folder::{Conflict, ConflictKind};
use crate::VersionError;
use crate::names::is_outside;
use crate::read::push_name;
use crate::tree::{MAX_DEPTH, Tree, TreeEntry};

/// What happens to what is in no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The folder becomes the tree; what is not in it goes.
    Exactly,
    /// What either tree has becomes the new tree's.
    Discard,
    /// As `Discard`, where nothing is lost by it.
    Keep,
}

/// The steps, each list in the order in which it is done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files and links that go, with what they looked like.
    pub(super) removals: Vec<(Vec<u8>, Option<FileStat>)>,
    /// Folders that go with all that is in them, since something else takes their name.
    pub(super) clearings: Vec<Vec<u8>>,
    /// Folders that go if nothing is left in them, the deepest first.
    pub(super) prunings: Vec<Vec<u8>>,
    /// Folders that are needed.
    pub(super) folders: Vec<Vec<u8>>,
    pub(super) writes: Vec<Write>,
    pub(super) conflicts: Vec<Conflict>,
    /// Files that were looked at and are right.
    pub(super) kept: u64,
    /// Paths that the tree has and nobody can write any more: their content was purged.
    pub(super) left_out: Vec<Vec<u8>>,
}

/// A file or link to be written.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) path: Vec<u8>,
    pub(super) entry: TreeEntry,
    pub(super) over: Over,
}

/// What is at a path that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing that is carried.
    Nothing,
    /// A file that looked like this.
    File(FileStat),
    /// A file with the right content and the wrong mode.
    Mode(FileStat),
    /// Something else.
    Other,
}

/// Where the three trees meet.
pub(super) struct Planner<'a> {
    pub(super) index: &'a Index,
    pub(super) skipped: &'a BTreeMap<Vec<u8>, (SkipReason, u64)>,
    pub(super) store: &'a dyn ObjectStore,
    pub(super) manner: Manner,
    /// What was purged and is not back.
    pub(super) gone: HashSet<ObjectId>,
    pub(super) path: Vec<u8>,
    pub(super) plan: Plan,
}

impl Plan {
    /// Has the folders go that are above what goes and of which nothing is left, as git does it.
    pub(super) fn prune_above(&mut self) {
        let needed: HashSet<&[u8]> = self.writes.iter().flat_map(|write| folders_above(&write.path)).collect();
        let above = self.removals.iter().flat_map(|(path, _)| folders_above(path));
        let emptied: BTreeSet<&[u8]> = above.filter(|folder| !needed.contains(folder)).collect();
        let deepest_first = emptied.into_iter().rev().map(<[u8]>::to_vec);
        self.prunings.extend(deepest_first);
    }
}

/// The folders that a path is in, the outermost first.
fn folders_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(cut, _)| &path[..cut])
}

impl Planner<'_> {
    /// The folders above a path are needed where it is written.
    pub(super) fn need_parents(&mut self, path: &[u8]) {
        for folder in folders_above(path) {
            match self.index.entry(folder) {
                Some(Entry::Folder(_)) => {}
                held => {
                    self.path = folder.to_owned();
                    if held.is_some() {
                        self.remove(held);
                    }
                    self.plan.folders.push(folder.to_owned());
                }
            }
        }
        self.path.clear();
    }

    /// The steps in their order.
    pub(super) fn finish(self) -> Plan {
        let mut plan = self.plan;
        plan.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        plan
    }

    /// Plans one folder: what it holds, the base's tree of it and the new one.
    pub(super) fn folder(
        &mut self,
        held: Option<FolderKey>,
        base: Option<ObjectId>,
        tree: Option<ObjectId>,
        depth: usize,
    ) -> Result<(), VersionError> {
        if self.is_settled(held, base, tree) {
            return Ok(());
        }
        let (base, tree) = (self.load(base, depth)?, self.load(tree, depth)?);
        let index = self.index;
        let entries = held.map(|key| &index.folder(key).entries);
        let mut names: BTreeSet<&[u8]> = entries.into_iter().flatten().map(|(name, _)| &**name).collect();
        names.extend(base.entries().iter().chain(tree.entries()).map(|entry| entry.name.as_slice()));
        for name in names.into_iter().filter(|name| !is_outside(name)) {
            let length = push_name(&mut self.path, name);
            self.name(entries.and_then(|entries| entries.get(name)), base.get(name), tree.get(name), depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn load(&self, id: Option<ObjectId>, depth: usize) -> Result<Tree, VersionError> {
        match id {
            Some(id) if depth >= MAX_DEPTH => {
                Err(VersionError::Damaged { id, expected: "tree", reason: "folders are nested too deep" })
            }
            Some(id) => Tree::load(self.store, id),
            None => Ok(Tree::default()),
        }
    }

    /// Whether nothing in a folder needs to be done or can be lost.
    fn is_settled(&self, held: Option<FolderKey>, base: Option<ObjectId>, tree: Option<ObjectId>) -> bool {
        if self.manner == Manner::Keep && base == tree {
            return true;
        }
        let known = match held.map(|key| self.index.folder(key).known) {
            Some(Known::Tree { id, .. }) => Some(id),
            Some(Known::Empty | Known::Changed) | None => None,
        };
        known.is_some() && known == tree && !self.skips_beneath()
    }

    /// Whether something beneath is other than the index says, since it cannot be carried.
    fn skips_beneath(&self) -> bool {
        if self.path.is_empty() || self.skipped.is_empty() {
            return !self.skipped.is_empty();
        }
        let start = [self.path.as_slice(), b"/"].concat();
        self.skipped.range(start.clone()..).next().is_some_and(|(path, _)| path.starts_with(&start))
    }

    /// Plans one path.
    pub(super) fn name(
        &mut self,
        held: Option<&Entry>,
        base: Option<&TreeEntry>,
        tree: Option<&TreeEntry>,
        depth: usize,
    ) -> Result<(), VersionError> {
        let same = |a: &TreeEntry, b: &TreeEntry| (a.mode, a.id) == (b.mode, b.id);
        let untracked = base.is_none() && tree.is_none() && self.manner != Manner::Exactly;
        if untracked || self.manner == Manner::Keep && base.zip(tree).is_some_and(|(base, tree)| same(base, tree)) {
            return Ok(());
        }
        // What was purged counts as not there, unless the folder still has it.
        let has = |entry: &TreeEntry| held.and_then(|held| self.leaf_content(held)).is_some_and(|(_, id)| id == entry.id);
        let is_gone = tree.is_some_and(|tree| self.gone.contains(&tree.id) && !has(tree));
        let tree = tree.filter(|_| !is_gone);
        if is_gone {
            self.plan.left_out.push(self.path.clone());
        }
        let is_folder = |entry: &&TreeEntry| entry.mode == FileMode::Directory;
        let (base_folder, tree_folder) = (base.filter(is_folder).map(|entry| entry.id), tree.filter(is_folder));
        let base_leaf = base.filter(|entry| !is_folder(entry));
        let held_folder = match held {
            Some(Entry::Folder(key)) => Some(*key),
            _ => None,
        };
        let held_leaf = held.filter(|_| held_folder.is_none());
        match (tree, tree_folder) {
            (Some(_), Some(wanted)) => {
                if held_leaf.is_some() || self.is_skipped() {
                    self.displace(held_leaf, base_leaf);
                }
                if held_folder.is_none() {
                    self.plan.folders.push(self.path.clone());
                }
                self.folder(held_folder, base_folder, Some(wanted.id), depth + 1)
            }
            (Some(wanted), None) => match held_folder {
                Some(folder) => {
                    self.displace_folder(folder, base_folder, depth + 1)?;
                    self.plan.clearings.push(self.path.clone());
                    self.write(wanted, Over::Nothing);
                    Ok(())
                }
                None => {
                    self.leaf(held_leaf, base_leaf, wanted);
                    Ok(())
                }
            },
            (None, _) => {
                if held_leaf.is_some() || self.is_skipped() {
                    self.unwanted(held_leaf, base_leaf);
                }
                if held_folder.is_some() || base_folder.is_some() {
                    self.folder(held_folder, base_folder, None, depth + 1)?;
                    self.plan.prunings.push(self.path.clone());
                }
                Ok(())
            }
        }
    }

    /// Whether what lies in the folder can be had again from the base.
    fn is_safe(&self, content: Option<(FileMode, ObjectId)>, base: Option<&TreeEntry>) -> bool {
        base.is_some_and(|base| content == Some((base.mode, base.id)) && !self.gone.contains(&base.id))
    }

    /// A path that the new tree has as a file or link.
    fn leaf(&mut self, held: Option<&Entry>, base: Option<&TreeEntry>, wanted: &TreeEntry) {
        let content = held.and_then(|held| self.leaf_content(held));
        if content == Some((wanted.mode, wanted.id)) {
            self.plan.kept += 1;
            return;
        }
        let unchanged = match (held, base) {
            (None, _) => !self.is_skipped(),
            (Some(_), base) => self.is_safe(content, base),
        };
        if self.manner == Manner::Keep && !unchanged {
            return self.conflict(base);
        }
        let over = match held {
            None => Over::Nothing,
            Some(Entry::File(file)) if file.id == wanted.id && wanted.mode != FileMode::Symlink => Over::Mode(file.stat),
            Some(Entry::File(file)) => Over::File(file.stat),
            Some(_) => Over::Other,
        };
        self.write(wanted, over);
    }

    fn write(&mut self, wanted: &TreeEntry, over: Over) {
        self.plan.writes.push(Write { path: self.path.clone(), entry: wanted.clone(), over });
    }

    /// A path that the new tree does not have.
    fn unwanted(&mut self, held: Option<&Entry>, base: Option<&TreeEntry>) {
        let content = held.and_then(|held| self.leaf_content(held));
        match (self.manner, base) {
            (Manner::Discard | Manner::Keep, None) => {}
            (Manner::Exactly | Manner::Discard, _) => self.remove(held),
            (Manner::Keep, base) if self.is_safe(content, base) => self.remove(held),
            (Manner::Keep, _) => self.conflict(base),
        }
    }

    /// A file or link whose name is needed for a folder.
    fn displace(&mut self, held: Option<&Entry>, base: Option<&TreeEntry>) {
        let content = held.and_then(|held| self.leaf_content(held));
        if self.manner == Manner::Keep && !self.is_safe(content, base) {
            return self.conflict(base);
        }
        self.remove(held);
    }

    /// A folder whose name is needed for a file.
    fn displace_folder(&mut self, held: FolderKey, base: Option<ObjectId>, depth: usize) -> Result<(), VersionError> {
        if self.manner != Manner::Keep {
            return Ok(());
        }
        let base = self.load(base, depth)?;
        let index = self.index;
        for (name, entry) in &index.folder(held).entries {
            let length = push_name(&mut self.path, name);
            let there = base.get(name);
            match entry {
                Entry::Folder(inner) => {
                    let id = there.filter(|entry| entry.mode == FileMode::Directory).map(|entry| entry.id);
                    self.displace_folder(*inner, id, depth + 1)?;
                }
                leaf => {
                    let content = self.leaf_content(leaf);
                    if !self.is_safe(content, there) {
                        self.conflict(there);
                    }
                }
            }
            self.path.truncate(length);
        }
        let start = [self.path.as_slice(), b"/"].concat();
        let beneath = self.skipped.range(start.clone()..).map(|(path, _)| path).take_while(|path| path.starts_with(&start));
        let lost = beneath.map(|path| Conflict { path: path.clone(), kind: ConflictKind::Untracked });
        let known: BTreeSet<Vec<u8>> = self.plan.conflicts.iter().map(|conflict| conflict.path.clone()).collect();
        self.plan.conflicts.extend(lost.filter(|conflict| !known.contains(&conflict.path)));
        Ok(())
    }

    fn remove(&mut self, held: Option<&Entry>) {
        let stat = match held {
            Some(Entry::File(file)) => Some(file.stat),
            _ => None,
        };
        self.plan.removals.push((self.path.clone(), stat));
    }

    fn conflict(&mut self, base: Option<&TreeEntry>) {
        let kind = if base.is_some() { ConflictKind::LocalChange } else { ConflictKind::Untracked };
        self.plan.conflicts.push(Conflict { path: self.path.clone(), kind });
    }

    fn is_skipped(&self) -> bool {
        self.skipped.contains_key(&self.path)
    }

    /// What a file or link is; none where that is not what is there.
    fn leaf_content(&self, entry: &Entry) -> Option<(FileMode, ObjectId)> {
        match entry {
            Entry::File(file) => Some((file.mode(), file.id)),
            Entry::Link { id, .. } => Some((FileMode::Symlink, *id)),
            Entry::Kept { .. } | Entry::Folder(_) => None,
        }
    }
}
