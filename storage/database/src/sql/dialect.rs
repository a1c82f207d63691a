//! Everything in which SQLite and PostgreSQL differ.

use std::future::Future;
use std::ops::Range;

use helix_protocol::{Base, NodeId, TaskId, TaskStatus, Timestamp};
use sqlx::{AnyConnection, Connection, query};

use super::columns::{big, count, get, json};
use super::error::failure;
use super::statements::Placeholders;
use crate::{Clock, NodeLease, RecordError, Then, Write};

/// One of the two databases.
pub trait Dialect: Send + Sync + 'static {
    /// How a group's transaction begins.
    const BEGIN: &'static str;
    /// What keeps two nodes from migrating at once, inside a transaction.
    const MIGRATION_LOCK: Option<&'static str>;
    /// How the statements for several rows are written.
    const PLACEHOLDERS: Placeholders;
    /// Whether a connection is asked for a sign of life before it is used.
    const PING: bool;

    /// Prepares a group's transaction: takes its locks, tells the time and which event sequences it may give.
    fn start(
        connection: &mut AnyConnection,
        clock: &Clock,
        group: &[Write],
    ) -> impl Future<Output = Result<(Timestamp, Range<u64>), RecordError>> + Send;

    /// The database's clock.
    fn now(connection: &mut AnyConnection, clock: &Clock) -> impl Future<Output = Result<Timestamp, RecordError>> + Send;

    /// Takes or renews a node's lease.
    fn renew(
        connection: &mut AnyConnection,
        clock: &Clock,
        node: NodeId,
        ttl_ms: u64,
    ) -> impl Future<Output = Result<Option<NodeLease>, RecordError>> + Send;
}

/// One file, one node, one writer.
#[derive(Debug)]
pub struct Sqlite;

impl Dialect for Sqlite {
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const MIGRATION_LOCK: Option<&'static str> = None;
    const PLACEHOLDERS: Placeholders = Placeholders::Bare;
    const PING: bool = false;

    async fn start(connection: &mut AnyConnection, clock: &Clock, _: &[Write]) -> Result<(Timestamp, Range<u64>), RecordError> {
        let select = query("SELECT COALESCE(MAX(sequence), 0) AS last FROM events");
        let row = select.fetch_one(connection).await.map_err(failure)?;
        Ok((clock.now(), count(&row, "last")? + 1..u64::MAX))
    }

    async fn now(_: &mut AnyConnection, clock: &Clock) -> Result<Timestamp, RecordError> {
        Ok(clock.now())
    }

    async fn renew(
        connection: &mut AnyConnection,
        clock: &Clock,
        node: NodeId,
        ttl_ms: u64,
    ) -> Result<Option<NodeLease>, RecordError> {
        let now = clock.now();
        let expires = now.after(std::time::Duration::from_millis(ttl_ms));
        let renew = query(
            "INSERT INTO node_leases (node_id, expires_at, renewed_at) SELECT $1, $2, $3 \
             WHERE NOT EXISTS (SELECT 1 FROM node_leases WHERE node_id <> $1 AND expires_at > $3) \
             ON CONFLICT (node_id) DO UPDATE SET expires_at = excluded.expires_at, renewed_at = excluded.renewed_at",
        );
        let renew = renew.bind(node.to_string()).bind(expires.0).bind(now.0);
        query(FORGET_EXPIRED).bind(node.to_string()).bind(now.0).execute(&mut *connection).await.map_err(failure)?;
        let renewed = renew.execute(connection).await.map_err(failure)?.rows_affected() == 1;
        Ok(renewed.then_some(NodeLease { node, expires_at: expires }))
    }
}

/// A server that several nodes share.
#[derive(Debug)]
pub struct Postgres;

/// Leases that ran out are forgotten: a clock that is set back would give them to their nodes again.
const FORGET_EXPIRED: &str = "DELETE FROM node_leases WHERE node_id <> $1 AND expires_at <= $2";
/// How many events one transaction can number: a sequence is the transaction's number, and in its low bits a count within it.
const EVENTS_PER_TRANSACTION: u64 = 1 << 16;

impl Dialect for Postgres {
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const MIGRATION_LOCK: Option<&'static str> = Some("SELECT pg_advisory_xact_lock(7091828467)");
    const PLACEHOLDERS: Placeholders = Placeholders::Numbered;
    const PING: bool = true;

    async fn start(connection: &mut AnyConnection, _: &Clock, group: &[Write]) -> Result<(Timestamp, Range<u64>), RecordError> {
        lock_tasks(connection, group).await?;
        let select = query(
            "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now, \
                (pg_current_xact_id()::TEXT::BIGINT + base) * 65536 AS first FROM event_base",
        );
        let row = select.fetch_one(connection).await.map_err(failure)?;
        let first = count(&row, "first")?;
        Ok((Timestamp(get(&row, "now")?), first..first + EVENTS_PER_TRANSACTION))
    }

