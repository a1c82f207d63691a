//! `helix run`

mod agent;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use helix_adapter_http::api::{AttemptList, CreateTaskRequest, CreatedTasks, default_title};
use helix_messages::{ImportGit, Imported, WorkerView};
use helix_protocol::{
    Base, Budget, Capability, Code, CommandSpec, Criticality, Failure, Isolation, Money, Needs, Network, OnFailure, Priority,
    SkipReason, TaskRecord, TaskSpec, TaskWork,
};
use uuid::Uuid;

use self::agent::Agent;
use super::Context;
use super::amounts::{parse_dollars, parse_duration_ms, parse_mib};
use super::follow::{Followed, Start, conclude, follow, hears};
use super::live::Live;
use super::server;
use super::style::{bytes, grouped};
use super::task::attempts;
use super::typed::Typed;
use crate::client::{Client, Hears, Watch, segment};

/// Most files that are named when they are left out.
const SHOWN: usize = 5;

/// Give an agent, or a command, to a worker and follow it; a node is started where none runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix run \"fix the failing test\" --repo . --verify \"cargo test\"
  helix run \"port this to Python 3.13\" --repo ~/code/tool --attempts 3 --budget-usd 2
  helix run \"explain the build\" --repo . --base-url http://127.0.0.1:11434/v1 --model qwen3
  helix run \"fix the failing test\" --repo . --agent claude-acp
  helix run - --repo . < specification.md
  helix run --command \"cargo build\" --command \"cargo test\" --repo . --needs cargo
  helix run --command \"./train.sh\" --gpus 1 --memory 16G --detach --on-failure keep

The repository's files are copied, uncommitted changes included unless --clean; what is too
large or cannot be read is named. Your checkout is never written to.
What a command writes is shown while it runs; with --json the events alone. At a terminal the words of an
agent's model are shown as they come; elsewhere with --words. Ctrl-C leaves the task running; `helix attach` comes back to it. The exit code is 10 where the task fails.")]
pub(super) struct Run {
    /// What the agent shall do; `-` reads it from standard input
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    prompt: Option<String>,
    /// A shell command instead of an agent; several run one after another, each as one step
    #[arg(long, value_name = "CMD")]
    command: Vec<String>,
    /// The git repository to work on; without it the workspace is empty
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Take the last commit only, without uncommitted changes
    #[arg(long, requires = "repo")]
    clean: bool,
    /// Return at once instead of following
    #[arg(long, short)]
    detach: bool,
    /// Show what the agent's model says as it comes, although standard output is no terminal
    #[arg(long, conflicts_with_all = ["command", "detach", "attempts"])]
    words: bool,
    /// How often the work is attempted, side by side; the best attempt's files are taken
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    attempts: u32,
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    placing: Placing,
    #[command(flatten)]
    sandbox: Sandbox,
    #[command(flatten)]
    limits: Limits,
    /// A line for listings [default: the beginning of the prompt or command]
    #[arg(long)]
    title: Option<String>,
    /// Globs of files that a command task keeps as artifacts
    #[arg(long, value_name = "GLOB", requires = "command")]
    artifact: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where and when")]
struct Placing {
    /// Only this worker, by name or id
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    worker: Option<String>,
    /// What a worker must have, for example docker, python3, aarch64
    #[arg(long, value_name = "CAPABILITY")]
    needs: Vec<Capability>,
    /// Free cores that a worker must have; they are the task's while it runs
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    cores: u32,
    /// Free memory, for example 512M, 8G
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = parse_mib)]
    memory: u64,
    /// Free disk where workspaces are, for example 20G
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = parse_mib)]
    disk: u64,
    /// Free GPUs
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    gpus: u32,
    /// Which of two waiting tasks goes first
    #[arg(long, value_enum, default_value_t = Urgency::Normal)]
    priority: Urgency,
    /// Which of two tasks that lost their worker is resumed first
    #[arg(long, value_enum, default_value_t = Weight::Normal)]
    criticality: Weight,
    /// Tasks that must complete first
    #[arg(long, value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    after: Vec<String>,
    /// Begin with the files of this task's last step; it must complete first
    #[arg(long, value_name = "TASK", conflicts_with = "repo", value_parser = NonEmptyStringValueParser::new())]
    on: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
