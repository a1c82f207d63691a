//! What keeps a store small and sound, experiments, history by line, and what programs can do over the socket.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use helios_client::Text;
use serde_json::{Value, json};

use crate::harness::{Program, User, end_of, ended, wait_until};

#[test]
fn what_nothing_keeps_goes_with_a_collection_and_the_rest_is_packed() {
    let user = User::new();
    let root = user.repository("work");
    let base = user.commit(&root, "f", "kept\n");
    let lost = user.commit(&root, "f", "lost\n");
    user.ok(&root, &["reset", "--hard", "HEAD~1"]);
    user.ok(&root, &["gc"]);
    user.ok(&root, &["cat-file", "-e", &lost]);
    // The last operation can always be undone, and so keeps what it needs.
    user.ok(&root, &["branch", "later"]);
    let dry: Value =
        serde_json::from_str(&user.ok(&root, &["--json", "gc", "--remove-old-snapshots", "--before", "0s", "--dry-run"]))
            .expect("JSON");
    assert!(dry["objects_dropped"].as_u64() >= Some(3), "{dry}");
    user.ok(&root, &["cat-file", "-e", &lost]);
    user.ok(&root, &["gc", "--remove-old-snapshots", "--before", "0s"]);
    assert_ne!(user.run(&root, &["cat-file", "-e", &lost]).code, 0);
    assert_eq!(user.ok(&root, &["show", &format!("{base}:f")]), "kept\n");
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    user.ok(&root, &["gc", "--aggressive"]);
    assert_eq!(user.ok(&root, &["show", "HEAD:f"]), "kept\n");
}

#[test]
fn so_many_operations_stay_as_the_settings_say() {
    let user = User::new();
    let root = user.repository("work");
    let ids: Vec<String> = (0..5).map(|round| user.commit(&root, "f", &round.to_string())).collect();
    user.ok(&root, &["reset", "--hard", &ids[0]]);
    user.ok(&root, &["config", "set", "cleanup.max_operations", "2"]);
    user.ok(&root, &["gc"]);
    user.ok(&root, &["cat-file", "-e", &ids[3]]);
    // The reset, and the last commit, which is what the reset went back from.
    let told: Value = serde_json::from_str(&user.ok(&root, &["--json", "gc", "--remove-old-snapshots"])).expect("JSON");
    assert!(told["operations_forgotten"].as_u64() >= Some(4), "{told}");
    assert_eq!(user.ok(&root, &["oplog"]).lines().count(), 2);
    user.ok(&root, &["undo"]);
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), ids[4]);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn what_is_purged_is_nowhere_and_every_snapshot_that_had_it_is_named() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, ".env", "secret\n");
    fs::remove_file(root.join(".env")).expect("removed");
    user.commit(&root, "f", "1");
    let would = user.ok(&root, &["purge", ".env", "--dry-run"]);
    assert!(would.contains(&one[..12]) && would.contains(".env"), "{would}");
    assert_eq!(user.ok(&root, &["show", &format!("{one}:.env")]), "secret\n");
    user.ok(&root, &["purge", ".env"]);
    assert_ne!(user.run(&root, &["show", &format!("{one}:.env")]).code, 0);
    let never = user.run(&root, &["purge", "never-there"]);
    assert!(never.code == 128 && never.err.contains("never-there"), "{}", never.err);
    user.ok(&root, &["fsck"]);
    user.ok(&root, &["log"]);
}

