//! L0: the trees that workspaces are at, in memory.
//!
//! A folder is found by its path in one step, and a name in it by halving; a commit that changes one file encodes the folders above
//! that file and no other. Contents that were committed or read are kept too, up to a limit.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use bytes::Bytes;
use helix_objects::{NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use crate::names::{is_draft, leads_into_a_repository};
use crate::tree::{MAX_DEPTH, Tree, TreeEntry};
use crate::{VersionError, show_path};

use super::names::WorkspaceName;

/// What is kept in memory at most (L0), over all workspaces of a repository that is not told otherwise, in bytes. Whoever has
/// several repositories, or keeps working folders open, holds all of that together under this one bound.
pub const LIVE_LIMIT: usize = 1 << 30;
/// What file systems allow a name, in bytes.
const MAX_FILE_NAME: usize = 255;
/// What systems allow a link's target, in bytes.
const MAX_TARGET: usize = 4095;
/// What an entry takes beside its name.
const ENTRY_BYTES: usize = size_of::<TreeEntry>() + 16;

/// The trees of all workspaces.
pub(crate) struct LiveTrees {
    trees: HashMap<WorkspaceName, LiveTree>,
    limit: usize,
}

/// A workspace's tree in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveUse {
    /// Whose it is.
    pub workspace: WorkspaceName,
    /// When it was used last.
    pub used: Instant,
    /// What it takes with the contents that are kept for it, in bytes.
    pub bytes: usize,
}

impl Default for LiveTrees {
    fn default() -> Self {
        Self { trees: HashMap::new(), limit: LIVE_LIMIT }
    }
}

impl LiveTrees {
    /// The tree of a workspace, which is `root` at present. Where it was something else in memory, the folders that both have stay.
    pub(crate) fn at(
        &mut self,
        store: &dyn ObjectStore,
        workspace: &WorkspaceName,
        root: ObjectId,
    ) -> Result<&mut LiveTree, VersionError> {
        self.make_room(workspace);
        if !self.trees.contains_key(workspace) {
            self.trees.insert(workspace.clone(), LiveTree::load(store, root)?);
        }
        let tree = self.trees.get_mut(workspace).expect("it is there or was put there just now");
        tree.used = Instant::now();
        tree.content_limit = self.limit / 2;
        tree.move_to(store, root)?;
        Ok(tree)
    }

    /// Each tree, with when it was used last.
    pub(crate) fn uses(&self) -> Vec<LiveUse> {
        let uses = self.trees.iter();
        uses.map(|(name, tree)| LiveUse { workspace: name.clone(), used: tree.used, bytes: tree.bytes() }).collect()
    }

    /// Forgets a workspace's tree: after an edit that was not committed, and for room.
    pub(crate) fn forget(&mut self, workspace: &WorkspaceName) {
        self.trees.remove(workspace);
    }

    /// Forgets every tree.
    pub(crate) fn clear(&mut self) {
        self.trees.clear();
    }

    /// Forgets contents; the trees stay.
    pub(crate) fn forget_contents(&mut self) {
        for tree in self.trees.values_mut() {
            (tree.contents, tree.content_bytes) = (HashMap::new(), 0);
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.trees.values().map(LiveTree::bytes).sum()
    }

    /// Sets the limit in bytes.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    fn make_room(&mut self, needed: &WorkspaceName) {
        while self.bytes() > self.limit {
            let oldest = self.trees.iter().filter(|(name, _)| *name != needed).min_by_key(|(_, tree)| tree.used);
            match oldest.map(|(name, _)| name.clone()) {
                Some(name) => drop(self.trees.remove(&name)),
                None => {
                    // One workspace alone is above the limit: what it holds can be read again.
                    self.trees.remove(needed);
                    return;
                }
            }
        }
    }
}

/// One change of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEdit {
    /// From the root, `/`-separated, as bytes.
    pub path: Vec<u8>,
    /// What is to be there; `None` for nothing. Folders that are left empty go too, and come as they are needed.
    pub content: Option<(FileMode, Bytes)>,
}

/// A tree in memory, as far as it was looked at.
pub(crate) struct LiveTree {
    root: ObjectId,
    /// Folders by path; the root's is empty.
    folders: HashMap<Vec<u8>, Tree>,
    folder_bytes: usize,
    contents: HashMap<ObjectId, Bytes>,
    content_bytes: usize,
    content_limit: usize,
    used: Instant,
}

impl LiveTree {
    fn load(store: &dyn ObjectStore, root: ObjectId) -> Result<Self, VersionError> {
        let tree = Tree::load(store, root)?;
        let folder_bytes = weight(&tree);
        let folders = HashMap::from([(Vec::new(), tree)]);
        let (contents, used) = (HashMap::new(), Instant::now());
        Ok(Self { root, folders, folder_bytes, contents, content_bytes: 0, content_limit: 0, used })
    }

    pub(crate) fn root(&self) -> ObjectId {
        self.root
    }

