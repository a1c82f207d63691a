//! Opening a workspace: everything older is ended first, then it is made to hold the tree, then set up.

use std::sync::Arc;

use helix_kernel::Secrets;
use helix_objects::hash;
use helix_protocol::link::{OpenWorkspace, Response};
use helix_protocol::{CallKey, Code, Epoch, ExitReport, Failure, ObjectId, RunId, TaskId};
use helix_versions::{checkout, missing_closure};

use super::running::Command;
use super::{Answer, Engine, blocking};
use crate::confine::Confined;
use crate::workspace::{Opening, SetUp, Workspace, not_open, remove_tree, stale};

/// A set-up may take half an hour.
const SETUP_TIMEOUT_MS: u64 = 30 * 60 * 1000;

impl Engine {
    pub(super) async fn open_workspace(self: &Arc<Self>, open: OpenWorkspace) -> Answer {
        self.lease.check()?;
        self.sandboxes.confinement(&open.environment)?;
        let task = open.task;
        // Both locks at once: a closing takes the workspace out of the list only while nobody opens it.
        let (workspace, before) = {
            let mut workspaces = self.workspaces.lock();
            let workspace = Arc::clone(workspaces.entry(task).or_insert_with(|| Arc::new(Workspace::new(&self.tasks, task))));
            // From here on nothing more is begun under a smaller epoch.
            let mut state = workspace.state.lock();
            let known = state.kept.epoch;
            if open.epoch < known {
                return Err(stale(task, open.epoch, known));
            }
            state.kept.epoch = open.epoch;
            state.opening = Opening(open.epoch);
            state.closing = false;
            self.calls.lock().give_up(task);
            drop(state);
            (workspace, known)
        };
        if before < open.epoch {
            workspace.clear().await?;
            workspace.leave_sandbox().await;
        }
        let engine = Arc::clone(self);
        // Goes on when the asker leaves: a half-done checkout would cost the next one its stat cache.
        let opened = tokio::spawn(async move { engine.open_inside(&workspace, open, before).await });
        opened.await.unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("opening task {task} failed: {error}"))))
    }

    /// Lets the next owner go on where the last one left, if that can be done: see [`Making`](crate::making::Making).
    pub(super) fn adopt_workspace(&self, task: TaskId, epoch: Epoch, tree: ObjectId) -> Answer {
        self.lease.check()?;
        let workspace = self.workspaces.lock().get(&task).cloned().ok_or_else(|| not_open(task))?;
        let opened = {
            let mut state = workspace.state.lock();
            let known = state.kept.epoch;
            if epoch < known {
                return Err(stale(task, epoch, known));
            }
            if !(state.opened && self.calls.lock().resume(task, tree)) {
                let message = format!("the step of task {task} that began from {} cannot go on here", tree.short());
                return Err(Failure::new(Code::NotFound, message).hint("open the workspace"));
            }
            state.kept.epoch = epoch;
            state.opening.0
        };
        workspace.remember()?;
        Ok(Response::Adopted { opened })
    }

    async fn open_inside(self: &Arc<Self>, workspace: &Arc<Workspace>, open: OpenWorkspace, before: Epoch) -> Answer {
        let (store, tree) = (Arc::clone(&self.store), open.tree);
        let held = {
            let state = workspace.state.lock();
            state.opened && state.clean && state.kept.tree == tree && state.environment == open.environment
        };
        if !held {
            let missing = blocking(move || Ok(missing_closure(&*store, tree)?)).await?;
            if let Some(first) = missing.first() {
                return Err(Failure::new(
                    Code::ObjectsMissing,
                    format!("this worker lacks {} objects of tree {}, {} among them", missing.len(), tree.short(), first.short()),
                )
                .hint("send them and open again"));
            }
            workspace.clear().await?;
        }
        let _gate = Arc::clone(&workspace.gate).write_owned().await;
        workspace.check(open.epoch)?;
        self.lease.check()?;
        let ports = self.ports.give(open.task, open.environment.ports)?;
        {
            let mut state = workspace.state.lock();
            state.masks = Secrets::new(open.secrets.iter().map(|(_, value)| value.as_str()));
            state.environment = open.environment.clone();
            state.secrets = open.secrets.clone();
            state.ports = ports.clone();
            state.file_cap_bytes = open.file_cap_bytes;
        }
        let folder = workspace.root().display().to_string();
        let mut changed = Changed::Nothing;
        if !(held && workspace.state.lock().clean) {
            // Whatever was started between the first search and the closing of the gate.
            workspace.clear().await?;
            workspace.found_idle();
            // The temporary files go with the others, and with them the folder that a sandbox has as its own.
            workspace.leave_sandbox().await;
            changed = self.check_out(workspace, tree).await?;
            self.calls.lock().forget(open.task);
        } else if before < open.epoch {
            // A step that is made once more has the keys of the last time.
            self.calls.lock().forget(open.task);
        }
        let setup = self.set_up(workspace, &open, changed).await?;
        let succeeded = setup.as_ref().is_none_or(|report| report.exit_code == 0);
        {
            let mut state = workspace.state.lock();
            (state.clean, state.opened) = (succeeded, true);
            if succeeded && state.kept.epoch == open.epoch {
                self.calls.lock().opened(open.task, tree);
            }
        }
        workspace.remember()?;
        Ok(Response::Opened { folder, ports, setup, warm: changed == Changed::Nothing })
    }

    async fn check_out(&self, workspace: &Arc<Workspace>, tree: ObjectId) -> Result<Changed, Failure> {
        {
            let mut state = workspace.state.lock();
            (state.clean, state.opened) = (false, false);
        }
        let policy = workspace.policy()?;
        let (store, opened) = (Arc::clone(&self.store), Arc::clone(workspace));
        let done = blocking(move || {
            opened.prepare()?;
            let temporary = opened.temporary();
            remove_tree(&temporary).map_err(|error| Failure::io(temporary.display(), &error))?;
            let mut stats = opened.stats.lock();
            let done = checkout(&opened.root(), tree, &*store, &mut stats, &policy)?;
            opened.state.lock().kept.tree = tree;
            Ok(done)
        })
        .await?;
        Ok(if done.written + done.removed == 0 { Changed::Nothing } else { Changed::Something })
    }

    /// Runs the set-up where it never was run here, where its lockfiles are others, or where the checkout took away what it made.
    async fn set_up(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        open: &OpenWorkspace,
        changed: Changed,
    ) -> Result<Option<ExitReport>, Failure> {
        let Some(command) = open.environment.setup.clone() else { return Ok(None) };
        let fingerprint = fingerprint(workspace, &command, &open.environment.lockfiles)?;
        let known = workspace.state.lock().kept.setup.clone();
        let stands = known
            .is_some_and(|known| known.fingerprint == fingerprint && !(known.on == open.tree && changed == Changed::Something));
        if stands {
            return Ok(None);
        }
        workspace.state.lock().kept.setup = None;
        let key = CallKey(format!("setup of epoch {}", open.epoch));
        let command = Command::shell(RunId::new(), command, Some(SETUP_TIMEOUT_MS));
        let report = self.run_inside(workspace, Opening(open.epoch), &key, command).await?.report;
        if report.exit_code == 0 {
            workspace.state.lock().kept.setup = Some(SetUp { fingerprint, on: open.tree });
        }
        Ok(Some(report))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Nothing,
    Something,
}

/// Of a set-up command and the content of its lockfiles; one that is missing counts as such.
fn fingerprint(workspace: &Workspace, command: &str, lockfiles: &[String]) -> Result<ObjectId, Failure> {
    let confined = Confined::open(&workspace.root())?;
    let mut text = command.as_bytes().to_vec();
    for path in lockfiles {
        text.extend_from_slice(format!("\0{path}\0").as_bytes());
        match confined.read(path) {
            Ok(content) => text.extend_from_slice(&hash(&content).0),
            Err(failure) if failure.code == Code::FileNotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(hash(&text))
}
