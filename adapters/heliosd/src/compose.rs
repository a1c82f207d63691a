//! Trees made of two others: everything of one, and some paths of the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin, StoreStats};
use helix_protocol::{FileMode, ObjectId};
use helix_versions::{EntryChange, Tree, TreeEntry, VersionError};

/// A store with objects that are not in it yet. It can be read as one; what is written goes to the store itself.
pub struct Fresh {
    store: Arc<dyn ObjectStore>,
    objects: HashMap<ObjectId, NewObject>,
}

impl Fresh {
    /// Over a store.
    pub fn new(store: Arc<dyn ObjectStore>, objects: Vec<NewObject>) -> Self {
        Self { store, objects: objects.into_iter().map(|object| (object.id(), object)).collect() }
    }

    /// What is to be stored.
    pub fn into_objects(self) -> Vec<NewObject> {
        self.objects.into_values().collect()
    }

    /// A tree of either.
    pub fn tree(&self, id: ObjectId) -> Result<Tree, VersionError> {
        Tree::load(self, id)
    }

    /// The entry at a path; the empty path has none.
    pub fn entry(&self, tree: ObjectId, path: &[u8]) -> Result<Option<TreeEntry>, VersionError> {
        let mut folder = tree;
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            match (self.tree(folder)?.get(part).cloned(), parts.peek()) {
                (Some(entry), Some(_)) if entry.mode == FileMode::Directory => folder = entry.id,
                (Some(_), Some(_)) => return Ok(None),
                (found, _) => return Ok(found),
            }
        }
        Ok(None)
    }

    /// `into` with what `from` has at `path`: a file, a folder with all beneath it, or nothing. The empty path takes everything.
    pub fn splice(&mut self, into: ObjectId, from: ObjectId, path: &[u8]) -> Result<ObjectId, VersionError> {
        if path.is_empty() {
            return Ok(from);
        }
        let found = self.entry(from, path)?;
        self.replace(into, path, found)
    }

    /// As [`splice`](Self::splice), where what `into` has beneath `path` and `from` has not stays.
    pub fn overlay(&mut self, into: ObjectId, from: ObjectId, path: &[u8]) -> Result<ObjectId, VersionError> {
        if path.is_empty() {
            return Ok(self.over(into, from)?.0);
        }
        let Some(above) = self.entry(from, path)? else { return Ok(into) };
        let below = self.entry(into, path)?;
        let found = self.entry_over(below, above)?;
        self.replace(into, path, Some(found))
    }

    /// `into` with what has changed at some paths.
    pub fn with_changes<'a>(
        &mut self,
        into: ObjectId,
        mut changes: impl Iterator<Item = &'a EntryChange>,
    ) -> Result<ObjectId, VersionError> {
        changes.try_fold(into, |into, change| self.replace(into, &change.path, change.after.clone()))
    }

    fn replace(&mut self, into: ObjectId, path: &[u8], found: Option<TreeEntry>) -> Result<ObjectId, VersionError> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let replaced = self.put(Some(into), &parts, found)?;
        replaced.map_or_else(|| Ok(self.add(&Tree::default())), |(id, _)| Ok(id))
    }

    /// A folder with all of another one laid over it, and the bytes beneath.
    fn over(&mut self, below: ObjectId, above: ObjectId) -> Result<(ObjectId, u64), VersionError> {
        let (below, above) = (self.tree(below)?, self.tree(above)?);
        let mut entries: Vec<TreeEntry> =
            below.entries().iter().filter(|entry| above.get(&entry.name).is_none()).cloned().collect();
        for entry in above.entries() {
            entries.push(self.entry_over(below.get(&entry.name).cloned(), entry.clone())?);
        }
        let tree = Tree::new(entries)?;
        Ok((self.add(&tree), tree.size()))
    }

    fn entry_over(&mut self, below: Option<TreeEntry>, above: TreeEntry) -> Result<TreeEntry, VersionError> {
        match below.filter(|below| below.mode == FileMode::Directory && above.mode == FileMode::Directory) {
            Some(below) if below.id != above.id => {
                let (id, size) = self.over(below.id, above.id)?;
                Ok(TreeEntry { id, size, ..above })
            }
            _ => Ok(above),
        }
    }

    /// The folder with an entry put in or taken out beneath it; `None` where nothing is left.
    fn put(
        &mut self,
        folder: Option<ObjectId>,
        parts: &[&[u8]],
        found: Option<TreeEntry>,
    ) -> Result<Option<(ObjectId, u64)>, VersionError> {
        let tree = folder.map_or_else(|| Ok(Tree::default()), |id| self.tree(id))?;
        let Some((name, deeper)) = parts.split_first() else { return Ok(None) };
        let before = tree.get(name).cloned();
        let after = if deeper.is_empty() {
            found.map(|entry| TreeEntry { name: name.to_vec(), ..entry })
        } else {
            let inner = before.as_ref().filter(|entry| entry.mode == FileMode::Directory).map(|entry| entry.id);
            match (inner, &before, found.is_some()) {
                // Nothing is taken out of what is no folder.
                (None, _, false) => before.clone(),
                _ => self.put(inner, deeper, found)?.map(|(id, size)| TreeEntry {
                    name: name.to_vec(),
                    mode: FileMode::Directory,
                    size,
                    id,
                }),
            }
        };
        let mut entries: Vec<TreeEntry> = tree.entries().iter().filter(|entry| entry.name != *name).cloned().collect();
        entries.extend(after);
        let tree = Tree::new(entries)?;
        if tree.entries().is_empty() { Ok(None) } else { Ok(Some((self.add(&tree), tree.size()))) }
    }

    fn add(&mut self, tree: &Tree) -> ObjectId {
        let object = tree.encode();
        let id = object.id();
        self.objects.insert(id, object);
        id
    }
}

