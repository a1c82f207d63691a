//! Content in groups is what it was, takes less room, and can be dropped again.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_objects::{Collect, Durability, Kind, NewObject, ObjectStore, PackHint, Sweep, hash, similarity};
use helix_protocol::ObjectId;
use helix_rocks::{Compression, Effort, RocksOptions, RocksStore};

const OPTIONS: RocksOptions =
    RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, reserve_bytes: 0, ..RocksOptions::DEFAULT };

/// Version `version` of file `file`: 8 KB that do not compress, but for 100 bytes the same as the version before.
fn version(file: u64, version: u64) -> NewObject {
    let block = |at: u64| hash(&[file, at, if at == version % 250 { version } else { 0 }].map(u64::to_le_bytes).concat()).0;
    let bytes: Vec<u8> = (0..250).flat_map(block).collect();
    NewObject::new(bytes.into())
}

fn versions() -> Vec<NewObject> {
    (0..40).flat_map(|number| (0..5).map(move |file| version(file, number))).collect()
}

fn hints(objects: &[NewObject]) -> Vec<PackHint> {
    let near = |at: usize| similarity(format!("folder/{}.rs", at % 5).as_bytes());
    objects.iter().enumerate().map(|(at, object)| PackHint { id: object.id(), kind: Kind::File, near: near(at) }).collect()
}

fn ids(objects: &[NewObject]) -> Vec<ObjectId> {
    objects.iter().map(NewObject::id).collect()
}

fn all_there(store: &RocksStore, objects: &[NewObject]) {
    let found = store.get_many(&ids(objects)).unwrap();
    assert!(found.iter().zip(objects).all(|(found, object)| found.as_ref() == Some(object.bytes())));
    for object in objects {
        assert_eq!(&store.read(object.id()).unwrap(), object.bytes());
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { bytes_in(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

#[test]
fn packed_content_is_what_it_was_and_takes_a_fraction_of_the_room() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let folder = tempfile::tempdir().unwrap();
        let options = RocksOptions { compression, ..OPTIONS };
        let store = RocksStore::open_with(folder.path(), options).unwrap();
        let objects = versions();
        let mark = store.put(&objects, Durability::NoSync).unwrap();
        let before = store.stats().unwrap();
        let packed = store.pack(&hints(&objects), Effort::Idle).unwrap();
        assert_eq!((packed.objects, packed.bytes, packed.groups), (200, 200 * 8_000, 1));
        store.compact().unwrap();
        all_there(&store, &objects);
        let after = store.stats().unwrap();
        assert_eq!((after.objects, after.logical_bytes), (before.objects, before.logical_bytes));
        assert!(bytes_in(folder.path()) * 5 < before.logical_bytes, "{} of {}", bytes_in(folder.path()), before.logical_bytes);
        assert_eq!(store.put(&objects, Durability::Group).unwrap().0, 0, "what is packed is on disk already");
        assert_eq!(store.pack(&hints(&objects), Effort::Idle).unwrap().objects, 0, "and is not packed twice");
        store.close().unwrap();
        let store = RocksStore::open_with(folder.path(), options).unwrap();
        assert_eq!(store.mark(), mark);
        all_there(&store, &objects);
    }
}

#[test]
fn an_object_larger_than_a_group_has_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
    let large = NewObject::new(version(1, 1).bytes().repeat(2_500).into());
    let objects = [version(0, 0), large, version(2, 0)];
    store.put(&objects, Durability::NoSync).unwrap();
    let packed = store.pack(&hints(&objects), Effort::Idle).unwrap();
    assert_eq!((packed.objects, packed.groups), (3, 2));
    store.compact().unwrap();
    all_there(&store, &objects);
}

#[test]
fn what_was_packed_apart_is_brought_together_by_an_aggressive_pack() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
    let objects = versions();
    for part in objects.chunks(50) {
        store.put(part, Durability::NoSync).unwrap();
        store.pack(&hints(part), Effort::Idle).unwrap();
    }
    assert_eq!(store.rocks_stats().unwrap().groups, 4, "a pack knows what it is told of");
    store.compact().unwrap();
    let apart = bytes_in(&folder.path().join("db"));
    let packed = store.pack(&hints(&objects), Effort::Aggressive).unwrap();
    assert_eq!((packed.objects, packed.groups), (200, 1));
    store.compact().unwrap();
    all_there(&store, &objects);
    let together = bytes_in(&folder.path().join("db"));
    assert!(together * 2 < apart, "{together} of {apart}");
}

#[test]
fn little_at_a_time_makes_few_groups() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
    let objects = versions();
    let mut moved = 0;
    for end in (5..=objects.len()).step_by(5) {
        store.put(&objects[end - 5..end], Durability::NoSync).unwrap();
        moved += store.pack(&hints(&objects[..end]), Effort::Idle).unwrap().objects;
    }
    all_there(&store, &objects);
    let groups = store.rocks_stats().unwrap().groups;
    assert!(groups <= 8, "{groups} groups after 40 packings");
    assert!(moved <= 200 * 8, "{moved} moves of 200 objects");
    let checked = store.verify().unwrap();
    assert!(checked.is_sound() && checked.dead_bytes == 0, "{checked:?}");
}

