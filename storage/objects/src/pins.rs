//! Who keeps which objects alive.

use std::collections::{BTreeMap, HashMap, HashSet};

use helix_protocol::ObjectId;

use crate::Pin;

/// A set of pins that answers "is this object pinned?" at once.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    by_owner: BTreeMap<Pin, HashSet<ObjectId>>,
    holders: HashMap<ObjectId, usize>,
}

impl Pins {
    /// Adds pins and says which of `ids` this owner had not pinned yet.
    pub(crate) fn add(&mut self, pin: Pin, ids: &[ObjectId]) -> Vec<ObjectId> {
        let held = self.by_owner.entry(pin).or_default();
        let added: Vec<ObjectId> = ids.iter().copied().filter(|id| held.insert(*id)).collect();
        for id in &added {
            *self.holders.entry(*id).or_default() += 1;
        }
        added
    }

    /// Takes back what [`Self::add`] has added.
    pub(crate) fn take_back(&mut self, pin: Pin, added: &[ObjectId]) {
        if let Some(held) = self.by_owner.get_mut(&pin) {
            for id in added {
                held.remove(id);
            }
            if held.is_empty() {
                self.by_owner.remove(&pin);
            }
        }
        added.iter().for_each(|id| self.let_go(id));
    }

    /// Releases every pin of the task up to and including the epoch; true where there was one.
    pub(crate) fn release(&mut self, up_to: Pin) -> bool {
        let passed = self.up_to(up_to);
        for pin in &passed {
            for id in self.by_owner.remove(pin).unwrap_or_default() {
                self.let_go(&id);
            }
        }
        !passed.is_empty()
    }

    /// The pins that [`Self::release`] would release.
    pub(crate) fn up_to(&self, up_to: Pin) -> Vec<Pin> {
        let lowest = Pin { epoch: helix_protocol::Epoch(0), ..up_to };
        self.by_owner.range(lowest..=up_to).map(|(pin, _)| *pin).collect()
    }

    fn let_go(&mut self, id: &ObjectId) {
        if let Some(count) = self.holders.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(id);
            }
        }
    }

    /// Whether anybody holds it.
    pub(crate) fn holds(&self, id: &ObjectId) -> bool {
        self.holders.contains_key(id)
    }

    /// Every pin, ordered.
    pub(crate) fn list(&self) -> Vec<(Pin, ObjectId)> {
        let mut all: Vec<(Pin, ObjectId)> =
            self.by_owner.iter().flat_map(|(pin, ids)| ids.iter().map(move |id| (*pin, *id))).collect();
        all.sort_unstable();
        all
    }

    /// Owners with what each holds.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (&Pin, &HashSet<ObjectId>)> {
        self.by_owner.iter()
    }
}
