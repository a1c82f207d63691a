//! The rows in memory, inside one member of a group: every change can be undone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, CallOutcome, Checkpoint, Event, GatewayKey, JournalEntry, KeyId, ModelCall, Money, OwnerId, Question, QuestionId,
    Remark, RemarkId, StepId, StepRecord, TaskId, TaskRecord, TaskStatus, Timestamp, WorkerId, WorkerRecord,
};

use super::tables::{LostSpend, Tables};
use crate::RecordError;
use crate::charge::Charge;
use crate::rows::{Change, Guard, Rows, StepPlace, TaskRow};

/// Which table of all.
type Pick<K, V> = fn(&mut Tables) -> &mut BTreeMap<K, V>;

/// Takes one change back.
type Undo = Box<dyn FnOnce(&mut Tables) + Send>;

/// The tables, and how to undo what this member did to them.
pub(super) struct MemoryRows<'a> {
    tables: &'a mut Tables,
    undo: Vec<Undo>,
}

impl<'a> MemoryRows<'a> {
    pub(super) fn new(tables: &'a mut Tables) -> Self {
        Self { tables, undo: Vec::new() }
    }

    /// Takes back every change, last first.
    pub(super) fn undo(self) {
        for step in self.undo.into_iter().rev() {
            step(self.tables);
        }
    }

    fn put<K: Ord + Clone + Send + 'static, V: Send + 'static>(&mut self, pick: Pick<K, V>, key: K, value: V) {
        let before = pick(self.tables).insert(key.clone(), value);
        self.restore(pick, key, before);
    }

    fn take<K: Ord + Clone + Send + 'static, V: Clone + Send + 'static>(&mut self, pick: Pick<K, V>, key: K) -> bool {
        let before = pick(self.tables).remove(&key);
        let found = before.is_some();
        self.restore(pick, key, before);
        found
    }

    fn restore<K: Ord + Send + 'static, V: Send + 'static>(&mut self, pick: Pick<K, V>, key: K, before: Option<V>) {
        self.undo.push(Box::new(move |tables| {
            let table = pick(tables);
            match before {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }));
    }
}

#[async_trait]
impl Rows for MemoryRows<'_> {
    async fn task(&mut self, id: TaskId) -> Result<Option<TaskRow>, RecordError> {
        Ok(self.tables.tasks.get(&id).map(|row| self.tables.seen(row)))
    }

    async fn insert_task(&mut self, row: &TaskRow, dependencies: &[TaskId]) -> Result<bool, RecordError> {
        if self.tables.tasks.contains_key(&row.record.id) {
            return Ok(false);
        }
        for dependency in dependencies {
            self.put(|tables| &mut tables.waits, (*dependency, row.record.id), ());
        }
        self.put(|tables| &mut tables.tasks, row.record.id, row.clone());
        Ok(true)
    }

    async fn change_task(
        &mut self,
        id: TaskId,
        guard: &Guard,
        change: &Change,
        now: Timestamp,
    ) -> Result<Option<TaskRow>, RecordError> {
        let Some(row) = self.tables.tasks.get(&id).filter(|row| guard.admits(&row.record)) else { return Ok(None) };
        if guard.heard && self.tables.has_unheard(id) {
            return Ok(None);
        }
        let changed = change.applied_to(self.tables.seen(row), now);
        self.put(|tables| &mut tables.tasks, id, changed.clone());
        Ok(Some(changed))
    }

    async fn reserve_events(&mut self, task: TaskId, count: u64) -> Result<Option<u64>, RecordError> {
        let Some(mut row) = self.tables.tasks.get(&task).cloned() else { return Ok(None) };
        row.events += count;
        let last = row.events;
        self.put(|tables| &mut tables.tasks, task, row);
        Ok(Some(last))
    }

    async fn task_of_key(&mut self, owner: OwnerId, key: &str) -> Result<Option<TaskId>, RecordError> {
        Ok(self.tables.keys.get(&(owner, key.to_owned())).copied())
    }

    async fn remember_key(&mut self, owner: OwnerId, key: &str, task: TaskId, _: Timestamp) -> Result<(), RecordError> {
        self.put(|tables| &mut tables.keys, (owner, key.to_owned()), task);
        Ok(())
    }

