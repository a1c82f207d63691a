//! A repository that is open: its store, its history, and the working folders that commands are in.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use helix_objects::{Cached, Mark, ObjectStore, RecordStore, write_no_follow};
use helix_protocol::{Code, Failure, ObjectId};
use helix_rocks::RocksStore;
use helix_versions::{Events, FolderRules, Repository, WorkingFolder, WorkspaceName};
use parking_lot::{Mutex, MutexGuard};

use super::changes::Changes;
use super::live::{Bounds, Live, Share, Total};
use super::location::Location;
use super::meter::Meter;
use super::settings::Settings;
use super::shared::SharedFolder;
use super::store::{self, Pin, PinnedStore};
use super::upkeep::{Due, Rhythm};
use crate::console::Console;
use crate::git_config::GitConfig;

/// A repository with everything that is open of it. It has the store's lock until it is dropped.
pub struct OpenRepository {
    /// The main working folder.
    pub root: PathBuf,
    /// The store, with compressed content in memory.
    pub store: Arc<Cached<RocksStore>>,
    /// Its history.
    pub repository: Repository,
    /// What is counted and timed.
    pub meter: Meter,
    /// Wakes those who watch.
    pub changes: Arc<Changes>,
    /// The store's folder when it was opened: another one may have its name by now.
    identity: Option<(u64, u64)>,
    rhythm: Mutex<Rhythm>,
    settings: Mutex<Settings>,
    folders: Mutex<HashMap<WorkspaceName, Folder>>,
    /// What the trees in memory of the engine's repositories take, and what of it those of this one's heads take.
    live: Total,
    trees: Share,
    /// What of all compressed content in memory is this one's.
    content: Share,
    bounds: Arc<Mutex<Bounds>>,
    used: Mutex<Instant>,
    /// It has let go of memory since it was used last.
    rested: AtomicBool,
    /// Names the store's folder: see [`PinnedStore`]. It is the last field, so it goes after the store.
    pin: Pin,
}

/// The file that says up to which write a repository is packed.
const PACKED: &str = "packed";
/// The file of a workspace's state that names the trees between which its files are.
pub const MOVING: &str = "moving";
/// So much compressed content stays in memory while nobody uses a repository.
const RESTING_CACHE_BYTES: usize = 16 << 20;

type Folder = Arc<SharedFolder>;

impl OpenRepository {
    /// Opens the repository at a location, waiting for whoever has its store. What is in memory of it is a part of `live`.
    pub fn open(location: &Location, live: &Live, console: &mut Console<'_>) -> Result<Self, Failure> {
        let settings = Settings::read(&location.own_folder())?;
        let rules = rules(&location.repository, &settings);
        let folder = looked_at_ahead(location, rules, live.trees());
        let PinnedStore { store, pin } = PinnedStore::open(location, &settings, console)?;
        let folders = folder.and_then(|folder| Some((location.workspace.clone(), folder.recv().ok()?)));
        let repository = Repository::open(Arc::clone(&store) as Arc<dyn RecordStore>).map_err(|error| match error {
            helix_versions::VersionError::Unknown { .. } => half_made(&location.repository),
            error => error.into(),
        })?;
        let bounds = settings.bounds();
        repository.set_live_limit(bounds.trees);
        Ok(Self {
            root: location.repository.clone(),
            pin,
            identity: identity(&location.repository),
            rhythm: Mutex::new(Rhythm::new(packed(&location.own_folder()), store.store().mark())),
            store,
            repository,
            meter: Meter::default(),
            changes: Arc::default(),
            settings: Mutex::new(settings),
            folders: Mutex::new(folders.into_iter().collect()),
            live: live.trees().clone(),
            trees: Share::of(live.trees()),
            content: Share::of(live.content()),
            bounds: live.say(bounds),
            used: Mutex::new(Instant::now()),
            rested: AtomicBool::new(false),
        })
    }

    /// Refuses a folder that says it is a workspace which has another folder here: it was moved or copied, or came with a clone.
    pub fn admit(&self, location: &Location) -> Result<(), Failure> {
        let Location { repository, workspace, root } = location;
        if *workspace == WorkspaceName::main() {
            return Ok(());
        }
        let recorded = self.repository.workspace(workspace)?.root;
        if *root == *recorded || fs::canonicalize(&recorded).is_ok_and(|recorded| recorded == *root) {
            return Ok(());
        }
        let place = if recorded.is_empty() { "has no folder" } else { &format!("is in {recorded}") };
        let (root, repository) = (root.display(), repository.display());
        let message = format!("{root} says that it is workspace {workspace} of {repository}, and that workspace {place}");
        Err(Failure::new(Code::Forbidden, message).hint(format!(
            "where it was moved here, `helios workspace repair {root}` in {repository} says so\n\
             where it is a copy or came with a clone, delete its file .helios"
        )))
    }

