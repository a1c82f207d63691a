//! The working folder in memory: what every carried name is, with the tree of each folder that has not changed.
//!
//! An entry is found by its path in one lookup per folder. A change marks the folders above it, and only those are put
//! together and hashed again; a folder that is not marked is known by its tree's id.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use helix_objects::NewObject;
use helix_protocol::{FileMode, ObjectId};

use super::ignore::Chain;
use super::stat_cache::{FileClock, FileStat};
use crate::read::push_name;
use crate::tree::{EntryRef, TreeEntry, encode};

/// A folder of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FolderKey(u32);

/// A name that is carried.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    File(HeldFile),
    Link {
        size: u64,
        id: ObjectId,
    },
    Folder(FolderKey),
    /// What the base has, since what is there cannot be carried.
    Kept {
        mode: FileMode,
        size: u64,
        id: ObjectId,
    },
}

/// A file as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldFile {
    pub(super) stat: FileStat,
    pub(super) id: ObjectId,
    /// The clock before it was read: a file that is not older is not believed by its `stat`.
    pub(super) read_at: FileClock,
    /// It has several names, so it can change without an event in its folder.
    pub(super) linked: bool,
}

impl HeldFile {
    pub(super) fn mode(&self) -> FileMode {
        if self.stat.mode & 0o100 == 0 { FileMode::Regular } else { FileMode::Executable }
    }

    /// Whether a file with this `stat` is surely the one that was read.
    pub(super) fn vouches_for(&self, stat: &FileStat) -> bool {
        self.stat == *stat && stat.is_older_than(self.read_at)
    }
}

/// What the tree of a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Something beneath has changed.
    Changed,
    /// It holds nothing, so its parent does not carry it.
    Empty,
    /// Its tree, with the bytes beneath.
    Tree { id: ObjectId, size: u64 },
}

/// A folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) parent: Option<FolderKey>,
    pub(super) name: Box<[u8]>,
    pub(super) entries: BTreeMap<Box<[u8]>, Entry>,
    pub(super) known: Known,
    pub(super) inode: u64,
    /// What the watch for it is called.
    pub(super) watch: Option<i32>,
    /// It is ignored, and carried as far as the base has it.
    pub(super) ignored: bool,
    /// The ignore files that speak about what is in it.
    pub(super) chain: Option<Arc<Chain>>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Index {
    folders: Vec<Option<Folder>>,
    free: Vec<FolderKey>,
    names: usize,
    name_bytes: usize,
}

/// What a map of names has room for in each of its nodes, and how much of it names in their order fill.
const NODE: usize = 11;
const FILLED: usize = 7;
/// What a block of memory takes beside what is in it.
const BLOCK_BYTES: usize = 16;

impl Index {
    pub(super) const ROOT: FolderKey = FolderKey(0);

    pub(super) fn new() -> Self {
        let root = Folder {
            parent: None,
            name: Box::default(),
            entries: BTreeMap::new(),
            known: Known::Changed,
            inode: 0,
            watch: None,
            ignored: false,
            chain: None,
        };
        Self { folders: vec![Some(root)], free: Vec::new(), names: 0, name_bytes: 0 }
    }

    pub(super) fn folder(&self, key: FolderKey) -> &Folder {
        self.folders[key.0 as usize].as_ref().expect("a key is dropped with its folder")
    }

    pub(super) fn folder_mut(&mut self, key: FolderKey) -> &mut Folder {
        self.folders[key.0 as usize].as_mut().expect("a key is dropped with its folder")
    }

    /// Entries at present.
    pub(super) fn len(&self) -> usize {
        self.names
    }

    /// Memory in bytes, roughly. A folder's last node is half empty, its name is there twice, and its watch is known by number.
    pub(super) fn memory_bytes(&self) -> usize {
        let entry = size_of::<(Box<[u8]>, Entry)>();
        let folder = size_of::<Option<Folder>>() + NODE / 2 * entry + 2 * BLOCK_BYTES;
        self.folders.capacity() * folder + self.names * (entry * NODE / FILLED + BLOCK_BYTES) + self.name_bytes
    }

