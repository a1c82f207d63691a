//! Work that no commit has, where a command overwrites files: it is kept first. And heads go nowhere without their files.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Ended, User, end_of, is_running, wait_until};

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).expect("read")
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("made");
        fs::write(path, content).expect("written");
    }
}

/// The snapshot that a command says it has kept work in.
fn kept(ended: &Ended) -> String {
    assert_eq!(ended.code, 0, "{ended:?}");
    let (_, told) = ended.err.split_once("hint: what no commit had is kept in ").unwrap_or_else(|| panic!("{ended:?}"));
    told[..12].to_owned()
}

/// On main, with a merge of `other` that waits: both changed f, and `other` made d/theirs.
fn merging(user: &User) -> std::path::PathBuf {
    let root = user.repository("work");
    write(&root, &[("notes", "1"), ("staged", "1")]);
    user.commit(&root, "f", "a\nb\nc\n");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    write(&root, &[("d/theirs", "x")]);
    user.commit(&root, "f", "a\ntheirs\nc\n");
    user.ok(&root, &["checkout", "-q", "main"]);
    user.commit(&root, "f", "a\nours\nc\n");
    assert_eq!(user.run(&root, &["merge", "other"]).code, 1);
    root
}

#[test]
fn giving_a_merge_up_touches_what_the_merge_touched_and_keeps_what_was_edited_there() {
    let user = User::new();
    let root = merging(&user);
    write(&root, &[("notes", "edited"), ("own", "mine")]);
    let nothing = user.run(&root, &["merge", "--abort"]);
    assert_eq!((nothing.code, nothing.err.as_str()), (0, ""), "nothing is lost, nothing is kept");
    let state = |user: &User| (read(&root, "f"), read(&root, "notes"), user.ok(&root, &["status", "--porcelain"]));
    let before = ("a\nours\nc\n".to_owned(), "edited".to_owned(), " M notes\n?? own\n".to_owned());
    assert_eq!((state(&user), root.join("d").exists()), (before.clone(), false));
    assert_eq!(user.run(&root, &["merge", "other"]).code, 1);
    write(&root, &[("f", "a\nhalf decided\nc\n"), ("d/theirs", "edited too")]);
    let ended = user.run(&root, &["merge", "--abort"]);
    let kept = kept(&ended);
    assert_eq!((state(&user), root.join("d").exists()), (before, false));
    assert_eq!(user.ok(&root, &["show", &format!("{kept}:f")]), "a\nhalf decided\nc\n");
    assert_eq!(user.ok(&root, &["show", &format!("{kept}:d/theirs")]), "edited too");
    let none = user.run(&root, &["merge", "--abort"]);
    assert!(none.code == 128 && none.err.contains("no merge has begun"), "{none:?}");
}

#[test]
fn a_merge_that_cannot_be_given_up_is_refused_before_a_file_is_touched() {
    let user = User::new();
    let root = merging(&user);
    user.ok(&root, &["config", "set", "workspace.file_cap", "1KB"]);
    // What can be kept, and what is too large for that and in the way.
    write(&root, &[("f", "a\nhalf decided\nc\n"), ("d/theirs", &"too large ".repeat(200))]);
    let refused = user.run(&root, &["merge", "--abort"]);
    assert!(refused.code == 1 && refused.err.contains("\td/theirs\n"), "{refused:?}");
    assert_eq!(read(&root, "f"), "a\nhalf decided\nc\n");
    fs::remove_file(root.join("d/theirs")).expect("removed");
    user.ok(&root, &["merge", "--abort"]);
    assert_eq!(read(&root, "f"), "a\nours\nc\n");
}

