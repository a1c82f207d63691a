//! Snapshots: a tree with where it came from, who made it, when and why.
//!
//! ```text
//! "HXS" 0x01                        magic and version
//! 32 bytes                          the tree
//! number, 32 bytes each             the parents, the first one first
//! author, committer:                each
//!   number, UTF-8                   name
//!   number, UTF-8                   e-mail address
//!   8 bytes, little endian          microseconds since 1970-01-01 UTC, signed
//!   2 bytes, little endian          minutes east of UTC, signed
//! number, UTF-8                     the message
//! number of pairs, then per pair, strictly ascending by key: number, UTF-8 key; number, UTF-8 value
//! ```

use std::collections::{BTreeMap, BinaryHeap, HashSet};

use bytes::Bytes;
use helix_objects::{Durability, Mark, NewObject, ObjectStore};
use helix_protocol::{ObjectId, SnapshotId, Timestamp};

use crate::VersionError;
use crate::codec::{Reader, Reason, put_bytes, put_number};

const MAGIC: [u8; 4] = *b"HXS\x01";

/// Who did something, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// A name.
    pub name: String,
    /// An e-mail address, or something like one.
    pub email: String,
    /// When.
    pub time: Timestamp,
    /// Minutes east of UTC where it was done.
    pub offset_minutes: i16,
}

/// A version of a whole working folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The root folder.
    pub tree: ObjectId,
    /// What it was made from.
    pub parents: Vec<SnapshotId>,
    /// Who made the content.
    pub author: Signature,
    /// Who made the snapshot.
    pub committer: Signature,
    /// Why.
    pub message: String,
    /// Whatever else is known: task, step, model, score.
    pub metadata: BTreeMap<String, String>,
}

impl Snapshot {
    /// The encoding and its id.
    pub fn encode(&self) -> NewObject {
        let mut out = Vec::with_capacity(256 + self.message.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.tree.0);
        put_number(&mut out, self.parents.len() as u64);
        for parent in &self.parents {
            out.extend_from_slice(&parent.0.0);
        }
        for signature in [&self.author, &self.committer] {
            put_bytes(&mut out, signature.name.as_bytes());
            put_bytes(&mut out, signature.email.as_bytes());
            out.extend_from_slice(&signature.time.0.to_le_bytes());
            out.extend_from_slice(&signature.offset_minutes.to_le_bytes());
        }
        put_bytes(&mut out, self.message.as_bytes());
        put_number(&mut out, self.metadata.len() as u64);
        for (key, value) in &self.metadata {
            put_bytes(&mut out, key.as_bytes());
            put_bytes(&mut out, value.as_bytes());
        }
        NewObject::new(Bytes::from(out))
    }

    /// Reads an encoding. `id` is only for the error.
    pub fn decode(id: SnapshotId, bytes: &[u8]) -> Result<Self, VersionError> {
        decode(bytes).map_err(|reason| VersionError::Damaged { id: id.0, expected: "snapshot", reason })
    }

    /// Reads a snapshot from a store.
    pub fn load(store: &dyn ObjectStore, id: SnapshotId) -> Result<Self, VersionError> {
        Self::decode(id, &store.read(id.0)?)
    }
}

/// The folder with nothing in it.
pub fn empty_tree() -> NewObject {
    crate::tree::encode(std::iter::empty())
}

/// The same snapshot of it for everybody: what begins without files begins there.
pub fn empty_snapshot() -> NewObject {
    let nobody = Signature { name: "helix".to_owned(), email: "helix@localhost".to_owned(), time: Timestamp(0), offset_minutes: 0 };
    let (tree, message) = (empty_tree().id(), "an empty folder".to_owned());
    Snapshot { tree, parents: Vec::new(), author: nobody.clone(), committer: nobody, message, metadata: BTreeMap::new() }.encode()
}

/// Stores a snapshot. Its tree must be there already; the mark covers both.
pub fn write_snapshot(
    store: &dyn ObjectStore,
    snapshot: &Snapshot,
    durability: Durability,
) -> Result<(SnapshotId, Mark), VersionError> {
    let object = snapshot.encode();
    let mark = store.put(std::slice::from_ref(&object), durability)?;
    Ok((SnapshotId(object.id()), mark))
}

/// The history of `head`, newest first by the committers' clocks, each snapshot once and never
/// before something made from it was seen.
pub fn log(store: &dyn ObjectStore, head: SnapshotId) -> Log<'_> {
    let mut log = Log { store, seen: HashSet::new(), queue: BinaryHeap::new(), failed: None };
    log.enqueue(head);
    log
}

/// See [`log`].
pub struct Log<'a> {
    store: &'a dyn ObjectStore,
    seen: HashSet<SnapshotId>,
    queue: BinaryHeap<Queued>,
    failed: Option<VersionError>,
}

