//! Workers on this machine: a detached process, reached straight through its socket.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use helix_ports::{ConnectError, DeathProof, Duplex, InstallReport, WorkerTransport};
use helix_protocol::{Code, Failure, WorkerTarget};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::programs::is_executable;
use crate::refusal;
use crate::remote::START;
use crate::shell::{End, hangs};

/// What failures call this machine.
const HOST: &str = "this machine";
/// Beyond this a worker's socket does not lie in its folder.
const LONGEST_SOCKET: usize = 100;
/// A worker that is just dying or starting holds its lock and does not listen. It is looked at again so often ...
const LOOKS: u32 = 20;
/// ... after so long.
const LOOK: Duration = Duration::from_millis(2);

/// Workers on the node's own machine.
#[derive(Clone, Debug)]
pub struct LocalTransport {
    program: PathBuf,
    hidden: Vec<PathBuf>,
    kept: Vec<String>,
}

impl LocalTransport {
    /// Workers of this program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), hidden: Vec::new(), kept: Vec::new() }
    }

    /// Sandboxed commands may not read this either: the node's own data, on the machine it shares with its workers.
    #[must_use]
    pub fn hiding(mut self, path: impl Into<PathBuf>) -> Self {
        self.hidden.push(path.into());
        self
    }

    /// Workers are started without these variables of the node's: commands would inherit them.
    #[must_use]
    pub fn keeping(mut self, variables: impl IntoIterator<Item = String>) -> Self {
        self.kept.extend(variables);
        self
    }

    async fn run(&self, verb: &str, flags: &[&OsStr], folder: &Path) -> Result<(End, String), ConnectError> {
        let mut command = Command::new(&self.program);
        for variable in &self.kept {
            command.env_remove(variable);
        }
        let child = command
            .arg(verb)
            .args(flags)
            .arg("--folder")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.unusable(&error.to_string()))?;
        let output = tokio::time::timeout(START, child.wait_with_output()).await.map_err(|_| hangs("the worker program", START))?;
        let output = output.map_err(|error| self.unusable(&error.to_string()))?;
        let end = End { status: output.status.code(), stderr: String::from_utf8_lossy(&output.stderr).into_owned() };
        Ok((end, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn unusable(&self, reason: &str) -> ConnectError {
        ConnectError::Refused(
            Failure::new(Code::InstallFailed, format!("the worker program {} cannot be run: {reason}", self.program.display()))
                .hint("name it in helix.yaml as workers.program, or put helix-worker beside helix"),
        )
    }

    /// Where the worker of a folder listens; `None` where it never did.
    async fn socket(&self, folder: &Path) -> Result<Option<PathBuf>, ConnectError> {
        let Ok(folder) = fs::canonicalize(folder) else { return Ok(None) };
        let inside = folder.join("worker.sock");
        if inside.as_os_str().len() <= LONGEST_SOCKET {
            return Ok(Some(inside));
        }
        let (end, said) = self.run("status", &[OsStr::new("--json")], &folder).await?;
        let told = serde_json::from_str::<serde_json::Value>(&said).ok();
        let socket = told.and_then(|status| status["socket"].as_str().map(PathBuf::from));
        if end.status == Some(0) { Ok(socket) } else { Ok(None) }
    }
}

#[async_trait]
impl WorkerTransport for LocalTransport {
    fn serves(&self, target: &WorkerTarget) -> bool {
        matches!(target, WorkerTarget::Local { .. })
    }

    async fn install(&self, target: &WorkerTarget) -> Result<InstallReport, ConnectError> {
        folder_of(target)?;
        if !is_executable(&self.program) {
            return Err(self.unusable("there is no such program"));
        }
        Ok(InstallReport {
            arch: std::env::consts::ARCH.to_owned(),
            program: self.program.display().to_string(),
            present: true,
            uploaded_bytes: 0,
        })
    }

    async fn start(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        let hide: Vec<&OsStr> = self.hidden.iter().flat_map(|path| [OsStr::new("--hide"), path.as_os_str()]).collect();
        let (end, _) = self.run("start", &hide, folder_of(target)?).await?;
        match end.status {
            Some(0) => Ok(()),
            _ => Err(refusal::of_worker(HOST, "started", &end)),
        }
    }

    async fn connect(&self, target: &WorkerTarget) -> Result<Box<dyn Duplex>, ConnectError> {
        let folder = folder_of(target)?;
        let mut looks = 0;
        loop {
            let refused = match self.socket(folder).await? {
                None => "there is no socket".to_owned(),
                Some(socket) => match UnixStream::connect(&socket).await {
                    Ok(stream) => return Ok(Box::new(stream)),
                    Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                        error.to_string()
                    }
                    Err(error) => return Err(silent(folder, &error.to_string())),
                },
            };
            if is_free(&folder.join("lock")).map_err(|error| silent(folder, &error.to_string()))? {
                return Err(ConnectError::Dead(DeathProof::ConnectionRefused));
            }
            looks += 1;
            if looks == LOOKS {
                return Err(silent(folder, &format!("{refused}, and its lock is held")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn remove(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        let folder = folder_of(target)?;
        let (end, _) = self.run("stop", &[OsStr::new("--wipe")], folder).await?;
        match end.status {
            Some(0) => Ok(()),
            _ => Err(refusal::of_worker(HOST, "stopped", &end)),
        }
    }
}

fn folder_of(target: &WorkerTarget) -> Result<&Path, ConnectError> {
    match target {
        WorkerTarget::Local { folder } if !folder.is_empty() => Ok(Path::new(folder)),
        WorkerTarget::Local { .. } => Err(ConnectError::Refused(
            Failure::new(Code::InvalidRequest, "a local worker needs a folder").hint("`helix worker add local` chooses one"),
        )),
        other => Err(ConnectError::Refused(Failure::new(Code::InvalidRequest, format!("{other} is not on this machine")))),
    }
}

fn silent(folder: &Path, reason: &str) -> ConnectError {
    ConnectError::Unreachable(
        Failure::new(Code::WorkerUnreachable, format!("the worker in {} does not answer: {reason}", folder.display()))
            .hint("it may be starting or stopping; it is tried again by itself"),
    )
}

/// Whether nobody holds the lock. Shared, so that two who look at once do not take each other for the worker.
fn is_free(lock: &Path) -> io::Result<bool> {
    let file = match File::open(lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn target(folder: &Path) -> WorkerTarget {
        WorkerTarget::Local { folder: folder.display().to_string() }
    }

    async fn reached(folder: &Path) -> Result<(), ConnectError> {
        LocalTransport::new("/nowhere/helix-worker").connect(&target(folder)).await.map(drop)
    }

    /// A program that another test starts has copies of this one's sockets and locks between its fork and its exec, so what was
    /// dropped is gone a moment later.
    async fn reached_in_the_end(folder: &Path) -> Result<(), ConnectError> {
        let start = std::time::Instant::now();
        loop {
            let found = reached(folder).await;
            if matches!(found, Err(ConnectError::Dead(_))) || start.elapsed() > std::time::Duration::from_secs(10) {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_death_only_while_the_lock_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let dead = Err(ConnectError::Dead(DeathProof::ConnectionRefused));
        assert_eq!(reached(&folder.path().join("never")).await, dead, "no worker ever ran there");
        assert_eq!(reached(folder.path()).await, dead);

        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("worker.sock")).unwrap();
        assert_eq!(reached(folder.path()).await, Ok(()));
        drop(listener);
        assert_eq!(reached_in_the_end(folder.path()).await, dead, "its socket is left and nobody listens");

        let lock = File::create(folder.path().join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(reached(folder.path()).await, Err(ConnectError::Unreachable(_))), "somebody lives there");
        drop(lock);
        assert_eq!(reached_in_the_end(folder.path()).await, dead);
    }

    #[tokio::test]
    async fn a_worker_is_started_without_what_the_node_keeps() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (program, found) = (folder.path().join("worker"), folder.path().join("found"));
        fs::write(&program, format!("#!/bin/sh\nenv > '{}'\n", found.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // Two that cargo sets for every test.
        let transport = LocalTransport::new(&program).keeping(["CARGO_PKG_NAME".to_owned()]);
        transport.start(&target(folder.path())).await.unwrap();
        let found = fs::read_to_string(found).unwrap();
        assert!(!found.contains("CARGO_PKG_NAME=") && found.contains("CARGO_PKG_VERSION="), "{found}");
    }

    #[tokio::test]
    async fn what_is_removed_is_left_to_the_worker_program_which_knows_its_own() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (program, project) = (folder.path().join("worker"), folder.path().join("project"));
        fs::write(&program, "#!/bin/sh\n[ \"$*\" = \"stop --wipe --folder $(dirname \"$0\")/project\" ]\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&project).unwrap();
        fs::write(project.join("notes.txt"), "mine").unwrap();
        assert_eq!(LocalTransport::new(&program).remove(&target(&project)).await, Ok(()));
        assert_eq!(fs::read_to_string(project.join("notes.txt")).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let transport = LocalTransport::new("/nowhere/helix-worker");
        for refused in [transport.install(&target(folder.path())).await.map(drop), transport.start(&target(folder.path())).await] {
            let Err(ConnectError::Refused(failure)) = refused else { panic!("{refused:?}") };
            assert_eq!(failure.code, Code::InstallFailed);
            assert!(failure.message.contains("/nowhere/helix-worker"), "{}", failure.message);
        }
    }
}
