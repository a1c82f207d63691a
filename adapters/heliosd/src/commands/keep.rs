//! Changes that no commit has, before they are thrown away: they go into a snapshot that the operation log keeps.

use helix_objects::Durability;
use helix_protocol::{Failure, FileMode, ObjectId, SnapshotId};
use helix_versions::{EntryChange, RefExpect, RefName, Snapshot, Staged, WorkingFolder, Workspace, entry_at};

use crate::context::Context;
use crate::here::Here;
use crate::render::path;

/// The folder of a workspace of which files are about to be overwritten.
pub struct Doomed<'a> {
    /// Where it is.
    pub here: &'a Here,
    /// The workspace before.
    pub workspace: &'a Workspace,
    /// What throws them away.
    pub verb: &'a str,
    /// The tree that the files came of.
    pub base: ObjectId,
    /// The tree that they are to become.
    pub to: ObjectId,
    /// Which files those are.
    pub reach: Reach<'a>,
    /// What was seen already.
    pub seen: Option<Kept>,
}

/// Which files are overwritten.
pub enum Reach<'a> {
    /// Those of either tree.
    All,
    /// Those at these paths alone, ascending.
    Paths(&'a [Vec<u8>]),
}

/// What the folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The tree to go back to.
    pub tree: ObjectId,
    /// Where files would be lost; of one beneath a folder that is to be a file, the folder.
    pub lost: Vec<Vec<u8>>,
}

/// Keeps what no commit has and what would be overwritten, untracked files and what is staged too. To be called before the head
/// moves, and again right before the files are overwritten, since others may be writing them.
pub fn keep(context: &mut Context<'_>, folder: &mut WorkingFolder, doomed: &mut Doomed<'_>) -> Result<Kept, Failure> {
    let _lease = doomed.here.lease();
    let refreshed = folder.refresh(doomed.here.store(), Some(doomed.carried()?))?;
    let mut lost = Vec::new();
    for change in &refreshed.changes {
        lost.extend(doomed.loss(change)?);
    }
    // The folder may have the last copy of what was purged, although it is as it was committed.
    for path in folder.holding(&doomed.here.store().purged()?) {
        let had = entry_at(doomed.here.store(), doomed.base, &path)?.map(|entry| (entry.mode, entry.id));
        let wanted = entry_at(doomed.here.store(), doomed.to, &path)?.map(|entry| (entry.mode, entry.id));
        if had.is_some() && had != wanted && doomed.reach.covers(&path) && !lost.contains(&path) {
            lost.push(path);
        }
    }
    for skipped in &refreshed.skipped {
        if doomed.overwrites(skipped.path.as_bytes())? {
            let text = "is overwritten and cannot be kept: it is too large or cannot be read";
            context.console.note(format!("warning: {} {text}", skipped.path))?;
        }
    }
    let is_any = is_any_staged(doomed.workspace) || !lost.is_empty();
    let kept = Kept { tree: if is_any { refreshed.tree } else { doomed.base }, lost };
    if doomed.seen.replace(kept.clone()).as_ref() == Some(&kept) || !is_any {
        return Ok(kept);
    }
    let Doomed { here, workspace, verb, .. } = doomed;
    let caller = here.caller(context, None);
    let snapshot = |tree: ObjectId, parents: Vec<SnapshotId>, what: &str| Snapshot {
        tree,
        parents,
        author: caller.who.clone(),
        committer: caller.who.clone(),
        message: format!("{what} before {verb}\n"),
        metadata: [("kept_before".to_owned(), verb.to_string())].into(),
    };
    let mut batch = here.repository().batch();
    batch.objects(refreshed.objects);
    let mut parents: Vec<SnapshotId> = workspace.head.snapshot.into_iter().collect();
    // What was staged and edited since stands behind it, as in a stash of git's.
    if let Some(staged) = workspace.staged.filter(|staged| is_any_staged(workspace) && staged.tree != refreshed.tree) {
        let staged = batch.snapshot(snapshot(staged.tree, parents.clone(), "staged"));
        parents.push(staged);
    }
    let id = batch.snapshot(snapshot(refreshed.tree, parents, "kept"));
    // The log has where this ref was before, so each of them stays as long as the log remembers.
    batch.set_ref(RefName::kept(here.name()), RefExpect::Anything, Some((id, None)));
    batch.write(&caller, "keep", &format!("{} before {verb}", id.short()))?;
    context.console.note(format!("hint: what no commit had is kept in {} until gc forgets it", id.short()))?;
    Ok(kept)
}

/// Whether somebody staged something; of a merge, something else than came of it.
fn is_any_staged(workspace: &Workspace) -> bool {
    let of_nobody = |staged: &Staged| workspace.merging.as_ref().map_or(staged.onto, |merging| Some(merging.tree));
    workspace.staged.is_some_and(|staged| Some(staged.tree) != of_nobody(&staged))
}

impl Doomed<'_> {
    /// What is looked at in the folder also where it is ignored: what is staged, and what the head has beside that.
    fn carried(&self) -> Result<ObjectId, Failure> {
        let head = self.here.repository().tree_of(&self.workspace.head)?;
        if head == self.base {
            return Ok(head);
        }
        let mut fresh = self.here.with_fresh(Vec::new());
        let tree = fresh.overlay(head, self.base, b"")?;
        self.here.store().put(&fresh.into_objects(), Durability::NoSync)?;
        Ok(tree)
    }

    /// Where a change is lost: at its path, or where a folder above it is to be a file. A file that was
    /// removed has nothing to lose.
    fn loss(&self, change: &EntryChange) -> Result<Option<Vec<u8>>, Failure> {
        let Some(now) = change.after.as_ref().filter(|now| now.mode != FileMode::Directory) else { return Ok(None) };
        if !self.reach.covers(&change.path) {
            return Ok(None);
        }
        let lost = match entry_at(self.here.store(), self.to, &change.path)? {
            Some(wanted) => (wanted.mode, wanted.id) != (now.mode, now.id),
            None if change.before.is_some() => true,
            None => return self.file_above(&change.path),
        };
        Ok(lost.then(|| change.path.clone()))
    }

    /// Whether a file that cannot be read into a snapshot is overwritten.
    fn overwrites(&self, path: &[u8]) -> Result<bool, Failure> {
        let there = |tree| entry_at(self.here.store(), tree, path).map(|entry| entry.is_some());
        Ok(self.reach.covers(path) && (there(self.base)? || there(self.to)? || self.file_above(path)?.is_some()))
    }

    /// The part of a path that is to be a file or a link.
    fn file_above(&self, path: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        for (cut, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            match entry_at(self.here.store(), self.to, &path[..cut])? {
                Some(entry) if entry.mode != FileMode::Directory => return Ok(Some(path[..cut].to_owned())),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl Reach<'_> {
    /// Whether a path is one of these, beneath one, or above one.
    fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|one| path::is_beneath(path, one) || path::is_beneath(one, path)),
        }
    }
}
