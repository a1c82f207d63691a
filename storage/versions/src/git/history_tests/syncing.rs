//! Beside a living `.git`.

use super::on_top::commit;
use super::{Git, caller, repository};
use crate::git::{Converted, ExportRefs, RefOutcome, SyncReport, export_history, sync};
use crate::{Existing, Repository};

fn living() -> (Git, Repository) {
    let git = Git::with_worktree();
    std::fs::create_dir(git.path().join(".helios")).unwrap();
    for (path, text) in [("a", "1\n"), ("b", "1\n")] {
        std::fs::write(git.path().join(path), text).unwrap();
    }
    git.run(&["add", "a", "b"]);
    git.run(&["commit", "-q", "-m", "first"]);
    git.run(&["branch", "other"]);
    let repository = repository();
    both(&git, &repository);
    (git, repository)
}

fn both(git: &Git, repository: &Repository) -> SyncReport {
    sync(repository, &caller(), git.path(), &mut |_| {}).unwrap()
}

fn outcomes(report: &SyncReport, name: &str) -> (Option<RefOutcome>, Option<RefOutcome>) {
    let of = |refs: &[crate::git::RefReport]| {
        refs.iter().find(|found| found.name == format!("refs/heads/{name}")).map(|found| found.outcome.clone())
    };
    (of(&report.imported.refs), of(&report.exported.refs))
}

fn ours(repository: &Repository, git: &Git, branch: &str) -> (String, Option<String>) {
    let map = crate::git::GitMap::load(&**repository.store()).unwrap();
    let head = repository.branch(&branch.parse().unwrap()).unwrap();
    (git.run(&["rev-parse", branch]), head.and_then(|head| map.commit_of(head)))
}

#[test]
fn what_is_new_on_either_side_goes_to_the_other() {
    let (git, repository) = living();
    assert_eq!(git.run(&["status", "--porcelain"]), "", "git does not look into our folder");
    git.run(&["commit", "-q", "--allow-empty", "-m", "in git"]);
    let report = both(&git, &repository);
    assert_eq!((report.imported.commits, report.exported.commits), (1, 0));
    assert_eq!(outcomes(&report, "main"), (Some(RefOutcome::Forwarded), Some(RefOutcome::Unchanged)));
    commit(&repository, &[("a", Some("2\n"))], "here\n");
    std::fs::write(git.path().join("a"), "2\n").unwrap();
    let index = std::fs::read(git.path().join(".git/index")).unwrap();
    let report = both(&git, &repository);
    assert_eq!((report.imported.commits, report.exported.commits), (0, 1));
    assert_eq!(outcomes(&report, "main"), (Some(RefOutcome::Ahead), Some(RefOutcome::Forwarded)));
    assert_eq!(std::fs::read(git.path().join(".git/index")).unwrap(), index, "the index is the person's");
    git.run(&["reset", "-q"]);
    assert_eq!(git.run(&["status", "--porcelain"]), "");
    let (theirs, mine) = ours(&repository, &git, "main");
    assert_eq!(Some(theirs), mine);
    let report = both(&git, &repository);
    assert_eq!((report.imported.commits, report.exported.commits, report.exported.objects), (0, 0, 0));
}

#[test]
fn where_both_moved_both_stay_until_one_side_has_merged() {
    let (git, repository) = living();
    git.run(&["commit", "-q", "--allow-empty", "-m", "in git"]);
    let here = commit(&repository, &[("b", Some("2\n"))], "here\n");
    let before = ours(&repository, &git, "main");
    let report = both(&git, &repository);
    assert_eq!(outcomes(&report, "main"), (Some(RefOutcome::Diverged), Some(RefOutcome::Diverged)));
    assert_eq!(git.run(&["rev-parse", "main"]), before.0);
    assert_eq!(repository.branch(&"main".parse().unwrap()).unwrap(), Some(here));
    // Our commit under another name, merged in git.
    repository.create_branch(&caller(), &"from-here".parse().unwrap(), here, Existing::Refuse).unwrap();
    both(&git, &repository);
    git.run(&["merge", "-q", "-m", "merged", "from-here"]);
    let report = both(&git, &repository);
    assert_eq!(outcomes(&report, "main"), (Some(RefOutcome::Forwarded), Some(RefOutcome::Unchanged)));
    assert_eq!(git.run(&["show", "main:b"]), "2");
    git.is_sound();
}

