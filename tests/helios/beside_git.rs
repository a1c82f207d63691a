//! `import`, `export` and `sync` beside a real git.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{User, end_of};

/// A git repository in a folder of its own, with one commit of `f` on main.
fn git_repository(user: &User, root: &Path) {
    fs::create_dir(root).expect("made");
    user.git(root, &["init", "-q", "-b", "main"]);
    git_commit(user, root, "1\n");
}

fn git_commit(user: &User, root: &Path, content: &str) {
    fs::write(root.join("f"), content).expect("written");
    user.git(root, &["add", "f"]);
    user.git(root, &["commit", "-q", "-m", content.trim()]);
}

#[test]
fn a_collection_leaves_alone_what_an_import_or_a_sync_has_not_named_yet() {
    let user = User::new();
    let root = user.repository("work");
    user.git(&root, &["init", "-q", "-b", "main"]);
    let mut stream = String::new();
    for number in 0..1_500 {
        stream += &format!("commit refs/heads/main\ncommitter A <a@b> {number} +0000\ndata 1\nx\n");
        for place in 0..4 {
            let content = format!("{number} {place}\n").repeat(100);
            stream += &format!("M 100644 inline d{}/f{}\n", number % 50, (number * 7 + place) % 200);
            stream += &format!("data {}\n{content}\n", content.len());
        }
    }
    let mut filled = user.program("git", &root);
    let mut filled = filled.args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().expect("git starts");
    filled.stdin.take().expect("piped").write_all(stream.as_bytes()).expect("taken");
    assert!(filled.wait().expect("waited for").success());
    let other = user.repository("other");
    for (place, arguments) in [(&root, &["sync"][..]), (&other, &["import", "--from-git", "../work"])] {
        user.commit(place, "x", "before\n");
        let mut command = user.helios(place, arguments);
        let mut taking = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("helios starts");
        while taking.try_wait().expect("looked at").is_none() {
            user.ok(place, &["gc"]);
        }
        let taken = end_of(taking);
        // Main has gone on here too.
        assert_eq!(taken.code, i32::from(arguments == ["sync"]), "{taken:?}");
        assert!(taken.out.contains("1500 commits"), "{taken:?}");
        user.ok(place, &["fsck"]);
    }
}

