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

use std::collections::{HashMap, HashSet};

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

/// Steps by id, each with its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepTree {
    parents: HashMap<StepId, Option<StepId>>,
}

/// Why a step cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// Its parent is not in the tree.
    NoParent,
    /// It is there already, on another parent.
    Moved,
}

impl StepTree {
    /// Adds a step. Adding it twice on the same parent is adding it once.
    pub fn add(&mut self, step: StepId, parent: Option<StepId>) -> Result<(), Misplaced> {
        match self.parents.get(&step) {
            Some(known) if *known == parent => return Ok(()),
            Some(_) => return Err(Misplaced::Moved),
            None => {}
        }
        if parent.is_some_and(|parent| !self.parents.contains_key(&parent)) {
            return Err(Misplaced::NoParent);
        }
        self.parents.insert(step, parent);
        Ok(())
    }

    /// The line from the first step to `head`, oldest first; empty where the head is not in the tree.
    pub fn lineage(&self, head: StepId) -> Vec<StepId> {
        let mut line = Vec::new();
        let mut at = Some(head).filter(|head| self.parents.contains_key(head));
        while let Some(step) = at {
            line.push(step);
            at = self.parents.get(&step).copied().flatten();
        }
        line.reverse();
        line
    }

    /// True where `step` is `of` or lies on its line: what a rollback of head `of` may go to.
    pub fn is_ancestor(&self, step: StepId, of: StepId) -> bool {
        let mut at = Some(of).filter(|of| self.parents.contains_key(of));
        while let Some(here) = at {
            if here == step {
                return true;
            }
            at = self.parents.get(&here).copied().flatten();
        }
        false
    }

    /// The last step two lines share: where one was forked from the other.
    pub fn fork_point(&self, one: StepId, other: StepId) -> Option<StepId> {
        let line: HashSet<StepId> = self.lineage(one).into_iter().collect();
        self.lineage(other).into_iter().rev().find(|step| line.contains(step))
    }
}

impl FromIterator<(StepId, Option<StepId>)> for StepTree {
    /// Of rows in any order; rows without their parents are left out.
    fn from_iter<I: IntoIterator<Item = (StepId, Option<StepId>)>>(rows: I) -> Self {
        let mut waiting: Vec<_> = rows.into_iter().collect();
        let mut tree = Self::default();
        loop {
            let before = waiting.len();
            waiting.retain(|(step, parent)| tree.add(*step, *parent) == Err(Misplaced::NoParent));
            if waiting.len() == before || waiting.is_empty() {
                return tree;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{AttemptId, Epoch, Spend, TaskId, Timestamp};
    use proptest::prelude::*;

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

    /// A random tree: node n hangs on some earlier one, or is a root.
    fn tree() -> impl Strategy<Value = (Vec<StepId>, StepTree)> {
        prop::collection::vec(any::<prop::sample::Index>(), 1..40).prop_map(|choices| {
            let ids: Vec<StepId> = choices.iter().map(|_| StepId::new()).collect();
            let mut tree = StepTree::default();
            for (n, choice) in choices.iter().enumerate() {
                let at = choice.index(n + 1);
                let parent = (at < n).then(|| ids[at]);
                tree.add(ids[n], parent).expect("the parent is there");
            }
            (ids, tree)
        })
    }

    proptest! {
        #[test]
        fn a_line_holds_exactly_the_ancestors((ids, tree) in tree(), pick in any::<prop::sample::Index>()) {
            let head = ids[pick.index(ids.len())];
            let line = tree.lineage(head);
            prop_assert_eq!(line.last(), Some(&head));
            for id in &ids {
                prop_assert_eq!(tree.is_ancestor(*id, head), line.contains(id));
            }
        }

        #[test]
        fn a_step_is_never_moved((ids, mut tree) in tree()) {
            let stranger = StepId::new();
            prop_assert_eq!(tree.add(stranger, Some(StepId::new())), Err(Misplaced::NoParent));
            let first = ids[0];
            prop_assert_eq!(tree.add(first, Some(first)), Err(Misplaced::Moved));
            prop_assert_eq!(tree.add(first, None), Ok(()));
        }

        #[test]
        fn the_order_of_rows_does_not_matter((ids, tree) in tree()) {
            let rows: Vec<_> = ids.iter().rev().map(|id| (*id, tree.parents[id])).collect();
            prop_assert_eq!(rows.into_iter().collect::<StepTree>(), tree);
        }

        #[test]
        fn two_lines_agree_up_to_their_fork_point((ids, tree) in tree(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let (one, other) = (tree.lineage(ids[a.index(ids.len())]), tree.lineage(ids[b.index(ids.len())]));
            let shared = one.iter().zip(&other).take_while(|(x, y)| x == y).count();
            let point = tree.fork_point(*one.last().expect("a head"), *other.last().expect("a head"));
            prop_assert_eq!(point, shared.checked_sub(1).map(|last| one[last]));
        }
    }
}
