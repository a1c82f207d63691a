//! Who writes: one thread for everybody who waits.
//!
//! A commit that finds a write under way puts itself in the queue. The next thread that gets the writer's lock takes the
//! whole queue and writes it as one batch of the database; who then gets the lock finds its own commit done. Each commit is
//! judged by itself, against the records and objects as the commits before it in the batch leave them: one that is refused
//! costs its neighbours nothing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{Displaced, Expect, Family, Ledger, Mark, NewObject, ObjectError, RecordChange};
use helix_protocol::ObjectId;
use parking_lot::Mutex;
use rocksdb::WriteBatch;

use super::{RocksStore, Room, Writer};
use crate::engine::{Engine, Head};
use crate::pack::Place;

/// At most this much content goes into one batch with others.
const GROUP_BYTES: usize = 8 << 20;

/// What a row takes beside its content.
const ROW_BYTES: usize = 64;

/// What somebody wants written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub(super) objects: &'a [NewObject],
    pub(super) changes: &'a [RecordChange],
}

impl Draft<'_> {
    /// About how many bytes it takes in a batch.
    fn written_bytes(&self) -> usize {
        self.bytes() + ROW_BYTES * (2 * self.objects.len() + self.changes.len())
    }

    fn bytes(&self) -> usize {
        self.objects.iter().map(|object| object.bytes().len()).sum()
    }
}

/// A commit in the queue.
struct Waiting {
    objects: Vec<NewObject>,
    changes: Vec<RecordChange>,
    outcome: Mutex<Option<Result<Mark, ObjectError>>>,
}

impl Waiting {
    fn draft(&self) -> Draft<'_> {
        Draft { objects: &self.objects, changes: &self.changes }
    }
}

/// Commits that wait for the writer's lock.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Arc<Waiting>>>,
}

impl RocksStore {
    /// Writes a draft, together with those of whoever waits.
    pub(super) fn write_draft(&self, draft: Draft<'_>) -> Result<Mark, ObjectError> {
        if let Some(mut writer) = self.writer.try_lock() {
            // Nobody writes: no copy is needed. Who came first goes first.
            self.write_queue(&mut writer);
            return self.write_alone(&mut writer, draft);
        }
        let mine =
            Arc::new(Waiting { objects: draft.objects.to_vec(), changes: draft.changes.to_vec(), outcome: Mutex::default() });
        self.queue.waiting.lock().push(Arc::clone(&mine));
        let mut writer = self.writer.lock();
        let done = mine.outcome.lock().take();
        done.unwrap_or_else(|| {
            self.write_queue(&mut writer);
            mine.outcome.lock().take().expect("the queue held it, and whoever takes the queue answers all of it")
        })
    }

    /// Writes everything that waits.
    fn write_queue(&self, writer: &mut Writer) {
        let waiting = std::mem::take(&mut *self.queue.waiting.lock());
        let mut rest = waiting.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|member| {
                bytes += member.draft().bytes();
                bytes <= GROUP_BYTES
            });
            let (group, later) = rest.split_at(fits.count().max(1));
            let drafts: Vec<Draft<'_>> = group.iter().map(|member| member.draft()).collect();
            // Where the batch is refused, perhaps because one of them is too large for the disk, each gets its own answer.
            let outcomes = self
                .write_group(writer, &drafts)
                .unwrap_or_else(|_| drafts.iter().map(|draft| self.write_alone(writer, *draft)).collect());
            for (member, outcome) in group.iter().zip(outcomes) {
                *member.outcome.lock() = Some(outcome);
            }
            rest = later;
        }
    }

    /// Writes drafts as one batch and answers each.
    fn write_group(&self, writer: &mut Writer, drafts: &[Draft<'_>]) -> Result<Vec<Result<Mark, ObjectError>>, ObjectError> {
        let mut answers = Vec::with_capacity(drafts.len());
        let bytes = drafts.iter().map(Draft::written_bytes).sum();
        self.write_locked(writer, Room::Takes, bytes, |engine, batch, head| {
            answers.clear();
            let (given, changed, alone) = (HashMap::new(), HashMap::new(), drafts.len() == 1);
            let mut group = Group { engine, ledger: &self.ledger, batch, head, given, changed, alone };
            answers.extend(drafts.iter().map(|draft| group.add(draft)));
            Ok(())
        })?;
        Ok(answers)
    }

    fn write_alone(&self, writer: &mut Writer, draft: Draft<'_>) -> Result<Mark, ObjectError> {
        self.write_group(writer, &[draft])?.swap_remove(0)
    }
}

