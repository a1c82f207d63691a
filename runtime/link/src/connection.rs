//! A connection's two tasks and the handle that asks over it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use helix_protocol::link::{Frame, Heartbeat, HeartbeatAck, Notice, Request, Response, StreamId};
use helix_protocol::{Code, Failure, ObjectId};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bulk::{BulkReader, BulkWriter, Streams};
use crate::codec::encode;
use crate::event::{Closed, Incoming};
use crate::objects::{ObjectReader, ObjectWriter};
use crate::outbox::{Outbox, Queues, write_all};
use crate::reader::read_all;

/// Bulk chunks that may wait to be written; more make their senders wait.
const BULK_QUEUE: usize = 8;

/// A clock: time since some fixed instant.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// CLOCK_BOOTTIME: goes on while the machine is suspended and never jumps.
pub fn boot_clock() -> Clock {
    Arc::new(|| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
    })
}

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The node's.
    Node,
    /// The worker's.
    Worker,
}

/// How a connection behaves.
#[derive(Clone)]
pub struct Options {
    /// The other side must have shaken hands within this time.
    pub handshake_timeout: Duration,
    /// How many control frames may wait to be written before their senders wait.
    pub control_queue: usize,
    /// How many events may wait to be taken; further requests are answered `overloaded`.
    pub event_queue: usize,
    /// What [`LinkHandle::last_heard`] is read on. Tokio's clock by default, which tests can pause;
    /// programs use [`boot_clock`].
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        let start = tokio::time::Instant::now();
        Self {
            handshake_timeout: Duration::from_secs(10),
            control_queue: 1024,
            event_queue: 1024,
            clock: Arc::new(move || start.elapsed()),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("control_queue", &self.control_queue)
            .field("event_queue", &self.event_queue)
            .finish_non_exhaustive()
    }
}

/// A connection: what asks, and what is heard.
pub struct Link {
    /// Asks, and is cheap to clone.
    pub handle: LinkHandle,
    /// Hears.
    pub incoming: Incoming,
}

/// Asks over a connection. The connection closes when every handle (and its [`Incoming`], and every
/// stream and unanswered request) has been dropped, or by [`close`](Self::close).
#[derive(Clone)]
pub struct LinkHandle {
    control: mpsc::Sender<Bytes>,
    bulk: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkHandle({:?}, silent for {:?})", self.shared.side, self.silent_for())
    }
}

/// What the two tasks and all handles of a connection share.
pub(crate) struct Shared {
    pub(crate) side: Side,
    pub(crate) outbox: Outbox,
    pub(crate) streams: Streams,
    clock: Clock,
    heard_nanos: AtomicU64,
    next_request: AtomicU64,
    next_stream: AtomicU32,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Response, Failure>>>>,
    answering: Mutex<HashMap<u64, CancellationToken>>,
    ended: Mutex<Option<Closed>>,
    /// Close once what is queued is written.
    closing: CancellationToken,
    /// Close at once.
    aborting: CancellationToken,
    /// The connection has ended and `ended` says how.
    closed: CancellationToken,
}

impl Shared {
    pub(crate) fn heard(&self) {
        self.heard_nanos.store(nanos((self.clock)()), Ordering::Relaxed);
    }

    /// Hands a reply to whoever waits for it. The objects of an answer nobody waits for are thrown away as they come.
    pub(crate) fn replied(&self, id: u64, result: Result<Response, Failure>) {
        let waiting = self.waiting.lock().remove(&id);
        let unwanted = match waiting {
            Some(waiting) => waiting.send(result).err(),
            None => Some(result),
        };
        if let Some(Ok(Response::Snapshotted(snapshot))) = unwanted
            && let Some(stream) = snapshot.stream
        {
            self.streams.discard(stream, &self.outbox);
        }
    }

    /// Registers a request of the other side; the token tells when it is abandoned.
    pub(crate) fn asked(&self, id: u64) -> CancellationToken {
        let token = CancellationToken::new();
        self.answering.lock().insert(id, token.clone());
        token
    }

    pub(crate) fn answered(&self, id: u64) {
        self.answering.lock().remove(&id);
    }

