//! Writing one pack with its index.
//!
//! Objects come one after another; a thread compresses them a batch at a time, with others' help, and writes them in order. An
//! object may name an earlier one that it resembles: then only what differs is stored. What differs is found by comparing both
//! ends, which is what most edits of files and nearly all of trees come to.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::hashtable::HashMap as IdMap;
use gix::objs::Kind;
use gix::zlib::Compression;
use gix::zlib::stream::deflate::{Compress, FlushCompress};
use sha1::{Digest, Sha1};

use super::failed;
use crate::VersionError;

/// Objects are compressed in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Differences from differences from … at most this many. As git's own packs.
const MAX_CHAIN: u8 = 50;
/// What is shorter is stored as it is: hashes and a few names, which hardly get shorter, while preparing to compress
/// costs more than writing them.
const NOT_COMPRESSED: usize = 128;
/// As git's own: an object up to here may be stored as a difference.
const MAX_DELTA_BYTES: usize = 512 << 20;

/// Batches that wait to be compressed.
const QUEUED: usize = 2;

/// A pack being written. Nothing of it is part of the repository before [`finish`](Self::finish).
pub(super) struct PackWriter {
    folder: PathBuf,
    temporary: PathBuf,
    /// `None` once nothing more is added.
    batches: Option<SyncSender<Vec<Waiting>>>,
    writing: Option<JoinHandle<std::io::Result<Written>>>,
    batch: Vec<Waiting>,
    batch_bytes: usize,
    entries: Vec<Entry>,
    places: IdMap<GitId, usize>,
}

struct Entry {
    id: GitId,
    /// At most so many differences from differences make the object.
    chain: u8,
}

/// Where an entry is, and its checksum.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    crc32: u32,
}

struct Waiting {
    kind: Kind,
    bytes: Bytes,
    /// The number and the bytes of what it resembles.
    base: Option<(usize, Bytes)>,
}

impl PackWriter {
    /// A pack for the repository whose objects are in `objects`.
    pub(super) fn new(objects: &Path) -> Result<Self, VersionError> {
        let folder = objects.join("pack");
        std::fs::create_dir_all(&folder).map_err(|error| VersionError::io(&folder, error))?;
        // git removes what is left of such a name when it cleans up.
        let temporary = folder.join(format!("tmp_pack_{}_{:08x}", std::process::id(), random_suffix()));
        let file = File::options().read(true).write(true).create_new(true).open(&temporary);
        let file = file.map_err(|error| VersionError::io(&temporary, error))?;
        let (sender, batches) = sync_channel(QUEUED);
        let writing = std::thread::spawn(move || write_pack(file, batches));
        Ok(Self {
            folder,
            temporary,
            batches: Some(sender),
            writing: Some(writing),
            batch: Vec::new(),
            batch_bytes: 0,
            entries: Vec::new(),
            places: IdMap::default(),
        })
    }

    /// Whether the object is in the pack.
    pub(super) fn has(&self, id: GitId) -> bool {
        self.places.contains_key(&id)
    }

