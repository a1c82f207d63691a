//! What is measured on: the upstream, and before it a node's gateway, the bare proxy and LiteLLM, each a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helix::node::{DataFolder, NodeProcess};
use helix_adapter_http::api::{CreatedKey, KeyList};
use helix_protocol::Money;
use serde_json::json;

use crate::bare;
use crate::group::{self, Group};
use crate::litellm::{self, LiteLlm};
use crate::report::Figure;
use crate::target::{FIXED, Speaking, Target};
use crate::upstream::Upstream;

/// Nobody in between.
pub const DIRECT: &str = "nothing in between";
/// See [`bare`].
pub const BARE: &str = "bare reverse proxy";
/// Chat completions on both sides, of a model without a price: there is no money to set aside.
pub const PASSED: &str = "gateway, bytes passed on";
/// The same of a model with a price: what a call can cost is in the records before it is made.
pub const SET_ASIDE: &str = "gateway, bytes passed on, money set aside";
/// Anthropic's messages on this side, chat completions on the other.
pub const TRANSLATED: &str = "gateway, messages translated to chat";
/// Chat completions on both sides.
pub const LITELLM: &str = "LiteLLM proxy";

/// The model with a price.
const PRICED: &str = "priced";

/// Everything that runs.
pub struct Stage {
    _folder: tempfile::TempDir,
    /// Whoever answers.
    pub upstream: Upstream,
    /// Those that are asked, in the order of the table. LiteLLM is missing where it is not installed.
    pub targets: Vec<Target>,
    node: NodeProcess,
    bare: Group,
    litellm: Option<LiteLlm>,
}

impl Stage {
    /// Starts everything and waits until each answers.
    pub async fn set() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let upstream = Upstream::start()?;
        let base = format!("http://{}", upstream.address);
        let mut targets = vec![Target::new(DIRECT, base.as_str(), "none", Speaking::Chat)?];
        let (bare, address) = bare_proxy(&base)?;
        targets.push(Target::new(BARE, format!("http://{address}"), "none", Speaking::Chat)?);
        let (node, gateway, key) = node(folder.path(), &base).await?;
        targets.push(Target::new(PASSED, gateway.as_str(), key.as_str(), Speaking::Chat)?);
        let priced = Target::new(SET_ASIDE, gateway.as_str(), key.as_str(), Speaking::Chat)?;
        targets.push(Target { model: PRICED, ..priced });
        targets.push(Target::new(TRANSLATED, gateway, key, Speaking::Messages)?);
        let litellm = match litellm::program("measuring beside LiteLLM").map_err(anyhow::Error::msg)? {
            Some(program) => {
                // As its documents advise: a worker process for each core, its logs off.
                let litellm = LiteLlm::start(&program, folder.path(), &format!("{base}/v1"), FIXED, cores()).await?;
                targets.push(Target::new(LITELLM, litellm.base.as_str(), litellm::KEY, Speaking::Chat)?);
                Some(litellm)
            }
            None => None,
        };
        for target in &targets {
            for _ in 0..20 {
                target.ask(&upstream, Duration::ZERO).await?;
            }
        }
        let keys: KeyList = node.client()?.get("/keys").await?;
        ensure!(
            keys.keys.iter().any(|key| key.spent.money > Money::ZERO),
            "calls of the model with a price cost nothing: {keys:?}"
        );
        Ok(Self { _folder: folder, upstream, targets, node, bare, litellm })
    }

    /// What each holds in memory after what was measured.
    pub fn memory(&self) -> Result<Vec<Figure>> {
        let figure = |name: &str, mib: f64| Figure::new(format!("memory after the run: {name}"), mib, "MiB").against("PSS");
        let mut figures = vec![
            figure("node with its gateway", group::memory(self.node.pid())?),
            figure("bare reverse proxy", self.bare.memory()?),
        ];
        if let Some(litellm) = &self.litellm {
            figures.push(figure(&format!("LiteLLM proxy, {} workers", cores()), litellm.group.memory()?));
        }
        Ok(figures)
    }

    /// Takes everything down.
    pub async fn leave(mut self) -> Result<()> {
        drop(self.litellm.take());
        tokio::task::block_in_place(|| self.node.stop())?;
        self.upstream.stop().await;
        Ok(())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A port that nobody has at this moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn bare_proxy(upstream: &str) -> Result<(Group, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut group = Group::start(command.args([bare::ROLE, upstream]).stdout(Stdio::piped()))?;
    let stdout = group.0.stdout.take().context("its output is piped")?;
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address)?;
    ensure!(!address.trim().is_empty(), "the bare proxy did not start");
    Ok((group, address.trim().to_owned()))
}

async fn node(folder: &Path, upstream: &str) -> Result<(NodeProcess, String, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let config = folder.join("helix.yaml");
    std::fs::write(
        &config,
        format!(
            "workers: {{ local: 0 }}\ngateway: {{ listen: \"{listen}\" }}\nllm:\n  default_provider: {FIXED}\n  providers:\n    \
             {FIXED}: {{ base_url: \"{upstream}/v1\", key_env: \"\", model: {FIXED}, concurrency: 256 }}\n    \
             {PRICED}: {{ base_url: \"{upstream}/v1\", key_env: \"\", model: {PRICED}, concurrency: 256, \
             prices: {{ {PRICED}: {{ input: 0.1, output: 0.4 }} }} }}\n"
        ),
    )?;
    let data = DataFolder::locate(&folder.join("data"))?;
    let program = Path::new(env!("CARGO_BIN_EXE_helix"));
    let node = tokio::task::block_in_place(|| NodeProcess::start(program, &data, &config))?;
    let created: CreatedKey = node.client()?.post("/keys", &json!({"name": "bench"})).await?;
    Ok((node, format!("http://{listen}"), created.secret))
}
