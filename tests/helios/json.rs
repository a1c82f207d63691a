//! `--json` everywhere: each command's standard output is lines of JSON, and never none.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::User;

/// Those whose output is another program's input, and the one that has a test of its own since it does not end.
const OTHERS: [&str; 2] = ["completions", "watch"];

/// What a command says as JSON: its lines.
fn told(user: &User, cwd: &Path, arguments: &[&str]) -> Vec<Value> {
    let ended = user.run(cwd, &[&["--json"], arguments].concat());
    let lines: Vec<Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}")))
        .collect();
    assert!(!lines.is_empty(), "{arguments:?} says nothing: {}", ended.err);
    lines
}

#[test]
fn help_is_told_in_json_too() {
    let user = User::new();
    let cwd = user.path("");
    let all = told(&user, &cwd, &["help"]);
    assert!(all.iter().any(|entry| entry["command"] == "commit" && entry["about"] != "" && entry["group"] != ""));
    let page = &told(&user, &cwd, &["help", "workspace", "add"])[0];
    assert!(page["command"] == "workspace add" && page["page"].as_str().is_some_and(|page| page.contains("Examples:")), "{page}");
    let behind = user.run(&cwd, &["help", "commit", "--json"]);
    assert!(behind.out.starts_with("{\"command\":\"commit\","), "{}", behind.out);
}

#[test]
fn every_command_answers_in_json() {
    let user = User::new();
    let (root, git) = (user.path("work"), user.path("exported"));
    let session = format!(
        "init {root}
         config set workspace.file_cap 1MB; config get workspace.file_cap; config list; config unset workspace.file_cap
         commit --work . -m one; add -A; reset -- f; reset; restore --staged f; restore f; commit --work . -m two
         status; log; log --graph; show; show HEAD:f; show HEAD:d; diff HEAD~1 HEAD; ls-files; blame f
         cat-file -t HEAD; cat-file -s HEAD:f; cat-file -e HEAD:d; cat-file -p HEAD; cat-file -p HEAD:d; cat-file -p HEAD:f
         rev-parse HEAD; rev-parse --show-toplevel; rev-parse --helios-dir; rev-parse --abbrev-ref HEAD
         branch; branch other; branch -m other another; branch --show-current; branch -D another; tag v1; tag; tag -d v1
         checkout -b side; commit --work . -m three; switch main; cherry-pick side; revert HEAD; merge side --no-ff
         reset --hard HEAD~1; undo; oplog; bisect run HEAD~1 HEAD -- false
         experiment start e --variant a --variant b; experiment score e a 1; experiment list; experiment best e; experiment promote e
         workspace add {other}; workspace list; workspace remove other --delete
         export --to-git {git}; import --from-git {git}; sync --git {git}; backup create {backup}; backup verify {backup}
         backup restore --replace {backup} .; stats; gc; fsck; fsck --reached-by HEAD; fsck --roots; purge f; engine status; engine stop",
        root = root.display(),
        other = user.path("other").display(),
        git = git.display(),
        backup = user.path("backup").display(),
    );
    fs::create_dir_all(root.join("d")).expect("made");
    for path in ["f", "d/g"] {
        fs::write(root.join(path), "content\n").expect("written");
    }
    let mut seen = BTreeSet::new();
    for line in session.split([';', '\n']) {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        if arguments[0] == "commit" {
            fs::write(root.join("f"), format!("content\n{line}\n")).expect("written");
        }
        told(&user, &root, &arguments);
        seen.insert(arguments[0].to_owned());
    }
    let help = user.ok(&root, &["help"]);
    let commands = help.lines().filter_map(|line| line.strip_prefix("   ")?.split_whitespace().next());
    let missed: Vec<&str> = commands.filter(|name| !seen.contains(*name) && !OTHERS.contains(name)).collect();
    assert_eq!(missed, Vec::<&str>::new(), "commands without an example here");
}

