//! Bulk streams: ordered bytes beside the control frames, with credit per stream.
//!
//! The sender may have [`INITIAL_CREDIT`] bytes on the way that the reader has not taken; each chunk
//! that is taken is granted again. So a slow reader holds up its own stream and nothing else, and a
//! stream that nobody reads costs its credit at most. A stream whose reader has been dropped is
//! drained and thrown away.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use helix_protocol::link::{Frame, INITIAL_CREDIT, MAX_CHUNK, StreamId};
use helix_protocol::{Code, Failure};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::connection::LinkHandle;
use crate::outbox::Outbox;

/// Streams that may have begun without anybody reading them yet.
const MOST_UNREAD: usize = 64;
/// More credit than this is a fault of the peer.
const MOST_CREDIT: usize = 1 << 30;

/// Every bulk stream of a connection, both ways.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    outgoing: Mutex<HashMap<StreamId, Arc<Semaphore>>>,
    incoming: Mutex<HashMap<StreamId, Inbound>>,
}

/// A stream of the other side.
#[derive(Debug)]
struct Inbound {
    chunks: VecDeque<Bytes>,
    /// What the other side may still send.
    credit: u64,
    end: Option<Result<(), Failure>>,
    reader: Reader,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Awaited,
    Present,
    Gone,
}

impl Inbound {
    fn new(reader: Reader) -> Self {
        Self { chunks: VecDeque::new(), credit: INITIAL_CREDIT.into(), end: None, reader, waker: None }
    }
}

impl Streams {
    /// A chunk came. Fails where the other side breaks the rules.
    pub(crate) fn chunk(&self, stream: StreamId, data: Bytes, outbox: &Outbox) -> Result<(), Failure> {
        let mut incoming = self.incoming.lock();
        let inbound = entry(&mut incoming, stream)?;
        if inbound.end.is_some() {
            return Err(Failure::new(Code::ProtocolError, format!("bulk stream {stream} goes on after its end")));
        }
        let length = data.len() as u64;
        inbound.credit = inbound
            .credit
            .checked_sub(length)
            .ok_or_else(|| Failure::new(Code::ProtocolError, format!("bulk stream {stream} sent more than it was granted")))?;
        if inbound.reader == Reader::Gone {
            inbound.credit += length;
            outbox.credit(stream, u32::try_from(length).unwrap_or(u32::MAX));
        } else if !data.is_empty() {
            inbound.chunks.push_back(data);
            wake(inbound);
        }
        Ok(())
    }

    /// A stream ended, well or badly.
    pub(crate) fn ended(&self, stream: StreamId, end: Result<(), Failure>) -> Result<(), Failure> {
        let mut incoming = self.incoming.lock();
        let inbound = entry(&mut incoming, stream)?;
        if inbound.end.is_some() {
            return Err(Failure::new(Code::ProtocolError, format!("bulk stream {stream} ends twice")));
        }
        if inbound.reader == Reader::Gone {
            incoming.remove(&stream);
            return Ok(());
        }
        inbound.end = Some(end);
        wake(inbound);
        Ok(())
    }

    /// The other side took bytes of one of our streams.
    pub(crate) fn granted(&self, stream: StreamId, bytes: u32) -> Result<(), Failure> {
        let outgoing = self.outgoing.lock();
        let Some(credit) = outgoing.get(&stream) else { return Ok(()) };
        let bytes = bytes as usize;
        if credit.available_permits().saturating_add(bytes) > MOST_CREDIT {
            return Err(Failure::new(
                Code::ProtocolError,
                format!("bulk stream {stream} was granted more credit than makes sense"),
            ));
        }
        credit.add_permits(bytes);
        Ok(())
    }

    /// Nobody will read the stream: what came is dropped, and so is what will come.
    pub(crate) fn discard(&self, stream: StreamId, outbox: &Outbox) {
        let mut incoming = self.incoming.lock();
        let inbound = incoming.entry(stream).or_insert_with(|| Inbound::new(Reader::Gone));
        if inbound.end.is_some() {
            incoming.remove(&stream);
            return;
        }
        inbound.reader = Reader::Gone;
        inbound.waker = None;
        let held: usize = inbound.chunks.drain(..).map(|chunk| chunk.len()).sum();
        if held > 0 {
            inbound.credit += held as u64;
            outbox.credit(stream, u32::try_from(held).unwrap_or(u32::MAX));
        }
    }

    /// The connection has ended: readers get `failure`, writers stop waiting.
    pub(crate) fn end(&self, failure: &Failure) {
        for (_, credit) in self.outgoing.lock().drain() {
            credit.close();
        }
        let mut incoming = self.incoming.lock();
        incoming.retain(|_, inbound| inbound.reader == Reader::Present);
        for inbound in incoming.values_mut() {
            inbound.end.get_or_insert_with(|| Err(failure.clone()));
            wake(inbound);
        }
    }
}

