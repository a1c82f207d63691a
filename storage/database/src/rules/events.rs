//! Events get their places: one among all, one among those of their task without a gap.

use std::collections::BTreeMap;

use helix_protocol::{Event, EventId, NewEvent, TaskId, Timestamp};

use crate::RecordError;
use crate::rows::{Rows, TaskRow};

/// The version of an event's shape.
const SCHEMA: u32 = 1;

/// How many of `events` are about `task`: the count a change of that task reserves in the same statement.
pub(super) fn about(events: &[NewEvent], task: TaskId) -> u64 {
    events.iter().filter(|event| event.task == Some(task)).count() as u64
}

/// Records `events`. Those about `changed` take the sequences that its change reserved; for other
/// tasks they are reserved here.
pub(super) async fn record(
    rows: &mut dyn Rows,
    events: &[NewEvent],
    changed: Option<&TaskRow>,
    now: Timestamp,
) -> Result<Vec<Event>, RecordError> {
    let mut last: BTreeMap<TaskId, u64> = BTreeMap::new();
    if let Some(row) = changed {
        last.insert(row.record.id, row.events - about(events, row.record.id));
    }
    let mut recorded = Vec::with_capacity(events.len());
    for event in events {
        let task_sequence = match event.task {
            Some(task) => next(rows, &mut last, task, about(events, task)).await?,
            None => 0,
        };
        let event = Event { id: EventId::new(), sequence: 0, task_sequence, schema: SCHEMA, at: now, event: event.clone() };
        recorded.push(rows.insert_event(event).await?);
    }
    Ok(recorded)
}

async fn next(rows: &mut dyn Rows, last: &mut BTreeMap<TaskId, u64>, task: TaskId, count: u64) -> Result<u64, RecordError> {
    if let Some(sequence) = last.get_mut(&task) {
        *sequence += 1;
        return Ok(*sequence);
    }
    let end = rows.reserve_events(task, count).await?.ok_or_else(|| RecordError::NotFound(format!("task {task}")))?;
    let first = end - count + 1;
    last.insert(task, first);
    Ok(first)
}
