//! What is staged and what a merge waits for, while heads move: nothing of it is lost, and no commit takes
//! back what somebody else did.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{Program, User};

fn write(root: &Path, file: &str, content: &str) {
    fs::write(root.join(file), content).expect("written");
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).unwrap_or_else(|error| format!("{file}: {error}"))
}

fn status(user: &User, root: &Path) -> String {
    user.ok(root, &["status", "--porcelain"])
}

fn committed(user: &User, root: &Path, path: &str) -> String {
    let shown = user.run(root, &["show", &format!("HEAD:{path}")]);
    if shown.code == 0 { shown.out } else { "nothing".to_owned() }
}

#[test]
fn what_is_staged_goes_along_to_another_branch_and_where_it_cannot_nothing_moves() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "a", "1\n");
    user.ok(&root, &["branch", "other"]);
    for ways in [&["checkout", "-b", "feature"][..], &["checkout", "main"], &["switch", "other"], &["switch", "-c", "more"]] {
        write(&root, "n", "new\n");
        write(&root, "a", "2\n");
        user.ok(&root, &["add", "n", "a"]);
        user.ok(&root, ways);
        assert_eq!(
            (status(&user, &root), read(&root, "n"), read(&root, "a")),
            ("M  a\nA  n\n".to_owned(), "new\n".into(), "2\n".into()),
            "{ways:?}"
        );
        user.ok(&root, &["reset", "--hard"]);
        let _ = fs::remove_file(root.join("n"));
    }
    user.ok(&root, &["switch", "other"]);
    user.commit(&root, "n", "theirs\n");
    user.ok(&root, &["switch", "main"]);
    // Staged, and no longer in the folder: it would be lost without a file being in the way.
    write(&root, "n", "mine\n");
    user.ok(&root, &["add", "n"]);
    fs::remove_file(root.join("n")).expect("removed");
    let refused = user.run(&root, &["switch", "other"]);
    assert!(refused.code == 1 && refused.err.contains("\tn"), "{refused:?}");
    assert_eq!(status(&user, &root), "AD n\n");
    user.ok(&root, &["switch", "--discard-changes", "other"]);
    assert_eq!((status(&user, &root), read(&root, "n")), (String::new(), "theirs\n".into()));
}

/// Two lines of work that conflict in `f`, and in nothing else: the other one changes `other` and adds `clean`.
fn conflicting(user: &User, name: &str) -> std::path::PathBuf {
    let root = user.repository(name);
    for (file, content) in [("f", "1\n"), ("other", "1\n"), ("gone", "1\n")] {
        write(&root, file, content);
    }
    user.ok(&root, &["commit", "--work", ".", "-m", "base"]);
    user.ok(&root, &["switch", "-c", "side"]);
    for (file, content) in [("f", "side\n"), ("other", "2\n"), ("clean", "1\n"), ("gone", "2\n"), ("both", "side\n")] {
        write(&root, file, content);
    }
    let mut commit = user.helios(&root, &["commit", "--work", ".", "-m", "theirs"]);
    commit.env("HELIOS_AUTHOR_NAME", "Orig").env("HELIOS_AUTHOR_EMAIL", "orig@example.org");
    assert!(commit.status().expect("it starts").success());
    user.ok(&root, &["switch", "main"]);
    write(&root, "f", "main\n");
    write(&root, "both", "main\n");
    fs::remove_file(root.join("gone")).expect("removed");
    user.ok(&root, &["commit", "--work", ".", "-m", "ours"]);
    root
}

#[test]
fn a_merge_that_is_decided_path_by_path_has_all_that_merged_cleanly_and_nothing_is_decided_by_the_way() {
    let user = User::new();
    for (verb, other) in [("merge", "side"), ("cherry-pick", "side")] {
        let root = conflicting(&user, verb);
        let stopped = user.run(&root, &[verb, other]);
        assert_eq!(stopped.code, 1, "{stopped:?}");
        for said in ["(content): both sides changed f", "(add/add): both sides added both", "(modify/delete): gone is deleted here"]
        {
            assert!(stopped.out.contains(said), "{said}: {}", stopped.out);
        }
        assert_eq!(status(&user, &root), "AA both\nA  clean\nUU f\nDU gone\nM  other\n");
        let long = user.ok(&root, &["status"]);
        assert!(long.contains("both added:      both\n") && long.contains("deleted by us:   gone\n"), "{long}");
        write(&root, "f", "decided\n");
        write(&root, "both", "decided\n");
        user.ok(&root, &["add", "f", "both"]);
        let undecided = user.run(&root, &["commit", "-m", "merged"]);
        assert!(undecided.code != 0 && undecided.err.contains("gone"), "{undecided:?}");
        user.ok(&root, &["add", "gone"]);
        user.ok(&root, &["commit", "-m", "merged"]);
        let all = ["f", "both", "other", "clean", "gone"].map(|path| committed(&user, &root, path));
        assert_eq!(all, ["decided\n", "decided\n", "2\n", "1\n", "2\n"], "{verb}");
        assert_eq!(status(&user, &root), "");
        let author = if verb == "merge" { "tester" } else { "Orig" };
        assert!(user.ok(&root, &["log", "-n", "1"]).contains(&format!("Author: {author}")), "{verb}");
    }
}

