//! The same operations in a folder of git's and in one of ours: after each of them the files are the same, and so are what is
//! changed, what is in conflict, and in the end every commit's id.
//!
//! Renames are followed on neither side. One thing is left out: where a file meets a folder, git moves the file aside under another
//! name, and ours stays.
//!
//! `DIFFERENTIAL_CASES` sets how many random sequences are tried.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use helix_objects::{Durability, MemoryStore};
use helix_protocol::{FileMode, ObjectId, Timestamp};
use helix_versions::git::{ExportRefs, export_history};
use helix_versions::{
    BranchName, Caller, CommitRequest, CreateOptions, Elsewhere, Existing, FolderRules, LocalChanges, MergeKind, MergeRequest,
    Repository, ResetKind, Signature, Start, WorkingFolder, WorkspaceName,
};
use proptest::prelude::*;

const PATHS: [&str; 8] = ["a", "b", "d/a", "d/b", "d/e/f", "g", "h.txt", "\u{e4}"];
const BRANCHES: [&str; 3] = ["main", "one", "two"];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Content),
    Executable(usize),
    Link(usize, u8),
    Remove(usize),
    Folder(usize),
    Commit,
    Branch(usize),
    Switch(usize),
    Merge(usize, OnConflict),
    ResetHard,
}

#[derive(Clone, Debug)]
enum Content {
    /// Twelve lines, some of them other than usual.
    Lines(Vec<(u8, u8)>),
    NoLineEnd(u8),
    Binary(u8),
    Empty,
}

#[derive(Clone, Copy, Debug)]
enum OnConflict {
    Abort,
    Commit,
}

