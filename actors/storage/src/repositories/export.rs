//! A line of steps goes out as a git branch: one commit for each step that changed a file.

use std::sync::Arc;

use helix_database::RecordStore;
use helix_messages::{ExportGit, Exported};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, StepSummary};
use helix_versions::git::{self, BranchAt, Export, ExportCommit};
use helix_versions::{BranchName, Signature, VersionError};

/// Branches below this prefix are ours: exporting a task again may move them. Others are only ever made.
const OURS: &str = "helix/";

/// Reads the line from the records and writes it as commits.
pub(super) async fn export(
    records: &dyn RecordStore,
    objects: Arc<dyn ObjectStore>,
    what: ExportGit,
) -> Result<Exported, Failure> {
    let line = records.lineage(what.head).await?;
    if line.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("there is no step {}", what.head)));
    }
    tokio::task::spawn_blocking(move || write(&*objects, &what, &line))
        .await
        .map_err(|_| Failure::new(Code::Internal, "writing a git branch panicked"))?
}

fn write(objects: &dyn ObjectStore, what: &ExportGit, line: &[StepSummary]) -> Result<Exported, Failure> {
    let branch: BranchName = what.branch.parse()?;
    let commits: Vec<ExportCommit> = line.iter().filter(|step| step.files_changed > 0).map(commit).collect();
    if commits.is_empty() {
        return Err(Failure::new(Code::InvalidState, "no step of this line changed a file, so there is nothing to export"));
    }
    let export = |expected| {
        let parent = what.parent.as_deref();
        git::export(objects, &Export { repository: &what.repository, branch: &branch, expected, parent, commits: &commits })
    };
    let exported = match export(BranchAt::Nowhere) {
        Err(VersionError::BranchMoved { .. }) if what.branch.starts_with(OURS) => export(BranchAt::Anywhere)?,
        other => other?,
    };
    Ok(Exported { branch: what.branch.clone(), git_commit: exported.head, commits: exported.commits.len() as u64 })
}

/// The same step is the same commit whenever it is exported: nothing in it depends on today.
fn commit(step: &StepSummary) -> ExportCommit {
    let message = format!(
        "{}\n\nHelix-Task: {}\nHelix-Step: {}\nHelix-Epoch: {}\n",
        step.summary, step.task, step.id, step.epoch
    );
    let author = Signature {
        name: "Helix".to_owned(),
        email: "helix@localhost".to_owned(),
        time: step.committed_at,
        offset_minutes: 0,
    };
    ExportCommit { tree: step.tree, message, author }
}
