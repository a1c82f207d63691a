//! The product as a person runs it: a node, its workers and a scripted model server as processes, watched from outside.
//!
//! Everything lives in a temporary folder. Whatever a test leaves running ends with its [`Product`], also when the test panics.

#[allow(dead_code, reason = "the bench weighs what it starts, the tests do not")]
mod group;
#[allow(dead_code, reason = "the bench weighs it, the tests do not")]
pub mod litellm;
mod not_run;
mod oracle;
pub mod peers;
mod process;
mod script;
mod seed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use helix::client::Client;
use helix::node::{DataFolder, NodeProcess};
use helix::scripted::{ScriptedServer, Transcript, read_log, repeated_replies};
use helix_adapter_http::api::{CreateTaskRequest, CreatedTasks, StepList, WorkerList};
use helix_messages::WorkerView;
use helix_protocol::{
    AgentSpec, CommandSpec, EventKind, ObjectId, StepSummary, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork, WorkerId,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::block_in_place;

pub use not_run::not_run;
pub use oracle::{Oracle, Trail, Verdict};
pub use process::{Signal, end_everything_in, processes_in, send, state_of};
pub use script::{diligent, scenario, transcript};
pub use seed::{Chance, rounds};

/// Longer than anything takes that works, on a machine that does something else as well.
pub const SOON: Duration = Duration::from_secs(60);

/// The program under test.
pub const HELIX: &str = env!("CARGO_BIN_EXE_helix");

/// The worker program, which lies beside it.
pub fn worker_program() -> PathBuf {
    let program = Path::new(HELIX).with_file_name("helix-worker");
    assert!(program.exists(), "{} is missing: `cargo build --workspace --bins` makes it", program.display());
    program
}

/// How a product is set up.
pub struct Setup {
    program: PathBuf,
    data: Option<PathBuf>,
    config: Value,
    model: Option<Value>,
}

impl Setup {
    /// A node with this many workers of two slots on this machine, and leases a tenth as long as in production.
    pub fn workers(count: u32) -> Self {
        worker_program();
        let lease = json!({"heartbeat_ms": 100, "suspect_ms": 300, "fence_ms": 800, "reassign_ms": 1_000});
        let config = json!({
            "workers": {"local": count, "slots": 2, "lease": lease},
            "tasks": {"retry_backoff_ms": 20, "retry_backoff_most_ms": 200},
            "storage": {"cache_mib": 16},
        });
        Self { program: HELIX.into(), data: None, config, model: None }
    }

    /// One more value of the configuration, or another one: `section.key`. `llm.provider` is the scripted model's.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        *key.split('.').fold(&mut self.config, |section, name| &mut section[name]) = value.into();
        self
    }

    /// Leases that leave a connection, or a node, the time to come back on a loaded machine.
    pub fn patient_leases(self) -> Self {
        self.set("workers.lease", json!({"heartbeat_ms": 100, "suspect_ms": 1_000, "fence_ms": 4_000, "reassign_ms": 5_000}))
    }

    /// The lease times that people have.
    pub fn real_leases(mut self) -> Self {
        self.config["workers"].as_object_mut().expect("a section").remove("lease");
        self
    }

    /// A model server that says what is written in this transcript.
    pub fn model(mut self, transcript: Value) -> Self {
        self.model = Some(transcript);
        self
    }

    /// The data folder; otherwise one in the temporary folder.
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// Another program in place of `helix`, which becomes it.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Starts everything and waits until the workers are ready.
    pub async fn start(self) -> Product {
        let Self { program, data, mut config, model } = self;
        let folder = tempfile::Builder::new().prefix("helix-test").tempdir().expect("a temporary folder");
        let model = match model {
            Some(transcript) => Some(start_model(&transcript, folder.path()).await),
            None => None,
        };
        if let Some(server) = &model {
            let mut provider = json!({"base_url": server.base_url(), "key_env": "", "model": "scripted"});
            if let Some(more) = config.pointer("/llm/provider").and_then(Value::as_object) {
                provider.as_object_mut().expect("an object").extend(more.clone());
            }
            config["llm"] = json!({"providers": {"scripted": provider}});
        }
        // What judges stands outside of the workspaces, and commands must reach it from their sandboxes.
        let mut writable = config["tasks"]["writable"].as_array().cloned().unwrap_or_default();
        writable.push(json!(folder.path()));
        config["tasks"]["writable"] = writable.into();
        let workers = config["workers"]["local"].as_u64().expect("a number") as usize;
        let path = folder.path().join("helix.yaml");
        std::fs::write(&path, config.to_string()).expect("the folder is writable");
        let data = DataFolder::locate(&data.unwrap_or_else(|| folder.path().join("data"))).expect("a named folder");
        let node = block_in_place(|| NodeProcess::start(&program, &data, &path)).expect("the node starts");
        let client = node.client().expect("a client can be made");
        let oracle = Oracle::watch(&client, folder.path()).await;
        let product = Product { node, client, oracle, model, folder, nodes_ended: 0, pids: Mutex::default() };
        product.workers_ready(workers).await;
        product
    }
}

