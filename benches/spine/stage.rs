//! What is measured on: a node, three workers and a scripted model server, all real processes but the last.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use helix::client::{Client, Watch};
use helix::node::{DataFolder, NodeProcess};
use helix::scripted::{ScriptedServer, Transcript, read_log, repeated_replies};
use helix_adapter_http::api::{CreateTaskRequest, CreatedTasks, WorkerList};
use helix_messages::{ImportGit, WorkerView};
use helix_protocol::{Event, EventKind, TaskId, TaskRecord, TaskSpec, WorkerId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::sync::mpsc;

/// How many workers run.
pub const WORKERS: usize = 3;
/// The command in whose middle a worker is killed.
pub const LONG: &str = "sleep 600";
/// What the prompt of a task contains that the transcript knows.
pub const PROMPT: &str = "Keep working until you are stopped.";
/// Longer than anything takes that works; a worker that died often waits half a minute before it is started again.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A step that changes a file, then one that takes long.
const TRANSCRIPT: &str = "
model: scripted
scenarios:
  - name: resume
    phrase: keep working
    turns:
      - text: I write down what I do.
        calls: [{ tool: write, arguments: { path: notes.md, content: \"begun\\n\" } }]
      - text: This takes long.
        calls: [{ tool: shell, arguments: { command: sleep 600, timeout_s: 600 } }]
";

/// What differs from one stage to the next.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Tasks that each worker may hold.
    pub slots: u32,
    /// The URL of the records; empty for SQLite in the data folder.
    pub database: String,
}

/// Everything that runs.
pub struct Stage {
    folder: tempfile::TempDir,
    /// The node.
    pub node: NodeProcess,
    /// Its client.
    pub client: Client,
    /// What happens, with the moment at which it was heard.
    pub events: Events,
    model: Option<ScriptedServer>,
}

impl Stage {
    /// Starts everything and waits until every worker is ready.
    pub async fn set(setting: Setting) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let transcript = Transcript::parse(TRANSCRIPT)?;
        let model = ScriptedServer::start(transcript, ([127, 0, 0, 1], 0).into(), &folder.path().join("model.jsonl")).await?;
        let config = folder.path().join("helix.yaml");
        let Setting { slots, database } = setting;
        std::fs::write(
            &config,
            format!(
                "workers: {{ local: {WORKERS}, slots: {slots} }}\ntasks: {{ writable: [\"{}\"] }}\ndatabase: {{ url: \"{database}\" }}\nllm:\n  providers:\n    \
                 scripted: {{ base_url: \"{}\", key_env: \"\", model: scripted }}\n",
                folder.path().display(),
                model.base_url()
            ),
        )?;
        let data = DataFolder::locate(&folder.path().join("data"))?;
        let worker = worker_program();
        ensure!(worker.exists(), "{} is missing: build helix-worker in the same profile", worker.display());
        let node = tokio::task::block_in_place(|| NodeProcess::start(Path::new(env!("CARGO_BIN_EXE_helix")), &data, &config))?;
        let client = node.client()?;
        let events = Events::open(&client).await?;
        let stage = Self { folder, node, client, events, model: Some(model) };
        stage.workers_ready(WORKERS).await?;
        Ok(stage)
    }

    /// A path in the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every worker, as the node sees it.
    pub async fn workers(&self) -> Result<Vec<WorkerView>> {
        Ok(self.client.get::<WorkerList>("/workers").await?.workers)
    }

    /// A worker's process.
    pub async fn pid_of(&self, worker: WorkerId) -> Result<Pid> {
        let workers = self.workers().await?;
        let view = workers.iter().find(|view| view.record.id == worker).context("the node knows the worker")?;
        pid(view.pid.context("the worker gave its process id")?)
    }

    /// Waits until so many workers can take tasks.
    pub async fn workers_ready(&self, count: usize) -> Result<()> {
        let started = Instant::now();
        loop {
            let ready = self.workers().await?.iter().filter(|worker| worker.ready).count();
            if ready >= count {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "{ready} of {count} workers were ready within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes a task, taking a repository in first where one is named.
    pub async fn create(&self, spec: TaskSpec, import: Option<&Path>) -> Result<CreatedTasks> {
        let import = import.map(|path| ImportGit { path: path.to_owned(), clean: true });
        Ok(self.client.post("/tasks", &CreateTaskRequest { spec, import, attempts: 1, secrets: Vec::new() }).await?)
    }

    /// Gives a task up.
    pub async fn cancel(&self, task: TaskId) -> Result<()> {
        self.client.post::<TaskRecord>(&format!("/tasks/{task}/cancel"), &json!({})).await?;
        Ok(())
    }

    /// Takes workers and node down. Refused where the model server gave a whole reply twice: then what was measured is not what was
    /// promised.
    pub async fn leave(mut self) -> Result<()> {
        for worker in self.workers().await? {
            self.client.delete(&format!("/workers/{}", worker.record.id), &[("force", "true")]).await?;
        }
        self.events.close();
        tokio::task::block_in_place(|| self.node.stop())?;
        let model = self.model.take().context("the model server runs as long as the stage stands")?;
        let log = model.log().to_owned();
        model.stop().await;
        let repeated = if log.exists() { repeated_replies(&read_log(&log)?) } else { 0 };
        ensure!(repeated == 0, "{repeated} model replies were asked for again");
        Ok(())
    }
}

/// Workers are detached: one whose stage falls is stopped here. Those that [`Stage::leave`] removed have no folder any more.
impl Drop for Stage {
    fn drop(&mut self) {
        // First, so that it does not start them again.
        let _ = self.node.kill();
        for folder in std::fs::read_dir(self.node.folder().workers()).into_iter().flatten().flatten() {
            let _ = Command::new(worker_program()).args(["stop", "--wipe", "--folder"]).arg(folder.path()).output();
        }
    }
}

/// `helix-worker` beside the node's program.
pub fn worker_program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_helix")).with_file_name("helix-worker")
}

/// The node's events as they are heard.
pub struct Events {
    heard: mpsc::UnboundedReceiver<(Instant, Event)>,
    pump: tokio::task::JoinHandle<()>,
}

impl Events {
    async fn open(client: &Client) -> Result<Self> {
        let mut watch = Watch::open(client, None, None).await?;
        let (tell, heard) = mpsc::unbounded_channel();
        let pump = tokio::spawn(async move {
            loop {
                // A node that is away is waited for by asking again.
                if let Ok(event) = watch.next().await
                    && tell.send((Instant::now(), event)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { heard, pump })
    }

    /// The next event.
    pub async fn next(&mut self) -> Result<(Instant, Event)> {
        tokio::time::timeout(PATIENCE, self.heard.recv())
            .await
            .context("no event within the time allowed")?
            .context("the events ended")
    }

    /// The first event of a task that is of this kind and fits. A task that fails meanwhile is a failure.
    pub async fn until(&mut self, task: TaskId, kind: EventKind, fits: impl Fn(&Event) -> bool) -> Result<(Instant, Event)> {
        loop {
            let (at, event) = self.next().await?;
            if event.event.task != Some(task) {
                continue;
            }
            if event.event.kind == kind && fits(&event) {
                return Ok((at, event));
            }
            if event.event.kind == EventKind::TaskFailed {
                bail!("task {task} failed: {}", event.event.message);
            }
        }
    }

    /// Forgets what was heard so far.
    pub fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }

    fn close(&mut self) {
        self.pump.abort();
    }
}

/// Sends a signal.
pub fn signal(pid: Pid, signal: Signal) -> Result<()> {
    kill_process(pid, signal).with_context(|| format!("process {pid:?}"))
}

/// A process id.
pub fn pid(raw: u32) -> Result<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw).with_context(|| format!("{raw} is no process id"))
}