    /// How many objects are in the pack.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds an object that is not in the pack yet. `base`: an earlier one of the same kind that it may resemble.
    pub(super) fn add(&mut self, id: GitId, kind: Kind, bytes: Bytes, base: Option<(GitId, Bytes)>) -> Result<(), VersionError> {
        let base = base.and_then(|(base, base_bytes)| {
            let number = *self.places.get(&base)?;
            let fits = bytes.len().max(base_bytes.len()) <= MAX_DELTA_BYTES && self.entries[number].chain < MAX_CHAIN;
            fits.then_some((number, base_bytes))
        });
        let chain = base.as_ref().map_or(0, |(number, _)| self.entries[*number].chain + 1);
        self.places.insert(id, self.entries.len());
        self.entries.push(Entry { id, chain });
        self.batch_bytes += bytes.len() + 64;
        self.batch.push(Waiting { kind, bytes, base });
        if self.batch_bytes >= BATCH_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), VersionError> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let heard = self.batches.as_ref().is_some_and(|batches| batches.send(batch).is_ok());
        if heard { Ok(()) } else { self.written().map(drop) }
    }

    /// Waits until everything is written.
    fn written(&mut self) -> Result<Written, VersionError> {
        self.batches = None;
        let writing = self.writing.take().ok_or_else(|| failed(&self.folder, "the pack was given up"))?;
        writing.join().expect("writing a pack does not panic").map_err(|error| VersionError::io(&self.temporary, error))
    }

    /// Makes the pack part of the repository, on disk before it returns. Nothing is made where nothing was added.
    pub(super) fn finish(mut self) -> Result<(), VersionError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        if u32::try_from(self.entries.len()).is_err() {
            return Err(failed(&self.folder, "a pack holds at most 2^32 objects"));
        }
        self.hand_over()?;
        let Written { places, checksum } = self.written()?;
        let name = format!("pack-{}", GitId::Sha1(checksum));
        let (pack, index) = (self.folder.join(format!("{name}.pack")), self.folder.join(format!("{name}.idx")));
        let temporary_index = self.temporary.with_extension("idx");
        let placed = (|| {
            let mut file = File::create_new(&temporary_index)?;
            file.write_all(&self.index(&places, checksum))?;
            file.sync_all()?;
            make_read_only(&self.temporary)?;
            make_read_only(&temporary_index)?;
            // The pack first: an index without its pack is an error to git, a pack without an index is not looked at.
            std::fs::rename(&self.temporary, &pack)?;
            std::fs::rename(&temporary_index, &index)?;
            File::open(&self.folder)?.sync_all()
        })();
        if placed.is_err() {
            let _ = std::fs::remove_file(&temporary_index);
        }
        placed.map_err(|error| VersionError::io(&pack, error))
    }

    /// The pack's index, version 2.
    fn index(&self, places: &[Place], pack: [u8; 20]) -> Vec<u8> {
        let mut order: Vec<(GitId, Place)> = self.entries.iter().map(|entry| entry.id).zip(places.iter().copied()).collect();
        order.sort_unstable_by_key(|(id, _)| *id);
        let mut out = Vec::with_capacity(8 + 1024 + order.len() * 32 + 40);
        out.extend_from_slice(b"\xfftOc\0\0\0\x02");
        for first in 0..=255_u8 {
            let upto = order.partition_point(|(id, _)| id.as_slice()[0] <= first) as u32;
            out.extend_from_slice(&upto.to_be_bytes());
        }
        order.iter().for_each(|(id, _)| out.extend_from_slice(id.as_slice()));
        order.iter().for_each(|(_, place)| out.extend_from_slice(&place.crc32.to_be_bytes()));
        let mut large = Vec::new();
        for (_, place) in &order {
            let offset = match u32::try_from(place.offset) {
                Ok(offset) if offset < 1 << 31 => offset,
                _ => {
                    large.push(place.offset);
                    (1 << 31) | (large.len() as u32 - 1)
                }
            };
            out.extend_from_slice(&offset.to_be_bytes());
        }
        large.iter().for_each(|offset| out.extend_from_slice(&offset.to_be_bytes()));
        out.extend_from_slice(&pack);
        let checksum = Sha1::digest(&out);
        out.extend_from_slice(&checksum);
        out
    }
}

impl Drop for PackWriter {
    /// What was not finished is removed; after a crash git does it.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn random_suffix() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32
}

fn make_read_only(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))
}

/// A pack that is whole and on disk.
struct Written {
    places: Vec<Place>,
    checksum: [u8; 20],
}

/// Writes the batches as they come, then the number of objects and the checksum.
fn write_pack(file: File, batches: Receiver<Vec<Waiting>>) -> std::io::Result<Written> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    // How many objects there are is written over it at the end.
    out.write_all(b"PACK\0\0\0\x02\0\0\0\0")?;
    let (mut offset, mut places) = (12, Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for batch in batches {
        let stretch = batch.len().div_ceil(cores).max(1);
        let packed: Vec<Vec<Packed>> = std::thread::scope(|scope| {
            let threads: Vec<_> = batch.chunks(stretch).map(|some| scope.spawn(move || pack(some))).collect();
            threads.into_iter().map(|thread| thread.join().expect("compressing does not panic")).collect()
        });
        for packed in packed.into_iter().flatten() {
            let mut entry = Vec::with_capacity(packed.data.len() + 24);
            match packed.base {
                Some(base) => {
                    let base: &Place = &places[base];
                    put_header(&mut entry, 6, packed.size);
                    put_offset(&mut entry, offset - base.offset);
                }
                None => put_header(&mut entry, packed.kind, packed.size),
            }
            entry.extend_from_slice(&packed.data);
            places.push(Place { offset, crc32: crc32fast::hash(&entry) });
            out.write_all(&entry)?;
            offset += entry.len() as u64;
        }
    }
    let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(8))?;
    file.write_all(&(places.len() as u32).to_be_bytes())?;
    file.rewind()?;
    let (mut sha1, mut buffer) = (Sha1::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            some => sha1.update(&buffer[..some]),
        }
    }
    let checksum: [u8; 20] = sha1.finalize().into();
    file.write_all(&checksum)?;
    // Without a single object nobody wants the pack.
    if !places.is_empty() {
        file.sync_all()?;
    }
    Ok(Written { places, checksum })
}

/// An object as it stands in the pack, but for the header, which needs to know where it is.
struct Packed {
    kind: u8,
    /// Of what is compressed.
    size: usize,
    data: Vec<u8>,
    base: Option<usize>,
}

fn pack(some: &[Waiting]) -> Vec<Packed> {
    let mut compress = Compress::new(Compression::BEST_SPEED);
    some.iter().map(|waiting| pack_one(&mut compress, waiting)).collect()
}

fn pack_one(compress: &mut Compress, waiting: &Waiting) -> Packed {
    let kind = match waiting.kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    if let Some((base, bytes)) = &waiting.base {
        let delta = difference(bytes, &waiting.bytes);
        if delta.len() < waiting.bytes.len() / 4 * 3 {
            return Packed { kind, size: delta.len(), data: deflate(compress, &delta), base: Some(*base) };
        }
    }
    Packed { kind, size: waiting.bytes.len(), data: deflate(compress, &waiting.bytes), base: None }
}

