//! Dropping content that nothing names, beside writers that go on.
//!
//! A collection runs so:
//! 1. [`Collect::begin_collection`]. From here on the store remembers every object that a writer puts, pins or is told is there,
//!    and every value that a record loses. It returns once each writer that was at it before has ended its [`Lease`].
//! 2. The caller marks: what is reachable from the records, from the pins, and from what
//!    [`Collection::displaced`] gives, read in this order.
//! 3. [`Collect::sweep`] drops what is neither marked nor was named since.
//!
//! It is safe because whatever is reachable from a root at the end was named since the collection began, or was reachable from a
//! root at some moment since. That holds as long as who stores objects before the record that makes them reachable, or builds on
//! content that somebody else could cut off meanwhile, holds a lease from before it first looks until that record is written. One
//! [`commit`](crate::RecordStore::commit) that carries its objects with it needs none. Leases, and what is remembered, live in
//! memory only: whoever held them died with the process, and a collection that was cut off has dropped only what nothing named.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use helix_protocol::ObjectId;
use parking_lot::{Condvar, Mutex};

use crate::{Family, ObjectError, RecordStore};

/// Whether a sweep drops or only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Drops.
    Drop,
    /// Counts what would be dropped.
    DryRun,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects dropped.
    pub dropped: u64,
    /// Their bytes as given.
    pub dropped_bytes: u64,
    /// Objects kept.
    pub kept: u64,
}

/// A store that can drop content.
pub trait Collect: RecordStore {
    /// Keeps collections that begin later waiting until it is dropped.
    fn lease(&self) -> Lease;

    /// Begins a collection. Fails with `Busy` where another one is under way, or where writers hold older leases
    /// for longer than `patience`.
    fn begin_collection(&self, patience: Duration) -> Result<Collection, ObjectError>;

    /// Drops every object that is neither `live`, nor pinned, nor was named since the collection began. Writers go on meanwhile.
    /// Where it fails or the process dies, what is left to drop is found by the next collection.
    fn sweep(&self, collection: &Collection, live: &(dyn Fn(ObjectId) -> bool + Sync), how: Sweep) -> Result<Swept, ObjectError>;

    /// Drops these objects whoever names them, from everywhere the store keeps content.
    fn purge(&self, ids: &[ObjectId]) -> Result<Swept, ObjectError>;
}

/// A shared store is a store.
impl<S: Collect + ?Sized> Collect for Arc<S> {
    fn lease(&self) -> Lease {
        (**self).lease()
    }

    fn begin_collection(&self, patience: Duration) -> Result<Collection, ObjectError> {
        (**self).begin_collection(patience)
    }

    fn sweep(&self, collection: &Collection, live: &(dyn Fn(ObjectId) -> bool + Sync), how: Sweep) -> Result<Swept, ObjectError> {
        (**self).sweep(collection, live, how)
    }

    fn purge(&self, ids: &[ObjectId]) -> Result<Swept, ObjectError> {
        (**self).purge(ids)
    }
}

/// Who writes, and what was named since a collection began. Every store that collects has one.
///
/// The store calls [`name`](Self::name) before it looks whether objects are there, and [`begin`](Self::begin) and
/// [`displace`](Self::displace) where no write is under way that does not see it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether there is a collection: writers look here first.
    active: AtomicBool,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    held: BTreeSet<u64>,
    since: Option<Since>,
}

/// What happened since a collection began.
#[derive(Debug, Default)]
struct Since {
    named: HashSet<ObjectId>,
    displaced: Vec<Displaced>,
}

/// A value that a record had when a collection began, or got since, and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// The record's family.
    pub family: Family,
    /// The record's key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

impl Ledger {
    /// A lease that begins now.
    pub fn lease(&self) -> Lease {
        let mut state = self.shared.state.lock();
        let number = state.next;
        state.next += 1;
        state.held.insert(number);
        Lease { shared: Arc::clone(&self.shared), number }
    }

    /// Whether a collection is under way, so that names and values must be remembered.
    pub fn is_active(&self) -> bool {
        self.shared.active.load(Ordering::Acquire)
    }

    /// Begins to remember. The caller keeps writers out during the call, lets them in again, and then [waits](Collection::wait).
    pub fn begin(&self) -> Result<Collection, ObjectError> {
        let mut state = self.shared.state.lock();
        if state.since.is_some() {
            return Err(ObjectError::Busy("another collection is under way".to_owned()));
        }
        state.since = Some(Since::default());
        self.shared.active.store(true, Ordering::Release);
        let began = state.next;
        state.next += 1;
        Ok(Collection { shared: Arc::clone(&self.shared), began })
    }

    /// Somebody puts these, or asks whether they are there.
    pub fn name(&self, ids: impl IntoIterator<Item = ObjectId>) {
        if self.is_active()
            && let Some(since) = &mut self.shared.state.lock().since
        {
            since.named.extend(ids);
        }
    }

    /// A record loses this value.
    pub fn displace(&self, lost: impl FnOnce() -> Displaced) {
        if self.is_active()
            && let Some(since) = &mut self.shared.state.lock().since
        {
            since.displaced.push(lost());
        }
    }
}

/// A writer is at it: see [the module](self). Dropping it ends it.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.state.lock().held.remove(&self.number);
        self.shared.ended.notify_all();
    }
}

/// A collection under way. Dropping it ends it.
#[derive(Debug)]
pub struct Collection {
    shared: Arc<Shared>,
    began: u64,
}

impl Collection {
    /// Returns once every lease older than the collection has ended.
    pub fn wait(&self, patience: Duration) -> Result<(), ObjectError> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        while state.held.first().is_some_and(|oldest| *oldest < self.began) {
            if self.shared.ended.wait_until(&mut state, deadline).timed_out() {
                let older = state.held.range(..self.began).count();
                return Err(ObjectError::Busy(format!("{older} writers are still at what they began before the collection")));
            }
        }
        Ok(())
    }

    /// What records lost since it began: roots too. To be asked after the records were read.
    pub fn displaced(&self) -> Vec<Displaced> {
        self.shared.state.lock().since.as_ref().map(|since| since.displaced.clone()).unwrap_or_default()
    }

    /// Lets a store drop some objects while nobody can name one: `drop` is given what tells whether one was.
    pub fn dropping<T>(&self, drop: impl FnOnce(&dyn Fn(&ObjectId) -> bool) -> T) -> T {
        let state = self.shared.state.lock();
        drop(&|id| state.since.as_ref().is_some_and(|since| since.named.contains(id)))
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.shared.active.store(false, Ordering::Release);
        self.shared.state.lock().since = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Ledger;
    use crate::{ObjectError, hash};

    #[test]
    fn a_collection_waits_for_older_leases_and_for_no_younger_ones() {
        let ledger = Ledger::default();
        let older = ledger.lease();
        let collection = ledger.begin().unwrap();
        let _younger = ledger.lease();
        assert!(matches!(collection.wait(Duration::ZERO), Err(ObjectError::Busy(_))));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| collection.wait(Duration::from_secs(60)));
            drop(older);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn names_are_remembered_only_while_a_collection_runs_and_only_one_runs() {
        let ledger = Ledger::default();
        let (before, during) = (hash(b"before"), hash(b"during"));
        ledger.name([before]);
        let collection = ledger.begin().unwrap();
        assert!(matches!(ledger.begin(), Err(ObjectError::Busy(_))));
        ledger.name([during]);
        assert_eq!(collection.dropping(|named| [named(&before), named(&during)]), [false, true]);
        drop(collection);
        assert!(!ledger.is_active());
        assert!(!ledger.begin().unwrap().dropping(|named| named(&during)));
    }
}
