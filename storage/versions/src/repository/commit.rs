//! Commits: of a tree somebody made, or of files that are edited right here.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use helix_objects::{Durability, Family, NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use crate::merge::{MergedTree, merge_trees};
use crate::tree::Tree;
use crate::{BranchName, Signature, Snapshot, VersionError, show_path};

use super::Repository;
use super::live::FileEdit;
use super::names::WorkspaceName;
use super::records::{HeadTarget, Merging, MergingKind, Staged, WorkspaceKeys, WorkspaceRecord};
use super::transaction::{Caller, Log, Recorded, Transaction};

/// The metadata that a snapshot with undecided conflicts has: the paths, one per line.
pub(crate) const CONFLICTS: &str = "conflicts";

/// What to do with paths of a merge that nobody decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecided {
    /// Fail with `Unresolved`.
    #[default]
    Refuse,
    /// Commit them as they stand, conflict markers and all; the snapshot's metadata `conflicts` names them.
    Keep,
}

/// A commit of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// Whose workspace it is; its `who` is the committer.
    pub caller: Caller,
    /// Refused with `Moved` where the head is another snapshot. Without, the commit follows whatever the head is by then.
    pub expect: Option<SnapshotId>,
    /// The root folder.
    pub tree: ObjectId,
    /// The head's tree that `tree` was made of. Where the head has another one by now, what was changed is put onto that; refused
    /// where both changed the same lines. Without, the tree is taken as it is.
    pub onto: Option<ObjectId>,
    /// What of the tree the store may lack.
    pub objects: Vec<NewObject>,
    /// Why.
    pub message: String,
    /// Who made the content, where it is not the committer.
    pub author: Option<Signature>,
    /// Whatever else is known.
    pub metadata: BTreeMap<String, String>,
    /// Parents beside the head.
    pub parents: Vec<SnapshotId>,
    /// Whether the tree may be the head's.
    pub allow_empty: bool,
    /// Whether it takes the head's place instead of following it.
    pub amend: bool,
    /// What to do with undecided paths of a merge.
    pub undecided: Undecided,
}

impl CommitRequest {
    /// A plain commit of a tree that the store has.
    pub fn new(caller: Caller, tree: ObjectId, message: impl Into<String>) -> Self {
        Self {
            caller,
            expect: None,
            tree,
            onto: None,
            objects: Vec::new(),
            message: message.into(),
            author: None,
            metadata: BTreeMap::new(),
            parents: Vec::new(),
            allow_empty: false,
            amend: false,
            undecided: Undecided::Refuse,
        }
    }
}

/// A commit of single files, for a program that has no working folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesRequest {
    /// Whose workspace it is; its `who` is the committer.
    pub caller: Caller,
    /// As in [`CommitRequest::expect`].
    pub expect: Option<SnapshotId>,
    /// What becomes other than in the head, in this order.
    pub edits: Vec<FileEdit>,
    /// Why.
    pub message: String,
    /// Who made the content, where it is not the committer.
    pub author: Option<Signature>,
    /// Whatever else is known.
    pub metadata: BTreeMap<String, String>,
    /// Whether the edits may change nothing.
    pub allow_empty: bool,
}

/// What a commit made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The new snapshot: the head.
    pub snapshot: SnapshotId,
    /// What it was made from.
    pub parents: Vec<SnapshotId>,
    /// Its root folder.
    pub tree: ObjectId,
    /// The branch that moved; `None` for a detached head.
    pub branch: Option<BranchName>,
    /// What was written, and whether it is on disk.
    pub recorded: Recorded,
}

/// What both kinds of commit have.
struct Draft<'a> {
    caller: &'a Caller,
    message: &'a str,
    author: Option<&'a Signature>,
    metadata: &'a BTreeMap<String, String>,
    parents: &'a [SnapshotId],
    allow_empty: bool,
    amend: bool,
    undecided: Undecided,
    /// Whether what is staged is part of it.
    takes_stage: bool,
}

impl Repository {
    /// Commits a tree to the caller's workspace: objects, snapshot, branch and log entry in one batch. What was staged is so no
    /// more, and a merge that had begun is done. Fails with `NothingToCommit` where the tree is the head's, with `Unresolved` where
    /// a merge has undecided paths.
    pub fn commit(&self, request: &CommitRequest) -> Result<Committed, VersionError> {
        let CommitRequest { caller, expect, tree, objects, message, author, metadata, parents, .. } = request;
        let draft = Draft {
            caller,
            message,
            author: author.as_ref(),
            metadata,
            parents,
            allow_empty: request.allow_empty,
            amend: request.amend,
            undecided: request.undecided,
            takes_stage: true,
        };
        self.change(caller, "commit", |change| {
            let at = change.position(caller, *expect)?;
            change.objects(objects);
            match request.onto.filter(|onto| *onto != at.tree) {
                None => change.commit_tree(&draft, at, *tree, objects),
                Some(onto) => {
                    let merged = change.put_onto(&at, onto, request)?;
                    change.objects(&merged.objects);
                    change.commit_tree(&draft, at, merged.tree, &[objects.as_slice(), &merged.objects].concat())
                }
            }
        })
        .map(Committed::with)
    }

