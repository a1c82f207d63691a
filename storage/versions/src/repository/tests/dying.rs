//! What a process leaves that dies in the middle of a collection, of packing or of a purge: a copy of the store behind each of
//! their writes is opened, found whole, and brought to the end that the first one would have come to.

use std::path::Path;
use std::time::Duration;

use helix_objects::{Sweep, hash};
use helix_rocks::{Effort, RocksOptions, RocksStore};

use super::*;

const AFTER_ALL: Timestamp = Timestamp(1_000_000_000_000);

struct Store {
    folder: tempfile::TempDir,
    store: Arc<RocksStore>,
    bed: Bed,
    /// Of which nothing but the operation log knows any more.
    dropped: SnapshotId,
}

impl Store {
    /// Packed commits and others, two branches, and commits that nothing but the operation log keeps.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(RocksStore::open_with(&folder.path().join("store"), options()).unwrap());
        let bed = Bed::over(store.clone());
        let texts: Vec<String> = (0..6).map(|number| format!("text {number} {}", "more ".repeat(number * 40))).collect();
        for (number, text) in texts.iter().enumerate() {
            let both = [("a/changing", Some(text.as_str())), ("secret", Some("key"))];
            bed.commit(&both, &format!("commit {number}")).unwrap();
        }
        pack(&bed.repository, &store);
        let kept = bed.commit(&[("b", Some("kept"))], "kept").unwrap();
        let dropped = bed.commit(&[("b", Some("dropped")), ("c/d", Some("dropped too"))], "dropped").unwrap();
        bed.repository.reset(&bed.caller(), kept, ResetKind::Hard).unwrap();
        // The last operation can always be undone, so it keeps what it needs: let it be another one.
        bed.repository.create_branch(&bed.caller(), &branch("side"), kept, Existing::Refuse).unwrap();
        Self { folder, store, bed, dropped }
    }

    fn copies<T>(&self, act: impl FnOnce() -> T) -> Vec<Copy> {
        let (_, copies) = self.store.with_copies(&self.folder.path().join("copies"), act);
        copies.iter().map(|path| Copy::open(path)).collect()
    }

    /// What the branches have, by path.
    fn kept(&self) -> BTreeMap<String, String> {
        self.bed.files(self.bed.repository.tree(self.bed.head()).unwrap())
    }
}

/// A store that a dead process left.
struct Copy {
    store: Arc<RocksStore>,
    bed: Bed,
}

impl Copy {
    fn open(path: &Path) -> Self {
        let store = Arc::new(RocksStore::open_with(path, options()).unwrap());
        let repository = Repository::open(store.clone()).unwrap();
        Self { store, bed: Bed::of(repository) }
    }

    fn is_whole(&self, when: &str) {
        let checked = self.store.verify().unwrap();
        assert!(checked.is_sound(), "{when}: {checked:?}");
        let (_, faults) = self.bed.repository.check().unwrap();
        assert_eq!(faults, [], "{when}");
    }

    fn has(&self, snapshot: SnapshotId) -> bool {
        self.store.missing(&[snapshot.0]).unwrap().is_empty()
    }
}

fn options() -> RocksOptions {
    RocksOptions { reserve_bytes: 0, ..RocksOptions::DEFAULT }
}

fn collect(repository: &Repository, store: &RocksStore) {
    let rule = Retention { ttl: Some(Duration::ZERO), operations: None };
    let options = CollectOptions { rule, now: AFTER_ALL, how: Sweep::Drop, patience: Duration::from_secs(1) };
    repository.collect(store, &options, &Vec::new).unwrap();
}

fn pack(repository: &Repository, store: &RocksStore) {
    let mut hints = Vec::new();
    repository.mark(&repository.roots(None).unwrap(), |alive| hints.push(alive.pack_hint())).unwrap();
    store.pack(&hints, Effort::Aggressive).unwrap();
    store.repack().unwrap();
}

#[test]
fn a_collection_that_dies_behind_any_write_has_dropped_nothing_that_is_kept_and_can_be_repeated() {
    let made = Store::new();
    let expected = made.kept();
    let copies = made.copies(|| {
        collect(&made.bed.repository, &made.store);
        pack(&made.bed.repository, &made.store);
    });
    assert!(copies.len() >= 5, "it writes more than {} times", copies.len());
    let there: Vec<bool> = copies.iter().map(|copy| copy.has(made.dropped)).collect();
    assert!(there[0] && !there[there.len() - 1], "it is dropped on the way: {there:?}");
    for (number, copy) in copies.iter().enumerate() {
        copy.is_whole(&format!("behind write {number}"));
        assert_eq!(copy.bed.files(copy.bed.repository.tree(copy.bed.head()).unwrap()), expected, "behind write {number}");
        collect(&copy.bed.repository, &copy.store);
        pack(&copy.bed.repository, &copy.store);
        copy.is_whole(&format!("repeated behind write {number}"));
        assert!(!copy.has(made.dropped), "repeated behind write {number}");
        assert_eq!(copy.store.stats().unwrap().objects, made.store.stats().unwrap().objects, "repeated behind write {number}");
    }
}

#[test]
fn a_purge_that_dies_behind_any_write_is_known_to_be_meant_and_can_be_repeated() {
    let made = Store::new();
    let secret = hash(b"key");
    let purge = |repository: &Repository, store: &RocksStore| {
        repository.purge(store, &[secret], AFTER_ALL).unwrap();
    };
    let copies = made.copies(|| purge(&made.bed.repository, &made.store));
    assert!(copies.len() >= 3, "it writes more than {} times", copies.len());
    for (number, copy) in copies.iter().enumerate() {
        copy.is_whole(&format!("behind write {number}"));
        purge(&copy.bed.repository, &copy.store);
        copy.is_whole(&format!("repeated behind write {number}"));
        assert_eq!(copy.store.missing(&[secret]).unwrap(), [secret], "repeated behind write {number}");
        assert_eq!(copy.bed.repository.purged().unwrap().into_keys().collect::<Vec<_>>(), [secret]);
    }
}