#[test]
fn a_backup_is_checked_and_restored_with_its_files() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    user.ok(&root, &["backup", "create", "../backup"]);
    user.commit(&root, "f", "2");
    user.ok(&root, &["backup", "verify", "../backup"]);
    user.ok(&root, &["backup", "restore", "../backup", "../again"]);
    let again = user.path("again");
    assert_eq!(
        (fs::read_to_string(again.join("f")).expect("restored").as_str(), user.ok(&again, &["rev-parse", "HEAD"]).trim()),
        ("1", one.as_str())
    );
    assert_eq!(user.run(&root, &["backup", "restore", "../backup", "."]).code, 1, "a repository is not replaced by mistake");
    // Whoever has the store goes on with it until it is replaced.
    user.ok(&root, &["engine", "stop"]);
    wait_until("the engine has left", || user.engine().is_none());
    let held = fs::File::open(root.join(".helios/store/lock")).expect("there");
    held.lock().expect("nobody has it");
    let mut restore = user.helios(&root, &["backup", "restore", "--replace", "../backup", "."]);
    let restoring = restore.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!root.join(".helios/store.replaced-1").exists(), "it waits");
    drop(held);
    let replaced = end_of(restoring);
    assert!(replaced.code == 0 && replaced.err.contains(".helios/store.replaced-1"), "{}", replaced.err);
    assert!(root.join(".helios/store.replaced-1/db").is_dir() && !root.join(".helios/store.new").exists());
    assert_eq!(
        (user.ok(&root, &["rev-parse", "HEAD"]).trim(), user.ok(&root, &["status", "--porcelain"]).as_str()),
        (one.as_str(), " M f\n")
    );
    let manifest = user.path("backup").join("manifest");
    let text = fs::read_to_string(&manifest).expect("read");
    fs::write(&manifest, text.replacen('a', "b", 1)).expect("written");
    assert_eq!(user.run(&root, &["backup", "verify", "../backup"]).code, 128);
}

#[test]
fn an_experiment_is_promoted_or_discarded_as_a_whole() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "base");
    user.ok(&root, &["experiment", "start", "parser", "--variant", "a", "--variant", "b"]);
    for (variant, score) in [("a", "0.5"), ("b", "0.9")] {
        user.ok(&root, &["workspace", "add", &format!("../{variant}"), &format!("experiments/parser/{variant}")]);
        user.commit(&user.path(variant), "f", variant);
        user.ok(&root, &["experiment", "score", "parser", variant, score]);
    }
    assert!(user.ok(&root, &["experiment", "best", "parser"]).starts_with("b 0.9 at "));
    user.ok(&root, &["experiment", "promote", "parser"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "b");
    assert_eq!(user.ok(&root, &["branch"]), "* main\n");
    user.ok(&root, &["undo"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "base");
    user.ok(&root, &["experiment", "discard", "parser"]);
    assert!(user.ok(&root, &["experiment", "list"]).starts_with("parser discarded"));
}

#[test]
fn blame_names_the_snapshot_of_each_line_and_bisect_the_one_that_broke_it() {
    let user = User::new();
    let root = user.repository("work");
    let mut snapshots = Vec::new();
    for number in 1..=9 {
        let text: String = (1..=number).map(|line| format!("line {line}\n")).collect();
        snapshots.push(user.commit(&root, "f", &text));
    }
    let blamed = user.ok(&root, &["blame", "f"]);
    let ids: Vec<&str> = blamed.lines().map(|line| &line[..12]).collect();
    assert_eq!(ids, snapshots.iter().map(|id| &id[..12]).collect::<Vec<_>>());
    let found = user.ok(&root, &["bisect", "run", "HEAD~8", "HEAD", "--", "sh", "-c", "! grep -q 'line 6' f"]);
    assert!(found.contains(&format!("{} is the first bad commit", &snapshots[5][..12])), "{found}");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    let skipped = user.run(&root, &["bisect", "run", "HEAD~3", "HEAD", "--", "sh", "-c", "exit 125"]);
    assert_eq!(skipped.code, 1, "{}", skipped.out);
}

#[test]
fn a_command_within_a_bisection_is_refused_and_does_not_wait_for_its_end() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    user.commit(&root, "f", "2");
    let three = user.commit(&root, "f", "3");
    let script =
        "helios rev-parse HEAD; helios status; test $? = 128 || exit 127; helios commit --work .; test $? = 128 && ! grep -q 3 f";
    let run = ["bisect", "run", "HEAD~2", "HEAD", "--", "sh", "-c", script];
    for alone in [false, true] {
        let mut bisect = user.helios(&root, &run);
        if alone {
            bisect.env("HELIOS_NO_ENGINE", "1");
        }
        let found = ended(&mut bisect);
        assert!(found.out.contains("`helios bisect run` has this folder"), "{}{}", found.out, found.err);
        assert!(found.code == 0 && found.out.contains(&format!("{} is the first bad commit", &three[..12])), "{}", found.out);
        assert_eq!(user.ok(&root, &["rev-parse", "HEAD~2", "HEAD"]).lines().collect::<Vec<_>>(), [&one, &three]);
        assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    }
}