#[test]
fn files_follow_a_git_repository_that_lies_in_their_folder() {
    let user = User::new();
    let root = user.repository("work");
    git_repository(&user, &root.join("up"));
    user.ok(&root, &["import", "--from-git", "up"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("there"), "1\n");
    for (content, arguments) in [("2\n", &["import", "--from-git", "up"][..]), ("3\n", &["sync", "--git", "up"])] {
        git_commit(&user, &root.join("up"), content);
        user.ok(&root, arguments);
        assert_eq!(fs::read_to_string(root.join("f")).expect("there"), content);
        assert_eq!(user.ok(&root, &["diff", "--name-only", "HEAD"]), "");
    }
}

#[test]
fn files_follow_what_a_sync_brought_that_could_give_git_nothing() {
    let user = User::new();
    let (from, root) = (user.path("from"), user.repository("work"));
    git_repository(&user, &from);
    user.ok(&root, &["import", "--from-git", "../from"]);
    git_commit(&user, &from, "2\n");
    user.ok(&root, &["branch", "side"]);
    fs::write(from.join(".git/refs/heads/side.lock"), "").expect("written");
    let failed = user.run(&root, &["sync", "--git", "../from"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert_eq!(fs::read_to_string(root.join("f")).expect("there"), "2\n");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn a_first_import_makes_the_files_of_the_branch_that_it_brings_wherever_gits_head_is() {
    let user = User::new();
    let (from, root, with_files) = (user.path("from"), user.repository("work"), user.repository("with-files"));
    git_repository(&user, &from);
    user.git(&from, &["symbolic-ref", "HEAD", "refs/heads/nowhere"]);
    user.ok(&root, &["import", "--from-git", "../from"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("there"), "1\n");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    // What somebody has there already stays, and what it does not have is made.
    user.git(&from, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    fs::write(from.join("g"), "1\n").expect("written");
    user.git(&from, &["add", "g"]);
    git_commit(&user, &from, "2\n");
    fs::write(with_files.join("f"), "mine\n").expect("written");
    user.ok(&with_files, &["import", "--from-git", "../from"]);
    let read = |name: &str| fs::read_to_string(with_files.join(name)).expect("there");
    assert_eq!((read("f"), read("g")), ("mine\n".to_owned(), "1\n".to_owned()));
    assert_eq!(user.ok(&with_files, &["status", "--porcelain"]), " M f\n");
}

#[test]
fn a_sync_takes_no_git_repository_of_a_folder_above_unless_it_is_named() {
    let user = User::new();
    let above = user.path("above");
    git_repository(&user, &above);
    let root = user.repository("above/project");
    user.commit(&root, "code", "1\n");
    let refused = user.run(&root, &["sync"]);
    assert_eq!(refused.code, 128, "{refused:?}");
    assert!(refused.err.contains(&format!("`helios sync --git {}`", above.display())), "{}", refused.err);
    assert_eq!(user.git(&above, &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 1);
    // Somebody else's repository in a folder of the project is not its own either.
    user.git(&root, &["init", "-q", "-b", "other"]);
    let vendored = root.join("vendored");
    git_repository(&user, &vendored);
    user.ok(&vendored, &["sync"]);
    assert_eq!(user.git(&root, &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    let workspace = user.path("workspace");
    user.ok(&root, &["workspace", "add", "../../workspace"]);
    assert_eq!(user.ok(&workspace, &["sync"]), "  here → git: created refs/heads/workspace\n0 commits from git, 0 to git\n");
    assert!(user.run(&root, &["sync", "--git", ".."]).out.contains("1 commits from git, 1 to git"));
}

#[test]
fn content_that_git_filters_is_named_by_an_import_and_refused_by_a_sync() {
    let user = User::new();
    let root = user.path("work");
    fs::create_dir(&root).expect("made");
    user.git(&root, &["init", "-q", "-b", "main"]);
    user.git(&root, &["config", "filter.hide.clean", "echo hidden"]);
    fs::write(root.join(".gitattributes"), "*.key filter=hide\n").expect("written");
    fs::write(root.join("a.key"), "clear\n").expect("written");
    user.git(&root, &["add", ".gitattributes", "a.key"]);
    git_commit(&user, &root, "1\n");
    let imported = user.run(&root, &["import", "--from-git", "."]);
    assert!(imported.code == 0 && imported.err.starts_with("warning: git converts a.key (filter=hide) "), "{imported:?}");
    user.ok(&root, &["commit", "--work", ".", "-m", "all"]);
    for arguments in [&["sync"][..], &["export", "--to-git", "."]] {
        let refused = user.run(&root, arguments);
        assert!(refused.code == 1 && refused.err.contains("(filter=hide)"), "{refused:?}");
    }
    assert_eq!(user.git(&root, &["rev-list", "--all", "--count"]), "1");
    user.ok(&root, &["undo"]);
    fs::write(root.join("f"), "2\n").expect("written");
    user.ok(&root, &["add", "f"]);
    user.ok(&root, &["commit", "-m", "f"]);
    user.ok(&root, &["sync"]);
    assert_eq!((user.git(&root, &["show", "main:f"]), user.git(&root, &["show", "main:a.key"])), ("2".into(), "hidden".into()));
}

#[test]
fn what_keeps_a_name_apart_is_told_with_what_brings_it_together() {
    let user = User::new();
    let root = user.path("work");
    git_repository(&user, &root);
    user.git(&root, &["tag", "v1"]);
    user.ok(&root, &["import", "--from-git", "."]);
    let there = user.git(&root, &["rev-parse", "v1"]);
    user.commit(&root, "here", "1\n");
    user.ok(&root, &["tag", "-f", "v1"]);
    user.ok(&root, &["branch", "side/beneath"]);
    user.git(&root, &["branch", "side"]);
    let apart = user.run(&root, &["sync"]);
    assert_eq!(apart.code, 1, "{apart:?}");
    let command = format!("helios tag -f v1 {there}");
    assert_eq!(apart.out.matches(&format!("`{command}`")).count(), 1, "{}", apart.out);
    assert!(apart.out.contains("git → here: left, refs/heads/side/beneath is in its way: refs/heads/side\n"), "{}", apart.out);
    assert!(apart.out.contains("here → git: left, refs/heads/side is in its way: refs/heads/side/beneath\n"), "{}", apart.out);
    assert!(apart.out.contains("here → git: forwarded refs/heads/main\n"), "{}", apart.out);
    user.ok(&root, &["tag", "-f", "v1", &there]);
    user.ok(&root, &["branch", "-m", "side/beneath", "beside"]);
    user.ok(&root, &["sync"]);
    user.ok(&root, &["tag", "-f", "v1", "main"]);
    assert!(user.run(&root, &["sync"]).out.contains("`git tag -d v1`"));
    user.git(&root, &["tag", "-d", "v1"]);
    user.ok(&root, &["sync"]);
    assert_eq!(user.git(&root, &["rev-parse", "v1"]), user.git(&root, &["rev-parse", "main"]));
}

#[test]
fn what_both_sides_went_on_with_is_brought_together_with_the_command_that_is_named() {
    let user = User::new();
    let root = user.path("work");
    git_repository(&user, &root);
    user.ok(&root, &["import", "--from-git", "."]);
    user.git(&root, &["commit", "-q", "--allow-empty", "-m", "in git"]);
    let there = user.git(&root, &["rev-parse", "main"]);
    user.commit(&root, "here", "2\n");
    let apart = user.run(&root, &["sync"]);
    let command = format!("helios merge {there}");
    assert_eq!(apart.code, 1, "{apart:?}");
    assert!(apart.out.starts_with("  git ↔ here: left, both sides have gone on: refs/heads/main\n"), "{}", apart.out);
    assert_eq!(apart.out.matches(&format!("`{command}`")).count(), 1, "{}", apart.out);
    assert!(user.run(&root, &["sync", "--json"]).out.contains(&format!("\"to_merge\":\"{there}\"")));
    assert_eq!(user.git(&root, &["rev-parse", "main"]), there, "nothing was moved");
    user.ok(&root, &["merge", &there]);
    let joined = user.ok(&root, &["sync"]);
    // That it is further here than in git is settled in the same run.
    assert_eq!(joined.lines().next(), Some("  here → git: forwarded refs/heads/main"), "{joined}");
    assert!(!joined.contains("left,"), "{joined}");
    assert_eq!(user.git(&root, &["rev-parse", "main^2"]), there);
    assert_eq!(user.git(&root, &["show", "main:here"]), "2");
    assert_eq!(user.ok(&root, &["sync"]), "0 commits from git, 0 to git\n");
    user.git(&root, &["branch", "from-git", "main~1"]);
    user.ok(&root, &["branch", "from-here"]);
    let both = user.ok(&root, &["sync"]);
    let lines: Vec<&str> = both.lines().collect();
    assert_eq!(
        lines,
        ["  git → here: created refs/heads/from-git", "  here → git: created refs/heads/from-here", "0 commits from git, 0 to git"]
    );
    let short = &there[..10];
    assert_eq!(user.ok(&root, &["rev-parse", short]), user.ok(&root, &["rev-parse", "HEAD^2"]));
    assert_eq!(user.ok(&root, &["show", "--name-only", &format!("{there}~1")]).lines().last(), Some("f"));
}
