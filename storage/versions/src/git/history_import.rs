//! A git repository with its whole history: every commit, branch and tag.
//!
//! Commits are converted parents first, a window of them at a time, and written as they come; the refs and the git map are
//! changed in one batch at the end. An import that is interrupted leaves objects that nothing names, and can be repeated. What
//! the map knows already is where the next import stops, unless it is told to look whether that is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::hashtable::HashMap as IdMap;
use gix::objs::Kind;
use helix_objects::{ObjectError, RecordStore};
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use super::commit_text;
use super::convert_trees::{Converter, Hint};
use super::failed;
use super::history_refs::{RefReport, RemovedHere, plan_refs, remembered};
use super::map::{GitMap, GitRefs, GitTarget, MapChanges, SEGMENT_BYTES};
use super::progress::{Phase, Progress, Reporter};
use super::segment::{Row, Segment};
use super::sink::{QUEUED, Sink, write_batches, write_missing};
use super::source::{Reader, Source};
use crate::read::gone;
use crate::repository::StoredSnapshot;
use crate::{Annotation, Caller, Recorded, RefExpect, Repository, Snapshot, VersionError};

/// Commits are held in memory up to so many bytes between being found and being converted; what is beyond is read twice.
const HELD_BYTES: usize = 32 << 20;

/// The trees of so many commits are read together, of more each time while as many would fit the window by the last ones: how much
/// is new in them nobody knows before.
const FEWEST_TOGETHER: usize = 64;
const MOST_TOGETHER: usize = 4_096;

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Commits that were new.
    pub commits: u64,
    /// Objects read: commits, trees, files and tags.
    pub objects: u64,
    /// What became of each branch and tag.
    pub refs: Vec<RefReport>,
    /// Where git's `HEAD` is.
    pub head: GitHead,
    /// Where what is known was read again: objects that were not here.
    pub stored: Option<u64>,
    /// What was written: sync up to its mark to have everything on disk.
    pub recorded: Recorded,
}

/// Where a git repository's `HEAD` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitHead {
    /// On a branch, which may have no commit yet. By its full name, as people see it.
    Ref(String),
    /// At a commit, on no branch.
    Detached(SnapshotId),
    /// At something that is no commit.
    Elsewhere(String),
}

/// Takes the history of the git repository that `path` lies in. `progress` is told about ten times a second.
///
/// Nothing of the git repository is written. A branch or tag that exists here is moved only forward; what has diverged is left and
/// reported. Refused for shallow repositories and for those with SHA-256 ids; a damaged one is a failure before anything is
/// visible. An import that is interrupted leaves nothing visible either, and can be repeated.
///
/// Content is stored ahead of the refs that name it: where the store collects garbage, hold a lease of it meanwhile.
pub fn import_history(
    repository: &Repository,
    caller: &Caller,
    path: &Path,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ImportReport, VersionError> {
    take_history(repository, caller, path, Taking { removed: RemovedHere::Restore, known: Known::Skipped }, progress)
}

/// As [`import_history`], reading once more what was imported before: what the store lacks of it is stored
/// again, unless it was purged.
pub fn import_history_again(
    repository: &Repository,
    caller: &Caller,
    path: &Path,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ImportReport, VersionError> {
    take_history(repository, caller, path, Taking { removed: RemovedHere::Restore, known: Known::ReadAgain }, progress)
}

/// What is done about what was here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taking {
    pub(super) removed: RemovedHere,
    pub(super) known: Known,
}

/// What becomes of commits that the map knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Skipped,
    ReadAgain,
}

/// As [`import_history`], told what to do about refs that were removed here, and about what is known.
pub(super) fn take_history(
    repository: &Repository,
    caller: &Caller,
    path: &Path,
    taking: Taking,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ImportReport, VersionError> {
    let store = &**repository.store();
    let source = Source::open(path)?;
    let map = GitMap::load(store)?;
    let gone = match taking.known {
        Known::Skipped => None,
        Known::ReadAgain => Some(gone(store)?),
    };
    let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUED);
    let (copied, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || match gone {
            None => write_batches(store, receiver).map(|_| None),
            Some(gone) => write_missing(store, receiver, &gone).map(Some),
        });
        let copied = Import::new(store, &source, &map, taking.known, Sink::new(sender), Reporter::new(progress)).run();
        (copied, writer.join().expect("the store does not panic"))
    });
    let (copied, stored) = match (copied, written) {
        // What the store said is the reason why nothing could be handed over.
        (Err(VersionError::Object(ObjectError::Closed)), Err(error)) => return Err(error.into()),
        (copied, written) => {
            let stored = written?;
            (copied?, stored)
        }
    };
    let report = finish(repository, caller, &source, map, copied, taking.removed)?;
    Ok(ImportReport { stored, ..report })
}