#[test]
fn a_bisection_goes_on_over_what_its_command_writes_and_takes_no_refusal_for_an_answer() {
    let user = User::new();
    let root = user.repository("work");
    for text in ["1", "2", "3"] {
        user.commit(&root, "f", text);
    }
    let three = user.ok(&root, &["rev-parse", "HEAD"]);
    let script = "! grep -q 3 f; answer=$?; echo made >> f; exit $answer";
    let found = user.ok(&root, &["bisect", "run", "HEAD~2", "HEAD", "--", "sh", "-c", script]);
    assert!(found.contains(&format!("{} is the first bad commit", &three.trim()[..12])), "{found}");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    assert_eq!(std::fs::read_to_string(root.join("f")).expect("it is there"), "3");
    let refused = user.run(&root, &["bisect", "run", "HEAD~2", "HEAD", "--", "helios", "status"]);
    assert_eq!(refused.code, 128, "{}{}", refused.out, refused.err);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn who_watches_is_told_of_each_change() {
    let user = User::new();
    let root = user.repository("work");
    let watch = user.helios(&root, &["watch", "--since", "1", "--count", "2"]).stdout(Stdio::piped()).spawn().expect("started");
    let snapshot = user.commit(&root, "f", "1");
    user.ok(&root, &["branch", "b"]);
    let output = watch.wait_with_output().expect("it ends");
    let events: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let verbs: Vec<&str> = events.iter().filter_map(|event| event["verb"].as_str()).collect();
    assert_eq!(verbs, ["commit", "branch"]);
    assert_eq!(events[0]["changes"][0]["after"], json!(snapshot));
}

/// The events that a watch tells, as it tells them.
fn told(watch: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    watch.read_line(&mut line).expect("it tells");
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn who_watches_is_told_what_is_forgotten_and_that_the_log_is_another_one() {
    let user = User::new();
    let root = user.repository("work");
    for content in ["1", "2", "3"] {
        user.commit(&root, "f", content);
    }
    user.ok(&root, &["backup", "create", "../backup"]);
    let kept = user.commit(&root, "f", "4");
    user.ok(&root, &["gc", "--remove-old-snapshots", "--before", "0s"]);
    let numbers: Vec<u64> = {
        let log = user.ok(&root, &["oplog", "--json"]);
        log.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["operation"].as_u64().expect("a number"))
            .collect()
    };
    let (first, last) = (*numbers.iter().min().expect("one"), *numbers.iter().max().expect("one"));
    assert!(first > 2, "{numbers:?}");
    let mut child = user.helios(&root, &["watch", "--since", "1"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut watch = BufReader::new(child.stdout.take().expect("piped"));
    assert_eq!(told(&mut watch), json!({"forgotten": {"first": 2, "last": first - 1}}));
    for number in first..=last {
        assert_eq!(told(&mut watch)["operation"], number);
    }
    user.ok(&root, &["backup", "restore", "--replace", "../backup", "."]);
    let restored = told(&mut watch)["replaced"]["last"].as_u64().expect("a number");
    assert!(restored < last, "{restored}");
    let next = user.commit(&root, "f", "5");
    let event = told(&mut watch);
    assert_eq!((event["operation"].as_u64(), &event["changes"][0]["after"]), (Some(restored + 1), &json!(next)));
    assert_ne!(next, kept);
    // As far as before, and another one all the same, whether the watch looks before the next commit or behind it.
    user.ok(&root, &["backup", "restore", "--replace", "../backup", "."]);
    user.commit(&root, "f", "6");
    let replaced = told(&mut watch)["replaced"]["last"].as_u64().expect("a number");
    assert!([restored, restored + 1].contains(&replaced), "{replaced}");
    user.commit(&root, "f", "7");
    for number in replaced + 1..=restored + 2 {
        assert_eq!(told(&mut watch)["operation"], number);
    }
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

fn in_repository(root: &Path, fields: Value) -> Value {
    let mut request = json!({"path": root});
    request.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    request
}

#[test]
fn a_program_commits_and_reads_without_a_folder() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let mut program = Program::new(&user);
    program.ok(in_repository(&root, json!({"op": "workspace", "name": "agent", "author": {"name": "A", "email": "a@b"}})));
    let files = json!([{"path": "dir/a.py", "content": "x = 1\n"}, {"path": "bin", "content": {"base64": "AP8="}, "mode": "100755"}, {"path": "f"}]);
    let commit = json!({"op": "commit_files", "workspace": "agent", "message": "try", "files": files, "metadata": {"model": "m"}, "durability": "group"});
    let committed = program.ok(in_repository(&root, commit.clone()));
    assert_eq!(
        (committed["branch"].as_str(), committed["on_disk"].as_bool(), &committed["folder_follows"]),
        (Some("agent"), Some(true), &Value::Null)
    );
    let list = program.ok(in_repository(&root, json!({"op": "list_files", "revision": "agent"})));
    let paths: Vec<&str> = list["files"].as_array().expect("a list").iter().filter_map(|file| file["path"].as_str()).collect();
    assert_eq!(paths, ["bin", "dir/a.py"]);
    let read = |file: &str| json!({"op": "read_file", "workspace": "agent", "file": file});
    assert_eq!(program.ok(in_repository(&root, read("bin"))), json!({"content": {"base64": "AP8="}, "mode": "100755", "size": 2}));
    assert_eq!(program.ask(in_repository(&root, read("gone")))["error"]["code"], "file_not_found");
    let log = program.ok(in_repository(&root, json!({"op": "log", "revisions": ["agent"], "where": {"model": "m"}})));
    assert_eq!(log["snapshots"][0]["snapshot"], committed["snapshot"]);
    let mut late = commit;
    late["expect"] = json!("main");
    assert_eq!(program.ask(in_repository(&root, late))["error"]["code"], "invalid_state");
    for (wrong, told) in [
        (json!({"op": "open", "pth": "/"}), "unknown field `pth`"),
        (json!({"op": "commit_files", "message": "x", "files": [{"path": "../out", "content": ""}]}), "../out"),
        (json!({"op": "commit_files", "message": "x", "files": [{"path": "a\u{0}b", "content": ""}]}), "not a path"),
        (json!({"op": "branch", "name": "a..b"}), "a..b"),
    ] {
        let answer = program.ask(in_repository(&root, wrong));
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(told)), "{answer}");
    }
    let branch = program.ok(in_repository(&root, json!({"op": "branch", "name": "b", "start": "agent"})));
    assert_eq!(branch["snapshot"], committed["snapshot"]);
    let branches = program.ok(in_repository(&root, json!({"op": "branch"})));
    assert_eq!(branches["branches"].as_object().map(serde_json::Map::len), Some(3));
}

#[test]
fn a_content_longer_than_a_line_is_printed_whole_and_read_in_pieces() {
    const SIZE: usize = 50 << 20;
    let user = User::new();
    let root = user.repository("work");
    // It is no text, so that it needs a third more on its way.
    let content: Vec<u8> = (0..SIZE as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    fs::write(root.join("large"), &content).expect("written");
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "large"]);
    let output = user.helios(&root, &["show", "HEAD:large"]).output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == content, "{} bytes, {message}", output.stdout.len());
    let mut program = Program::new(&user);
    let read = |offset: usize, length: Option<usize>| {
        in_repository(&root, json!({"op": "read_file", "file": "large", "offset": offset, "length": length}))
    };
    let refused = program.ask(read(0, None));
    assert!(refused["error"]["hint"].as_str().is_some_and(|hint| hint.contains("`offset`")), "{}", refused["error"]);
    let part = program.ok(read(SIZE - 3, Some(10)));
    let text: Text = serde_json::from_value(part["content"].clone()).expect("a text");
    assert_eq!((text.as_bytes(), &part["size"]), (&content[SIZE - 3..], &json!(SIZE)));
    assert_eq!(program.ok(read(SIZE + 1, None))["content"], "");
}

