//! Bodies of requests and answers that no other crate has a type for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use helix_messages::{DeploymentCircuit, ImportGit, Imported, ProviderView, WorkerView};
use helix_protocol::{
    Budget, Checkpoint, Confinement, Failure, FileMode, GatewayKey, KeyId, ModelCall, Money, NodeId, ObjectId, Question, Remark,
    RemarkId, RunId, SkippedFile, Spent, StepId, StepSummary, TaskId, TaskRecord, TaskSpec, TaskStatus, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id.
    pub node: NodeId,
    /// The version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its data folder.
    pub data: PathBuf,
    /// `sqlite` or `postgresql`.
    pub database: String,
    /// Since when it is up.
    pub started_at: Timestamp,
}

/// POST /tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateTaskRequest {
    /// What is asked for. `title` and `base` may be left out.
    pub spec: TaskSpec,
    /// Takes this repository in first: it becomes the base, and its project file the environment where the spec names none.
    #[serde(default)]
    pub import: Option<ImportGit>,
    /// How often the work is attempted: more than once makes one task that has so many made and takes the best.
    #[serde(default = "one")]
    pub attempts: u32,
    /// Variables whose secrets the project file may have for this task, wherever it says that they come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

fn one() -> u32 {
    1
}

/// The answer to POST /tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreatedTasks {
    /// One for each attempt.
    pub tasks: Vec<TaskRecord>,
    /// What was taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

/// GET /tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskList {
    /// Newest first.
    pub tasks: Vec<TaskRecord>,
}

/// GET /tasks/{id}/steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepList {
    /// Oldest first.
    pub steps: Vec<StepSummary>,
}

/// GET /tasks/{id}/checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointList {
    /// In the order in which they were named.
    pub checkpoints: Vec<Checkpoint>,
}

/// GET /tasks/{id}/questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionList {
    /// Newest first.
    pub questions: Vec<Question>,
}

/// GET /workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerList {
    /// By name.
    pub workers: Vec<WorkerView>,
}

/// GET /models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderList {
    /// By name.
    pub providers: Vec<ProviderView>,
}

/// POST /tasks/{id}/checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRequest {
    /// The name.
    pub name: String,
    /// A step's number, id or checkpoint; the head where absent.
    #[serde(default)]
    pub step: Option<String>,
}

/// POST /tasks/{id}/rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// A step's number, id or checkpoint.
    pub step: String,
}

/// POST /tasks/{id}/fork.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForkRequest {
    /// A step's number, id or checkpoint; the head where absent.
    pub step: Option<String>,
    /// Said after the step's conversation; absent goes on as before.
    pub prompt: Option<String>,
    /// The new task's title.
    pub title: Option<String>,
    /// Most steps of an agent, those it goes on from counted; as the original where absent.
    pub max_steps: Option<u32>,
}

/// POST /tasks/{id}/export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportRequest {
    /// The branch; `helix/<title>-<task>` where absent.
    pub branch: Option<String>,
    /// The repository on the node's machine; the one the task was made from where absent.
    pub repository: Option<PathBuf>,
    /// A step's number, id or checkpoint; the head where absent.
    pub step: Option<String>,
}

/// POST /tasks/{id}/rebase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebaseRequest {
    /// A commit, branch or tag of the repository the task was made from; HEAD where absent.
    pub onto: Option<String>,
}

/// A task's work on a newer commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebasedTask {
    /// The new task; the original is as it was.
    pub task: TaskRecord,
    /// The commit it is on now.
    pub git_commit: String,
    /// Paths that hold conflict markers, or that could not be merged.
    pub conflicts: Vec<String>,
    /// How many paths changed from the old commit to the new one.
    pub moved: u64,
}

/// POST /questions/{id}/answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRequest {
    /// The answer.
    pub answer: String,
}

/// POST /tasks/{id}/say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SayRequest {
    /// What is said.
    pub text: String,
    /// Chosen by whoever says it: said again under the same id, it is said once.
    #[serde(default)]
    pub id: Option<RemarkId>,
}

/// GET /tasks/{id}/remarks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemarkList {
    /// Oldest first; each with the step that heard it.
    pub remarks: Vec<Remark>,
}

/// GET /tasks/{id}/log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Committed steps, oldest first.
    pub steps: Vec<LogStep>,
    /// The number of the last step here: `?after=` of the next page.
    pub last: u64,
    /// True where more steps follow at once.
    pub more: bool,
    /// The command that runs at present: `?run=` pages its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningCommand>,
}

/// A command that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCommand {
    /// Its run.
    pub run: RunId,
    /// As it was given.
    pub command: String,
}