fn entry(incoming: &mut HashMap<StreamId, Inbound>, stream: StreamId) -> Result<&mut Inbound, Failure> {
    let unread = || incoming.values().filter(|inbound| inbound.reader == Reader::Awaited).count();
    if !incoming.contains_key(&stream) && incoming.len() >= MOST_UNREAD && unread() >= MOST_UNREAD {
        return Err(Failure::new(Code::ProtocolError, format!("{MOST_UNREAD} bulk streams were begun that nobody knows of")));
    }
    Ok(incoming.entry(stream).or_insert_with(|| Inbound::new(Reader::Awaited)))
}

fn wake(inbound: &mut Inbound) {
    if let Some(waker) = inbound.waker.take() {
        waker.wake();
    }
}

/// Sends raw bytes. Dropped before [`finish`](Self::finish), its reader is told that the stream is incomplete.
#[derive(Debug)]
pub struct BulkWriter {
    handle: LinkHandle,
    stream: StreamId,
    credit: Arc<Semaphore>,
    open: bool,
}

impl BulkWriter {
    pub(crate) fn new(handle: LinkHandle, stream: StreamId) -> Self {
        let credit = Arc::new(Semaphore::new(INITIAL_CREDIT as usize));
        handle.shared().streams.outgoing.lock().insert(stream, Arc::clone(&credit));
        if handle.is_closed() {
            credit.close();
        }
        Self { handle, stream, credit, open: true }
    }

    /// The stream's number, for the frame that tells of it.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Sends `data`, as the other side grants it. Fails where the connection has ended.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), Failure> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(MAX_CHUNK));
            let length = u32::try_from(chunk.len()).expect("a chunk is at most 64 KiB");
            let granted = self.credit.acquire_many(length).await;
            granted.map_err(|_| self.handle.shared().failure())?.forget();
            self.handle.send_bulk(&Frame::Bulk { stream: self.stream, data: chunk }).await?;
        }
        Ok(())
    }

    /// Says that the stream is complete.
    pub async fn finish(mut self) -> Result<(), Failure> {
        self.handle.send_bulk(&Frame::BulkEnd { stream: self.stream }).await?;
        self.open = false;
        Ok(())
    }

    /// Says why the stream is not completed.
    pub async fn fail(mut self, failure: Failure) -> Result<(), Failure> {
        self.handle.send_bulk(&Frame::BulkFailed { stream: self.stream, failure }).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for BulkWriter {
    fn drop(&mut self) {
        let shared = self.handle.shared();
        shared.streams.outgoing.lock().remove(&self.stream);
        if self.open && !self.handle.is_closed() {
            let failure = Failure::new(Code::Cancelled, format!("bulk stream {} was given up by its sender", self.stream));
            // Behind the chunks that are queued already, where there is room; its reader refuses what comes after an end.
            let frame = Frame::BulkFailed { stream: self.stream, failure };
            let handle = self.handle.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { handle.send_bulk(&frame).await });
            }
        }
    }
}

/// Takes the bytes of a stream of the other side, chunk by chunk.
#[derive(Debug)]
pub struct BulkReader {
    handle: LinkHandle,
    stream: StreamId,
    done: bool,
    /// The stream has a reader already.
    refused: bool,
}

impl BulkReader {
    pub(crate) fn new(handle: LinkHandle, stream: StreamId) -> Self {
        let refused = match handle.shared().streams.incoming.lock().entry(stream) {
            Entry::Occupied(mut entry) if entry.get().reader == Reader::Awaited => {
                entry.get_mut().reader = Reader::Present;
                false
            }
            Entry::Occupied(_) => true,
            Entry::Vacant(entry) => {
                entry.insert(Inbound::new(Reader::Present));
                false
            }
        };
        Self { handle, stream, done: false, refused }
    }
}

impl Stream for BulkReader {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.refused {
            self.done = true;
            let message = format!("bulk stream {} is being read by somebody else", self.stream);
            return Poll::Ready(Some(Err(Failure::new(Code::ProtocolError, message))));
        }
        let shared = Arc::clone(self.handle.shared());
        let mut incoming = shared.streams.incoming.lock();
        let Some(inbound) = incoming.get_mut(&self.stream) else {
            drop(incoming);
            self.done = true;
            return Poll::Ready(Some(Err(shared.failure())));
        };
        if let Some(chunk) = inbound.chunks.pop_front() {
            inbound.credit += chunk.len() as u64;
            if inbound.end.is_none() {
                shared.outbox.credit(self.stream, u32::try_from(chunk.len()).unwrap_or(u32::MAX));
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        if let Some(end) = inbound.end.take() {
            incoming.remove(&self.stream);
            self.done = true;
            return Poll::Ready(end.err().map(Err));
        }
        if let Some(how) = shared.how_ended() {
            incoming.remove(&self.stream);
            self.done = true;
            return Poll::Ready(Some(Err(how.failure(shared.side))));
        }
        inbound.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for BulkReader {
    fn drop(&mut self) {
        if !self.done && !self.refused {
            self.handle.shared().streams.discard(self.stream, &self.handle.shared().outbox);
        }
    }
}
