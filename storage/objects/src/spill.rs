//! A worker's cache of content: append-only segments in a folder, bounded in size.
//!
//! It holds nothing that the node does not have or could not make again, so nothing is synced:
//! what the machine's death leaves torn is found by its checksum and forgotten. Past the bound the
//! least recently used objects go, except pinned ones; an open workspace pins what it needs.
//!
//! The folder: `format`, `lock`, `pins`, and `NNNNNNNN.segment`. Objects forgotten for their age lie in
//! their segment until it is rewritten, so opening the folder again may find some of them again.

mod pin_log;
mod segment;

use std::collections::{BTreeMap, HashMap, btree_map};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use helix_protocol::ObjectId;
use parking_lot::Mutex;

use self::pin_log::PinLog;
use self::segment::{HEADER, Header};
use crate::pins::Pins;
use crate::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin, StoreFolder, StoreStats};

/// The folder's format this program writes.
const FORMAT: u32 = 1;

/// How large a spill store may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpillOptions {
    /// Bytes of segments. Pinned content is kept even beyond it.
    pub limit_bytes: u64,
    /// A segment is full at this many bytes.
    pub segment_bytes: u64,
}

impl Default for SpillOptions {
    fn default() -> Self {
        Self { limit_bytes: 8 << 30, segment_bytes: 16 << 20 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct SpillStore {
    path: PathBuf,
    options: SpillOptions,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    folder: StoreFolder,
    index: HashMap<ObjectId, Entry>,
    segments: BTreeMap<u64, Segment>,
    writing: u64,
    pins: Pins,
    pin_log: PinLog,
    clock: u64,
    mark: u64,
    logical: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    segment: u64,
    place: u64,
    header: Header,
    used: u64,
}

impl Entry {
    fn stored(&self) -> u64 {
        HEADER as u64 + self.header.stored
    }
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
    live: u64,
}

impl SpillStore {
    /// Opens the store in `path`, which is made where it is missing. Fails with `InUse` where
    /// another process has it, with `NewerFormat` where a newer version wrote it.
    pub fn open(path: &Path, options: SpillOptions) -> Result<Self, ObjectError> {
        let folder = StoreFolder::open(path, FORMAT)?;
        let (pin_log, pins) = PinLog::open(&folder)?;
        let mut state = State {
            folder,
            index: HashMap::new(),
            segments: BTreeMap::new(),
            writing: 0,
            pins,
            pin_log,
            clock: 0,
            mark: 0,
            logical: 0,
        };
        for (number, segment) in segment_files(path)? {
            state.load(number, segment)?;
        }
        state.writing = state.segments.keys().next_back().map_or(0, |last| last + 1);
        state.mark = state.index.len() as u64;
        Ok(Self { path: path.to_owned(), options, state: Mutex::new(Some(state)) })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        act(self.state.lock().as_mut().ok_or(ObjectError::Closed)?)
    }
}

fn segment_files(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, ObjectError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| ObjectError::io(folder, error))? {
        let path = entry.map_err(|error| ObjectError::io(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "segment")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
        {
            found.insert(number, path);
        }
    }
    Ok(found)
}

impl State {
    /// Takes a segment found on disk into the index; what is torn at its end is cut off.
    fn load(&mut self, number: u64, path: PathBuf) -> Result<(), ObjectError> {
        let open = || {
            let file = File::options().read(true).write(true).open(&path)?;
            let (records, whole) = segment::scan(&file)?;
            if whole < file.metadata()?.len() {
                file.set_len(whole)?;
            }
            Ok((file, records, whole))
        };
        let (file, records, whole) = open().map_err(|error: std::io::Error| ObjectError::io(&path, error))?;
        if records.is_empty() {
            return fs::remove_file(&path).map_err(|error| ObjectError::io(&path, error));
        }
        self.segments.insert(number, Segment { file: Arc::new(file), path, length: whole, live: 0 });
        for (place, header) in records {
            self.clock += 1;
            self.adopt(Entry { segment: number, place, header, used: self.clock });
        }
        Ok(())
    }

    /// Puts an entry into the index in the place of an older one.
    fn adopt(&mut self, entry: Entry) {
        self.forget(&entry.header.id);
        if let Some(segment) = self.segments.get_mut(&entry.segment) {
            segment.live += entry.stored();
        }
        self.logical += entry.header.length;
        self.index.insert(entry.header.id, entry);
    }

    fn forget(&mut self, id: &ObjectId) {
        if let Some(old) = self.index.remove(id) {
            self.logical -= old.header.length;
            if let Some(segment) = self.segments.get_mut(&old.segment) {
                segment.live -= old.stored();
            }
        }
    }

    /// Writes records to the end of the segment that is being filled. On an error nothing of them counts.
    fn append(&mut self, folder: &Path, options: &SpillOptions, buffer: &[u8], headers: &[Header]) -> Result<(), ObjectError> {
        if self.segments.get(&self.writing).is_some_and(|segment| segment.length >= options.segment_bytes) {
            self.writing += 1;
        }
        let number = self.writing;
        let segment = match self.segments.entry(number) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => {
                let path = folder.join(format!("{number:08}.segment"));
                let opened = File::options().create_new(true).read(true).append(true).open(&path);
                let file = Arc::new(opened.map_err(|error| ObjectError::io(&path, error))?);
                entry.insert(Segment { file, path, length: 0, live: 0 })
            }
        };
        let start = segment.length;
        if let Err(error) = (&*segment.file).write_all(buffer) {
            // Cut off what was written, or leave the segment behind, so that the next record starts at a known place.
            if segment.file.set_len(start).is_err() {
                self.writing += 1;
            }
            return Err(ObjectError::io(&segment.path, error));
        }
        segment.length += buffer.len() as u64;
        let mut place = start;
        for header in headers {
            self.clock += 1;
            let entry = Entry { segment: number, place, header: *header, used: self.clock };
            place += entry.stored();
            self.adopt(entry);
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.segments.values().map(|segment| segment.length).sum()
    }

    /// Brings the store beneath its bound: forgets the least recently used, then rewrites or deletes
    /// segments that hold the least. Goes to nine tenths, so that it is not needed at every write.
    fn shrink(&mut self, folder: &Path, options: &SpillOptions) -> Result<(), ObjectError> {
        if self.size() <= options.limit_bytes {
            return Ok(());
        }
        let goal = options.limit_bytes / 10 * 9;
        let mut live: u64 = self.index.values().map(Entry::stored).sum();
        let mut by_age: Vec<(u64, u64, ObjectId)> = self
            .index
            .values()
            .filter(|entry| !self.pins.holds(&entry.header.id))
            .map(|entry| (entry.used, entry.stored(), entry.header.id))
            .collect();
        by_age.sort_unstable();
        for (_, stored, id) in by_age {
            if live <= goal {
                break;
            }
            self.forget(&id);
            live -= stored;
        }
        while self.size() > options.limit_bytes {
            let waste = |segment: &Segment| segment.length - segment.live;
            let Some((number, _)) =
                self.segments.iter().filter(|(_, segment)| waste(segment) > 0).max_by_key(|(_, segment)| waste(segment))
            else {
                break;
            };
            self.rewrite(*number, folder, options)?;
        }
        Ok(())
    }

    /// Moves what a segment still holds to the end of the store and deletes it.
    fn rewrite(&mut self, number: u64, folder: &Path, options: &SpillOptions) -> Result<(), ObjectError> {
        if number == self.writing {
            self.writing += 1;
        }
        let mut kept: Vec<Entry> = self.index.values().filter(|entry| entry.segment == number).copied().collect();
        kept.sort_unstable_by_key(|entry| entry.place);
        for entry in kept {
            let id = entry.header.id;
            match self.fetch(&entry)? {
                Some(bytes) => {
                    let mut buffer = Vec::new();
                    let header = segment::append_record(&mut buffer, id, &bytes);
                    self.append(folder, options, &buffer, &[header])?;
                    if let Some(moved) = self.index.get_mut(&id) {
                        moved.used = entry.used;
                    }
                }
                None => self.forget(&id),
            }
        }
        if let Some(segment) = self.segments.remove(&number) {
            fs::remove_file(&segment.path).map_err(|error| ObjectError::io(&segment.path, error))?;
        }
        Ok(())
    }

    fn fetch(&self, entry: &Entry) -> Result<Option<Bytes>, ObjectError> {
        let Some(segment) = self.segments.get(&entry.segment) else { return Ok(None) };
        segment::read(&segment.file, entry.place, &entry.header).map_err(|error| ObjectError::io(&segment.path, error))
    }
}

impl ObjectStore for SpillStore {
    /// An object whose bytes are damaged on disk is forgotten and counts as absent: whoever needs it
    /// asks the node for it again.
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        let found = self.with(|state| {
            state.clock += 1;
            let now = state.clock;
            let Some(entry) = state.index.get_mut(&id) else { return Ok(None) };
            entry.used = now;
            let entry = *entry;
            Ok(state.segments.get(&entry.segment).map(|segment| (entry, segment.file.clone(), segment.path.clone())))
        })?;
        let Some((entry, file, path)) = found else { return Ok(None) };
        let bytes = segment::read(&file, entry.place, &entry.header).map_err(|error| ObjectError::io(&path, error))?;
        if bytes.is_none() {
            tracing::warn!(object = %id, segment = %path.display(), "a cached object is damaged and was dropped");
            self.with(|state| {
                let same = |now: &Entry| (now.segment, now.place) == (entry.segment, entry.place);
                if state.index.get(&id).is_some_and(same) {
                    state.forget(&id);
                }
                Ok(())
            })?;
        }
        Ok(bytes)
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        self.with(|state| Ok(ids.iter().copied().filter(|id| !state.index.contains_key(id)).collect()))
    }

    /// Every class of durability is [`Durability::NoSync`] here: see the module.
    fn put(&self, objects: &[NewObject], _durability: Durability) -> Result<Mark, ObjectError> {
        let lacking = self.with(|state| {
            state.clock += 1;
            let now = state.clock;
            let mut lacking: Vec<&NewObject> = Vec::new();
            for object in objects {
                match state.index.get_mut(&object.id()) {
                    Some(entry) => entry.used = now,
                    None => lacking.push(object),
                }
            }
            lacking.sort_by_key(|object| object.id());
            lacking.dedup_by_key(|object| object.id());
            Ok(lacking)
        })?;
        // Compressed outside the lock. Two writers of one object both append it, and the later record counts.
        let mut batches: Vec<(Vec<u8>, Vec<Header>)> = vec![Default::default()];
        for object in lacking {
            if batches.last().is_none_or(|(buffer, _)| buffer.len() as u64 >= self.options.segment_bytes) {
                batches.push(Default::default());
            }
            let (buffer, headers) = batches.last_mut().expect("a batch was pushed above");
            headers.push(segment::append_record(buffer, object.id(), object.bytes()));
        }
        self.with(|state| {
            for (buffer, headers) in batches.iter().filter(|(_, headers)| !headers.is_empty()) {
                state.append(&self.path, &self.options, buffer, headers)?;
                state.mark += headers.len() as u64;
            }
            state.shrink(&self.path, &self.options)?;
            Ok(Mark(state.mark))
        })
    }

    /// There is nothing to wait for: see the module. A mark the store never gave is refused.
    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        let recovered = self.with(|state| Ok(Mark(state.mark)))?;
        if mark > recovered { Err(ObjectError::LostWrites { recovered, acknowledged: mark }) } else { Ok(()) }
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        self.with(|state| {
            let added = state.pins.add(pin, ids);
            if added.is_empty() {
                return Ok(());
            }
            let written = state.pin_log.pinned(pin, &added).map_err(|error| ObjectError::io(&self.path, error));
            if written.is_err() {
                state.pins.take_back(pin, &added);
            }
            written
        })
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        self.with(|state| {
            if state.pins.up_to(up_to).is_empty() {
                return Ok(());
            }
            state.pin_log.released(up_to).map_err(|error| ObjectError::io(&self.path, error))?;
            state.pins.release(up_to);
            state.pin_log.shorten(&state.folder, &state.pins)?;
            state.shrink(&self.path, &self.options)
        })
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.with(|state| Ok(state.pins.list()))
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        self.with(|state| {
            Ok(StoreStats { objects: state.index.len() as u64, logical_bytes: state.logical, stored_bytes: state.size() })
        })
    }

    fn close(&self) -> Result<(), ObjectError> {
        self.state.lock().take();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
