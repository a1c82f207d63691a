//! The rules of what people say to running tasks: it is recorded once, and one step hears it.

use helix_protocol::{EventKind, NewEvent, NewStep, Remark, TaskStatus, Timestamp};

use super::events::{about, record};
use super::tasks::{existing, task};
use crate::rows::{Change, Guard, Rows};
use crate::{Applied, RecordError, Then};

pub(super) async fn say(rows: &mut dyn Rows, remark: &Remark, events: &[NewEvent], now: Timestamp) -> Result<Applied, RecordError> {
    if let Some(said) = rows.remark(remark.id).await? {
        return if (said.task, &said.text) == (remark.task, &remark.text) {
            Ok(task(existing(rows, remark.task).await?, Vec::new()))
        } else {
            Err(RecordError::Conflict(format!("remark {} was made in other words", remark.id)))
        };
    }
    // The change of the row, although it is one of its events only, is what a commit and this wait for each other at.
    let guard = Guard::status(|status| !status.is_final());
    let change = Change { events: about(events, remark.task), ..Change::default() };
    let Some(row) = rows.change_task(remark.task, &guard, &change, now).await? else {
        return Err(guard.refusal(&existing(rows, remark.task).await?.record));
    };
    rows.insert_remark(&Remark { created_at: now, step: None, ..remark.clone() }, &row.record).await?;
    let events = record(rows, events, Some(&row), now).await?;
    Ok(task(row, events))
}

/// Notes what the step heard.
pub(super) async fn heard(rows: &mut dyn Rows, step: &NewStep) -> Result<(), RecordError> {
    for remark in &step.heard {
        rows.hear_remark(*remark, step.task, step.id).await?;
    }
    Ok(())
}

/// Whether what follows from a step is the end of its task.
pub(super) fn completes(then: Option<&Then>) -> bool {
    matches!(then, Some(Then::Status(change)) if change.to == TaskStatus::Completed)
}

/// Everything but the end of the task.
pub(super) fn without_end(events: &[NewEvent]) -> Vec<NewEvent> {
    events.iter().filter(|event| event.kind != EventKind::TaskCompleted).cloned().collect()
}
