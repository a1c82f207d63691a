//! What people do to tasks: pause, cancel, fork, answer, and ask for what cannot be.

use std::time::Duration;

use helix_database::RecordStore;
use helix_messages::{ForkTask, ResumeTask, RetryTask};
use helix_objects::ObjectStore;
use helix_protocol::{AtMost, Base, Code, INLINE_MESSAGES, Isolation, Message, Network, Question, TaskSpec, TaskStatus, TaskWork};
use serde_json::json;

use crate::files;
use crate::support::{Fault, Outside, commands, me, talk};

#[tokio::test(start_paused = true)]
async fn a_pause_waits_for_the_step_boundary_and_a_resume_goes_on_from_there() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["sleep 1000; append a 1", "append a 2"])).await.expect("made");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let paused = node.tasks.pause(task.id, me()).await.expect("paused");
    assert_eq!((paused.status, paused.steps), (TaskStatus::Paused, 1));
    let refused = node.tasks.retry(task.id, RetryTask::default(), me()).await.expect_err("it has not ended");
    assert_eq!(refused.code, Code::InvalidState);
    node.tasks.resume(task.id, ResumeTask::default(), me()).await.expect("resumed");
    node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n2\n")]));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_waits_for_its_boundary_is_shown_and_can_be_taken_back() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["sleep 1000; append a 1", "append a 2"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = node.tasks.resume(task, ResumeTask::default(), me()).await.expect_err("nobody pauses it");
    assert_eq!(refused.code, Code::InvalidState);
    let tasks = node.tasks.clone();
    let pause = tokio::spawn(async move { tasks.pause(task, me()).await });
    let gone = {
        let tasks = node.tasks.clone();
        tokio::spawn(async move { tasks.pause(task, me()).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    gone.abort();
    let why = node.tasks.why(task).await.expect("explained");
    assert!(why.reason.ends_with("; it parks at its next step boundary, as test wants"), "{}", why.reason);
    assert_eq!(why.next.last().map(String::as_str), Some(&*format!("`helix task resume {}` takes the pause back", task.short())));
    let goes_on = node.tasks.resume(task, ResumeTask::default(), me()).await.expect("the pause is taken back");
    assert!(goes_on.status.is_active());
    assert_eq!(pause.await.expect("it ends").expect_err("taken back").code, Code::InvalidState);
    assert_eq!(node.until(task, TaskStatus::Completed).await.epoch.0, 1);
    assert!(!outside.events_of(task).await.iter().any(|event| event == "task.paused"));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_taken_back_while_it_is_recorded_parks_nothing() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["sleep 1000; append a 1", "append a 2"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let tasks = node.tasks.clone();
    let pause = tokio::spawn(async move { tasks.pause(task, me()).await });
    outside.faults.plan(outside.faults.writes(), Fault::Late(1_000));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(outside.faults.log().last().map(String::as_str), Some("Commit"), "the step is on its way, and the pause with it");
    node.tasks.resume(task, ResumeTask::default(), me()).await.expect("the pause is taken back");
    assert_eq!(pause.await.expect("it ends").expect_err("taken back").code, Code::InvalidState);
    node.until(task, TaskStatus::Completed).await;
    assert!(outside.events_of(task).await.iter().any(|event| event == "task.paused"));
}

#[tokio::test(start_paused = true)]
async fn who_is_resumed_or_tried_again_waits_for_what_it_needs_as_before() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let first = node.create(commands(&["sleep 60000; append a 1"])).await.expect("made").id;
    let mut after = commands(&["append b 2"]);
    after.depends_on = vec![first];
    let mut on = commands(&["append a 2"]);
    on.base = Base::Task { task: first };
    let (after, on) = (node.create(after).await.expect("made").id, node.create(on).await.expect("made").id);
    node.tasks.pause(after, me()).await.expect("paused");
    let resumed = node.tasks.resume(after, ResumeTask::default(), me()).await.expect("resumed");
    assert_eq!(resumed.status, TaskStatus::WaitingForDependencies);
    node.tasks.cancel(first, me()).await.expect("cancelled");
    assert_eq!(node.task(after).await.status, TaskStatus::Failed);
    let refused = node.tasks.retry(on, RetryTask::default(), me()).await.expect_err("it has no files to begin with");
    assert_eq!(refused.code, Code::InvalidState);
    assert!(refused.hint.contains(&format!("`helix task retry {}`", first.short())), "{}", refused.hint);
    for task in [first, on, after] {
        node.tasks.retry(task, RetryTask::default(), me()).await.expect("tried again");
    }
    node.until(first, TaskStatus::Running).await;
    assert_eq!([node.task(on).await.status, node.task(after).await.status], [TaskStatus::WaitingForDependencies; 2]);
    for task in [first, on, after] {
        node.until(task, TaskStatus::Completed).await;
    }
    assert_eq!(node.files(on).await, files(&[("a", "1\n2\n")]));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_stops_at_once_and_its_workspace_is_closed() {
    let outside = Outside::new();
    let one = outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1; sleep 500000", "append a 2"])).await.expect("made");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let cancelled = node.tasks.cancel(task.id, me()).await.expect("cancelled");
    assert_eq!((cancelled.status, cancelled.head), (TaskStatus::Cancelled, None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(outside.world.closed(), [(one, task.id)]);
    assert_eq!(node.tasks.cancel(task.id, me()).await.expect_err("it has ended").code, Code::InvalidState);
    let next = node.create(commands(&[])).await.expect("made");
    node.until(next.id, TaskStatus::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn any_step_can_be_forked_and_a_head_moved_back() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk(3)).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    let line = node.line(task).await;
    let fork = ForkTask { step: line[0].id, prompt: None, title: Some("again".to_owned()), max_steps: None, principal: me() };
    let fork = node.tasks.fork(fork).await.expect("forked").id;
    node.until(fork, TaskStatus::Completed).await;
    assert_eq!(node.files(fork).await, node.files(task).await, "the same turns said the same");
    assert_eq!(node.line(fork).await[0].id, line[0].id);
    let limited = ForkTask { step: line[0].id, prompt: None, title: None, max_steps: Some(9), principal: me() };
    assert_eq!(node.tasks.fork(limited).await.expect_err("it is no agent").code, Code::InvalidRequest);
    let checkpoint = node.tasks.checkpoint(task, Some(line[1].id), "good".to_owned()).await.expect("named");
    assert_eq!(checkpoint.step, line[1].id);
    let back = node.tasks.rollback(task, line[1].id, me()).await.expect("moved");
    assert_eq!(back.head, Some(line[1].id));
    let elsewhere = node.line(fork).await.last().expect("a head").id;
    assert_eq!(node.tasks.rollback(task, elsewhere, me()).await.expect_err("not on its line").code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_again_after_a_rollback_has_keys_of_its_own() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk_of(json!({"steps": 3, "ask": 2}))).await.expect("made").id;
    node.until(task, TaskStatus::WaitingForInput).await;
    let (line, asked) = (node.line(task).await, outside.log.asked().len());
    node.tasks.rollback(task, line[0].id, me()).await.expect("moved");
    node.tasks.resume(task, ResumeTask::default(), me()).await.expect("resumed");
    node.until(task, TaskStatus::WaitingForInput).await;
    let again = outside.log.asked();
    assert_eq!(again.len(), asked + 2, "a server that knows a key would answer as it did then");
    assert!(again.values().all(|times| *times == 1), "{again:?}");
    assert_ne!(node.line(task).await[1].id, line[1].id);
}

#[tokio::test(start_paused = true)]
async fn a_fork_may_begin_with_files_of_its_own_and_keeps_them_when_its_worker_dies() {
    let mut outside = Outside::new();
    outside.tasks.snapshot_interval_ms = 1_000;
    outside.world.add("one", 1);
    let node = outside.start().await;
    let original = node.create(commands(&["append a 1"])).await.expect("made").id;
    let other = node.create(commands(&["append b 2"])).await.expect("made").id;
    let (original, other) = (node.until(original, TaskStatus::Completed).await, node.until(other, TaskStatus::Completed).await);
    let brought = node.line(other.id).await[0].snapshot;

    let mut spec = commands(&["append a 1", "append b 3; sleep 5000"]);
    spec.fork_files = Some(brought);
    assert_eq!(node.create(spec.clone()).await.expect_err("no step is named").code, Code::InvalidRequest);
    spec.fork_of = original.head;
    let fork = node.create(spec).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let running = node.task(fork).await;
    outside.world.add("two", 1);
    outside.world.kill(running.worker.expect("it runs"));
    node.until(fork, TaskStatus::Completed).await;
    assert_eq!(node.files(fork).await, files(&[("b", "2\n3\n")]));
    let again = ForkTask {
        step: node.line(fork).await.last().expect("a head").id,
        prompt: None,
        title: None,
        max_steps: None,
        principal: me(),
    };
    let again = node.tasks.fork(again).await.expect("forked");
    assert_eq!(again.spec.fork_files, None, "a fork of what came of them has its step's files");
}

#[tokio::test(start_paused = true)]
async fn a_question_parks_the_task_and_its_answer_is_said_in_the_next_turn() {
    // On the machine's clock some time passes between the asking and the commit; the other one stands still.
    for outside in [Outside::new(), Outside::new_real()] {
        a_question_is_answered(&outside).await;
    }
}

async fn a_question_is_answered(outside: &Outside) {
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = talk(2);
    spec.work = helix_protocol::TaskWork::Custom { name: "talk".to_owned(), input: serde_json::json!({"steps": 2, "ask": 1}) };
    let task = node.create(spec).await.expect("made").id;
    let parked = node.until(task, TaskStatus::WaitingForInput).await;
    assert_eq!(parked.steps, 1);
    let refused = node.tasks.resume(task, ResumeTask::default(), me()).await.expect_err("it waits for an answer");
    assert_eq!(refused.code, Code::InvalidState);
    node.tasks.resume(task, ResumeTask { budget: None, answer: Some("this one".to_owned()) }, me()).await.expect("resumed");
    let done = node.until(task, TaskStatus::Completed).await;
    let head = outside.records_step(done.head.expect("a head")).await;
    assert_eq!(head.step.messages[0].as_text(), "this one");
}

fn talk_of(input: serde_json::Value) -> TaskSpec {
    TaskSpec { work: TaskWork::Custom { name: "talk".to_owned(), input }, ..talk(1) }
}

fn with_answer(answer: &str) -> ResumeTask {
    ResumeTask { budget: None, answer: Some(answer.to_owned()) }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_parked_while_it_asks_asks_on_until_it_is_answered() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk_of(json!({"steps": 2, "ask": 1}))).await.expect("made").id;
    node.until(task, TaskStatus::WaitingForInput).await;
    node.tasks.pause(task, me()).await.expect("paused");
    let resumed = node.tasks.resume(task, ResumeTask::default(), me()).await.expect("resumed");
    assert_eq!((resumed.status, resumed.reason.as_str()), (TaskStatus::WaitingForInput, "which?"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.task(task).await.steps, 1, "no turn is made on top of a question that nobody answered");
    node.tasks.pause(task, me()).await.expect("paused");
    node.tasks.resume(task, with_answer("blue"), me()).await.expect("resumed with the answer");
    let done = node.until(task, TaskStatus::Completed).await;
    assert_eq!(outside.records_step(done.head.expect("a head")).await.step.messages[0].as_text(), "blue");
    let quiet = node.create(commands(&["sleep 1000", "append a 1"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.tasks.pause(quiet, me()).await.expect("paused");
    let refused = node.tasks.resume(quiet, with_answer("blue"), me()).await.expect_err("it asks nothing");
    assert_eq!(refused.code, Code::InvalidState);
}

#[tokio::test(start_paused = true)]
async fn what_a_task_waited_for_before_does_not_answer_what_it_asks_now() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let parent = node.create(talk_of(json!({"steps": 3, "wait": 1, "ask": 2}))).await.expect("made").id;
    node.until(parent, TaskStatus::WaitingForInput).await;
    node.tasks.pause(parent, me()).await.expect("paused");
    let resumed = node.tasks.resume(parent, ResumeTask::default(), me()).await.expect("resumed");
    assert_eq!(resumed.status, TaskStatus::WaitingForInput, "its child runs");
    let asks = node.until_it(parent, |task| task.reason == "which?").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(node.task(parent).await, asks, "nobody has answered");
    node.tasks.resume(parent, with_answer("blue"), me()).await.expect("answered");
    let done = node.until(parent, TaskStatus::Completed).await;
    assert_eq!(outside.records_step(done.head.expect("a head")).await.step.messages[0].as_text(), "blue");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_goes_back_to_before_its_question_asks_nothing() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk_of(json!({"steps": 3, "ask": 2}))).await.expect("made").id;
    node.until(task, TaskStatus::WaitingForInput).await;
    let asked = outside.records.questions(task).await.expect("readable").remove(0);
    let back = node.tasks.rollback(task, node.line(task).await[0].id, me()).await.expect("moved");
    assert_eq!((back.status, back.steps), (TaskStatus::Paused, 1));
    let refused = node.tasks.answer(asked.id, "blue".to_owned(), me()).await.expect_err("it is closed");
    assert_eq!(refused.code, Code::InvalidState);
    node.tasks.resume(task, ResumeTask::default(), me()).await.expect("resumed");
    node.until(task, TaskStatus::WaitingForInput).await;
    let open: Vec<_> = outside.records.questions(task).await.expect("readable").into_iter().filter(Question::is_open).collect();
    assert!(open.len() == 1 && open[0].id != asked.id, "{open:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_at_length_is_kept_as_content_and_the_next_turn_hears_it_whole() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    outside.log.speak_at_length(INLINE_MESSAGES / 2);
    let node = outside.start().await;
    let task = node.create(talk(2)).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    for (summary, turn) in node.line(task).await.iter().zip(1..) {
        let step = outside.records_step(summary.id).await.step;
        assert_eq!(step.messages, [], "its row is small");
        let object = step.long_messages.expect("it was long");
        let text = outside.objects.read(object).expect("it is in the content store");
        let said: Vec<Message> = serde_json::from_slice(&text).expect("a list of messages");
        let texts: Vec<_> = said.iter().map(|message| message.as_text().trim_end_matches('.').to_owned()).collect();
        let before = 3 * (turn - 1);
        let expected = [format!("turn {turn}"), format!("reply after {}", before + 1), format!("reply after {}", before + 2)];
        assert_eq!(texts, expected, "the model heard everything that was said before");
    }
    assert_eq!(outside.objects.pinned().expect("readable"), [], "what a step holds needs no pin");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_gets_what_the_node_is_configured_to_and_a_repository_only_less() {
    let mut outside = Outside::new();
    (outside.tasks.network, outside.tasks.writable) = (Network::Host, vec!["~/.cargo".to_owned()]);
    let node = outside.start().await;
    let mut spec = talk(1);
    spec.environment.at_most = AtMost { isolation: Some(Isolation::ReadOnly), network: Some(Network::None) };
    let made = node.create(spec).await.expect("made").spec.environment;
    assert_eq!(
        (made.isolation, made.network, made.writable.as_slice()),
        (Some(Isolation::Workspace), Some(Network::Host), &["~/.cargo".to_owned()][..])
    );
    assert_eq!((made.isolation(), made.network()), (Isolation::ReadOnly, Network::None));
    let mut wide = talk(1);
    wide.environment.at_most = AtMost { isolation: Some(Isolation::Full), network: Some(Network::Host) };
    wide.environment.network = Some(Network::None);
    let made = node.create(wide).await.expect("made").spec.environment;
    assert_eq!((made.isolation(), made.network()), (Isolation::Workspace, Network::None));
    let mut unheld = talk(1);
    (unheld.environment.isolation, unheld.environment.network) = (Some(Isolation::Full), Some(Network::None));
    assert_eq!(node.create(unheld).await.expect_err("nothing would hold it").code, Code::InvalidRequest);
    let mut relative = talk(1);
    relative.environment.writable = vec!["cache".to_owned()];
    assert_eq!(node.create(relative).await.expect_err("of which folder").code, Code::InvalidRequest);
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_is_refused_before_anything_is_recorded() {
    let outside = Outside::new();
    let node = outside.start().await;
    let custom = helix_protocol::TaskWork::Custom { name: "unheard".to_owned(), input: serde_json::Value::Null };
    let refused = node.create(crate::support::spec(custom)).await.expect_err("nobody knows the kind");
    assert_eq!((refused.code, refused.hint.as_str()), (Code::InvalidRequest, "this node knows command, talk, recalls, turns"));
    assert_eq!(node.create(commands(&["  "])).await.expect_err("an empty command").code, Code::InvalidRequest);
    let mut spec = commands(&[]);
    spec.timeout_ms = Some(0);
    assert_eq!(node.create(spec).await.expect_err("no time").code, Code::InvalidRequest);
    let mut spec = commands(&[]);
    let nowhere = helix_protocol::SnapshotId(helix_protocol::ObjectId([9; 32]));
    spec.base = Base::Snapshot { snapshot: nowhere, git_commit: None, repository: None };
    assert_eq!(node.create(spec).await.expect_err("no such snapshot").code, Code::NotFound);
    assert_eq!(outside.faults.writes(), 0);
}
