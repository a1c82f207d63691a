//! Agents that people already have: a turn of one is a step, and nothing of it is lost, made twice or paid by nobody.
//!
//! The agent is `tests/harness/agent.py`, which speaks the Agent Client Protocol and misbehaves on demand.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use helix_adapter_http::api::{AnswerRequest, KeyList, Ledger, LogPage, QuestionList};
use helix_protocol::{
    AgentProgram, Approval, Budget, CallOutcome, ExternalSpec, Question, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};
use serde_json::json;

use crate::harness::{HELIX, Product, Setup, Signal, Verdict, scenario, transcript};

const AGENT: &str = include_str!("../harness/agent.py");

/// What starts the agent.
fn command(product: &Product, mode: &str) -> String {
    let program = product.folder().join("agent.py");
    std::fs::write(&program, AGENT).expect("the folder is writable");
    format!("exec python3 {} {mode} {}", program.display(), product.folder().display())
}

pub fn spec(product: &Product, mode: &str) -> ExternalSpec {
    let pairs =
        [("HOME", "{session}/home"), ("OPENAI_BASE_URL", "{gateway}/v1"), ("OPENAI_API_KEY", "{key}"), ("HELIX_MODEL", "{model}")];
    let environment = BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let program = AgentProgram { command: command(product, mode), environment, ..AgentProgram::default() };
    ExternalSpec { program: Some(program), ..ExternalSpec::new("fake", "make a file") }
}

impl Product {
    pub async fn external(&self, spec: ExternalSpec) -> TaskId {
        self.create(TaskSpec { max_retries: Some(0), ..TaskSpec::new("external", TaskWork::External(spec)) }).await
    }

    /// What the agent said in each step.
    pub async fn said(&self, task: TaskId) -> Vec<String> {
        let page = self.client.get::<LogPage>(&format!("/tasks/{task}/log")).await.expect("there is a log");
        page.steps.into_iter().map(|step| step.said).collect()
    }

    pub async fn questions(&self, task: TaskId) -> Vec<Question> {
        self.client.get::<QuestionList>(&format!("/tasks/{task}/questions")).await.expect("they are listed").questions
    }

    /// How many keys the records have.
    pub async fn keys(&self) -> usize {
        self.client.get::<KeyList>("/keys").await.expect("they are listed").keys.len()
    }
}

/// A product whose gateway listens.
pub async fn with_gateway(setup: Setup) -> Product {
    with_gateway_before(setup, i_am_the_model()).await
}

pub fn i_am_the_model() -> Vec<serde_json::Value> {
    let answer = json!({"text": "I am the model.", "usage": {"input_tokens": 900, "output_tokens": 40}});
    vec![scenario("over the gateway", [answer])]
}

/// The same, with a model that answers so.
pub async fn with_gateway_before(setup: Setup, answers: Vec<serde_json::Value>) -> Product {
    setup.model(transcript(answers)).set("gateway.listen", format!("127.0.0.1:{}", free_port())).start().await
}

