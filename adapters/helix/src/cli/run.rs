//! `helix run`

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use helix_adapter_http::api::{AttemptList, CreateTaskRequest, CreatedTasks, default_title};
use helix_messages::{ImportGit, WorkerView};
use helix_protocol::{
    AgentProgram, AgentSpec, Approval, Base, Budget, Capability, Code, CommandSpec, Criticality, Effort, ExternalSpec, Failure,
    Isolation, ModelTraffic, Money, Needs, Network, OnFailure, Priority, Reasoning, TaskRecord, TaskSpec, TaskWork, Thinking,
};
use uuid::Uuid;

use super::Context;
use super::follow::{Followed, Start, conclude, follow};
use super::server;
use super::style::{bytes, grouped};
use super::task::attempts;
use super::typed::Typed;
use crate::client::{Client, Watch, segment};

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

The repository's files are copied, uncommitted changes included unless --clean; your checkout is never written to.
Ctrl-C leaves the task running; `helix attach` comes back to it. The exit code is 10 where the task fails.")]
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
#[command(next_help_heading = "Agent")]
struct Agent {
    /// An agent that you already have instead of Helix' own, by its name in docs/agents.md or helix.yaml, for example claude-acp, codex
    #[arg(long = "agent", value_name = "NAME", conflicts_with_all = ["command", "reasoning", "thinking", "web_host", "sub_agents"])]
    external: Option<String>,
    /// The same for any agent that speaks the Agent Client Protocol on its standard input and output, by its command line
    #[arg(long, value_name = "CMD", conflicts_with_all = ["command", "external", "reasoning", "thinking", "web_host", "sub_agents"])]
    agent_command: Option<String>,
    /// That agent calls its model with keys of its own, which Helix does not see: no budget holds. It needs --network host
    #[arg(long, conflicts_with = "command")]
    own_models: bool,
    /// The model, as its provider knows it [default: llm.providers.NAME.model]
    #[arg(long, conflicts_with = "command")]
    model: Option<String>,
    /// The provider's name in helix.yaml [default: llm.default_provider]
    #[arg(long, conflicts_with = "command")]
    provider: Option<String>,
    /// A model server that speaks the OpenAI format, /v1 included, instead of a configured one. Without OPENAI_API_KEY it is
    /// taken to need no key
    #[arg(long, value_name = "URL", conflicts_with_all = ["command", "provider"], requires = "model")]
    base_url: Option<String>,
    /// A command that must succeed before the agent's "done" is believed
    #[arg(long, value_name = "CMD", conflicts_with = "command")]
    verify: Option<String>,
    /// Most steps
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "command")]
    max_steps: u32,
    /// How it comes to its answer: direct, chain-of-thought, reflection[:ROUNDS], progressive[:EVERY], tree[:BRANCHES]
    #[arg(long, value_name = "MODE", value_parser = parse_reasoning, conflicts_with = "command")]
    reasoning: Option<Reasoning>,
    /// How long the model thinks: off, detect, adaptive, a number of tokens, or minimal, low, medium, high, xhigh, max
    #[arg(long, value_name = "HOW", value_parser = parse_thinking, conflicts_with = "command")]
    thinking: Option<Thinking>,
    /// What it may do without asking
    #[arg(long, value_enum, default_value_t = Policy::Full, conflicts_with = "command")]
    approval: Policy,
    /// A host it may fetch pages from, for example docs.rs or *.python.org; without any it has no tools for the web
    #[arg(long, value_name = "HOST", conflicts_with = "command")]
    web_host: Vec<String>,
    /// How many tasks of its own it may make
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "command", value_parser = clap::value_parser!(u32).range(0..=16))]
    sub_agents: u32,
}

/// What an agent is called that is given by its command line.
const UNNAMED: &str = "acp";

impl Agent {
    fn is_external(&self) -> bool {
        self.external.is_some() || self.agent_command.is_some()
    }

