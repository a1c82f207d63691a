//! The tree of steps, as far as a task has to know it.
//!
//! Steps form a tree through their parents. A step that ended a turn (`continue`, `finished`) counts; two kinds do not:
//!
//! - *Unfinished*: the files of a long command while it ran. It carries the ordinal of the last turn, no messages and no spend, so
//!   the journal of the turn being made survives its commit. The turn's own commit has it as parent.
//! - *Failed*: a turn that did not succeed. It carries its own ordinal, and the next try makes that ordinal again.
//!
//! When a worker dies in the middle of a command, `on_failure` decides which files the next owner starts from: `rollback` those of
//! the last turn, `keep` those of the unfinished step, `fork` those of the last turn, while a parked task of its own keeps the
//! unfinished ones. The head never moves back for that: only the workspace does.

use helix_protocol::{ObjectId, OnFailure, SnapshotId, StepId, StepOutcome, StepSummary};

/// The ordinal of the turn that follows a step.
pub fn next_ordinal(head: Option<(u64, StepOutcome)>) -> u64 {
    match head {
        None => 1,
        Some((ordinal, StepOutcome::Failed)) => ordinal.max(1),
        Some((ordinal, _)) => ordinal + 1,
    }
}

/// Where a new owner starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The files to start from; `None`: the task's base.
    pub files: Option<(ObjectId, SnapshotId)>,
    /// An unfinished step that has to become a task of its own.
    pub fork: Option<StepId>,
}

/// Decides by `on_failure` what to start from. `line` ends with the head, oldest first.
pub fn start(line: &[StepSummary], on_failure: OnFailure) -> Start {
    let of = |step: &StepSummary| (step.tree, step.snapshot);
    let Some(head) = line.last() else { return Start { files: None, fork: None } };
    if head.outcome != StepOutcome::Unfinished {
        return Start { files: Some(of(head)), fork: None };
    }
    let turn = line.iter().rev().find(|step| step.outcome != StepOutcome::Unfinished).map(of);
    match on_failure {
        OnFailure::Rollback => Start { files: turn, fork: None },
        OnFailure::Keep => Start { files: Some(of(head)), fork: None },
        OnFailure::Fork => Start { files: turn, fork: Some(head.id) },
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{AttemptId, Epoch, Spend, TaskId, Timestamp};

    use super::*;

    fn summary(ordinal: u64, outcome: StepOutcome, parent: Option<&StepSummary>, tree: u8) -> StepSummary {
        StepSummary {
            id: StepId::new(),
            task: TaskId::new(),
            attempt: AttemptId::new(),
            parent: parent.map(|parent| parent.id),
            ordinal,
            epoch: Epoch(1),
            outcome,
            summary: String::new(),
            tree: ObjectId([tree; 32]),
            snapshot: SnapshotId(ObjectId([tree; 32])),
            files_changed: 0,
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            spend: Spend::default(),
            worker: None,
            checkpoints: Vec::new(),
            started_at: Timestamp(0),
            committed_at: Timestamp(0),
        }
    }

    #[test]
    fn an_unfinished_step_does_not_count_and_a_failed_one_is_made_again() {
        assert_eq!(next_ordinal(None), 1);
        assert_eq!(next_ordinal(Some((4, StepOutcome::Continue))), 5);
        assert_eq!(next_ordinal(Some((4, StepOutcome::Unfinished))), 5);
        assert_eq!(next_ordinal(Some((0, StepOutcome::Unfinished))), 1);
        assert_eq!(next_ordinal(Some((4, StepOutcome::Failed))), 4);
    }

    #[test]
    fn on_failure_decides_about_the_files_of_an_unfinished_step() {
        let turn = summary(1, StepOutcome::Continue, None, 1);
        let early = summary(1, StepOutcome::Unfinished, Some(&turn), 2);
        let late = summary(1, StepOutcome::Unfinished, Some(&early), 3);
        let files = |step: &StepSummary| Some((step.tree, step.snapshot));
        let line = [turn.clone(), early, late.clone()];
        assert_eq!(start(&line, OnFailure::Rollback), Start { files: files(&turn), fork: None });
        assert_eq!(start(&line, OnFailure::Keep), Start { files: files(&late), fork: None });
        assert_eq!(start(&line, OnFailure::Fork), Start { files: files(&turn), fork: Some(late.id) });
        assert_eq!(start(&line[..1], OnFailure::Keep), Start { files: files(&turn), fork: None });
        assert_eq!(start(&line[1..], OnFailure::Rollback), Start { files: None, fork: None });
        assert_eq!(start(&[], OnFailure::Keep), Start { files: None, fork: None });
    }
}
