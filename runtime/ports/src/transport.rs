//! Reaching a worker's machine.

use async_trait::async_trait;
use helix_protocol::{Failure, WorkerTarget};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a worker. Its end is silence, not the worker's death.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// How it is known that a worker's process is dead, and not merely silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "proof")]
pub enum DeathProof {
    /// Nobody listens on its socket and nobody holds its lock.
    ConnectionRefused,
    /// Its parent was told how it ended.
    WaitStatus {
        /// As `waitpid` gave it, in words.
        status: String,
    },
    /// Not a proof of death but the end of waiting: silent for longer than the lease, by when the worker has fenced itself.
    LeaseExpired {
        /// How long nothing was heard, in milliseconds.
        silent_ms: u64,
    },
    /// Another incarnation answered in its place.
    Replaced,
}

impl std::fmt::Display for DeathProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConnectionRefused => f.write_str("its socket refuses connections and its lock is free"),
            Self::WaitStatus { status } => write!(f, "its process ended: {status}"),
            Self::LeaseExpired { silent_ms } => write!(f, "silent for {silent_ms} ms, longer than its lease"),
            Self::Replaced => f.write_str("a new process answers in its place"),
        }
    }
}

/// Why no connection was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The worker's process is certainly not running. Starting one is safe.
    #[error("the worker is not running: {0}")]
    Dead(DeathProof),
    /// Nothing is known of the worker: the network, the machine or the bridge did not answer.
    #[error("{0}")]
    Unreachable(Failure),
    /// Somebody has to do something first: host key, login, architecture, permission.
    #[error("{0}")]
    Refused(Failure),
}

/// What installing did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// The host's architecture, as `uname -m` says it.
    pub arch: String,
    /// The program's path on the host.
    pub program: String,
    /// True where it was there already.
    pub present: bool,
    /// Bytes sent.
    pub uploaded_bytes: u64,
}

/// One way to reach a worker. An instance serves every worker of its kind of target.
#[async_trait]
pub trait WorkerTransport: Send + Sync + 'static {
    /// True where this transport serves the target.
    fn serves(&self, target: &WorkerTarget) -> bool;
    /// Puts the worker program of this build on the machine where it is missing, into a folder named after its
    /// version. The failure names architecture, libc, permission or space.
    async fn install(&self, target: &WorkerTarget) -> Result<InstallReport, ConnectError>;
    /// Starts the worker's process, detached, unless it runs. Idempotent.
    async fn start(&self, target: &WorkerTarget) -> Result<(), ConnectError>;
    /// A byte stream to the running worker.
    async fn connect(&self, target: &WorkerTarget) -> Result<Box<dyn Duplex>, ConnectError>;
    /// Stops the worker and deletes everything that was installed and made on the machine.
    async fn remove(&self, target: &WorkerTarget) -> Result<(), ConnectError>;
}
