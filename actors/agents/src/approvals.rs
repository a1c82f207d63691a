//! Whether a turn's calls may be made, by the task's policy and by what the person answered.
//!
//! A turn that needs an approval is committed with its calls unanswered and parks the task with a question, which is recorded in
//! the same write. The answer is read when the task goes on, on whatever worker and after however long; a call is made once it
//! is allowed, and never before.

use helix_protocol::{Approval, Block, Question, Subject, WorkspaceTool};

use crate::summary;
use crate::toolset::{OwnTool, Tool, Toolset};

/// What may become of a turn's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// They are made.
    Go,
    /// Those that need an approval are not made; the others are.
    Refused {
        /// What the person said.
        answer: String,
    },
    /// The person is asked first.
    Ask {
        /// The calls that wait for the answer.
        subject: Subject,
        /// The question.
        question: String,
    },
}

/// What may be answered; anything else is a refusal with its reason.
pub(crate) const CHOICES: [&str; 3] = ["yes", "no", "always"];

/// Decides about the calls in `blocks`. `step` is shown to the person, `place` names the turn within its conversation. A yes is to
/// the very calls that were asked about.
pub(crate) fn decide(
    policy: Approval,
    tools: &Toolset,
    blocks: &[Block],
    questions: &[Question],
    step: u64,
    place: usize,
) -> Decision {
    let allowed = always(questions);
    let mut lines = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut calls = blake3::Hasher::new();
    for block in blocks {
        let Block::ToolUse { name, input, .. } = block else { continue };
        if !needs(policy, tools, name) || allowed.contains(&name.as_str()) {
            continue;
        }
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
        lines.push(format!("- {}", summary::to_approve(name, input, step)));
        calls.update(format!("{name}\0{input}\0").as_bytes());
    }
    if names.is_empty() {
        return Decision::Go;
    }
    let words = format!("approve step {step}: {}\n{}", names.join(", "), lines.join("\n"));
    let tools = names.into_iter().map(str::to_owned).collect();
    let subject = Subject::Calls { place, tools, calls: calls.finalize().to_hex().to_string() };
    let asked = questions.iter().rev().find(|question| question.subject == subject);
    match asked.and_then(|question| question.answer.as_deref()) {
        Some(answer) if matches!(answer.trim().to_lowercase().as_str(), "yes" | "y" | "always") => Decision::Go,
        Some(answer) => Decision::Refused { answer: answer.trim().to_owned() },
        None => Decision::Ask { subject, question: words },
    }
}

/// True of a call that the policy does not allow by itself.
pub(crate) fn needs(policy: Approval, tools: &Toolset, name: &str) -> bool {
    let writes = |tool: WorkspaceTool| policy == Approval::Suggest && tool.writes_files();
    match tools.get(name) {
        _ if policy == Approval::Full => false,
        Some((Tool::Workspace(tool), _)) => tool == WorkspaceTool::Shell || writes(tool),
        Some((Tool::Own(tool), _)) => tool == OwnTool::SubAgent && policy == Approval::Suggest,
        // It is answered without anything being done.
        None => false,
    }
}

/// The tools that the person allowed once and for all.
fn always(questions: &[Question]) -> Vec<&str> {
    let mut allowed = Vec::new();
    for question in questions {
        let (Subject::Calls { tools, .. }, Some(answer)) = (&question.subject, &question.answer) else { continue };
        if answer.trim().eq_ignore_ascii_case("always") {
            allowed.extend(tools.iter().map(String::as_str));
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use helix_protocol::{AgentSpec, TaskId, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::families::Family;
    use crate::toolset::Web;

    fn tools() -> Toolset {
        Toolset::new(&AgentSpec { sub_agents: 1, ..AgentSpec::new("x") }, Family::of("claude"), Web::default())
    }

    fn call(name: &str) -> Block {
        let input = if name == "shell" { json!({"command": "make"}) } else { json!({"path": "a.rs"}) };
        Block::ToolUse { id: name.into(), name: name.into(), input, extra: None }
    }

    fn answered(subject: &Subject, answer: &str) -> Question {
        let question = Question::new(TaskId::new(), subject.clone(), "", Vec::new(), Timestamp(0));
        Question { answer: Some(answer.to_owned()), ..question }
    }

    #[test]
    fn each_policy_asks_for_what_it_says() {
        let asks = |policy| {
            let names = ["read", "grep", "todo", "edit", "write", "shell", "sub_agent", "unknown"];
            names.into_iter().filter(|name| needs(policy, &tools(), name)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(asks(Approval::Suggest), "edit write shell sub_agent");
        assert_eq!(asks(Approval::AutoEdit), "shell");
        assert_eq!(asks(Approval::Full), "");
    }

    #[test]
    fn a_question_is_asked_once_and_its_answer_counts_for_its_own_turn_only() {
        let decide =
            |questions: &[Question], place, calls: &[Block]| decide(Approval::Suggest, &tools(), calls, questions, 3, place);
        let asks = |questions: &[Question], place, calls: &[Block]| match decide(questions, place, calls) {
            Decision::Ask { question, subject } => (question, subject),
            decision => panic!("{decision:?}"),
        };
        let calls = [call("read"), call("edit"), call("shell")];
        let (question, both) = asks(&[], 7, &calls);
        assert_eq!(question, "approve step 3: edit, shell\n- edit a.rs\n- shell make");
        assert_eq!(decide(&[answered(&both, "yes")], 7, &calls), Decision::Go);
        let refused = Decision::Refused { answer: "no, use cargo".to_owned() };
        assert_eq!(decide(&[answered(&both, "no, use cargo")], 7, &calls), refused);
        asks(&[answered(&both, "yes")], 17, &calls);
        let (_, narrower) = asks(&[], 7, &calls[..2]);
        asks(&[answered(&narrower, "yes")], 7, &calls);
        let other = Block::ToolUse { id: "s".into(), name: "shell".into(), input: json!({"command": "rm -rf x"}), extra: None };
        asks(&[answered(&both, "yes")], 7, &[call("read"), call("edit"), other]);
        assert_eq!(decide(&[answered(&both, "always")], 17, &calls), Decision::Go, "for these tools from now on");
        let (_, shell) = asks(&[], 2, &calls[2..]);
        let (question, edit) = asks(&[answered(&shell, "always")], 7, &calls);
        assert_eq!(question, "approve step 3: edit\n- edit a.rs", "and for these only");
        let own = Question { text: question, ..answered(&Subject::Conversation, "always") };
        assert_eq!(
            asks(&[own, answered(&shell, "always")], 7, &calls).1,
            edit,
            "what the model asks in these words is no approval"
        );
    }
}
