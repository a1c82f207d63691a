//! Writing one pack with its index.
//!
//! Objects come one after another; those of a batch are compressed by several threads and written in order. An object may
//! name an earlier one that it resembles: then only what differs is stored. What differs is found by comparing both ends, which is
//! what most edits of files and nearly all of trees come to.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

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
/// As git's own: an object up to here may be stored as a difference.
const MAX_DELTA_BYTES: usize = 512 << 20;

/// A pack being written. Nothing of it is part of the repository before [`finish`](Self::finish).
pub(super) struct PackWriter {
    folder: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    sha1: Sha1,
    offset: u64,
    batch: Vec<Waiting>,
    batch_bytes: usize,
    entries: Vec<Entry>,
    places: IdMap<GitId, usize>,
}

struct Entry {
    id: GitId,
    offset: u64,
    crc32: u32,
    chain: u8,
}

struct Waiting {
    kind: Kind,
    bytes: Bytes,
    /// The place and the bytes of what it resembles.
    base: Option<(usize, Bytes)>,
}

impl PackWriter {
    /// A pack for the repository whose objects are in `objects`.
    pub(super) fn new(objects: &Path) -> Result<Self, VersionError> {
        let folder = objects.join("pack");
        std::fs::create_dir_all(&folder).map_err(|error| VersionError::io(&folder, error))?;
        // git removes what is left of such a name when it cleans up.
        let temporary = folder.join(format!("tmp_pack_{}_{:08x}", std::process::id(), rand_suffix()));
        let file = File::create_new(&temporary).map_err(|error| VersionError::io(&temporary, error))?;
        let mut writer = Self {
            folder,
            temporary,
            file: BufWriter::with_capacity(1 << 20, file),
            sha1: Sha1::new(),
            offset: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            entries: Vec::new(),
            places: IdMap::default(),
        };
        // How many objects there are is written over it at the end.
        writer.write(b"PACK\0\0\0\x02\0\0\0\0")?;
        Ok(writer)
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
            let place = *self.places.get(&base)?;
            let fits = bytes.len().max(base_bytes.len()) <= MAX_DELTA_BYTES && self.entries[place].chain < MAX_CHAIN;
            fits.then_some((place, base_bytes))
        });
        let chain = base.as_ref().map_or(0, |(place, _)| self.entries[*place].chain + 1);
        self.places.insert(id, self.entries.len());
        self.entries.push(Entry { id, offset: 0, crc32: 0, chain });
        self.batch_bytes += bytes.len() + 64;
        self.batch.push(Waiting { kind, bytes, base });
        if self.batch_bytes >= BATCH_BYTES { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<(), VersionError> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let first = self.entries.len() - batch.len();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stretch = batch.len().div_ceil(cores).max(1);
        let packed: Vec<Vec<Packed>> = std::thread::scope(|scope| {
            let threads: Vec<_> = batch.chunks(stretch).map(|some| scope.spawn(move || pack(some))).collect();
            threads.into_iter().map(|thread| thread.join().expect("compressing does not panic")).collect()
        });
        for (place, packed) in (first..).zip(packed.into_iter().flatten()) {
            let mut entry = Vec::with_capacity(packed.data.len() + 24);
            match packed.base {
                Some(base) => {
                    put_header(&mut entry, 6, packed.size);
                    put_offset(&mut entry, self.offset - self.entries[base].offset);
                }
                None => {
                    self.entries[place].chain = 0;
                    put_header(&mut entry, packed.kind, packed.size);
                }
            }
            entry.extend_from_slice(&packed.data);
            self.entries[place].offset = self.offset;
            self.entries[place].crc32 = crc32fast::hash(&entry);
            self.write(&entry)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), VersionError> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| VersionError::io(&self.temporary, error))
    }

    /// Makes the pack part of the repository, on disk before it returns. Nothing is made where nothing was added.
    pub(super) fn finish(mut self) -> Result<(), VersionError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.write_batch()?;
        let checksum = self.seal()?;
        let name = format!("pack-{}", GitId::Sha1(checksum));
        let (pack, index) = (self.folder.join(format!("{name}.pack")), self.folder.join(format!("{name}.idx")));
        let index_bytes = self.index(checksum)?;
        let temporary_index = self.temporary.with_extension("idx");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| VersionError::io(&path, error)
        };
        let mut file = File::create_new(&temporary_index).map_err(io(&temporary_index))?;
        let written = file.write_all(&index_bytes).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| make_read_only(&self.temporary)).and_then(|()| make_read_only(&temporary_index));
        // The pack first: an index without its pack is an error to git, a pack without an index is not looked at.
        let placed =
            placed.and_then(|()| std::fs::rename(&self.temporary, &pack)).and_then(|()| std::fs::rename(&temporary_index, &index));
        if placed.is_err() {
            let _ = std::fs::remove_file(&temporary_index);
        }
        placed.map_err(io(&pack))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io(&self.folder))
    }

    /// Writes the number of objects and the checksum behind the last one.
    fn seal(&mut self) -> Result<[u8; 20], VersionError> {
        use std::io::{Read, Seek, SeekFrom};
        let count = u32::try_from(self.entries.len()).map_err(|_| failed(&self.folder, "a pack holds at most 2^32 objects"))?;
        let sealed = (|| {
            self.file.flush()?;
            let mut file = self.file.get_ref();
            file.seek(SeekFrom::Start(8))?;
            file.write_all(&count.to_be_bytes())?;
            let mut read = File::open(&self.temporary)?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match read.read(&mut buffer)? {
                    0 => break,
                    some => self.sha1.update(&buffer[..some]),
                }
            }
            let checksum: [u8; 20] = self.sha1.clone().finalize().into();
            file.seek(SeekFrom::End(0))?;
            file.write_all(&checksum)?;
            file.sync_all()?;
            Ok(checksum)
        })();
        sealed.map_err(|error: std::io::Error| VersionError::io(&self.temporary, error))
    }

    /// The pack's index, version 2.
    fn index(&mut self, pack: [u8; 20]) -> Result<Vec<u8>, VersionError> {
        self.entries.sort_unstable_by_key(|entry| entry.id);
        let mut out = Vec::with_capacity(8 + 1024 + self.entries.len() * 32 + 40);
        out.extend_from_slice(b"\xfftOc\0\0\0\x02");
        for first in 0..=255_u8 {
            let upto = self.entries.partition_point(|entry| entry.id.as_slice()[0] <= first) as u32;
            out.extend_from_slice(&upto.to_be_bytes());
        }
        self.entries.iter().for_each(|entry| out.extend_from_slice(entry.id.as_slice()));
        self.entries.iter().for_each(|entry| out.extend_from_slice(&entry.crc32.to_be_bytes()));
        let mut large = Vec::new();
        for entry in &self.entries {
            let offset = match u32::try_from(entry.offset) {
                Ok(offset) if offset < 1 << 31 => offset,
                _ => {
                    large.push(entry.offset);
                    (1 << 31) | (large.len() as u32 - 1)
                }
            };
            out.extend_from_slice(&offset.to_be_bytes());
        }
        large.iter().for_each(|offset| out.extend_from_slice(&offset.to_be_bytes()));
        out.extend_from_slice(&pack);
        let checksum = Sha1::digest(&out);
        out.extend_from_slice(&checksum);
        Ok(out)
    }
}

impl Drop for PackWriter {
    /// What was not finished is removed; after a crash git does it.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn rand_suffix() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32
}

fn make_read_only(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))
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

fn deflate(compress: &mut Compress, bytes: &[u8]) -> Vec<u8> {
    compress.reset();
    // zlib never makes more than this of it, so one call is enough.
    let mut out = vec![0; bytes.len() + bytes.len() / 1000 + bytes.len() / 16_384 * 5 + 64];
    let status = compress.compress(bytes, &mut out, FlushCompress::Finish).expect("a fresh compressor takes any bytes");
    debug_assert_eq!(status, gix::zlib::Status::StreamEnd);
    out.truncate(usize::try_from(compress.total_out()).expect("it is no longer than the buffer"));
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
fn put_size(out: &mut Vec<u8>, mut size: usize) {
    while size >= 0x80 {
        out.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
}

/// An entry's kind and size.
fn put_header(out: &mut Vec<u8>, kind: u8, size: usize) {
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
fn put_offset(out: &mut Vec<u8>, mut back: u64) {
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
