//! The contract suite of [`Collect`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use helix_protocol::{Epoch, ObjectId, TaskId};

use super::{change, object};
use crate::{Collect, Collection, Durability, Expect, Family, NewObject, ObjectError, Pin, RecordChange, Sweep, Swept, hash};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the suite of [`Collect`] on an empty store.
pub fn collect_contract(store: &dyn Collect) {
    what_nothing_names_is_dropped_and_counted(store);
    what_is_named_while_a_collection_runs_is_kept(store);
    what_a_record_loses_meanwhile_is_told(store);
    a_writer_that_was_at_it_before_is_waited_for(store);
    purged_content_is_gone_and_can_come_back(store);
    collecting_beside_random_writers_loses_nothing(store);
}

fn none(_: ObjectId) -> bool {
    false
}

fn begin(store: &dyn Collect) -> Collection {
    store.begin_collection(PATIENCE).expect("a collection begins")
}

fn put(store: &dyn Collect, objects: &[NewObject]) {
    store.put(objects, Durability::NoSync).expect("a put succeeds");
}

fn is_there(store: &dyn Collect, object: &NewObject) -> bool {
    let here = store.get(object.id()).expect("a read succeeds").is_some();
    assert_eq!(here, store.missing(&[object.id()]).expect("missing succeeds").is_empty());
    here
}

fn what_nothing_names_is_dropped_and_counted(store: &dyn Collect) {
    let (live, dead, pinned) = (object("live"), object("dead, and not so short"), object("pinned"));
    put(store, &[live.clone(), dead.clone(), pinned.clone()]);
    let pin = Pin { task: TaskId::new(), epoch: Epoch(1) };
    store.pin(pin, &[pinned.id()]).expect("a pin succeeds");
    let marks = |id: ObjectId| id == live.id();
    let expected = Swept { dropped: 1, dropped_bytes: dead.bytes().len() as u64, kept: 2 };
    {
        let collection = begin(store);
        assert_eq!(store.sweep(&collection, &marks, Sweep::DryRun).expect("a sweep succeeds"), expected);
    }
    assert!(is_there(store, &dead), "a dry run drops nothing");
    {
        let collection = begin(store);
        assert_eq!(store.sweep(&collection, &marks, Sweep::Drop).expect("a sweep succeeds"), expected);
    }
    assert_eq!([&live, &dead, &pinned].map(|object| is_there(store, object)), [true, false, true]);
    let stats = store.stats().expect("stats succeed");
    assert_eq!((stats.objects, stats.logical_bytes), (2, 10));
    put(store, std::slice::from_ref(&dead));
    assert!(is_there(store, &dead), "what was dropped can be stored again");
    store.unpin(pin).expect("an unpin succeeds");
    let collection = begin(store);
    let swept = store.sweep(&collection, &none, Sweep::Drop).expect("a sweep succeeds");
    assert_eq!((swept.dropped, swept.kept), (3, 0));
}

fn what_is_named_while_a_collection_runs_is_kept(store: &dyn Collect) {
    let [put_again, asked_for, pinned, committed, dead] = ["put again", "asked for", "pinned", "committed", "dead"].map(object);
    put(store, &[put_again.clone(), asked_for.clone(), pinned.clone(), committed.clone(), dead.clone()]);
    let pin = Pin { task: TaskId::new(), epoch: Epoch(1) };
    {
        let collection = begin(store);
        put(store, std::slice::from_ref(&put_again));
        assert_eq!(store.missing(&[asked_for.id()]).expect("missing succeeds"), vec![]);
        store.pin(pin, &[pinned.id()]).expect("a pin succeeds");
        store.unpin(pin).expect("an unpin succeeds");
        store.commit(std::slice::from_ref(&committed), &[], Durability::NoSync).expect("a commit succeeds");
        put(store, &[object("new")]);
        let swept = store.sweep(&collection, &none, Sweep::Drop).expect("a sweep succeeds");
        assert_eq!((swept.dropped, swept.kept), (1, 5));
    }
    let found = store.get_many(&[put_again, asked_for, pinned, committed, object("new"), dead].map(|object| object.id()));
    assert_eq!(
        found.expect("reads succeed").iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, true, true, true, true, false]
    );
    let collection = begin(store);
    let swept = store.sweep(&collection, &none, Sweep::Drop).expect("a sweep succeeds");
    assert_eq!((swept.dropped, swept.kept), (5, 0), "the next collection remembers none of it");
}

