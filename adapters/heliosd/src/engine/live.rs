//! What is in memory of all repositories: the trees of working folders and of heads (L0) together under one bound, and compressed
//! content (L1) under another. Each bound is the largest that the settings of an open repository say.
//!
//! Each holder says at the end of a command what it has in memory by then. Whatever a command is in stays, so the bounds hold
//! between commands; while they run it is more by the trees that they are in, and by the content that they read.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use helix_versions::WorkspaceName;
use parking_lot::Mutex;

use super::{Engine, OpenRepository, Place, SharedFolder};
use crate::memory;

/// What is in memory together.
#[derive(Default)]
pub struct Live {
    trees: Total,
    content: Total,
    /// What the settings of each open repository say.
    said: Mutex<Vec<Weak<Mutex<Bounds>>>>,
    /// Held by who makes room.
    making_room: Mutex<()>,
}

/// What may be in memory of a repository, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of trees (L0).
    pub trees: usize,
    /// Of compressed content (L1).
    pub content: usize,
}

/// The sum of all shares, in bytes.
#[derive(Clone, Default)]
pub struct Total(Arc<AtomicUsize>);

/// One holder's part of the total, and nothing of it once it is dropped.
pub struct Share {
    total: Total,
    bytes: Mutex<usize>,
}

/// Something that can be let go.
enum Held {
    Folder(Weak<SharedFolder>),
    Tree(Place, WorkspaceName),
}

impl Live {
    /// What all trees take.
    pub fn trees(&self) -> &Total {
        &self.trees
    }

    /// What all compressed content takes.
    pub fn content(&self) -> &Total {
        &self.content
    }

    /// A repository's bounds, which count until they are dropped.
    pub fn say(&self, bounds: Bounds) -> Arc<Mutex<Bounds>> {
        let (said, mut all) = (Arc::new(Mutex::new(bounds)), self.said.lock());
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&said));
        said
    }

    /// The largest that an open repository says.
    fn bounds(&self) -> Bounds {
        let said = self.said.lock().iter().filter_map(Weak::upgrade).map(|said| *said.lock()).collect::<Vec<_>>();
        let most = |of: fn(&Bounds) -> usize| said.iter().map(of).max().unwrap_or(0);
        Bounds { trees: most(|said| said.trees), content: most(|said| said.content) }
    }
}

