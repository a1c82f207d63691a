//! What an agent asked to be allowed, as a question of ours, and what was answered.
//!
//! An agent whose turn was cancelled for a question asks the same again in its next one, so an answer holds for the same call as
//! long as the task lasts; `always` holds for everything of its kind.

use helix_ports::APPROVAL;
use helix_protocol::{Permission, Question, Timestamp};

/// What was answered so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub allowed: Vec<Permission>,
    pub refused: Vec<Permission>,
    /// The answer to the question of the last turn, in words for the agent.
    pub last: Option<String>,
}

/// What the last line of a question begins with, before the call's hash.
const CALL: &str = "call ";

/// The question about a call. Its first two lines and its last one are read again by [`read`].
pub(super) fn ask(step: u64, permission: &Permission, detail: &str) -> String {
    let title = permission.title.split_whitespace().collect::<Vec<_>>().join(" ");
    let detail = if detail.is_empty() { String::new() } else { format!("\n{detail}") };
    let call = permission.call.as_ref().map(|call| format!("\n{CALL}{call}")).unwrap_or_default();
    format!("{APPROVAL}{step} #{step}: {}\n- {title}{detail}{call}", permission.kind)
}

/// Reads the answers, oldest question first. A question has the instant of the turn that asked it; `turn` is that of the last one.
pub(super) fn read(questions: &[Question], turn: Option<Timestamp>) -> Answers {
    let mut answers = Answers::default();
    for question in questions {
        let (Some(asked), Some(answer)) = (asked(&question.text), &question.answer) else { continue };
        let answer = answer.trim();
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

fn asked(text: &str) -> Option<Permission> {
    let mut lines = text.strip_prefix(APPROVAL)?.lines();
    let (_, kind) = lines.next()?.split_once(": ")?;
    let title = lines.next()?.strip_prefix("- ")?;
    let call = lines.next_back().and_then(|line| line.strip_prefix(CALL)).map(str::to_owned);
    Some(Permission { kind: kind.to_owned(), title: title.to_owned(), call })
}

#[cfg(test)]
mod tests {
    use helix_protocol::{QuestionId, TaskId};

    use super::*;

    fn question(text: &str, answer: Option<&str>) -> Question {
        Question {
            id: QuestionId::new(),
            task: TaskId::new(),
            text: text.to_owned(),
            choices: Vec::new(),
            answer: answer.map(str::to_owned),
            created_at: Timestamp(0),
            answered_at: None,
        }
    }

    #[test]
    fn an_answer_holds_for_the_call_that_was_asked_about() {
        let title = "rm -rf: target".to_owned();
        let call = Permission { title, call: Some("5f".to_owned()), ..Permission::of_kind("execute") };
        let text = ask(3, &call, "{\"command\": 1}");
        assert_eq!(text, "approve step 3 #3: execute\n- rm -rf: target\n{\"command\": 1}\ncall 5f");
        let answers = |answer| read(&[question(&text, answer)], Some(Timestamp(0)));
        assert_eq!(answers(Some("yes")).allowed, std::slice::from_ref(&call));
        assert_eq!(answers(Some("always")).allowed, [Permission::of_kind("execute")]);
        let of_before = question("approve step 3 #3: execute\n- rm -rf: target\n{\"command\": 1}", Some("yes"));
        assert_eq!(read(&[of_before], None).allowed, [Permission { call: None, ..call.clone() }]);
        let refused = answers(Some("no, use make clean"));
        assert_eq!((refused.allowed.len(), refused.refused), (0, vec![call]));
        assert!(refused.last.expect("told").contains("use make clean"));
        assert_eq!(answers(None), Answers::default());
        let later = read(&[question(&text, Some("yes"))], Some(Timestamp(1)));
        assert_eq!((later.allowed.len(), later.last), (1, None), "an answer is told once, to the turn behind its question");
    }
}
