//! Our history as a git repository: what was imported gets the ids it had, what was made here becomes ordinary commits on top.
//!
//! Everything new is written as one pack, on disk before any ref is touched. Refs are moved only forward. What git is given and
//! what the refs are then goes into the git map, so that the next export begins there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::objs::Kind;
use helix_objects::Mark;
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use super::commit_text::{self, COMMIT_KEY, tag_target};
use super::convert_trees::Hint;
use super::failed;
use super::filters::{Conversion, Converted, Filters};
use super::git_objects::GitObjects;
use super::history_refs::{RefReport, as_ref_name, remembered};
use super::map::{GitMap, GitTarget, MapChanges};
use super::pack_writer::PackWriter;
use super::progress::{Phase, Progress, Reporter};
use super::reach::Reach;
use super::read_ahead::{ReadAhead, Step};
use super::segment::Row;
use super::source::{Source, git_id};
use super::write_refs::{GitRef, Target, write_head, write_refs};
use crate::{Annotation, Caller, EntryChange, RefName, Repository, Snapshot, VersionError, diff_entries, show_path};

/// What the map says of a commit that lacks a file which was purged.
const ALTERED: u8 = b'a';
/// From so many snapshots on they are read by a thread of its own.
const AHEAD_FROM: usize = 64;
/// Snapshots are held in memory up to so many between being found and being written; what is beyond is read twice.
const HELD_SNAPSHOTS: usize = 50_000;

/// Which branches and tags are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportRefs {
    /// All of them, and what else git's refs named when they were imported.
    All,
    /// These.
    Some(Vec<RefName>),
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// The git repository's folder.
    pub repository: PathBuf,
    /// Whether it was made.
    pub created: bool,
    /// Commits that git had not.
    pub commits: u64,
    /// Objects that were written: commits, trees, files and tags.
    pub objects: u64,
    /// What became of each branch and tag.
    pub refs: Vec<RefReport>,
    /// Contents that were purged: git gets the commits that had them, and what came of those, without them and under other ids.
    pub left_out: Vec<ObjectId>,
    /// Files that git got with the line ends, or the keywords, that they have in the folder.
    pub converted: Vec<Converted>,
    /// Sync up to here to have the map on disk; the git repository is on disk already.
    pub mark: Mark,
}

