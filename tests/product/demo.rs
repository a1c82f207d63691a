//! `helix demo` as a stranger runs it: it keeps its promise, holds itself to it, and leaves nothing behind.

use std::path::Path;

use helix::scripted::{ScriptedServer, Transcript, read_log, repeated_replies};
use serde_json::Value;

use crate::command_line::{Person, json, refusal};
use crate::harness::processes_in;

/// Plays it on a machine whose environment is for other programs, and looks at what is left.
fn played(person: &Person, arguments: &[&str]) -> Value {
    let temporary = person.folder.path().join("temporary");
    std::fs::create_dir_all(&temporary).expect("the folder is writable");
    let mut demo = person.command(&[&["demo", "--json"], arguments].concat());
    // Of a web project, say: the demo has no business there.
    demo.env("DATABASE_URL", "postgres://127.0.0.1:1/somebodys").env("HELIX_LLM_DEFAULT_PROVIDER", "nobody");
    let figures = json(&demo.env("TMPDIR", &temporary).output().expect("the program runs"));
    let zero = ["lost_steps", "double_steps", "model_calls_repeated"].map(|figure| figures[figure].as_u64());
    assert_eq!(zero, [Some(0); 3], "{figures}");
    assert_eq!(
        (figures["kills"].as_u64(), figures["resumed_in_ms"].as_array().map(Vec::is_empty)),
        (Some(1), Some(false)),
        "{figures}"
    );
    assert!(figures["bytes_logical"].as_u64() > Some(0) && figures["bytes_stored"].as_u64() > Some(0), "{figures}");
    assert_eq!(left_in(&temporary), [] as [String; 0], "the demo cleans up");
    assert_eq!(processes_in(person.folder.path()), [], "and nothing of it runs on");
    figures
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("it was made").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_demo_loses_nothing_to_its_kill_whatever_the_environment_holds() {
    let person = Person::new();
    let figures = played(&person, &[]);
    assert!(figures["steps"].as_u64() >= Some(20), "{figures}");
    assert_eq!((&figures["result_branch"], &figures["tests_passed"]), (&Value::from("helix/demo"), &Value::from(true)));
}

#[test]
fn the_demo_takes_somebodys_repository_and_gives_it_back_with_a_branch_more() {
    let person = Person::new();
    let repository = person.repository();
    let figures = played(&person, &["--repo", &repository.display().to_string()]);
    let branch = figures["result_branch"].as_str().expect("a branch").to_owned();
    assert!(person.git(&repository, &["show", "--stat", &branch]).contains("HELIX-TOUR.md"));
    assert_eq!(person.git(&repository, &["status", "--porcelain"]), "");
    assert_eq!(person.git(&repository, &["rev-parse", "--abbrev-ref", "HEAD"]), "main\n");
}

/// The transcript behind a server that the demo knows nothing of.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_plays_with_a_model_of_ones_own_and_asks_it_for_nothing_twice() {
    let person = Person::new();
    let (log, address) = (person.folder.path().join("model.jsonl"), std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let transcript = Transcript::parse(helix::scripted::DEMO).expect("it can be followed");
    let server = ScriptedServer::start(transcript, address, &log).await.expect("it starts");
    let mut demo = person.command(&["demo", "--json", "--model", "gpt-5-mini", "--base-url", &server.base_url()]);
    demo.env("OPENAI_API_KEY", "sk-of-the-person").env("TMPDIR", person.folder.path());
    let output = tokio::task::block_in_place(|| demo.output()).expect("the program runs");
    let figures = json(&output);
    assert_eq!(
        (&figures["lost_steps"], &figures["double_steps"], &figures["kills"]),
        (&0.into(), &0.into(), &1.into()),
        "{figures}"
    );
    assert!(figures["model_calls_repeated"].is_null(), "the demo cannot look into it: {figures}");
    assert_eq!(figures["tests_passed"], Value::from(true), "{figures}");
    let asked = read_log(&log).expect("it was asked");
    assert_eq!((repeated_replies(&asked), asked.iter().any(|line| line.key.is_some())), (0, true));
    assert!(String::from_utf8_lossy(&output.stderr).contains("The model is a real one"));
}

#[test]
fn the_demo_refuses_what_it_cannot_play_on_before_anything_starts() {
    let person = Person::new();
    let temporary = person.folder.path().join("temporary");
    std::fs::create_dir_all(&temporary).expect("the folder is writable");
    let refused = |arguments: &[&str]| {
        let mut demo = person.command(&[&["demo", "--json"], arguments].concat());
        demo.env_remove("OPENAI_API_KEY").env_remove("OPENAI_BASE_URL").env("TMPDIR", &temporary);
        let output = demo.output().expect("the program runs");
        assert_eq!(left_in(&temporary), [] as [String; 0], "{arguments:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("helix down"), "the demo's node is its own");
        refusal(&output)
    };
    assert_eq!(refused(&["--repo", "/"]), (Some(2), "not_a_repository".to_owned()));
    assert_eq!(refused(&["--repo", "/nonexistent"]), (Some(2), "invalid_request".to_owned()));
    assert_eq!(refused(&["--model", "gpt-5-mini"]), (Some(7), "model_unavailable".to_owned()));
}

#[test]
fn the_demo_holds_its_agents_until_a_person_has_killed_or_pressed_enter() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    for kills in [true, false] {
        let person = Person::new();
        let temporary = person.folder.path().join("temporary");
        std::fs::create_dir_all(&temporary).expect("the folder is writable");
        let mut demo = person.command(&["demo", "--json", "--kill", "ask"]);
        let demo = demo.env("TMPDIR", &temporary).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut demo = demo.spawn().expect("the program runs");
        let mut input = demo.stdin.take().expect("it is piped");
        let mut lines = BufReader::new(demo.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        seen.extend(lines.by_ref().take_while(|line| !line.contains("press Enter")));
        assert!(seen.iter().any(|line| line.contains("the agents are held")), "{seen:?}");
        let transcript = seen.iter().find_map(|line| line.strip_prefix("Its transcript is ")?.split_once(" ("));
        let transcript = std::fs::read_to_string(transcript.expect("it is named").0).expect("it can be read");
        assert_eq!(transcript, helix::scripted::DEMO);
        let (reader, late) = std::sync::mpsc::channel();
        let rest = std::thread::spawn(move || lines.for_each(|line| drop(reader.send(line))));
        // A command that ran when they were held may end meanwhile; no agent begins another step.
        std::thread::sleep(std::time::Duration::from_secs(3));
        let meanwhile: Vec<String> = late.try_iter().collect();
        assert!(!meanwhile.iter().any(|line| line.contains("completed")), "they are held: {meanwhile:?}");
        if kills {
            let named = seen.iter().find_map(|line| line.trim().strip_prefix("kill -9 ")).expect("what can be killed");
            let pid = named.split_whitespace().next().expect("a process");
            assert!(Command::new("kill").args(["-9", pid]).status().expect("kill runs").success());
        } else {
            input.write_all(b"\n").expect("it listens");
        }
        let output = demo.wait_with_output().expect("it ends");
        rest.join().expect("it only reads");
        let said: Vec<String> = late.try_iter().collect();
        let figures = json(&output);
        assert_eq!(figures["kills"].as_u64(), Some(u64::from(kills)), "{figures}: {said:?}");
        let zero = ["lost_steps", "double_steps", "model_calls_repeated"].map(|figure| figures[figure].as_u64());
        assert_eq!((zero, &figures["tests_passed"]), ([Some(0); 3], &Value::from(true)), "{figures}");
    }
}
