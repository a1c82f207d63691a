//! A folder that is followed holds what a look from nothing finds, whatever was done to it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use helix_objects::{Durability, MemoryStore, ObjectStore};
use helix_protocol::{FileMode, ObjectId, SkipReason};
use proptest::prelude::*;

use super::{Events, FolderRules, LocalChanges, Refreshed, ScanReason, Tracking, WorkingFolder};
use crate::{VersionError, missing_closure, read_file, walk};

/// Something a program does to files.
#[derive(Clone, Debug)]
enum Act {
    Write(&'static str, u8),
    Append(&'static str),
    Remove(&'static str),
    RemoveAll(&'static str),
    Rename(&'static str, &'static str),
    Mode(&'static str, u32),
    Link(&'static str, &'static str),
    HardLink(&'static str, &'static str),
    Folder(&'static str),
    /// Write beside it, then rename over it, as editors do.
    Replace(&'static str, u8),
    Refresh,
    Status,
    Commit,
    /// Another process has it from here on, and looks at it before it has the store.
    Reopen,
    /// Its tree is let go for room.
    LetGo,
    /// To an earlier tree, as `switch` or `reset --hard`.
    Move(prop::sample::Index, LocalChanges),
}

const PATHS: [&str; 12] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/f/a", "x/y/z/a", "x/y", "log.o", "d/log.o"];

fn act() -> impl Strategy<Value = Act> {
    let path = || prop::sample::select(PATHS.to_vec());
    prop_oneof![
        6 => (path(), any::<u8>()).prop_map(|(path, seed)| Act::Write(path, seed % 4)),
        2 => path().prop_map(Act::Append),
        2 => path().prop_map(Act::Remove),
        1 => path().prop_map(Act::RemoveAll),
        3 => (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (path(), prop::sample::select(vec![0o644, 0o755])).prop_map(|(path, mode)| Act::Mode(path, mode)),
        1 => (path(), path()).prop_map(|(path, target)| Act::Link(path, target)),
        1 => (path(), path()).prop_map(|(from, to)| Act::HardLink(from, to)),
        2 => path().prop_map(Act::Folder),
        2 => (path(), any::<u8>()).prop_map(|(path, seed)| Act::Replace(path, seed % 4)),
        1 => (prop::sample::select(vec![".gitignore", "d/.gitignore"]), any::<u8>()).prop_map(|(path, seed)| Act::Write(path, seed % 4)),
        4 => Just(Act::Refresh),
        1 => Just(Act::Status),
        3 => Just(Act::Commit),
        2 => Just(Act::Reopen),
        2 => Just(Act::LetGo),
        2 => (any::<prop::sample::Index>(), prop::sample::select(vec![LocalChanges::Keep, LocalChanges::Discard]))
            .prop_map(|(which, changes)| Act::Move(which, changes)),
    ]
}

/// Does it; what the file system refuses is not done.
fn perform(root: &Path, act: &Act) -> std::io::Result<()> {
    let make_room = |path: &Path| fs::create_dir_all(path.parent().unwrap());
    match act {
        Act::Write(path, seed) if path.ends_with(".gitignore") => {
            let path = root.join(path);
            make_room(&path)?;
            fs::write(path, ["*.o\n", "e/\n!log.o\n", "", "/d\n*\n!a\n"][usize::from(*seed)])
        }
        Act::Write(path, seed) => {
            let path = root.join(path);
            make_room(&path)?;
            fs::write(path, [*seed; 3])
        }
        Act::Append(path) => fs::OpenOptions::new().append(true).open(root.join(path))?.write_all(b"more"),
        Act::Remove(path) => fs::remove_file(root.join(path)),
        Act::RemoveAll(path) => fs::remove_dir_all(root.join(path)),
        Act::Rename(from, to) => {
            make_room(&root.join(to))?;
            fs::rename(root.join(from), root.join(to))
        }
        Act::Mode(path, mode) => fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode)),
        Act::Link(path, target) => {
            make_room(&root.join(path))?;
            symlink(target, root.join(path))
        }
        Act::HardLink(from, to) => {
            make_room(&root.join(to))?;
            fs::hard_link(root.join(from), root.join(to))
        }
        Act::Folder(path) => fs::create_dir_all(root.join(path)),
        Act::Replace(path, seed) => {
            let (path, draft) = (root.join(path), root.join("draft"));
            fs::write(&draft, [*seed; 3])?;
            make_room(&path).and_then(|()| fs::rename(&draft, path)).or_else(|_| fs::remove_file(&draft))
        }
        Act::Refresh | Act::Status | Act::Commit | Act::Reopen | Act::LetGo | Act::Move(..) => Ok(()),
    }
}

/// Lets the threads of a scope end, also where the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder with a state folder of its own.
struct Place {
    root: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    fn open(&self, events: Events) -> WorkingFolder {
        WorkingFolder::open(self.root(), self.state.path(), FolderRules { events, ..FolderRules::default() }).unwrap()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// What a look from nothing finds.
fn from_nothing(root: &Path, store: &dyn ObjectStore, base: Option<ObjectId>) -> Refreshed {
    let state = tempfile::tempdir().unwrap();
    let rules = FolderRules { events: Events::Ignore, ..FolderRules::default() };
    WorkingFolder::open(root, state.path(), rules).unwrap().refresh(store, base).unwrap()
}

fn commit(folder: &mut WorkingFolder, store: &MemoryStore, base: Option<ObjectId>) -> Refreshed {
    let found = folder.refresh(store, base).unwrap();
    store.put(&found.objects, Durability::NoSync).unwrap();
    assert_eq!(missing_closure(store, found.tree).unwrap(), vec![]);
    found
}

fn paths(store: &dyn ObjectStore, tree: ObjectId) -> Vec<String> {
    let files = walk(store, tree).unwrap().into_iter().filter(|entry| entry.mode != FileMode::Directory);
    files.map(|entry| String::from_utf8(entry.path).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_followed_folder_holds_what_a_look_from_nothing_finds(acts in prop::collection::vec(act(), 1..60)) {
        let (place, store) = (Place::new(), MemoryStore::new());
        let mut folder = place.open(Events::Use);
        prop_assert_eq!(folder.tracking(), Tracking::Events);
        let (mut base, mut trees) = (None, Vec::new());
        for act in acts.iter().chain([&Act::Refresh, &Act::Commit]) {
            // What the file system refuses is not done.
            let _ = perform(place.root(), act);
            match act {
                Act::Refresh => {
                    let (found, expected) = (folder.refresh(&store, base).unwrap(), from_nothing(place.root(), &store, base));
                    prop_assert_eq!(found.tree, expected.tree);
                    prop_assert_eq!(found.changes, expected.changes);
                    prop_assert_eq!(found.skipped, expected.skipped);
                    prop_assert_eq!(found.logical_bytes, expected.logical_bytes);
                }
                Act::Status => {
                    let (found, expected) = (folder.status(&store, base).unwrap(), from_nothing(place.root(), &store, base));
                    prop_assert_eq!((found.tree, found.changes), (expected.tree, expected.changes));
                }
                Act::Commit => {
                    base = Some(commit(&mut folder, &store, base).tree);
                    trees.extend(base);
                }
                Act::Reopen => {
                    folder.save().unwrap();
                    folder = place.open(Events::Use);
                    folder.look_ahead();
                }
                Act::LetGo => folder.let_go(),
                Act::Move(which, changes) if !trees.is_empty() => {
                    let tree = *which.get(&trees);
                    match folder.switch(&store, base, tree, *changes) {
                        Ok(_) => base = Some(tree),
                        Err(VersionError::WouldOverwrite { .. }) => prop_assert_eq!(*changes, LocalChanges::Keep),
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                    if *changes == LocalChanges::Discard {
                        let left = folder.status(&store, base).unwrap().changes;
                        prop_assert!(left.iter().all(|change| change.before.is_none()), "only untracked files are left: {left:?}");
                    }
                }
                _ => {}
            }
        }
        prop_assert_eq!(folder.tracking(), Tracking::Events);
    }
}

#[test]
fn writers_in_other_threads_are_caught_up_with_when_they_stop() {
    let (place, store, stop) = (Place::new(), MemoryStore::new(), AtomicBool::new(false));
    let mut folder = place.open(Events::Use);
    std::thread::scope(|scope| {
        for writer in 0..2_u32 {
            let (root, stop) = (place.root().join(format!("w{writer}")), &stop);
            scope.spawn(move || {
                let mut turn = writer;
                while !stop.load(Ordering::Relaxed) {
                    turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let pick = |shift: u32| PATHS[(turn >> shift) as usize % PATHS.len()];
                    let act = match (turn >> 28) % 6 {
                        0 | 1 => Act::Write(pick(8), (turn % 4) as u8),
                        2 => Act::Rename(pick(8), pick(16)),
                        3 => Act::RemoveAll(pick(8)),
                        4 => Act::Replace(pick(8), (turn % 4) as u8),
                        _ => Act::Append(pick(8)),
                    };
                    let _ = fs::create_dir_all(&root);
                    let _ = perform(&root, &act);
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        for _ in 0..40 {
            commit(&mut folder, &store, None);
        }
    });
    let expected = from_nothing(place.root(), &store, None);
    assert_eq!((folder.refresh(&store, None).unwrap().tree, folder.tracking()), (expected.tree, Tracking::Events));
}

#[test]
fn a_refresh_of_an_unchanged_folder_changes_nothing_and_brings_nothing() {
    let (place, store) = (Place::new(), MemoryStore::new());
    place.write("a/b", "content");
    let mut folder = place.open(Events::Use);
    let first = commit(&mut folder, &store, None);
    let again = folder.refresh(&store, Some(first.tree)).unwrap();
    assert_eq!((again.tree, again.objects, again.changes), (first.tree, vec![], vec![]));
    assert_eq!((first.logical_bytes, first.objects.len()), (7, 3));
    let entry = folder.entry(b"a/b").unwrap();
    assert_eq!((entry.mode, entry.size, entry.id), (FileMode::Regular, 7, Some(helix_objects::hash(b"content"))));
}

#[test]
fn content_read_for_a_status_reaches_the_commit() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let mut folder = place.open(Events::Use);
    place.write("f", "one");
    folder.status(&store, None).unwrap();
    let found = commit(&mut folder, &store, None);
    assert_eq!(read_file(&store, found.tree, b"f").unwrap(), "one");
}

#[test]
fn content_that_is_in_no_store_is_read_again_even_if_it_was_known() {
    let (place, store) = (Place::new(), MemoryStore::new());
    place.write("f", "one");
    symlink("f", place.root().join("l")).unwrap();
    place.write("large", vec![7; 9 << 20]);
    let mut folder = place.open(Events::Use);
    folder.refresh(&store, None).unwrap();
    // Another store: nothing of what was found went into it.
    let other = MemoryStore::new();
    commit(&mut folder, &other, None);
}

#[test]
fn large_content_goes_ahead_and_memory_stays_bounded() {
    let (place, store) = (Place::new(), MemoryStore::new());
    for count in 0..20_u8 {
        place.write(&format!("f{count}"), vec![count; 3 << 20]);
    }
    place.write("large", vec![99; 12 << 20]);
    let found = commit(&mut place.open(Events::Use), &store, None);
    let returned: usize = found.objects.iter().map(|object| object.bytes().len()).sum();
    assert!(returned < 33 << 20, "{returned} bytes were returned at once");
    assert_eq!(found.logical_bytes, 72 << 20);
}

#[test]
fn ignored_files_are_carried_only_where_the_base_has_them() {
    let (place, store) = (Place::new(), MemoryStore::new());
    for path in ["keep.o", "new.o", "out/tracked", "out/other"] {
        place.write(path, path);
    }
    let mut folder = place.open(Events::Use);
    fs::remove_file(place.root().join("new.o")).unwrap();
    fs::rename(place.root().join("out/other"), place.root().join("other")).unwrap();
    let base = commit(&mut folder, &store, None).tree;
    fs::rename(place.root().join("other"), place.root().join("out/other")).unwrap();
    place.write("new.o", "new");
    place.write(".gitignore", "*.o\nout/\n");
    place.write("keep.o", "changed");
    let found = commit(&mut folder, &store, Some(base));
    assert_eq!(paths(&store, found.tree), [".gitignore", "keep.o", "out/tracked"]);
    assert_eq!(read_file(&store, found.tree, b"keep.o").unwrap(), "changed");
    // With a base that has none of them nothing ignored is carried; and back again.
    for _ in 0..2 {
        let bare = folder.refresh(&store, None).unwrap();
        assert_eq!(bare.changes.iter().map(|change| change.path.as_slice()).collect::<Vec<_>>(), [b".gitignore"]);
        assert_eq!(folder.refresh(&store, Some(base)).unwrap().tree, found.tree);
    }
}

#[test]
fn heliosignore_outdoes_gitignore_and_excludes_outside_the_folder_count() {
    let (place, store, more) = (Place::new(), MemoryStore::new(), tempfile::tempdir().unwrap());
    for path in ["a.log", "b.log", "c.tmp", "d.info", ".git/config", "sub/.git", "sub/.helios/x", "kept"] {
        place.write(path, path);
    }
    place.write(".gitignore", "*.log\n");
    place.write(".heliosignore", "!b.log\n");
    place.write(".git/info/exclude", "*.info\n");
    fs::write(more.path().join("ignore"), "*.tmp\n").unwrap();
    let rules = FolderRules { excludes: vec![more.path().join("ignore")], ..FolderRules::default() };
    let mut folder = WorkingFolder::open(place.root(), place.state.path(), rules).unwrap();
    let found = commit(&mut folder, &store, None);
    assert_eq!(paths(&store, found.tree), [".gitignore", ".heliosignore", "b.log", "kept"]);
    fs::write(place.root().join(".git/info/exclude"), "kept\n").unwrap();
    let found = commit(&mut folder, &store, None);
    assert_eq!(paths(&store, found.tree), [".gitignore", ".heliosignore", "b.log", "d.info"]);
}

#[test]
fn what_cannot_be_carried_is_listed_and_the_base_stands() {
    let (place, store) = (Place::new(), MemoryStore::new());
    place.write("grows", "small");
    let mut folder = {
        let rules = FolderRules { file_cap_bytes: 10, ..FolderRules::default() };
        WorkingFolder::open(place.root(), place.state.path(), rules).unwrap()
    };
    let base = commit(&mut folder, &store, None).tree;
    place.write("grows", "far too large");
    place.write("large", "also too large");
    rustix::fs::mknodat(rustix::fs::CWD, place.root().join("pipe"), rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    let found = commit(&mut folder, &store, Some(base));
    let skipped: Vec<_> = found.skipped.iter().map(|file| (file.path.as_str(), file.reason, file.size)).collect();
    let expected = [("grows", SkipReason::TooLarge, 13), ("large", SkipReason::TooLarge, 14), ("pipe", SkipReason::Special, 0)];
    assert_eq!((found.tree, skipped), (base, expected.to_vec()));
    for name in ["grows", "large", "pipe"] {
        fs::remove_file(place.root().join(name)).unwrap();
    }
    let found = folder.refresh(&store, Some(base)).unwrap();
    assert_eq!((found.skipped, found.changes.len()), (vec![], 1));
}

#[test]
fn a_file_changed_through_another_name_outside_is_seen() {
    let (place, outside, store) = (Place::new(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let other = outside.path().join("other");
    fs::write(&other, "one").unwrap();
    fs::hard_link(&other, place.root().join("f")).unwrap();
    let mut folder = place.open(Events::Use);
    for content in ["two", "three", "4"] {
        fs::OpenOptions::new().write(true).truncate(true).open(&other).unwrap().write_all(content.as_bytes()).unwrap();
        let found = commit(&mut folder, &store, None);
        assert_eq!(read_file(&store, found.tree, b"f").unwrap(), content);
    }
}

#[test]
fn lost_events_are_made_up_for_by_a_look_at_everything() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let mut folder = place.open(Events::Use);
    commit(&mut folder, &store, None);
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Two names in turn, so that no event is merged with the one before it.
    let mut files = ["a", "b"].map(|name| fs::File::create(place.root().join(name)).unwrap());
    for turn in 0..limit + 100 {
        files[turn % 2].write_all(b".").unwrap();
    }
    place.write("after/the/flood", "seen");
    let found = commit(&mut folder, &store, None);
    assert_eq!((found.tree, found.tracking), (from_nothing(place.root(), &store, None).tree, Tracking::Events));
    place.write("after/the/flood", "again");
    let found = commit(&mut folder, &store, None);
    assert_eq!(read_file(&store, found.tree, b"after/the/flood").unwrap(), "again");
}

#[test]
fn a_folder_whose_rules_say_so_is_scanned() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let mut folder = place.open(Events::Ignore);
    for turn in 0..5 {
        place.write(&format!("d{turn}/f"), [turn]);
        let found = commit(&mut folder, &store, None);
        assert_eq!(found.tree, from_nothing(place.root(), &store, None).tree);
        assert_eq!(found.tracking, Tracking::Scan(ScanReason::Asked));
    }
}

#[test]
fn a_state_folder_that_goes_away_harms_nothing() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let mut folder = place.open(Events::Use);
    place.write("f", "one");
    commit(&mut folder, &store, None);
    fs::remove_dir_all(place.state.path()).unwrap();
    for content in ["two", "three"] {
        place.write("f", content);
        let found = commit(&mut folder, &store, None);
        assert_eq!(read_file(&store, found.tree, b"f").unwrap(), content);
    }
}

#[test]
fn watches_that_run_out_are_replaced_by_scans() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let mut folder = place.open(Events::Use);
    place.write("d/f", "one");
    commit(&mut folder, &store, None);
    folder.live.lose_events(ScanReason::WatchLimit);
    for content in ["two", "three"] {
        place.write("d/f", content);
        place.write(content, content);
        let found = commit(&mut folder, &store, None);
        assert_eq!(found.tree, from_nothing(place.root(), &store, None).tree);
        assert_eq!(found.tracking, Tracking::Scan(ScanReason::WatchLimit));
    }
}

#[test]
fn what_one_process_knew_spares_the_next_reading() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    place.write("f", "content");
    fs::File::open(place.root().join("f")).unwrap().set_modified(past).unwrap();
    // The clock that files are stamped with must pass the change that this was.
    super::stat_cache::FileClock::pass();
    let mut folder = place.open(Events::Use);
    let found = commit(&mut folder, &store, None);
    folder.save().unwrap();
    drop(folder);
    // It is on disk, and stays there for the process after the next one.
    for _ in 0..2 {
        let mut folder = place.open(Events::Use);
        assert_eq!(folder.refresh(&store, Some(found.tree)).unwrap().tree, found.tree);
        assert!(folder.live.held.get(helix_objects::hash(b"content")).is_none());
        assert_eq!(folder.live.unsaved, 0, "there is nothing to write again");
        folder.save().unwrap();
    }
    place.write("f", "another");
    let mut folder = place.open(Events::Use);
    commit(&mut folder, &store, Some(found.tree));
    assert_eq!(folder.live.unsaved, 1);
}

#[test]
fn a_hundred_names_beneath_each_other_and_names_of_any_bytes_are_carried() {
    use std::os::unix::ffi::OsStrExt;
    let (place, store) = (Place::new(), MemoryStore::new());
    let mut deep = PathBuf::from(place.root());
    for _ in 0..100 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(std::ffi::OsStr::from_bytes(b"caf\xe9 \xff\n")), "x").unwrap();
    symlink("..", deep.join("loop")).unwrap();
    let mut folder = place.open(Events::Use);
    let found = commit(&mut folder, &store, None);
    assert_eq!(found.tree, from_nothing(place.root(), &store, None).tree);
    assert_eq!(found.changes.len(), 2);
}

#[test]
fn a_file_that_never_rests_is_carried_and_looked_at_until_it_does() {
    let (place, store, stop) = (Place::new(), MemoryStore::new(), AtomicBool::new(false));
    place.write("log", vec![b'.'; 4 << 20]);
    let mut folder = place.open(Events::Use);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    std::thread::scope(|scope| {
        let (root, stop) = (place.root(), &stop);
        scope.spawn(move || {
            let mut file = fs::OpenOptions::new().append(true).open(root.join("log")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.set_len(4 << 20).unwrap();
                for _ in 0..10_000 {
                    file.write_all(b"line\n").unwrap();
                }
            }
        });
        let _stop = StopAtEnd(stop);
        let mut torn = Vec::new();
        while torn.is_empty() && std::time::Instant::now() < until {
            torn = commit(&mut folder, &store, None).torn;
        }
        assert_eq!(torn, ["log"]);
    });
    let found = commit(&mut folder, &store, None);
    assert_eq!((found.tree, found.torn), (from_nothing(place.root(), &store, None).tree, vec![]));
}

#[test]
fn what_was_read_of_many_files_survives_a_process_that_is_killed() {
    let (place, store) = (Place::new(), MemoryStore::new());
    for count in 0..1000 {
        place.write(&format!("d{}/f{count}", count % 9), format!("{count}"));
    }
    super::stat_cache::FileClock::pass();
    let mut folder = place.open(Events::Use);
    let tree = commit(&mut folder, &store, None).tree;
    // No destructor runs, as nothing does in a process that is killed.
    std::mem::forget(folder);
    let mut folder = place.open(Events::Use);
    assert_eq!(folder.status(&store, Some(tree)).unwrap().changes, vec![]);
    assert!(folder.live.held.is_empty(), "nothing was read again");
}

#[test]
fn a_file_that_is_other_than_was_remembered_is_read_when_it_is_committed() {
    let (place, store) = (Place::new(), MemoryStore::new());
    place.write("d/f", "content");
    super::stat_cache::FileClock::pass();
    let root = super::folder::open_root(place.root()).unwrap();
    let raw = super::folder::stat(std::os::fd::AsFd::as_fd(&root), c"d/f").unwrap().unwrap();
    let mut cache = super::StatCache::at(&place.state.path().join("stat"), None);
    let (stat, read_at) = (super::stat_cache::FileStat::new(&raw), super::stat_cache::FileClock::now());
    cache.record(b"d/f".to_vec(), stat, helix_objects::hash(b"something else"), read_at);
    cache.save().unwrap();
    let found = commit(&mut place.open(Events::Use), &store, None);
    assert_eq!(read_file(&store, found.tree, b"d/f").unwrap(), "content");
}