/// What was copied, before anything names it.
struct Copied {
    /// Commits that were new.
    commits: u64,
    changes: MapChanges,
    snapshots: Vec<StoredSnapshot>,
    peeled: IdMap<GitId, Peeled>,
    objects: u64,
}

/// What a ref's object leads to behind all tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peeled {
    pub(super) git: GitId,
    pub(super) kind: Kind,
    pub(super) ours: ObjectId,
}

struct Node {
    git: GitId,
    tree: GitId,
    parents: Vec<GitId>,
    /// The commit as it stands, while few bytes of them are held.
    raw: Option<Bytes>,
}

struct Import<'a> {
    source: &'a Source,
    store: &'a dyn RecordStore,
    map: &'a GitMap,
    known: Known,
    converter: Converter<'a>,
    reporter: Reporter<'a>,
    changes: MapChanges,
    rows_bytes: usize,
    /// Bytes of commits that are held.
    held: usize,
    /// New commits, parents first.
    nodes: Vec<Node>,
    made: IdMap<GitId, SnapshotId>,
    snapshots: Vec<StoredSnapshot>,
}

impl<'a> Import<'a> {
    fn new(
        store: &'a dyn RecordStore,
        source: &'a Source,
        map: &'a GitMap,
        known: Known,
        sink: Sink,
        reporter: Reporter<'a>,
    ) -> Self {
        let converter = Converter::new(store, source, map, sink);
        let (nodes, made, snapshots) = (Vec::new(), IdMap::default(), Vec::new());
        Self {
            source,
            store,
            map,
            known,
            converter,
            reporter,
            changes: MapChanges::default(),
            rows_bytes: 0,
            held: 0,
            nodes,
            made,
            snapshots,
        }
    }

    fn run(mut self) -> Result<Copied, VersionError> {
        let refs = self.source.refs()?;
        let tips: BTreeSet<GitId> = refs
            .values()
            .filter_map(|target| match target {
                GitTarget::Object(id) => Some(*id),
                GitTarget::Ref(_) => None,
            })
            .collect();
        let (mut peeled, mut reader) = (Vec::new(), self.source.reader());
        for tip in tips {
            peeled.push((tip, self.peel(&mut reader, tip)?));
        }
        for (_, (git, kind)) in &peeled {
            if *kind == Kind::Commit {
                self.find_commits(*git)?;
            }
        }
        let mut from = 0;
        while from < self.nodes.len() {
            from = self.convert_window(from)?;
        }
        let peeled = self.convert_tips(peeled)?;
        self.converter.flush()?;
        self.changes.refs = refs;
        if self.known == Known::ReadAgain {
            self.changes.rows.retain(|row| self.map.find(row.git).is_none());
        }
        let commits = self.nodes.iter().filter(|node| self.map.find(node.git).is_none()).count() as u64;
        self.reporter.report(Phase::Finishing, self.nodes.len() as u64, self.nodes.len() as u64, self.converter.objects);
        Ok(Copied { commits, changes: self.changes, snapshots: self.snapshots, peeled, objects: self.converter.objects })
    }

    /// What an object leads to behind all tags, with rows for the tags that are new.
    fn peel(&mut self, reader: &mut Reader, mut id: GitId) -> Result<(GitId, Kind), VersionError> {
        loop {
            let (kind, raw) = reader.read_any(id)?;
            if kind != Kind::Tag {
                return Ok((id, kind));
            }
            let target =
                commit_text::tag_target(&raw).ok_or_else(|| failed(&self.source.place, format!("tag {id} names no object")))?;
            if self.map.find(id).is_none() {
                // What it leads to is filled in when that is converted.
                self.add_row(Row { git: id, ours: ObjectId([0; 32]), kind: Kind::Tag, extra: Some(raw) })?;
            }
            id = target;
        }
    }

    /// Lists the new ancestors of a commit, and it, parents first.
    fn find_commits(&mut self, tip: GitId) -> Result<(), VersionError> {
        enum Step {
            Enter(GitId),
            Leave(Node),
        }
        let mut stack = vec![Step::Enter(tip)];
        while let Some(step) = stack.pop() {
            match step {
                Step::Enter(id) if self.made.contains_key(&id) || self.is_skipped(id) => {}
                Step::Enter(id) => {
                    let raw = self.converter.read(id, Kind::Commit)?;
                    let text = commit_text::parse(&raw).map_err(|reason| self.damaged(id, reason))?;
                    // Its snapshot's id is filled in when it is made; until then this says that it is listed.
                    self.made.insert(id, SnapshotId(ObjectId([0; 32])));
                    let (tree, parents) = (text.tree, text.parents);
                    self.held += raw.len();
                    let raw = (self.held <= HELD_BYTES).then_some(raw);
                    stack.push(Step::Leave(Node { git: id, tree, parents: parents.clone(), raw }));
                    stack.extend(parents.into_iter().rev().map(Step::Enter));
                }
                Step::Leave(node) => {
                    self.nodes.push(node);
                    let found = self.nodes.len() as u64;
                    self.reporter.report(Phase::Finding, found, found + stack.len() as u64, self.converter.objects);
                }
            }
        }
        Ok(())
    }

