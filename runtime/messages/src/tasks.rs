//! Tasks: what can be asked of them, and what the fleet tells them.

use std::time::Duration;

use helix_kernel::{Address, Reply};
use helix_ports::DeathProof;
use helix_protocol::{
    Budget, Capability, Checkpoint, Failure, Lifecycle, Principal, ProjectId, QuestionId, RemarkId, StepId, TaskId, TaskRecord,
    TaskSpec, TaskStatus, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::WorkerView;

/// A task to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTask {
    /// What is asked for.
    pub spec: TaskSpec,
    /// Who asks.
    pub principal: Principal,
    /// For which project.
    pub project: ProjectId,
    /// Makes a repetition harmless.
    pub idempotency_key: Option<String>,
}

/// A step to be continued as another task.
#[derive(Clone, Debug, PartialEq)]
pub struct ForkTask {
    /// The step.
    pub step: StepId,
    /// A new prompt, said after the step's conversation; `None` goes on as before.
    pub prompt: Option<String>,
    /// The new task's title; taken from the original where `None`.
    pub title: Option<String>,
    /// How many steps an agent may have made at the end, those of the line it goes on from counted; as the original where `None`.
    pub max_steps: Option<u32>,
    /// Who asks.
    pub principal: Principal,
}

/// A parked task to be continued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResumeTask {
    /// A new budget.
    pub budget: Option<Budget>,
    /// The answer to the question it waits for.
    pub answer: Option<String>,
}

/// An ended task to be tried again from its last step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryTask {
    /// A new budget.
    pub budget: Option<Budget>,
}

/// A worker that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostWorker {
    /// The worker.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// The process that is gone.
    pub incarnation: u64,
    /// How that is known.
    pub proof: DeathProof,
    /// How long nothing had been heard, in milliseconds.
    pub silent_ms: u64,
}

/// Why a worker does not get a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReason {
    /// The worker's name.
    pub worker: String,
    /// In words; empty where it could take the task.
    pub reason: String,
    /// What the task needs and the worker has not at all, where that is the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Capability>,
}

/// Why a task stands where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskWhy {
    /// Its state.
    pub status: TaskStatus,
    /// The recorded reason.
    pub reason: String,
    /// Tasks it waits for, with their states.
    pub waits_for: Vec<(TaskId, TaskStatus)>,
    /// Each worker's answer.
    pub workers: Vec<WorkerReason>,
    /// What could be done.
    pub next: Vec<String>,
}

/// In what a step that is played again differs from what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Differs {
    /// The standing instructions.
    SystemPrompt,
    /// The tools that a model is offered.
    Tools,
    /// What a model is sent of the conversation.
    Conversation,
    /// Model, limits, thinking, or choice of tools.
    Settings,
    /// What is said, or how a call is answered.
    Message,
    /// What is asked of models, tools and commands.
    Call,
    /// How the step ends.
    End,
}

/// One difference. An empty side has nothing there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// In what.
    pub what: Differs,
    /// As it was recorded.
    pub then: String,
    /// As it would be today.
    pub today: String,
}

/// A step that was played again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedStep {
    /// The step.
    pub step: StepId,
    /// Its number.
    pub ordinal: u64,
    /// Its line of the timeline, as recorded.
    pub summary: String,
    /// Empty where it would be made as it was.
    pub differences: Vec<Difference>,
    /// What could not be compared, because it was not recorded.
    pub unknown: Vec<String>,
}

/// A recorded conversation, played again offline: no model was asked, nothing ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// The task.
    pub task: TaskId,
    /// Its own steps, oldest first; each was made on what was recorded before it.
    pub steps: Vec<ReplayedStep>,
    /// Whether any differs.
    pub differs: bool,
}

/// Something a person says to a task that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// To which task.
    pub task: TaskId,
    /// Its id: said again under the same one, it is said once.
    pub id: RemarkId,
    /// What.
    pub text: String,
}

