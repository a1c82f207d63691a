//! What becomes of refs when histories meet: each is moved forward or left where it is, and what happened is said.

use std::collections::BTreeMap;

use gix::ObjectId as GitId;
use gix::hashtable::HashMap as IdMap;
use gix::objs::Kind;
use helix_protocol::SnapshotId;

use super::history_import::Peeled;
use super::map::{GitMap, GitRefs, GitTarget};
use crate::{Annotation, BranchName, RefName, Repository, VersionError};

/// A branch or tag and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefReport {
    /// Its full name, as people see it.
    pub name: String,
    /// What was done.
    pub outcome: RefOutcome,
    /// Where both sides have gone on, or name different things: git's commit in hexadecimal, where it is known here.
    pub theirs: Option<String>,
}

/// What became of a branch or tag on the side that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefOutcome {
    /// It was made.
    Created,
    /// It was moved forward.
    Forwarded,
    /// It is there already.
    Unchanged,
    /// The side written to is ahead, so it was left.
    Ahead,
    /// Both sides have commits the other has not, so it was left. Merging them on one side makes them meet.
    Diverged,
    /// It was removed on this side since the last time, and was not moved on the other; left so.
    Removed,
    /// It is kept for export, but is no branch or tag here: what it names is no commit, or its name cannot be one here.
    Kept,
    /// A branch cannot be made beneath another one, nor where others are beneath it, so it was left.
    InTheWay {
        /// The full name that is there.
        name: String,
    },
    /// A worktree of the git repository has the branch checked out, so it was left.
    CheckedOut {
        /// Where.
        worktree: String,
    },
}

/// How the two ends of a ref stand to each other.
pub(super) enum Relation {
    Same,
    /// The first is an ancestor of the second.
    Forward,
    /// The second is an ancestor of the first.
    Backward,
    Diverged,
}

pub(super) fn relate(repository: &Repository, now: SnapshotId, wanted: SnapshotId) -> Result<Relation, VersionError> {
    Ok(if now == wanted {
        Relation::Same
    } else if repository.is_ancestor(now, wanted)? {
        Relation::Forward
    } else if repository.is_ancestor(wanted, now)? {
        Relation::Backward
    } else {
        Relation::Diverged
    })
}

/// Refs to be made or moved here: from where, to where.
pub(super) type RefMoves = Vec<(RefName, Option<SnapshotId>, (SnapshotId, Option<Annotation>))>;

/// A full name that can be a branch or a tag here.
pub(super) fn as_ref_name(name: &[u8]) -> Option<RefName> {
    let text = std::str::from_utf8(name).ok()?;
    let short = text.strip_prefix("refs/heads/").or_else(|| text.strip_prefix("refs/tags/"))?;
    // Short names that look like ids or HEAD would be taken for those.
    short.parse::<BranchName>().ok()?;
    text.parse().ok()
}

/// Whether what was removed here since the last time is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovedHere {
    Restore,
    Leave,
}

/// Decides for each of git's refs what is done here.
pub(super) fn plan_refs(
    repository: &Repository,
    last: &GitRefs,
    refs: &GitRefs,
    peeled: &IdMap<GitId, Peeled>,
    annotations: &BTreeMap<GitId, Annotation>,
    removed: RemovedHere,
) -> Result<(Vec<RefReport>, RefMoves), VersionError> {
    let (mut reports, mut moves) = (Vec::new(), RefMoves::new());
    for (name, target) in refs.iter().filter(|(name, _)| name.as_slice() != b"HEAD") {
        let shown = String::from_utf8_lossy(name).into_owned();
        let object = resolve(refs, target);
        let commit = object.and_then(|id| peeled.get(&id).filter(|peeled| peeled.kind == Kind::Commit));
        let (Some(ref_name), Some(commit), Some(object)) = (as_ref_name(name), commit, object) else {
            reports.push(RefReport { name: shown, outcome: RefOutcome::Kept, theirs: None });
            continue;
        };
        let wanted = SnapshotId(commit.ours);
        let now = repository.ref_target(&ref_name)?;
        let outcome = match now {
            None if removed == RemovedHere::Leave && last.get(name) == Some(target) => RefOutcome::Removed,
            None => match in_the_way(repository, &ref_name)? {
                Some(name) => RefOutcome::InTheWay { name },
                None => RefOutcome::Created,
            },
            Some(now) => match relate(repository, now, wanted)? {
                Relation::Same => RefOutcome::Unchanged,
                Relation::Forward => RefOutcome::Forwarded,
                Relation::Backward => RefOutcome::Ahead,
                Relation::Diverged => RefOutcome::Diverged,
            },
        };
        let theirs = (outcome == RefOutcome::Diverged).then(|| commit.git.to_string());
        if matches!(outcome, RefOutcome::Created | RefOutcome::Forwarded) {
            moves.push((ref_name, now, (wanted, annotations.get(&object).cloned())));
        }
        reports.push(RefReport { name: shown, outcome, theirs });
    }
    Ok((reports, moves))
}

/// The branch because of which there cannot be this one.
fn in_the_way(repository: &Repository, wanted: &RefName) -> Result<Option<String>, VersionError> {
    let Some(branch) = wanted.as_branch() else { return Ok(None) };
    for (slash, _) in branch.as_str().match_indices('/') {
        let above = RefName::branch(&branch.as_str()[..slash].parse()?);
        if repository.ref_target(&above)?.is_some() {
            return Ok(Some(above.as_str().to_owned()));
        }
    }
    let beneath = repository.refs(&format!("{}/", wanted.as_str()))?;
    Ok(beneath.first().map(|(name, _)| name.as_str().to_owned()))
}

/// Git's refs as they are to be remembered: as they are now, and those that were removed in git while ours stayed where they were,
/// so that they are not made again there.
pub(super) fn remembered(repository: &Repository, map: &GitMap, mut now: GitRefs) -> Result<GitRefs, VersionError> {
    for (name, target) in &map.refs {
        let GitTarget::Object(id) = target else { continue };
        let Some(ref_name) = as_ref_name(name).filter(|_| !now.contains_key(name)) else { continue };
        let last = map.peel(*id).filter(|row| row.kind == Kind::Commit).map(|row| SnapshotId(row.ours));
        if last.is_some() && repository.ref_target(&ref_name)? == last {
            now.insert(name.clone(), target.clone());
        }
    }
    Ok(now)
}

/// The object a ref leads to, through other refs.
pub(super) fn resolve(refs: &GitRefs, target: &GitTarget) -> Option<GitId> {
    let mut target = target;
    for _ in 0..8 {
        match target {
            GitTarget::Object(id) => return Some(*id),
            GitTarget::Ref(name) => target = refs.get(name)?,
        }
    }
    None
}