impl ObjectStore for Fresh {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        self.objects.get(&id).map_or_else(|| self.store.get(id), |object| Ok(Some(object.bytes().clone())))
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        let missing = self.store.missing(ids)?;
        Ok(missing.into_iter().filter(|id| !self.objects.contains_key(id)).collect())
    }

    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        self.store.put(objects, durability)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        self.store.sync(mark)
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.store.pin(pin, ids)
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.store.unpin(up_to)
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.store.pinned()
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        self.store.stats()
    }

    fn purged(&self) -> Result<HashSet<ObjectId>, ObjectError> {
        self.store.purged()
    }

    fn close(&self) -> Result<(), ObjectError> {
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use helix_objects::MemoryStore;
    use helix_versions::walk;
    use proptest::prelude::*;

    use super::*;

    type Files = BTreeMap<String, u8>;

    fn put(fresh: &mut Fresh, files: &Files) -> ObjectId {
        let mut tree = fresh.add(&Tree::default());
        for (path, content) in files {
            let object = NewObject::new(Bytes::from(vec![*content]));
            let entry = TreeEntry { name: b"file".to_vec(), mode: FileMode::Regular, size: 1, id: object.id() };
            fresh.objects.insert(object.id(), object);
            let parts: Vec<&[u8]> = path.as_bytes().split(|byte| *byte == b'/').collect();
            tree = fresh.put(Some(tree), &parts, Some(entry)).unwrap().unwrap().0;
        }
        tree
    }

    fn files() -> impl Strategy<Value = Files> {
        let path = prop::sample::select(vec!["a", "b", "d/a", "d/b", "d/e/f", "g/h"]).prop_map(str::to_owned);
        prop::collection::btree_map(path, 0..3_u8, 0..6)
    }

    proptest! {
        #[test]
        fn a_spliced_tree_has_that_path_of_one_alone_and_a_laid_one_of_both(
            into in files(), from in files(), path in prop::sample::select(vec!["", "a", "d", "d/e", "d/e/f", "x/y", "g/h"]),
        ) {
            let store = Arc::new(MemoryStore::default());
            let mut fresh = Fresh::new(Arc::clone(&store) as Arc<dyn ObjectStore>, Vec::new());
            let (one, other) = (put(&mut fresh, &into), put(&mut fresh, &from));
            let spliced = fresh.splice(one, other, path.as_bytes()).unwrap();
            let laid = fresh.overlay(one, other, path.as_bytes()).unwrap();
            store.put(&fresh.into_objects(), Durability::NoSync).unwrap();
            let files = |tree| -> Files {
                let found = walk(&*store, tree).unwrap().into_iter().filter(|entry| entry.mode != FileMode::Directory);
                found.map(|entry| (String::from_utf8(entry.path).unwrap(), store.read(entry.id).unwrap()[0])).collect()
            };
            let beneath = |name: &str| path.is_empty() || name == path || name.starts_with(&format!("{path}/"));
            let taken: Files = from.into_iter().filter(|(name, _)| beneath(name)).collect();
            let mut both = into.clone();
            both.extend(taken.clone());
            prop_assert_eq!(files(laid), both);
            let mut expected: Files = into.into_iter().filter(|(name, _)| !beneath(name)).collect();
            expected.extend(taken);
            prop_assert_eq!(files(spliced), expected);
        }
    }
}