#[test]
fn a_hard_reset_in_a_merge_keeps_what_was_edited() {
    let user = User::new();
    let root = merging(&user);
    write(&root, &[("f", "a\nhalf decided\nc\n"), ("notes", "edited")]);
    let kept = kept(&user.run(&root, &["reset", "--hard"]));
    let shown = |file: &str| user.ok(&root, &["show", &format!("{kept}:{file}")]);
    assert_eq!((shown("f").as_str(), shown("notes").as_str()), ("a\nhalf decided\nc\n", "edited"));
    assert_eq!((read(&root, "f").as_str(), user.ok(&root, &["status", "--porcelain"]).as_str()), ("a\nours\nc\n", ""));
    assert_eq!(user.run(&root, &["merge", "other"]).code, 1);
    assert_eq!(user.run(&root, &["reset", "--hard"]).err, "", "nothing is thrown away that the merge did not make");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn untracked_files_in_the_way_of_a_hard_reset_or_a_forced_checkout_are_kept() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    write(&root, &[("g", "theirs"), ("d", "a file")]);
    let two = user.commit(&root, "f", "2");
    user.ok(&root, &["checkout", "-q", "main"]);
    for command in [["reset", "--hard", "other"], ["checkout", "-f", "other"]] {
        write(&root, &[("g", "mine"), ("d/inner", "mine too"), ("aside", "mine")]);
        let kept = kept(&user.run(&root, &command));
        let shown = |file: &str| user.ok(&root, &["show", &format!("{kept}:{file}")]);
        assert_eq!((shown("g").as_str(), shown("d/inner").as_str()), ("mine", "mine too"), "{command:?}");
        assert_eq!(
            (read(&root, "g").as_str(), read(&root, "d").as_str(), read(&root, "aside").as_str()),
            ("theirs", "a file", "mine")
        );
        assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), two);
        // What is in nobody's way stays, and is no reason to keep anything.
        let back = user.run(&root, &["reset", "--hard", &one]);
        assert_eq!((back.code, back.err.as_str(), read(&root, "aside").as_str()), (0, "", "mine"));
    }
}

#[test]
fn a_forced_undo_keeps_what_it_overwrites_and_goes_on_from_there() {
    let user = User::new();
    let root = user.repository("work");
    let made: Vec<String> = ["1", "2", "3"].map(|content| user.commit(&root, "f", content)).into();
    write(&root, &[("f", "mine")]);
    let refused = user.run(&root, &["undo"]);
    assert_eq!((refused.code, read(&root, "f").as_str()), (1, "mine"), "{refused:?}");
    let head = || user.ok(&root, &["rev-parse", "HEAD"]).trim().to_owned();
    assert_eq!(head(), made[2]);
    let kept = kept(&user.run(&root, &["undo", "--force"]));
    assert_eq!(user.ok(&root, &["show", &format!("{kept}:f")]), "mine");
    assert_eq!((head(), read(&root, "f").as_str()), (made[1].clone(), "2"));
    // What was kept is not what the next undo takes back, nor something that was done since.
    user.ok(&root, &["undo", "--redo"]);
    assert_eq!((head(), read(&root, "f").as_str()), (made[2].clone(), "3"));
    user.ok(&root, &["undo"]);
    user.ok(&root, &["undo"]);
    assert_eq!((head(), read(&root, "f").as_str()), (made[0].clone(), "1"));
}

#[test]
fn a_head_stays_where_it_is_unless_its_files_can_follow() {
    let user = User::new();
    let root = user.repository("work");
    write(&root, &[("secret", "token")]);
    let one = user.commit(&root, "f", "1");
    fs::remove_file(root.join("secret")).expect("removed");
    let two = user.commit(&root, "f", "2");
    user.ok(&root, &["purge", "secret"]);
    // The content of one file of the first snapshot is gone for good.
    for command in [["checkout", "-q", &one], ["checkout", "-f", &one], ["reset", "--hard", &one]] {
        let ended = user.run(&root, &command);
        let (head, f) = if ended.code == 0 { (&one, "1") } else { (&two, "2") };
        assert_eq!((user.ok(&root, &["rev-parse", "HEAD"]).trim(), read(&root, "f").as_str()), (head.as_str(), f), "{ended:?}");
        user.ok(&root, &["checkout", "-q", "main"]);
        user.ok(&root, &["reset", "-q", "--hard", &two]);
    }
}

