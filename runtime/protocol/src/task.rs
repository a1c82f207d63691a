//! Tasks: what somebody asks for, and what is recorded of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    AttemptId, Capability, Epoch, ExternalSpec, Isolation, Money, Network, NodeId, OwnerId, ProjectId, SnapshotId, StepId, TaskId,
    Thinking, Timestamp, WorkerId,
};

/// Where a task stands. The transitions are in actors/tasks (`machine`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nothing stands in its way but a free worker.
    Pending,
    /// Some task it depends on has not completed.
    WaitingForDependencies,
    /// A worker was chosen and the epoch raised; its first step has not begun.
    Assigned,
    /// Steps are being made.
    Running,
    /// Somebody, or a stopping node, parked it at a step boundary.
    Paused,
    /// A question must be answered first (a budget, an approval).
    WaitingForInput,
    /// It lost its worker, or no worker fits at present.
    WaitingForWorker,
    /// It reached its end.
    Completed,
    /// It ended without success and has no retries left.
    Failed,
    /// Somebody gave it up.
    Cancelled,
}

impl TaskStatus {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::WaitingForDependencies,
        Self::Assigned,
        Self::Running,
        Self::Paused,
        Self::WaitingForInput,
        Self::WaitingForWorker,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// True of the three states that nothing leaves by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// True while a worker holds the task.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Assigned | Self::Running)
    }

    /// The word used in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::WaitingForDependencies => "waiting_for_dependencies",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::WaitingForInput => "waiting_for_input",
            Self::WaitingForWorker => "waiting_for_worker",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which of two waiting tasks is given the next free slot. 1, 5, 10 and 20 in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After everything else.
    Low,
    /// In order of arrival.
    #[default]
    Normal,
    /// Before normal ones.
    High,
    /// Before everything else.
    Urgent,
}

impl Priority {
    /// The number kept in the database and known from elsewhere.
    pub fn weight(self) -> i64 {
        match self {
            Self::Low => 1,
            Self::Normal => 5,
            Self::High => 10,
            Self::Urgent => 20,
        }
    }
}

/// How much it hurts to lose time: among tasks that lost their worker at once, the more critical is
/// resumed first, and `high` and above may use the slots that workers keep in reserve for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// Resumed last.
    Low,
    /// Resumed in order of priority.
    #[default]
    Normal,
    /// Resumed early, may use the reserve.
    High,
    /// Resumed first, may use the reserve.
    Critical,
}

/// What becomes of the files that a failed step left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The workspace goes back to the last step; a retry starts from there.
    #[default]
    Rollback,
    /// The files as they are become a step, and the retry goes on from them.
    Keep,
    /// The files as they are become a step of a new attempt; the original stays at its last step.
    Fork,
}

/// Where a task's files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Base {
    /// An empty folder.
    Empty,
    /// A snapshot the node's store already has.
    Snapshot {
        /// Which one.
        snapshot: SnapshotId,
        /// The git commit it was imported from, 40 hexadecimal digits; an export gets it as parent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        git_commit: Option<String>,
        /// The repository on the node's machine that it was imported from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
    },
    /// The last step of another task, which must have completed: it becomes a dependency.
    Task {
        /// That task.
        task: TaskId,
    },
}

/// A command task: each command is one step, run by `sh -c` in the workspace's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// In order; the first that fails ends the task. Empty: one step that does nothing.
    pub commands: Vec<String>,
    /// Globs of files that the last step names as artifacts.
    #[serde(default)]
    pub artifacts: Vec<String>,
}

/// An agent task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// What the agent is asked to do.
    pub prompt: String,
    /// The model's name, as the provider knows it; `None` for the configured default.
    #[serde(default)]
    pub model: Option<String>,
    /// The provider's name in the configuration; `None` for the default one.
    #[serde(default)]
    pub provider: Option<String>,
    /// The task ends as failed after this many steps.
    #[serde(default = "AgentSpec::default_max_steps")]
    pub max_steps: u32,
    /// A command that must exit with 0 before the agent's "done" is believed.
    #[serde(default)]
    pub verify: Option<String>,
    /// How the agent comes from the prompt to its answer.
    #[serde(default)]
    pub reasoning: Reasoning,
    /// Whether and how long its model thinks before each answer.
    #[serde(default)]
    pub thinking: Thinking,
    /// What it may do without being allowed to each time.
    #[serde(default)]
    pub approval: Approval,
    /// Hosts it may fetch pages from; a leading `*.` covers every host below. Empty: it has no tools for the web.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub web_hosts: Vec<String>,
    /// So many tasks of its own it may make in all. Each gets an equal share of what is left of the budget, and one share stays
    /// with the agent; 0: it has no tool for that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sub_agents: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl AgentSpec {
    fn default_max_steps() -> u32 {
        100
    }

    /// An agent that is asked to do this, with every default.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            model: None,
            provider: None,
            max_steps: Self::default_max_steps(),
            verify: None,
            reasoning: Reasoning::default(),
            thinking: Thinking::default(),
            approval: Approval::default(),
            web_hosts: Vec::new(),
            sub_agents: 0,
        }
    }
}

