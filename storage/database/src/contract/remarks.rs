//! Claims about what people say to running tasks.

use helix_protocol::{EventKind, NewStep, Remark, RemarkId, TaskId, TaskRecord, TaskStatus, Timestamp};

use super::stage::{Stage, change, step_on, told, wrong_status};
use crate::{Applied, RecordError, Then, Write};

fn remark(task: TaskId, text: &str) -> Remark {
    Remark { id: RemarkId::new(), task, text: text.to_owned(), actor: "cli".to_owned(), created_at: Timestamp(1), step: None }
}

fn say(remark: &Remark) -> Write {
    Write::Say { remark: Box::new(remark.clone()), events: vec![told(EventKind::TaskSaid, remark.task)] }
}

fn hearing(task: &TaskRecord, heard: &[&Remark]) -> NewStep {
    NewStep { heard: heard.iter().map(|remark| remark.id).collect(), ..step_on(task) }
}

/// The commit of a step with which the task is to be complete.
fn last(step: NewStep) -> Write {
    let (task, end) = (step.task, Then::Status(change(step.task, TaskStatus::Completed)));
    Write::Commit { step: Box::new(step), then: Some(Box::new(end)), events: vec![told(EventKind::TaskCompleted, task)] }
}

impl Stage {
    async fn remarks(&self, task: TaskId) -> Vec<Remark> {
        self.store.remarks(task).await.expect("the store answers")
    }
}

pub(super) async fn what_is_said_is_heard_by_the_step_that_names_it_and_by_no_other(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, second) = (remark(owner.id, "leave the tests"), remark(owner.id, "and 'hurry'"));
    for said in [&first, &second] {
        assert_eq!(stage.task_after(say(said)).await.status, TaskStatus::Assigned);
    }
    let kept = stage.remarks(owner.id).await;
    assert_eq!(
        kept.iter().map(|remark| (remark.id, remark.text.as_str(), remark.step)).collect::<Vec<_>>(),
        [(first.id, "leave the tests", None), (second.id, "and 'hurry'", None)]
    );
    assert!(kept.iter().all(|remark| remark.created_at > Timestamp(1)), "the instant of the write counts");
    let one = hearing(&owner, &[&first]);
    let task = stage.task_after(super::stage::commit(one.clone())).await;
    let two = hearing(&task, &[&first, &second]);
    stage.task_after(super::stage::commit(two.clone())).await;
    let heard: Vec<_> = stage.remarks(owner.id).await.into_iter().map(|remark| remark.step).collect();
    assert_eq!(heard, [Some(one.id), Some(two.id)]);
    assert_eq!(stage.store.step(two.id).await.map(|step| step.map(|step| step.step.heard)), Ok(Some(two.heard)));
    assert_eq!(stage.remarks(TaskId::new()).await, []);
}

pub(super) async fn what_is_said_twice_under_one_id_is_said_once(stage: Stage) {
    let owner = stage.claimed_task().await;
    let said = remark(owner.id, "hurry");
    stage.done(say(&said)).await;
    match stage.done(say(&said)).await {
        Applied::Task { events, .. } => assert_eq!(events, []),
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.remarks(owner.id).await.len(), 1);
    let refused = stage.apply(say(&Remark { text: "stop".to_owned(), ..said })).await;
    assert!(matches!(refused, Err(RecordError::Conflict(_))), "{refused:?}");
    let refused = stage.apply(say(&remark(TaskId::new(), "hurry"))).await;
    assert!(matches!(refused, Err(RecordError::NotFound(_))), "{refused:?}");
}

pub(super) async fn nobody_speaks_to_a_task_that_has_ended(stage: Stage) {
    let owner = stage.claimed_task().await;
    stage.set(owner.id, TaskStatus::Failed).await;
    assert_eq!(stage.apply(say(&remark(owner.id, "hurry"))).await, Err(wrong_status(owner.id, TaskStatus::Failed)));
    assert_eq!(stage.remarks(owner.id).await, []);
}

pub(super) async fn a_task_does_not_complete_before_it_has_heard_everything(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (before, meanwhile) = (remark(owner.id, "a"), remark(owner.id, "b"));
    stage.done(say(&before)).await;
    let step = hearing(&owner, &[&before]);
    stage.done(say(&meanwhile)).await;
    let task = match stage.done(last(step.clone())).await {
        Applied::Step { task, events, .. } => {
            assert_eq!(events, [], "its end is not told");
            *task
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((task.status, task.head, task.finished_at), (TaskStatus::Running, Some(step.id), None));
    let ended = stage.task_after(last(hearing(&task, &[&meanwhile]))).await;
    assert_eq!(ended.status, TaskStatus::Completed);
}

pub(super) async fn what_is_said_in_the_group_of_its_last_step_is_heard_first(stage: Stage) {
    let owner = stage.claimed_task().await;
    let said = remark(owner.id, "one more thing");
    let answers = stage.store.apply(vec![say(&said), last(step_on(&owner))]).await.expect("the store answers");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let task = stage.task(owner.id).await;
    assert_eq!((task.status, task.steps), (TaskStatus::Running, 1));
    assert_eq!(stage.task_after(last(hearing(&task, &[&said]))).await.status, TaskStatus::Completed);
}

pub(super) async fn a_stale_step_hears_nothing(stage: Stage) {
    let owner = stage.claimed_task().await;
    let said = remark(owner.id, "hurry");
    stage.done(say(&said)).await;
    let task = stage.claim(&owner).await;
    assert!(stage.apply(super::stage::commit(hearing(&owner, &[&said]))).await.is_err());
    assert_eq!(stage.remarks(owner.id).await[0].step, None);
    let step = hearing(&task, &[&said]);
    stage.done(super::stage::commit(step.clone())).await;
    assert_eq!(stage.remarks(owner.id).await[0].step, Some(step.id));
}
