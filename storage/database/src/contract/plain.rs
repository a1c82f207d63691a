//! Claims about text that a database may not keep as it is.

use helix_protocol::{
    Checkpoint, EventKind, NewEvent, NewStep, Principal, Question, Remark, RemarkId, Subject, TaskId, TaskStatus, Timestamp,
};

use super::stage::{Stage, change, commit, creation_under, spec, status, step_on};
use super::workers::worker;
use crate::{EventFilter, StatusChange, Then, Write};

const GIVEN: &str = "be\0fore";
const KEPT: &str = "be\u{fffd}fore";

fn event() -> NewEvent {
    NewEvent::info(EventKind::TaskSaid, GIVEN, GIVEN)
}

pub(super) async fn a_zero_character_is_replaced_wherever_there_is_text(stage: Stage) {
    let principal = Principal { actor: GIVEN.to_owned(), ..Principal::local("cli") };
    let creation = creation_under(TaskId::new(), spec(GIVEN), Some(GIVEN), principal);
    let made = stage.task_after(creation.clone()).await;
    assert_eq!(made.spec.title, KEPT);
    assert_eq!(stage.task_after(creation).await, made, "repeated, it is the same");

    let owner = stage.claim(&made).await;
    let asked = Question::new(made.id, Subject::default(), GIVEN, vec![GIVEN.to_owned()], Timestamp(1));
    let step = NewStep { summary: GIVEN.to_owned(), ..step_on(&owner) };
    let Write::Commit { step, .. } = commit(step) else { unreachable!("it is a commit") };
    let then = Some(Box::new(Then::Ask(asked.clone())));
    let committed = Write::Commit { step: step.clone(), then, events: vec![event().task(made.id)] };
    let parked = stage.task_after(committed).await;
    assert_eq!(parked.reason, KEPT);
    assert_eq!(stage.store.step(step.id).await.expect("the store answers").expect("it is there").step.summary, KEPT);
    let checkpoint = Checkpoint { task: made.id, step: step.id, name: GIVEN.to_owned(), created_at: Timestamp(1) };
    for _ in 0..2 {
        stage.done(Write::Checkpoint(checkpoint.clone())).await;
        stage.done(Write::Answer { question: asked.id, answer: GIVEN.to_owned(), events: Vec::new() }).await;
    }
    assert_eq!(stage.store.checkpoints(made.id).await.expect("the store answers")[0].name, KEPT);
    let answered = stage.store.question(asked.id).await.expect("the store answers").expect("it is there");
    assert_eq!((answered.text.as_str(), answered.choices, answered.answer.as_deref()), (KEPT, vec![KEPT.to_owned()], Some(KEPT)));

    let said = |text: &str| text.to_owned();
    let remark =
        Remark { id: RemarkId::new(), task: made.id, text: said(GIVEN), actor: said(GIVEN), created_at: Timestamp(1), step: None };
    stage.done(Write::Say { remark: Box::new(remark), events: Vec::new() }).await;
    let remark = stage.store.remarks(made.id).await.expect("the store answers").remove(0);
    assert_eq!((remark.text.as_str(), remark.actor.as_str()), (KEPT, KEPT));

    let failed = StatusChange { reason: said(GIVEN), hint: said(GIVEN), ..change(made.id, TaskStatus::Failed) };
    let failed = stage.task_after(status(failed)).await;
    assert_eq!((failed.reason.as_str(), failed.hint.as_str()), (KEPT, KEPT));

    let worker = helix_protocol::WorkerRecord { reason: said(GIVEN), ..worker(GIVEN) };
    stage.done(Write::Worker { worker: Box::new(worker), events: vec![event()] }).await;
    let worker = stage.store.workers().await.expect("the store answers").remove(0);
    assert_eq!((worker.name.as_str(), worker.reason.as_str()), (KEPT, KEPT));
    let told = stage.store.events(EventFilter { limit: 100, ..EventFilter::default() }).await.expect("the store answers");
    assert_eq!(told.iter().filter(|event| (event.event.actor.as_str(), event.event.message.as_str()) == (KEPT, KEPT)).count(), 3);
}
