//! What a person says to an agent that runs: one turn reads it, whatever dies meanwhile, and the task does not end before.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use helix::scripted::read_log;
use helix_adapter_http::api::{RemarkList, SayRequest};
use helix_protocol::{
    AgentSpec, Approval, Code, EventKind, RemarkId, SecretRef, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};
use serde_json::json;

use crate::harness::{HELIX, Product, Setup, Signal, Verdict, command_spec, diligent, scenario, transcript};

const WORDS: &str = "leave the tests as they are";

impl Product {
    pub async fn say(&self, task: TaskId, text: &str) {
        let said = SayRequest { text: text.to_owned(), id: Some(RemarkId::new()) };
        let path = format!("/tasks/{task}/say");
        let once: TaskRecord = self.client.post(&path, &said).await.expect("it is taken");
        let twice: TaskRecord = self.client.post(&path, &said).await.expect("said again, it is said once");
        assert_eq!((once.id, twice.id), (task, task));
    }

    /// Attaches to a task, types a line, and shows what was printed until the task had completed.
    async fn type_into_attach(&self, task: TaskId, line: &str) -> String {
        let mut attach = Command::new(HELIX);
        attach.args(["attach", &task.to_string(), "--stdin", "--data"]).arg(self.node.folder().root());
        attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut attached = attach.spawn().expect("the program runs");
        writeln!(attached.stdin.as_mut().expect("piped"), "{line}").expect("it reads");
        let output = tokio::task::spawn_blocking(move || attached.wait_with_output().expect("it ends")).await.expect("no panic");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    /// Holds what was said against what the model was sent: each remark at most once in a request, and from its turn on in each.
    async fn heard_once(&self, task: TaskId, texts: &[&str]) {
        let remarks = self.client.get::<RemarkList>(&format!("/tasks/{task}/remarks")).await.expect("they are listed").remarks;
        assert_eq!(remarks.iter().map(|remark| remark.text.as_str()).collect::<Vec<_>>(), texts);
        let steps = self.steps(task).await;
        for remark in &remarks {
            assert!(steps.iter().any(|step| Some(step.id) == remark.step), "{remark:?} was heard by a step of the line");
        }
        let log = read_log(self.model.as_ref().expect("it is scripted").log()).expect("the log can be read");
        let mut requests: Vec<_> = log.iter().filter(|line| line.completed).collect();
        requests.sort_by_key(|line| line.turn);
        for text in texts {
            let times: Vec<usize> =
                requests.iter().map(|line| line.said.iter().filter(|said| said.as_str() == *text).count()).collect();
            assert!(times.is_sorted() && times.last() == Some(&1), "{text:?}: {times:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_a_running_agent_is_read_at_its_next_turn_and_shown() {
    let product = Setup::workers(1).model(transcript([diligent("diligent", 4, 200)])).start().await;
    let mut trail = product.oracle.trail();
    let task = product.agent("diligent").await;
    trail.until_kind(task, EventKind::StepCompleted).await;
    product.say(task, WORDS).await;
    product.say(task, "and hurry").await;
    product.completed(task).await;
    product.heard_once(task, &[WORDS, "and hurry"]).await;
    let told = product.oracle.heard_of(task).into_iter().filter(|event| event.event.kind == EventKind::TaskSaid);
    assert_eq!(told.map(|event| event.event.message).collect::<Vec<_>>(), [WORDS, "and hurry"]);
    assert_eq!(product.judge().await, Verdict::default());
    let late = SayRequest { text: WORDS.to_owned(), id: None };
    let refused = product.client.post::<TaskRecord>(&format!("/tasks/{task}/say"), &late).await.expect_err("it has ended");
    assert_eq!(refused.code, Code::InvalidState);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_survives_the_death_of_the_node_and_of_the_worker_and_is_read_once() {
    let mut product = Setup::workers(2).patient_leases().model(transcript([diligent("diligent", 6, 300)])).start().await;
    let mut trail = product.oracle.trail();
    let task = product.agent("diligent").await;
    trail.until_kind(task, EventKind::StepCompleted).await;
    product.say(task, "first").await;
    product.kill_node();
    product.start_node_again();
    trail.until_kind(task, EventKind::StepCompleted).await;
    product.say(task, "second").await;
    let worker = product.record(task).await.worker;
    if let Some(worker) = worker {
        product.signal(worker, Signal::KILL).await;
    }
    product.completed(task).await;
    product.heard_once(task, &["first", "second"]).await;
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_does_not_end_before_it_has_read_what_was_said_during_its_last_turn() {
    let turns = [json!({"text": "I am done.", "delay_ms": 1_000}), json!({"text": "I leave them."})];
    let product = Setup::workers(1).model(transcript([scenario("short", turns)])).start().await;
    let mut trail = product.oracle.trail();
    let task = product.agent("short").await;
    trail.until_kind(task, EventKind::ModelCalled).await;
    product.say(task, WORDS).await;
    product.completed(task).await;
    assert_eq!(product.steps(task).await.len(), 2, "one turn more");
    product.heard_once(task, &[WORDS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_before_the_first_turn_does_not_take_the_place_of_the_task() {
    let turns = [json!({"text": "I am done."}), json!({"text": "I leave them."})];
    let product = Setup::workers(1).model(transcript([scenario("short", turns)])).start().await;
    let before = product.command(&["sleep 2"]).await;
    let agent = TaskWork::Agent(AgentSpec::new("short"));
    let task = product.create(TaskSpec { depends_on: vec![before], ..TaskSpec::new("short", agent) }).await;
    product.say(task, WORDS).await;
    product.completed(task).await;
    assert_eq!(product.steps(task).await.len(), 2, "it is answered before the task ends");
    product.heard_once(task, &[WORDS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_its_reason_that_is_typed_into_attach_answers_the_question() {
    const REASON: &str = "no, use make clean";
    let turns = [
        json!({"text": "I clean.", "calls": [{"tool": "shell", "arguments": {"command": "rm -rf target"}}]}),
        json!({"text": "I leave it.", "expect": REASON}),
    ];
    let product = Setup::workers(1).model(transcript([scenario("clean it", turns)])).start().await;
    let agent = AgentSpec { approval: Approval::AutoEdit, ..AgentSpec::new("clean it") };
    let task = product.create(TaskSpec::new("asks", TaskWork::Agent(agent))).await;
    product.parked_with(task).await;
    product.type_into_attach(task, REASON).await;
    let answers: Vec<_> = product.questions(task).await.into_iter().map(|question| question.answer).collect();
    assert_eq!(answers, [Some(REASON.to_owned())]);
    product.heard_once(task, &[]).await;
    assert_eq!(product.record(task).await.status, TaskStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_typed_into_attach_reaches_the_agent_and_a_command_hears_nobody() {
    let product = Setup::workers(1).model(transcript([diligent("diligent", 5, 300)])).start().await;
    let task = product.agent("diligent").await;
    let said = product.type_into_attach(task, &format!("  {WORDS}  ")).await;
    assert!(said.contains(&format!("said       cli: {WORDS}")), "{said}");
    product.heard_once(task, &[WORDS]).await;

    let command = product.create(command_spec(&["sleep 5"])).await;
    let mut say = Command::new(HELIX);
    say.args(["--json", "task", "say", &command.to_string(), WORDS, "--data"]).arg(product.node.folder().root());
    let refused = tokio::task::spawn_blocking(move || say.output().expect("it runs")).await.expect("no panic");
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    let cancelled: TaskRecord = product.client.post(&format!("/tasks/{command}/cancel"), &json!({})).await.expect("given up");
    assert_eq!(cancelled.status, TaskStatus::Cancelled);
}

/// What an attached program prints, as it prints it.
struct Attached {
    program: std::process::Child,
    output: std::process::ChildStdout,
    printed: String,
}

impl Product {
    fn attach(&self, task: TaskId, options: &[&str]) -> Attached {
        let mut attach = Command::new(HELIX);
        attach.args(["attach", &task.to_string(), "--data"]).arg(self.node.folder().root()).args(options);
        let mut program = attach.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program runs");
        let output = program.stdout.take().expect("piped");
        Attached { program, output, printed: String::new() }
    }
}

impl Attached {
    /// Reads until `text` was printed.
    async fn until(mut self, text: &'static str) -> Self {
        let read = move || {
            let mut buffer = [0; 4_096];
            while !self.printed.contains(text) {
                let read = self.output.read(&mut buffer).expect("a pipe can be read");
                assert!(read > 0, "it ended without {text:?}: {}", self.printed);
                self.printed.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
            self
        };
        tokio::task::spawn_blocking(read).await.expect("no panic")
    }

    /// What it had printed when it ended with its task.
    async fn ended(mut self) -> String {
        let rest = tokio::task::spawn_blocking(move || {
            let read = self.output.read_to_string(&mut self.printed).expect("it prints text");
            assert!(self.program.wait().expect("it ends").success(), "{read} bytes more: {}", self.printed);
            self.printed
        });
        rest.await.expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_says_is_shown_as_it_comes_once_and_without_secrets() {
    const SECRET: &str = "hunter2-and-more";
    let said = format!("I begin at once, and this is longer than what the line of a step shows.\nThe password is {SECRET}, see?");
    let mut script = transcript([scenario("speak", [json!({"text": said})])]);
    script["chunk_ms"] = json!(150);
    script["piece"] = json!(4);
    let product = Setup::workers(1).model(script).start().await;
    let file = product.node.folder().root().join("password");
    std::fs::write(&file, SECRET).expect("written");
    let mut spec = TaskSpec::new("speaks", TaskWork::Agent(AgentSpec::new("speak")));
    let source = format!("file:{}", file.display());
    spec.environment.secrets.push(SecretRef { variable: "PASSWORD".to_owned(), source });
    let task = product.create(spec).await;
    let spoken = product.attach(task, &["--words"]).until("I begin").await;
    let lines = product.attach(task, &["--words", "--json"]).until("model.said").await;
    let quiet = product.attach(task, &[]);
    assert_eq!((product.record(task).await.status, product.steps(task).await), (TaskStatus::Running, Vec::new()));
    product.completed(task).await;
    let (spoken, lines, quiet) = (spoken.ended().await, lines.ended().await, quiet.ended().await);
    let shown = said.replace(SECRET, "[secret]");
    assert!(spoken.contains(&format!("says\n{shown}\n")), "{spoken}");
    assert_eq!(spoken.matches("I begin at once").count(), 1, "{spoken}");
    assert!(!lines.contains("hunter2") && lines.contains("\"kind\":\"model.said\""), "{lines}");
    assert!(!quiet.contains("says\n") && quiet.contains("done: I begin at once"), "{quiet}");
    let kept = product.client.get::<serde_json::Value>(&format!("/tasks/{task}/log")).await.expect("it has a log");
    assert!(kept["steps"][0]["said"].as_str().is_some_and(|said| said.starts_with("I begin at once,")), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_after_words_were_shown_is_marked_and_made_anew() {
    let turn = json!({"text": "I say this in many small pieces.", "faults": [{"kind": "cut", "after": 6}]});
    let mut script = transcript([scenario("speak", [turn])]);
    script["chunk_ms"] = json!(100);
    script["piece"] = json!(4);
    let product = Setup::workers(1).model(script).start().await;
    let before = product.command(&["sleep 1"]).await;
    let agent = TaskWork::Agent(AgentSpec::new("speak"));
    let task = product.create(TaskSpec { depends_on: vec![before], ..TaskSpec::new("speaks", agent) }).await;
    let printed = product.attach(task, &["--words"]).ended().await;
    let (first, second) = printed.split_once("\n… the answer broke off\n").unwrap_or_else(|| panic!("no mark: {printed}"));
    assert!(first.contains("says\nI say"), "{printed}");
    assert!(second.contains("says\nI say this in many small pieces.\n"), "{printed}");
}
