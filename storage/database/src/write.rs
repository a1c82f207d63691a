//! Every change that can be made to the records.

use helix_protocol::{
    AttemptId, Budget, Checkpoint, Epoch, Event, GatewayKey, JournalEntry, KeyId, Lifecycle, ModelCall, NewEvent, NewStep, NodeId,
    Principal, ProjectId, Question, QuestionId, Remark, StepId, StepRecord, TaskId, TaskRecord, TaskSpec, TaskStatus, Timestamp,
    WorkerId, WorkerRecord,
};

/// A change of a task's state.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    /// The task.
    pub task: TaskId,
    /// Refused with `StaleOwner` unless this is the task's epoch; `None` for changes that an
    /// operator makes whoever owns it.
    pub epoch: Option<Epoch>,
    /// Refused with `WrongStatus` unless the task is in one of these; empty means any state that is not final.
    pub from: Vec<TaskStatus>,
    /// The new state. A final one sets `finished_at`; one that is not active clears node and worker. A task that was parked or had
    /// ended and is to be pending waits for input again where its question is open, with the question as the reason, and for its
    /// dependencies where one has not completed; refused with `DependencyEnded` where one has failed or was cancelled.
    pub to: TaskStatus,
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
    /// Raises the epoch, so that the present owner is stale from now on.
    pub fence: bool,
    /// The new count of used retries, where it changes.
    pub retries: Option<u32>,
    /// When it may run again at the earliest, where it changes.
    pub not_before: Option<Option<Timestamp>>,
    /// A new budget, where it changes.
    pub budget: Option<Budget>,
}

impl StatusChange {
    /// True of one that may let a task go on which was parked or had ended.
    pub(crate) fn goes_on(&self) -> bool {
        let rests = |status: &TaskStatus| matches!(status, TaskStatus::Paused | TaskStatus::WaitingForInput) || status.is_final();
        self.to == TaskStatus::Pending && (self.from.is_empty() || self.from.iter().any(rests))
    }
}

/// What becomes of a task together with a step's commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// The task changes its state, as [`Write::Status`] would do it: completes, fails, is parked, waits for its retry. Its
    /// `task` and `epoch` are the step's.
    Status(StatusChange),
    /// The task asks, as [`Write::Ask`] would do it, at the very instant of the commit: so a step knows its own question,
    /// whatever clocks say.
    Ask(Question),
}

