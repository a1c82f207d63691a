//! Repositories over the memory store: each claim by itself, and random operations against a model.

mod ancestry;
mod dying;
mod keeping;
mod looking;
mod merges;
mod model;
mod names;
mod trials;
mod undoing;

use std::collections::BTreeMap;
use std::sync::Arc;

use helix_objects::{MemoryStore, ObjectStore};
use helix_protocol::Timestamp;

use super::*;
use crate::walk;

/// A repository with callers whose clock moves by a second each time.
pub(super) struct Bed {
    pub(super) repository: Repository,
    clock: std::cell::Cell<i64>,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }

    pub(super) fn over(store: Arc<dyn RecordStore>) -> Self {
        let options =
            CreateOptions { branch: branch("main"), root: "/work".to_owned(), durability: Durability::Group, who: who("ada", 0) };
        Self::of(Repository::create(store, options).unwrap())
    }

    pub(super) fn of(repository: Repository) -> Self {
        Self { repository, clock: std::cell::Cell::new(0) }
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller_in("main")
    }

    pub(super) fn caller_in(&self, workspace: &str) -> Caller {
        self.clock.set(self.clock.get() + 1_000_000);
        Caller { workspace: workspace.parse().unwrap(), who: who("ada", self.clock.get()), durability: None, committer: None }
    }

    /// Commits edits: a path and its new text, or none.
    pub(super) fn commit(&self, edits: &[(&str, Option<&str>)], message: &str) -> Result<SnapshotId, VersionError> {
        self.commit_in("main", edits, message)
    }

    pub(super) fn commit_in(
        &self,
        workspace: &str,
        edits: &[(&str, Option<&str>)],
        message: &str,
    ) -> Result<SnapshotId, VersionError> {
        let request = FilesRequest {
            caller: self.caller_in(workspace),
            expect: None,
            edits: edits.iter().map(|(path, text)| edit(path, *text)).collect(),
            message: message.to_owned(),
            author: None,
            metadata: BTreeMap::new(),
            allow_empty: false,
        };
        self.repository.commit_files(&request).map(|committed| committed.snapshot)
    }

    pub(super) fn files(&self, tree: ObjectId) -> BTreeMap<String, String> {
        let store = &**self.repository.store();
        let entries = walk(store, tree).unwrap().into_iter().filter(|entry| entry.mode != helix_protocol::FileMode::Directory);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        entries.map(|entry| (text(&entry.path), text(&store.read(entry.id).unwrap()))).collect()
    }

    /// Stores a tree of files in one folder.
    pub(super) fn stored(&self, files: &[(&str, &str)]) -> ObjectId {
        let mut objects = Vec::new();
        let entries = files.iter().map(|(name, text)| {
            objects.push(helix_objects::NewObject::new(Bytes::copy_from_slice(text.as_bytes())));
            let (mode, id) = (helix_protocol::FileMode::Regular, objects[objects.len() - 1].id());
            crate::TreeEntry { name: name.as_bytes().to_vec(), mode, size: text.len() as u64, id }
        });
        let tree = Tree::new(entries.collect()).unwrap().encode();
        objects.push(tree.clone());
        self.repository.store().put(&objects, Durability::NoSync).unwrap();
        tree.id()
    }

    pub(super) fn head(&self) -> SnapshotId {
        self.repository.head(&WorkspaceName::main()).unwrap().snapshot.unwrap()
    }

    pub(super) fn resolve(&self, revision: &str) -> Result<SnapshotId, VersionError> {
        self.repository.resolve(&WorkspaceName::main(), revision)
    }

    pub(super) fn new_branch(&self, name: &str, at: SnapshotId) {
        self.repository.create_branch(&self.caller(), &branch(name), at, Existing::Refuse).unwrap();
    }

    pub(super) fn switch(&self, name: &str) -> Switched {
        self.repository.switch(&self.caller(), &Start::Branch(branch(name)), Elsewhere::Refuse).unwrap()
    }
}

pub(super) fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

pub(super) fn who(name: &str, time: i64) -> Signature {
    Signature { name: name.to_owned(), email: format!("{name}@example.org"), time: Timestamp(time), offset_minutes: 60 }
}

pub(super) fn edit(path: &str, text: Option<&str>) -> FileEdit {
    let content = text.map(|text| (helix_protocol::FileMode::Regular, Bytes::copy_from_slice(text.as_bytes())));
    FileEdit { path: path.as_bytes().to_vec(), content }
}

