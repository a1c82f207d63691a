//! Objects out of git's packs, with everything on the way to one kept.
//!
//! Most of a pack are differences, each from another object of it, in chains of up to fifty. Git writes the newest version whole
//! and the older ones as differences, and a history is read from its oldest commit on: so the first object that is read is at the
//! far end of its chain, and the next ones are what it was made from. Whoever keeps only what was asked for makes each of them
//! from the beginning again.
//!
//! What cannot be read here (an object of another repository's folder, a base that is in another pack, damage) is read by the
//! library, which says what is wrong. What differences make longer than git makes anything of them is read by nobody: each byte of
//! one may stand for megabytes.

use std::collections::hash_map::RandomState;
use std::path::Path;

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::objs::Kind;
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::data::{Entry, File};
use gix::odb::pack::index;
use gix::zlib::Inflate;

use super::bounded::BoundedMap;

/// Git makes chains of at most 4,095 differences; what is longer goes in a circle.
const LONGEST_CHAIN: usize = 4_096;
/// Deflate makes of a byte at most so many.
const MOST_INFLATED: u64 = 1_040;
/// What is longer is read by the library, which a damaged length costs no memory before its bytes have come.
const LONGEST: u64 = 1 << 30;

/// Git stores as differences no file of `core.bigFileThreshold` and more, which is this where nobody says otherwise.
const LONGEST_MADE: usize = 512 << 20;

/// Why an object is not read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The library may have it, or says why not.
    Elsewhere,
    /// It is a difference, and it or what it is made from is too long.
    TooLong,
}

/// The packs of a repository that can be opened.
pub(super) struct Packs(Vec<Pack>);

struct Pack {
    index: index::File,
    data: File<gix::odb::pack::MMap>,
}

/// Where an object is, in the order of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pack: usize,
    offset: u64,
}

impl Packs {
    /// Opens what is in the folder of a repository's objects, and in those that it borrows from.
    pub(super) fn open(objects: &Path) -> Self {
        // What cannot be resolved is refused where objects are read one by one.
        let borrowed = gix::odb::alternate::resolve(objects.to_owned(), Path::new("/")).unwrap_or_default();
        let folders = std::iter::once(objects.to_owned()).chain(borrowed);
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.join("pack")).into_iter().flatten().flatten());
        let files = files.map(|file| file.path());
        let indexes = files.filter(|path| path.extension().is_some_and(|extension| extension == "idx"));
        let pack = |path: std::path::PathBuf| {
            let index = index::File::at(&path, gix::hash::Kind::Sha1).ok()?;
            let data = File::at(path.with_extension("pack"), gix::hash::Kind::Sha1).ok()?;
            Some(Pack { index, data })
        };
        Self(indexes.filter_map(pack).collect())
    }

    /// Where an object is; `None` where it is in none of the packs.
    pub(super) fn find(&self, id: GitId) -> Option<Place> {
        self.places(id).next()
    }

    /// Every place where an object is.
    pub(super) fn places(&self, id: GitId) -> impl Iterator<Item = Place> {
        self.0.iter().enumerate().filter_map(move |(pack, found)| Some(Place { pack, offset: found.offset(id)? }))
    }
}

impl Pack {
    fn offset(&self, id: GitId) -> Option<u64> {
        self.index.lookup(id).map(|entry| self.index.pack_offset_at_index(entry))
    }

    /// Where the object is that this one is a difference from.
    fn base(&self, entry: &Entry) -> Option<u64> {
        match entry.header {
            Header::OfsDelta { base_distance } => entry.checked_base_pack_offset(base_distance),
            Header::RefDelta { base_id } => self.offset(base_id),
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => None,
        }
    }
}

/// What one reader has unpacked.
pub(super) struct Unpacker {
    kept: BoundedMap<Place, (Kind, Bytes), RandomState>,
    inflate: Inflate,
}

impl Unpacker {
    /// Keeps so many bytes of objects.
    pub(super) fn new(kept_bytes: usize) -> Self {
        Self { kept: BoundedMap::new(kept_bytes), inflate: Inflate::default() }
    }

