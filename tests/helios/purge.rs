//! Content that was removed on purpose: every command goes on without it, and what is committed again is there again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Ended, Program, User, ended};

/// Whether a command went on, and said which path it left out and why.
fn left_out(ended: &Ended, path: &str) -> bool {
    ended.code == 0 && ended.err.contains(&format!("warning: {path} is left out")) && ended.err.contains("helios purge")
}

/// A history of three snapshots: the second one has a `.env` that was purged since, the third has none.
fn purged(user: &User) -> (PathBuf, [String; 3]) {
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    fs::write(root.join("f"), "2").expect("written");
    let two = user.commit(&root, ".env", "secret\n");
    fs::remove_file(root.join(".env")).expect("removed");
    let three = user.commit(&root, "f", "3");
    user.ok(&root, &["purge", ".env"]);
    (root, [one, two, three])
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).expect("read")
}

#[test]
fn whatever_moves_files_leaves_a_purged_path_out_and_says_so() {
    let user = User::new();
    let (root, [one, two, three]) = purged(&user);
    let checkout = user.run(&root, &["checkout", &two]);
    assert!(left_out(&checkout, ".env"), "{}", checkout.err);
    assert_eq!((read(&root, "f").as_str(), root.join(".env").exists()), ("2", false));
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), " D .env\n");
    let away = user.run(&root, &["switch", "main"]);
    assert!(away.code == 0 && !away.err.contains("left out"), "{}", away.err);
    assert_eq!((read(&root, "f").as_str(), user.ok(&root, &["status", "--porcelain"]).as_str()), ("3", ""));
    let reset = user.run(&root, &["reset", "--hard", &two]);
    assert!(left_out(&reset, ".env") && read(&root, "f") == "2", "{}", reset.err);
    user.ok(&root, &["reset", "--hard", &three]);
    let shown = user.ok(&root, &["diff", &one, &two]);
    assert!(shown.contains("+(removed with `helios purge`)") && shown.contains("+2"), "{shown}");
    user.ok(&root, &["log", "-p"]);
    let gone = user.run(&root, &["show", &format!("{two}:.env")]);
    assert!(gone.code == 128 && gone.err.contains("helios purge"), "{}", gone.err);
    let found = user.run(&root, &["bisect", "run", &one, &three, "--", "sh", "-c", "! grep -q 2 f"]);
    assert!(left_out(&found, ".env") && found.out.contains(&two[..12]), "{}{}", found.out, found.err);
    let added = user.run(&root, &["workspace", "add", "--detach", "../other", &two]);
    assert!(left_out(&added, ".env") && read(&user.path("other"), "f") == "2", "{}", added.err);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn a_content_is_purged_by_the_digits_that_commands_print_and_counted_no_more() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.commit(&root, "secret", "s3cret\n");
    let counts = || {
        let checked: Value = serde_json::from_str(&user.ok(&root, &["fsck", "--json"])).expect("JSON");
        (checked["objects"].as_u64(), checked["reachable"].as_u64(), checked["unreachable"].clone())
    };
    let (objects, reachable, unreachable) = counts();
    assert_eq!((objects, unreachable), (reachable, json!(0)));
    let id = user.ok(&root, &["rev-parse", "HEAD:secret"]);
    let unknown = user.run(&root, &["purge", "0123456789ab"]);
    assert!(unknown.code == 128 && unknown.err.contains("there is no path"), "{}", unknown.err);
    let purged = user.ok(&root, &["purge", &id[..12]]);
    assert!(purged.contains("1 files purged from 1 snapshots"), "{purged}");
    assert_eq!(counts(), (objects.map(|all| all - 1), reachable.map(|all| all - 1), json!(0)));
}

#[test]
fn what_was_set_aside_and_no_purge_reaches_is_named() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "secret", "s3cret\n");
    let asides = [".helios/store.replaced-1", ".helios/store/log.damaged-1"];
    for aside in asides {
        fs::create_dir(root.join(aside)).expect("made");
    }
    let told = user.run(&root, &["purge", "secret"]);
    assert_eq!(told.code, 0, "{}", told.err);
    for aside in asides {
        assert!(told.err.contains(&format!("{aside} was set aside and may still have it")), "{}", told.err);
    }
}

