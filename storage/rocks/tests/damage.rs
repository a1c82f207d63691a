//! A log that is cut, changed or gone: acknowledged writes are there, or the store is refused and left as it is.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use helix_objects::{
    Durability, Expect, Family, Kind, Mark, NewObject, ObjectError, ObjectStore, PackHint, RecordChange, RecordStore, hash,
};
use helix_rocks::{Effort, Loss, RocksOptions, RocksStore};

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
        Self::packed(0, |store, _| stop(&store))
    }

    /// With so many of the objects packed before the others come.
    fn packed(packed: u64, stop: impl FnOnce(RocksStore, &Path)) -> Self {
        let (living, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = RocksStore::open_with(living.path(), OPTIONS).unwrap();
        let (mut mark, mut last_record) = (Mark(0), 0);
        for count in 0..COMMITS {
            if packed > 0 && count == packed {
                let hints: Vec<PackHint> =
                    (0..packed).map(|count| PackHint { id: object(count).id(), kind: Kind::File, near: 0 }).collect();
                assert_eq!(store.pack(&hints, Effort::Idle).unwrap().objects, packed);
                // What is packed is in tables, which a log that is damaged later is older than.
                store.compact().unwrap();
            }
            last_record = fs::metadata(log_of(living.path())).unwrap().len() as usize;
            mark = store.put(&[object(count)], Durability::Group).unwrap();
        }
        let log = folder.path().join("db").join(log_of(living.path()).file_name().unwrap());
        stop(store, living.path());
        copy(living.path(), folder.path());
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

/// A store that lost its last commit says so each time, and goes on with everything before once that is accepted.
fn goes_on_without_the_last(store: &Path, mark: Mark, what: &str) {
    for _ in 0..2 {
        let lost = RocksStore::open_with(store, OPTIONS).err();
        assert!(matches!(lost, Some(ObjectError::LostWrites { recovered, .. }) if recovered.0 + 1 == mark.0), "{what}: {lost:?}");
    }
    let loss = RocksStore::loss(store, OPTIONS).unwrap();
    assert_eq!(loss, Some(Loss { recovered: Mark(mark.0 - 1), acknowledged: Some(mark) }), "{what}");
    let (accepted, told) = RocksStore::open_accepting_loss(store, OPTIONS).unwrap();
    assert_eq!(told, loss, "{what}");
    accepted.close().unwrap();
    for _ in 0..2 {
        let store = RocksStore::open_with(store, OPTIONS).unwrap();
        for count in 0..COMMITS - 1 {
            assert_eq!(&store.read(object(count).id()).unwrap(), object(count).bytes(), "{what}");
        }
        assert!(store.verify().unwrap().is_sound(), "{what}");
        assert_eq!(store.missing(&[object(COMMITS - 1).id()]).unwrap().len(), 1, "{what}");
        store.close().unwrap();
    }
}

/// Any byte of the last record changed or cut off, in the store that `stop` leaves after packing.
fn is_told_and_can_be_accepted(places: fn(usize) -> Vec<usize>, stop: impl FnOnce(RocksStore, &Path)) {
    let wreck = Wreck::packed(COMMITS - 3, stop);
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    for at in places(wreck.bytes.len() - wreck.last_record).into_iter().map(|at| wreck.last_record + at) {
        let mut changed = wreck.bytes.clone();
        changed[at] ^= 0x10;
        for (what, damage) in [("cut", &wreck.bytes[..at]), ("changed", &changed)] {
            copy(wreck.folder.path(), &store);
            fs::write(store.join("db").join(wreck.log.file_name().unwrap()), damage).unwrap();
            goes_on_without_the_last(&store, wreck.mark, &format!("{what} at {at} of {}", wreck.bytes.len()));
            fs::remove_dir_all(&store).unwrap();
        }
    }
}

#[test]
fn a_damaged_log_of_a_packed_store_that_was_closed_is_told_and_can_be_accepted() {
    is_told_and_can_be_accepted(|length| (0..length).collect(), |store, _| store.close().unwrap());
}

#[test]
fn a_damaged_log_of_a_packed_store_that_was_opened_since_is_told_and_can_be_accepted() {
    is_told_and_can_be_accepted(places, |store, path| {
        store.close().unwrap();
        drop(store);
        RocksStore::open_with(path, OPTIONS).unwrap().close().unwrap();
    });
}

#[test]
fn a_damaged_log_of_a_packed_store_that_was_killed_is_told_and_can_be_accepted() {
    is_told_and_can_be_accepted(places, |store, _| std::mem::forget(store));
}

#[test]
fn a_torn_write_that_nobody_was_promised_never_keeps_a_packed_store_closed() {
    let wreck = Wreck::packed(COMMITS - 3, |store, _| {
        store.put(&[object(COMMITS)], Durability::NoSync).unwrap();
        std::mem::forget(store);
    });
    fs::write(&wreck.log, &wreck.bytes[..wreck.bytes.len() - 5]).unwrap();
    for _ in 0..3 {
        wreck.is_whole();
    }
    for _ in 0..2 {
        let store = wreck.open().unwrap();
        store.close().unwrap();
    }
}

#[test]
fn the_damaged_part_of_a_log_that_was_cut_is_kept() {
    let wreck = Wreck::packed(COMMITS - 3, |store, path| {
        store.close().unwrap();
        drop(store);
        RocksStore::open_with(path, OPTIONS).unwrap().close().unwrap();
    });
    let mut damaged = wreck.bytes.clone();
    damaged[wreck.last_record + 9] ^= 1;
    fs::write(&wreck.log, &damaged).unwrap();
    let before = files_of(wreck.folder.path());
    assert!(wreck.open().is_err());
    assert_eq!(files_of(wreck.folder.path()), before, "a look changes nothing");
    RocksStore::open_accepting_loss(wreck.folder.path(), OPTIONS).unwrap();
    let kept = wreck.folder.path().join("log.damaged-1").join(wreck.log.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), damaged);
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
