//! A log that is cut, changed or gone: acknowledged writes are there, or the store is refused and left as it is.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use helix_objects::{Durability, Mark, NewObject, ObjectError, ObjectStore, hash};
use helix_rocks::{RocksOptions, RocksStore};

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
        assert!(matches!(wreck.open(), Err(ObjectError::Backend(reason)) if reason.contains("nobody knows")));
        let (store, loss) = RocksStore::open_accepting_loss(wreck.folder.path(), OPTIONS).unwrap();
        assert_eq!(loss.map(|loss| (loss.recovered, loss.acknowledged)), Some((wreck.mark, None)));
        drop(store);
        wreck.is_whole();
    }
}
