//! The store in SQL: pools, and a group of writes as one transaction.

use std::marker::PhantomData;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, Checkpoint, Event, JournalEntry, Money, NodeId, OwnerId, Question, StepId, StepRecord, StepSummary, TaskId,
    TaskRecord, Timestamp, WorkerRecord,
};
use sqlx::{AnyConnection, AnyPool, Connection};

use super::dialect::Dialect;
use super::error::{clash, ends_the_group, failure, is_clash};
use super::read;
use super::rows::SqlRows;
use super::specs::Specs;
use crate::{Applied, Clock, EventFilter, NodeLease, RecordError, RecordStore, TaskFilter, Write, rules};

/// How often a group is tried that another node's group got in the way of.
const TRIES: usize = 5;

/// The records in SQL. Made by `SqliteStore::open` and `PostgresStore::connect`.
#[derive(Debug)]
pub struct SqlStore<D> {
    /// One connection on SQLite, which has one writer.
    pub(crate) writer: AnyPool,
    pub(crate) readers: AnyPool,
    pub(crate) clock: Clock,
    specs: Specs,
    dialect: PhantomData<D>,
}

impl<D: Dialect> SqlStore<D> {
    pub(crate) fn new(writer: AnyPool, readers: AnyPool, clock: Clock) -> Self {
        Self { writer, readers, clock, specs: Specs::default(), dialect: PhantomData }
    }

    async fn try_apply(&self, group: &[Write]) -> Result<Vec<Result<Applied, RecordError>>, RecordError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        let outcome = self.apply_on(&mut connection, group).await;
        if outcome.is_err() {
            // The database may have ended the transaction by itself (SQLite does on a full disk) and the
            // driver would still count it as open. The next group gets a new connection.
            let _ = connection.close().await;
        }
        outcome
    }

    async fn apply_on(
        &self,
        connection: &mut AnyConnection,
        group: &[Write],
    ) -> Result<Vec<Result<Applied, RecordError>>, RecordError> {
        let mut transaction = connection.begin_with(D::BEGIN).await.map_err(failure)?;
        let (now, events) = D::start(&mut transaction, &self.clock, group).await?;
        let mut rows = SqlRows::new(&mut transaction, &self.specs, events);
        let mut answers = Vec::with_capacity(group.len());
        for write in group {
            // A journal entry is one statement: refused, it has changed nothing that would need a savepoint.
            let marked = !matches!(write, Write::Journal(_));
            if marked {
                rows.mark().await?;
            }
            let answer = rules::perform(&mut rows, write, now).await;
            match &answer {
                Err(error) if ends_the_group(error, marked) => return Err(error.clone()),
                Err(_) if marked => rows.undo().await?,
                _ => {}
            }
            answers.push(answer);
        }
        let read_specs = rows.into_read_specs();
        transaction.commit().await.map_err(failure)?;
        self.specs.keep(read_specs);
        Ok(answers)
    }
}

#[async_trait]
impl<D: Dialect> RecordStore for SqlStore<D> {
    async fn apply(&self, group: Vec<Write>) -> Result<Vec<Result<Applied, RecordError>>, RecordError> {
        for _ in 0..TRIES {
            match self.try_apply(&group).await {
                Err(error) if is_clash(&error) => tracing::debug!(writes = group.len(), "a group clashed and is tried again"),
                outcome => return outcome,
            }
        }
        Err(clash())
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, RecordError> {
        read::task(&self.readers, id).await
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskRecord>, RecordError> {
        read::tasks(&self.readers, filter).await
    }

    async fn dependents(&self, task: TaskId) -> Result<Vec<TaskRecord>, RecordError> {
        read::dependents(&self.readers, task).await
    }

    async fn step(&self, id: StepId) -> Result<Option<StepRecord>, RecordError> {
        read::step(&self.readers, id).await
    }

    async fn lineage(&self, head: StepId) -> Result<Vec<StepSummary>, RecordError> {
        read::lineage(&self.readers, head).await
    }

    async fn conversation(&self, head: StepId) -> Result<Vec<StepRecord>, RecordError> {
        read::conversation(&self.readers, head).await
    }

    async fn steps(&self, task: TaskId) -> Result<Vec<StepSummary>, RecordError> {
        read::steps(&self.readers, task).await
    }

    async fn journal(&self, attempt: AttemptId, above_ordinal: u64) -> Result<Vec<JournalEntry>, RecordError> {
        read::journal(&self.readers, attempt, above_ordinal).await
    }

    async fn checkpoints(&self, task: TaskId) -> Result<Vec<Checkpoint>, RecordError> {
        read::checkpoints(&self.readers, task).await
    }

    async fn questions(&self, task: TaskId) -> Result<Vec<Question>, RecordError> {
        read::questions(&self.readers, task).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, RecordError> {
        read::workers(&self.readers).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, RecordError> {
        read::events(&self.readers, D::EVENTS, filter).await
    }

    async fn spent_since(&self, owner: OwnerId, since: Timestamp) -> Result<(Money, u64), RecordError> {
        read::spent_since(&self.readers, owner, since).await
    }

    async fn acknowledged_store_sequence(&self) -> Result<u64, RecordError> {
        read::acknowledged_store_sequence(&self.readers).await
    }

    async fn renew_node(&self, node: NodeId, ttl_ms: u64) -> Result<Option<NodeLease>, RecordError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        D::renew(&mut connection, &self.clock, node, ttl_ms).await
    }

    async fn now(&self) -> Result<Timestamp, RecordError> {
        let mut connection = self.readers.acquire().await.map_err(failure)?;
        D::now(&mut connection, &self.clock).await
    }

    async fn close(&self) -> Result<(), RecordError> {
        self.readers.close().await;
        self.writer.close().await;
        Ok(())
    }
}
