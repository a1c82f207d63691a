//! A step's workspace on its worker: opened ahead, adopted from an earlier owner, or opened anew.

use std::sync::Arc;
use std::time::Duration;

use helix_protocol::link::{OpenWorkspace, Request, Response};
use helix_protocol::{Code, Epoch, Failure, TaskRecord, WorkerId};
use tokio_util::task::AbortOnDropHandle;

use super::{Host, Lease, unexpected};
use crate::secrets;
use crate::shared::{Files, Pauses, Shared};

/// How long a worker's branch may be away before a request is given up.
const AWAY: Duration = Duration::from_secs(30);

/// The workspace on the worker.
pub(crate) enum Workspace {
    /// Not there under this lease, or not with the right files.
    Closed,
    /// On its way.
    Opening(AbortOnDropHandle<Result<Running, Failure>>),
    /// It held these files when the last step ended, and holds what this one has done since.
    Open(Running),
}

/// What may run in an open workspace, and change its files between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// Nothing: it was opened from a tree, and nothing was started there since.
    Nothing,
    /// Something may: a process can outlive the call that started it, and what an earlier owner started nobody knows here.
    Perhaps,
}

impl Host {
    /// Lets the workspace be made ready while something else is done.
    pub fn open_ahead(&mut self) {
        if matches!(self.workspace, Workspace::Closed) {
            let (shared, lease, task, files) = (Arc::clone(&self.shared), self.lease.clone(), self.task.clone(), self.files);
            let opening = tokio::spawn(async move { open(&shared, &lease, &task, files).await });
            self.workspace = Workspace::Opening(AbortOnDropHandle::new(opening));
        }
    }

    /// Waits until the workspace holds the step's files.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        self.open_ahead();
        if let Workspace::Opening(opening) = &mut self.workspace {
            let opened = opening.await;
            self.workspace = Workspace::Closed;
            let running = opened
                .unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("opening the workspace ended early: {error}"))))?;
            self.workspace = Workspace::Open(running);
        }
        Ok(())
    }

    /// Something is about to be started in the workspace, which is ready.
    pub(super) fn starts_something(&mut self) {
        self.workspace = Workspace::Open(Running::Perhaps);
    }
}

/// Asks a worker. While it has fenced itself, or its branch is away, the request is repeated: the fleet says when it is lost.
pub(super) async fn request_worker(shared: &Shared, worker: WorkerId, request: Request) -> Result<Response, Failure> {
    let (began, mut pauses) = (tokio::time::Instant::now(), Pauses::new());
    loop {
        let answer = shared.args.fleet.request(worker, request.clone(), None).await;
        let Err(failure) = answer else { return answer };
        let away = matches!(failure.code, Code::Overloaded | Code::ShuttingDown) && began.elapsed() < AWAY;
        if !away && failure.code != Code::LeaseExpired {
            return Err(failure);
        }
        pauses.pause().await;
    }
}

/// Goes on with the workspace as the worker has it. Answers with the epoch under which it was opened; `None` where the step that
/// began from these files cannot go on there, so that the workspace has to be opened.
pub(crate) async fn adopt(shared: &Shared, lease: &Lease, files: Files) -> Option<Epoch> {
    let request = Request::Adopt { task: lease.task, epoch: lease.epoch, tree: files.tree };
    match request_worker(shared, lease.worker, request).await {
        Ok(Response::Adopted { opened }) => {
            tracing::info!(task = %lease.task, epoch = %lease.epoch, worker = lease.name, "the step goes on where it is");
            Some(opened)
        }
        Ok(other) => {
            tracing::warn!(task = %lease.task, "{}", unexpected("adopt a workspace", &other));
            None
        }
        Err(failure) => {
            tracing::info!(task = %lease.task, worker = lease.name, "the step is made again: {failure}");
            None
        }
    }
}

async fn open(shared: &Shared, lease: &Lease, task: &TaskRecord, files: Files) -> Result<Running, Failure> {
    let open = OpenWorkspace {
        task: lease.task,
        epoch: lease.epoch,
        tree: files.tree,
        environment: task.spec.environment.clone(),
        secrets: secrets::resolve(&task.spec.environment.secrets).await?,
        file_cap_bytes: shared.args.workspace.file_cap_bytes,
    };
    let (began, mut pauses) = (tokio::time::Instant::now(), Pauses::new());
    let answer = loop {
        match shared.args.fleet.open(lease.worker, open.clone()).await {
            Err(failure) if failure.code == Code::LeaseExpired => pauses.pause().await,
            Err(failure) if matches!(failure.code, Code::Overloaded | Code::ShuttingDown) && began.elapsed() < AWAY => {
                pauses.pause().await
            }
            answer => break answer?,
        }
    };
    match answer {
        Response::Opened { setup: Some(report), .. } if report.exit_code != 0 => Err(Failure::new(
            Code::CommandFailed,
            format!(
                "the setup command `{}` ended with exit code {}; its output ended with:\n{}",
                report.command, report.exit_code, report.tail
            ),
        )
        .hint("it is named in helix.project.yaml")),
        Response::Opened { setup: Some(_), .. } => Ok(Running::Perhaps),
        Response::Opened { setup: None, .. } => Ok(Running::Nothing),
        other => Err(unexpected("open", &other)),
    }
}
