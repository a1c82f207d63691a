//! How much each root keeps, and how much no other one does.
//!
//! All that is kept is read once, into memory; then each root's part of it is walked.

use std::collections::{BTreeMap, HashMap};

use helix_objects::{Kind, ObjectStore};
use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use crate::{Snapshot, Tree, TreeEntry, VersionError};

use super::Repository;
use super::gc::RootKind;

/// What a root keeps. Bytes are counted as they are, before compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record that names it, as `refs refs/heads/main`; all entries of the operation log are one root, `oplog`.
    pub by: String,
    /// Everything that it reaches.
    pub all: Amount,
    /// What no other root reaches, the operation log aside, which has most of everything. Of the log: what nothing else reaches.
    pub alone: Amount,
}

/// So much content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Snapshots.
    pub snapshots: u64,
    /// Snapshots, folders and files.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Objects by their places, with the places of those that each names.
#[derive(Default)]
struct Contents {
    /// What was removed on purpose is not counted.
    purged: BTreeMap<ObjectId, Timestamp>,
    places: HashMap<ObjectId, usize>,
    nodes: Vec<Node>,
}

struct Node {
    kind: Kind,
    bytes: u64,
    beneath: Vec<usize>,
}

const LOG: &str = "oplog";

impl Repository {
    /// How much each root keeps; `None` where `goes_on`, which is asked for each root, said no. Fails at the first snapshot or folder
    /// that is missing or damaged. It takes time and memory for each object, and time for each that each root reaches.
    pub fn kept(&self, goes_on: &mut dyn FnMut() -> bool) -> Result<Option<Vec<Kept>>, VersionError> {
        self.forget_returned()?;
        let mut contents = Contents { purged: self.purged()?, ..Contents::default() };
        let mut roots: Vec<(String, Vec<usize>)> = Vec::new();
        for root in self.roots(None)? {
            if !goes_on() {
                return Ok(None);
            }
            if let RootKind::File(id) = &root.is
                && contents.purged.contains_key(id)
            {
                continue;
            }
            let place = contents.read(&**self.store(), root.is)?;
            let by = if root.by.split(' ').next() == Some(LOG) { LOG.to_owned() } else { root.by };
            match roots.last_mut() {
                Some((last, places)) if *last == by => places.push(place),
                _ => roots.push((by, vec![place])),
            }
        }
        let mut holders = vec![0_usize; contents.nodes.len()];
        for (_, places) in roots.iter().filter(|(by, _)| by != LOG) {
            if !goes_on() {
                return Ok(None);
            }
            contents.walk(places, |place| holders[place] += 1);
        }
        let measure = |(by, places): (String, Vec<usize>)| {
            if !goes_on() {
                return None;
            }
            let (mut all, mut alone) = (Amount::default(), Amount::default());
            let least = usize::from(by != LOG);
            contents.walk(&places, |place| {
                all.add(&contents.nodes[place]);
                if holders[place] == least {
                    alone.add(&contents.nodes[place]);
                }
            });
            Some(Kept { by, all, alone })
        };
        Ok(roots.into_iter().map(measure).collect())
    }
}

impl Amount {
    fn add(&mut self, node: &Node) {
        self.snapshots += u64::from(node.kind == Kind::Snapshot);
        self.objects += 1;
        self.bytes += node.bytes;
    }
}

impl Contents {
    /// Adds what a root names with all beneath it, as far as it is not there yet. Gives the root's place.
    fn read(&mut self, store: &dyn ObjectStore, root: RootKind) -> Result<usize, VersionError> {
        let mut open = Vec::new();
        let place = match root {
            RootKind::Snapshot(id) => self.place(id.0, Kind::Snapshot, 0, &mut open),
            RootKind::Tree(id) => self.place(id, Kind::Tree, 0, &mut open),
            RootKind::File(id) => self.place(id, Kind::File, store.read(id)?.len() as u64, &mut open),
        };
        while let Some((id, place)) = open.pop() {
            let bytes = store.read(id)?;
            let beneath = if self.nodes[place].kind == Kind::Snapshot {
                let snapshot = Snapshot::decode(SnapshotId(id), &bytes)?;
                let parents = snapshot.parents.iter().map(|parent| self.place(parent.0, Kind::Snapshot, 0, &mut open));
                let mut beneath: Vec<usize> = parents.collect();
                beneath.push(self.place(snapshot.tree, Kind::Tree, 0, &mut open));
                beneath
            } else {
                let tree = Tree::decode(id, &bytes)?;
                let there: Vec<&TreeEntry> = tree.entries().iter().filter(|entry| !self.purged.contains_key(&entry.id)).collect();
                let entries = there.into_iter().map(|entry| match entry.mode {
                    FileMode::Directory => self.place(entry.id, Kind::Tree, 0, &mut open),
                    _ => self.place(entry.id, Kind::File, entry.size, &mut open),
                });
                entries.collect()
            };
            let node = &mut self.nodes[place];
            (node.bytes, node.beneath) = (bytes.len() as u64, beneath);
        }
        Ok(place)
    }

    /// The place of an object; one that is new and names others is put on the pile.
    fn place(&mut self, id: ObjectId, kind: Kind, bytes: u64, open: &mut Vec<(ObjectId, usize)>) -> usize {
        *self.places.entry(id).or_insert_with(|| {
            let place = self.nodes.len();
            self.nodes.push(Node { kind, bytes, beneath: Vec::new() });
            if kind != Kind::File {
                open.push((id, place));
            }
            place
        })
    }

    /// Tells of these places and everything beneath them, each once.
    fn walk(&self, places: &[usize], mut visit: impl FnMut(usize)) {
        let mut seen = vec![false; self.nodes.len()];
        let mut open = places.to_vec();
        while let Some(place) = open.pop() {
            if !std::mem::replace(&mut seen[place], true) {
                visit(place);
                open.extend(&self.nodes[place].beneath);
            }
        }
    }
}
