//! The LiteLLM proxy before an OpenAI-compatible server of ours. It is told to look nothing up elsewhere:
//! neither prices nor versions.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::group::Group;
use super::peers::{self, Peer};

/// It imports for a while before it listens.
const STARTING: Duration = Duration::from_secs(180);
/// The key that it is given to want.
pub const KEY: &str = "sk-litellm";
/// The model that it serves.
pub const MODEL: &str = "fixed";

/// The running proxy.
#[derive(Debug)]
pub struct LiteLlm {
    /// Its processes.
    pub group: Group,
    /// `http://HOST:PORT`
    pub base: String,
}

/// The installed program for `what` needs it; `None` where it is not installed and that was agreed to.
pub fn program(what: &str) -> Result<Option<PathBuf>, String> {
    let litellm = Peer::find("litellm");
    if litellm.is_whole { Ok(Some(litellm.place)) } else { peers::without("litellm", what).map(|()| None) }
}

impl LiteLlm {
    /// Starts it before `upstream`, a base URL with `/v1`, whose model `behind` it calls [`MODEL`]. Waits until it answers.
    pub async fn start(program: &Path, folder: &Path, upstream: &str, behind: &str, workers: usize) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let (config, log) = (folder.join("litellm.yaml"), folder.join("litellm.log"));
        std::fs::write(
            &config,
            // What it would pass on in a format that the upstream lacks is to become chat completions too.
            format!(
                "model_list:\n  - model_name: {MODEL}\n    litellm_params: {{ model: openai/{behind}, api_base: \"{upstream}\", api_key: none, \
                 use_chat_completions_api: true }}\nlitellm_settings: {{ telemetry: false, num_retries: 0, \
                 use_chat_completions_url_for_anthropic_messages: true }}\ngeneral_settings: {{ master_key: {KEY} }}\n"
            ),
        )?;
        let mut command = Command::new(program);
        command.args(["--config", &config.display().to_string(), "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--num_workers", &workers.to_string(), "--telemetry", "False"]).current_dir(folder);
        command.envs([("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_LOG", "ERROR"), ("LITELLM_MODE", "PRODUCTION")]);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "DATABASE_URL"] {
            command.env_remove(name);
        }
        let out = std::fs::File::create(&log)?;
        let mut group = Group::start(command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out))?;
        let (base, begin) = (format!("http://127.0.0.1:{port}"), Instant::now());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        loop {
            if let Ok(answer) = client.get(format!("{base}/health/liveliness")).send().await
                && answer.status().is_success()
            {
                return Ok(Self { group, base });
            }
            let ended = group.0.try_wait()?;
            if ended.is_some() || begin.elapsed() > STARTING {
                bail!("LiteLLM did not start ({ended:?}):\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
