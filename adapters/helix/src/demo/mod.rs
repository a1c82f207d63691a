//! `helix demo`: two agents lose their worker in the middle of the work and go on elsewhere.
//!
//! Everything is real but the model (unless one is named): the repository and its tests, the node, the workers, the kill. The demo
//! speaks to its node as any client does, and keeps its own account of what was acknowledged.

mod account;
mod play;
mod repository;
mod stage;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use helix_protocol::{Code, Failure};

use crate::cli::style::Style;
use crate::cli::{Context, harmless};

pub use account::{Account, Figures, Verdict};

use play::Play;
use stage::{Keep, Stage};

/// Watch two agents lose their worker in the middle of the work and go on without losing a step
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  helix demo                                  about a minute, no key needed: the model is scripted
  helix demo --kill ask                       holds the agents, prints the process ids and lets you do the killing
  helix demo --model gpt-5-mini               the same with a real model (OPENAI_API_KEY)
  helix demo --model qwen3 --base-url http://127.0.0.1:11434/v1
  helix demo --repo . --model gpt-5-mini --prompt 'add tests for the parser' --prompt 'fix the typos in the docs'

Your checkout is never written to: the result is a branch.")]
pub struct Demo {
    /// Work on this git repository instead of the sample program
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Let the agents' commands have a secret that its helix.project.yaml names, by its variable
    #[arg(long, value_name = "VARIABLE", requires = "repo")]
    secret: Vec<String>,
    /// Who kills the worker
    #[arg(long, value_enum, default_value_t = Killer::Auto)]
    kill: Killer,
    /// Use a real model, by its provider's name for it
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The OpenAI-compatible server of that model, `/v1` included
    #[arg(long, value_name = "URL", requires = "model")]
    base_url: Option<String>,
    /// What to ask of each agent (once or twice); with a real model only
    #[arg(long, value_name = "TEXT", requires = "model", num_args = 1)]
    prompt: Vec<String>,
    /// Keep the demo's folder for looking around
    #[arg(long)]
    keep: bool,
}

/// Who kills the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Killer {
    /// The demo, in the middle of a step.
    Auto,
    /// The person: the scripted agents are held in their work until a worker is gone or Enter is pressed.
    Ask,
}

impl Demo {
    /// Plays it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.prompt.len() > 2 {
            return Err(Failure::new(Code::InvalidRequest, "--prompt may be given at most twice: the demo has two agents"));
        }
        if let Some(repository) = &self.repo {
            repository::check(repository)?;
        }
        let keep = if self.keep { Keep::Everything } else { Keep::Nothing };
        let json = context.json();
        tell(&format!(
            "helix demo: a node (SQLite + RocksDB) and three workers on this machine, in a temporary folder.\n{}",
            match &self.model {
                None => "The model is scripted: it says what a transcript holds. Files, commands, tests and the kill are real.",
                Some(_) => "The model is a real one: it may cost money, and takes as long as it takes.",
            }
        ));
        let stage = Stage::set(&self).await?;
        if stage.model.is_some() {
            tell(&format!(
                "Its transcript is {} (with --keep it stays), in the source adapters/helix/transcripts/demo.yaml.",
                stage.transcript().display()
            ));
        }
        let folder = stage.folder.clone();
        let played = {
            let mut play = Play::new(&self, &stage, context.style);
            tokio::select! {
                played = play.perform() => played,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Code::Cancelled, "the demo was interrupted")),
            }
        };
        let left = stage.leave(keep).await;
        let ending = played?;
        left?;
        if json {
            let text = serde_json::to_string(&ending.figures).expect("figures are numbers and texts");
            crate::cli::out(&format!("{text}\n"))?;
        } else {
            context.show(&ending.text)?;
        }
        if keep == Keep::Everything {
            tell(&format!("kept: {}", folder.display()));
        }
        ending.figures.judge(self.kill)
    }
}

/// Says something on standard error, so that standard output holds the result alone.
fn tell(text: &str) {
    eprintln!("{}", harmless(text, Style::Coloured));
}
