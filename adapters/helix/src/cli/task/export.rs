//! `helix task export`

use std::path::PathBuf;

use clap::Args;
use helix_adapter_http::api::ExportRequest;
use helix_messages::Exported;
use helix_protocol::Failure;

use super::Which;
use crate::cli::Context;

/// Write a task's steps as commits of a git branch, without touching your checkout
///
/// What the task began with and no commit has, such as changes that were not committed, is a commit of its own beneath them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task export 3f2a91c0
  helix task export 3f2a91c0 --branch fix-parser --step 7")]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    what: What,
}

/// What is written where.
#[derive(Debug, Args)]
pub(in crate::cli) struct What {
    /// The branch [default: helix/TITLE-TASK]
    #[arg(long)]
    branch: Option<String>,
    /// The repository [default: the one the task was made from]
    #[arg(long, value_name = "PATH")]
    pub(super) repo: Option<PathBuf>,
    /// A step's number, id or checkpoint [default: the last step]
    #[arg(long)]
    step: Option<String>,
}

impl What {
    /// Exports; shared with `push`.
    pub async fn export(&self, context: &Context, which: &Which) -> Result<Exported, Failure> {
        let repository = match &self.repo {
            Some(path) => Some(std::fs::canonicalize(path).map_err(|error| Failure::io(path.display(), &error))?),
            None => None,
        };
        let request = ExportRequest { branch: self.branch.clone(), repository, step: self.step.clone() };
        let client = context.client()?;
        let path = which.path("export");
        context.waiting("writing commits", client.post(&path, &request)).await
    }
}

impl Export {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let exported = self.what.export(context, &self.which).await?;
        context.print(&exported, |exported| {
            let Exported { branch, git_commit, commits } = exported;
            let commit: String = git_commit.chars().take(12).collect();
            let commits = if *commits == 1 { "1 commit".to_owned() } else { format!("{commits} commits") };
            format!("branch {} is at {commit}, {commits}\n  git log --stat {branch}", context.style.bold(branch))
        })
    }
}
