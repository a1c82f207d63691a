//! `helix task fork`

use clap::Args;
use helix_adapter_http::api::ForkRequest;
use helix_protocol::{Failure, TaskRecord};

use super::Which;
use crate::cli::Context;

/// Go on from any past step as another task: files and conversation together
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task fork 3f2a91c0 --step 4
  helix task fork 3f2a91c0 --step 4 --prompt \"try it without the new dependency\"
  helix task fork 3f2a91c0 --max-steps 200      an agent that had reached its limit goes on")]
pub(in crate::cli) struct Fork {
    #[command(flatten)]
    which: Which,
    /// A step's number, id or checkpoint [default: the last step]
    #[arg(long)]
    step: Option<String>,
    /// What to say after the step's conversation [default: nothing, it goes on as before]
    #[arg(long)]
    prompt: Option<String>,
    /// A line for listings [default: the original's]
    #[arg(long)]
    title: Option<String>,
    /// Most steps of an agent, those it goes on from counted [default: the original's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_steps: Option<u32>,
}

impl Fork {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = ForkRequest { step: self.step, prompt: self.prompt, title: self.title, max_steps: self.max_steps };
        let task: TaskRecord = context.client()?.post(&self.which.path("fork"), &request).await?;
        context.print(&task, |task| {
            let short = task.id.short();
            format!("task {} goes on from there; `helix attach {short}` watches it", context.style.bold(&short))
        })
    }
}
