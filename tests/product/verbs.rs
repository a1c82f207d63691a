//! Every verb of the command line, typed by a person at a node with one worker: what each does, not only that it is there.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use helix_adapter_http::api::{CreatedTasks, RebasedTask};
use helix_messages::{FileDiff, WorkerView};
use helix_protocol::{AgentSpec, Code, Lifecycle, StepSummary, TaskRecord, TaskSpec, TaskStatus, TaskWork};
use serde_json::Value;

use crate::command_line::{Person, json, refusal};
use crate::harness::{SOON, Setup, diligent, transcript};

fn read<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    serde_json::from_value(json(output)).expect("it has that shape")
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Waits until a command of a task has said that it has begun.
fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < SOON, "waited in vain for {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Person {
    /// A folder that tasks can write beside their workspaces.
    fn outside(&self) -> PathBuf {
        let folder = self.folder.path().join("outside");
        std::fs::create_dir_all(&folder).expect("the folder is writable");
        folder
    }

    /// Makes a task and does not wait for it.
    fn makes(&self, arguments: &[&str]) -> TaskRecord {
        let outside = self.outside().display().to_string();
        let before = ["run", "--detach", "--json", "--writable", &outside];
        let created: CreatedTasks = read(&self.types(&[&before, arguments].concat()));
        created.tasks.into_iter().next().expect("one task")
    }

    /// Follows a task to its end, and answers the exit code and the task.
    fn follows(&self, task: &str) -> (Option<i32>, TaskRecord) {
        let followed = self.types(&["attach", task]);
        let shown = json(&self.types(&["task", "show", task, "--json"]));
        (followed.status.code(), serde_json::from_value(shown["task"].clone()).expect("a task"))
    }

    fn steps(&self, task: &str, more: &[&str]) -> Vec<StepSummary> {
        read(&self.types(&[&["task", "steps", task, "--json"], more].concat()))
    }

    /// A repository with one commit and a bare one that it calls `origin`.
    pub fn repository(&self) -> PathBuf {
        let (repository, origin) = (self.folder.path().join("repository"), self.folder.path().join("origin.git"));
        std::fs::create_dir(&repository).expect("the folder is writable");
        self.git(self.folder.path(), &["init", "--quiet", "--bare", "origin.git"]);
        self.git(&repository, &["init", "--quiet", "--initial-branch=main"]);
        self.git(&repository, &["remote", "add", "origin", &origin.display().to_string()]);
        self.commits(&repository, "kept", "first line\n");
        repository
    }

    fn commits(&self, repository: &Path, file: &str, content: &str) -> String {
        std::fs::write(repository.join(file), content).expect("the folder is writable");
        self.git(repository, &["add", "--all"]);
        self.git(repository, &["commit", "--quiet", "--message", file]);
        self.git(repository, &["rev-parse", "HEAD"]).trim().to_owned()
    }
}

#[test]
fn what_a_task_did_is_shown_compared_named_gone_back_to_and_forked() {
    let person = Person::new();
    let task = person.makes(&["--command", "echo one > a", "--command", "echo two > b", "--command", "echo three >> a"]);
    let id = task.id.to_string();
    let (code, ended) = person.follows(&id);
    assert_eq!((code, ended.status, ended.steps), (Some(0), TaskStatus::Completed, 3));
    assert!(text(&person.types(&["task", "show", &id])).contains("completed"));
    assert_eq!(json(&person.types(&["task", "why", &id, "--json"]))["status"], "completed");

    let line: Vec<u64> = person.steps(&id, &[]).iter().map(|step| step.ordinal).collect();
    assert_eq!(line, [1, 2, 3]);
    assert_eq!(text(&person.types(&["task", "diff", &id, "--stat"])), "A a\nA b\n");
    let between: Vec<FileDiff> = read(&person.types(&["task", "diff", &id, "--from", "2", "--to", "3", "--json"]));
    assert_eq!(between.iter().map(|file| file.change.path.to_string()).collect::<Vec<_>>(), ["a"]);
    assert!(text(&person.types(&["task", "diff", &id, "--from", "2"])).contains("\n+three\n"));
    let log = text(&person.types(&["task", "log", &id, "--json"]));
    let steps: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("a step on each line")).collect();
    assert_eq!((steps.len(), &steps[2]["runs"][0]["command"]), (3, &Value::from("echo three >> a")));

    let named = json(&person.types(&["task", "checkpoint", &id, "green", "--step", "1", "--json"]));
    assert_eq!(named["name"], "green");
    assert_eq!(person.steps(&id, &[])[0].checkpoints, ["green"]);
    let again = person.types(&["task", "checkpoint", &id, "green", "--step", "2", "--json"]);
    assert_eq!(refusal(&again), (Some(4), "invalid_state".to_owned()));

    let back: TaskRecord = read(&person.types(&["task", "rollback", &id, "green", "--json"]));
    assert_eq!((back.steps, back.head), (1, Some(person.steps(&id, &[])[0].id)));
    assert_eq!(person.steps(&id, &["--all"]).len(), 3, "what was rolled back is kept");
    assert_eq!(text(&person.types(&["task", "diff", &id, "--stat"])), "A a\n");

    let fork: TaskRecord = read(&person.types(&["task", "fork", &id, "--title", "again", "--json"]));
    let fork = fork.id.to_string();
    let (code, ended) = person.follows(&fork);
    assert_eq!((code, ended.status, ended.spec.title.as_str()), (Some(0), TaskStatus::Completed, "again"));
    assert_eq!(text(&person.types(&["task", "diff", &fork, "--stat"])), "M a\nA b\n", "it goes on from the step, files and all");
    assert_eq!(person.steps(&id, &[]).len(), 1, "and the original stays where it is");
    let nothing = person.types(&["task", "fork", &fork, "--max-steps", "9", "--json"]);
    assert_eq!(refusal(&nothing), (Some(2), "invalid_request".to_owned()));
}

