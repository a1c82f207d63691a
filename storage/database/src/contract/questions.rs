//! Claims about questions.

use helix_protocol::{Question, QuestionId, TaskId, TaskRecord, TaskStatus, Timestamp};

use super::stage::Stage;
use crate::{RecordError, Write};

fn question(task: TaskId) -> Question {
    Question {
        id: QuestionId::new(),
        task,
        text: "the budget is used up; go on?".to_owned(),
        choices: vec!["yes".to_owned(), "no".to_owned()],
        answer: None,
        created_at: Timestamp(11),
        answered_at: None,
    }
}

fn ask(question: &Question, owner: &TaskRecord) -> Write {
    Write::Ask { question: Box::new(question.clone()), epoch: owner.epoch, events: Vec::new() }
}

fn answer(question: QuestionId, answer: &str) -> Write {
    Write::Answer { question, answer: answer.to_owned(), events: Vec::new() }
}

pub(super) async fn asking_parks_a_task_and_answering_frees_it(stage: Stage) {
    let owner = stage.claimed_task().await;
    let asked = question(owner.id);
    let parked = stage.task_after(ask(&asked, &owner)).await;
    assert_eq!((parked.status, parked.worker, parked.reason.as_str()), (TaskStatus::WaitingForInput, None, asked.text.as_str()));
    assert_eq!(stage.store.questions(owner.id).await, Ok(vec![asked.clone()]));
    assert_eq!(stage.store.question(asked.id).await, Ok(Some(asked.clone())));
    assert_eq!(stage.store.question(QuestionId::new()).await, Ok(None));
    let free = stage.task_after(answer(asked.id, "yes")).await;
    assert_eq!((free.status, free.epoch), (TaskStatus::Pending, owner.epoch));
    let answered = stage.store.questions(owner.id).await.expect("the store answers").remove(0);
    assert!(answered.answered_at.is_some());
    assert_eq!(answered, Question { answer: Some("yes".to_owned()), answered_at: answered.answered_at, ..asked });
}

pub(super) async fn a_question_repeated_is_asked_once(stage: Stage) {
    let owner = stage.claimed_task().await;
    let asked = question(owner.id);
    let parked = stage.task_after(ask(&asked, &owner)).await;
    assert_eq!(stage.task_after(ask(&asked, &owner)).await, parked);
    let other = Question { text: "really?".to_owned(), ..asked.clone() };
    let answer = stage.apply(ask(&other, &owner)).await;
    assert!(matches!(answer, Err(RecordError::Conflict(_))), "{answer:?}");
    assert_eq!(stage.store.questions(owner.id).await, Ok(vec![asked]));
}

pub(super) async fn a_second_answer_is_refused_and_the_same_answer_is_not(stage: Stage) {
    let owner = stage.claimed_task().await;
    let asked = question(owner.id);
    stage.done(ask(&asked, &owner)).await;
    let free = stage.task_after(answer(asked.id, "yes")).await;
    assert_eq!(stage.task_after(answer(asked.id, "yes")).await, free);
    let refused = stage.apply(answer(asked.id, "no")).await;
    assert!(matches!(refused, Err(RecordError::Conflict(_))), "{refused:?}");
    let refused = stage.apply(answer(QuestionId::new(), "no")).await;
    assert!(matches!(refused, Err(RecordError::NotFound(_))), "{refused:?}");
}

pub(super) async fn an_answer_does_not_wake_a_cancelled_task(stage: Stage) {
    let owner = stage.claimed_task().await;
    let asked = question(owner.id);
    stage.done(ask(&asked, &owner)).await;
    let cancelled = stage.set(owner.id, TaskStatus::Cancelled).await;
    assert_eq!(stage.task_after(answer(asked.id, "yes")).await, cancelled);
}
