//! A line of steps goes out as a git branch: one commit for each step that changed a file.

use std::sync::Arc;

use helix_database::RecordStore;
use helix_messages::{Carried, ExportGit, Exported};
use helix_objects::ObjectStore;
use helix_protocol::{Base, Code, Failure, StepSummary};
use helix_versions::git::{self, BranchAt, Export, ExportCommit};
use helix_versions::{BranchName, Signature, Snapshot, VersionError};

/// Branches below this prefix are ours: exporting a task again may move them. Others are only ever made.
const OURS: &str = "helix/";

/// Reads the line from the records and writes it as commits.
pub(super) async fn export(records: &dyn RecordStore, objects: Arc<dyn ObjectStore>, what: ExportGit) -> Result<Exported, Failure> {
    let line = records.lineage(what.head).await?;
    if line.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("there is no step {}", what.head)));
    }
    // What was carried onto the parent has it all.
    let base = if what.carried.is_some() { None } else { base(records, &*objects, &line[0]).await? };
    tokio::task::spawn_blocking(move || write(&*objects, &what, base.as_ref(), &line))
        .await
        .map_err(|_| Failure::new(Code::Internal, "writing a git branch panicked"))?
}

fn write(
    objects: &dyn ObjectStore,
    what: &ExportGit,
    base: Option<&ExportCommit>,
    line: &[StepSummary],
) -> Result<Exported, Failure> {
    let branch: BranchName = what.branch.parse()?;
    let mut commits = Vec::new();
    let mut line = line;
    if let Some(carried) = &what.carried {
        let made = line.iter().position(|step| step.id == carried.after).map_or(0, |place| place + 1);
        commits.push(carried_over(objects, carried, &line[..made])?);
        line = &line[made..];
    }
    commits.extend(line.iter().filter(|step| step.files_changed > 0).map(commit));
    if commits.is_empty() {
        return Err(Failure::new(Code::InvalidState, "no step of this line changed a file, so there is nothing to export")
            .hint("`helix task steps` shows which steps changed files"));
    }
    let export = |expected| {
        let parent = what.parent.as_deref();
        git::export(objects, &Export { repository: &what.repository, branch: &branch, expected, parent, base, commits: &commits })
    };
    let exported = match export(BranchAt::Nowhere) {
        Err(VersionError::BranchMoved { .. }) if what.branch.starts_with(OURS) => export(BranchAt::Anywhere)?,
        other => other?,
    };
    Ok(Exported { branch: what.branch.clone(), git_commit: exported.head, commits: exported.commits.len() as u64 })
}

/// What a task began with, of which the parent may lack something: changes that no commit had, or what another task made.
async fn base(records: &dyn RecordStore, objects: &dyn ObjectStore, first: &StepSummary) -> Result<Option<ExportCommit>, Failure> {
    let begun = records.task(first.task).await?.map(|task| task.spec.base);
    let tree = match begun {
        Some(Base::Snapshot { snapshot, .. }) => Some(Snapshot::load(objects, snapshot)?.tree),
        Some(Base::Task { task }) => match records.task(task).await?.and_then(|task| task.head) {
            Some(head) => records.step(head).await?.map(|record| record.step.tree),
            None => None,
        },
        Some(Base::Empty) | None => None,
    };
    let message = format!("What the task began with and no commit had\n\nHelix-Task: {}\n", first.task);
    Ok(tree.map(|tree| ExportCommit { tree, message, author: author(first) }))
}

/// What was carried onto the parent, as one commit of the time of the last step in it.
fn carried_over(objects: &dyn ObjectStore, carried: &Carried, line: &[StepSummary]) -> Result<ExportCommit, Failure> {
    let tree = Snapshot::load(objects, carried.files)?.tree;
    let Some(last) = line.last() else {
        return Err(Failure::new(Code::InvalidState, format!("step {} is not on this line", carried.after)));
    };
    Ok(ExportCommit { tree, message: format!("{}\n\n{}", carried.title, trailers(last)), author: author(last) })
}

/// The same step is the same commit whenever it is exported: nothing in it depends on today.
fn commit(step: &StepSummary) -> ExportCommit {
    ExportCommit { tree: step.tree, message: format!("{}\n\n{}", step.summary, trailers(step)), author: author(step) }
}

fn trailers(step: &StepSummary) -> String {
    format!("Helix-Task: {}\nHelix-Step: {}\nHelix-Epoch: {}\n", step.task, step.id, step.epoch)
}

fn author(step: &StepSummary) -> Signature {
    Signature { name: "Helix".to_owned(), email: "helix@localhost".to_owned(), time: step.committed_at, offset_minutes: 0 }
}