    /// The object at a place. It is not compared with its id.
    pub(super) fn object(&mut self, packs: &Packs, place: Place) -> Result<(Kind, Bytes), Unread> {
        let pack = packs.0.get(place.pack).ok_or(Unread::Elsewhere)?;
        let (mut at, mut chain) = (place, Vec::new());
        let (kind, mut bytes) = loop {
            if let Some(known) = self.kept.get(&at) {
                break known;
            }
            let entry = pack.data.entry(at.offset).map_err(|_| Unread::Elsewhere)?;
            let whole = entry.header.as_kind();
            if (whole.is_none() || !chain.is_empty()) && entry.decompressed_size > LONGEST_MADE as u64 {
                return Err(Unread::TooLong);
            }
            if let Some(kind) = whole {
                let bytes = Bytes::from(self.inflated(pack, &entry).ok_or(Unread::Elsewhere)?);
                self.keep(at, kind, &bytes);
                break (kind, bytes);
            }
            let base = pack.base(&entry).ok_or(Unread::Elsewhere)?;
            chain.push((at, entry));
            if chain.len() > LONGEST_CHAIN {
                return Err(Unread::Elsewhere);
            }
            at.offset = base;
        };
        for (at, entry) in chain.into_iter().rev() {
            let difference = self.inflated(pack, &entry).ok_or(Unread::Elsewhere)?;
            if made_length(&difference).is_some_and(|length| length > LONGEST_MADE) {
                return Err(Unread::TooLong);
            }
            bytes = Bytes::from(applied(&bytes, &difference).ok_or(Unread::Elsewhere)?);
            self.keep(at, kind, &bytes);
        }
        Ok((kind, bytes))
    }

    /// Commits and tags are hardly ever what another one is made from.
    fn keep(&mut self, place: Place, kind: Kind, bytes: &Bytes) {
        if matches!(kind, Kind::Tree | Kind::Blob) {
            self.kept.insert(place, (kind, bytes.clone()), bytes.len() + 128);
        }
    }

    fn inflated(&mut self, pack: &Pack, entry: &Entry) -> Option<Vec<u8>> {
        // An entry that is damaged may claim any length.
        let left = (pack.data.data_len() as u64).saturating_sub(entry.data_offset);
        let most = left.saturating_mul(MOST_INFLATED).min(LONGEST);
        let length = Some(entry.decompressed_size).filter(|length| *length <= most)?;
        let length = usize::try_from(length).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        bytes.resize(length, 0);
        pack.data.decompress_entry(entry, &mut self.inflate, &mut bytes).ok()?;
        Some(bytes)
    }
}

/// How long what a difference makes is, as it says itself.
fn made_length(difference: &[u8]) -> Option<usize> {
    length(length(difference)?.1).map(|(length, _)| length)
}

/// What a difference makes of its base. It begins with the lengths of both; then come pieces: bytes of the base (where, how
/// many), or bytes that follow.
pub(super) fn applied(base: &[u8], difference: &[u8]) -> Option<Vec<u8>> {
    let (before, rest) = length(difference)?;
    let (after, mut rest) = length(rest)?;
    let mut made = Vec::new();
    made.try_reserve_exact(after).ok()?;
    if before != base.len() {
        return None;
    }
    while let Some((&piece, more)) = rest.split_first() {
        rest = more;
        let bytes = if piece & 0x80 == 0 {
            let (bytes, more) = rest.split_at_checked(usize::from(piece)).filter(|_| piece > 0)?;
            rest = more;
            bytes
        } else {
            let mut number = |bits: std::ops::Range<u32>| {
                let mut number = 0;
                for (place, _) in bits.enumerate().filter(|(_, bit)| piece & (1 << bit) != 0) {
                    let (&byte, more) = rest.split_first()?;
                    rest = more;
                    number |= usize::from(byte) << (8 * place);
                }
                Some(number)
            };
            let (from, count) = (number(0..4)?, number(4..7)?);
            let count = if count == 0 { 0x1_0000 } else { count };
            base.get(from..from + count)?
        };
        if made.len() + bytes.len() > after {
            return None;
        }
        made.extend_from_slice(bytes);
    }
    (made.len() == after).then_some(made)
}

