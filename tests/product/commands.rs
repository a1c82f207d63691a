//! What a person is told of commands: what they write while they run, why they failed, and what to do next.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::command_line::{Person, json, refusal};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of a run that are no part of the timeline.
fn written(run: &std::process::Output) -> Vec<String> {
    let is_an_event = |line: &&str| line.len() > 12 && line.as_bytes()[2] == b':' && line.as_bytes()[5] == b':';
    text(&run.stdout).lines().filter(|line| !is_an_event(line)).map(str::to_owned).collect()
}

/// The newest task.
fn newest(person: &Person) -> Value {
    json(&person.types(&["task", "list", "--json"]))[0].clone()
}

#[test]
fn what_a_command_writes_is_seen_while_it_runs_and_once() {
    let person = Person::new();
    assert_eq!(person.types(&["up", "--detach"]).status.code(), Some(0));
    let go = person.folder.path().join("go");
    let wait = format!("echo first; while ! test -e {}; do sleep 0.1; done; printf last", go.display());
    let mut command = person.command(&["run", "--unsandboxed", "--command", &wait, "--command", "echo quick"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs");
    let (sender, lines) = mpsc::channel();
    let output = run.stdout.take().expect("it is piped");
    let reader =
        std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let mut seen = Vec::new();
    while !seen.iter().any(|line| line == "first") {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => seen.push(line),
            Err(error) => {
                // The node is its child, and would not be seen to end while it runs.
                let _ = run.kill().and_then(|()| run.wait());
                panic!("{error}: {seen:?}");
            }
        }
    }
    let task = newest(&person)["id"].as_str().expect("a task").to_owned();
    let status = newest(&person)["status"].clone();
    assert!(status == "assigned" || status == "running", "its first line is there before its end: {status}");
    let log = person.types(&["task", "log", &task]);
    assert_eq!((log.status.code(), text(&log.stdout)), (Some(0), String::new()));
    assert!(text(&log.stderr).contains("step 1 is running") && text(&log.stderr).contains("--follow"), "{}", text(&log.stderr));

    std::fs::write(&go, "").expect("the folder is writable");
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
    reader.join().expect("it only reads");
    seen.extend(lines.try_iter());
    for line in ["first", "last", "quick"] {
        assert_eq!(seen.iter().filter(|seen| *seen == line).count(), 1, "{line}: {seen:?}");
    }
    let events = person.types(&["--json", "run", "--command", "echo hidden"]);
    let said = text(&events.stdout);
    assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|event| event["kind"].is_string())), "{said}");
}

#[test]
fn a_failure_is_told_briefly_and_with_what_to_do() {
    let person = Person::new();
    let run = person.types(&["run", "--command", "echo boom; exit 3"]);
    let said = text(&run.stdout) + &text(&run.stderr);
    assert_eq!(run.status.code(), Some(10), "{said}");
    assert_eq!(written(&run), ["boom"], "{said}");
    assert_eq!(said.matches("ended with exit code 3").count(), 2, "by the line of its end, and as the command's failure: {said}");

    let lacks = person.types(&["run", "--command", "nosuchprogram --all"]);
    let said = text(&lacks.stderr);
    assert_eq!(lacks.status.code(), Some(10), "{said}");
    for word in ["the worker has no program nosuchprogram", "program_missing", "install it on the worker", "--needs"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let reason = newest(&person)["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.ends_with("(program_missing)"), "{reason}");

    let late = person.types(&["run", "--timeout", "1s", "--command", "sleep 60"]);
    assert!(text(&late.stderr).contains("longer than its limit of 1 s"), "{}", text(&late.stderr));
    assert_eq!(person.types(&["run", "--detach", "--memory", "900T", "--command", "true"]).status.code(), Some(0));
    let task = newest(&person)["id"].as_str().expect("a task").to_owned();
    let mut why = String::new();
    for _ in 0..100 {
        why = text(&person.types(&["task", "why", &task]).stdout);
        if why.contains("are needed") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(why.contains("GiB of its memory are free, 921600 GiB are needed"), "{why}");
}

#[test]
fn a_checkpoint_cannot_be_called_as_a_step_is_and_an_empty_id_is_no_id() {
    let person = Person::new();
    assert_eq!(person.types(&["run", "--command", "true"]).status.code(), Some(0));
    let task = newest(&person)["id"].as_str().expect("a task").to_owned();
    for name in ["1", "3", "007", "head", "base"] {
        let refused = person.types(&["--json", "task", "checkpoint", &task, name]);
        assert_eq!(refusal(&refused), (Some(2), "invalid_request".to_owned()), "{name}");
    }
    assert_eq!(person.types(&["task", "checkpoint", &task, "v1"]).status.code(), Some(0));
    for command in [["task", "log", ""], ["task", "show", ""], ["worker", "show", ""]] {
        let refused = person.types(&command);
        assert_eq!(refused.status.code(), Some(2), "{command:?}");
        assert!(!text(&refused.stderr).contains("/api/v1"), "{}", text(&refused.stderr));
    }
}
