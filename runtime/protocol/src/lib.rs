//! The vocabulary of Helix: what crosses a wire, a database row or a crate border.
//!
//! Nothing here does anything. The crate depends on serde and on nothing of ours, so every other
//! crate may use it. What is serialised here is versioned: a field may be added with a default, and
//! none may change its meaning.

mod amount;
mod content;
mod event;
mod external;
mod failure;
mod ids;
mod ledger;
pub mod link;
mod message;
mod model;
mod question;
mod sandbox;
mod step;
mod task;
mod time;
mod tool;
mod worker;

pub use amount::{bytes_in_words, mib_in_words, ms_in_words};
pub use content::{Change, ChangeKind, FileMode, ObjectId, ParseObjectIdError, SkipReason, SkippedFile, SnapshotId};
pub use event::{Event, EventKind, NewEvent, Severity};
pub use external::{
    AgentEnd, AgentProgram, AgentTurn, Began, ExternalSpec, GatewayAccess, ModelTraffic, Permission, Speaks, TurnLimits, TurnReport,
};
pub use failure::{Code, Failure};
pub use ids::{
    AttemptId, CallKey, Epoch, EventId, KeyId, ModelCallId, NodeId, OwnerId, Principal, ProjectId, QuestionId, RecordsId, RemarkId,
    RunId, StepId, TaskId, WorkerId,
};
pub use ledger::{CallOutcome, GatewayKey, ModelCall, Most, Payer, Spent};
pub use message::{Block, Extra, ImageSource, Message, Role, WireFormat, extra_of};
pub use model::{
    Effort, JsonOutput, ModelDelta, ModelReply, ModelRequest, OutputFormat, Sampling, StopReason, Thinking, ThinkingControl,
    ToolChoice, Usage,
};
pub use question::{Question, Subject};
pub use sandbox::{Confinement, Isolation, Network, Sandboxing};
pub use step::{
    AskedModel, Checkpoint, ExitReport, INLINE_MESSAGES, JournalBody, JournalEntry, NewStep, Remark, Spend, StepOutcome,
    StepRecord, StepSummary,
};
pub use task::{
    AgentSpec, Approval, AtMost, AttemptsSpec, Base, Budget, CommandSpec, Criticality, Environment, Needs, OnFailure, Priority,
    Reasoning, SecretRef, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};
pub use time::{Money, Timestamp};
pub use tool::{STILL_RUNS, ToolCall, ToolOutcome, ToolSchema, WorkspaceTool};
pub use worker::{
    Capability, Lifecycle, Resources, Shortage, Toolchain, WorkerFacts, WorkerHealth, WorkerRecord, WorkerStatus, WorkerTarget,
};
