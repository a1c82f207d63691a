//! Import and export, judged by git itself.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use helix_objects::{MemoryStore, ObjectStore};
use helix_protocol::{ObjectId, SkipReason, SkippedFile, Timestamp};

use super::{BranchAt, Export, ExportCommit, IncludeUncommitted, Line, export, import, import_commit, left_out};
use crate::unprivileged::unprivileged;
use crate::{BranchName, ScanPolicy, Signature, Snapshot, StatCache, VersionError, entry_at, missing_closure, read_file, scan};

const YES: IncludeUncommitted = IncludeUncommitted::Yes { file_cap_bytes: 1 << 20 };

struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    /// A repository with every kind of file, some of it packed.
    fn sample() -> Self {
        let repository = Self::new();
        for (path, content) in [
            ("README.md", "read me\n"),
            ("src/main.rs", "fn main() {}\n"),
            ("src/deep/er/file", "deep\n"),
            ("run.sh", "#!/bin/sh\n"),
        ] {
            repository.write(path, content);
        }
        repository.write(".gitignore", "target/\n*.log\n");
        fs::write(repository.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "latin-1 name").unwrap();
        fs::set_permissions(repository.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("src/main.rs", repository.path().join("link")).unwrap();
        repository.commit("first");
        repository.git(&["gc", "-q"]);
        repository.write("src/main.rs", "fn main() { println!(); }\n");
        repository.commit("second\n\nwith a body");
        repository
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(&self, arguments: &[&str]) -> String {
        git_in(self.path(), arguments)
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }
}

fn git_in(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn scanned(store: &dyn ObjectStore, folder: &Path) -> ObjectId {
    scan(folder, None, store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap().tree
}

/// What git itself would check out of HEAD.
fn as_git_checks_out(store: &dyn ObjectStore, repository: &Path) -> ObjectId {
    let folder = tempfile::tempdir().unwrap();
    git_in(folder.path(), &["clone", "-q", repository.to_str().unwrap(), "clone"]);
    scanned(store, &folder.path().join("clone"))
}

/// The files that git would take with `add --all`.
fn as_git_would_add(store: &dyn ObjectStore, repository: &Path) -> ObjectId {
    let folder = tempfile::tempdir().unwrap();
    let list =
        Command::new("git").arg("-C").arg(repository).args(["ls-files", "-zco", "--exclude-standard"]).output().unwrap().stdout;
    for path in list.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let (from, to) = (repository.join(path), folder.path().join(path));
        let Ok(meta) = fs::symlink_metadata(&from) else { continue };
        if meta.is_dir() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if meta.is_symlink() {
            symlink(fs::read_link(&from).unwrap(), &to).unwrap()
        } else {
            assert_eq!(fs::copy(&from, &to).unwrap(), meta.len())
        }
    }
    scanned(store, folder.path())
}

/// Every file of a folder with its content and times.
fn state(folder: &Path) -> Vec<(PathBuf, u64, i64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                folders.push(path.clone());
            }
            found.push((path, meta.ino(), meta.mtime(), meta.mtime_nsec(), content));
        }
    }
    found.sort();
    found
}

fn who(seconds: i64) -> Signature {
    Signature {
        name: "Helix <agent>".into(),
        email: "agent@example.org".into(),
        time: Timestamp(seconds * 1_000_000),
        offset_minutes: 90,
    }
}

fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

#[test]
fn a_clean_import_is_what_git_checks_out() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    repository.write("src/main.rs", "not committed");
    repository.write("untracked", "not committed");
    let imported = import(&store, &repository.path().join("src"), IncludeUncommitted::No).unwrap();
    assert_eq!(imported.tree, as_git_checks_out(&store, repository.path()));
    assert_eq!((imported.commit.as_deref(), imported.branch.as_deref()), (Some(repository.head().as_str()), Some("main")));
    assert_eq!((imported.counts.files, imported.counts.uncommitted), (7, 0));
    assert_eq!(imported.root, repository.path());
    assert_eq!(missing_closure(&store, imported.tree).unwrap(), vec![]);
    store.sync(imported.mark).unwrap();
    let snapshot = Snapshot::load(&store, imported.snapshot).unwrap();
    assert_eq!((snapshot.author.name.as_str(), snapshot.message.as_str()), ("Ann", "second\n\nwith a body\n"));
    assert_eq!(snapshot.metadata["git.commit"], repository.head());
    let again = import(&store, repository.path(), IncludeUncommitted::No).unwrap();
    assert_eq!(again.snapshot, imported.snapshot, "the same commit is the same snapshot");
}

