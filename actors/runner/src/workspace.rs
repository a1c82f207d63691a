//! One task's workspace: its folder, what is known of it, and the locks that keep its users apart.
//!
//! Layout, below the worker's folder: `tasks/TASK/files` is the workspace itself, beside it `state.json`
//! (what a new incarnation must know), `stat` (the stat cache), `todo.json` and `output/` (spools).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_kernel::Secrets;
use helix_protocol::{CallKey, Code, Environment, Epoch, ExitReport, Failure, ObjectId, TaskId};
use helix_versions::{ScanPolicy, StatCache};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use crate::command::{DYING, Stopper};
use crate::processes::ProcessSet;
use crate::sandbox::Sandbox;
use crate::spool::OUTPUT;

/// Below a worker's folder: its tasks.
pub const TASKS: &str = "tasks";
/// Below a task's folder: the workspace itself.
pub const FILES: &str = "files";
/// The largest file that snapshots carry until a node says otherwise.
const FILE_CAP: u64 = 64 << 20;
/// Outputs that wait for the node, at most.
const MOST_OUTPUTS: usize = 64;

/// A task's workspace.
#[derive(Debug)]
pub struct Workspace {
    /// The task.
    pub task: TaskId,
    home: PathBuf,
    /// What is known.
    pub state: Mutex<State>,
    /// Used by calls; held alone while the workspace changes hands.
    pub gate: Arc<RwLock<()>>,
    /// Used by tools that change files; held alone while a snapshot is taken.
    pub files: Arc<RwLock<()>>,
    /// The stat cache, used on blocking threads.
    pub stats: Mutex<StatCache>,
    running: Mutex<HashMap<CallKey, Stopper>>,
    /// What was last written.
    written: Mutex<Option<Kept>>,
    /// Something may run that a command of this incarnation started.
    busy: AtomicBool,
    /// What its commands run in, made for the first one of an opening.
    sandbox: tokio::sync::Mutex<Option<Walls>>,
}

/// What is known of a workspace.
#[derive(Debug)]
pub struct State {
    /// What survives the worker's process.
    pub kept: Kept,
    /// It was opened by this incarnation, whole: calls find the environment they were promised.
    pub opened: bool,
    /// Which opening that was.
    pub opening: Opening,
    /// It is being closed, and nobody has opened it since.
    pub closing: bool,
    /// It holds exactly `kept.tree`, and what a set-up that succeeded made.
    pub clean: bool,
    /// What commands find around them.
    pub environment: Environment,
    /// Secret variables.
    pub secrets: Vec<(String, String)>,
    /// The same, for masking.
    pub masks: Secrets,
    /// Ports.
    pub ports: Vec<u16>,
    /// Larger files are not carried.
    pub file_cap_bytes: u64,
    outputs: Outputs,
}

/// A sandbox with what it was made for.
#[derive(Debug)]
struct Walls {
    opening: Opening,
    environment: Environment,
    sandbox: Arc<Sandbox>,
}

/// One opening of a workspace, named after its epoch. What is begun under it is void once the workspace is opened under a
/// greater one, or closed. An adoption raises the epoch and leaves this as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening(pub Epoch);

/// What a new incarnation of the worker must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The task.
    pub task: TaskId,
    /// The greatest epoch it was opened under.
    pub epoch: Epoch,
    /// The tree it last checked out or snapshotted.
    pub tree: ObjectId,
    /// The set-up that was run last.
    #[serde(default)]
    pub setup: Option<SetUp>,
}

/// A set-up that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// Of the command and its lockfiles.
    pub fingerprint: ObjectId,
    /// The tree it was run in, which does not have what it made.
    pub on: ObjectId,
}

/// Outputs of ended commands, as objects the node lacks until a snapshot brought them.
#[derive(Debug, Default)]
struct Outputs {
    waiting: Vec<ObjectId>,
    sent: Vec<ObjectId>,
    since: Option<ObjectId>,
}

impl Workspace {
    /// A workspace nobody has opened yet.
    pub fn new(tasks: &Path, task: TaskId) -> Self {
        let kept = Kept { task, epoch: Epoch(0), tree: ObjectId([0; 32]), setup: None };
        Self::with(tasks, kept, StatCache::new())
    }

    /// The workspaces that an earlier incarnation left. What cannot be read is left alone and named in the log.
    pub fn left_in(tasks: &Path) -> Vec<Self> {
        let homes = fs::read_dir(tasks).into_iter().flatten().flatten().map(|entry| entry.path());
        homes
            .filter_map(|home| {
                let kept = fs::read(home.join("state.json")).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
                let Some(kept) = kept.filter(|kept| home == tasks.join(kept.task.to_string())) else {
                    tracing::warn!(folder = %home.display(), "not a workspace");
                    return None;
                };
                let stats = StatCache::open(&home.join("stat")).unwrap_or_default();
                Some(Self::with(tasks, kept, stats))
            })
            .collect()
    }