impl Total {
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Share {
    /// A part of this total, of nothing yet.
    pub fn of(total: &Total) -> Self {
        Self { total: total.clone(), bytes: Mutex::new(0) }
    }

    /// The holder has so many bytes now.
    pub fn set(&self, bytes: usize) {
        let mut before = self.bytes.lock();
        self.total.0.fetch_add(bytes.wrapping_sub(*before), Ordering::Relaxed);
        *before = bytes;
    }

    /// What the holder had when it was asked last, in bytes.
    pub fn bytes(&self) -> usize {
        *self.bytes.lock()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Engine {
    /// Memory that the trees of all repositories take (L0), in bytes, as of the last command in each.
    pub fn live_bytes(&self) -> usize {
        self.live.trees.bytes()
    }

    /// Memory that compressed content of all repositories takes (L1), in bytes, as of the last command in each.
    pub fn content_bytes(&self) -> usize {
        self.live.content.bytes()
    }

    /// Lets go of what was used longest ago, until what is left is within the bounds: after each command, and within those that go
    /// from folder to folder.
    pub fn make_room(&self) {
        let bounds = self.live.bounds();
        if self.live_bytes() <= bounds.trees && self.content_bytes() <= bounds.content {
            return;
        }
        // Who is at it sees this too, or the next one does.
        let Some(_alone) = self.live.making_room.try_lock() else { return };
        let before = (self.live_bytes(), self.content_bytes());
        self.let_go_of_trees(bounds.trees);
        self.let_go_of_content(bounds.content);
        let after = (self.live_bytes(), self.content_bytes());
        if after != before {
            tracing::info!(?before, ?after, "trees and content in memory were let go for room");
            memory::give_back();
        }
    }

    fn let_go_of_content(&self, limit: usize) {
        if self.content_bytes() <= limit {
            return;
        }
        // With some room beyond that, so that not every command has to make some.
        let enough = limit - limit / 10;
        let mut all: Vec<(Duration, Arc<OpenRepository>)> = Vec::new();
        for place in self.open.lock().values() {
            if let Some(Some(open)) = place.try_lock().as_deref() {
                all.push((open.unused_for(), Arc::clone(open)));
            }
        }
        all.sort_by_key(|(unused, _)| Reverse(*unused));
        for (_, open) in all {
            let above = self.content_bytes().saturating_sub(enough);
            if above == 0 {
                break;
            }
            open.keep_content(open.content_bytes().saturating_sub(above));
        }
    }

    fn let_go_of_trees(&self, limit: usize) {
        let mut held = self.held();
        held.sort_by_key(|(used, _)| *used);
        for (_, held) in held {
            if self.live_bytes() <= limit {
                break;
            }
            match held {
                Held::Folder(folder) => {
                    if let Some(folder) = folder.upgrade() {
                        folder.let_go();
                    }
                }
                Held::Tree(place, workspace) => {
                    if let Some(Some(open)) = place.try_lock().as_deref() {
                        open.let_go_of_tree(&workspace);
                    }
                }
            }
        }
    }

    /// Every tree that is in memory, with when it was used last.
    fn held(&self) -> Vec<(Instant, Held)> {
        let places: Vec<Place> = self.open.lock().values().map(Arc::clone).collect();
        let mut held = Vec::new();
        for place in places {
            let guard = place.try_lock();
            let Some(Some(open)) = guard.as_deref() else { continue };
            let folders = open.held_folders().into_iter();
            held.extend(folders.map(|folder| (folder.used(), Held::Folder(Arc::downgrade(&folder)))));
            let trees = open.repository.live_uses().into_iter();
            held.extend(trees.map(|tree| (tree.used, Held::Tree(Arc::clone(&place), tree.workspace))));
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    use helios_client::{Run, Text};
    use helix_objects::{MemoryStore, hash};
    use helix_versions::{Events, FolderRules, WorkingFolder};

    use super::*;
    use crate::commands;
    use crate::console::Sink;

    const FILES: usize = 300;
    /// So many trees of a folder's size have room.
    const ROOM: usize = 4;

    /// Tells of nothing but what went wrong.
    struct Quiet;

    impl Sink for Quiet {
        fn stdout(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
            eprint!("{}", String::from_utf8_lossy(bytes));
            Ok(())
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    /// An engine in which a few folders have room, and the place where they are.
    struct Small {
        engine: Engine,
        place: tempfile::TempDir,
        /// What every repository of it is told, in bytes.
        room: usize,
    }

    impl Small {
        /// With a repository `main`, which has one commit.
        fn new() -> Self {
            let mut small = Self { engine: Engine::new(None), place: tempfile::tempdir().unwrap(), room: 1 << 30 };
            let main = small.repository("main");
            small.room = ROOM * small.engine.live_bytes();
            small.bound_trees(&main);
            // New settings have folders opened anew.
            small.run(&main, &["status"]);
            small
        }

        fn bound_trees(&self, root: &Path) {
            self.run(root, &["config", "set", "performance.l0_cache_size", &self.room.to_string()]);
        }

        fn path(&self, name: &str) -> PathBuf {
            self.place.path().canonicalize().unwrap().join(name)
        }

        /// As a session does it.
        fn run(&self, folder: &Path, argv: &[&str]) {
            let run = Run {
                argv: argv.iter().map(|text| Text::new(text.as_bytes())).collect(),
                cwd: Text::new(folder.to_str().unwrap().as_bytes()),
                env: BTreeMap::new(),
                columns: 0,
                colour: false,
                offset_minutes: Some(0),
            };
            assert_eq!(commands::run(&self.engine, run, &mut Quiet), 0, "{argv:?}");
            self.engine.make_room();
            let (bytes, content, bounds) = (self.engine.live_bytes(), self.engine.content_bytes(), self.engine.live.bounds());
            assert!(bytes <= bounds.trees && content <= bounds.content, "{bytes} and {content} bytes are held, and {bounds:?}");
        }

        fn commit(&self, folder: &Path) {
            self.run(folder, &["commit", "-m", "next", "--work", "."]);
        }

        fn repository(&self, name: &str) -> PathBuf {
            let root = self.path(name);
            for number in 0..FILES {
                let folder = root.join(format!("d{}", number / 50));
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(format!("file{number}.py")), format!("content {number}")).unwrap();
            }
            self.run(&root, &["init"]);
            self.bound_trees(&root);
            self.commit(&root);
            root
        }

        fn open(&self, root: &Path) -> Arc<OpenRepository> {
            let place = Arc::clone(&self.engine.open.lock()[root]);
            let open = place.lock().as_ref().map(Arc::clone);
            open.unwrap()
        }

        fn held(&self, root: &Path) -> usize {
            self.open(root).held_folders().len()
        }
    }

    #[test]
    fn folders_of_one_repository_are_bounded_and_what_was_let_go_commits_what_is_there() {
        let small = Small::new();
        small.engine.make_room();
        let main = small.path("main");
        let workspaces: Vec<PathBuf> = (0..3 * ROOM).map(|number| small.path(&format!("w{number}"))).collect();
        for folder in &workspaces {
            small.run(&main, &["workspace", "add", folder.to_str().unwrap()]);
            fs::write(folder.join("own.py"), folder.to_str().unwrap()).unwrap();
            small.commit(folder);
            small.run(&main, &["status"]);
            let open = small.open(&main);
            assert!(open.held_folders().iter().any(|folder| folder.lock().root() == main), "what is in use stays");
        }
        assert!((2..=ROOM).contains(&small.held(&main)), "{} are held", small.held(&main));
        let open = small.open(&main);
        let first = &workspaces[0];
        assert!(!open.held_folders().iter().any(|folder| folder.lock().root() == first), "it was used before all others");

        fs::write(first.join("d0/file0.py"), "changed").unwrap();
        fs::write(first.join("new.py"), "new").unwrap();
        fs::remove_file(first.join("d1/file50.py")).unwrap();
        small.commit(first);
        let state = tempfile::tempdir().unwrap();
        let rules = FolderRules { events: Events::Ignore, ..FolderRules::default() };
        let mut anew = WorkingFolder::open(first, state.path(), rules).unwrap();
        let there = anew.status(&MemoryStore::new(), None).unwrap().tree;
        let head = open.repository.head(&"w0".parse().unwrap()).unwrap();
        assert_eq!(open.repository.tree_of(&head).unwrap(), there);
    }

    #[test]
    fn folders_of_many_repositories_have_one_bound_and_the_least_recently_used_goes() {
        let small = Small::new();
        let roots: Vec<PathBuf> = (0..2 * ROOM).map(|number| small.repository(&format!("r{number}"))).collect();
        assert_eq!((small.held(&small.path("main")), small.held(&roots[0])), (0, 0));
        assert_eq!(small.held(&roots[2 * ROOM - 1]), 1);
        small.engine.close();
        assert_eq!(small.engine.live_bytes(), 0, "nothing is counted of what is closed");
    }

    #[test]
    fn a_folder_that_is_in_use_while_settings_change_is_opened_with_them_by_the_next_command_after_that() {
        let small = Small::new();
        let main = small.path("main");
        let open = small.open(&main);
        let in_use = open.held_folders().remove(0);
        small.run(&main, &["config", "set", "workspace.file_cap", "1KB"]);
        small.run(&main, &["status"]);
        assert!(Arc::ptr_eq(&in_use, &open.held_folders()[0]), "two that are open for one folder would not know of each other");
        let before = Arc::downgrade(&in_use);
        drop(in_use);
        small.run(&main, &["status"]);
        assert!(before.upgrade().is_none());
        assert_eq!(small.held(&main), 1);
    }

    #[test]
    fn a_repository_that_somebody_enters_at_the_moment_keeps_what_it_has() {
        let small = Small::new();
        let main = small.path("main");
        let place = Arc::clone(&small.engine.open.lock()[&main]);
        let before = (small.engine.live_bytes(), small.held(&main));
        let entering = place.lock();
        small.engine.make_room();
        drop(entering);
        assert_eq!((small.engine.live_bytes(), small.held(&main)), before);
        small.engine.close();
        drop(place);
        assert_eq!(small.engine.live.bounds(), Bounds { trees: 0, content: 0 }, "who is closed says nothing");
    }

    #[test]
    fn trees_of_heads_are_under_the_same_bound() {
        let small = Small::new();
        let (main, other) = (small.path("main"), small.repository("other"));
        let main_workspace = WorkspaceName::main();
        let folders = small.engine.live_bytes();
        let open = small.open(&main);
        for number in 0..FILES {
            let path = format!("d{}/file{number}.py", number / 50);
            assert!(open.repository.read_file(&main_workspace, path.as_bytes()).unwrap().is_some());
        }
        open.note_memory();
        assert!(small.engine.live_bytes() > folders, "what is kept of a head counts");
        let kept = open.repository.live_bytes().unwrap();
        drop(open);
        // The folders are older, and they are not enough.
        let small = Small { room: kept - 1, ..small };
        small.bound_trees(&other);
        small.run(&other, &["status"]);
        assert!(small.engine.live_bytes() > kept, "a repository that says more has its way");
        small.bound_trees(&main);
        assert_eq!((small.engine.live_bytes(), small.held(&main), small.held(&other)), (0, 0, 0));
        assert!(small.open(&main).repository.read_file(&main_workspace, b"d0/file0.py").unwrap().is_some());
    }

    #[test]
    fn compressed_content_of_many_repositories_has_one_bound_and_what_was_used_longest_ago_goes() {
        const MOST: usize = 256 << 10;
        let small = Small::new();
        // What cannot be compressed, and more of it than the bound.
        let noise = |name: String| -> Vec<u8> { (0..128).flat_map(|block| hash(format!("{name} {block}").as_bytes()).0).collect() };
        let roots: Vec<PathBuf> = ["main", "r1", "r2"].map(|name| small.path(name)).into();
        roots[1..].iter().for_each(|root| drop(small.repository(root.file_name().unwrap().to_str().unwrap())));
        let mut kept = Vec::new();
        for root in &roots {
            small.run(root, &["config", "set", "performance.l1_cache_size", &MOST.to_string()]);
        }
        for root in &roots {
            (0..100).for_each(|file| fs::write(root.join(format!("noise{file}")), noise(format!("{root:?} {file}"))).unwrap());
            small.commit(root);
            kept.push(small.open(root).content_bytes());
        }
        assert!(kept.iter().all(|bytes| *bytes > MOST / 2), "whoever was last keeps its own: {kept:?}");
        let left: Vec<usize> = roots.iter().map(|root| small.open(root).content_bytes()).collect();
        assert!(left[0] < MOST / 8 && left[1] < MOST / 2 && left[2] == kept[2], "{left:?} of {kept:?}");
    }
}
