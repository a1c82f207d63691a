//! `helix doctor`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use helix_adapter_http::api::{ProviderList, SystemStatus};
use helix_config::{Config, ModelsConfig, ProviderConfig, unread};
use helix_messages::DeploymentCircuit;
use helix_protocol::{Code, Failure, Timestamp};
use serde::Serialize;

use super::Context;
use super::circuits::told;
use super::config::without_password;
use super::context::names_of_variables;
use super::model_servers;
use super::style::{Style, mebibytes};
use crate::client::Client;
use crate::node::DataFolder;
use crate::node::providers::logins;
use crate::node::stores::{records_url, unreached};

/// Less free disk than this is worth a word, in MiB.
const LITTLE_DISK_MIB: u64 = 2 * 1024;
/// Programs are asked for their version; one that hangs is as good as missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// No clock of a machine that is set can be before this: the beginning of 2025.
const EARLIEST: Timestamp = Timestamp(1_735_689_600_000_000);

/// Look at everything a node needs, and say what is in the way and what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix doctor
  helix doctor --models      ask the model servers too
  helix doctor --json        for a report

The exit code is 1 where something is in the way; what is merely missing is a warning.")]
pub(super) struct Doctor {
    /// Ask each configured model server for its models
    #[arg(long)]
    models: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    next: String,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), next: String::new() }
    }

    fn warning(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), next: next.into() }
    }

    fn bad(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Bad, found: found.into(), next: next.into() }
    }

    fn failed(name: &'static str, failure: Failure) -> Self {
        Self::bad(name, failure.message, failure.hint)
    }
}

impl Doctor {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let mut checks = vec![Check::good("version", env!("CARGO_PKG_VERSION"))];
        let config = match context.load() {
            Ok(loaded) => {
                let sources: Vec<String> = loaded.sources.iter().map(ToString::to_string).collect();
                checks.push(Check::good("configuration", sources.join(" < ")));
                loaded.config
            }
            Err(failure) => {
                checks.push(Check::failed("configuration", failure));
                Config::default()
            }
        };
        checks.extend(unread(&config, names_of_variables()).into_iter().map(|name| {
            let next = "unset it; docs/configuration.md has the names of variables, and a list is set in helix.yaml alone";
            Check::warning("environment", format!("{name} is set, and nothing reads it"), next)
        }));
        checks.push(clock(Timestamp::now()));
        checks.push(
            program(
                "git",
                &["--version"],
                "install git; repositories are read and written without it, but `helix task push` needs it",
            )
            .await,
        );
        checks.push(program("ssh", &["-V"], "install an OpenSSH client to use machines other than this one").await);
        checks.push(worker_program(&config.workers.program));
        match context.folder() {
            Ok(folder) => {
                checks.extend(data_folder(folder.root()));
                if folder.is_open_to_others() {
                    let next = format!("chmod 700 {}", folder.root().display());
                    checks.push(Check::warning("data folder", "other users of this machine may read it", next));
                }
                checks.push(database(&records_url(&config, &folder), folder.root()).await);
                checks.extend(node(&folder, self.models).await);
            }
            Err(failure) => checks.push(Check::failed("data folder", failure)),
        }
        let logins = logins().and_then(|store| store.names().ok()).unwrap_or_default();
        checks.extend(keys(&config.llm, &|name| std::env::var(name).ok(), |name| logins.iter().any(|known| known == name)));
        let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
        context.print(&checks, |checks| render(checks, context.style))?;
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn clock(now: Timestamp) -> Check {
    if now < EARLIEST {
        return Check::bad(
            "clock",
            "this machine's clock is years behind",
            "set it (`timedatectl set-ntp true`); leases do not use it, TLS and records do",
        );
    }
    Check::good("clock", "plausible")
}

async fn program(name: &'static str, arguments: &[&str], next: &str) -> Check {
    let output = tokio::process::Command::new(name).args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(PATIENCE, output).await {
        Ok(Ok(output)) if output.status.success() => {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            Check::good(name, String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
        }
        Ok(Ok(output)) => Check::warning(name, format!("ended with {}", output.status), next),
        Ok(Err(error)) => Check::warning(name, error.to_string(), next),
        Err(_) => Check::warning(name, format!("gave no answer within {} s", PATIENCE.as_secs()), next),
    }
}

fn worker_program(configured: &Path) -> Check {
    let path = if configured.as_os_str().is_empty() {
        match std::env::current_exe() {
            Ok(program) => program.with_file_name("helix-worker"),
            Err(error) => return Check::bad("worker program", error.to_string(), "set workers.program in helix.yaml"),
        }
    } else {
        PathBuf::from(configured)
    };
    match rustix::fs::access(&path, rustix::fs::Access::EXEC_OK) {
        Ok(()) => Check::good("worker program", path.display().to_string()),
        Err(error) => Check::bad(
            "worker program",
            format!("{}: {error}", path.display()),
            "build it (`cargo build -p helix-worker`) beside the helix program, or set workers.program in helix.yaml",
        ),
    }
}

fn data_folder(root: &Path) -> Vec<Check> {
    // A folder that does not exist yet is judged by the nearest one that does.
    let nearest = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let mut checks = vec![match rustix::fs::access(nearest, access) {
        Ok(()) => Check::good("data folder", root.display().to_string()),
        Err(error) => Check::bad(
            "data folder",
            format!("{} cannot be written: {error}", nearest.display()),
            "give another folder with --data, or correct its owner",
        ),
    }];
    checks.push(match rustix::fs::statvfs(nearest) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize) / (1024 * 1024);
            let found = format!("{} free", mebibytes(free));
            if free < LITTLE_DISK_MIB {
                Check::warning(
                    "disk",
                    found,
                    "free some space; nothing is lost when it runs out, but tasks stop at their last step",
                )
            } else {
                Check::good("disk", found)
            }
        }
        Err(error) => Check::warning("disk", format!("free space is not known: {error}"), ""),
    });
    checks
}

