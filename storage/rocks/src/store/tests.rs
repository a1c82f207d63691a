//! What the store on RocksDB promises beyond the contract.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_objects::{
    Collect, Durability, Expect, Family, Mark, NewObject, ObjectError, ObjectStore, Pin, RecordChange, RecordStore, Sweep, hash,
    testing::{self, SmallDisk},
};
use helix_protocol::{Code, Epoch, Failure, ObjectId, TaskId};

use super::{Loss, RocksStore};
use crate::RocksOptions;

const SMALL: RocksOptions =
    RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, reserve_bytes: 0, ..RocksOptions::DEFAULT };

fn open(path: &Path) -> RocksStore {
    RocksStore::open_with(path, SMALL).unwrap()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> NewObject {
    let blocks = (0..length as u64).step_by(32).map(|at| hash(&[seed.to_le_bytes(), at.to_le_bytes()].concat()).0);
    let mut bytes: Vec<u8> = blocks.flatten().collect();
    bytes.truncate(length);
    NewObject::new(Bytes::from(bytes))
}

#[test]
fn the_rocks_store_keeps_the_contract() {
    let folders = std::sync::Mutex::new(Vec::new());
    testing::contract(&|| {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        folders.lock().unwrap().push(folder);
        Arc::new(store)
    });
}

#[test]
fn the_rocks_store_keeps_the_records_contract() {
    let folder = tempfile::tempdir().unwrap();
    testing::record_contract(&open(folder.path()));
}

#[test]
fn the_rocks_store_keeps_the_contract_of_collections() {
    let folder = tempfile::tempdir().unwrap();
    testing::collect_contract(&open(folder.path()));
}

#[test]
fn a_store_of_the_first_format_gets_the_families_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(rocksdb::DB::open_cf(&options, folder.path().join("db"), ["idx", "hot", "pins", "meta"]).unwrap());
    fs::write(folder.path().join("format"), "1\n").unwrap();
    let store = open(folder.path());
    testing::record_contract(&store);
    store.close().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("format")).unwrap(), "2\n");
}

#[test]
fn a_killed_store_that_lacks_a_family_is_looked_at_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mark = open(folder.path()).put(&[noise(1, 100)], Durability::Group).unwrap();
    let database = folder.path().join("db");
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &database).unwrap();
    rocksdb::DB::open_cf(&options, &database, families).unwrap().drop_cf(Family::GitMap.name()).unwrap();
    assert_eq!(open(folder.path()).mark(), mark);
}

#[test]
fn content_pins_and_the_mark_are_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<NewObject> = (0..200).map(|seed| noise(seed, 3_000)).collect();
    let ids: Vec<ObjectId> = objects.iter().map(NewObject::id).collect();
    let pin = Pin { task: TaskId::new(), epoch: Epoch(3) };
    let store = open(folder.path());
    let mark = store.put(&objects, Durability::Sync).unwrap();
    store.pin(pin, &ids[..1]).unwrap();
    let before = store.stats().unwrap();
    store.close().unwrap();
    let store = open(folder.path());
    store.verify_acknowledged(mark).unwrap();
    assert_eq!((store.mark(), store.pinned().unwrap()), (mark, vec![(pin, ids[0])]));
    let after = store.stats().unwrap();
    assert_eq!((after.objects, after.logical_bytes), (before.objects, before.logical_bytes));
    let found = store.get_many(&ids).unwrap();
    assert!(found.iter().zip(&objects).all(|(found, object)| found.as_ref() == Some(object.bytes())));
}

