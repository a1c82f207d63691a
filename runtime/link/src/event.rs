//! What arrives, and how it is answered.

use helix_protocol::link::{Frame, Heartbeat, HeartbeatAck, Notice, Request, Response};
use helix_protocol::{Code, Failure};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::connection::{LinkHandle, Side};

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This side closed it.
    Local,
    /// The other side closed it at a frame's border. Of a bridge that is silence, not death.
    Remote,
    /// It was cut, or said something that is not understood.
    Failed(Failure),
}

impl Closed {
    /// What a request is answered with whose connection has ended like this.
    pub fn failure(&self, side: Side) -> Failure {
        let (code, peer) = match side {
            Side::Node => (Code::WorkerUnreachable, "worker"),
            Side::Worker => (Code::NodeUnreachable, "node"),
        };
        match self {
            Self::Local => Failure::new(code, format!("the connection to the {peer} was closed")),
            Self::Remote => Failure::new(code, format!("the {peer}'s end of the connection was closed"))
                .hint("it is opened again by itself; what runs under a key goes on meanwhile"),
            Self::Failed(failure) => failure.clone(),
        }
    }
}

/// Something the other side sent.
#[derive(Debug)]
pub enum Event {
    /// It asks.
    Request(Asked),
    /// The worker lives.
    Heartbeat(Heartbeat),
    /// The node heard a heartbeat.
    HeartbeatAck(HeartbeatAck),
    /// The worker tells of something.
    Notice(Notice),
    /// The connection has ended. Nothing follows.
    Closed(Closed),
}

/// A request and the way to answer it.
#[derive(Debug)]
pub struct Asked {
    /// Its number on this connection.
    pub id: u64,
    /// What is asked.
    pub body: Request,
    /// Where the answer goes.
    pub reply: Replier,
}

/// Answers one request. Dropped without an answer it says `internal`, so that nobody waits for ever.
pub struct Replier {
    id: u64,
    handle: Option<LinkHandle>,
    abandoned: CancellationToken,
}

impl std::fmt::Debug for Replier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replier({})", self.id)
    }
}

impl Replier {
    pub(crate) fn new(id: u64, handle: LinkHandle, abandoned: CancellationToken) -> Self {
        Self { id, handle: Some(handle), abandoned }
    }

    /// Answers. An answer that is too large for a frame is replaced by the failure that says so;
    /// on a connection that has ended it goes nowhere.
    pub async fn send(mut self, result: Result<Response, Failure>) {
        let Some(handle) = self.handle.take() else { return };
        handle.shared().answered(self.id);
        if self.abandoned.is_cancelled() {
            return;
        }
        if let Err(failure) = handle.send_control(&Frame::Reply { id: self.id, result }).await {
            // The connection may stand and only this answer be too large: then say so.
            let _ = handle.send_control(&Frame::Reply { id: self.id, result: Err(failure) }).await;
        }
    }

    /// Forgets the request; somebody else answers.
    pub(crate) fn disarm(mut self) {
        self.handle = None;
    }

    /// Resolves once the asker has gone away or the connection has ended.
    pub async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    /// True once nobody waits for the answer.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        handle.shared().answered(self.id);
        if !self.abandoned.is_cancelled() {
            let failure = Failure::new(Code::Internal, "the request was dropped without an answer");
            handle.shared().outbox.urgent(Frame::Reply { id: self.id, result: Err(failure) });
        }
    }
}

/// What the other side sends, in order.
///
/// Whoever drains it must not await a request of the same connection in between: the answer could be
/// waiting behind what is not drained.
pub struct Incoming {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) handle: LinkHandle,
}

impl Incoming {
    /// The next event. After [`Event::Closed`] it is that again. Cancel safe.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => Event::Closed(self.handle.closed().await),
        }
    }
}
