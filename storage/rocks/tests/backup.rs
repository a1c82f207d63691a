//! A check finds what is wrong, a backup is whole or refused, and a restored store is the store that was backed up.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, Kind, NewObject, ObjectStore, PackHint, RecordChange, RecordStore, hash};
use helix_protocol::ObjectId;
use helix_rocks::{Checked, Effort, RocksOptions, RocksStore};

const OPTIONS: RocksOptions =
    RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, reserve_bytes: 0, ..RocksOptions::DEFAULT };

fn objects() -> Vec<NewObject> {
    (0..60_u64).map(|seed| NewObject::new(hash(&seed.to_le_bytes()).0.repeat(40).into())).collect()
}

/// A store with packed and unpacked content and a record.
fn filled(path: &Path) -> RocksStore {
    let store = RocksStore::open_with(path, OPTIONS).unwrap();
    let (packed, hot) = (&objects()[..40], &objects()[40..]);
    store.put(packed, Durability::NoSync).unwrap();
    let hints: Vec<PackHint> = packed.iter().map(|object| PackHint { id: object.id(), kind: Kind::File, near: 0 }).collect();
    store.pack(&hints, Effort::Idle).unwrap();
    let head = RecordChange {
        family: Family::Refs,
        key: Bytes::from_static(b"main"),
        expect: Expect::Absent,
        value: Some(Bytes::from_static(b"head")),
    };
    store.commit(hot, &[head], Durability::Group).unwrap();
    store
}

fn is_whole(store: &RocksStore) {
    let ids: Vec<ObjectId> = objects().iter().map(NewObject::id).collect();
    let found = store.get_many(&ids).unwrap();
    assert!(found.iter().zip(objects()).all(|(found, object)| found.as_ref() == Some(object.bytes())));
    assert_eq!(store.record(Family::Refs, b"main").unwrap().as_deref(), Some(&b"head"[..]));
    let checked = store.verify().unwrap();
    let expected =
        Checked { objects: 60, bytes: 60 * 1_280, packed: 40, groups: 1, dead_bytes: 0, records: 1, ..Checked::default() };
    assert_eq!(checked, expected);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_restored_store_is_the_store_that_was_backed_up() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (backup, restored) = (copies.path().join("backup"), copies.path().join("restored"));
    let store = filled(folder.path());
    is_whole(&store);
    let mark = store.mark();
    let made = store.backup(&backup).unwrap();
    assert_eq!((made.mark, made.objects), (mark, 60));
    assert!(store.backup(&backup).is_err(), "a folder that holds something is not written over");
    store.put(&[NewObject::new(Bytes::from_static(b"later"))], Durability::Group).unwrap();
    assert_eq!(store.stats().unwrap().objects, 61, "the store goes on");
    let (found, checked) = RocksStore::verify_backup(&backup).unwrap();
    assert_eq!((found, checked.objects), (made, 60));
    assert_eq!(RocksStore::restore(&backup, &restored).unwrap(), made);
    let store = RocksStore::open_with(&restored, OPTIONS).unwrap();
    assert_eq!(store.mark(), mark);
    is_whole(&store);
    RocksStore::verify_backup(&backup).unwrap();
}

#[test]
fn a_backup_that_lacks_a_file_or_has_one_byte_changed_is_refused() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = copies.path().join("backup");
    filled(folder.path()).backup(&backup).unwrap();
    for path in files(&backup) {
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(RocksStore::verify_backup(&backup).is_err(), "{} is gone", path.display());
        for at in [0, whole.len() / 2, whole.len().saturating_sub(1)] {
            let mut changed = whole.clone();
            let Some(byte) = changed.get_mut(at) else { continue };
            *byte ^= 1;
            // A new file: the old one may be shared with the store.
            fs::write(&path, changed).unwrap();
            let target = copies.path().join("never");
            assert!(RocksStore::restore(&backup, &target).is_err(), "byte {at} of {}", path.display());
            assert!(!target.exists() || files(&target).is_empty());
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, whole).unwrap();
    }
    fs::write(backup.join("stranger"), b"?").unwrap();
    assert!(RocksStore::verify_backup(&backup).is_err());
    fs::remove_file(backup.join("stranger")).unwrap();
    RocksStore::verify_backup(&backup).unwrap();
}

#[test]
fn a_damaged_table_is_found_by_a_check_and_never_read_as_content() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    store.compact().unwrap();
    store.close().unwrap();
    let tables: Vec<PathBuf> =
        files(folder.path()).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "sst")).collect();
    let known: Vec<NewObject> = objects();
    let mut noticed = 0;
    for path in &tables {
        let whole = fs::read(path).unwrap();
        for at in (0..whole.len()).step_by(whole.len().div_ceil(12)) {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            fs::write(path, changed).unwrap();
            let sound = RocksStore::open_with(folder.path(), OPTIONS).and_then(|store| {
                for object in &known {
                    if let Ok(Some(bytes)) = store.get(object.id()) {
                        assert_eq!(&bytes, object.bytes(), "byte {at} of {}", path.display());
                    }
                }
                let checked = store.verify();
                store.close()?;
                checked
            });
            noticed += usize::from(!sound.is_ok_and(|checked| checked.is_sound()));
            fs::write(path, &whole).unwrap();
        }
    }
    assert!(noticed > tables.len() * 6, "{noticed} of {} were noticed", tables.len() * 12);
    is_whole(&RocksStore::open_with(folder.path(), OPTIONS).unwrap());
}

#[test]
fn figures_say_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    store.compact().unwrap();
    let stats = store.rocks_stats().unwrap();
    assert_eq!((stats.commits.count, stats.objects, stats.logical_bytes, stats.groups), (1, 60, 60 * 1_280, 1));
    assert!(stats.commits.p50_us > 0 && stats.commits.p50_us == stats.commits.p99_us);
    assert!(stats.stored_bytes > 0 && stats.memory_bytes > 0 && stats.compression_ratio() > 1.0, "{stats:?}");
}
