//! Walking all that roots keep, without recursion.

use std::collections::{HashMap, HashSet};

use helix_objects::{Kind, ObjectError};
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use crate::read::{check_depth, push_name};
use crate::tree::Tree;
use crate::{Snapshot, VersionError};

use super::Repository;
use super::gc::{Alive, Fault, Root, RootKind};

/// A walk over everything that roots keep.
pub(super) struct Mark<'a, V> {
    repository: &'a Repository,
    live: HashSet<ObjectId>,
    visit: V,
    /// `None`: the first fault ends it.
    faults: Option<Vec<Fault>>,
}

/// A folder that is looked through.
struct Frame {
    tree: Tree,
    next: usize,
    path_length: usize,
}

/// A snapshot that was met: how deep it is, what it is, its tree, and the place of the root it was met from.
type Met = (u64, SnapshotId, ObjectId, usize);

impl<'a, V: FnMut(Alive<'_>)> Mark<'a, V> {
    /// Ends at the first fault, or goes on and tells of each.
    pub(super) fn new(repository: &'a Repository, visit: V, faults: Option<Vec<Fault>>) -> Self {
        Self { repository, live: HashSet::new(), visit, faults }
    }

    /// What was met, and the faults.
    pub(super) fn finish(self) -> (HashSet<ObjectId>, Vec<Fault>) {
        (self.live, self.faults.unwrap_or_default())
    }

    pub(super) fn run(&mut self, roots: &[Root]) -> Result<(), VersionError> {
        let mut history: Vec<Met> = Vec::new();
        for (place, Root { by, is }) in roots.iter().enumerate() {
            if let RootKind::Snapshot(id) = is {
                self.history((place, by), *id, &mut history)?;
            }
        }
        // Older first: a snapshot is deeper than its parents.
        history.sort_unstable_by_key(|(depth, id, ..)| (*depth, *id));
        for (_, id, tree, place) in history {
            (self.visit)(Alive { id: id.0, kind: Kind::Snapshot, path: b"" });
            self.tree(&roots[place].by, tree)?;
        }
        for Root { by, is } in roots {
            match is {
                RootKind::Snapshot(_) => {}
                RootKind::Tree(id) => self.tree(by, *id)?,
                RootKind::File(id) => self.files(by, b"", &[(b"", *id)])?,
            }
        }
        Ok(())
    }

    /// Every snapshot of a history that was not met yet.
    fn history(&mut self, (place, by): (usize, &str), head: SnapshotId, met: &mut Vec<Met>) -> Result<(), VersionError> {
        let mut open = vec![head];
        while let Some(id) = open.pop() {
            if !self.live.insert(id.0) {
                continue;
            }
            let found = Snapshot::load(&**self.repository.store(), id).map(|snapshot| (snapshot, self.repository.depth(id)));
            match found {
                Ok((snapshot, depth)) => {
                    open.extend(&snapshot.parents);
                    let depth = if self.faults.is_some() { depth.unwrap_or_default() } else { depth? };
                    met.push((depth, id, snapshot.tree, place));
                }
                Err(error) => self.fault(by, b"", id.0, error)?,
            }
        }
        Ok(())
    }

    /// A tree with all beneath it, on a stack that is as high as folders are nested.
    fn tree(&mut self, by: &str, root: ObjectId) -> Result<(), VersionError> {
        let mut path = Vec::new();
        let mut stack: Vec<Frame> = Vec::new();
        self.open(by, root, &path, 0, &mut stack)?;
        while let Some(frame) = stack.last_mut() {
            path.truncate(frame.path_length);
            let Some(entry) = frame.tree.entries().get(frame.next) else {
                stack.pop();
                continue;
            };
            frame.next += 1;
            if entry.mode == FileMode::Directory {
                let id = entry.id;
                push_name(&mut path, &entry.name);
                self.open(by, id, &path, path.len(), &mut stack)?;
            }
        }
        Ok(())
    }

    /// Reads a folder that was not met yet, takes its files, and puts it on the stack.
    fn open(
        &mut self,
        by: &str,
        id: ObjectId,
        path: &[u8],
        path_length: usize,
        stack: &mut Vec<Frame>,
    ) -> Result<(), VersionError> {
        if !self.live.insert(id) {
            return Ok(());
        }
        let tree = match check_depth(id, stack.len()).and_then(|()| Tree::load(&**self.repository.store(), id)) {
            Ok(tree) => tree,
            Err(error) => return self.fault(by, path, id, error),
        };
        (self.visit)(Alive { id, kind: Kind::Tree, path });
        let files = tree.entries().iter().filter(|entry| entry.mode != FileMode::Directory);
        let files: Vec<(&[u8], ObjectId)> = files.map(|entry| (entry.name.as_slice(), entry.id)).collect();
        self.files(by, path, &files)?;
        stack.push(Frame { tree, next: 0, path_length });
        Ok(())
    }

    /// Files of a folder. Where faults are told, they are looked for.
    fn files(&mut self, by: &str, folder: &[u8], files: &[(&[u8], ObjectId)]) -> Result<(), VersionError> {
        let mut path = folder.to_vec();
        let mut fresh: Vec<(&[u8], ObjectId)> = Vec::new();
        for (name, id) in files {
            if self.live.insert(*id) {
                let length = push_name(&mut path, name);
                (self.visit)(Alive { id: *id, kind: Kind::File, path: &path });
                path.truncate(length);
                fresh.push((name, *id));
            }
        }
        if self.faults.is_none() || fresh.is_empty() {
            return Ok(());
        }
        let ids: Vec<ObjectId> = fresh.iter().map(|(_, id)| *id).collect();
        let missing: Vec<(ObjectId, ObjectError)> = match self.repository.store().missing(&ids) {
            Ok(missing) => missing.into_iter().map(|id| (id, ObjectError::Missing(id))).collect(),
            // One of them is where the store is damaged.
            Err(_) => ids.iter().filter_map(|id| Some((*id, self.lacks(*id)?))).collect(),
        };
        let mut missing: HashMap<ObjectId, ObjectError> = missing.into_iter().collect();
        for (name, id) in fresh {
            let Some(error) = missing.remove(&id) else { continue };
            let length = push_name(&mut path, name);
            self.fault(by, &path, id, error.into())?;
            path.truncate(length);
        }
        Ok(())
    }

    /// Why an object is not there.
    fn lacks(&self, id: ObjectId) -> Option<ObjectError> {
        match self.repository.store().missing(&[id]) {
            Ok(missing) if missing.is_empty() => None,
            Ok(_) => Some(ObjectError::Missing(id)),
            Err(error) => Some(error),
        }
    }

    fn fault(&mut self, by: &str, path: &[u8], id: ObjectId, error: VersionError) -> Result<(), VersionError> {
        match (&mut self.faults, &error) {
            (
                Some(faults),
                VersionError::Object(ObjectError::Missing(_) | ObjectError::Corrupt { .. } | ObjectError::Damaged(_))
                | VersionError::Damaged { .. },
            ) => {
                faults.push(Fault { by: by.to_owned(), path: path.to_vec(), id, reason: error.to_string() });
                Ok(())
            }
            _ => Err(error),
        }
    }
}
