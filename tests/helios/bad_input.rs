//! Wrong words, damaged files and hostile paths: a clear message, an exit code, and nothing lost.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{User, ended};

#[test]
fn what_cannot_be_done_is_told_with_the_nearest_thing_that_can() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["branch", "feature"]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["comit"], 1, "`helios commit`"),
        (&["rev-parse", "faeture"], 128, "\"feature\""),
        (&["checkout", "HEAD~5"], 1, "HEAD~5"),
        (&["branch", "a..b"], 128, "\"a..b\""),
        (&["branch", "feature"], 128, "already"),
        (&["add", "../outside"], 128, "outside of the workspace"),
        (&["add", "missing"], 128, "'missing' did not match any files"),
        (&["restore", "missing"], 1, "'missing' did not match"),
        (&["commit", "--meta", "novalue"], 129, "key=value"),
        (&["commit", "--durability", "eventually"], 129, "nosync"),
        (&["log", "--since", "soon"], 128, "48h"),
        (&["workspace", "add", "inside"], 1, "beside it"),
        (&["cat-file", "-p", "0000000000000000000000000000000000000000000000000000000000000000"], 128, "revision"),
        (&["undo", "999"], 128, "999"),
        (&["merge", "--abort"], 128, "merge"),
        (&["-C", "/nonexistent", "status"], 128, "/nonexistent"),
        (&["help", "comit"], 1, "`helios commit`"),
        (&["-C"], 129, "folder"),
        (&["--no-such"], 129, "--no-such"),
    ];
    for (arguments, code, told) in cases {
        let ended = user.run(&root, arguments);
        assert_eq!(ended.code, *code, "helios {arguments:?}: {}", ended.err);
        assert!(ended.err.contains(told), "helios {arguments:?}: {}", ended.err);
        assert!(!ended.err.contains("panic"), "{}", ended.err);
    }
    assert_eq!(user.run(&user.path("home"), &["status"]).code, 128);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 1);
}

#[test]
fn a_hint_names_what_there_is() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["experiment", "start", "e", "--variant", "a"]);
    user.ok(&root, &["branch", "side"]);
    let home = user.path("home").display().to_string();
    // What is told, and what is not.
    let cases: &[(&[&str], &str, &str)] = &[
        (&["import", "--from-git", &home], "`--from-git`", "--repo"),
        (&["sync", "--git", &home], "`--git`", "--repo"),
        (&["experiment", "start", "e"], "there is an experiment \"e\" already", "force"),
        (&["experiment", "start", "a/b"], "the name of an experiment", "a experiment"),
        (&["experiment", "score", "e", "a", "--", "-1e400"], "not a finite number", "panic"),
        (&["tag", "a..b"], "\"a..b\" cannot be the name of a tag", "branch"),
        (&["branch", "side"], "--force", "experiment"),
        (&["cherry-pick", "HEAD"], "leave it out", "--allow-empty"),
    ];
    for (arguments, told, not_told) in cases {
        let ended = user.run(&root, arguments);
        assert_ne!(ended.code, 0, "helios {arguments:?}: {}", ended.out);
        assert!(ended.err.contains(told) && !ended.err.contains(not_told), "helios {arguments:?}: {}", ended.err);
    }
}

#[test]
fn a_hint_for_a_folder_names_one_that_can_be_had() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../agent-1"]);
    user.ok(&root, &["branch", "agent-2"]);
    for folder in ["../agent-1", "deep/agent-1"] {
        let refused = user.run(&root, &["workspace", "add", folder, "--name", "another"]);
        assert_eq!(refused.code, 1, "{}", refused.err);
        let named = refused.err.split("as in ").nth(1).and_then(|rest| rest.split(';').next()).expect("a folder is named");
        assert_eq!(Path::new(named), user.path("agent-3").canonicalize().unwrap_or(user.path("agent-3")), "{}", refused.err);
    }
    user.ok(&root, &["workspace", "add", "../agent-3"]);
    for verb in [&["restore", "/nowhere/monday", "project"][..], &["restore", "f", "project"], &["verify", "/nowhere/monday"]] {
        let refused = user.run(&root, &[&["backup"], verb].concat());
        let is_told = refused.err.contains(verb[1]) && refused.err.contains("`helios backup create FOLDER`");
        assert!(refused.code == 128 && is_told && !root.join("project").exists(), "{}", refused.err);
    }
}

