//! What differs between two trees of a line of steps, with what an export of the line would leave out.

use std::collections::HashSet;
use std::sync::Arc;

use helix_database::RecordStore;
use helix_messages::{DiffTrees, FileDiff, LineToExport};
use helix_objects::ObjectStore;
use helix_protocol::{ChangeKind, Code, Failure, ObjectId, SnapshotId, StepSummary};
use helix_versions::Snapshot;
use helix_versions::git::{self, Line};

/// Every path that differs, with its patch.
pub(super) async fn diff(
    records: &dyn RecordStore,
    objects: Arc<dyn ObjectStore>,
    what: DiffTrees,
) -> Result<Vec<FileDiff>, Failure> {
    let line = match what.export.head {
        Some(head) => records.lineage(head).await?,
        None => Vec::new(),
    };
    tokio::task::spawn_blocking(move || compare(&*objects, &what, &line))
        .await
        .map_err(|_| Failure::new(Code::Internal, "comparing two trees panicked"))?
}

fn compare(objects: &dyn ObjectStore, what: &DiffTrees, line: &[StepSummary]) -> Result<Vec<FileDiff>, Failure> {
    let tree = |id| Snapshot::load(objects, SnapshotId(id)).map_or(id, |snapshot| snapshot.tree);
    let (from, to) = (what.from.map(tree), tree(what.to));
    let changes = helix_versions::diff_entries(objects, from, to)?;
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let (before, after) = left_out(objects, &what.export, line, from, to)?;
    changes
        .iter()
        .map(|change| {
            let described = change.describe();
            let its = if described.kind == ChangeKind::Removed { &before } else { &after };
            let left_out = its.has(&described.path);
            let patch = if left_out && !what.all { String::new() } else { git::patch(objects, change)? };
            Ok(FileDiff { change: described, patch, left_out })
        })
        .collect()
}

/// What an export leaves out of the older and of the newer tree.
fn left_out(
    objects: &dyn ObjectStore,
    export: &LineToExport,
    line: &[StepSummary],
    from: Option<ObjectId>,
    to: ObjectId,
) -> Result<(LeftOut, LeftOut), Failure> {
    let mut trees = Vec::new();
    let mut steps = line;
    if let Some(carried) = &export.carried {
        trees.push(Snapshot::load(objects, carried.files)?.tree);
        steps = &line[line.iter().position(|step| step.id == carried.after).map_or(0, |place| place + 1)..];
    }
    trees.extend(steps.iter().filter(|step| step.files_changed > 0).map(|step| step.tree));
    // What the line began with is exported with its first step, if at all.
    if let Some(from) = from.filter(|from| !trees.contains(from)) {
        trees.insert(0, from);
    }
    if !trees.contains(&to) {
        trees.push(to);
    }
    let of = |repository| {
        let line = Line { repository, parent: export.parent.as_deref(), trees: &trees };
        git::left_out(objects, &line).map_err(Failure::from)
    };
    let lists = of(export.repository.as_deref()).or_else(|failure| {
        // It may have been moved or removed; the trees have rules of their own.
        tracing::debug!(%failure, "the repository's rules cannot be read");
        of(None)
    })?;
    let list = |tree: ObjectId| {
        let place = trees.iter().rposition(|known| *known == tree);
        LeftOut(place.map(|place| lists[place].iter().cloned().collect()).unwrap_or_default())
    };
    Ok((from.map(list).unwrap_or_default(), list(to)))
}

/// Paths, and folders with a `/` behind them.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut(HashSet<String>);

impl LeftOut {
    fn has(&self, path: &str) -> bool {
        let above = path.match_indices('/').any(|(at, _)| self.0.contains(&path[..=at]) || self.0.contains(&path[..at]));
        above || self.0.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_left_out_takes_what_lies_in_it_along() {
        let left_out = LeftOut(["build/", "web/a.map", "nested/.git"].map(str::to_owned).into());
        for path in ["build/out", "build/deep/out", "web/a.map", "nested/.git/config"] {
            assert!(left_out.has(path), "{path}");
        }
        for path in ["build", "web/a.map2", "rebuild/out", "web/b"] {
            assert!(!left_out.has(path), "{path}");
        }
    }
}