/// What a change of a record is, where the record is as the changes before it leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// The record is not what was expected.
    Refused,
    /// It has another value then.
    Changes,
    /// It was only to be checked: there is nothing to write. A commit checks more records than it changes.
    Same,
}

/// A batch that grows draft by draft.
struct Group<'a> {
    engine: &'a Engine,
    ledger: &'a Ledger,
    batch: &'a mut WriteBatch,
    head: &'a mut Head,
    /// New objects of the batch.
    given: HashMap<ObjectId, u64>,
    /// What records are after the drafts so far.
    changed: HashMap<(Family, Bytes), Option<Bytes>>,
    /// No draft follows, so nobody asks what was changed.
    alone: bool,
}

impl Group<'_> {
    /// Adds a draft, or refuses it and adds nothing.
    fn add(&mut self, draft: &Draft<'_>) -> Result<Mark, ObjectError> {
        let mut written = Vec::with_capacity(draft.changes.len());
        for change in draft.changes {
            match self.judge(change)? {
                Judged::Refused => return Err(ObjectError::Moved { family: change.family, key: change.key.clone() }),
                Judged::Changes => written.push(change),
                Judged::Same => {}
            }
        }
        let mark = self.add_objects(draft.objects)?;
        let is_written = !written.is_empty();
        for change in written {
            self.displace(change)?;
            self.engine.add_change(self.batch, change);
            if !self.alone {
                self.changed.insert((change.family, change.key.clone()), change.value.clone());
            }
        }
        // What was checked was written by then: it is on disk with what is there already.
        self.head.ordinal += u64::from(is_written);
        Ok(if draft.changes.is_empty() { mark } else { Mark(self.head.ordinal) })
    }

    fn judge(&self, change: &RecordChange) -> Result<Judged, ObjectError> {
        if change.expect == Expect::Anything {
            return Ok(Judged::Changes);
        }
        let judged = |found: Option<&[u8]>| match change.expect.allows(found) {
            false => Judged::Refused,
            true if found == change.value.as_deref() => Judged::Same,
            true => Judged::Changes,
        };
        if !self.changed.is_empty()
            && let Some(found) = self.changed.get(&(change.family, change.key.clone()))
        {
            return Ok(judged(found.as_deref()));
        }
        Ok(judged(self.engine.record(change.family, &change.key)?.as_deref()))
    }

    /// Remembers what a record loses, for a collection under way.
    fn displace(&self, change: &RecordChange) -> Result<(), ObjectError> {
        if !self.ledger.is_active() {
            return Ok(());
        }
        let (family, key) = (change.family, change.key.clone());
        let lost = match self.changed.get(&(family, key.clone())) {
            Some(found) => found.clone(),
            None => self.engine.record(family, &key)?.map(|value| Bytes::copy_from_slice(&value)),
        };
        if let Some(value) = lost {
            self.ledger.displace(|| Displaced { family, key, value });
        }
        Ok(())
    }

    /// Adds what the store lacks of `objects`; the greatest ordinal among all of them.
    fn add_objects(&mut self, objects: &[NewObject]) -> Result<Mark, ObjectError> {
        let ids: Vec<ObjectId> = objects.iter().map(NewObject::id).collect();
        self.ledger.name(ids.iter().copied());
        let mut mark = Mark::default();
        for (object, known) in objects.iter().zip(self.engine.places(&ids)?) {
            let ordinal = match known {
                Some(Place::Hot(ordinal)) => ordinal,
                // Before it was packed it was synced.
                Some(Place::Packed { .. }) => 0,
                None => *self.given.entry(object.id()).or_insert_with(|| {
                    self.head.ordinal += 1;
                    self.head.objects += 1;
                    self.head.logical_bytes += object.bytes().len() as u64;
                    self.engine.add_object(self.batch, self.head.ordinal, object.id(), object.bytes());
                    self.head.ordinal
                }),
            };
            mark = mark.max(Mark(ordinal));
        }
        Ok(mark)
    }
}