#[test]
fn a_repository_at_a_path_that_is_no_text_works_and_has_no_further_workspaces() {
    let user = User::new();
    for name in [b"caf\xe9".as_slice(), b"two\nlines"] {
        let root = user.path("home").join(OsStr::from_bytes(name));
        fs::create_dir(&root).expect("made");
        user.ok(&root, &["init", "-q"]);
        let one = user.commit(&root, "f", "1");
        user.commit(&root, "f", "2");
        user.ok(&root, &["reset", "--hard", "HEAD~1"]);
        assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), one);
        assert_eq!(fs::read(root.join("f")).expect("read"), b"1");
        let refused = user.run(&root, &["workspace", "add", "../other"]);
        assert!(refused.code == 128 && refused.err.contains("UTF-8"), "{refused:?}");
        assert!(!user.path("home/other").exists());
    }
}

#[test]
fn names_that_are_no_text_are_carried_and_shown() {
    let user = User::new();
    let root = user.repository("work");
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9")), "1").expect("written");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "?? \"caf\\351\"\n");
    let mut add = user.helios(&root, &["add"]);
    assert_eq!(ended(add.arg(OsStr::from_bytes(b"caf\xe9"))).code, 0);
    user.ok(&root, &["commit", "-m", "latin"]);
    assert_eq!(user.ok(&root, &["ls-files"]), "\"caf\\351\"\n");
    fs::write(root.join("binary"), b"\x00\xff\xfe").expect("written");
    user.ok(&root, &["commit", "--work", "."]);
    let output = user.helios(&root, &["show", "HEAD:binary"]).output().expect("it runs");
    assert_eq!(output.stdout, b"\x00\xff\xfe");
}

#[test]
fn links_in_a_circle_and_out_of_the_folder_are_links() {
    let user = User::new();
    let root = user.repository("work");
    fs::create_dir(root.join("d")).expect("made");
    symlink("../d", root.join("d/self")).expect("linked");
    symlink("/etc", root.join("out")).expect("linked");
    user.ok(&root, &["commit", "--work", "."]);
    assert_eq!(user.ok(&root, &["ls-files", "--stage"]).matches("120000").count(), 2);
    let refused = user.run(&root, &["add", "out/passwd"]);
    assert_eq!(refused.code, 128, "{}", refused.err);
}

#[test]
fn a_damaged_store_is_told_as_one_and_never_a_panic() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["engine", "stop"]);
    crate::harness::wait_until("the engine has left", || user.engine().is_none());
    let format = root.join(".helios/store/format");
    fs::write(&format, "999\n").expect("written");
    let newer = user.run(&root, &["status"]);
    assert!(newer.code == 128 && newer.err.contains("format 999"), "{}", newer.err);
    fs::write(&format, "nonsense\n").expect("written");
    assert_eq!(user.run(&root, &["status"]).code, 128);
    fs::write(&format, "2\n").expect("written");
    let current = root.join(".helios/store/db/CURRENT");
    let saved = fs::read(&current).expect("read");
    fs::write(&current, b"\xff\xff").expect("written");
    let damaged = user.run(&root, &["status"]);
    assert!(damaged.code == 128 && damaged.err.starts_with("fatal: "), "{}", damaged.err);
    fs::write(&current, saved).expect("written");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn settings_that_cannot_be_read_are_named() {
    let user = User::new();
    let root = user.repository("work");
    user.ok(&root, &["engine", "stop"]);
    crate::harness::wait_until("the engine has left", || user.engine().is_none());
    fs::write(root.join(".helios/helios.yaml"), "performance:\n  l1_cash_size: 2GB\n").expect("written");
    let refused = user.run(&root, &["status"]);
    assert!(refused.code == 128 && refused.err.contains("performance.l1_cache_size"), "{}", refused.err);
}