#[test]
fn a_path_may_be_no_text_and_every_operation_insists_on_an_absolute_one() {
    let user = User::new();
    let root = user.path("").join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&root).expect("made");
    user.ok(&root, &["init", "-q"]);
    let first = user.commit(&root, "f", "1");
    let mut program = Program::new(&user);
    let path = serde_json::to_value(Text::from(root.as_os_str())).expect("JSON");
    assert!(path["base64"].is_string(), "{path}");
    let opened = program.ok(json!({"op": "open", "path": path}));
    assert_eq!((&opened["repository"], &opened["head"]), (&path, &json!(first)));
    program.ok(json!({"op": "workspace", "path": path, "name": "agent"}));
    let files = json!([{"path": "f", "content": "2"}]);
    program.ok(json!({"op": "commit_files", "path": path, "workspace": "agent", "message": "m", "files": files}));
    // What a workspace begins at is the head of the one that is named.
    let next = program.ok(json!({"op": "workspace", "path": path, "workspace": "agent", "name": "next"}));
    assert_ne!(next["head"], json!(first));
    for op in ["open", "workspace", "commit_files", "read_file", "list_files", "log", "branch", "watch"] {
        let answer = program.ask(match op {
            "workspace" | "branch" => json!({"op": op, "path": ".", "name": "x"}),
            "commit_files" => json!({"op": op, "path": ".", "message": "", "files": []}),
            "read_file" => json!({"op": op, "path": ".", "file": "f"}),
            _ => json!({"op": op, "path": "."}),
        });
        assert!(answer["error"]["message"].as_str().is_some_and(|said| said.contains("not absolute")), "{op}: {answer}");
    }
}

