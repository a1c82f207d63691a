//! The server through the real provider, and the demo's transcript carried out on the sample program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use helix_adapter_models::chat::ChatCompletions;
use helix_adapter_models::{HttpProvider, Settings};
use helix_ports::{Provider, ProviderError};
use helix_protocol::{Block, Code, Message, ModelReply, ModelRequest, Role, StopReason, Usage, WorkspaceTool};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::Answer;
use super::{Fault, FaultKind, SAMPLE, ScriptedServer, Transcript, demo, read_log, repeated_replies};

const TRANSCRIPT: &str = r#"
model: test
scenarios:
  - name: one
    phrase: Mend It
    turns:
      - text: I look.
        calls: [{ tool: read, arguments: { path: a } }, { tool: shell, arguments: "not json" }]
        usage: { input_tokens: 900, cached_tokens: 600, output_tokens: 40 }
      - text: Done.
        expect: "0 failed"
        otherwise: { text: Again., calls: [{ tool: shell, arguments: { command: ./run-tests } }] }
        faults: [{ kind: status, status: 429, retry_after_s: 2, times: 1 }]
"#;

fn request(messages: Vec<Message>) -> ModelRequest {
    ModelRequest {
        messages,
        tools: vec![WorkspaceTool::Read.schema()],
        max_tokens: 100,
        idempotency_key: Some("k".to_owned()),
        ..ModelRequest::default()
    }
}

fn opening(prompt: &str) -> Vec<Message> {
    vec![Message::text(Role::System, "s"), Message::text(Role::User, prompt)]
}

/// The conversation after `reply` and an answer of `content` to each of its calls.
fn continued(mut messages: Vec<Message>, reply: &ModelReply, content: &str) -> Vec<Message> {
    messages.push(Message { role: Role::Assistant, blocks: reply.blocks.clone() });
    let answer = |block: &Block| match block {
        Block::ToolUse { id, .. } => Some(Block::ToolResult {
            id: id.clone(),
            content: content.to_owned(),
            images: Vec::new(),
            is_error: false,
            extra: None,
        }),
        _ => None,
    };
    messages.push(Message { role: Role::User, blocks: reply.blocks.iter().filter_map(answer).collect() });
    messages
}

struct Running {
    server: ScriptedServer,
    provider: HttpProvider,
    _folder: tempfile::TempDir,
}

async fn running(transcript: &str) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let transcript = Transcript::parse(transcript).expect("a transcript");
    let addr = "127.0.0.1:0".parse().expect("an address");
    let server = ScriptedServer::start(transcript, addr, &folder.path().join("log")).await.expect("a server");
    let settings = Settings {
        base_url: server.base_url(),
        key_env: String::new(),
        model: "test".to_owned(),
        idle_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let provider = HttpProvider::new(settings, ChatCompletions::at("")).expect("a provider");
    Running { server, provider, _folder: folder }
}

impl Running {
    async fn ask(&self, messages: &[Message]) -> Result<ModelReply, ProviderError> {
        // Nobody looks at the pieces.
        let (deltas, _) = mpsc::channel(1);
        self.provider.generate_stream(&request(messages.to_vec()), deltas).await
    }
}

#[tokio::test]
async fn a_conversation_is_answered_by_where_it_stands_streamed_or_not() {
    let running = running(TRANSCRIPT).await;
    let start = opening("please mend it");
    let first = running.ask(&start).await.expect("an answer");
    let expected = ModelReply {
        model: "test".to_owned(),
        blocks: vec![
            Block::Text { text: "I look.".to_owned(), extra: None },
            Block::ToolUse { id: "call_0_0".to_owned(), name: "read".to_owned(), input: json!({"path": "a"}), extra: None },
            Block::ToolUse { id: "call_0_1".to_owned(), name: "shell".to_owned(), input: json!("not json"), extra: None },
        ],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 900, cached_tokens: 600, output_tokens: 40, ..Usage::default() },
    };
    assert_eq!(first, expected);
    assert_eq!(running.provider.generate(&request(start.clone())).await, Ok(expected));

    let then = continued(start.clone(), &first, "0 failed");
    match running.ask(&then).await {
        Err(ProviderError::Retryable { retry_after, .. }) => assert_eq!(retry_after, Some(Duration::from_secs(2))),
        other => panic!("{other:?}"),
    }
    let last = running.ask(&then).await.expect("the fault happens once");
    assert_eq!(
        (last.blocks.as_slice(), &last.stop),
        (&[Block::Text { text: "Done.".to_owned(), extra: None }][..], &StopReason::EndTurn)
    );
    assert!(running.provider.models().await.expect("a list").iter().any(|model| model.name == "test"));

    let lines = read_log(running.server.log()).expect("a log");
    let seen: Vec<(usize, u16, bool)> = lines.iter().map(|line| (line.turn, line.status, line.completed)).collect();
    assert_eq!(seen, [(0, 200, true), (0, 200, true), (1, 429, false), (1, 200, true)]);
    assert_eq!(repeated_replies(&lines), 2, "three whole answers under one key");
    running.server.stop().await;
}

