//! Ways of reasoning, each seen as steps.

use helix_protocol::{AttemptsSpec, CommandSpec, Effort, Reasoning, Thinking, ToolChoice};

use super::others::end;
use super::*;
use crate::AttemptsKind;

fn reasoning(reasoning: Reasoning, replies: Vec<ModelReply>) -> FakeHost {
    FakeHost::new(AgentSpec { reasoning, ..spec() }, replies)
}

fn look(id: &str) -> ModelReply {
    calls(vec![call(id, "read", json!({"path": "a.txt"}))])
}

#[tokio::test]
async fn a_chain_of_thought_is_a_step_of_its_own_with_its_results_seen() {
    let thought = says("1. The file is wrong.\nResult: line 1");
    let mut host = reasoning(Reasoning::ChainOfThought, vec![thought, look("a"), says("done")]);
    let first = host.steps(1).await;
    assert_eq!((first.summary.as_str(), &first.end), ("reasoned: 1. The file is wrong.…", &TurnEnd::Continue));
    assert_eq!(host.requests[0].tool_choice, ToolChoice::None);
    assert_eq!(host.steps(1).await.summary, "read a.txt");
    assert_eq!(host.requests[1].tool_choice, ToolChoice::Auto);
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn progressive_reasoning_plans_acts_and_revises() {
    let replies = vec![says("1. read"), look("a"), look("b"), says("2. write"), look("c"), says("done")];
    let mut host = reasoning(Reasoning::Progressive { every: 2 }, replies);
    let mut summaries = Vec::new();
    for _ in 0..6 {
        summaries.push(host.steps(1).await.summary);
    }
    let expected = ["planned: 1. read", "read a.txt", "read a.txt", "revised its plan: 2. write", "read a.txt", "done: done"];
    assert_eq!(summaries, expected);
}

#[tokio::test]
async fn reflection_finds_faults_corrects_them_and_ends_when_there_are_none() {
    let replies = vec![says("did it"), says("a test is missing"), look("a"), says("added it"), look("b"), says("NO FAULTS")];
    let mut host = reasoning(Reasoning::Reflection { rounds: 3 }, replies);
    let mut summaries = Vec::new();
    for _ in 0..6 {
        summaries.push(host.steps(1).await.summary);
    }
    let expected = [
        "done, as it says: did it",
        "critique 1: a test is missing",
        "read a.txt",
        "done, as it says: added it",
        "read a.txt",
        "critique 2: no faults",
    ];
    assert_eq!(summaries, expected);
    assert_whole(&host.said);
}

#[tokio::test]
async fn reflection_has_no_more_rounds_than_were_granted_and_a_passing_check_ends_it() {
    let replies = vec![says("did it"), says("bad"), says("better")];
    let mut host = reasoning(Reasoning::Reflection { rounds: 1 }, replies);
    assert_eq!(host.steps(3).await.end, TurnEnd::Finished);
    let checked = AgentSpec { reasoning: Reasoning::Reflection { rounds: 4 }, verify: Some("true".to_owned()), ..spec() };
    let mut host = FakeHost::new(checked, vec![says("did it"), look("a"), says("it forgets b"), look("c"), says("did it now")]);
    host.checks = [1, 0].into();
    let first = host.steps(1).await;
    assert!(first.messages.last().expect("told").as_text().contains("what does this output show to be wrong"));
    assert_eq!(host.steps(1).await.summary, "read a.txt");
    let critique = host.steps(1).await;
    assert_eq!((critique.summary.as_str(), &critique.end), ("critique 1: it forgets b", &TurnEnd::Continue));
    assert!(critique.messages.last().expect("told").as_text().starts_with("Correct these faults"));
    assert_eq!(host.steps(2).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn a_round_of_reflection_is_a_correction_after_a_check_that_fails() {
    let one = AgentSpec { reasoning: Reasoning::Reflection { rounds: 1 }, verify: Some("true".to_owned()), ..spec() };
    let replies = || vec![says("did it"), says("it is wrong"), says("did it now")];
    let mut host = FakeHost::new(one.clone(), replies());
    host.checks = [1, 0].into();
    assert_eq!(host.steps(1).await.end, TurnEnd::Continue);
    assert_eq!(host.steps(2).await.end, TurnEnd::Finished);
    let mut host = FakeHost::new(one, replies());
    host.checks = [1, 1].into();
    let TurnEnd::Failed(failure) = host.steps(3).await.end else { panic!("it has no round left") };
    assert!(failure.message.contains("failed 2 times"), "{}", failure.message);
}

const APPROACHES: &str = "APPROACH 1: a cache\nbecause\nAPPROACH 2: an index\nbecause\nAPPROACH 3: neither\nbecause";

fn tree(verify: Option<&str>, replies: Vec<ModelReply>) -> FakeHost {
    let reasoning = Reasoning::TreeOfThoughts { branches: 3 };
    FakeHost::new(AgentSpec { reasoning, verify: verify.map(str::to_owned), ..spec() }, replies)
}

#[tokio::test]
async fn the_first_approach_that_passes_the_check_wins_and_the_others_are_given_up() {
    let mut host = tree(Some("./run-tests"), vec![says(APPROACHES)]);
    assert!(host.steps(1).await.summary.starts_with("thought of approaches: APPROACH 1"));
    let from = host.head.as_ref().map(|head| head.step.id);
    let TurnEnd::Await { tasks } = host.steps(1).await.end else { panic!("not waiting") };
    assert_eq!(tasks.len(), 3);
    assert_eq!(host.children.values().map(|(_, _, shares)| *shares).collect::<Vec<_>>(), [4, 3, 2], "and one for itself");
    for (_, spec, _) in host.children.values() {
        assert_eq!((spec.fork_of, spec.group), (from, Some(host.task.id)), "attempts forked from one step");
    }
    let won = end(TaskStatus::Completed, "an index it is");
    host.ends.insert(tasks[1], won.clone());
    let last = host.steps(1).await;
    assert_eq!((last.summary.as_str(), &last.end), ("approach 2 of 3: an index it is", &TurnEnd::Finished));
    assert_eq!(host.taken, [won.snapshot.expect("files")]);
    assert_eq!(host.cancelled, [tasks[0], tasks[2]]);
}

#[tokio::test]
async fn without_a_check_a_model_judges_once_all_have_ended() {
    let mut host = tree(None, vec![says(APPROACHES), says("The third is cleanest.\nBEST: 3")]);
    host.steps(1).await;
    let TurnEnd::Await { tasks } = host.steps(1).await.end else { panic!("not waiting") };
    host.ends.insert(tasks[0], end(TaskStatus::Completed, "cached"));
    assert!(matches!(host.steps(1).await.end, TurnEnd::Await { .. }), "the others are waited for");
    host.ends.insert(tasks[1], end(TaskStatus::Failed, "indexed"));
    host.ends.insert(tasks[2], end(TaskStatus::Completed, "neither"));
    let last = host.steps(1).await;
    assert_eq!((last.summary.as_str(), last.end), ("approach 3 of 3: neither", TurnEnd::Finished));
    assert!(host.requests[1].messages[1].as_text().contains("Attempt 1 changed x.rs and says:\ncached"));
    assert!(!host.requests[1].messages[1].as_text().contains("Attempt 2"), "it failed");
}

#[tokio::test]
async fn where_no_approach_succeeds_the_agent_goes_on_by_itself() {
    let mut host = tree(None, vec![says(APPROACHES), look("a"), says("done")]);
    host.steps(1).await;
    let TurnEnd::Await { tasks } = host.steps(1).await.end else { panic!("not waiting") };
    for task in tasks {
        host.ends.insert(task, end(TaskStatus::Failed, "no"));
    }
    assert_eq!(host.steps(1).await.end, TurnEnd::Continue);
    assert_eq!(host.steps(2).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn thinking_is_asked_for_as_the_spec_says() {
    let thinking = Thinking::Effort(Effort::High);
    let mut host = FakeHost::new(AgentSpec { thinking, ..spec() }, vec![says("done")]);
    host.steps(1).await;
    assert_eq!((host.requests[0].thinking, host.requests[0].show_thinking), (thinking, true));
}

/// A task of several attempts at this work.
fn attempts(work: TaskWork, replies: Vec<ModelReply>) -> FakeHost {
    let mut host = FakeHost::new(spec(), replies);
    host.task.spec.work = TaskWork::Attempts(AttemptsSpec { count: 3, work: Box::new(work) });
    host
}

fn several() -> AttemptsKind {
    AttemptsKind::new(sized(LIMITS, ""))
}

async fn next(host: &mut FakeHost) -> StepResult {
    host.step_of(&several()).await.expect("a step")
}

#[tokio::test]
async fn the_first_attempt_that_passes_its_check_is_taken_and_the_others_are_given_up() {
    let work = TaskWork::Agent(AgentSpec { verify: Some("./run-tests".to_owned()), ..spec() });
    let mut host = attempts(work.clone(), Vec::new());
    let first = next(&mut host).await;
    let TurnEnd::Await { tasks } = first.end else { panic!("not waiting") };
    assert_eq!((tasks.len(), first.summary.as_str()), (3, "makes 3 attempts"));
    assert_eq!(host.note, Some(SnapshotNote::NoFiles));
    assert_eq!(host.children.values().map(|(_, _, shares)| *shares).collect::<Vec<_>>(), [3, 2, 1], "nobody has to judge");
    for (_, attempt, _) in host.children.values() {
        assert_eq!((&attempt.work, attempt.group), (&work, Some(host.task.id)));
    }
    host.ends.insert(tasks[0], end(TaskStatus::Failed, "no"));
    let second = next(&mut host).await;
    assert_eq!(
        (second.summary.as_str(), second.end),
        ("1 of 3 attempts have ended", TurnEnd::Await { tasks: tasks[1..].to_vec() })
    );
    let won = end(TaskStatus::Completed, "an index it is");
    host.ends.insert(tasks[2], won.clone());
    let last = next(&mut host).await;
    assert_eq!(last.summary, "attempt 3 of 3 (it passed first): an index it is");
    assert_eq!(last.end, TurnEnd::Finished);
    assert_eq!((host.taken, host.cancelled), (vec![won.snapshot.expect("files")], vec![tasks[1]]));
    assert!(host.requests.is_empty(), "nobody had to judge");
}

#[tokio::test]
async fn attempts_without_a_check_are_all_waited_for_and_a_model_takes_the_best() {
    let mut host = attempts(TaskWork::Agent(spec()), vec![says("The second is small and clean.\nBEST: 2")]);
    let TurnEnd::Await { tasks } = next(&mut host).await.end else { panic!("not waiting") };
    assert_eq!(host.children.values().map(|(_, _, shares)| *shares).collect::<Vec<_>>(), [4, 3, 2], "and one for the judge");
    host.ends.insert(tasks[0], end(TaskStatus::Completed, "long"));
    host.ends.insert(tasks[1], end(TaskStatus::Completed, "short"));
    assert!(matches!(next(&mut host).await.end, TurnEnd::Await { .. }), "the third is waited for");
    host.ends.insert(tasks[2], end(TaskStatus::Failed, "no"));
    let last = next(&mut host).await;
    assert!(last.summary.starts_with("attempt 2 of 3 (The second is small and clean."), "{}", last.summary);
    assert_eq!((last.end, host.cancelled.len()), (TurnEnd::Finished, 0));
}

#[tokio::test]
async fn a_judge_sees_what_each_attempt_changed_as_far_as_its_model_takes_it() {
    let mut host = attempts(TaskWork::Agent(spec()), vec![says("BEST: 1")]);
    let TurnEnd::Await { tasks } = next(&mut host).await.end else { panic!("not waiting") };
    let (short, long) = (SnapshotId(ObjectId([1; 32])), SnapshotId(ObjectId([2; 32])));
    host.patches = BTreeMap::from([(short, "+one line\n".to_owned()), (long, format!("+{}\n", "x".repeat(100_000)))]);
    for (task, snapshot) in [(tasks[0], Some(short)), (tasks[1], Some(long)), (tasks[2], None)] {
        host.ends.insert(task, ChildEnd { snapshot, ..end(TaskStatus::Completed, "done") });
    }
    next(&mut host).await;
    let question = host.requests[0].messages[1].as_text();
    assert_eq!(question.matches("Its changes:").count(), 2);
    assert!(question.contains("Its changes:\n+one line\n"), "{question}");
    let room = usize::try_from(LIMITS.room()).expect("small");
    assert!(question.len() > room / 8 && question.len() < room, "{} characters for a model that takes {room}", question.len());
}

#[tokio::test]
async fn commands_that_have_run_are_their_own_check_and_where_none_succeeds_the_task_fails() {
    let command = CommandSpec { commands: vec!["make".to_owned()], ..CommandSpec::default() };
    let mut host = attempts(TaskWork::Command(command), Vec::new());
    let TurnEnd::Await { tasks } = next(&mut host).await.end else { panic!("not waiting") };
    for task in &tasks {
        host.ends.insert(*task, end(TaskStatus::Failed, ""));
    }
    let TurnEnd::Failed(failure) = next(&mut host).await.end else { panic!("not failed") };
    assert!(failure.message.starts_with("no attempt succeeded; attempt 1 failed: "), "{failure}");
    host.ends.insert(tasks[1], end(TaskStatus::Completed, ""));
    assert_eq!(next(&mut host).await.summary, "attempt 2 of 3 (it passed first)");
}

#[test]
fn so_many_attempts_are_refused_and_attempts_at_attempts() {
    let of = |count, work| TaskWork::Attempts(AttemptsSpec { count, work: Box::new(work) });
    let agent = || TaskWork::Agent(spec());
    assert_eq!([1, 2, 64, 65].map(|count| several().check(&of(count, agent())).is_ok()), [false, true, true, false]);
    assert!(several().check(&of(2, of(2, agent()))).is_err());
}