#[test]
fn the_files_of_a_folder_follow_what_a_program_commits_to_its_workspace() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let mut program = Program::new(&user);
    let commit = |content: &str| json!({"op": "commit_files", "message": "x", "files": [{"path": "f", "content": content}]});
    assert_eq!(program.ok(in_repository(&root, commit("2")))["folder_follows"], true);
    assert_eq!(
        (fs::read_to_string(root.join("f")).expect("read").as_str(), user.ok(&root, &["status", "--porcelain"]).as_str()),
        ("2", "")
    );
    fs::write(root.join("f"), "mine").expect("written");
    assert_eq!(program.ok(in_repository(&root, commit("3")))["folder_follows"], false);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "mine");
}

#[test]
fn a_repository_that_is_not_used_is_let_go_for_who_waits() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let mut alone = user.helios(&root, &["log", "--oneline"]);
    assert_eq!(crate::harness::ended(alone.env("HELIOS_NO_ENGINE", "1")).out.lines().count(), 1);
    // The word that somebody waits was a lock, and is taken back.
    let wanted = fs::File::open(root.join(".helios/wanted")).expect("it was said");
    rustix::fs::flock(&wanted, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("nobody waits");
    drop(wanted);
    user.commit(&root, "f", "2");
}

#[test]
fn an_engine_that_nobody_asks_gives_its_memory_back() {
    let user = User::new();
    let root = user.repository("work");
    // Several versions of a large text are packed as one group, which is read whole.
    let line = |version: usize, at: usize| format!("line {at} of version {}\n", if at % 97 == version { version } else { 0 });
    for version in 0..5 {
        let text: String = (0..500_000).map(|at| line(version, at)).collect();
        user.commit(&root, "large", &text);
    }
    user.ok(&root, &["gc", "--aggressive"]);
    user.ok(&root, &["checkout", "HEAD~3"]);
    let engine = user.engine().expect("it runs");
    let resident = || -> u64 {
        let statm = fs::read_to_string(format!("/proc/{engine}/statm")).expect("it runs");
        statm.split(' ').nth(1).expect("a number").parse::<u64>().expect("a number") * 4_096
    };
    wait_until("less than 100 MB are resident", || resident() < 100_000_000);
    assert_eq!(user.engine(), Some(engine));
    user.ok(&root, &["checkout", "HEAD~1"]);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}