#[test]
fn uncommitted_work_comes_along_as_git_would_add_it() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    repository.write("src/main.rs", "changed");
    repository.write("staged", "staged");
    repository.git(&["add", "staged"]);
    repository.write("staged", "and changed again");
    repository.write("new/untracked", "untracked");
    repository.write("new/.gitignore", "private\n");
    repository.write("new/private", "ignored");
    repository.write("target/debug/program", "ignored");
    repository.write("x.log", "ignored");
    repository.write("forced.log", "tracked although ignored");
    repository.git(&["add", "-f", "forced.log"]);
    fs::remove_file(repository.path().join("README.md")).unwrap();
    fs::remove_dir_all(repository.path().join("src/deep")).unwrap();
    fs::remove_file(repository.path().join("link")).unwrap();
    symlink("run.sh", repository.path().join("link")).unwrap();
    fs::set_permissions(repository.path().join("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    let imported = import(&store, repository.path(), YES).unwrap();
    assert_eq!(imported.tree, as_git_would_add(&store, repository.path()));
    let status = repository.git(&["status", "--porcelain", "-uall"]);
    assert_eq!(imported.counts.uncommitted, status.lines().count() as u64, "{status}");
    assert_eq!(read_file(&store, imported.tree, b"staged").unwrap().as_ref(), b"and changed again");
    assert_eq!(
        Snapshot::load(&store, imported.snapshot).unwrap().metadata["git.uncommitted"],
        imported.counts.uncommitted.to_string()
    );
}

#[test]
fn a_file_changed_right_after_git_looked_at_it_is_not_missed() {
    let (repository, store) = (Repository::new(), MemoryStore::new());
    for count in 0..20 {
        repository.write("f", &format!("{count:04}"));
        repository.git(&["add", "f"]);
        repository.write("f", &format!("{:04}", count + 5000));
        let imported = import(&store, repository.path(), YES).unwrap();
        assert_eq!(read_file(&store, imported.tree, b"f").unwrap(), format!("{:04}", count + 5000));
    }
}

#[test]
fn importing_writes_nothing_into_the_persons_repository() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    repository.write("src/main.rs", "changed");
    repository.write("untracked", "new");
    let before = state(repository.path());
    import(&store, repository.path(), YES).unwrap();
    import(&store, repository.path(), IncludeUncommitted::No).unwrap();
    assert_eq!(state(repository.path()), before);
}

#[test]
fn what_cannot_be_carried_is_listed_and_the_committed_version_taken() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    repository.write("README.md", &"x".repeat(2000));
    repository.write("huge", &"x".repeat(3000));
    rustix::fs::mkfifoat(rustix::fs::CWD, repository.path().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let imported = import(&store, repository.path(), IncludeUncommitted::Yes { file_cap_bytes: 1000 }).unwrap();
    let file = |path: &str, reason, size| SkippedFile { path: path.to_owned(), reason, size };
    assert_eq!(imported.skipped, [file("huge", SkipReason::TooLarge, 3000), file("pipe", SkipReason::Special, 0)]);
    assert_eq!(imported.unread, [file("README.md", SkipReason::TooLarge, 2000)]);
    assert_eq!(read_file(&store, imported.tree, b"README.md").unwrap().as_ref(), b"read me\n");
}