    /// The working folder of a workspace. Who holds it works in it alone; others queue.
    pub fn folder(&self, location: &Location) -> Result<Folder, Failure> {
        let mut folders = self.folders.lock();
        let stays = |folder: &&Folder| {
            // Two that are open for one folder would not know of each other.
            let is_free = Arc::strong_count(folder) == 1;
            !(is_free && folder.is_outdated()) && folder.try_lock().is_none_or(|open| open.root() == location.root)
        };
        if let Some(folder) = folders.get(&location.workspace).filter(stays) {
            return Ok(Arc::clone(folder));
        }
        let state = location.state();
        fs::create_dir_all(&state).map_err(|error| Failure::io(state.display(), &error))?;
        let opened = WorkingFolder::open(&location.root, &state, rules(&self.root, &self.settings()))?;
        let opened = Arc::new(SharedFolder::new(opened, &self.live));
        folders.insert(location.workspace.clone(), Arc::clone(&opened));
        Ok(opened)
    }

    /// Forgets a workspace's folder.
    pub fn forget_folder(&self, workspace: &WorkspaceName) {
        self.folders.lock().remove(workspace);
    }

    /// Lets every folder go, so that the next command opens it with the present settings; one that a command is in once that has
    /// ended.
    fn reopen_folders(&self) {
        self.folders.lock().retain(|_, folder| {
            folder.outdate();
            Arc::strong_count(folder) > 1
        });
    }

    /// The working folders whose trees are in memory.
    pub fn held_folders(&self) -> Vec<Arc<SharedFolder>> {
        self.folders.lock().values().filter(|folder| folder.bytes() > 0).map(Arc::clone).collect()
    }

    /// Memory that the working folders' trees take, in bytes.
    pub fn folder_bytes(&self) -> usize {
        self.folders.lock().values().map(|folder| folder.bytes()).sum()
    }

    /// Notes what the trees of heads and the compressed content have in memory. Where somebody writes, that command notes the trees
    /// at its end.
    pub fn note_memory(&self) {
        if let Some(bytes) = self.repository.live_bytes() {
            self.trees.set(bytes);
        }
        self.content.set(usize::try_from(self.store.cache_stats().bytes).unwrap_or(usize::MAX));
    }

    /// Lets go of the tree of a workspace's head.
    pub fn let_go_of_tree(&self, workspace: &WorkspaceName) {
        self.repository.let_go_of_tree(workspace);
        self.note_memory();
    }

    /// Memory that its compressed content took at the end of the last command, in bytes.
    pub fn content_bytes(&self) -> usize {
        self.content.bytes()
    }

    /// Keeps about so many bytes of the compressed content that was used last.
    pub fn keep_content(&self, bytes: usize) {
        self.store.shrink(bytes);
        self.note_memory();
    }

    /// Reads the settings again where somebody edited the file.
    pub fn refresh_settings(&self) -> Result<(), Failure> {
        if self.settings.lock().refresh()? {
            self.follow_settings();
        }
        Ok(())
    }

    /// Goes by the settings as they are now, also in the folders that are open. What the database was opened with stays until it is
    /// opened again.
    pub fn follow_settings(&self) {
        let bounds = self.settings().bounds();
        if std::mem::replace(&mut *self.bounds.lock(), bounds) != bounds {
            self.repository.set_live_limit(bounds.trees);
            self.store.set_limit(bounds.content);
        }
        self.reopen_folders();
    }

