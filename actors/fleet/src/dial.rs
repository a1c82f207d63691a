//! Making a connection: a byte stream from a transport, and the handshake on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Clock;
use helix_link::{Link, Options, connect_as_node};
use helix_ports::{ConnectError, WorkerTransport};
use helix_protocol::link::{Hello, LeaseTimes, OLDEST_VERSION, OtherWorker, VERSION, Welcome};
use helix_protocol::{Code, Failure, NodeId, WorkerId, WorkerTarget};
use parking_lot::RwLock;

use crate::line::Line;

/// The line to each worker.
pub(crate) type Lines = Arc<RwLock<HashMap<WorkerId, Arc<Line>>>>;

/// What every connection of the node needs.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub node: NodeId,
    pub lease: LeaseTimes,
    pub clock: Clock,
    /// How long an attempt may take, handshake included.
    pub limit: Duration,
    pub transports: Vec<Arc<dyn WorkerTransport>>,
    /// The workers there are.
    pub lines: Lines,
}

/// A connection that stands.
pub(crate) struct Dialled {
    /// Its number.
    pub number: u64,
    /// The link.
    pub link: Link,
    /// What the worker said.
    pub welcome: Welcome,
    /// What it holds was held against the records.
    pub looked_through: bool,
}

impl Dialler {
    /// The transport of a target. Refused with `invalid_request` where none serves it.
    pub(crate) fn transport(&self, target: &WorkerTarget) -> Result<Arc<dyn WorkerTransport>, Failure> {
        self.transports.iter().find(|transport| transport.serves(target)).map(Arc::clone).ok_or_else(|| {
            Failure::new(Code::InvalidRequest, format!("this node has no transport for {target}"))
                .hint("use a local folder, an ssh alias, or ssh://user@host:port with a key")
        })
    }

    /// Connects to the worker's running process.
    pub(crate) async fn dial(&self, line: &Line, target: &WorkerTarget) -> Result<Dialled, ConnectError> {
        let transport = self.transport(target).map_err(ConnectError::Refused)?;
        let number = line.next_number(self.clock.wall());
        let hello = Hello {
            oldest: OLDEST_VERSION,
            newest: VERSION,
            node: self.node,
            worker: line.worker(),
            connection: number,
            lease: self.lease,
            others: self.others(line),
        };
        let clock = self.clock.clone();
        let options = Options { handshake_timeout: self.limit, clock: Arc::new(move || clock.boottime().0), ..Options::default() };
        let attempt = async {
            let stream = transport.connect(target).await?;
            connect_as_node(stream, hello, options).await.map_err(refusal)
        };
        match tokio::time::timeout(self.limit, attempt).await {
            Ok(connected) => connected.map(|(link, welcome)| Dialled { number, link, welcome, looked_through: false }),
            Err(_) => Err(ConnectError::Unreachable(
                Failure::new(
                    Code::WorkerUnreachable,
                    format!("worker {} at {target} did not answer within {} ms", line.name(), self.limit.as_millis()),
                )
                .hint("check that the machine is up and not overloaded; it is tried again by itself"),
            )),
        }
    }

    fn others(&self, than: &Line) -> Vec<OtherWorker> {
        let lines = self.lines.read();
        let others = lines.values().filter(|line| line.worker() != than.worker());
        others.map(|line| OtherWorker { worker: line.worker(), name: line.name().to_owned() }).collect()
    }

    /// Puts the worker program where it is missing, and starts the worker's process where it does not run.
    pub(crate) async fn start(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        let transport = self.transport(target).map_err(ConnectError::Refused)?;
        let report = transport.install(target).await?;
        if !report.present {
            tracing::info!(%target, program = report.program, bytes = report.uploaded_bytes, "the worker program was installed");
        }
        transport.start(target).await
    }
}

/// A worker of another version stays one, and a machine that is another worker too; everything else that a handshake can meet may
/// pass.
fn refusal(failure: Failure) -> ConnectError {
    match failure.code {
        Code::VersionMismatch | Code::AnotherWorker => ConnectError::Refused(failure),
        _ => ConnectError::Unreachable(failure),
    }
}