impl Log<'_> {
    fn enqueue(&mut self, id: SnapshotId) {
        if self.failed.is_none() && self.seen.insert(id) {
            match Snapshot::load(self.store, id) {
                Ok(snapshot) => self.queue.push(Queued { time: snapshot.committer.time, id, snapshot }),
                Err(error) => self.failed = Some(error),
            }
        }
    }
}

impl Iterator for Log<'_> {
    type Item = Result<(SnapshotId, Snapshot), VersionError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.queue.clear();
            return Some(Err(error));
        }
        let Queued { id, snapshot, .. } = self.queue.pop()?;
        for parent in &snapshot.parents {
            self.enqueue(*parent);
        }
        Some(Ok((id, snapshot)))
    }
}

struct Queued {
    time: Timestamp,
    id: SnapshotId,
    snapshot: Snapshot,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.id) == (other.time, other.id)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.id).cmp(&(other.time, other.id))
    }
}

fn decode(bytes: &[u8]) -> Result<Snapshot, Reason> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>()? != MAGIC {
        return Err("it does not start as a snapshot of this version");
    }
    let tree = reader.id()?;
    let count = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
    if count > reader.remaining() / 32 {
        return Err("it has fewer parents than it says");
    }
    let parents = (0..count).map(|_| reader.id().map(SnapshotId)).collect::<Result<_, _>>()?;
    let (author, committer) = (signature(&mut reader)?, signature(&mut reader)?);
    let message = reader.text()?;
    let mut metadata = BTreeMap::new();
    for _ in 0..reader.number()? {
        let key = reader.text()?;
        if metadata.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err("its metadata is not in order");
        }
        metadata.insert(key, reader.text()?);
    }
    reader.end()?;
    Ok(Snapshot { tree, parents, author, committer, message, metadata })
}

fn signature(reader: &mut Reader<'_>) -> Result<Signature, Reason> {
    Ok(Signature {
        name: reader.text()?,
        email: reader.text()?,
        time: Timestamp(i64::from_le_bytes(reader.array()?)),
        offset_minutes: i16::from_le_bytes(reader.array()?),
    })
}

#[cfg(test)]
mod tests {
    use helix_objects::{Durability, MemoryStore, hash};
    use helix_protocol::{SnapshotId, Timestamp};
    use proptest::prelude::*;

    use super::{Signature, Snapshot, decode, log, write_snapshot};

    prop_compose! {
        fn signatures()(name in ".{0,12}", email in ".{0,12}", time in any::<i64>(), offset_minutes in any::<i16>()) -> Signature {
            Signature { name, email, time: Timestamp(time), offset_minutes }
        }
    }

    prop_compose! {
        fn snapshots()(
            seed in any::<u64>(), parents in prop::collection::vec(any::<u64>(), 0..4), author in signatures(), committer in signatures(),
            message in ".{0,40}", metadata in prop::collection::btree_map(".{0,6}", ".{0,6}", 0..4),
        ) -> Snapshot {
            let parents = parents.iter().map(|seed| SnapshotId(hash(&seed.to_le_bytes()))).collect();
            Snapshot { tree: hash(&seed.to_le_bytes()), parents, author, committer, message, metadata }
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_survives_its_encoding(snapshot in snapshots()) {
            prop_assert_eq!(decode(snapshot.encode().bytes()), Ok(snapshot));
        }

        #[test]
        fn a_damaged_snapshot_is_refused_or_is_the_one_encoding_of_what_it_says(
            snapshot in snapshots(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = snapshot.encode().bytes().to_vec();
            for (place, value) in flips {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(cut.index(bytes.len() * 4) + 1);
            if let Ok(read) = decode(&bytes) {
                prop_assert_eq!(read.encode().bytes().to_vec(), bytes);
            }
        }
    }

    #[test]
    fn the_log_shows_every_ancestor_once_newest_first() {
        let store = MemoryStore::new();
        let commit = |time: i64, parents: &[SnapshotId]| {
            let who = Signature { name: "a".into(), email: "a@b".into(), time: Timestamp(time), offset_minutes: 60 };
            let snapshot = Snapshot {
                tree: hash(b""),
                parents: parents.to_vec(),
                author: who.clone(),
                committer: who,
                message: format!("at {time}"),
                metadata: Default::default(),
            };
            write_snapshot(&store, &snapshot, Durability::NoSync).unwrap().0
        };
        let root = commit(1, &[]);
        let (left, right) = (commit(2, &[root]), commit(3, &[root]));
        let merge = commit(4, &[left, right]);
        let seen: Vec<SnapshotId> = log(&store, merge).map(|item| item.unwrap().0).collect();
        assert_eq!(seen, vec![merge, right, left, root]);
        let broken = commit(9, &[SnapshotId(hash(b"nowhere"))]);
        let last = log(&store, broken).last().unwrap();
        assert!(last.is_err(), "a missing parent is an error, not the end of history");
    }
}
