//! The sandbox that commands of a task run in: the kernel's own means, put around them by the worker.
//!
//! Namespaces (a view of the files, a network and ids of the task's own), Landlock (what files may be read, run and written), and
//! seccomp (what may be asked of the kernel), whichever this machine has, found by trying them when the worker starts. A level that
//! they do not add up to is refused. docs/sandbox.md says what each level means and what it does not hold back.
//!
//! Why a process of its own for each workspace and nothing between `fork` and `exec`: see [`inside`].

mod filter;
mod inside;
mod mounts;
mod namespaces;
mod policy;
mod rights;
mod running;
mod wire;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use helix_protocol::{Confinement, Environment, Failure, Sandboxing};

pub use inside::{PROBE, probe, run};
pub use policy::{Policy, WORKSPACE};
pub use running::{Sandbox, SandboxCommand, Spawned, not_started};
pub(crate) use wire::frame;
pub use wire::{Program, receive, send_length};

/// The first Landlock that decides which named sockets may be connected to.
const LANDLOCK_WITH_SOCKETS: u32 = 9;
/// How long finding out what the machine has may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a worker knows of sandboxes: what it can give, and what they all hide.
#[derive(Clone, Debug)]
pub struct Sandboxes {
    program: PathBuf,
    able: Sandboxing,
    folder: PathBuf,
    told: Vec<PathBuf>,
}

impl Sandboxes {
    /// Tries out what the machine has. `told` is hidden from commands beside credentials and the worker's folder.
    pub async fn find_out(program: &Path, folder: &Path, told: &[PathBuf]) -> Self {
        let able = what_is_there(program, folder).await.unwrap_or_else(|why| {
            tracing::warn!(why, "no sandbox");
            Sandboxing { lacks: vec![why], ..Sandboxing::default() }
        });
        Self { program: program.to_owned(), able, folder: folder.to_owned(), told: told.to_vec() }
    }

    /// What can be given.
    pub fn able(&self) -> &Sandboxing {
        &self.able
    }

    /// What commands of this environment run under. Refused where that cannot be given.
    pub fn confinement(&self, environment: &Environment) -> Result<Confinement, Failure> {
        self.able.check(environment.isolation())?;
        Ok(self.able.confinement(environment.isolation(), environment.network()))
    }

    /// The policy of a workspace. Where its commands run without a sandbox it shuts nothing in.
    pub fn policy(&self, environment: &Environment, workspace: &Path, temporary: &Path) -> Result<Policy, Failure> {
        let confinement = self.confinement(environment)?;
        let (workspace, temporary) = (workspace.to_owned(), temporary.to_owned());
        if !confinement.isolation.is_sandboxed() {
            let [writable, hidden, listed] = [const { Vec::new() }; 3];
            return Ok(Policy { confinement, workspace, temporary, writable, hidden, listed, changed: Vec::new() });
        }
        // Looked at anew each time: a key may have come since the worker was started.
        let policy::Hidden { paths: hidden, listed } = policy::hidden(&self.folder, &self.told);
        let writable = policy::writable(environment, &workspace, &hidden);
        let changed = policy::changed(&listed);
        Ok(Policy { confinement, workspace, temporary, writable, hidden, listed, changed })
    }

    /// The program that becomes a sandbox's process.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// Asks a process that may be spoilt by the answer.
pub async fn what_is_there(program: &Path, folder: &Path) -> Result<Sandboxing, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(["sandbox", "--probe"])
        .arg(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{} cannot be run: {error}", program.display())),
        Err(_) => return Err(format!("trying out sandboxes took longer than {} s", PATIENCE.as_secs())),
    };
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        format!("trying out sandboxes ended with {}: {said}", output.status)
    })
}