#[test]
fn the_last_copy_of_what_was_purged_is_in_the_way_or_kept() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.commit(&root, ".env", "secret");
    user.ok(&root, &["purge", ".env"]);
    let lies = || std::fs::read_to_string(root.join(".env")).ok();
    let refused = user.run(&root, &["checkout", "HEAD~1"]);
    assert_eq!((refused.code, lies().as_deref()), (1, Some("secret")), "{}", refused.err);
    let reset = user.run(&root, &["reset", "--hard", "HEAD~1"]);
    let kept = reset.err.split("is kept in ").nth(1).and_then(|rest| rest.split(' ').next()).expect("it says where").to_owned();
    assert_eq!((reset.code, lies()), (0, None), "{}", reset.err);
    assert_eq!(user.ok(&root, &["show", &format!("{kept}:.env")]), "secret");
}

#[test]
fn git_gets_a_history_without_what_was_purged() {
    let user = User::new();
    let (root, [_, two, _]) = purged(&user);
    let git = |repository: &str, arguments: &[&str]| {
        let ended = ended(user.program("git", &user.path("")).args(["-C", repository]).args(arguments));
        assert_eq!(ended.code, 0, "git {arguments:?}: {}", ended.err);
        ended.out
    };
    let exported = user.run(&root, &["export", "--to-git", "../git"]);
    assert!(exported.code == 0 && exported.err.contains("is left out"), "{}{}", exported.out, exported.err);
    git("git", &["fsck", "--strict"]);
    assert_eq!(git("git", &["log", "--format=%s", "main"]), "f\n.env\nf\n");
    assert_eq!(git("git", &["ls-tree", "-r", "--name-only", "main~1"]), "f\n");
    // Again, and behind it: the same ids, so everything is only moved forward.
    let before = git("git", &["rev-parse", "main"]);
    user.commit(&root, "f", "4");
    user.ok(&root, &["export", "--to-git", "../git"]);
    assert_eq!(git("git", &["rev-parse", "main~1"]), before);
    // What git gave us is left out as well where it was purged since.
    let other = user.path("other");
    fs::create_dir(&other).expect("made");
    fs::write(other.join("secret"), "s").expect("written");
    let me = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "m"];
    git("other", &["init", "-q", "-b", "main"]);
    git("other", &["add", "."]);
    git("other", &me);
    fs::write(other.join("f"), "f").expect("written");
    git("other", &["add", "."]);
    git("other", &me);
    let imported = user.path("imported");
    fs::create_dir(&imported).expect("made");
    user.ok(&imported, &["import", "--from-git", "../other"]);
    user.ok(&imported, &["purge", "secret"]);
    assert_eq!(user.run(&imported, &["export", "--to-git", "../again"]).code, 0);
    git("again", &["fsck", "--strict"]);
    assert_eq!(git("again", &["ls-tree", "-r", "--name-only", "main"]), "f\n");
    assert!(user.ok(&root, &["show", &two]).contains("helios purge"));
}

#[test]
fn what_still_lies_in_the_folder_is_named_and_there_again_with_the_next_commit() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, ".env", "secret\n");
    let purge = user.run(&root, &["purge", ".env"]);
    assert!(purge.code == 0 && purge.err.contains("warning: .env still lies in this folder"), "{}", purge.err);
    assert_ne!(user.run(&root, &["show", "HEAD:.env"]).code, 0);
    user.commit(&root, "f", "1");
    assert_eq!(user.ok(&root, &["show", "HEAD:.env"]), "secret\n");
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    user.ok(&root, &["workspace", "add", "../other"]);
    assert_eq!(read(&user.path("other"), ".env"), "secret\n");
}

#[test]
fn what_was_never_there_is_refused_and_what_is_only_staged_is_found() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let unknown = user.run(&root, &["purge", &"0".repeat(64)]);
    assert!(unknown.code == 128 && unknown.err.contains("0000"), "{}{}", unknown.out, unknown.err);
    let tree = user.ok(&root, &["rev-parse", "HEAD^{tree}"]);
    assert_eq!(user.run(&root, &["purge", tree.trim()]).code, 1, "others need what is in a folder");
    fs::write(root.join(".env"), "secret\n").expect("written");
    user.ok(&root, &["add", ".env"]);
    fs::remove_file(root.join(".env")).expect("removed");
    let told: Value = serde_json::from_str(&user.ok(&root, &["--json", "purge", ".env"])).expect("JSON");
    assert_eq!(told["staged"][0]["paths"][0], ".env", "{told}");
    assert_eq!((told["objects"].as_array().map(Vec::len), told["bytes"].as_u64()), (Some(1), Some(7)));
}

