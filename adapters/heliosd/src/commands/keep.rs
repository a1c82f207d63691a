//! Changes that no commit has, before they are thrown away: they go into a snapshot that the operation log keeps.

use helix_protocol::Failure;
use helix_versions::{RefExpect, Snapshot, WorkingFolder, Workspace};

use crate::context::Context;
use crate::here::Here;

/// Keeps what committed files have become since, where they have become anything. `verb` is what throws it away.
pub fn keep(
    context: &mut Context<'_>,
    here: &Here,
    folder: &mut WorkingFolder,
    workspace: &Workspace,
    verb: &str,
) -> Result<(), Failure> {
    let _lease = here.lease();
    let index = here.index(workspace)?;
    let refreshed = folder.refresh(here.store(), Some(index))?;
    let staged = workspace.staged.is_some();
    if !staged && !refreshed.changes.iter().any(|change| change.before.is_some()) {
        return Ok(());
    }
    let caller = here.caller(context, None);
    let snapshot = Snapshot {
        tree: refreshed.tree,
        parents: workspace.head.snapshot.into_iter().collect(),
        author: caller.who.clone(),
        committer: caller.who.clone(),
        message: format!("kept before {verb}\n"),
        metadata: [("kept_before".to_owned(), verb.to_owned())].into(),
    };
    let mut batch = here.repository().batch();
    batch.objects(refreshed.objects);
    let id = batch.snapshot(snapshot);
    // The log has where this ref was before, so each of them stays as long as the log remembers.
    batch.set_ref(format!("refs/kept/{}", here.name()).parse()?, RefExpect::Anything, Some((id, None)));
    batch.write(&caller, "keep", &format!("{} before {verb}", id.short()))?;
    context.console.note(format!("hint: what no commit had is kept in {} until gc forgets it", id.short()))
}
