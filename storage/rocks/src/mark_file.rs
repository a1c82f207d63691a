//! What was acknowledged, kept beside the database.
//!
//! RocksDB leaves out what follows a damaged or missing part of its log without a word. So a file of its own says how
//! far writes were acknowledged as being on disk, and is on disk itself before they are. Two slots are written in turn, in sectors
//! of their own: a write that is torn leaves the other one.
//!
//! | offset in a slot | bytes | |
//! |---|---|---|
//! | 0 | 8 | generation, little endian: the greater valid one counts |
//! | 8 | 8 | the mark, little endian |
//! | 16 | 1 | 1 after a clean stop, 0 while the store is open |
//! | 17 | 7 | zero |
//! | 24 | 8 | the first bytes of the BLAKE3 hash of what is before |

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use helix_objects::{Mark, ObjectError, hash, no_follow};
use parking_lot::Mutex;

const SLOT_BYTES: usize = 32;
/// From one slot to the other: what a disk writes at once.
const SECTOR: u64 = 512;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) mark: Mark,
    /// The store was closed, and everything it held was on disk.
    pub(crate) clean: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    generation: u64,
    says: Acknowledged,
}

/// The file, open.
#[derive(Debug)]
pub(crate) struct MarkFile {
    path: PathBuf,
    file: File,
    last: Mutex<Slot>,
}

impl MarkFile {
    /// Opens `path`, or makes it where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, ObjectError> {
        let failed = |error| ObjectError::io(path, error);
        match no_follow().read(true).write(true).open(path) {
            Ok(file) => {
                let last = read(&file).map_err(failed)?;
                let damaged = || ObjectError::Unmarked { path: path.display().to_string(), reason: "is damaged" };
                Ok(Self { path: path.to_owned(), last: Mutex::new(last.ok_or_else(damaged)?), file })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(path, Acknowledged::default()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes the file, whatever was there. It is there whole or not at all.
    pub(crate) fn make(path: &Path, says: Acknowledged) -> Result<Self, ObjectError> {
        let failed = |error| ObjectError::io(path, error);
        let draft = path.with_extension("new");
        let slot = Slot { generation: 1, says };
        let file = no_follow().read(true).write(true).create(true).truncate(true).open(&draft).map_err(failed)?;
        file.write_all_at(&slot.encode(), 0).map_err(failed)?;
        file.write_all_at(&slot.encode(), SECTOR).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&draft, path).map_err(failed)?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, last: Mutex::new(slot) })
    }

    pub(crate) fn says(&self) -> Acknowledged {
        self.last.lock().says
    }

    /// From now on a process that ends without [`close`](Self::close) has not stopped cleanly.
    pub(crate) fn begin(&self) -> Result<(), ObjectError> {
        let mark = self.says().mark;
        self.write(Acknowledged { mark, clean: false })
    }

    /// Returns once the file says on disk that everything up to `mark` is on disk.
    pub(crate) fn advance(&self, mark: Mark) -> Result<(), ObjectError> {
        if mark <= self.says().mark {
            return Ok(());
        }
        self.write(Acknowledged { mark, clean: false })?;
        self.sync()
    }

    /// A clean stop with everything up to `mark` on disk.
    pub(crate) fn close(&self, mark: Mark) -> Result<(), ObjectError> {
        self.write(Acknowledged { mark: mark.max(self.says().mark), clean: true })?;
        self.sync()
    }

    fn write(&self, says: Acknowledged) -> Result<(), ObjectError> {
        let mut last = self.last.lock();
        let slot = Slot { generation: last.generation + 1, says };
        let offset = slot.generation % 2 * SECTOR;
        self.file.write_all_at(&slot.encode(), offset).map_err(|error| ObjectError::io(&self.path, error))?;
        *last = slot;
        Ok(())
    }

    fn sync(&self) -> Result<(), ObjectError> {
        self.file.sync_data().map_err(|error| ObjectError::io(&self.path, error))
    }
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.says.mark.0.to_le_bytes());
        bytes[16] = u8::from(self.says.clean);
        let sum = hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.0[..8]);
        bytes
    }

    fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let (fields, sum) = bytes.split_at(24);
        if hash(fields).0[..8] != *sum {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|offset| fields[at + offset]));
        Some(Self { generation: number(0), says: Acknowledged { mark: Mark(number(8)), clean: fields[16] == 1 } })
    }
}

/// Reads bytes as a slot; what is read is written as it was, where nothing but the slot's own fields says anything.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<SLOT_BYTES>() else { return };
    if let Some(slot) = Slot::decode(bytes) {
        assert_eq!(Slot::decode(&slot.encode()), Some(slot));
    }
}

fn read(file: &File) -> Result<Option<Slot>, std::io::Error> {
    let mut newest: Option<Slot> = None;
    for offset in [0, SECTOR] {
        let mut bytes = [0; SLOT_BYTES];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        newest = newest.into_iter().chain(Slot::decode(&bytes)).max_by_key(|slot| slot.generation);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use helix_objects::Mark;

    use super::{Acknowledged, MarkFile, SECTOR, SLOT_BYTES};

    #[test]
    fn what_was_acknowledged_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let says = |mark, clean| Acknowledged { mark: Mark(mark), clean };
        let file = MarkFile::open(&path).unwrap();
        assert_eq!(file.says(), says(0, false));
        file.advance(Mark(7)).unwrap();
        file.advance(Mark(5)).unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().says(), says(7, false));
        file.close(Mark(9)).unwrap();
        let file = MarkFile::open(&path).unwrap();
        assert_eq!(file.says(), says(9, true));
        file.begin().unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().says(), says(9, false));
    }

    #[test]
    fn a_torn_write_of_any_length_leaves_the_mark_before_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let file = MarkFile::open(&path).unwrap();
        file.advance(Mark(u64::MAX / 3)).unwrap();
        let before = fs::read(&path).unwrap();
        file.advance(Mark(u64::MAX / 2)).unwrap();
        let after = fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        let slot = if changed[0] < SLOT_BYTES { 0 } else { SECTOR as usize };
        for torn in 0..=SLOT_BYTES {
            let mut bytes = before.clone();
            bytes[slot..slot + torn].copy_from_slice(&after[slot..slot + torn]);
            fs::write(&path, &bytes).unwrap();
            let expected = if bytes == after { u64::MAX / 2 } else { u64::MAX / 3 };
            assert_eq!(MarkFile::open(&path).unwrap().says().mark, Mark(expected), "{torn} bytes were written");
        }
    }

    #[test]
    fn a_file_without_one_good_slot_is_refused_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        drop(MarkFile::open(&path).unwrap());
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(MarkFile::open(&path).is_ok(), length >= SLOT_BYTES, "{length} bytes");
        }
        for at in 0..SLOT_BYTES {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes[SECTOR as usize + at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(MarkFile::open(&path).is_err(), "byte {at} is changed in both slots");
        }
    }
}