#[tokio::test]
async fn every_fault_reaches_the_provider_as_what_it_is() {
    let running = running(TRANSCRIPT).await;
    let cases = [
        (FaultKind::Status { status: 500, retry_after_s: None }, "retryable", Code::ModelFailed),
        (FaultKind::Garbage, "uncertain", Code::ModelGarbage),
        (FaultKind::Page, "elsewhere", Code::ModelGarbage),
        (FaultKind::ErrorObject, "retryable", Code::ModelFailed),
        (FaultKind::Cut { after: 2 }, "uncertain", Code::ModelFailed),
        (FaultKind::Hang, "uncertain", Code::ModelFailed),
    ];
    for (kind, expected, code) in cases {
        running.server.order(Fault { kind: kind.clone(), times: 1 });
        let error = running.ask(&opening("mend it")).await.expect_err("a fault");
        let class = match &error {
            ProviderError::Retryable { .. } => "retryable",
            ProviderError::Uncertain(_) => "uncertain",
            ProviderError::Elsewhere(_) => "elsewhere",
            ProviderError::Final(_) => "final",
        };
        assert_eq!((class, error.failure().code), (expected, code), "{kind:?}: {error}");
    }
    let stopped = running.server.log().to_owned();
    running.server.stop().await;
    assert!(read_log(&stopped).expect("a log").iter().all(|line| !line.completed), "no whole answer was given");
}

#[tokio::test]
async fn a_slow_answer_is_whole_as_long_as_something_comes() {
    let running = running(TRANSCRIPT).await;
    running.server.order(Fault { kind: FaultKind::Drip { every_ms: 60 }, times: 1 });
    assert!(running.ask(&opening("mend it")).await.is_ok(), "longer than the idle time in all, never idle");
}

#[tokio::test]
async fn faults_can_be_ordered_and_withdrawn_over_http() {
    let running = running(TRANSCRIPT).await;
    let url = running.server.base_url().replace("/v1", "/admin/faults");
    // The provider's client made the process ready for TLS, which building any client demands.
    let client = reqwest::Client::new();
    let fault = json!({"kind": "status", "status": 503, "times": 2}).to_string();
    let ordered = client.post(&url).header("content-type", "application/json").body(fault).send().await.expect("sent");
    assert_eq!(ordered.status().as_u16(), 204);
    assert!(running.ask(&opening("mend it")).await.is_err());
    client.delete(&url).send().await.expect("sent");
    assert!(running.ask(&opening("mend it")).await.is_ok());
}

#[tokio::test]
async fn a_conversation_that_no_scenario_fits_is_refused() {
    let running = running(TRANSCRIPT).await;
    let error = running.ask(&opening("something else")).await.expect_err("refused");
    assert!(matches!(error, ProviderError::Final(ref failure) if failure.code == Code::ModelRefused), "{error:?}");
}

#[test]
fn an_unmet_expectation_is_recovered_from_twice_and_no_turn_is_skipped() {
    let transcript = Transcript::parse(TRANSCRIPT).expect("a transcript");
    let scenario = &transcript.scenarios[0];
    let mut messages = opening("mend it");
    let mut said = Vec::new();
    for result in ["x", "1 failed", "2 failed", "3 failed"] {
        let answer = Answer::to(&transcript, scenario, &request(messages.clone()));
        said.push((answer.turn, answer.recovery, Message { role: Role::Assistant, blocks: answer.reply.blocks.clone() }.as_text()));
        messages = continued(messages, &answer.reply, result);
    }
    let expected = [(0, false, "I look."), (1, true, "Again."), (1, true, "Again."), (1, false, "Done.")];
    assert_eq!(said, expected.map(|(turn, recovery, text)| (turn, recovery, text.to_owned())));
}

#[test]
fn a_transcript_with_an_unknown_key_or_an_idle_recovery_is_refused() {
    for wrong in [
        TRANSCRIPT.replace("usage:", "usages:"),
        TRANSCRIPT.replace("calls: [{ tool: shell, arguments: { command: ./run-tests } }]", "calls: []"),
    ] {
        assert!(Transcript::parse(&wrong).is_err(), "{wrong}");
    }
}

/// Writes the sample program.
fn sample(folder: &Path) {
    for file in SAMPLE {
        let path = folder.join(file.path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, file.content).expect("written");
        let mode = if file.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
}

/// Runs a command; its output and whether it ended with 0.
fn shell(folder: &Path, command: &str) -> (String, bool) {
    let output = Command::new("sh").arg("-c").arg(command).current_dir(folder).output().expect("sh");
    (String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr), output.status.success())
}