pub(super) fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_repository_is_made_once_and_opened_as_often_as_one_likes() {
    let store = Arc::new(MemoryStore::new());
    assert!(matches!(Repository::open(store.clone()), Err(VersionError::Unknown { kind: "repository", .. })));
    let bed = Bed::over(store.clone());
    let snapshot = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let again = CreateOptions { branch: branch("x"), root: String::new(), durability: Durability::NoSync, who: who("ada", 0) };
    assert!(matches!(Repository::create(store.clone(), again), Err(VersionError::Exists { kind: "repository", .. })));
    let opened = Repository::open(store).unwrap();
    let head = Head { target: HeadTarget::Branch(branch("main")), snapshot: Some(snapshot) };
    assert_eq!((opened.head(&WorkspaceName::main()).unwrap(), opened.durability()), (head, Durability::Group));
    opened.set_durability(Durability::NoSync).unwrap();
    let again = Repository::open(opened.store().clone()).unwrap();
    assert_eq!([opened.durability(), again.durability()], [Durability::NoSync; 2]);
    assert_eq!(again.first_branch(), &branch("main"));
}

#[test]
fn a_commit_is_on_disk_when_its_class_says_so() {
    let bed = Bed::new();
    for (class, on_disk) in
        [(None, true), (Some(Durability::NoSync), false), (Some(Durability::Group), true), (Some(Durability::Sync), true)]
    {
        let request = FilesRequest {
            caller: Caller { durability: class, ..bed.caller() },
            expect: None,
            edits: vec![edit("a", Some(&format!("{class:?}")))],
            message: String::new(),
            author: None,
            metadata: BTreeMap::new(),
            allow_empty: false,
        };
        let recorded = bed.repository.commit_files(&request).unwrap().recorded;
        assert_eq!(recorded.on_disk, on_disk, "{class:?}");
        bed.repository.store().sync(recorded.mark).unwrap();
    }
}

#[test]
fn a_repository_of_a_newer_format_is_refused() {
    let bed = Bed::new();
    let newer = RepositoryRecord { format: FORMAT + 1, ..bed.repository.inner.own.clone() };
    let change = RecordChange {
        family: Family::Settings,
        key: Bytes::from_static(OWN),
        expect: Expect::Anything,
        value: Some(newer.encode()),
    };
    bed.repository.store().commit(&[], &[change], Durability::NoSync).unwrap();
    let refused = Repository::open(bed.repository.store().clone());
    assert!(matches!(refused, Err(VersionError::NewerFormat { found: 2, known: 1 })));
}

#[test]
fn a_commit_follows_the_head_and_has_what_was_said_of_it() {
    let bed = Bed::new();
    let first = bed.commit(&[("a", Some("1")), ("d/b", Some("2"))], "one").unwrap();
    let mut request = FilesRequest {
        caller: bed.caller(),
        expect: Some(first),
        edits: vec![edit("a", None), edit("d/c", Some("3"))],
        message: "two\n\nbecause".to_owned(),
        author: Some(who("eve", 7)),
        metadata: BTreeMap::from([("model".to_owned(), "m".to_owned())]),
        allow_empty: false,
    };
    let committed = bed.repository.commit_files(&request).unwrap();
    let snapshot = bed.repository.snapshot(committed.snapshot).unwrap();
    assert_eq!(bed.files(committed.tree), files(&[("d/b", "2"), ("d/c", "3")]));
    assert_eq!((snapshot.parents.clone(), snapshot.message.as_str()), (vec![first], "two\n\nbecause"));
    assert_eq!(
        (&snapshot.author, &snapshot.committer, &snapshot.metadata),
        (&who("eve", 7), &request.caller.who, &request.metadata)
    );
    assert_eq!((committed.branch, committed.parents, committed.recorded.on_disk), (Some(branch("main")), vec![first], true));
    // The branch has moved on: whoever still expects the first one is told where it is.
    let now = committed.snapshot;
    let refused = bed.repository.commit_files(&request);
    assert!(
        matches!(&refused, Err(VersionError::Moved { expected, now: told, .. }) if *expected == first.short() && *told == now.short()),
        "{refused:?}"
    );
    request.expect = None;
    assert!(matches!(bed.repository.commit_files(&request), Err(VersionError::NothingToCommit(Some(id))) if id == now));
    request.allow_empty = true;
    let empty = bed.repository.commit_files(&request).unwrap();
    assert_eq!((empty.tree, empty.parents), (committed.tree, vec![now]));
}

