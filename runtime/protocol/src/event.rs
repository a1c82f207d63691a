//! Events: what happened, in order, for people and programs that watch.

use serde::{Deserialize, Serialize};

use crate::{EventId, TaskId, Timestamp, WorkerId};

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody might want to look.
    Warning,
    /// Something failed.
    Error,
    /// Somebody should look now.
    Critical,
}

macro_rules! event_kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal;)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)+
            /// A kind of a newer version.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[EventKind] = &[$(EventKind::$variant),+];

            /// The name in JSON and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$variant => $text,)+ EventKind::Unknown => "unknown" }
            }
        }
    };
}

event_kinds! {
    /// Somebody made a task.
    TaskCreated = "task.created";
    /// A worker was chosen and the epoch raised. Detail: `epoch`, `worker`.
    TaskAssigned = "task.assigned";
    /// Its first step under this owner began.
    TaskStarted = "task.started";
    /// It reached its end.
    TaskCompleted = "task.completed";
    /// It ended without success.
    TaskFailed = "task.failed";
    /// It was parked.
    TaskPaused = "task.paused";
    /// It goes on.
    TaskResumed = "task.resumed";
    /// It was given up.
    TaskCancelled = "task.cancelled";
    /// It lost its worker and waits for another. Detail: `worker`, `proof`.
    TaskReassigned = "task.reassigned";
    /// It asks something. Detail: `question`.
    TaskAsked = "task.asked";
    /// A person said something to it; its next step hears it. Detail: `remark`, `text`.
    TaskSaid = "task.said";
    /// Its head was moved back. Detail: `step`.
    TaskRolledBack = "task.rolled_back";
    /// A step was committed. Detail: `step`, `ordinal`, `snapshot`, `files_changed`, `tokens`, `money`.
    StepCompleted = "step.completed";
    /// A step failed. Detail: `code`, `message`.
    StepFailed = "step.failed";
    /// A tool call began on a worker. Detail: `tool`, `input`. Not durable: it may be missing after a crash.
    ToolStarted = "tool.started";
    /// A tool call ended. Detail: `tool`, `is_error`, `duration_ms`. Not durable.
    ToolFinished = "tool.finished";
    /// A model call began. Not durable.
    ModelCalled = "model.called";
    /// Words of a model's answer, as they come. Detail: `step`, `offset` (how many bytes of this answer were told before, `text`
    /// aside), `text`, and `broken_off` where no more comes. Not durable, and only told to who asks for it.
    ModelSaid = "model.said";
    /// A model answered. Detail: `tokens`, `money`. Not durable.
    ModelReplied = "model.replied";
    /// A connection to a worker stands.
    WorkerConnected = "worker.connected";
    /// It ended. Detail: `reason`.
    WorkerDisconnected = "worker.disconnected";
    /// A worker's process is known to be dead, or its lease ended. Detail: `proof`, `silent_ms`.
    WorkerLost = "worker.lost";
    /// A worker is under strain.
    WorkerHealthDegraded = "worker.health_degraded";
    /// Heartbeats are late.
    WorkerHeartbeatMissed = "worker.heartbeat_missed";
    /// Cordoned, draining or open again. Detail: `lifecycle`.
    WorkerLifecycleChanged = "worker.lifecycle_changed";
    /// The node is up.
    SystemStartup = "system.startup";
    /// The node is stopping.
    SystemShutdown = "system.shutdown";
    /// Something is wrong with the node.
    SystemError = "system.error";
}

/// An event to be recorded with the change it tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// What happened.
    pub kind: EventKind,
    /// How loud.
    pub severity: Severity,
    /// The task it is about.
    pub task: Option<TaskId>,
    /// The worker it is about.
    pub worker: Option<WorkerId>,
    /// Who did it.
    pub actor: String,
    /// One line for people.
    pub message: String,
    /// What a program wants to know; the keys are documented at the kind.
    pub detail: serde_json::Value,
}

impl NewEvent {
    /// An informational event.
    pub fn info(kind: EventKind, actor: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            severity: Severity::Info,
            task: None,
            worker: None,
            actor: actor.into(),
            message: message.into(),
            detail: serde_json::Value::Null,
        }
    }

    /// The same event about a task.
    #[must_use]
    pub fn task(mut self, task: TaskId) -> Self {
        self.task = Some(task);
        self
    }

    /// The same event about a worker.
    #[must_use]
    pub fn worker(mut self, worker: WorkerId) -> Self {
        self.worker = Some(worker);
        self
    }

    /// The same event, this loud.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The same event with details.
    #[must_use]
    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = detail;
        self
    }
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its place among all events; 0 for one that is shown and not kept.
    pub sequence: u64,
    /// Its place among its task's events; 0 where it has no task or is not kept.
    pub task_sequence: u64,
    /// The version of this shape.
    pub schema: u32,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: NewEvent,
}