/// Carries a call out as a worker would, or fails the test.
fn carry_out(folder: &Path, tool: WorkspaceTool, input: &Value) -> String {
    let text = |key: &str| input[key].as_str().unwrap_or_default();
    let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    match tool {
        WorkspaceTool::Read => read(text("path")),
        WorkspaceTool::Edit => {
            let content = read(text("path"));
            assert_eq!(content.matches(text("old")).count(), 1, "this must occur once in {}:\n{}", text("path"), text("old"));
            fs::write(folder.join(text("path")), content.replace(text("old"), text("new"))).expect("written");
            "done".to_owned()
        }
        WorkspaceTool::Shell => shell(folder, text("command")).0,
        WorkspaceTool::Grep => {
            let pattern = regex::Regex::new(text("pattern")).expect("a pattern");
            let under = folder.join(text("path"));
            let files: Vec<_> = if under.is_dir() {
                fs::read_dir(under).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
            } else {
                vec![under]
            };
            let found =
                files.iter().filter(|path| path.is_file()).any(|path| pattern.is_match(&fs::read_to_string(path).expect("text")));
            assert!(found, "{pattern} is found nowhere");
            "found".to_owned()
        }
        WorkspaceTool::Glob | WorkspaceTool::Todo => "shown".to_owned(),
        WorkspaceTool::Write | WorkspaceTool::ReadOutput | WorkspaceTool::ApplyPatch | WorkspaceTool::Stop => {
            panic!("the transcript does not use {tool:?}")
        }
    }
}

#[test]
fn the_demos_transcript_mends_the_sample_program_one_area_at_a_time() {
    let transcript = demo().expect("the demo's transcript");
    let cases = [("roman", "Mend the roman numerals", "csv"), ("csv", "Mend the csv filter", "roman")];
    for (area, prompt, other) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        sample(folder.path());
        let (before, passed) = shell(folder.path(), &format!("./run-tests {area}"));
        assert!(!passed && before.contains("FAIL"), "{area} fails before: {before}");
        let other_before = shell(folder.path(), &format!("./run-tests {other}"));

        let mut messages = opening(prompt);
        let mut turns = 0;
        loop {
            let request = request(messages.clone());
            let scenario = transcript.scenario(&request).expect("a scenario");
            assert_eq!(scenario.name, area);
            let answer = Answer::to(&transcript, scenario, &request);
            assert!(!answer.recovery, "turn {} of {area} does not find what it expects: {messages:#?}", answer.turn);
            turns += 1;
            let mut results = Vec::new();
            for block in &answer.reply.blocks {
                let Block::ToolUse { id, name, input, .. } = block else { continue };
                let tool = WorkspaceTool::by_name(name).unwrap_or_else(|| panic!("{name} is no tool"));
                results.push(Block::ToolResult {
                    id: id.clone(),
                    content: carry_out(folder.path(), tool, input),
                    images: Vec::new(),
                    is_error: false,
                    extra: None,
                });
            }
            if results.is_empty() {
                break;
            }
            messages.push(Message { role: Role::Assistant, blocks: answer.reply.blocks });
            messages.push(Message { role: Role::User, blocks: results });
        }
        assert_eq!(turns, 9, "{area}");
        let (after, passed) = shell(folder.path(), &format!("./run-tests {area}"));
        assert!(passed, "{area} passes afterwards: {after}");
        assert_eq!(shell(folder.path(), &format!("./run-tests {other}")), other_before, "{other} is as it was");
    }
}

#[test]
fn both_areas_merged_pass_every_test() {
    let transcript = demo().expect("the demo's transcript");
    let folder = tempfile::tempdir().expect("a folder");
    sample(folder.path());
    for call in transcript.scenarios.iter().flat_map(|scenario| &scenario.turns).flat_map(|turn| &turn.calls) {
        if call.tool == "edit" {
            carry_out(folder.path(), WorkspaceTool::Edit, &call.arguments);
        }
    }
    let (output, passed) = shell(folder.path(), "./run-tests");
    assert!(passed && output.ends_with("21 passed, 0 failed\n"), "{output}");
}

#[test]
fn every_call_of_the_demo_fits_its_tools_schema() {
    let transcript = demo().expect("the demo's transcript");
    for scenario in &transcript.scenarios {
        let recoveries = scenario.turns.iter().filter_map(|turn| turn.otherwise.as_ref()).flat_map(|recovery| &recovery.calls);
        for call in scenario.turns.iter().flat_map(|turn| &turn.calls).chain(recoveries) {
            let schema = WorkspaceTool::by_name(&call.tool).expect("a tool").schema().parameters;
            let given: BTreeMap<String, Value> = serde_json::from_value(call.arguments.clone()).expect("an object");
            let known = schema["properties"].as_object().expect("properties");
            assert!(given.keys().all(|key| known.contains_key(key)), "{call:?}");
            let required = schema["required"].as_array().expect("required");
            assert!(required.iter().filter_map(Value::as_str).all(|key| given.contains_key(key)), "{call:?}");
        }
    }
}
