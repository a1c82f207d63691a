//! Workspaces: each has a head of its own, what is staged, and a merge that may have begun.

use bytes::Bytes;
use helix_objects::{Durability, Family, NewObject};
use helix_protocol::{ObjectId, SnapshotId, Timestamp};

use crate::{BranchName, VersionError};

use super::Repository;
use super::names::{RefName, WorkspaceName, nearest};
use super::records::{Head, HeadTarget, Merging, MergingKind, Record, RefRecord, Staged, WorkspaceKeys, WorkspaceRecord};
use super::transaction::{Caller, Log, Recorded, Transaction};

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its name.
    pub name: WorkspaceName,
    /// Where it is, as it was given.
    pub root: String,
    /// When it was made.
    pub made: Timestamp,
    /// Its head.
    pub head: Head,
    /// What the next commit is to have, where something is staged.
    pub staged: Option<Staged>,
    /// A merge that has begun.
    pub merging: Option<Merging>,
}

/// Where a workspace is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// On a branch that there is, or that the repository was made with.
    Branch(BranchName),
    /// On a branch that is made here.
    NewBranch(BranchName, SnapshotId),
    /// On a branch that its first commit makes.
    Unborn(BranchName),
    /// At a snapshot, on no branch.
    Detached(SnapshotId),
}

/// Whether a workspace may be on a branch that another one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// No, as in git: a commit in one would leave the other's files behind its head.
    Refuse,
    /// Yes.
    Allow,
}

/// What a reset takes back beside the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Nothing: what the commits had is staged.
    Soft,
    /// What is staged; the files stay.
    Mixed,
    /// What is staged, and the files: the caller checks the tree out.
    Hard,
}

/// A head that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// The tree it was at.
    pub from: ObjectId,
    /// The tree it is at.
    pub to: ObjectId,
    /// What it is now.
    pub head: Head,
    /// What was written.
    pub recorded: Recorded,
}

impl Repository {
    /// A workspace's head.
    pub fn head(&self, workspace: &WorkspaceName) -> Result<Head, VersionError> {
        let record = self.workspace_record(workspace)?;
        self.head_of(record.head)
    }

    /// The tree of a head: the empty one where its branch has no snapshot yet.
    pub fn tree_of(&self, head: &Head) -> Result<ObjectId, VersionError> {
        head.snapshot.map_or(Ok(self.empty_tree()), |id| self.tree(id))
    }

    /// A snapshot's tree.
    pub fn tree(&self, id: SnapshotId) -> Result<ObjectId, VersionError> {
        self.snapshot(id).map(|snapshot| snapshot.tree)
    }

    /// A workspace with all that is known of it.
    pub fn workspace(&self, name: &WorkspaceName) -> Result<Workspace, VersionError> {
        let record = self.workspace_record(name)?;
        let keys = WorkspaceKeys(name);
        Ok(Workspace {
            name: name.clone(),
            root: record.root,
            made: record.made,
            head: self.head_of(record.head)?,
            staged: self.read_record(Family::Workspaces, &keys.staged())?,
            merging: self.read_record(Family::Workspaces, &keys.merging())?,
        })
    }

    /// Every workspace, by name.
    pub fn workspaces(&self) -> Result<Vec<Workspace>, VersionError> {
        let names = self.workspace_names()?;
        names.iter().map(|name| self.workspace(name)).collect()
    }

    pub(crate) fn workspace_names(&self) -> Result<Vec<WorkspaceName>, VersionError> {
        let mut names = Vec::new();
        self.each_record(Family::Workspaces, b"", |key, _| {
            let text = std::str::from_utf8(&key).ok().filter(|text| !text.contains('/'));
            names.extend(text.and_then(|text| text.parse().ok()));
            Ok(())
        })?;
        Ok(names)
    }

    /// The tree that a workspace's files came of: its head's, or where a merge waits what is staged of it.
    pub fn folder_tree(&self, workspace: &Workspace) -> Result<ObjectId, VersionError> {
        match &workspace.merging {
            Some(merging) => Ok(merging.folder_tree(workspace.staged)),
            None => self.tree_of(&workspace.head),
        }
    }

    /// Makes a workspace. `root` is where its files are, as people see it. Fails with `Exists`, or with `HeldByWorkspace` where
    /// another one is on the branch.
    pub fn add_workspace(
        &self,
        caller: &Caller,
        name: &WorkspaceName,
        root: &str,
        start: &Start,
    ) -> Result<Recorded, VersionError> {
        let keys = WorkspaceKeys(name);
        let made = self.change(caller, "workspace add", |change| {
            if change.raw(Family::Workspaces, &keys.head())?.is_some() {
                return Err(VersionError::Exists { kind: "workspace", name: name.to_string() });
            }
            let head = change.begin(start, name, Elsewhere::Refuse)?;
            let record = WorkspaceRecord { root: root.to_owned(), made: caller.who.time, head };
            change.put(Family::Workspaces, &keys.head(), Some(&record), Log::Told)?;
            Ok(((), format!("made workspace {name}")))
        })?;
        Ok(made.1)
    }

