//! Merges: another line of work into this one, what one snapshot changed once more, and what it changed taken back.
//!
//! Where both sides changed the same lines, the merged tree has conflict markers and the workspace has a record of what is
//! undecided; `commit` finishes it, `abort_merge` gives it up. The head does not move before the commit.

use std::collections::BTreeMap;

use helix_objects::{Family, ObjectStore};
use helix_protocol::{ObjectId, SnapshotId};

use crate::merge::{MergedTree, merge_ancestors, merge_trees};
use crate::{Signature, Snapshot, VersionError, diff_entries, in_the_way, show_path};

use super::Repository;
use super::names::WorkspaceName;
use super::records::{HeadTarget, Merging, MergingKind, Staged, Unresolved, WorkspaceKeys};
use super::transaction::{Caller, Log, Recorded, Transaction};
use super::workspaces::Switched;

/// What to do where the other side was made from this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastForward {
    /// Move the head to it.
    #[default]
    Allow,
    /// Move the head to it, and fail where that is not enough.
    Only,
    /// Make a snapshot with two parents all the same.
    Never,
}

/// A merge of another line of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeRequest {
    /// Whose workspace it is; its `who` makes the snapshot.
    pub caller: Caller,
    /// The other side.
    pub other: SnapshotId,
    /// What people call the other side: stands at conflict markers and in the message.
    pub label: String,
    /// Why; made of the names where it is not given.
    pub message: Option<String>,
    /// Whether the head may simply move.
    pub fast_forward: FastForward,
    /// Whether the two may have nothing in common.
    pub allow_unrelated: bool,
    /// Stop before the commit even where nothing is in conflict.
    pub no_commit: bool,
    /// Whatever else is known.
    pub metadata: BTreeMap<String, String>,
}

impl MergeRequest {
    /// A plain merge.
    pub fn new(caller: Caller, other: SnapshotId, label: impl Into<String>) -> Self {
        Self {
            caller,
            other,
            label: label.into(),
            message: None,
            fast_forward: FastForward::Allow,
            allow_unrelated: false,
            no_commit: false,
            metadata: BTreeMap::new(),
        }
    }
}

/// What came of a merge, a cherry-pick or a revert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeKind {
    /// The head has all of it already.
    UpToDate,
    /// The head moved to the other side.
    FastForward,
    /// A snapshot was made.
    Merged,
    /// It waits for conflicts to be decided, or for its commit where that was asked for.
    Stopped,
}

/// See [`Repository::merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOutcome {
    /// What happened.
    pub kind: MergeKind,
    /// Where the head is now.
    pub snapshot: Option<SnapshotId>,
    /// The tree that the workspace was at.
    pub from: ObjectId,
    /// The tree that it is to have: the caller checks it out.
    pub to: ObjectId,
    /// What is undecided.
    pub unresolved: Vec<Unresolved>,
    /// What was written.
    pub recorded: Recorded,
}

/// What one snapshot changed, once more or taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickRequest {
    /// Whose workspace it is; its `who` is the committer.
    pub caller: Caller,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// For a snapshot with several parents: the one that it is compared with, counted from 1.
    pub mainline: Option<usize>,
}

/// A tree merge with all that its commit needs.
struct Plan {
    merged: MergedTree,
    message: String,
    author: Option<Signature>,
    kind: MergingKind,
    other: SnapshotId,
    metadata: BTreeMap<String, String>,
    stop: bool,
}

