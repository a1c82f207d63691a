//! A step without its messages.

use helix_protocol::{StepRecord, StepSummary};

/// The summary of a step that has these names.
pub(crate) fn summarise(record: &StepRecord, checkpoints: Vec<String>) -> StepSummary {
    let step = &record.step;
    StepSummary {
        id: step.id,
        task: step.task,
        attempt: step.attempt,
        parent: step.parent,
        ordinal: step.ordinal,
        epoch: step.epoch,
        outcome: step.outcome,
        summary: step.summary.clone(),
        tree: step.tree,
        snapshot: step.snapshot,
        files_changed: step.changes.len() as u64,
        skipped: step.skipped.clone(),
        torn: step.torn.clone(),
        artifacts: step.artifacts.clone(),
        spend: step.spend,
        worker: step.worker,
        checkpoints,
        started_at: step.started_at,
        committed_at: record.committed_at,
    }
}
