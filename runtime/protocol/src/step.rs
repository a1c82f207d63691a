//! Steps, the journal of the step being made, and what a step cost.

use serde::{Deserialize, Serialize};

use crate::{
    AttemptId, Block, CallKey, Change, Confinement, Epoch, Message, ModelReply, Money, ObjectId, RemarkId, RunId, SkippedFile,
    SnapshotId, StepId, StopReason, TaskId, Timestamp, ToolOutcome, Usage, WorkerId,
};

/// What making a step cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spend {
    /// Model calls that were answered.
    pub model_calls: u32,
    /// Their tokens, in and out together.
    pub tokens: u64,
    /// Their price.
    pub money: Money,
    /// Calls that died without an answer: charged at their reservation, included in `money` and `tokens`.
    pub uncertain_calls: u32,
}

impl Spend {
    /// Adds an answered call.
    pub fn add_usage(&mut self, usage: &Usage) {
        self.model_calls += 1;
        self.tokens += usage.total_tokens();
        self.money += usage.cost;
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// More steps follow.
    Continue,
    /// The task reached its end with it.
    Finished,
    /// A snapshot of a long command that was still running; the next owner decides by `on_failure`.
    Unfinished,
    /// The step failed, and its files were kept (`on_failure: keep` or `fork`).
    Failed,
}

/// A process that ended during a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Its run.
    pub run: RunId,
    /// The command.
    pub command: String,
    /// Its exit code; 128 + N where signal N ended it.
    pub exit_code: i32,
    /// The end of its output, at most 16 KiB, as text.
    pub tail: String,
    /// The whole output as an object, where it is longer than the tail.
    pub output: Option<ObjectId>,
    /// The whole output's length in bytes.
    pub output_bytes: u64,
}

/// What a step said is kept in the records up to this many bytes of JSON, and in the content store beyond.
pub const INLINE_MESSAGES: usize = 64 * 1024;

/// A call of a model as its step keeps it: hashes of what it was asked, 16 hexadecimal digits each, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedModel {
    /// Of the system messages.
    pub system: String,
    /// Of the tools it was offered.
    pub tools: String,
    /// Of the other messages.
    pub messages: String,
    /// Of the settings: provider, model, limits, thinking, choice of tools.
    pub settings: String,
    /// Why it stopped.
    pub stop: StopReason,
    /// What it answered, where that is not the model's last word among the step's messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Vec<Block>>,
}

/// A step to be committed. `parent` is the head it was made on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewStep {
    /// Its id, chosen before the commit so that a repeated commit is recognised.
    pub id: StepId,
    /// The task.
    pub task: TaskId,
    /// The epoch under which it was made.
    pub epoch: Epoch,
    /// The line of steps.
    pub attempt: AttemptId,
    /// The head it was made on.
    pub parent: Option<StepId>,
    /// 1 for a task's first step.
    pub ordinal: u64,
    /// How it ended.
    pub outcome: StepOutcome,
    /// One line for the timeline.
    pub summary: String,
    /// The workspace's root tree afterwards.
    pub tree: ObjectId,
    /// The snapshot object over that tree.
    pub snapshot: SnapshotId,
    /// The content store's sequence that holds every object of it, synced.
    pub store_sequence: u64,
    /// What changed since the parent.
    pub changes: Vec<Change>,
    /// What the workspace has and the step does not carry.
    pub skipped: Vec<SkippedFile>,
    /// Files that changed while they were read: their content is of some moment, not of one.
    pub torn: Vec<String>,
    /// What was said, in order. Empty where [`long_messages`](Self::long_messages) names an object.
    pub messages: Vec<Message>,
    /// Messages of more than [`INLINE_MESSAGES`] bytes lie in the content store: the object is their JSON, as a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_messages: Option<ObjectId>,
    /// Processes that ended.
    pub exits: Vec<ExitReport>,
    /// Artifact paths.
    pub artifacts: Vec<String>,
    /// What people had said that this step was the first to hear; its messages begin with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<RemarkId>,
    /// What models were asked, in order, so that the step can be played again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<AskedModel>,
    /// What it cost.
    pub spend: Spend,
    /// Who made it.
    pub worker: Option<WorkerId>,
    /// What its commands ran under; `None` where its workspace was not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// When it began, on the clock as it was set when it was committed.
    pub started_at: Timestamp,
}