    fn bytes(&self) -> usize {
        self.folder_bytes + self.content_bytes
    }

    fn move_to(&mut self, store: &dyn ObjectStore, root: ObjectId) -> Result<(), VersionError> {
        if self.root == root {
            return Ok(());
        }
        let mut old = std::mem::take(&mut self.folders);
        let before = old.remove(&Vec::new()).unwrap_or_default();
        let mut fresh = HashMap::from([(Vec::new(), Tree::load(store, root)?)]);
        // A folder stays where every folder above it stays and it is the same one in both; shorter paths come first.
        let mut paths: Vec<Vec<u8>> = old.keys().cloned().collect();
        paths.sort_unstable_by_key(Vec::len);
        for path in paths {
            let (parent, name) = split(&path);
            let same = match parent.is_empty() {
                true => folder_id(&before, name) == fresh.get(parent).and_then(|tree| folder_id(tree, name)),
                // A kept folder is the old one, so all it holds is.
                false => fresh.contains_key(parent),
            };
            if same {
                fresh.extend(old.remove_entry(&path));
            }
        }
        self.folder_bytes = fresh.values().map(weight).sum();
        self.folders = fresh;
        self.root = root;
        Ok(())
    }

    /// The folder at a path, read where it is not in memory yet; `None` where there is no folder.
    fn folder(&mut self, store: &dyn ObjectStore, path: &[u8]) -> Result<Option<&Tree>, VersionError> {
        if !self.folders.contains_key(path) {
            let (parent, name) = split(path);
            let Some(id) = self.folder(store, parent)?.and_then(|tree| folder_id(tree, name)) else { return Ok(None) };
            let tree = Tree::load(store, id)?;
            self.folder_bytes += weight(&tree);
            self.folders.insert(path.to_vec(), tree);
        }
        Ok(self.folders.get(path))
    }

    /// The entry at a path.
    pub(crate) fn entry(&mut self, store: &dyn ObjectStore, path: &[u8]) -> Result<Option<&TreeEntry>, VersionError> {
        check_path(path)?;
        let (parent, name) = split(path);
        Ok(self.folder(store, parent)?.and_then(|tree| tree.get(name)))
    }

    /// A file's bytes, kept for the next reader.
    pub(crate) fn read(&mut self, store: &dyn ObjectStore, path: &[u8]) -> Result<Option<Bytes>, VersionError> {
        let id = match self.entry(store, path)? {
            Some(entry) if entry.mode != FileMode::Directory => entry.id,
            _ => return Ok(None),
        };
        if let Some(bytes) = self.contents.get(&id) {
            return Ok(Some(bytes.clone()));
        }
        let bytes = store.read(id)?;
        self.keep(id, &bytes);
        Ok(Some(bytes))
    }

    /// Keeps a content for the next reader. Where there is no room, all others make it: what is read again comes back.
    fn keep(&mut self, id: ObjectId, bytes: &Bytes) {
        if bytes.len() > self.content_limit / 4 {
            return;
        }
        if self.content_bytes + bytes.len() > self.content_limit {
            self.contents.clear();
            self.content_bytes = 0;
        }
        if self.contents.insert(id, bytes.clone()).is_none() {
            self.content_bytes += bytes.len();
        }
    }

    /// Applies edits and answers with the folders that became other ones. `blobs` are the objects of the edits' contents, in their
    /// order. After an error the tree is to be forgotten.
    pub(crate) fn edit(
        &mut self,
        store: &dyn ObjectStore,
        edits: &[FileEdit],
        blobs: &[NewObject],
    ) -> Result<Vec<NewObject>, VersionError> {
        let mut dirty: BTreeSet<(usize, Vec<u8>)> = BTreeSet::new();
        let mut contents = blobs.iter();
        for edit in edits {
            check_path(&edit.path)?;
            if let Some((mode, bytes)) = &edit.content {
                check_file(&edit.path, *mode, bytes)?;
            }
            let (parent, name) = split(&edit.path);
            match &edit.content {
                Some((FileMode::Directory, _)) => return Err(VersionError::InvalidPath(show_path(&edit.path) + "/")),
                Some((mode, bytes)) => {
                    let blob = contents.next().expect("there is one object for each content");
                    self.make_folders(store, parent, &mut dirty)?;
                    self.drop_beneath(&edit.path);
                    let size = bytes.len() as u64;
                    let entry = TreeEntry { name: name.to_vec(), mode: *mode, size, id: blob.id() };
                    self.put(parent, entry);
                    self.keep(blob.id(), blob.bytes());
                }
                None => {
                    if self.folder(store, parent)?.is_none_or(|tree| tree.get(name).is_none()) {
                        continue;
                    }
                    self.drop_beneath(&edit.path);
                    self.take(parent, name);
                }
            }
            mark_dirty(&mut dirty, parent);
        }
        self.encode(dirty)
    }

