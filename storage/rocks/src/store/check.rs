//! Looking at everything: is each object what its id says, and is nothing left over?

use helix_objects::{Family, ObjectError, hash};
use helix_protocol::ObjectId;

use super::RocksStore;
use crate::engine::{Engine, Head, Indexed, META};
use crate::latency::Percentiles;
use crate::pack::Place;

/// Rows of the index looked at in one go.
const STRIDE: usize = 1_000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects that are what their ids say.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them are in groups.
    pub packed: u64,
    /// Groups.
    pub groups: u64,
    /// Bytes in groups that no object is made of any more; the next packing takes them away.
    pub dead_bytes: u64,
    /// Records of every family.
    pub records: u64,
    /// Objects that are damaged or lost, and how.
    pub damaged: Vec<(ObjectId, String)>,
    /// Anything else that does not fit together.
    pub faults: Vec<String>,
}

impl Checked {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.faults.is_empty()
    }
}

/// How a store does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksStats {
    /// Commits since the store was opened, and how long they took, syncs included.
    pub commits: Percentiles,
    /// Syncs that commits shared since the store was opened.
    pub syncs: u64,
    /// Objects.
    pub objects: u64,
    /// Their bytes as given.
    pub logical_bytes: u64,
    /// Bytes on disk, of tables and of what is not in tables yet.
    pub stored_bytes: u64,
    /// Groups of packed content.
    pub groups: u64,
    /// Bytes of tables that wait to be merged.
    pub compaction_pending_bytes: u64,
    /// Memory of the database: buffers, blocks, indexes and unpacked groups.
    pub memory_bytes: u64,
}

impl RocksStats {
    /// How many bytes as given are kept in one byte on disk.
    pub fn compression_ratio(&self) -> f64 {
        self.logical_bytes as f64 / self.stored_bytes.max(1) as f64
    }
}

impl RocksStore {
    /// Reads every object, record and group, and holds them against each other. Others read and write meanwhile. What cannot be
    /// read is a fault; the rest is looked at all the same.
    pub fn verify(&self) -> Result<Checked, ObjectError> {
        let _upkeep = self.upkeep.lock();
        let before = self.writer.lock().head;
        let checked = self.with(|engine| Ok(check(engine)))?;
        let after = self.writer.lock().head;
        Ok(if before == after { counted(checked, after) } else { checked })
    }

    /// Figures of the store and its database.
    pub fn rocks_stats(&self) -> Result<RocksStats, ObjectError> {
        let head = self.writer.lock().head;
        self.with(|engine| {
            Ok(RocksStats {
                commits: self.latencies.percentiles(),
                syncs: self.syncs(),
                objects: head.objects,
                logical_bytes: head.logical_bytes,
                stored_bytes: engine.stored_bytes()?,
                groups: engine.groups()?.len() as u64,
                compaction_pending_bytes: engine.pending_bytes()?,
                memory_bytes: engine.memory_bytes()?,
            })
        })
    }
}

/// Checks a database at rest, whose `head` counts what is there.
pub(super) fn check_all(engine: &Engine) -> Result<Checked, ObjectError> {
    Ok(counted(check(engine), engine.head()?))
}

fn counted(mut checked: Checked, head: Head) -> Checked {
    if checked.damaged.is_empty() && (checked.objects, checked.bytes) != (head.objects, head.logical_bytes) {
        checked.faults.push(format!(
            "{} objects of {} bytes are counted, and {} of {} are there",
            head.objects, head.logical_bytes, checked.objects, checked.bytes
        ));
    }
    checked
}

