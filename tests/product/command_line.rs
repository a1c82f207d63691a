//! The command line as a person uses it on an empty folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use helix_config::changes_a_node;
use helix_protocol::{TaskRecord, TaskStatus};
use serde_json::Value;

use crate::harness::{HELIX, end_everything_in, not_run, worker_program};

/// A person with an empty data folder and a configuration of one worker.
pub struct Person {
    pub folder: tempfile::TempDir,
}

impl Person {
    pub fn new() -> Self {
        worker_program();
        let folder = tempfile::Builder::new().prefix("helix-test").tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("helix.yaml"), "workers: { local: 1, slots: 5 }\n").expect("the folder is writable");
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What this person types, ready to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(HELIX);
        for (name, _) in std::env::vars().filter(|(name, _)| changes_a_node(name)) {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).env("HELIX_DATA", self.data()).env("HOME", self.folder.path()).env("NO_COLOR", "1");
        command.env_remove("XDG_DATA_HOME").args(arguments);
        command
    }

    pub fn types(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// What git says in a folder.
    pub fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Somebody", "-c", "user.email=somebody@localhost", "-c", "commit.gpgsign=false"]);
        let output = git.current_dir(folder).args(arguments).output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("git writes text")
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.types(&["down", "--now"]);
        for entry in std::fs::read_dir(self.data().join("workers")).into_iter().flatten().flatten() {
            let _ = Command::new(worker_program()).args(["stop", "--folder"]).arg(entry.path()).output();
        }
        // Also what a test put elsewhere, or what was still beginning.
        end_everything_in(self.folder.path());
    }
}