    pub(crate) fn abandoned(&self, id: u64) {
        if let Some(token) = self.answering.lock().remove(&id) {
            token.cancel();
        }
    }

    fn end(&self, how: Closed) {
        self.ended.lock().get_or_insert(how.clone());
        self.closed.cancel();
        let failure = how.failure(self.side);
        for (_, waiting) in self.waiting.lock().drain() {
            let _ = waiting.send(Err(failure.clone()));
        }
        for (_, token) in self.answering.lock().drain() {
            token.cancel();
        }
        self.streams.end(&failure);
    }

    pub(crate) fn how_ended(&self) -> Option<Closed> {
        self.ended.lock().clone()
    }

    pub(crate) fn failure(&self) -> Failure {
        self.how_ended().unwrap_or(Closed::Local).failure(self.side)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Serves a connection on which nobody shakes hands: both sides speak at once.
pub fn open<IO>(io: IO, side: Side, options: Options) -> Link
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    serve(reader, writer, BytesMut::new(), side, options)
}

/// Starts the two tasks. `received` is what was read beyond the handshake.
pub(crate) fn serve<R, W>(reader: R, writer: W, received: BytesMut, side: Side, options: Options) -> Link
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (control, control_queue) = mpsc::channel(options.control_queue);
    let (bulk, bulk_queue) = mpsc::channel(BULK_QUEUE);
    let (events, event_queue) = mpsc::channel(options.event_queue);
    let shared = Arc::new(Shared {
        side,
        outbox: Outbox::default(),
        streams: Streams::default(),
        heard_nanos: AtomicU64::new(nanos((options.clock)())),
        clock: options.clock,
        next_request: AtomicU64::new(1),
        next_stream: AtomicU32::new(1),
        waiting: Mutex::default(),
        answering: Mutex::default(),
        ended: Mutex::default(),
        closing: CancellationToken::new(),
        aborting: CancellationToken::new(),
        closed: CancellationToken::new(),
    });
    let handle = LinkHandle { control, bulk, shared: Arc::clone(&shared) };
    let weak = (handle.control.downgrade(), handle.bulk.downgrade());
    tokio::spawn(async move {
        let handle = || Some(LinkHandle { control: weak.0.upgrade()?, bulk: weak.1.upgrade()?, shared: Arc::clone(&shared) });
        let queues = Queues { control: control_queue, bulk: bulk_queue };
        let how = tokio::select! {
            written = write_all(writer, queues, &shared.outbox, &shared.closing) => match written {
                Ok(()) => Closed::Local,
                Err(failure) => Closed::Failed(Failure { code: lost_code(side, failure.code), ..failure }),
            },
            how = read_all(reader, received, &shared, &events, handle) => how,
            () = shared.aborting.cancelled() => Closed::Local,
        };
        tracing::debug!(?side, ?how, "connection ended");
        shared.end(how);
    });
    Link { incoming: Incoming { events: event_queue, handle: handle.clone() }, handle }
}

/// A cut connection is named after the side that cannot be reached.
pub(crate) fn lost_code(side: Side, code: Code) -> Code {
    match (side, code) {
        (Side::Worker, Code::WorkerUnreachable) => Code::NodeUnreachable,
        (_, code) => code,
    }
}

