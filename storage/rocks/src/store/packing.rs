//! Moving content that has come to rest into groups.
//!
//! The caller says which objects, and what each is similar to. They are ordered by that, read, and cut into groups. Each group is
//! compressed, unpacked again and held against the hashes of its members, and only then, in one batch, written with the index rows
//! that point into it and without the rows its members had. Reading goes on all the time.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use helix_objects::{ObjectError, ObjectStore, Pack, PackHint, Packed, hash};
use helix_protocol::ObjectId;
use parking_lot::Mutex;

use super::{RocksStore, Room};
use crate::engine::{Engine, Indexed};
use crate::pack::{Directory, Effort, GROUP_BYTES, Group, LARGE_GROUP_BYTES, LARGE_MEMBER, Place, Unpacked};

/// A group is packed again when less than one in so many of its bytes are alive.
const WASTEFUL: u64 = 2;
/// Objects read at once.
const READ_AT_ONCE: usize = 256;
/// Rows of the index looked at in one go.
const STRIDE: usize = 10_000;
/// While a group is written it takes its room several times: in the log, as a table, and where tables are merged; and so do the
/// others that are packed at the same time.
const ROOM_PER_GROUP: u64 = 8;

/// What is packed although it is packed already.
enum Again {
    Groups(HashSet<u64>),
    Everything,
}

impl Again {
    fn takes(&self, place: Place) -> bool {
        match (self, place) {
            (_, Place::Hot(_)) | (Self::Everything, _) => true,
            (Self::Groups(groups), Place::Packed { group, .. }) => groups.contains(&group),
        }
    }

    fn is_any(&self) -> bool {
        matches!(self, Self::Everything) || matches!(self, Self::Groups(groups) if !groups.is_empty())
    }
}

/// A group before it is compressed.
#[derive(Default)]
struct Draft {
    members: Vec<Indexed>,
    directory: Directory,
    bytes: Vec<u8>,
}

impl Pack for RocksStore {
    fn pack_at_rest(&self, hints: &[PackHint]) -> Result<Packed, ObjectError> {
        let packed = self.pack(hints, Effort::Idle)?;
        let again = self.repack()?;
        Ok(Packed { groups: packed.groups + again.groups, ..packed })
    }

    fn give_room_back(&self) -> Result<(), ObjectError> {
        self.compact()
    }
}

impl RocksStore {
    /// Packs what of `hints` is not packed yet, together with groups that are small beside it, so that there are never many of
    /// them; with [`Effort::Aggressive`] all of it, so that the similar comes together that was packed apart. What is not
    /// there any more is left out.
    pub fn pack(&self, hints: &[PackHint], effort: Effort) -> Result<Packed, ObjectError> {
        let _upkeep = self.upkeep.lock();
        let mut order: Vec<&PackHint> = hints.iter().collect();
        order.sort_by_key(|hint| (hint.kind, hint.near));
        let mut seen = HashSet::with_capacity(order.len());
        order.retain(|hint| seen.insert(hint.id));
        let runs = order.chunk_by(|a, b| a.kind == b.kind).map(|run| run.iter().map(|hint| hint.id).collect()).collect();
        let again = match effort {
            Effort::Idle => Again::Groups(self.small_groups(&order)?),
            Effort::Aggressive => Again::Everything,
        };
        self.pack_runs(runs, effort, &again)
    }

    /// The groups that are packed again with what of `order` is not packed yet: from the smallest on, each that has at most twice
    /// as many members as all that is taken already. So an object is packed again only when its group grows by half, however little
    /// comes at a time, and the groups that are left differ in size by a factor.
    fn small_groups(&self, order: &[&PackHint]) -> Result<HashSet<u64>, ObjectError> {
        let (mut together, mut groups) = (0, HashSet::new());
        for hints in order.chunks(STRIDE) {
            let ids: Vec<ObjectId> = hints.iter().map(|hint| hint.id).collect();
            for place in self.with(|engine| engine.places(&ids))?.into_iter().flatten() {
                match place {
                    Place::Hot(_) => together += 1,
                    Place::Packed { group, .. } => {
                        groups.insert(group);
                    }
                }
            }
        }
        let mut sizes = Vec::new();
        for group in groups {
            if let Some(directory) = self.with(|engine| engine.directory(group))?
                && directory.bytes() < GROUP_BYTES as u64 / 2
            {
                sizes.push((directory.members(), group));
            }
        }
        sizes.sort_unstable();
        let mut small = HashSet::new();
        for (members, group) in sizes {
            if members > 2 * together {
                break;
            }
            together += members;
            small.insert(group);
        }
        Ok(small)
    }

