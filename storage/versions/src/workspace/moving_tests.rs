//! Moving a folder between trees, judged by git where git has an opinion.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use helix_objects::{Durability, MemoryStore, NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};
use proptest::prelude::*;

use super::{Conflict, ConflictKind, Events, FolderRules, LocalChanges, WorkingFolder};
use crate::{Tree, TreeEntry, VersionError};

/// Files by path: content, and whether it is executable. `None` is a link to "a".
type Files = BTreeMap<String, Option<(String, bool)>>;

struct Place {
    root: tempfile::TempDir,
    _state: tempfile::TempDir,
    folder: WorkingFolder,
}

fn place(events: Events) -> Place {
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rules = FolderRules { events, ..FolderRules::default() };
    let folder = WorkingFolder::open(root.path(), state.path(), rules).unwrap();
    Place { root, _state: state, folder }
}

impl Place {
    fn root(&self) -> &Path {
        self.root.path()
    }
}

/// Stores a tree of these files.
fn tree_of(store: &MemoryStore, files: &Files) -> ObjectId {
    let mut here = Vec::new();
    let mut inner: BTreeMap<&str, Files> = BTreeMap::new();
    for (path, file) in files {
        match path.split_once('/') {
            Some((folder, rest)) => {
                inner.entry(folder).or_default().insert(rest.to_owned(), file.clone());
            }
            None => {
                let (mode, content) = match file {
                    Some((content, true)) => (FileMode::Executable, content.as_str()),
                    Some((content, false)) => (FileMode::Regular, content.as_str()),
                    None => (FileMode::Symlink, "a"),
                };
                let object = NewObject::new(content.as_bytes().to_vec().into());
                store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
                here.push(TreeEntry { name: path.clone().into_bytes(), mode, size: content.len() as u64, id: object.id() });
            }
        }
    }
    for (name, files) in inner {
        let id = tree_of(store, &files);
        let size = Tree::load(store, id).unwrap().size();
        here.push(TreeEntry { name: name.into(), mode: FileMode::Directory, size, id });
    }
    let tree = Tree::new(here).unwrap().encode();
    store.put(std::slice::from_ref(&tree), Durability::NoSync).unwrap();
    tree.id()
}

fn create(root: &Path, files: &Files) {
    for (path, file) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match file {
            Some((content, executable)) => {
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(if *executable { 0o755 } else { 0o644 })).unwrap();
            }
            None => symlink("a", &path).unwrap(),
        }
    }
}

/// What a folder holds beside `.git`.
fn held(root: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == ".git" {
            } else if meta.is_dir() {
                folders.push(path);
            } else if meta.is_symlink() {
                found.insert(name, None);
            } else {
                found.insert(name, Some((fs::read_to_string(&path).unwrap(), meta.mode() & 0o100 != 0)));
            }
        }
    }
    found
}

fn files(of: &[(&str, &str)]) -> Files {
    of.iter().map(|(path, content)| ((*path).to_owned(), Some(((*content).to_owned(), false)))).collect()
}

/// Few names, so that the trees overlap and files meet folders; no file has another's folder as its name.
fn some_files() -> impl Strategy<Value = Files> {
    let path = prop::sample::select(vec!["a", "b", "d", "d/a", "d/b", "d/e/a", "x/y/a", "x/y", "k.o", "d/k.o"]);
    let file = prop_oneof![8 => ("[xy]", any::<bool>()).prop_map(Some), 1 => Just(None)];
    prop::collection::btree_map(path.prop_map(str::to_owned), file, 0..8).prop_map(|files| {
        let clashes = |path: &str| path.match_indices('/').any(|(cut, _)| files.contains_key(&path[..cut]));
        files.iter().filter(|(path, _)| !clashes(path)).map(|(path, file)| (path.clone(), file.clone())).collect()
    })
}