#[test]
fn what_may_not_be_read_is_listed_and_the_committed_version_taken() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    let allow =
        |path: &str, mode: u32| fs::set_permissions(repository.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    for path in ["README.md", "src/deep/er/file", "closed", "locked/file", "listed/file"] {
        repository.write(path, "nobody's business");
    }
    // The names in a folder may be read without what they name.
    let closed = [("README.md", 0), ("closed", 0), ("listed", 0o444), ("locked", 0), ("src/deep", 0)];
    closed.iter().for_each(|(path, mode)| allow(path, *mode));
    let imported = unprivileged(|| {
        fs::read(repository.path().join("closed")).unwrap_err();
        import(&store, repository.path(), YES).unwrap()
    });
    let file = |path: &str, size| SkippedFile { path: path.to_owned(), reason: SkipReason::Unreadable, size };
    assert_eq!(imported.skipped, [file("closed", 17), file("listed", 0), file("locked", 0), file("src/deep", 0)]);
    assert_eq!(imported.unread, [file("README.md", 17), file("src/deep/er/file", 0)]);
    assert_eq!(imported.tree, as_git_checks_out(&store, repository.path()));
    closed.iter().for_each(|(path, _)| allow(path, 0o755));
}

#[test]
fn a_committed_file_over_the_cap_that_was_only_touched_is_no_change() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    repository.write("large", &"x".repeat(2000));
    repository.commit("a large file");
    fs::copy(repository.path().join("large"), repository.path().join("copy")).unwrap();
    fs::rename(repository.path().join("copy"), repository.path().join("large")).unwrap();
    let capped = IncludeUncommitted::Yes { file_cap_bytes: 1000 };
    let imported = import(&store, repository.path(), capped).unwrap();
    assert_eq!((imported.unread, imported.skipped, imported.counts.uncommitted), (vec![], vec![], 0));
    repository.write("large", &"y".repeat(2000));
    assert_eq!(import(&store, repository.path(), capped).unwrap().unread.len(), 1);
}

#[test]
fn submodules_and_nested_repositories_are_listed_and_not_entered() {
    let (repository, other, store) = (Repository::sample(), Repository::sample(), MemoryStore::new());
    repository.git(&["submodule", "--quiet", "add", other.path().to_str().unwrap(), "vendored"]);
    repository.commit("a submodule");
    repository.write("nested/inner/file", "x");
    git_in(&repository.path().join("nested/inner"), &["init", "-q"]);
    let clean = import(&store, repository.path(), IncludeUncommitted::No).unwrap();
    assert_eq!(clean.submodules, vec!["vendored"]);
    let imported = import(&store, repository.path(), YES).unwrap();
    assert_eq!(imported.submodules, vec!["nested/inner", "vendored"]);
    assert_eq!(imported.tree, clean.tree);
    assert!(entry_at(&store, imported.tree, b".gitmodules").unwrap().is_some());
}

