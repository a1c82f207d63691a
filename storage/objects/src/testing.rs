//! The contract suite of [`ObjectStore`]: every store passes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use helix_protocol::{Epoch, ObjectId, TaskId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::{Durability, Expect, Family, Mark, NewObject, ObjectError, ObjectStore, Pin, RecordChange, RecordStore, hash};

mod collect;
mod small_disk;

pub use collect::collect_contract;
pub use small_disk::SmallDisk;

/// Makes an empty store.
pub type MakeStore<'a> = &'a dyn Fn() -> Arc<dyn ObjectStore>;

/// Runs the whole suite; panics at the first claim that does not hold.
pub fn contract(make: MakeStore<'_>) {
    what_was_put_is_read_back_byte_for_byte(&*make());
    an_absent_object_is_none_and_missing(&*make());
    marks_only_grow_and_repeated_puts_cost_nothing(&*make());
    a_mark_that_was_never_given_is_refused(&*make());
    pins_are_released_up_to_their_epoch(&*make());
    concurrent_writers_lose_nothing(&make());
    a_closed_store_refuses(&*make());
    any_sequence_of_calls_agrees_with_a_map(make);
}

/// Runs the suite of [`RecordStore`] on an empty store.
pub fn record_contract(store: &dyn RecordStore) {
    records_change_together_or_not_at_all(store);
    records_are_listed_by_prefix_in_order(store);
    of_writers_that_expect_the_same_value_one_wins(store);
}

fn change(family: Family, key: &str, expect: Expect, value: Option<&str>) -> RecordChange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    RecordChange { family, key: bytes(key), expect, value: value.map(bytes) }
}

fn records_change_together_or_not_at_all(store: &dyn RecordStore) {
    let made = object("made with a record");
    let (refs, log) = (Family::Refs, Family::Oplog);
    let both = [change(refs, "one", Expect::Absent, Some("1")), change(log, "one", Expect::Anything, Some("log"))];
    let first = store.commit(std::slice::from_ref(&made), &both, Durability::Group).expect("a commit succeeds");
    assert_eq!(store.record(refs, b"one").expect("a read succeeds"), Some(Bytes::from_static(b"1")));
    assert_eq!(store.record(log, b"one").expect("a read succeeds"), Some(Bytes::from_static(b"log")));
    assert_eq!(store.record(Family::Workspaces, b"one").expect("a read succeeds"), None, "families have keys of their own");

    let other = object("refused with its record");
    let stale =
        [change(log, "two", Expect::Absent, Some("x")), change(refs, "one", Expect::Value(Bytes::from_static(b"0")), Some("2"))];
    let refused = store.commit(std::slice::from_ref(&other), &stale, Durability::NoSync);
    assert!(matches!(refused, Err(ObjectError::Moved { family: Family::Refs, ref key }) if key == "one"), "{refused:?}");
    assert_eq!(store.get(other.id()).expect("a read succeeds"), None);
    assert_eq!(store.record(log, b"two").expect("a read succeeds"), None);

    let gone = [change(refs, "one", Expect::Value(Bytes::from_static(b"1")), None)];
    let second = store.commit(&[], &gone, Durability::NoSync).expect("a commit succeeds");
    assert!(second > first, "a batch that only changes records has a mark of its own");
    store.sync(second).expect("and can be waited for");
    assert_eq!(store.record(refs, b"one").expect("a read succeeds"), None);
}

fn records_are_listed_by_prefix_in_order(store: &dyn RecordStore) {
    let family = Family::Experiments;
    let all = ["a/1", "a/2", "a/3", "b/1", "a"].map(|key| change(family, key, Expect::Absent, Some(key)));
    store.commit(&[], &all, Durability::NoSync).expect("a commit succeeds");
    let keys = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let found = store.records(family, prefix.as_bytes(), after.map(str::as_bytes), limit).expect("a listing succeeds");
        found.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).expect("the keys are text")).collect()
    };
    assert_eq!(keys("", None, 10), ["a", "a/1", "a/2", "a/3", "b/1"]);
    assert_eq!(keys("a/", None, 2), ["a/1", "a/2"]);
    assert_eq!(keys("a/", Some("a/2"), 10), ["a/3"]);
    assert_eq!(keys("a/", Some("A"), 1), ["a/1"], "a key before the prefix leaves nothing out");
    assert_eq!(keys("c", None, 10), Vec::<String>::new());
}