    fn with(tasks: &Path, kept: Kept, stats: StatCache) -> Self {
        let state = State {
            opened: false,
            opening: Opening(kept.epoch),
            closing: false,
            clean: false,
            environment: Environment::default(),
            secrets: Vec::new(),
            masks: Secrets::default(),
            ports: Vec::new(),
            file_cap_bytes: FILE_CAP,
            outputs: Outputs::default(),
            kept,
        };
        Self {
            task: state.kept.task,
            home: tasks.join(state.kept.task.to_string()),
            state: Mutex::new(state),
            gate: Arc::default(),
            files: Arc::default(),
            stats: Mutex::new(stats),
            running: Mutex::default(),
            written: Mutex::default(),
            busy: AtomicBool::new(false),
            sandbox: tokio::sync::Mutex::default(),
        }
    }

    /// The workspace itself.
    pub fn root(&self) -> PathBuf {
        self.home.join(FILES)
    }

    /// Where spools are.
    pub fn output(&self) -> PathBuf {
        self.home.join(OUTPUT)
    }

    /// Where sandboxed commands put temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// The sandbox of an opening with this environment: the one there is, or another one, made as `make` says, also where nothing
    /// runs in the one there is and folders that it has listed were changed since.
    pub async fn sandbox<M: Future<Output = Result<Sandbox, Failure>>>(
        &self,
        opening: Opening,
        environment: &Environment,
        make: impl FnOnce() -> M,
    ) -> Result<Arc<Sandbox>, Failure> {
        // Two commands that begin at once wait for one sandbox.
        let mut kept = self.sandbox.lock().await;
        if let Some(walls) = &*kept
            && walls.opening == opening
            && walls.environment == *environment
            && walls.sandbox.stands()
            && (walls.sandbox.policy().is_current() || self.is_lived_in(&walls.sandbox).await)
        {
            return Ok(Arc::clone(&walls.sandbox));
        }
        let sandbox = Arc::new(make().await?);
        *kept = Some(Walls { opening, environment: environment.clone(), sandbox: Arc::clone(&sandbox) });
        Ok(sandbox)
    }

    /// Whether something runs in its sandbox, which commands in another one would not reach.
    async fn is_lived_in(&self, sandbox: &Sandbox) -> bool {
        let (processes, own) = (self.processes(), sandbox.process());
        let found = tokio::task::spawn_blocking(move || processes.find().iter().any(|process| Some(process.pid) != own)).await;
        found.unwrap_or(true)
    }

    /// Ends its sandbox. Whatever ran inside is ended before.
    pub async fn leave_sandbox(&self) {
        *self.sandbox.lock().await = None;
    }

    /// The list of what is to be done.
    pub fn todo(&self) -> PathBuf {
        self.home.join("todo.json")
    }

    /// Makes the folders, and opens the stat cache where there is none in memory.
    pub fn prepare(&self) -> Result<(), Failure> {
        let root = self.root();
        fs::create_dir_all(&root).map_err(|error| Failure::io(root.display(), &error))?;
        let mut stats = self.stats.lock();
        if stats.tree().is_none() {
            *stats = StatCache::open(&self.home.join("stat"))?;
        }
        Ok(())
    }

    /// Writes what a new incarnation must know.
    pub fn remember(&self) -> Result<(), Failure> {
        let kept = self.state.lock().kept.clone();
        let mut written = self.written.lock();
        if written.as_ref() == Some(&kept) {
            return Ok(());
        }
        let text = serde_json::to_vec(&kept).expect("numbers and strings can always be encoded");
        let (file, draft) = (self.home.join("state.json"), self.home.join("state.new"));
        let write = || {
            fs::create_dir_all(&self.home)?;
            fs::write(&draft, text)?;
            fs::rename(&draft, &file)
        };
        write().map_err(|error| Failure::io(file.display(), &error))?;
        *written = Some(kept);
        Ok(())
    }

    /// The opening under which its owner's calls begin. Refuses with `stale_owner` under another epoch than the owner's, with
    /// `not_found` where it was not opened since the worker started, or its opening failed.
    pub fn enter(&self, epoch: Epoch) -> Result<Opening, Failure> {
        let state = self.state.lock();
        let known = state.kept.epoch;
        if known != epoch {
            return Err(stale(self.task, epoch, known));
        }
        if state.opened { Ok(state.opening) } else { Err(not_open(self.task)) }
    }