#[test]
fn ids_by_sha256_are_refused_by_name() {
    let (folder, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    git_in(folder.path(), &["init", "-q", "--object-format=sha256"]);
    fs::write(folder.path().join("file"), "x").unwrap();
    git_in(folder.path(), &["add", "file"]);
    git_in(folder.path(), &["commit", "-q", "-m", "one"]);
    for refused in [import(&store, folder.path(), YES), import_commit(&store, folder.path(), "HEAD")] {
        let failure = helix_protocol::Failure::from(refused.unwrap_err());
        assert!(failure.message.contains("SHA-256") && !failure.hint.contains("fsck"), "{failure:?}");
    }
}

#[test]
fn before_the_first_commit_the_working_folder_counts() {
    let (repository, store) = (Repository::new(), MemoryStore::new());
    repository.write("a", "a");
    let imported = import(&store, repository.path(), YES).unwrap();
    assert_eq!((imported.commit, imported.branch.as_deref(), imported.counts.files), (None, Some("main"), 1));
    let clean = import(&store, repository.path(), IncludeUncommitted::No).unwrap();
    assert_eq!(clean.counts.files, 0);
}

#[test]
fn bare_repositories_linked_worktrees_and_detached_heads_can_be_imported() {
    let (repository, place, store) = (Repository::sample(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let expected = as_git_checks_out(&store, repository.path());
    git_in(place.path(), &["clone", "-q", "--bare", repository.path().to_str().unwrap(), "bare"]);
    let bare = import(&store, &place.path().join("bare"), YES).unwrap();
    assert_eq!((bare.tree, bare.commit), (expected, Some(repository.head())));
    let linked = place.path().join("linked");
    repository.git(&["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    fs::write(linked.join("only here"), "x").unwrap();
    let imported = import(&store, &linked, YES).unwrap();
    assert_eq!((imported.branch.as_deref(), imported.counts.uncommitted), (Some("side"), 1));
    repository.git(&["checkout", "-q", "--detach"]);
    assert_eq!(import(&store, repository.path(), IncludeUncommitted::No).unwrap().branch, None);
}

#[test]
fn a_folder_without_a_repository_says_so() {
    let (folder, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let plain = import(&store, folder.path(), YES);
    assert!(matches!(plain, Err(VersionError::NotARepository(_))), "{plain:?}");
    fs::create_dir(folder.path().join(".git")).unwrap();
    fs::write(folder.path().join(".git/HEAD"), "garbage").unwrap();
    let damaged = import(&store, folder.path(), YES);
    assert!(matches!(damaged, Err(VersionError::Git { .. })), "{damaged:?}");
    assert!(matches!(import(&store, Path::new("/nonexistent/x"), YES), Err(VersionError::NotARepository(_))));
}

/// Imports a repository, works in a workspace of it and exports each round's tree as a commit.
fn work_and_export(repository: &Repository, store: &dyn ObjectStore, name: &str, rounds: &[&dyn Fn(&Path)]) -> super::Exported {
    let imported = import(store, repository.path(), IncludeUncommitted::No).unwrap();
    let workspace = tempfile::tempdir().unwrap();
    let (mut cache, policy) = (StatCache::new(), ScanPolicy::everything());
    crate::checkout(workspace.path(), imported.tree, store, &mut cache, &policy).unwrap();
    let mut commits = Vec::new();
    for (number, round) in rounds.iter().enumerate() {
        round(workspace.path());
        let tree = scan(workspace.path(), Some(imported.tree), store, &mut cache, &policy).unwrap().tree;
        commits.push(ExportCommit { tree, message: format!("step {number}"), author: who(1_700_000_000 + number as i64) });
    }
    let what = Export {
        repository: repository.path(),
        branch: &branch(name),
        expected: BranchAt::Nowhere,
        parent: imported.commit.as_deref(),
        base: None,
        commits: &commits,
    };
    export(store, &what).unwrap()
}

#[test]
fn exported_steps_are_commits_that_git_understands() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    let before = (repository.git(&["status", "--porcelain=v2", "--branch"]), state(&repository.path().join("src")));
    let exported = work_and_export(
        &repository,
        &store,
        "helix/task-1",
        &[&|folder| fs::write(folder.join("src/main.rs"), "fn main() { todo() }\n").unwrap(), &|folder| {
            fs::write(folder.join("src.rs"), "sorts between src and src/\n").unwrap();
            fs::remove_file(folder.join("README.md")).unwrap();
            fs::set_permissions(folder.join("src/main.rs"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::create_dir(folder.join("empty")).unwrap();
            fs::create_dir(folder.join("nested")).unwrap();
            fs::create_dir(folder.join("nested/.git")).unwrap();
            fs::write(folder.join("nested/.git/config"), "a clone").unwrap();
            fs::create_dir_all(folder.join(".helios/workspaces")).unwrap();
            fs::write(folder.join(".helios/workspaces/main"), "a store").unwrap();
        }],
    );
    repository.git(&["fsck", "--strict", "--no-dangling"]);
    assert_eq!(repository.git(&["rev-parse", "helix/task-1"]), exported.head);
    let log = repository.git(&["log", "--format=%s|%an|%ae|%aI", "-2", "helix/task-1"]);
    let expected = "step 1|Helix  agent|agent@example.org|2023-11-14T23:43:21+01:30\nstep 0|Helix  agent|agent@example.org|2023-11-14T23:43:20+01:30";
    assert_eq!(log, expected);
    let changes = repository.git(&["log", "--format=", "--name-status", "-2", "helix/task-1"]);
    assert_eq!(changes, "D\tREADME.md\nA\tsrc.rs\nM\tsrc/main.rs\nM\tsrc/main.rs");
    assert!(repository.git(&["log", "--stat", "helix/task-1"]).contains("src/main.rs | 2 +-"));
    assert_eq!(exported.left_out, vec![".helios", "nested/.git"]);
    assert_eq!(repository.git(&["merge-base", "main", "helix/task-1"]), repository.head());
    let after = (repository.git(&["status", "--porcelain=v2", "--branch"]), state(&repository.path().join("src")));
    assert_eq!(after, before);
    assert!(repository.git(&["reflog", "helix/task-1"]).contains("helix: export"));
}

#[test]
fn ignored_files_are_exported_only_where_git_tracks_them() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    repository.write("kept.log", "tracked although ignored\n");
    repository.git(&["add", "-f", "kept.log"]);
    repository.commit("a forced file");
    let exported = work_and_export(
        &repository,
        &store,
        "helix/x",
        &[&|folder| {
            let write = |path: &str, content: &str| {
                fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
                fs::write(folder.join(path), content).unwrap();
            };
            write("kept.log", "changed\n");
            write("other.log", "ignored\n");
            write("target/debug/program", "ignored\n");
            write("web/.gitignore", "/dist\n!keep.log\n");
            write("web/dist/bundle.js", "ignored by a rule the step made\n");
            write("web/keep.log", "not ignored any more\n");
        }],
    );
    let files = repository.git(&["-c", "core.quotePath=false", "diff", "--name-only", "main", "helix/x"]);
    assert_eq!(files, "kept.log\nweb/.gitignore\nweb/keep.log");
    assert_eq!(exported.left_out, vec!["other.log", "target/", "web/dist/"]);
    repository.git(&["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn what_an_export_would_leave_out_is_known_without_one_and_without_a_trace_in_the_repository() {
    let (repository, place, store) = (Repository::sample(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let write = |path: &str, content: &str| {
        fs::create_dir_all(place.path().join(path).parent().unwrap()).unwrap();
        fs::write(place.path().join(path), content).unwrap();
    };
    let tree = || scanned(&store, place.path());
    write("made.txt", "tracked from here on\n");
    write(".helix/.gitignore", "*\n");
    write(".helix/agent/session", "1\n");
    let first = tree();
    write(".gitignore", "made.txt\nbuild/\n");
    write("build/out", "2\n");
    write("web/.gitignore", "*.map\n");
    write("web/a.map", "3\n");
    let trees = [first, tree()];
    let before = state(&repository.path().join(".git"));
    let head = repository.head();
    let line = Line { repository: Some(repository.path()), parent: Some(&head), trees: &trees };
    let found = left_out(&store, &line).unwrap();
    assert_eq!(
        found,
        [vec![".helix/.gitignore", ".helix/agent/"], vec![".helix/.gitignore", ".helix/agent/", "build/", "web/a.map"]]
    );
    assert_eq!(state(&repository.path().join(".git")), before);
    let commits = trees.map(|tree| ExportCommit { tree, message: "m".into(), author: who(1) });
    let what = Export {
        repository: repository.path(),
        branch: &branch("helix/same"),
        expected: BranchAt::Nowhere,
        parent: Some(&head),
        base: None,
        commits: &commits,
    };
    assert_eq!(export(&store, &what).unwrap().left_out, found[1], "the export agrees");
    let alone = Line { repository: None, parent: None, trees: &trees };
    assert_eq!(left_out(&store, &alone).unwrap(), found, "the trees' own rules are enough");
}

#[test]
fn a_branch_that_is_checked_out_or_has_moved_is_refused() {
    let (repository, place, store) = (Repository::sample(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let imported = import(&store, repository.path(), IncludeUncommitted::No).unwrap();
    let linked = place.path().join("linked");
    repository.git(&["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    let head = repository.head();
    let try_export = |name: &str, expected: BranchAt, message: &str| {
        let commits = [ExportCommit { tree: imported.tree, message: message.into(), author: who(1) }];
        let what = Export {
            repository: repository.path(),
            branch: &branch(name),
            expected,
            parent: Some(&head),
            base: None,
            commits: &commits,
        };
        export(&store, &what)
    };
    for name in ["main", "side"] {
        let refused = try_export(name, BranchAt::Anywhere, "one");
        assert!(matches!(refused, Err(VersionError::BranchCheckedOut { .. })), "{refused:?}");
    }
    let first = try_export("helix/x", BranchAt::Nowhere, "one").unwrap();
    assert_eq!(try_export("helix/x", BranchAt::Nowhere, "one").unwrap(), first, "the same export again is the same");
    for expected in [BranchAt::Nowhere, BranchAt::Commit(head.clone())] {
        let refused = try_export("helix/x", expected, "two");
        assert!(matches!(refused, Err(VersionError::BranchMoved { .. })), "{refused:?}");
    }
    let gone = try_export("helix/y", BranchAt::Commit(head.clone()), "two");
    assert!(matches!(gone, Err(VersionError::BranchMoved { .. })), "{gone:?}");
    assert_eq!(repository.git(&["rev-parse", "helix/x"]), first.head);
    let second = try_export("helix/x", BranchAt::Commit(first.head), "two").unwrap();
    assert_eq!(repository.git(&["rev-parse", "helix/x"]), second.head);
    let third = try_export("helix/x", BranchAt::Anywhere, "three").unwrap();
    assert_eq!(repository.git(&["rev-parse", "helix/x"]), third.head);
}

#[test]
fn what_no_commit_had_at_the_beginning_is_a_commit_of_its_own() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    let head = repository.head();
    let shown = |commit: &str| repository.git(&["show", "--format=%s", "--name-only", commit]);
    for (name, dirty) in [("helix/clean", false), ("helix/dirty", true)] {
        if dirty {
            repository.write("notes.txt", "mine");
        }
        let begun = import(&store, repository.path(), YES).unwrap().tree;
        repository.write("done.txt", "the agent's");
        let tree = import(&store, repository.path(), YES).unwrap().tree;
        fs::remove_file(repository.path().join("done.txt")).unwrap();
        let base = ExportCommit { tree: begun, message: "what was there".into(), author: who(1) };
        let commits = [ExportCommit { tree, message: "the work".into(), author: who(2) }];
        let what = Export {
            repository: repository.path(),
            branch: &branch(name),
            expected: BranchAt::Nowhere,
            parent: Some(&head),
            base: Some(&base),
            commits: &commits,
        };
        assert_eq!(export(&store, &what).unwrap().commits.len(), 1 + usize::from(dirty));
        assert_eq!(shown(name), "the work\n\ndone.txt");
    }
    assert!(shown("helix/dirty~1").starts_with("what was there\n\n") && shown("helix/dirty~1").contains("notes.txt"));
    assert_eq!(repository.git(&["rev-parse", "helix/clean~1"]), head);
}

#[test]
fn an_export_that_is_imported_again_is_the_same_tree() {
    let (repository, store) = (Repository::sample(), MemoryStore::new());
    let imported = import(&store, repository.path(), IncludeUncommitted::No).unwrap();
    let commits = [ExportCommit { tree: imported.tree, message: "same".into(), author: who(1) }];
    let name = branch("helix/again");
    let what = Export {
        repository: repository.path(),
        branch: &name,
        expected: BranchAt::Nowhere,
        parent: None,
        base: None,
        commits: &commits,
    };
    export(&store, &what).unwrap();
    assert_eq!(repository.git(&["rev-parse", "helix/again^{tree}"]), repository.git(&["rev-parse", "main^{tree}"]));
    repository.git(&["checkout", "-q", "helix/again"]);
    let other = MemoryStore::new();
    assert_eq!(import(&other, repository.path(), YES).unwrap().tree, imported.tree);
}
