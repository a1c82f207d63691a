//! What the rules ask of the rows.
//!
//! The rules (`crate::rules`) are written once. A store gives them this trait inside a transaction:
//! in memory it is maps and an undo list, in SQL it is statements. Every method does one thing and
//! knows no rule, with two exceptions that have to be decided by the database itself: a task is only
//! changed where its [`Guard`] admits it, and a journal entry is only appended under the task's epoch.

use std::sync::Arc;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, Budget, Checkpoint, Epoch, Event, GatewayKey, JournalEntry, KeyId, ModelCall, Money, NodeId, OwnerId, Question,
    QuestionId, Remark, RemarkId, StepId, StepRecord, TaskId, TaskRecord, TaskSpec, TaskStatus, Timestamp, WorkerId, WorkerRecord,
};

use crate::RecordError;
use crate::charge::Charge;

/// A task's row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskRow {
    /// As it is now.
    pub record: TaskRecord,
    /// As it was asked for: the record's spec may have a newer budget.
    pub asked: Arc<TaskSpec>,
    /// The sequence of its last event.
    pub events: u64,
    /// Some task names it as a dependency.
    pub needed: bool,
}

/// What must hold of a task for a change to be made. Checked by the statement that makes the change.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// The task's epoch.
    pub epoch: Option<Epoch>,
    /// Its head.
    pub head: Option<Option<StepId>>,
    /// Its state is one of these.
    pub status: Vec<TaskStatus>,
    /// Nothing that was said to it is unheard.
    pub heard: bool,
}

impl Guard {
    /// Any task in a state that `fits`.
    pub fn status(fits: impl Fn(TaskStatus) -> bool) -> Self {
        let status = TaskStatus::ALL.into_iter().filter(|status| fits(*status)).collect();
        Self { epoch: None, head: None, status, heard: false }
    }

    /// The same guard, at this epoch.
    pub fn epoch(mut self, epoch: Option<Epoch>) -> Self {
        self.epoch = epoch;
        self
    }

    /// The same guard, on this head.
    pub fn head(mut self, head: Option<StepId>) -> Self {
        self.head = Some(head);
        self
    }

    /// The same guard, of a task that has heard everything.
    pub fn heard(mut self) -> Self {
        self.heard = true;
        self
    }

    /// Whether the task may be changed, by its row: what was said to it is another table's.
    pub fn admits(&self, task: &TaskRecord) -> bool {
        self.epoch.is_none_or(|epoch| epoch == task.epoch)
            && self.head.is_none_or(|head| head == task.head)
            && self.status.contains(&task.status)
    }

    /// Why it may not. Somebody else's epoch comes first: it explains everything else.
    pub fn refusal(&self, task: &TaskRecord) -> RecordError {
        let epoch = self.epoch.unwrap_or(task.epoch);
        if epoch == task.epoch && !self.status.contains(&task.status) {
            return RecordError::WrongStatus { task: task.id, status: task.status };
        }
        RecordError::StaleOwner { task: task.id, epoch, current: task.epoch }
    }
}

/// Who holds a task after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Whoever held it.
    #[default]
    Unchanged,
    /// Nobody.
    Nobody,
    /// This node, with this worker.
    Is(NodeId, WorkerId),
}

/// A change of a task's row; `None` leaves a column as it is. Every change except [`events`](Self::events)
/// alone raises the row's version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Raises the epoch.
    pub fence: bool,
    /// The new state.
    pub status: Option<TaskStatus>,
    /// Why.
    pub reason: Option<String>,
    /// What to do about it; written with the reason.
    pub hint: String,
    /// Who holds it.
    pub holder: Holder,
    /// The new head and its ordinal.
    pub head: Option<(StepId, u64)>,
    /// The new line of steps.
    pub attempt: Option<AttemptId>,
    /// Retries used.
    pub retries: Option<u32>,
    /// Not before.
    pub not_before: Option<Option<Timestamp>>,
    /// The budget.
    pub budget: Option<Budget>,
    /// Added to what was spent, in money.
    pub money: Money,
    /// Added to what was spent, in tokens.
    pub tokens: u64,
    /// When it reached a final state.
    pub finished_at: Option<Option<Timestamp>>,
    /// How many events about it are recorded with the change.
    pub events: u64,
}