    /// The folder's path from the root.
    pub(super) fn path(&self, key: FolderKey) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = key;
        while let Some(parent) = self.folder(at).parent {
            parts.push(&*self.folder(at).name);
            at = parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// The entry at a path.
    pub(super) fn entry(&self, path: &[u8]) -> Option<&Entry> {
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (self.find(&path[..cut])?, &path[cut + 1..]),
            None => (Self::ROOT, path),
        };
        self.folder(folder).entries.get(name)
    }

    /// The files and links with one of these contents.
    pub(super) fn holding<'a>(&'a self, ids: &'a HashSet<ObjectId>) -> impl Iterator<Item = (Vec<u8>, ObjectId)> + 'a {
        let folders = self.folders.iter().zip(0..).filter_map(|(folder, key)| Some((folder.as_ref()?, FolderKey(key))));
        let files = folders.flat_map(|(folder, key)| folder.entries.iter().map(move |(name, entry)| (key, name, entry)));
        files.filter_map(move |(key, name, entry)| {
            let id = match entry {
                Entry::File(file) => file.id,
                Entry::Link { id, .. } => *id,
                Entry::Kept { .. } | Entry::Folder(_) => return None,
            };
            let mut path = ids.contains(&id).then(|| self.path(key))?;
            push_name(&mut path, name);
            Some((path, id))
        })
    }

