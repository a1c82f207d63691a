//! `helix task answer`

use clap::Args;
use helix_adapter_http::api::{AnswerRequest, QuestionList};
use helix_protocol::{Code, Failure};

use super::{Which, changed, wants_budget, without_budget};
use crate::cli::Context;

/// Answer the question a task waits with
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task answer 3f2a91c0              show the question
  helix task answer 3f2a91c0 yes")]
pub(in crate::cli) struct Answer {
    #[command(flatten)]
    which: Which,
    /// The answer [default: show the question]
    answer: Option<String>,
}

impl Answer {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let asked: QuestionList = client.get(&self.which.path("questions")).await?;
        let open = asked.questions.into_iter().find(|question| question.answer.is_none()).ok_or_else(|| {
            Failure::new(Code::InvalidState, format!("task {} asks nothing", self.which.task))
                .hint("`helix task why` says what it waits for")
        })?;
        let Some(answer) = self.answer else {
            return context.print(&open, |open| {
                let choices =
                    if open.choices.is_empty() { String::new() } else { format!("\n  one of: {}", open.choices.join(", ")) };
                format!("{}{choices}", open.text)
            });
        };
        if !open.choices.is_empty() && !open.choices.contains(&answer) {
            return Err(Failure::new(Code::InvalidRequest, format!("{answer:?} is not among the choices"))
                .hint(format!("one of: {}", open.choices.join(", "))));
        }
        if answer == "yes" && wants_budget(&open) {
            return Err(without_budget(&self.which.task));
        }
        changed(context, &client.post(&format!("/questions/{}/answer", open.id), &AnswerRequest { answer }).await?)
    }
}