/// What the tasks branch can be asked.
pub enum TasksMsg {
    /// Records a task and has it scheduled. Refused with `dependency_cycle`, `not_found`, `invalid_request`,
    /// `idempotency_conflict`. Sent by the HTTP face.
    Create {
        /// What.
        create: Box<CreateTask>,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Continues a step as a new task: files and conversation. Refused with `not_found`.
    Fork {
        /// What.
        fork: Box<ForkTask>,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Gives a task up: what runs is stopped, its workspace closed. Refused with `invalid_state` once it has ended.
    Cancel {
        /// The task.
        task: TaskId,
        /// Who asks.
        principal: Principal,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Parks a task at its next step boundary; answers when it is parked. Refused with `invalid_state` once it has ended, and where
    /// somebody resumes it before that boundary.
    Pause {
        /// The task.
        task: TaskId,
        /// Who asks.
        principal: Principal,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Continues a parked task, or takes back the pause of one that has not come to its step boundary. One that was parked while it
    /// waited, for tasks or for an answer that is not given here, waits again. Refused with `invalid_state` where nobody parked it,
    /// where a task that it needs has failed, and where an answer is given to nothing.
    Resume {
        /// The task.
        task: TaskId,
        /// With what.
        resume: ResumeTask,
        /// Who asks.
        principal: Principal,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Tries an ended (failed or cancelled) task again from its last step, once the tasks that it needs have completed. Refused
    /// with `invalid_state` where one of them has failed.
    Retry {
        /// The task.
        task: TaskId,
        /// With what.
        retry: RetryTask,
        /// Who asks.
        principal: Principal,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Names a step of a task, its head where none is given.
    Checkpoint {
        /// The task.
        task: TaskId,
        /// The step.
        step: Option<StepId>,
        /// The name.
        name: String,
        /// The answer.
        reply: Reply<Checkpoint>,
    },
    /// Moves a task's head back to one of its steps. It must not be running. A question that was asked since is closed.
    Rollback {
        /// The task.
        task: TaskId,
        /// The step.
        step: StepId,
        /// Who asks.
        principal: Principal,
        /// The answer.
        reply: Reply<TaskRecord>,
    },
    /// Answers a question.
    Answer {
        /// The question.
        question: QuestionId,
        /// The answer.
        answer: String,
        /// Who answers.
        principal: Principal,
        /// The task as it is then.
        reply: Reply<TaskRecord>,
    },
    /// Records what a person says to a task: its next step hears it, whoever makes it. Refused with `invalid_state` once it has
    /// ended, and with `invalid_request` where its kind hears nobody. Sent by the HTTP face.
    Say {
        /// What.
        say: Say,
        /// Who says it.
        principal: Principal,
        /// The task as it is then.
        reply: Reply<TaskRecord>,
    },
    /// Plays a task's recorded conversation again, offline. Refused with `invalid_request` where its kind has
    /// none. Sent by the HTTP face.
    Replay {
        /// The task.
        task: TaskId,
        /// The answer.
        reply: Reply<Replayed>,
    },
    /// Explains a task's state.
    Why {
        /// The task.
        task: TaskId,
        /// The answer.
        reply: Reply<TaskWhy>,
    },
    /// The fleet as it is now. Sent by the fleet on every change; only the newest counts.
    FleetChanged {
        /// Every worker.
        workers: Vec<WorkerView>,
    },
    /// A worker is gone: its tasks are reassigned at once. Sent by the fleet.
    WorkerLost {
        /// Which, and how that is known.
        lost: LostWorker,
    },
    /// The operator drains a worker: its tasks move at their next step boundary, unless it is opened again before
    /// that. Sent by the fleet.
    WorkerLifecycle {
        /// The worker.
        worker: WorkerId,
        /// What is wanted.
        lifecycle: Lifecycle,
    },
    /// The node stops: nothing new is started, tasks park at their step boundaries (they stay assigned, to be adopted). Answers
    /// when all are parked or `within` is over.
    Park {
        /// The limit.
        within: Duration,
        /// How many had to be left in the middle of a step.
        reply: Reply<u64>,
    },
}

/// The tasks branch.
#[derive(Clone, Debug)]
pub struct Tasks {
    address: Address<TasksMsg>,
}

const QUICK: Duration = Duration::from_secs(15);
/// A long conversation is read and played as a whole.
const LONG: Duration = Duration::from_secs(300);
/// A step boundary may be far away.
const BOUNDARY: Duration = Duration::from_secs(24 * 3600);

impl Tasks {
    /// A handle.
    pub fn new(address: Address<TasksMsg>) -> Self {
        Self { address }
    }

    /// Makes a task.
    pub async fn create(&self, create: CreateTask) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Create { create: Box::new(create), reply }).await
    }

    /// Forks a step.
    pub async fn fork(&self, fork: ForkTask) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Fork { fork: Box::new(fork), reply }).await
    }

    /// Gives a task up.
    pub async fn cancel(&self, task: TaskId, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Cancel { task, principal, reply }).await
    }

    /// Parks a task.
    pub async fn pause(&self, task: TaskId, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(BOUNDARY, |reply| TasksMsg::Pause { task, principal, reply }).await
    }

    /// Continues a parked task.
    pub async fn resume(&self, task: TaskId, resume: ResumeTask, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Resume { task, resume, principal, reply }).await
    }

    /// Tries an ended task again.
    pub async fn retry(&self, task: TaskId, retry: RetryTask, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Retry { task, retry, principal, reply }).await
    }

    /// Names a step.
    pub async fn checkpoint(&self, task: TaskId, step: Option<StepId>, name: String) -> Result<Checkpoint, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Checkpoint { task, step, name, reply }).await
    }

    /// Moves a head back.
    pub async fn rollback(&self, task: TaskId, step: StepId, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Rollback { task, step, principal, reply }).await
    }

    /// Answers a question.
    pub async fn answer(&self, question: QuestionId, answer: String, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Answer { question, answer, principal, reply }).await
    }

    /// Says something to a task.
    pub async fn say(&self, say: Say, principal: Principal) -> Result<TaskRecord, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Say { say, principal, reply }).await
    }

    /// Plays a recorded conversation again.
    pub async fn replay(&self, task: TaskId) -> Result<Replayed, Failure> {
        self.address.ask(LONG, |reply| TasksMsg::Replay { task, reply }).await
    }

    /// Explains a task's state.
    pub async fn why(&self, task: TaskId) -> Result<TaskWhy, Failure> {
        self.address.ask(QUICK, |reply| TasksMsg::Why { task, reply }).await
    }

    /// Parks everything before the node stops.
    pub async fn park(&self, within: Duration) -> Result<u64, Failure> {
        self.address.ask(within + QUICK, |reply| TasksMsg::Park { within, reply }).await
    }

    /// Where the fleet reports.
    pub fn address(&self) -> &Address<TasksMsg> {
        &self.address
    }
}