pub fn json(output: &Output) -> Value {
    let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// The exit code, and the code of the failure in JSON.
pub fn refusal(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr);
    let failure: Value =
        serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code(), failure["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_first_run_starts_a_node_and_the_exit_code_is_the_tasks() {
    let person = Person::new();
    assert_eq!(refusal(&person.types(&["--json", "task", "list"])), (Some(5), "node_unreachable".to_owned()));

    let run = person.types(&["run", "--command", "echo hello > greeting; cat greeting"]);
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{said}");
    assert!(said.contains("starting a node") && said.contains("hello"), "{said}");
    let workers = person.types(&["worker", "list", "--json"]);
    let slots = json(&workers).pointer("/0/record/slots").and_then(Value::as_u64);
    assert_eq!(
        slots,
        Some(5),
        "the node was started with the helix.yaml of this folder: {}",
        String::from_utf8_lossy(&workers.stdout)
    );
    let failing = person.types(&["--json", "run", "--command", "exit 3"]);
    assert_eq!(refusal(&failing), (Some(10), "task_failed".to_owned()));

    let tasks: Vec<TaskRecord> = serde_json::from_value(json(&person.types(&["task", "list", "--json"]))).expect("a list of tasks");
    let mut seen: Vec<_> = tasks.iter().map(|task| (task.spec.title.as_str(), task.status)).collect();
    seen.sort_unstable();
    let expected = [("echo hello > greeting; cat greeting", TaskStatus::Completed), ("exit 3", TaskStatus::Failed)];
    assert_eq!(seen, expected);
    let failed = tasks.iter().find(|task| task.status == TaskStatus::Failed).expect("seen above");
    let log = person.types(&["--json", "task", "log", &failed.id.to_string()]);
    assert_eq!(log.status.code(), Some(0), "{}", String::from_utf8_lossy(&log.stderr));

    assert_eq!(refusal(&person.types(&["--json", "task", "show", "ffffffff"])), (Some(3), "not_found".to_owned()));
    assert_eq!(
        refusal(&person.types(&["--json", "task", "resume", &failed.id.to_string()])),
        (Some(4), "invalid_state".to_owned())
    );
    assert_eq!(person.types(&["task", "lst"]).status.code(), Some(2));
    assert_eq!(person.types(&["down"]).status.code(), Some(0));
    assert_eq!(refusal(&person.types(&["--json", "status"])), (Some(5), "node_unreachable".to_owned()));
}

#[test]
fn several_first_runs_at_once_share_the_node_that_one_of_them_starts() {
    let person = Person::new();
    let started: Vec<_> = (0..6)
        .map(|number| {
            let mut run = person.command(&["--json", "run", "-d", "--command", &format!("echo {number}")]);
            run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
        })
        .collect();
    for run in started {
        json(&run.wait_with_output().expect("it ends"));
    }
    let tasks = json(&person.types(&["task", "list", "--json"]));
    assert_eq!(tasks.as_array().map(Vec::len), Some(6), "{tasks}");
}

#[test]
fn a_repository_is_taken_with_uncommitted_changes_never_written_to_and_given_back_as_a_branch() {
    let person = Person::new();
    let repository = person.folder.path().join("repository");
    std::fs::create_dir(&repository).expect("the folder is writable");
    person.git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(repository.join("kept"), "committed\n").expect("the folder is writable");
    person.git(&repository, &["add", "--all"]);
    person.git(&repository, &["commit", "--quiet", "--message", "one file"]);
    std::fs::write(repository.join("kept"), "changed\n").expect("the folder is writable");
    let path = repository.display().to_string();

    let run = person.types(&["--json", "run", "--repo", &path, "--command", "cat kept > copy; echo more >> kept"]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(person.git(&repository, &["status", "--porcelain"]), " M kept\n", "the checkout is as it was");
    let tasks = json(&person.types(&["task", "list", "--json"]));
    let task = tasks[0]["id"].as_str().expect("a task").to_owned();
    let exported = json(&person.types(&["--json", "task", "export", &task]));
    let branch = exported["branch"].as_str().expect("it names the branch").to_owned();
    assert_eq!(person.git(&repository, &["show", &format!("{branch}:copy")]), "changed\n");
    assert_eq!(person.git(&repository, &["show", &format!("{branch}:kept")]), "changed\nmore\n");
    assert_eq!(person.git(&repository, &["rev-parse", "--abbrev-ref", "HEAD"]), "main\n");
    assert_eq!(person.git(&repository, &["status", "--porcelain"]), " M kept\n");

    let nowhere = person.types(&["--json", "run", "--repo", "/", "--command", "true"]);
    assert_eq!(refusal(&nowhere), (Some(2), "not_a_repository".to_owned()));
}

#[test]
fn a_repositorys_secrets_are_had_where_the_configuration_or_the_run_allows_them() {
    let person = Person::new();
    let folder = person.folder.path();
    let source = |name: &str| format!("file:{}", folder.join(name).display());
    let configuration = format!("workers: {{ local: 1 }}\ntasks: {{ secrets: [{:?}] }}\n", source("one"));
    let project = format!(
        "secrets:\n  - {{ variable: ONE, source: {:?} }}\n  - {{ variable: TWO, source: {:?} }}\n",
        source("one"),
        source("two")
    );
    let repository = folder.join("repository");
    std::fs::create_dir(&repository).expect("the folder is writable");
    for (path, text) in [("helix.yaml", configuration), ("repository/helix.project.yaml", project)] {
        std::fs::write(folder.join(path), text).expect("the folder is writable");
    }
    for (name, value) in [("one", "hunter1\n"), ("two", "hunter2\n")] {
        std::fs::write(folder.join(name), value).expect("the folder is writable");
    }
    person.git(&repository, &["init", "--quiet"]);

    let path = repository.display().to_string();
    let run = ["run", "--repo", &path, "--command", "test $ONE$TWO = hunter1hunter2 && echo shown $TWO"];
    // A file of the folder, which a repository may have brought, allows nothing.
    assert_eq!(refusal(&person.types(&[&run[..], &["--json"]].concat())), (Some(2), "invalid_config".to_owned()));
    let own = folder.join(".config/helix");
    std::fs::create_dir_all(&own).expect("the folder is writable");
    std::fs::rename(folder.join("helix.yaml"), own.join("helix.yaml")).expect("the folder is writable");
    let refused = person.types(&run);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("nobody allowed: TWO from {}", source("two"))) && said.contains("--secret TWO"), "{said}");
    let allowed = person.types(&[&run[..], &["--secret", "TWO"]].concat());
    let said = String::from_utf8_lossy(&allowed.stdout).into_owned() + &String::from_utf8_lossy(&allowed.stderr);
    assert_eq!(allowed.status.code(), Some(0), "{said}");
    for (variable, file) in [("ONE", "one"), ("TWO", "two")] {
        assert!(said.contains(&format!("secret: {variable} from {}", source(file))), "{said}");
    }
    assert!(said.contains("shown [secret]") && !said.contains("shown hunter2"), "{said}");
}

