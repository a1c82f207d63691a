//! What scans and checkouts promise together.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use helix_objects::{MemoryStore, ObjectStore};
use helix_protocol::{Change, ChangeKind, FileMode, ObjectId, SkipReason, SkippedFile};
use proptest::prelude::*;

use super::{Scan, ScanPolicy, StatCache, checkout, scan};
use crate::unprivileged::unprivileged;
use crate::{Tree, VersionError, diff, entry_at, missing_closure, objects_between, read_file, walk};

/// A file's content, a link's target, or nothing but a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    File { content: Vec<u8>, executable: bool },
    Link(String),
    Folder,
}

type Model = BTreeMap<String, Item>;

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        6 => (prop::collection::vec(0_u8..3, 0..40), any::<bool>()).prop_map(|(content, executable)| Item::File { content, executable }),
        1 => "[a-c/.]{1,8}".prop_map(Item::Link),
        1 => Just(Item::Folder),
    ]
}

/// Few names, so that models overlap and files turn into folders and back.
fn model() -> impl Strategy<Value = Model> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c.txt", "ä"]), 1..4).prop_map(|parts| parts.join("/"));
    prop::collection::btree_map(path, item(), 0..16).prop_map(|items| {
        let blocked = |path: &str, items: &Model| {
            path.match_indices('/').any(|(at, _)| items.get(&path[..at]).is_some_and(|item| *item != Item::Folder))
        };
        items.iter().filter(|(path, _)| !blocked(path, &items)).map(|(path, item)| (path.clone(), item.clone())).collect()
    })
}

fn create(root: &Path, model: &Model) {
    for (path, item) in model {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match item {
            Item::File { content, executable } => {
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(if *executable { 0o755 } else { 0o644 })).unwrap();
            }
            Item::Link(target) => symlink(target, &path).unwrap(),
            Item::Folder => fs::create_dir_all(&path).unwrap(),
        }
    }
}

/// Turns one model's files into another's the way programs do: only what differs, in place where that is possible.
fn mutate(root: &Path, from: &Model, to: &Model) {
    for (path, item) in from {
        let place = root.join(path);
        let stays = match (item, to.get(path)) {
            (Item::File { .. }, Some(Item::File { .. })) => true,
            (a, b) => Some(a) == b,
        };
        if !stays && let Ok(meta) = fs::symlink_metadata(&place) {
            if meta.is_dir() { fs::remove_dir_all(&place).unwrap() } else { fs::remove_file(&place).unwrap() }
        }
    }
    // Folders that only existed for what was in them.
    let mut folders: Vec<String> =
        from.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned())).collect();
    folders.sort();
    folders.dedup();
    for folder in folders.iter().rev() {
        let needed = to.keys().any(|path| path == folder || path.starts_with(&format!("{folder}/")));
        if !needed || to.get(folder).is_some_and(|item| *item != Item::Folder) {
            let _ = fs::remove_dir_all(root.join(folder));
        }
    }
    let differs =
        |(path, item): &(&String, &Item)| from.get(*path) != Some(*item) || fs::symlink_metadata(root.join(path)).is_err();
    create(root, &to.iter().filter(differs).map(|(path, item)| (path.clone(), item.clone())).collect());
}