#[test]
fn an_init_that_was_cut_off_is_finished_by_the_next() {
    let user = User::new();
    let root = user.path("work");
    fs::create_dir_all(root.join(".helios/store")).expect("made");
    let told = user.run(&root, &["status"]);
    assert!(told.code != 0 && told.err.contains("`helios init`"), "{}", told.err);
    user.ok(&root, &["init"]);
    user.commit(&root, "f", "1");
    assert!(user.ok(&root, &["init"]).starts_with("Reinitialized existing"));
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 1);
    let home = user.run(&user.path("home"), &["init"]);
    assert!(home.code == 1 && home.err.contains("--force"), "{}", home.err);
}

#[test]
fn a_repository_that_was_moved_or_replaced_is_not_taken_for_the_old_one() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    let moved = user.path("moved");
    fs::rename(&root, &moved).expect("moved");
    assert_eq!(user.ok(&moved, &["rev-parse", "HEAD"]).trim(), one);
    fs::create_dir(&root).expect("made");
    user.ok(&root, &["init", "-q"]);
    let two = user.commit(&root, "f", "2");
    assert_ne!(one, two);
    fs::remove_dir_all(&root).expect("removed");
    fs::rename(&moved, &root).expect("moved back");
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), one);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn a_damaged_git_repository_is_refused_and_nothing_of_it_is_seen() {
    let user = User::new();
    let git = user.path("git");
    fs::create_dir(&git).expect("made");
    let script =
        "git init -q -b main . && echo 1 > f && git add f && git -c user.name=G -c user.email=g@example.org commit -q -m one";
    assert_eq!(ended(user.program("sh", &git).args(["-c", script])).code, 0);
    let objects = user.program("find", &git).args([".git/objects", "-type", "f"]).output().expect("it runs").stdout;
    let root = user.repository("work");
    for object in String::from_utf8_lossy(&objects).lines() {
        let object = git.join(object);
        let saved = fs::read(&object).expect("read");
        fs::remove_file(&object).expect("removed");
        fs::write(&object, &saved[..saved.len() / 2]).expect("written");
        let refused = user.run(&root, &["import", "--from-git", "../git"]);
        assert!(refused.code == 128 && refused.err.starts_with("fatal: "), "{}", refused.err);
        assert_eq!(user.ok(&root, &["branch"]), "");
        fs::write(&object, saved).expect("written");
    }
    user.ok(&root, &["import", "--from-git", "../git"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("checked out"), "1\n");
}

#[test]
fn a_git_repository_that_is_half_written_is_refused_with_what_is_wrong_and_nothing_of_it_is_seen() {
    let user = User::new();
    let git = user.path("git");
    fs::create_dir(&git).expect("made");
    let script = "git init -q -b main . && for n in 1 2 3; do echo $n > f && git add f && git commit -q -m $n; done
        git branch side && git tag -m v1 v1 && git repack -adq && git pack-refs --all && git commit -q --allow-empty -m loose";
    let mut made = user.program("sh", &git);
    for who in ["AUTHOR", "COMMITTER"] {
        made.env(format!("GIT_{who}_NAME"), "G").env(format!("GIT_{who}_EMAIL"), "g@example.org");
    }
    assert_eq!(ended(made.args(["-c", script])).code, 0);
    let packs = fs::read_dir(git.join(".git/objects/pack")).expect("there").map(|entry| entry.expect("listed").path());
    let packs: Vec<_> = packs.collect();
    let of = |kind: &str| packs.iter().find(|path| path.extension().is_some_and(|own| own == kind)).expect("one").clone();
    let (main, stray) = (git.join(".git/refs/heads/main"), git.join(".git/refs/heads/stray"));
    let head = fs::read(&main).expect("read");
    let (pack, index) = (of("pack"), of("idx"));
    let half = |path: &Path| fs::read(path).map(|whole| whole[..whole.len() / 2].to_owned()).expect("read");
    // What is there instead of a file; nothing where it is missing.
    let cases = [
        (&main, Some(Vec::new()), "refs/heads/main"),
        (&main, Some(head[..20].to_vec()), "refs/heads/main"),
        (&stray, Some(Vec::new()), "refs/heads/stray"),
        (&git.join(".git/HEAD"), Some(Vec::new()), "HEAD"),
        (&git.join(".git/packed-refs"), Some(half(&git.join(".git/packed-refs"))), "packed reference"),
        (&pack, Some(half(&pack)), "object"),
        (&index, None, "object"),
        (&index, Some(half(&index)), "object"),
    ];
    for (path, instead, told) in cases {
        let root = user.path("work");
        fs::create_dir(&root).expect("made");
        let saved = fs::read(path).ok();
        let _ = fs::remove_file(path);
        if let Some(bytes) = &instead {
            fs::write(path, bytes).expect("written");
        }
        let case = format!("{} is {:?}", path.display(), instead.as_ref().map(Vec::len));
        let refused = user.run(&root, &["import", "--from-git", "../git"]);
        assert_eq!((refused.code, refused.out.as_str()), (128, ""), "{case}: {}", refused.err);
        assert!(refused.err.starts_with("fatal: ") && refused.err.contains(told), "{case}: {}", refused.err);
        assert!(refused.err.contains("hint: ") && !refused.err.contains("panic"), "{case}: {}", refused.err);
        assert_eq!(fs::read_dir(&root).expect("there").count(), 0, "{case}: neither a repository nor a file");
        // The same where there is a repository: it is as before.
        user.ok(&root, &["init", "-q"]);
        let own = user.commit(&root, "own", "1");
        assert_eq!(user.run(&root, &["import", "--from-git", "../git"]).code, 128, "{case}");
        assert_eq!((user.ok(&root, &["branch"]), user.ok(&root, &["tag"])), ("* main\n".to_owned(), String::new()), "{case}");
        assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), own, "{case}");
        user.ok(&root, &["fsck"]);
        fs::remove_dir_all(&root).expect("removed");
        let _ = fs::remove_file(path);
        if let Some(bytes) = saved {
            fs::write(path, bytes).expect("written");
        }
    }
    let root = user.path("work");
    fs::create_dir(&root).expect("made");
    user.ok(&root, &["import", "--from-git", "../git"]);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 4);
}

#[test]
fn garbage_on_the_socket_is_answered_or_hung_up_on_and_harms_nobody() {
    let user = User::new();
    let root = user.repository("work");
    let pid = user.engine();
    let mut chance = StdRng::seed_from_u64(7);
    for _ in 0..200 {
        let mut stream = UnixStream::connect(user.place().join("engine.sock")).expect("connected");
        let greeted = chance.random_bool(0.5);
        if greeted {
            stream.write_all(b"{\"helios\": 1}\n").expect("sent");
        }
        let templates: [&[u8]; 3] =
            [b"{\"op\":\"run\",\"argv\":[\"log\"],\"cwd\":\"/\"}\n", b"{\"id\":{},\"op\":\"commit_files\"}\n", b"\x00\xff{[\"\n"];
        let mut line = templates[chance.random_range(0..templates.len())].to_vec();
        for _ in 0..chance.random_range(0..4) {
            let place = chance.random_range(0..line.len());
            line[place] = chance.random();
        }
        // A peer that was answered may have hung up already.
        let _ = stream.write_all(&line);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
        assert!(answer.lines().all(|line| line.starts_with('{')), "{answer}");
    }
    user.commit(&root, "f", "1");
    assert_eq!(user.engine(), pid, "it is the same engine still");
}