fn of_writers_that_expect_the_same_value_one_wins(store: &dyn RecordStore) {
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                scope.spawn(move || {
                    let claim = change(Family::Refs, "contested", Expect::Absent, Some(&writer.to_string()));
                    usize::from(store.commit(&[], &[claim], Durability::NoSync).is_ok())
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).sum()
    });
    assert_eq!(wins, 1);
}

fn object(text: &str) -> NewObject {
    NewObject::new(Bytes::copy_from_slice(text.as_bytes()))
}

fn what_was_put_is_read_back_byte_for_byte(store: &dyn ObjectStore) {
    let objects =
        [object(""), object("a"), object(&"compresses well ".repeat(10_000)), NewObject::new(hash(b"does not").0.to_vec().into())];
    for durability in [Durability::NoSync, Durability::Group, Durability::Sync] {
        store.put(&objects, durability).expect("a put succeeds");
    }
    for object in &objects {
        assert_eq!(store.get(object.id()).expect("a get succeeds").as_ref(), Some(object.bytes()));
        assert_eq!(&store.read(object.id()).expect("a read succeeds"), object.bytes());
    }
    let stats = store.stats().expect("stats succeed");
    let logical: usize = objects.iter().map(|object| object.bytes().len()).sum();
    assert_eq!((stats.objects, stats.logical_bytes), (4, logical as u64));
}

fn an_absent_object_is_none_and_missing(store: &dyn ObjectStore) {
    let (here, absent, also_absent) = (object("here"), hash(b"absent"), hash(b"also absent"));
    store.put(std::slice::from_ref(&here), Durability::NoSync).expect("a put succeeds");
    assert_eq!(store.get(absent).expect("a get succeeds"), None);
    assert!(matches!(store.read(absent), Err(ObjectError::Missing(id)) if id == absent));
    assert_eq!(store.missing(&[also_absent, here.id(), absent]).expect("missing succeeds"), vec![also_absent, absent]);
    let many = store.get_many(&[absent, here.id(), also_absent, here.id()]).expect("get_many succeeds");
    assert_eq!(many, vec![None, Some(here.bytes().clone()), None, Some(here.bytes().clone())]);
}

fn marks_only_grow_and_repeated_puts_cost_nothing(store: &dyn ObjectStore) {
    let first = store.put(&[object("one")], Durability::NoSync).expect("a put succeeds");
    let second = store.put(&[object("two"), object("three")], Durability::NoSync).expect("a put succeeds");
    assert!(second > first);
    let before = store.stats().expect("stats succeed");
    let again = store.put(&[object("one"), object("two")], Durability::Group).expect("a put succeeds");
    assert!(again <= second, "nothing new was written, so no new mark covers it");
    assert_eq!(store.stats().expect("stats succeed"), before);
    store.sync(second).expect("a sync succeeds");
    store.sync(first).expect("an older mark is synced already");
    store.sync_all().expect("everything can be waited for");
    let nothing = store.put(&[], Durability::Sync).expect("an empty put succeeds");
    assert!(nothing <= second);
}

fn a_mark_that_was_never_given_is_refused(store: &dyn ObjectStore) {
    let mark = store.put(&[object("one")], Durability::NoSync).expect("a put succeeds");
    let beyond = Mark(mark.0 + 1_000);
    assert!(matches!(store.sync(beyond), Err(ObjectError::LostWrites { acknowledged, .. }) if acknowledged == beyond));
}

fn pins_are_released_up_to_their_epoch(store: &dyn ObjectStore) {
    let (task, other) = (TaskId::new(), TaskId::new());
    let pin = |task, epoch| Pin { task, epoch: Epoch(epoch) };
    let (a, b) = (object("a").id(), object("b").id());
    store.pin(pin(task, 1), &[a]).expect("a pin succeeds");
    store.pin(pin(task, 2), &[a, b]).expect("a pin succeeds");
    store.pin(pin(task, 2), &[b]).expect("a repeated pin succeeds");
    store.pin(pin(task, 3), &[b]).expect("a pin succeeds");
    store.pin(pin(other, 1), &[a]).expect("a pin succeeds");
    store.unpin(pin(task, 2)).expect("an unpin succeeds");
    let mut expected = vec![(pin(task, 3), b), (pin(other, 1), a)];
    expected.sort();
    assert_eq!(store.pinned().expect("pinned succeeds"), expected);
}