#[test]
fn a_task_is_paused_resumed_cancelled_and_tried_again() {
    let person = Person::new();
    let outside = person.outside();
    let [begun, one, two] = ["begun", "one", "two"].map(|name| outside.join(name));
    let wait = |path: &Path| format!("while [ ! -e {} ]; do sleep 0.01; done", path.display());
    let first = format!("touch {}; {}", begun.display(), wait(&one));
    let id = person.makes(&["--command", &first, "--command", &wait(&two), "--command", "echo last > last"]).id.to_string();
    wait_for(&begun);
    let mut pausing = person.command(&["task", "pause", &id, "--json"]);
    let mut pausing = pausing.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("it runs");
    std::thread::sleep(Duration::from_millis(300));
    std::fs::write(&one, "").expect("the folder is writable");
    // Usually it is parked by now; where the request was slower than the step, it waits for the end of the next one.
    std::thread::sleep(Duration::from_millis(500));
    let in_time = pausing.try_wait().expect("it was started").is_some();
    std::fs::write(&two, "").expect("the folder is writable");
    let paused: TaskRecord = read(&pausing.wait_with_output().expect("it ends"));
    assert_eq!(paused.status, TaskStatus::Paused);
    assert!(paused.steps == 1 || (!in_time && paused.steps == 2), "at a step's boundary, not at the end: {}", paused.steps);
    let resumed: TaskRecord = read(&person.types(&["task", "resume", &id, "--json"]));
    assert_ne!(resumed.status, TaskStatus::Paused);
    let (code, ended) = person.follows(&id);
    assert_eq!((code, ended.status, ended.steps), (Some(0), TaskStatus::Completed, 3));

    let sleeping = person.outside().join("sleeping");
    let id = person.makes(&["--command", &format!("touch {}; sleep 600", sleeping.display())]).id.to_string();
    wait_for(&sleeping);
    let cancelled: TaskRecord = read(&person.types(&["task", "cancel", &id, "--json"]));
    assert_eq!(cancelled.status, TaskStatus::Cancelled);
    assert_eq!(person.follows(&id).0, Some(i32::from(Code::Cancelled.exit_code())));
    assert_eq!(refusal(&person.types(&["task", "cancel", &id, "--json"])), (Some(4), "invalid_state".to_owned()));

    let mended = person.outside().join("mended");
    let id = person.makes(&["--command", &format!("test -e {}", mended.display())]).id.to_string();
    assert_eq!(person.follows(&id).0, Some(10));
    std::fs::write(&mended, "").expect("the folder is writable");
    let again: TaskRecord = read(&person.types(&["task", "retry", &id, "--json"]));
    assert!(!again.status.is_final(), "{:?}", again.status);
    assert_eq!(person.follows(&id).0, Some(0));

    let attempts: CreatedTasks = read(&person.types(&["run", "--detach", "--json", "--attempts", "2", "--command", "true"]));
    let ends: Vec<_> = attempts.tasks.iter().map(|task| person.follows(&task.id.to_string()).0).collect();
    assert_eq!(ends, [Some(0)], "attempts are one task");
}