#[test]
fn a_promotion_is_refused_where_a_local_change_is_in_the_way() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../second", "-b", "second"]);
    user.ok(&root, &["experiment", "start", "parser", "--variant", "a"]);
    user.ok(&root, &["workspace", "add", "../a", "experiments/parser/a"]);
    let best = user.commit(&user.path("a"), "f", "better");
    user.ok(&root, &["experiment", "score", "parser", "a", "0.9"]);
    let second = user.path("second");
    let refused = |ended: &Ended, place: &Path| {
        assert!(ended.code == 1 && ended.err.contains("\tf\n"), "{ended:?}");
        assert_eq!((user.ok(place, &["rev-parse", "HEAD"]).trim(), read(place, "f").as_str()), (one.as_str(), "mine"));
        assert!(user.ok(&root, &["experiment", "list", "parser"]).starts_with("parser open"));
        assert_eq!(user.ok(&root, &["rev-parse", "experiments/parser/a"]).trim(), best);
    };
    write(&root, &[("f", "mine")]);
    refused(&user.run(&root, &["experiment", "promote", "parser"]), &root);
    write(&second, &[("f", "mine")]);
    let elsewhere = user.run(&root, &["experiment", "promote", "parser", "--into", "second"]);
    refused(&elsewhere, &second);
    assert!(elsewhere.err.contains("in workspace second: "), "{elsewhere:?}");
    let json = user.run(&root, &["--json", "experiment", "promote", "parser"]);
    assert!(json.code == 1 && json.err.starts_with("{\"error\":"), "{json:?}");
    write(&root, &[("f", "1")]);
    user.ok(&root, &["experiment", "promote", "parser"]);
    assert_eq!((user.ok(&root, &["rev-parse", "HEAD"]).trim(), read(&root, "f").as_str()), (best.as_str(), "better"));
    assert_eq!((read(&second, "f").as_str(), user.ok(&root, &["status", "--porcelain"]).as_str()), ("mine", ""));
}

#[test]
fn a_repository_within_the_folder_is_never_removed() {
    let user = User::new();
    let root = user.repository("work");
    let file = user.commit(&root, "sub", "a file");
    fs::remove_file(root.join("sub")).expect("removed");
    write(&root, &[("sub/h", "1")]);
    user.ok(&root, &["commit", "-q", "--work", "."]);
    user.ok(&root.join("sub"), &["init", "-q"]);
    let inner = user.commit(&root.join("sub"), "own", "nowhere else");
    user.ok(&root, &["reset", "-q"]);
    let head = user.ok(&root, &["rev-parse", "HEAD"]);
    for command in [&["checkout", "-q", &file][..], &["checkout", "-f", &file], &["reset", "--hard", &file]] {
        let ended = user.run(&root, command);
        assert!(
            ended.code != 0 && ended.err.contains("repositories") && ended.err.contains("sub/.helios"),
            "{command:?}: {ended:?}"
        );
        assert!(ended.err.contains("hint: move the folders with repositories away"), "{ended:?}");
        assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]), head);
    }
    let restored = user.run(&root, &["restore", "--source", &file, "sub"]);
    assert!(restored.code != 0 && restored.err.contains("sub/.helios"), "{restored:?}");
    assert_eq!(user.ok(&root.join("sub"), &["rev-parse", "HEAD"]).trim(), inner);
}

#[test]
fn a_checkout_in_which_the_engine_dies_is_finished_by_the_next_command() {
    let user = User::new();
    let root = user.repository("work");
    let all = |content: &str| {
        let files: Vec<String> = (0..6_000).map(|number| format!("d{}/f{number}", number % 60)).collect();
        write(&root, &files.iter().map(|path| (path.as_str(), content)).collect::<Vec<_>>());
    };
    all("one");
    let one = user.commit(&root, "own", "1");
    all("two");
    let two = user.commit(&root, "own", "2");
    for (command, target, next) in [
        (vec!["checkout", "-q", &one], &one, ["status", "--porcelain"].as_slice()),
        (vec!["checkout", "-q", "main"], &two, &["commit", "-q", "--work", ".", "--json"]),
        (vec!["reset", "-q", "--hard", &one], &one, &["commit", "-q", "-a", "--allow-empty", "--json"]),
    ] {
        let content = if *target == one { "one" } else { "two" };
        let started = user.helios(&root, &command).stderr(Stdio::null()).spawn().expect("started");
        wait_until("the files move", || (0..60).any(|folder| read(&root, &format!("d{folder}/f{folder}")) == content));
        user.kill_engine();
        end_of(started);
        user.ok(&root, next);
        assert_eq!(user.ok(&root, &["diff", "--stat", target]), "", "{command:?}");
        assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
        assert!(read(&root, ".helios/workspaces/main/moving").starts_with("--"), "{command:?}");
        user.ok(&root, &["checkout", "-q", "-f", if *target == one { &one } else { "main" }]);
    }
}

