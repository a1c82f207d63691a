//! The records in memory: for simulations, for tests of what stands above, and for a node that is to leave no trace.

mod read;
mod rows;
mod tables;

use std::collections::HashSet;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, Checkpoint, Event, GatewayKey, JournalEntry, ModelCall, Money, NodeId, ObjectId, Payer, Question, QuestionId,
    RecordsId, Remark, Spent, StepId, StepRecord, StepSummary, TaskId, TaskRecord, Timestamp, WorkerRecord,
};
use tokio::sync::Mutex;

use self::rows::MemoryRows;
use self::tables::Tables;
use crate::plain::plain;
use crate::{Applied, Clock, Descendant, EventFilter, LedgerFilter, NodeLease, RecordError, RecordStore, TaskFilter, Write, rules};

/// The records in memory. Nothing survives the process.
#[derive(Debug)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    clock: Clock,
}

impl MemoryStore {
    /// Empty records on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// Empty records on another clock.
    pub fn with_clock(clock: Clock) -> Self {
        Self { tables: Mutex::new(Tables::default()), clock }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl RecordStore for MemoryStore {
    async fn apply(&self, group: Vec<Write>) -> Result<Vec<Result<Applied, RecordError>>, RecordError> {
        let now = self.clock.now();
        let mut tables = self.tables.lock().await;
        let mut answers = Vec::with_capacity(group.len());
        for write in &plain(group) {
            let mut rows = MemoryRows::new(&mut tables);
            let answer = rules::perform(&mut rows, write, now).await;
            if answer.is_err() {
                rows.undo();
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, RecordError> {
        Ok(self.tables.lock().await.tasks.get(&id).map(|row| row.record.clone()))
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskRecord>, RecordError> {
        Ok(self.tables.lock().await.filtered_tasks(&filter))
    }

    async fn tasks_like(&self, digits: &str) -> Result<Vec<TaskId>, RecordError> {
        Ok(self.tables.lock().await.tasks_like(digits))
    }

    async fn dependents(&self, task: TaskId) -> Result<Vec<TaskRecord>, RecordError> {
        Ok(self.tables.lock().await.dependents(task))
    }

    async fn descendants(&self, task: TaskId) -> Result<Vec<Descendant>, RecordError> {
        Ok(self.tables.lock().await.descendants(task))
    }

    async fn step(&self, id: StepId) -> Result<Option<StepRecord>, RecordError> {
        Ok(self.tables.lock().await.steps.get(&id).cloned())
    }

    async fn lineage(&self, head: StepId) -> Result<Vec<StepSummary>, RecordError> {
        let tables = self.tables.lock().await;
        Ok(tables.line(head).into_iter().map(|step| tables.summary(step)).collect())
    }

    async fn conversation(&self, head: StepId) -> Result<Vec<StepRecord>, RecordError> {
        Ok(self.tables.lock().await.line(head).into_iter().cloned().collect())
    }

    async fn steps(&self, task: TaskId) -> Result<Vec<StepSummary>, RecordError> {
        Ok(self.tables.lock().await.steps_of(task))
    }

    async fn journal(&self, attempt: AttemptId, above_ordinal: u64) -> Result<Vec<JournalEntry>, RecordError> {
        let tables = self.tables.lock().await;
        Ok(tables.journal_of(attempt).map(|(entry, _)| entry).filter(|entry| entry.ordinal > above_ordinal).cloned().collect())
    }

    async fn checkpoints(&self, task: TaskId) -> Result<Vec<Checkpoint>, RecordError> {
        Ok(self.tables.lock().await.checkpoints_of(task))
    }

    async fn question(&self, id: QuestionId) -> Result<Option<Question>, RecordError> {
        Ok(self.tables.lock().await.questions.get(&id).cloned())
    }

    async fn questions(&self, task: TaskId) -> Result<Vec<Question>, RecordError> {
        Ok(self.tables.lock().await.questions_of(task))
    }

    async fn remarks(&self, task: TaskId) -> Result<Vec<Remark>, RecordError> {
        Ok(self.tables.lock().await.remarks_of(task))
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, RecordError> {
        let mut workers: Vec<_> = self.tables.lock().await.workers.values().cloned().collect();
        workers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(workers)
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, RecordError> {
        Ok(self.tables.lock().await.filtered_events(filter))
    }

    async fn newest_event(&self) -> Result<u64, RecordError> {
        Ok(self.tables.lock().await.newest_event())
    }

    async fn spent_since(&self, payer: Payer, since: Timestamp) -> Result<(Money, u64), RecordError> {
        Ok(self.tables.lock().await.spent_since(payer, since))
    }

    async fn gateway_keys(&self) -> Result<Vec<GatewayKey>, RecordError> {
        let mut keys: Vec<_> = self.tables.lock().await.keys_of_gateway.values().cloned().collect();
        keys.sort_by_key(|key| (key.created_at, key.id));
        Ok(keys)
    }

    async fn ledger(&self, filter: LedgerFilter) -> Result<Vec<ModelCall>, RecordError> {
        let tables = self.tables.lock().await;
        let mut calls: Vec<_> = tables.ledger(filter).cloned().collect();
        calls.sort_by_key(|call| std::cmp::Reverse((call.at, call.id)));
        calls.truncate(filter.limit as usize);
        Ok(calls)
    }

    async fn ledger_spent(&self, filter: LedgerFilter) -> Result<Spent, RecordError> {
        Ok(self.tables.lock().await.ledger_spent(filter))
    }

    async fn acknowledged_store_sequence(&self) -> Result<u64, RecordError> {
        Ok(self.tables.lock().await.steps.values().map(|record| record.step.store_sequence).max().unwrap_or(0))
    }

    async fn id(&self) -> Result<Option<RecordsId>, RecordError> {
        Ok(self.tables.lock().await.id)
    }

    async fn identify(&self, id: RecordsId) -> Result<RecordsId, RecordError> {
        Ok(*self.tables.lock().await.id.get_or_insert(id))
    }

    async fn named_content(&self) -> Result<HashSet<ObjectId>, RecordError> {
        self.tables.lock().await.named_content()
    }

    async fn renew_node(&self, node: NodeId, ttl_ms: u64) -> Result<Option<NodeLease>, RecordError> {
        let now = self.clock.now();
        let mut tables = self.tables.lock().await;
        if tables.lease.is_some_and(|lease| lease.node != node && lease.expires_at > now) {
            return Ok(None);
        }
        tables.lease = Some(NodeLease { node, expires_at: now.after(std::time::Duration::from_millis(ttl_ms)) });
        Ok(tables.lease)
    }

    async fn now(&self) -> Result<Timestamp, RecordError> {
        Ok(self.clock.now())
    }

    async fn close(&self) -> Result<(), RecordError> {
        Ok(())
    }
}
