//! Whole histories there and back, judged by git itself.

mod interruptions;
mod on_top;
mod random;
mod refusals;
mod syncing;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use helix_objects::{Durability, MemoryStore, RecordStore};
use helix_protocol::Timestamp;

use super::source::Source;
use super::{ExportRefs, ExportReport, ImportReport, RefOutcome, export_history, import_history};
use crate::{Caller, CreateOptions, Repository, Signature, WorkspaceName};

/// A git repository in a folder of its own.
pub(super) struct Git {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Git {
    pub(super) fn bare() -> Self {
        Self::with(&["init", "-q", "--bare", "-b", "main"])
    }

    pub(super) fn with_worktree() -> Self {
        Self::with(&["init", "-q", "-b", "main"])
    }

    fn with(init: &[&str]) -> Self {
        let git = Self::nothing();
        std::fs::create_dir(git.path()).unwrap();
        git.run(init);
        git
    }

    /// A path where nothing is.
    pub(super) fn nothing() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("git");
        Self { folder, path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.path).args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "gc.auto=0"]);
        command.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, b"")
    }

    pub(super) fn run_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stores bytes as an object of a kind, whatever they are.
    pub(super) fn object(&self, kind: &str, bytes: &[u8]) -> String {
        self.run_with(&["hash-object", "-t", kind, "-w", "--stdin", "--literally"], bytes)
    }

    pub(super) fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut raw = Vec::new();
        for (mode, name, id) in entries {
            let id = gix::ObjectId::from_hex(id.as_bytes()).unwrap();
            super::tree_text::push(&mut raw, mode.as_bytes(), name, id);
        }
        self.object("tree", &raw)
    }

    /// Refs, `HEAD` and every object they reach.
    pub(super) fn everything(&self) -> (String, String, Vec<String>) {
        let refs = self.run(&["for-each-ref", "--format=%(refname) %(objectname) %(objecttype) %(symref)"]);
        let head = std::fs::read_to_string(self.path().join("HEAD"))
            .or_else(|_| std::fs::read_to_string(self.path().join(".git/HEAD")))
            .unwrap();
        let mut arguments = vec!["rev-list", "--objects", "--no-object-names", "--all"];
        arguments.extend(head.trim().len().eq(&40).then_some("HEAD"));
        let mut objects: Vec<String> = self.run(&arguments).lines().map(str::to_owned).collect();
        objects.sort();
        (refs, head, objects)
    }

    pub(super) fn is_sound(&self) {
        let output = self.command(&["fsck", "--full", "--no-dangling"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
}

pub(super) fn who() -> Signature {
    Signature { name: "Ada".into(), email: "ada@example.org".into(), time: Timestamp(1_700_000_000_123_456), offset_minutes: 60 }
}

pub(super) fn caller() -> Caller {
    Caller { workspace: WorkspaceName::main(), who: who(), durability: None, committer: None }
}

pub(super) fn repository() -> Repository {
    repository_over(Arc::new(MemoryStore::new()))
}

pub(super) fn repository_over(store: Arc<dyn RecordStore>) -> Repository {
    let options =
        CreateOptions { branch: "main".parse().unwrap(), root: "/work".into(), durability: Durability::NoSync, who: who() };
    Repository::create(store, options).unwrap()
}

pub(super) fn import(repository: &Repository, git: &Git) -> ImportReport {
    import_history(repository, &caller(), git.path(), &mut |_| {}).unwrap()
}

pub(super) fn export(repository: &Repository, git: &Git) -> ExportReport {
    export_history(repository, &caller(), git.path(), &ExportRefs::All, &mut |_| {}).unwrap()
}

/// Imports, exports to where nothing is, and compares; then imports the export elsewhere and compares the snapshots.
pub(super) fn round_trip(git: &Git) -> (Repository, Git) {
    let repository = repository();
    import(&repository, git);
    let copy = Git::nothing();
    export(&repository, &copy);
    assert_eq!(copy.everything(), git.everything());
    let again = self::repository();
    import(&again, &copy);
    assert_eq!(again.refs("refs/").unwrap(), repository.refs("refs/").unwrap());
    // Nothing is new the second time.
    assert_eq!(import(&repository, git).commits, 0);
    let report = export(&repository, &copy);
    assert_eq!((report.commits, report.objects), (0, 0));
    (repository, copy)
}

/// A history with all that ordinary git makes, written as git's own import stream.
pub(super) const STREAM: &str = "\
blob\nmark :1\ndata 6\nhello\n\n\
blob\nmark :2\ndata 5\nlink!\n\
reset refs/heads/main\n\
commit refs/heads/main\nmark :10\nauthor Ann <ann@example.org> 1600000000 +0130\ncommitter Bob <bob@example.org> 1600000001 -0800\ndata 5\nfirst\n\
M 100644 :1 README\nM 100755 :1 bin/run\nM 120000 :2 link\nM 100644 :1 src/a/b/c.txt\nM 100644 :1 a-b\nM 100644 :1 a/b\nM 100644 :1 a0\n\n\
commit refs/heads/one\nmark :11\ncommitter Ann <ann@example.org> 1600000010 +0000\ndata 4\none\n\
from :10\nM 100644 inline src/one\ndata 3\n1\n\n\n\
commit refs/heads/two\nmark :12\ncommitter Ann <ann@example.org> 1600000011 +1345\ndata 3\ntwo\
from :10\nM 100644 inline src/two\ndata 3\n2\n\nD bin/run\n\n\
commit refs/heads/three\nmark :13\ncommitter Ann <ann@example.org> 1600000012 +0000\ndata 0\n\
from :10\n\n\
commit refs/heads/main\nmark :14\ncommitter Ann <ann@example.org> 1600000020 +0000\ndata 8\noctopus\n\
from :11\nmerge :12\nmerge :13\nM 100644 inline src/two\ndata 3\n2\n\n\n\
commit refs/heads/unrelated\nmark :15\ncommitter Ann <ann@example.org> 5 +0000\ndata 10\nunrelated\n\
M 100644 inline only\ndata 4\nonly\n\n\
tag v1\nfrom :10\ntagger Ann <ann@example.org> 1600000002 +0000\ndata 10\nversion 1\n\n\
tag v1-again\nfrom :10\ntagger Ann <ann@example.org> 1600000003 +0000\ndata 0\n\n\
reset refs/tags/light\nfrom :14\n\n\
reset refs/notes/commits\nfrom :15\n\n\
reset refs/remotes/origin/main\nfrom :14\n\n";

pub(super) fn ordinary() -> Git {
    let git = Git::bare();
    git.run_with(&["fast-import", "--quiet"], STREAM.as_bytes());
    git.run(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"]);
    git
}

#[test]
fn a_repository_that_borrows_its_objects_is_imported_and_they_are_found_in_the_packs_that_have_them() {
    let git = ordinary();
    git.run(&["repack", "-adq"]);
    let borrower = Git::nothing();
    git.run(&["clone", "-q", "--mirror", "--shared", ".", &borrower.path().to_string_lossy()]);
    let head = gix::ObjectId::from_hex(git.run(&["rev-parse", "HEAD"]).as_bytes()).unwrap();
    assert!(Source::open(borrower.path()).unwrap().position(head).is_some());
    assert_eq!(import(&repository(), &borrower).commits, import(&repository(), &git).commits);
}

#[test]
fn an_ordinary_history_comes_back_with_the_same_ids() {
    let git = ordinary();
    let (repository, copy) = round_trip(&git);
    copy.is_sound();
    let names: Vec<String> = repository.refs("refs/").unwrap().into_iter().map(|(name, _)| name.to_string()).collect();
    let expected =
        ["heads/main", "heads/one", "heads/three", "heads/two", "heads/unrelated", "tags/light", "tags/v1", "tags/v1-again"];
    assert_eq!(names, expected.map(|name| format!("refs/{name}")));
    let head = repository.branch(&"main".parse().unwrap()).unwrap().unwrap();
    let snapshot = repository.snapshot(head).unwrap();
    assert_eq!((snapshot.parents.len(), snapshot.message.as_str(), snapshot.metadata.len()), (3, "octopus\n", 0));
    assert_eq!(repository.tag(&"v1".parse().unwrap()).unwrap().unwrap().annotation.unwrap().message, "version 1\n");
    git.run(&["gc", "-q"]);
    round_trip(&git);
}

#[test]
fn commits_that_git_would_not_make_today_come_back_byte_by_byte() {
    let git = Git::bare();
    let blob = git.object("blob", b"x\n");
    let tree = git.tree(&[("100644", b"f", &blob)]);
    let who = "author Ann <ann@example.org> 1 +0000\ncommitter Ann <ann@example.org> 1 +0000\n";
    let mut parent = String::new();
    let signed = format!("{who}gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEzBAABCAAdFiEE\n =abcd\n -----END PGP SIGNATURE-----\n");
    let ssh = format!("{who}gpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lH\n -----END SSH SIGNATURE-----\n");
    let mergetag = format!("{who}mergetag object {blob}\n type blob\n tag x\n tagger A <a@b> 1 +0000\n \n text\n");
    let headers = [
        who.to_owned(),
        signed,
        ssh,
        mergetag,
        format!("{who}encoding ISO-8859-1\n"),
        format!("{who}x-unknown something\nanother  two\n"),
        "author Ann  <ann@example.org>  1 +0000\ncommitter Ann <ann@example.org> 1 -0000\n".to_owned(),
        "author  <> 1 +1545\ncommitter Ann <ann@example.org> 1 -1200\n".to_owned(),
        "author Ann <a> b@c> 18446744073709551615 +0000\ncommitter Ann <ann@example.org> -5 +051800\n".to_owned(),
        "author Ann <ann@example.org>\ncommitter\n".to_owned(),
        String::new(),
    ];
    for (number, header) in headers.iter().enumerate() {
        for message in [b"m\xe9ss\xffage".as_slice(), b"", b"\n\n  spaced \n\n\n", b"no line end", "gr\u{fc}n\n".as_bytes()] {
            let raw = [format!("tree {tree}\n{parent}{header}\n").as_bytes(), message].concat();
            let commit = git.object("commit", &raw);
            parent = format!("parent {commit}\n");
            git.run(&["update-ref", &format!("refs/heads/number-{number}"), &commit]);
        }
    }
    round_trip(&git);
}

#[test]
fn commits_that_differ_only_in_what_a_snapshot_cannot_say_stay_two() {
    let git = Git::bare();
    let tree = git.tree(&[]);
    let zones = ["+0000", "-0000"];
    let ids = zones.map(|zone| {
        git.object("commit", format!("tree {tree}\nauthor A <a@b> 1 {zone}\ncommitter A <a@b> 1 +0000\n\nx\n").as_bytes())
    });
    git.run(&["update-ref", "refs/heads/one", &ids[0]]);
    git.run(&["update-ref", "refs/heads/two", &ids[1]]);
    let (repository, _) = round_trip(&git);
    let [one, two] = ["one", "two"].map(|name| repository.branch(&name.parse().unwrap()).unwrap().unwrap());
    assert_ne!(one, two);
    assert_eq!(repository.snapshot(two).unwrap().metadata["git.commit"], ids[1]);
}

#[test]
fn trees_that_ours_cannot_say_come_back_byte_by_byte() {
    let git = Git::bare();
    let (a, b) = (git.object("blob", b"a\n"), git.object("blob", b"b\n"));
    let sub = "1234567890123456789012345678901234567890";
    let plain = git.tree(&[("100644", b"f", &a)]);
    let empty = git.tree(&[]);
    let links = git.tree(&[("160000", b"lib", sub)]);
    let old = git.tree(&[("100664", b"group", &a), ("100775", b"run", &b), ("100644", b"x", &a)]);
    let hooks = git.tree(&[("100755", b"post-checkout", &b)]);
    let trees = [
        git.tree(&[("160000", b"lib", sub), ("100644", b"readme", &a)]),
        git.tree(&[("40000", b"deep", &links), ("40000", b"old", &old), ("40000", b"plain", &plain)]),
        git.tree(&[("040000", b"dir", &plain)]),
        git.tree(&[("40000", b"empty", &empty), ("40000", b"links", &links)]),
        git.tree(&[("100644", b"z", &a), ("100644", b"a", &b)]),
        git.tree(&[("40000", b"a", &plain), ("100644", b"a.b", &b)]),
        git.tree(&[("100644", b"a", &a), ("40000", b"a", &plain)]),
        git.tree(&[("100644", b"same", &a), ("100644", b"same", &b)]),
        git.tree(&[("40000", b".git", &hooks), ("40000", b".helios", &old), ("100644", b"ok", &a)]),
        git.tree(&[("100644", b"..", &a), ("100644", b".", &b), ("100644", b"a/b", &b)]),
        git.tree(&[("100644", b"caf\xe9", &a), ("120000", b"link", &b)]),
        empty.clone(),
    ];
    let mut parent = String::new();
    for tree in trees.iter().chain(&trees) {
        let raw = format!("tree {tree}\n{parent}author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n");
        parent = format!("parent {}\n", git.object("commit", raw.as_bytes()));
    }
    git.run(&["update-ref", "refs/heads/main", parent.trim_start_matches("parent ").trim_end()]);
    let (repository, _) = round_trip(&git);
    for entry in repository.refs("refs/heads/").unwrap() {
        let tree = repository.snapshot(entry.1).unwrap().tree;
        let paths = crate::walk(&**repository.store(), tree).unwrap();
        assert!(paths.iter().all(|entry| !entry.path.starts_with(b".git")), "{paths:?}");
    }
}

#[test]
fn tags_of_all_kinds_come_back() {
    let git = ordinary();
    let blob = git.object("blob", b"only a tag names it\n");
    let tree = git.tree(&[("100644", b"tagged", &blob), ("160000", b"sub", "1234567890123456789012345678901234567890")]);
    let plain = git.tree(&[("100644", b"tagged", &blob)]);
    let tag = |name: &str, kind: &str, object: &str| {
        git.object("tag", format!("object {object}\ntype {kind}\ntag {name}\ntagger A <a@b> 1 +0000\n\nwhy\n").as_bytes())
    };
    let nested = tag("nested", "tag", &git.run(&["rev-parse", "v1"]));
    let no_tagger =
        git.object("tag", format!("object {}\ntype commit\ntag old\n\nold\n", git.run(&["rev-parse", "main"])).as_bytes());
    for (name, object) in [
        ("blob", blob.clone()),
        ("tree", tree.clone()),
        ("plain-tree", plain.clone()),
        ("annotated-blob", tag("annotated-blob", "blob", &blob)),
        ("annotated-tree", tag("annotated-tree", "tree", &tree)),
        ("nested", nested),
        ("old", no_tagger),
    ] {
        git.run(&["update-ref", &format!("refs/tags/{name}"), &object]);
    }
    let repository = repository();
    let report = import(&repository, &git);
    let kept: Vec<&str> =
        report.refs.iter().filter(|found| found.outcome == RefOutcome::Kept).map(|found| found.name.as_str()).collect();
    let expected = [
        "notes/commits",
        "remotes/origin/HEAD",
        "remotes/origin/main",
        "tags/annotated-blob",
        "tags/annotated-tree",
        "tags/blob",
        "tags/plain-tree",
        "tags/tree",
    ];
    assert_eq!(kept, expected.map(|name| format!("refs/{name}")));
    round_trip(&git);
}

#[test]
fn an_empty_repository_and_one_on_no_branch_come_back() {
    round_trip(&Git::bare());
    let git = ordinary();
    git.run(&["update-ref", "--no-deref", "HEAD", &git.run(&["rev-parse", "main~1"])]);
    round_trip(&git);
    // A commit that only HEAD names.
    let tree = git.tree(&[]);
    let commit = git.object("commit", format!("tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n").as_bytes());
    git.run(&["update-ref", "--no-deref", "HEAD", &commit]);
    round_trip(&git);
}

#[test]
fn replaced_and_grafted_commits_are_read_as_they_are() {
    let git = ordinary();
    let before = git.everything();
    git.run(&["replace", "main", "one"]);
    std::fs::write(git.path().join("info/grafts"), format!("{}\n", git.run(&["--no-replace-objects", "rev-parse", "main"])))
        .unwrap();
    let repository = repository();
    import(&repository, &git);
    let copy = Git::nothing();
    export(&repository, &copy);
    assert_eq!(copy.everything(), before);
}
