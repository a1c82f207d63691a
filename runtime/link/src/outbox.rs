//! What waits to be written, and the task that writes it.
//!
//! Three queues. `control` and `bulk` are bounded and make their senders wait. `urgent` holds what may
//! never wait because the reader says it (credit, the answer to a request that was refused) or a
//! destructor does; it is bounded by what is in flight, and a peer that makes it grow beyond
//! [`MOST_URGENT`] is cut off.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use helix_protocol::Failure;
use helix_protocol::link::{Frame, StreamId};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::codec::encode;

/// How many urgent frames may wait.
const MOST_URGENT: usize = 65_536;
/// Frames are gathered into writes of about this size.
const WRITE_SIZE: usize = 64 * 1024;

/// The way out for frames that never wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    urgent: Mutex<Urgent>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Urgent {
    frames: Vec<Frame>,
    credit: HashMap<StreamId, u32>,
    overrun: bool,
}

impl Outbox {
    pub(crate) fn urgent(&self, frame: Frame) {
        let mut urgent = self.urgent.lock();
        if urgent.frames.len() < MOST_URGENT {
            urgent.frames.push(frame);
        } else {
            urgent.overrun = true;
        }
        drop(urgent);
        self.wake.notify_one();
    }

    /// Lets the other side send `bytes` more of `stream`. Grants that wait are added up.
    pub(crate) fn credit(&self, stream: StreamId, bytes: u32) {
        let mut urgent = self.urgent.lock();
        let grant = urgent.credit.entry(stream).or_default();
        *grant = grant.saturating_add(bytes);
        drop(urgent);
        self.wake.notify_one();
    }

    fn drain(&self, buffer: &mut BytesMut) -> Result<(), Failure> {
        let (frames, credit, overrun) = {
            let mut urgent = self.urgent.lock();
            (std::mem::take(&mut urgent.frames), std::mem::take(&mut urgent.credit), urgent.overrun)
        };
        if overrun {
            return Err(Failure::new(
                helix_protocol::Code::Overloaded,
                "the other side asks faster than refusals can be sent, so the connection was closed",
            ));
        }
        for frame in frames {
            buffer.extend_from_slice(&encode(&frame)?);
        }
        for (stream, bytes) in credit {
            buffer.extend_from_slice(&encode(&Frame::Credit { stream, bytes })?);
        }
        Ok(())
    }
}

/// What the writer serves.
pub(crate) struct Queues {
    pub(crate) control: mpsc::Receiver<Bytes>,
    pub(crate) bulk: mpsc::Receiver<Bytes>,
}

/// Writes until `closing` and everything queued before it is written, or every sender has gone.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    mut io: W,
    mut queues: Queues,
    outbox: &Outbox,
    closing: &CancellationToken,
) -> Result<(), Failure> {
    let mut buffer = BytesMut::with_capacity(2 * WRITE_SIZE);
    let lost =
        |error: std::io::Error| Failure::new(helix_protocol::Code::WorkerUnreachable, format!("the connection was cut: {error}"));
    let mut open = true;
    while open {
        tokio::select! {
            biased;
            () = outbox.wake.notified() => {}
            frame = queues.control.recv() => match frame {
                Some(frame) => buffer.extend_from_slice(&frame),
                None => open = false,
            },
            () = closing.cancelled() => open = false,
            Some(chunk) = queues.bulk.recv() => buffer.extend_from_slice(&chunk),
        }
        loop {
            outbox.drain(&mut buffer)?;
            gather(&mut queues, &mut buffer);
            if buffer.is_empty() {
                break;
            }
            io.write_all(&buffer).await.map_err(lost)?;
            buffer.clear();
        }
        io.flush().await.map_err(lost)?;
    }
    io.shutdown().await.map_err(lost)
}

/// Takes every waiting control frame, as far as one write goes, and otherwise one chunk of bulk data.
fn gather(queues: &mut Queues, buffer: &mut BytesMut) {
    while buffer.len() < WRITE_SIZE {
        match queues.control.try_recv() {
            Ok(frame) => buffer.extend_from_slice(&frame),
            Err(_) => break,
        }
    }
    if buffer.is_empty()
        && let Ok(chunk) = queues.bulk.try_recv()
    {
        buffer.extend_from_slice(&chunk);
    }
}