impl Repository {
    /// Merges another line of work into the caller's workspace. Fails where a merge has begun already, and with `WouldOverwrite`
    /// where something is staged: where the head only moves forward, if that has what is staged otherwise.
    pub fn merge(&self, request: &MergeRequest) -> Result<MergeOutcome, VersionError> {
        let MergeRequest { caller, other, .. } = request;
        // Made before the turn, so that others need not wait for it; made again there if the head has moved meanwhile.
        let mut planned = self.plan(request)?;
        let (outcome, recorded) = self.change(caller, "merge", |change| {
            let record = change.head_without_merge(caller)?;
            let from = change.head_tree(&record)?;
            let theirs = change.look_at(*other)?.tree;
            let head = change.head(&record)?.snapshot;
            let done =
                |kind, snapshot, to| MergeOutcome { kind, snapshot, from, to, unresolved: Vec::new(), recorded: Recorded::NOTHING };
            let bases = match head {
                Some(head) => self.merge_bases(head, *other)?,
                None => Vec::new(),
            };
            if bases.as_slice() == [*other] {
                return Ok((done(MergeKind::UpToDate, head, from), String::new()));
            }
            let forward = head.is_none() || bases.as_slice() == head.as_slice();
            let staged = change.staged(caller, from)?;
            if forward && (request.fast_forward != FastForward::Never || head.is_none()) {
                let lost = staged.map_or(Ok(Vec::new()), |staged| in_the_way(&**self.store(), staged, (from, theirs)))?;
                refuse(&lost)?;
                let workspace = change.workspace(&caller.workspace)?;
                change.move_head(&caller.workspace, &workspace, *other)?;
                return Ok((done(MergeKind::FastForward, Some(*other), theirs), format!("{}: fast-forward", request.label)));
            }
            if request.fast_forward == FastForward::Only {
                return Err(VersionError::Refused {
                    message: format!("{} cannot be reached by moving the head forward", request.label),
                    hint: "merge without --ff-only, or rebase it first",
                });
            }
            let head = head.expect("without a head it was a fast-forward");
            if bases.is_empty() && !request.allow_unrelated {
                return Err(VersionError::Refused {
                    message: format!("{} has no history in common with the head", request.label),
                    hint: "merge it all the same with --allow-unrelated-histories",
                });
            }
            change.nothing_staged(caller, from)?;
            let merged = match planned.take() {
                Some((at, merged)) if at == head => merged,
                _ => self.merged_over(&bases, from, (theirs, &request.label))?,
            };
            let message = request.message.clone().unwrap_or_else(|| self.merge_message(request, &record));
            let plan = Plan {
                merged,
                message,
                author: None,
                kind: MergingKind::Merge,
                other: *other,
                metadata: request.metadata.clone(),
                stop: request.no_commit,
            };
            change.finish_or_stop(caller, head, from, plan, &request.label)
        })?;
        Ok(MergeOutcome { recorded, ..outcome })
    }

    /// The merged tree, where there is one to be made, for the head there is now.
    fn plan(&self, request: &MergeRequest) -> Result<Option<(SnapshotId, MergedTree)>, VersionError> {
        let Some(head) = self.head(&request.caller.workspace)?.snapshot else { return Ok(None) };
        let bases = self.merge_bases(head, request.other)?;
        if bases.is_empty() || bases.iter().any(|base| [head, request.other].contains(base)) {
            return Ok(None);
        }
        let theirs = (self.tree(request.other)?, request.label.as_str());
        Ok(Some((head, self.merged_over(&bases, self.tree(head)?, theirs)?)))
    }

    fn merged_over(&self, bases: &[SnapshotId], ours: ObjectId, theirs: (ObjectId, &str)) -> Result<MergedTree, VersionError> {
        let base = self.common_tree(bases)?;
        merge_trees(&**self.store(), base, (ours, "HEAD"), theirs)
    }

    /// Repeats what one snapshot changed on the caller's workspace, with its message and its author.
    pub fn cherry_pick(&self, request: &PickRequest) -> Result<MergeOutcome, VersionError> {
        self.pick(request, MergingKind::CherryPick)
    }

    /// Takes back what one snapshot changed.
    pub fn revert(&self, request: &PickRequest) -> Result<MergeOutcome, VersionError> {
        self.pick(request, MergingKind::Revert)
    }

    fn pick(&self, request: &PickRequest, kind: MergingKind) -> Result<MergeOutcome, VersionError> {
        let PickRequest { caller, snapshot: id, mainline } = request;
        let (outcome, recorded) = self.change(caller, kind.verb(), |change| {
            let record = change.head_without_merge(caller)?;
            let from = change.head_tree(&record)?;
            change.nothing_staged(caller, from)?;
            let head = change.head(&record)?.snapshot;
            let picked = change.look_at(*id)?;
            let parent = parent_of(*id, &picked, *mainline)?;
            let before = parent.map_or(Ok(self.empty_tree()), |parent| self.tree(parent))?;
            let subject = picked.message.lines().next().unwrap_or_default();
            let label = format!("{} ({subject})", id.short());
            let (base, theirs, theirs_label, message, author) = match kind {
                MergingKind::Revert => {
                    let message = format!("Revert \"{subject}\"\n\nThis reverts commit {id}.\n");
                    (picked.tree, before, format!("parent of {label}"), message, None)
                }
                MergingKind::CherryPick | MergingKind::Merge => {
                    (before, picked.tree, label.clone(), picked.message.clone(), Some(picked.author.clone()))
                }
            };
            let merged = merge_trees(&**self.store(), base, (from, "HEAD"), (theirs, &theirs_label))?;
            if merged.tree == from && merged.unresolved.is_empty() {
                return Err(VersionError::NothingToCommit(head));
            }
            let metadata = if kind == MergingKind::CherryPick { picked.metadata.clone() } else { BTreeMap::new() };
            let plan = Plan { merged, message, author, kind, other: *id, metadata, stop: false };
            let parents = head.ok_or_else(|| VersionError::Refused {
                message: "there is nothing to pick onto yet".to_owned(),
                hint: "make a first commit",
            })?;
            change.finish_or_stop(caller, parents, from, plan, &label)
        })?;
        Ok(MergeOutcome { recorded, ..outcome })
    }

