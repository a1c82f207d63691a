//! Trees: what one folder holds.
//!
//! The encoding is canonical: one list of entries has one encoding, so equal folders have equal
//! ids. Numbers are LEB128 in their shortest form.
//!
//! ```text
//! "HXT" 0x01                       magic and version
//! number                           how many entries follow
//! per entry, strictly ascending by the bytes of the name:
//!   0x00 | 0x01 | 0x02 | 0x03      file, executable file, symbolic link, folder
//!   number, bytes                  the name as the file system gave it; no "/", no NUL, not "." or ".."
//!   number                         bytes of the file or of the link's target; for a folder, of everything beneath it
//!   32 bytes                       the object: the file's bytes, the link's target, the folder's tree
//! ```
//!
//! The upper four bits of the kind byte are kept for ways of holding content that are not "the
//! object is the file": a program that does not know such a way refuses the tree.

use bytes::Bytes;
use helix_objects::{NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use crate::VersionError;
use crate::codec::{Reader, Reason, put_bytes, put_number};

const MAGIC: [u8; 4] = *b"HXT\x01";
/// The longest name in bytes. File systems allow 255; git objects may hold more.
const MAX_NAME: usize = 4096;
/// An entry takes at least this many bytes.
const MIN_ENTRY: usize = 1 + 1 + 1 + 1 + 32;
/// Folders nest at most this deep. It bounds recursion over trees that others made.
pub(crate) const MAX_DEPTH: usize = 256;

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name, any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub mode: FileMode,
    /// Bytes of the file, of the link's target, or of everything in the folder.
    pub size: u64,
    /// Its content.
    pub id: ObjectId,
}

/// A folder's entries, ascending by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<TreeEntry>,
}

impl Tree {
    /// A tree of these entries, in any order. Refused with a name no file can have, or a name that
    /// occurs twice.
    pub fn new(mut entries: Vec<TreeEntry>) -> Result<Self, VersionError> {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let refused = entries
            .iter()
            .find(|entry| check_name(&entry.name).is_err())
            .or_else(|| entries.windows(2).find(|pair| pair[0].name == pair[1].name).map(|pair| &pair[0]));
        match refused {
            Some(entry) => Err(VersionError::InvalidPath(String::from_utf8_lossy(&entry.name).into_owned())),
            None => Ok(Self { entries }),
        }
    }

    /// The entries.
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// The entry of that name.
    pub fn get(&self, name: &[u8]) -> Option<&TreeEntry> {
        let place = self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
        self.entries.get(place)
    }

    /// The entries, each with the one of its name in another tree. Where both have nearly the same names, as versions of a folder
    /// do, hardly any of them is searched for.
    #[cfg(any(feature = "git", test))]
    pub(crate) fn beside<'a>(&'a self, other: Option<&'a Self>) -> impl Iterator<Item = (&'a TreeEntry, Option<&'a TreeEntry>)> {
        let others = other.map_or(&[][..], Self::entries);
        let mut next = 0;
        self.entries.iter().map(move |entry| {
            let name = entry.name.as_slice();
            let at = |place: usize| others.get(place).filter(|other| other.name == name);
            let found = at(next).or_else(|| {
                next += others[next..].partition_point(|other| other.name.as_slice() < name);
                at(next)
            });
            next += usize::from(found.is_some());
            (entry, found)
        })
    }

    /// Puts an entry in its place and answers with the one of its name that was there. The name must be one a file can have.
    pub(crate) fn set(&mut self, entry: TreeEntry) -> Option<TreeEntry> {
        debug_assert_eq!(check_name(&entry.name), Ok(()));
        match self.entries.binary_search_by(|other| other.name.cmp(&entry.name)) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place], entry)),
            Err(place) => {
                self.entries.insert(place, entry);
                None
            }
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<TreeEntry> {
        let place = self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
        Some(self.entries.remove(place))
    }

    /// Bytes of everything beneath.
    pub fn size(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.size))
    }

    /// The encoding and its id.
    pub fn encode(&self) -> NewObject {
        encode(self.entries.iter().map(|entry| EntryRef { name: &entry.name, mode: entry.mode, size: entry.size, id: entry.id }))
    }

    /// Reads an encoding. `id` is only for the error.
    pub fn decode(id: ObjectId, bytes: &[u8]) -> Result<Self, VersionError> {
        decode(bytes).map_err(|reason| VersionError::Damaged { id, expected: "tree", reason })
    }

    /// Reads a tree from a store.
    pub fn load(store: &dyn ObjectStore, id: ObjectId) -> Result<Self, VersionError> {
        Self::decode(id, &store.read(id)?)
    }
}

/// An entry whose name lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryRef<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) mode: FileMode,
    pub(crate) size: u64,
    pub(crate) id: ObjectId,
}

/// The encoding of entries that ascend by name and have names that files can have.
pub(crate) fn encode<'a>(entries: impl ExactSizeIterator<Item = EntryRef<'a>>) -> NewObject {
    let mut out = Vec::with_capacity(16 + entries.len() * (MIN_ENTRY + 20));
    out.extend_from_slice(&MAGIC);
    put_number(&mut out, entries.len() as u64);
    for entry in entries {
        out.push(match entry.mode {
            FileMode::Regular => 0,
            FileMode::Executable => 1,
            FileMode::Symlink => 2,
            FileMode::Directory => 3,
        });
        put_bytes(&mut out, entry.name);
        put_number(&mut out, entry.size);
        out.extend_from_slice(&entry.id.0);
    }
    NewObject::new(Bytes::from(out))
}

