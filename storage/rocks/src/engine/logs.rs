//! The files of a database's log, and how much of them is whole.
//!
//! RocksDB replays a damaged log up to the damage, but not where a family has tables that are newer than the damaged file: which
//! every family is said to have that had nothing in that file. So what is whole is found here, by the log's format, and a log that
//! ends where it is whole can be replayed.
//!
//! A log is a row of blocks of 32 KiB. A block has pieces: a masked CRC-32C of what follows but the length (4 bytes), the length
//! of its content (2 bytes), its kind (1 byte), its content; all little endian. Pieces never cross blocks: a batch is one whole
//! piece, or a first one, middle ones and a last one. A batch begins with the number of its first change (8 bytes) and how many
//! changes it has (4 bytes).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use helix_objects::ObjectError;

const BLOCK: usize = 32 << 10;
const PIECE_HEAD: usize = 7;
const BATCH_HEAD: usize = 12;
const ZERO: u8 = 0;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// How many files there are, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logs {
    pub(super) count: usize,
    pub(super) bytes: u64,
}

impl Logs {
    /// Looks at the files; there are none where there is no database yet.
    pub(super) fn of(database: &Path) -> Result<Self, ObjectError> {
        let mut logs = Self::default();
        for path in paths(database)? {
            logs.count += 1;
            // One that goes meanwhile is not read again.
            logs.bytes += fs::metadata(&path).map_or(0, |found| found.len());
        }
        Ok(logs)
    }
}

/// A log of which only the beginning is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    bytes: Vec<u8>,
    /// So many of its bytes.
    whole: usize,
}

/// The logs of a database up to the first damage, in a folder of their own that goes with the value.
#[derive(Debug)]
pub(super) struct WholeLogs {
    folder: PathBuf,
}

