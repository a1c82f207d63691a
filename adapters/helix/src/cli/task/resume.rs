//! `helix task resume`

use clap::Args;
use helix_adapter_http::api::QuestionList;
use helix_messages::ResumeTask;
use helix_protocol::{Failure, Subject, TaskRecord, TaskStatus};

use super::{NewBudget, Which, changed, without_budget};
use crate::cli::Context;

/// Continue a parked task, with a new budget or an answer where it waits for one; or take back a pause that waits for its boundary
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  helix task resume 3f2a91c0\n  helix task resume 3f2a91c0 --budget 5")]
pub(in crate::cli) struct Resume {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    budget: NewBudget,
    /// The answer to the question it waits for
    #[arg(long)]
    answer: Option<String>,
}

impl Resume {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let task: TaskRecord = client.get(&self.which.path("")).await?;
        let waits = matches!(task.status, TaskStatus::WaitingForInput | TaskStatus::Paused);
        if self.budget.over(task.spec.budget).is_none() && waits {
            let asked: QuestionList = client.get(&self.which.path("questions")).await?;
            if asked.questions.iter().find(|question| question.is_open()).is_some_and(|open| open.subject == Subject::Budget) {
                return Err(without_budget(&self.which.task));
            }
        }
        let with = ResumeTask { budget: self.budget.over(task.spec.budget), answer: self.answer };
        changed(context, &client.post(&self.which.path("resume"), &with).await?)
    }
}
