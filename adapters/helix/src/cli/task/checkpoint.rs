//! `helix task checkpoint`

use clap::Args;
use helix_adapter_http::api::CheckpointRequest;
use helix_protocol::Failure;

use super::Which;
use crate::cli::Context;

/// Name a step, so that it can be gone back to or forked by name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task checkpoint 3f2a91c0 green
  helix task checkpoint 3f2a91c0 before-rewrite --step 4")]
pub(in crate::cli) struct Checkpoint {
    #[command(flatten)]
    which: Which,
    /// The name
    name: String,
    /// A step's number or id [default: the last step]
    #[arg(long)]
    step: Option<String>,
}

impl Checkpoint {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = CheckpointRequest { name: self.name, step: self.step };
        let named: helix_protocol::Checkpoint = context.client()?.post(&self.which.path("checkpoint"), &request).await?;
        context
            .print(&named, |named| format!("step {} of task {} is called {}", named.step.short(), named.task.short(), named.name))
    }
}