#[test]
fn a_key_is_shown_once_serves_a_client_within_its_limits_and_is_refused_once_revoked() {
    let person = Person::new();
    assert_eq!(person.types(&["up", "--detach"]).status.code(), Some(0));
    let made = person.types(&["key", "create", "ci", "--model", "coder", "--budget", "5", "--rate", "60", "--expires", "30d"]);
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let secret = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    assert!(
        secret.starts_with("helix-") && !secret.contains(char::is_whitespace),
        "the key alone is on standard output: {secret:?}"
    );
    assert!(String::from_utf8_lossy(&made.stderr).contains("shown this once"));

    let other = json(&person.types(&["key", "create", "editor", "--budget-daily-tokens", "1000", "--json"]));
    assert_ne!(other["secret"].as_str(), Some(secret.as_str()));
    let listed = json(&person.types(&["key", "list", "--json"]));
    let first = listed[0].as_object().expect("a key").clone();
    let seen = ["name", "models", "requests_per_minute"].map(|field| first[field].clone());
    assert_eq!(seen, [Value::from("ci"), serde_json::json!(["coder"]), Value::from(60)]);
    assert_eq!(first["budget"]["money"], 5_000_000);
    assert_eq!(listed[1]["daily"]["tokens"], 1_000);
    let whole = String::from_utf8(person.types(&["key", "list"]).stdout).expect("text");
    assert!(whole.contains("ci") && whole.contains("29 d left") && !whole.contains(&secret[6..]), "{whole}");

    assert_eq!(refusal(&person.types(&["key", "revoke", "nobody", "--json"])), (Some(3), "not_found".to_owned()));
    assert_eq!(json(&person.types(&["key", "revoke", "ci", "--json"]))["name"], "ci");
    let left = json(&person.types(&["key", "list", "--json"]));
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    let all = json(&person.types(&["key", "list", "--all", "--json"]));
    assert!(all[0]["revoked_at"].is_i64(), "{all}");
}

#[test]
fn what_was_mistyped_is_refused_by_the_command_itself_with_a_next_step() {
    let person = Person::new();
    let usage = person.types(&["task", "show"]);
    let said = String::from_utf8_lossy(&usage.stderr).into_owned();
    assert!(usage.status.code() == Some(2) && !said.contains("--data"), "{said}");
    let run = person.types(&["--json", "run", "x", "--model", "m", "--base-url", "notaurl"]);
    assert_eq!(refusal(&run), (Some(2), "invalid_request".to_owned()));
    assert!(!person.data().exists(), "no node was started for it");
    let check = person.command(&["config", "check"]).env("HELIX_WORKER_SLOTS", "2").output().expect("the program runs");
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(said, "HELIX_WORKER_SLOTS is set, and nothing reads it; did you mean HELIX_WORKERS_SLOTS?\n");
    let up = person.command(&["--json", "up"]).env("HELIX_LOG", "verbos").output().expect("the program runs");
    assert_eq!(refusal(&up), (Some(2), "invalid_config".to_owned()));
}