#[test]
fn a_refused_edit_leaves_nothing_behind_in_memory() {
    let bed = Bed::new();
    let first = bed.commit(&[("d/a", Some("1")), ("d/b", Some("1"))], "one").unwrap();
    for path in ["", "/a", "a//b", "../a", "d/./a", "a\0b"] {
        let refused = bed.commit(&[("d/a", Some("changed")), (path, Some("x"))], "bad");
        assert!(matches!(refused, Err(VersionError::InvalidPath(_))), "{path:?}: {refused:?}");
    }
    let read = bed.repository.read_file(&WorkspaceName::main(), b"d/a").unwrap();
    assert_eq!((read.as_deref(), bed.head()), (Some(b"1".as_slice()), first));
}

#[test]
fn what_no_folder_can_hold_is_in_no_commit_and_what_an_older_one_has_of_it_can_go() {
    use helix_protocol::FileMode::{Regular, Symlink};
    let bed = Bed::new();
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    let commit = |path: &str, content| {
        let edits = vec![FileEdit { path: path.as_bytes().to_vec(), content }];
        let (caller, message, metadata) = (bed.caller(), "one".to_owned(), BTreeMap::new());
        repository.commit_files(&FilesRequest { caller, expect: None, edits, message, author: None, metadata, allow_empty: false })
    };
    let (long, far) = ("n".repeat(256), "t".repeat(4096));
    for path in [".helios/helios.yaml", "sub/.git/config", ".GIT/c", "git~1/c", "sub/.helios", ".helios-draft-1", &long] {
        let refused = commit(path, Some((Regular, Bytes::new())));
        assert!(matches!(refused, Err(VersionError::NoFile { .. })), "{path:?}: {refused:?}");
    }
    for target in ["", "a\0b", &far] {
        let refused = commit("link", Some((Symlink, Bytes::copy_from_slice(target.as_bytes()))));
        assert!(matches!(refused, Err(VersionError::NoFile { .. })), "{target:?}: {refused:?}");
    }
    commit(".gitignore", Some((Regular, Bytes::new()))).unwrap();
    let old = CommitRequest::new(bed.caller(), bed.stored(&[(".git", "1"), ("a", "1")]), "from before");
    repository.commit(&old).unwrap();
    assert_eq!(repository.read_file(&main, b".git").unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(bed.files(commit(".git", None).unwrap().tree), files(&[("a", "1")]));
}

#[test]
fn an_amended_commit_takes_the_heads_place() {
    let bed = Bed::new();
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    bed.commit(&[("a", Some("2"))], "twp").unwrap();
    let tree = bed.repository.tree(bed.head()).unwrap();
    let request = CommitRequest { amend: true, ..CommitRequest::new(bed.caller(), tree, "two") };
    let amended = bed.repository.commit(&request).unwrap();
    assert_eq!((amended.parents, bed.resolve("HEAD~1").unwrap()), (vec![first], first));
    assert_eq!(bed.repository.snapshot(bed.head()).unwrap().message, "two");
}

#[test]
fn a_commit_of_files_that_were_read_before_the_head_moved_takes_nothing_back() {
    let bed = Bed::new();
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    bed.commit(&[("a", Some("1")), ("b", Some("1"))], "one").unwrap();
    let read = repository.tree(bed.head()).unwrap();
    let changed = |edits| {
        let at = bed.head();
        let made = repository.tree(bed.commit(edits, "elsewhere").unwrap()).unwrap();
        repository.reset(&bed.caller(), at, ResetKind::Hard).unwrap();
        made
    };
    let tree = changed(&[("b", Some("2")), ("new", Some("1"))]);
    let late = |tree| CommitRequest { onto: Some(read), ..CommitRequest::new(bed.caller(), tree, "late") };
    let staged = Staged { tree, onto: Some(read) };
    let two = bed.commit(&[("a", Some("2"))], "two").unwrap();
    let committed = repository.commit(&late(tree)).unwrap();
    assert_eq!(bed.files(committed.tree), files(&[("a", "2"), ("b", "2"), ("new", "1")]));
    assert_eq!(committed.parents, [two]);
    repository.reset(&bed.caller(), two, ResetKind::Hard).unwrap();
    let both = changed(&[("a", Some("3"))]);
    let refused = repository.commit(&late(both));
    assert!(matches!(&refused, Err(VersionError::Refused { message, .. }) if message.ends_with("both changed a")), "{refused:?}");
    let amended = repository.commit(&CommitRequest { amend: true, ..late(tree) });
    assert!(matches!(amended, Err(VersionError::Refused { .. })), "{amended:?}");
    assert_eq!(bed.head(), two);
    // What was staged says of which head it is, whenever that is written.
    repository.stage(&main, Some(staged), &[]).unwrap();
    assert_eq!(repository.workspace(&main).unwrap().staged, Some(staged));
}

#[test]
fn a_commit_of_a_tree_that_is_nowhere_is_refused() {
    let bed = Bed::new();
    let nowhere = helix_objects::hash(b"nowhere");
    let refused = bed.repository.commit(&CommitRequest::new(bed.caller(), nowhere, "x"));
    assert!(matches!(refused, Err(VersionError::Object(helix_objects::ObjectError::Missing(id))) if id == nowhere));
    assert_eq!(bed.repository.head(&WorkspaceName::main()).unwrap().snapshot, None);
}

#[test]
fn sixteen_writers_of_one_workspace_all_succeed_and_none_is_lost() {
    let bed = Bed::new();
    let repository = bed.repository.clone();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let repository = &repository;
            scope.spawn(move || {
                for count in 0..8 {
                    let caller = Caller {
                        workspace: WorkspaceName::main(),
                        who: who(&format!("agent-{writer}"), count),
                        durability: None,
                        committer: None,
                    };
                    let request = FilesRequest {
                        caller,
                        expect: None,
                        edits: vec![edit(&format!("agents/{writer}"), Some(&count.to_string()))],
                        message: format!("{writer}: {count}"),
                        author: None,
                        metadata: BTreeMap::new(),
                        allow_empty: false,
                    };
                    repository.commit_files(&request).expect("nobody is ever refused");
                }
            });
        }
    });
    let history: Vec<LogEntry> =
        repository.log(&LogQuery { include: vec![bed.head()], ..LogQuery::default() }).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(history.len(), 128);
    assert!(history.iter().all(|entry| entry.parents.len() <= 1), "they queue up: one line");
    let expected = (0..16).map(|writer| (format!("agents/{writer}"), "7".to_owned())).collect();
    assert_eq!(bed.files(repository.tree(bed.head()).unwrap()), expected);
}