    /// The work of an agent that is not ours.
    fn external(self, prompt: String) -> ExternalSpec {
        let model = match (self.provider, self.model) {
            (Some(provider), Some(model)) => Some(format!("{provider}/{model}")),
            (Some(provider), None) => Some(provider),
            (None, model) => model,
        };
        let program =
            self.agent_command.map(|command| AgentProgram { command, environment: everywhere(), ..AgentProgram::default() });
        ExternalSpec {
            model,
            max_steps: self.max_steps,
            verify: self.verify,
            approval: self.approval.into(),
            program,
            models: if self.own_models { ModelTraffic::Own } else { ModelTraffic::Gateway },
            ..ExternalSpec::new(self.external.unwrap_or_else(|| UNNAMED.to_owned()), prompt)
        }
    }
}

/// Variables of an agent that nobody knows: a home in the workspace, so that its session is committed, and the gateway under the names
/// that most clients read.
fn everywhere() -> BTreeMap<String, String> {
    let pairs = [
        ("HOME", "{session}/home"),
        ("CARGO_HOME", "{home}/.cargo"),
        ("RUSTUP_HOME", "{home}/.rustup"),
        ("OPENAI_BASE_URL", "{gateway}/v1"),
        ("OPENAI_API_KEY", "{key}"),
        ("ANTHROPIC_BASE_URL", "{gateway}"),
        ("ANTHROPIC_API_KEY", "{key}"),
        ("GOOGLE_GEMINI_BASE_URL", "{gateway}"),
        ("GEMINI_API_KEY", "{key}"),
        ("HELIX_MODEL", "{model}"),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// It looks; every change of a file and every command is asked for
    Suggest,
    /// It writes files; every command is asked for
    AutoEdit,
    /// It asks for nothing
    Full,
}

impl From<Policy> for Approval {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Suggest => Self::Suggest,
            Policy::AutoEdit => Self::AutoEdit,
            Policy::Full => Self::Full,
        }
    }
}

fn parse_reasoning(text: &str) -> Result<Reasoning, String> {
    let (mode, number) = text.split_once(':').map_or((text, None), |(mode, number)| (mode, Some(number)));
    let number = number.map(|number| number.parse::<u32>().map_err(|_| format!("{number:?} is not a number"))).transpose()?;
    Ok(match mode {
        "direct" => Reasoning::Direct,
        "chain-of-thought" => Reasoning::ChainOfThought,
        "reflection" => Reasoning::Reflection { rounds: number.unwrap_or(2) },
        "progressive" => Reasoning::Progressive { every: number.unwrap_or(10) },
        "tree" => Reasoning::TreeOfThoughts { branches: number.unwrap_or(3) },
        _ => return Err("one of direct, chain-of-thought, reflection, progressive, tree".to_owned()),
    })
}