#[test]
fn a_wrong_command_line_and_a_projects_file_are_judged_as_what_they_are() {
    let person = Person::new();
    for wrong in [&["--json", "nonsense"][..], &["task", "checkpoint", "x", "--json"], &["login", "--json"]] {
        let refused = person.types(wrong);
        assert_eq!(refusal(&refused), (Some(2), "invalid_request".to_owned()));
        assert!(
            refused.stdout.is_empty() && String::from_utf8_lossy(&refused.stderr).contains("shows how it is used"),
            "{wrong:?}"
        );
    }
    let file = person.folder.path().join("helix.project.yaml");
    std::fs::write(&file, include_str!("../../configs/examples/helix.project.yaml")).expect("the folder is writable");
    assert_eq!(json(&person.types(&["config", "check", "helix.project.yaml", "--json"]))["valid"], true);
    std::fs::write(&file, "stup: {}\n").expect("the folder is writable");
    let wrong = person.types(&["config", "check", "helix.project.yaml", "--json"]);
    assert_eq!(refusal(&wrong), (Some(2), "invalid_config".to_owned()));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("setup"), "{}", String::from_utf8_lossy(&wrong.stderr));
}

#[test]
fn down_says_what_it_waits_for_and_what_stays_and_ends_workers_where_that_is_wanted() {
    let person = Person::new();
    let mut run = person.command(&["run", "--command", "touch begun; sleep 8"]).spawn().expect("the program runs");
    let started = std::time::Instant::now();
    let is_running = || {
        let tasks = person.types(&["status", "--json"]);
        tasks.status.success() && json(&tasks)["held"]["local-1"] == 1
    };
    while !is_running() {
        assert!(started.elapsed().as_secs() < 30, "the task is not taken");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let down = person.types(&["down"]);
    let (said, noted) = (String::from_utf8_lossy(&down.stdout).into_owned(), String::from_utf8_lossy(&down.stderr).into_owned());
    assert!(down.status.success() && noted.starts_with("waiting for the present step of 1 task"), "{noted}");
    assert!(said.contains("left running for the next node: worker local-1; ") && said.contains("`kill "), "{said}");
    run.wait().expect("it has ended");

    let up = person.types(&["up", "--detach"]);
    assert_eq!(up.status.code(), Some(0), "{}", String::from_utf8_lossy(&up.stderr));
    let is_idle = || {
        let status = json(&person.types(&["status", "--json"]));
        status["held"].as_object().is_none_or(serde_json::Map::is_empty) && status["workers"][0]["pid"].is_u64()
    };
    while !is_idle() {
        assert!(started.elapsed().as_secs() < 60, "the task does not end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ended = json(&person.types(&["down", "--workers", "--json"]));
    assert_eq!((&ended["workers"][0]["name"], &ended["workers"][0]["ended"]), (&"local-1".into(), &true.into()), "{ended}");
}

#[test]
fn down_now_waits_for_no_step() {
    let person = Person::new();
    json(&person.types(&["--json", "run", "-d", "--command", "touch begun; sleep 300"]));
    let began = std::time::Instant::now();
    while json(&person.types(&["status", "--json"]))["tasks"]["running"] != 1 {
        assert!(began.elapsed().as_secs() < 30, "the task is not taken");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let began = std::time::Instant::now();
    let down = person.types(&["down", "--now"]);
    assert_eq!(down.status.code(), Some(0), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
}

/// A data folder whose path is too long for a socket in it.
fn long_folder(person: &Person) -> PathBuf {
    person.folder.path().join("x".repeat(100)).join("data")
}

#[test]
fn a_node_with_a_long_path_is_found_from_another_environment_than_it_was_started_from() {
    let person = Person::new();
    let data = long_folder(&person);
    let types = |arguments: &[&str], runtime: Option<&Path>| {
        let mut command = person.command(arguments);
        command.env("HELIX_DATA", &data).env_remove("XDG_RUNTIME_DIR");
        command.envs(runtime.map(|folder| ("XDG_RUNTIME_DIR", folder))).output().expect("the program runs")
    };
    let run = person.folder.path().join("run");
    std::fs::create_dir(&run).expect("the folder is writable");
    assert_eq!(refusal(&types(&["--json", "status"], None)), (Some(5), "node_unreachable".to_owned()));
    let up = types(&["up", "--detach"], Some(&run));
    assert_eq!(up.status.code(), Some(0), "{}", String::from_utf8_lossy(&up.stderr));
    let seen = types(&["--json", "status"], None);
    assert_eq!(json(&seen)["node"]["data"].as_str(), data.to_str());
    assert_eq!(std::fs::read_dir(&run).expect("it can be read").count(), 1, "the socket is where the node's environment said");
    assert_eq!(types(&["down", "--now"], None).status.code(), Some(0));
    assert_eq!(std::fs::read_dir(&run).expect("it can be read").count(), 0);
}

#[test]
fn a_socket_that_somebody_else_answers_is_not_spoken_to() {
    const LISTEN: &str = "import os, socket, sys, time; os.setuid(65534); s = socket.socket(socket.AF_UNIX); \
                          s.bind(sys.argv[1]); s.listen(); print(flush=True); time.sleep(60)";
    if !rustix::process::getuid().is_root() {
        return not_run("a socket that somebody else answers", "being two users needs root");
    }
    let person = Person::new();
    let data = long_folder(&person);
    std::fs::create_dir_all(&data).expect("the folder is writable");
    let everybodys = tempfile::tempdir().expect("a temporary folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(everybodys.path(), mode).expect("ours");
    let socket = everybodys.path().join("helix-guessed.sock");
    std::fs::write(data.join("socket"), format!("{}\n", socket.display())).expect("the folder is writable");
    let mut other = Command::new("python3");
    other.args(["-c", LISTEN]).arg(&socket).stdout(std::process::Stdio::piped());
    let mut other = other.spawn().expect("Python is installed");
    let mut told = String::new();
    let said = other.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut told).expect("it listens");
    let output = person.command(&["--json", "status"]).env("HELIX_DATA", &data).output().expect("the program runs");
    let _ = other.kill();
    let _ = other.wait();
    assert_eq!(refusal(&output), (Some(4), "forbidden".to_owned()), "{output:?}");
}

#[test]
fn nothing_of_a_tasks_words_is_obeyed_by_a_terminal_and_its_output_reaches_a_program_as_it_is() {
    const TITLE: &str = "a title\x1b]52;c;cm0gLXJm\x07\x1b[2J";
    const COMMAND: &str = r"printf 'said \033]0;owned\007\033[8mhidden\n'; exit 3";
    const WRITTEN: &str = "said \x1b]0;owned\x07\x1b[8mhidden\n";
    let person = Person::new();
    let run = person.types(&["run", "--title", TITLE, "--command", COMMAND]);
    assert_eq!(run.status.code(), Some(10), "{run:?}");
    let task = json(&person.types(&["task", "list", "--json"]))[0]["id"].as_str().expect("a task").to_owned();
    let shown = [&["show", &task] as &[&str], &["why", &task], &["list"]].map(|words| person.types(&[&["task"], words].concat()));
    for output in [run].iter().chain(&shown) {
        for bytes in [&output.stdout, &output.stderr] {
            // What the command itself writes reaches a pipe as it is.
            let text = String::from_utf8_lossy(bytes).replace(WRITTEN, "");
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }
    assert!(String::from_utf8_lossy(&shown[0].stdout).contains("a title"), "{:?}", shown[0]);

    let log = person.types(&["task", "log", &task]).stdout;
    assert!(String::from_utf8_lossy(&log).contains(WRITTEN), "{log:?}");
    for words in [format!("task log {task}"), format!("run --command \"{}\"", COMMAND.replace('\\', r"\\"))] {
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &format!("{HELIX} {words}"), "/dev/null"]);
        terminal.env("HELIX_DATA", person.data()).env("HOME", person.folder.path()).env("NO_COLOR", "1");
        let seen = terminal.output().expect("util-linux's script is installed").stdout;
        // A line of progress wipes itself away.
        let seen = String::from_utf8_lossy(&seen).replace("\r\x1b[K", "");
        assert!(seen.contains("said hidden") && !seen.contains('\x1b'), "{seen:?}");
    }
}
