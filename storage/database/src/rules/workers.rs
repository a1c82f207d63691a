//! The rules of workers.

use helix_protocol::{Lifecycle, NewEvent, Timestamp, WorkerId, WorkerRecord};

use super::events::record;
use crate::rows::Rows;
use crate::{Applied, RecordError};

pub(super) async fn put(
    rows: &mut dyn Rows,
    worker: &WorkerRecord,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    if rows.worker_named(&worker.name).await?.is_some_and(|other| other != worker.id) {
        return Err(RecordError::Conflict(format!("another worker is called {:?}", worker.name)));
    }
    let before = rows.worker(worker.id).await?;
    if before.as_ref().is_some_and(|before| repeats(worker, before)) {
        return Ok(Applied::Done { events: Vec::new() });
    }
    let version = before.map_or(0, |before| before.version) + 1;
    rows.put_worker(&WorkerRecord { version, ..worker.clone() }, now).await?;
    Ok(Applied::Done { events: record(rows, events, None, now).await? })
}

/// Equal content written by somebody who saw an older row: the same write, whose answer was lost.
fn repeats(worker: &WorkerRecord, row: &WorkerRecord) -> bool {
    worker.version < row.version && WorkerRecord { version: row.version, ..worker.clone() } == *row
}

pub(super) async fn lifecycle(
    rows: &mut dyn Rows,
    id: WorkerId,
    lifecycle: Lifecycle,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    let worker = rows.worker(id).await?.ok_or_else(|| RecordError::NotFound(format!("worker {id}")))?;
    if worker.lifecycle == lifecycle {
        return Ok(Applied::Done { events: Vec::new() });
    }
    rows.put_worker(&WorkerRecord { lifecycle, version: worker.version + 1, ..worker }, now).await?;
    Ok(Applied::Done { events: record(rows, events, None, now).await? })
}

pub(super) async fn remove(rows: &mut dyn Rows, id: WorkerId, events: &[NewEvent], now: Timestamp) -> Result<Applied, RecordError> {
    if !rows.delete_worker(id).await? {
        return Ok(Applied::Done { events: Vec::new() });
    }
    Ok(Applied::Done { events: record(rows, events, None, now).await? })
}