impl Change {
    /// The row after the change.
    pub fn applied_to(&self, mut row: TaskRow, now: Timestamp) -> TaskRow {
        let task = &mut row.record;
        task.epoch = if self.fence { task.epoch.next() } else { task.epoch };
        task.status = self.status.unwrap_or(task.status);
        if let Some(reason) = &self.reason {
            (task.reason, task.hint) = (reason.clone(), self.hint.clone());
        }
        match self.holder {
            Holder::Unchanged => {}
            Holder::Nobody => (task.node, task.worker) = (None, None),
            Holder::Is(node, worker) => (task.node, task.worker) = (Some(node), Some(worker)),
        }
        if let Some((step, ordinal)) = self.head {
            (task.head, task.steps) = (Some(step), ordinal);
        }
        task.attempt = self.attempt.unwrap_or(task.attempt);
        task.retries = self.retries.unwrap_or(task.retries);
        task.not_before = self.not_before.unwrap_or(task.not_before);
        task.spec.budget = self.budget.unwrap_or(task.spec.budget);
        task.spent += self.money;
        task.tokens += self.tokens;
        task.finished_at = self.finished_at.unwrap_or(task.finished_at);
        task.updated_at = now;
        task.version += 1;
        row.events += self.events;
        row
    }
}

/// Where a step stands, without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepPlace {
    /// The task that committed it.
    pub task: TaskId,
    /// 1 for a task's first step.
    pub ordinal: u64,
}

/// The rows, inside the transaction of one group.
#[async_trait]
pub(crate) trait Rows: Send {
    /// A task.
    async fn task(&mut self, id: TaskId) -> Result<Option<TaskRow>, RecordError>;
    /// Records a task with what it waits for; answers false where there is one of that id.
    async fn insert_task(&mut self, row: &TaskRow, dependencies: &[TaskId]) -> Result<bool, RecordError>;
    /// Changes a task where `guard` admits it, and answers the row as it is now; `None` where it does not.
    async fn change_task(
        &mut self,
        id: TaskId,
        guard: &Guard,
        change: &Change,
        now: Timestamp,
    ) -> Result<Option<TaskRow>, RecordError>;
    /// Reserves the next `count` event sequences of a task and answers the last; `None` where there is no such task.
    async fn reserve_events(&mut self, task: TaskId, count: u64) -> Result<Option<u64>, RecordError>;
    /// The task made under an idempotency key.
    async fn task_of_key(&mut self, owner: OwnerId, key: &str) -> Result<Option<TaskId>, RecordError>;
    /// Remembers an idempotency key.
    async fn remember_key(&mut self, owner: OwnerId, key: &str, task: TaskId, now: Timestamp) -> Result<(), RecordError>;
    /// Tasks that name `task` as a dependency and still wait.
    async fn waiting_for(&mut self, task: TaskId) -> Result<Vec<TaskId>, RecordError>;
    /// Those that `task` depends on and that have not completed, with their states.
    async fn unmet_dependencies(&mut self, task: TaskId) -> Result<Vec<(TaskId, TaskStatus)>, RecordError>;

    /// A whole step.
    async fn step(&mut self, id: StepId) -> Result<Option<StepRecord>, RecordError>;
    /// Where a step stands.
    async fn step_place(&mut self, id: StepId) -> Result<Option<StepPlace>, RecordError>;
    /// Whether `ancestor` is `head` or on the line to it.
    async fn on_line(&mut self, head: StepId, ancestor: StepId) -> Result<bool, RecordError>;
    /// Records a step of the task `of`; answers false where there is one of that id.
    async fn insert_step(&mut self, step: &StepRecord, of: &TaskRecord) -> Result<bool, RecordError>;