/// Free a moment ago; nobody else here asks for this one by name.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_a_step_with_files_and_transcript_and_the_next_turn_takes_the_session_up() {
    let product = with_gateway(Setup::workers(1)).await;
    let verify = Some("test $(wc -l < made.txt) = 2".to_owned());
    let task = product.external(ExternalSpec { verify, ..spec(&product, "plain") }).await;
    product.completed(task).await;
    let steps = product.steps(task).await;
    assert_eq!(steps.len(), 2, "the check failed once");
    assert!(steps.iter().all(|step| step.files_changed > 0), "{steps:?}");
    let said = product.said(task).await;
    assert!(said[0].contains("Turn 1 of my session. I was told: make a file"), "{said:?}");
    assert!(said[1].contains("Turn 2 of my session. I was told: ") && said[1].contains("made.txt"), "{said:?}");
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_runs_an_agent_by_its_command() {
    let product = with_gateway(Setup::workers(1)).await;
    let mut run = Command::new(HELIX);
    run.args(["run", "make a file", "--agent-command", &command(&product, "plain"), "--data"]);
    run.arg(product.node.folder().root());
    let output = tokio::task::spawn_blocking(move || run.output().expect("it runs")).await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Turn 1 of my session"), "{said}");

    let mut cut_off = Command::new(HELIX);
    cut_off.args(["--json", "run", "make a file", "--agent-command", "agent", "--own-models", "--network", "none", "--data"]);
    cut_off.arg(product.node.folder().root());
    let output = tokio::task::spawn_blocking(move || cut_off.output().expect("it runs")).await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--network host"), "{said}");

    let mut unknown = Command::new(HELIX);
    unknown.args(["--json", "run", "make a file", "--agent", "nobody", "--data"]).arg(product.node.folder().root());
    let output = tokio::task::spawn_blocking(move || unknown.output().expect("it runs")).await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("no agent is called") && said.contains("claude-acp"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_is_a_question_and_its_answer_lets_the_agent_go_on() {
    let product = with_gateway(Setup::workers(1)).await;
    let asking = ExternalSpec { approval: Approval::Suggest, ..spec(&product, "asks") };
    let task = product.external(asking).await;
    product.until("it asks", async || !product.questions(task).await.is_empty()).await;
    let question = product.questions(task).await.remove(0);
    assert!(question.text.contains("edit\n- write made.txt\n") && question.text.contains("\"path\""), "{}", question.text);
    product.until("it is parked", async || product.record(task).await.worker.is_none()).await;
    let answer = AnswerRequest { answer: "yes".to_owned() };
    let _: TaskRecord = product.client.post(&format!("/questions/{}/answer", question.id), &answer).await.expect("answered");
    product.completed(task).await;
    let said = product.said(task).await;
    assert!(said.len() == 2 && said[1].contains("It is allowed now"), "{said:?}");
    let log = product.client.get::<LogPage>(&format!("/tasks/{task}/log")).await.expect("there is a log");
    assert!(log.steps.iter().all(|step| step.thought == "I ask first." && !step.said.contains(&step.thought)), "{log:?}");
    assert_eq!(product.questions(task).await.len(), 1, "it was asked once");

    let task = product.external(spec(&product, "asks")).await;
    product.completed(task).await;
    assert_eq!(product.steps(task).await.len(), 1, "a policy that allows everything asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_call_through_the_gateway_is_the_tasks_spend_and_its_key_ends_with_the_turn() {
    let product = with_gateway(Setup::workers(1)).await;
    let task = product.external(spec(&product, "model")).await;
    product.completed(task).await;
    assert!(product.said(task).await[0].contains("The model says: I am the model."), "{:?}", product.said(task).await);
    let spend = product.steps(task).await[0].spend;
    assert_eq!((spend.model_calls, spend.tokens, product.record(task).await.tokens), (1, 940, 940));
    let ledger: Ledger = product.client.query("/llm/ledger", &[("task", &task.to_string())]).await.expect("there is one");
    assert_eq!((ledger.calls.len(), ledger.spent.tokens), (1, 940));
    assert!(ledger.calls[0].key.is_some() && ledger.calls[0].outcome == CallOutcome::Answered, "{:?}", ledger.calls[0]);
    assert_eq!((ledger.calls[0].task, ledger.calls[0].step), (Some(task), Some(1)));

    let key = std::fs::read_to_string(product.folder().join("key")).expect("the agent left it");
    assert!(key.starts_with("helix-"), "{key}");
    let listen = gateway_of(product.folder());
    let body = json!({"model": "scripted", "messages": [{"role": "user", "content": "over the gateway"}]});
    let url = format!("http://{listen}/v1/chat/completions");
    let late = reqwest::Client::new().post(url).bearer_auth(key).json(&body).send().await.expect("the gateway answers");
    assert_eq!(late.status(), 401, "the key is dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_entered_for_the_step_whose_turn_made_it() {
    let product = with_gateway(Setup::workers(1)).await;
    let verify = Some("test $(wc -l < made.txt) = 2".to_owned());
    let task = product.external(ExternalSpec { verify, ..spec(&product, "model") }).await;
    product.completed(task).await;
    let ledger: Ledger = product.client.query("/llm/ledger", &[("task", &task.to_string())]).await.expect("there is one");
    let mut entered: Vec<_> = ledger.calls.iter().map(|call| (call.step, call.usage.total_tokens())).collect();
    entered.sort_unstable();
    let steps = product.steps(task).await;
    let charged: Vec<_> = steps.iter().map(|step| (Some(step.ordinal), step.spend.tokens)).collect();
    assert_eq!((entered, steps.len()), (charged, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_call_is_refused_at_a_days_limit_has_its_task_ask_and_goes_over_it_where_that_is_allowed() {
    let product = with_gateway(Setup::workers(1).set("budgets.project_daily_tokens", 100)).await;
    let verify = Some("test $(wc -l < made.txt) = 2".to_owned());
    let task = product.external(ExternalSpec { verify, ..spec(&product, "model") }).await;
    let question = product.parked_with(task).await;
    let record = product.record(task).await;
    assert!(record.reason.contains("today's limit for the project of 100 tokens"), "{}", record.reason);
    assert_eq!((record.retries, record.tokens), (0, 0));
    assert!(product.steps(task).await.is_empty(), "whatever the agent made of it, nothing is committed");
    assert_eq!(product.keys().await, 0);
    product.answer(&question, "yes").await;
    product.completed(task).await;
    assert!(product.record(task).await.tokens > 100);
}

fn gateway_of(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("helix.yaml")).expect("it was written");
    let config: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    config["gateway"]["listen"].as_str().expect("it listens").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_turn_spent_is_gone_from_its_tasks_budget() {
    let answer = json!({"text": "I am the model.", "usage": {"input_tokens": 19_900, "output_tokens": 40}});
    let product = with_gateway_before(Setup::workers(2), vec![scenario("over the gateway", [answer])]).await;
    let work = TaskWork::External(spec(&product, "spends"));
    let budget = Budget { money: None, tokens: Some(20_000) };
    let task = product.create(TaskSpec { budget, ..TaskSpec::new("external", work) }).await;
    product.until("the turn has spent", async || product.folder().join("begun").exists()).await;
    let worker = product.record(task).await.worker.expect("it has one");
    product.signal(worker, Signal::KILL).await;
    product.until("it asks", async || product.record(task).await.status == TaskStatus::WaitingForInput).await;
    assert!(product.questions(task).await[0].text.starts_with("out of budget: "), "{:?}", product.questions(task).await);
    let ledger: Ledger = product.client.query("/llm/ledger", &[("task", &task.to_string())]).await.expect("there is one");
    assert_eq!((ledger.calls.len(), ledger.spent.tokens), (1, 19_940), "the next turn's key has what is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_turn_costs_no_step_and_doubles_none() {
    let product = with_gateway(Setup::workers(2)).await;
    let verify = Some("test $(wc -l < made.txt) = 2".to_owned());
    let task = product.external(ExternalSpec { verify, ..spec(&product, "slow") }).await;
    product.until("the second turn is under way", async || product.folder().join("begun").exists()).await;
    let worker = product.record(task).await.worker.expect("it has one");
    product.signal(worker, Signal::KILL).await;
    product.completed(task).await;
    let steps = product.steps(task).await;
    assert_eq!(steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [1, 2]);
    assert_ne!(steps[1].worker, Some(worker), "another worker made it again");
    let said = product.said(task).await;
    assert!(said[1].contains("Turn 2 of my session"), "it took up the session of its first turn: {said:?}");
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));
}
