//! Branches and tags.

use helix_objects::Family;
use helix_protocol::SnapshotId;

use crate::{BranchName, VersionError};

use super::Repository;
use super::names::{HEADS, RefName, TAGS, nearest};
use super::records::{Annotation, HeadTarget, Record, RefRecord, WorkspaceKeys, WorkspaceRecord};
use super::transaction::{Caller, Log, Recorded, Transaction};
use super::workspaces::ref_key;

/// What to do where the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Fail with `Exists`.
    Refuse,
    /// Move it.
    Move,
}

/// What to do where a branch has snapshots that the head does not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmerged {
    /// Fail with `Unmerged`.
    Refuse,
    /// Let them go. The operation log keeps them for a while.
    Drop,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name, without `refs/tags/`.
    pub name: String,
    /// The snapshot it names.
    pub target: SnapshotId,
    /// Who made it and why, for an annotated tag.
    pub annotation: Option<Annotation>,
}

impl Repository {
    /// A branch's snapshot; `None` where there is no such branch.
    pub fn branch(&self, name: &BranchName) -> Result<Option<SnapshotId>, VersionError> {
        self.ref_target(&RefName::branch(name))
    }

    /// The snapshot a ref names; `None` where there is no such ref.
    pub fn ref_target(&self, name: &RefName) -> Result<Option<SnapshotId>, VersionError> {
        let record: Option<RefRecord> = self.read_record(Family::Refs, name.as_str().as_bytes())?;
        Ok(record.map(|record| record.target))
    }

    /// The branches, by name.
    pub fn branches(&self) -> Result<Vec<(BranchName, SnapshotId)>, VersionError> {
        let refs = self.refs(HEADS)?;
        Ok(refs.into_iter().filter_map(|(name, target)| Some((name.as_branch()?, target))).collect())
    }

    /// The refs whose full names begin with `prefix`, by name.
    pub fn refs(&self, prefix: &str) -> Result<Vec<(RefName, SnapshotId)>, VersionError> {
        let mut refs = Vec::new();
        self.each_record(Family::Refs, prefix.as_bytes(), |key, value| {
            let record = RefRecord::of(Family::Refs, &key, &value)?;
            refs.extend(RefName::from_key(&key).map(|name| (name, record.target)));
            Ok(())
        })?;
        Ok(refs)
    }

    /// Makes a branch at a snapshot. Moving one that a workspace is on is refused.
    pub fn create_branch(
        &self,
        caller: &Caller,
        name: &BranchName,
        at: SnapshotId,
        existing: Existing,
    ) -> Result<Recorded, VersionError> {
        let made = self.change(caller, "branch", |change| {
            if existing == Existing::Move && change.branch(name)?.is_some() {
                self.not_held(name)?;
                change.look_at(at)?;
                change.set_branch(name, Some(at))?;
            } else {
                change.new_branch(name, at)?;
            }
            Ok(((), format!("{name} at {}", at.short())))
        })?;
        Ok(made.1)
    }

    /// Gives a branch another name; workspaces that are on it stay on it.
    pub fn rename_branch(
        &self,
        caller: &Caller,
        from: &BranchName,
        to: &BranchName,
        existing: Existing,
    ) -> Result<Recorded, VersionError> {
        let renamed = self.change(caller, "branch rename", |change| {
            let target = change.branch(from)?;
            let on_it: Vec<_> = self.workspaces_on(from)?;
            if target.is_none() && on_it.is_empty() {
                return Err(self.no_branch(from));
            }
            if from != to {
                if change.branch(to)?.is_some() {
                    if existing == Existing::Refuse {
                        return Err(VersionError::Exists { kind: "branch", name: to.to_string() });
                    }
                    self.not_held(to)?;
                }
                change.set_branch(from, None)?;
                change.set_branch(to, target)?;
                for name in on_it {
                    let record = WorkspaceRecord { head: HeadTarget::Branch(to.clone()), ..change.workspace(&name)? };
                    change.put(Family::Workspaces, &WorkspaceKeys(&name).head(), Some(&record), Log::Told)?;
                }
            }
            Ok(((), format!("{from} is now {to}")))
        })?;
        Ok(renamed.1)
    }

    /// Removes a branch and says where it was. Refused while a workspace is on it.
    pub fn delete_branch(
        &self,
        caller: &Caller,
        name: &BranchName,
        unmerged: Unmerged,
    ) -> Result<(SnapshotId, Recorded), VersionError> {
        self.change(caller, "branch delete", |change| {
            let Some(target) = change.branch(name)? else { return Err(self.no_branch(name)) };
            self.not_held(name)?;
            if unmerged == Unmerged::Refuse {
                let head = change.workspace(&caller.workspace)?.head;
                let merged = change.head(&head)?.snapshot.map(|head| self.is_ancestor(target, head)).transpose()?;
                if merged != Some(true) {
                    return Err(VersionError::Unmerged(name.to_string()));
                }
            }
            change.set_branch(name, None)?;
            Ok((target, format!("{name}, which was at {}", target.short())))
        })
    }