/// A committed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// As it was committed.
    #[serde(flatten)]
    pub step: NewStep,
    /// When.
    pub committed_at: Timestamp,
}

/// A step without its messages, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSummary {
    /// Its id.
    pub id: StepId,
    /// The task that committed it.
    pub task: TaskId,
    /// Its attempt.
    pub attempt: AttemptId,
    /// Its parent.
    pub parent: Option<StepId>,
    /// 1 for a task's first step.
    pub ordinal: u64,
    /// The epoch under which it was made.
    pub epoch: Epoch,
    /// How it ended.
    pub outcome: StepOutcome,
    /// One line.
    pub summary: String,
    /// Its tree.
    pub tree: ObjectId,
    /// Its snapshot.
    pub snapshot: SnapshotId,
    /// How many paths changed.
    pub files_changed: u64,
    /// What the workspace has and the step does not carry. Empty for steps of before these were kept here, as are the next two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedFile>,
    /// Files that changed while they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub torn: Vec<String>,
    /// Artifact paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What it cost.
    pub spend: Spend,
    /// Who made it.
    pub worker: Option<WorkerId>,
    /// Names given to it.
    pub checkpoints: Vec<String>,
    /// When it began, on the clock as it was set when it was committed.
    pub started_at: Timestamp,
    /// When it was committed.
    pub committed_at: Timestamp,
}

/// A step that somebody or some rule named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The task.
    pub task: TaskId,
    /// The step.
    pub step: StepId,
    /// The name, unique in the task.
    pub name: String,
    /// When it was named.
    pub created_at: Timestamp,
}

/// What a journal entry records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "entry")]
pub enum JournalBody {
    /// Before a model call: the most it can cost.
    Reserved {
        /// The call.
        call: CallKey,
        /// In money.
        money: Money,
        /// In tokens.
        tokens: u64,
    },
    /// The whole reply, before its first tool runs.
    Replied {
        /// The call.
        call: CallKey,
        /// The reply.
        reply: ModelReply,
    },
    /// A call that ended without a reply: its reservation counts as spent unless `charged` is zero.
    CallFailed {
        /// The call.
        call: CallKey,
        /// What is charged for it, in money.
        charged: Money,
        /// What is charged for it, in tokens.
        tokens: u64,
        /// Why it failed.
        reason: String,
    },
    /// What an agent of somebody else's making spent through the gateway in a turn.
    Charged {
        /// The turn.
        call: CallKey,
        /// All of it.
        spend: Spend,
    },
    /// Before an effect outside the workspace.
    Intended {
        /// The call.
        call: CallKey,
        /// The tool.
        tool: String,
    },
    /// Before anything else of the step: what people said that it hears. A step that is made again hears just this, because the
    /// replies of the journal answer to it; what was said since is for the next one.
    Heard {
        /// In the order in which it was said.
        remarks: Vec<RemarkId>,
    },
    /// After it.
    Resulted {
        /// The call.
        call: CallKey,
        /// The answer.
        outcome: ToolOutcome,
    },
    /// How long the step had been made, by all its owners; written now and then where its task has a time-out, which whoever makes
    /// the step again has only the rest of.
    Timed {
        /// In milliseconds, waits between two owners left out.
        used_ms: u64,
        /// When it was written.
        at: Timestamp,
    },
    /// Before the first model call of a step that found its conversation at rest for longer than a prompt cache keeps it. A step
    /// that is made again finds the same, whenever that is, because the replies of the journal answer to what was made of it.
    Rested {
        /// How long ago the step before it was committed that asked a model last, in milliseconds.
        ms: u64,
    },
}

/// One entry of the journal of the step being made. Keyed by (attempt, sequence).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The task.
    pub task: TaskId,
    /// The line of steps.
    pub attempt: AttemptId,
    /// Grows by one within the attempt. A repeated append of the same sequence and body is the same append.
    pub sequence: u64,
    /// The ordinal of the step being made.
    pub ordinal: u64,
    /// The epoch under which it was written.
    pub epoch: Epoch,
    /// What it records.
    pub body: JournalBody,
}

/// Something a person said to a task that has not ended: the next step that begins hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Its id, chosen by whoever says it, so that saying it again is saying it once.
    pub id: RemarkId,
    /// The task.
    pub task: TaskId,
    /// What was said.
    pub text: String,
    /// Who said it.
    pub actor: String,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// The step that heard it; `None` while none has.
    #[serde(default)]
    pub step: Option<StepId>,
}