fn git(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "core.fsync=none", "-c", "gc.auto=0"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A commit of these files in a repository, leaving nothing of them behind.
fn git_commit(root: &Path, files: &Files) -> String {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name != ".git") {
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    create(root, files);
    git(root, &["add", "-A", "-f"]).unwrap();
    git(root, &["commit", "-q", "--allow-empty", "-m", "m"]).unwrap();
    git(root, &["rev-parse", "HEAD"]).unwrap()
}

/// Changes a folder that holds `from` to hold `to`.
fn change(root: &Path, from: &Files, to: &Files) {
    for path in from.keys().filter(|path| to.get(*path) != from.get(*path)) {
        fs::remove_file(root.join(path)).unwrap();
    }
    let mut folders: Vec<&str> = from.keys().flat_map(|path| path.match_indices('/').map(|(cut, _)| &path[..cut])).collect();
    folders.sort_unstable();
    for folder in folders.into_iter().rev() {
        let _ = fs::remove_dir(root.join(folder));
    }
    create(root, &to.iter().filter(|(path, file)| from.get(*path) != Some(file)).map(|(a, b)| (a.clone(), b.clone())).collect());
}

/// A folder of ours and a repository of git's with the same files, at the same version, with the same local changes.
struct Beside {
    ours: Place,
    theirs: tempfile::TempDir,
    store: MemoryStore,
    /// The version to go to, as git names it.
    wanted: String,
    base_tree: ObjectId,
    /// The version to go to, as we name it.
    tree: ObjectId,
}

fn beside_git(base: &Files, local: &Files, to: &Files) -> Beside {
    let (mut ours, theirs, store) = (place(Events::Use), tempfile::tempdir().unwrap(), MemoryStore::new());
    git(theirs.path(), &["init", "-q"]).unwrap();
    let wanted = git_commit(theirs.path(), to);
    git_commit(theirs.path(), base);
    create(ours.root(), base);
    let (base_tree, tree) = (tree_of(&store, base), tree_of(&store, to));
    ours.folder.refresh(&store, Some(base_tree)).unwrap();
    change(ours.root(), base, local);
    change(theirs.path(), base, local);
    Beside { ours, theirs, store, wanted, base_tree, tree }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_checkout_makes_any_folder_exactly_the_tree(from in some_files(), to in some_files(), back in any::<bool>()) {
        for events in [Events::Use, Events::Ignore] {
            let (mut place, store) = (place(events), MemoryStore::new());
            create(place.root(), &from);
            let (tree, first) = (tree_of(&store, &to), tree_of(&store, &from));
            place.folder.refresh(&store, None).unwrap();
            place.folder.checkout(&store, tree).unwrap();
            prop_assert_eq!(held(place.root()), to.clone());
            let again = place.folder.checkout(&store, tree).unwrap();
            prop_assert_eq!((again.written, again.removed), (0, 0));
            prop_assert_eq!(place.folder.refresh(&store, Some(tree)).unwrap().tree, tree);
            if back {
                place.folder.checkout(&store, first).unwrap();
                prop_assert_eq!(held(place.root()), from.clone());
            }
        }
    }

    #[test]
    fn a_reset_leaves_what_git_leaves(base in some_files(), local in some_files(), to in some_files()) {
        let Beside { mut ours, theirs, store, wanted, base_tree, tree } = beside_git(&base, &local, &to);
        git(theirs.path(), &["reset", "-q", "--hard", &wanted]).unwrap();
        ours.folder.switch(&store, Some(base_tree), tree, LocalChanges::Discard).unwrap();
        prop_assert_eq!(held(ours.root()), held(theirs.path()));
    }

    #[test]
    fn a_switch_does_or_refuses_what_git_does_or_refuses(base in some_files(), local in some_files(), to in some_files()) {
        let Beside { mut ours, theirs, store, wanted, base_tree, tree } = beside_git(&base, &local, &to);
        let before = held(ours.root());
        let conflicts = ours.folder.conflicts_with(&store, Some(base_tree), tree).unwrap();
        let git = git(theirs.path(), &["checkout", "-q", &wanted]);
        let moved = ours.folder.switch(&store, Some(base_tree), tree, LocalChanges::Keep);
        prop_assert_eq!(moved.is_ok(), conflicts.is_empty());
        if conflicts.is_empty() {
            let after = held(ours.root());
            for (path, file) in local.iter().filter(|(path, file)| base.get(*path) != Some(*file)) {
                prop_assert_eq!(after.get(path), Some(file), "{} was lost", path);
            }
            // git refuses some moves by which nothing is lost.
            if git.is_ok() {
                prop_assert_eq!(after, held(theirs.path()));
            }
        } else {
            // git lets some moves happen that lose a file (one that stands where a folder was).
            let theirs = held(theirs.path());
            let loses = |conflict: &Conflict| {
                let path = String::from_utf8(conflict.path.clone()).unwrap();
                local.contains_key(&path) && theirs.get(&path) != local.get(&path)
            };
            prop_assert!(git.is_err() || conflicts.iter().any(loses), "git loses nothing: {conflicts:?}");
            prop_assert_eq!(held(ours.root()), before);
        }
    }
}

#[test]
fn a_refused_switch_names_what_it_would_overwrite() {
    let (mut place, store) = (place(Events::Use), MemoryStore::new());
    let (base, tree) = (files(&[("f", "1"), ("g", "1"), ("kept", "1")]), files(&[("f", "2"), ("new", "2"), ("kept", "1")]));
    create(place.root(), &base);
    let (base, tree) = (tree_of(&store, &base), tree_of(&store, &tree));
    for (path, content) in [("f", "mine"), ("g", "mine"), ("new", "mine"), ("kept", "mine"), ("other", "mine")] {
        fs::write(place.root().join(path), content).unwrap();
    }
    let conflict = |path: &str, kind| Conflict { path: path.into(), kind };
    let expected = [
        conflict("f", ConflictKind::LocalChange),
        conflict("g", ConflictKind::LocalChange),
        conflict("new", ConflictKind::Untracked),
    ];
    assert_eq!(place.folder.conflicts_with(&store, Some(base), tree).unwrap(), expected);
    let refused = place.folder.switch(&store, Some(base), tree, LocalChanges::Keep);
    assert!(matches!(refused, Err(VersionError::WouldOverwrite { paths }) if paths == ["f", "g", "new"]));
    place.folder.switch(&store, Some(base), tree, LocalChanges::Discard).unwrap();
    assert_eq!(held(place.root()), files(&[("f", "2"), ("new", "2"), ("kept", "1"), ("other", "mine")]));
}

#[test]
fn a_missing_object_is_found_out_before_anything_is_touched() {
    let (mut place, store, lacking) = (place(Events::Use), MemoryStore::new(), MemoryStore::new());
    let tree = tree_of(&store, &files(&[("a", "1"), ("b", "2")]));
    create(place.root(), &files(&[("a", "old")]));
    for id in [tree, helix_objects::hash(b"1")] {
        lacking.put(&[NewObject::new(store.read(id).unwrap())], Durability::NoSync).unwrap();
    }
    let stopped = place.folder.checkout(&lacking, tree);
    let absent = helix_objects::hash(b"2");
    assert!(matches!(stopped, Err(VersionError::Object(helix_objects::ObjectError::Missing(id))) if id == absent), "{stopped:?}");
    assert_eq!(held(place.root()), files(&[("a", "old")]));
}

#[test]
fn a_checkout_touches_only_what_differs() {
    let (mut place, store) = (place(Events::Use), MemoryStore::new());
    let before = tree_of(&store, &files(&[("same", "1"), ("d/same", "1"), ("d/changed", "1")]));
    let after = tree_of(&store, &files(&[("same", "1"), ("d/same", "1"), ("d/changed", "2")]));
    place.folder.checkout(&store, before).unwrap();
    let inode = |path: &str| fs::metadata(place.root.path().join(path)).unwrap().ino();
    let inodes = [inode("same"), inode("d/same")];
    let done = place.folder.checkout(&store, after).unwrap();
    assert_eq!((done.written, done.written_bytes, done.removed), (1, 1, 0));
    assert_eq!([inode("same"), inode("d/same")], inodes);
}

#[test]
fn a_checkout_writes_into_nothing_outside_the_folder() {
    let (mut place, outside, store) = (place(Events::Use), tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(outside.path().join("f"), "old").unwrap();
    fs::hard_link(outside.path().join("f"), place.root().join("f")).unwrap();
    symlink(outside.path(), place.root().join("d")).unwrap();
    symlink(outside.path().join("f"), place.root().join("l")).unwrap();
    let tree = files(&[("f", "new"), ("d/f", "new"), ("l", "new"), (".git/hooks/x", "evil"), ("d/.helios/x", "evil")]);
    let tree = tree_of(&store, &tree);
    place.folder.checkout(&store, tree).unwrap();
    assert_eq!(held(place.root()), files(&[("f", "new"), ("d/f", "new"), ("l", "new")]));
    assert_eq!(fs::read_to_string(outside.path().join("f")).unwrap(), "old");
    assert!(!place.root().join(".git").exists());
}

#[test]
fn a_repository_of_its_own_is_in_the_way_however_the_move_is_made() {
    for name in [".git", ".helios"] {
        for (file, is_ignored) in [("v/g", false), ("v/deep/g", false), ("v/deep/g", true)] {
            let (mut place, store) = (place(Events::Use), MemoryStore::new());
            let ignore: &[(&str, &str)] = if is_ignored { &[(".gitignore", "deep\n")] } else { &[] };
            let base = files(&[ignore, &[("f", "1"), (file, "1")]].concat());
            let tree = files(&[ignore, &[("f", "2"), ("v", "file")]].concat());
            create(place.root(), &base);
            let own = Path::new(file).with_file_name(name);
            fs::create_dir(place.root().join(&own)).unwrap();
            fs::write(place.root().join(&own).join("commit"), "nowhere else").unwrap();
            let (base_tree, tree) = (tree_of(&store, &base), tree_of(&store, &tree));
            let expected = Conflict { path: own.to_str().unwrap().as_bytes().to_vec(), kind: ConflictKind::Repository };
            let refused = |moved: Result<_, VersionError>| matches!(moved, Err(VersionError::WouldOverwrite { paths }) if paths == [own.to_str().unwrap()]);
            let folder = &mut place.folder;
            for changes in [LocalChanges::Keep, LocalChanges::Discard] {
                let seen = folder.foresee(&store, Some(base_tree), tree, changes).unwrap();
                assert!(seen.contains(&expected), "{own:?} {changes:?}: {seen:?}");
                assert!(folder.switch(&store, Some(base_tree), tree, changes).is_err());
            }
            assert!(refused(folder.restore(&store, Some(base_tree), tree, &[b"v".to_vec()])));
            assert!(refused(folder.checkout(&store, tree)));
            let mut untouched = base.clone();
            untouched.extend(files(&[(own.join("commit").to_str().unwrap(), "nowhere else")]));
            assert_eq!(held(place.root()), untouched);
        }
    }
}

#[test]
fn a_folder_that_is_not_carried_and_holds_a_repository_is_left_alone() {
    for changes in [LocalChanges::Keep, LocalChanges::Discard] {
        let (mut place, store) = (place(Events::Use), MemoryStore::new());
        let ignore = (".gitignore", "v\n");
        let (base, tree) = (files(&[ignore]), files(&[ignore, ("v", "file")]));
        create(place.root(), &base);
        fs::create_dir_all(place.root().join("v/.git")).unwrap();
        let (base, tree) = (tree_of(&store, &base), tree_of(&store, &tree));
        let moved = place.folder.switch(&store, Some(base), tree, changes);
        assert!(matches!(&moved, Err(VersionError::WouldOverwrite { paths }) if paths == &["v"]), "{moved:?}");
        assert!(place.root().join("v/.git").is_dir());
    }
}

#[test]
fn ignored_files_stay_and_give_way_only_to_files_of_the_tree() {
    let (mut place, store) = (place(Events::Use), MemoryStore::new());
    let base = tree_of(&store, &files(&[(".gitignore", "*.o\nout/\n"), ("d/f", "1")]));
    place.folder.checkout(&store, base).unwrap();
    create(place.root(), &files(&[("x.o", "mine"), ("d/y.o", "mine"), ("out/z", "mine"), ("w.o", "mine")]));
    let tree = tree_of(&store, &files(&[(".gitignore", "*.o\nout/\n"), ("w.o", "theirs")]));
    place.folder.switch(&store, Some(base), tree, LocalChanges::Keep).unwrap();
    let left = [(".gitignore", "*.o\nout/\n"), ("x.o", "mine"), ("d/y.o", "mine"), ("out/z", "mine"), ("w.o", "theirs")];
    assert_eq!(held(place.root()), files(&left));
    assert_eq!(place.folder.refresh(&store, Some(tree)).unwrap().tree, tree);
    assert_eq!(place.folder.ignored().unwrap(), [b"d/y.o".to_vec(), b"out/".to_vec(), b"x.o".to_vec()]);
}

#[test]
fn paths_are_restored_alone() {
    let (mut place, store) = (place(Events::Use), MemoryStore::new());
    let base = files(&[("a", "1"), ("d/b", "1"), ("d/c", "1"), ("e/f", "1")]);
    let older = files(&[("a", "0"), ("d/b", "0"), ("g/h/i", "0")]);
    let (base_tree, older_tree) = (tree_of(&store, &base), tree_of(&store, &older));
    place.folder.checkout(&store, base_tree).unwrap();
    create(place.root(), &files(&[("a", "mine"), ("d/b", "mine"), ("d/untracked", "mine")]));
    let restore = |place: &mut Place, tree, path: &str| place.folder.restore(&store, Some(base_tree), tree, &[path.into()]);
    restore(&mut place, base_tree, "a").unwrap();
    restore(&mut place, older_tree, "d").unwrap();
    restore(&mut place, older_tree, "g/h/i").unwrap();
    let expected = [("a", "1"), ("d/b", "0"), ("d/untracked", "mine"), ("e/f", "1"), ("g/h/i", "0")];
    assert_eq!(held(place.root()), files(&expected));
    assert!(matches!(restore(&mut place, older_tree, "nowhere"), Err(VersionError::NotFound { .. })));
    restore(&mut place, base_tree, "").unwrap();
    let expected = [("a", "1"), ("d/b", "1"), ("d/c", "1"), ("d/untracked", "mine"), ("e/f", "1"), ("g/h/i", "0")];
    assert_eq!(held(place.root()), files(&expected));
}

#[test]
fn a_file_too_large_to_be_carried_is_not_lost_by_a_switch() {
    let (root, state, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let rules = FolderRules { file_cap_bytes: 4, ..FolderRules::default() };
    let mut folder = WorkingFolder::open(root.path(), state.path(), rules).unwrap();
    let (base, tree) = (tree_of(&store, &files(&[("f", "1")])), tree_of(&store, &files(&[("f", "2"), ("g", "2")])));
    folder.checkout(&store, base).unwrap();
    create(root.path(), &files(&[("f", "too large"), ("g", "too large")]));
    let conflict = |path: &str, kind| Conflict { path: path.into(), kind };
    let expected = [conflict("f", ConflictKind::LocalChange), conflict("g", ConflictKind::Untracked)];
    assert_eq!(folder.conflicts_with(&store, Some(base), tree).unwrap(), expected);
    // The tree already has what the index stands for, and yet the file is restored.
    folder.switch(&store, Some(base), base, LocalChanges::Discard).unwrap();
    assert_eq!(held(root.path()), files(&[("f", "1"), ("g", "too large")]));
}

#[test]
fn a_new_workspace_is_filled_from_another_one_and_from_the_store() {
    let (mut like, mut made, store) = (place(Events::Use), place(Events::Use), MemoryStore::new());
    let outside = tempfile::tempdir().unwrap();
    let large = "0123456789abcdef".repeat(1000);
    let mut all = Files::new();
    for number in 0..600 {
        all.insert(format!("d{}/f{number}", number % 7), Some((format!("{number}"), number % 2 == 0)));
    }
    for path in ["same", "changed", "gone", "x/same"] {
        all.insert(path.to_owned(), Some((large.clone(), false)));
    }
    all.insert("link".into(), None);
    let tree = tree_of(&store, &all);
    like.folder.checkout(&store, tree).unwrap();
    // A file as young as its last look is believed by nobody, so let the clock move on first.
    super::stat_cache::FileClock::pass();
    like.folder.distrust();
    like.folder.refresh(&store, Some(tree)).unwrap();
    fs::write(like.root().join("changed"), "mine").unwrap();
    fs::remove_file(like.root().join("gone")).unwrap();
    let done = made.folder.populate(&store, tree, &like.folder).unwrap();
    assert_eq!(held(made.root()), all);
    assert_eq!((done.written, done.removed), (605, 0));
    let clones = |name: &str| {
        fs::File::open(like.root().join(name)).and_then(|file| {
            let copy = fs::File::create(outside.path().join("copy"))?;
            Ok(rustix::fs::ioctl_ficlone(copy, file)?)
        })
    };
    assert_eq!(done.cloned, if clones("same").is_ok() { 2 } else { 0 });
    assert_eq!(made.folder.refresh(&store, Some(tree)).unwrap().tree, tree);
    // What is written here is not seen there, whatever is shared.
    fs::write(made.root().join("same"), "otherwise").unwrap();
    assert_eq!(fs::read_to_string(like.root().join("same")).unwrap(), large);
    assert!(
        matches!(made.folder.populate(&store, tree, &like.folder), Err(VersionError::WouldOverwrite { paths }) if paths == ["same"])
    );
}

#[test]
fn a_file_changed_after_the_plan_was_made_is_left_alone() {
    use std::os::fd::AsFd;
    let root = tempfile::tempdir().unwrap();
    let folder = super::folder::open_root(root.path()).unwrap();
    let known = |name: &str| {
        let name = std::ffi::CString::new(name).unwrap();
        super::stat_cache::FileStat::new(&super::folder::stat(folder.as_fd(), &name).unwrap().unwrap())
    };
    fs::write(root.path().join("f"), "planned").unwrap();
    let planned = known("f");
    fs::write(root.path().join("f"), "changed since").unwrap();
    let content = bytes::Bytes::from_static(b"theirs");
    let put = |known| {
        let (source, over) = (super::writing::Source::Bytes(&content), super::plan::Over::File(planned));
        super::writing::put(folder.as_fd(), c"f", FileMode::Regular, source, over, known).unwrap()
    };
    assert_eq!(put(Some(planned)), None);
    assert_eq!(held(root.path()), files(&[("f", "changed since")]));
    assert_eq!(put(Some(known("f"))), Some(known("f")));
    assert_eq!(held(root.path()), files(&[("f", "theirs")]));
}

#[test]
fn content_that_is_missing_is_foreseen_and_nothing_is_touched() {
    let (mut place, store) = (place(Events::Use), MemoryStore::new());
    let (base, tree) = (files(&[("f", "1"), ("g", "1")]), files(&[("f", "2"), ("g", "2")]));
    create(place.root(), &base);
    let (base, whole) = (tree_of(&store, &base), tree_of(&store, &tree));
    // A tree that names content which was never stored.
    let absent = NewObject::new(b"3".to_vec().into()).id();
    let mut entries = Tree::load(&store, whole).unwrap().entries().to_vec();
    entries[1].id = absent;
    let object = Tree::new(entries).unwrap().encode();
    store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
    for changes in [LocalChanges::Keep, LocalChanges::Discard] {
        let seen = place.folder.foresee(&store, Some(base), object.id(), changes);
        assert!(matches!(seen, Err(VersionError::Object(helix_objects::ObjectError::Missing(id))) if id == absent), "{seen:?}");
        assert_eq!(fs::read_to_string(place.root().join("f")).unwrap(), "1");
        assert_eq!(place.folder.foresee(&store, Some(base), whole, changes).unwrap(), []);
    }
}
