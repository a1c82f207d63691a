//! `helix task say`

use clap::Args;
use helix_adapter_http::api::SayRequest;
use helix_protocol::{Code, Failure, RemarkId, TaskRecord, TaskStatus};

use super::Which;
use crate::cli::Context;
use crate::client::Client;

/// Tell a running agent something; it reads it at its next turn
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task say 3f2a91c0 \"leave the tests as they are\"
  helix attach 3f2a91c0                   the same, by typing lines

What is said is recorded at once and read by one turn, whatever dies meanwhile. A task does not complete before it was read.")]
pub(in crate::cli) struct Say {
    #[command(flatten)]
    which: Which,
    /// What to say
    text: String,
}

impl Say {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let task = tell(&client, &self.which.path("say"), &self.text).await?;
        let when = match task.status {
            TaskStatus::Paused => "it reads that when it is resumed",
            TaskStatus::WaitingForInput => "it reads that with the answer to its question",
            _ => "it reads that at its next turn",
        };
        context.print(&task, |task| format!("told task {}; {when}", context.style.bold(task.id.short())))
    }
}

/// Says `text` to the task behind `path`. An answer that was lost is asked for again: said twice under one id is said once.
pub(in crate::cli) async fn tell(client: &Client, path: &str, text: &str) -> Result<TaskRecord, Failure> {
    let said = SayRequest { text: text.to_owned(), id: Some(RemarkId::new()) };
    match client.post(path, &said).await {
        Err(failure) if failure.code == Code::NodeUnreachable => client.post(path, &said).await,
        answer => answer,
    }
}