    /// Commits edits of single files to the caller's workspace; see [`commit`](Self::commit). The edits are made to the
    /// head as it is at that moment, so two who edit different files both succeed. Refused while a merge waits: what came
    /// of it is not in the head.
    pub fn commit_files(&self, request: &FilesRequest) -> Result<Committed, VersionError> {
        let FilesRequest { caller, expect, edits, message, author, metadata, allow_empty } = request;
        // Hashed before the turn, so that others need not wait for it.
        let contents = edits.iter().filter_map(|edit| edit.content.as_ref());
        let blobs: Vec<NewObject> = contents.map(|(_, bytes)| NewObject::new(bytes.clone())).collect();
        let draft = Draft {
            caller,
            message,
            author: author.as_ref(),
            metadata,
            parents: &[],
            allow_empty: *allow_empty,
            amend: false,
            undecided: Undecided::Refuse,
            // Single files of the head are edited; what somebody staged beside them stays so.
            takes_stage: false,
        };
        self.change(caller, "commit", |change| {
            change.no_merge(&caller.workspace)?;
            let at = change.position(caller, *expect)?;
            let store = &**change.repository.store();
            let live = change.writer.live.at(store, &caller.workspace, at.tree)?;
            let folders = match live.edit(store, edits, &blobs) {
                Ok(folders) => folders,
                Err(error) => {
                    change.writer.live.forget(&caller.workspace);
                    return Err(error);
                }
            };
            let tree = live.root();
            change.objects(&blobs);
            change.objects(&folders);
            change.commit_tree(&draft, at, tree, &folders)
        })
        .map(Committed::with)
    }

    /// A file of the workspace's head, from memory where it was read or written before; `None` where there is no file at the path.
    pub fn read_file(&self, workspace: &WorkspaceName, path: &[u8]) -> Result<Option<Bytes>, VersionError> {
        let mut writer = self.writer();
        let root = match writer.root(workspace) {
            Some(root) => root,
            None => {
                let root = self.tree_of(&self.head(workspace)?)?;
                writer.set_root(workspace, root);
                root
            }
        };
        let store = &**self.store();
        writer.live.at(store, workspace, root)?.read(store, path)
    }

    /// The mode and size of what a path of the workspace's head has.
    pub fn stat_file(&self, workspace: &WorkspaceName, path: &[u8]) -> Result<Option<(FileMode, u64)>, VersionError> {
        let root = self.tree_of(&self.head(workspace)?)?;
        let (mut writer, store) = (self.writer(), &**self.store());
        let entry = writer.live.at(store, workspace, root)?.entry(store, path)?;
        Ok(entry.map(|entry| (entry.mode, entry.size)))
    }
}

impl Committed {
    fn with((committed, recorded): (Self, Recorded)) -> Self {
        Self { recorded, ..committed }
    }
}

/// Where a workspace is when it commits.
struct Position {
    record: WorkspaceRecord,
    head: Option<SnapshotId>,
    tree: ObjectId,
}