fn scan_new(root: &Path, store: &dyn ObjectStore) -> Scan {
    scan(root, None, store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap()
}

fn listing(store: &dyn ObjectStore, tree: ObjectId) -> Vec<(String, FileMode)> {
    walk(store, tree).unwrap().into_iter().map(|entry| (String::from_utf8(entry.path).unwrap(), entry.mode)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_checked_out_elsewhere_scans_to_the_same_tree(model in model()) {
        let (here, there, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
        create(here.path(), &model);
        let first = scan_new(here.path(), &store);
        prop_assert_eq!(missing_closure(&store, first.tree).unwrap(), vec![]);
        let mut cache = StatCache::new();
        checkout(there.path(), first.tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
        prop_assert_eq!(scan_new(there.path(), &store).tree, first.tree);
        prop_assert_eq!(scan(there.path(), Some(first.tree), &store, &mut cache, &ScanPolicy::everything()).unwrap().changes, vec![]);
        for (path, item) in &model {
            if let Item::File { content, .. } = item {
                prop_assert_eq!(&read_file(&store, first.tree, path.as_bytes()).unwrap(), content);
            }
        }
    }

    #[test]
    fn an_incremental_scan_equals_one_from_nothing(models in prop::collection::vec(model(), 2..4)) {
        let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let mut cache = StatCache::new();
        create(root.path(), &models[0]);
        let mut base = scan(root.path(), None, &store, &mut cache, &ScanPolicy::everything()).unwrap().tree;
        for pair in models.windows(2) {
            mutate(root.path(), &pair[0], &pair[1]);
            let incremental = scan(root.path(), Some(base), &store, &mut cache, &ScanPolicy::everything()).unwrap();
            let other = MemoryStore::new();
            let whole = scan_new(root.path(), &other);
            prop_assert_eq!(incremental.tree, whole.tree);
            prop_assert_eq!(&incremental.changes, &diff(&store, base, whole.tree).unwrap());
            prop_assert_eq!(&incremental.new_objects, &objects_between(&store, Some(base), whole.tree).unwrap());
            prop_assert_eq!(missing_closure(&store, incremental.tree).unwrap(), vec![]);
            base = incremental.tree;
        }
    }

    #[test]
    fn a_checkout_makes_any_folder_exactly_the_tree(from in model(), to in model()) {
        let (root, source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
        create(source.path(), &to);
        let tree = scan_new(source.path(), &store).tree;
        create(root.path(), &from);
        let mut cache = StatCache::new();
        scan(root.path(), None, &store, &mut cache, &ScanPolicy::everything()).unwrap();
        checkout(root.path(), tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
        prop_assert_eq!(scan_new(root.path(), &store).tree, tree);
        let again = checkout(root.path(), tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
        prop_assert_eq!((again.written, again.removed), (0, 0));
    }

    #[test]
    fn a_store_that_holds_the_older_tree_needs_only_the_objects_between(from in model(), to in model()) {
        let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        create(&root.path().join("from"), &from);
        create(&root.path().join("to"), &to);
        for side in ["from", "to"] {
            fs::create_dir_all(root.path().join(side)).unwrap();
        }
        let (older, newer) = (scan_new(&root.path().join("from"), &store).tree, scan_new(&root.path().join("to"), &store).tree);
        let other = MemoryStore::new();
        for ids in [objects_between(&store, None, older).unwrap(), objects_between(&store, Some(older), newer).unwrap()] {
            let objects: Vec<_> = ids.iter().map(|id| helix_objects::NewObject::new(store.read(*id).unwrap())).collect();
            other.put(&objects, helix_objects::Durability::NoSync).unwrap();
        }
        prop_assert_eq!(missing_closure(&other, newer).unwrap(), vec![]);
    }
}

#[test]
fn a_file_written_twice_in_one_tick_of_the_clock_is_read_again() {
    let (root, store, mut cache) = (tempfile::tempdir().unwrap(), MemoryStore::new(), StatCache::new());
    let mut tree = None;
    for count in 0..200_u32 {
        // Same length, same inode, and mostly the same time.
        fs::write(root.path().join("f"), count.to_le_bytes()).unwrap();
        let found = scan(root.path(), tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
        assert_eq!(read_file(&store, found.tree, b"f").unwrap().as_ref(), count.to_le_bytes());
        tree = Some(found.tree);
    }
}

#[test]
fn a_checkout_that_a_full_disk_has_broken_off_is_refused_and_made_good_by_the_next_one() {
    let (folder, source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let Some(disk) = helix_objects::testing::SmallDisk::mount(folder.path(), 2) else { return };
    for number in 0..100 {
        fs::write(source.path().join(format!("{number:03}")), vec![number; 10_000]).unwrap();
    }
    let tree = scan_new(source.path(), &store).tree;
    let (root, mut cache) = (folder.path().join("workspace"), StatCache::new());
    fs::write(folder.path().join("other"), vec![1; 1_500_000]).unwrap();
    let refused = checkout(&root, tree, &store, &mut cache, &ScanPolicy::everything()).unwrap_err();
    assert_eq!(helix_protocol::Failure::from(refused).code, helix_protocol::Code::DiskFull);
    assert!(fs::read_dir(&root).unwrap().count() > 10, "it was broken off in the middle");
    disk.fill();
    let failed = checkout(&root, tree, &store, &mut cache, &ScanPolicy::everything()).unwrap_err();
    assert_eq!(helix_protocol::Failure::from(failed).code, helix_protocol::Code::DiskFull);
    disk.empty();
    fs::remove_file(folder.path().join("other")).unwrap();
    checkout(&root, tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
    assert_eq!(scan_new(&root, &store).tree, tree);
    assert_eq!(scan(&root, Some(tree), &store, &mut cache, &ScanPolicy::everything()).unwrap().changes, vec![]);
}

#[test]
fn a_file_written_right_after_a_checkout_is_not_missed() {
    let (root, source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(source.path().join("f"), "0000").unwrap();
    let tree = scan_new(source.path(), &store).tree;
    for count in 0..100 {
        let mut cache = StatCache::new();
        checkout(root.path(), tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
        fs::write(root.path().join("f"), format!("{count:04}")).unwrap();
        let found = scan(root.path(), Some(tree), &store, &mut cache, &ScanPolicy::everything()).unwrap();
        assert_eq!(read_file(&store, found.tree, b"f").unwrap(), format!("{count:04}"));
    }
}

#[test]
fn a_file_that_never_rests_is_carried_and_marked_torn() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (root, store, stop) = (tempfile::tempdir().unwrap(), MemoryStore::new(), AtomicBool::new(false));
    let mut file = fs::File::create(root.path().join("log")).unwrap();
    file.write_all(&[b'.'; 1 << 20]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b".").unwrap();
            }
        });
        let torn = (0..500).map(|_| scan_new(root.path(), &store)).find(|found| !found.torn.is_empty());
        stop.store(true, Ordering::Relaxed);
        let found = torn.expect("the writer got between two reads once in 500 scans");
        assert_eq!(found.torn, vec!["log"]);
        assert!(read_file(&store, found.tree, b"log").unwrap().len() >= 1 << 20);
    });
}

#[test]
fn what_is_not_carried_is_listed_and_keeps_what_the_base_has() {
    let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let write = |path: &str, content: &[u8]| {
        fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
        fs::write(root.path().join(path), content).unwrap();
    };
    write("large", b"small at first");
    write("target/tracked", b"in the repository");
    write(".git/config", b"not ours");
    write("sub/.git/config", b"a repository the agent cloned");
    let base = scan_new(root.path(), &store).tree;
    write("large", &[7; 2000]);
    write("target/debug/program", &[1; 100]);
    write("sub/target/x", b"cached too");
    rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let policy = ScanPolicy::new(1000, &["target".into()]).unwrap();
    let found = scan(root.path(), Some(base), &store, &mut StatCache::new(), &policy).unwrap();
    let skipped = |path: &str, reason, size| SkippedFile { path: path.into(), reason, size };
    let expected = vec![
        skipped("large", SkipReason::TooLarge, 2000),
        skipped("pipe", SkipReason::Special, 0),
        skipped("sub/target", SkipReason::Cache, 0),
        skipped("target", SkipReason::Cache, 0),
    ];
    assert_eq!((found.skipped, found.changes, found.tree), (expected, vec![], base));
    assert_eq!(read_file(&store, found.tree, b"target/tracked").unwrap().as_ref(), b"in the repository");
    assert!(entry_at(&store, found.tree, b".git").unwrap().is_none());
    assert!(entry_at(&store, found.tree, b"sub/.git/config").unwrap().is_some());
}

#[test]
fn what_may_not_be_read_is_listed_and_keeps_what_the_base_has() {
    let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let write = |path: &str, content: &str| {
        fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
        fs::write(root.path().join(path), content).unwrap();
    };
    let allow = |path: &str, mode: u32| fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    for path in ["open", "closed", "locked/inner/file", "listed/file"] {
        write(path, "at first");
    }
    let base = scan_new(root.path(), &store).tree;
    for path in ["closed", "locked/inner/file", "listed/file", "closed since ever", "locked since ever/file"] {
        write(path, "nobody's business");
    }
    // The names in a folder may be read without what they name.
    let closed = [("closed", 0), ("closed since ever", 0), ("listed", 0o444), ("locked", 0), ("locked since ever", 0)];
    closed.iter().for_each(|(path, mode)| allow(path, *mode));
    let found = unprivileged(|| {
        fs::read(root.path().join("closed")).unwrap_err();
        scan(root.path(), Some(base), &store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap()
    });
    let sizes = [17, 17, 0, 0, 0];
    let skipped = closed.iter().zip(sizes).map(|((path, _), size)| SkippedFile {
        path: (*path).to_owned(),
        reason: SkipReason::Unreadable,
        size,
    });
    assert_eq!((found.skipped, found.changes, found.tree), (skipped.collect(), vec![], base));
    closed.iter().for_each(|(path, _)| allow(path, 0o755));
    assert_eq!(scan_new(root.path(), &store).skipped, vec![], "once they may be read, they are");
}

#[test]
fn a_checkout_leaves_caches_and_the_git_folder_alone() {
    let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(root.path().join("a"), "a").unwrap();
    let tree = scan_new(root.path(), &store).tree;
    for path in [".git/HEAD", "node_modules/x/y", "web/node_modules/z", "web/src/old", "old"] {
        fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
        fs::write(root.path().join(path), path).unwrap();
    }
    let policy = ScanPolicy::new(1000, &["node_modules".into()]).unwrap();
    checkout(root.path(), tree, &store, &mut StatCache::new(), &policy).unwrap();
    let left =
        ["a", ".git/HEAD", "node_modules/x/y", "web/node_modules/z", "web/src", "old"].map(|path| root.path().join(path).exists());
    assert_eq!(left, [true, true, true, true, false, false]);
}

#[test]
fn a_checkout_never_writes_through_a_link() {
    let (root, outside, source, store) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::create_dir(source.path().join("d")).unwrap();
    fs::write(source.path().join("d/f"), "from the tree").unwrap();
    fs::write(source.path().join("g"), "from the tree").unwrap();
    let tree = scan_new(source.path(), &store).tree;
    fs::write(outside.path().join("f"), "outside").unwrap();
    symlink(outside.path(), root.path().join("d")).unwrap();
    symlink(outside.path().join("f"), root.path().join("g")).unwrap();
    symlink(outside.path(), root.path().join("extra")).unwrap();
    checkout(root.path(), tree, &store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap();
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"outside");
    assert_eq!(fs::read(root.path().join("d/f")).unwrap(), b"from the tree");
    assert_eq!(fs::read(root.path().join("g")).unwrap(), b"from the tree");
    assert_eq!(scan_new(root.path(), &store).tree, tree);
}

#[test]
fn a_scan_does_not_follow_links_out_of_the_workspace() {
    let (root, outside, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), root.path().join("folder")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    let tree = scan_new(root.path(), &store).tree;
    let link = |path: &str| (path.to_owned(), FileMode::Symlink);
    assert_eq!(listing(&store, tree), vec![link("file"), link("folder"), link("loop")]);
}

#[test]
fn a_checkout_breaks_hard_links_instead_of_writing_into_them() {
    let (root, outside, source, store) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(source.path().join("f"), "new").unwrap();
    let tree = scan_new(source.path(), &store).tree;
    fs::write(outside.path().join("f"), "old").unwrap();
    fs::hard_link(outside.path().join("f"), root.path().join("f")).unwrap();
    checkout(root.path(), tree, &store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap();
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"old");
    assert_eq!(fs::read(root.path().join("f")).unwrap(), b"new");
}

#[test]
fn an_interrupted_checkout_leaves_no_known_tree_and_is_finished_by_the_next() {
    let (root, source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, lacking) = (MemoryStore::new(), MemoryStore::new());
    for name in ["a", "b/c", "b/d", "z"] {
        fs::create_dir_all(source.path().join(name).parent().unwrap()).unwrap();
        fs::write(source.path().join(name), name).unwrap();
    }
    let tree = scan_new(source.path(), &store).tree;
    let first = scan_new(root.path(), &store).tree;
    let cache_file = state.path().join("stat");
    let mut cache = StatCache::open(&cache_file).unwrap();
    checkout(root.path(), first, &store, &mut cache, &ScanPolicy::everything()).unwrap();
    assert_eq!(StatCache::open(&cache_file).unwrap().tree(), Some(first));
    // A store without one object stops the checkout half-way.
    let absent = helix_objects::hash(b"z");
    for entry in walk(&store, tree).unwrap().iter().map(|entry| entry.id).chain([tree]).filter(|id| *id != absent) {
        lacking.put(&[helix_objects::NewObject::new(store.read(entry).unwrap())], helix_objects::Durability::NoSync).unwrap();
    }
    let stopped = checkout(root.path(), tree, &lacking, &mut cache, &ScanPolicy::everything());
    assert!(matches!(stopped, Err(VersionError::Object(helix_objects::ObjectError::Missing(id))) if id == absent), "{stopped:?}");
    assert_eq!((cache.tree(), StatCache::open(&cache_file).unwrap().tree()), (None, None));
    let mut cache = StatCache::open(&cache_file).unwrap();
    checkout(root.path(), tree, &store, &mut cache, &ScanPolicy::everything()).unwrap();
    assert_eq!(scan_new(root.path(), &store).tree, tree);
    assert_eq!(StatCache::open(&cache_file).unwrap().tree(), Some(tree));
}

#[test]
fn a_saved_stat_cache_spares_reading_and_a_damaged_one_costs_only_time() {
    let (root, state, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(root.path().join("f"), "content").unwrap();
    // Older than any tick of the clock that the scan could start in.
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::open(root.path().join("f")).unwrap().set_modified(past).unwrap();
    let file = state.path().join("stat");
    let mut cache = StatCache::open(&file).unwrap();
    let found = scan(root.path(), None, &store, &mut cache, &ScanPolicy::everything()).unwrap();
    cache.save().unwrap();
    assert_eq!(StatCache::open(&file).unwrap().tree(), Some(found.tree));
    let bytes = fs::read(&file).unwrap();
    let cut = (0..bytes.len()).map(|at| bytes[..at].to_vec());
    let changed = (0..bytes.len()).map(|at| bytes.iter().enumerate().map(|(place, byte)| byte ^ u8::from(place == at)).collect());
    for damage in cut.chain(changed) {
        fs::write(&file, damage).unwrap();
        let mut damaged = StatCache::open(&file).unwrap();
        assert_eq!(damaged.tree(), None);
        assert_eq!(scan(root.path(), None, &store, &mut damaged, &ScanPolicy::everything()).unwrap().tree, found.tree);
    }
}

#[test]
fn content_that_the_store_has_lost_is_read_from_the_folder_again() {
    let (root, mut cache) = (tempfile::tempdir().unwrap(), StatCache::new());
    for count in 0..20 {
        fs::write(root.path().join(format!("f{count}")), format!("content {count}")).unwrap();
    }
    let first = scan(root.path(), None, &MemoryStore::new(), &mut cache, &ScanPolicy::everything()).unwrap();
    let empty = MemoryStore::new();
    let second = scan(root.path(), None, &empty, &mut cache, &ScanPolicy::everything()).unwrap();
    assert_eq!((second.tree, second.new_objects.len()), (first.tree, 21));
    assert_eq!(missing_closure(&empty, second.tree).unwrap(), vec![]);
    assert_eq!(second.objects(&empty).collect::<Result<Vec<_>, _>>().unwrap().len(), 21);
}

#[test]
fn changes_name_the_kind_and_the_new_size() {
    let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(root.path().join("kept"), "kept").unwrap();
    fs::write(root.path().join("edited"), "before").unwrap();
    fs::write(root.path().join("removed"), "gone").unwrap();
    let base = scan_new(root.path(), &store).tree;
    fs::write(root.path().join("edited"), "afterwards").unwrap();
    fs::remove_file(root.path().join("removed")).unwrap();
    fs::create_dir_all(root.path().join("new/empty")).unwrap();
    fs::write(root.path().join("new/file"), "12345").unwrap();
    let found = scan(root.path(), Some(base), &store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap();
    let change = |path: &str, kind, size| Change { path: path.into(), kind, size };
    let expected = vec![
        change("edited", ChangeKind::Modified, 10),
        change("new/empty/", ChangeKind::Added, 0),
        change("new/file", ChangeKind::Added, 5),
        change("removed", ChangeKind::Removed, 0),
    ];
    assert_eq!((found.changes, found.logical_bytes), (expected, 19));
}

#[test]
fn names_of_any_bytes_survive() {
    use std::os::unix::ffi::OsStrExt;
    let (root, there, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 \xff\n");
    fs::write(root.path().join(name), "x").unwrap();
    let found = scan_new(root.path(), &store);
    assert_eq!(found.changes[0].path, "caf\u{fffd} \u{fffd}\n");
    checkout(there.path(), found.tree, &store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap();
    assert_eq!(fs::read(there.path().join(name)).unwrap(), b"x");
}

#[test]
fn folders_without_permissions_do_not_stop_a_checkout() {
    let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let empty = scan_new(root.path(), &store).tree;
    fs::create_dir_all(root.path().join("locked/inner")).unwrap();
    fs::write(root.path().join("locked/inner/f"), "x").unwrap();
    for folder in ["locked/inner", "locked"] {
        fs::set_permissions(root.path().join(folder), fs::Permissions::from_mode(0o555)).unwrap();
    }
    checkout(root.path(), empty, &store, &mut StatCache::new(), &ScanPolicy::everything()).unwrap();
    assert!(!root.path().join("locked").exists());
}

#[test]
fn a_checkout_touches_only_what_differs() {
    let (root, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    for name in ["same", "changed"] {
        fs::write(root.path().join(name), name).unwrap();
    }
    let mut cache = StatCache::new();
    let before = scan(root.path(), None, &store, &mut cache, &ScanPolicy::everything()).unwrap().tree;
    fs::write(root.path().join("changed"), "otherwise").unwrap();
    scan(root.path(), Some(before), &store, &mut cache, &ScanPolicy::everything()).unwrap();
    let inode = fs::metadata(root.path().join("same")).unwrap().ino();
    let done = checkout(root.path(), before, &store, &mut cache, &ScanPolicy::everything()).unwrap();
    assert_eq!((done.written, done.kept, done.removed), (1, 1, 0));
    assert_eq!(fs::metadata(root.path().join("same")).unwrap().ino(), inode);
}

#[test]
fn trees_that_others_made_are_bounded_in_depth() {
    let store = MemoryStore::new();
    let mut id = Tree::default().encode();
    for _ in 0..400 {
        store.put(std::slice::from_ref(&id), helix_objects::Durability::NoSync).unwrap();
        let entry = crate::TreeEntry { name: b"d".to_vec(), mode: FileMode::Directory, size: 0, id: id.id() };
        id = Tree::new(vec![entry]).unwrap().encode();
    }
    store.put(std::slice::from_ref(&id), helix_objects::Durability::NoSync).unwrap();
    let root = tempfile::tempdir().unwrap();
    assert!(walk(&store, id.id()).is_err());
    assert!(missing_closure(&store, id.id()).is_err());
    assert!(objects_between(&store, None, id.id()).is_err());
    assert!(checkout(root.path(), id.id(), &store, &mut StatCache::new(), &ScanPolicy::everything()).is_err());
}