    async fn waiting_for(&mut self, task: TaskId) -> Result<Vec<TaskId>, RecordError> {
        let waits =
            |id: &TaskId| self.tables.tasks.get(id).is_some_and(|row| row.record.status == TaskStatus::WaitingForDependencies);
        Ok(self.tables.waiting_ids(task).filter(waits).collect())
    }

    async fn unmet_dependencies(&mut self, task: TaskId) -> Result<Vec<(TaskId, TaskStatus)>, RecordError> {
        let needed = self.tables.waits.keys().filter(|(_, waiting)| *waiting == task).map(|(needed, _)| needed);
        let states = needed.filter_map(|id| self.tables.tasks.get(id)).map(|row| (row.record.id, row.record.status));
        Ok(states.filter(|(_, status)| *status != TaskStatus::Completed).collect())
    }

    async fn step(&mut self, id: StepId) -> Result<Option<StepRecord>, RecordError> {
        Ok(self.tables.steps.get(&id).cloned())
    }

    async fn step_place(&mut self, id: StepId) -> Result<Option<StepPlace>, RecordError> {
        Ok(self.tables.steps.get(&id).map(|record| StepPlace { task: record.step.task, ordinal: record.step.ordinal }))
    }

    async fn on_line(&mut self, head: StepId, ancestor: StepId) -> Result<bool, RecordError> {
        Ok(self.tables.line(head).iter().any(|record| record.step.id == ancestor))
    }

    async fn insert_step(&mut self, step: &StepRecord, _: &TaskRecord) -> Result<bool, RecordError> {
        if self.tables.steps.contains_key(&step.step.id) {
            return Ok(false);
        }
        self.put(|tables| &mut tables.steps, step.step.id, step.clone());
        Ok(true)
    }

    async fn append_journal(&mut self, entry: &JournalEntry, now: Timestamp) -> Result<bool, RecordError> {
        let key = (entry.attempt, entry.sequence);
        let owned = self.tables.tasks.get(&entry.task).is_some_and(|row| row.record.epoch == entry.epoch);
        if !owned || self.tables.journal.contains_key(&key) {
            return Ok(false);
        }
        self.put(|tables| &mut tables.journal, key, (entry.clone(), now));
        Ok(true)
    }

    async fn journal_entry(&mut self, attempt: AttemptId, sequence: u64) -> Result<Option<JournalEntry>, RecordError> {
        Ok(self.tables.journal.get(&(attempt, sequence)).map(|(entry, _)| entry.clone()))
    }

    async fn journal_charges(&mut self, attempt: AttemptId) -> Result<Vec<Charge>, RecordError> {
        Ok(self.tables.journal_of(attempt).filter_map(|(entry, _)| Charge::of(&entry.body)).collect())
    }

    async fn has_journal(&mut self, attempt: AttemptId) -> Result<bool, RecordError> {
        Ok(self.tables.journal_of(attempt).next().is_some())
    }

    async fn drop_journal(&mut self, attempt: AttemptId, ordinal: u64) -> Result<(), RecordError> {
        let dropped: Vec<_> = self
            .tables
            .journal_of(attempt)
            .filter(|(entry, _)| entry.ordinal <= ordinal)
            .map(|(entry, _)| entry.sequence)
            .collect();
        for sequence in dropped {
            self.take(|tables| &mut tables.journal, (attempt, sequence));
        }
        Ok(())
    }

    async fn record_lost_spend(&mut self, task: &TaskRecord, money: Money, tokens: u64, now: Timestamp) -> Result<(), RecordError> {
        let next = self.tables.lost_spend.len() as u64;
        self.put(|tables| &mut tables.lost_spend, next, LostSpend { task: task.id, at: now, money, tokens });
        Ok(())
    }

    async fn checkpoint(&mut self, task: TaskId, name: &str) -> Result<Option<StepId>, RecordError> {
        Ok(self.tables.checkpoints.get(&(task, name.to_owned())).map(|checkpoint| checkpoint.step))
    }

    async fn insert_checkpoint(&mut self, checkpoint: &Checkpoint, _: &TaskRecord) -> Result<(), RecordError> {
        self.put(|tables| &mut tables.checkpoints, (checkpoint.task, checkpoint.name.clone()), checkpoint.clone());
        Ok(())
    }

