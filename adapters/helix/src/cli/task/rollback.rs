//! `helix task rollback`

use clap::{ArgGroup, Args};
use helix_adapter_http::api::RollbackRequest;
use helix_protocol::{Failure, TaskRecord, TaskStatus};

use super::Which;
use crate::cli::Context;

/// Move a task back to one of its steps, files and conversation; it must not be running
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("to").required(true).args(["step", "named"])), after_help = "\
Examples:
  helix task pause 3f2a91c0 && helix task rollback 3f2a91c0 4 && helix task resume 3f2a91c0
  helix task rollback 3f2a91c0 green

The steps behind it are kept: `helix task steps --all` lists them, `helix task fork` goes on from any of them.")]
pub(in crate::cli) struct Rollback {
    #[command(flatten)]
    which: Which,
    /// A step's number, id or checkpoint
    step: Option<String>,
    /// The same, as `helix task fork` takes it
    #[arg(long = "step", value_name = "STEP")]
    named: Option<String>,
}

impl Rollback {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let step = self.step.or(self.named).unwrap_or_default();
        let task: TaskRecord = context.client()?.post(&self.which.path("rollback"), &RollbackRequest { step }).await?;
        context.print(&task, |task| {
            let (short, steps) = (task.id.short(), task.steps);
            let next = match task.status {
                TaskStatus::Completed => format!("`helix task fork {short}` goes on from there"),
                TaskStatus::Failed | TaskStatus::Cancelled => format!("`helix task retry {short}` goes on from there"),
                _ => format!("`helix task resume {short}` goes on from there"),
            };
            format!("task {} is back at step {steps}, {}; {next}", context.style.bold(&short), context.style.status(task.status))
        })
    }
}
