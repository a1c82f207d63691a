//! What packing is told: which content has come to rest, and what lies well together.

use std::sync::Arc;

use helix_protocol::ObjectId;

use crate::{Collect, ObjectError, hash};

/// What an object is: kinds are not mixed, since they share nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What was saved.
    File,
    /// A list of names.
    Tree,
    /// A version with its message.
    Snapshot,
}

/// An object to be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHint {
    /// Which.
    pub id: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// What it is similar to: see [`similarity`].
    pub near: u64,
}

/// What packing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Objects that are in a group now.
    pub objects: u64,
    /// Their bytes as given.
    pub bytes: u64,
    /// Groups written.
    pub groups: u64,
    /// Their bytes on disk.
    pub stored_bytes: u64,
}

/// The similarity of what is at a path: first by the ending of the file's name, then by the name, then by the whole path. Objects
/// of the same similarity keep the order in which they are given: by age.
pub fn similarity(path: &[u8]) -> u64 {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let ending = name.iter().rposition(|byte| *byte == b'.').map_or(&name[..0], |dot| &name[dot..]);
    let part = |bytes: &[u8], bits: u32| {
        let hash = hash(bytes).0;
        u64::from_be_bytes(std::array::from_fn(|at| hash[at])) >> (64 - bits)
    };
    part(ending, 16) << 48 | part(name, 24) << 24 | part(path, 24)
}

/// A store that makes content that has come to rest smaller.
pub trait Pack: Collect {
    /// Packs what of `hints` is not packed yet. Reading and writing go on meanwhile. What is not there any more is left out.
    fn pack_at_rest(&self, hints: &[PackHint]) -> Result<Packed, ObjectError>;

    /// Gives the room of what was dropped or moved back to the disk, which takes as long as reading and writing all that is left.
    fn give_room_back(&self) -> Result<(), ObjectError>;
}

/// A shared store is a store.
impl<S: Pack + ?Sized> Pack for Arc<S> {
    fn pack_at_rest(&self, hints: &[PackHint]) -> Result<Packed, ObjectError> {
        (**self).pack_at_rest(hints)
    }

    fn give_room_back(&self) -> Result<(), ObjectError> {
        (**self).give_room_back()
    }
}