/// Writes the history of `which` into the git repository at `path`, which is made (bare) where there is nothing. `progress` is told
/// about ten times a second.
///
/// Its index and working folder are not touched; a branch that one of its worktrees has checked out is left and reported, as is
/// one that has diverged or is ahead. Where it works in a folder of ours, a commit with a file that git's filters would make
/// another one of is refused.
pub fn export_history(
    repository: &Repository,
    caller: &Caller,
    path: &Path,
    which: &ExportRefs,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ExportReport, VersionError> {
    give_history(repository, caller, path, which, Target::Elsewhere, progress)
}

/// As [`export_history`], told what the repository is to us.
pub(super) fn give_history(
    repository: &Repository,
    caller: &Caller,
    path: &Path,
    which: &ExportRefs,
    role: Target,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ExportReport, VersionError> {
    let created = make_where_nothing_is(path)?;
    let target = Source::open(path)?;
    let there = target.refs()?;
    let map = GitMap::load(&**repository.store())?;
    let is_empty = !there.values().any(|target| matches!(target, GitTarget::Object(_)));
    let pack = PackWriter::new(target.repository.objects.store_ref().path())?;
    let objects = GitObjects::new(&**repository.store(), &map, pack, (!is_empty).then(|| target.reader()))?;
    let export = Export {
        repository,
        target: &target,
        objects,
        reporter: Reporter::new(progress),
        reach: Reach::new(&target, &there),
        filters: filters(&target)?,
        made: HashMap::new(),
        altered: HashSet::new(),
        nodes: Vec::new(),
        rows: Vec::new(),
    };
    let wanted = wanted_refs(repository, &map, which)?;
    let Exported { refs, rows, commits, objects, left_out, converted } = export.run(wanted)?;
    let reports = write_refs(repository, caller, &target, &map, &there, &refs, role)?;
    if created || is_empty {
        write_head(repository, caller, &target, &map.refs)?;
    }
    let mark = record(repository, caller, &target, map, rows, &refs, role)?;
    let commits = commits as u64;
    Ok(ExportReport { repository: target.place.clone(), created, commits, objects, refs: reports, left_out, converted, mark })
}

/// What git does to the files of a folder that is ours as well.
fn filters(target: &Source) -> Result<Option<Filters>, VersionError> {
    match target.repository.workdir() {
        Some(folder) if folder.join(".helios").exists() => Filters::read(&target.repository),
        _ => Ok(None),
    }
}

/// Makes a bare repository where there is nothing or an empty folder.
fn make_where_nothing_is(path: &Path) -> Result<bool, VersionError> {
    let is_empty = match std::fs::read_dir(path) {
        Ok(mut names) => names.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(VersionError::io(path, error)),
    };
    if is_empty {
        return gix::init_bare(path).map(|_| true).map_err(|error| failed(path, error));
    }
    if path.join(".git").exists() || (path.join("HEAD").exists() && path.join("objects").is_dir()) {
        return Ok(false);
    }
    Err(VersionError::Refused {
        message: format!("{} is neither empty nor a git repository", path.display()),
        hint: "name a git repository, an empty folder, or a path where nothing is yet",
    })
}

/// A ref to be exported.
enum Wanted {
    /// A branch or tag of ours.
    Ours { name: RefName, target: SnapshotId, annotation: Option<Annotation> },
    /// What git's ref of this name named when it was imported.
    Kept { name: Vec<u8>, target: GitTarget },
}

fn wanted_refs(repository: &Repository, map: &GitMap, which: &ExportRefs) -> Result<Vec<Wanted>, VersionError> {
    let mut wanted = Vec::new();
    let tags = repository
        .tags()?
        .into_iter()
        .filter_map(|tag| Some((format!("refs/tags/{}", tag.name).parse().ok()?, tag.target, tag.annotation)));
    let branches = repository.branches()?.into_iter().map(|(name, target)| (RefName::branch(&name), target, None));
    for (name, target, annotation) in branches.chain(tags) {
        if matches!(which, ExportRefs::All) || matches!(which, ExportRefs::Some(names) if names.contains(&name)) {
            wanted.push(Wanted::Ours { name, target, annotation });
        }
    }
    if let ExportRefs::Some(names) = which {
        let known =
            |name: &&RefName| wanted.iter().any(|wanted| matches!(wanted, Wanted::Ours { name: known, .. } if known == *name));
        if let Some(missing) = names.iter().find(|name| !known(name)) {
            return Err(VersionError::Unknown { kind: "branch or tag", name: missing.to_string(), nearest: None });
        }
        return Ok(wanted);
    }
    for (name, target) in &map.refs {
        let is_ours = match target {
            GitTarget::Object(id) => as_ref_name(name).is_some() && map.peel(*id).is_some_and(|row| row.kind == Kind::Commit),
            GitTarget::Ref(_) => as_ref_name(name).is_some(),
        };
        if !is_ours && name != b"HEAD" {
            wanted.push(Wanted::Kept { name: name.clone(), target: target.clone() });
        }
    }
    // A HEAD on no branch may be all that names its commit.
    if let Some(target @ GitTarget::Object(_)) = map.refs.get(b"HEAD".as_slice()) {
        wanted.push(Wanted::Kept { name: b"HEAD".to_vec(), target: target.clone() });
    }
    Ok(wanted)
}

struct Node {
    id: SnapshotId,
    parents: Vec<SnapshotId>,
    /// While few of them are held.
    snapshot: Option<Snapshot>,
}

struct Export<'a> {
    repository: &'a Repository,
    target: &'a Source,
    objects: GitObjects<'a>,
    reporter: Reporter<'a>,
    reach: Reach,
    filters: Option<Filters>,
    /// The commits of snapshots that were written or are in the target, with their trees where those were looked at.
    made: HashMap<SnapshotId, (GitId, Option<Hint>)>,
    /// Snapshots that git gets under other ids than the map says, since they had what was purged, or came of one that had.
    altered: HashSet<SnapshotId>,
    /// Snapshots to be written, parents first.
    nodes: Vec<Node>,
    rows: Vec<Row>,
}

struct Exported {
    refs: Vec<GitRef>,
    rows: Vec<Row>,
    commits: usize,
    objects: u64,
    left_out: Vec<ObjectId>,
    converted: Vec<Converted>,
}

impl Export<'_> {
    fn run(mut self, wanted: Vec<Wanted>) -> Result<Exported, VersionError> {
        for wanted in &wanted {
            match wanted {
                Wanted::Ours { target, .. } => self.find_snapshots(*target)?,
                Wanted::Kept { target: GitTarget::Object(id), .. } => {
                    let row = self.objects.map.peel(*id);
                    if let Some(row) = row.filter(|row| row.kind == Kind::Commit) {
                        self.find_snapshots(SnapshotId(row.ours))?;
                    }
                }
                Wanted::Kept { .. } => {}
            }
        }
        let converted = self.converted()?;
        let total = self.nodes.len();
        let steps = self.steps();
        std::thread::scope(|scope| {
            if steps.len() >= AHEAD_FROM {
                let (ahead, reading) = ReadAhead::new(&**self.repository.store());
                self.objects.ahead = Some(ahead);
                scope.spawn(|| reading.run(&steps));
            }
            let written = self.write_commits();
            // The reader ends when nobody listens any more.
            self.objects.ahead = None;
            written
        })?;
        let mut refs = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            refs.extend(self.write_ref(wanted)?);
        }
        let objects = self.objects.pack.len() as u64;
        self.reporter.report(Phase::Finishing, total as u64, total as u64, objects);
        let mut rows = self.rows;
        rows.extend(self.objects.rows.into_values());
        let left_out = self.objects.left_out.into_iter().collect();
        self.objects.pack.finish()?;
        Ok(Exported { refs, rows, commits: total, objects, left_out, converted })
    }

    /// Lists the ancestors of a snapshot that the target has not, and it, parents first.
    fn find_snapshots(&mut self, tip: SnapshotId) -> Result<(), VersionError> {
        enum Visit {
            Enter(SnapshotId),
            Leave(Box<Node>),
        }
        let mut stack = vec![Visit::Enter(tip)];
        let placeholder = GitId::null(gix::hash::Kind::Sha1);
        while let Some(step) = stack.pop() {
            match step {
                Visit::Enter(id) if self.made.contains_key(&id) => {}
                Visit::Enter(id) => {
                    if let Some(row) = self.objects.map.commit(id)
                        && self.reach.has(self.target, row.git)?
                    {
                        self.made.insert(id, (row.git, None));
                        continue;
                    }
                    self.made.insert(id, (placeholder, None));
                    let snapshot = Snapshot::load(&**self.repository.store(), id)?;
                    let parents = snapshot.parents.clone();
                    let snapshot = (self.made.len() <= HELD_SNAPSHOTS).then_some(snapshot);
                    stack.push(Visit::Leave(Box::new(Node { id, parents: parents.clone(), snapshot })));
                    stack.extend(parents.into_iter().rev().map(Visit::Enter));
                }
                Visit::Leave(node) => {
                    self.nodes.push(*node);
                    let found = self.nodes.len() as u64;
                    self.reporter.report(Phase::Finding, found, found + stack.len() as u64, 0);
                }
            }
        }
        Ok(())
    }

    /// Files that git converts in what was made here, unless it has the very content. Refused where git
    /// keeps another content of one.
    fn converted(&self) -> Result<Vec<Converted>, VersionError> {
        let Some(filters) = &self.filters else { return Ok(Vec::new()) };
        let (store, reader) = (&**self.repository.store(), self.target.reader());
        let mut found = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| self.objects.map.commit(node.id).is_none()) {
            for EntryChange { path, after, .. } in self.made_in(node)? {
                let is_file = matches!(after.as_ref().map(|after| after.mode), Some(FileMode::Regular | FileMode::Executable));
                let Some(after) = after.filter(|_| is_file) else { continue };
                let Some(conversion) = filters.of(&path) else { continue };
                // What was purged is left out.
                let Some(bytes) = store.get(after.id)? else { continue };
                if reader.has(git_id(Kind::Blob, &bytes)) {
                    continue;
                }
                match conversion {
                    Conversion::Content(by) => return Err(unfiltered(&path, node.id, &by)),
                    Conversion::Details(by) => drop(found.insert(path, by)),
                }
            }
        }
        Ok(found.into_iter().map(|(path, by)| Converted { path: show_path(&path), by }).collect())
    }

    /// What a snapshot has otherwise than each of its parents.
    fn made_in(&self, node: &Node) -> Result<Vec<EntryChange>, VersionError> {
        let store = &**self.repository.store();
        let tree = self.repository.snapshot(node.id)?.tree;
        let mut changes = match node.parents.first() {
            Some(parent) => diff_entries(store, Some(self.repository.snapshot(*parent)?.tree), tree)?,
            None => diff_entries(store, None, tree)?,
        };
        for parent in node.parents.iter().skip(1) {
            let others = diff_entries(store, Some(self.repository.snapshot(*parent)?.tree), tree)?;
            let others: HashSet<Vec<u8>> = others.into_iter().map(|change| change.path).collect();
            changes.retain(|change| others.contains(&change.path));
        }
        Ok(changes)
    }

    /// The trees of the snapshots that are held, in the order in which they are written.
    fn steps(&self) -> Vec<Step> {
        let trees: HashMap<SnapshotId, ObjectId> =
            self.nodes.iter().filter_map(|node| Some((node.id, node.snapshot.as_ref()?.tree))).collect();
        let held = self.nodes.iter().filter_map(|node| Some((node, node.snapshot.as_ref()?.tree)));
        held.map(|(node, tree)| (tree, node.parents.first().and_then(|parent| trees.get(parent)).copied())).collect()
    }

    fn write_commits(&mut self) -> Result<(), VersionError> {
        let total = self.nodes.len() as u64;
        for (place, node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            self.write_commit(node)?;
            self.reporter.report(Phase::Copying, place as u64 + 1, total, self.objects.pack.len() as u64);
        }
        Ok(())
    }

    fn write_commit(&mut self, node: Node) -> Result<(), VersionError> {
        let mut snapshot = match node.snapshot {
            Some(snapshot) => snapshot,
            None => Snapshot::load(&**self.repository.store(), node.id)?,
        };
        let parents: Vec<GitId> = node.parents.iter().map(|parent| self.made[parent].0).collect();
        let before = node.parents.first().map(|parent| self.trees_of(*parent)).transpose()?;
        let row = self.objects.map.commit(node.id);
        let extra = row.as_ref().and_then(|row| row.extra.as_deref()).and_then(|extra| extra.split_first());
        let (tree, bytes, follows) = match (extra, &row) {
            (Some((b'r', raw)), _) => {
                let tree = commit_text::parse(raw).map_err(|reason| damaged(node.id, reason))?.tree;
                (self.objects.tree(snapshot.tree, Some(tree), before)?, raw.to_vec(), true)
            }
            // Git has it without what was purged by then; perhaps that is back.
            (Some((&ALTERED, _)), _) => {
                let tree = self.objects.tree(snapshot.tree, None, before)?;
                (tree, commit_text::write(&snapshot, tree, &parents), true)
            }
            (Some((_, tree)), _) => {
                let tree = GitId::try_from(tree).map_err(|_| damaged(node.id, "its row in the git map has no tree"))?;
                let tree = self.objects.tree(snapshot.tree, Some(tree), before)?;
                snapshot.metadata.remove(COMMIT_KEY);
                (tree, commit_text::write(&snapshot, tree, &parents), true)
            }
            (None, Some(_)) => {
                let tree = self.objects.tree(snapshot.tree, None, before)?;
                (tree, commit_text::write(&snapshot, tree, &parents), true)
            }
            (None, None) => {
                let (tree, follows) = match before {
                    Some(before) => self.objects.carried(snapshot.tree, before)?,
                    None => (self.objects.tree(snapshot.tree, None, None)?, true),
                };
                (tree, commit_text::write(&snapshot, tree, &parents), follows)
            }
        };
        let is_altered = self.objects.is_altered(snapshot.tree) || node.parents.iter().any(|parent| self.altered.contains(parent));
        let was_altered = extra.is_some_and(|(kind, _)| *kind == ALTERED);
        let bytes = if is_altered { commit_text::write(&snapshot, tree, &parents) } else { bytes };
        let id = self.objects.add(Kind::Commit, Bytes::from(bytes), None)?;
        match row {
            Some(row) if row.git != id && (is_altered || was_altered) => drop(self.altered.insert(node.id)),
            Some(row) if row.git != id => return Err(damaged(node.id, "it does not give the commit it was made from")),
            Some(_) => {}
            None => {
                let extra = match self.objects.is_altered(snapshot.tree) {
                    true => Some(Bytes::from_static(&[ALTERED])),
                    false => (!follows).then(|| Bytes::from([b"t", tree.as_slice()].concat())),
                };
                self.rows.push(Row { git: id, ours: node.id.0, kind: Kind::Commit, extra });
            }
        }
        self.made.insert(node.id, (id, Some((tree, snapshot.tree))));
        Ok(())
    }

    /// A snapshot's tree, and the git tree of its commit.
    fn trees_of(&mut self, id: SnapshotId) -> Result<Hint, VersionError> {
        let (commit, trees) = self.made[&id];
        if let Some(trees) = trees {
            return Ok(trees);
        }
        let ours = self.repository.snapshot(id)?.tree;
        let mut reader = self.target.reader();
        let raw = reader.read(commit, Kind::Commit)?;
        let text = commit_text::parse(&raw)
            .map_err(|reason| failed(&self.target.place, format!("commit {commit} is damaged: {reason}")))?;
        self.made.insert(id, (commit, Some((text.tree, ours))));
        Ok((text.tree, ours))
    }

    /// What a ref is to name, with what that leads to.
    fn write_ref(&mut self, wanted: Wanted) -> Result<Option<GitRef>, VersionError> {
        Ok(match wanted {
            Wanted::Ours { name, target, annotation } => {
                let commit = self.made[&target].0;
                let last = match self.objects.map.refs.get(name.as_str().as_bytes()) {
                    Some(GitTarget::Object(id)) => Some(*id),
                    _ => None,
                };
                let same = last
                    .filter(|id| self.objects.map.peel(*id).is_some_and(|row| row.kind == Kind::Commit && row.ours == target.0))
                    .filter(|_| !self.altered.contains(&target));
                let object = match (same, annotation) {
                    (Some(id), _) => {
                        self.write_kept(id)?;
                        id
                    }
                    (None, Some(annotation)) => {
                        let raw = commit_text::write_tag(&annotation, name.short(), commit);
                        let id = self.objects.add(Kind::Tag, Bytes::from(raw.clone()), None)?;
                        self.rows.push(Row { git: id, ours: target.0, kind: Kind::Tag, extra: Some(Bytes::from(raw)) });
                        id
                    }
                    (None, None) => commit,
                };
                Some(GitRef { name: name.as_str().as_bytes().to_vec(), target: GitTarget::Object(object), snapshot: Some(target) })
            }
            Wanted::Kept { name, target } => {
                if let GitTarget::Object(id) = target {
                    // It names a commit that git does not get.
                    if self.objects.map.peel(id).is_some_and(|row| self.altered.contains(&SnapshotId(row.ours))) {
                        return Ok(None);
                    }
                    self.write_kept(id)?;
                }
                (name != b"HEAD").then_some(GitRef { name, target, snapshot: None })
            }
        })
    }

    /// Writes a tag as it was, with what it leads to that is no commit.
    fn write_kept(&mut self, id: GitId) -> Result<(), VersionError> {
        if self.reach.named.contains(&id) {
            return Ok(());
        }
        let Some(row) = self.objects.map.find(id) else {
            return Err(failed(&self.target.place, format!("nothing is known of {id}, which a ref named when it was imported")));
        };
        match (row.kind, row.extra) {
            (Kind::Commit, _) => {}
            (Kind::Tree, _) => drop(self.objects.tree(row.ours, Some(id), None)?),
            (Kind::Blob, _) => drop(self.objects.blob(row.ours, None)?),
            (Kind::Tag, Some(raw)) => {
                let target = tag_target(&raw);
                self.objects.add(Kind::Tag, raw, None)?;
                if let Some(target) = target {
                    self.write_kept(target)?;
                }
            }
            (Kind::Tag, None) => return Err(failed(&self.target.place, format!("tag {id} is not kept whole"))),
        }
        Ok(())
    }
}