#[test]
fn what_is_refused_while_a_merge_waits_touches_no_file() {
    let user = User::new();
    for refused in
        [&["merge", "side"][..], &["cherry-pick", "side"], &["revert", "HEAD"], &["switch", "side"], &["checkout", "-f", "side"]]
    {
        let root = conflicting(&user, refused[0]);
        assert_eq!(user.run(&root, &["merge", "side"]).code, 1);
        // Decided as the head has it, which is what the files were before the merge.
        write(&root, "f", "main\n");
        fs::remove_file(root.join("clean")).expect("removed");
        let ended = user.run(&root, refused);
        assert!(ended.code != 0 && ended.err.contains("in the middle of a merge") && !ended.err.contains("kept in"), "{ended:?}");
        assert_eq!(status(&user, &root), "AA both\nAD clean\nUU f\nDU gone\nM  other\n", "{refused:?}");
        assert_eq!((read(&root, "f"), root.join("clean").exists()), ("main\n".to_owned(), false), "{refused:?}");
    }
}

#[test]
fn what_is_left_to_pick_is_named_where_one_stops() {
    let user = User::new();
    let root = conflicting(&user, "work");
    user.ok(&root, &["switch", "side"]);
    let next = user.commit(&root, "later", "1\n");
    user.ok(&root, &["switch", "main"]);
    let stopped = user.run(&root, &["cherry-pick", "side~1", "side"]);
    let hint = format!("`helios cherry-pick {}`", &next[..12]);
    assert!(stopped.code == 1 && stopped.err.contains(&hint), "{stopped:?}");
    user.ok(&root, &["cherry-pick", "--abort"]);
    assert_eq!((status(&user, &root), user.run(&root, &["cherry-pick", "--continue"]).code), (String::new(), 128));

    assert_eq!(user.run(&root, &["cherry-pick", "side~1"]).code, 1);
    user.ok(&root, &["add", "-A"]);
    user.ok(&root, &["cherry-pick", "--continue"]);
    assert!(user.ok(&root, &["log", "-n", "1"]).contains("    theirs\n"));
}

#[test]
fn undo_of_a_merge_goes_back_with_the_files_however_far_it_had_come() {
    let user = User::new();
    // Concluded: what is gone back to is the merge that waits, decided as it was.
    let root = conflicting(&user, "concluded");
    assert_eq!(user.run(&root, &["merge", "side"]).code, 1);
    for file in ["f", "both", "gone"] {
        write(&root, file, "decided\n");
    }
    user.ok(&root, &["add", "f", "both", "gone"]);
    user.ok(&root, &["commit", "-m", "merged"]);
    user.ok(&root, &["undo"]);
    assert_eq!(status(&user, &root), "M  both\nA  clean\nM  f\nA  gone\nM  other\n");
    user.ok(&root, &["commit", "-m", "merged again"]);
    assert_eq!(["f", "clean", "other", "gone"].map(|path| committed(&user, &root, path)), ["decided\n", "1\n", "2\n", "decided\n"]);

    // Given up, and taken up again.
    let root = conflicting(&user, "aborted");
    assert_eq!(user.run(&root, &["merge", "side"]).code, 1);
    let (waiting, text) = (status(&user, &root), read(&root, "f"));
    user.ok(&root, &["merge", "--abort"]);
    assert_eq!((status(&user, &root), read(&root, "f")), (String::new(), "main\n".into()));
    user.ok(&root, &["undo"]);
    assert_eq!((status(&user, &root), read(&root, "f")), (waiting.clone(), text));

    // Begun: as if it had been given up.
    let root = conflicting(&user, "begun");
    assert_eq!(user.run(&root, &["merge", "side"]).code, 1);
    assert_eq!(status(&user, &root), waiting);
    user.ok(&root, &["undo"]);
    assert_eq!((status(&user, &root), read(&root, "f")), (String::new(), "main\n".into()));
    assert!(!root.join("clean").exists() && !root.join("gone").exists());
    user.ok(&root, &["undo", "--redo"]);
    assert_eq!(status(&user, &root), waiting);
}