#[test]
fn what_a_change_only_checks_is_checked_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (absent, head, other) = (Bytes::from_static(b"absent"), Bytes::from_static(b"head"), Bytes::from_static(b"other"));
    let change = |key: &Bytes, expect, value| RecordChange { family: Family::Workspaces, key: key.clone(), expect, value };
    let (one, two) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
    let made = store.commit(&[], &[change(&head, Expect::Absent, Some(one.clone()))], Durability::Group).unwrap();
    let checks = [change(&absent, Expect::Absent, None), change(&head, Expect::Value(one.clone()), Some(one.clone()))];
    let bytes = |store: &RocksStore| {
        let files = fs::read_dir(folder.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        (logs.map(|path| fs::metadata(path).unwrap().len()).sum::<u64>(), store.mark())
    };
    let before = bytes(&store);
    assert_eq!(store.commit(&[], &checks, Durability::NoSync).unwrap(), made, "it is on disk with what is there");
    assert_eq!(bytes(&store), before, "nothing was written");
    let with = |last: RecordChange| [checks.as_slice(), &[last]].concat();
    let refused = store.commit(&[], &with(change(&other, Expect::Value(two.clone()), Some(two.clone()))), Durability::NoSync);
    assert!(matches!(refused, Err(ObjectError::Moved { family: Family::Workspaces, key }) if key == other));
    let mark = store.commit(&[], &with(change(&other, Expect::Absent, Some(two.clone()))), Durability::Group).unwrap();
    assert!(mark > made);
    store.close().unwrap();
    let store = open(folder.path());
    let found = store.records(Family::Workspaces, b"", None, 9).unwrap();
    assert_eq!((store.mark(), found), (mark, vec![(head, one), (other, two)]));
}

#[test]
fn a_log_that_is_gone_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mark = store.put(&[noise(1, 100), noise(2, 100)], Durability::Sync).unwrap();
    store.close().unwrap();
    for entry in fs::read_dir(folder.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(path).unwrap();
        }
    }
    let lost = RocksStore::open_with(folder.path(), SMALL).err().unwrap();
    assert!(matches!(lost, ObjectError::LostWrites { recovered: Mark(0), acknowledged } if acknowledged == mark), "{lost:?}");
    let (store, loss) = RocksStore::open_accepting_loss(folder.path(), SMALL).unwrap();
    assert_eq!(loss, Some(Loss { recovered: Mark(0), acknowledged: Some(mark) }));
    let next = store.put(&[noise(3, 100)], Durability::Group).unwrap();
    assert_eq!(next, Mark(mark.0 + 1), "no mark is given twice");
    drop(store);
    assert_eq!(open(folder.path()).mark(), next);
}

#[test]
fn a_second_owner_and_a_newer_format_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let second = RocksStore::open(folder.path()).err().unwrap();
    assert_eq!(Failure::from(second).code, Code::NodeRunning);
    store.close().unwrap();
    fs::write(folder.path().join("format"), "3\n").unwrap();
    let newer = RocksStore::open(folder.path()).err().unwrap();
    assert_eq!(Failure::from(newer).code, Code::NewerFormat);
}

#[test]
fn writers_at_once_need_fewer_syncs_than_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for count in 0..10 {
                    store.put(&[noise(writer * 100 + count, 500)], Durability::Group).unwrap();
                }
            });
        }
    });
    let stats = store.stats().unwrap();
    assert_eq!((stats.objects, stats.logical_bytes), (160, 80_000));
    assert!(store.syncs() < 160, "{} syncs for 160 commits", store.syncs());
}

#[test]
fn commits_written_together_are_judged_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (writers, rounds) = (16, 50_u64);
    let wins: u64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || (0..rounds).filter(|round| count_one_up(store, writer * rounds + round)).count() as u64)
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    let counted = store.record(Family::Settings, b"count").unwrap().unwrap();
    assert_eq!(counted, wins.to_string(), "who was told of success was counted, and nobody else");
    assert_eq!(store.stats().unwrap().objects, wins, "a refused commit leaves no object");
}

