//! Agents of other people's making: what each turn is told, and what follows from how it ended.

use helix_config::AgentsConfig;
use helix_protocol::{AgentEnd, Began, ExternalSpec, Permission};

use super::*;
use crate::ExternalKind;

fn external() -> ExternalKind {
    ExternalKind::new(&AgentsConfig::default(), sized(LIMITS, "default-model"))
}

fn host(spec: ExternalSpec, ends: Vec<(&str, AgentEnd)>) -> FakeHost {
    let mut host = FakeHost::new(AgentSpec::new("x"), Vec::new());
    host.task.spec.work = TaskWork::External(spec);
    host.reports = ends
        .into_iter()
        .map(|(text, end)| {
            let messages = vec![Message::text(Role::Assistant, text)];
            Ok(TurnReport { program: "fake 1".to_owned(), began: Began::New, messages, end })
        })
        .collect();
    host
}

fn asks(title: &str) -> AgentEnd {
    let permission = Permission { title: title.to_owned(), call: Some("5f".to_owned()), ..Permission::of_kind("execute") };
    AgentEnd::Asks { permission, detail: "{}".to_owned() }
}

#[tokio::test]
async fn a_turn_is_a_step_and_the_model_is_the_nodes_default_one() {
    let mut host = host(ExternalSpec::new("claude-acp", "mend it"), vec![("mended", AgentEnd::Done)]);
    let result = host.step_of(&external()).await.expect("a step");
    assert_eq!((result.summary.as_str(), &result.end), ("done: mended", &TurnEnd::Finished));
    assert_eq!(result.messages, [Message::text(Role::User, "mend it"), Message::text(Role::Assistant, "mended")]);
    let turn = &host.turns[0];
    assert_eq!((turn.prompt.as_str(), turn.before.as_str(), turn.model.as_deref()), ("mend it", "", Some("default-model")));
}

#[tokio::test]
async fn a_question_parks_the_task_and_its_answer_lets_that_call_go_on() {
    let mut host = host(ExternalSpec::new("codex", "mend it"), vec![("I run it", asks("make  test\n")), ("done", AgentEnd::Done)]);
    let first = host.step_of(&external()).await.expect("a step");
    let TurnEnd::Ask { question, choices, .. } = first.end else { panic!("it asks") };
    assert_eq!(question, "approve step 1: execute\n- make test\n{}");
    assert_eq!(choices, ["yes", "no", "always"]);
    host.answer("yes");
    let second = host.step_of(&external()).await.expect("a step");
    assert_eq!(second.end, TurnEnd::Finished);
    let turn = &host.turns[1];
    let call = Some("5f".to_owned());
    assert_eq!(turn.allowed, [Permission { title: "make test".to_owned(), call, ..Permission::of_kind("execute") }]);
    assert_eq!(turn.prompt, "Your turn was stopped at this: make test. It is allowed now. Go on.");
    assert_eq!(turn.before, "The person: mend it\nYou: I run it\n", "for an agent that cannot take its session up");
}

#[tokio::test]
async fn an_answer_is_told_to_the_turn_behind_its_question_and_to_no_other() {
    let spec = ExternalSpec { verify: Some("make test".to_owned()), ..ExternalSpec::new("codex", "mend it") };
    let ends = vec![("I run it", asks("rm -rf build")), ("done", AgentEnd::Done), ("really done", AgentEnd::Done)];
    let mut host = host(spec, ends);
    host.checks = VecDeque::from([2, 0]);
    host.step_of(&external()).await.expect("a step");
    host.answer("yes");
    host.step_of(&external()).await.expect("a step");
    host.head.as_mut().expect("a step").committed_at = Timestamp(1);
    assert_eq!(host.step_of(&external()).await.expect("a step").end, TurnEnd::Finished);
    assert!(host.turns[1].prompt.contains("was stopped at"), "{}", host.turns[1].prompt);
    assert!(!host.turns[2].prompt.contains("was stopped at"), "{}", host.turns[2].prompt);
}

#[tokio::test]
async fn a_failed_check_is_the_next_prompt() {
    let spec = ExternalSpec { verify: Some("make test".to_owned()), ..ExternalSpec::new("goose", "mend it") };
    let mut host = host(spec, vec![("done", AgentEnd::Done), ("really done", AgentEnd::Done)]);
    host.checks = VecDeque::from([2, 0]);
    assert_eq!(host.step_of(&external()).await.expect("a step").end, TurnEnd::Continue);
    assert_eq!(host.step_of(&external()).await.expect("a step").end, TurnEnd::Finished);
    assert!(
        host.turns[1].prompt.starts_with("You said that the task is done, and its check fails. Time 1: "),
        "{}",
        host.turns[1].prompt
    );
}

#[tokio::test]
async fn a_turn_that_was_cut_goes_on_until_its_limit_of_steps() {
    let spec = ExternalSpec { max_steps: 2, ..ExternalSpec::new("aider", "mend it") };
    let mut host = host(spec, vec![("a", AgentEnd::Cut), ("b", AgentEnd::Cut)]);
    assert_eq!(host.step_of(&external()).await.expect("a step").end, TurnEnd::Continue);
    let TurnEnd::Failed(failure) = host.step_of(&external()).await.expect("a step").end else { panic!("it is over") };
    assert_eq!(failure.code, Code::StepLimit);
}

#[tokio::test]
async fn a_refusal_and_a_stop_fail_the_task_and_keep_their_files() {
    for (end, code) in [(AgentEnd::Refused, Code::ModelRefused), (AgentEnd::Stopped, Code::AgentFailed)] {
        let mut host = host(ExternalSpec::new("claude", "mend it"), vec![("no", end)]);
        let TurnEnd::Failed(failure) = host.step_of(&external()).await.expect("a step").end else { panic!("it failed") };
        assert_eq!(failure.code, code);
    }
}

#[test]
fn an_agent_that_nobody_knows_is_refused_before_its_task_is_made() {
    let kind = external();
    let refused = kind.check(&TaskWork::External(ExternalSpec::new("cloude", "x"))).expect_err("refused");
    assert_eq!((refused.code, refused.message.as_str()), (Code::InvalidRequest, "no agent is called \"cloude\""));
    assert!(refused.hint.contains("claude-acp"), "{}", refused.hint);
    assert!(kind.check(&TaskWork::External(ExternalSpec::new("codex", " "))).is_err(), "an empty prompt");
    assert_eq!(kind.check(&TaskWork::External(ExternalSpec::new("codex", "x"))), Ok(()));
}