fn unfiltered(path: &[u8], id: SnapshotId, by: &str) -> VersionError {
    let path = show_path(path);
    VersionError::Refused {
        message: format!("{path} is in {} as it lies in the folder, and git keeps it otherwise ({by})", id.short()),
        hint: "leave such files to git: take the commit back (`helios undo`), commit the others (`helios add`), and sync again",
    }
}

fn damaged(id: SnapshotId, reason: &'static str) -> VersionError {
    VersionError::Damaged { id: id.0, expected: "snapshot that git knows", reason }
}

/// Writes down what git was given and where its refs are now.
fn record(
    repository: &Repository,
    caller: &Caller,
    target: &Source,
    map: GitMap,
    rows: Vec<Row>,
    refs: &[GitRef],
    role: Target,
) -> Result<Mark, VersionError> {
    let seen = if role == Target::Beside { remembered(repository, &map, target.refs()?)? } else { map.refs.clone() };
    let mut changes = MapChanges { rows, refs: seen, ..MapChanges::default() };
    changes.tips = refs.iter().filter_map(|git_ref| git_ref.snapshot).collect::<BTreeSet<_>>();
    if !changes.differs(&map) {
        return Ok(Mark::default());
    }
    let next = map.next(changes)?;
    let mut batch = repository.batch();
    batch.objects(next.objects);
    batch.record_from(next.family, next.key, next.before, Some(next.value));
    Ok(batch.write(caller, "export", &format!("to {}", target.place.display()))?.mark)
}