fn what_a_record_loses_meanwhile_is_told(store: &dyn Collect) {
    let set = |value: Option<&str>| {
        let changes = [change(Family::Refs, "loses", Expect::Anything, value)];
        store.commit(&[], &changes, Durability::NoSync).expect("a commit succeeds");
    };
    set(Some("before"));
    let collection = begin(store);
    set(Some("first"));
    set(Some("second"));
    set(None);
    let values: Vec<Bytes> = collection.displaced().into_iter().map(|lost| lost.value).collect();
    assert_eq!(values, ["before", "first", "second"]);
}

fn a_writer_that_was_at_it_before_is_waited_for(store: &dyn Collect) {
    let early = object("put before the collection, named after it began");
    let lease = store.lease();
    put(store, std::slice::from_ref(&early));
    assert!(matches!(store.begin_collection(Duration::ZERO), Err(ObjectError::Busy(_))));
    std::thread::scope(|scope| {
        let collected = scope.spawn(|| {
            let collection = begin(store);
            let named = store.record(Family::Refs, b"early").expect("a read succeeds");
            let live = |id: ObjectId| named.as_deref() == Some(&id.0);
            store.sweep(&collection, &live, Sweep::Drop).expect("a sweep succeeds")
        });
        let value = Some(Bytes::copy_from_slice(&early.id().0));
        let name = RecordChange { family: Family::Refs, key: Bytes::from_static(b"early"), expect: Expect::Absent, value };
        store.commit(&[], &[name], Durability::NoSync).expect("a commit succeeds");
        drop(lease);
        assert_eq!(collected.join().expect("a collector does not panic").dropped, 0);
    });
    assert!(is_there(store, &early));
    store.commit(&[], &[change(Family::Refs, "early", Expect::Anything, None)], Durability::NoSync).expect("a commit succeeds");
}

fn purged_content_is_gone_and_can_come_back(store: &dyn Collect) {
    let (secret, other) = (object("a secret"), object("no secret"));
    put(store, &[secret.clone(), other.clone()]);
    assert_eq!(store.get(secret.id()).expect("a read succeeds").as_ref(), Some(secret.bytes()));
    let purged = store.purge(&[secret.id(), hash(b"never there")]).expect("a purge succeeds");
    assert_eq!((purged.dropped, purged.dropped_bytes), (1, 8));
    assert_eq!([&secret, &other].map(|object| is_there(store, object)), [false, true]);
    put(store, std::slice::from_ref(&secret));
    assert!(is_there(store, &secret));
}

/// The ids that a record of a random writer names.
fn named_by(value: &[u8]) -> impl Iterator<Item = ObjectId> {
    value.as_chunks::<32>().0.iter().map(|id| ObjectId(*id))
}