#[test]
fn two_repositories_over_one_store_take_turns_without_losing_a_commit() {
    let store = Arc::new(MemoryStore::new());
    let bed = Bed::over(store.clone());
    let other = Bed { repository: Repository::open(store).unwrap(), clock: std::cell::Cell::new(500) };
    for count in 0..10 {
        bed.commit(&[("one", Some(&count.to_string()))], "one").unwrap();
        other.commit(&[("other", Some(&count.to_string()))], "other").unwrap();
    }
    assert_eq!(bed.repository.count(&[bed.head()], &[]).unwrap(), 20);
    assert_eq!(bed.files(bed.repository.tree(other.head()).unwrap()), files(&[("one", "9"), ("other", "9")]));
    assert_eq!(bed.repository.operations(None, 100).unwrap().len(), 21);
    // What one remembers and the other has changed is not what an error is told of.
    other.commit(&[("one", Some("10"))], "other").unwrap();
    let now = bed.commit(&[("one", Some("9"))], "as it was in memory").unwrap();
    let expected = FilesRequest {
        caller: other.caller(),
        expect: Some(now),
        edits: vec![edit("one", Some("11"))],
        message: String::new(),
        author: None,
        metadata: BTreeMap::new(),
        allow_empty: false,
    };
    assert_eq!(other.repository.commit_files(&expected).unwrap().parents, [now]);
}

