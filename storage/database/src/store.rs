//! The trait of the records.

use std::collections::HashSet;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, Checkpoint, Code, Epoch, Event, Failure, GatewayKey, JournalEntry, KeyId, ModelCall, Money, NodeId, ObjectId, Payer,
    Question, QuestionId, RecordsId, Remark, Spent, StepId, StepRecord, StepSummary, TaskId, TaskRecord, TaskStatus, Timestamp,
    WorkerRecord,
};

use crate::{Applied, Descendant, Write};

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// In one of these states; empty for all.
    pub status: Vec<TaskStatus>,
    /// At most this many, newest first; `None` for all.
    pub limit: Option<u32>,
}

/// Which events to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those after this sequence.
    pub after: u64,
    /// Only those of this task.
    pub task: Option<TaskId>,
    /// At most this many, oldest first.
    pub limit: u32,
}

/// Which calls of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// Only those of this task.
    pub task: Option<TaskId>,
    /// Only those made with this key.
    pub key: Option<KeyId>,
    /// Only those that ended at this instant or later.
    pub since: Timestamp,
    /// At most this many, newest first. A sum counts all.
    pub limit: u32,
}

/// A node's claim on the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLease {
    /// The node.
    pub node: NodeId,
    /// Until when, by the database's clock.
    pub expires_at: Timestamp,
}

/// The records' failures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Somebody else owns the task by now.
    #[error("task {task} is at epoch {current}, so a write under epoch {epoch} is stale")]
    StaleOwner {
        /// The task.
        task: TaskId,
        /// The writer's epoch.
        epoch: Epoch,
        /// The task's.
        current: Epoch,
    },
    /// The task is in a state that does not allow the change.
    #[error("task {task} is {status}")]
    WrongStatus {
        /// The task.
        task: TaskId,
        /// Its state.
        status: TaskStatus,
    },
    /// A task that has to complete first has ended without that.
    #[error("task {needs}, which it needs, is {status}")]
    DependencyEnded {
        /// That task.
        needs: TaskId,
        /// Its state.
        status: TaskStatus,
    },
    /// No such row.
    #[error("there is no {0}")]
    NotFound(String),
    /// A row of that key exists with other content.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key was used before with another request.
    #[error("the idempotency key {0:?} was used before with another request")]
    IdempotencyConflict(String),
    /// The schema is of a newer version.
    #[error("the records have schema {found}, and this version knows schemas up to {known}")]
    NewerFormat {
        /// The schema found.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// The database does not answer, or the answer to a COMMIT was lost. The write may or may not
    /// have happened; every write may be repeated.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// The disk is full.
    #[error("the records cannot be written: {0}")]
    DiskFull(String),
    /// Something else.
    #[error("the database failed: {0}")]
    Backend(String),
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let message = error.to_string();
        match error {
            RecordError::StaleOwner { .. } => Failure::new(Code::StaleOwner, message),
            RecordError::WrongStatus { .. } => Failure::new(Code::InvalidState, message),
            RecordError::DependencyEnded { needs, .. } => Failure::new(Code::InvalidState, message)
                .hint(format!("`helix task retry {}` tries that one again; this one can wait for it then", needs.short())),
            RecordError::NotFound(_) => Failure::new(Code::NotFound, message),
            RecordError::Conflict(_) => Failure::new(Code::InvalidState, message),
            RecordError::IdempotencyConflict(_) => Failure::new(Code::IdempotencyConflict, message).hint("use a new key"),
            RecordError::NewerFormat { .. } => {
                Failure::new(Code::NewerFormat, message).hint("install the newer version of Helix again")
            }
            RecordError::Unavailable(_) => Failure::new(Code::DatabaseUnavailable, message)
                .hint("see that the database runs: tasks go on by themselves once it answers, and a command is to be repeated"),
            RecordError::DiskFull(_) => Failure::new(Code::DiskFull, message).hint("free some space; work goes on by itself"),
            RecordError::Backend(_) => Failure::new(Code::DatabaseFailed, message),
        }
    }
}

