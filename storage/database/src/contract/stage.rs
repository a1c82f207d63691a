//! What the claims are played on: a store, and short ways to say what is usually written.

use std::sync::Arc;

use helix_protocol::{
    AskedModel, AttemptId, Base, Block, CallKey, Change, ChangeKind, CommandSpec, Confinement, Criticality, Epoch, EventKind,
    ExitReport, Isolation, JournalBody, JournalEntry, Message, Money, Network, NewEvent, NewStep, NodeId, ObjectId, Principal,
    ProjectId, Role, RunId, SkipReason, SkippedFile, SnapshotId, Spend, StepId, StepOutcome, StopReason, TaskId, TaskRecord,
    TaskSpec, TaskStatus, TaskWork, Timestamp, WorkerId,
};

use crate::{Applied, RecordError, RecordStore, StatusChange, Write};

/// A store under test.
pub(crate) struct Stage {
    pub store: Arc<dyn RecordStore>,
    pub node: NodeId,
    pub worker: WorkerId,
}

impl From<Arc<dyn RecordStore>> for Stage {
    fn from(store: Arc<dyn RecordStore>) -> Self {
        Self { store, node: NodeId::new(), worker: WorkerId::new() }
    }
}

impl Stage {
    /// Applies one write alone.
    pub async fn apply(&self, write: Write) -> Result<Applied, RecordError> {
        self.store.apply(vec![write]).await.expect("the store answers").remove(0)
    }

    /// Applies one write that must be taken.
    pub async fn done(&self, write: Write) -> Applied {
        self.apply(write).await.expect("the write is taken")
    }

    /// Applies one write that answers a task.
    pub async fn task_after(&self, write: Write) -> TaskRecord {
        match self.done(write).await {
            Applied::Task { task, .. } | Applied::Step { task, .. } => *task,
            Applied::Done { .. } => panic!("the answer has no task"),
        }
    }

    /// A task as it is now.
    pub async fn task(&self, id: TaskId) -> TaskRecord {
        self.store.task(id).await.expect("the store answers").expect("the task exists")
    }

    /// Makes a task that does nothing.
    pub async fn new_task(&self) -> TaskRecord {
        self.create(spec("a task")).await
    }

    /// Makes a task.
    pub async fn create(&self, spec: TaskSpec) -> TaskRecord {
        self.task_after(creation(TaskId::new(), spec)).await
    }

    /// Makes a task and claims it.
    pub async fn claimed_task(&self) -> TaskRecord {
        let task = self.new_task().await;
        self.claim(&task).await
    }

    /// Claims a task for this stage's node and worker.
    pub async fn claim(&self, task: &TaskRecord) -> TaskRecord {
        self.task_after(self.claim_of(task)).await
    }

    /// The claim of a task as it was seen.
    pub fn claim_of(&self, task: &TaskRecord) -> Write {
        Write::Claim { task: task.id, expected: task.epoch, node: self.node, worker: self.worker, events: Vec::new() }
    }

    /// Commits the next step on a task and answers both.
    pub async fn next_step(&self, task: &TaskRecord) -> (NewStep, TaskRecord) {
        let step = step_on(task);
        let task = self.task_after(commit(step.clone())).await;
        (step, task)
    }

    /// Changes a task's state.
    pub async fn set(&self, task: TaskId, to: TaskStatus) -> TaskRecord {
        self.task_after(status(StatusChange { from: TaskStatus::ALL.to_vec(), ..change(task, to) })).await
    }
}

/// A request that does nothing.
pub(crate) fn spec(title: &str) -> TaskSpec {
    TaskSpec { criticality: Criticality::High, ..TaskSpec::new(title, TaskWork::Command(CommandSpec::default())) }
}

/// A request that waits for others.
pub(crate) fn after(dependencies: &[TaskId]) -> TaskSpec {
    TaskSpec { depends_on: dependencies.to_vec(), ..spec("a task that waits") }
}

/// A request that starts from the files of another task.
pub(crate) fn on_files_of(task: TaskId) -> TaskSpec {
    TaskSpec { base: Base::Task { task }, ..spec("a task on the files of another") }
}

/// The making of a task without an idempotency key.
pub(crate) fn creation(id: TaskId, spec: TaskSpec) -> Write {
    creation_under(id, spec, None, Principal::local("cli"))
}

/// The making of a task.
pub(crate) fn creation_under(id: TaskId, spec: TaskSpec, key: Option<&str>, principal: Principal) -> Write {
    let (spec, idempotency_key) = (Box::new(spec), key.map(str::to_owned));
    // The line of steps is derived from the task, so that the same creation is equal in every part.
    let (attempt, project) = (AttemptId(id.0), ProjectId::DEFAULT);
    Write::CreateTask { id, attempt, spec, principal, project, idempotency_key, paused: None }
}

