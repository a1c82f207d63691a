//! The rules of questions: asking parks a task, answering sets it free.
//!
//! A task with an open question waits for its answer, is parked or has ended: so no step is made on top of one that nobody
//! answered. It is closed where the task goes back to before it, and by the next one.

use helix_protocol::{Epoch, NewEvent, Question, QuestionId, TaskStatus, Timestamp};

use super::events::{about, record};
use super::tasks::{existing, task};
use crate::rows::{Change, Guard, Holder, Rows, TaskRow};
use crate::{Applied, RecordError};

pub(super) async fn ask(
    rows: &mut dyn Rows,
    question: &Question,
    epoch: Epoch,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    if let Some(asked) = rows.question(question.id).await? {
        let same = (asked.task, &asked.subject, &asked.text, &asked.choices)
            == (question.task, &question.subject, &question.text, &question.choices);
        return if same {
            Ok(task(existing(rows, question.task).await?, Vec::new()))
        } else {
            Err(RecordError::Conflict(format!("question {} was asked in other words", question.id)))
        };
    }
    let row = park(rows, question, epoch, about(events, question.task), now).await?;
    let events = record(rows, events, Some(&row), now).await?;
    Ok(task(row, events))
}

/// Records the question and parks its task, reserving places for `events`.
pub(super) async fn park(
    rows: &mut dyn Rows,
    question: &Question,
    epoch: Epoch,
    events: u64,
    now: Timestamp,
) -> Result<TaskRow, RecordError> {
    if rows.question(question.id).await?.is_some() {
        return Err(RecordError::Conflict(format!("question {} exists", question.id)));
    }
    let guard = Guard::status(|status| !status.is_final()).epoch(Some(epoch));
    let change = Change {
        status: Some(TaskStatus::WaitingForInput),
        reason: Some(question.text.clone()),
        holder: Holder::Nobody,
        events,
        ..Change::default()
    };
    let Some(row) = rows.change_task(question.task, &guard, &change, now).await? else {
        return Err(guard.refusal(&existing(rows, question.task).await?.record));
    };
    rows.close_questions(question.task, now).await?;
    rows.insert_question(question, &row.record).await?;
    Ok(row)
}

pub(super) async fn answer(
    rows: &mut dyn Rows,
    id: QuestionId,
    answer: &str,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    let question = rows.question(id).await?.ok_or_else(|| RecordError::NotFound(format!("question {id}")))?;
    match question.answer.as_deref() {
        Some(given) if given == answer => return Ok(task(existing(rows, question.task).await?, Vec::new())),
        Some(given) => return Err(RecordError::Conflict(format!("question {id} was answered with {given:?}"))),
        None if !question.is_open() => {
            return Err(RecordError::Conflict(format!("question {id} is closed: its task went on without an answer")));
        }
        None => {}
    }
    let waits_with = rows.open_question(question.task).await?.is_some_and(|open| open.id == id);
    rows.answer_question(id, answer, now).await?;
    // Somebody may have paused or cancelled the task meanwhile: then the answer is kept and nothing moves.
    let parked = Guard::status(|status| status == TaskStatus::WaitingForInput && waits_with);
    let change = Change {
        status: Some(TaskStatus::Pending),
        reason: Some(String::new()),
        events: about(events, question.task),
        ..Change::default()
    };
    match rows.change_task(question.task, &parked, &change, now).await? {
        Some(row) => {
            let events = record(rows, events, Some(&row), now).await?;
            Ok(task(row, events))
        }
        None => {
            let events = record(rows, events, None, now).await?;
            Ok(task(existing(rows, question.task).await?, events))
        }
    }
}
