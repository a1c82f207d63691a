//! `helix task answer`

use clap::Args;
use helix_adapter_http::api::{AnswerRequest, QuestionList};
use helix_protocol::{Code, Failure, Question, Subject};

use super::{Which, changed, without_budget};
use crate::cli::Context;

/// Answer the question a task waits with
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task answer 3f2a91c0              show the question
  helix task answer 3f2a91c0 yes
  helix task answer 3f2a91c0 \"no, use make clean\"")]
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
        let open = asked.questions.into_iter().find(Question::is_open).ok_or_else(|| {
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
        let answer = meant(&open, &answer).ok_or_else(|| {
            Failure::new(Code::InvalidRequest, format!("{answer:?} is not among the choices"))
                .hint(format!("one of: {}", open.choices.join(", ")))
        })?;
        if answer == "yes" && open.subject == Subject::Budget {
            return Err(without_budget(&self.which.task));
        }
        changed(context, &client.post(&format!("/questions/{}/answer", open.id), &AnswerRequest { answer }).await?)
    }
}

/// What a person's words answer a question with: the choice that they are, or themselves, for the model to read. `None` where they
/// are no choice and no model asked.
pub(in crate::cli) fn meant(question: &Question, words: &str) -> Option<String> {
    let words = words.trim();
    let is = |choice: &&String| {
        let (choice, words) = (choice.to_lowercase(), words.to_lowercase());
        choice == words || matches!((choice.as_str(), words.as_str()), ("yes", "y") | ("no", "n"))
    };
    let choice = question.choices.iter().find(|choice| *choice == words).or_else(|| question.choices.iter().find(is));
    choice.cloned().or_else(|| question.subject.takes_words().then(|| words.to_owned()))
}

/// True of a plain no to a question that has no such choice, and whose answers nobody reads: it would be said to an agent.
pub(in crate::cli) fn is_bare_no(question: &Question, words: &str) -> bool {
    let is_no = matches!(words.trim().to_lowercase().as_str(), "n" | "no");
    is_no && !question.subject.takes_words() && meant(question, words).is_none()
}

#[cfg(test)]
mod tests {
    use helix_protocol::{TaskId, Timestamp};

    use super::*;

    #[test]
    fn words_are_a_choice_or_an_answer_of_their_own() {
        let meant = |subject: Subject, choices: &[&str], words: &str| {
            let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
            super::meant(&Question::new(TaskId::new(), subject, "which?", choices, Timestamp(0)), words)
        };
        let (approval, choices) =
            (|| Subject::Calls { place: 7, tools: vec!["shell".to_owned()], calls: "5f".to_owned() }, ["yes", "no", "always"]);
        for (words, answer) in [("yes", "yes"), ("Yes", "yes"), ("y", "yes"), (" N ", "no"), ("ALWAYS", "always")] {
            assert_eq!(meant(approval(), &choices, words).as_deref(), Some(answer), "{words}");
        }
        let reason = "no, use make clean";
        assert_eq!(meant(approval(), &choices, reason).as_deref(), Some(reason));
        assert_eq!(meant(Subject::Conversation, &["Red", "red"], "red").as_deref(), Some("red"));
        assert_eq!(meant(Subject::Conversation, &["Red"], "neither of them").as_deref(), Some("neither of them"));
        assert_eq!(meant(Subject::Conversation, &[], "y").as_deref(), Some("y"));
        assert_eq!(meant(Subject::Budget, &["yes", "no"], "Yes").as_deref(), Some("yes"));
        assert_eq!(meant(Subject::Budget, &["yes", "no"], "leave the tests alone"), None, "nobody would read it");
        let mended = |words| meant(Subject::Model, &["yes"], words);
        assert_eq!([mended("Y"), mended("leave it")], [Some("yes".to_owned()), None]);
        let day =
            Question::new(TaskId::new(), Subject::Day { until: Timestamp(9) }, "over it?", vec!["yes".to_owned()], Timestamp(0));
        assert_eq!(["No", "n", "yes", "no, use make"].map(|words| is_bare_no(&day, words)), [true, true, false, false]);
        assert_eq!(meant(Subject::Day { until: Timestamp(9) }, &["yes"], "leave the tests alone"), None, "it is said to the agent");
    }
}