/// One change. Each variant is one savepoint of the group's transaction: it happens whole, with its
/// events, or not at all. A variant that is applied twice (its answer was lost) is applied once.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Records a new task in state `pending`, or `waiting_for_dependencies` where some dependency is not completed. Answers
    /// `Task`. With an idempotency key that was used before: answers the task made then where the spec is equal, else refuses
    /// with `IdempotencyConflict`. Refused with `NotFound` where a dependency or the forked step does not exist, and with
    /// `DependencyEnded` where a dependency has failed or was cancelled. The task of a `Base::Task` is a dependency. A fork
    /// starts with the forked step as its head. One that is parked from the start is in state `paused` instead. Records
    /// `task.created` itself, and `task.paused` of such a one. The same id with the same spec again is the same creation; with
    /// another spec it is `Conflict`.
    CreateTask {
        /// Its id.
        id: TaskId,
        /// Its line of steps.
        attempt: AttemptId,
        /// What was asked for.
        spec: Box<TaskSpec>,
        /// Who asked.
        principal: Principal,
        /// For which project.
        project: ProjectId,
        /// Makes a repetition harmless.
        idempotency_key: Option<String>,
        /// Why it is parked from the start, where it is.
        paused: Option<String>,
    },
    /// Takes a task for a node and a worker: raises the epoch and sets `assigned`. Answers `Task`.
    /// Refused with `StaleOwner` where the epoch is not `expected`, `WrongStatus` where it is not one of
    /// pending, waiting_for_worker, assigned or running. The same claim again (same expected epoch, node and worker, nobody
    /// else since) answers the task.
    Claim {
        /// The task.
        task: TaskId,
        /// The epoch the claimer saw.
        expected: Epoch,
        /// The node.
        node: NodeId,
        /// The worker.
        worker: WorkerId,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Appends to the journal. Answers `Done`. Refused with `StaleOwner` under another epoch. The same
    /// sequence with the same body again is the same append; with another body it is `Conflict`.
    Journal(Box<JournalEntry>),
    /// The fenced commit of a step: step, messages, spend, events and the head move together,
    /// `WHERE epoch = step.epoch AND head = step.parent`. Also adds the spend to the task's, sets its status to running, its
    /// `retries` to 0, and deletes the journal of this ordinal and before. What [`then`](Self::Commit::then) asks for happens after
    /// that, in the same savepoint. What the step says it heard is heard by no other step. A task does not complete while something
    /// that was said to it is unheard: then the step is committed without `then`, and without the event of the end. Answers `Step`,
    /// with the task as it is after `then`. Where the head is already this very step: `Step` again, `then` not applied a second
    /// time. Refused with `WrongStatus` where the task has ended, else with `StaleOwner`.
    Commit {
        /// The step.
        step: Box<NewStep>,
        /// What follows at once, so that no crash can fall between the step and its consequence; `None`: the task runs on.
        then: Option<Box<Then>>,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Changes a task's state. Completing a task frees the tasks that waited for it (they turn
    /// pending); failing or cancelling it fails them, and those that waited for them; `task.resumed` and `task.failed` of
    /// these are recorded by itself. Answers `Task`. Where the task already is as the change wants it, state, reason, epoch
    /// and all, it is the same change. A change that fences and names no epoch cannot be told from a new one, except where
    /// it ends the task: to have it applied once, name the epoch.
    Status {
        /// The change.
        change: Box<StatusChange>,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Moves the head back to one of its ancestors, raises the epoch, drops the journal, closes open questions; a task that waits
    /// with one is paused. Answers `Task`.
    /// Refused with `NotFound` where the step is not an ancestor, `WrongStatus` while the task is active. What the dropped
    /// journal had spent or reserved is added to the task's spend. Where the step is the head and there is no journal, nothing
    /// is left to do.
    Rollback {
        /// The task.
        task: TaskId,
        /// The step.
        step: StepId,
        /// The line of steps that begins there: what is made on it has other keys than what was made before.
        attempt: AttemptId,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Names a step of the task or of the line it was forked from, else `NotFound`. Answers `Done`. The same name for the same step
    /// again is the same; for another step it is `Conflict`.
    Checkpoint(Checkpoint),
    /// Records a question and parks its task in `waiting_for_input`; an earlier one that is still open is closed. Answers `Task`.
    /// Refused with `StaleOwner`.
    Ask {
        /// The question.
        question: Box<Question>,
        /// The epoch.
        epoch: Epoch,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Answers a question and sets its task to pending, if that is what it waits with. Answers `Task`. Refused with `Conflict`
    /// where it has another answer, or is closed.
    Answer {
        /// The question.
        question: QuestionId,
        /// The answer.
        answer: String,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Records what a person says to a task. Answers `Task`. Refused with `WrongStatus` where the task has ended. The same remark
    /// again is the same; of the same id with other words it is `Conflict`. The instant that counts is that of the write.
    Say {
        /// What is said. Its step must be `None`.
        remark: Box<Remark>,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Records a worker, or changes the row of that id. Answers `Done`. Refused with `Conflict` where another
    /// worker has the name. The row's version is counted here; the one given is the one its writer has seen (0 for none), so
    /// equal content under an older version is the same write.
    Worker {
        /// The row.
        worker: Box<WorkerRecord>,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// What the operator wants of a worker. Answers `Done`.
    WorkerLifecycle {
        /// The worker.
        worker: WorkerId,
        /// What is wanted.
        lifecycle: Lifecycle,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Forgets a worker. Answers `Done`.
    RemoveWorker {
        /// The worker.
        worker: WorkerId,
        /// Told with it.
        events: Vec<NewEvent>,
    },
    /// Records events that belong to no other change. Answers `Done`. Refused with `NotFound` where one is about a task that
    /// does not exist. Events have no identity before they are recorded: repeated, they are recorded again.
    Events(Vec<NewEvent>),
    /// Records a key of the gateway. Answers `Done`. The same key again is the same; of the same id with other
    /// rights it is `Conflict`.
    CreateKey(Box<GatewayKey>),
    /// Refuses a key from now on. Answers `Done`, also where it was revoked before. Refused with `NotFound`.
    RevokeKey(KeyId),
    /// Forgets a key, so that it is refused as one that nobody made. Answers `Done`, also where there is none. The ledger
    /// keeps what was spent with it.
    RemoveKey(KeyId),
    /// Enters model calls into the ledger. Answers `Done`. A call that is there already is not entered again, except over an entry
    /// that is uncertain: what is known of a call takes the place of what was feared.
    ModelCalls(Vec<ModelCall>),
}

/// What a write answered, together with the events it recorded (in order, with their sequences).
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// Nothing to tell.
    Done {
        /// Recorded with it.
        events: Vec<Event>,
    },
    /// A task as it is now.
    Task {
        /// The row.
        task: Box<TaskRecord>,
        /// Recorded with it.
        events: Vec<Event>,
    },
    /// A committed step.
    Step {
        /// The row.
        step: Box<StepRecord>,
        /// The task as it is now.
        task: Box<TaskRecord>,
        /// Recorded with it.
        events: Vec<Event>,
    },
}

impl Applied {
    /// The events recorded with it.
    pub fn events(&self) -> &[Event] {
        match self {
            Self::Done { events } | Self::Task { events, .. } | Self::Step { events, .. } => events,
        }
    }
}