/// Where trees come from: a store, or trees just made in front of a store.
pub(crate) trait TreeSource {
    fn tree(&self, id: ObjectId) -> Result<Tree, VersionError>;
}

impl TreeSource for &dyn ObjectStore {
    fn tree(&self, id: ObjectId) -> Result<Tree, VersionError> {
        Tree::load(*self, id)
    }
}

/// Whether a tree may have this name.
#[cfg(feature = "git")]
pub(crate) fn is_name(name: &[u8]) -> bool {
    check_name(name).is_ok()
}

fn check_name(name: &[u8]) -> Result<(), Reason> {
    match name {
        b"" | b"." | b".." => Err("a name is empty or a dot"),
        _ if name.len() > MAX_NAME => Err("a name is too long"),
        _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => Err("a name has a slash or a NUL"),
        _ => Ok(()),
    }
}

fn decode(bytes: &[u8]) -> Result<Tree, Reason> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>()? != MAGIC {
        return Err("it does not start as a tree of this version");
    }
    let count = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
    if count > reader.remaining() / MIN_ENTRY {
        return Err("it has fewer entries than it says");
    }
    let mut entries: Vec<TreeEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let [kind] = reader.array()?;
        let mode = match kind {
            0 => FileMode::Regular,
            1 => FileMode::Executable,
            2 => FileMode::Symlink,
            3 => FileMode::Directory,
            _ => return Err("an entry is of an unknown kind"),
        };
        let name = reader.bytes()?;
        check_name(name)?;
        if entries.last().is_some_and(|last| last.name.as_slice() >= name) {
            return Err("its names are not in order");
        }
        let size = reader.number()?;
        entries.push(TreeEntry { name: name.to_vec(), mode, size, id: reader.id()? });
    }
    reader.end()?;
    Ok(Tree { entries })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use helix_objects::hash;
    use helix_protocol::FileMode;
    use proptest::prelude::*;

    use super::{Tree, TreeEntry, decode};

    fn entries() -> impl Strategy<Value = Vec<TreeEntry>> {
        let mode = prop::sample::select(vec![FileMode::Regular, FileMode::Executable, FileMode::Symlink, FileMode::Directory]);
        let name = prop::collection::vec(any::<u8>().prop_filter("names have no slash", |byte| !matches!(byte, 0 | b'/')), 1..12)
            .prop_filter("dots are no names", |name| name != b"." && name != b"..");
        prop::collection::btree_map(name, (mode, any::<u64>(), any::<[u8; 8]>()), 0..20).prop_map(|map: BTreeMap<_, _>| {
            map.into_iter().map(|(name, (mode, size, seed))| TreeEntry { name, mode, size, id: hash(&seed) }).collect()
        })
    }

    proptest! {
        #[test]
        fn a_tree_survives_its_encoding_whatever_the_order(entries in entries(), swap in any::<prop::sample::Index>()) {
            let tree = Tree::new(entries.clone()).unwrap();
            let mut shuffled = entries;
            if !shuffled.is_empty() {
                let place = swap.index(shuffled.len());
                shuffled.rotate_left(place);
            }
            let encoded = Tree::new(shuffled).unwrap().encode();
            prop_assert_eq!(&encoded, &tree.encode());
            prop_assert_eq!(decode(encoded.bytes()), Ok(tree));
        }

        #[test]
        fn trees_beside_each_other_are_as_if_each_name_was_looked_up(a in entries(), b in entries(), shared in 0_usize..20) {
            let mut b: BTreeMap<Vec<u8>, TreeEntry> = b.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
            b.extend(a.iter().take(shared).map(|entry| (entry.name.clone(), entry.clone())));
            let (a, b) = (Tree::new(a).unwrap(), Tree::new(b.into_values().collect()).unwrap());
            let looked_up: Vec<_> = a.entries().iter().map(|entry| (entry, b.get(&entry.name))).collect();
            prop_assert_eq!(a.beside(Some(&b)).collect::<Vec<_>>(), looked_up);
            prop_assert!(a.beside(None).all(|(_, found)| found.is_none()));
        }

        #[test]
        fn garbage_is_refused_or_is_the_one_encoding_of_what_it_says(
            entries in entries(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Tree::new(entries).unwrap().encode().bytes().to_vec();
            for (place, value) in flips {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(cut.index(bytes.len() * 4) + 1);
            if let Ok(tree) = decode(&bytes) {
                prop_assert_eq!(tree.encode().bytes().to_vec(), bytes);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let with_magic = [super::MAGIC.as_slice(), &bytes].concat();
            for bytes in [bytes, with_magic] {
                if let Ok(tree) = decode(&bytes) {
                    prop_assert_eq!(tree.encode().bytes().to_vec(), bytes);
                }
            }
        }
    }

    #[test]
    fn names_that_no_file_can_have_are_refused() {
        for name in [b"".as_slice(), b".", b"..", b"a/b", b"a\0b"] {
            let entry = TreeEntry { name: name.to_vec(), mode: FileMode::Regular, size: 0, id: hash(b"") };
            assert!(Tree::new(vec![entry]).is_err(), "{name:?}");
        }
        let twice = TreeEntry { name: b"a".to_vec(), mode: FileMode::Regular, size: 0, id: hash(b"") };
        assert!(Tree::new(vec![twice.clone(), twice]).is_err());
    }
}
