//! Claims about questions.

use helix_protocol::{Question, QuestionId, Subject, TaskId, TaskRecord, TaskStatus, Timestamp};

use super::stage::{Stage, change, commit, rollback, stale, status, step_on};
use crate::{RecordError, StatusChange, Write};

fn question(task: TaskId) -> Question {
    let subject = Subject::Calls { place: 3, tools: vec!["shell".to_owned()], calls: "5f".to_owned() };
    Question::new(task, subject, "may it?", vec!["yes".to_owned(), "no".to_owned()], Timestamp(11))
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
    let in_other_words = Question { text: "really?".to_owned(), ..asked.clone() };
    let about_others = Question { subject: Subject::Budget, ..asked.clone() };
    for other in [in_other_words, about_others] {
        let answer = stage.apply(ask(&other, &owner)).await;
        assert!(matches!(answer, Err(RecordError::Conflict(_))), "{answer:?}");
    }
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

fn goes_on(task: TaskId, from: TaskStatus) -> Write {
    status(StatusChange { from: vec![from], ..change(task, TaskStatus::Pending) })
}

pub(super) async fn a_task_that_was_parked_with_a_question_waits_for_the_answer_again(stage: Stage) {
    for rests in [TaskStatus::Paused, TaskStatus::Cancelled] {
        let owner = stage.claimed_task().await;
        let asked = question(owner.id);
        stage.done(ask(&asked, &owner)).await;
        stage.set(owner.id, rests).await;
        let waiting = stage.task_after(goes_on(owner.id, rests)).await;
        assert_eq!((waiting.status, waiting.reason.as_str()), (TaskStatus::WaitingForInput, asked.text.as_str()));
        assert_eq!(stage.task_after(goes_on(owner.id, rests)).await, waiting);
        assert_eq!(stage.task_after(answer(asked.id, "yes")).await.status, TaskStatus::Pending);

        let owner = stage.claimed_task().await;
        let asked = question(owner.id);
        stage.done(ask(&asked, &owner)).await;
        stage.set(owner.id, rests).await;
        assert_eq!(stage.task_after(answer(asked.id, "yes")).await.status, rests);
        assert_eq!(stage.task_after(goes_on(owner.id, rests)).await.status, TaskStatus::Pending);
    }
}

pub(super) async fn a_task_waits_with_one_question_and_no_other_answer_frees_it(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, second) = (question(owner.id), question(owner.id));
    stage.done(ask(&first, &owner)).await;
    let parked = stage.task_after(ask(&second, &owner)).await;
    let closed = stage.store.question(first.id).await.expect("the store answers").expect("it was asked");
    assert!(!closed.is_open() && closed.answer.is_none(), "{closed:?}");
    let refused = stage.apply(answer(first.id, "yes")).await;
    assert!(matches!(refused, Err(RecordError::Conflict(_))), "{refused:?}");
    assert_eq!(stage.task(owner.id).await, parked);
    assert_eq!(stage.task_after(answer(second.id, "yes")).await.status, TaskStatus::Pending);
}

pub(super) async fn going_back_to_before_a_question_closes_it(stage: Stage) {
    let (first, task) = {
        let owner = stage.claimed_task().await;
        stage.next_step(&owner).await
    };
    let (second, owner) = stage.next_step(&task).await;
    let asked = question(owner.id);
    stage.done(ask(&asked, &owner)).await;
    let back = |step| rollback(owner.id, step);
    assert_eq!(stage.task_after(back(second.id)).await.status, TaskStatus::WaitingForInput, "it is there already");
    let paused = stage.task_after(back(first.id)).await;
    assert_eq!((paused.status, paused.head), (TaskStatus::Paused, Some(first.id)));
    let refused = stage.apply(answer(asked.id, "yes")).await;
    assert!(matches!(refused, Err(RecordError::Conflict(_))), "{refused:?}");
    assert_eq!(stage.apply(commit(step_on(&owner))).await, Err(stale(&paused, owner.epoch)));
    assert_eq!(stage.task_after(goes_on(owner.id, TaskStatus::Paused)).await.status, TaskStatus::Pending);
}

pub(super) async fn an_answer_does_not_wake_a_cancelled_task(stage: Stage) {
    let owner = stage.claimed_task().await;
    let asked = question(owner.id);
    stage.done(ask(&asked, &owner)).await;
    let cancelled = stage.set(owner.id, TaskStatus::Cancelled).await;
    assert_eq!(stage.task_after(answer(asked.id, "yes")).await, cancelled);
}