impl Transaction<'_> {
    fn position(&mut self, caller: &Caller, expect: Option<SnapshotId>) -> Result<Position, VersionError> {
        let record = self.workspace(&caller.workspace)?;
        let head = self.head(&record.head)?.snapshot;
        if expect.is_some() && expect != head {
            let show = |id: Option<SnapshotId>| id.map_or("nothing".to_owned(), |id| id.short());
            let name = match &record.head {
                HeadTarget::Branch(branch) => format!("branch {branch}"),
                HeadTarget::Detached(_) => format!("the head of workspace {}", caller.workspace),
            };
            return Err(VersionError::Moved { name, expected: show(expect), now: show(head) });
        }
        let tree = match head {
            Some(head) => self.look_at(head)?.tree,
            None => self.repository.empty_tree(),
        };
        Ok(Position { record, head, tree })
    }

    /// What a commit changes, made of `onto`, once more on the tree that the head has by now.
    fn put_onto(&self, at: &Position, onto: ObjectId, request: &CommitRequest) -> Result<MergedTree, VersionError> {
        let refused = |message: String| VersionError::Refused { message, hint: "look at what is there now, then commit again" };
        if request.amend {
            return Err(refused("the commit to amend is not the last one any more".to_owned()));
        }
        let store = &**self.repository.store();
        // Read right away.
        store.put(&request.objects, Durability::NoSync)?;
        let merged = merge_trees(store, onto, (at.tree, "HEAD"), (request.tree, "commit"))?;
        if !merged.unresolved.is_empty() {
            let paths: Vec<String> = merged.unresolved.iter().map(|path| show_path(&path.path)).collect();
            return Err(refused(format!("the head has moved while the files were read, and both changed {}", paths.join(", "))));
        }
        Ok(merged)
    }

    fn commit_tree(
        &mut self,
        draft: &Draft<'_>,
        at: Position,
        tree: ObjectId,
        fresh: &[NewObject],
    ) -> Result<(Committed, String), VersionError> {
        let workspace = &draft.caller.workspace;
        let merging = self.merging(workspace)?;
        let mut metadata = draft.metadata.clone();
        if let Some(merging) = &merging {
            let undecided = self.undecided(merging, tree, fresh)?;
            match draft.undecided {
                _ if undecided.is_empty() => {}
                Undecided::Refuse => return Err(VersionError::Unresolved(undecided)),
                Undecided::Keep => drop(metadata.insert(CONFLICTS.to_owned(), undecided.join("\n"))),
            }
        }
        let merged = merging.as_ref().filter(|merging| merging.kind == MergingKind::Merge).map(|merging| merging.other);
        let mut parents = match (draft.amend, at.head) {
            (false, head) => head.into_iter().collect(),
            (true, Some(head)) => self.look_at(head)?.parents.clone(),
            (true, None) => {
                return Err(VersionError::Refused {
                    message: "there is no commit to amend yet".to_owned(),
                    hint: "commit without --amend",
                });
            }
        };
        parents.extend(draft.parents.iter().copied().chain(merged).filter(|id| Some(*id) != at.head));
        let extra = merged.is_some() || !draft.parents.is_empty() || draft.amend;
        if tree == at.tree && !draft.allow_empty && !extra {
            return Err(VersionError::NothingToCommit(at.head));
        }
        if tree != at.tree && !fresh.iter().any(|object| object.id() == tree) {
            // A snapshot of nothing would be found out only when it is needed.
            Tree::load(&**self.repository.store(), tree)?;
        }
        let who = draft.caller.committer();
        let snapshot = Snapshot {
            tree,
            parents: parents.clone(),
            author: draft.author.unwrap_or(who).clone(),
            committer: who.clone(),
            message: draft.message.to_owned(),
            metadata,
        };
        let id = self.snapshot(snapshot)?;
        let target = self.move_head(workspace, &at.record, id)?;
        let keys = WorkspaceKeys(workspace);
        if draft.takes_stage {
            self.put::<Staged>(Family::Workspaces, &keys.staged(), None, Log::Told)?;
        }
        if merging.is_some() {
            self.put::<Merging>(Family::Workspaces, &keys.merging(), None, Log::Told)?;
        }
        let branch = match target {
            HeadTarget::Branch(branch) => Some(branch),
            HeadTarget::Detached(_) => None,
        };
        self.root_after(workspace, tree);
        let text = draft.message.lines().next().unwrap_or_default().to_owned();
        Ok((Committed { snapshot: id, parents, tree, branch, recorded: Recorded::NOTHING }, text))
    }

    /// The paths of a merge that are in `tree` as the merge left them.
    pub(super) fn undecided(&self, merging: &Merging, tree: ObjectId, fresh: &[NewObject]) -> Result<Vec<String>, VersionError> {
        let store = &**self.repository.store();
        let fresh: HashMap<ObjectId, &NewObject> = fresh.iter().map(|object| (object.id(), object)).collect();
        let mut undecided = Vec::new();
        for path in &merging.unresolved {
            if entry_in(store, &fresh, tree, &path.path)? == path.stands {
                undecided.push(show_path(&path.path));
            }
        }
        Ok(undecided)
    }
}

/// The object at a path of a tree, of which some folders are not stored yet.
fn entry_in(
    store: &dyn ObjectStore,
    fresh: &HashMap<ObjectId, &NewObject>,
    tree: ObjectId,
    path: &[u8],
) -> Result<Option<ObjectId>, VersionError> {
    let mut folder = tree;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let tree = match fresh.get(&folder) {
            Some(object) => Tree::decode(folder, object.bytes())?,
            None => Tree::load(store, folder)?,
        };
        match (tree.get(part), parts.peek()) {
            (Some(entry), None) => return Ok(Some(entry.id)),
            (Some(entry), Some(_)) if entry.mode == FileMode::Directory => folder = entry.id,
            _ => return Ok(None),
        }
    }
    Ok(None)
}
