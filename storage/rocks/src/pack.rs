//! What packed content looks like: where an object is, what a group holds, and how it is compressed.
//!
//! Members of a group lie one behind the other and are compressed together, so what one version of a file shares with the
//! next costs next to nothing. A group's directory says how long its members are; their ids are not repeated there: each is
//! the hash of what it names.

use bytes::Bytes;
use helix_objects::ObjectError;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

/// A group is closed when it has reached this many bytes.
pub(crate) const GROUP_BYTES: usize = 16 << 20;
/// As a group of large objects is: in a smaller one there would be hardly two that resemble each other.
pub(crate) const LARGE_GROUP_BYTES: usize = 64 << 20;
/// From so many bytes on, on average, the members of a group are large.
pub(crate) const LARGE_MEMBER: usize = 1 << 20;
/// No object and no group is longer: what claims to be is damaged.
const LONGEST: u64 = 1 << 40;
/// A block of 128 KiB takes four bytes of a frame at least.
const MOST_FROM_A_BYTE: u64 = 32 << 10;
/// The window covers a group, …
const WINDOW_LOG: u32 = 24;
/// … a large one too.
const LARGE_WINDOW_LOG: u32 = 26;
const PACKED: u8 = 1;
const DIRECTORY: u8 = 1;

/// How hard packing tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Fast enough to be done whenever nobody asks for anything.
    #[default]
    Idle,
    /// As small as is sensible.
    Aggressive,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            // A sixth smaller than level 3 in twice the time, which is 35 MB/s still.
            Self::Idle => 9,
            // Level 19 is a hundredth smaller and takes half as long again.
            Self::Aggressive => 17,
        }
    }
}

/// Where an object's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In a row of its own, under this ordinal.
    Hot(u64),
    /// In a group, as its `member`th.
    Packed { group: u64, member: u64 },
}

fn damaged(what: &str) -> ObjectError {
    ObjectError::Damaged(format!("{what} is damaged"))
}

impl Place {
    /// A hot place is 8 bytes big endian and begins with 0, since nobody gives 2^56 ordinals. A packed one begins with 1.
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Hot(ordinal) => ordinal.to_be_bytes().to_vec(),
            Self::Packed { group, member } => {
                let mut out = vec![PACKED];
                put_number(&mut out, group);
                put_number(&mut out, member);
                out
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        let parse = || match bytes.split_first()? {
            (0, _) => Some(Self::Hot(u64::from_be_bytes(bytes.try_into().ok()?))),
            (&PACKED, rest) => {
                let (group, rest) = number(rest)?;
                let (member, rest) = number(rest)?;
                rest.is_empty().then_some(Self::Packed { group, member })
            }
            _ => None,
        };
        parse().ok_or_else(|| damaged("an index record"))
    }
}

/// Where a group's members begin and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where each member ends, ascending.
    ends: Vec<u64>,
}

impl Directory {
    /// Adds a member behind the last.
    pub(crate) fn push(&mut self, length: u64) {
        self.ends.push(self.bytes() + length);
    }

    /// A version, the number of members, and their lengths.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![DIRECTORY];
        put_number(&mut out, self.ends.len() as u64);
        for member in 0..self.ends.len() {
            let (start, end) = self.range(member);
            put_number(&mut out, end - start);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        let parse = || {
            let (&DIRECTORY, rest) = bytes.split_first()? else { return None };
            let (count, mut rest) = number(rest)?;
            // A member's length takes a byte at least.
            let count = usize::try_from(count).ok().filter(|count| *count <= rest.len())?;
            let mut ends = Vec::with_capacity(count);
            let mut end = 0_u64;
            for _ in 0..count {
                let (length, after) = number(rest)?;
                end = end.checked_add(length).filter(|end| *end <= LONGEST)?;
                ends.push(end);
                rest = after;
            }
            rest.is_empty().then_some(Self { ends })
        };
        parse().ok_or_else(|| damaged("the directory of a group"))
    }

    pub(crate) fn members(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of all members.
    pub(crate) fn bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// How long a member is.
    pub(crate) fn length(&self, member: u64) -> Result<u64, ObjectError> {
        let member = self.known(member)?;
        let (start, end) = self.range(member);
        Ok(end - start)
    }

    fn known(&self, member: u64) -> Result<usize, ObjectError> {
        usize::try_from(member).ok().filter(|member| *member < self.ends.len()).ok_or_else(|| damaged("an index record"))
    }

    fn range(&self, member: usize) -> (u64, u64) {
        (member.checked_sub(1).map_or(0, |before| self.ends[before]), self.ends[member])
    }
}

/// A group as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) directory: Directory,
    /// One zstd frame.
    pub(crate) frame: Vec<u8>,
}