    /// Gives up a merge that has begun, or what was picked or reverted. The head is where it was; the caller checks its tree out.
    pub fn abort_merge(&self, caller: &Caller) -> Result<Switched, VersionError> {
        let keys = WorkspaceKeys(&caller.workspace);
        let begun = self.workspace(&caller.workspace)?.merging.map_or(MergingKind::Merge, |merging| merging.kind);
        let ((from, to, head), recorded) = self.change(caller, &format!("{} abort", begun.verb()), |change| {
            let record = change.workspace(&caller.workspace)?;
            let Some(merging) = change.merging(&caller.workspace)? else { return Err(VersionError::NoMerge) };
            change.put::<Merging>(Family::Workspaces, &keys.merging(), None, Log::Told)?;
            change.put::<Staged>(Family::Workspaces, &keys.staged(), None, Log::Told)?;
            let to = change.head_tree(&record.head)?;
            Ok(((merging.tree, to, change.head(&record.head)?), format!("gave up {}", merging.other.short())))
        })?;
        Ok(Switched { from, to, head, recorded })
    }

    /// Says that paths of a merge are decided as they stand; folders stand for all beneath them. Answers with what is left.
    pub fn mark_resolved(&self, workspace: &WorkspaceName, paths: &[&[u8]]) -> Result<Vec<Unresolved>, VersionError> {
        let keys = WorkspaceKeys(workspace);
        let caller = self.silent_caller(workspace);
        let (left, _) = self.change(&caller, "add", |change| {
            change.workspace(workspace)?;
            let Some(mut merging) = change.merging(workspace)? else { return Err(VersionError::NoMerge) };
            let beneath = |path: &[u8], folder: &[u8]| {
                folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
            };
            merging.unresolved.retain(|left| !paths.iter().any(|path| left.path == *path || beneath(&left.path, path)));
            change.put(Family::Workspaces, &keys.merging(), Some(&merging), Log::Silent)?;
            Ok((merging.unresolved, String::new()))
        })?;
        Ok(left)
    }

    /// The tree that two sides have in common. Where there are several such (lines that crossed), they are merged
    /// into one, as git does it.
    pub(crate) fn common_tree(&self, bases: &[SnapshotId]) -> Result<ObjectId, VersionError> {
        self.common_tree_at(bases, 1)
    }

    fn common_tree_at(&self, bases: &[SnapshotId], depth: usize) -> Result<ObjectId, VersionError> {
        let Some((oldest, newer)) = bases.split_last() else { return Ok(self.empty_tree()) };
        let store: &dyn ObjectStore = &**self.store();
        let mut tree = self.tree(*oldest)?;
        let mut merged = vec![*oldest];
        for next in newer.iter().rev() {
            let below = self.merge_bases_of(&merged, &[*next])?;
            let below = self.common_tree_at(&below, depth + 1)?;
            let both = merge_ancestors(store, below, (tree, self.tree(*next)?), depth)?;
            // Read right away; nothing names it later, so it goes with the next collection.
            store.put(&both.objects, helix_objects::Durability::NoSync)?;
            tree = both.tree;
            merged.push(*next);
        }
        Ok(tree)
    }

    fn merge_message(&self, request: &MergeRequest, head: &HeadTarget) -> String {
        let is_branch = request.label.parse().ok().and_then(|name| self.branch(&name).ok().flatten()).is_some();
        let kind = if is_branch { "branch" } else { "commit" };
        let into = match head {
            HeadTarget::Branch(branch) if !["main", "master"].contains(&branch.as_str()) => format!(" into {branch}"),
            HeadTarget::Detached(_) => " into HEAD".to_owned(),
            HeadTarget::Branch(_) => String::new(),
        };
        format!("Merge {kind} '{}'{into}", request.label)
    }
}

