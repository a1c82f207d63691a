//! `helix task cancel`

use clap::Args;
use helix_protocol::{Failure, TaskRecord};
use serde_json::json;

use super::{Which, changed};
use crate::cli::Context;

/// Give a task up: what runs is stopped; its steps stay
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  helix task cancel 3f2a91c0")]
pub(in crate::cli) struct Cancel {
    #[command(flatten)]
    which: Which,
}

impl Cancel {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let path = self.which.path("cancel");
        let task: TaskRecord = context.waiting("stopping it", client.post(&path, &json!({}))).await?;
        changed(context, &task)
    }
}