#[test]
fn what_is_in_an_object_is_told_by_its_kind() {
    let user = User::new();
    let root = user.repository("work");
    fs::create_dir(root.join("d")).expect("made");
    fs::write(root.join("d/blob"), [0, 159, 146, 150]).expect("written");
    let head = user.commit(&root, "text", "caf\u{e9}\n");
    let one = |arguments: &[&str]| told(&user, &root, arguments).remove(0);
    let commit = one(&["cat-file", "-p", "HEAD"]);
    assert_eq!((&commit["kind"], &commit["commit"]["snapshot"]), (&json!("commit"), &json!(head)));
    let tree = one(&["cat-file", "-p", "HEAD:d"]);
    assert_eq!((&tree["kind"], &tree["entries"][0]["name"]), (&json!("tree"), &json!("blob")));
    assert_eq!(one(&["show", "HEAD:text"])["content"], json!("caf\u{e9}\n"));
    assert_eq!(one(&["show", "HEAD:d/blob"])["content"], json!({"base64": "AJ+Slg=="}));
    let kind = one(&["cat-file", "-t", "HEAD:text"]);
    assert_eq!(kind, json!({"id": kind["id"], "kind": "blob", "size": 6}));
}

#[test]
fn a_program_that_bisect_runs_does_not_talk_into_the_json() {
    let user = User::new();
    let root = user.repository("work");
    let good = user.commit(&root, "f", "1");
    let bad = user.commit(&root, "f", "2");
    let lines = told(&user, &root, &["bisect", "run", &good, "HEAD", "--", "sh", "-c", "echo noise; exit 1"]);
    assert_eq!(lines.last().expect("an answer")["first_bad"], json!([bad]));
}

#[test]
fn a_wrong_command_line_and_the_version_are_told_in_json() {
    let user = User::new();
    let root = user.repository("work");
    for arguments in
        [&["--json", "diff", "--nope"][..], &["diff", "--json", "--nope"], &["--json", "merge"], &["--json", "workspace", "nope"]]
    {
        let ended = user.run(&root, arguments);
        let told: Value = serde_json::from_str(&ended.err).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ended.err));
        assert_eq!((ended.code, &told["error"]["code"]), (129, &json!("invalid_request")), "{told}");
        assert!(!told["error"]["message"].as_str().expect("a text").starts_with("error"), "{told}");
    }
    let version = told(&user, &root, &["version"]).remove(0);
    let plain = user.ok(&root, &["version"]);
    assert_eq!(format!("helios version {}\n", version["version"].as_str().expect("a text")), plain);
    assert_eq!(user.ok(&root, &["--version", "--json"]), format!("{version}\n"));
}

#[test]
fn what_is_no_text_is_told_as_its_bytes() {
    let user = User::new();
    let root = user.repository("work");
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9")), "1\n").expect("written");
    let name = json!({"base64": "Y2Fm6Q=="});
    let one = |arguments: &[&str]| told(&user, &root, arguments).remove(0);
    assert_eq!(one(&["status"])["untracked"], json!([name]));
    assert_eq!(one(&["add", "."])["staged"], json!([name]));
    assert_eq!(one(&["status"])["changes"][0]["path"], name);
    user.ok(&root, &["commit", "-m", "one"]);
    assert_eq!(one(&["ls-files"])["path"], name);
    assert_eq!(one(&["show"])["changes"][0]["path"], name);
    assert_eq!(one(&["cat-file", "-p", "HEAD^{tree}"])["entries"][0]["name"], name);
    fs::write(root.join("latin"), b"plain\ncaf\xe9\n").expect("written");
    user.ok(&root, &["commit", "--work", "."]);
    let lines: Vec<Value> = told(&user, &root, &["blame", "latin"]).into_iter().map(|mut line| line["text"].take()).collect();
    assert_eq!(lines, [json!("plain"), name.clone()]);
    let output = user.helios(&root, &["blame", "latin"]).output().expect("it runs");
    assert!(output.stdout.ends_with(b") caf\xe9\n"), "{}", String::from_utf8_lossy(&output.stdout));
    let purge = |options: &[&str]| {
        let output = user.helios(&root, options).arg(OsStr::from_bytes(b"caf\xe9")).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let plan: Value = serde_json::from_str(&purge(&["--json", "purge", "--dry-run"])).expect("JSON");
    assert!(plan["snapshots"].as_array().expect("a list").iter().all(|snapshot| snapshot["paths"] == json!([name])), "{plan}");
    let lines = purge(&["purge", "--dry-run"]);
    assert!(lines.contains(" \"caf\\351\"\n"), "{lines}");
}