impl Transaction<'_> {
    /// The head of a workspace that has no merge.
    fn head_without_merge(&mut self, caller: &Caller) -> Result<HeadTarget, VersionError> {
        let record = self.workspace(&caller.workspace)?;
        self.no_merge(&caller.workspace)?;
        Ok(record.head)
    }

    /// What is staged, as the tree that it was made of and the one that came of it.
    fn staged(&mut self, caller: &Caller, head: ObjectId) -> Result<Option<(ObjectId, ObjectId)>, VersionError> {
        let staged: Option<Staged> = self.read(Family::Workspaces, &WorkspaceKeys(&caller.workspace).staged())?;
        Ok(staged.map(|Staged { tree, onto }| (onto.unwrap_or(head), tree)).filter(|(onto, tree)| onto != tree))
    }

    fn nothing_staged(&mut self, caller: &Caller, head: ObjectId) -> Result<(), VersionError> {
        let Some((onto, tree)) = self.staged(caller, head)? else { return Ok(()) };
        let changes = diff_entries(&**self.repository.store(), Some(onto), tree)?;
        refuse(&changes.into_iter().map(|change| change.path).collect::<Vec<_>>())
    }

    fn finish_or_stop(
        &mut self,
        caller: &Caller,
        head: SnapshotId,
        from: ObjectId,
        plan: Plan,
        label: &str,
    ) -> Result<(MergeOutcome, String), VersionError> {
        let Plan { merged: MergedTree { tree, objects, unresolved }, message, author, kind, other, metadata, stop } = plan;
        self.objects(&objects);
        let keys = WorkspaceKeys(&caller.workspace);
        if stop || !unresolved.is_empty() {
            let text = format!("{label}: {} undecided", unresolved.len());
            let merging = Merging { kind, began: Some(head), other, tree, message, unresolved: unresolved.clone(), author };
            self.put(Family::Workspaces, &keys.merging(), Some(&merging), Log::Told)?;
            // What is added from now on is added to what came of the merge.
            let staged = Staged { tree, onto: Some(from) };
            self.put(Family::Workspaces, &keys.staged(), Some(&staged), Log::Told)?;
            let kind = MergeKind::Stopped;
            return Ok((
                MergeOutcome { kind, snapshot: Some(head), from, to: tree, unresolved, recorded: Recorded::NOTHING },
                text,
            ));
        }
        let parents = if kind == MergingKind::Merge { vec![head, other] } else { vec![head] };
        let who = caller.committer();
        let author = author.unwrap_or_else(|| who.clone());
        let id = self.snapshot(Snapshot { tree, parents, author, committer: who.clone(), message, metadata })?;
        let record = self.workspace(&caller.workspace)?;
        self.move_head(&caller.workspace, &record, id)?;
        self.put::<Staged>(Family::Workspaces, &keys.staged(), None, Log::Told)?;
        let outcome =
            MergeOutcome { kind: MergeKind::Merged, snapshot: Some(id), from, to: tree, unresolved, recorded: Recorded::NOTHING };
        Ok((outcome, label.to_owned()))
    }
}

fn refuse(lost: &[Vec<u8>]) -> Result<(), VersionError> {
    if lost.is_empty() {
        return Ok(());
    }
    Err(VersionError::WouldOverwrite { paths: lost.iter().map(|path| show_path(path)).collect() })
}

/// The parent that a snapshot is compared with; `None` for one without parents.
fn parent_of(id: SnapshotId, snapshot: &Snapshot, mainline: Option<usize>) -> Result<Option<SnapshotId>, VersionError> {
    match (snapshot.parents.as_slice(), mainline) {
        ([], None) => Ok(None),
        ([parent], None) => Ok(Some(*parent)),
        (_, None) => Err(VersionError::Refused {
            message: format!("{} has several parents", id.short()),
            hint: "say which one it is compared with, with `-m 1` for the first",
        }),
        (parents, Some(number)) => {
            let parent = number.checked_sub(1).and_then(|place| parents.get(place));
            parent.copied().map(Some).ok_or(VersionError::Refused {
                message: format!("{} has no parent {number}", id.short()),
                hint: "parents are counted from 1",
            })
        }
    }
}