    /// The tags, by name.
    pub fn tags(&self) -> Result<Vec<Tag>, VersionError> {
        let mut tags = Vec::new();
        self.each_record(Family::Refs, TAGS.as_bytes(), |key, value| {
            let RefRecord { target, annotation } = RefRecord::of(Family::Refs, &key, &value)?;
            tags.extend(RefName::from_key(&key).map(|name| Tag { name: name.short().to_owned(), target, annotation }));
            Ok(())
        })?;
        Ok(tags)
    }

    /// A tag; `None` where there is none of that name.
    pub fn tag(&self, name: &BranchName) -> Result<Option<Tag>, VersionError> {
        let record: Option<RefRecord> = self.read_record(Family::Refs, RefName::tag(name).as_str().as_bytes())?;
        Ok(record.map(|RefRecord { target, annotation }| Tag { name: name.to_string(), target, annotation }))
    }

    /// Makes a tag; with an annotation an annotated one.
    pub fn create_tag(
        &self,
        caller: &Caller,
        name: &BranchName,
        target: SnapshotId,
        annotation: Option<&Annotation>,
        existing: Existing,
    ) -> Result<Recorded, VersionError> {
        let name = RefName::tag(name);
        let made = self.change(caller, "tag", |change| {
            change.look_at(target)?;
            if existing == Existing::Refuse && change.raw(Family::Refs, &ref_key(&name))?.is_some() {
                return Err(VersionError::Exists { kind: "tag", name: name.short().to_owned() });
            }
            change.set_ref(&name, Some(&RefRecord { target, annotation: annotation.cloned() }))?;
            Ok(((), format!("{} at {}", name.short(), target.short())))
        })?;
        Ok(made.1)
    }

    /// Removes a tag and says where it was.
    pub fn delete_tag(&self, caller: &Caller, name: &BranchName) -> Result<(SnapshotId, Recorded), VersionError> {
        let name = RefName::tag(name);
        self.change(caller, "tag delete", |change| {
            let Some(record) = change.read::<RefRecord>(Family::Refs, &ref_key(&name))? else {
                let tags = self.tags()?;
                let nearest = nearest(name.short(), tags.iter().map(|tag| tag.name.as_str()));
                return Err(VersionError::Unknown { kind: "tag", name: name.short().to_owned(), nearest });
            };
            change.set_ref(&name, None)?;
            Ok((record.target, format!("{}, which was at {}", name.short(), record.target.short())))
        })
    }

    pub(crate) fn no_branch(&self, name: &BranchName) -> VersionError {
        let branches = self.branches().unwrap_or_default();
        let nearest = nearest(name.as_str(), branches.iter().map(|(name, _)| name.as_str()));
        VersionError::Unknown { kind: "branch", name: name.to_string(), nearest }
    }

    fn not_held(&self, branch: &BranchName) -> Result<(), VersionError> {
        match self.holder(branch, None)? {
            None => Ok(()),
            Some(workspace) => Err(VersionError::HeldByWorkspace { branch: branch.to_string(), workspace: workspace.to_string() }),
        }
    }
}

impl Transaction<'_> {
    /// Makes a branch that must not exist. As in git, a branch cannot be a folder of another: `a` and `a/b` exclude each other.
    pub(crate) fn new_branch(&mut self, name: &BranchName, at: SnapshotId) -> Result<(), VersionError> {
        self.look_at(at)?;
        if self.branch(name)?.is_some() {
            return Err(VersionError::Exists { kind: "branch", name: name.to_string() });
        }
        let text = name.as_str();
        for (place, _) in text.match_indices('/') {
            let above: BranchName = text[..place].parse().expect("a part of a branch's name is one");
            if self.branch(&above)?.is_some() {
                return Err(VersionError::Exists { kind: "branch", name: above.to_string() });
            }
        }
        let beneath = format!("{HEADS}{text}/");
        if let Some((key, _)) = self.repository.store().records(Family::Refs, beneath.as_bytes(), None, 1)?.first() {
            let name = String::from_utf8_lossy(&key[HEADS.len()..]).into_owned();
            return Err(VersionError::Exists { kind: "branch", name });
        }
        self.set_branch(name, Some(at))
    }
}