struct Sandbox {
    /// What commands may do on their machine: read-only, workspace, or full for no sandbox [default: tasks.isolation]
    #[arg(long, value_name = "LEVEL")]
    isolation: Option<Isolation>,
    /// Whether commands may use the network: none or host [default: tasks.network; of --command, tasks.command_network]
    #[arg(long, value_name = "GRANT")]
    network: Option<Network>,
    /// A folder outside the workspace that commands may write too, such as ~/.cargo on the worker
    #[arg(long, value_name = "PATH")]
    writable: Vec<String>,
    /// Let commands have a secret that the repository's helix.project.yaml names, by its variable [default: those of tasks.secrets]
    #[arg(long, value_name = "VARIABLE", requires = "repo")]
    secret: Vec<String>,
    /// Run commands without a sandbox, as the worker's user, with the network
    #[arg(long, conflicts_with_all = ["isolation", "network", "writable"])]
    unsandboxed: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Most that may be spent, in US dollars; then the task parks and asks. Attempts and sub-agents get shares of it
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    budget_usd: Option<Money>,
    /// Most tokens, in and out together
    #[arg(long, value_name = "N")]
    budget_tokens: Option<u64>,
    /// Longest time of running, for example 90s, 30m, 12h
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    timeout: Option<u64>,
    /// How often a step is tried again that could not be made: a model or a tool failed, or the disk was full. A command's own
    /// exit code is its answer, and is not
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// What becomes of the files of a failed step
    #[arg(long, value_enum, default_value_t = Leftovers::Rollback)]
    on_failure: Leftovers,
}