    fn is_skipped(&self, id: GitId) -> bool {
        self.known == Known::Skipped && self.map.find(id).is_some_and(|row| row.kind == Kind::Commit)
    }

    fn damaged(&self, id: GitId, reason: &str) -> VersionError {
        failed(&self.source.place, format!("commit {id} is damaged: {reason}"))
    }

    /// Converts commits from `from` on, as many as fit a window, and returns where the next one begins.
    fn convert_window(&mut self, from: usize) -> Result<usize, VersionError> {
        let (mut to, mut together) = (from, FEWEST_TOGETHER);
        while to < self.nodes.len() && !self.converter.is_full() {
            let end = self.nodes.len().min(to + together);
            let trees =
                (to..end).map(|place| Ok((self.nodes[place].tree, self.hint(place)?))).collect::<Result<_, VersionError>>()?;
            let before = self.converter.room();
            self.converter.note_trees(trees)?;
            let each = (before.saturating_sub(self.converter.room()) / (end - to)).max(1);
            // Not fewer where the window is nearly full: many small batches would take longer than what one is over it.
            let fit = (self.converter.room() / each).max(FEWEST_TOGETHER);
            (to, together) = (end, fit.min(2 * together).min(MOST_TOGETHER));
        }
        self.converter.convert(&mut self.changes)?;
        for place in from..to {
            self.make_snapshot(place)?;
            self.reporter.report(Phase::Copying, place as u64 + 1, self.nodes.len() as u64, self.converter.objects);
        }
        self.converter.close_window();
        Ok(to)
    }

    /// The trees of a parent that an earlier import converted, where they can be relied on.
    fn hint(&mut self, place: usize) -> Result<Option<Hint>, VersionError> {
        if self.known == Known::ReadAgain {
            return Ok(None);
        }
        let known = self.nodes[place].parents.iter().find_map(|parent| {
            let row = self.map.find(*parent).filter(|row| row.kind == Kind::Commit)?;
            Some((*parent, SnapshotId(row.ours)))
        });
        let Some((parent, snapshot)) = known else { return Ok(None) };
        let raw = self.converter.read(parent, Kind::Commit)?;
        let tree = commit_text::parse(&raw).map_err(|reason| self.damaged(parent, reason))?.tree;
        Ok(Some((tree, Snapshot::load(self.store, snapshot)?.tree)))
    }

    fn make_snapshot(&mut self, place: usize) -> Result<(), VersionError> {
        let (git, tree) = (self.nodes[place].git, self.nodes[place].tree);
        let parents: Vec<SnapshotId> = self.nodes[place].parents.iter().map(|parent| self.snapshot_of(*parent)).collect();
        let known = self.converter.converted(tree);
        let raw = match self.nodes[place].raw.take() {
            Some(raw) => raw,
            None => self.converter.read_again(git, Kind::Commit)?,
        };
        let text = commit_text::parse(&raw).map_err(|reason| self.damaged(git, reason))?;
        let read = commit_text::read(&raw, &text, git, known.ours, parents.clone(), known.follows);
        let extra = match (read.follows, known.follows) {
            (true, true) => None,
            (true, false) => Some(Bytes::from([b"t", tree.as_slice()].concat())),
            (false, _) => Some(Bytes::from([b"r", raw.as_ref()].concat())),
        };
        let object = read.snapshot.encode();
        let id = SnapshotId(object.id());
        let before = self.map.find(git).map(|row| SnapshotId(row.ours));
        self.made.insert(git, before.unwrap_or(id));
        if before.is_some_and(|before| before != id) {
            // It was made here, and git has of it what a commit can say.
            return Ok(());
        }
        self.converter.put(object)?;
        if before.is_none() {
            self.changes.covered.extend(parents.iter().filter(|parent| self.map.keeps(**parent)));
            self.add_row(Row { git, ours: id.0, kind: Kind::Commit, extra })?;
        }
        self.snapshots.push(StoredSnapshot { id, parents, time: read.snapshot.committer.time });
        Ok(())
    }

