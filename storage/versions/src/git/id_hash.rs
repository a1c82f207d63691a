//! Hash tables whose keys are hashes already.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

use helix_protocol::ObjectId;

/// Takes the first bytes of an id for its hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHash;

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(0)
    }
}

/// See [`IdHash`].
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // What is shorter is the length that a slice's hash begins with.
        if let Some(first) = bytes.first_chunk::<8>().filter(|_| bytes.len() >= 16) {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
}

/// A table by our ids.
pub(super) type ByObject<V> = HashMap<ObjectId, V, IdHash>;

/// A set of our ids.
pub(super) type Objects = HashSet<ObjectId, IdHash>;

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use helix_objects::hash;

    use super::IdHash;

    #[test]
    fn ids_have_hashes_of_their_own() {
        let hashes: std::collections::BTreeSet<u64> = (0..1_000_u32).map(|n| IdHash.hash_one(hash(&n.to_le_bytes()))).collect();
        assert_eq!(hashes.len(), 1_000);
        assert_eq!(IdHash.hash_one(hash(b"a")), IdHash.hash_one(hash(b"a")));
    }
}