    /// The folder at a path; the empty one is the root.
    pub(super) fn find(&self, path: &[u8]) -> Option<FolderKey> {
        let mut at = Self::ROOT;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            match self.folder(at).entries.get(part) {
                Some(Entry::Folder(key)) => at = *key,
                _ => return None,
            }
        }
        Some(at)
    }

    /// Adds a folder, in place of whatever has its name; the folders that go are given to `gone`.
    pub(super) fn add_folder(&mut self, folder: Folder, gone: &mut Vec<(FolderKey, Folder)>) -> FolderKey {
        let (parent, name) = (folder.parent.expect("the root is never added"), folder.name.clone());
        let key = match self.free.pop() {
            Some(key) => {
                self.folders[key.0 as usize] = Some(folder);
                key
            }
            None => {
                self.folders.push(Some(folder));
                FolderKey(u32::try_from(self.folders.len() - 1).expect("memory ends before folders' numbers do"))
            }
        };
        self.set(parent, &name, Some(Entry::Folder(key)), gone);
        key
    }

    /// What a name is from now on; the folders that go are given to `gone`.
    pub(super) fn set(&mut self, folder: FolderKey, name: &[u8], entry: Option<Entry>, gone: &mut Vec<(FolderKey, Folder)>) {
        let entries = &mut self.folder_mut(folder).entries;
        let added = usize::from(entry.is_some());
        let before = match entry {
            Some(entry) => match entries.get_mut(name) {
                Some(there) => Some(std::mem::replace(there, entry)),
                None => entries.insert(name.into(), entry),
            },
            None => entries.remove(name),
        };
        self.names = self.names + added - usize::from(before.is_some());
        self.name_bytes = self.name_bytes + added * name.len() - usize::from(before.is_some()) * name.len();
        if added == 0 && before.is_none() {
            return;
        }
        self.mark(folder);
        if let Some(Entry::Folder(key)) = before {
            self.drop_folder(key, gone);
        }
    }

    /// Refreshes what is remembered of a file whose content and mode are the same.
    pub(super) fn touch(&mut self, folder: FolderKey, name: &[u8], file: HeldFile) {
        if let Some(entry) = self.folder_mut(folder).entries.get_mut(name) {
            *entry = Entry::File(file);
        }
    }

    fn drop_folder(&mut self, key: FolderKey, gone: &mut Vec<(FolderKey, Folder)>) {
        let folder = self.folders[key.0 as usize].take().expect("a key is dropped with its folder");
        self.free.push(key);
        self.names -= folder.entries.len();
        self.name_bytes -= folder.entries.keys().map(|name| name.len()).sum::<usize>();
        for entry in folder.entries.values() {
            if let Entry::Folder(inner) = entry {
                self.drop_folder(*inner, gone);
            }
        }
        gone.push((key, folder));
    }

    /// Something in the folder has changed.
    pub(super) fn mark(&mut self, key: FolderKey) {
        let mut next = Some(key);
        while let Some(key) = next {
            let folder = self.folder_mut(key);
            if folder.known == Known::Changed {
                // Everything above is marked too.
                return;
            }
            folder.known = Known::Changed;
            next = folder.parent;
        }
    }

    /// Puts the marked folders together, from the leaves up; the new trees are given to `made`.
    /// The root has a tree even when it holds nothing.
    pub(super) fn fold(&mut self, made: &mut dyn FnMut(NewObject)) -> (ObjectId, u64) {
        match self.fold_folder(Self::ROOT, made) {
            Known::Tree { id, size } => (id, size),
            Known::Changed | Known::Empty => {
                let empty = encode(std::iter::empty());
                let id = empty.id();
                made(empty);
                (id, 0)
            }
        }
    }

    fn fold_folder(&mut self, key: FolderKey, made: &mut dyn FnMut(NewObject)) -> Known {
        let folder = self.folder(key);
        if folder.known != Known::Changed {
            return folder.known;
        }
        let inner = |entry: &Entry| match entry {
            Entry::Folder(inner) => Some(*inner),
            _ => None,
        };
        let changed: Vec<FolderKey> =
            folder.entries.values().filter_map(inner).filter(|key| self.folder(*key).known == Known::Changed).collect();
        for key in changed {
            self.fold_folder(key, made);
        }
        let (object, size) = self.encode_folder(key);
        let known = match object {
            Some(object) => {
                let id = object.id();
                made(object);
                Known::Tree { id, size }
            }
            None => Known::Empty,
        };
        self.folder_mut(key).known = known;
        known
    }

    /// The tree of a folder in which everything is known, and the bytes beneath; none where it holds nothing.
    pub(super) fn encode_folder(&self, key: FolderKey) -> (Option<NewObject>, u64) {
        let entries: Vec<EntryRef<'_>> = self.tree_entries(key).collect();
        let size = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.size));
        ((!entries.is_empty()).then(|| encode(entries.into_iter())), size)
    }

    /// What the tree of a folder has, ascending by name.
    pub(super) fn tree_entries(&self, key: FolderKey) -> impl Iterator<Item = EntryRef<'_>> {
        self.folder(key).entries.iter().filter_map(|(name, entry)| self.tree_entry(name, entry))
    }

    /// What a tree says of an entry; none for a folder that holds nothing or is not known.
    pub(super) fn tree_entry<'a>(&self, name: &'a [u8], entry: &Entry) -> Option<EntryRef<'a>> {
        let (mode, size, id) = match entry {
            Entry::File(file) => (file.mode(), file.stat.size, file.id),
            Entry::Link { size, id } => (FileMode::Symlink, *size, *id),
            Entry::Kept { mode, size, id } => (*mode, *size, *id),
            Entry::Folder(key) => match self.folder(*key).known {
                Known::Tree { id, size } => (FileMode::Directory, size, id),
                Known::Empty | Known::Changed => return None,
            },
        };
        Some(EntryRef { name, mode, size, id })
    }

    /// Every file with its path.
    pub(super) fn files(&self, visit: &mut dyn FnMut(&[u8], &HeldFile)) {
        self.files_in(Self::ROOT, &mut Vec::new(), visit);
    }

    fn files_in(&self, key: FolderKey, path: &mut Vec<u8>, visit: &mut dyn FnMut(&[u8], &HeldFile)) {
        for (name, entry) in &self.folder(key).entries {
            let length = crate::read::push_name(path, name);
            match entry {
                Entry::File(file) => visit(path, file),
                Entry::Folder(inner) => self.files_in(*inner, path, visit),
                Entry::Link { .. } | Entry::Kept { .. } => {}
            }
            path.truncate(length);
        }
    }
}

impl EntryRef<'_> {
    pub(super) fn owned(&self) -> TreeEntry {
        TreeEntry { name: self.name.to_vec(), mode: self.mode, size: self.size, id: self.id }
    }
}
