//! What is alive: roots, what they reach, and dropping the rest together with a store that can.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use helix_objects::{
    Collect, Displaced, Durability, Expect, Family, Kind, ObjectError, PackHint, RecordChange, Sweep, Swept, similarity,
};
use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use crate::VersionError;

use super::Repository;
use super::mark::Mark;
use super::records::{
    ExperimentRecord, HeadTarget, Merging, OperationRecord, Record, RefRecord, Staged, VariantRecord, WorkspaceRecord, show_key,
};
use super::retention::{Expired, Retention};
use super::watch::Watch;

/// Records of dropped snapshots removed at once.
const AT_ONCE: usize = 4_096;

/// Something that is kept, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The record that names it: `refs refs/heads/main`, `oplog 12`.
    pub by: String,
    /// What it is.
    pub is: RootKind,
}

/// What a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    /// A snapshot with its history.
    Snapshot(SnapshotId),
    /// A tree with what it holds.
    Tree(ObjectId),
    /// A file.
    File(ObjectId),
}

/// An object that is alive, told once, older ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive<'a> {
    /// Which.
    pub id: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// Where it was met first, from the root; empty for snapshots and root folders.
    pub path: &'a [u8],
}

impl Alive<'_> {
    /// How it is packed: beside what was met at paths like its own.
    pub fn pack_hint(&self) -> PackHint {
        PackHint { id: self.id, kind: self.kind, near: similarity(self.path) }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The record from which it was come to.
    pub by: String,
    /// Where beneath it, for trees and files.
    pub path: Vec<u8>,
    /// The object.
    pub id: ObjectId,
    /// What is wrong.
    pub reason: String,
}

/// How a collection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectOptions {
    /// What is forgotten first.
    pub rule: Retention,
    /// The present.
    pub now: Timestamp,
    /// Whether it only counts.
    pub how: Sweep,
    /// How long writers that began before may go on.
    pub patience: Duration,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What was forgotten.
    pub expired: Expired,
    /// Snapshots that are alive.
    pub snapshots: u64,
    /// Snapshots that are gone.
    pub dropped_snapshots: u64,
    /// What became of objects.
    pub swept: Swept,
}

impl Repository {
    /// Everything that keeps content: refs, workspaces, experiments, the map to git, and the operations from
    /// `first` on (all without).
    pub fn roots(&self, first: Option<u64>) -> Result<Vec<Root>, VersionError> {
        let mut roots = vec![self.own_root()];
        for family in [Family::Refs, Family::Workspaces, Family::Experiments, Family::GitMap, Family::Oplog] {
            self.each_record(family, b"", |key, value| {
                let forgotten = family == Family::Oplog
                    && first
                        .is_some_and(|first| <[u8; 8]>::try_from(key.as_ref()).is_ok_and(|key| u64::from_be_bytes(key) < first));
                if forgotten { Ok(()) } else { roots_of(family, &key, &value, &mut roots) }
            })?;
        }
        Ok(roots)
    }