#[test]
fn where_both_moved_gits_commit_can_be_merged_here_under_its_id() {
    let (git, repository) = living();
    git.run(&["commit", "-q", "--allow-empty", "-m", "in git"]);
    commit(&repository, &[("b", Some("2\n"))], "here\n");
    let there = git.run(&["rev-parse", "main"]);
    let report = both(&git, &repository);
    let to_merge = |refs: &[crate::git::RefReport]| refs.iter().find_map(|found| found.theirs.clone());
    let named = Some(there.clone());
    assert_eq!((to_merge(&report.imported.refs), to_merge(&report.exported.refs)), (named.clone(), named));
    let resolve = |revision: &str| repository.resolve(&crate::WorkspaceName::main(), revision);
    let other = resolve(&there).unwrap();
    assert_eq!((resolve(&there[..7]).unwrap(), resolve(&format!("{there}~1")).unwrap()), (other, resolve("HEAD~1").unwrap()));
    assert!(resolve(&"0".repeat(40)).is_err());
    let merged = repository.merge(&crate::MergeRequest::new(caller(), other, there.clone())).unwrap();
    assert_eq!(merged.unresolved, Vec::new());
    let report = both(&git, &repository);
    assert_eq!(outcomes(&report, "main"), (Some(RefOutcome::Ahead), Some(RefOutcome::Forwarded)));
    assert_eq!(git.run(&["rev-parse", "main^2"]), there);
    let report = both(&git, &repository);
    assert_eq!(outcomes(&report, "main"), (Some(RefOutcome::Unchanged), Some(RefOutcome::Unchanged)));
    git.is_sound();
}

/// A repository beside git with attributes, and files that git converts by them.
fn converting() -> (Git, Repository) {
    let (git, repository) = living();
    let attributes = "*.secret filter=hide\n*.unknown filter=none\n*.bat text eol=crlf\n*.id ident\nsub/*.bat -text\n";
    for (name, text) in [(".gitattributes", attributes), ("k.secret", "clear\n"), ("k.unknown", "1\n"), ("r.bat", "a\r\n")] {
        std::fs::write(git.path().join(name), text).unwrap();
    }
    git.run(&["config", "filter.hide.clean", "sed s/clear/hidden/"]);
    git.run(&["add", ".gitattributes", "k.secret", "k.unknown", "r.bat"]);
    git.run(&["commit", "-q", "-m", "converted"]);
    assert_eq!(git.run(&["show", "main:k.secret"]), "hidden");
    both(&git, &repository);
    (git, repository)
}

#[test]
fn what_git_converts_in_its_folder_is_listed() {
    let (git, _) = converting();
    let listed = crate::git::converted(git.path()).unwrap().into_iter().map(|file| (file.path, file.by));
    let expected = [("k.secret", "filter=hide"), ("r.bat", "eol=crlf")].map(|(path, by)| (path.to_owned(), by.to_owned()));
    assert_eq!(listed.collect::<Vec<_>>(), expected);
    git.run(&["config", "core.autocrlf", "true"]);
    let listed: Vec<_> = crate::git::converted(git.path()).unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(listed, [".gitattributes", "a", "b", "k.secret", "k.unknown", "r.bat"]);
}

#[test]
fn content_that_git_filters_goes_to_git_only_as_git_has_it() {
    let (git, repository) = converting();
    let before = git.everything();
    commit(&repository, &[("a", Some("2\n")), ("k.secret", Some("clear\n"))], "taken from the folder\n");
    let failed = sync(&repository, &caller(), git.path(), &mut |_| {}).unwrap_err();
    assert!(failed.error.to_string().starts_with("k.secret is in "), "{}", failed.error);
    assert!(failed.error.to_string().ends_with("(filter=hide)"), "{}", failed.error);
    assert_eq!(git.everything(), before);
    assert!(!git.command(&["cat-file", "-e", &git.run(&["hash-object", "--no-filters", "k.secret"])]).status().unwrap().success());
    // Elsewhere nobody filters, and nobody had filtered.
    export_history(&repository, &caller(), &git.beside("copy"), &ExportRefs::All, &mut |_| {}).unwrap();
}