#[test]
fn a_tasks_work_is_pushed_and_carried_onto_a_branch_that_has_moved() {
    let person = Person::new();
    let repository = person.repository();
    let path = repository.display().to_string();
    let work = ["--repo", &path, "--command", "echo mine > mine", "--command", "echo my line >> kept"];
    let id = person.makes(&work).id.to_string();
    assert_eq!(person.follows(&id).0, Some(0));
    let pushed = json(&person.types(&["task", "push", &id, "--branch", "work", "--json"]));
    assert_eq!((&pushed["branch"], &pushed["remote"]), (&Value::from("work"), &Value::from("origin")));
    let origin = person.folder.path().join("origin.git");
    assert_eq!(person.git(&origin, &["show", "work:kept"]), "first line\nmy line\n");
    let nowhere = person.types(&["task", "push", &id, "--remote", "elsewhere", "--json"]);
    assert_eq!(refusal(&nowhere), (Some(9), "git_failed".to_owned()));

    let moved = person.commits(&repository, "theirs", "theirs\n");
    let rebased: RebasedTask = read(&person.types(&["task", "rebase", &id, "--json"]));
    assert_eq!((rebased.git_commit.as_str(), rebased.conflicts.len(), rebased.moved), (moved.as_str(), 0, 1));
    let carried = rebased.task.id.to_string();
    assert_eq!(person.follows(&carried).0, Some(0));
    json(&person.types(&["task", "export", &carried, "--branch", "carried", "--json"]));
    for (file, content) in [("theirs", "theirs\n"), ("mine", "mine\n"), ("kept", "first line\nmy line\n")] {
        assert_eq!(person.git(&repository, &["show", &format!("carried:{file}")]), content);
    }
    assert_eq!(person.git(&repository, &["merge-base", "main", "carried"]).trim(), moved);

    person.commits(&repository, "kept", "another first line\n");
    let torn: RebasedTask = read(&person.types(&["task", "rebase", &id, "--json"]));
    assert_eq!(torn.conflicts, ["kept"]);
    assert_eq!(person.git(&repository, &["status", "--porcelain"]), "", "the checkout is as it was");
}

#[test]
fn a_worker_is_cordoned_taken_back_and_drained_and_a_task_says_why_it_waits() {
    let person = Person::new();
    text(&person.types(&["up", "--detach"]));
    let start = Instant::now();
    let worker = loop {
        let workers: Vec<WorkerView> = read(&person.types(&["worker", "list", "--json"]));
        match workers.into_iter().find(|worker| worker.ready) {
            Some(worker) => break worker.record.name,
            None => assert!(start.elapsed() < SOON, "no worker is ready"),
        }
    };
    let lifecycle = |verb: &str| read::<WorkerView>(&person.types(&["worker", verb, &worker, "--json"])).record.lifecycle;
    assert_eq!(lifecycle("cordon"), Lifecycle::Cordoned);
    assert!(text(&person.types(&["worker", "show", &worker])).contains("cordoned"));
    let id = person.makes(&["--command", "echo done > done"]).id.to_string();
    let why = json(&person.types(&["task", "why", &id, "--json"]));
    assert_eq!(why["status"], "pending", "{why}");
    assert_eq!(why["workers"][0]["reason"], "it is cordoned", "{why}");
    assert_eq!(lifecycle("uncordon"), Lifecycle::Open);
    assert_eq!(person.follows(&id).0, Some(0));
    assert_eq!(lifecycle("drain"), Lifecycle::Draining);
    assert_eq!(refusal(&person.types(&["worker", "drain", "nobody", "--json"])), (Some(3), "not_found".to_owned()));
    assert_eq!(json(&person.types(&["worker", "remove", &worker, "--json"]))["removed"], Value::from(worker));
    assert_eq!(json(&person.types(&["worker", "list", "--json"])), Value::Array(Vec::new()));
}

#[test]
fn a_worker_that_was_drained_holds_nothing_and_can_be_removed() {
    let person = Person::new();
    let task = person.makes(&["--command", "touch begun; sleep 12"]).id.to_string();
    let start = Instant::now();
    while json(&person.types(&["status", "--json"]))["held"]["local-1"] != 1 {
        assert!(start.elapsed() < SOON, "the task is not taken");
    }
    read::<WorkerView>(&person.types(&["worker", "drain", "local-1", "--detach", "--json"]));
    let refused = person.types(&["worker", "remove", "local-1", "--json"]);
    assert_eq!(refusal(&refused), (Some(4), "invalid_state".to_owned()));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("holds 1 task\"") && said.contains("`helix worker drain local-1` waits for that"), "{said}");
    let drained = person.types(&["worker", "drain", "local-1"]);
    assert!(text(&drained).contains("takes no new tasks, and holds none"), "{drained:?}");
    assert!(String::from_utf8_lossy(&drained.stderr).starts_with("waiting for the present step of 1 task; "), "{drained:?}");
    assert_eq!(json(&person.types(&["worker", "remove", "local-1", "--json"]))["removed"], "local-1");
    assert_eq!(person.follows(&task).0, Some(0));
}