/// The records. Reads may be made from anywhere; writes go through the writer actor, which is the
/// only caller of [`apply`](Self::apply) in a node.
#[async_trait]
pub trait RecordStore: Send + Sync + 'static {
    /// Applies a group of writes in one transaction, made durable once (SQLite: WAL with
    /// synchronous=FULL). The answers are in the order of the writes; a refused member leaves no trace and does not
    /// touch its neighbours. The outer error means that nothing is known to have happened. U+0000 in a text is kept as U+FFFD.
    async fn apply(&self, group: Vec<Write>) -> Result<Vec<Result<Applied, RecordError>>, RecordError>;

    /// A task.
    async fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, RecordError>;
    /// Tasks.
    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskRecord>, RecordError>;
    /// Which tasks' ids begin or end with these hexadecimal digits, in lower case and without hyphens; newest first.
    async fn tasks_like(&self, digits: &str) -> Result<Vec<TaskId>, RecordError>;
    /// Tasks that name `task` as a dependency.
    async fn dependents(&self, task: TaskId) -> Result<Vec<TaskRecord>, RecordError>;
    /// The tasks that `task` made, those that they made, and so on; by id. What they hold of its budget is [`held`](crate::held).
    async fn descendants(&self, task: TaskId) -> Result<Vec<Descendant>, RecordError>;
    /// A step with its messages.
    async fn step(&self, id: StepId) -> Result<Option<StepRecord>, RecordError>;
    /// The line from the first step to `head`, oldest first; it may cross into the task it was forked from.
    async fn lineage(&self, head: StepId) -> Result<Vec<StepSummary>, RecordError>;
    /// The same line with messages.
    async fn conversation(&self, head: StepId) -> Result<Vec<StepRecord>, RecordError>;
    /// Every step a task committed, on its line or rolled back, oldest first.
    async fn steps(&self, task: TaskId) -> Result<Vec<StepSummary>, RecordError>;
    /// The journal of the step being made: entries of this attempt above `ordinal`, by sequence.
    async fn journal(&self, attempt: AttemptId, above_ordinal: u64) -> Result<Vec<JournalEntry>, RecordError>;
    /// Names given to a task's steps.
    async fn checkpoints(&self, task: TaskId) -> Result<Vec<Checkpoint>, RecordError>;
    /// One question.
    async fn question(&self, id: QuestionId) -> Result<Option<Question>, RecordError>;
    /// A task's questions, newest first.
    async fn questions(&self, task: TaskId) -> Result<Vec<Question>, RecordError>;
    /// What was said to a task, oldest first, heard or not.
    async fn remarks(&self, task: TaskId) -> Result<Vec<Remark>, RecordError>;
    /// Workers, by name.
    async fn workers(&self) -> Result<Vec<WorkerRecord>, RecordError>;
    /// Events, oldest first. They become readable in their order where one node writes, one group after another: who goes on after
    /// the last one read misses none, whatever else is open on the server.
    async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, RecordError>;
    /// The sequence of the newest event; 0 where there is none.
    async fn newest_event(&self) -> Result<u64, RecordError>;
    /// What a payer's tasks and calls through the gateway spent since `since`, in money and tokens, reservations of unfinished
    /// steps included. Each call counts once: that of a step in its journal and then in its step; any other, those of external
    /// agents' turns among them, in the ledger.
    async fn spent_since(&self, payer: Payer, since: Timestamp) -> Result<(Money, u64), RecordError>;
    /// Keys of the gateway, in the order in which they were made.
    async fn gateway_keys(&self) -> Result<Vec<GatewayKey>, RecordError>;
    /// Model calls, newest first.
    async fn ledger(&self, filter: LedgerFilter) -> Result<Vec<ModelCall>, RecordError>;
    /// What model calls used together.
    async fn ledger_spent(&self, filter: LedgerFilter) -> Result<Spent, RecordError>;
    /// The greatest content-store sequence any committed step names: less in the store means lost writes.
    async fn acknowledged_store_sequence(&self) -> Result<u64, RecordError>;

    /// Which records these are; `None` until they are given an id.
    async fn id(&self) -> Result<Option<RecordsId>, RecordError>;
    /// Gives the records this id where they have none, and answers the one they have.
    async fn identify(&self, id: RecordsId) -> Result<RecordsId, RecordError>;

    /// Every id of content that stands in a task, a step or a journal, wherever in it: what must be kept. Some may be none of ours:
    /// any text of 64 hexadecimal digits counts. What is committed while it reads may be left out.
    async fn named_content(&self) -> Result<HashSet<ObjectId>, RecordError>;

    /// Takes or renews a node's lease for `ttl_ms`, by the database's clock. `None` where another
    /// node holds it (one-node stores) or this node's has run out and was taken over.
    async fn renew_node(&self, node: NodeId, ttl_ms: u64) -> Result<Option<NodeLease>, RecordError>;
    /// The database's clock.
    async fn now(&self) -> Result<Timestamp, RecordError>;
    /// Writes what is buffered and closes.
    async fn close(&self) -> Result<(), RecordError>;
}