#[test]
fn a_dry_run_says_how_much_would_go() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "secret", "12345");
    user.commit(&root, "secret", "1234567890");
    let bytes = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&user.ok(&root, arguments)).expect("JSON")["bytes"].take()
    };
    assert_eq!(bytes(&["--json", "purge", "secret", "--dry-run"]), 15);
    assert!(user.ok(&root, &["purge", "secret", "--dry-run"]).contains("2 files would be purged from 2 snapshots (15B)"));
    assert_eq!(bytes(&["--json", "purge", "secret"]), 15);
    assert_eq!(bytes(&["--json", "purge", "secret", "--dry-run"]), 0, "they are gone");
}

/// Whether some file beneath a folder has these bytes.
fn lies_in(folder: &Path, bytes: &str) -> bool {
    fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("read").path();
        let has =
            |path: &Path| fs::read(path).is_ok_and(|found| found.windows(bytes.len()).any(|window| window == bytes.as_bytes()));
        if path.is_dir() { lies_in(&path, bytes) } else { has(&path) }
    })
}

#[test]
fn what_was_staged_once_and_is_named_by_nothing_goes_with_the_path() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let staged = |content: &str| {
        fs::write(root.join(".env"), content).expect("written");
        user.ok(&root, &["add", ".env"]);
        let list = user.ok(&root, &["ls-files", "--stage", ".env"]);
        list.split_whitespace().nth(1).expect("an object").to_owned()
    };
    let is_gone = |object: &str, content: &str| {
        assert_ne!(user.run(&root, &["cat-file", "-e", object]).code, 0, "{content}");
        user.ok(&root, &["engine", "stop"]);
        assert!(!lies_in(&root.join(".helios"), content), "{content}");
    };
    let secrets = ["3f9c51d07be842aa", "9b1e64c8a02d57ff"].map(|secret| format!("token={secret}"));
    let [first, second] = secrets.each_ref().map(|secret| staged(secret));
    user.ok(&root, &["commit", "-q", "-m", "x"]);
    fs::remove_file(root.join(".env")).expect("removed");
    let purge = user.ok(&root, &["purge", ".env"]);
    assert!(purge.contains("1 files purged from 1 snapshots") && purge.contains("objects that nothing kept"), "{purge}");
    is_gone(&first, &secrets[0]);
    is_gone(&second, &secrets[1]);

    let third = staged("token=77aa08c3e5d9b216");
    user.ok(&root, &["reset", ".env"]);
    fs::remove_file(root.join(".env")).expect("removed");
    let unnamed = user.run(&root, &["purge", "other"]);
    assert!(unnamed.code == 128 && unnamed.err.contains("objects that nothing kept are gone"), "{}", unnamed.err);
    is_gone(&third, "token=77aa08c3e5d9b216");
    let nothing = user.run(&root, &["purge", "other"]);
    assert!(nothing.code == 128 && !nothing.err.contains("nothing kept"), "{}", nothing.err);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn what_a_program_read_before_is_gone_from_memory_too_and_can_be_merged() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let mut program = Program::new(&user);
    let mut agent = |mut request: Value| {
        (request["path"], request["workspace"]) = (json!(root), json!("agent"));
        program.ask(request)
    };
    let files = |files: Value| json!({"op": "commit_files", "message": "m", "files": files});
    let read = || json!({"op": "read_file", "file": "s"});
    user.ok(&root, &["workspace", "add", "../agent"]);
    assert!(agent(files(json!([{"path": "s", "content": "secret"}, {"path": "o", "content": "x"}])))["ok"].is_object());
    assert_eq!(agent(read())["ok"]["content"], "secret");
    user.ok(&root, &["purge", "s"]);
    for content in ["y", "z"] {
        let answer = agent(read());
        assert!(answer["error"]["message"].is_string() && !answer.to_string().contains("secret"), "{answer}");
        assert!(agent(files(json!([{"path": "o", "content": content}])))["ok"].is_object());
    }
    let merged = user.run(&root, &["merge", "agent"]);
    assert!(left_out(&merged, "s") && merged.out.contains("s | 1 +"), "{}{}", merged.out, merged.err);
    assert_eq!(fs::read_to_string(root.join("o")).expect("read"), "z");
}
