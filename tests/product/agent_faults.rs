//! Agents that people already have, when they fail: what a person is told, and that nothing of a failed turn stays.

use std::time::{Duration, Instant};

use helix_adapter_http::api::Ledger;
use helix_protocol::{Approval, Code, EventKind, ExternalSpec, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork};
use serde_json::json;

use crate::external::{spec, with_gateway};
use crate::harness::{Product, Setup, Verdict, processes_in};

/// How long an agent may be silent here, in milliseconds; it is told in whole seconds.
const SILENT: u64 = 3_000;

impl Product {
    async fn external_with_retries(&self, spec: ExternalSpec, retries: u32) -> TaskId {
        self.create(TaskSpec { max_retries: Some(retries), ..TaskSpec::new("external", TaskWork::External(spec)) }).await
    }

    /// The code that the task failed with.
    fn failed_with(&self, task: TaskId) -> serde_json::Value {
        let heard = self.oracle.heard_of(task);
        let failed = heard.iter().rev().find(|event| event.event.kind == EventKind::TaskFailed).expect("it failed");
        failed.event.detail["code"].clone()
    }
}

/// Fails at once although there are retries, in the agent's or our own words, and leaves nothing.
async fn never_starts(product: &Product, mode: &str, words: &str) {
    let task = product.external_with_retries(spec(product, mode), 3).await;
    let record = product.ended(task).await;
    assert_eq!((record.status, record.retries), (TaskStatus::Failed, 0), "{mode}: {}", record.reason);
    assert!(record.reason.contains(words), "{mode}: {}", record.reason);
    assert_eq!(product.failed_with(task), json!(Code::AgentNotStarted), "{mode}: {}", record.reason);
    assert!(product.steps(task).await.iter().all(|step| step.files_changed == 0), "{mode}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_comes_to_work_fails_its_task_in_its_own_words_and_uses_no_retry() {
    let product = with_gateway(Setup::workers(1).set("agents.start_ms", SILENT).set("agents.silent_ms", SILENT)).await;
    for (mode, words) in [
        ("dies", "fatal: no licence was found"),
        ("garbage", "Welcome to the interactive mode!"),
        ("sessionless", "its answer to session/new is none: missing field `sessionId`"),
        ("mute", "said nothing for 3 s as it was started: does it speak ACP on its standard input and output?"),
    ] {
        never_starts(&product, mode, words).await;
    }
    // One that falls silent at work and has asked its model would be paid for the same again: the person says whether.
    let task = product.external_with_retries(spec(&product, "spends"), 3).await;
    let record = product.ended(task).await;
    assert_eq!((record.status, record.retries), (TaskStatus::Failed, 0), "{}", record.reason);
    assert_eq!(product.failed_with(task), json!(Code::TimedOut), "{}", record.reason);
    let ledger: Ledger = product.client.query("/llm/ledger", &[("task", &task.to_string())]).await.expect("there is one");
    assert_eq!((ledger.calls.len(), record.hint.contains("helix task retry")), (1, true), "{}", record.hint);
    // Silence of one that has asked nothing is no proof: the machine may be busy, or have been frozen. It is tried again.
    let task = product.external_with_retries(spec(&product, "hangs"), 1).await;
    let record = product.ended(task).await;
    assert_eq!((record.status, record.retries), (TaskStatus::Failed, 1), "{}", record.reason);
    assert!(record.reason.contains("said nothing for 3 s in the middle of its turn"), "{}", record.reason);
    assert_eq!(product.failed_with(task), json!(Code::TimedOut), "{}", record.reason);
    // A program that is run once for each turn never starts in the same way.
    let mut once = spec(&product, "plain");
    let program = once.program.as_mut().expect("it has one");
    program.speaks = helix_protocol::Speaks::Command;
    program.command = "echo 'unknown option --frobnicate' >&2; exit 2".to_owned();
    let task = product.external_with_retries(once, 3).await;
    let record = product.ended(task).await;
    assert_eq!((record.status, record.retries), (TaskStatus::Failed, 0), "{}", record.reason);
    assert!(record.reason.contains("ended with exit code 2") && record.reason.contains("--frobnicate"), "{}", record.reason);
    assert_eq!(product.failed_with(task), json!(Code::AgentNotStarted));
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_at_work_is_tried_again_and_what_cannot_be_understood_fails_its_turn() {
    let product = with_gateway(Setup::workers(1)).await;
    let task = product.external_with_retries(spec(&product, "dies-once"), 1).await;
    product.completed(task).await;
    let retried = product.oracle.heard_of(task).into_iter().filter(|event| event.event.kind == EventKind::StepFailed);
    let codes: Vec<_> = retried.map(|event| event.event.detail["code"].clone()).collect();
    assert_eq!(codes, [json!(Code::AgentFailed)]);
    for (mode, words) in
        [("endless", "its answer to session/prompt is none: missing field `stopReason`"), ("huge", "longer than 32 MiB")]
    {
        let task = product.external(spec(&product, mode)).await;
        let record = product.ended(task).await;
        assert_eq!(record.status, TaskStatus::Failed, "{mode}");
        assert!(record.reason.contains(words), "{mode}: {}", record.reason);
        assert!(product.steps(task).await.iter().all(|step| step.files_changed == 0), "{mode}");
    }
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_updates_is_kept_as_far_as_there_is_room_and_nonsense_between_messages_is_passed_over() {
    let product = with_gateway(Setup::workers(1)).await;
    let task = product.external(spec(&product, "floods")).await;
    product.completed(task).await;
    let said = product.said(task).await.remove(0);
    // 96 MiB came; the bounds of a transcript are a mebibyte of words, and as much again of marks for what is left out.
    assert!(said.len() < 4 << 20 && said.contains("left out"), "{} bytes, ending in {:?}", said.len(), &said[said.len() - 200..]);
    assert_eq!(product.steps(task).await.len(), 1);

    let task = product.external(spec(&product, "babbles")).await;
    product.completed(task).await;
    assert!(product.said(task).await[0].contains("Turn 1 of my session"), "{:?}", product.said(task).await);
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_goes_on_after_its_turn_was_cancelled_is_ended_and_its_question_is_asked() {
    let product = with_gateway(Setup::workers(1)).await;
    let asking = ExternalSpec { approval: Approval::Suggest, ..spec(&product, "stubborn") };
    let task = product.external(asking).await;
    product.until("it asks", async || !product.questions(task).await.is_empty()).await;
    let question = product.questions(task).await.remove(0);
    assert!(question.text.contains("edit\n- write made.txt\n"), "{}", question.text);
    product.until("it is parked", async || product.record(task).await.worker.is_none()).await;
    assert_eq!(product.keys().await, 0);
    assert_eq!(product.steps(task).await.len(), 1, "what it did before its question is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_cancelled_ends_its_hanging_agent_at_once() {
    let product = with_gateway(Setup::workers(1)).await;
    let task = product.external(spec(&product, "hangs")).await;
    product.until("the turn is under way", async || product.folder().join("begun").exists()).await;
    let worker = product.record(task).await.worker.expect("it has one");
    let folder = product.worker_folder(&product.worker(worker).await.record.name).join("tasks");
    let agents = || processes_in(&folder).into_iter().filter(|seen| seen.line.contains("agent.py")).count();
    assert!(agents() > 0, "it runs there");
    let cancelled = Instant::now();
    let _: TaskRecord = product.client.post(&format!("/tasks/{task}/cancel"), &json!({})).await.expect("taken");
    assert_eq!(product.ended(task).await.status, TaskStatus::Cancelled);
    product.until("the agent is gone", async || agents() == 0).await;
    assert!(cancelled.elapsed() < Duration::from_secs(20), "{:?}", cancelled.elapsed());
    product.until("its key is gone", async || product.keys().await == 0).await;
}