pub(super) fn deflate(compress: &mut Compress, bytes: &[u8]) -> Vec<u8> {
    if bytes.len() <= NOT_COMPRESSED {
        return stored(bytes);
    }
    compress.reset();
    // Enough for nearly everything; what cannot be compressed takes up to an eighth more than it is, with the quickest of methods.
    let mut out = vec![0; bytes.len() + bytes.len() / 1000 + 64];
    let (mut read, mut written) = (0, 0);
    loop {
        let status = compress
            .compress(&bytes[read..], &mut out[written..], FlushCompress::Finish)
            .expect("a fresh compressor takes any bytes");
        read = usize::try_from(compress.total_in()).expect("no more than there is");
        written = usize::try_from(compress.total_out()).expect("no more than the buffer holds");
        if status == gix::zlib::Status::StreamEnd {
            out.truncate(written);
            return out;
        }
        out.resize(out.len() + bytes.len() / 8 + 64, 0);
    }
}

/// A zlib stream of one block that is not compressed.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a += u32::from(*byte);
        b += a;
    }
    let mut out = Vec::with_capacity(bytes.len() + 11);
    out.extend_from_slice(&[0x78, 0x01, 0x01]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&((b % 65_521) << 16 | (a % 65_521)).to_be_bytes());
    out
}

/// How to make `target` of `base`: what both begin with, what is new, what both end with.
fn difference(base: &[u8], target: &[u8]) -> Vec<u8> {
    let shared = base.len().min(target.len());
    let front = common_front(&base[..shared], &target[..shared]);
    let back = common_back(&base[front..], &target[front..]);
    let mut out = Vec::with_capacity(32 + target.len() - front - back);
    put_size(&mut out, base.len());
    put_size(&mut out, target.len());
    put_copies(&mut out, 0, front);
    for some in target[front..target.len() - back].chunks(127) {
        out.push(some.len() as u8);
        out.extend_from_slice(some);
    }
    put_copies(&mut out, base.len() - back, back);
    out
}

fn common_front(a: &[u8], b: &[u8]) -> usize {
    let whole = a.chunks_exact(32).zip(b.chunks_exact(32)).take_while(|(a, b)| a == b).count() * 32;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}

fn common_back(a: &[u8], b: &[u8]) -> usize {
    let whole = a.rchunks_exact(32).zip(b.rchunks_exact(32)).take_while(|(a, b)| a == b).count() * 32;
    whole + a[..a.len() - whole].iter().rev().zip(b[..b.len() - whole].iter().rev()).take_while(|(a, b)| a == b).count()
}

fn put_copies(out: &mut Vec<u8>, mut from: usize, mut length: usize) {
    while length > 0 {
        let some = length.min(0xff_ffff);
        let place = out.len();
        out.push(0x80);
        for (bit, byte) in (from as u32).to_le_bytes().into_iter().enumerate().filter(|(_, byte)| *byte != 0) {
            out[place] |= 1 << bit;
            out.push(byte);
        }
        for (bit, byte) in (some as u32).to_le_bytes()[..3].iter().enumerate().filter(|(_, byte)| **byte != 0) {
            out[place] |= 0x10 << bit;
            out.push(*byte);
        }
        from += some;
        length -= some;
    }
}

/// Seven bits at a time, the lowest first.
pub(super) fn put_size(out: &mut Vec<u8>, mut size: usize) {
    while size >= 0x80 {
        out.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
}

/// An entry's kind and size.
pub(super) fn put_header(out: &mut Vec<u8>, kind: u8, size: usize) {
    let first = (kind << 4) | (size & 0x0f) as u8;
    let rest = size >> 4;
    if rest == 0 {
        out.push(first);
    } else {
        out.push(first | 0x80);
        put_size(out, rest);
    }
}

/// How far back the base is: seven bits at a time, the highest first, each but the last one less.
pub(super) fn put_offset(out: &mut Vec<u8>, mut back: u64) {
    let mut bytes = [0_u8; 10];
    let mut place = bytes.len() - 1;
    bytes[place] = (back & 0x7f) as u8;
    while back >= 0x80 {
        back = (back >> 7) - 1;
        place -= 1;
        bytes[place] = (back & 0x7f) as u8 | 0x80;
    }
    out.extend_from_slice(&bytes[place..]);
}

#[cfg(test)]
mod tests {
    use gix::zlib::{Decompress, FlushDecompress};

    use super::*;

    #[test]
    fn what_cannot_be_compressed_is_written_whole() {
        let noise: Vec<u8> = (0..100_000_u64).flat_map(|count| helix_objects::hash(&count.to_le_bytes()).0).collect();
        let packed = deflate(&mut Compress::new(Compression::BEST_SPEED), &noise);
        let mut unpacked = vec![0; noise.len() + 1];
        let mut inflate = Decompress::new();
        inflate.decompress(&packed, &mut unpacked, FlushDecompress::Finish).unwrap();
        assert_eq!((inflate.total_in(), inflate.total_out()), (packed.len() as u64, noise.len() as u64));
        assert!(unpacked[..noise.len()] == noise);
    }
}