    /// Makes the folders of a path where they are missing. A file in the way gives way, as a file system would not have both.
    fn make_folders(
        &mut self,
        store: &dyn ObjectStore,
        path: &[u8],
        dirty: &mut BTreeSet<(usize, Vec<u8>)>,
    ) -> Result<(), VersionError> {
        if self.folder(store, path)?.is_some() {
            return Ok(());
        }
        let (parent, name) = split(path);
        self.make_folders(store, parent, dirty)?;
        let tree = Tree::default();
        // The id is put in when the folder is encoded.
        self.put(parent, TreeEntry { name: name.to_vec(), mode: FileMode::Directory, size: 0, id: ObjectId([0; 32]) });
        self.folder_bytes += weight(&tree);
        self.folders.insert(path.to_vec(), tree);
        mark_dirty(dirty, path);
        Ok(())
    }

    /// Forgets what is held beneath a path: it is no folder any more.
    fn drop_beneath(&mut self, path: &[u8]) {
        let parent = split(path).0;
        let was_folder = self.folders.get(parent).is_some_and(|tree| folder_id(tree, split(path).1).is_some());
        if was_folder {
            let beneath = join(path, b"");
            self.folders.retain(|held, _| held != path && !held.starts_with(&beneath));
            self.folder_bytes = self.folders.values().map(weight).sum();
        }
    }

    fn put(&mut self, folder: &[u8], entry: TreeEntry) {
        let tree = self.folders.get_mut(folder).expect("the folder was made or read before");
        let added = ENTRY_BYTES + entry.name.len();
        if tree.set(entry).is_none() {
            self.folder_bytes += added;
        }
    }

    fn take(&mut self, folder: &[u8], name: &[u8]) {
        let tree = self.folders.get_mut(folder).expect("the folder was read before");
        if let Some(gone) = tree.remove(name) {
            self.folder_bytes -= ENTRY_BYTES + gone.name.len();
        }
    }

    /// Encodes changed folders, deepest first, and puts each one's new id into the folder above.
    fn encode(&mut self, dirty: BTreeSet<(usize, Vec<u8>)>) -> Result<Vec<NewObject>, VersionError> {
        let mut objects = Vec::with_capacity(dirty.len());
        for (_, path) in dirty.into_iter().rev() {
            // A folder that was emptied or replaced after it was marked is not there.
            let Some(tree) = self.folders.get(&path) else { continue };
            let (parent, name) = split(&path);
            if tree.entries().is_empty() && !path.is_empty() {
                self.folders.remove(&path);
                self.take(parent, name);
                continue;
            }
            let (object, size) = (tree.encode(), tree.size());
            if path.is_empty() {
                self.root = object.id();
            } else {
                self.put(parent, TreeEntry { name: name.to_vec(), mode: FileMode::Directory, size, id: object.id() });
            }
            objects.push(object);
        }
        Ok(objects)
    }
}

/// Marks a folder and every folder above it. Deeper ones come later in the set.
fn mark_dirty(dirty: &mut BTreeSet<(usize, Vec<u8>)>, folder: &[u8]) {
    let mut path = folder;
    loop {
        let depth = if path.is_empty() { 0 } else { 1 + path.iter().filter(|byte| **byte == b'/').count() };
        if !dirty.insert((depth, path.to_vec())) || path.is_empty() {
            return;
        }
        path = split(path).0;
    }
}

fn check_path(path: &[u8]) -> Result<(), VersionError> {
    let parts = path.split(|byte| *byte == b'/');
    let refused = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0) || part.len() > 4096;
    if parts.clone().any(refused) || parts.count() >= MAX_DEPTH {
        return Err(VersionError::InvalidPath(show_path(path)));
    }
    Ok(())
}

/// Refuses what no working folder can hold: it would be missing there for ever.
fn check_file(path: &[u8], mode: FileMode, content: &[u8]) -> Result<(), VersionError> {
    let mut names = path.split(|byte| *byte == b'/');
    let target = (mode == FileMode::Symlink).then_some(content);
    let reason = if names.clone().any(|name| name.len() > MAX_FILE_NAME) {
        "a name in it has more than 255 bytes"
    } else if names.any(|name| leads_into_a_repository(name) || is_draft(name)) {
        "a name in it is that of a repository's own folder"
    } else if target.is_some_and(|target| target.is_empty() || target.contains(&0) || target.len() > MAX_TARGET) {
        "no link can have this target"
    } else {
        return Ok(());
    };
    Err(VersionError::NoFile { path: show_path(path), reason })
}

/// A path's folder and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(place) => (&path[..place], &path[place + 1..]),
        None => (b"", path),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn folder_id(tree: &Tree, name: &[u8]) -> Option<ObjectId> {
    tree.get(name).filter(|entry| entry.mode == FileMode::Directory).map(|entry| entry.id)
}

fn weight(tree: &Tree) -> usize {
    tree.entries().iter().map(|entry| ENTRY_BYTES + entry.name.len()).sum()
}
