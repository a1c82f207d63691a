//! Where content is and what it is: rows of the families `idx`, `hot` and `packs`.

use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{ObjectError, hash};
use helix_protocol::ObjectId;
use rocksdb::WriteBatch;
use zstd::bulk::Compressor;

use super::{Engine, HOT, IDX, PACKS, failed};
use crate::Compression;
use crate::pack::{Directory, Group, Place, Unpacked, frame_length};

/// The value is the object's bytes.
const WHOLE: u8 = 0;
/// The value is a zstd frame that says its length.
const ZSTD: u8 = 1;
/// Beneath this many bytes compression costs more than it saves.
const COMPRESS_FROM: usize = 256;
const ZSTD_LEVEL: i32 = 3;
/// An object may be packed, and its group packed again, between two looks; not this often.
const LOOKS: usize = 8;
/// A group's rows: its number, then one of these.
const DIRECTORY: u8 = b'd';
const FRAME: u8 = b'f';

/// A row of the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexed {
    pub(crate) id: ObjectId,
    pub(crate) place: Place,
}

impl Engine {
    /// Where objects are, `None` for those that are not there.
    pub(crate) fn places(&self, ids: &[ObjectId]) -> Result<Vec<Option<Place>>, ObjectError> {
        if let [id] = ids {
            return Ok(vec![self.place(*id)?]);
        }
        let found = self.db.batched_multi_get_cf(self.family(IDX), ids.iter().map(|id| &id.0), false);
        found.into_iter().map(|value| value.map_err(failed)?.map(|value| Place::decode(&value)).transpose()).collect()
    }

    pub(crate) fn place(&self, id: ObjectId) -> Result<Option<Place>, ObjectError> {
        let value = self.db.get_pinned_cf(self.family(IDX), id.0).map_err(failed)?;
        value.map(|value| Place::decode(&value)).transpose()
    }