async fn start_model(transcript: &Value, folder: &Path) -> ScriptedServer {
    let transcript = Transcript::parse(&transcript.to_string()).expect("the transcript can be followed");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    ScriptedServer::start(transcript, address, &folder.join("model.jsonl")).await.expect("the model server starts")
}

/// Everything that runs, and what was seen of it.
pub struct Product {
    /// The node.
    pub node: NodeProcess,
    /// Its client.
    pub client: Client,
    /// What it acknowledged.
    pub oracle: Oracle,
    /// The model server.
    pub model: Option<ScriptedServer>,
    folder: TempDir,
    /// How often the node was started again.
    nodes_ended: usize,
    pids: Mutex<BTreeMap<WorkerId, u32>>,
}

impl Product {
    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every worker as the node sees it.
    pub async fn workers(&self) -> Vec<WorkerView> {
        let workers = self.client.get::<WorkerList>("/workers").await.expect("workers are listed").workers;
        self.pids.lock().extend(workers.iter().filter_map(|worker| Some((worker.record.id, worker.pid?))));
        workers
    }

    /// One worker.
    pub async fn worker(&self, id: WorkerId) -> WorkerView {
        self.workers().await.into_iter().find(|worker| worker.record.id == id).expect("the worker is known")
    }

    /// Waits until this many workers can be given tasks.
    pub async fn workers_ready(&self, count: usize) {
        self.until("workers are ready", async || self.workers().await.iter().filter(|worker| worker.ready).count() >= count).await;
    }