#[test]
fn files_that_git_has_and_those_whose_line_ends_it_converts_go_to_git() {
    let (git, repository) = converting();
    commit(&repository, &[("other.secret", Some("hidden\n")), ("k.unknown", Some("2\n")), ("a", Some("2\n"))], "as git has it\n");
    assert_eq!(both(&git, &repository).exported.converted, Vec::new());
    commit(&repository, &[("r.bat", Some("b\r\n")), ("sub/r.bat", Some("b\r\n"))], "line ends\n");
    let report = both(&git, &repository);
    assert_eq!(report.exported.converted, [Converted { path: "r.bat".to_owned(), by: "eol=crlf".to_owned() }]);
    assert_eq!((report.exported.commits, git.run(&["cat-file", "-s", "main:r.bat"])), (1, "3".to_owned()));
    assert_eq!(both(&git, &repository).exported.converted, Vec::new());
}

#[test]
fn a_name_beneath_another_is_left_and_the_others_go_on() {
    let (git, repository) = living();
    let head = commit(&repository, &[("a", Some("2\n"))], "here\n");
    for name in ["side/beneath", "deep/er", "new"] {
        repository.create_branch(&caller(), &name.parse().unwrap(), head, Existing::Refuse).unwrap();
    }
    git.run(&["branch", "side"]);
    git.run(&["branch", "deep/er/one"]);
    let report = both(&git, &repository);
    let left = |name: &str| Some(RefOutcome::InTheWay { name: format!("refs/heads/{name}") });
    assert_eq!((outcomes(&report, "side").0, outcomes(&report, "side/beneath").1), (left("side/beneath"), left("side")));
    assert_eq!((outcomes(&report, "deep/er/one").0, outcomes(&report, "deep/er").1), (left("deep/er"), left("deep/er/one")));
    assert_eq!((outcomes(&report, "new").1, outcomes(&report, "main").1), (Some(RefOutcome::Created), Some(RefOutcome::Forwarded)));
    git.run(&["branch", "-m", "side", "renamed"]);
    assert_eq!(outcomes(&both(&git, &repository), "side/beneath").1, Some(RefOutcome::Created));
    git.is_sound();
}

#[test]
fn a_lock_of_gits_is_named() {
    let (git, repository) = living();
    commit(&repository, &[("a", Some("2\n"))], "here\n");
    repository
        .create_branch(
            &caller(),
            &"new".parse().unwrap(),
            repository.branch(&"main".parse().unwrap()).unwrap().unwrap(),
            Existing::Refuse,
        )
        .unwrap();
    for name in ["refs/heads/main.lock", "refs/heads/new.lock"] {
        let lock = git.path().join(".git").join(name);
        std::fs::write(&lock, "").unwrap();
        let failed = sync(&repository, &caller(), git.path(), &mut |_| {}).unwrap_err();
        assert_eq!(failed.error.to_string(), format!("git's refs are locked by {}", lock.canonicalize().unwrap().display()));
        std::fs::remove_file(&lock).unwrap();
    }
    both(&git, &repository);
}

#[test]
fn what_one_side_removed_is_not_made_again_by_the_other() {
    let (git, repository) = living();
    git.run(&["branch", "-D", "-q", "other"]);
    let report = both(&git, &repository);
    assert_eq!(outcomes(&report, "other"), (None, Some(RefOutcome::Removed)));
    git.run(&["branch", "third"]);
    both(&git, &repository);
    repository.delete_branch(&caller(), &"third".parse().unwrap(), crate::Unmerged::Drop).unwrap();
    let report = both(&git, &repository);
    assert_eq!(outcomes(&report, "third"), (Some(RefOutcome::Removed), None));
    git.run(&["rev-parse", "third"]);
    // Moved since, it is there again.
    git.run(&["update-ref", "refs/heads/third", &git.run(&["commit-tree", "main^{tree}", "-p", "main", "-m", "x"])]);
    assert_eq!(outcomes(&both(&git, &repository), "third").0, Some(RefOutcome::Created));
}