#[test]
fn an_import_in_which_the_engine_dies_leaves_no_head_without_its_files() {
    let user = User::new();
    let (root, up) = (user.repository("work"), user.path("up"));
    fs::create_dir(&up).expect("made");
    let files: Vec<String> = (0..6_000).map(|number| format!("d{}/f{number}", number % 60)).collect();
    user.git(&up, &["init", "-q", "-b", "main"]);
    for content in ["one", "two"] {
        write(&up, &files.iter().map(|path| (path.as_str(), content)).collect::<Vec<_>>());
        user.git(&up, &["add", "--all"]);
        user.git(&up, &["commit", "-q", "-m", content]);
        let started = user.helios(&root, &["import", "-q", "--from-git", "../up"]).stderr(Stdio::null()).spawn().expect("started");
        wait_until("the files move", || {
            (0..60).any(|folder| fs::read_to_string(root.join(format!("d{folder}/f{folder}"))).is_ok_and(|found| found == content))
        });
        user.kill_engine();
        end_of(started);
        let commit = ["commit", "-q", "--work", ".", "--allow-empty", "-m", "after"];
        let ended = user.run(&root, &commit);
        if ended.code != 0 {
            // A new file of which a part was written is nobody's: it may be a person's.
            assert!(ended.err.contains("would be overwritten by what an earlier command left unfinished"), "{ended:?}");
            user.ok(&root, &["reset", "-q", "--hard"]);
            user.ok(&root, &commit);
        }
        assert!(user.ok(&root, &["diff", "--stat", "HEAD~1"]).is_empty(), "{content}");
        assert!(files.iter().all(|path| read(&root, path) == content));
        user.ok(&root, &["reset", "-q", "--hard", "HEAD~1"]);
    }
}

#[test]
fn what_a_search_left_when_its_engine_died_is_put_back_and_never_over_an_edit() {
    let user = User::new();
    let root = user.repository("work");
    let good = user.commit(&root, "f", "0");
    for number in 1..8 {
        user.commit(&root, "f", &number.to_string());
    }
    let search = || {
        let search = user.helios(&root, &["bisect", "run", &good, "HEAD", "--", "sh", "-c", "echo $$ > ../pid; exec sleep 600"]);
        let (mut search, pid) = (search, user.path("pid"));
        let search = search.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        wait_until("the command runs", || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
        assert_ne!(read(&root, "f"), "7");
        let running: u32 = read(&user.path("."), "pid").trim().parse().expect("a process");
        fs::remove_file(pid).expect("removed");
        (search, running)
    };
    let (killed, running) = search();
    user.kill_engine();
    crate::harness::signal(running, "KILL");
    assert_ne!(end_of(killed).code, 0);
    user.ok(&root, &["commit", "-q", "--work", "."]);
    assert_eq!((read(&root, "f").as_str(), user.ok(&root, &["show", "HEAD:f"]).as_str()), ("7", "7"));
    let (killed, running) = search();
    user.kill_engine();
    crate::harness::signal(running, "KILL");
    end_of(killed);
    write(&root, &[("f", "an edit")]);
    let refused = user.run(&root, &["commit", "--work", "."]);
    assert!(refused.code != 0 && refused.err.contains("`helios reset --hard`"), "{refused:?}");
    assert_eq!(user.run(&root, &["status", "--porcelain"]).code, 0);
    let reset = user.run(&root, &["reset", "-q", "--hard"]);
    assert_eq!((read(&root, "f").as_str(), user.ok(&root, &["show", &format!("{}:f", kept(&reset))]).as_str()), ("7", "an edit"));
    // The note of a store that is another one by now is told of once, and is in nobody's way.
    let unknown = "0".repeat(64);
    fs::write(root.join(".helios/workspaces/main/moving"), format!("{unknown}\n\n")).expect("written");
    let refused = user.run(&root, &["commit", "--work", "."]);
    assert!(refused.code != 0 && refused.err.contains("not in the store any more"), "{refused:?}");
    user.ok(&root, &["commit", "-q", "--work", "."]);
    let (stopped, running) = search();
    user.ok(&root, &["engine", "stop"]);
    let ended = end_of(stopped);
    assert!(ended.code == 128 && ended.err.contains("the files put back"), "{ended:?}");
    wait_until("the command is gone", || !is_running(running));
    assert_eq!((read(&root, "f").as_str(), user.ok(&root, &["status", "--porcelain"]).as_str()), ("7", ""));
}