/// Whether a node could be started on the records, or goes on with them. Those of a data folder that does not
/// exist yet are made with it.
async fn database(url: &str, root: &Path) -> Check {
    let own = url.strip_prefix("sqlite:").map(Path::new).filter(|path| path.starts_with(root) && !path.exists());
    if let Some(path) = own {
        return Check::good("database", format!("{}, made at the first start", path.display()));
    }
    match helix_database::probe(url).await {
        Ok(()) => Check::good("database", without_password(url)),
        Err(error) => {
            let failure = unreached(error);
            Check::bad("database", format!("{}: {}", without_password(url), failure.message), failure.hint)
        }
    }
}

async fn node(folder: &DataFolder, models: bool) -> Vec<Check> {
    let socket = folder.socket();
    if !socket.exists() {
        let mut checks =
            vec![Check::warning("node", "none runs on this data folder", "`helix up` starts one; `helix run` does so by itself")];
        if models {
            checks.push(Check::warning("model servers", "not asked: a running node asks them", "`helix up`, then this again"));
        }
        return checks;
    }
    let client = match Client::of(folder) {
        Ok(client) => client,
        Err(failure) => return vec![Check::failed("node", failure)],
    };
    let mut checks = Vec::new();
    match client.get::<SystemStatus>("/system/status").await {
        Ok(status) => {
            let found =
                format!("process {}, version {}, records in {}", status.node.pid, status.node.version, status.node.database);
            checks.push(if status.node.version == env!("CARGO_PKG_VERSION") {
                Check::good("node", found)
            } else {
                Check::warning("node", found, "it is of another version than this program: `helix down`, then `helix up`")
            });
            if let Some(failure) = status.records_failure.clone() {
                checks.push(Check::failed("records", failure));
            }
            let ready = status.workers.iter().filter(|view| view.ready).count();
            let found = format!("{ready} of {} ready", status.workers.len());
            checks.push(if ready == 0 {
                Check::warning("workers", found, "`helix worker list` says why, `helix worker add local` adds one")
            } else {
                Check::good("workers", found)
            });
            checks.extend(circuits(&status.circuits, Timestamp::now()));
        }
        Err(failure) if failure.code == Code::NodeUnreachable => {
            checks.push(Check::warning(
                "node",
                format!("{} is there and nobody answers on it", socket.display()),
                "`helix up` takes the socket over",
            ));
        }
        Err(failure) => checks.push(Check::failed("node", failure)),
    }
    if models {
        match client.get::<ProviderList>("/models").await {
            Ok(list) => checks.extend(list.providers.iter().map(|provider| match provider.models.is_empty() {
                true => Check::warning("model server", model_servers::told(provider), "check its address and key"),
                false => Check::good("model server", model_servers::told(provider)),
            })),
            Err(failure) => checks.push(Check::failed("model servers", failure)),
        }
    }
    checks
}

/// Whom the node sends no calls, or asks last, because they failed.
fn circuits(circuits: &[DeploymentCircuit], now: Timestamp) -> Vec<Check> {
    let hint = |circuit: &DeploymentCircuit| circuit.circuit.outage().map(|outage| outage.failure.hint.clone()).unwrap_or_default();
    let check = |circuit: &DeploymentCircuit| Some(Check::warning("circuit", told(circuit, now)?, hint(circuit)));
    let troubled: Vec<Check> = circuits.iter().filter_map(check).collect();
    if troubled.is_empty() { vec![Check::good("circuits", "all closed")] } else { troubled }
}

