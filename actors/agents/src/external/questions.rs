//! What an agent asked to be allowed, as a question of ours, and what was answered.
//!
//! An agent whose turn was cancelled for a question asks the same again in its next one, so an answer holds for the same call as
//! long as the task lasts; `always` holds for everything of its kind.

use helix_protocol::{Permission, Question, Subject, Timestamp};

/// What was answered so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub allowed: Vec<Permission>,
    pub refused: Vec<Permission>,
    /// The answer to the question of the last turn, in words for the agent.
    pub last: Option<String>,
}

/// The question about a call, in words.
pub(super) fn ask(step: u64, permission: &Permission, detail: &str) -> String {
    let detail = if detail.is_empty() { String::new() } else { format!("\n{detail}") };
    format!("approve step {step}: {}\n- {}{detail}", permission.kind, permission.title)
}

/// Reads the answers, oldest question first. A question has the instant of the turn that asked it; `turn` is that of the last one.
pub(super) fn read(questions: &[Question], turn: Option<Timestamp>) -> Answers {
    let mut answers = Answers::default();
    for question in questions {
        let (Subject::Permission { asked }, Some(answer)) = (&question.subject, &question.answer) else { continue };
        let (asked, answer) = (asked.clone(), answer.trim());
        let words = match answer.to_lowercase().as_str() {
            "yes" | "y" => {
                answers.refused.retain(|refused| *refused != asked);
                let words = format!("Your turn was stopped at this: {}. It is allowed now. Go on.", asked.title);
                answers.allowed.push(asked);
                words
            }
            "always" => {
                let words = format!("Your turn was stopped at this: {}. Calls of its kind are allowed now. Go on.", asked.title);
                answers.allowed.push(Permission::of_kind(asked.kind));
                words
            }
            _ => {
                let words =
                    format!("Your turn was stopped at this: {}. It is not allowed: {answer}. Go on without it.", asked.title);
                answers.refused.push(asked);
                words
            }
        };
        if Some(question.created_at) == turn {
            answers.last = Some(words);
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use helix_protocol::TaskId;

    use super::*;

    fn question(asked: &Permission, answer: Option<&str>) -> Question {
        let subject = Subject::Permission { asked: asked.clone() };
        let question = Question::new(TaskId::new(), subject, "", Vec::new(), Timestamp(0));
        Question { answer: answer.map(str::to_owned), ..question }
    }

    #[test]
    fn an_answer_holds_for_the_call_that_was_asked_about() {
        let title = "rm -rf: target".to_owned();
        let call = Permission { title, call: Some("5f".to_owned()), ..Permission::of_kind("execute") };
        assert_eq!(ask(3, &call, "{\"command\": 1}"), "approve step 3: execute\n- rm -rf: target\n{\"command\": 1}");
        let answers = |answer| read(&[question(&call, answer)], Some(Timestamp(0)));
        assert_eq!(answers(Some("yes")).allowed, std::slice::from_ref(&call));
        assert_eq!(answers(Some("always")).allowed, [Permission::of_kind("execute")]);
        let refused = answers(Some("no, use make clean"));
        assert_eq!((refused.allowed.len(), refused.refused), (0, vec![call.clone()]));
        assert!(refused.last.expect("told").contains("use make clean"));
        assert_eq!(answers(None), Answers::default());
        let later = read(&[question(&call, Some("yes"))], Some(Timestamp(1)));
        assert_eq!((later.allowed.len(), later.last), (1, None), "an answer is told once, to the turn behind its question");
    }
}