    /// Appends where the task's epoch is the entry's and the sequence is free; answers whether it did.
    async fn append_journal(&mut self, entry: &JournalEntry, now: Timestamp) -> Result<bool, RecordError>;
    /// One entry.
    async fn journal_entry(&mut self, attempt: AttemptId, sequence: u64) -> Result<Option<JournalEntry>, RecordError>;
    /// What the attempt's journal says was charged or reserved, by sequence.
    async fn journal_charges(&mut self, attempt: AttemptId) -> Result<Vec<Charge>, RecordError>;
    /// Whether the attempt has a journal.
    async fn has_journal(&mut self, attempt: AttemptId) -> Result<bool, RecordError>;
    /// Drops the attempt's entries up to and with `ordinal`.
    async fn drop_journal(&mut self, attempt: AttemptId, ordinal: u64) -> Result<(), RecordError>;
    /// Keeps what a dropped journal had spent, so that no limit forgets it.
    async fn record_lost_spend(&mut self, task: &TaskRecord, money: Money, tokens: u64, now: Timestamp) -> Result<(), RecordError>;

    /// The step a name stands for.
    async fn checkpoint(&mut self, task: TaskId, name: &str) -> Result<Option<StepId>, RecordError>;
    /// Names a step.
    async fn insert_checkpoint(&mut self, checkpoint: &Checkpoint, of: &TaskRecord) -> Result<(), RecordError>;
    /// A question.
    async fn question(&mut self, id: QuestionId) -> Result<Option<Question>, RecordError>;
    /// Records a question.
    async fn insert_question(&mut self, question: &Question, of: &TaskRecord) -> Result<(), RecordError>;
    /// The newest open question of a task, which is the one it was parked with.
    async fn open_question(&mut self, task: TaskId) -> Result<Option<Question>, RecordError>;
    /// Closes the open questions of a task without an answer.
    async fn close_questions(&mut self, task: TaskId, now: Timestamp) -> Result<(), RecordError>;
    /// Records the answer to an open question.
    async fn answer_question(&mut self, id: QuestionId, answer: &str, now: Timestamp) -> Result<(), RecordError>;

    /// What was said, by its id.
    async fn remark(&mut self, id: RemarkId) -> Result<Option<Remark>, RecordError>;
    /// Records what was said.
    async fn insert_remark(&mut self, remark: &Remark, of: &TaskRecord) -> Result<(), RecordError>;
    /// Notes that `step` of `task` heard it, unless another did.
    async fn hear_remark(&mut self, id: RemarkId, task: TaskId, step: StepId) -> Result<(), RecordError>;
    /// Whether something that was said to the task is unheard.
    async fn has_unheard(&mut self, task: TaskId) -> Result<bool, RecordError>;

    /// A worker.
    async fn worker(&mut self, id: WorkerId) -> Result<Option<WorkerRecord>, RecordError>;
    /// The worker of a name.
    async fn worker_named(&mut self, name: &str) -> Result<Option<WorkerId>, RecordError>;
    /// Records a worker or replaces its row.
    async fn put_worker(&mut self, worker: &WorkerRecord, now: Timestamp) -> Result<(), RecordError>;
    /// Forgets a worker; answers whether there was one.
    async fn delete_worker(&mut self, id: WorkerId) -> Result<bool, RecordError>;

    /// A key of the gateway.
    async fn key(&mut self, id: KeyId) -> Result<Option<GatewayKey>, RecordError>;
    /// Records a key or replaces it.
    async fn put_key(&mut self, key: &GatewayKey) -> Result<(), RecordError>;
    /// Forgets a key, if there is one.
    async fn delete_key(&mut self, id: KeyId) -> Result<(), RecordError>;
    /// Enters a model call. One that is there already stays, unless it is uncertain.
    async fn insert_call(&mut self, call: &ModelCall) -> Result<(), RecordError>;

    /// Gives an event its place among all events and records it.
    async fn insert_event(&mut self, event: Event) -> Result<Event, RecordError>;
}
