//! What the worker does for each request, beneath the actor that owns its connections.
//!
//! Requests run beside each other on the runtime's threads; none crosses a mailbox. The fence is asked
//! before each effect, and again before what has a key is answered.

mod calling;
mod opening;
mod running;
mod snapshots;
mod turning;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use helix_link::{Clock, LinkHandle};
use helix_objects::{Durability, NewObject, ObjectStore, SpillOptions, SpillStore};
use helix_protocol::link::{Holding, MAX_CHUNK, Request, Response, StreamId};
use helix_protocol::{Code, Epoch, Failure, ObjectId, TaskId};
use helix_versions::Tree;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::calls::Calls;
use crate::facts::{Inspector, Pace};
use crate::guard::{GUARD_LOCK, Guard, GuardCommand};
use crate::lease::Lease;
use crate::processes::ProcessSet;
use crate::sandbox::{PROBE, Sandboxes};
use crate::served::{self, Served};
use crate::spool::Spools;
use crate::surroundings::Ports;
use crate::workspace::{Opening, TASKS, Workspace, not_open, remove_tree, stale};

/// Results kept of each task, for requests that are repeated.
const KEPT_RESULTS: usize = 64;
/// Objects are stored in batches of about this many bytes.
const BATCH: usize = 4 << 20;

/// Where in a worker's folder its cache of content is.
const STORE: &str = "store";

/// How a worker is set up.
#[derive(Clone)]
pub struct Settings {
    /// Its folder. One process per folder; the caller holds the lock.
    pub folder: PathBuf,
    /// The program that is run as `PROGRAM guard …`.
    pub program: PathBuf,
    /// How large its cache of content may grow.
    pub spill: SpillOptions,
    /// What leases are counted on: CLOCK_BOOTTIME in earnest.
    pub clock: Clock,
    /// What sandboxed commands may not read, beside credentials and the worker's folder.
    pub hidden: Vec<PathBuf>,
}

type Answer = Result<Response, Failure>;

/// The worker without its connections.
pub struct Engine {
    folder: PathBuf,
    tasks: PathBuf,
    incarnation: u64,
    store: Arc<SpillStore>,
    lease: Lease,
    inspector: Inspector,
    sandboxes: Sandboxes,
    spools: Spools,
    ports: Ports,
    served: Served,
    workspaces: Mutex<HashMap<TaskId, Arc<Workspace>>>,
    calls: Mutex<Calls<oneshot::Sender<Answer>, Answer>>,
}

impl Engine {
    /// Opens the folder: the guard first, then whatever an earlier incarnation left running is ended, then the store.
    pub async fn open(settings: Settings) -> Result<Arc<Self>, Failure> {
        let Settings { folder, program, spill, clock, hidden } = settings;
        let tasks = folder.join(TASKS);
        std::fs::create_dir_all(&tasks).map_err(|error| Failure::io(tasks.display(), &error))?;
        // New with every start: nobody starts twice within a microsecond.
        let incarnation = u64::try_from(helix_protocol::Timestamp::now().0).unwrap_or_default();
        let sandboxes = Sandboxes::find_out(&program, &folder, &hidden).await;
        tracing::info!(found = %sandboxes.able(), "sandboxes");
        let guard = Guard::start(GuardCommand { program, folder: folder.clone(), incarnation }).await?;
        let (swept, store) = (folder.clone(), folder.join(STORE));
        let store = blocking(move || {
            ProcessSet::of_folder(&swept).end(crate::command::DYING).map_err(|left| {
                Failure::new(
                    Code::InvalidState,
                    format!("processes {left:?} of an earlier worker in {} do not die", swept.display()),
                )
            })?;
            let store = SpillStore::open(&store, spill)?;
            // The tree of a task that starts from nothing is sent by nobody.
            store.put(&[Tree::new(Vec::new())?.encode()], Durability::NoSync)?;
            Ok(store)
        })
        .await?;
        let workspaces = Workspace::left_in(&tasks).into_iter().map(|workspace| (workspace.task, Arc::new(workspace))).collect();
        Ok(Arc::new(Self {
            incarnation,
            store: Arc::new(store),
            lease: Lease::new(clock, guard),
            inspector: Inspector::new(folder.clone(), sandboxes.able().clone()),
            sandboxes,
            spools: Spools::new(tasks.clone()),
            ports: Ports::default(),
            served: Served::read(&folder),
            workspaces: Mutex::new(workspaces),
            calls: Mutex::new(Calls::new(KEPT_RESULTS)),
            tasks,
            folder,
        }))
    }