/// What an agent may do without being allowed to each time. Where commands can write and whether they reach the network is
/// another matter: see [`Isolation`] and [`Network`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// It looks; every change of a file and every command is asked for.
    Suggest,
    /// It looks and writes files; every command is asked for.
    AutoEdit,
    /// It does what it can.
    #[default]
    Full,
}

/// How an agent comes from its prompt to its answer. Each phase is a step of the task: visible, forkable, with its cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum Reasoning {
    /// The model acts as it sees fit.
    #[default]
    Direct,
    /// It first writes its reasoning down in numbered steps with their results, then acts on it.
    ChainOfThought,
    /// When it says that it is done, it has to find fault with its work, and corrects what it found. A check that passes, or a
    /// critique that finds nothing, ends it.
    Reflection {
        /// Rounds of critique at most.
        rounds: u32,
    },
    /// It plans, acts, and after every so many steps holds the plan against what happened and revises it.
    Progressive {
        /// Steps between two revisions.
        every: u32,
    },
    /// It writes several different approaches down, each is followed as an attempt of its own from this step on, and the best
    /// one's files and answer become the task's. The check judges; a model where there is none.
    TreeOfThoughts {
        /// Approaches, from 2 to 8.
        branches: u32,
    },
}

/// Best of several attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptsSpec {
    /// How many, from 2 to 64.
    pub count: u32,
    /// What each does. One that is checked (`verify`), or runs commands, has passed when it completes: the first that does is taken
    /// and the others are given up. Of any other all are waited for, and a model compares them.
    pub work: Box<TaskWork>,
}

impl AttemptsSpec {
    /// The least that is worth the name.
    pub const LEAST: u32 = 2;
    /// The most of one task.
    pub const MOST: u32 = 64;
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TaskWork {
    /// Shell commands.
    Command(CommandSpec),
    /// A model with tools.
    Agent(AgentSpec),
    /// An agent of somebody else's making.
    External(ExternalSpec),
    /// The same work several times, side by side; the best one's files become the task's.
    Attempts(AttemptsSpec),
    /// A kind registered under this name through the `TaskKind` port.
    Custom {
        /// The registered name.
        name: String,
        /// What that kind understands.
        input: serde_json::Value,
    },
}

impl TaskWork {
    /// The work that is done in the end: where it is attempted several times, that of each attempt.
    pub fn attempted(&self) -> &TaskWork {
        match self {
            Self::Attempts(attempts) => &attempts.work,
            other => other,
        }
    }

    /// Whether steps of such a task may make tasks of its own, which spend of its budget.
    pub fn makes_tasks(&self) -> bool {
        match self {
            Self::Command(_) | Self::External(_) => false,
            Self::Agent(agent) => agent.sub_agents > 0 || matches!(agent.reasoning, Reasoning::TreeOfThoughts { .. }),
            Self::Attempts(_) | Self::Custom { .. } => true,
        }
    }

    /// The kind's name: `command`, `agent`, `external`, or the registered one.
    pub fn kind(&self) -> &str {
        match self {
            Self::Command(_) => "command",
            Self::Agent(_) => "agent",
            Self::External(_) => "external",
            Self::Attempts(_) => "attempts",
            Self::Custom { name, .. } => name,
        }
    }
}

/// What a worker must have for a task to go there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// All of these.
    pub capabilities: Vec<Capability>,
    /// Free cores.
    pub cores: u32,
    /// Free memory in MiB.
    pub memory_mib: u64,
    /// Free disk in MiB where workspaces are.
    pub disk_mib: u64,
    /// Free GPUs.
    pub gpus: u32,
    /// Only this worker.
    pub worker: Option<WorkerId>,
}

/// Most that may be spent. `None` is no limit of its own; the node's daily limit always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// In money.
    pub money: Option<Money>,
    /// In tokens, in and out together.
    pub tokens: Option<u64>,
}

/// A secret by reference: the value is looked up on the node when a command starts, is never
/// written into a store, and is masked in output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// The variable the command sees.
    pub variable: String,
    /// Where the node finds it: `env:NAME` or `file:/path`.
    pub source: String,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.variable, self.source)
    }
}

/// What commands of a task find around them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Plain variables.
    pub variables: BTreeMap<String, String>,
    /// Secrets by reference.
    pub secrets: Vec<SecretRef>,
    /// Run once in a fresh workspace, and again when one of `lockfiles` changes.
    pub setup: Option<String>,
    /// Files whose content decides whether `setup` runs again.
    pub lockfiles: Vec<String>,
    /// Folders that steps do not carry (`node_modules`, `target`).
    pub caches: Vec<String>,
    /// How many ports each workspace is given; they arrive as `HELIX_PORT` (the first) and `HELIX_PORTS`.
    pub ports: u16,
    /// The isolation level; `None` where nobody said: the node fills in what it is configured to when the task is made.
    pub isolation: Option<Isolation>,
    /// The network grant; `None` as above.
    pub network: Option<Network>,
    /// What the repository asks not to be exceeded: it can make its sandbox narrower and never wider.
    #[serde(skip_serializing_if = "AtMost::is_nothing")]
    pub at_most: AtMost,
    /// Folders outside the workspace that sandboxed commands may write too, `~` for the home of the worker's user. From the node's
    /// configuration or its user, never from a repository.
    pub writable: Vec<String>,
}

