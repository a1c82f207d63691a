//! Imports and exports that end in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use std::collections::HashSet;
use std::time::Duration;

use helix_objects::{
    Collect, Durability, Family, Mark, MemoryStore, NewObject, ObjectError, ObjectStore, Pin, RecordChange, RecordStore,
    StoreStats, Sweep,
};
use helix_protocol::ObjectId;

use super::{Git, caller, export, import, ordinary, repository_over};
use crate::Repository;
use crate::git::map::map_root;
use crate::git::{ExportRefs, GitMap, export_history, import_history, import_history_again};
use crate::{Snapshot, Tree};

/// A memory store that takes so many more writes and then none.
struct Failing {
    inner: MemoryStore,
    writes_left: AtomicU64,
}

impl Failing {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), writes_left: AtomicU64::new(u64::MAX) })
    }

    fn write(&self) -> Result<(), ObjectError> {
        let left = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| ObjectError::Backend("No space left on device".to_owned()))
    }
}

impl ObjectStore for Failing {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        self.inner.get(id)
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        self.inner.missing(ids)
    }

    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        self.write()?;
        self.inner.put(objects, durability)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        self.inner.sync(mark)
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.inner.pin(pin, ids)
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.inner.unpin(up_to)
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.inner.pinned()
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        self.inner.stats()
    }

    fn close(&self) -> Result<(), ObjectError> {
        self.inner.close()
    }
}

impl RecordStore for Failing {
    fn record(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ObjectError> {
        self.inner.record(family, key)
    }

    fn records(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ObjectError> {
        self.inner.records(family, prefix, after, limit)
    }

    fn commit(&self, objects: &[NewObject], changes: &[RecordChange], durability: Durability) -> Result<Mark, ObjectError> {
        self.write()?;
        self.inner.commit(objects, changes, durability)
    }
}

/// Enough of it that an import takes several batches.
fn large() -> Git {
    let git = Git::bare();
    let mut stream = String::new();
    for number in 0..300 {
        let content = format!("{number}\n").repeat(8_000);
        stream += &format!(
            "commit refs/heads/main\ncommitter A <a@b> {number} +0000\ndata 1\nx\nM 100644 inline d{}/f{number}\n",
            number % 7
        );
        stream += &format!("data {}\n{content}\n", content.len());
    }
    git.run_with(&["fast-import", "--quiet"], stream.as_bytes());
    git
}

#[test]
fn an_import_that_ends_at_any_write_shows_nothing_and_can_be_repeated() {
    let git = large();
    let sound = super::repository();
    import(&sound, &git);
    let mut failures = 0;
    for writes in 0.. {
        let store = Failing::new();
        let repository = repository_over(store.clone());
        store.writes_left.store(writes, Ordering::SeqCst);
        let outcome = import_history(&repository, &caller(), git.path(), &mut |_| {});
        store.writes_left.store(u64::MAX, Ordering::SeqCst);
        let Err(error) = outcome else { break };
        assert!(error.to_string().contains("No space left"), "{error}");
        failures += 1;
        // As after a crash: whoever opens it now sees the state before.
        let reopened = Repository::open(store).unwrap();
        assert_eq!(reopened.refs("refs/").unwrap(), Vec::new());
        assert!(GitMap::load(&**reopened.store()).unwrap().is_empty());
        import(&reopened, &git);
        assert_eq!(reopened.refs("refs/").unwrap(), sound.refs("refs/").unwrap());
    }
    assert!(failures > 2, "there were only {failures} writes");
}

#[test]
fn what_is_missing_of_an_import_is_stored_again_by_one_that_reads_everything() {
    let git = large();
    let store = Arc::new(MemoryStore::new());
    let repository = repository_over(store.clone());
    import(&repository, &git);
    // What was made here is in git as well, and git has not all of it.
    let made = super::on_top::commit(&repository, &[("made/here", Some("1\n"))], "made here");
    export(&repository, &git);
    let before = repository.refs("refs/").unwrap();
    let root = map_root(&*store).unwrap().unwrap();
    let map = Snapshot::load(&*store, root).unwrap().tree;
    let mut kept: HashSet<ObjectId> = Tree::load(&*store, map).unwrap().entries().iter().map(|entry| entry.id).collect();
    kept.extend([root.0, map, made.0, repository.empty_tree()]);
    let collection = store.begin_collection(Duration::ZERO).unwrap();
    store.sweep(&collection, &|id| kept.contains(&id) || id.0[0] % 2 == 0, Sweep::Drop).unwrap();
    drop(collection);
    let repository = Repository::open(store).unwrap();
    assert_ne!(repository.check().unwrap().1, Vec::new());
    assert_eq!(import(&repository, &git).commits, 0);
    assert_ne!(repository.check().unwrap().1, Vec::new());
    let again = import_history_again(&repository, &caller(), git.path(), &mut |_| {}).unwrap();
    assert_eq!((again.commits, again.stored > Some(300)), (0, true));
    assert_eq!((repository.check().unwrap().1, repository.refs("refs/").unwrap()), (Vec::new(), before));
    let again = import_history_again(&repository, &caller(), git.path(), &mut |_| {}).unwrap();
    assert_eq!((again.commits, again.stored), (0, Some(0)));
}

#[test]
fn an_export_whose_map_cannot_be_written_can_be_repeated() {
    let git = ordinary();
    let store = Failing::new();
    let repository = repository_over(store.clone());
    import(&repository, &git);
    let main = "main".parse().unwrap();
    let head = repository.branch(&main).unwrap().unwrap();
    let mut snapshot = (*repository.snapshot(head).unwrap()).clone();
    snapshot.parents = vec![head];
    let mut batch = repository.batch();
    let id = batch.snapshot(snapshot);
    batch.set_ref(crate::RefName::branch(&main), crate::RefExpect::At(head), Some((id, None)));
    batch.write(&caller(), "test", "").unwrap();
    let copy = Git::nothing();
    store.writes_left.store(0, Ordering::SeqCst);
    export_history(&repository, &caller(), copy.path(), &ExportRefs::All, &mut |_| {}).unwrap_err();
    store.writes_left.store(u64::MAX, Ordering::SeqCst);
    copy.is_sound();
    let before = copy.everything();
    export(&repository, &copy);
    assert_eq!(copy.everything(), before);
    copy.is_sound();
}