/// A length in groups of seven bits, the lowest first, and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().take(9).position(|byte| byte & 0x80 == 0)? + 1;
    let (groups, rest) = bytes.split_at(end);
    let length = groups.iter().rev().fold(0, |length, group| length << 7 | u64::from(group & 0x7f));
    Some((usize::try_from(length).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use gix::zlib::Compression;
    use gix::zlib::stream::deflate::Compress;

    use super::super::pack_writer::{deflate, put_header, put_offset, put_size};
    use super::{Kind, Packs, Place, Unpacker, Unread, applied};

    /// A difference that takes pieces of `base` and bytes in between.
    fn difference(base: &[u8], pieces: &[(usize, usize, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
        let (mut made, mut body) = (Vec::new(), Vec::new());
        for (from, count, bytes) in pieces {
            let from = from % base.len();
            let count = (count % (base.len() - from)).max(1);
            let (start, long) = (&base[from..from + count], [(from as u32).to_le_bytes(), (count as u32).to_le_bytes()].concat());
            // The count's fourth byte does not exist.
            let said: Vec<usize> = (0..7).filter(|place| long[*place] != 0).collect();
            body.push(said.iter().fold(0x80, |bits, place| bits | 1 << place));
            body.extend(said.iter().map(|place| long[*place]));
            made.extend_from_slice(start);
            if !bytes.is_empty() {
                body.push(bytes.len() as u8);
                body.extend_from_slice(bytes);
                made.extend_from_slice(bytes);
            }
        }
        let mut whole = Vec::new();
        for mut length in [base.len(), made.len()] {
            while length > 0x7f {
                whole.push(length as u8 | 0x80);
                length >>= 7;
            }
            whole.push(length as u8);
        }
        whole.extend(body);
        (whole, made)
    }

    proptest! {
        #[test]
        fn a_difference_makes_what_it_was_made_of_and_a_damaged_one_is_refused_or_makes_something(
            base in prop::collection::vec(any::<u8>(), 1..70_000),
            pieces in prop::collection::vec((any::<usize>(), any::<usize>(), prop::collection::vec(any::<u8>(), 0..100)), 0..8),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut difference, made) = difference(&base, &pieces);
            prop_assert_eq!(applied(&base, &difference), Some(made));
            for (place, value) in flips {
                let place = place.index(difference.len());
                difference[place] = value;
            }
            applied(&base, &difference);
            difference.truncate(cut.index(difference.len()));
            applied(&base, &difference);
        }
    }

    /// The index of a pack of two objects whose ids are all zeros, and all ones.
    fn index(offsets: [usize; 2]) -> Vec<u8> {
        let counts = (0..256_u32).map(|first| if first == 255 { 2_u32 } else { 1 });
        let offsets = offsets.map(|offset| u32::try_from(offset).unwrap());
        let numbers = |numbers: &mut dyn Iterator<Item = u32>| numbers.flat_map(u32::to_be_bytes).collect::<Vec<u8>>();
        let mut index = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
        index.extend(numbers(&mut { counts }));
        index.extend([[0; 20], [0xff; 20]].concat());
        index.extend(numbers(&mut [0, 0].into_iter().chain(offsets)));
        index.extend([0; 40]);
        index
    }

    #[test]
    fn what_few_bytes_make_longer_than_git_makes_anything_is_not_made() {
        let base = vec![0; 1 << 20];
        for (mebibytes, expected) in [(2, Ok((Kind::Blob, 2 << 20))), (513, Err(Unread::TooLong))] {
            let mut difference = Vec::new();
            put_size(&mut difference, base.len());
            put_size(&mut difference, mebibytes << 20);
            // Each takes a mebibyte from the beginning of the base.
            difference.extend([0xc0, 0x10].repeat(mebibytes));
            let mut compress = Compress::new(Compression::BEST_SPEED);
            let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
            let first = pack.len();
            put_header(&mut pack, 3, base.len());
            pack.extend(deflate(&mut compress, &base));
            let second = pack.len();
            put_header(&mut pack, 6, difference.len());
            put_offset(&mut pack, (second - first) as u64);
            pack.extend(deflate(&mut compress, &difference));
            pack.extend([0; 20]);
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("pack");
            std::fs::create_dir(&place).unwrap();
            std::fs::write(place.join("pack-1.pack"), &pack).unwrap();
            std::fs::write(place.join("pack-1.idx"), index([first, second])).unwrap();
            let found = Unpacker::new(0).object(&Packs::open(folder.path()), Place { pack: 0, offset: second as u64 });
            assert_eq!(found.map(|(kind, bytes)| (kind, bytes.len())), expected);
        }
    }

    #[test]
    fn a_count_of_nothing_is_64_kib() {
        let base = vec![7; 0x1_0000];
        assert_eq!(applied(&base, &[0x80, 0x80, 0x04, 0x80, 0x80, 0x04, 0x80]), Some(base));
    }

    #[test]
    fn lengths_that_are_not_so_are_refused() {
        let base = b"base";
        assert_eq!(applied(base, &[4, 4, 0x90, 4]), Some(base.to_vec()));
        for difference in
            [&[][..], &[4], &[3, 4, 0x90, 4], &[4, 3, 0x90, 4], &[4, 5, 0x90, 4], &[4, 4, 0x90, 5], &[4, 1, 0], &[4, 2, 2, 1]]
        {
            assert_eq!(applied(base, difference), None, "{difference:?}");
        }
        assert_eq!(applied(base, &[4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), None);
    }
}
