//! `helix task rebase`

use clap::Args;
use helix_adapter_http::api::{RebaseRequest, RebasedTask};
use helix_protocol::Failure;

use super::Which;
use crate::cli::Context;
use crate::cli::style::Style;

/// Carry a task's work onto the repository's present commit, as another task that goes on there
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task rebase 3f2a91c0
  helix task rebase 3f2a91c0 --onto origin/main

Files are merged line by line; what conflicts stands between conflict markers, and the new task's agent is told to resolve it.
The original task stays as it is. Uncommitted changes of your checkout are not taken.")]
pub(in crate::cli) struct Rebase {
    #[command(flatten)]
    which: Which,
    /// A commit, branch or tag of the repository [default: HEAD]
    #[arg(long, value_name = "COMMIT")]
    onto: Option<String>,
}

impl Rebase {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, path) = (context.client()?, self.which.path("rebase"));
        let request = RebaseRequest { onto: self.onto };
        let rebased: RebasedTask = context.waiting("merging", client.post(&path, &request)).await?;
        context.print(&rebased, |rebased| render(rebased, context.style))
    }
}

fn render(rebased: &RebasedTask, style: Style) -> String {
    let (short, commit): (_, String) = (rebased.task.id.short(), rebased.git_commit.chars().take(12).collect());
    let mut text = format!("task {} goes on from commit {commit}; `helix attach {short}` watches it\n", style.bold(&short));
    if rebased.conflicts.is_empty() {
        text.push_str("everything merged without conflicts\n");
    } else {
        text.push_str(&format!("{}\n", style.yellow(format!("{} with conflicts:", files(rebased.conflicts.len())))));
        text.extend(rebased.conflicts.iter().map(|path| format!("  {path}\n")));
    }
    text
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}