fn concurrent_writers_lose_nothing(store: &Arc<dyn ObjectStore>) {
    let text = |writer: usize, count: usize| format!("writer {writer} wrote {count}");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for count in 0..25 {
                    let mine = object(&text(writer, count));
                    let shared = object(&format!("everybody wrote {count}"));
                    let mark = store.put(&[mine.clone(), shared.clone()], Durability::NoSync).expect("a put succeeds");
                    store.sync(mark).expect("a sync succeeds");
                    assert_eq!(&store.read(mine.id()).expect("what was put is there"), mine.bytes());
                    assert_eq!(&store.read(shared.id()).expect("what was put is there"), shared.bytes());
                }
            });
        }
    });
    let all: Vec<ObjectId> =
        (0..4).flat_map(|writer| (0..25).map(move |count| (writer, count))).map(|(w, c)| object(&text(w, c)).id()).collect();
    assert_eq!(store.missing(&all).expect("missing succeeds"), vec![]);
    assert_eq!(store.stats().expect("stats succeed").objects, 125);
}

fn a_closed_store_refuses(store: &dyn ObjectStore) {
    store.put(&[object("one")], Durability::NoSync).expect("a put succeeds");
    store.close().expect("a close succeeds");
    store.close().expect("closing twice is no error");
    assert!(matches!(store.missing(&[object("one").id()]), Err(ObjectError::Closed)));
    assert!(matches!(store.get(object("one").id()), Err(ObjectError::Closed)));
    assert!(matches!(store.put(&[object("two")], Durability::NoSync), Err(ObjectError::Closed)));
}

#[derive(Clone, Debug)]
enum Call {
    Put(Vec<Vec<u8>>),
    Get(Vec<u8>),
    Missing(Vec<Vec<u8>>),
    Pin(u64, Vec<Vec<u8>>),
    Unpin(u64),
}

fn any_sequence_of_calls_agrees_with_a_map(make: MakeStore<'_>) {
    // Few distinct contents, so that calls meet each other.
    let content = || (0_u8..12, 0_usize..400).prop_map(|(byte, length)| vec![byte; length / 37 * 37]);
    let contents = move || prop::collection::vec(content(), 0..6);
    let call = prop_oneof![
        4 => contents().prop_map(Call::Put),
        3 => content().prop_map(Call::Get),
        1 => contents().prop_map(Call::Missing),
        1 => (0_u64..4, contents()).prop_map(|(epoch, contents)| Call::Pin(epoch, contents)),
        1 => (0_u64..4).prop_map(Call::Unpin),
    ];
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&prop::collection::vec(call, 1..40), |calls| {
        let (store, task) = (make(), TaskId::new());
        let (mut model, mut pins, mut mark) = (BTreeMap::<ObjectId, Vec<u8>>::new(), BTreeSet::new(), Mark(0));
        for call in calls {
            match call {
                Call::Put(contents) => {
                    let objects: Vec<NewObject> = contents.iter().map(|bytes| NewObject::new(bytes.clone().into())).collect();
                    let next = store.put(&objects, Durability::NoSync).map_err(failed)?;
                    let grew = objects.iter().filter(|object| !model.contains_key(&object.id())).count() > 0;
                    prop_assert_eq!(next > mark, grew);
                    mark = mark.max(next);
                    model.extend(contents.into_iter().map(|bytes| (hash(&bytes), bytes)));
                }
                Call::Get(bytes) => {
                    let expected = model.get(&hash(&bytes)).cloned().map(Bytes::from);
                    prop_assert_eq!(store.get(hash(&bytes)).map_err(failed)?, expected);
                }
                Call::Missing(contents) => {
                    let ids: Vec<ObjectId> = contents.iter().map(|bytes| hash(bytes)).collect();
                    let expected: Vec<ObjectId> = ids.iter().copied().filter(|id| !model.contains_key(id)).collect();
                    prop_assert_eq!(store.missing(&ids).map_err(failed)?, expected);
                }
                Call::Pin(epoch, contents) => {
                    let ids: Vec<ObjectId> = contents.iter().map(|bytes| hash(bytes)).collect();
                    store.pin(Pin { task, epoch: Epoch(epoch) }, &ids).map_err(failed)?;
                    pins.extend(ids.into_iter().map(|id| (Pin { task, epoch: Epoch(epoch) }, id)));
                }
                Call::Unpin(epoch) => {
                    store.unpin(Pin { task, epoch: Epoch(epoch) }).map_err(failed)?;
                    pins.retain(|(pin, _)| pin.epoch > Epoch(epoch));
                }
            }
            prop_assert_eq!(store.pinned().map_err(failed)?, pins.iter().copied().collect::<Vec<_>>());
        }
        let logical: usize = model.values().map(Vec::len).sum();
        let stats = store.stats().map_err(failed)?;
        prop_assert_eq!((stats.objects, stats.logical_bytes), (model.len() as u64, logical as u64));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn failed(error: ObjectError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
