//! `helix task push`

use std::path::PathBuf;
use std::process::Stdio;

use clap::Args;
use helix_protocol::{Base, Code, Failure, TaskRecord};
use serde_json::json;

use super::Which;
use super::export::What;
use crate::cli::Context;

/// Export a task as a git branch and push it with your own git
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task push 3f2a91c0
  helix task push 3f2a91c0 --remote upstream --branch fix-parser")]
pub(in crate::cli) struct Push {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    what: What,
    /// Where to
    #[arg(long, default_value = "origin")]
    remote: String,
}

impl Push {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.remote.starts_with('-') {
            return Err(Failure::new(Code::InvalidRequest, format!("{:?} is not a remote", self.remote)));
        }
        let task: TaskRecord = context.client()?.get(&self.which.path("")).await?;
        let exported = self.what.export(context, &self.which).await?;
        let repository = self.what.repository(&task)?;
        let reference = format!("refs/heads/{0}:refs/heads/{0}", exported.branch);
        // git's own output, progress and questions (a passphrase) are the person's.
        let status = tokio::process::Command::new("git")
            .arg("-C")
            .arg(&repository)
            .args(["push", &self.remote, &reference])
            .stdout(Stdio::null())
            .status()
            .await
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Failure::new(Code::ProgramMissing, "there is no git here").hint("install git"),
                _ => Failure::io("git", &error),
            })?;
        if !status.success() {
            return Err(Failure::new(Code::GitFailed, format!("git push {} {} ended with {status}", self.remote, exported.branch))
                .hint("the branch is in the repository; push it yourself once what git says is mended"));
        }
        let answer = json!({ "remote": self.remote, "branch": exported.branch, "git_commit": exported.git_commit });
        context.print(&answer, |_| format!("branch {} is pushed to {}", context.style.bold(&exported.branch), self.remote))
    }
}

impl What {
    /// The repository that was exported into.
    fn repository(&self, task: &TaskRecord) -> Result<PathBuf, Failure> {
        match (&self.repo, &task.spec.base) {
            (Some(path), _) => Ok(path.clone()),
            (None, Base::Snapshot { repository: Some(path), .. }) => Ok(PathBuf::from(path)),
            _ => Err(Failure::new(Code::InvalidRequest, format!("task {} was made from no repository itself", task.id.short()))
                .hint("name one with --repo")),
        }
    }
}
