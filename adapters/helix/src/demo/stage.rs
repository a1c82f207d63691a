//! What the demo plays on: a temporary folder, a node with three workers, and the scripted model server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use helix_adapter_http::api::WorkerList;
use helix_config::ProviderKind;
use helix_messages::WorkerView;
use helix_protocol::{Code, Failure};

use super::Demo;
use crate::client::Client;
use crate::node::{DataFolder, NodeProcess};
use crate::scripted::{self, ScriptedServer};

/// How many workers the demo runs.
const WORKERS: usize = 3;
/// How long they may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Prices of the scripted model, so that the demo has something to count: US dollars per million tokens.
const PRICES: &str = "{ input: 2.0, cached: 0.2, output: 8.0 }";

/// What the scripted model says, in the demo's folder.
const TRANSCRIPT: &str = "transcript.yaml";

/// How long an answer may be held while a person makes up their mind, in milliseconds.
const HELD_MS: u64 = 3_600_000;

/// Where the key of a real model is.
const KEY: &str = "OPENAI_API_KEY";
/// Where its server is, unless `--base-url` says it.
const SERVER: &str = "OPENAI_BASE_URL";

/// Everything that runs for the demo. [`leave`](Self::leave) takes it down in order.
pub struct Stage {
    /// The temporary folder.
    pub folder: PathBuf,
    /// The node.
    pub node: NodeProcess,
    /// The model server, where the model is scripted.
    pub model: Option<ScriptedServer>,
    /// The node's client.
    pub client: Client,
}

impl Stage {
    /// Makes the folder, starts the model server and the node, and waits for its workers.
    pub async fn set(demo: &Demo) -> Result<Self, Failure> {
        let is_named = demo.base_url.is_some() || std::env::var(SERVER).is_ok_and(|url| !url.is_empty());
        if demo.model.is_some() && !is_named && std::env::var(KEY).map_or(true, |key| key.trim().is_empty()) {
            return Err(Failure::new(Code::ModelUnavailable, format!("there is no {KEY}, which a real model needs"))
                .hint(format!("set {KEY} and run the demo again, or name a server that wants no key with --base-url")));
        }
        // A folder of its own: what an earlier demo kept stays, and nobody else has made it.
        let folder = std::env::temp_dir().join(format!("helix-demo-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).map_err(|error| Failure::io(folder.display(), &error))?;
        let model = match demo.model {
            Some(_) => None,
            None => Some(start_model(&folder).await?),
        };
        let config = folder.join("helix.yaml");
        let key = std::env::var(KEY).ok().filter(|key| !key.trim().is_empty() && demo.model.is_some());
        let text = configuration(demo, model.as_ref(), key.is_some());
        std::fs::write(&config, text).map_err(|error| Failure::io(config.display(), &error))?;
        let program = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
        let data = DataFolder::locate(&folder.join("data"))?;
        let variables = key.map(|key| (KEY.to_owned(), key)).into_iter().collect();
        let node = tokio::task::spawn_blocking(move || NodeProcess::start_with(&program, &data, &config, variables))
            .await
            .map_err(|_| Failure::new(Code::Internal, "starting the node panicked"))??;
        let client = node.client()?;
        let stage = Self { folder, node, model, client };
        stage.workers_ready().await?;
        Ok(stage)
    }

    /// Where a person can read what the scripted model says.
    pub fn transcript(&self) -> PathBuf {
        self.folder.join(TRANSCRIPT)
    }

    /// Every worker, as the node sees it.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Failure> {
        Ok(self.client.get::<WorkerList>("/workers").await?.workers)
    }

    /// Bytes that the content store takes on disk.
    pub fn stored_bytes(&self) -> u64 {
        folder_bytes(&self.node.folder().content())
    }

    /// Takes workers, node and model server down. Everything is tried; the first failure is told.
    pub async fn leave(mut self, keep: Keep) -> Result<(), Failure> {
        let mut first = Ok(());
        let mut note = |result: Result<(), Failure>| {
            if first.is_ok() {
                first = result;
            }
        };
        match self.workers().await {
            Ok(workers) => {
                for worker in workers {
                    note(self.client.delete(&format!("/workers/{}", worker.record.id), &[("force", "true")]).await);
                }
            }
            Err(failure) => note(Err(failure)),
        }
        note(self.node.stop().map(drop));
        if let Some(model) = self.model.take() {
            model.stop().await;
        }
        if keep == Keep::Nothing {
            note(std::fs::remove_dir_all(&self.folder).map_err(|error| Failure::io(self.folder.display(), &error)));
        }
        first
    }

    async fn workers_ready(&self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let ready = self.workers().await?.iter().filter(|worker| worker.ready).count();
            if ready >= WORKERS {
                return Ok(());
            }
            if started.elapsed() > READY_LIMIT {
                return Err(Failure::new(
                    Code::TimedOut,
                    format!("{ready} of {WORKERS} workers were ready within {READY_LIMIT:?}"),
                )
                .hint(format!("the node's log is {}", self.node.folder().log().display())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What stays of the demo's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything, for looking around.
    Everything,
    /// Nothing.
    Nothing,
}

async fn start_model(folder: &Path) -> Result<ScriptedServer, Failure> {
    let internal = |error: anyhow::Error| Failure::new(Code::Internal, format!("the scripted model server: {error:#}"));
    let transcript = scripted::demo().map_err(internal)?;
    let readable = folder.join(TRANSCRIPT);
    std::fs::write(&readable, scripted::DEMO).map_err(|error| Failure::io(readable.display(), &error))?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    ScriptedServer::start(transcript, address, &folder.join("model.jsonl")).await.map_err(internal)
}

fn configuration(demo: &Demo, model: Option<&ScriptedServer>, has_key: bool) -> String {
    let provider = match (model, &demo.model) {
        (Some(server), _) => {
            format!(
                "  providers:\n    scripted:\n      base_url: {}\n      key_env: \"\"\n      model: scripted-demo\n      \
                 idle_timeout_ms: {HELD_MS}\n      call_timeout_ms: {HELD_MS}\n      prices: {{ scripted-demo: {PRICES} }}\n",
                server.base_url()
            )
        }
        (None, Some(name)) => {
            let named = demo.base_url.clone().or_else(|| std::env::var(SERVER).ok().filter(|url| !url.is_empty()));
            // A server of one's own may want no key; the service always does, and says so.
            let key = if named.is_some() && !has_key { "" } else { KEY };
            let url = named.unwrap_or_else(|| ProviderKind::Openai.base_url().to_owned());
            format!("  providers:\n    yours:\n      base_url: {url}\n      key_env: \"{key}\"\n      model: {name}\n")
        }
        (None, None) => String::new(),
    };
    format!("workers:\n  local: {WORKERS}\n  slots: 2\nllm:\n{provider}")
}

/// Every byte of every file below a folder. Files that go away meanwhile count nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