#[test]
fn what_is_staged_takes_back_nothing_that_moved_the_head_meanwhile() {
    let user = User::new();
    let root = user.repository("promoted");
    user.commit(&root, "a", "1\n");
    user.ok(&root, &["experiment", "start", "p", "--variant", "x"]);
    let variant = user.path("promoted-x");
    user.ok(&root, &["workspace", "add", variant.to_str().expect("text"), "experiments/p/x"]);
    user.commit(&variant, "a", "winner\n");
    write(&root, "n", "new\n");
    user.ok(&root, &["add", "n"]);
    user.ok(&root, &["experiment", "promote", "p", "x"]);
    assert_eq!((status(&user, &root), read(&root, "a")), ("A  n\n".to_owned(), "winner\n".into()));
    user.ok(&root, &["commit", "-m", "n"]);
    assert_eq!(["a", "n"].map(|path| committed(&user, &root, path)), ["winner\n", "new\n"]);

    let root = user.repository("undone");
    user.commit(&root, "a", "1\n");
    user.commit(&root, "a", "2\n");
    write(&root, "n", "new\n");
    user.ok(&root, &["add", "n"]);
    user.ok(&root, &["undo"]);
    assert_eq!((status(&user, &root), read(&root, "a")), ("A  n\n".to_owned(), "1\n".into()));
    user.ok(&root, &["commit", "-m", "n"]);
    assert_eq!(["a", "n"].map(|path| committed(&user, &root, path)), ["1\n", "new\n"]);
    // What a commit took off the stage is in it; taken back, the folder is as it was before.
    user.ok(&root, &["undo"]);
    assert_eq!(status(&user, &root), "");

    // A program that commits files beside it leaves it where it is.
    write(&root, "n", "newer\n");
    user.ok(&root, &["add", "n"]);
    let files = json!([{"path": "b", "content": "1\n"}]);
    Program::new(&user).ok(json!({"op": "commit_files", "path": root, "message": "b", "files": files}));
    assert_eq!(user.ok(&root, &["diff", "--staged", "--name-status"]), "A\tn\n");
}

#[test]
fn an_import_moves_files_with_their_branch_or_nothing_at_all() {
    let user = User::new();
    let (git, root) = (user.path("git"), user.path("work"));
    for folder in [&git, &root] {
        fs::create_dir(folder).expect("made");
    }
    let git_runs = |arguments: &[&str]| {
        let mut command = user.program("git", &git);
        command.args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]).args(arguments);
        let output = command.output().expect("git starts");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let git_commits = |file: &str, content: &str| {
        write(&git, file, content);
        git_runs(&["add", "-A"]);
        git_runs(&["commit", "-qm", file]);
    };
    git_runs(&["init", "-q"]);
    git_commits("a", "1\n");
    let from = git.to_str().expect("text");
    user.ok(&root, &["import", "--from-git", from]);
    git_commits("b", "1\n");
    user.ok(&root, &["import", "--from-git", from]);
    assert_eq!((status(&user, &root), read(&root, "b")), (String::new(), "1\n".into()));

    git_commits("a", "2\n");
    write(&root, "a", "mine\n");
    let before = user.ok(&root, &["rev-parse", "HEAD"]);
    for ways in [&["import", "--from-git", from][..], &["sync", "--git", from]] {
        let refused = user.run(&root, ways);
        assert!(refused.code == 1 && refused.err.contains("\ta"), "{refused:?}");
        assert_eq!((user.ok(&root, &["rev-parse", "HEAD"]), read(&root, "a")), (before.clone(), "mine\n".into()));
    }
    write(&root, "a", "1\n");
    user.ok(&root, &["import", "--from-git", from]);
    assert_eq!((status(&user, &root), read(&root, "a")), (String::new(), "2\n".into()));

    // Beside git, in its own folder, the files are right already; git's index is git's.
    user.ok(&git, &["init", "-q"]);
    user.ok(&git, &["sync"]);
    git_commits("c", "1\n");
    write(&git, "a", "edited\n");
    user.ok(&git, &["sync"]);
    assert_eq!(status(&user, &git), " M a\n");
    user.ok(&git, &["commit", "-a", "-m", "here"]);
    let told = user.run(&git, &["sync"]);
    assert!(told.code == 0 && told.err.contains("`git reset`"), "{told:?}");
    git_runs(&["reset", "-q"]);
    assert_eq!(git_runs(&["status", "--porcelain"]), "");
}

#[test]
fn settings_that_were_edited_by_hand_count_from_the_next_command_on() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "a", "1\n");
    let file = root.join(".helios/helios.yaml");
    fs::write(&file, "commit:\n  durability: sync\n").expect("written");
    assert_eq!(user.ok(&root, &["config", "get", "commit.durability"]), "sync\n");
    write(&root, "a", "2\n");
    let told = user.ok(&root, &["--json", "commit", "-a", "-m", "two"]);
    assert!(told.contains("\"on_disk\":true"), "{told}");
    user.ok(&root, &["config", "set", "user.email", "a@example.org"]);
    let kept = fs::read_to_string(&file).expect("it is there");
    assert!(kept.contains("durability: sync") && kept.contains("a@example.org"), "{kept}");
    fs::write(&file, "commit: [\n").expect("written");
    let refused = user.run(&root, &["config", "set", "user.name", "A"]);
    assert!(refused.code != 0 && refused.err.contains("helios.yaml"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "commit: [\n");
    fs::remove_file(&file).expect("removed");
    assert_eq!(user.ok(&root, &["config", "get", "commit.durability"]), "nosync\n");
}
