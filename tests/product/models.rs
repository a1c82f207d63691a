//! A model server that fails in every way: the task completes, waits until somebody answers, or until a person mends something, or
//! ends with a code and its conversation whole.

use std::process::{Command, Stdio};

use helix::scripted::{Fault, FaultKind, read_log};
use helix_adapter_http::api::SystemStatus;
use helix_messages::{ResumeTask, TaskWhy};
use helix_protocol::{AgentSpec, Code, EventKind, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork};
use serde_json::{Value, json};

use crate::harness::{HELIX, Product, Setup, Verdict, diligent, scenario, transcript};

/// A product whose model is given up soon, after so many repetitions of a call.
async fn impatient(repetitions: u32) -> Product {
    let setup = Setup::workers(1).model(transcript([diligent("diligent", 3, 0)]));
    setup.set("llm.provider.idle_timeout_ms", 400).set("llm.provider.max_retries", repetitions).start().await
}

fn faults() -> Vec<(FaultKind, &'static str)> {
    vec![
        (FaultKind::Status { status: 429, retry_after_s: Some(0.2) }, "model_failed"),
        (FaultKind::Status { status: 500, retry_after_s: None }, "model_failed"),
        (FaultKind::Garbage, "model_garbage"),
        (FaultKind::Cut { after: 3 }, "model_failed"),
        (FaultKind::Hang, "model_failed"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_server_that_fails_once_costs_a_task_nothing_but_time() {
    let product = impatient(2).await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    for (kind, _) in faults() {
        let mut trail = product.oracle.trail();
        let task = product.agent("diligent, with a poor model").await;
        trail.until_kind(task, EventKind::StepCompleted).await;
        let name = format!("{kind:?}");
        product.model.as_ref().expect("it is scripted").order(Fault { kind, times: 1 });
        assert_eq!(product.completed(task).await, tree, "{name}");
    }
    assert_eq!(product.judge().await, Verdict { uncertain_calls: uncertain().len(), ..Verdict::default() });
}

/// What may have been billed, so that it is not asked for again by itself.
fn uncertain() -> Vec<(FaultKind, &'static str)> {
    faults().into_iter().filter(|(kind, _)| !matches!(kind, FaultKind::Status { .. })).collect()
}

/// The code of a task's last failure.
fn code(product: &Product, task: TaskId) -> Value {
    let heard = product.oracle.heard_of(task);
    let failed = heard.iter().rev().find(|event| event.event.kind == EventKind::TaskFailed).expect("it failed");
    failed.event.detail["code"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_server_that_keeps_failing_ends_the_task_with_its_code_and_a_retry_goes_on_from_the_last_step() {
    // A provider that fails too often in a row is left alone for a while: a product for each fault, all at once.
    let tests = uncertain().into_iter().map(|(kind, expected)| async move {
        let product = impatient(0).await;
        let undisturbed = product.agent("diligent, in peace").await;
        let tree = product.completed(undisturbed).await;
        let name = format!("{kind:?}");
        let mut trail = product.oracle.trail();
        let task = product.agent("diligent, with a poor model").await;
        trail.until_kind(task, EventKind::StepCompleted).await;
        let model = product.model.as_ref().expect("it is scripted");
        model.order(Fault { kind, times: u32::MAX });
        let record = product.ended(task).await;
        assert_eq!((record.status, code(&product, task)), (TaskStatus::Failed, json!(expected)), "{name}: {}", record.reason);
        let kept = product.steps(task).await;

        let admin = format!("http://{}/admin/faults", model.addr());
        assert!(reqwest::Client::new().delete(admin).send().await.expect("the model server answers").status().is_success());
        let retried: TaskRecord =
            product.client.post(&format!("/tasks/{task}/retry"), &json!({})).await.expect("it is tried again");
        assert_eq!(retried.id, task);
        trail.until_kind(task, EventKind::TaskCompleted).await;
        assert_eq!(product.tree(task).await, tree, "{name}");
        let line = product.steps(task).await;
        assert_eq!(line[0].id, kept[0].id, "{name}: it went on from its first step");
        let short: Vec<_> = line.iter().map(|step| (step.ordinal, step.epoch.0, step.outcome)).collect();
        let tried = 1 + record.retries as usize;
        let verdict = Verdict { uncertain_calls: tried, ..Verdict::default() };
        assert_eq!(product.judge().await, verdict, "{name}: {short:?}");
    });
    futures::future::join_all(tests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_only_model_is_away_waits_for_it_says_why_and_uses_no_retry() {
    let tests = [500, 429].map(|status| async move {
        let product = impatient(0).await;
        let undisturbed = product.agent("diligent, in peace").await;
        let tree = product.completed(undisturbed).await;
        let mut trail = product.oracle.trail();
        let agent = AgentSpec { max_steps: 60, ..AgentSpec::new("diligent, with a poor model") };
        let spec = TaskSpec { max_retries: Some(0), ..TaskSpec::new("poor", TaskWork::Agent(agent)) };
        let task = product.create(spec).await;
        trail.until_kind(task, EventKind::StepCompleted).await;
        let model = product.model.as_ref().expect("it is scripted");
        model.order(Fault { kind: FaultKind::Status { status, retry_after_s: Some(0.2) }, times: u32::MAX });
        let waits = |record: &TaskRecord| record.status == TaskStatus::Pending && record.reason.starts_with("waiting for a model");
        product.until("the task waits", async || waits(&product.record(task).await)).await;
        let why: TaskWhy = product.client.get(&format!("/tasks/{task}/why")).await.expect("it is explained");
        assert!(why.reason.contains("asked again in") && why.reason.contains("a fault that was ordered"), "{}", why.reason);
        let next = why.next.join("; ");
        assert!(why.workers.is_empty() && next.contains("helix status") && next.contains("no_model_answers"), "{next}");
        // It is asked again and again, and still waits: of no retries none was used.
        let asked = || read_log(model.log()).expect("the log can be read").len();
        let before = asked();
        product.until("the model is asked again", async || asked() > before + 1).await;
        product.until("the task waits", async || waits(&product.record(task).await)).await;
        let record = product.record(task).await;
        assert_eq!((record.retries, record.worker), (0, None), "{}", record.reason);
        let outage = async || {
            let status: SystemStatus = product.client.get("/system/status").await.expect("the node tells its status");
            // The provider's, or where the model's limits are used up the model's own.
            status.circuits.into_iter().find_map(|told| told.circuit.outage().cloned())
        };
        product.until("the circuit of the model's server opens", async || outage().await.is_some()).await;
        let failure = outage().await.expect("it has not answered since").failure;
        assert!(failure.code == Code::ModelFailed && failure.message.contains("a fault that was ordered"), "{failure}");

        let admin = format!("http://{}/admin/faults", model.addr());
        assert!(reqwest::Client::new().delete(admin).send().await.expect("the model server answers").status().is_success());
        assert_eq!(product.completed(task).await, tree, "{status}: it goes on by itself");
        assert_eq!(product.judge().await, Verdict::default(), "{status}");
    });
    futures::future::join_all(tests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_key_is_refused_parks_says_what_to_mend_and_goes_on_from_its_last_step() {
    let product = impatient(0).await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let mut trail = product.oracle.trail();
    let task = product.agent("diligent, with a poor model").await;
    trail.until_kind(task, EventKind::StepCompleted).await;
    let model = product.model.as_ref().expect("it is scripted");
    model.order(Fault { kind: FaultKind::Status { status: 401, retry_after_s: None }, times: u32::MAX });
    product.until("the task parks", async || product.record(task).await.status == TaskStatus::WaitingForInput).await;
    let parked = product.record(task).await;
    let begins = "no model takes its calls: scripted answered 401: a fault that was ordered (model_refused); ";
    assert!(parked.reason.starts_with(begins) && parked.reason.ends_with(". Is it mended?"), "{}", parked.reason);
    let kept = product.steps(task).await;

    // Who starts one with such a key, and is no person at a terminal, is told and not kept waiting.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut run = Command::new(HELIX);
    run.arg("--data").arg(product.node.folder().root()).args(["--json", "run", "diligent, with a poor model"]);
    run.current_dir(elsewhere.path()).stdin(Stdio::null());
    let run = tokio::task::block_in_place(|| run.output()).expect("the program runs");
    let told = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(7), "{told}");
    assert!(told.contains("no model takes its calls: ") && told.contains("`helix task resume "), "{told}");

    let admin = format!("http://{}/admin/faults", model.addr());
    assert!(reqwest::Client::new().delete(admin).send().await.expect("the model server answers").status().is_success());
    let _: TaskRecord = product.client.post(&format!("/tasks/{task}/resume"), &ResumeTask::default()).await.expect("it is resumed");
    assert_eq!(product.completed(task).await, tree);
    assert_eq!(product.steps(task).await[0].id, kept[0].id, "it went on from its last step");
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_misuses_its_tools_is_told_and_one_that_comes_to_nothing_is_stopped() {
    let call = |tool: &str, arguments: Value| json!({"tool": tool, "arguments": arguments});
    let misuse = [call("frobnicate", json!({})), call("read", json!("{\"path\": ")), call("read", json!({"file": 3}))];
    let again = json!({"text": "I look again.", "calls": [call("shell", json!({"command": "echo the same"}))]});
    let product = Setup::workers(1)
        .model(transcript([
            scenario("misuse", [json!({"text": "I try.", "calls": misuse}), json!({"text": "I see."})]),
            scenario("forever", std::iter::repeat_n(again, 40)),
            scenario("nothing", [json!({"text": ""})]),
        ]))
        .start()
        .await;

    let task = product.agent("misuse your tools").await;
    product.completed(task).await;
    let steps = product.steps(task).await;
    assert_eq!((steps.len(), steps.iter().map(|step| step.files_changed).sum::<u64>()), (2, 0), "{steps:?}");
    let ran = product.oracle.heard_of(task).into_iter().filter(|event| event.event.kind == EventKind::ToolStarted);
    assert_eq!(ran.count(), 1, "arguments for another schema are judged where the tool is, and the others reach nobody");

    for (prompt, steps, words) in
        [("go on forever", 6, "goes round in circles"), ("say nothing", 3, "an empty answer 3 times in a row")]
    {
        let agent = AgentSpec { max_steps: 60, ..AgentSpec::new(prompt) };
        let spec = TaskSpec { max_retries: Some(0), ..TaskSpec::new(prompt, TaskWork::Agent(agent)) };
        let task = product.create(spec).await;
        let record = product.ended(task).await;
        assert_eq!((record.status, record.steps), (TaskStatus::Failed, steps), "{prompt}: {}", record.reason);
        assert!(record.reason.contains(words), "{prompt}: {}", record.reason);
    }
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codebase_of_two_million_tokens_is_asked_about_whole_and_one_too_long_is_refused_before_it_is_sent() {
    let script = scenario("read all of it", [json!({"text": "I have read it."})]);
    let setup = Setup::workers(1).model(transcript([script])).set("llm.provider.context_tokens", 2_000_000);
    let product = setup.start().await;
    let prompt = |mebibytes: usize| format!("read all of it\n{}", "fn f() {}\n".repeat((mebibytes << 20) / 10));
    let spec = |mebibytes| TaskSpec::new("reads", TaskWork::Agent(AgentSpec::new(prompt(mebibytes))));
    let task = product.create(spec(8)).await;
    product.completed(task).await;
    let too_long = product.create(spec(14)).await;
    assert_eq!(product.ended(too_long).await.status, TaskStatus::Failed);
    assert_eq!(code(&product, too_long), Code::ContextOverflow.as_str());
    let asked = read_log(product.model.as_ref().expect("it is scripted").log()).expect("its log");
    assert_eq!(asked.len(), 1, "what no model takes is not sent");
}
