//! A log that is cut, changed or gone: acknowledged writes are there, or the store is refused and left as it is.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use helix_objects::{
    Durability, Expect, Family, Kind, Mark, NewObject, ObjectError, ObjectStore, PackHint, RecordChange, RecordStore, hash,
};
use helix_rocks::{Effort, RocksOptions, RocksStore};

const OPTIONS: RocksOptions =
    RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, reserve_bytes: 0, ..RocksOptions::DEFAULT };
const COMMITS: u64 = 40;

fn object(count: u64) -> NewObject {
    NewObject::new(hash(&count.to_le_bytes()).0.to_vec().into())
}

/// A store as a killed process leaves it, and how long its log was before the last commit.
struct Wreck {
    folder: tempfile::TempDir,
    log: PathBuf,
    bytes: Vec<u8>,
    last_record: usize,
    mark: Mark,
}

fn log_of(store: &Path) -> PathBuf {
    let files = fs::read_dir(store.join("db")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

/// Everything but the lock.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("db")).unwrap();
    for name in ["format", "mark"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for entry in fs::read_dir(from.join("db")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join("db").join(path.file_name().unwrap())).unwrap();
    }
}

impl Wreck {
    fn make(stop: impl FnOnce(&RocksStore)) -> Self {
        let (living, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = RocksStore::open_with(living.path(), OPTIONS).unwrap();
        let (mut mark, mut last_record) = (Mark(0), 0);
        for count in 0..COMMITS {
            last_record = fs::metadata(log_of(living.path())).unwrap().len() as usize;
            mark = store.put(&[object(count)], Durability::Group).unwrap();
        }
        stop(&store);
        copy(living.path(), folder.path());
        let log = log_of(folder.path());
        let bytes = fs::read(&log).unwrap();
        assert!(last_record < bytes.len());
        Self { folder, log, bytes, last_record, mark }
    }

    fn open(&self) -> Result<RocksStore, ObjectError> {
        RocksStore::open_with(self.folder.path(), OPTIONS)
    }

    fn is_whole(&self) {
        let store = self.open().unwrap();
        assert_eq!(store.mark(), self.mark);
        for count in 0..COMMITS {
            assert_eq!(&store.read(object(count).id()).unwrap(), object(count).bytes());
        }
    }

    /// Whether `damage` was noticed; what it was is undone then.
    fn refuses(&self, damage: &[u8]) -> bool {
        fs::write(&self.log, damage).unwrap();
        let refused = match self.open() {
            Ok(_) => return false,
            Err(ObjectError::LostWrites { recovered, acknowledged }) => recovered < acknowledged && acknowledged == self.mark,
            Err(ObjectError::Backend(_)) => true,
            Err(other) => panic!("{other}"),
        };
        fs::write(&self.log, &self.bytes).unwrap();
        refused
    }
}

#[test]
fn a_log_cut_or_changed_at_any_byte_of_its_last_record_is_refused_and_left_for_repair() {
    let wreck = Wreck::make(|_| ());
    for at in wreck.last_record..wreck.bytes.len() {
        assert!(wreck.refuses(&wreck.bytes[..at]), "cut to {at} of {} bytes", wreck.bytes.len());
        let mut changed = wreck.bytes.clone();
        changed[at] ^= 0x10;
        assert!(wreck.refuses(&changed), "byte {at} of {} changed", wreck.bytes.len());
    }
    wreck.is_whole();
}

#[test]
fn a_bit_flipped_in_the_middle_is_refused_and_left_for_repair() {
    let wreck = Wreck::make(|_| ());
    for at in (wreck.bytes.len() / 2..).take(64) {
        let mut changed = wreck.bytes.clone();
        changed[at] ^= 1;
        assert!(wreck.refuses(&changed), "byte {at} of {} changed", wreck.bytes.len());
    }
    wreck.is_whole();
}

#[test]
fn a_log_that_is_gone_is_refused_and_left_for_repair() {
    let wreck = Wreck::make(|_| ());
    fs::remove_file(&wreck.log).unwrap();
    let lost = wreck.open().err().unwrap();
    assert!(matches!(lost, ObjectError::LostWrites { recovered: Mark(0), acknowledged } if acknowledged == wreck.mark), "{lost}");
    fs::write(&wreck.log, &wreck.bytes).unwrap();
    wreck.is_whole();
}

#[test]
fn a_closed_store_whose_log_is_damaged_later_is_refused_too() {
    for damage in [0, 1, 2] {
        let wreck = Wreck::make(|store| store.close().unwrap());
        let mut bytes = wreck.bytes.clone();
        let (middle, last) = (bytes.len() / 2, bytes.len() - 1);
        match damage {
            0 => bytes.truncate(last),
            1 => bytes[middle] ^= 1,
            _ => bytes.clear(),
        }
        assert!(wreck.refuses(&bytes));
    }
}

#[test]
fn what_was_not_acknowledged_as_on_disk_may_be_gone() {
    let living = tempfile::tempdir().unwrap();
    let store = RocksStore::open_with(living.path(), OPTIONS).unwrap();
    let mark = store.put(&[object(0)], Durability::Group).unwrap();
    let log = log_of(living.path());
    let synced = fs::metadata(&log).unwrap().len() as usize;
    store.put(&[object(1)], Durability::NoSync).unwrap();
    let wreck = tempfile::tempdir().unwrap();
    copy(living.path(), wreck.path());
    let log = log_of(wreck.path());
    let bytes = fs::read(&log).unwrap();
    for cut in [synced, bytes.len() - 1] {
        fs::write(&log, &bytes[..cut]).unwrap();
        let store = RocksStore::open_with(wreck.path(), OPTIONS).unwrap();
        assert_eq!((store.mark(), store.missing(&[object(0).id(), object(1).id()]).unwrap()), (mark, vec![object(1).id()]));
        drop(store);
        fs::remove_dir_all(wreck.path()).unwrap();
        copy(living.path(), wreck.path());
    }
}

#[test]
fn a_damaged_or_missing_mark_file_is_refused_until_the_loss_is_accepted() {
    for gone in [true, false] {
        let wreck = Wreck::make(|_| ());
        let mark = wreck.folder.path().join("mark");
        if gone {
            fs::remove_file(&mark).unwrap()
        } else {
            fs::write(&mark, [7; 600]).unwrap()
        }
        assert!(matches!(wreck.open(), Err(ObjectError::Unmarked { .. })));
        let (store, loss) = RocksStore::open_accepting_loss(wreck.folder.path(), OPTIONS).unwrap();
        assert_eq!(loss.map(|loss| (loss.recovered, loss.acknowledged)), Some((wreck.mark, None)));
        drop(store);
        wreck.is_whole();
    }
}

/// A closed store with content in rows, in groups and in the log, and with records.
fn varied() -> (tempfile::TempDir, Vec<NewObject>) {
    let living = tempfile::tempdir().unwrap();
    let objects: Vec<NewObject> = (0..COMMITS).map(object).collect();
    let (packed, rest) = objects.split_at(20);
    let (tables, log) = rest.split_at(10);
    let store = RocksStore::open_with(living.path(), OPTIONS).unwrap();
    store.put(packed, Durability::Group).unwrap();
    let hints: Vec<PackHint> = packed.iter().map(|object| PackHint { id: object.id(), kind: Kind::File, near: 0 }).collect();
    assert_eq!(store.pack(&hints, Effort::Idle).unwrap().objects, 20);
    store.put(tables, Durability::Group).unwrap();
    store.compact().unwrap();
    for object in log {
        let change = RecordChange { family: Family::Refs, key: key(object), expect: Expect::Absent, value: Some(value(object)) };
        store.commit(std::slice::from_ref(object), &[change], Durability::Group).unwrap();
    }
    store.close().unwrap();
    (living, objects)
}

fn key(object: &NewObject) -> Bytes {
    Bytes::copy_from_slice(&object.id().0[..8])
}

fn value(object: &NewObject) -> Bytes {
    object.bytes().clone()
}

/// Whether a store that could be opened says that it is damaged, or else holds all that it held.
fn is_told_or_whole(store: &RocksStore, objects: &[NewObject]) -> bool {
    match store.verify() {
        Ok(checked) if checked.is_sound() => {
            let whole = |object: &NewObject| store.get(object.id()).is_ok_and(|found| found.as_ref() == Some(object.bytes()));
            let recorded =
                |object: &NewObject| store.record(Family::Refs, &key(object)).is_ok_and(|found| found == Some(value(object)));
            objects.iter().all(whole) && objects[30..].iter().all(recorded)
        }
        _ => true,
    }
}

fn files_of(store: &Path) -> Vec<PathBuf> {
    let own = ["format", "mark"].map(PathBuf::from);
    let database = fs::read_dir(store.join("db")).unwrap().map(|entry| Path::new("db").join(entry.unwrap().file_name()));
    own.into_iter().chain(database).collect()
}

/// Every byte in a campaign; else the first ones, the last ones, and some in between.
fn places(length: usize) -> Vec<usize> {
    if std::env::var_os("HELIX_CAMPAIGN").is_some() {
        return (0..length).collect();
    }
    let step = (length / 24).max(1);
    (0..length).filter(|at| *at < 4 || at % step == 0 || at + 4 >= length).collect()
}

#[test]
fn any_byte_of_any_file_changed_or_cut_off_or_the_file_gone_is_told_or_harms_nothing() {
    let (whole, objects) = varied();
    let wreck = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for file in files_of(whole.path()) {
        let bytes = fs::read(whole.path().join(&file)).unwrap();
        let mut damages: Vec<(String, Option<Vec<u8>>)> = vec![("gone".to_owned(), None)];
        for at in places(bytes.len()) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            damages.push((format!("changed at {at}"), Some(changed)));
            damages.push((format!("cut at {at}"), Some(bytes[..at].to_vec())));
        }
        for (what, damage) in damages {
            let place = wreck.path().join("store");
            copy(whole.path(), &place);
            match damage {
                Some(damage) => fs::write(place.join(&file), damage).unwrap(),
                None => fs::remove_file(place.join(&file)).unwrap(),
            }
            match RocksStore::open_with(&place, OPTIONS) {
                Ok(store) => assert!(is_told_or_whole(&store, &objects), "{} {what}", file.display()),
                Err(_) => refused += 1,
            }
            fs::remove_dir_all(&place).unwrap();
        }
    }
    assert!(refused > 0);
}
