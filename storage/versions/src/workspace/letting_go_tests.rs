//! A folder whose tree was let go for room is the folder it was, and takes no room meanwhile.

use std::fs;

use helix_objects::{Durability, MemoryStore, NewObject, ObjectStore};
use helix_protocol::ObjectId;
use tempfile::TempDir;

use super::stat_cache::{FileClock, StatCache};
use super::{Events, FolderRules, LocalChanges, Tracking, WorkingFolder};

const FILES: usize = 300;

struct Place {
    root: TempDir,
    state: TempDir,
}

impl Place {
    fn with_files() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() };
        for number in 0..FILES {
            place.write(&format!("d{}/file{number}.py", number / 50), &format!("content {number}"));
        }
        place
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn open(&self) -> WorkingFolder {
        WorkingFolder::open(self.root.path(), self.state.path(), FolderRules::default()).unwrap()
    }

    /// What a look from nothing finds.
    fn tree(&self, store: &MemoryStore, base: Option<ObjectId>) -> ObjectId {
        let state = tempfile::tempdir().unwrap();
        let rules = FolderRules { events: Events::Ignore, ..FolderRules::default() };
        let mut folder = WorkingFolder::open(self.root.path(), state.path(), rules).unwrap();
        folder.status(store, base).unwrap().tree
    }
}

fn commit(folder: &mut WorkingFolder, store: &MemoryStore, base: Option<ObjectId>) -> ObjectId {
    let found = folder.refresh(store, base).unwrap();
    store.put(&found.objects, Durability::NoSync).unwrap();
    assert_eq!(crate::missing_closure(store, found.tree).unwrap(), vec![]);
    found.tree
}

#[test]
fn what_changed_while_a_tree_was_let_go_is_committed() {
    let (place, store) = (Place::with_files(), MemoryStore::new());
    let mut folder = place.open();
    let base = commit(&mut folder, &store, None);
    assert!(folder.memory_bytes() > FILES * 100, "{}", folder.memory_bytes());
    folder.let_go();
    assert_eq!((folder.memory_bytes(), folder.len()), (0, 0));
    place.write("d0/file0.py", "changed 0");
    place.write("d9/new.py", "new");
    fs::remove_file(place.root.path().join("d1/file50.py")).unwrap();
    fs::rename(place.root.path().join("d2"), place.root.path().join("moved")).unwrap();
    let changed = commit(&mut folder, &store, Some(base));
    assert_eq!(changed, place.tree(&store, Some(base)));
    assert_ne!(changed, base);
    // And it hears of what follows.
    place.write("d0/file0.py", "changed again");
    assert_eq!(commit(&mut folder, &store, Some(changed)), place.tree(&store, Some(changed)));
    assert_eq!(folder.tracking(), Tracking::Events);
}

#[test]
fn a_tree_that_was_let_go_comes_back_without_reading_a_file_that_is_as_it_was() {
    let (place, store) = (Place::with_files(), MemoryStore::new());
    FileClock::pass();
    let mut folder = place.open();
    let base = commit(&mut folder, &store, None);
    folder.let_go();
    // What a status reads is held for the commit, so nothing was read.
    assert_eq!(folder.status(&store, Some(base)).unwrap().tree, base);
    assert!(folder.live.held.is_empty());
}

#[test]
fn files_that_a_move_wrote_are_known_after_the_tree_was_let_go() {
    let (place, store) = (Place::with_files(), MemoryStore::new());
    let tree = commit(&mut place.open(), &store, None);
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut made = WorkingFolder::open(root.path(), state.path(), FolderRules::default()).unwrap();
    made.switch(&store, None, tree, LocalChanges::Keep).unwrap();
    assert!(made.memory_bytes() > FILES * 100, "what was written counts before it was looked at: {}", made.memory_bytes());
    made.let_go();
    assert_eq!(StatCache::open(&state.path().join("stat")).unwrap().len(), FILES);
    assert_eq!(made.status(&store, Some(tree)).unwrap().tree, tree);
}

#[test]
fn an_ignored_file_that_the_base_has_is_still_carried_after_the_tree_was_let_go() {
    let (place, store) = (Place::with_files(), MemoryStore::new());
    let mut folder = place.open();
    let without = commit(&mut folder, &store, None);
    place.write("kept.o", "kept");
    let with = commit(&mut folder, &store, Some(without));
    place.write(".gitignore", "*.o\n");
    let with = commit(&mut folder, &store, Some(with));
    folder.status(&store, Some(with)).unwrap();
    folder.let_go();
    folder.checkout(&store, without).unwrap();
    assert!(!place.root.path().join("kept.o").exists(), "it was the base's, so it goes with it");
}

#[test]
fn a_move_is_foreseen_by_what_the_folder_holds_also_after_its_tree_was_let_go() {
    let (place, store) = (Place::with_files(), MemoryStore::new());
    let mut folder = place.open();
    let found = folder.refresh(&store, None).unwrap();
    let is_tree = |object: &&NewObject| object.bytes().starts_with(b"HXT");
    let trees: Vec<NewObject> = found.objects.iter().filter(is_tree).cloned().collect();
    store.put(&trees, Durability::NoSync).unwrap();
    folder.let_go();
    // No file would be written, so none of their contents is needed.
    let conflicts = folder.foresee(&store, Some(found.tree), found.tree, LocalChanges::Discard).unwrap();
    assert_eq!(conflicts, vec![]);
}