    /// Walks everything that roots keep. `visit` is told of each object once, older snapshots first. Fails at the first object that
    /// is missing or damaged: what is alive cannot be known then.
    pub fn mark(&self, roots: &[Root], visit: impl FnMut(Alive<'_>)) -> Result<HashSet<ObjectId>, VersionError> {
        let mut mark = Mark::new(self, visit, None);
        mark.run(roots)?;
        Ok(mark.finish().0)
    }

    /// As [`mark`](Self::mark), going on behind what is missing or damaged and telling of it. Files are looked for, not read; those
    /// that were purged on purpose and did not come back are no faults, and not among what is kept.
    pub fn check(&self) -> Result<(HashSet<ObjectId>, Vec<Fault>), VersionError> {
        self.forget_returned()?;
        let (mut roots, mut faults) = (vec![self.own_root()], Vec::new());
        for family in [Family::Refs, Family::Workspaces, Family::Experiments, Family::GitMap, Family::Oplog] {
            let fault = |by, error: &VersionError| Fault { by, path: Vec::new(), id: ObjectId([0; 32]), reason: error.to_string() };
            let read = self.each_record(family, b"", |key, value| {
                if let Err(error) = roots_of(family, &key, &value, &mut roots) {
                    faults.push(fault(by(family, &key), &error));
                }
                Ok(())
            });
            match read {
                Err(error @ VersionError::Object(ObjectError::Damaged(_))) => {
                    faults.push(fault(family.name().to_owned(), &error));
                }
                read => read?,
            }
        }
        let mut mark = Mark::new(self, |_: Alive<'_>| {}, Some(faults));
        mark.run(&roots)?;
        let (purged, (mut live, mut faults)) = (self.purged()?, mark.finish());
        faults.retain(|fault| !purged.contains_key(&fault.id));
        live.retain(|id| !purged.contains_key(id));
        Ok((live, faults))
    }

    /// Forgets by rule, then drops what nothing keeps from `store`, which is the one underneath this repository.
    /// Writers go on meanwhile. `held` names trees that somebody needs still although no record does any more: what it is asked for
    /// after the records were read has been said before the record that named it went. What is not there of them is passed over.
    pub fn collect(
        &self,
        store: &dyn Collect,
        options: &CollectOptions,
        held: &dyn Fn() -> Vec<ObjectId>,
    ) -> Result<Collected, VersionError> {
        let expired = self.expired(&options.rule, options.now)?;
        let turn = self.writer();
        // From here on changes say which snapshots they name, so that none comes back while it is dropped.
        let watch = Watch::begin(self)?;
        if options.how == Sweep::Drop {
            self.expire(&expired)?;
        }
        drop(turn);
        let collection = store.begin_collection(options.patience)?;
        let mut roots = self.roots(expired.first_kept)?;
        roots.retain(|root| !expired.experiments.iter().any(|name| is_of_experiment(&root.by, name.as_str())));
        let mut snapshots = 0;
        let count = |alive: Alive<'_>| snapshots += u64::from(alive.kind == Kind::Snapshot);
        let mut mark = Mark::new(self, count, None);
        mark.run(&roots)?;
        let held: Vec<Root> = held().into_iter().map(|id| Root { by: "held".to_owned(), is: RootKind::Tree(id) }).collect();
        let mut held_mark = Mark::new(self, |_: Alive<'_>| {}, Some(Vec::new()));
        held_mark.run(&held)?;
        let live = watch.marked(|named| {
            let mut late = Vec::new();
            for Displaced { family, key, value } in collection.displaced() {
                roots_of(family, &key, &value, &mut late)?;
            }
            late.extend(named.iter().map(|id| Root { by: "a change".to_owned(), is: RootKind::Snapshot(*id) }));
            mark.run(&late)?;
            let mut live = mark.finish().0;
            live.extend(held_mark.finish().0);
            Ok(live)
        })?;
        let swept = store.sweep(&collection, &|id| live.contains(&id), options.how)?;
        drop(collection);
        let dropped_snapshots = self.forget_dropped(&live, options.how)?;
        drop(watch);
        Ok(Collected { expired, snapshots, dropped_snapshots, swept })
    }

    /// What a head without a snapshot is at.
    fn own_root(&self) -> Root {
        Root { by: "the empty folder".to_owned(), is: RootKind::Tree(self.empty_tree()) }
    }

    /// Removes the records of snapshots that are gone, and what of them is in memory.
    fn forget_dropped(&self, live: &HashSet<ObjectId>, how: Sweep) -> Result<u64, VersionError> {
        let mut doubtful = Vec::new();
        self.each_record(Family::Snapshots, b"", |key, _| {
            let id = <[u8; 32]>::try_from(key.as_ref()).map(ObjectId);
            doubtful.extend(id.ok().filter(|id| !live.contains(id)));
            Ok(())
        })?;
        if how == Sweep::DryRun {
            return Ok(doubtful.len() as u64);
        }
        let mut dropped = 0;
        for some in doubtful.chunks(AT_ONCE) {
            // Nobody may make one of them again between the question and the answer.
            let _turn = self.writer();
            let gone = self.store().missing(some)?;
            let change = |id: &ObjectId| RecordChange {
                family: Family::Snapshots,
                key: Bytes::copy_from_slice(&id.0),
                expect: Expect::Anything,
                value: None,
            };
            let changes: Vec<RecordChange> = gone.iter().map(change).collect();
            if !changes.is_empty() {
                self.store().commit(&[], &changes, Durability::NoSync)?;
            }
            self.inner.snapshots.lock().clear();
            self.inner.depths.lock().clear();
            dropped += gone.len() as u64;
        }
        Ok(dropped)
    }
}

fn by(family: Family, key: &[u8]) -> String {
    format!("{} {}", family.name(), show_key(family, key))
}

fn is_of_experiment(by: &str, name: &str) -> bool {
    let rest = by.strip_prefix(Family::Experiments.name()).and_then(|rest| rest.strip_prefix(' ')).unwrap_or_default();
    rest == name || rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
}

/// What a record's value keeps.
fn roots_of(family: Family, key: &[u8], value: &[u8], roots: &mut Vec<Root>) -> Result<(), VersionError> {
    let by = by(family, key);
    let mut add = |is| roots.push(Root { by: by.clone(), is });
    match family {
        Family::Refs => add(RootKind::Snapshot(RefRecord::of(family, key, value)?.target)),
        Family::Workspaces if key.ends_with(b"/staged") => {
            let staged = Staged::of(family, key, value)?;
            [Some(staged.tree), staged.onto].into_iter().flatten().for_each(|tree| add(RootKind::Tree(tree)));
        }
        Family::Workspaces if key.ends_with(b"/merging") => {
            let merging = Merging::of(family, key, value)?;
            merging.began.into_iter().chain([merging.other]).for_each(|id| add(RootKind::Snapshot(id)));
            add(RootKind::Tree(merging.tree));
            for (mode, id) in merging.unresolved.iter().flat_map(|path| [path.base, path.ours, path.theirs]).flatten() {
                add(if mode == FileMode::Directory { RootKind::Tree(id) } else { RootKind::File(id) });
            }
        }
        Family::Workspaces => {
            if let HeadTarget::Detached(id) = WorkspaceRecord::of(family, key, value)?.head {
                add(RootKind::Snapshot(id));
            }
        }
        Family::Experiments if key.contains(&b'/') => {
            let variant = VariantRecord::of(family, key, value)?;
            variant.best.iter().chain(&variant.last).for_each(|score| add(RootKind::Snapshot(score.snapshot)));
        }
        Family::Experiments => add(RootKind::Snapshot(ExperimentRecord::of(family, key, value)?.base)),
        // One snapshot keeps all of the map; its record is written as a staged tree's is: a version and an id.
        Family::GitMap if key == b"head" => add(RootKind::Snapshot(SnapshotId(Staged::of(family, key, value)?.tree))),
        Family::Oplog => {
            for change in OperationRecord::of(family, key, value)?.changes {
                for value in change.before.iter().chain(&change.after) {
                    let mut beneath = Vec::new();
                    roots_of(change.family, &change.key, value, &mut beneath)?;
                    beneath.into_iter().for_each(|root| add(root.is));
                }
            }
        }
        Family::GitMap | Family::Snapshots | Family::Settings => {}
    }
    Ok(())
}
