//! How long a conversation rested before its model is asked again: whatever it rested for, and the same for every owner of a step.

use std::time::Duration;

use helix_messages::ResumeTask;
use helix_protocol::{Budget, Money, Role, TaskId, TaskSpec, TaskStatus, TaskWork};

use crate::support::{AFTER_A_REST, Node, Outside, me, spec, talk};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// Three turns that want to know of a rest of an hour, with more of the kind's input.
fn restful(more: &[(&str, u64)]) -> TaskSpec {
    let mut spec = talk(3);
    let TaskWork::Custom { input, .. } = &mut spec.work else { unreachable!("it is made so") };
    input["rest_ms"] = 3_600_000.into();
    for (name, value) in more {
        input[*name] = (*value).into();
    }
    spec
}

fn world() -> Outside {
    let outside = Outside::new();
    outside.log.think_for(Duration::from_secs(1));
    outside.world.add("one", 4);
    outside
}

/// The turns that found the conversation at rest, once all are made.
async fn rested(node: &Node, task: TaskId) -> Vec<u64> {
    node.until_within(task, &[TaskStatus::Completed], Duration::from_secs(60)).await;
    let mut found = Vec::new();
    for step in node.line(task).await {
        let messages = node.outside.records_step(step.id).await.step.messages;
        if messages.iter().any(|message| message.as_text().ends_with(AFTER_A_REST)) {
            found.push(step.ordinal);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_conversation_rests_while_its_task_is_paused() {
    for (rest, expected) in [(HOUR, vec![2]), (HOUR - MINUTE, vec![])] {
        let outside = world();
        let node = outside.start().await;
        let task = node.create(restful(&[])).await.expect("made").id;
        tokio::time::sleep(Duration::from_millis(500)).await;
        node.tasks.pause(task, me()).await.expect("paused");
        assert_eq!(node.until(task, TaskStatus::Paused).await.steps, 1);
        tokio::time::sleep(rest).await;
        node.tasks.resume(task, ResumeTask { budget: None, answer: None }, me()).await.expect("resumed");
        assert_eq!(rested(&node, task).await, expected, "after {rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_rests_while_its_task_waits_for_a_budget_unless_its_step_has_an_answer_already() {
    // Reserved: 100 a call. Spent: 10. It parks before the first call of the second turn, and before its second.
    for (budget, expected) in [(110, vec![2]), (120, vec![])] {
        let outside = world();
        let node = outside.start().await;
        let spec = TaskSpec { budget: Budget { money: Some(Money(budget)), tokens: None }, ..restful(&[]) };
        let task = node.create(spec).await.expect("made").id;
        assert_eq!(node.until(task, TaskStatus::WaitingForInput).await.steps, 1);
        tokio::time::sleep(2 * HOUR).await;
        let resume = ResumeTask { budget: Some(Budget { money: Some(Money(1_000)), tokens: None }), answer: None };
        node.tasks.resume(task, resume, me()).await.expect("resumed");
        assert_eq!(rested(&node, task).await, expected, "with a budget of {budget}");
        assert!(outside.log.asked().values().all(|times| *times == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_rests_while_its_node_is_off_and_a_call_that_died_with_it_is_no_answer() {
    // In the first call of the second turn, and in its second.
    for (ms, expected) in [(2_500, vec![2]), (3_500, vec![])] {
        let outside = world();
        let node = outside.start().await;
        let task = node.create(restful(&[])).await.expect("made").id;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        node.kill().await;
        tokio::time::sleep(2 * HOUR).await;
        let node = outside.start().await;
        assert_eq!(rested(&node, task).await, expected, "killed after {ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_what_was_made_of_a_rest_stays_that_whoever_makes_the_step_again() {
    let outside = world();
    let node = outside.start().await;
    let task = node.create(restful(&[])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    node.kill().await;
    tokio::time::sleep(2 * HOUR).await;
    let node = outside.start().await;
    // The first call of the second turn is answered, and the second one under way.
    while outside.log.total() < 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.kill().await;
    let node = outside.start().await;
    assert_eq!(rested(&node, task).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_rests_while_its_task_waits_for_a_worker_but_an_answer_that_came_meanwhile_is_none_to_a_rest() {
    let outside = Outside::new();
    outside.log.think_for(Duration::from_secs(1));
    let one = outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(restful(&[])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    outside.world.kill(one);
    node.until(task, TaskStatus::WaitingForWorker).await;
    tokio::time::sleep(2 * HOUR).await;
    outside.world.add("two", 4);
    assert!(rested(&node, task).await.is_empty());
    assert!(outside.log.asked().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_asks_no_model_does_not_end_a_rest() {
    let outside = world();
    let node = outside.start().await;
    let task = node.create(restful(&[("ask", 1), ("silent", 2)])).await.expect("made").id;
    node.until(task, TaskStatus::WaitingForInput).await;
    tokio::time::sleep(2 * HOUR).await;
    let resume = ResumeTask { budget: None, answer: Some("this".to_owned()) };
    node.tasks.resume(task, resume, me()).await.expect("answered");
    assert_eq!(rested(&node, task).await, [3], "the second turn did without its model");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_is_played_again_rested_where_it_did_then() {
    // The node is off from the first call of the second turn on, and from its second: then its first is answered.
    for (ms, rested) in [(2_500, true), (3_500, false)] {
        let outside = world();
        let node = outside.start().await;
        let work = TaskWork::Custom { name: "recalls".to_owned(), input: serde_json::Value::Null };
        let task = node.create(spec(work)).await.expect("made").id;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        node.kill().await;
        tokio::time::sleep(2 * HOUR).await;
        let node = outside.start().await;
        node.until(task, TaskStatus::Completed).await;
        let second = outside.records_step(node.line(task).await[1].id).await.step;
        assert_eq!(second.messages[0].role == Role::System, rested, "after {ms} ms");
        let replayed = node.tasks.replay(task).await.expect("played again");
        assert!(!replayed.differs && replayed.steps.len() == 3, "after {ms} ms: {:?}", replayed.steps);
    }
}