    async fn now(connection: &mut AnyConnection, _: &Clock) -> Result<Timestamp, RecordError> {
        let select = query("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now");
        Ok(Timestamp(get(&select.fetch_one(connection).await.map_err(failure)?, "now")?))
    }

    async fn renew(
        connection: &mut AnyConnection,
        clock: &Clock,
        node: NodeId,
        ttl_ms: u64,
    ) -> Result<Option<NodeLease>, RecordError> {
        let renew = query(
            "INSERT INTO node_leases (node_id, expires_at, renewed_at) \
             SELECT $1, clock.now + $2, clock.now FROM (SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now) clock \
             WHERE NOT EXISTS (SELECT 1 FROM node_leases WHERE node_id <> $1 AND expires_at > clock.now) \
             ON CONFLICT (node_id) DO UPDATE SET expires_at = excluded.expires_at, renewed_at = excluded.renewed_at \
             RETURNING expires_at",
        );
        // Two nodes that come at once must not both find the place free: the lock is held until the transaction's end.
        let mut transaction = connection.begin().await.map_err(failure)?;
        query("SELECT pg_advisory_xact_lock(7091828468)").execute(&mut *transaction).await.map_err(failure)?;
        let renew = renew.bind(node.to_string()).bind(big(ttl_ms.saturating_mul(1000)));
        let now = Self::now(&mut transaction, clock).await?;
        query(FORGET_EXPIRED).bind(node.to_string()).bind(now.0).execute(&mut *transaction).await.map_err(failure)?;
        let row = renew.fetch_optional(&mut *transaction).await.map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        row.map(|row| Ok(NodeLease { node, expires_at: Timestamp(get(&row, "expires_at")?) })).transpose()
    }
}

/// Locks every task that the group touches, in one order for all nodes, so that two groups wait for each other and
/// never in a circle. Also those that a task which ends will free or fail, those that one which goes on needs, and
/// those whose questions are answered.
async fn lock_tasks(connection: &mut AnyConnection, group: &[Write]) -> Result<(), RecordError> {
    let (mut touched, mut ended, mut goes_on, mut answered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for write in group {
        tasks_of(write, &mut touched);
        ended.extend(ends(write));
        match write {
            Write::Status { change, .. } if change.goes_on() => goes_on.push(change.task),
            Write::Answer { question, .. } => answered.push(question),
            _ => {}
        }
    }
    if touched.is_empty() && answered.is_empty() {
        return Ok(());
    }
    let lock = query(
        "WITH RECURSIVE ended (id) AS (\
            SELECT json_array_elements_text($2::JSON) \
            UNION SELECT d.task_id FROM dependencies d JOIN ended e ON d.depends_on = e.id \
                JOIN distributed_tasks t ON t.id = d.task_id AND t.status = $3) \
         SELECT id FROM distributed_tasks \
         WHERE id IN (SELECT json_array_elements_text($1::JSON) UNION SELECT id FROM ended \
            UNION SELECT depends_on FROM dependencies WHERE task_id IN (SELECT json_array_elements_text($4::JSON)) \
            UNION SELECT task_id FROM questions WHERE id IN (SELECT json_array_elements_text($5::JSON))) \
         ORDER BY id FOR NO KEY UPDATE",
    );
    let waiting = TaskStatus::WaitingForDependencies.as_str();
    let lock = lock.bind(json(&touched)?).bind(json(&ended)?).bind(waiting).bind(json(&goes_on)?).bind(json(&answered)?);
    lock.fetch_all(connection).await.map_err(failure)?;
    Ok(())
}

/// The task that the write would end.
fn ends(write: &Write) -> Option<TaskId> {
    match write {
        Write::Status { change, .. } => change.to.is_final().then_some(change.task),
        Write::Commit { step, then: Some(then), .. } => match &**then {
            Then::Status(change) => change.to.is_final().then_some(step.task),
            Then::Ask(_) => None,
        },
        _ => None,
    }
}

fn tasks_of(write: &Write, touched: &mut Vec<TaskId>) {
    match write {
        Write::CreateTask { spec, .. } => {
            touched.extend(&spec.depends_on);
            if let Base::Task { task } = spec.base {
                touched.push(task);
            }
        }
        Write::Claim { task, .. } | Write::Rollback { task, .. } => touched.push(*task),
        Write::Journal(entry) => touched.push(entry.task),
        Write::Commit { step, .. } => touched.push(step.task),
        Write::Status { change, .. } => touched.push(change.task),
        Write::Checkpoint(checkpoint) => touched.push(checkpoint.task),
        Write::Ask { question, .. } => touched.push(question.task),
        Write::Say { remark, .. } => touched.push(remark.task),
        Write::Events(events) => touched.extend(events.iter().filter_map(|event| event.task)),
        // The task of a question is known only to its row, where it is looked up, and workers belong to no task.
        Write::Answer { .. } | Write::Worker { .. } | Write::WorkerLifecycle { .. } | Write::RemoveWorker { .. } => {}
        Write::CreateKey(_) | Write::RevokeKey(_) | Write::RemoveKey(_) | Write::ModelCalls(_) => {}
    }
}
