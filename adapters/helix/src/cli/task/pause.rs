//! `helix task pause`

use clap::Args;
use helix_protocol::{Failure, TaskRecord};
use serde_json::json;

use super::{Which, changed};
use crate::cli::Context;

/// Park a task at its next step boundary
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  helix task pause 3f2a91c0

Before that boundary `helix task resume` takes it back.")]
pub(in crate::cli) struct Pause {
    #[command(flatten)]
    which: Which,
}

impl Pause {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let path = self.which.path("pause");
        let task: TaskRecord = context.waiting("waiting for the step boundary", client.post(&path, &json!({}))).await?;
        changed(context, &task)
    }
}