#[test]
fn a_group_that_is_mostly_dead_is_packed_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
    let objects: Vec<NewObject> = (0..100).map(|file| version(file, 0)).collect();
    store.put(&objects, Durability::NoSync).unwrap();
    store.pack(&hints(&objects), Effort::Idle).unwrap();
    store.compact().unwrap();
    let whole = bytes_in(&folder.path().join("db"));
    for (kept, packs) in [(60, 0), (20, 20), (0, 0)] {
        let live: HashSet<ObjectId> = ids(&objects[..kept]).into_iter().collect();
        let collection = store.begin_collection(Duration::ZERO).unwrap();
        let swept = store.sweep(&collection, &|id| live.contains(&id), Sweep::Drop).unwrap();
        assert_eq!(swept.kept, kept as u64);
        drop(collection);
        assert_eq!(store.repack().unwrap().objects, packs, "of {kept}");
        store.compact().unwrap();
        all_there(&store, &objects[..kept]);
        assert_eq!(store.missing(&ids(&objects)).unwrap(), ids(&objects[kept..]));
    }
    let nothing = bytes_in(&folder.path().join("db"));
    assert!(nothing * 4 < whole, "{nothing} of {whole} bytes are left when everything is dropped");
}

#[test]
fn purged_content_is_in_no_file_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = RocksOptions { compression: Compression::None, ..OPTIONS };
    let store = RocksStore::open_with(folder.path(), options).unwrap();
    let marker: Vec<u8> = (0..64).map(|at| hash(&[at]).0[0]).collect();
    let secret = |name: &str| NewObject::new([name.as_bytes(), &marker].concat().into());
    let (packed, hot) = (secret("packed"), secret("hot"));
    let others: Vec<NewObject> = (0..20).map(|file| version(file, 0)).collect();
    store.put(&others, Durability::NoSync).unwrap();
    store.put(std::slice::from_ref(&packed), Durability::NoSync).unwrap();
    store.pack(&hints(&[others.clone(), vec![packed.clone()]].concat()), Effort::Idle).unwrap();
    store.put(std::slice::from_ref(&hot), Durability::Group).unwrap();
    let holds = || {
        let files = fs::read_dir(folder.path().join("db")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(marker.len()).any(|window| window == marker)).count()
    };
    assert!(holds() > 0);
    let purged = store.purge(&[packed.id(), hot.id()]).unwrap();
    assert_eq!((purged.dropped, purged.kept), (2, 20));
    assert_eq!(holds(), 0);
    all_there(&store, &others);
    assert_eq!(store.missing(&[packed.id(), hot.id()]).unwrap(), vec![packed.id(), hot.id()]);
}

#[test]
fn reading_and_writing_go_on_beside_packing_and_sweeping() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
    let kept: Vec<NewObject> = (0..30).map(|file| version(file, 0)).collect();
    store.put(&kept, Durability::NoSync).unwrap();
    let (live, done) = (ids(&kept).into_iter().collect::<HashSet<_>>(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Acquire) {
                all_there(&store, &kept);
                rounds += 1;
            }
            rounds
        });
        for round in 1..8 {
            let passing: Vec<NewObject> = (0..30).map(|file| version(file, round)).collect();
            store.put(&passing, Durability::NoSync).unwrap();
            let effort = if round % 2 == 0 { Effort::Aggressive } else { Effort::Idle };
            store.pack(&hints(&[kept.clone(), passing.clone()].concat()), effort).unwrap();
            let collection = store.begin_collection(Duration::ZERO).unwrap();
            let swept = store.sweep(&collection, &|id| live.contains(&id), Sweep::Drop).unwrap();
            assert_eq!((swept.dropped, swept.kept), (30, 30));
            drop(collection);
            store.repack().unwrap();
        }
        done.store(true, Ordering::Release);
        assert!(reading.join().unwrap() > 0);
    });
    assert_eq!(store.stats().unwrap().objects, 30);
}

/// Version `version` of a text of 3 MB: every one differs in a line from every other.
fn large(version: u64) -> NewObject {
    let line =
        |at: u64| hash(&[at, if at == version * 97 { version + 1 } else { 0 }].map(u64::to_le_bytes).concat()).to_string() + "\n";
    NewObject::new((0..46_000).map(line).collect::<String>().into())
}

#[test]
fn large_objects_that_resemble_each_other_share_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
    let objects: Vec<NewObject> = (0..12).map(large).collect();
    store.put(&objects, Durability::NoSync).unwrap();
    let packed = store.pack(&hints(&objects), Effort::Aggressive).unwrap();
    assert_eq!((packed.objects, packed.groups), (12, 1));
    let one = objects[0].bytes().len() as u64;
    assert!(packed.stored_bytes < one, "{} bytes for twelve versions of {one}", packed.stored_bytes);
    store.compact().unwrap();
    all_there(&store, &objects);
}
