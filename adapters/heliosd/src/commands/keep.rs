//! Changes that no commit has, before they are thrown away: they go into a snapshot that the operation log keeps.

use helix_protocol::{Failure, ObjectId};
use helix_versions::{RefExpect, Snapshot, WorkingFolder, Workspace};

use crate::context::Context;
use crate::here::Here;

/// The folder of a workspace whose changes are about to be thrown away.
pub struct Doomed<'a> {
    /// Where it is.
    pub here: &'a Here,
    /// Its files.
    pub folder: &'a mut WorkingFolder,
    /// The workspace before.
    pub workspace: &'a Workspace,
    /// What throws them away.
    pub verb: &'a str,
    /// The tree that was looked at already.
    pub seen: Option<ObjectId>,
}

/// Keeps what committed files have become since, where they have become anything that was not seen yet. To be called before the head moves,
/// so that `undo` finds that as the last thing done, and again right before the files are overwritten, since others may be
/// writing them.
pub fn keep(context: &mut Context<'_>, doomed: &mut Doomed<'_>) -> Result<(), Failure> {
    let Doomed { here, folder, workspace, verb, seen } = doomed;
    let _lease = here.lease();
    let index = here.index(workspace)?;
    let refreshed = folder.refresh(here.store(), Some(index))?;
    let staged = workspace.staged.is_some();
    let changed = staged || refreshed.changes.iter().any(|change| change.before.is_some());
    if seen.replace(refreshed.tree) == Some(refreshed.tree) || !changed {
        return Ok(());
    }
    let caller = here.caller(context, None);
    let snapshot = Snapshot {
        tree: refreshed.tree,
        parents: workspace.head.snapshot.into_iter().collect(),
        author: caller.who.clone(),
        committer: caller.who.clone(),
        message: format!("kept before {verb}\n"),
        metadata: [("kept_before".to_owned(), verb.to_string())].into(),
    };
    let mut batch = here.repository().batch();
    batch.objects(refreshed.objects);
    let id = batch.snapshot(snapshot);
    // The log has where this ref was before, so each of them stays as long as the log remembers.
    batch.set_ref(format!("refs/kept/{}", here.name()).parse()?, RefExpect::Anything, Some((id, None)));
    batch.write(&caller, "keep", &format!("{} before {verb}", id.short()))?;
    context.console.note(format!("hint: what no commit had is kept in {} until gc forgets it", id.short()))
}