    /// Says where a workspace's files are now, as people see it.
    pub fn repair_workspace(&self, caller: &Caller, name: &WorkspaceName, root: &str) -> Result<Recorded, VersionError> {
        let repaired = self.change(caller, "workspace repair", |change| {
            let record = WorkspaceRecord { root: root.to_owned(), ..change.workspace(name)? };
            change.put(Family::Workspaces, &WorkspaceKeys(name).head(), Some(&record), Log::Told)?;
            Ok(((), format!("workspace {name} is in {root}")))
        })?;
        Ok(repaired.1)
    }

    /// Forgets a workspace, its staged tree and its merge. Its branch stays. The files are the caller's.
    pub fn remove_workspace(&self, caller: &Caller, name: &WorkspaceName) -> Result<Recorded, VersionError> {
        if *name == WorkspaceName::main() {
            return Err(VersionError::Refused {
                message: "the main workspace cannot be removed".to_owned(),
                hint: "the repository is in it; other workspaces can be removed",
            });
        }
        let keys = WorkspaceKeys(name);
        let removed = self.change(caller, "workspace remove", |change| {
            change.workspace(name)?;
            for key in [keys.head(), keys.staged(), keys.merging()] {
                change.write(Family::Workspaces, &key, None, Log::Told)?;
            }
            change.writer.live.forget(name);
            Ok(((), format!("removed workspace {name}")))
        })?;
        Ok(removed.1)
    }

    /// Says what the next commit is to have; `None` takes it back. What is staged without a word of the head's tree that it was
    /// made of is made of the present one's. Not told to the operation log.
    pub fn stage(
        &self,
        workspace: &WorkspaceName,
        staged: Option<Staged>,
        objects: &[NewObject],
    ) -> Result<Recorded, VersionError> {
        self.write_stage(workspace, staged, objects, |_| true).map(|(_, recorded)| recorded)
    }

    /// As [`stage`](Self::stage), where what is staged is still `before`. Answers with what is staged then.
    pub fn restage(
        &self,
        workspace: &WorkspaceName,
        before: Staged,
        staged: Option<Staged>,
        objects: &[NewObject],
    ) -> Result<Option<Staged>, VersionError> {
        self.write_stage(workspace, staged, objects, |now| now == Some(before)).map(|(staged, _)| staged)
    }

    fn write_stage(
        &self,
        workspace: &WorkspaceName,
        staged: Option<Staged>,
        objects: &[NewObject],
        may: impl Fn(Option<Staged>) -> bool,
    ) -> Result<(Option<Staged>, Recorded), VersionError> {
        let keys = WorkspaceKeys(workspace);
        self.change(&self.silent_caller(workspace), "add", |change| {
            let record = change.workspace(workspace)?;
            let now = change.read(Family::Workspaces, &keys.staged())?;
            if !may(now) {
                return Ok((now, String::new()));
            }
            let head = change.head_tree(&record.head)?;
            let staged = staged.map(|staged| Staged { onto: staged.onto.or(Some(head)), ..staged });
            change.objects(objects);
            change.put(Family::Workspaces, &keys.staged(), staged.as_ref(), Log::Silent)?;
            Ok((staged, String::new()))
        })
    }

    /// Moves the caller's workspace to a branch or a snapshot; what is staged stays so. Refused while a merge waits, and where
    /// another workspace is on the branch unless that is allowed.
    pub fn switch(&self, caller: &Caller, start: &Start, elsewhere: Elsewhere) -> Result<Switched, VersionError> {
        let keys = WorkspaceKeys(&caller.workspace);
        let ((from, to, head), recorded) = self.change(caller, "switch", |change| {
            let record = change.workspace(&caller.workspace)?;
            change.no_merge(&caller.workspace)?;
            let from = change.head_tree(&record.head)?;
            let target = change.begin(start, &caller.workspace, elsewhere)?;
            let record = WorkspaceRecord { head: target, ..record };
            change.put(Family::Workspaces, &keys.head(), Some(&record), Log::Told)?;
            let staged: Option<Staged> = change.read(Family::Workspaces, &keys.staged())?;
            if let Some(staged) = staged.filter(|staged| staged.onto.is_none()) {
                let staged = Staged { onto: Some(from), ..staged };
                change.put(Family::Workspaces, &keys.staged(), Some(&staged), Log::Silent)?;
            }
            let head = change.head(&record.head)?;
            let text = match &record.head {
                HeadTarget::Branch(branch) => format!("to branch {branch}"),
                HeadTarget::Detached(id) => format!("to {}", id.short()),
            };
            Ok(((from, change.head_tree(&record.head)?, head), text))
        })?;
        Ok(Switched { from, to, head, recorded })
    }