    /// The settings.
    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock()
    }

    /// Says that it is in use.
    pub fn touch(&self) {
        *self.used.lock() = Instant::now();
        self.tire();
    }

    /// Says that there may be memory to let go of again.
    pub fn tire(&self) {
        self.rested.store(false, Ordering::Release);
    }

    /// Lets go of memory that can be had again, once after each time it was used. Says whether it did.
    pub fn rest(&self) -> bool {
        if self.rested.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.repository.rest();
        self.keep_content(RESTING_CACHE_BYTES);
        if let Err(error) = self.store.store().rest() {
            tracing::warn!(%error, root = %self.root.display(), "what is buffered of a repository stays in memory");
        }
        true
    }

    /// How long nobody has used it.
    pub fn unused_for(&self) -> Duration {
        self.used.lock().elapsed()
    }

    /// What is due for it, if nobody is using it.
    pub fn due(&self) -> Due {
        let collected = self.settings().flag("cleanup.auto_gc_enabled").then(|| self.since_collection());
        let due = self.rhythm.lock().take(self.unused_for(), self.store.store().mark(), collected);
        if due == Due::Collect {
            // Where it cannot be written there is only one more collection.
            let _ = write_no_follow(&self.collected_file(), b"");
        }
        due
    }

    /// How long ago the last collection by itself was; the file's time survives the engine.
    fn since_collection(&self) -> Duration {
        let written = fs::metadata(self.collected_file()).and_then(|found| found.modified());
        written.map_or(Duration::MAX, |written| written.elapsed().unwrap_or_default())
    }

    fn collected_file(&self) -> PathBuf {
        self.own_folder().join("collected")
    }

    /// Remembers, for the next engine too, up to where it is packed.
    pub fn packed_up_to(&self, mark: Mark) {
        *self.rhythm.lock() = Rhythm::new(mark, mark);
        // Where it cannot be written the next engine packs once more.
        let _ = write_no_follow(&self.own_folder().join(PACKED), mark.0.to_string().as_bytes());
    }

    /// What files in workspaces are, or become, whose way from one tree to another is noted (`commands::unfinished`): a head that has
    /// moved already names what they were no more.
    pub fn trees_on_their_way(&self) -> Vec<ObjectId> {
        let workspaces = fs::read_dir(self.own_folder().join("workspaces")).into_iter().flatten().flatten();
        let notes = workspaces.filter_map(|workspace| fs::read_to_string(workspace.path().join(MOVING)).ok());
        notes.flat_map(|note| note.lines().filter_map(|line| line.parse().ok()).collect::<Vec<ObjectId>>()).collect()
    }

    fn own_folder(&self) -> PathBuf {
        self.root.join(super::location::MARKER)
    }

    /// A failure with the path that people know instead of the one that the store was opened by.
    pub fn plain(&self, failure: Failure) -> Failure {
        self.pin.plain(failure)
    }

    /// Whether the store's folder is still the one that was opened: it may have been moved, deleted or replaced.
    pub fn is_still_there(&self) -> bool {
        self.identity.is_some() && self.identity == identity(&self.root)
    }

    /// Whether another process waits for the store.
    pub fn is_wanted(&self) -> bool {
        store::is_wanted(&self.own_folder())
    }

    /// Remembers what is known of the folders, writes what is buffered, and lets the store go.
    pub fn close(&self) {
        for folder in self.folders.lock().values() {
            if let Err(error) = folder.lock().save() {
                tracing::warn!(%error, root = %self.root.display(), "what is known of a folder's files was not kept");
            }
        }
        if let Err(error) = self.store.close() {
            tracing::error!(%error, root = %self.root.display(), "the store was not closed well");
        }
    }
}

/// Begins to look at a folder that an earlier engine knew, while its store is opened. Where the folder cannot be opened nothing is
/// received, and whoever asks for it learns why. Who wants to work in it waits until it was looked at; nobody else does.
fn looked_at_ahead(location: &Location, rules: FolderRules, live: &Total) -> Option<Receiver<Folder>> {
    let (root, state, live) = (location.root.clone(), location.state(), live.clone());
    if !state.join("stat").is_file() {
        return None;
    }
    let (send, opened) = sync_channel(1);
    let look = move || {
        let Ok(folder) = WorkingFolder::open(&root, &state, rules) else { return };
        let folder = Arc::new(SharedFolder::new(folder, &live));
        let mut turn = folder.lock();
        if send.send(Arc::clone(&folder)).is_ok() {
            turn.look_ahead();
            folder.used_by(&turn);
        }
    };
    thread::Builder::new().name("look".to_owned()).spawn(look).ok().map(|_| opened)
}

/// Up to where an earlier engine packed a repository.
fn packed(own_folder: &Path) -> Mark {
    let text = fs::read_to_string(own_folder.join(PACKED)).unwrap_or_default();
    Mark(text.parse().unwrap_or_default())
}

/// What tells a store's folder from another of the same name.
fn identity(root: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(Location::main(root.to_owned()).store()).ok()?;
    Some((found.dev(), found.ino()))
}

/// What is followed of a folder of the repository in `root`.
fn rules(root: &Path, settings: &Settings) -> FolderRules {
    let events = if settings.flag("workspace.events") { Events::Use } else { Events::Ignore };
    let is_broad = root.join(super::location::MARKER).join("broad").exists();
    let breadth = if is_broad { helix_versions::Breadth::Allow } else { helix_versions::Breadth::Refuse };
    // The engine has the environment of the command that started it.
    let excludes = GitConfig::read(|name| std::env::var_os(name), root).excludes.into_iter().collect();
    FolderRules { file_cap_bytes: settings.bytes("workspace.file_cap"), excludes, breadth, events }
}

fn half_made(root: &Path) -> Failure {
    let message = format!("{} was never made whole: its making was interrupted", root.display());
    Failure::new(Code::InvalidState, message).hint("`helios init` finishes it")
}
