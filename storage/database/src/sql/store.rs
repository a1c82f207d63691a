//! The store in SQL: pools, and a group of writes as one transaction.

use std::collections::HashSet;
use std::marker::PhantomData;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, Checkpoint, Event, GatewayKey, JournalEntry, ModelCall, Money, NodeId, ObjectId, Payer, Question, QuestionId,
    RecordsId, Remark, Spent, StepId, StepRecord, StepSummary, TaskId, TaskRecord, Timestamp, WorkerRecord,
};
use sqlx::{AnyConnection, AnyPool, Connection, query};

use super::dialect::Dialect;
use super::error::{clash, ends_the_group, failure, is_clash};
use super::group::{Savepoint, SqlRows};
use super::read;
use super::specs::Specs;
use crate::plain::plain;
use crate::{Applied, Clock, Descendant, EventFilter, LedgerFilter, NodeLease, RecordError, RecordStore, TaskFilter, Write, rules};

type Answers = Vec<Result<Applied, RecordError>>;

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

    async fn try_apply(&self, group: &[Write]) -> Result<Answers, RecordError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        let outcome = match self.apply_on(&mut connection, group, Savepoint::Spared).await {
            Ok(None) => self.apply_on(&mut connection, group, Savepoint::Set).await,
            outcome => outcome,
        };
        match outcome {
            Ok(answers) => Ok(answers.expect("with savepoints every member is taken back by itself")),
            Err(error) => {
                // The database may have ended the transaction by itself (SQLite does on a full disk) and the
                // driver would still count it as open. The next group gets a new connection.
                let _ = connection.close().await;
                Err(error)
            }
        }
    }

    /// One transaction. `None` where a member without a savepoint would have had to be taken back: then nothing has happened.
    async fn apply_on(
        &self,
        connection: &mut AnyConnection,
        group: &[Write],
        savepoint: Savepoint,
    ) -> Result<Option<Answers>, RecordError> {
        let mut transaction = connection.begin_with(D::BEGIN).await.map_err(failure)?;
        let (now, events) = D::start(&mut transaction, &self.clock, group).await?;
        let mut rows = SqlRows::new(&mut transaction, &self.specs, events, D::PLACEHOLDERS, savepoint);
        let mut answers = Vec::with_capacity(group.len());
        for write in group {
            // A journal entry is one statement: refused, it has changed nothing that would need a savepoint.
            let wanted = if matches!(write, Write::Journal(_)) { Savepoint::Spared } else { savepoint };
            rows.mark(wanted).await?;
            let answer = rules::perform(&mut rows, write, now).await;
            if let Err(error) = &answer {
                match after(error, rows.is_untouched(), savepoint, wanted) {
                    After::TakeBack => rows.undo().await?,
                    After::End => return Err(error.clone()),
                    After::Again => {
                        drop(rows);
                        transaction.rollback().await.map_err(failure)?;
                        return Ok(None);
                    }
                }
            }
            answers.push(answer);
        }
        let specs = match rows.finish().await {
            Ok(specs) => specs,
            Err(error) if savepoint == Savepoint::Spared && !ends_the_group(&error) => {
                transaction.rollback().await.map_err(failure)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        transaction.commit().await.map_err(failure)?;
        self.specs.keep(specs);
        Ok(Some(answers))
    }
}

/// What becomes of a group one of whose members was refused.
enum After {
    /// The member is taken back and the others go on.
    TakeBack,
    /// The transaction cannot go on.
    End,
    /// It is tried again, with a savepoint for each member.
    Again,
}

/// `tried` is how the group is tried, `had` what the member had.
fn after(error: &RecordError, untouched: bool, tried: Savepoint, had: Savepoint) -> After {
    let failed = matches!(error, RecordError::Backend(_));
    if ends_the_group(error) {
        After::End
    } else if had == Savepoint::Set || (untouched && !failed) {
        After::TakeBack
    } else if tried == Savepoint::Spared {
        After::Again
    } else {
        After::End
    }
}

#[async_trait]
impl<D: Dialect> RecordStore for SqlStore<D> {
    async fn apply(&self, group: Vec<Write>) -> Result<Vec<Result<Applied, RecordError>>, RecordError> {
        let group = plain(group);
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

    async fn tasks_like(&self, digits: &str) -> Result<Vec<TaskId>, RecordError> {
        read::tasks_like(&self.readers, digits).await
    }

    async fn dependents(&self, task: TaskId) -> Result<Vec<TaskRecord>, RecordError> {
        read::dependents(&self.readers, task).await
    }

    async fn descendants(&self, task: TaskId) -> Result<Vec<Descendant>, RecordError> {
        read::descendants(&self.readers, task).await
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

    async fn question(&self, id: QuestionId) -> Result<Option<Question>, RecordError> {
        read::question(&self.readers, id).await
    }

    async fn questions(&self, task: TaskId) -> Result<Vec<Question>, RecordError> {
        read::questions(&self.readers, task).await
    }

    async fn remarks(&self, task: TaskId) -> Result<Vec<Remark>, RecordError> {
        read::remarks(&self.readers, task).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, RecordError> {
        read::workers(&self.readers).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, RecordError> {
        read::events(&self.readers, filter).await
    }

    async fn newest_event(&self) -> Result<u64, RecordError> {
        read::newest_event(&self.readers).await
    }

    async fn spent_since(&self, payer: Payer, since: Timestamp) -> Result<(Money, u64), RecordError> {
        read::spent_since(&self.readers, payer, since).await
    }

    async fn gateway_keys(&self) -> Result<Vec<GatewayKey>, RecordError> {
        read::gateway_keys(&self.readers).await
    }

    async fn ledger(&self, filter: LedgerFilter) -> Result<Vec<ModelCall>, RecordError> {
        read::ledger(&self.readers, filter).await
    }

    async fn ledger_spent(&self, filter: LedgerFilter) -> Result<Spent, RecordError> {
        read::ledger_spent(&self.readers, filter).await
    }

    async fn acknowledged_store_sequence(&self) -> Result<u64, RecordError> {
        read::acknowledged_store_sequence(&self.readers).await
    }

    async fn id(&self) -> Result<Option<RecordsId>, RecordError> {
        read::id(&self.readers).await
    }

    async fn identify(&self, id: RecordsId) -> Result<RecordsId, RecordError> {
        let insert = query("INSERT INTO records_id (only_row, id) VALUES (1, $1) ON CONFLICT (only_row) DO NOTHING");
        insert.bind(id.to_string()).execute(&self.writer).await.map_err(failure)?;
        read::id(&self.writer).await?.ok_or_else(|| RecordError::Backend("the id of the records was not kept".to_owned()))
    }

    async fn named_content(&self) -> Result<HashSet<ObjectId>, RecordError> {
        read::named_content(&self.readers).await
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