/// The way back to a step.
pub(crate) fn rollback(task: TaskId, step: StepId) -> Write {
    // The line of steps is derived from the step, so that the same way back is equal in every part.
    Write::Rollback { task, step, attempt: AttemptId(step.0), events: Vec::new() }
}

/// A step on a task's present head, with something in every field.
pub(crate) fn step_on(task: &TaskRecord) -> NewStep {
    let id = StepId::new();
    let mut bytes = [7; 32];
    bytes[..16].copy_from_slice(id.0.as_bytes());
    let object = ObjectId(bytes);
    NewStep {
        id,
        task: task.id,
        epoch: task.epoch,
        attempt: task.attempt,
        parent: task.head,
        ordinal: task.steps + 1,
        outcome: StepOutcome::Continue,
        summary: "ran the \"tests\", 2 failed".to_owned(),
        tree: object,
        snapshot: SnapshotId(object),
        store_sequence: task.steps + 1,
        changes: vec![Change { path: "src/über.rs".to_owned(), kind: ChangeKind::Added, size: 12 }],
        skipped: vec![SkippedFile { path: "core".to_owned(), reason: SkipReason::TooLarge, size: 1 << 40 }],
        torn: vec!["log.txt".to_owned()],
        messages: vec![Message::text(Role::User, "fix it"), Message::text(Role::Assistant, "it's fixed, 'quoted' and \\escaped\\")],
        long_messages: None,
        exits: vec![ExitReport {
            run: RunId::new(),
            command: "make test".to_owned(),
            exit_code: 2,
            tail: "2 failed\n".to_owned(),
            output: None,
            output_bytes: 9,
        }],
        artifacts: vec!["target/report.xml".to_owned()],
        heard: Vec::new(),
        asked: vec![AskedModel {
            system: "0011".to_owned(),
            tools: "2233".to_owned(),
            messages: "4455".to_owned(),
            settings: "6677".to_owned(),
            stop: StopReason::ToolUse,
            reply: Some(vec![Block::text("a summary")]),
        }],
        spend: Spend { model_calls: 2, tokens: 1200, money: Money(3400), uncertain_calls: 1 },
        worker: task.worker,
        confinement: Some(Confinement {
            isolation: Isolation::ReadOnly,
            network: Network::None,
            landlock: 7,
            seccomp: true,
            namespaces: false,
        }),
        started_at: Timestamp(1_700_000_000_000_000),
    }
}

/// The commit of a step.
pub(crate) fn commit(step: NewStep) -> Write {
    Write::Commit { step: Box::new(step), then: None, events: Vec::new() }
}

/// A change of state from any state that is not final.
pub(crate) fn change(task: TaskId, to: TaskStatus) -> StatusChange {
    StatusChange {
        task,
        epoch: None,
        from: Vec::new(),
        to,
        reason: String::new(),
        hint: String::new(),
        fence: false,
        retries: None,
        not_before: None,
        budget: None,
    }
}

/// The write of a change of state.
pub(crate) fn status(change: StatusChange) -> Write {
    Write::Status { change: Box::new(change), events: Vec::new() }
}

/// An entry of the journal of the task's next step.
pub(crate) fn entry(task: &TaskRecord, sequence: u64, body: JournalBody) -> JournalEntry {
    JournalEntry { task: task.id, attempt: task.attempt, sequence, ordinal: task.steps + 1, epoch: task.epoch, body }
}

/// The append of an entry.
pub(crate) fn journal(entry: JournalEntry) -> Write {
    Write::Journal(Box::new(entry))
}

/// A reservation before a model call.
pub(crate) fn reserved(call: &str, money: i64, tokens: u64) -> JournalBody {
    JournalBody::Reserved { call: CallKey(call.to_owned()), money: Money(money), tokens }
}

/// A call that died and was charged.
pub(crate) fn call_failed(call: &str, money: i64, tokens: u64) -> JournalBody {
    JournalBody::CallFailed { call: CallKey(call.to_owned()), charged: Money(money), tokens, reason: "429".to_owned() }
}

/// An event about a task.
pub(crate) fn told(kind: EventKind, task: TaskId) -> NewEvent {
    NewEvent::info(kind, "node", "something happened").task(task).detail(serde_json::json!({"proof": "wait status"}))
}

/// The refusal of a stale owner.
pub(crate) fn stale(task: &TaskRecord, epoch: Epoch) -> RecordError {
    RecordError::StaleOwner { task: task.id, epoch, current: task.epoch }
}

/// The refusal of a state that does not allow the change.
pub(crate) fn wrong_status(task: TaskId, status: TaskStatus) -> RecordError {
    RecordError::WrongStatus { task, status }
}
