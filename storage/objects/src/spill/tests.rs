//! What the spill store promises beyond the contract.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use helix_protocol::{Epoch, ObjectId, TaskId};

use super::{SpillOptions, SpillStore};
use crate::{Durability, NewObject, ObjectError, ObjectStore, Pin, testing};

const SMALL: SpillOptions = SpillOptions { limit_bytes: 64 * 1024, segment_bytes: 8 * 1024 };

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u32, length: usize) -> NewObject {
    let mut bytes = Vec::with_capacity(length + 32);
    while bytes.len() < length {
        let block = [seed.to_le_bytes().as_slice(), &(bytes.len() as u64).to_le_bytes()].concat();
        bytes.extend_from_slice(&crate::hash(&block).0);
    }
    bytes.truncate(length);
    NewObject::new(Bytes::from(bytes))
}

fn put(store: &SpillStore, object: &NewObject) {
    store.put(std::slice::from_ref(object), Durability::NoSync).unwrap();
}

#[test]
fn the_spill_store_keeps_the_contract() {
    let folders = std::sync::Mutex::new(Vec::new());
    testing::contract(&|| {
        let folder = tempfile::tempdir().unwrap();
        let store = SpillStore::open(folder.path(), SpillOptions::default()).unwrap();
        folders.lock().unwrap().push(folder);
        Arc::new(store)
    });
}

#[test]
fn content_and_pins_are_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<NewObject> = (0..50).map(|seed| noise(seed, 1000)).collect();
    let ids: Vec<ObjectId> = objects.iter().map(NewObject::id).collect();
    let (kept, released) = (Pin { task: TaskId::new(), epoch: Epoch(3) }, Pin { task: TaskId::new(), epoch: Epoch(1) });
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    store.put(&objects, Durability::NoSync).unwrap();
    store.pin(kept, &ids[..2]).unwrap();
    store.pin(released, &ids[5..9]).unwrap();
    store.unpin(released).unwrap();
    drop(store);
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    assert_eq!(store.missing(&ids).unwrap(), vec![]);
    let mut expected = vec![(kept, ids[0]), (kept, ids[1])];
    expected.sort();
    assert_eq!(store.pinned().unwrap(), expected);
    for object in &objects {
        assert_eq!(store.read(object.id()).unwrap(), object.bytes());
    }
}

#[test]
fn the_least_recently_used_goes_first_and_the_bound_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    let favourite = noise(0, 1000);
    put(&store, &favourite);
    for seed in 1..400 {
        put(&store, &noise(seed, 1000));
        assert!(store.get(favourite.id()).unwrap().is_some(), "used before every write, gone after {seed}");
        let stats = store.stats().unwrap();
        assert!(stats.stored_bytes <= SMALL.limit_bytes, "{stats:?} at {seed}");
        let on_disk: u64 = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "segment"))
            .map(|entry| entry.metadata().unwrap().len())
            .sum();
        assert_eq!(on_disk, stats.stored_bytes);
    }
    assert_eq!(store.get(noise(1, 1000).id()).unwrap(), None);
    assert_eq!(store.get(noise(399, 1000).id()).unwrap().as_ref(), Some(noise(399, 1000).bytes()));
}

#[test]
fn pinned_content_outlives_any_pressure_until_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    let pin = Pin { task: TaskId::new(), epoch: Epoch(7) };
    let pinned: Vec<NewObject> = (1000..1080).map(|seed| noise(seed, 1000)).collect();
    let ids: Vec<ObjectId> = pinned.iter().map(NewObject::id).collect();
    store.pin(pin, &ids).unwrap();
    store.put(&pinned, Durability::NoSync).unwrap();
    for seed in 0..200 {
        put(&store, &noise(seed, 1000));
    }
    assert_eq!(store.missing(&ids).unwrap(), vec![], "80 kB are pinned in a store of 64 KiB");
    store.unpin(pin).unwrap();
    assert!(store.stats().unwrap().stored_bytes <= SMALL.limit_bytes);
    assert!(!store.missing(&ids).unwrap().is_empty());
}