impl WholeLogs {
    /// `None` where the logs are whole as they are.
    pub(super) fn beside(database: &Path) -> Result<Option<Self>, ObjectError> {
        let parts = damaged(database)?;
        if parts.is_empty() {
            return Ok(None);
        }
        let folder = database.with_extension("log");
        let failed = |error| ObjectError::io(&folder, error);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir(&folder).map_err(failed)?;
        let logs = Self { folder: folder.clone() };
        for path in paths(database)? {
            let name = path.file_name().map(|name| folder.join(name)).unwrap_or_default();
            match parts.iter().find(|part| part.path == path) {
                Some(part) => fs::write(name, &part.bytes[..part.whole]),
                None => std::path::absolute(&path).and_then(|path| symlink(path, name)),
            }
            .map_err(failed)?;
        }
        Ok(Some(logs))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for WholeLogs {
    fn drop(&mut self) {
        // The next one removes what is left.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Ends the logs where they are whole, and keeps them as they were in a folder beside the database. The newest is cut first: a
/// death in between leaves the damage where it was, to be cut again.
pub(super) fn cut(database: &Path) -> Result<(), ObjectError> {
    let parts = damaged(database)?;
    let free = (1..).map(|number| database.with_file_name(format!("log.damaged-{number}"))).find(|path| !path.exists());
    let aside = free.expect("numbers do not end");
    let failed = |error| ObjectError::io(&aside, error);
    if parts.is_empty() {
        return Ok(());
    }
    fs::create_dir(&aside).map_err(failed)?;
    for part in &parts {
        let kept = part.path.file_name().map(|name| aside.join(name)).unwrap_or_default();
        write_synced(&kept, &part.bytes).map_err(failed)?;
    }
    for folder in [Some(aside.as_path()), aside.parent()].into_iter().flatten() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    tracing::warn!(aside = %aside.display(), "the damaged log is kept");
    for part in parts.iter().rev() {
        let log = File::options().write(true).open(&part.path);
        log.and_then(|log| log.set_len(part.whole as u64).and_then(|()| log.sync_all()))
            .map_err(|error| ObjectError::io(&part.path, error))?;
    }
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}

/// The log's files in the order of their numbers.
fn paths(database: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let names = match fs::read_dir(database) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(|error| ObjectError::io(database, error))?,
    };
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut found: Vec<(u64, PathBuf)> = names
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The logs that are to end earlier. What follows a damage goes on only where its first change is the one behind the last whole
/// batch: it was written after the damage was met.
fn damaged(database: &Path) -> Result<Vec<Part>, ObjectError> {
    let (mut parts, mut stopped, mut next) = (Vec::new(), false, None);
    for path in paths(database)? {
        let bytes = fs::read(&path).map_err(|error| ObjectError::io(&path, error))?;
        let (batches, is_whole) = batches(&bytes);
        let (mut whole, mut left) = (0, !is_whole);
        for batch in batches {
            stopped &= next != Some(batch.first);
            if stopped {
                left = true;
                break;
            }
            (whole, next) = (batch.end, Some(batch.next));
        }
        stopped |= !is_whole;
        if left {
            parts.push(Part { path, bytes, whole });
        }
    }
    Ok(parts)
}

/// A batch of changes in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    /// Where the log goes on behind it.
    end: usize,
    /// The number of its first change.
    first: u64,
    /// The number of the change behind it.
    next: u64,
}

impl Batch {
    fn decode(head: &[u8], end: usize) -> Option<Self> {
        let (first, rest) = head.split_first_chunk::<8>()?;
        let (count, _) = rest.split_first_chunk::<4>()?;
        let first = u64::from_le_bytes(*first);
        Some(Self { end, first, next: first.checked_add(u32::from_le_bytes(*count).into())? })
    }
}

/// The batches before the first damage, and whether there is none.
fn batches(bytes: &[u8]) -> (Vec<Batch>, bool) {
    let (mut found, mut open, mut at): (_, Option<Vec<u8>>, _) = (Vec::new(), None, 0);
    while at < bytes.len() {
        let left = BLOCK - at % BLOCK;
        if left < PIECE_HEAD {
            at += left;
            continue;
        }
        let Some((kind, content)) = piece(bytes, at, left) else { return (found, false) };
        at = if kind == ZERO { at + left } else { at + PIECE_HEAD + content.len() };
        let mut head = match (kind, open.take()) {
            (FULL | FIRST, None) => Vec::new(),
            (MIDDLE | LAST, Some(head)) => head,
            // Room that was not written to yet, or something about the log itself.
            (ZERO, None) => continue,
            (kind, None) if kind > LAST => continue,
            _ => return (found, false),
        };
        head.extend(content.iter().take(BATCH_HEAD - head.len().min(BATCH_HEAD)));
        if matches!(kind, FIRST | MIDDLE) {
            open = Some(head);
            continue;
        }
        let Some(batch) = Batch::decode(&head, at) else { return (found, false) };
        found.push(batch);
    }
    (found, open.is_none())
}

/// The kind and the content of a piece; `None` where it is torn or damaged.
fn piece(bytes: &[u8], at: usize, left: usize) -> Option<(u8, &[u8])> {
    let head = bytes.get(at..at + PIECE_HEAD)?;
    let sum = u32::from_le_bytes(*head.first_chunk()?);
    let (length, kind) = (usize::from(u16::from_le_bytes([head[4], head[5]])), head[6]);
    if kind == ZERO && length == 0 {
        return Some((ZERO, &[]));
    }
    if PIECE_HEAD + length > left {
        return None;
    }
    let content = bytes.get(at + PIECE_HEAD..at + PIECE_HEAD + length)?;
    (mask(crc32c(&bytes[at + PIECE_HEAD - 1..at + PIECE_HEAD + length])) == sum).then_some((kind, content))
}

/// A sum as it is written, so that sums over what has sums in it do not meet.
fn mask(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C, Castagnoli's polynomial. A log is small, and is read here only after damage: no table.
fn crc32c(bytes: &[u8]) -> u32 {
    let byte =
        |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 });
    !bytes.iter().fold(!0, byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log with batches of so many bytes each, and where each ends.
    fn log(lengths: &[usize]) -> (Vec<u8>, Vec<Batch>) {
        let (mut bytes, mut written, mut first) = (Vec::new(), Vec::new(), 7_u64);
        for length in lengths {
            let count = u32::try_from(length % 5 + 1).unwrap();
            let mut content = [first.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
            content.resize(BATCH_HEAD + length, 0xa5);
            let (mut rest, mut begun) = (content.as_slice(), false);
            loop {
                let left = BLOCK - bytes.len() % BLOCK;
                if left < PIECE_HEAD {
                    bytes.resize(bytes.len() + left, 0);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(left - PIECE_HEAD));
                let kind = match (begun, later.is_empty()) {
                    (false, true) => FULL,
                    (false, false) => FIRST,
                    (true, false) => MIDDLE,
                    (true, true) => LAST,
                };
                let summed = [&[kind], now].concat();
                bytes.extend(mask(crc32c(&summed)).to_le_bytes());
                bytes.extend(u16::try_from(now.len()).unwrap().to_le_bytes());
                bytes.extend(summed);
                (rest, begun) = (later, true);
                if rest.is_empty() {
                    break;
                }
            }
            written.push(Batch { end: bytes.len(), first, next: first + u64::from(count) });
            first += u64::from(count);
        }
        (bytes, written)
    }

    #[test]
    fn the_sum_is_the_one_of_rfc_3720() {
        assert_eq!((crc32c(&[0; 32]), crc32c(&[0xff; 32])), (0x8a91_36aa, 0x62a8_ab43));
    }

    proptest! {
        #[test]
        fn what_is_before_a_damage_is_found_and_nothing_behind_it(
            lengths in prop::collection::vec(prop_oneof![0..200_usize, 32_700..32_800_usize, 0..80_000_usize], 1..6),
            at in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, written) = log(&lengths);
            prop_assert_eq!(batches(&bytes), (written.clone(), true));
            let at = at.index(bytes.len());
            let before: Vec<Batch> = written.iter().copied().filter(|batch| batch.end <= at).collect();
            let end = before.last().map_or(0, |batch| batch.end);
            let (found, is_whole) = batches(&bytes[..at]);
            prop_assert_eq!(found, before.clone());
            // At the end of a block may be a few bytes that no piece fits in.
            let torn = if at == end { !is_whole } else { at < end + PIECE_HEAD || !is_whole };
            prop_assert_eq!(torn, at != end);
            bytes[at] ^= 0x10;
            let (found, is_whole) = batches(&bytes);
            prop_assert!(if is_whole { found == written } else { found == before }, "{found:?} of {written:?}");
        }
    }
}