impl Environment {
    /// The level that holds, the default one where nobody said.
    pub fn isolation(&self) -> Isolation {
        let asked = self.isolation.unwrap_or_default();
        self.at_most.isolation.map_or(asked, |most| asked.min(most))
    }

    /// The network grant that holds, none where nobody said. Without a sandbox nothing can be held back.
    pub fn network(&self) -> Network {
        if !self.isolation().is_sandboxed() {
            return Network::Host;
        }
        let asked = self.network.unwrap_or_default();
        self.at_most.network.map_or(asked, |most| asked.min(most))
    }

    /// Both in a few words, for people.
    pub fn sandbox(&self) -> String {
        match (self.isolation(), self.network()) {
            (Isolation::Full, _) => "none: commands run unsandboxed".to_owned(),
            (isolation, Network::None) => format!("{}, no network", isolation.as_str().replace('_', "-")),
            (isolation, Network::Host) => format!("{}, network", isolation.as_str().replace('_', "-")),
        }
    }
}

/// An upper bound on a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AtMost {
    /// Of the level.
    pub isolation: Option<Isolation>,
    /// Of the network.
    pub network: Option<Network>,
}

impl AtMost {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// One line for listings.
    pub title: String,
    /// What it does.
    pub work: TaskWork,
    /// Where its files come from.
    pub base: Base,
    /// What its commands find around them. Read from the project file when the task is made.
    #[serde(default)]
    pub environment: Environment,
    /// What a worker must have.
    #[serde(default)]
    pub needs: Needs,
    /// Tasks that must complete first.
    #[serde(default)]
    pub depends_on: Vec<TaskId>,
    /// Order among the waiting.
    #[serde(default)]
    pub priority: Priority,
    /// Order among those that lost their worker.
    #[serde(default)]
    pub criticality: Criticality,
    /// How often a failed step is tried again (the loss of a worker does not count). `None`: as often as the node is configured
    /// to; a task's record says how often that is.
    #[serde(default)]
    pub max_retries: Option<u32>,
    /// The whole task ends as failed after this many milliseconds of running, whoever owns it meanwhile; what it waits for between
    /// two owners, or to be answered, does not count. `None` is no limit.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What becomes of the files of a failed step.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Most that may be spent.
    #[serde(default)]
    pub budget: Budget,
    /// This task continues a step of another: files and conversation come from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_of: Option<StepId>,
    /// The files that such a continuation begins with instead of the step's: the conversation comes from the step, the files
    /// from this snapshot. Only with `fork_of`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_files: Option<SnapshotId>,
    /// The task that made this one, and waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// Attempts at one thing share this id: that of the task which takes the best one's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<TaskId>,
}

impl TaskSpec {
    /// How often a failed step is tried again.
    pub fn allowed_retries(&self) -> u32 {
        self.max_retries.unwrap_or_default()
    }

    /// A spec with every default: no files, nothing to do.
    pub fn new(title: impl Into<String>, work: TaskWork) -> Self {
        Self {
            title: title.into(),
            work,
            base: Base::Empty,
            environment: Environment::default(),
            needs: Needs::default(),
            depends_on: Vec::new(),
            priority: Priority::default(),
            criticality: Criticality::default(),
            max_retries: None,
            timeout_ms: None,
            on_failure: OnFailure::default(),
            budget: Budget::default(),
            fork_of: None,
            fork_files: None,
            parent: None,
            group: None,
        }
    }
}

/// A task as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// Who owns it.
    pub owner: OwnerId,
    /// Its project.
    pub project: ProjectId,
    /// What was asked for.
    pub spec: TaskSpec,
    /// Where it stands.
    pub status: TaskStatus,
    /// Why it stands there, for people; empty where nothing needs saying.
    pub reason: String,
    /// What to do about that; empty where nothing is to be done, or where it is the same for every task in that state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Counts its owners.
    pub epoch: Epoch,
    /// The line of steps it is on. Rollback keeps it; a fork is another task with its own.
    pub attempt: AttemptId,
    /// Its last committed step; `None` before the first.
    pub head: Option<StepId>,
    /// How many steps lead to the head.
    pub steps: u64,
    /// The node that drives it.
    pub node: Option<NodeId>,
    /// The worker that holds its workspace.
    pub worker: Option<WorkerId>,
    /// Retries used since the last committed step.
    pub retries: u32,
    /// Not before this time (a retry's backoff).
    pub not_before: Option<Timestamp>,
    /// Spent so far, in money.
    pub spent: Money,
    /// Spent so far, in tokens.
    pub tokens: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the row last changed.
    pub updated_at: Timestamp,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
    /// Grows with every change of the row: its ETag.
    pub version: u64,
}
