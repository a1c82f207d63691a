//! The rules of steps: the journal of the one being made, the fenced commit, going back, and names.

use std::borrow::Cow;

use helix_protocol::{
    AttemptId, Checkpoint, JournalEntry, Money, NewEvent, NewStep, Question, StepId, StepRecord, TaskId, TaskRecord, TaskStatus,
    Timestamp,
};

use super::events::{about, record};
use super::questions::park;
use super::remarks;
use super::tasks::{actor_of, admits, change_of, existing, task, tell_waiting, transition};
use crate::charge;
use crate::rows::{Change, Guard, Rows};
use crate::{Applied, RecordError, StatusChange, Then};

pub(super) async fn journal(rows: &mut dyn Rows, entry: &JournalEntry, now: Timestamp) -> Result<Applied, RecordError> {
    if rows.append_journal(entry, now).await? {
        return Ok(Applied::Done { events: Vec::new() });
    }
    let current = existing(rows, entry.task).await?.record.epoch;
    if current != entry.epoch {
        return Err(RecordError::StaleOwner { task: entry.task, epoch: entry.epoch, current });
    }
    match rows.journal_entry(entry.attempt, entry.sequence).await? {
        Some(found) if found.ordinal == entry.ordinal && found.body == entry.body => Ok(Applied::Done { events: Vec::new() }),
        _ => Err(RecordError::Conflict(format!(
            "entry {} of the journal of attempt {} exists with other content",
            entry.sequence, entry.attempt
        ))),
    }
}

pub(super) async fn commit(
    rows: &mut dyn Rows,
    step: &NewStep,
    then: Option<&Then>,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    let guard = Guard::status(|status| !status.is_final()).epoch(Some(step.epoch)).head(step.parent);
    remarks::heard(rows, step).await?;
    let mut then = then.map(|then| then.of(step));
    let mut events = Cow::Borrowed(events);
    let completes = remarks::completes(then.as_ref());
    let whole = if completes { guard.clone().heard() } else { guard.clone() };
    let mut changed = rows.change_task(step.task, &whole, &change(step, then.as_ref(), &events, now), now).await?;
    if changed.is_none() && completes && rows.has_unheard(step.task).await? {
        then = None;
        events = Cow::Owned(remarks::without_end(&events));
        changed = rows.change_task(step.task, &guard, &change(step, None, &events, now), now).await?;
    }
    if let Some(row) = changed {
        let committed = StepRecord { step: step.clone(), committed_at: now };
        if !rows.insert_step(&committed, &row.record).await? {
            return Err(RecordError::Conflict(format!("step {} exists and is not the head of task {}", step.id, step.task)));
        }
        rows.drop_journal(step.attempt, step.ordinal).await?;
        let mut recorded = record(rows, &events, Some(&row), now).await?;
        let actor = actor_of(&events);
        let task = match &then {
            Some(Then::Status(change)) if admits(change, TaskStatus::Running) => {
                tell_waiting(rows, change, &row, actor, now, &mut recorded).await?;
                Box::new(row.record)
            }
            Some(Then::Status(change)) => {
                let (row, events) = transition(rows, change, &[], actor, now).await?;
                recorded.extend(events);
                Box::new(row.record)
            }
            Some(Then::Ask(question)) => {
                let question = Question { created_at: now, ..question.clone() };
                Box::new(park(rows, &question, step.epoch, 0, now).await?.record)
            }
            None => Box::new(row.record),
        };
        return Ok(Applied::Step { step: Box::new(committed), task, events: recorded });
    }
    let row = existing(rows, step.task).await?;
    if row.record.head == Some(step.id)
        && let Some(committed) = rows.step(step.id).await?
    {
        return Ok(Applied::Step { step: Box::new(committed), task: Box::new(row.record), events: Vec::new() });
    }
    Err(guard.refusal(&row.record))
}