    /// The lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whom the folder serves.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// Writes down whom the folder serves. What cannot be written holds until the worker ends.
    pub(crate) async fn keep_served(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        if let Err(failure) = blocking(move || engine.served.keep()).await {
            tracing::warn!(%failure, "whom this folder serves is not kept");
        }
    }

    /// Looks at the machine.
    pub fn inspector(&self) -> &Inspector {
        &self.inspector
    }

    /// A number that is new with every start.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The workspaces it holds, sorted by task.
    pub fn holds(&self) -> Vec<Holding> {
        let workspaces: Vec<_> = self.workspaces.lock().values().cloned().collect();
        let mut holds: Vec<Holding> = workspaces
            .iter()
            .map(|workspace| {
                let kept = workspace.state.lock().kept.clone();
                Holding { task: kept.task, epoch: kept.epoch, tree: kept.tree, calls: self.calls.lock().keys(kept.task) }
            })
            .collect();
        // One whose first opening was refused holds nothing.
        holds.retain(|held| held.tree != ObjectId([0; 32]));
        holds.sort_by_key(|held| held.task);
        holds
    }

    /// Answers a request that came over `link`. [`Request::Stop`] is the actor's.
    pub async fn answer(self: &Arc<Self>, link: &LinkHandle, body: Request) -> Answer {
        match body {
            Request::Missing { objects } => {
                let store = Arc::clone(&self.store);
                blocking(move || Ok(Response::Missing { objects: store.missing(&objects)? })).await
            }
            Request::Store { stream } => self.take_objects(link, stream).await,
            Request::Open(open) => self.open_workspace(*open).await,
            Request::Adopt { task, epoch, tree } => self.adopt_workspace(task, epoch, tree),
            Request::Tool { task, epoch, call, limits } => self.call_tool(task, epoch, call, limits).await,
            Request::Run { task, epoch, key, run, command, timeout_ms } => {
                self.call_run(task, epoch, key, running::Command::shell(run, command, timeout_ms)).await
            }
            Request::Turn { task, epoch, key, run, turn } => self.call_turn(task, epoch, key, run, *turn).await,
            Request::Cancel { task, epoch, key, grace_ms } => {
                let (workspace, _) = self.workspace(task, epoch)?;
                // Whoever cancels gives the step up; a node that comes back must not take this end for the call's own.
                self.calls.lock().give_up(task);
                Ok(Response::Cancelled { stopped: workspace.stop(&key, std::time::Duration::from_millis(grace_ms)) })
            }
            Request::Snapshot { task, epoch, since, artifacts } => self.snapshot(link, task, epoch, since, &artifacts).await,
            Request::ReadOutput { run, offset, limit, wait_ms } => {
                let spool = self.spools.find(run)?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_CHUNK);
                let (data, ended) = spool.wait_read(offset, limit, std::time::Duration::from_millis(wait_ms)).await?;
                Ok(Response::Output { data, ended })
            }
            Request::Close { task, epoch } => self.close_workspace(task, epoch).await,
            // Nobody waits for it, and commands run beside it.
            Request::Inspect => Ok(Response::Inspected { facts: self.inspector.look(Pace::Quiet).await }),
            Request::Ping => Ok(Response::Pong),
            Request::Stop { .. } => Err(Failure::new(Code::Internal, "a stop did not reach the worker's actor")),
        }
    }

    /// The workspace of a task and its opening, for its owner, while the lease lasts.
    fn workspace(&self, task: TaskId, epoch: Epoch) -> Result<(Arc<Workspace>, Opening), Failure> {
        self.lease.check()?;
        let workspace = self.workspaces.lock().get(&task).cloned();
        let workspace = workspace.ok_or_else(|| not_open(task))?;
        let opening = workspace.enter(epoch)?;
        Ok((workspace, opening))
    }

    async fn take_objects(&self, link: &LinkHandle, stream: StreamId) -> Answer {
        let mut reader = link.receive_objects(stream);
        let (mut objects, mut bytes) = (0, 0);
        let mut batch = Vec::new();
        let mut size = 0;
        loop {
            let next = reader.next().await.transpose()?;
            let over = next.is_none();
            if let Some((id, content)) = next {
                size += content.len();
                batch.push((id, content));
            }
            if over || size >= BATCH {
                objects += batch.len() as u64;
                bytes += size as u64;
                size = 0;
                let (batch, store) = (std::mem::take(&mut batch), Arc::clone(&self.store));
                blocking(move || {
                    let checked: Result<Vec<_>, _> =
                        batch.into_iter().map(|(id, content)| NewObject::checked(id, content)).collect();
                    Ok(store.put(&checked?, Durability::NoSync)?)
                })
                .await?;
            }
            if over {
                return Ok(Response::Stored { objects, bytes });
            }
        }
    }

    async fn close_workspace(&self, task: TaskId, epoch: Epoch) -> Answer {
        let Some(workspace) = self.workspaces.lock().get(&task).cloned() else {
            // The disk may have been full when it was closed.
            self.unpin(task, epoch).await?;
            return Ok(Response::Closed);
        };
        let known = workspace.state.lock().kept.epoch;
        if epoch < known {
            return Err(stale(task, epoch, known));
        }
        // From here on nothing more is begun under the old epoch, whichever it was.
        {
            let mut state = workspace.state.lock();
            state.kept.epoch = epoch.next();
            state.opening = Opening(epoch.next());
            state.closing = true;
            self.calls.lock().give_up(task);
        }
        workspace.clear().await?;
        workspace.leave_sandbox().await;
        let gate = Arc::clone(&workspace.gate).write_owned().await;
        // The task may have been given back already: what ran is ended, and the rest is the new owner's.
        if !workspace.state.lock().closing {
            return Ok(Response::Closed);
        }
        let deleted = Arc::clone(&workspace);
        blocking(move || deleted.delete()).await?;
        {
            let mut workspaces = self.workspaces.lock();
            // Whoever waits at the gate by now makes this very workspace anew.
            if workspace.state.lock().closing {
                workspaces.remove(&task);
            }
        }
        self.calls.lock().forget(task);
        self.ports.take_back(task);
        self.unpin(task, known).await?;
        drop(gate);
        Ok(Response::Closed)
    }

    async fn unpin(&self, task: TaskId, epoch: Epoch) -> Result<(), Failure> {
        let store = Arc::clone(&self.store);
        blocking(move || Ok(store.unpin(helix_objects::Pin { task, epoch })?)).await
    }

    /// Ends everything that runs and closes the store. With `wipe` everything in the folder goes but its lock and log.
    pub async fn shut(&self, wipe: Wipe) -> Result<(), Failure> {
        let workspaces: Vec<_> = self.workspaces.lock().drain().map(|(_, workspace)| workspace).collect();
        for workspace in &workspaces {
            // The guard goes on killing what does not die here.
            if let Err(failure) = workspace.clear().await {
                tracing::error!(%failure, "left to the guard");
            }
            workspace.leave_sandbox().await;
        }
        if wipe == Wipe::Yes {
            self.served.wipe();
        }
        let (store, folder, tasks) = (Arc::clone(&self.store), self.folder.clone(), self.tasks.clone());
        blocking(move || {
            for workspace in &workspaces {
                if wipe == Wipe::No
                    && let Err(error) = workspace.stats.lock().save()
                {
                    tracing::warn!(%error, "the stat cache is not kept");
                }
            }
            store.close()?;
            if wipe == Wipe::Yes {
                for path in [tasks, folder.join(STORE)] {
                    remove_tree(&path).map_err(|error| Failure::io(path.display(), &error))?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Deletes everything that workers of this program keep in a folder, and nothing else. None may run there.
pub fn wipe(folder: &Path) -> Result<(), Failure> {
    for name in [TASKS, STORE, PROBE, GUARD_LOCK].into_iter().chain(served::FILES) {
        let path = folder.join(name);
        let deleted = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => remove_tree(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        deleted.map_err(|error| Failure::io(path.display(), &error))?;
    }
    Ok(())
}

/// Whether a stopping worker leaves its workspaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wipe {
    /// It deletes them.
    Yes,
    /// They stay.
    No,
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("work on a thread failed: {error}"))))
}