#[test]
fn what_looks_and_explains_answers_without_and_with_a_node() {
    let person = Person::new();
    let findings = |output: &Output| {
        let checks: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
        checks.into_iter().map(|check| (check["name"].to_string(), check["verdict"].to_string())).collect::<Vec<_>>()
    };
    let verdict = |output: &Output, name: &str| {
        findings(output).into_iter().find(|(found, _)| found.trim_matches('"') == name).map(|(_, verdict)| verdict.replace('"', ""))
    };
    let alone = person.types(&["doctor", "--json"]);
    assert_eq!(alone.status.code(), Some(0), "nothing is in the way: {alone:?}");
    assert_eq!(verdict(&alone, "node").as_deref(), Some("warning"));

    let page = json(&person.types(&["explain", "worker_lost", "--json"]));
    assert_eq!((&page["code"], &page["exit_code"]), (&Value::from("worker_lost"), &Value::from(6)));
    let pages = json(&person.types(&["explain", "--json"]));
    assert_eq!(pages.as_array().map(Vec::len), Some(Code::ALL.len()));
    assert_eq!(refusal(&person.types(&["explain", "worker_lots", "--json"])), (Some(3), "not_found".to_owned()));

    assert_eq!(json(&person.types(&["config", "check", "--json"]))["valid"], true);
    let wrong = person.folder.path().join("wrong.yaml");
    std::fs::write(&wrong, "workers: { lokal: 1 }\n").expect("the folder is writable");
    let refused = person.types(&["config", "check", &wrong.display().to_string(), "--json"]);
    assert_eq!(refusal(&refused), (Some(2), "invalid_config".to_owned()));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("did you mean workers.local?"), "{refused:?}");
    assert_eq!(json(&person.types(&["config", "show", "--json"]))["config"]["workers"]["slots"], 5);
    let defaults = person.folder.path().join("defaults.yaml");
    std::fs::write(&defaults, text(&person.types(&["config", "show", "--defaults"]))).expect("the folder is writable");
    assert_eq!(person.types(&["config", "check", &defaults.display().to_string()]).status.code(), Some(0));
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&person.types(&["completions", shell])).contains("uncordon"), "{shell}");
    }

    text(&person.types(&["up", "--detach"]));
    let beside = person.types(&["doctor", "--json"]);
    assert_eq!((beside.status.code(), verdict(&beside, "node").as_deref()), (Some(0), Some("good")));
    assert_eq!(json(&person.types(&["status", "--json"]))["node"]["database"], "sqlite");
    let tree = json(&person.types(&["tree", "--json"]));
    let branches: Vec<&str> =
        tree["children"].as_array().expect("branches").iter().filter_map(|child| child["name"].as_str()).collect();
    assert_eq!(branches, ["cluster", "storage", "models", "fleet", "tasks", "http"]);
    assert!(text(&person.types(&["tree"])).contains("scheduler"));
    assert_eq!(json(&person.types(&["down", "--json"]))["ended"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reached_its_limit_of_steps_goes_on_as_a_fork_with_more_of_them() {
    let product = Setup::workers(1).model(transcript([diligent("diligent", 4, 0)])).start().await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let agent = AgentSpec { max_steps: 2, ..AgentSpec::new("diligent, on a short leash") };
    let short = product.create(TaskSpec::new("short", TaskWork::Agent(agent))).await;
    let ended = product.ended(short).await;
    assert_eq!(ended.status, TaskStatus::Failed);
    assert!(ended.reason.ends_with("(step_limit)"), "{}", ended.reason);

    let mut fork = std::process::Command::new(crate::harness::HELIX);
    fork.args(["task", "fork", &short.to_string(), "--max-steps", "60", "--json", "--data"]).arg(product.node.folder().root());
    let forked: TaskRecord = read(&tokio::task::block_in_place(|| fork.output()).expect("the program runs"));
    assert_eq!(product.completed(forked.id).await, tree, "as if there had been no limit");
    assert_eq!(product.judge().await, Default::default());
}