fn collecting_beside_random_writers_loses_nothing(store: &dyn Collect) {
    let (writing, seed) = (AtomicU64::new(4), std::time::SystemTime::now());
    let seed = seed.duration_since(std::time::UNIX_EPOCH).map_or(7, |since| since.as_nanos() as u64);
    println!("seed {seed}");
    let dropped = std::thread::scope(|scope| {
        for writer in 0..4 {
            let writing = &writing;
            scope.spawn(move || {
                let _ends = Ends(writing);
                Writer { store, number: writer, state: hash(&[seed, writer].map(u64::to_le_bytes).concat()).0 }.run();
            });
        }
        let mut dropped = 0;
        while writing.load(Ordering::Acquire) > 0 {
            let collection = begin(store);
            let live = marked(store, &collection);
            let swept = store.sweep(&collection, &|id| live.contains(&id), Sweep::Drop).expect("a sweep succeeds");
            dropped += swept.dropped;
        }
        dropped
    });
    println!("{dropped} objects were dropped meanwhile");
    let collection = begin(store);
    let live = marked(store, &collection);
    for id in &live {
        assert!(store.get(*id).expect("a read succeeds").is_some(), "{id} is named and gone");
    }
    let swept = store.sweep(&collection, &|id| live.contains(&id), Sweep::Drop).expect("a sweep succeeds");
    assert_eq!(swept.kept, live.len() as u64);
    assert_eq!(store.stats().expect("stats succeed").objects, live.len() as u64);
}

/// Says that a writer ended, also where it panics.
struct Ends<'a>(&'a AtomicU64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn marked(store: &dyn Collect, collection: &Collection) -> HashSet<ObjectId> {
    let records = store.records(Family::Refs, b"random/", None, usize::MAX).expect("a listing succeeds");
    let lost = collection.displaced().into_iter().map(|lost| lost.value);
    records.into_iter().map(|(_, value)| value).chain(lost).flat_map(|value| named_by(&value).collect::<Vec<_>>()).collect()
}

/// One that puts, asks, commits and cuts off at random. Contents are few, so that writers meet each other's dead objects.
struct Writer<'a> {
    store: &'a dyn Collect,
    number: u64,
    state: [u8; 32],
}

impl Writer<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.state = hash(&self.state).0;
        u64::from_le_bytes(std::array::from_fn(|at| self.state[at])) % end
    }

    fn run(&mut self) {
        for _ in 0..200 {
            let contents: Vec<NewObject> = (0..1 + self.below(4)).map(|_| object(&format!("content {}", self.below(40)))).collect();
            match self.below(5) {
                0 | 1 => self.name(&contents, &contents),
                2 => self.put_then_name(&contents),
                3 => self.build_on_another(contents),
                _ => self.write(&[], None),
            }
        }
    }

    fn key(&mut self) -> Bytes {
        let slot = self.below(3);
        format!("random/{}/{slot}", self.number).into()
    }

    fn write(&mut self, objects: &[NewObject], value: Option<Bytes>) {
        let change = RecordChange { family: Family::Refs, key: self.key(), expect: Expect::Anything, value };
        self.store.commit(objects, &[change], Durability::NoSync).expect("a commit succeeds");
    }

    fn name(&mut self, objects: &[NewObject], named: &[NewObject]) {
        let value: Vec<u8> = named.iter().flat_map(|object| object.id().0).collect();
        self.write(objects, Some(value.into()));
    }

    /// Asks what is missing, puts it, and names all of it later.
    fn put_then_name(&mut self, contents: &[NewObject]) {
        let _lease = self.store.lease();
        let ids: Vec<ObjectId> = contents.iter().map(NewObject::id).collect();
        let missing = self.store.missing(&ids).expect("missing succeeds");
        let lacking: Vec<NewObject> = contents.iter().filter(|object| missing.contains(&object.id())).cloned().collect();
        put(self.store, &lacking);
        self.name(&[], contents);
    }

    /// Names what somebody else's record names, and something of its own, without asking for any of it.
    fn build_on_another(&mut self, contents: Vec<NewObject>) {
        let _lease = self.store.lease();
        let other = format!("random/{}/{}", self.below(4), self.below(3));
        let base = self.store.record(Family::Refs, other.as_bytes()).expect("a read succeeds").unwrap_or_default();
        let value: Vec<u8> = named_by(&base).take(4).chain(contents.iter().map(NewObject::id)).flat_map(|id| id.0).collect();
        self.write(&contents, Some(value.into()));
    }
}
