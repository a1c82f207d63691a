//! Snapshots made here on top of what was imported.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use helix_protocol::{FileMode, SnapshotId};

use super::{Git, caller, export, import, ordinary, repository, who};
use crate::git::{ExportRefs, GitMap, RefOutcome, export_history};
use crate::{Existing, FileEdit, FilesRequest, RefName, Repository};

pub(super) fn commit(repository: &Repository, edits: &[(&str, Option<&str>)], message: &str) -> SnapshotId {
    let edit = |(path, text): &(&str, Option<&str>)| FileEdit {
        path: path.as_bytes().to_vec(),
        content: text.map(|text| (FileMode::Regular, Bytes::copy_from_slice(text.as_bytes()))),
    };
    let request = FilesRequest {
        caller: caller(),
        expect: None,
        edits: edits.iter().map(edit).collect(),
        message: message.into(),
        author: Some(crate::Signature { name: "A <gent>".into(), ..who() }),
        metadata: BTreeMap::from([
            ("model".to_owned(), "small\nand \\ \"quick\"".to_owned()),
            ("score".to_owned(), "0.5".to_owned()),
        ]),
        allow_empty: true,
    };
    repository.commit_files(&request).unwrap().snapshot
}

fn content(git: &Git, revision: &str) -> Vec<(String, String)> {
    let list = git.run(&["ls-tree", "-r", "--format=%(objectmode) %(path)", revision]);
    let split = |line: &str| line.split_once(' ').map(|(mode, path)| (mode.to_owned(), path.to_owned())).unwrap();
    list.lines().map(split).collect()
}

#[test]
fn snapshots_on_top_become_ordinary_commits_and_the_same_snapshots_elsewhere() {
    let (git, repository) = (ordinary(), repository());
    import(&repository, &git);
    let (copy, other) = (Git::nothing(), Git::nothing());
    export(&repository, &copy);
    let imported = git.run(&["rev-parse", "main"]);
    commit(&repository, &[("src/new.rs", Some("fn new() {}\n")), ("README", None)], "by hand");
    commit(&repository, &[("src/new.rs", Some("fn new() { 1 }\n"))], "");
    commit(&repository, &[("a/b/c/d", Some("deep")), ("empty/gone", Some(""))], "message with\0nul");
    let last = commit(&repository, &[("empty/gone", None)], "no line end");
    let report = export(&repository, &copy);
    // Four commits, each with the folders above what it changed and no more.
    assert_eq!(
        (report.commits, report.refs.iter().find(|found| found.name == "refs/heads/main").unwrap().outcome.clone()),
        (4, RefOutcome::Forwarded)
    );
    assert!(report.objects < 30, "{} objects", report.objects);
    copy.is_sound();
    assert_eq!(copy.run(&["rev-parse", "main~4"]), imported);
    let paths: Vec<String> = content(&copy, "main").into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["a-b", "a/b/c/d", "a0", "bin/run", "link", "src/a/b/c.txt", "src/new.rs", "src/one", "src/two"]);
    assert_eq!(copy.run(&["show", "main:src/new.rs"]), "fn new() { 1 }");
    assert_eq!(copy.run(&["log", "-1", "--format=%an|%ae|%at|%s", "main"]), "A  gent|ada@example.org|1700000000|no line end");
    // Exported whole it is the same, and imported elsewhere it is the same again, metadata and all.
    export(&repository, &other);
    assert_eq!(other.everything().2, copy.everything().2);
    let again = super::repository();
    import(&again, &other);
    let head = again.branch(&"main".parse().unwrap()).unwrap().unwrap();
    let (mine, theirs) = (repository.snapshot(last).unwrap(), again.snapshot(head).unwrap());
    assert_eq!((&mine.author, &mine.metadata, &mine.message), (&theirs.author, &theirs.metadata, &theirs.message));
}