impl Content {
    /// No two paths have the same lines, so that git, which looks for renames whatever it is told, finds none.
    fn bytes(&self, path: &str) -> Vec<u8> {
        match self {
            Self::Lines(edits) => {
                let mut lines: Vec<String> = (0..12).map(|line| format!("{path} {line}\n")).collect();
                for (line, variant) in edits {
                    lines[usize::from(*line)] = match variant {
                        0 => String::new(),
                        1 => format!("{path} {line}\nand one more\n"),
                        variant => format!("{path} {line} as {variant}\n"),
                    };
                }
                lines.concat().into_bytes()
            }
            Self::NoLineEnd(variant) => format!("{path} first\n{path} last {variant}").into_bytes(),
            Self::Binary(variant) => [path.as_bytes(), &[0, 1, *variant, b'\n']].concat(),
            Self::Empty => Vec::new(),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let content = prop_oneof![
        6 => prop::collection::vec((0..12_u8, 0..5_u8), 0..4).prop_map(Content::Lines),
        1 => (0..3_u8).prop_map(Content::NoLineEnd),
        1 => (0..3_u8).prop_map(Content::Binary),
        1 => Just(Content::Empty),
    ];
    let on_conflict = prop_oneof![Just(OnConflict::Abort), Just(OnConflict::Commit)];
    let path = 0..PATHS.len();
    let branch = 0..BRANCHES.len();
    let step = prop_oneof![
        14 => (path.clone(), content).prop_map(|(path, content)| Step::Write(path, content)),
        1 => path.clone().prop_map(Step::Executable),
        1 => (path.clone(), 0..3_u8).prop_map(|(path, target)| Step::Link(path, target)),
        2 => path.clone().prop_map(Step::Remove),
        1 => path.prop_map(Step::Folder),
        2 => Just(Step::Commit),
        2 => branch.clone().prop_map(Step::Branch),
        10 => branch.clone().prop_map(Step::Switch),
        10 => (branch, on_conflict).prop_map(|(branch, on_conflict)| Step::Merge(branch, on_conflict)),
        1 => Just(Step::ResetHard),
    ];
    // Branches that can be merged from the beginning on.
    let begin = [
        Step::Write(0, Content::Lines(Vec::new())),
        Step::Write(2, Content::Lines(Vec::new())),
        Step::Commit,
        Step::Branch(1),
        Step::Branch(2),
    ];
    prop::collection::vec(step, 4..40).prop_map(move |steps| [begin.to_vec(), steps].concat())
}

/// Both folders, side by side.
struct Pair {
    folder: tempfile::TempDir,
    repository: Repository,
    files: WorkingFolder,
    clock: i64,
    tally: Tally,
}

/// What the merges came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    up_to_date: usize,
    forward: usize,
    merged: usize,
    conflicts: usize,
    not_compared: usize,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["git", "ours", "state"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let options =
            CreateOptions { branch: "main".parse().unwrap(), root: "ours".into(), durability: Durability::NoSync, who: who(0) };
        let repository = Repository::create(Arc::new(MemoryStore::new()), options).unwrap();
        let files = WorkingFolder::open(&folder.path().join("ours"), &folder.path().join("state"), FolderRules::default()).unwrap();
        let pair = Self { folder, repository, files, clock: 1_600_000_000, tally: Tally::default() };
        pair.git(&["init", "-q", "-b", "main"]);
        pair
    }

    fn path(&self, side: &str) -> PathBuf {
        self.folder.path().join(side)
    }

    fn try_git(&self, arguments: &[&str]) -> (bool, String) {
        let date = format!("{} +0100", self.clock);
        let output = Command::new("git")
            .arg("-C")
            .arg(self.path("git"))
            .args(["-c", "merge.renames=false", "-c", "diff.renames=false", "-c", "core.quotePath=false", "-c", "gc.auto=0"])
            .args(["-c", "advice.detachedHead=false", "-c", "rerere.enabled=false"])
            .args(arguments)
            .envs([("GIT_AUTHOR_NAME", "Ann"), ("GIT_AUTHOR_EMAIL", "ann@example.org"), ("GIT_AUTHOR_DATE", &date)])
            .envs([("GIT_COMMITTER_NAME", "Ann"), ("GIT_COMMITTER_EMAIL", "ann@example.org"), ("GIT_COMMITTER_DATE", &date)])
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("LC_ALL", "C")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    fn git(&self, arguments: &[&str]) -> String {
        let (success, text) = self.try_git(arguments);
        assert!(success, "git {arguments:?}: {text}");
        text
    }

    fn caller(&self) -> Caller {
        Caller { workspace: WorkspaceName::main(), who: who(self.clock), durability: None, committer: None }
    }

    fn store(&self) -> Arc<dyn helix_objects::RecordStore> {
        self.repository.store().clone()
    }

    fn head_tree(&self) -> Option<ObjectId> {
        let head = self.repository.head(&WorkspaceName::main()).unwrap().snapshot?;
        Some(self.repository.snapshot(head).unwrap().tree)
    }

    /// Does something to the files of both sides.
    fn both(&self, act: impl Fn(&Path)) {
        for side in ["git", "ours"] {
            act(&self.path(side));
        }
    }

    fn commit(&mut self) {
        self.clock += 10;
        let message = format!("at {}", self.clock);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", &message]);
        let (store, base) = (self.store(), self.head_tree());
        let refreshed = self.files.refresh(&store, base).unwrap();
        let request = CommitRequest {
            objects: refreshed.objects,
            allow_empty: true,
            ..CommitRequest::new(self.caller(), refreshed.tree, message + "\n")
        };
        self.repository.commit(&request).unwrap();
    }

    fn branches(&self) -> BTreeSet<String> {
        self.repository.branches().unwrap().into_iter().map(|(name, _)| name.to_string()).collect()
    }

    fn move_files(&mut self, from: ObjectId, to: ObjectId, changes: LocalChanges) {
        let store = self.store();
        self.files.switch(&store, Some(from), to, changes).unwrap();
    }

    /// Merges on both sides and compares what came of it.
    fn merge(&mut self, branch: &str, on_conflict: OnConflict) {
        self.clock += 10;
        let message = format!("merge at {}", self.clock);
        let other = self.repository.branch(&branch.parse::<BranchName>().unwrap()).unwrap().unwrap();
        let request = MergeRequest { message: Some(message.clone() + "\n"), ..MergeRequest::new(self.caller(), other, branch) };
        let before = self.git(&["rev-parse", "HEAD"]);
        let (success, said) = self.try_git(&["merge", "-q", "-X", "no-renames", "-m", &message, branch]);
        let outcome = match self.repository.merge(&request) {
            Ok(outcome) => outcome,
            Err(error) => {
                assert!(!success && said.contains("unrelated histories"), "ours: {error}; git: {said}");
                return;
            }
        };
        let theirs: BTreeSet<String> = self
            .git(&["diff", "--name-only", "--diff-filter=U", "-z"])
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect();
        let ours: BTreeSet<String> =
            outcome.unresolved.iter().map(|path| String::from_utf8_lossy(&path.path).into_owned()).collect();
        // Of a file that it moved aside and needed no more, git says so too.
        if (!success && said.contains("directory in the way"))
            || theirs.iter().chain(&ours).any(|path| path.contains('~'))
            || self.file_meets_folder(&outcome.unresolved)
        {
            // By design: git moves the file aside, ours keeps it where it is.
            self.tally.not_compared += 1;
            self.git(&["reset", "-q", "--hard", before.trim()]);
            self.git(&["clean", "-q", "-fd"]);
            if outcome.kind == MergeKind::Stopped {
                self.repository.abort_merge(&self.caller()).unwrap();
            } else {
                let head = self.repository.snapshot(outcome.snapshot.unwrap()).unwrap().parents[0];
                self.repository.reset(&self.caller(), head, ResetKind::Hard).unwrap();
            }
            return;
        }
        assert_eq!(ours, theirs, "paths in conflict; git said {said}");
        self.move_files(outcome.from, outcome.to, LocalChanges::Keep);
        if success {
            match outcome.kind {
                MergeKind::UpToDate => self.tally.up_to_date += 1,
                MergeKind::FastForward => self.tally.forward += 1,
                MergeKind::Merged => self.tally.merged += 1,
                MergeKind::Stopped => panic!("git merged what stopped here: {said}"),
            }
            return;
        }
        self.tally.conflicts += 1;
        assert_eq!(outcome.kind, MergeKind::Stopped, "git said {said}");
        self.same_files("a merge with conflicts");
        match on_conflict {
            OnConflict::Abort => {
                self.git(&["merge", "--abort"]);
                let switched = self.repository.abort_merge(&self.caller()).unwrap();
                self.move_files(switched.from, switched.to, LocalChanges::Discard);
            }
            OnConflict::Commit => {
                self.repository.mark_resolved(&WorkspaceName::main(), &[b""]).unwrap();
                self.commit();
            }
        }
    }

    fn file_meets_folder(&self, unresolved: &[helix_versions::Unresolved]) -> bool {
        let is_folder = |side: &Option<(FileMode, ObjectId)>| side.as_ref().is_some_and(|(mode, _)| *mode == FileMode::Directory);
        unresolved.iter().any(|path| is_folder(&path.ours) || is_folder(&path.theirs) || is_folder(&path.base))
    }

    fn same_files(&self, after: &str) {
        let (git, ours) = (files(&self.path("git")), files(&self.path("ours")));
        let differing: BTreeSet<&String> = git.keys().chain(ours.keys()).filter(|path| git.get(*path) != ours.get(*path)).collect();
        let show = |files: &BTreeMap<String, (u32, Vec<u8>)>, path: &String| {
            files.get(path).map(|(mode, bytes)| format!("{mode:o} {}", String::from_utf8_lossy(bytes)))
        };
        let shown: Vec<_> = differing.iter().map(|path| (path, show(&git, path), show(&ours, path))).collect();
        assert!(shown.is_empty(), "after {after}: path, git's, ours: {shown:#?}");
    }

    fn same_status(&mut self) {
        // git compares with its index; with nothing staged that is the head.
        let (store, base) = (self.store(), self.head_tree());
        let status = self.files.status(&store, base).unwrap();
        let ours: BTreeSet<String> = status
            .changes
            .iter()
            .map(|change| {
                let kind = match (&change.before, &change.after) {
                    (None, _) => "??",
                    (_, None) => " D",
                    (Some(before), Some(after)) if (before.mode == FileMode::Symlink) != (after.mode == FileMode::Symlink) => " T",
                    _ => " M",
                };
                format!("{kind} {}", String::from_utf8_lossy(&change.path))
            })
            .collect();
        let said = self.git(&["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"]);
        let theirs: BTreeSet<String> = said.split('\0').filter(|line| !line.is_empty()).map(str::to_owned).collect();
        assert_eq!(ours, theirs, "status");
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Write(path, content) => self.both(|root| {
                let path = PATHS[*path];
                fs::write(make_way(root, path), content.bytes(path)).unwrap();
            }),
            Step::Executable(path) => self.both(|root| {
                let path = root.join(PATHS[*path]);
                if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }),
            Step::Link(path, target) => {
                let path = PATHS[*path];
                self.both(|root| symlink(format!("{path}-to-{target}"), make_way(root, path)).unwrap());
            }
            Step::Remove(path) => self.both(|root| clear(&root.join(PATHS[*path]))),
            Step::Folder(path) => self.both(|root| {
                let path = make_way(root, PATHS[*path]);
                fs::create_dir(&path).unwrap();
                fs::write(path.join("inside"), path.file_name().unwrap().as_bytes()).unwrap();
            }),
            Step::Commit => self.commit(),
            Step::Branch(branch) => {
                let name = BRANCHES[*branch];
                if let Some(head) = self.repository.head(&WorkspaceName::main()).unwrap().snapshot
                    && !self.branches().contains(name)
                {
                    self.git(&["branch", name]);
                    self.repository.create_branch(&self.caller(), &name.parse().unwrap(), head, Existing::Refuse).unwrap();
                }
            }
            Step::Switch(branch) => {
                let name = BRANCHES[*branch];
                if self.branches().contains(name) {
                    self.settle();
                    self.git(&["switch", "-q", name]);
                    let switched =
                        self.repository.switch(&self.caller(), &Start::Branch(name.parse().unwrap()), Elsewhere::Refuse).unwrap();
                    self.move_files(switched.from, switched.to, LocalChanges::Keep);
                }
            }
            Step::Merge(branch, on_conflict) => {
                let name = BRANCHES[*branch];
                if self.branches().contains(name) {
                    self.settle();
                    self.merge(name, *on_conflict);
                }
            }
            Step::ResetHard => {
                self.settle();
                let head = self.repository.head(&WorkspaceName::main()).unwrap().snapshot;
                let parent = head.and_then(|head| self.repository.snapshot(head).unwrap().parents.first().copied());
                if let Some(parent) = parent {
                    self.git(&["reset", "-q", "--hard", "HEAD~1"]);
                    let switched = self.repository.reset(&self.caller(), parent, ResetKind::Hard).unwrap();
                    self.move_files(switched.from, switched.to, LocalChanges::Discard);
                }
            }
        }
    }

    /// Commits where something is not committed.
    fn settle(&mut self) {
        if !self.git(&["status", "--porcelain"]).is_empty() {
            self.commit();
        }
    }

    /// Every branch names the same commit as git's.
    fn same_history(&self) {
        let exported = self.path("exported");
        export_history(&self.repository, &self.caller(), &exported, &ExportRefs::All, &mut |_| {}).unwrap();
        let refs = |path: &Path| {
            let output =
                Command::new("git").arg("-C").arg(path).args(["for-each-ref", "--format=%(refname) %(objectname)"]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(refs(&exported), refs(&self.path("git")));
    }
}

fn who(seconds: i64) -> Signature {
    Signature { name: "Ann".into(), email: "ann@example.org".into(), time: Timestamp(seconds * 1_000_000), offset_minutes: 60 }
}

/// Removes whatever is at a path.
fn clear(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Removes what is at a path and files above it, and makes the folders above it.
fn make_way(root: &Path, path: &str) -> PathBuf {
    for (place, _) in path.match_indices('/') {
        let above = root.join(&path[..place]);
        if above.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            clear(&above);
        }
    }
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    clear(&path);
    path
}

/// Every file beneath a folder with its mode and content; empty folders are nothing to git.
fn files(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
            if entry.file_name() == ".git" || entry.file_name() == ".helios" {
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if meta.is_dir() {
                open.push(path);
            } else if meta.is_symlink() {
                found.insert(name, (0o120_000, fs::read_link(path).unwrap().to_string_lossy().into_owned().into_bytes()));
            } else {
                found.insert(name, (meta.permissions().mode() & 0o100, fs::read(path).unwrap()));
            }
        }
    }
    found
}

fn cases() -> u32 {
    std::env::var("DIFFERENTIAL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// Both folders after these steps, with everything compared after each.
fn after(steps: &[Step]) -> Pair {
    let mut pair = Pair::new();
    for step in steps {
        pair.run(step);
        pair.same_files(&format!("{step:?}"));
        pair.same_status();
    }
    pair.same_history();
    pair
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_git_and_helios_have_the_same(steps in steps()) {
        after(&steps);
    }
}

fn lines(edits: &[(u8, u8)]) -> Content {
    Content::Lines(edits.to_vec())
}

/// What it is, what there is before, and what each side does.
type Case = (&'static str, Vec<Step>, Vec<Step>, Vec<Step>);

/// Makes a file on `main`, changes it on two branches, and merges them.
fn merged(before: &[Step], ours: &[Step], theirs: &[Step]) -> Tally {
    let (main, one) = (0, 1);
    let end = [Step::Commit, Step::Switch(main)];
    let steps = [before, &[Step::Commit, Step::Branch(one)], ours, &[Step::Commit, Step::Switch(one)], theirs, &end];
    // Given up once, and then decided; where nothing is in conflict the second time has nothing to do.
    let merges = [Step::Merge(one, OnConflict::Abort), Step::Merge(one, OnConflict::Commit), Step::Commit];
    after(&[steps.concat(), merges.to_vec()].concat()).tally
}

#[test]
fn each_kind_of_conflict_is_the_conflict_git_sees() {
    let write = |edits: &[(u8, u8)]| vec![Step::Write(0, lines(edits))];
    let (plain, none) = (write(&[]), Vec::new());
    let conflicts: [Case; 10] = [
        ("both changed a line", plain.clone(), write(&[(3, 2)]), write(&[(3, 3)])),
        ("lines beside each other", plain.clone(), write(&[(3, 2)]), write(&[(4, 3)])),
        ("changed and removed", plain.clone(), write(&[(3, 2)]), vec![Step::Remove(0)]),
        ("removed and changed", plain.clone(), vec![Step::Remove(0)], write(&[(3, 2)])),
        ("both added", none.clone(), write(&[(3, 2)]), write(&[(3, 3)])),
        (
            "binary",
            vec![Step::Write(0, Content::Binary(0))],
            vec![Step::Write(0, Content::Binary(1))],
            vec![Step::Write(0, Content::Binary(2))],
        ),
        ("links", vec![Step::Link(0, 0)], vec![Step::Link(0, 1)], vec![Step::Link(0, 2)]),
        (
            "without a line end",
            vec![Step::Write(0, Content::NoLineEnd(0))],
            vec![Step::Write(0, Content::NoLineEnd(1))],
            vec![Step::Write(0, Content::NoLineEnd(2))],
        ),
        ("a link that is a text on both sides", vec![Step::Link(0, 0)], write(&[]), write(&[(0, 0)])),
        ("a link and a text", plain.clone(), vec![Step::Link(0, 1)], write(&[(3, 2)])),
    ];
    for (what, before, ours, theirs) in conflicts {
        let tally = merged(&before, &ours, &theirs);
        assert_eq!(tally.conflicts + tally.not_compared, 2, "{what}: {tally:?}");
    }
    let clean: [Case; 5] = [
        ("lines apart", plain.clone(), write(&[(2, 2)]), write(&[(9, 3)])),
        ("the same on both sides", plain.clone(), write(&[(2, 2)]), write(&[(2, 2)])),
        ("other files", plain.clone(), vec![Step::Write(2, Content::Empty)], vec![Step::Write(3, Content::Binary(1))]),
        ("a mode and a line", plain.clone(), vec![Step::Executable(0)], write(&[(2, 2)])),
        ("removed on both sides", plain.clone(), vec![Step::Remove(0)], vec![Step::Remove(0), Step::Write(1, Content::Empty)]),
    ];
    for (what, before, ours, theirs) in clean {
        assert_eq!(merged(&before, &ours, &theirs), Tally { merged: 1, up_to_date: 1, ..Tally::default() }, "{what}");
    }
}

#[test]
fn a_file_that_became_a_folder_beside_other_changes_is_merged_as_by_git() {
    let (main, one) = (0, 1);
    let before = [Step::Write(0, lines(&[])), Step::Write(2, lines(&[])), Step::Commit, Step::Branch(one)];
    let sides =
        [Step::Folder(0), Step::Remove(2), Step::Switch(one), Step::Write(3, lines(&[])), Step::Merge(main, OnConflict::Abort)];
    assert_eq!(after(&[before.to_vec(), sides.to_vec()].concat()).tally, Tally { merged: 1, ..Tally::default() });
}