#[test]
fn workspaces_have_heads_of_their_own_and_no_two_share_a_branch() {
    let bed = Bed::new();
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let (agent, repository) = ("agent".parse().unwrap(), &bed.repository);
    let held = repository.add_workspace(&bed.caller(), &agent, "/agent", &Start::Branch(branch("main")));
    assert!(matches!(held, Err(VersionError::HeldByWorkspace { workspace, .. }) if workspace == "main"));
    repository.add_workspace(&bed.caller(), &agent, "/agent", &Start::NewBranch(branch("topic"), first)).unwrap();
    let second = bed.commit_in("agent", &[("a", Some("2"))], "two").unwrap();
    assert_eq!((bed.head(), repository.head(&agent).unwrap().snapshot), (first, Some(second)));
    let refused = repository.switch(&bed.caller(), &Start::Branch(branch("topic")), Elsewhere::Refuse);
    assert!(matches!(refused, Err(VersionError::HeldByWorkspace { workspace, .. }) if workspace == "agent"));
    repository.switch(&bed.caller(), &Start::Branch(branch("topic")), Elsewhere::Allow).unwrap();
    bed.switch("main");
    repository.remove_workspace(&bed.caller(), &agent).unwrap();
    let names: Vec<WorkspaceName> = repository.workspaces().unwrap().into_iter().map(|workspace| workspace.name).collect();
    assert_eq!(names, [WorkspaceName::main()]);
    assert!(matches!(repository.head(&agent), Err(VersionError::Unknown { kind: "workspace", .. })));
    assert!(repository.remove_workspace(&bed.caller(), &WorkspaceName::main()).is_err());
}

#[test]
fn resets_take_back_the_head_what_is_staged_or_nothing_but_the_head() {
    let bed = Bed::new();
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let second = bed.commit(&[("a", Some("2"))], "two").unwrap();
    let trees = (repository.tree(first).unwrap(), repository.tree(second).unwrap());
    let soft = repository.reset(&bed.caller(), first, ResetKind::Soft).unwrap();
    assert_eq!((soft.from, soft.to, bed.head()), (trees.1, trees.0, first));
    assert_eq!(
        repository.workspace(&main).unwrap().staged.map(|staged| staged.tree),
        Some(trees.1),
        "what the commit had is staged"
    );
    repository.reset(&bed.caller(), first, ResetKind::Mixed).unwrap();
    assert_eq!(repository.workspace(&main).unwrap().staged, None);
    let hard = repository.reset(&bed.caller(), second, ResetKind::Hard).unwrap();
    assert_eq!((hard.to, bed.head()), (trees.1, second));
    // Detached, a reset moves only the head.
    repository.switch(&bed.caller(), &Start::Detached(first), Elsewhere::Refuse).unwrap();
    repository.reset(&bed.caller(), second, ResetKind::Hard).unwrap();
    assert_eq!(repository.head(&main).unwrap().target, HeadTarget::Detached(second));
}

#[test]
fn a_staged_tree_stays_until_it_is_committed() {
    let bed = Bed::new();
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    bed.commit(&[("a", Some("1"))], "one").unwrap();
    let tree = Tree::default().encode();
    repository.stage(&main, Some(Staged { tree: tree.id(), onto: None }), std::slice::from_ref(&tree)).unwrap();
    assert_eq!(repository.workspace(&main).unwrap().staged.map(|staged| staged.tree), Some(tree.id()));
    let before = repository.operations(None, 100).unwrap().len();
    repository.commit(&CommitRequest::new(bed.caller(), tree.id(), "emptied")).unwrap();
    assert_eq!((repository.workspace(&main).unwrap().staged, repository.operations(None, 100).unwrap().len()), (None, before + 1));
}

#[test]
fn trees_in_memory_are_bounded_and_what_was_let_go_is_read_again() {
    const LIMIT: usize = 20_000;
    let bed = Bed::new();
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    repository.set_live_limit(LIMIT);
    let first = bed.commit(&[("start", Some("s"))], "start").unwrap();
    let mut expected = files(&[("start", "s")]);
    for agent in ["main", "one", "two", "three"] {
        if agent != "main" {
            let (name, start) = (agent.parse().unwrap(), Start::NewBranch(branch(agent), first));
            repository.add_workspace(&bed.caller(), &name, agent, &start).unwrap();
        }
        for count in 0..40 {
            let (path, text) = (format!("d{}/f{count}", count % 7), "x".repeat(400 + count));
            bed.commit_in(agent, &[(&path, Some(&text))], "x").unwrap();
            let bytes = repository.live_bytes().expect("nobody writes");
            assert!(bytes <= LIMIT + 8_000, "at most one commit above the limit: {bytes}");
            if agent == "main" {
                expected.insert(path, text);
            }
        }
    }
    for (path, text) in &expected {
        let read = repository.read_file(&main, path.as_bytes()).unwrap();
        assert_eq!(read.as_deref(), Some(text.as_bytes()), "{path}");
    }
    assert_eq!(bed.files(repository.tree_of(&repository.head(&main).unwrap()).unwrap()), expected);
}