/// The prompt, of which a command line holds 128 KiB at most: more of it, or a file, comes by standard input.
fn whole_prompt(prompt: String, mut input: impl Read) -> Result<String, Failure> {
    if prompt != "-" {
        return Ok(prompt);
    }
    let mut read = String::new();
    input.read_to_string(&mut read).map_err(|error| Failure::io("standard input", &error))?;
    if read.trim().is_empty() {
        return Err(Failure::new(Code::InvalidRequest, "the prompt is to come from standard input, and there is nothing")
            .hint("give it a file, helix run - < prompt.md, or write the prompt on the command line"));
    }
    Ok(read)
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Urgency {
    Low,
    Normal,
    High,
    Urgent,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Weight {
    Low,
    Normal,
    High,
    Critical,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Leftovers {
    /// Back to the last step
    Rollback,
    /// They become a step
    Keep,
    /// They become a step of another attempt
    Fork,
}

impl Run {
    pub async fn run(mut self, context: &Context) -> Result<ExitCode, Failure> {
        let client = match &self.agent.base_url {
            Some(url) => {
                let client = context.client_or_start_with(server::variables(url)?).await?;
                self.agent.provider = Some(server::provider(&client, url).await?);
                client
            }
            None => context.client_or_start().await?,
        };
        let (detach, several) = (self.detach, self.attempts > 1);
        let hears = if several { Hears::Events } else { hears(self.words) };
        let request = self.request(&client).await?;
        // Watching begins before the task exists, so its first event is seen.
        let mut watch = if detach { None } else { Some(Watch::open_hearing(&client, None, None, hears).await?) };
        let key = Uuid::now_v7().to_string();
        let made = client.post_once("/tasks", &key, &request);
        let created: CreatedTasks = context.waiting("taking the repository in", made).await?;
        introduce(context, &created);
        let Some(watch) = watch.as_mut() else {
            context.print(&created, |_| String::new())?;
            return Ok(ExitCode::SUCCESS);
        };
        let ids: Vec<_> = created.tasks.iter().map(|task| task.id).collect();
        // Of several attempts none is meant.
        let typed = if several { None } else { Typed::at_terminal() };
        // A program that reads the events has `helix task log --follow --json`.
        let streams = matches!(created.tasks.as_slice(), [one] if matches!(one.spec.work, TaskWork::Command(_))) && !context.json();
        let live = ids.first().filter(|_| streams).map(|task| Live::new(context, &client, *task));
        match follow(context, &client, watch, &ids, Start::Now, typed, live).await? {
            Followed::Ended(ended) => {
                if several {
                    compare(context, &client, &ended).await?;
                }
                conclude(context, &ended)?;
            }
            Followed::Left => {
                let short = created.tasks.first().map(|task| task.id.short()).unwrap_or_default();
                context.say(&format!(
                    "\ndetached; the task goes on. `helix attach {short}` comes back to it, `helix task cancel {short}` ends it"
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn request(self, client: &Client) -> Result<CreateTaskRequest, Failure> {
        let prompt = self.prompt.map(|prompt| whole_prompt(prompt, std::io::stdin())).transpose()?;
        let work = match prompt {
            Some(prompt) => self.agent.work(prompt),
            None => TaskWork::Command(CommandSpec { commands: self.command, artifacts: self.artifact }),
        };
        let mut spec = TaskSpec::new(self.title.unwrap_or_else(|| default_title(&work)), work);
        if let Some(task) = &self.placing.on {
            spec.base = Base::Task { task: client.get::<TaskRecord>(&format!("/tasks/{}", segment(task))).await?.id };
        }
        for task in &self.placing.after {
            spec.depends_on.push(client.get::<TaskRecord>(&format!("/tasks/{}", segment(task))).await?.id);
        }
        let worker = match &self.placing.worker {
            Some(name) => Some(client.get::<WorkerView>(&format!("/workers/{}", segment(name))).await?.record.id),
            None => None,
        };
        let Placing { needs, cores, memory, disk, gpus, priority, criticality, .. } = self.placing;
        spec.needs = Needs { capabilities: needs, cores, memory_mib: memory, disk_mib: disk, gpus, worker };
        let Sandbox { isolation, network, writable, secret, unsandboxed } = self.sandbox;
        spec.environment.isolation = if unsandboxed { Some(Isolation::Full) } else { isolation };
        spec.environment.network = network;
        spec.environment.writable = writable;
        spec.priority = match priority {
            Urgency::Low => Priority::Low,
            Urgency::Normal => Priority::Normal,
            Urgency::High => Priority::High,
            Urgency::Urgent => Priority::Urgent,
        };
        spec.criticality = match criticality {
            Weight::Low => Criticality::Low,
            Weight::Normal => Criticality::Normal,
            Weight::High => Criticality::High,
            Weight::Critical => Criticality::Critical,
        };
        spec.on_failure = match self.limits.on_failure {
            Leftovers::Rollback => OnFailure::Rollback,
            Leftovers::Keep => OnFailure::Keep,
            Leftovers::Fork => OnFailure::Fork,
        };
        spec.budget = Budget { money: self.limits.budget_usd, tokens: self.limits.budget_tokens };
        spec.timeout_ms = self.limits.timeout;
        spec.max_retries = self.limits.retries;
        let import = match &self.repo {
            Some(path) => Some(ImportGit { path: whole_path(path)?, clean: self.clean }),
            None => None,
        };
        Ok(CreateTaskRequest { spec, import, attempts: self.attempts, secrets: secret })
    }
}

/// What the attempts came to.
async fn compare(context: &Context, client: &Client, ended: &[TaskRecord]) -> Result<(), Failure> {
    for task in ended {
        let list: AttemptList = client.get(&format!("/tasks/{}/attempts", task.id)).await?;
        context.say(&format!("\n{}", attempts(&list, context.style).trim_end()));
    }
    Ok(())
}

/// The node has another working folder than this command.
fn whole_path(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Code::InvalidRequest, format!("--repo names {}, which does not exist", path.display()))
                .hint("name a folder of a git repository on this machine")
        }
        _ => Failure::io(path.display(), &error),
    })
}

fn introduce(context: &Context, created: &CreatedTasks) {
    if let Some(imported) = &created.imported {
        let changes = match imported.uncommitted {
            0 => String::new(),
            1 => ", 1 file with uncommitted changes".to_owned(),
            several => format!(", {} files with uncommitted changes", grouped(several)),
        };
        context.say(&format!(
            "took {} in: {} {}, {}{changes}",
            imported.repository.display(),
            grouped(imported.files),
            if imported.files == 1 { "file" } else { "files" },
            bytes(imported.bytes)
        ));
        left_out(context, imported);
    }
    for task in &created.tasks {
        context.say(&format!("task {}  {}", task.id.short(), task.spec.title));
    }
    if let Some(task) = created.tasks.first() {
        let environment = &task.spec.environment;
        context.say(&format!("sandbox: {}", environment.sandbox()));
        for secret in &environment.secrets {
            context.say(&format!("secret: {secret}"));
        }
    }
}

/// What of a working folder did not come along, and what to do about it.
fn left_out(context: &Context, imported: &Imported) {
    for file in imported.skipped.iter().take(SHOWN) {
        context.say(&format!("left out: {file}"));
    }
    for path in imported.submodules.iter().take(SHOWN) {
        context.say(&format!("left out: {path} (a repository of its own)"));
    }
    let more = imported.skipped.len().saturating_sub(SHOWN) + imported.submodules.len().saturating_sub(SHOWN);
    if more > 0 {
        context.say(&format!("left out: {} more; --json lists them", grouped(more as u64)));
    }
    if imported.skipped.iter().any(|file| file.reason == SkipReason::TooLarge) {
        context.say("`workspace.file_cap_bytes` says how large a file may be");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_the_prompt_that_comes_by_standard_input_and_nothing_is_no_prompt() {
        assert_eq!(whole_prompt("fix it".to_owned(), &b"unread"[..]), Ok("fix it".to_owned()));
        assert_eq!(whole_prompt("-".to_owned(), &b"line\nline\n"[..]), Ok("line\nline\n".to_owned()));
        for nothing in [&b" \n"[..], b"\xff"] {
            assert!(whole_prompt("-".to_owned(), nothing).is_err());
        }
    }
}