#[test]
fn a_history_made_here_without_empty_folders_is_the_same_snapshots_after_git_and_back() {
    let (repository, git) = (repository(), Git::nothing());
    commit(&repository, &[("a/b", Some("1")), ("c", Some("2"))], "one");
    let last = commit(&repository, &[("a/b", Some("2"))], "two\n");
    let main = "main".parse().unwrap();
    repository.create_tag(&caller(), &"v1".parse().unwrap(), last, None, Existing::Refuse).unwrap();
    let annotation = crate::Annotation { tagger: who(), message: "first\n".into() };
    repository.create_tag(&caller(), &"v1-annotated".parse().unwrap(), last, Some(&annotation), Existing::Refuse).unwrap();
    assert!(export(&repository, &git).created);
    git.is_sound();
    assert_eq!(git.run(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(git.run(&["cat-file", "-t", "v1-annotated"]), "tag");
    let again = super::repository();
    import(&again, &git);
    assert_eq!(again.branch(&main).unwrap(), Some(last));
    let map = GitMap::load(&**repository.store()).unwrap();
    assert_eq!(map.commit_of(last), Some(git.run(&["rev-parse", "main"])));
    assert_eq!(map.snapshot_of(&git.run(&["rev-parse", "main~1"])), Some(repository.snapshot(last).unwrap().parents[0]));
}

#[test]
fn submodules_and_old_modes_stay_under_what_is_made_on_top() {
    let git = Git::bare();
    let blob = git.object("blob", b"a\n");
    let sub = "1234567890123456789012345678901234567890";
    let links = git.tree(&[("160000", b"one", sub), ("160000", b"two", sub)]);
    let old = git.tree(&[("100664", b"changed", &blob), ("100664", b"same", &blob), ("160000", b"three", sub)]);
    let tree = git.tree(&[("40000", b"libs", &links), ("40000", b"old", &old), ("100644", b"readme", &blob)]);
    let root = git.object("commit", format!("tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n").as_bytes());
    git.run(&["update-ref", "refs/heads/main", &root]);
    let repository = repository();
    import(&repository, &git);
    commit(&repository, &[("old/changed", Some("b\n")), ("new", Some("n"))], "one\n");
    commit(&repository, &[("libs/two", Some("no submodule any more"))], "two\n");
    commit(&repository, &[("readme", None)], "three\n");
    let copy = Git::nothing();
    export(&repository, &copy);
    let expected = [
        ("160000", "libs/one"),
        ("100644", "libs/two"),
        ("100644", "new"),
        ("100644", "old/changed"),
        ("100664", "old/same"),
        ("160000", "old/three"),
    ];
    // git shows an old mode as it reads it.
    let expected = expected.map(|(mode, path)| (mode.replace("100664", "100644"), path.to_owned()));
    let found: Vec<(String, String)> =
        content(&copy, "main").into_iter().map(|(mode, path)| (mode.replace("100664", "100644"), path)).collect();
    assert_eq!(found, expected);
    // In parts it is the same as whole.
    let parts = Git::nothing();
    let again = super::repository();
    import(&again, &git);
    export(&again, &parts);
    for (edits, message) in [
        (vec![("old/changed", Some("b\n")), ("new", Some("n"))], "one\n"),
        (vec![("libs/two", Some("no submodule any more"))], "two\n"),
        (vec![("readme", None)], "three\n"),
    ] {
        commit(&again, &edits, message);
        export(&again, &parts);
        // What git has now is known here.
        assert_eq!(import(&again, &parts).commits, 0);
    }
    assert_eq!(parts.everything(), copy.everything());
}

#[test]
fn the_files_of_a_submodule_that_git_checked_out_do_not_take_its_place() {
    let git = Git::bare();
    let links = git.tree(&[("160000", b"lib", "1234567890123456789012345678901234567890")]);
    let root = git.object("commit", format!("tree {links}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n").as_bytes());
    git.run(&["update-ref", "refs/heads/main", &root]);
    let repository = repository();
    import(&repository, &git);
    commit(&repository, &[("lib/of/another", Some("repository")), ("own", Some("o"))], "one\n");
    commit(&repository, &[("lib/of/another", Some("moved on")), ("own", Some("oo"))], "two\n");
    export(&repository, &git);
    let expected = [("160000", "lib"), ("100644", "own")].map(|(mode, path)| (mode.to_owned(), path.to_owned()));
    assert_eq!(content(&git, "main"), expected);
    assert_eq!(content(&git, "main~1"), expected);
    assert_eq!(import(&repository, &git).commits, 0);
}

#[test]
fn what_diverged_is_ahead_or_is_checked_out_is_left_and_told() {
    let (git, repository) = (ordinary(), repository());
    import(&repository, &git);
    commit(&repository, &[("here", Some("h"))], "here\n");
    let there = git.run(&["commit-tree", "main^{tree}", "-p", "main", "-m", "there"]);
    git.run(&["update-ref", "refs/heads/main", &there]);
    git.run(&["update-ref", "refs/heads/one", "main"]);
    git.run(&["update-ref", "-d", "refs/heads/two"]);
    let before = git.run(&["rev-parse", "main", "one"]);
    let outcome = |report: &crate::git::ExportReport, name: &str| {
        report.refs.iter().find(|found| found.name == format!("refs/heads/{name}")).unwrap().outcome.clone()
    };
    let report = export(&repository, &git);
    assert_eq!(outcome(&report, "main"), RefOutcome::Diverged);
    assert_eq!(outcome(&report, "one"), RefOutcome::Diverged, "git's commit is not known here yet");
    assert_eq!(outcome(&report, "two"), RefOutcome::Created);
    assert_eq!(git.run(&["rev-parse", "main", "one"]), before);
    let imported = import(&repository, &git);
    let taken = |name: &str| imported.refs.iter().find(|found| found.name == format!("refs/heads/{name}")).unwrap().outcome.clone();
    assert_eq!((taken("main"), taken("one"), taken("two")), (RefOutcome::Diverged, RefOutcome::Forwarded, RefOutcome::Unchanged));

    let worktree = git.beside("worktree");
    git.run(&["worktree", "add", "-q", worktree.to_str().unwrap(), "three"]);
    repository
        .create_branch(
            &caller(),
            &"three".parse().unwrap(),
            repository.branch(&"main".parse().unwrap()).unwrap().unwrap(),
            Existing::Move,
        )
        .unwrap();
    let report = export(&repository, &git);
    assert_eq!(outcome(&report, "three"), RefOutcome::CheckedOut { worktree: worktree.display().to_string() });
    assert_eq!(status(&worktree), "");
}

fn status(folder: &Path) -> String {
    let output = std::process::Command::new("git").arg("-C").arg(folder).args(["status", "--porcelain"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn one_branch_alone_can_be_exported() {
    let (git, repository) = (ordinary(), repository());
    import(&repository, &git);
    let copy = Git::nothing();
    let name: RefName = "refs/heads/one".parse().unwrap();
    let report = export_history(&repository, &caller(), copy.path(), &ExportRefs::Some(vec![name]), &mut |_| {}).unwrap();
    assert_eq!(report.commits, 2);
    assert_eq!(
        copy.run(&["for-each-ref", "--format=%(refname) %(objectname)"]),
        format!("refs/heads/one {}", git.run(&["rev-parse", "one"]))
    );
    copy.is_sound();
}
