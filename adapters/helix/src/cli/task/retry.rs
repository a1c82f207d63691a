//! `helix task retry`

use clap::Args;
use helix_messages::RetryTask;
use helix_protocol::{Failure, TaskRecord};

use super::{NewBudget, Which, changed};
use crate::cli::Context;

/// Try an ended task again from its last step
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  helix task retry 3f2a91c0\n  helix task retry 3f2a91c0 --budget 5")]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    budget: NewBudget,
}

impl Retry {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let task: TaskRecord = client.get(&self.which.path("")).await?;
        let with = RetryTask { budget: self.budget.over(task.spec.budget) };
        changed(context, &client.post(&self.which.path("retry"), &with).await?)
    }
}
