//! The pins of a spill store on disk: a log of changes, rewritten whole when it is opened and
//! when it has grown far beyond what is still pinned.
//!
//! An entry: four bytes length (little endian), the first 8 bytes of the body's BLAKE3 hash, the
//! body: one byte (1 pins, 2 releases), the task's 16 bytes, the epoch's 8, then the ids pinned.

use std::fs::File;
use std::io::Write;

use helix_protocol::{Epoch, ObjectId, TaskId};

use crate::pins::Pins;
use crate::{ObjectError, Pin, StoreFolder, hash};

const FILE: &str = "pins";
const PINS: u8 = 1;
const RELEASES: u8 = 2;
/// Beneath this many bytes the log is not rewritten while it is open.
const REWRITE_FROM: u64 = 1 << 20;

/// The open log.
#[derive(Debug)]
pub(super) struct PinLog {
    file: File,
    length: u64,
    /// Its length when it was last written whole.
    fresh_length: u64,
}

impl PinLog {
    /// Reads the log up to its first torn entry and leaves one without released pins.
    pub(super) fn open(folder: &StoreFolder) -> Result<(Self, Pins), ObjectError> {
        let path = folder.path().join(FILE);
        let log = match std::fs::read(&path) {
            Ok(log) => log,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ObjectError::io(&path, error)),
        };
        let pins = replay(&log);
        Ok((Self::write_whole(folder, &pins)?, pins))
    }

    fn write_whole(folder: &StoreFolder, pins: &Pins) -> Result<Self, ObjectError> {
        let path = folder.path().join(FILE);
        let mut fresh = Vec::new();
        for (pin, ids) in pins.owners() {
            append_entry(&mut fresh, PINS, *pin, ids.iter().copied());
        }
        folder.replace(FILE, &fresh)?;
        let file = File::options().append(true).open(&path).map_err(|error| ObjectError::io(&path, error))?;
        Ok(Self { file, length: fresh.len() as u64, fresh_length: fresh.len() as u64 })
    }

    /// Records that `pin` holds `ids`.
    pub(super) fn pinned(&mut self, pin: Pin, ids: &[ObjectId]) -> std::io::Result<()> {
        let mut entry = Vec::new();
        append_entry(&mut entry, PINS, pin, ids.iter().copied());
        self.append(&entry)
    }

    /// Records that everything up to `up_to` is released.
    pub(super) fn released(&mut self, up_to: Pin) -> std::io::Result<()> {
        let mut entry = Vec::new();
        append_entry(&mut entry, RELEASES, up_to, std::iter::empty());
        self.append(&entry)
    }

    /// Writes what is pinned anew where the log has grown far beyond it.
    pub(super) fn shorten(&mut self, folder: &StoreFolder, pins: &Pins) -> Result<(), ObjectError> {
        if self.length > REWRITE_FROM.max(self.fresh_length * 4) {
            *self = Self::write_whole(folder, pins)?;
        }
        Ok(())
    }

    /// Replay stops at a torn entry, so what was written of one that failed is taken back.
    fn append(&mut self, entry: &[u8]) -> std::io::Result<()> {
        match self.file.write_all(entry) {
            Ok(()) => {
                self.length += entry.len() as u64;
                Ok(())
            }
            Err(error) => self.file.set_len(self.length).and(Err(error)),
        }
    }
}

fn append_entry(log: &mut Vec<u8>, kind: u8, pin: Pin, ids: impl Iterator<Item = ObjectId>) {
    let mut body = vec![kind];
    body.extend_from_slice(pin.task.0.as_bytes());
    body.extend_from_slice(&pin.epoch.0.to_le_bytes());
    ids.for_each(|id| body.extend_from_slice(&id.0));
    log.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    log.extend_from_slice(&hash(&body).0[..8]);
    log.extend_from_slice(&body);
}

fn replay(mut log: &[u8]) -> Pins {
    let mut pins = Pins::default();
    while let Some((length, rest)) = log.split_first_chunk::<4>() {
        let Some((check, rest)) = rest.split_first_chunk::<8>() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        if hash(body).0[..8] != *check {
            break;
        }
        let Some((kind, pin, ids)) = parse(body) else { break };
        match kind {
            PINS => drop(pins.add(pin, &ids)),
            _ => drop(pins.release(pin)),
        }
        log = rest;
    }
    pins
}

fn parse(body: &[u8]) -> Option<(u8, Pin, Vec<ObjectId>)> {
    let (kind, rest) = body.split_first_chunk::<1>()?;
    let (task, rest) = rest.split_first_chunk::<16>()?;
    let (epoch, ids) = rest.split_first_chunk::<8>()?;
    let pin = Pin { task: TaskId(uuid::Uuid::from_bytes(*task)), epoch: Epoch(u64::from_le_bytes(*epoch)) };
    let (ids, rest) = ids.as_chunks::<32>();
    (matches!(kind[0], PINS | RELEASES) && rest.is_empty()).then(|| (kind[0], pin, ids.iter().map(|id| ObjectId(*id)).collect()))
}

#[cfg(test)]
mod tests {
    use helix_protocol::{Epoch, TaskId};

    use super::{PinLog, REWRITE_FROM};
    use crate::{Pin, StoreFolder, hash};

    #[test]
    fn a_log_of_released_pins_does_not_grow_for_ever() {
        let path = tempfile::tempdir().unwrap();
        let folder = StoreFolder::open(path.path(), 1).unwrap();
        let (mut log, mut pins) = PinLog::open(&folder).unwrap();
        let kept = Pin { task: TaskId::new(), epoch: Epoch(1) };
        pins.add(kept, &[hash(b"kept")]);
        log.pinned(kept, &[hash(b"kept")]).unwrap();
        let ids: Vec<_> = (0..1000_u32).map(|number| hash(&number.to_le_bytes())).collect();
        for _ in 0..100 {
            let passing = Pin { task: TaskId::new(), epoch: Epoch(1) };
            pins.add(passing, &ids);
            log.pinned(passing, &ids).unwrap();
            pins.release(passing);
            log.released(passing).unwrap();
            log.shorten(&folder, &pins).unwrap();
        }
        assert!(std::fs::metadata(path.path().join("pins")).unwrap().len() < 2 * REWRITE_FROM);
        assert_eq!(PinLog::open(&folder).unwrap().1.list(), vec![(kept, hash(b"kept"))]);
    }
}