fn parse_thinking(text: &str) -> Result<Thinking, String> {
    Ok(match text {
        "off" => Thinking::Off,
        "detect" => Thinking::Detect,
        "adaptive" => Thinking::Adaptive,
        "minimal" => Thinking::Effort(Effort::Minimal),
        "low" => Thinking::Effort(Effort::Low),
        "medium" => Thinking::Effort(Effort::Medium),
        "high" => Thinking::Effort(Effort::High),
        "xhigh" => Thinking::Effort(Effort::Xhigh),
        "max" => Thinking::Effort(Effort::Max),
        number => {
            Thinking::Budget(number.parse().map_err(|_| "off, detect, adaptive, a number of tokens, or an effort".to_owned())?)
        }
    })
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where and when")]
struct Placing {
    /// Only this worker, by name or id
    #[arg(long, value_name = "NAME")]
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
    #[arg(long, value_name = "TASK")]
    after: Vec<String>,
    /// Begin with the files of this task's last step; it must complete first
    #[arg(long, value_name = "TASK", conflicts_with = "repo")]
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
    /// Run commands without a sandbox, as the worker's user, with the network
    #[arg(long, conflicts_with_all = ["isolation", "network", "writable"])]
    unsandboxed: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Most that may be spent, in US dollars; then the task parks and asks
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    budget_usd: Option<Money>,
    /// Most tokens, in and out together
    #[arg(long, value_name = "N")]
    budget_tokens: Option<u64>,
    /// Longest time of running, for example 90s, 30m, 12h
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    timeout: Option<u64>,
    /// How often a failed step is tried again
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
                let client = context.client_or_start_with(server::variables(url)).await?;
                self.agent.provider = Some(server::provider(&client, url).await?);
                client
            }
            None => context.client_or_start().await?,
        };
        let (detach, several) = (self.detach, self.attempts > 1);
        let request = self.request(&client).await?;
        // Watching begins before the task exists, so its first event is seen.
        let mut watch = if detach { None } else { Some(Watch::open(&client, None, None).await?) };
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
        match follow(context, &client, watch, &ids, Start::Now, typed).await? {
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
            Some(prompt) if self.agent.is_external() => TaskWork::External(self.agent.external(prompt)),
            Some(prompt) => TaskWork::Agent(AgentSpec {
                prompt,
                model: self.agent.model,
                provider: self.agent.provider,
                max_steps: self.agent.max_steps,
                verify: self.agent.verify,
                reasoning: self.agent.reasoning.unwrap_or_default(),
                thinking: self.agent.thinking.unwrap_or_default(),
                approval: self.agent.approval.into(),
                web_hosts: self.agent.web_host,
                sub_agents: self.agent.sub_agents,
            }),
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
        let Sandbox { isolation, network, writable, unsandboxed } = self.sandbox;
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
        Ok(CreateTaskRequest { spec, import, attempts: self.attempts })
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
    }
    for task in &created.tasks {
        context.say(&format!("task {}  {}", task.id.short(), task.spec.title));
    }
    if let Some(task) = created.tasks.first() {
        context.say(&format!("sandbox: {}", task.spec.environment.sandbox()));
    }
}

pub(super) fn parse_dollars(text: &str) -> Result<Money, String> {
    let dollars: f64 =
        text.trim_start_matches('$').parse().map_err(|_| "an amount of US dollars is expected, for example 1.50".to_owned())?;
    if !(0.0..=1e9).contains(&dollars) {
        return Err("an amount from 0 to a billion US dollars is expected".to_owned());
    }
    #[allow(clippy::cast_possible_truncation)]
    Ok(Money((dollars * 1e6).round() as i64))
}

/// A size in MiB.
fn parse_mib(text: &str) -> Result<u64, String> {
    let wanted = || "a size in M, G or T is expected, for example 512M or 8G".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale = match unit {
        "" if text == "0" => 1,
        "M" | "MiB" => 1,
        "G" | "GiB" => 1024,
        "T" | "TiB" => 1024 * 1024,
        _ => return Err(wanted()),
    };
    let number: u64 = digits.parse().map_err(|_| wanted())?;
    number.checked_mul(scale).ok_or_else(wanted)
}

pub(super) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a number with s, m, h or d is expected, for example 30m".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "a number with s, m, h or d is expected, for example 30m".to_owned())?;
    number.checked_mul(scale).filter(|ms| *ms > 0).ok_or_else(|| "a time above zero is expected".to_owned())
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

    #[test]
    fn money_sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_dollars("$1.50"), Ok(Money(1_500_000)));
        assert_eq!(parse_dollars("0.000001"), Ok(Money(1)));
        for wrong in ["", "-1", "nan", "inf", "a"] {
            assert!(parse_dollars(wrong).is_err(), "{wrong}");
        }
        assert_eq!(["90s", "30m", "12h", "250ms", "5"].map(parse_duration_ms), [90_000, 1_800_000, 43_200_000, 250, 5_000].map(Ok));
        assert_eq!(["512M", "8G", "2GiB", "1T", "0"].map(parse_mib), [512, 8_192, 2_048, 1_048_576, 0].map(Ok));
        for wrong in ["", "512", "G", "8K", "-1G", "18446744073709551615T"] {
            assert!(parse_mib(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0s", "m", "1y", "99999999999999999999d", "184467440737095516h"] {
            assert!(parse_duration_ms(wrong).is_err(), "{wrong}");
        }
    }
}