#[test]
fn a_damaged_object_is_dropped_and_can_be_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let object = noise(1, 5000);
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    put(&store, &object);
    drop(store);
    let path = folder.path().join("00000000.segment");
    let mut bytes = fs::read(&path).unwrap();
    bytes[3000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    assert_eq!(store.get(object.id()).unwrap(), None);
    assert_eq!(store.missing(&[object.id()]).unwrap(), vec![object.id()]);
    put(&store, &object);
    assert_eq!(store.read(object.id()).unwrap(), object.bytes());
}

#[test]
fn a_second_owner_and_a_newer_format_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = SpillStore::open(folder.path(), SMALL).unwrap();
    let second = SpillStore::open(folder.path(), SMALL);
    assert!(matches!(second, Err(ObjectError::InUse { .. })), "{second:?}");
    store.close().unwrap();
    drop(SpillStore::open(folder.path(), SMALL).unwrap());
    fs::write(folder.path().join("format"), "2\n").unwrap();
    let newer = SpillStore::open(folder.path(), SMALL);
    assert!(matches!(newer, Err(ObjectError::NewerFormat { found: 2, known: 1, .. })), "{newer:?}");
}

#[test]
fn a_full_disk_refuses_objects_and_pins_and_takes_nothing_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = testing::SmallDisk::mount(folder.path(), 2) else { return };
    let path = folder.path().join("store");
    let store = SpillStore::open(&path, SpillOptions { limit_bytes: 1 << 30, segment_bytes: 256 << 10 }).unwrap();
    let before: Vec<NewObject> = (0..5).map(|seed| noise(seed, 10_000)).collect();
    store.put(&before, Durability::NoSync).unwrap();
    disk.fill();
    let is_full = |error: ObjectError| helix_protocol::Failure::from(error).code == helix_protocol::Code::DiskFull;
    let late: Vec<NewObject> = (5..10).map(|seed| noise(seed, 10_000)).collect();
    assert!(is_full(store.put(&late, Durability::NoSync).unwrap_err()));
    let pin = Pin { task: TaskId::new(), epoch: Epoch(1) };
    let ids: Vec<ObjectId> = before.iter().map(NewObject::id).collect();
    // Whatever of the log's block is free still, it ends.
    let refused = (0..4_096).find_map(|_| store.pin(Pin { task: TaskId::new(), ..pin }, &ids).err());
    assert!(is_full(refused.expect("a log has no room on a full disk")));
    for object in &before {
        assert_eq!(store.read(object.id()).unwrap(), object.bytes());
    }
    disk.empty();
    assert_eq!(store.missing(&late.iter().map(NewObject::id).collect::<Vec<_>>()).unwrap().len(), late.len(), "nothing of a batch");
    store.put(&late, Durability::NoSync).unwrap();
    store.pin(pin, &ids).unwrap();
    drop(store);
    let store = SpillStore::open(&path, SMALL).unwrap();
    for object in before.iter().chain(&late) {
        assert_eq!(store.read(object.id()).unwrap(), object.bytes());
    }
    assert!(ids.iter().all(|id| store.pinned().unwrap().contains(&(pin, *id))));
}

#[test]
fn a_pin_that_could_not_be_written_is_no_pin_and_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = testing::SmallDisk::mount(folder.path(), 2) else { return };
    let path = folder.path().join("store");
    let store = SpillStore::open(&path, SMALL).unwrap();
    let object = noise(1, 100);
    put(&store, &object);
    disk.fill();
    let refused = loop {
        let pin = Pin { task: TaskId::new(), epoch: Epoch(1) };
        if store.pin(pin, &[object.id()]).is_err() {
            break pin;
        }
    };
    disk.empty();
    store.pin(refused, &[object.id()]).unwrap();
    drop(store);
    let store = SpillStore::open(&path, SMALL).unwrap();
    assert!(store.pinned().unwrap().contains(&(refused, object.id())));
}
