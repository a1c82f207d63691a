//! Files that are named, or meant by a pattern: the same ones as git means, and the same becomes of them.

use std::fs;

use serde_json::{Value, json};

use crate::like_git::Both;

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Both folders hold the same in these files.
/// The snapshot that a command names, in which it kept what no commit had.
fn kept_in(told: &str) -> &str {
    told.split_once(" is kept in ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .unwrap_or_else(|| panic!("nothing is kept: {told}"))
}

fn same_files(both: &Both, paths: &[&str], after: &str) {
    for path in paths {
        let read = |root: &std::path::Path| fs::read_to_string(root.join(path)).ok();
        assert_eq!(read(&both.git), read(&both.helios), "{path} after {after}");
    }
}

#[test]
fn checkout_with_paths_removes_no_file_and_refuses_a_path_that_the_source_lacks() {
    let both = Both::new();
    both.write("d/a", "1\n");
    both.write("f", "1\n");
    both.commit("one");
    both.write("d/b", "b\n");
    both.write("e", "e\n");
    both.write("f", "2\n");
    both.commit("two");
    both.write("d/b", "unsaved\n");
    both.write("d/new", "unsaved\n");
    both.write("staged", "staged\n");
    both.done(&["add", "staged"]);
    for line in [
        "checkout HEAD~1 -- d",
        "checkout HEAD~1 -- e",
        "checkout HEAD~1 -- e f",
        "checkout HEAD~1 -- nope",
        "checkout HEAD~1 -- staged",
        "checkout HEAD~1 -- f",
        "checkout HEAD -- f",
        "checkout HEAD~1 .",
        "checkout HEAD~1 d e",
        "checkout -- d/b",
        "checkout d/new",
        "add -u d/new",
    ] {
        both.same_code("", &words(line));
        both.same("", &["status", "--porcelain"]);
        same_files(&both, &["d/a", "d/b", "d/new", "e", "f", "staged"], line);
    }
    // What removes a file says so: `restore`.
    both.write("d/b", "unsaved\n");
    for line in ["restore -s HEAD~1 d", "restore -s HEAD~1 nope", "restore -s HEAD~1 -S -W e", "restore d", "restore ."] {
        both.same_code("", &words(line));
        both.same("", &["status", "--porcelain"]);
        same_files(&both, &["d/a", "d/b", "d/new", "e", "f", "staged"], line);
    }
}

#[test]
fn patterns_mean_what_they_mean_in_git() {
    let both = Both::new();
    for path in ["x.py", "y.rs", "d/x.py", "d/e/z.py", "d[1]/x.py", "d1/x.py", "a*b", "acb"] {
        both.write(path, "1\n");
    }
    both.commit("one");
    for path in ["x.py", "y.rs", "d/x.py", "d/e/z.py", "d[1]/x.py", "d1/x.py", "a*b", "acb", "new.py", "d/new.py"] {
        both.write(path, "2\n");
    }
    for line in [
        "ls-files *.py",
        "ls-files d/*",
        "ls-files d/*.py y.rs",
        "ls-files [xy].*",
        "ls-files a*b",
        "ls-files a\\*b",
        "ls-files nope*",
        "diff --name-only *.py",
        "diff --name-only -- *.py",
        "diff --name-only HEAD -- ?.rs",
        "diff --name-only HEAD ?.rs",
        "diff --name-only nope*",
        "status --porcelain *.py",
        "status --porcelain -- nope*",
    ] {
        both.same("", &words(line));
    }
    for folder in ["d", "d[1]"] {
        for line in ["ls-files *.py", "ls-files ../*.py", "diff --name-only ../d*/x.py", "status -s *.py"] {
            both.same(folder, &words(line));
        }
    }
    for line in [
        "add d/*.py",
        "reset -q -- *new.py",
        "add -u *.py",
        "restore --staged x*",
        "add nope*",
        "restore nope*",
        "checkout nope*",
        "restore *z.py",
        "restore x*",
        "add -A d1",
        "add -A .",
        "reset -q *.rs",
        "checkout y*",
        "checkout HEAD -- *.py",
    ] {
        both.same_code("", &words(line));
        both.same("", &["status", "--porcelain"]);
    }
    // What is read as git reads it nowhere is refused, and not answered with nothing.
    for line in ["diff -- :!x.py", "log -- *.py", "commit --work *.py", "blame *.py"] {
        let refused = both.helios("", &words(line));
        assert_eq!((refused.code, refused.out.as_str()), (128, ""), "{line}: {refused:?}");
    }
}

#[test]
fn a_file_that_is_staged_as_removed_and_there_again_is_both() {
    let both = Both::new();
    for path in ["e", "same", "d/f"] {
        both.write(path, "1\n");
    }
    both.commit("one");
    for root in [&both.git, &both.helios] {
        for path in ["e", "same", "d/f"] {
            fs::remove_file(root.join(path)).expect("removed");
        }
    }
    both.done(&["add", "-A"]);
    both.write("e", "2\n");
    both.write("same", "1\n");
    both.write("d/f/g", "folder\n");
    for line in ["status --porcelain", "status -s -uall", "status --porcelain e", "diff --name-status", "diff --name-status HEAD"] {
        both.same("", &words(line));
    }
    let told: Value = serde_json::from_str(&both.user.ok(&both.helios, &["status", "--json"])).expect("JSON");
    assert_eq!(told["untracked"], json!(["d/", "e", "same"]));
    assert_eq!(told["changes"][1], json!({"path": "e", "staged": "D", "folder": ""}));
    let long = both.helios("", &["status"]).out;
    assert!(long.contains("deleted:    e\n") && long.contains("Untracked files:\n\td/\n\te\n"), "{long}");
    both.done(&["add", "e"]);
    both.same("", &["status", "--porcelain"]);
    both.done(&["commit", "-q", "-m", "two"]);
    both.same("", &["status", "--porcelain"]);
}

#[test]
fn a_checkout_leaves_alone_what_is_staged_already_as_the_other_branch_has_it() {
    let both = Both::new();
    let remove = |file: &str| [&both.git, &both.helios].map(|root| fs::remove_file(root.join(file)).expect("it is there"));
    for file in ["gone", "edited", "removed", "kept"] {
        both.write(file, "1\n");
    }
    both.commit("one");
    both.done(&["checkout", "-q", "-b", "side"]);
    for file in ["gone", "edited", "new"] {
        both.write(file, "2\n");
    }
    remove("removed");
    both.commit("two");
    both.done(&["checkout", "-q", "main"]);
    both.done(&["checkout", "-q", "side", "--", "."]);
    remove("removed");
    both.done(&["add", "removed"]);
    remove("gone");
    for file in ["edited", "new"] {
        both.write(file, "mine\n");
    }
    both.done(&["checkout", "-q", "side"]);
    both.same("", &["status", "--porcelain"]);
    same_files(&both, &["gone", "edited", "new", "removed", "kept"], "a checkout");
    assert_eq!(fs::read_to_string(both.helios.join("edited")).expect("it is there"), "mine\n");
    assert!(!both.helios.join("gone").exists());
}

#[test]
fn what_is_only_staged_goes_with_a_merge_that_is_given_up_and_by_force() {
    let both = Both::new();
    both.write("a", "1\n");
    both.write("b", "1\n");
    both.commit("one");
    both.done(&["checkout", "-q", "-b", "side"]);
    both.write("a", "2\n");
    both.commit("two");
    both.done(&["checkout", "-q", "main"]);
    both.write("a", "3\n");
    both.commit("three");
    for by in [&["merge", "--abort"][..], &["reset", "-q", "--hard"], &["checkout", "-q", "-f", "side"]] {
        if by[0] != "checkout" {
            assert_eq!([both.git("", &["merge", "side"]).code, both.helios("", &["merge", "side"]).code], [1, 1]);
        }
        both.write("a", "4\n");
        both.write("b", "4\n");
        both.write("new", "4\n");
        both.done(&["add", "."]);
        both.write("untracked", "4\n");
        both.same("", &["status", "--porcelain"]);
        let kept = both.helios("", by).err;
        assert_eq!(both.git("", by).code, 0);
        both.same("", &["status", "--porcelain"]);
        same_files(&both, &["a", "b", "new", "untracked"], &by.join(" "));
        let kept = kept_in(&kept);
        for file in ["a", "b", "new"] {
            assert_eq!(both.helios("", &["show", &format!("{kept}:{file}")]).out, "4\n", "{file}, by {by:?}");
        }
    }
}

#[test]
fn adding_a_folder_without_files_is_nothing_to_do_and_what_is_ignored_is_refused() {
    let both = Both::new();
    both.write(".gitignore", "*.log\nwhole/\n");
    for file in ["part/a.log", "whole/a", "a.log"] {
        both.write(file, "1\n");
    }
    for root in [&both.git, &both.helios] {
        fs::create_dir(root.join("empty")).expect("made");
    }
    let codes = [("empty", 0), ("part", 0), ("part/a.log", 1), ("whole", 1), ("a.log", 1), ("missing", 128), ("emp*", 128)];
    for (path, code) in codes {
        assert_eq!([both.git("", &["add", path]).code, both.helios("", &["add", path]).code], [code, code], "{path}");
        assert_eq!([both.git("", &["add", "-u", path]).code, both.helios("", &["add", "-u", path]).code], [128, 128], "{path}");
    }
    both.done(&["add", "."]);
    both.same("", &["status", "--porcelain"]);
}

#[test]
fn files_of_a_snapshot_decide_of_a_merge_only_what_it_has() {
    let both = Both::new();
    both.write("a", "1\n");
    both.write("gone", "1\n");
    both.commit("one");
    both.done(&["checkout", "-q", "-b", "side"]);
    both.write("a", "2\n");
    both.write("gone", "2\n");
    both.commit("two");
    both.done(&["checkout", "-q", "main"]);
    both.write("a", "3\n");
    [&both.git, &both.helios].into_iter().for_each(|root| fs::remove_file(root.join("gone")).expect("it is there"));
    both.commit("three");
    assert_eq!([both.git("", &["merge", "side"]).code, both.helios("", &["merge", "side"]).code], [1, 1]);
    both.done(&["checkout", "-q", "HEAD", "--", "."]);
    both.same("", &["status", "--porcelain"]);
    let undecided = both.helios("", &["status", "--porcelain"]).out;
    assert_eq!(undecided, "DU gone\n", "nobody has decided this one");
    both.done(&["reset", "-q", "--", "gone"]);
    both.same("", &["status", "--porcelain"]);
}

#[test]
fn what_was_staged_and_edited_since_stands_behind_what_is_kept() {
    let both = Both::new();
    both.write("a", "1\n");
    both.commit("one");
    both.write("a", "2\n");
    both.write("new", "2\n");
    both.done(&["add", "."]);
    both.write("a", "3\n");
    fs::remove_file(both.helios.join("new")).expect("it is there");
    let told = both.helios("", &["reset", "--hard"]).err;
    let kept = kept_in(&told);
    let shows = |revision: String| both.helios("", &["show", &revision]).out;
    assert_eq!(shows(format!("{kept}:a")), "3\n");
    assert_eq!([shows(format!("{kept}^2:a")), shows(format!("{kept}^2:new"))], ["2\n", "2\n"]);
}

#[test]
fn an_ignored_file_that_was_taken_off_the_stage_is_kept_before_it_is_overwritten() {
    let both = Both::new();
    both.write("a", "1\n");
    both.commit("one");
    both.write("own", "1\n");
    both.commit("two");
    both.write(".gitignore", "own\n");
    both.commit("three");
    both.done(&["reset", "-q", "HEAD~2", "--", "own"]);
    both.write("own", "mine\n");
    let told = both.helios("", &["checkout", "-f", "main"]).err;
    assert_eq!(both.git("", &["checkout", "-q", "-f", "main"]).code, 0);
    same_files(&both, &["own", "a"], "a checkout by force");
    assert_eq!(both.helios("", &["show", &format!("{}:own", kept_in(&told))]).out, "mine\n");
}

#[test]
fn before_the_first_commit_a_branch_is_named_and_what_is_staged_stays() {
    let both = Both::new();
    both.write("a", "1\n");
    both.done(&["add", "."]);
    both.done(&["checkout", "-q", "-f", "-b", "other"]);
    both.same("", &["status", "--porcelain"]);
    same_files(&both, &["a"], "a checkout by force");
}

#[test]
fn without_a_merge_there_is_nothing_to_give_up_and_nothing_is_kept() {
    let both = Both::new();
    both.write("a", "1\n");
    both.commit("one");
    both.write("a", "2\n");
    both.done(&["add", "."]);
    let before = both.helios("", &["oplog"]).out;
    let told = both.helios("", &["merge", "--abort"]);
    assert_eq!((both.git("", &["merge", "--abort"]).code, told.code), (128, 128));
    assert!(!told.err.contains("is kept in"), "{}", told.err);
    assert_eq!(both.helios("", &["oplog"]).out, before);
}

#[test]
fn folders_of_which_nothing_is_left_go_with_their_files() {
    let both = Both::new();
    both.write("a", "1\n");
    both.commit("one");
    for file in ["d/e/f", "d/g"] {
        both.write(file, "1\n");
    }
    both.commit("two");
    let there = || {
        let there = |root: &std::path::Path| ["d/e", "d"].map(|folder| root.join(folder).exists());
        assert_eq!(there(&both.git), there(&both.helios));
        there(&both.helios)
    };
    both.done(&["restore", "--source", "HEAD~1", "d/e/f"]);
    assert_eq!(there(), [false, true]);
    both.done(&["restore", "."]);
    both.write("d/own", "1\n");
    both.done(&["restore", "--source", "HEAD~1", "d/*"]);
    assert_eq!(there(), [false, true], "a file that is in no tree stays, and its folder");
}
