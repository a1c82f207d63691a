//! The tree of steps, grown at random by commits, rollbacks and forks, beside a list of parents.

use std::collections::HashMap;
use std::sync::Arc;

use helix_protocol::{StepId, TaskId, TaskSpec, TaskStatus};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::contract::stage::{Stage, rollback, spec};
use crate::{MemoryStore, RecordError, RecordStore, SqliteStore};

/// What is done next; indices choose among the tasks, and among the steps, that are there by then.
#[derive(Clone, Debug)]
enum Act {
    Commit(Index),
    Rollback(Index, Index),
    Fork(Index),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any::<Index>().prop_map(Act::Commit),
        2 => any::<(Index, Index)>().prop_map(|(task, step)| Act::Rollback(task, step)),
        1 => any::<Index>().prop_map(Act::Fork),
    ]
}

/// What should be there.
#[derive(Default)]
struct Model {
    parents: HashMap<StepId, Option<StepId>>,
    steps: Vec<StepId>,
    heads: Vec<(TaskId, Option<StepId>)>,
}

impl Model {
    /// From the first step to `head`.
    fn line(&self, head: Option<StepId>) -> Vec<StepId> {
        let mut line: Vec<StepId> = std::iter::successors(head, |step| self.parents[step]).collect();
        line.reverse();
        line
    }
}

async fn grow(store: Arc<dyn RecordStore>, acts: &[Act]) {
    let stage = Stage::from(store);
    let mut model = Model::default();
    model.heads.push((stage.new_task().await.id, None));
    for act in acts {
        match act {
            Act::Commit(pick) => {
                let place = pick.index(model.heads.len());
                let (task, head) = model.heads[place];
                stage.set(task, TaskStatus::Pending).await;
                let owner = stage.claim(&stage.task(task).await).await;
                let (step, _) = stage.next_step(&owner).await;
                assert_eq!(step.ordinal, model.line(head).len() as u64 + 1);
                model.parents.insert(step.id, head);
                model.steps.push(step.id);
                model.heads[place].1 = Some(step.id);
            }
            Act::Rollback(pick, step) => {
                let Some(step) = (!model.steps.is_empty()).then(|| model.steps[step.index(model.steps.len())]) else { continue };
                let place = pick.index(model.heads.len());
                let (task, head) = model.heads[place];
                stage.set(task, TaskStatus::Paused).await;
                match stage.apply(rollback(task, step)).await {
                    Ok(_) => {
                        assert!(model.line(head).contains(&step), "only to a step of its own line");
                        model.heads[place].1 = Some(step);
                    }
                    Err(error) => {
                        assert!(matches!(error, RecordError::NotFound(_)), "{error:?}");
                        assert!(!model.line(head).contains(&step), "every step of its line is one it may go back to");
                    }
                }
            }
            Act::Fork(step) => {
                let Some(step) = (!model.steps.is_empty()).then(|| model.steps[step.index(model.steps.len())]) else { continue };
                let fork = stage.create(TaskSpec { fork_of: Some(step), ..spec("a fork") }).await;
                model.heads.push((fork.id, Some(step)));
            }
        }
    }
    for (task, head) in &model.heads {
        let found = stage.task(*task).await;
        let line = model.line(*head);
        assert_eq!((found.head, found.steps), (*head, line.len() as u64));
        let Some(head) = head else { continue };
        let shown = stage.store.lineage(*head).await.expect("the store answers");
        assert_eq!(shown.iter().map(|step| step.id).collect::<Vec<_>>(), line);
        assert!(shown.iter().zip(1..).all(|(step, ordinal)| step.ordinal == ordinal));
        let said = stage.store.conversation(*head).await.expect("the store answers");
        assert_eq!(said.iter().map(|record| record.step.id).collect::<Vec<_>>(), line);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_head_has_its_line_and_goes_back_along_it_alone(acts in proptest::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            grow(Arc::new(MemoryStore::default()), &acts).await;
            let folder = tempfile::tempdir().unwrap();
            grow(Arc::new(SqliteStore::open(folder.path().join("records.db")).await.unwrap()), &acts).await;
        });
    }
}