/// Every provider that a node would have, with what lets it in: a key in the environment, a login, or nothing.
fn keys(models: &ModelsConfig, env: &impl Fn(&str) -> Option<String>, logged_in: impl Fn(&str) -> bool) -> Vec<Check> {
    let check = |(name, provider): (String, ProviderConfig)| {
        let is_set = env(&provider.key_env).is_some_and(|key| !key.trim().is_empty());
        match provider.key_env.as_str() {
            variable if !variable.is_empty() && is_set => Check::good("model key", format!("{name}: {variable} is set")),
            _ if provider.login_place().is_some() && logged_in(&name) => Check::good("model key", format!("{name}: logged in")),
            "" if provider.login_place().is_some() => {
                let next = format!("`helix login {name}`; commands need none");
                Check::warning("model key", format!("{name}: nobody is logged in"), next)
            }
            "" => Check::good("model key", format!("{name} needs none")),
            variable => {
                let next = format!(
                    "export {variable}=… before `helix up`, or name a local server: configs/examples/local-model.yaml; commands need none"
                );
                Check::warning("model key", format!("{name}: {variable} is not set"), next)
            }
        }
    };
    models.all_providers(env).into_iter().map(check).collect()
}

fn render(checks: &[Check], style: Style) -> String {
    let mut out = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Good => style.green("ok     "),
            Verdict::Warning => style.yellow("warning"),
            Verdict::Bad => style.red("FAULT  "),
        };
        out.push_str(&format!("{mark}  {:<15} {}\n", check.name, check.found));
        if !check.next.is_empty() {
            out.push_str(&format!("{:25}{} {}\n", "", style.dim("→"), check.next));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::circuits::tests::{SEEN, circuits};

    #[test]
    fn a_finding_reads_like_this_and_has_a_next_step() {
        let checks = [
            Check::good("git", "git version 2.47.1"),
            Check::warning("ssh", "No such file or directory", "install an OpenSSH client"),
            Check::bad("data folder", "/root cannot be written: Permission denied", "give another folder with --data"),
        ];
        insta::assert_snapshot!(render(&checks, Style::Plain));
    }

    #[test]
    fn a_missing_key_is_a_warning_that_names_the_variable() {
        let found = |set: &str, login: &str| -> Vec<_> {
            let env = |name: &str| (name == set).then(|| "k".to_owned());
            let checks = keys(&ModelsConfig::default(), &env, |name| name == login);
            checks.into_iter().map(|check| (check.verdict, check.found)).collect()
        };
        let (good, missing) = (Verdict::Good, Verdict::Warning);
        assert_eq!(found("", ""), [(missing, "openai: OPENAI_API_KEY is not set".to_owned())]);
        assert_eq!(found("OPENAI_API_KEY", ""), [(good, "openai: OPENAI_API_KEY is set".to_owned())]);
        assert_eq!(found("ANTHROPIC_API_KEY", ""), [(good, "anthropic: ANTHROPIC_API_KEY is set".to_owned())]);
    }

    #[test]
    fn a_login_counts_as_a_key_and_a_server_may_need_none() {
        let text = "llm:\n  providers:\n    local: {base_url: 'http://127.0.0.1:1/v1', key_env: \"\"}\n    \
                    work: {kind: qwen, client_id: c, key_env: \"\"}\n";
        let models = Config::parse(text, "helix.yaml").expect("right").llm;
        let found = |login: &str| keys(&models, &|_| None, |name| name == login).into_iter().map(|check| check.found);
        assert_eq!(found("work").collect::<Vec<_>>(), ["local needs none", "work: logged in"]);
        assert_eq!(found("").collect::<Vec<_>>(), ["local needs none", "work: nobody is logged in"]);
    }

    #[test]
    fn a_circuit_that_is_not_closed_is_a_warning_with_the_failures_next_step() {
        let (closed, troubled) = (&circuits()[..1], circuits());
        assert_eq!(super::circuits(closed, SEEN), [Check::good("circuits", "all closed")]);
        let found = |at: usize| told(&troubled[at], SEEN).expect("it is not closed");
        assert_eq!(
            super::circuits(&troubled, SEEN),
            [Check::warning("circuit", found(1), ""), Check::warning("circuit", found(3), "look at OPENAI_API_KEY")]
        );
    }

    #[test]
    fn a_clock_that_was_never_set_is_a_fault() {
        assert_eq!(clock(Timestamp(0)).verdict, Verdict::Bad);
        assert_eq!(clock(EARLIEST).verdict, Verdict::Good);
    }

    #[test]
    fn a_data_folder_that_does_not_exist_yet_is_judged_by_its_parent() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(data_folder(&parent.path().join("a/b"))[0].verdict, Verdict::Good);
    }
}