/// What a step said and what its commands wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStep {
    /// The step.
    pub step: StepId,
    /// Its number.
    pub ordinal: u64,
    /// Its line of the timeline.
    pub summary: String,
    /// What the model said; empty for a command.
    pub said: String,
    /// What it thought before that, where its provider shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thought: String,
    /// The tools that the model called, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<LogCall>,
    /// Its commands, in the order in which they ended.
    pub runs: Vec<LogRun>,
    /// What the workspace has and the step does not carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedFile>,
    /// Files that changed while they were read: their content is of some moment, not of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub torn: Vec<String>,
    /// Paths that the task keeps as artifacts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What they ran under; `None` where the workspace was not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Confinement>,
}

/// GET /tasks/{id}/artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactList {
    /// By path; of a path that several steps kept, the last one's.
    pub artifacts: Vec<Artifact>,
}

/// A file that a task keeps as an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// From the workspace's root.
    pub path: String,
    /// The step that kept it.
    pub step: StepId,
    /// That step's number.
    pub ordinal: u64,
    /// What it is.
    pub mode: FileMode,
    /// Its bytes, or those of a link's target.
    pub size: u64,
    /// Its content: GET /tasks/{id}/artifacts/{object} has the bytes.
    pub object: ObjectId,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments, whole.
    pub input: Value,
    /// What the tool said; `None` where this step did not make the call: the next one does, once it is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<LogAnswer>,
}

/// What a tool said to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAnswer {
    /// The end of it, or the whole of it with `?whole=true`.
    pub text: String,
    /// The whole answer's length in bytes.
    pub bytes: u64,
    /// True where the tool failed.
    pub is_error: bool,
}

/// A command and its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRun {
    /// The run.
    pub run: RunId,
    /// The command.
    pub command: String,
    /// 128 + N where signal N ended it.
    pub exit_code: i32,
    /// The end of its output, or the whole of it with `?whole=true`.
    pub output: String,
    /// The whole output's length in bytes.
    pub output_bytes: u64,
    /// True where `output` is not the whole.
    pub cut: bool,
    /// The whole output in the store.
    pub object: Option<ObjectId>,
}

/// GET /tasks/{id}/log?run=…: a running command's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutput {
    /// The bytes from the asked offset on, as text.
    pub text: String,
    /// `?offset=` of the next page.
    pub next: u64,
    /// True where the run has ended and nothing follows.
    pub ended: bool,
}

/// GET /tasks/ID/budget
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskBudget {
    /// Most that may be spent by the task and everything below it.
    pub budget: Budget,
    /// By the task itself, in its steps.
    pub spent: Spent,
    /// What its own tasks hold of the budget: what was spent below those that have ended, and the budgets of the others.
    pub held: Spent,
}

/// GET /tasks/ID/attempts: nothing for a task that has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptList {
    /// In their order.
    pub attempts: Vec<AttemptView>,
    /// What they cost together, in money.
    pub spent: Money,
    /// The same in tokens.
    pub tokens: u64,
    /// What their steps wrote into files, in bytes, before anything of it was shared or compressed.
    pub bytes: u64,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// It is a task of its own.
    pub task: TaskId,
    /// Its number.
    pub number: u64,
    /// Where it stands.
    pub status: TaskStatus,
    /// Why, for people.
    pub reason: String,
    /// Its steps.
    pub steps: u64,
    /// What it cost, in money.
    pub spent: Money,
    /// The same in tokens.
    pub tokens: u64,
    /// What its steps wrote into files, in bytes.
    pub bytes: u64,
    /// Its files are the task's.
    pub taken: bool,
}

/// GET /system/status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// The node.
    pub node: NodeInfo,
    /// How many tasks are in each state; states without any are absent.
    pub tasks: BTreeMap<String, u64>,
    /// Every worker, by name.
    pub workers: Vec<WorkerView>,
    /// How many tasks each worker holds, by its name; workers without any are absent.
    pub held: BTreeMap<String, u64>,
    /// Spent since the UTC day began over all tasks and keys, in money.
    pub spent_today: Money,
    /// The same in tokens.
    pub tokens_today: u64,
    /// What may be spent in a day over all tasks and keys.
    #[serde(default)]
    pub daily: Budget,
    /// The same for the project, where there is a limit.
    #[serde(default)]
    pub project: Option<ProjectDay>,
    /// The circuit of every provider, and after it those of its models that are not closed.
    #[serde(default)]
    pub circuits: Vec<DeploymentCircuit>,
    /// Why the records could not be read, where they could not: then tasks, what workers hold and what was spent are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_failure: Option<Failure>,
}