impl LinkHandle {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) async fn send_control(&self, frame: &Frame) -> Result<(), Failure> {
        let bytes = encode(frame)?;
        tokio::select! {
            sent = self.control.send(bytes) => sent.map_err(|_| self.shared.failure()),
            () = self.shared.closed.cancelled() => Err(self.shared.failure()),
        }
    }

    pub(crate) async fn send_bulk(&self, frame: &Frame) -> Result<(), Failure> {
        let bytes = encode(frame)?;
        tokio::select! {
            sent = self.bulk.send(bytes) => sent.map_err(|_| self.shared.failure()),
            () = self.shared.closed.cancelled() => Err(self.shared.failure()),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// Beside the answer's own failures: `timed_out`; `worker_unreachable` (on a worker
    /// `node_unreachable`) or the `protocol_error` that ended the connection; `invalid_request` where the
    /// request is too large. When it times out or the future is dropped the other side is told.
    pub async fn request(&self, body: Request, timeout: Duration) -> Result<Response, Failure> {
        let id = self.shared.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.shared.waiting.lock().insert(id, sender);
        let mut asking = Asking { shared: &self.shared, id, sent: false, answered: false };
        if let Some(how) = self.shared.how_ended() {
            return Err(how.failure(self.shared.side));
        }
        let exchange = async {
            self.send_control(&Frame::Request { id, body }).await?;
            asking.sent = true;
            let answer = answer.await.map_err(|_| self.shared.failure())?;
            asking.answered = true;
            answer
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::new(Code::TimedOut, format!("no answer came over the link within {} ms", timeout.as_millis()))
                .hint("the request may still be carried out; asking again with the same key is safe")),
        }
    }

    /// Says that this worker lives.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), Failure> {
        self.send_control(&Frame::Heartbeat(beat)).await
    }

    /// Says that a heartbeat was heard, which renews the worker's lease.
    pub async fn acknowledge(&self, ack: HeartbeatAck) -> Result<(), Failure> {
        self.send_control(&Frame::HeartbeatAck(ack)).await
    }

    /// Tells the node something it did not ask for.
    pub async fn notify(&self, notice: Notice) -> Result<(), Failure> {
        self.send_control(&Frame::Notice(notice)).await
    }

    /// Stores objects on the other side: the request and its stream in one. Answers how many objects and bytes it took.
    pub async fn store(&self, objects: Vec<(ObjectId, Bytes)>, timeout: Duration) -> Result<(u64, u64), Failure> {
        let mut writer = self.send_objects();
        let stream = writer.stream();
        let send = async move {
            for (id, bytes) in objects {
                writer.write(id, bytes).await?;
            }
            writer.finish().await
        };
        let request = self.request(Request::Store { stream }, timeout);
        tokio::pin!(send, request);
        let response = tokio::select! {
            response = &mut request => response?,
            sent = &mut send => {
                sent?;
                request.await?
            }
        };
        match response {
            Response::Stored { objects, bytes } => Ok((objects, bytes)),
            other => Err(Failure::new(Code::ProtocolError, format!("the answer to `store` was {other:?}"))),
        }
    }

    /// Opens a stream of raw bytes to the other side, which learns its number from a request or a reply.
    pub fn open_bulk(&self) -> BulkWriter {
        let stream = self.shared.next_stream.fetch_add(1, Ordering::Relaxed);
        BulkWriter::new(self.clone(), stream)
    }

    /// The bytes of a stream of the other side. Dropping the reader early throws the rest away.
    pub fn receive_bulk(&self, stream: StreamId) -> BulkReader {
        BulkReader::new(self.clone(), stream)
    }

    /// Opens a stream of objects to the other side.
    pub fn send_objects(&self) -> ObjectWriter {
        ObjectWriter::new(self.open_bulk())
    }

    /// The objects of a stream of the other side.
    pub fn receive_objects(&self, stream: StreamId) -> ObjectReader {
        ObjectReader::new(self.receive_bulk(stream))
    }

    /// When the last frame of any kind came, on the connection's clock. Its opening counts as one.
    pub fn last_heard(&self) -> Duration {
        Duration::from_nanos(self.shared.heard_nanos.load(Ordering::Relaxed))
    }

    /// How long nothing has been heard.
    pub fn silent_for(&self) -> Duration {
        (self.shared.clock)().saturating_sub(self.last_heard())
    }

    /// Writes what is queued, then closes.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// Closes at once.
    pub fn abort(&self) {
        self.shared.aborting.cancel();
    }

    /// True once the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Resolves once the connection has ended, with the way it did.
    pub async fn closed(&self) -> Closed {
        self.shared.closed.cancelled().await;
        self.shared.how_ended().expect("`ended` is set before `closed` is cancelled")
    }
}

/// Forgets a request when its future ends, and tells the other side where it did not answer.
struct Asking<'a> {
    shared: &'a Shared,
    id: u64,
    sent: bool,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.id);
        if self.sent && !self.answered && !self.shared.closed.is_cancelled() {
            self.shared.outbox.urgent(Frame::Abandon { id: self.id });
        }
    }
}