/// What a step and what follows from it do to the task's row.
fn change(step: &NewStep, then: Option<&Then>, events: &[NewEvent], now: Timestamp) -> Change {
    let state = match then {
        // Step and state are one change of the row where the one allows the other.
        Some(Then::Status(change)) if admits(change, TaskStatus::Running) => change_of(change, now),
        _ => Change { status: Some(TaskStatus::Running), reason: Some(String::new()), ..Change::default() },
    };
    Change {
        head: Some((step.id, step.ordinal)),
        retries: state.retries.or(Some(0)),
        money: step.spend.money,
        tokens: step.spend.tokens,
        events: about(events, step.task),
        ..state
    }
}

impl Then {
    /// The same for the task and the epoch of its step.
    fn of(&self, step: &NewStep) -> Self {
        match self {
            Self::Status(change) => Self::Status(StatusChange { task: step.task, epoch: Some(step.epoch), ..change.clone() }),
            Self::Ask(question) => Self::Ask(Question { task: step.task, ..question.clone() }),
        }
    }
}

pub(super) async fn rollback(
    rows: &mut dyn Rows,
    id: TaskId,
    (step, attempt): (StepId, AttemptId),
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    let row = existing(rows, id).await?;
    let guard = Guard::status(|status| !status.is_active()).epoch(Some(row.record.epoch)).head(row.record.head);
    if !guard.admits(&row.record) {
        return Err(guard.refusal(&row.record));
    }
    let elsewhere = || RecordError::NotFound(format!("step {step} on the line of task {id}"));
    let head = row.record.head.ok_or_else(elsewhere)?;
    if !rows.on_line(head, step).await? {
        return Err(elsewhere());
    }
    let journalled = rows.has_journal(row.record.attempt).await?;
    if head == step && !journalled {
        return Ok(task(row, Vec::new()));
    }
    let (money, tokens) = if journalled { drop_journal(rows, &row.record, now).await? } else { (Money::ZERO, 0) };
    let ordinal = rows.step_place(step).await?.ok_or_else(elsewhere)?.ordinal;
    let mut change = Change {
        fence: true,
        head: Some((step, ordinal)),
        attempt: Some(attempt),
        money,
        tokens,
        events: about(events, id),
        ..Change::default()
    };
    if head != step && row.record.status == TaskStatus::WaitingForInput {
        change.status = Some(TaskStatus::Paused);
        change.reason = Some("rolled back to before its question".to_owned());
    }
    match rows.change_task(id, &guard, &change, now).await? {
        Some(row) => {
            if head != step {
                rows.close_questions(id, now).await?;
            }
            let events = record(rows, events, Some(&row), now).await?;
            Ok(task(row, events))
        }
        None => Err(guard.refusal(&existing(rows, id).await?.record)),
    }
}

/// Drops the whole journal of a task and keeps what it had spent.
async fn drop_journal(rows: &mut dyn Rows, task: &TaskRecord, now: Timestamp) -> Result<(Money, u64), RecordError> {
    let (money, tokens) = charge::total(rows.journal_charges(task.attempt).await?);
    rows.drop_journal(task.attempt, u64::MAX).await?;
    if money != Money::ZERO || tokens > 0 {
        rows.record_lost_spend(task, money, tokens, now).await?;
    }
    Ok((money, tokens))
}

pub(super) async fn checkpoint(rows: &mut dyn Rows, checkpoint: &Checkpoint) -> Result<Applied, RecordError> {
    let task = existing(rows, checkpoint.task).await?.record;
    let elsewhere = || RecordError::NotFound(format!("step {} in task {}", checkpoint.step, checkpoint.task));
    let place = rows.step_place(checkpoint.step).await?.ok_or_else(elsewhere)?;
    let inherited = match task.head {
        Some(head) if place.task != task.id => rows.on_line(head, checkpoint.step).await?,
        _ => false,
    };
    if place.task != task.id && !inherited {
        return Err(elsewhere());
    }
    match rows.checkpoint(checkpoint.task, &checkpoint.name).await? {
        None => rows.insert_checkpoint(checkpoint, &task).await?,
        Some(step) if step == checkpoint.step => {}
        Some(step) => {
            return Err(RecordError::Conflict(format!("{:?} already names step {step} of task {}", checkpoint.name, task.id)));
        }
    }
    Ok(Applied::Done { events: Vec::new() })
}
