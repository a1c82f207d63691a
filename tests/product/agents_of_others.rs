//! Agents as they are published, at work in a workspace without a network, their models over the gateway.
//!
//! They are large, so `make campaign` installs them (`scripts/agents.sh`); elsewhere this runs where they are. The
//! model is the scripted one, which calls each agent's own tools by their own names; each agent speaks its own format (chat
//! completions, responses, messages, Gemini's) to the gateway. In its first turn an agent writes a file and runs a command. In its
//! second its worker is killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use helix_adapter_http::api::{AnswerRequest, CreateTaskRequest, CreatedTasks, ExportRequest};
use helix_config::AgentsConfig;
use helix_messages::{Exported, ImportGit};
use helix_objects::ObjectStore;
use helix_protocol::{
    AgentProgram, Approval, ExternalSpec, ObjectId, StepSummary, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};
use helix_rocks::RocksStore;
use serde_json::{Value, json};

use crate::external::with_gateway_before;
use crate::harness::peers::{self, Peer};
use crate::harness::{Product, Setup, Signal, Verdict, scenario};

/// An agent of the table, and a part of the name of a file that it keeps its session in.
struct Agent {
    name: &'static str,
    program: &'static str,
    keeps: &'static str,
}

const AGENTS: [Agent; 9] = [
    Agent { name: "opencode", program: "opencode", keeps: ".helix/agent/data/opencode/" },
    Agent { name: "opencode-acp", program: "opencode", keeps: ".helix/agent/data/opencode/" },
    Agent { name: "claude-acp", program: "claude-agent-acp", keeps: ".helix/agent/claude/projects/" },
    Agent { name: "claude", program: "claude", keeps: ".helix/agent/claude/projects/" },
    Agent { name: "codex", program: "codex", keeps: ".helix/agent/codex/sessions/" },
    Agent { name: "gemini", program: "gemini", keeps: ".helix/agent/gemini/.gemini/tmp/" },
    Agent { name: "goose", program: "goose", keeps: ".helix/agent/goose/data/sessions/" },
    Agent { name: "goose-acp", program: "goose", keeps: ".helix/agent/goose/data/sessions/" },
    Agent { name: "aider", program: "aider", keeps: ".helix/agent/aider.chat.md" },
];

/// What runs in the second turn. The first to run it stands still until it is killed; `mark` says that it has begun.
fn second(mark: &Path) -> String {
    format!("echo two >> made.txt; test -e {0} || {{ touch {0}; sleep 300; }}", mark.display())
}

const FIRST: &str = "wc -l < made.txt > count.txt";

/// Two turns by an agent's own tools: `write` makes made.txt with the line `one`, `run` runs a command.
fn turns(offered: &str, write: Value, run: impl Fn(&str) -> Value, mark: &Path) -> Value {
    let turns = json!([
        {"text": "I write.", "calls": [write]},
        {"text": "I run.", "calls": [run(FIRST)]},
        {"text": "The file is written."},
        {"text": "I write more.", "calls": [run(&second(mark))]},
        {"text": "All is written."},
    ]);
    json!({"name": offered, "phrase": "", "offered": offered, "turns": turns})
}

/// The conversations, told apart by a tool that only this agent offers.
fn conversations(mark: &Path) -> Vec<Value> {
    let call = |tool: &str, arguments: Value| json!({"tool": tool, "arguments": arguments});
    let patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: made.txt\n+one\n*** End Patch\nEOF";
    let exec = |command: &str| call("exec_command", json!({"cmd": command}));
    let described = |tool: &str, command: &str| call(tool, json!({"command": command, "description": "work"}));
    let written = |tool: &str, path: &str| call(tool, json!({path: "made.txt", "content": "one\n"}));
    // aider gives its model no tools: files are written as the model says them. It begins each conversation with
    // four answers of its own.
    let whole = |lines: &str| format!("I write.\n\nmade.txt\n```\n{lines}```\n");
    let of_aiders = std::iter::repeat_n(json!({"text": "Ok."}), 4);
    let aider = of_aiders.chain([json!({"text": whole("one\n")}), json!({"text": whole("one\ntwo\n"), "delay_ms": 2_000})]);
    vec![
        turns("exec_command", exec(patch), exec, mark),
        turns("todowrite", written("write", "filePath"), |command| described("bash", command), mark),
        turns("Write", written("Write", "file_path"), |command| described("Bash", command), mark),
        turns("run_shell_command", written("write_file", "file_path"), |command| described("run_shell_command", command), mark),
        turns("shell", written("write", "path"), |command| call("shell", json!({"command": command})), mark),
        scenario("Change the greeting to be more casual", aider),
        // Titles, which some ask for beside the work.
        scenario("", [json!({"text": "Lilies"})]),
    ]
}