    /// An object's bytes, checked against its id.
    pub(crate) fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        let mut place = self.place(id)?;
        for _ in 0..LOOKS {
            let Some(here) = place else { return Ok(None) };
            if let Some(bytes) = self.content(here)? {
                return checked(id, bytes).map(Some);
            }
            // It was moved or dropped since its place was read. If neither, it is lost.
            place = self.place(id)?;
            if place == Some(here) {
                break;
            }
        }
        Err(ObjectError::Missing(id))
    }

    /// As [`get`](Self::get), for many at once.
    pub(crate) fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        let places = self.places(ids)?;
        let hot = |place: &Option<Place>| match place {
            Some(Place::Hot(ordinal)) => Some(ordinal.to_be_bytes()),
            _ => None,
        };
        let keys: Vec<[u8; 8]> = places.iter().filter_map(hot).collect();
        let mut values = self.db.batched_multi_get_cf(self.family(HOT), &keys, false).into_iter();
        let mut found = Vec::with_capacity(ids.len());
        for (id, place) in ids.iter().zip(&places) {
            let value = match place {
                None => {
                    found.push(None);
                    continue;
                }
                Some(Place::Hot(_)) => values.next().transpose().map_err(failed)?.flatten(),
                Some(Place::Packed { .. }) => None,
            };
            found.push(match value {
                Some(value) => Some(checked(*id, row(&value)?)?),
                None => self.get(*id)?,
            });
        }
        Ok(found)
    }

    /// What is at a place; `None` where it is not there any more.
    fn content(&self, place: Place) -> Result<Option<Bytes>, ObjectError> {
        match place {
            Place::Hot(ordinal) => {
                let value = self.db.get_pinned_cf(self.family(HOT), ordinal.to_be_bytes()).map_err(failed)?;
                value.map(|value| row(&value)).transpose()
            }
            // A copy, so that a small piece does not keep a large group alive.
            Place::Packed { group, member } => {
                let group = self.unpacked(group)?;
                group.map(|group| group.member(member).map(|bytes| Bytes::copy_from_slice(&bytes))).transpose()
            }
        }
    }

    /// How many bytes are at a place; `None` where it is not there any more.
    pub(crate) fn length(&self, place: Place) -> Result<Option<u64>, ObjectError> {
        match place {
            Place::Hot(ordinal) => {
                let value = self.db.get_pinned_cf(self.family(HOT), ordinal.to_be_bytes()).map_err(failed)?;
                value.map(|value| row_length(&value)).transpose()
            }
            Place::Packed { group, member } => self.directory(group)?.map(|directory| directory.length(member)).transpose(),
        }
    }

    pub(crate) fn add_object(&self, batch: &mut WriteBatch, ordinal: u64, id: ObjectId, bytes: &[u8]) {
        let mut value = Vec::with_capacity(bytes.len() + 1);
        match self.compressed(bytes) {
            Some(frame) => {
                value.push(ZSTD);
                value.extend_from_slice(&frame);
            }
            None => {
                value.push(WHOLE);
                value.extend_from_slice(bytes);
            }
        }
        batch.put_cf(self.family(IDX), id.0, Place::Hot(ordinal).encode());
        batch.put_cf(self.family(HOT), ordinal.to_be_bytes(), value);
    }

    /// A zstd frame, where the options ask for one and it is shorter.
    fn compressed(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.compression != Compression::Zstd || bytes.len() < COMPRESS_FROM {
            return None;
        }
        let mut kept = self.compressor.lock();
        // Making one takes longer than compressing with it.
        let compressor = match &mut *kept {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(ZSTD_LEVEL).ok()?),
        };
        compressor.compress(bytes).ok().filter(|frame| frame.len() < bytes.len())
    }

    /// Adds the deletion of an object; of its row where it has one of its own.
    pub(crate) fn add_removal(&self, batch: &mut WriteBatch, Indexed { id, place }: Indexed) {
        batch.delete_cf(self.family(IDX), id.0);
        if let Place::Hot(ordinal) = place {
            batch.delete_cf(self.family(HOT), ordinal.to_be_bytes());
        }
    }

    /// Adds the move of an object into a group.
    pub(crate) fn add_move(&self, batch: &mut WriteBatch, from: Indexed, to: Place) {
        batch.put_cf(self.family(IDX), from.id.0, to.encode());
        if let Place::Hot(ordinal) = from.place {
            batch.delete_cf(self.family(HOT), ordinal.to_be_bytes());
        }
    }

    /// A number that no group has had since the database was opened: who reads may still hold one that is gone.
    pub(crate) fn next_group(&self) -> Result<u64, ObjectError> {
        let last = self.groups()?.last().copied().unwrap_or_default();
        let mut given = self.last_group.lock();
        *given = last.max(*given) + 1;
        Ok(*given)
    }

    pub(crate) fn add_group(&self, batch: &mut WriteBatch, number: u64, group: &Group) {
        batch.put_cf(self.family(PACKS), group_key(number, DIRECTORY), group.directory.encode());
        batch.put_cf(self.family(PACKS), group_key(number, FRAME), &group.frame);
    }

    pub(crate) fn add_group_removal(&self, batch: &mut WriteBatch, number: u64) {
        batch.delete_cf(self.family(PACKS), group_key(number, DIRECTORY));
        batch.delete_cf(self.family(PACKS), group_key(number, FRAME));
        self.unpacked.forget(number);
    }

    /// The numbers of all groups, ascending.
    pub(crate) fn groups(&self) -> Result<Vec<u64>, ObjectError> {
        let mut rows = self.db.raw_iterator_cf(self.family(PACKS));
        let mut groups = Vec::new();
        rows.seek_to_first();
        while let Some(key) = rows.key() {
            let Some((number, [DIRECTORY])) = key.split_first_chunk::<8>() else {
                return Err(ObjectError::Damaged("a group's key is damaged".to_owned()));
            };
            let number = u64::from_be_bytes(*number);
            groups.push(number);
            // Past the frame, which need not be read.
            rows.seek(group_key(number, FRAME + 1));
        }
        rows.status().map_err(failed)?;
        Ok(groups)
    }

    /// How long the members of a group are.
    pub(crate) fn directory(&self, number: u64) -> Result<Option<Directory>, ObjectError> {
        let value = self.db.get_pinned_cf(self.family(PACKS), group_key(number, DIRECTORY)).map_err(failed)?;
        value.map(|value| Directory::decode(&value)).transpose()
    }

    /// A group's members, from memory where it was unpacked lately.
    pub(crate) fn unpacked(&self, number: u64) -> Result<Option<Arc<Unpacked>>, ObjectError> {
        if let Some(group) = self.unpacked.get(number) {
            return Ok(Some(group));
        }
        let Some(directory) = self.directory(number)? else { return Ok(None) };
        let frame = self.db.get_pinned_cf(self.family(PACKS), group_key(number, FRAME)).map_err(failed)?;
        let Some(frame) = frame else { return Ok(None) };
        let group = Arc::new(Unpacked::decompress(directory, &frame)?);
        self.unpacked.insert(number, &group);
        Ok(Some(group))
    }

    /// Rows of the index behind `after`, ascending by id, at most `limit`.
    pub(crate) fn index(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<Indexed>, ObjectError> {
        let mut found = Vec::new();
        self.index_into(&mut found, after, limit).map(|()| found)
    }

    /// As [`index`](Self::index), into a list, which has the rows before the one that could not be read where that fails.
    pub(crate) fn index_into(&self, found: &mut Vec<Indexed>, after: Option<ObjectId>, limit: usize) -> Result<(), ObjectError> {
        let mut rows = self.db.raw_iterator_cf(self.family(IDX));
        match after {
            Some(after) => {
                rows.seek(after.0);
                if rows.key() == Some(&after.0[..]) {
                    rows.next();
                }
            }
            None => rows.seek_to_first(),
        }
        while let (true, Some((key, value))) = (found.len() < limit, rows.item()) {
            let id = <[u8; 32]>::try_from(key).map_err(|_| ObjectError::Damaged("an index key is damaged".to_owned()))?;
            found.push(Indexed { id: ObjectId(id), place: Place::decode(value)? });
            rows.next();
        }
        rows.status().map_err(failed)
    }
}

fn group_key(number: u64, row: u8) -> [u8; 9] {
    let mut key = [row; 9];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

fn unknown() -> ObjectError {
    ObjectError::Damaged("an object is kept in a way this version does not know, or its row is damaged".to_owned())
}

fn row(value: &[u8]) -> Result<Bytes, ObjectError> {
    match value.split_first() {
        Some((&WHOLE, bytes)) => Ok(Bytes::copy_from_slice(bytes)),
        Some((&ZSTD, frame)) => {
            let length = usize::try_from(row_length(value)?).map_err(|_| unknown())?;
            zstd::bulk::decompress(frame, length).map(Bytes::from).map_err(|_| unknown())
        }
        _ => Err(unknown()),
    }
}

fn row_length(value: &[u8]) -> Result<u64, ObjectError> {
    match value.split_first() {
        Some((&WHOLE, bytes)) => Ok(bytes.len() as u64),
        Some((&ZSTD, frame)) => frame_length(frame).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

fn checked(id: ObjectId, bytes: Bytes) -> Result<Bytes, ObjectError> {
    let found = hash(&bytes);
    if found == id { Ok(bytes) } else { Err(ObjectError::Corrupt { id, found }) }
}