    /// Packs groups again of which less than half is alive.
    pub fn repack(&self) -> Result<Packed, ObjectError> {
        let _upkeep = self.upkeep.lock();
        self.repack_wasteful(WASTEFUL)
    }

    /// Writes everything into tables and merges them: what was deleted takes no room from then on.
    pub fn compact(&self) -> Result<(), ObjectError> {
        let _upkeep = self.upkeep.lock();
        self.with(Engine::compact)
    }

    /// Packs groups again of which less than one in `wasteful` bytes is alive; with 0 all that have a dead member.
    pub(super) fn repack_wasteful(&self, wasteful: u64) -> Result<Packed, ObjectError> {
        let mut runs = Vec::new();
        for (number, mut members) in self.living_members()? {
            let Some(directory) = self.with(|engine| engine.directory(number))? else { continue };
            let mut alive = 0;
            for (member, _) in &members {
                alive += directory.length(*member)?;
            }
            let waste = members.len() < directory.members() && (wasteful == 0 || alive * wasteful < directory.bytes());
            if waste {
                // As they lie: they were ordered when they were packed.
                members.sort_unstable_by_key(|(member, _)| *member);
                runs.push(members.into_iter().map(|(_, id)| id).collect());
            }
        }
        let packed = self.pack_runs(runs, Effort::Idle, &Again::Everything)?;
        self.drop_empty_groups()?;
        Ok(packed)
    }

    /// Drops groups that no index row points into.
    pub(super) fn drop_empty_groups(&self) -> Result<(), ObjectError> {
        let living = self.living_members()?;
        let empty: Vec<u64> = self.with(Engine::groups)?.into_iter().filter(|number| !living.contains_key(number)).collect();
        if empty.is_empty() {
            return Ok(());
        }
        self.write(Room::Frees, |engine, batch, _| {
            empty.iter().for_each(|number| engine.add_group_removal(batch, *number));
            Ok(())
        })
    }

    /// Which members of each group the index points to.
    fn living_members(&self) -> Result<HashMap<u64, Vec<(u64, ObjectId)>>, ObjectError> {
        let mut living: HashMap<u64, Vec<(u64, ObjectId)>> = HashMap::new();
        let mut after = None;
        loop {
            let rows = self.with(|engine| engine.index(after, STRIDE))?;
            let Some(last) = rows.last() else { return Ok(living) };
            after = Some(last.id);
            for row in rows {
                if let Place::Packed { group, member } = row.place {
                    living.entry(group).or_default().push((member, row.id));
                }
            }
        }
    }

