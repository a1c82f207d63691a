//! Work is carried onto a newer commit of its repository.

use helix_messages::{RebaseGit, Rebased};
use helix_objects::{Durability, ObjectStore};
use helix_protocol::{Code, Failure, ObjectId, Timestamp};
use helix_versions::git::{self, Imported};
use helix_versions::{Signature, Snapshot, VersionError};

/// Reads the commit into the store, merges the work with it, and syncs both.
pub(super) fn rebase(objects: &dyn ObjectStore, what: &RebaseGit) -> Result<Rebased, Failure> {
    let revision = what.onto.as_deref().unwrap_or("HEAD");
    let onto = git::import_commit(objects, &what.repository, revision)?;
    let git_commit = onto.commit.clone().expect("an imported commit has an id");
    if what.from.as_deref() == Some(&git_commit) {
        let message = format!("the work is on {} of {} already", &git_commit[..12], onto.root.display());
        return Err(Failure::new(Code::InvalidState, message).hint("commit there first, or name another commit with `--onto`"));
    }
    let base = base(objects, what)?;
    let label = format!("{revision} ({})", &git_commit[..12]);
    let merged = helix_versions::merge(objects, base, (what.ours, &what.label), (onto.tree, &label))?;
    let snapshot = Snapshot { message: format!("{} on {label}", what.label), ..snapshot_of(merged.tree, &onto) };
    let (merged_snapshot, mark) = helix_versions::write_snapshot(objects, &snapshot, Durability::NoSync)?;
    objects.sync(onto.mark.max(merged.mark).max(mark))?;
    let moved = helix_versions::diff_entries(objects, Some(base), onto.tree)?.len() as u64;
    Ok(Rebased { git_commit, onto: onto.snapshot, merged: merged_snapshot, conflicts: merged.conflicts, moved })
}

/// What both sides are compared with: the old commit's files. Changes that were not committed when the work began are part of the
/// work, so the snapshot it began with is the second choice.
fn base(objects: &dyn ObjectStore, what: &RebaseGit) -> Result<ObjectId, Failure> {
    if let Some(from) = &what.from {
        match git::import_commit(objects, &what.repository, from) {
            Err(VersionError::NoSuchCommit { .. }) => {}
            found => return Ok(found?.tree),
        }
    }
    match what.base {
        Some(base) => Ok(Snapshot::load(objects, base)?.tree),
        None => Err(Failure::new(Code::InvalidState, "what the work began with is not known").hint("fork it instead")),
    }
}

fn snapshot_of(tree: ObjectId, onto: &Imported) -> Snapshot {
    let helix =
        Signature { name: "helix".to_owned(), email: "helix@localhost".to_owned(), time: Timestamp::now(), offset_minutes: 0 };
    Snapshot {
        tree,
        parents: vec![onto.snapshot],
        author: helix.clone(),
        committer: helix,
        message: String::new(),
        metadata: onto.commit.iter().map(|commit| ("git.commit".to_owned(), commit.clone())).collect(),
    }
}
