//! The task that reads: takes frames apart and hands each to whom it concerns, never waiting for the
//! writer.

use bytes::BytesMut;
use helix_protocol::link::Frame;
use helix_protocol::{Code, Failure};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use crate::codec::decode;
use crate::connection::{LinkHandle, Shared, Side, lost_code};
use crate::event::{Asked, Closed, Event, Replier};

/// Reads until the connection ends, and says how it did.
pub(crate) async fn read_all<R: AsyncRead + Unpin>(
    mut io: R,
    mut buffer: BytesMut,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
    handle: impl Fn() -> Option<LinkHandle>,
) -> Closed {
    loop {
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => {
                    shared.heard();
                    if let Err(failure) = dispatch(frame, shared, events, &handle).await {
                        return Closed::Failed(failure);
                    }
                }
                Ok(None) => break,
                Err(failure) => return Closed::Failed(failure),
            }
        }
        buffer.reserve(16 * 1024);
        match io.read_buf(&mut buffer).await {
            Ok(0) if buffer.is_empty() => return Closed::Remote,
            Ok(0) => return Closed::Failed(cut(buffer.len())),
            Ok(_) => {}
            Err(error) => return Closed::Failed(lost(shared.side, &error)),
        }
    }
}

/// The stream ended inside a frame.
pub(crate) fn cut(received: usize) -> Failure {
    Failure::new(Code::ProtocolError, format!("the connection ended inside a frame, {received} bytes of which had come"))
}

/// The stream failed.
pub(crate) fn lost(side: Side, error: &std::io::Error) -> Failure {
    Failure::new(lost_code(side, Code::WorkerUnreachable), format!("the connection was cut: {error}"))
        .hint("it is opened again by itself; what runs under a key goes on meanwhile")
}

async fn dispatch(
    frame: Frame,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
    handle: &impl Fn() -> Option<LinkHandle>,
) -> Result<(), Failure> {
    let event = match frame {
        Frame::Request { id, body } => {
            let Some(handle) = handle() else { return Ok(()) };
            let asked = Event::Request(Asked { id, body, reply: Replier::new(id, handle, shared.asked(id)) });
            if let Err(mpsc::error::TrySendError::Full(Event::Request(asked))) = events.try_send(asked) {
                refuse(shared, asked);
            }
            return Ok(());
        }
        Frame::Reply { id, result } => {
            shared.replied(id, result);
            return Ok(());
        }
        Frame::Abandon { id } => {
            shared.abandoned(id);
            return Ok(());
        }
        Frame::Bulk { stream, data } => return shared.streams.chunk(stream, data, &shared.outbox),
        Frame::BulkEnd { stream } => return shared.streams.ended(stream, Ok(())),
        Frame::BulkFailed { stream, failure } => return shared.streams.ended(stream, Err(failure)),
        Frame::Credit { stream, bytes } => return shared.streams.granted(stream, bytes),
        Frame::Heartbeat(beat) => Event::Heartbeat(beat),
        Frame::HeartbeatAck(ack) => Event::HeartbeatAck(ack),
        Frame::Notice(notice) => Event::Notice(notice),
        Frame::Hello(_) | Frame::Welcome(_) => {
            return Err(Failure::new(Code::ProtocolError, "a second handshake came on a connection that stands"));
        }
    };
    // Whoever took `Incoming` may have dropped it: replies and streams go on without.
    let _ = events.send(event).await;
    Ok(())
}

/// Answers a request that nobody takes in time.
fn refuse(shared: &Shared, asked: Asked) {
    let failure =
        Failure::new(Code::Overloaded, "more requests wait on this connection than are admitted").hint("try again in a moment");
    let id = asked.id;
    asked.reply.disarm();
    shared.answered(id);
    shared.outbox.urgent(Frame::Reply { id, result: Err(failure) });
}