    /// Packs objects in this order; a group never spans two runs. While one group is read, others are compressed.
    fn pack_runs(&self, runs: Vec<Vec<ObjectId>>, effort: Effort, again: &Again) -> Result<Packed, ObjectError> {
        // What is packed counts as being on disk: see the marks of packed objects.
        self.sync(self.mark())?;
        let workers = match effort {
            Effort::Idle => 1,
            Effort::Aggressive => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let (send, drafts) = sync_channel(1);
        let drafts = Mutex::new(Some(drafts));
        let packed = std::thread::scope(|scope| {
            let working: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.pack_drafts(&drafts, effort))).collect();
            let read = runs.iter().try_for_each(|run| self.read_run(run, again, &|draft| send.send(draft).is_ok()));
            drop(send);
            let mut packed = Packed::default();
            for worker in working {
                let part = worker.join().map_err(|_| ObjectError::Backend("packing panicked".to_owned()))??;
                packed.objects += part.objects;
                packed.bytes += part.bytes;
                packed.groups += part.groups;
                packed.stored_bytes += part.stored_bytes;
            }
            read.map(|()| packed)
        })?;
        if again.is_any() && packed.groups > 0 {
            self.drop_empty_groups()?;
        }
        Ok(packed)
    }

    /// Cuts a run into drafts of groups.
    fn read_run(&self, run: &[ObjectId], again: &Again, send: &dyn Fn(Draft) -> bool) -> Result<(), ObjectError> {
        let mut draft = Draft::default();
        for ids in run.chunks(READ_AT_ONCE) {
            let places = self.with(|engine| engine.places(ids))?;
            let wanted = ids.iter().zip(places).filter_map(|(id, place)| place.map(|place| Indexed { id: *id, place }));
            let wanted: Vec<Indexed> = wanted.filter(|row| again.takes(row.place)).collect();
            let ids: Vec<ObjectId> = wanted.iter().map(|row| row.id).collect();
            for (row, bytes) in wanted.into_iter().zip(self.with(|engine| engine.get_many(&ids))?) {
                let Some(bytes) = bytes else { continue };
                if self.is_full(&draft, bytes.len())? && !send(std::mem::take(&mut draft)) {
                    // The workers have failed and say why.
                    return Ok(());
                }
                draft.add(row, &bytes);
            }
        }
        if !draft.members.is_empty() {
            send(draft);
        }
        Ok(())
    }

    /// Whether a draft is closed before an object of so many bytes. One of large objects takes more of them where there is
    /// room: on a disk that is nearly full each group is only as large as any other, and what it takes the place of is let go
    /// before the next is written.
    fn is_full(&self, draft: &Draft, next: usize) -> Result<bool, ObjectError> {
        let bytes = draft.bytes.len();
        if bytes < GROUP_BYTES {
            return Ok(false);
        }
        let are_large = next >= LARGE_MEMBER && bytes / draft.members.len() >= LARGE_MEMBER;
        if !are_large || bytes + next > LARGE_GROUP_BYTES {
            return Ok(true);
        }
        Ok(self.free_bytes()? < LARGE_GROUP_BYTES as u64 * ROOM_PER_GROUP + self.options.reserve_bytes)
    }

    fn pack_drafts(&self, drafts: &Mutex<Option<Receiver<Draft>>>, effort: Effort) -> Result<Packed, ObjectError> {
        let mut packed = Packed::default();
        loop {
            let next = drafts.lock().as_ref().and_then(|drafts| drafts.recv().ok());
            let Some(draft) = next else { return Ok(packed) };
            let group = draft.compress(effort).and_then(|group| self.install(&draft, &group).map(|()| group));
            // Whoever reads must not wait for a worker that has left.
            let group = group.inspect_err(|_| drop(drafts.lock().take()))?;
            packed.objects += draft.members.len() as u64;
            packed.bytes += draft.bytes.len() as u64;
            packed.groups += 1;
            packed.stored_bytes += group.frame.len() as u64;
        }
    }

    /// Writes a group and points its members' index rows into it. Those that were dropped meanwhile stay dropped.
    fn install(&self, draft: &Draft, group: &Group) -> Result<(), ObjectError> {
        self.write(Room::Takes, |engine, batch, _| {
            let number = engine.next_group()?;
            let ids: Vec<ObjectId> = draft.members.iter().map(|member| member.id).collect();
            for ((at, from), place) in draft.members.iter().enumerate().zip(engine.places(&ids)?) {
                if place == Some(from.place) {
                    engine.add_move(batch, *from, Place::Packed { group: number, member: at as u64 });
                }
            }
            if !batch.is_empty() {
                engine.add_group(batch, number, group);
            }
            Ok(())
        })
    }
}

impl Draft {
    fn add(&mut self, member: Indexed, bytes: &Bytes) {
        self.members.push(member);
        self.directory.push(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// The group, unpacked again and held against its members' hashes.
    fn compress(&self, effort: Effort) -> Result<Group, ObjectError> {
        let group = Group::compress(self.directory.clone(), &self.bytes, effort)?;
        let unpacked = Unpacked::decompress(self.directory.clone(), &group.frame)?;
        for (at, member) in self.members.iter().enumerate() {
            let found = hash(&unpacked.member(at as u64)?);
            if found != member.id {
                return Err(ObjectError::Corrupt { id: member.id, found });
            }
        }
        Ok(group)
    }
}
