//! `helix demo` as a stranger runs it: it keeps its promise, holds itself to it, and leaves nothing behind.

use std::path::Path;

use serde_json::Value;

use crate::command_line::{Person, json};
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
