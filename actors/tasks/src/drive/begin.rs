//! Where a task goes on: its head, the last turn on the line to it, and the files to start from.

use std::sync::Arc;

use helix_protocol::{Code, Failure, OnFailure, StepId, StepOutcome, StepRecord, TaskRecord};

use super::Handover;
use crate::failing;
use crate::shared::{Files, Shared};
use crate::steps::start;

/// The head, the last turn on its line, and the files to start from. A step that goes on began before its
/// unfinished files were kept.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    task: &TaskRecord,
    handover: Handover,
) -> Result<(Option<StepRecord>, Option<StepRecord>, Files), Failure> {
    let (head, turn, mut files) = begin_at_head(shared, task, handover).await?;
    // A fork may bring files of its own: they stand in for those of the step it continues, and only for those.
    if let (Some(step), Some(snapshot)) = (task.spec.fork_of, task.spec.fork_files)
        && read_step(shared, step).await?.step.snapshot == files.snapshot
    {
        files = shared.files_of(snapshot).await?;
    }
    Ok((head, turn, files))
}

async fn begin_at_head(
    shared: &Arc<Shared>,
    task: &TaskRecord,
    handover: Handover,
) -> Result<(Option<StepRecord>, Option<StepRecord>, Files), Failure> {
    let Some(head) = task.head else { return Ok((None, None, shared.base(task).await?)) };
    let head = read_step(shared, head).await?;
    let of = |step: &StepRecord| Files { tree: step.step.tree, snapshot: step.step.snapshot, sequence: step.step.store_sequence };
    if matches!(head.step.outcome, StepOutcome::Continue | StepOutcome::Finished) {
        let files = of(&head);
        return Ok((Some(head.clone()), Some(head), files));
    }
    let id = head.step.id;
    let line = shared.read(|records| async move { records.read().lineage(id).await }).await?;
    let ended = |outcome| matches!(outcome, StepOutcome::Continue | StepOutcome::Finished);
    let turn = match line.iter().rev().find(|step| ended(step.outcome)) {
        Some(step) => Some(read_step(shared, step.id).await?),
        None => None,
    };
    let on_failure = match handover {
        Handover::Open => task.spec.on_failure,
        Handover::Adopt => OnFailure::Rollback,
    };
    let start = start(&line, on_failure);
    if let Some(step) = start.fork {
        failing::fork_parked(shared, task, step, "its worker died in the middle of a command").await?;
    }
    let files = match start.files {
        Some((tree, snapshot)) if (tree, snapshot) == (head.step.tree, head.step.snapshot) => of(&head),
        // An ancestor's files are covered by what covers the head's.
        Some((tree, snapshot)) => Files { tree, snapshot, sequence: head.step.store_sequence },
        None => shared.base(task).await?,
    };
    Ok((Some(head), turn, files))
}

async fn read_step(shared: &Shared, step: StepId) -> Result<StepRecord, Failure> {
    let found = shared.read(|records| async move { records.read().step(step).await }).await?;
    found.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no step {}", step.short())))
}