    async fn question(&mut self, id: QuestionId) -> Result<Option<Question>, RecordError> {
        Ok(self.tables.questions.get(&id).cloned())
    }

    async fn insert_question(&mut self, question: &Question, _: &TaskRecord) -> Result<(), RecordError> {
        self.put(|tables| &mut tables.questions, question.id, question.clone());
        Ok(())
    }

    async fn open_question(&mut self, task: TaskId) -> Result<Option<Question>, RecordError> {
        Ok(self.tables.questions_of(task).into_iter().find(Question::is_open))
    }

    async fn close_questions(&mut self, task: TaskId, now: Timestamp) -> Result<(), RecordError> {
        for question in self.tables.questions_of(task).into_iter().filter(Question::is_open) {
            self.put(|tables| &mut tables.questions, question.id, Question { answered_at: Some(now), ..question });
        }
        Ok(())
    }

    async fn answer_question(&mut self, id: QuestionId, answer: &str, now: Timestamp) -> Result<(), RecordError> {
        if let Some(question) = self.tables.questions.get(&id).cloned() {
            let answered = Question { answer: Some(answer.to_owned()), answered_at: Some(now), ..question };
            self.put(|tables| &mut tables.questions, id, answered);
        }
        Ok(())
    }

    async fn remark(&mut self, id: RemarkId) -> Result<Option<Remark>, RecordError> {
        Ok(self.tables.remarks.get(&id).cloned())
    }

    async fn insert_remark(&mut self, remark: &Remark, _: &TaskRecord) -> Result<(), RecordError> {
        self.put(|tables| &mut tables.remarks, remark.id, remark.clone());
        Ok(())
    }

    async fn hear_remark(&mut self, id: RemarkId, task: TaskId, step: StepId) -> Result<(), RecordError> {
        let unheard = |remark: &&Remark| remark.task == task && remark.step.is_none();
        if let Some(remark) = self.tables.remarks.get(&id).filter(unheard).cloned() {
            self.put(|tables| &mut tables.remarks, id, Remark { step: Some(step), ..remark });
        }
        Ok(())
    }

    async fn has_unheard(&mut self, task: TaskId) -> Result<bool, RecordError> {
        Ok(self.tables.has_unheard(task))
    }

    async fn worker(&mut self, id: WorkerId) -> Result<Option<WorkerRecord>, RecordError> {
        Ok(self.tables.workers.get(&id).cloned())
    }

    async fn worker_named(&mut self, name: &str) -> Result<Option<WorkerId>, RecordError> {
        Ok(self.tables.workers.values().find(|worker| worker.name == name).map(|worker| worker.id))
    }

    async fn put_worker(&mut self, worker: &WorkerRecord, _: Timestamp) -> Result<(), RecordError> {
        self.put(|tables| &mut tables.workers, worker.id, worker.clone());
        Ok(())
    }

    async fn delete_worker(&mut self, id: WorkerId) -> Result<bool, RecordError> {
        Ok(self.take(|tables| &mut tables.workers, id))
    }

    async fn key(&mut self, id: KeyId) -> Result<Option<GatewayKey>, RecordError> {
        Ok(self.tables.keys_of_gateway.get(&id).cloned())
    }

    async fn put_key(&mut self, key: &GatewayKey) -> Result<(), RecordError> {
        self.put(|tables| &mut tables.keys_of_gateway, key.id, key.clone());
        Ok(())
    }

    async fn delete_key(&mut self, id: KeyId) -> Result<(), RecordError> {
        self.take(|tables| &mut tables.keys_of_gateway, id);
        Ok(())
    }

    async fn insert_call(&mut self, call: &ModelCall) -> Result<(), RecordError> {
        if self.tables.calls.get(&call.id).is_none_or(|known| known.outcome == CallOutcome::Uncertain) {
            self.put(|tables| &mut tables.calls, call.id, call.clone());
        }
        Ok(())
    }

    async fn insert_event(&mut self, mut event: Event) -> Result<Event, RecordError> {
        event.sequence = self.tables.events.last_key_value().map_or(0, |(last, _)| *last) + 1;
        self.put(|tables| &mut tables.events, event.sequence, event.clone());
        Ok(event)
    }
}