impl SystemStatus {
    /// How many tasks each worker holds, where that is known.
    pub fn known_held(&self) -> Option<&BTreeMap<String, u64>> {
        self.records_failure.is_none().then_some(&self.held)
    }
}

/// A project's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectDay {
    /// Spent since the UTC day began.
    pub spent: Spent,
    /// What may be spent.
    pub daily: Budget,
}

/// GET /health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok` while the records answer.
    pub status: String,
}

/// POST /keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateKeyRequest {
    /// What it is for.
    pub name: String,
    /// The task that it is for.
    pub task: Option<TaskId>,
    /// The models it may name; empty for all.
    pub models: Vec<String>,
    /// Most that it may spend in all.
    pub budget: Budget,
    /// Most that it may spend in a UTC day.
    pub daily: Budget,
    /// Most requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// How long it is valid, in milliseconds; absent for ever.
    pub valid_ms: Option<u64>,
}

/// The answer to POST /keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key itself; it is told here and never again.
    pub secret: String,
    /// What is kept of it.
    pub key: KeyView,
}

/// A key as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub name: String,
    /// The task that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The models it may name; empty for all.
    pub models: Vec<String>,
    /// Most that it may spend in all.
    pub budget: Budget,
    /// Most that it may spend in a UTC day.
    pub daily: Budget,
    /// Most requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// What was spent with it so far.
    #[serde(default)]
    pub spent: Spent,
}

impl KeyView {
    /// A key with what was spent with it.
    pub fn new(key: GatewayKey, spent: Spent) -> Self {
        Self {
            id: key.id,
            name: key.name,
            task: key.task,
            models: key.models,
            budget: key.budget,
            daily: key.daily,
            requests_per_minute: key.requests_per_minute,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            spent,
        }
    }
}

/// GET /keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// Oldest first.
    pub keys: Vec<KeyView>,
}

/// GET /llm/ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Newest first.
    pub calls: Vec<ModelCall>,
    /// What all that fit the query used, those of other pages too.
    pub spent: Spent,
}

/// GET /llm/models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelNames {
    /// Groups first, then `provider/model`.
    pub models: Vec<String>,
}

/// How a problem document looks (RFC 9457), with our code and hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// `urn:helix:failure:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to what.
    pub detail: String,
    /// The code.
    pub code: helix_protocol::Code,
    /// The next step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl ProblemDocument {
    /// The failure it carries.
    pub fn into_failure(self) -> Failure {
        Failure { code: self.code, message: self.detail, hint: self.hint }
    }
}

/// What a task is called where nobody named it: the first line of what it does.
pub fn default_title(work: &helix_protocol::TaskWork) -> String {
    use helix_protocol::TaskWork;
    let text = match work {
        TaskWork::Command(command) => command.commands.first().cloned().unwrap_or_else(|| "nothing".to_owned()),
        TaskWork::Agent(agent) => agent.prompt.clone(),
        TaskWork::External(agent) => agent.prompt.clone(),
        TaskWork::Attempts(attempts) => return default_title(&attempts.work),
        TaskWork::Custom { name, .. } => name.clone(),
    };
    let line = text.trim().lines().next().unwrap_or_default();
    if line.chars().count() <= 72 { line.to_owned() } else { line.chars().take(71).chain(['…']).collect() }
}

/// The branch a task is exported to where nobody named one.
pub fn default_branch(task: &TaskRecord) -> String {
    format!("helix/{}-{}", slug(&task.spec.title), short(task.id))
}

fn short(task: TaskId) -> String {
    task.short()
}

fn slug(title: &str) -> String {
    let mut out = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
        if out.len() >= 40 {
            break;
        }
    }
    let out = out.trim_end_matches('-');
    if out.is_empty() { "task".to_owned() } else { out.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_name_is_one_that_git_takes() {
        assert_eq!(slug("Fix: the parser's ~^ tests.lock"), "fix-the-parser-s-tests-lock");
        assert_eq!(slug("///"), "task");
        assert_eq!(slug("日本"), "task");
    }

    #[test]
    fn a_title_is_the_first_line_at_most_72_characters() {
        let prompt = format!("{}\nmore", "ä".repeat(80));
        let spec: TaskSpec = serde_json::from_value(serde_json::json!({
            "title": "", "work": {"kind": "agent", "prompt": prompt}, "base": {"from": "empty"}
        }))
        .expect("a spec");
        assert_eq!(default_title(&spec.work), format!("{}…", "ä".repeat(71)));
    }
}