    /// Moves the head of the caller's workspace, and the branch it is on, to another snapshot. Gives up a merge that has begun, or
    /// a pick; a soft one is refused in a merge, and in a pick until all of it is decided, as in git.
    pub fn reset(&self, caller: &Caller, to: SnapshotId, kind: ResetKind) -> Result<Switched, VersionError> {
        let keys = WorkspaceKeys(&caller.workspace);
        let ((from, tree, head), recorded) = self.change(caller, "reset", |change| {
            let record = change.workspace(&caller.workspace)?;
            let from = change.head_tree(&record.head)?;
            let tree = change.look_at(to)?.tree;
            match kind {
                ResetKind::Soft => {
                    let staged: Option<Staged> = change.read(Family::Workspaces, &keys.staged())?;
                    let staged = match change.merging(&caller.workspace)? {
                        None => staged.map_or(from, |staged| staged.tree),
                        Some(merging) => {
                            let tree = merging.folder_tree(staged);
                            if merging.kind == MergingKind::Merge || !change.undecided(&merging, tree, &[])?.is_empty() {
                                return Err(VersionError::merge_waits(&caller.workspace, merging.kind));
                            }
                            change.put::<Merging>(Family::Workspaces, &keys.merging(), None, Log::Told)?;
                            tree
                        }
                    };
                    let staged = Some(Staged { tree: staged, onto: Some(tree) }).filter(|staged| staged.tree != tree);
                    change.put(Family::Workspaces, &keys.staged(), staged.as_ref(), Log::Told)?;
                }
                ResetKind::Mixed | ResetKind::Hard => {
                    change.put::<Staged>(Family::Workspaces, &keys.staged(), None, Log::Told)?;
                    change.put::<Merging>(Family::Workspaces, &keys.merging(), None, Log::Told)?;
                }
            }
            let target = change.move_head(&caller.workspace, &record, to)?;
            Ok(((from, tree, change.head(&target)?), format!("to {}", to.short())))
        })?;
        Ok(Switched { from, to: tree, head, recorded })
    }

    pub(crate) fn workspace_record(&self, name: &WorkspaceName) -> Result<WorkspaceRecord, VersionError> {
        let record = self.read_record(Family::Workspaces, &WorkspaceKeys(name).head())?;
        record.map_or_else(|| Err(self.no_workspace(name)), Ok)
    }

    /// Another workspace that is on a branch.
    pub(crate) fn holder(&self, branch: &BranchName, but: Option<&WorkspaceName>) -> Result<Option<WorkspaceName>, VersionError> {
        Ok(self.workspaces_on(branch)?.into_iter().find(|name| Some(name) != but))
    }

    /// The workspaces that are on a branch, by name.
    pub(crate) fn workspaces_on(&self, branch: &BranchName) -> Result<Vec<WorkspaceName>, VersionError> {
        let mut on_it = Vec::new();
        for name in self.workspace_names()? {
            let record: Option<WorkspaceRecord> = self.read_record(Family::Workspaces, &WorkspaceKeys(&name).head())?;
            if record.is_some_and(|record| record.head == HeadTarget::Branch(branch.clone())) {
                on_it.push(name);
            }
        }
        Ok(on_it)
    }

    fn no_workspace(&self, name: &WorkspaceName) -> VersionError {
        let names = self.workspace_names().unwrap_or_default();
        let nearest = nearest(name.as_str(), names.iter().map(WorkspaceName::as_str));
        VersionError::Unknown { kind: "workspace", name: name.to_string(), nearest }
    }

    pub(crate) fn head_of(&self, target: HeadTarget) -> Result<Head, VersionError> {
        let snapshot = match &target {
            HeadTarget::Branch(branch) => self.branch(branch)?,
            HeadTarget::Detached(id) => Some(*id),
        };
        Ok(Head { target, snapshot })
    }

    /// A record's value, not checked by any change.
    pub(crate) fn read_record<R: Record>(&self, family: Family, key: &[u8]) -> Result<Option<R>, VersionError> {
        self.store().record(family, key)?.map(|bytes| R::of(family, key, &bytes)).transpose()
    }

    /// Every record with this prefix, ascending.
    pub(crate) fn each_record(
        &self,
        family: Family,
        prefix: &[u8],
        mut act: impl FnMut(Bytes, Bytes) -> Result<(), VersionError>,
    ) -> Result<(), VersionError> {
        const AT_ONCE: usize = 1_024;
        let mut after: Option<Bytes> = None;
        loop {
            let found = self.store().records(family, prefix, after.as_deref(), AT_ONCE)?;
            let more = found.len() == AT_ONCE;
            after = found.last().map(|(key, _)| key.clone());
            found.into_iter().try_for_each(|(key, value)| act(key, value))?;
            if !more {
                return Ok(());
            }
        }
    }

