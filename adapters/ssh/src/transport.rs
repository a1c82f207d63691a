//! Workers behind SSH, whatever client logs in.

use std::time::Duration;

use async_trait::async_trait;
use helix_ports::{ConnectError, Duplex, InstallReport, WorkerTransport};
use helix_protocol::WorkerTarget;

use crate::programs::Programs;
use crate::remote::{Known, RemoteWorker};
use crate::shell::RemoteShell;

/// A way of logging in to hosts.
pub(crate) trait Login: Send + Sync + 'static {
    /// A host's shell.
    type Shell: RemoteShell;

    /// Whether such a target is reached this way.
    fn serves(target: &WorkerTarget) -> bool;

    /// The shell of a target's host; nothing is connected yet. `limit` bounds each connection attempt.
    fn shell(&self, target: &WorkerTarget, limit: Duration) -> Result<Self::Shell, ConnectError>;
}

/// Workers on hosts that one way of logging in reaches.
#[derive(Clone, Debug)]
pub struct Ssh<L> {
    pub(crate) login: L,
    programs: Programs,
    node: String,
    limit: Duration,
    known: Known,
}

impl<L> Ssh<L> {
    pub(crate) fn by(login: L, programs: Programs, node: impl Into<String>, limit: Duration) -> Self {
        Self { login, programs, node: node.into(), limit, known: Known::default() }
    }
}

fn worker<'a, L: Login>(ssh: &'a Ssh<L>, shell: &'a L::Shell) -> RemoteWorker<'a> {
    RemoteWorker { shell, programs: &ssh.programs, node: &ssh.node, limit: ssh.limit, known: &ssh.known }
}

#[async_trait]
impl<L: Login> WorkerTransport for Ssh<L> {
    fn serves(&self, target: &WorkerTarget) -> bool {
        L::serves(target)
    }

    async fn install(&self, target: &WorkerTarget) -> Result<InstallReport, ConnectError> {
        worker(self, &self.login.shell(target, self.limit)?).install().await
    }

    async fn start(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        worker(self, &self.login.shell(target, self.limit)?).start().await
    }

    async fn connect(&self, target: &WorkerTarget) -> Result<Box<dyn Duplex>, ConnectError> {
        worker(self, &self.login.shell(target, self.limit)?).connect().await
    }

    async fn remove(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        worker(self, &self.login.shell(target, self.limit)?).remove().await
    }
}
