//! The rules of every write, once for all stores.
//!
//! A rule first tries its change under a guard that the store itself checks, and only where
//! nothing was changed reads the row to find out why: so what decides is never a read made before. A rule
//! that refuses leaves it to the store to undo what the member had changed by then.

mod events;
mod ledger;
mod questions;
mod remarks;
mod steps;
mod tasks;
mod workers;

use helix_protocol::Timestamp;

use crate::rows::Rows;
use crate::{Applied, RecordError, Write};

/// Applies one write.
pub(crate) async fn perform(rows: &mut dyn Rows, write: &Write, now: Timestamp) -> Result<Applied, RecordError> {
    match write {
        Write::CreateTask { id, attempt, spec, principal, project, idempotency_key, paused } => {
            let paused = paused.as_deref();
            let request = tasks::Request { id: *id, attempt: *attempt, spec, principal, project: *project, paused };
            tasks::create(rows, request, idempotency_key.as_deref(), now).await
        }
        Write::Claim { task, expected, node, worker, events } => {
            tasks::claim(rows, tasks::Claim { task: *task, expected: *expected, node: *node, worker: *worker }, events, now).await
        }
        Write::Journal(entry) => steps::journal(rows, entry, now).await,
        Write::Commit { step, then, events } => steps::commit(rows, step, then.as_deref(), events, now).await,
        Write::Status { change, events } => tasks::status(rows, change, events, now).await,
        Write::Rollback { task, step, attempt, events } => steps::rollback(rows, *task, (*step, *attempt), events, now).await,
        Write::Checkpoint(checkpoint) => steps::checkpoint(rows, checkpoint).await,
        Write::Ask { question, epoch, events } => questions::ask(rows, question, *epoch, events, now).await,
        Write::Answer { question, answer, events } => questions::answer(rows, *question, answer, events, now).await,
        Write::Say { remark, events } => remarks::say(rows, remark, events, now).await,
        Write::Worker { worker, events } => workers::put(rows, worker, events, now).await,
        Write::WorkerLifecycle { worker, lifecycle, events } => workers::lifecycle(rows, *worker, *lifecycle, events, now).await,
        Write::RemoveWorker { worker, events } => workers::remove(rows, *worker, events, now).await,
        Write::CreateKey(key) => ledger::create_key(rows, key).await,
        Write::RevokeKey(key) => ledger::revoke_key(rows, *key, now).await,
        Write::RemoveKey(key) => ledger::remove_key(rows, *key).await,
        Write::ModelCalls(calls) => ledger::record_calls(rows, calls).await,
        Write::Events(events) => Ok(Applied::Done { events: events::record(rows, events, None, now).await? }),
    }
}