    /// Looks again and again until it is so.
    pub async fn until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !so().await {
            assert!(start.elapsed() < SOON, "waited in vain: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of the node's log.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.node.folder().log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Makes a task.
    pub async fn create(&self, spec: TaskSpec) -> TaskId {
        let request = CreateTaskRequest { spec, import: None, attempts: 1, secrets: Vec::new() };
        let created: CreatedTasks = self.client.post("/tasks", &request).await.expect("the task is taken");
        created.tasks[0].id
    }

    /// Makes a task for an agent; the transcript knows it by its prompt.
    pub async fn agent(&self, prompt: &str) -> TaskId {
        let agent = AgentSpec { max_steps: 60, ..AgentSpec::new(prompt) };
        self.create(TaskSpec::new(prompt, TaskWork::Agent(agent))).await
    }

    /// Makes a task of shell commands.
    pub async fn command(&self, commands: &[&str]) -> TaskId {
        self.create(command_spec(commands)).await
    }

    /// A task's record.
    pub async fn record(&self, task: TaskId) -> TaskRecord {
        self.client.get(&format!("/tasks/{task}")).await.expect("the task is known")
    }

    /// A task's steps up to its head.
    pub async fn steps(&self, task: TaskId) -> Vec<StepSummary> {
        self.client.get::<StepList>(&format!("/tasks/{task}/steps")).await.expect("the task is known").steps
    }

    /// Every step a task ever committed.
    pub async fn all_steps(&self, task: TaskId) -> Vec<StepSummary> {
        self.client.query::<StepList>(&format!("/tasks/{task}/steps"), &[("all", "true")]).await.expect("the task is known").steps
    }

    /// Waits for a task's end.
    pub async fn ended(&self, task: TaskId) -> TaskRecord {
        let ends = |kind| matches!(kind, EventKind::TaskCompleted | EventKind::TaskFailed | EventKind::TaskCancelled);
        let mut trail = self.oracle.whole_trail();
        trail
            .until(&format!("task {} ends\n{}", task.short(), self.log()), |event| {
                event.event.task == Some(task) && ends(event.event.kind)
            })
            .await;
        self.record(task).await
    }

    /// Waits for a task's end, which must be a good one, and answers the tree of its last step.
    pub async fn completed(&self, task: TaskId) -> ObjectId {
        let record = self.ended(task).await;
        assert_eq!((record.status, record.reason.as_str()), (TaskStatus::Completed, ""), "{}", self.log());
        self.tree(task).await
    }

    /// The tree of a task's last step.
    pub async fn tree(&self, task: TaskId) -> ObjectId {
        self.steps(task).await.last().expect("it made a step").tree
    }

    /// The worker's process.
    pub async fn pid(&self, worker: WorkerId) -> u32 {
        self.worker(worker).await.pid.expect("it said its process id")
    }

    /// Sends a signal to the process of a worker.
    pub async fn signal(&self, worker: WorkerId, signal: Signal) -> u32 {
        let pid = self.pid(worker).await;
        send(pid, signal);
        pid
    }

    /// The folder of a worker on this machine.
    pub fn worker_folder(&self, name: &str) -> PathBuf {
        self.node.folder().workers().join(name)
    }

    /// SIGKILL for the node.
    pub fn kill_node(&mut self) {
        block_in_place(|| self.node.kill()).expect("the node can be killed");
    }

    /// Starts the node again.
    pub fn start_node_again(&mut self) {
        self.nodes_ended += 1;
        block_in_place(|| self.node.start_again()).unwrap_or_else(|failure| panic!("{failure}: {}", failure.message));
    }

    /// Holds the steps that are there against those that were acknowledged, and the model server's log against itself.
    pub async fn judge(&self) -> Verdict {
        let mut verdict = Verdict { replied_twice: self.oracle.replied_twice(), ..Verdict::default() };
        // With a node dies at most one call of each task, and may be made again. No other death ends a call.
        let mut lost = 0;
        for (task, acknowledged) in self.oracle.acknowledged() {
            let all = self.all_steps(task).await;
            verdict.add(task, &acknowledged, &self.steps(task).await, &all);
            let calls = all.iter().map(|step| step.spend.uncertain_calls as usize).sum::<usize>();
            lost += calls.min(self.nodes_ended);
            verdict.uncertain_calls += calls.saturating_sub(self.nodes_ended);
        }
        if let Some(model) = &self.model {
            let given = repeated_replies(&read_log(model.log()).expect("the model's log can be read"));
            verdict.repeated_replies = given.saturating_sub(lost);
        }
        verdict
    }
}

/// What a task of shell commands is asked for with.
pub fn command_spec(commands: &[&str]) -> TaskSpec {
    let commands = commands.iter().map(|&command| command.to_owned()).collect();
    TaskSpec::new("commands", TaskWork::Command(CommandSpec { commands, artifacts: Vec::new() }))
}

impl Drop for Product {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the node's log ends with:\n{}", self.log());
        }
        // Workers are detached, so the node's end is not theirs. One that is stopped by a signal could not answer.
        for pid in self.pids.lock().values() {
            send(*pid, Signal::CONT);
        }
        let _ = self.node.kill();
        for entry in std::fs::read_dir(self.node.folder().workers()).into_iter().flatten().flatten() {
            process::stop_worker(&entry.path());
        }
        // Workers that a test put elsewhere.
        end_everything_in(self.folder.path());
    }
}
