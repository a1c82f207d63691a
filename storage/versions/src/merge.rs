//! Three-way merges of trees: what two lines of work made of one beginning, in one folder.
//!
//! Folders are merged name by name, and a name that only one side touched is that side's. Files that both changed are merged by
//! lines; where the lines cannot be had together, both stand in the file between conflict markers, ours first. What has no lines
//! (binary files, links, a file against a folder, a file that one side removed) stays as one side has it: the changed one where
//! the other removed it, else ours. Each such path is listed.

mod changed_lines;
mod lines;

use helix_objects::{Durability, Mark, NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use crate::read::{check_depth, push_name};
use crate::text::is_binary;
use crate::tree::{Tree, TreeEntry};
use crate::{Unresolved, VersionError, show_path};
use lines::{Labels, MergedText, merge_lines};

/// Longer files are not merged by lines.
const LONGEST_TEXT: u64 = 16 << 20;

/// What came of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The merged folder.
    pub tree: ObjectId,
    /// Sync up to here to have it on disk.
    pub mark: Mark,
    /// Paths where the two could not be had together, in order.
    pub conflicts: Vec<String>,
}

/// A merge that is not stored yet.
pub(crate) struct MergedTree {
    pub(crate) tree: ObjectId,
    /// What of it the store may lack.
    pub(crate) objects: Vec<NewObject>,
    /// Paths where the two could not be had together, in order.
    pub(crate) unresolved: Vec<Unresolved>,
}

/// Merges what became of `base` in `ours` and in `theirs` into one tree, stored unsynced. The labels stand at the conflict
/// markers.
pub fn merge(
    store: &dyn ObjectStore,
    base: ObjectId,
    ours: (ObjectId, &str),
    theirs: (ObjectId, &str),
) -> Result<Merged, VersionError> {
    let MergedTree { tree, objects, unresolved } = merge_trees(store, base, ours, theirs)?;
    let mark = store.put(&objects, Durability::NoSync)?;
    Ok(Merged { tree, mark, conflicts: unresolved.iter().map(|path| show_path(&path.path)).collect() })
}

/// As [`merge`], without storing anything.
pub(crate) fn merge_trees(
    store: &dyn ObjectStore,
    base: ObjectId,
    ours: (ObjectId, &str),
    theirs: (ObjectId, &str),
) -> Result<MergedTree, VersionError> {
    merge_at_depth(store, base, (ours.0, theirs.0), (ours.1, theirs.1), 0)
}

/// Merges two ancestors into one that others are merged over. What cannot be had together is as it was before both.
pub(crate) fn merge_ancestors(
    store: &dyn ObjectStore,
    base: ObjectId,
    both: (ObjectId, ObjectId),
    depth: usize,
) -> Result<MergedTree, VersionError> {
    merge_at_depth(store, base, both, ("Temporary merge branch 1", "Temporary merge branch 2"), depth)
}

fn merge_at_depth(
    store: &dyn ObjectStore,
    base: ObjectId,
    (ours, theirs): (ObjectId, ObjectId),
    labels: (&str, &str),
    depth: usize,
) -> Result<MergedTree, VersionError> {
    let labels = Labels { ours: labels.0, theirs: labels.1, longer: 2 * depth };
    let mut merge = Merge {
        store,
        labels,
        among_ancestors: depth > 0,
        empty_folder: Tree::default().encode().id(),
        new: Vec::new(),
        unresolved: Vec::new(),
        path: Vec::new(),
    };
    let sides = Sides { base: Some(base), ours: Some(ours), theirs: Some(theirs) };
    let tree = match decided(sides) {
        Some(tree) => tree.expect("each side has a root"),
        None => merge.folder(sides, 0)?.0,
    };
    Ok(MergedTree { tree, objects: merge.new, unresolved: merge.unresolved })
}

/// The hunks in which two texts differ, by lines.
pub(crate) fn changed_lines_of(old: &[u8], new: &[u8]) -> Vec<changed_lines::Hunk> {
    let mut interner = changed_lines::Interner::default();
    let (old, new) = (interner.lines(old), interner.lines(new));
    changed_lines::changed_lines(&old.numbers, &new.numbers)
}

/// One thing on three sides.
#[derive(Clone, Copy)]
struct Sides<T> {
    base: T,
    ours: T,
    theirs: T,
}

impl<T> Sides<T> {
    fn map<U>(self, mut f: impl FnMut(T) -> U) -> Sides<U> {
        Sides { base: f(self.base), ours: f(self.ours), theirs: f(self.theirs) }
    }
}

