//! `helix attach`

use std::process::ExitCode;

use clap::Args;
use helix_protocol::{Failure, TaskRecord};

use super::Context;
use super::follow::{Followed, Start, conclude, follow, hears};
use super::typed::Typed;
use crate::client::{Watch, segment};

/// Watch the timeline live: of one task with its history, or of everything from now on; steer an agent by typing lines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix attach                 everything, from now on
  helix attach 3f2a91c0        one task from its beginning until its end
  helix attach --json          one event on a line
  helix attach 3f2a91c0 --json --words    pieces of what its model says as well (model.said), as they come
  tail -f notes | helix attach 3f2a91c0 --stdin

At a terminal the words of an agent's model are shown as they come; elsewhere with --words.

A line that you type while you watch one agent is said to it, or answers the question it asks; it reads it at its next turn.

Times are UTC. Ctrl-C leaves; tasks go on.")]
pub(super) struct Attach {
    /// The task; its last digits suffice
    task: Option<String>,
    /// Take lines from standard input although it is no terminal
    #[arg(long, requires = "task")]
    stdin: bool,
    /// Show what the agent's model says as it comes, although standard output is no terminal
    #[arg(long, requires = "task")]
    words: bool,
}

impl Attach {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.client()?;
        let followed = match &self.task {
            Some(text) => {
                let task: TaskRecord = client.get(&format!("/tasks/{}", segment(text))).await?;
                let mut watch = Watch::open_hearing(&client, Some(&task.id.to_string()), Some(0), hears(self.words)).await?;
                let typed = if self.stdin { Some(Typed::from_stdin()) } else { Typed::at_terminal() };
                follow(context, &client, &mut watch, &[task.id], Start::Beginning, typed, None).await?
            }
            None => {
                let mut watch = Watch::open(&client, None, None).await?;
                follow(context, &client, &mut watch, &[], Start::Now, None, None).await?
            }
        };
        match followed {
            Followed::Ended(ended) => conclude(context, &ended)?,
            Followed::Left => context.say("left; tasks go on"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
