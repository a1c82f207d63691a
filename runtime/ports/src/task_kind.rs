//! Kinds of tasks: what one step of each is.
//!
//! actors/tasks owns the life of a task (claim, workspace, journal, commit); a kind says only what
//! happens between two commits. It sees its surroundings through [`StepHost`].

use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use helix_protocol::{
    AgentTurn, ExitReport, Failure, Message, ModelReply, ModelRequest, ModelTraffic, Question, SnapshotId, StepRecord, Subject,
    TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork, ToolCall, ToolOutcome, TurnReport,
};

/// What stands between how a command failed and the end of its output.
pub const OUTPUT: &str = "; its output ended with:\n";

/// What a step is made with. Everything a host does is bound to one lease: once it has passed, every call answers `stale_owner`.
#[async_trait]
pub trait StepHost: Send {
    /// The task, as it was when the step began.
    fn task(&self) -> &TaskRecord;

    /// The last committed step, with its messages; `None` before the first.
    fn head(&self) -> Option<&StepRecord>;

    /// This step's number: 1 for a task's first.
    fn ordinal(&self) -> u64;

    /// Everything said up to the head, oldest first, forks' ancestors included.
    async fn conversation(&mut self) -> Result<Vec<Message>, Failure>;

    /// One model turn, reserved before and journalled after. A turn that the journal has is answered from it and not
    /// asked for again. `budget_exhausted` where the reservation does not fit.
    async fn model(&mut self, request: ModelRequest) -> Result<ModelReply, Failure>;

    /// True where no model was asked for at least so long when this step first asks one, as the step tree and the journal say. The
    /// same for every owner that makes the step again, once a model has answered it.
    async fn has_rested(&mut self, least: Duration) -> Result<bool, Failure>;

    /// A tool in the workspace. Its key must come from [`next_call`](Self::next_call).
    async fn tool(&mut self, call: ToolCall) -> Result<ToolOutcome, Failure>;

    /// A command in the workspace, to its end, its output spooled; long ones are snapshotted on a timer meanwhile.
    async fn run(&mut self, command: &str, timeout_ms: Option<u64>) -> Result<ExitReport, Failure>;

    /// A turn of an agent of somebody else's making, in the workspace, to its end, snapshotted on a timer meanwhile as a command
    /// is. Where `traffic` is the gateway's, the turn gets a key of its own for it, and what it spends is the step's. `turn` comes
    /// without the access to it.
    async fn turn(&mut self, turn: AgentTurn, traffic: ModelTraffic) -> Result<(TurnReport, ExitReport), Failure>;

    /// The next call's key: a hash of (task, attempt, step, how many calls this step made before).
    fn next_call(&mut self) -> helix_protocol::CallKey;

    /// An effect outside the workspace, carried out on the node: the intent is journalled before, the outcome after it, and an
    /// outcome that the journal has is the answer. Its key must come from [`next_call`](Self::next_call).
    async fn effect(
        &mut self,
        call: &ToolCall,
        work: BoxFuture<'static, Result<ToolOutcome, Failure>>,
    ) -> Result<ToolOutcome, Failure>;

    /// The task's questions with their answers, oldest first.
    async fn questions(&mut self) -> Result<Vec<Question>, Failure>;

    /// Makes a task that belongs to this one. Its budget, whatever `spec` says, is one of `shares` equal shares of what is left of
    /// this one's. The same name is the same task, however often it is asked for, so a step that is made again finds the tasks it
    /// made before, and they keep what they were given.
    async fn child(&mut self, name: &str, spec: TaskSpec, shares: u32) -> Result<TaskId, Failure>;

    /// How a task that belongs to this one has ended; `None` while it has not.
    async fn child_end(&mut self, task: TaskId) -> Result<Option<ChildEnd>, Failure>;

    /// Gives up a task that belongs to this one. One that has ended stays as it is.
    async fn cancel_child(&mut self, task: TaskId) -> Result<(), Failure>;

    /// What a snapshot that the node has changes of the files that this step began with, as patches one behind the other. What an
    /// export leaves out is not among them.
    async fn patches(&mut self, snapshot: SnapshotId) -> Result<String, Failure>;

    /// The step goes on with the files of a snapshot that the node has, instead of those it began with.
    async fn take_files(&mut self, snapshot: SnapshotId) -> Result<(), Failure>;

    /// One round trip to the worker and nothing else.
    async fn ping(&mut self) -> Result<(), Failure>;

    /// What the snapshot after this step shall list beside the changes.
    fn note(&mut self, note: SnapshotNote);
}

/// How a task ended that another one made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildEnd {
    /// Completed, failed or cancelled.
    pub status: TaskStatus,
    /// Why, for people; empty where nothing needs saying.
    pub reason: String,
    /// What its model said last.
    pub answer: String,
    /// Its files; `None` where it made no step.
    pub snapshot: Option<SnapshotId>,
    /// The paths its steps changed, sorted.
    pub changed: Vec<String>,
}

/// Something a kind wants recorded with the step's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotNote {
    /// Globs whose matches are the step's artifacts.
    Artifacts(Vec<String>),
    /// No call of the step can have changed a file. Then no snapshot is taken, and its parent's tree is its own, unless something
    /// was run in the workspace since it was opened: a process may outlive the call that started it.
    NoFiles,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// More steps follow.
    Continue,
    /// The task is complete.
    Finished,
    /// The task is complete as far as it goes, and has failed: the step's files are committed all the same.
    Failed(Failure),
    /// The next step is made once one of these tasks has ended. Until then the task holds no worker.
    Await {
        /// Tasks that belong to this one.
        tasks: Vec<TaskId>,
    },
    /// Somebody must answer before the next step.
    Ask {
        /// What it is about.
        subject: Subject,
        /// The question.
        question: String,
        /// What may be answered; empty for free text.
        choices: Vec<String>,
    },
}

/// What a kind hands over to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// One line for the timeline.
    pub summary: String,
    /// What was said, in order, in this step.
    pub messages: Vec<Message>,
    /// Processes that ended.
    pub exits: Vec<ExitReport>,
    /// How it ended.
    pub end: TurnEnd,
}

/// A kind of task.
#[async_trait]
pub trait TaskKind: Send + Sync + 'static {
    /// Its name in `TaskWork`.
    fn name(&self) -> &str;

    /// Whether what people say to a running task is heard: whether its steps read the conversation.
    fn hears(&self) -> bool {
        false
    }

    /// Refuses a task of this kind that could never begin, before it is made.
    fn check(&self, _work: &TaskWork) -> Result<(), Failure> {
        Ok(())
    }

    /// Makes one step. Called again with the same ordinal after a crash: replies come from the journal, workspace tools
    /// run again on the restored files. An `Err` fails the step: nothing is committed but what `on_failure` keeps.
    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure>;
}