impl Group {
    /// Compresses what `directory` describes.
    pub(crate) fn compress(directory: Directory, bytes: &[u8], effort: Effort) -> Result<Self, ObjectError> {
        let compress = || {
            let mut compressor = Compressor::new(effort.level())?;
            compressor.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
            let window = if bytes.len() > 1 << WINDOW_LOG { LARGE_WINDOW_LOG } else { WINDOW_LOG };
            compressor.set_parameter(CParameter::WindowLog(window))?;
            compressor.set_parameter(CParameter::ChecksumFlag(false))?;
            compressor.compress(bytes)
        };
        let frame = compress().map_err(|error| ObjectError::Backend(format!("packing failed: {error}")))?;
        Ok(Self { directory, frame })
    }
}

/// A group, unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    directory: Directory,
    bytes: Bytes,
}

impl Unpacked {
    pub(crate) fn decompress(directory: Directory, frame: &[u8]) -> Result<Self, ObjectError> {
        let length = usize::try_from(directory.bytes()).map_err(|_| damaged("the directory of a group"))?;
        if frame_length(frame) != Some(directory.bytes()) {
            return Err(damaged("a group"));
        }
        let bytes = Decompressor::new().and_then(|mut decompressor| decompressor.decompress(frame, length));
        let bytes = bytes.ok().filter(|bytes| bytes.len() == length).ok_or_else(|| damaged("a group"))?;
        Ok(Self { directory, bytes: bytes.into() })
    }

    /// A member's bytes; they keep the whole group in memory.
    pub(crate) fn member(&self, member: u64) -> Result<Bytes, ObjectError> {
        let (start, end) = self.directory.range(self.directory.known(member)?);
        // The sum of the lengths is the length of `bytes`, which fits.
        Ok(self.bytes.slice(start as usize..end as usize))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// How long a frame says its content is; `None` where it says nothing, or more than a frame of its size can hold.
pub(crate) fn frame_length(frame: &[u8]) -> Option<u64> {
    let length = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten()?;
    (length <= (frame.len() as u64).saturating_mul(MOST_FROM_A_BYTE)).then_some(length)
}

/// Seven bits per byte, the lowest first; the eighth says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A number in its one shortest form, and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            let shortest = at == 0 || *byte != 0;
            return shortest.then(|| (value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Directory, Effort, Group, Place, Unpacked};

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            (0..1_u64 << 56).prop_map(Place::Hot),
            (any::<u64>(), any::<u64>()).prop_map(|(group, member)| Place::Packed { group, member }),
        ]
    }

    proptest! {
        #[test]
        fn a_place_is_what_it_was(place in place()) {
            prop_assert_eq!(Place::decode(&place.encode()).unwrap(), place);
        }

        #[test]
        fn any_bytes_are_a_place_in_its_one_form_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(place) = Place::decode(&bytes) {
                prop_assert_eq!(place.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_a_directory_in_its_one_form_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(first) = bytes.first_mut() {
                *first = super::DIRECTORY;
            }
            if let Ok(directory) = Directory::decode(&bytes) {
                prop_assert_eq!(directory.encode(), bytes);
            }
        }

        #[test]
        fn a_group_gives_every_member_back(
            members in prop::collection::vec(prop::collection::vec(0_u8..4, 0..300), 0..20),
            damage in any::<prop::sample::Index>(),
        ) {
            let mut directory = Directory::default();
            members.iter().for_each(|member| directory.push(member.len() as u64));
            prop_assert_eq!(&Directory::decode(&directory.encode()).unwrap(), &directory);
            let group = Group::compress(directory.clone(), &members.concat(), Effort::Idle).unwrap();
            let unpacked = Unpacked::decompress(directory.clone(), &group.frame).unwrap();
            for (at, member) in members.iter().enumerate() {
                prop_assert_eq!(&unpacked.member(at as u64).unwrap(), member);
                prop_assert_eq!(directory.length(at as u64).unwrap(), member.len() as u64);
            }
            prop_assert!(unpacked.member(members.len() as u64).is_err());
            // A damaged frame is refused or gives other bytes, which the hash tells; it is never a panic.
            let mut frame = group.frame;
            let at = damage.index(frame.len());
            frame[at] ^= 0x40;
            let _ = Unpacked::decompress(directory.clone(), &frame);
            prop_assert!(Unpacked::decompress(directory, &frame[..at]).is_err());
        }
    }
}
