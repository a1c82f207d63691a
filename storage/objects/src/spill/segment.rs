//! Segments: append-only files of records.
//!
//! A record is a header of 64 bytes and the payload behind it. The header, little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | `HXR1` |
//! | 4 | how the payload is kept: 0 as it is, 1 as an LZ4 block |
//! | 5–7 | zero |
//! | 8–15 | the payload's length |
//! | 16–23 | the object's length |
//! | 24–55 | the object's id |
//! | 56–63 | the first 8 bytes of the BLAKE3 hash of bytes 0–55 |
//!
//! Reading stops at the first header that is not whole, so a write that was cut off loses only
//! itself. Payloads are checked when they are read, against the object's id.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use helix_protocol::ObjectId;

use crate::hash;

/// The header's length.
pub(super) const HEADER: usize = 64;
const MAGIC: &[u8; 4] = b"HXR1";
/// Beneath this many bytes compression is not tried.
const COMPRESS_FROM: usize = 128;

/// How a payload is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain = 0,
    Lz4 = 1,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: ObjectId,
    pub(super) encoding: Encoding,
    pub(super) stored: u64,
    pub(super) length: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = self.encoding as u8;
        bytes[8..16].copy_from_slice(&self.stored.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.id.0);
        let check = hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&check.0[..8]);
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Option<Self> {
        let whole = bytes[..4] == *MAGIC && hash(&bytes[..56]).0[..8] == bytes[56..];
        if !whole {
            return None;
        }
        let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let mut id = ObjectId([0; 32]);
        id.0.copy_from_slice(&bytes[24..56]);
        let encoding = match bytes[4] {
            0 => Encoding::Plain,
            1 => Encoding::Lz4,
            _ => return None,
        };
        Some(Self { id, encoding, stored: number(8), length: number(16) })
    }
}

/// Appends an object's record to `buffer` and returns its header.
pub(super) fn append_record(buffer: &mut Vec<u8>, id: ObjectId, bytes: &[u8]) -> Header {
    let packed = (bytes.len() >= COMPRESS_FROM).then(|| lz4_flex::block::compress(bytes));
    let (encoding, payload) = match &packed {
        Some(packed) if packed.len() * 8 < bytes.len() * 7 => (Encoding::Lz4, packed.as_slice()),
        _ => (Encoding::Plain, bytes),
    };
    let header = Header { id, encoding, stored: payload.len() as u64, length: bytes.len() as u64 };
    buffer.extend_from_slice(&header.to_bytes());
    buffer.extend_from_slice(payload);
    header
}

/// The records of a segment with the place of each header, and the length of the part that is whole.
pub(super) fn scan(file: &File) -> std::io::Result<(Vec<(u64, Header)>, u64)> {
    let end = file.metadata()?.len();
    let (mut records, mut place) = (Vec::new(), 0);
    let mut bytes = [0; HEADER];
    while place + HEADER as u64 <= end {
        file.read_exact_at(&mut bytes, place)?;
        let Some(header) = Header::from_bytes(&bytes) else { break };
        let Some(next) = (place + HEADER as u64).checked_add(header.stored).filter(|next| *next <= end) else { break };
        records.push((place, header));
        place = next;
    }
    Ok((records, place))
}

/// Reads the object whose header is at `place`. `None` where the bytes are not the object any more.
pub(super) fn read(file: &File, place: u64, header: &Header) -> std::io::Result<Option<Bytes>> {
    let (Ok(stored), Ok(length)) = (usize::try_from(header.stored), usize::try_from(header.length)) else { return Ok(None) };
    let mut payload = vec![0; stored];
    match file.read_exact_at(&mut payload, place + HEADER as u64) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let bytes = match header.encoding {
        Encoding::Plain => payload,
        // An LZ4 block expands at most 255 times, so a length beyond that is damage, not a request for memory.
        Encoding::Lz4 if length / 256 > stored => return Ok(None),
        Encoding::Lz4 => match lz4_flex::block::decompress(&payload, length) {
            Ok(bytes) => bytes,
            Err(_) => return Ok(None),
        },
    };
    Ok((hash(&bytes) == header.id).then(|| bytes.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{append_record, read, scan};
    use crate::hash;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_segment_cut_anywhere_keeps_every_whole_record(
            objects in prop::collection::vec(prop::collection::vec(0_u8..4, 0..600), 1..8),
            cut in 0.0..1.0_f64,
        ) {
            let mut buffer = Vec::new();
            let mut ends = Vec::new();
            for bytes in &objects {
                append_record(&mut buffer, hash(bytes), bytes);
                ends.push(buffer.len());
            }
            let keep = (buffer.len() as f64 * cut) as usize;
            let file = tempfile::tempfile().unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &buffer[..keep], 0).unwrap();
            let (records, whole) = scan(&file).unwrap();
            let expected = ends.iter().filter(|end| **end <= keep).count();
            prop_assert_eq!(records.len(), expected);
            prop_assert_eq!(whole as usize, if expected == 0 { 0 } else { ends[expected - 1] });
            for ((place, header), bytes) in records.iter().zip(&objects) {
                let found = read(&file, *place, header).unwrap();
                prop_assert_eq!(found.as_deref(), Some(bytes.as_slice()));
            }
        }

        #[test]
        fn garbage_is_never_taken_for_a_record(garbage in prop::collection::vec(any::<u8>(), 0..400)) {
            let file = tempfile::tempfile().unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 0).unwrap();
            prop_assert_eq!(scan(&file).unwrap(), (vec![], 0));
        }
    }
}