fn check(engine: &Engine) -> Checked {
    let mut checked = Checked::default();
    let mut packed: Vec<(u64, u64, ObjectId)> = Vec::new();
    let mut hot_rows = 0_u64;
    let is_whole = each_indexed(engine, &mut checked, |checked, row| match row.place {
        Place::Hot(_) => {
            hot_rows += 1;
            checked.add(row.id, engine.get(row.id));
        }
        Place::Packed { group, member } => packed.push((group, member, row.id)),
    });
    check_groups(engine, packed, &mut checked);
    let found = checked.read("the rows of content", engine.hot_rows());
    if is_whole && found > hot_rows {
        checked.faults.push(format!("{} rows of content have no index row", found - hot_rows));
    }
    for family in Family::ALL {
        let records = checked.read(&format!("the records of {}", family.name()), engine.count(family.name()));
        checked.records += records;
    }
    checked.read("the pins", engine.pins());
    checked.read("what counts all of it", engine.count(META));
    checked
}

/// Every row of the index that can be read; says whether all can. Ids are spread evenly: behind a damage it goes on where the
/// next of 256 parts begins.
fn each_indexed(engine: &Engine, checked: &mut Checked, mut visit: impl FnMut(&mut Checked, Indexed)) -> bool {
    let (mut rows, mut after, mut part, mut is_whole) = (Vec::new(), None, 0_u8, true);
    loop {
        let outcome = engine.index_into(&mut rows, after, STRIDE);
        let last = rows.last().map(|row: &Indexed| row.id);
        rows.drain(..).for_each(|row| visit(checked, row));
        match outcome {
            Ok(()) if last.is_none() => return is_whole,
            Ok(()) => after = last,
            Err(error) => {
                is_whole = false;
                checked.unreadable("the index", &error);
                let Some(next) = last.map_or(part, |id| id.0[0]).max(part).checked_add(1) else { return is_whole };
                (part, after) = (next, Some(before_part(next)));
            }
        }
    }
}

/// The greatest id before a part.
fn before_part(part: u8) -> ObjectId {
    let mut id = [0xff; 32];
    id[0] = part - 1;
    ObjectId(id)
}

/// Unpacks each group once.
fn check_groups(engine: &Engine, mut packed: Vec<(u64, u64, ObjectId)>, checked: &mut Checked) {
    packed.sort_unstable();
    for members in packed.chunk_by(|a, b| a.0 == b.0) {
        let unpacked = engine.unpacked(members[0].0);
        let mut alive = 0;
        for (_, member, id) in members {
            let bytes = match &unpacked {
                Ok(Some(group)) => group.member(*member).ok(),
                Ok(None) | Err(_) => None,
            };
            // What does not fit may have been dropped or moved meanwhile, or tells what is wrong with it.
            let found = match bytes.filter(|bytes| hash(bytes) == *id) {
                Some(bytes) => Ok(Some(bytes)),
                None => engine.get(*id),
            };
            alive += found.as_ref().ok().and_then(|bytes| bytes.as_ref()).map_or(0, |bytes| bytes.len() as u64);
            checked.packed += u64::from(matches!(found, Ok(Some(_))));
            checked.add(*id, found);
        }
        if let Ok(Some(group)) = unpacked {
            checked.dead_bytes += (group.bytes() as u64).saturating_sub(alive);
        }
    }
    checked.groups = checked.read("the groups", engine.groups()).len() as u64;
}

impl Checked {
    /// What was read, or nothing and a fault.
    fn read<T: Default>(&mut self, what: &str, outcome: Result<T, ObjectError>) -> T {
        outcome.unwrap_or_else(|error| {
            self.unreadable(what, &error);
            T::default()
        })
    }

    fn unreadable(&mut self, what: &str, error: &ObjectError) {
        let fault = format!("{what} cannot be read whole: {error}");
        // Whoever comes by a damaged block again is told the same.
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn add(&mut self, id: ObjectId, found: Result<Option<bytes::Bytes>, ObjectError>) {
        match found {
            Ok(Some(bytes)) => {
                self.objects += 1;
                self.bytes += bytes.len() as u64;
            }
            // It was dropped meanwhile.
            Ok(None) => {}
            Err(error) => self.damaged.push((id, error.to_string())),
        }
    }
}
