//! Who works on a task of `helix run "PROMPT"`: Helix' own agent, or one that the person already has.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use helix_protocol::{AgentProgram, AgentSpec, Approval, Effort, ExternalSpec, ModelTraffic, Reasoning, TaskWork, Thinking};

#[derive(Debug, Args)]
#[command(next_help_heading = "Agent")]
pub(super) struct Agent {
    /// An agent that you already have instead of Helix' own, by its name in docs/agents.md or helix.yaml, for
    /// example claude-acp, codex
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
    pub provider: Option<String>,
    /// A model server that speaks the OpenAI format, /v1 included, instead of a configured one. Without OPENAI_API_KEY it is
    /// taken to need no key
    #[arg(long, value_name = "URL", conflicts_with_all = ["command", "provider"], requires = "model")]
    pub base_url: Option<String>,
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
    /// What a task for it is made of.
    pub fn work(self, prompt: String) -> TaskWork {
        if self.external.is_some() || self.agent_command.is_some() {
            return TaskWork::External(self.external(prompt));
        }
        TaskWork::Agent(AgentSpec {
            prompt,
            model: self.model,
            provider: self.provider,
            max_steps: self.max_steps,
            verify: self.verify,
            reasoning: self.reasoning.unwrap_or_default(),
            thinking: self.thinking.unwrap_or_default(),
            approval: self.approval.into(),
            web_hosts: self.web_host,
            sub_agents: self.sub_agents,
        })
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

/// Variables of an agent that nobody knows: a home in the workspace, so that its session is committed, and the gateway under the
/// names that most clients read.
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
