//! What people would take instead: Restate, a single node with its own defaults, before a handler in Rust that does nothing durably.
//!
//! Both programs come from scripts/restate.sh. The server works in a folder of the run and is told to report its use to nobody, and else
//! nothing. Its ingress is asked over a Unix socket, as our node is; the handler is on a loopback port, and journals one step with
//! `ctx.run`, as a task of one step does.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::group::Group;
use crate::peers::{self, Peer};
use crate::throughput::{IN_FLIGHT, Window};

/// It makes two dozen partitions before it answers.
const STARTING: Duration = Duration::from_secs(60);
/// The name of the node, and of its folder.
const NODE: &str = "bench";

/// The running server with its handler.
pub struct Restate {
    _folder: tempfile::TempDir,
    _server: Group,
    _handler: Group,
    ingress: reqwest::Client,
    /// Its version and what its defaults say about the disk.
    pub about: String,
}

/// The folder of the installed programs; `None` where they are not installed and that was agreed to.
pub fn programs() -> Result<Option<PathBuf>> {
    let restate = Peer::find("restate");
    if restate.is_whole {
        return Ok(Some(restate.place));
    }
    peers::without("restate", "measuring beside Restate").map_err(anyhow::Error::msg)?;
    Ok(None)
}

impl Restate {
    /// Starts server and handler, and waits until a call is answered.
    pub async fn start(programs: &Path) -> Result<Self> {
        let (folder, program) = (tempfile::tempdir()?, programs.join("restate-server"));
        let (handler, address) = handler(&programs.join("handler"))?;
        let log = folder.path().join("restate.log");
        let out = std::fs::File::create(&log)?;
        let mut command = command(&program, folder.path());
        let mut server = Group::start(command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out))?;
        let sockets = folder.path().join("data").join(NODE);
        let (ingress, admin) = (over(&sockets.join("ingress.sock"))?, over(&sockets.join("admin.sock"))?);
        let begin = Instant::now();
        loop {
            let registered =
                admin.post("http://restate/deployments").json(&json!({"uri": format!("http://{address}")})).send().await;
            if registered.is_ok_and(|answer| answer.status().is_success()) && call(&ingress).await.is_ok() {
                break;
            }
            let ended = server.0.try_wait()?;
            if ended.is_some() || begin.elapsed() > STARTING {
                bail!("Restate did not start ({ended:?}):\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let about = about(&program, folder.path())?;
        Ok(Self { _folder: folder, _server: server, _handler: handler, ingress, about })
    }

    /// Calls the handler, [`IN_FLIGHT`] calls at once. Answers how many ended a second.
    pub async fn per_second(&self, window: Window) -> Result<f64> {
        let counted = Arc::new(AtomicU64::new(0));
        let (from, to) = window.from(Instant::now());
        let lanes: Vec<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (ingress, counted) = (self.ingress.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    while Instant::now() < to {
                        call(&ingress).await?;
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        tokio::time::sleep_until(from.into()).await;
        let before = (counted.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep_until(to.into()).await;
        let after = (counted.load(Ordering::Relaxed), Instant::now());
        for lane in lanes {
            lane.await??;
        }
        ensure!(after.0 > before.0, "no call of Restate's handler ended");
        Ok((after.0 - before.0) as f64 / after.1.duration_since(before.1).as_secs_f64())
    }
}

/// Calls the handler once and waits for its end.
async fn call(ingress: &reqwest::Client) -> Result<()> {
    let answer = ingress.post("http://restate/Nothing/once").send().await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(status.is_success(), "Restate answered {status}: {body}");
    Ok(())
}

fn over(socket: &Path) -> Result<reqwest::Client> {
    // The client insists on a TLS provider although a socket has no TLS; somebody may have installed one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(reqwest::Client::builder().unix_socket(socket).tls_certs_only([]).no_proxy().build()?)
}

fn handler(program: &Path) -> Result<(Group, String)> {
    let mut group = Group::start(Command::new(program).stdout(Stdio::piped()))?;
    let stdout = group.0.stdout.take().context("its output is piped")?;
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address)?;
    ensure!(!address.trim().is_empty(), "Restate's handler did not start");
    Ok((group, address.trim().to_owned()))
}

/// The server with its defaults, whatever the environment holds, and with files and ports that nobody else has.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().env("RESTATE_DISABLE_TELEMETRY", "true");
    command.args(["--node-name", NODE, "--bind-ip", "127.0.0.1", "--use-random-ports", "true", "--no-logo", "--base-dir"]);
    command.arg(folder.join("data"));
    command
}

/// The version, and whether the log is synced, by what the server says of itself.
fn about(program: &Path, folder: &Path) -> Result<String> {
    let said = |mut command: Command| -> Result<String> {
        let output = command.output()?;
        ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let mut version = Command::new(program);
    version.arg("--version");
    let version = said(version)?;
    let version = version.split_whitespace().last().context("it says its version")?.to_owned();
    let mut dump = command(program, folder);
    dump.arg("--dump-config");
    let dump = said(dump)?;
    let (_, log) = dump.split_once("\n[log-server]\n").context("its settings have a log server")?;
    let setting = log.lines().take_while(|line| !line.starts_with('[')).find(|line| line.starts_with("rocksdb-disable-wal-fsync"));
    let setting = setting.context("its settings say whether the log is synced")?;
    Ok(format!("Restate {version}, one node with its defaults (log-server: {setting})"))
}
