//! The step in the making, as far as a worker can tell, as pure logic.
//!
//! Nobody tells a worker where a step ends: the node snapshots, commits, and calls again. So after each snapshot two
//! things may be true. Either the step was committed and the next one begins from that snapshot's tree, or its commit was
//! lost and it is made again from where it began. A call that is new settles it: the node makes none before its commit
//! stands.
//!
//! A node that was away makes its step again on the files as they are, and gets the answers of the calls whose effects
//! they carry. That is right only while every one of those answers is kept.

use helix_protocol::ObjectId;

/// Where a step may have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    /// With these files.
    tree: ObjectId,
    /// Before the call with this number.
    call: u64,
}

/// What is known of the step in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    began: Start,
    /// The next step's beginning, where the last snapshot was this one's end.
    next: Option<Start>,
    calls: u64,
    /// The last call whose answer cannot be given again.
    lost: Option<u64>,
}

/// Whether calls run while a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calling {
    /// The step goes on.
    Runs,
    /// It may be over.
    Rests,
}

impl Making {
    /// The workspace was opened with these files.
    pub fn opened(tree: ObjectId) -> Self {
        Self { began: Start { tree, call: 0 }, next: None, calls: 0, lost: None }
    }

    /// A new call begins. Answers with its number.
    pub fn call(&mut self) -> u64 {
        // A step that changed nothing looks like its own repetition, so it counts as the same one still.
        if let Some(next) = self.next.take_if(|next| next.tree != self.began.tree) {
            self.began = next;
        }
        self.next = None;
        self.calls += 1;
        self.calls - 1
    }

    /// The answer of a call cannot be given again, and what it did may be in the files.
    pub fn lost(&mut self, call: u64) {
        self.lost = self.lost.max(Some(call));
    }

    /// The files were snapshotted for a step that began from `since`.
    pub fn snapshotted(&mut self, since: ObjectId, tree: ObjectId, calling: Calling) {
        if self.began.tree != since {
            // The node knows best where its step began; what was called since then, it does not say.
            self.began = self.next.filter(|next| next.tree == since).unwrap_or(Start { tree: since, call: 0 });
        }
        self.next = (calling == Calling::Rests).then_some(Start { tree, call: self.calls });
    }

    /// The step that began from `tree` is made again, or goes on. False where it cannot: it began elsewhere, or an
    /// answer is lost.
    pub fn resume(&mut self, tree: ObjectId) -> bool {
        let began = [Some(self.began), self.next].into_iter().flatten().find(|start| start.tree == tree);
        let Some(began) = began.filter(|began| self.lost.is_none_or(|lost| lost < began.call)) else { return false };
        (self.began, self.next) = (began, None);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(name: u8) -> ObjectId {
        ObjectId([name; 32])
    }

    fn resumes(making: &Making, name: u8) -> bool {
        making.clone().resume(tree(name))
    }

    #[test]
    fn after_a_snapshot_the_step_may_be_made_again_or_the_next_one_begin() {
        let mut making = Making::opened(tree(0));
        assert_eq!(making.call(), 0);
        making.snapshotted(tree(0), tree(1), Calling::Rests);
        assert!(resumes(&making, 0) && resumes(&making, 1) && !resumes(&making, 2));
        assert_eq!(making.call(), 1);
        assert!(!resumes(&making, 0) && resumes(&making, 1));
    }

    #[test]
    fn a_snapshot_of_a_command_that_runs_does_not_end_its_step() {
        let mut making = Making::opened(tree(0));
        making.call();
        making.snapshotted(tree(0), tree(1), Calling::Runs);
        assert!(resumes(&making, 0) && !resumes(&making, 1));
    }

    #[test]
    fn a_step_that_is_made_again_stays_the_same_one_through_further_calls() {
        let mut making = Making::opened(tree(0));
        making.call();
        making.snapshotted(tree(0), tree(1), Calling::Rests);
        assert!(making.resume(tree(0)));
        making.call();
        assert!(resumes(&making, 0) && !resumes(&making, 1));
    }

    #[test]
    fn a_lost_answer_stands_in_the_way_of_its_own_step_only() {
        let mut making = Making::opened(tree(0));
        let call = making.call();
        making.lost(call);
        assert!(!resumes(&making, 0));
        making.snapshotted(tree(0), tree(1), Calling::Rests);
        assert!(!resumes(&making, 0) && resumes(&making, 1));
        let call = making.call();
        assert!(resumes(&making, 1));
        making.lost(call);
        assert!(!resumes(&making, 1));
    }

    /// What happens to a workspace, as the node knows it.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        Call {
            lost: bool,
        },
        /// The step's end, whose commit may be lost with the node.
        Step {
            changes: bool,
        },
        /// The running command's files, in the middle of the step.
        Unfinished,
        /// The node comes back.
        Return,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => prop::bool::weighted(0.2).prop_map(|lost| Happens::Call { lost }),
            2 => any::<bool>().prop_map(|changes| Happens::Step { changes }),
            1 => Just(Happens::Unfinished),
            1 => Just(Happens::Return),
        ]
    }

    proptest! {
        #[test]
        fn no_step_is_resumed_whose_answers_are_not_all_there(script in prop::collection::vec((happens(), any::<bool>()), 0..60)) {
            let (mut name, mut began) = (0_u8, tree(0));
            let mut making = Making::opened(began);
            // Whether an answer of the step that the node makes is lost.
            let mut lost_one = false;
            for (happens, commits) in script {
                match happens {
                    Happens::Call { lost } => {
                        let call = making.call();
                        if lost {
                            making.lost(call);
                            lost_one = true;
                        }
                    }
                    Happens::Step { changes } => {
                        name += u8::from(changes);
                        let ended = if changes { tree(name) } else { began };
                        making.snapshotted(began, ended, Calling::Rests);
                        if commits {
                            (began, lost_one) = (ended, false);
                        } else if !making.resume(began) {
                            // The commit was lost with the node, and the next one opens the workspace.
                            (making, lost_one) = (Making::opened(began), false);
                        } else {
                            prop_assert!(!lost_one);
                        }
                    }
                    Happens::Unfinished => {
                        name += 1;
                        // The command may have ended while its files were read.
                        making.snapshotted(began, tree(name), if commits { Calling::Runs } else { Calling::Rests });
                    }
                    Happens::Return => {
                        if making.resume(began) {
                            prop_assert!(!lost_one, "an answer is lost");
                        } else {
                            (making, lost_one) = (Making::opened(began), false);
                        }
                    }
                }
            }
        }
    }
}