    /// For changes that the operation log is not told of.
    pub(crate) fn silent_caller(&self, workspace: &WorkspaceName) -> Caller {
        let who = crate::Signature { name: String::new(), email: String::new(), time: Timestamp(0), offset_minutes: 0 };
        Caller { workspace: workspace.clone(), who, durability: Some(Durability::NoSync), committer: None }
    }
}

impl Transaction<'_> {
    pub(crate) fn workspace(&mut self, name: &WorkspaceName) -> Result<WorkspaceRecord, VersionError> {
        match self.read(Family::Workspaces, &WorkspaceKeys(name).head())? {
            Some(record) => Ok(record),
            None => Err(self.repository.no_workspace(name)),
        }
    }

    /// A branch's ref, as this change has it.
    pub(crate) fn branch(&mut self, branch: &BranchName) -> Result<Option<SnapshotId>, VersionError> {
        let key = ref_key(&RefName::branch(branch));
        Ok(self.read::<RefRecord>(Family::Refs, &key)?.map(|record| record.target))
    }

    /// Moves a branch, makes it, or removes it.
    pub(crate) fn set_branch(&mut self, branch: &BranchName, target: Option<SnapshotId>) -> Result<(), VersionError> {
        self.set_ref(&RefName::branch(branch), target.map(|target| RefRecord { target, annotation: None }).as_ref())
    }

    pub(crate) fn set_ref(&mut self, name: &RefName, record: Option<&RefRecord>) -> Result<(), VersionError> {
        self.put(Family::Refs, &ref_key(name), record, Log::Told)
    }

    pub(crate) fn head(&mut self, target: &HeadTarget) -> Result<Head, VersionError> {
        let snapshot = match target {
            HeadTarget::Branch(branch) => self.branch(branch)?,
            HeadTarget::Detached(id) => Some(*id),
        };
        Ok(Head { target: target.clone(), snapshot })
    }

    pub(crate) fn head_tree(&mut self, target: &HeadTarget) -> Result<ObjectId, VersionError> {
        match self.head(target)?.snapshot {
            Some(id) => Ok(self.look_at(id)?.tree),
            None => Ok(self.repository.empty_tree()),
        }
    }

    /// Moves a workspace's head to a snapshot: its branch, or the head itself where it is on none.
    pub(crate) fn move_head(
        &mut self,
        name: &WorkspaceName,
        record: &WorkspaceRecord,
        to: SnapshotId,
    ) -> Result<HeadTarget, VersionError> {
        match &record.head {
            HeadTarget::Branch(branch) => {
                self.set_branch(branch, Some(to))?;
                Ok(record.head.clone())
            }
            HeadTarget::Detached(_) => {
                let record = WorkspaceRecord { head: HeadTarget::Detached(to), ..record.clone() };
                self.put(Family::Workspaces, &WorkspaceKeys(name).head(), Some(&record), Log::Told)?;
                Ok(record.head)
            }
        }
    }

    pub(crate) fn merging(&mut self, name: &WorkspaceName) -> Result<Option<Merging>, VersionError> {
        self.read(Family::Workspaces, &WorkspaceKeys(name).merging())
    }

    pub(crate) fn no_merge(&mut self, name: &WorkspaceName) -> Result<(), VersionError> {
        match self.merging(name)? {
            None => Ok(()),
            Some(merging) => Err(VersionError::merge_waits(name, merging.kind)),
        }
    }

    /// Makes the branch where one is to be made, and says what the head is to be.
    fn begin(&mut self, start: &Start, workspace: &WorkspaceName, elsewhere: Elsewhere) -> Result<HeadTarget, VersionError> {
        let branch = match start {
            Start::Detached(id) => {
                self.look_at(*id)?;
                return Ok(HeadTarget::Detached(*id));
            }
            Start::NewBranch(branch, at) => {
                self.new_branch(branch, *at)?;
                branch
            }
            Start::Unborn(branch) => {
                if self.branch(branch)?.is_some() {
                    return Err(VersionError::Exists { kind: "branch", name: branch.to_string() });
                }
                branch
            }
            Start::Branch(branch) => {
                if self.branch(branch)?.is_none() && branch != self.repository.first_branch() {
                    return Err(self.repository.no_branch(branch));
                }
                branch
            }
        };
        if elsewhere == Elsewhere::Refuse
            && let Some(holder) = self.repository.holder(branch, Some(workspace))?
        {
            return Err(VersionError::HeldByWorkspace { branch: branch.to_string(), workspace: holder.to_string() });
        }
        Ok(HeadTarget::Branch(branch.clone()))
    }
}

pub(crate) fn ref_key(name: &RefName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}