    /// Refuses with `stale_owner` once it was opened anew, or closed.
    pub fn check_opening(&self, opening: Opening) -> Result<(), Failure> {
        let now = self.state.lock().opening;
        if now == opening { Ok(()) } else { Err(stale(self.task, opening.0, now.0)) }
    }

    /// Refuses with `stale_owner` under another epoch than its owner's.
    pub fn check(&self, epoch: Epoch) -> Result<(), Failure> {
        let known = self.state.lock().kept.epoch;
        if known == epoch { Ok(()) } else { Err(stale(self.task, epoch, known)) }
    }

    /// What snapshots carry and checkouts leave alone.
    pub fn policy(&self) -> Result<ScanPolicy, Failure> {
        let state = self.state.lock();
        Ok(ScanPolicy::new(state.file_cap_bytes, &state.environment.caches)?)
    }

    /// A command is about to run under this key; the stopper stops it.
    pub fn starting(&self, key: &CallKey) -> Stopper {
        let stopper = Stopper::default();
        self.busy.store(true, Ordering::Release);
        self.running.lock().insert(key.clone(), stopper.clone());
        stopper
    }

    /// It has ended.
    pub fn ended(&self, key: &CallKey) {
        self.running.lock().remove(key);
    }

    /// Stops what runs under a key; whether there was anything.
    pub fn stop(&self, key: &CallKey, grace: Duration) -> bool {
        let stopper = self.running.lock().get(key).cloned();
        stopper.inspect(|stopper| stopper.stop(grace)).is_some()
    }

    /// What runs of this task.
    pub fn processes(&self) -> ProcessSet {
        ProcessSet::of_task(self.task, &self.root())
    }

    /// False where certainly nothing runs.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Nothing was found that runs; believed only while no command does.
    pub fn found_idle(&self) {
        let running = self.running.lock();
        if running.is_empty() {
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Ends everything that runs, children included, and returns once it is gone.
    pub async fn clear(&self) -> Result<(), Failure> {
        for stopper in self.running.lock().values() {
            stopper.stop(Duration::ZERO);
        }
        if !self.is_busy() {
            return Ok(());
        }
        let processes = self.processes();
        let killed = tokio::task::spawn_blocking(move || processes.kill(DYING)).await;
        match killed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(left)) => Err(Failure::new(
                Code::InvalidState,
                format!("processes {left:?} of task {} do not die, so its workspace cannot be used", self.task),
            )
            .hint(
                "they hang in the kernel, often on a network file system: restart that machine; or they are another user's by now, \
                 as what sudo started is: end them there",
            )),
            Err(error) => {
                Err(Failure::new(Code::Internal, format!("the search for processes of task {} failed: {error}", self.task)))
            }
        }
    }

    /// A command ended whose output is kept as an object.
    pub fn ended_with(&self, report: &ExitReport) {
        if let Some(output) = report.output {
            let outputs = &mut self.state.lock().outputs;
            outputs.waiting.push(output);
            if outputs.waiting.len() > MOST_OUTPUTS {
                outputs.waiting.remove(0);
            }
        }
    }

    /// Outputs that go along with a snapshot since `since`. They go again with the next one, unless that is made on
    /// another tree: then the step that had them was committed.
    pub fn outputs(&self, since: ObjectId) -> Vec<ObjectId> {
        let outputs = &mut self.state.lock().outputs;
        if outputs.since.replace(since) != Some(since) {
            outputs.sent.clear();
        }
        let mut waiting = std::mem::take(&mut outputs.waiting);
        outputs.sent.append(&mut waiting);
        let excess = outputs.sent.len().saturating_sub(MOST_OUTPUTS);
        outputs.sent.drain(..excess);
        outputs.sent.clone()
    }

    /// Deletes the task's folder, files that forbid it included. What opens it next finds it as one that never was.
    pub fn delete(&self) -> Result<(), Failure> {
        let mut stats = self.stats.lock();
        {
            let mut state = self.state.lock();
            (state.clean, state.opened, state.kept.setup) = (false, false, None);
        }
        *self.written.lock() = None;
        *stats = StatCache::new();
        remove_tree(&self.home).map_err(|error| Failure::io(self.home.display(), &error))
    }
}

/// The refusal of whoever uses a workspace that is not there.
pub fn not_open(task: TaskId) -> Failure {
    Failure::new(Code::NotFound, format!("this worker has no open workspace of task {task}")).hint("open it first")
}

/// The refusal of an owner whose epoch is not the workspace's.
pub fn stale(task: TaskId, epoch: Epoch, known: Epoch) -> Failure {
    Failure::new(Code::StaleOwner, format!("task {task} is held here under epoch {known}, and the request is of epoch {epoch}"))
}

/// Deletes a folder. Folders that are not writable (a module cache) are made so first.
pub fn remove_tree(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        done => return done,
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(folder)
}