/// A repository with one file.
fn repository(folder: &Path) -> PathBuf {
    let repository = folder.join("repository");
    std::fs::create_dir(&repository).expect("made");
    std::fs::write(repository.join("README.md"), "lilies\n").expect("written");
    let script = "git init -q && git add . && git -c user.name=G -c user.email=g@example.org commit -q -m one";
    assert!(Command::new("sh").args(["-c", script]).current_dir(&repository).status().expect("git runs").success());
    repository
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(repository).output().expect("git runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn begin(product: &Product, name: &str, program: AgentProgram, repository: &Path) -> TaskId {
    let spec = ExternalSpec {
        program: Some(program),
        verify: Some("grep -q two made.txt".to_owned()),
        ..ExternalSpec::new(name, "consider the lilies")
    };
    let spec = TaskSpec { max_retries: Some(0), ..TaskSpec::new(name, TaskWork::External(spec)) };
    let request = CreateTaskRequest {
        spec,
        import: Some(ImportGit { path: repository.to_owned(), clean: true }),
        attempts: 1,
        secrets: Vec::new(),
    };
    product.client.post::<CreatedTasks>("/tasks", &request).await.expect("the task is taken").tasks[0].id
}

/// Kills the task's worker once its second turn is under way.
async fn kill_in_the_second_turn(product: &Product, task: TaskId, name: &str, mark: &Path) {
    product
        .until(&format!("the second turn of {name}"), async || {
            let has_begun = match name {
                // It runs nothing, and waits for its model's answer.
                "aider" => product.steps(task).await.len() == 1 && product.keys().await == 1,
                _ => mark.exists(),
            };
            let record = product.record(task).await;
            assert!(!record.status.is_final(), "{name}: {} {:?}", record.reason, product.said(task).await);
            has_begun
        })
        .await;
    let worker = product.record(task).await.worker.expect("it has one");
    product.signal(worker, Signal::KILL).await;
}

/// The files of a step, as paths.
fn files(store: &dyn ObjectStore, tree: ObjectId) -> Vec<String> {
    let entries = helix_versions::walk(store, tree).expect("it can be read");
    entries.into_iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_from_outside_write_files_and_a_turn_whose_worker_is_killed_is_made_again_from_their_sessions() {
    let agents = Peer::find("agents");
    if !agents.is_whole && std::env::var_os("HELIX_CAMPAIGN").is_none() {
        eprintln!("not run: agents from outside are large, so `make campaign` installs them and runs this (HELIX_CAMPAIGN)");
        return;
    }
    let programs = agents.place;
    let outside = tempfile::Builder::new().prefix("helix-test").tempdir().expect("a folder");
    let mark = outside.path().join("begun");
    let repository = repository(outside.path());
    let setup = Setup::workers(2).patient_leases().set("tasks.writable", json!([outside.path()]));
    let mut product = with_gateway_before(setup, conversations(&mark)).await;
    let table = AgentsConfig::default().table();
    let mut trees: Vec<(&Agent, [ObjectId; 2])> = Vec::new();
    for agent in &AGENTS {
        let name = agent.name;
        if !programs.join(agent.program).exists() {
            peers::without("agents", name).expect("every agent of the table is installed");
            continue;
        }
        let _ = std::fs::remove_file(&mark);
        product.workers_ready(2).await;
        let mut program = table[name].clone();
        program.environment.insert("PATH".to_owned(), format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path")));
        let task = begin(&product, name, program, &repository).await;
        kill_in_the_second_turn(&product, task, name, &mark).await;
        product.completed(task).await;

        let steps: Vec<StepSummary> = product.steps(task).await;
        let said = product.said(task).await;
        assert_eq!(steps.len(), 2, "{name}: {steps:?} {said:?}");
        assert_ne!(steps[0].worker, steps[1].worker, "{name}: another worker made the turn again");
        assert!(steps.iter().all(|step| step.spend.model_calls > 0 && step.spend.tokens > 0), "{name}: {steps:?}");
        assert!(!steps[1].summary.contains("took over"), "{name} took its session up by its own means: {}", steps[1].summary);
        trees.push((agent, [steps[0].tree, steps[1].tree]));

        let asked = ExportRequest { branch: Some(name.to_owned()), ..ExportRequest::default() };
        let exported: Exported = product.client.post(&format!("/tasks/{task}/export"), &asked).await.expect("exported");
        let listed = git(&repository, &["ls-tree", "-r", "--name-only", &exported.branch]);
        let expected: &[&str] = if name == "aider" { &["README.md", "made.txt"] } else { &["README.md", "count.txt", "made.txt"] };
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected, "{name}: an export has the work and nothing of the agent's");
        assert_eq!(git(&repository, &["show", &format!("{}:made.txt", exported.branch)]), "one\ntwo\n", "{name}");
    }
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));

    product.kill_node();
    let store = RocksStore::open(&product.node.folder().content()).expect("it opens");
    for (agent, [first, second]) in trees {
        let name = agent.name;
        let text = |tree, path: &str| {
            let bytes = helix_versions::read_file(&store, tree, path.as_bytes()).expect("it is there");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        assert_eq!(text(first, "made.txt"), "one\n", "{name}");
        assert_eq!(text(second, "made.txt"), "one\ntwo\n", "{name}: no half of the killed turn is in it");
        if name != "aider" {
            assert_eq!(text(first, "count.txt").trim(), "1", "{name}");
        }
        for tree in [first, second] {
            let files = files(&store, tree);
            assert!(files.iter().any(|path| path.starts_with(agent.keeps)), "{name} keeps its session elsewhere: {files:?}");
        }
    }
    store.close().expect("it closes");
}

/// Agents of the table that ask before they run a command, and the tool they run it by.
const ASKING: [(&str, &str, &str); 3] = [
    ("opencode-acp", "opencode", "bash"),
    ("claude-acp", "claude-agent-acp", "Bash"),
    ("gemini-acp", "gemini", "run_shell_command"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_from_outside_asks_is_a_question_of_the_task_and_its_answer_lets_it_go_on() {
    let agents = Peer::find("agents");
    if !agents.is_whole && std::env::var_os("HELIX_CAMPAIGN").is_none() {
        eprintln!("not run: agents from outside are large, so `make campaign` installs them and runs this (HELIX_CAMPAIGN)");
        return;
    }
    let conversation = |tool: &str| {
        let call = json!({"tool": tool, "arguments": {"command": "echo asked >> made.txt", "description": "work"}});
        let run = json!({"text": "I run.", "calls": [call]});
        // Some keep the call that was not allowed in their session, some do not, and some tell their model before they stop.
        let done = json!({"text": "It is done."});
        json!({"name": tool, "phrase": "", "offered": tool, "turns": [run, run, run, done, done, done]})
    };
    let conversations =
        ASKING.map(|(_, _, tool)| conversation(tool)).into_iter().chain([scenario("", [json!({"text": "Lilies"})])]);
    let product = with_gateway_before(Setup::workers(1).patient_leases(), conversations.collect()).await;
    let table = AgentsConfig::default().table();
    for (name, program, tool) in ASKING {
        if !agents.place.join(program).exists() {
            peers::without("agents", name).expect("every agent of the table is installed");
            continue;
        }
        let mut program = table[name].clone();
        let path = format!("{}:{}", agents.place.display(), std::env::var("PATH").expect("a path"));
        program.environment.insert("PATH".to_owned(), path);
        let asking = ExternalSpec {
            program: Some(program),
            approval: Approval::Suggest,
            verify: Some("test -s made.txt".to_owned()),
            ..ExternalSpec::new(name, "consider the lilies")
        };
        let task = product.external(asking).await;
        let asked = async || !product.questions(task).await.is_empty() || product.record(task).await.status.is_final();
        product.until(&format!("{name} asks"), asked).await;
        let record = product.record(task).await;
        assert!(!record.status.is_final(), "{name} asked nothing: {} {:?}", record.reason, product.said(task).await);
        let question = product.questions(task).await.remove(0);
        assert!(question.text.contains("echo asked >> made.txt"), "{name} by {tool}: {}", question.text);
        product.until("it is parked", async || product.record(task).await.worker.is_none()).await;
        let first = product.steps(task).await;
        assert_eq!(first.len(), 1, "{name}: {first:?}");
        let answer = AnswerRequest { answer: "yes".to_owned() };
        let _: TaskRecord = product.client.post(&format!("/questions/{}/answer", question.id), &answer).await.expect("answered");
        let record = product.ended(task).await;
        let said = product.said(task).await;
        assert_eq!(record.status, TaskStatus::Completed, "{name}: {} {said:?}", record.reason);
        assert_eq!(product.questions(task).await.len(), 1, "{name} was asked for once: {said:?}");
        assert!(said.len() == 2 && said[1].contains("It is done."), "{name}: {said:?}");
    }
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));
}
