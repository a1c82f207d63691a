//! One lock's part of the cache.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use helix_protocol::ObjectId;

/// Beneath this many bytes compression costs more than it saves.
const COMPRESS_FROM: usize = 256;
/// From so many bytes on, what waits to be compressed is shared with who wrote it.
const COPIED_BELOW: usize = 4 << 10;
/// What an entry costs beside its bytes.
pub(super) const ENTRY_BYTES: usize = 96;

/// An object's bytes as the cache keeps them.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Plain(Bytes),
    Lz4 { packed: Bytes, length: usize },
}

impl Content {
    pub(super) fn compress(bytes: &Bytes) -> Self {
        if bytes.len() < COMPRESS_FROM {
            // A copy, so that a small piece does not keep a large buffer alive.
            return Self::Plain(Bytes::copy_from_slice(bytes));
        }
        let packed = lz4_flex::block::compress(bytes);
        if packed.len() * 8 < bytes.len() * 7 {
            Self::Lz4 { packed: packed.into(), length: bytes.len() }
        } else {
            Self::Plain(Bytes::copy_from_slice(bytes))
        }
    }

    pub(super) fn expand(self) -> Option<Bytes> {
        match self {
            Self::Plain(bytes) => Some(bytes),
            Self::Lz4 { packed, length } => lz4_flex::block::decompress(&packed, length).ok().map(Bytes::from),
        }
    }

    fn cost(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Plain(bytes) => bytes.len(),
                Self::Lz4 { packed, .. } => packed.len(),
            }
    }
}

/// No slot: the end of the list.
const END: usize = usize::MAX;

/// One lock's part: a hash table into slots that form a doubly linked list, newest first.
#[derive(Debug)]
pub(super) struct Shard {
    places: HashMap<ObjectId, usize>,
    slots: Vec<Slot>,
    newest: usize,
    oldest: usize,
    pub(super) bytes: usize,
    pub(super) limit: usize,
    /// What came last and is not compressed yet, oldest first; some of it may have gone.
    fresh: VecDeque<ObjectId>,
    pub(super) fresh_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    id: ObjectId,
    content: Content,
    newer: usize,
    older: usize,
}

impl Shard {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            newest: END,
            oldest: END,
            bytes: 0,
            limit,
            fresh: VecDeque::new(),
            fresh_bytes: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    pub(super) fn touch(&mut self, id: &ObjectId) -> Option<Content> {
        let place = *self.places.get(id)?;
        self.unlink(place);
        self.link_newest(place);
        Some(self.slots[place].content.clone())
    }

    pub(super) fn insert(&mut self, id: ObjectId, content: Content) {
        if self.touch(&id).is_some() {
            return;
        }
        self.bytes += content.cost();
        while self.bytes > self.limit && self.oldest != END {
            self.remove(self.oldest);
        }
        if self.bytes > self.limit {
            self.bytes -= content.cost();
            return;
        }
        let place = self.slots.len();
        self.slots.push(Slot { id, content, newer: END, older: END });
        self.places.insert(id, place);
        self.link_newest(place);
    }

    /// Adds content that is compressed later.
    pub(super) fn insert_fresh(&mut self, id: ObjectId, bytes: &Bytes) {
        // A copy of a small piece, so that it does not keep a large buffer alive. What is larger may, until it is compressed.
        let kept = if bytes.len() < COPIED_BELOW { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
        self.insert(id, Content::Plain(kept));
        if bytes.len() >= COMPRESS_FROM {
            self.fresh.push_back(id);
            self.fresh_bytes += bytes.len();
        }
    }

    /// The oldest content that is not compressed yet.
    pub(super) fn next_fresh(&mut self) -> Option<(ObjectId, Bytes)> {
        while let Some(id) = self.fresh.pop_front() {
            let content = self.places.get(&id).map(|place| &self.slots[*place].content);
            if let Some(Content::Plain(bytes)) = content {
                let bytes = bytes.clone();
                self.fresh_bytes = self.fresh_bytes.saturating_sub(bytes.len());
                return Some((id, bytes));
            }
        }
        self.fresh_bytes = 0;
        None
    }

    /// Puts the compressed content in the place of the plain one, if it is there still.
    pub(super) fn replace(&mut self, id: &ObjectId, content: Content) {
        if let Some(place) = self.places.get(id) {
            let slot = &mut self.slots[*place];
            self.bytes = self.bytes - slot.content.cost() + content.cost();
            slot.content = content;
        }
    }

    /// Takes out what `which` names.
    pub(super) fn forget(&mut self, which: &dyn Fn(ObjectId) -> bool) {
        let gone: Vec<ObjectId> = self.places.keys().copied().filter(|id| which(*id)).collect();
        for id in gone {
            if let Some(place) = self.places.get(&id).copied() {
                self.remove(place);
            }
        }
    }

    /// Keeps about `bytes` of what was used last, and gives the memory of the rest back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.oldest != END {
            self.remove(self.oldest);
        }
        self.slots.shrink_to_fit();
        self.places.shrink_to_fit();
        self.fresh.shrink_to_fit();
    }

    pub(super) fn objects(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot out; the last slot moves into its place so that the slots stay dense.
    fn remove(&mut self, place: usize) {
        self.unlink(place);
        let gone = self.slots.swap_remove(place);
        self.places.remove(&gone.id);
        self.bytes -= gone.content.cost();
        if let Some(moved) = self.slots.get(place) {
            let (id, newer, older) = (moved.id, moved.newer, moved.older);
            self.places.insert(id, place);
            match self.slots.get_mut(newer) {
                Some(slot) => slot.older = place,
                None => self.newest = place,
            }
            match self.slots.get_mut(older) {
                Some(slot) => slot.newer = place,
                None => self.oldest = place,
            }
        }
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.slots[place].newer, self.slots[place].older);
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        self.slots[place].newer = END;
        self.slots[place].older = self.newest;
        match self.slots.get_mut(self.newest) {
            Some(slot) => slot.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Content, ENTRY_BYTES, Shard};
    use crate::hash;

    proptest! {
        #[test]
        fn a_shard_keeps_exactly_the_most_recently_used(uses in prop::collection::vec(0_u8..24, 1..300)) {
            let keeps = 8;
            let mut shard = Shard::new(keeps * (ENTRY_BYTES + 1));
            let mut model: Vec<u8> = Vec::new();
            for byte in uses {
                let id = hash(&[byte]);
                let hit = shard.touch(&id).is_some();
                prop_assert_eq!(hit, model.contains(&byte));
                if !hit {
                    shard.insert(id, Content::compress(&Bytes::copy_from_slice(&[byte])));
                }
                model.retain(|other| *other != byte);
                model.insert(0, byte);
                model.truncate(keeps);
                prop_assert_eq!(shard.slots.len(), model.len());
                prop_assert!(shard.bytes <= shard.limit);
            }
        }
    }
}