/// Raises the counter that all writers share by one, with an object; false where another was faster.
fn count_one_up(store: &RocksStore, seed: u64) -> bool {
    let found = store.record(Family::Settings, b"count").unwrap();
    let next = found.as_ref().map_or(0, |found| std::str::from_utf8(found).unwrap().parse::<u64>().unwrap()) + 1;
    let change = RecordChange {
        family: Family::Settings,
        key: Bytes::from_static(b"count"),
        expect: found.map_or(Expect::Absent, Expect::Value),
        value: Some(next.to_string().into()),
    };
    match store.commit(&[noise(seed, 40)], &[change], Durability::NoSync) {
        Ok(_) => true,
        Err(ObjectError::Moved { family: Family::Settings, .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_put_of_known_synced_content_syncs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put(&[noise(1, 100)], Durability::Group).unwrap();
    let syncs = store.syncs();
    store.put(&[noise(2, 100)], Durability::NoSync).unwrap();
    store.put(&[noise(1, 100)], Durability::Group).unwrap();
    assert_eq!(store.syncs(), syncs);
    store.sync_all().unwrap();
    store.sync_all().unwrap();
    assert_eq!(store.syncs(), syncs + 1);
}

/// Fills the disk, writes until it is refused, makes room, and expects that everything acknowledged
/// is there and writing goes on.
fn survives_a_full_disk(options: RocksOptions) {
    let disk = tempfile::tempdir().unwrap();
    let Some(_mounted) = SmallDisk::mount(disk.path(), 32) else { return };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 20 << 20]).unwrap();
    let store = RocksStore::open_with(&disk.path().join("store"), options).unwrap();
    let (mut acknowledged, mut refusal) = (Vec::new(), None);
    for seed in 0..1_000 {
        let object = noise(seed, 64 << 10);
        match store.put(std::slice::from_ref(&object), Durability::Group) {
            Ok(_) => acknowledged.push(object),
            Err(error) => {
                refusal = Some(Failure::from(error).code);
                break;
            }
        }
    }
    assert_eq!(refusal, Some(Code::DiskFull));
    assert!(!acknowledged.is_empty());
    let too_large = NewObject::new(vec![9; 31 << 20].into());
    assert!(store.put(&[too_large], Durability::Group).is_err(), "more than the disk could ever hold");
    for object in &acknowledged {
        assert_eq!(store.read(object.id()).unwrap(), object.bytes(), "reads go on while the disk is full");
    }
    fs::remove_file(&ballast).unwrap();
    let next = noise(6_000, 1 << 20);
    let mark = store.put(std::slice::from_ref(&next), Durability::Group).unwrap();
    store.close().unwrap();
    let store = RocksStore::open_with(&disk.path().join("store"), options).unwrap();
    store.verify_acknowledged(mark).unwrap();
    for object in acknowledged.iter().chain([&next]) {
        assert_eq!(store.read(object.id()).unwrap(), object.bytes());
    }
}

#[test]
fn a_full_disk_does_not_keep_a_collection_from_making_room() {
    let disk = tempfile::tempdir().unwrap();
    let Some(_mounted) = SmallDisk::mount(disk.path(), 32) else { return };
    let mut store = open(&disk.path().join("store"));
    let objects: Vec<NewObject> = (0..20).map(|seed| noise(seed, 1_000)).collect();
    store.put(&objects, Durability::Group).unwrap();
    // More than the disk could ever have free.
    store.options.reserve_bytes = 64 << 20;
    let refused = store.put(&[noise(99, 1 << 20)], Durability::Group).map_err(|error| Failure::from(error).code);
    assert_eq!(refused, Err(Code::DiskFull));
    let collection = store.begin_collection(Duration::ZERO).unwrap();
    let swept = store.sweep(&collection, &|_| false, Sweep::Drop).unwrap();
    assert_eq!((swept.dropped, swept.kept), (20, 0));
}

#[test]
fn a_full_disk_is_refused_before_the_database_meets_it() {
    survives_a_full_disk(RocksOptions { reserve_bytes: 4 << 20, ..SMALL });
}

#[test]
fn a_database_that_met_a_full_disk_writes_again_once_there_is_room() {
    survives_a_full_disk(SMALL);
}