    fn snapshot_of(&self, commit: GitId) -> SnapshotId {
        let made = self.made.get(&commit).copied();
        made.or_else(|| self.map.find(commit).map(|row| SnapshotId(row.ours))).expect("a parent was made before, or is in the map")
    }

    /// Rows are handed to the store as segments when there are many.
    fn add_row(&mut self, row: Row) -> Result<(), VersionError> {
        self.rows_bytes += row.weight();
        self.changes.rows.push(row);
        if self.rows_bytes >= SEGMENT_BYTES {
            self.rows_bytes = 0;
            let segment = Segment::new(std::mem::take(&mut self.changes.rows));
            self.converter.put(segment.encode())?;
            self.changes.segments.push(segment);
        }
        Ok(())
    }

    /// What the refs lead to, trees and blobs that only a tag names included.
    fn convert_tips(&mut self, tips: Vec<(GitId, (GitId, Kind))>) -> Result<IdMap<GitId, Peeled>, VersionError> {
        for (_, (git, kind)) in &tips {
            match kind {
                Kind::Tree => self.converter.note_trees(vec![(*git, None)])?,
                Kind::Blob => self.converter.note_blob(*git),
                Kind::Commit | Kind::Tag => {}
            }
        }
        self.converter.convert(&mut self.changes)?;
        let mut peeled = IdMap::default();
        for (tip, (git, kind)) in tips {
            let ours = match kind {
                Kind::Tree | Kind::Blob => {
                    let known = self.converter.converted(git);
                    let mode = if kind == Kind::Tree { FileMode::Directory } else { FileMode::Regular };
                    self.changes.keep(git, mode, known.size, known.ours);
                    if known.follows && self.map.find(git).is_none() {
                        let extra = (kind == Kind::Tree).then(|| Bytes::from_static(&[0]));
                        self.add_row(Row { git, ours: known.ours, kind, extra })?;
                    }
                    known.ours
                }
                Kind::Commit | Kind::Tag => {
                    let id = self.snapshot_of(git);
                    self.changes.tips.insert(id);
                    id.0
                }
            };
            peeled.insert(tip, Peeled { git, kind, ours });
        }
        self.converter.close_window();
        Ok(peeled)
    }
}

/// Makes what was copied visible, in one batch.
fn finish(
    repository: &Repository,
    caller: &Caller,
    source: &Source,
    map: GitMap,
    copied: Copied,
    removed: RemovedHere,
) -> Result<ImportReport, VersionError> {
    let Copied { commits, mut changes, snapshots, peeled, objects } = copied;
    repository.record_stored(&snapshots)?;
    let head = head_of(&changes.refs, &peeled);
    let annotations = annotations(source, &peeled)?;
    let (refs, moves) = plan_refs(repository, &map.refs, &changes.refs, &peeled, &annotations, removed)?;
    changes.refs = remembered(repository, &map, changes.refs)?;
    let mut batch = repository.batch();
    if changes.differs(&map) {
        let next = map.next(changes)?;
        batch.objects(next.objects);
        batch.record_from(next.family, next.key, next.before, Some(next.value));
    }
    let moved = moves.len();
    for (name, now, target) in moves {
        batch.set_ref(name, now.map_or(RefExpect::Absent, RefExpect::At), Some(target));
    }
    let text = format!("{commits} commits from {}, {moved} refs moved", source.place.display());
    let recorded = batch.write(caller, "import", &text)?;
    Ok(ImportReport { commits, objects, refs, head, stored: None, recorded })
}

/// What the annotated tags say that lead to commits.
fn annotations(source: &Source, peeled: &IdMap<GitId, Peeled>) -> Result<BTreeMap<GitId, Annotation>, VersionError> {
    let mut reader = source.reader();
    let mut annotations = BTreeMap::new();
    for (id, _) in peeled.iter().filter(|(id, peeled)| **id != peeled.git && peeled.kind == Kind::Commit) {
        annotations.insert(*id, commit_text::read_tag(&reader.read(*id, Kind::Tag)?));
    }
    Ok(annotations)
}

fn head_of(refs: &GitRefs, peeled: &IdMap<GitId, Peeled>) -> GitHead {
    match refs.get(b"HEAD".as_slice()) {
        Some(GitTarget::Ref(name)) => GitHead::Ref(String::from_utf8_lossy(name).into_owned()),
        Some(GitTarget::Object(id)) => match peeled.get(id) {
            Some(Peeled { kind: Kind::Commit, ours, .. }) => GitHead::Detached(SnapshotId(*ours)),
            _ => GitHead::Elsewhere(id.to_string()),
        },
        None => GitHead::Elsewhere("nothing".to_owned()),
    }
}
