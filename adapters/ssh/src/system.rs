//! The system's `ssh`: aliases, agents, ProxyJump and known_hosts work as the person has them.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use helix_ports::ConnectError;
use helix_protocol::{Code, Failure, WorkerTarget};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::programs::Programs;
use crate::refusal;
use crate::shell::{End, Opened, RemoteShell, command, hangs, keep};
use crate::transport::{Login, Ssh};

/// What `ssh` answers when it failed itself.
const SSH_FAILED: i32 = 255;

/// Workers behind the system's `ssh`.
pub type SystemSsh = Ssh<System>;

/// The program `ssh`.
#[derive(Clone, Debug, Default)]
pub struct System {
    options: Vec<String>,
}

impl SystemSsh {
    /// `node` names this node's folder on hosts, so that two nodes may use one account; `limit` bounds everything but
    /// uploads.
    pub fn new(programs: Programs, node: impl Into<String>, limit: Duration) -> Self {
        Self::by(System::default(), programs, node, limit)
    }

    /// Further arguments for `ssh`, before the destination.
    #[must_use]
    pub fn options(mut self, options: impl IntoIterator<Item = String>) -> Self {
        self.login.options.extend(options);
        self
    }
}

impl Login for System {
    type Shell = Host;

    fn serves(target: &WorkerTarget) -> bool {
        matches!(target, WorkerTarget::Ssh { .. })
    }

    fn shell(&self, target: &WorkerTarget, limit: Duration) -> Result<Host, ConnectError> {
        let WorkerTarget::Ssh { destination } = target else {
            return Err(ConnectError::Refused(Failure::new(Code::InvalidRequest, format!("{target} is not reached with ssh"))));
        };
        if destination.is_empty() || destination.starts_with('-') {
            let failure = Failure::new(Code::InvalidRequest, format!("{destination:?} is not a host or alias for ssh"));
            return Err(ConnectError::Refused(failure.hint("name it as `ssh` takes it, for example `me@host`")));
        }
        Ok(Host { options: self.options.clone(), destination: destination.clone(), limit })
    }
}

/// One host or alias.
pub(crate) struct Host {
    options: Vec<String>,
    destination: String,
    limit: Duration,
}

impl Host {
    fn spawn(&self, script: &str, stdin: Stdio) -> Result<Child, ConnectError> {
        Command::new("ssh")
            .args(["-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=3"])
            .arg("-o")
            .arg(format!("ConnectTimeout={}", self.limit.as_secs().max(1)))
            .args(&self.options)
            .arg("--")
            .arg(&self.destination)
            .arg(command(script))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                ConnectError::Refused(
                    Failure::new(Code::ProgramMissing, format!("the program ssh cannot be run: {error}"))
                        .hint("install an OpenSSH client, or add the worker as ssh://user@host:port with a key"),
                )
            })
    }
}

fn judge(host: &str, status: ExitStatus, stderr: String) -> Result<End, ConnectError> {
    match status.code() {
        Some(SSH_FAILED) => Err(refusal::of_ssh(host, &stderr)),
        status => Ok(End { status, stderr }),
    }
}

#[async_trait]
impl RemoteShell for Host {
    fn host(&self) -> String {
        self.destination.clone()
    }

    async fn exec(&self, script: &str, stdin: Option<PathBuf>, limit: Duration) -> Result<(End, String), ConnectError> {
        let input = match stdin {
            None => Stdio::null(),
            Some(path) => Stdio::from(std::fs::File::open(&path).map_err(|error| {
                ConnectError::Refused(Failure::new(Code::InstallFailed, format!("{} cannot be read: {error}", path.display())))
            })?),
        };
        let child = self.spawn(script, input)?;
        let output = tokio::time::timeout(limit, child.wait_with_output()).await.map_err(|_| hangs(&self.destination, limit))?;
        let output = output.map_err(|error| refusal::of_ssh(&self.destination, &error.to_string()))?;
        let end = judge(&self.destination, output.status, String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((end, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    async fn open(&self, script: &str) -> Result<Opened, ConnectError> {
        let mut child = self.spawn(script, Stdio::piped())?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(ConnectError::Unreachable(Failure::new(Code::Internal, "a child process has no pipes")));
        };
        let (tell, end) = oneshot::channel();
        let destination = self.destination.clone();
        // The child lives in this task, which ends with it: once the stream is dropped, ssh reads the end of its stdin.
        tokio::spawn(async move {
            let stderr = drain(stderr).await;
            let ended = child.wait().await;
            let end = match ended {
                Ok(status) => judge(&destination, status, stderr),
                Err(error) => Err(refusal::of_ssh(&destination, &error.to_string())),
            };
            // An error means that nobody waits for the end: it came after the bridge was ready.
            let _ = tell.send(end);
        });
        Ok(Opened { stream: Box::new(tokio::io::join(stdout, stdin)), end })
    }
}

/// Reads to the end, keeping the last of it.
async fn drain(mut from: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        keep(&mut kept, &buffer[..count]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