/// The answer where at most one side changed something, or both the same.
fn decided<T: PartialEq>(sides: Sides<T>) -> Option<T> {
    let Sides { base, ours, theirs } = sides;
    if ours == theirs || base == theirs {
        Some(ours)
    } else if base == ours {
        Some(theirs)
    } else {
        None
    }
}

struct Merge<'a> {
    store: &'a dyn ObjectStore,
    labels: Labels<'a>,
    among_ancestors: bool,
    empty_folder: ObjectId,
    new: Vec<NewObject>,
    unresolved: Vec<Unresolved>,
    path: Vec<u8>,
}

type Found<'a> = Sides<Option<&'a TreeEntry>>;

impl Merge<'_> {
    /// Merges three folders, of which some may not exist, and answers with the tree and its size.
    fn folder(&mut self, sides: Sides<Option<ObjectId>>, depth: usize) -> Result<(ObjectId, u64, bool), VersionError> {
        let load = |id: Option<ObjectId>| match id {
            Some(id) => check_depth(id, depth).and_then(|()| Tree::load(self.store, id)),
            None => Ok(Tree::default()),
        };
        let trees = Sides { base: load(sides.base)?, ours: load(sides.ours)?, theirs: load(sides.theirs)? };
        let mut names: Vec<&[u8]> = [&trees.base, &trees.ours, &trees.theirs]
            .iter()
            .flat_map(|tree| tree.entries())
            .map(|entry| entry.name.as_slice())
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let length = push_name(&mut self.path, name);
            let found = Sides { base: trees.base.get(name), ours: trees.ours.get(name), theirs: trees.theirs.get(name) };
            entries.extend(self.entry(found, depth)?.map(|entry| TreeEntry { name: name.to_vec(), ..entry }));
            self.path.truncate(length);
        }
        let tree = Tree::new(entries)?;
        let (object, size, empty) = (tree.encode(), tree.size(), tree.entries().is_empty());
        let id = object.id();
        self.new.push(object);
        Ok((id, size, empty))
    }

    /// Files and folders of one name are merged apart: only where both are left is one in the other's way.
    fn entry(&mut self, found: Found<'_>, depth: usize) -> Result<Option<TreeEntry>, VersionError> {
        if let Some(entry) = decided(found) {
            return Ok(entry.cloned());
        }
        let is_folder = |entry: &&TreeEntry| entry.mode == FileMode::Directory;
        let (folders, files) = (found.map(|entry| entry.filter(is_folder)), found.map(|entry| entry.filter(|e| !is_folder(e))));
        let undecided = self.unresolved.len();
        let folder = self.folders(folders, depth)?;
        let beneath = self.unresolved.split_off(undecided);
        let file = self.files(files)?;
        match (folder, file) {
            (Some(folder), Some(file)) => {
                // A name cannot be both. What was undecided about the file alone is part of it.
                self.unresolved.truncate(undecided);
                let kept = if folders.ours.is_some() { folder } else { file };
                let kept = self.conflict(found, Some(kept));
                if kept.as_ref().is_some_and(|kept| kept.mode == FileMode::Directory) {
                    self.unresolved.extend(beneath);
                }
                Ok(kept)
            }
            (folder, file) => {
                self.unresolved.extend(beneath);
                Ok(folder.or(file))
            }
        }
    }

    /// A folder that the merge leaves empty is gone, unless both sides keep it and one of them has it empty already.
    fn folders(&mut self, found: Found<'_>, depth: usize) -> Result<Option<TreeEntry>, VersionError> {
        if let Some(entry) = decided(found) {
            return Ok(entry.cloned());
        }
        // Neither side need have removed the folder for it to be empty: each may have removed a half of it.
        let was_empty = |entry: Option<&TreeEntry>| entry.is_some_and(|entry| entry.id == self.empty_folder);
        let kept = found.ours.is_some() && found.theirs.is_some() && (was_empty(found.ours) || was_empty(found.theirs));
        let (id, size, empty) = self.folder(found.map(|entry| entry.map(|entry| entry.id)), depth + 1)?;
        Ok((kept || !empty).then(|| TreeEntry { name: Vec::new(), mode: FileMode::Directory, size, id }))
    }

    fn files(&mut self, found: Found<'_>) -> Result<Option<TreeEntry>, VersionError> {
        if let Some(entry) = decided(found) {
            return Ok(entry.cloned());
        }
        let (Some(ours), Some(theirs)) = (found.ours, found.theirs) else {
            // One side removed what the other changed.
            return Ok(self.undecided(found, found.ours.or(found.theirs)));
        };
        let base = found.base;
        let mode = match base {
            Some(base) => decided(Sides { base: base.mode, ours: ours.mode, theirs: theirs.mode }),
            None => Some(ours.mode).filter(|mode| *mode == theirs.mode),
        };
        let is_link = |entry: &TreeEntry| entry.mode == FileMode::Symlink;
        let linked = is_link(ours) || is_link(theirs);
        let ids = Sides { base: base.map(|base| base.id), ours: Some(ours.id), theirs: Some(theirs.id) };
        if let (Some(Some(id)), true) = (decided(ids), !(linked || base.is_some_and(is_link)) || mode.is_some()) {
            let size = if id == ours.id { ours.size } else { theirs.size };
            let entry = TreeEntry { mode: mode.unwrap_or(ours.mode), size, id, ..ours.clone() };
            return Ok(if mode.is_some() { Some(entry) } else { self.conflict(found, Some(entry)) });
        }
        // What was a link before has no lines that two texts could have in common.
        let base = base.filter(|base| !is_link(base));
        let long = [base, Some(ours), Some(theirs)].into_iter().flatten().any(|entry| entry.size > LONGEST_TEXT);
        if linked || long {
            return Ok(self.undecided(found, Some(ours)));
        }
        let before = base.map(|base| self.store.read(base.id)).transpose()?.unwrap_or_default();
        let (mine, other) = (self.store.read(ours.id)?, self.store.read(theirs.id)?);
        if [&before, &mine, &other].into_iter().any(|bytes| is_binary(bytes)) {
            return Ok(self.undecided(found, Some(ours)));
        }
        let MergedText { text, conflicted } = merge_lines(&before, &mine, &other, self.labels);
        let (size, object) = (text.len() as u64, NewObject::new(text.into()));
        let entry = TreeEntry { name: Vec::new(), mode: mode.unwrap_or(ours.mode), size, id: object.id() };
        self.new.push(object);
        Ok(if conflicted || mode.is_none() { self.conflict(found, Some(entry)) } else { Some(entry) })
    }

    /// What has no lines stays as one side has it; among ancestors, as it was before both.
    fn undecided(&mut self, found: Found<'_>, kept: Option<&TreeEntry>) -> Option<TreeEntry> {
        let kept = if self.among_ancestors { found.base } else { kept };
        self.conflict(found, kept.cloned())
    }

    fn conflict(&mut self, found: Found<'_>, stands: Option<TreeEntry>) -> Option<TreeEntry> {
        let side = |entry: Option<&TreeEntry>| entry.map(|entry| (entry.mode, entry.id));
        let Sides { base, ours, theirs } = found.map(side);
        let path = self.path.clone();
        self.unresolved.push(Unresolved { path, stands: stands.as_ref().map(|entry| entry.id), base, ours, theirs });
        stands
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use helix_objects::MemoryStore;
    use proptest::prelude::*;

    use super::*;
    use crate::walk;

    type Files<'a> = &'a [(&'a str, &'a str)];

    fn put(store: &dyn ObjectStore, files: &BTreeMap<String, String>) -> TreeEntry {
        let (mut entries, mut folders) = (Vec::new(), BTreeMap::<String, BTreeMap<String, String>>::new());
        for (path, content) in files {
            match path.split_once('/') {
                Some((folder, rest)) => {
                    drop(folders.entry(folder.to_owned()).or_default().insert(rest.to_owned(), content.clone()))
                }
                None => {
                    let object = NewObject::new(content.clone().into_bytes().into());
                    store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
                    let size = content.len() as u64;
                    entries.push(TreeEntry { name: path.clone().into_bytes(), mode: FileMode::Regular, size, id: object.id() });
                }
            }
        }
        entries.extend(folders.iter().map(|(name, files)| TreeEntry { name: name.clone().into_bytes(), ..put(store, files) }));
        let tree = Tree::new(entries).unwrap();
        let object = tree.encode();
        store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
        TreeEntry { name: Vec::new(), mode: FileMode::Directory, size: tree.size(), id: object.id() }
    }

    fn owned(files: Files<'_>) -> BTreeMap<String, String> {
        files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
    }

    fn merged(
        base: &BTreeMap<String, String>,
        ours: &BTreeMap<String, String>,
        theirs: &BTreeMap<String, String>,
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let store = MemoryStore::default();
        let [base, ours, theirs] = [base, ours, theirs].map(|files| put(&store, files).id);
        let merged = merge(&store, base, (ours, "task"), (theirs, "main")).unwrap();
        let files = walk(&store, merged.tree).unwrap().into_iter().filter(|entry| entry.mode != FileMode::Directory);
        let read = |id| String::from_utf8(store.read(id).unwrap().to_vec()).unwrap();
        (files.map(|entry| (String::from_utf8(entry.path).unwrap(), read(entry.id))).collect(), merged.conflicts)
    }

    #[test]
    fn changes_of_both_sides_come_together_line_by_line_and_name_by_name() {
        let base = owned(&[("a", "1\n2\n3\n"), ("d/old", "x"), ("d/keep", "k"), ("gone", "g")]);
        let ours = owned(&[("a", "one\n2\n3\n"), ("d/old", "x"), ("d/keep", "k"), ("new/mine", "m"), ("gone", "g")]);
        let theirs = owned(&[("a", "1\n2\nthree\n"), ("d/keep", "K"), ("new/other", "o")]);
        let expected = owned(&[("a", "one\n2\nthree\n"), ("d/keep", "K"), ("new/mine", "m"), ("new/other", "o")]);
        assert_eq!(merged(&base, &ours, &theirs), (expected, Vec::new()));
    }

    #[test]
    fn lines_that_both_changed_stand_between_markers_and_are_listed() {
        let (base, ours, theirs) = (owned(&[("d/a", "x\ny\n")]), owned(&[("d/a", "x\nours\n")]), owned(&[("d/a", "x\ntheirs\n")]));
        let text = "x\n<<<<<<< task\nours\n=======\ntheirs\n>>>>>>> main\n";
        assert_eq!(merged(&base, &ours, &theirs), (owned(&[("d/a", text)]), vec!["d/a".to_owned()]));
    }

    #[test]
    fn what_one_side_changed_and_the_other_removed_stays_and_is_listed() {
        let base = owned(&[("a", "1"), ("b", "1"), ("d/c", "1"), ("d/e", "1"), ("bin", "\0")]);
        let ours = owned(&[("b", "2"), ("d/c", "2"), ("d/e", "1"), ("bin", "\x001")]);
        let theirs = owned(&[("a", "2"), ("bin", "\x002")]);
        let expected = owned(&[("a", "2"), ("b", "2"), ("d/c", "2"), ("bin", "\x001")]);
        let conflicts = ["a", "b", "bin", "d/c"].map(str::to_owned).to_vec();
        assert_eq!(merged(&base, &ours, &theirs), (expected, conflicts));
    }

    #[test]
    fn a_folder_of_which_each_side_removed_a_half_is_gone() {
        let base = owned(&[("d/a", "1"), ("d/b", "1"), ("x", "1")]);
        let store = MemoryStore::default();
        let sides = [&base, &owned(&[("d/a", "1"), ("x", "1")]), &owned(&[("d/b", "1"), ("x", "1")]), &owned(&[("x", "1")])];
        let [base, ours, theirs, expected] = sides.map(|files| put(&store, files).id);
        let merged = merge(&store, base, (ours, "ours"), (theirs, "theirs")).unwrap();
        assert_eq!((merged.tree, merged.conflicts), (expected, Vec::new()));
    }

    #[test]
    fn a_file_that_became_a_folder_and_was_removed_is_the_folder() {
        let (base, ours, theirs) = (owned(&[("x", "file")]), owned(&[("x/y", "new")]), owned(&[]));
        assert_eq!(merged(&base, &ours, &theirs), (ours.clone(), Vec::new()));
        assert_eq!(merged(&base, &theirs, &ours), (ours, Vec::new()));
    }

    #[test]
    fn a_file_against_a_folder_stays_ours() {
        let (base, ours, theirs) = (owned(&[]), owned(&[("x", "file")]), owned(&[("x/y", "folder")]));
        assert_eq!(merged(&base, &ours, &theirs), (ours.clone(), vec!["x".to_owned()]));
        assert_eq!(merged(&base, &theirs, &ours), (theirs.clone(), vec!["x".to_owned()]));
    }

    fn files() -> impl Strategy<Value = BTreeMap<String, String>> {
        let path = prop::sample::select(vec!["a", "b", "d/a", "d/b", "d/e/f", "g/h"]).prop_map(str::to_owned);
        let lines = prop::collection::vec(prop::sample::select(vec!["1\n", "2\n", "3\n"]), 0..5).prop_map(|lines| lines.concat());
        prop::collection::btree_map(path, lines, 0..6)
    }

    proptest! {
        #[test]
        fn a_side_that_changed_nothing_takes_what_the_other_has(base in files(), other in files()) {
            prop_assert_eq!(merged(&base, &base, &other), (other.clone(), Vec::new()));
            prop_assert_eq!(merged(&base, &other, &base), (other.clone(), Vec::new()));
            prop_assert_eq!(merged(&base, &other, &other), (other, Vec::new()));
        }

        #[test]
        fn the_same_files_conflict_whichever_side_is_ours(base in files(), ours in files(), theirs in files()) {
            prop_assert_eq!(merged(&base, &ours, &theirs).1, merged(&base, &theirs, &ours).1);
        }
    }
}
