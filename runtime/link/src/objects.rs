//! Objects on a bulk stream: records of a 32-byte id, a four-byte big-endian length, and the bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use helix_protocol::link::{MAX_CHUNK, StreamId};
use helix_protocol::{Code, Failure, ObjectId};

use crate::bulk::{BulkReader, BulkWriter};

/// The largest object that crosses the link, in bytes.
pub const MAX_OBJECT: u32 = 1 << 30;
/// What stands in front of an object's bytes.
const HEADER: usize = 32 + 4;

/// Sends objects. Small ones share chunks.
#[derive(Debug)]
pub struct ObjectWriter {
    bulk: BulkWriter,
    gathered: BytesMut,
}

impl ObjectWriter {
    pub(crate) fn new(bulk: BulkWriter) -> Self {
        Self { bulk, gathered: BytesMut::new() }
    }

    /// The stream's number, for the frame that tells of it.
    pub fn stream(&self) -> StreamId {
        self.bulk.stream()
    }

    /// Sends one object.
    ///
    /// Refused with `file_too_large` above [`MAX_OBJECT`].
    pub async fn write(&mut self, id: ObjectId, bytes: Bytes) -> Result<(), Failure> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_OBJECT).ok_or_else(|| {
            Failure::new(
                Code::FileTooLarge,
                format!("object {} has {} bytes, and {MAX_OBJECT} is the most that crosses the link", id.short(), bytes.len()),
            )
            .hint("lower `workspace.file_cap_bytes`")
        })?;
        self.gathered.put_slice(&id.0);
        self.gathered.put_u32(length);
        if self.gathered.len() + bytes.len() <= MAX_CHUNK {
            self.gathered.put_slice(&bytes);
            return Ok(());
        }
        self.flush().await?;
        if bytes.len() < MAX_CHUNK {
            self.gathered.put_slice(&bytes);
            return Ok(());
        }
        self.bulk.write(bytes).await
    }

    /// Says that these were all.
    pub async fn finish(mut self) -> Result<(), Failure> {
        self.flush().await?;
        self.bulk.finish().await
    }

    /// Says why the rest does not come.
    pub async fn fail(self, failure: Failure) -> Result<(), Failure> {
        self.bulk.fail(failure).await
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let gathered = self.gathered.split().freeze();
        self.bulk.write(gathered).await
    }
}

/// Takes objects. Their bytes are not checked against their ids: a store does that (`NewObject::checked`).
#[derive(Debug)]
pub struct ObjectReader {
    bulk: BulkReader,
    gathered: BytesMut,
    done: bool,
}

impl ObjectReader {
    pub(crate) fn new(bulk: BulkReader) -> Self {
        Self { bulk, gathered: BytesMut::new(), done: false }
    }

    /// Every object of the stream.
    pub async fn collect_all(mut self) -> Result<Vec<(ObjectId, Bytes)>, Failure> {
        let mut objects = Vec::new();
        while let Some(object) = self.next().await {
            objects.push(object?);
        }
        Ok(objects)
    }

    /// The next object out of what has come; `None` where more must come first.
    fn record(&mut self) -> Result<Option<(ObjectId, Bytes)>, Failure> {
        let Some(header) = self.gathered.first_chunk::<HEADER>() else { return Ok(None) };
        let (id, length) = header.split_at(32);
        let id = ObjectId(id.try_into().expect("the first part is 32 bytes long"));
        let length = u32::from_be_bytes(length.try_into().expect("the second part is four bytes long"));
        if length > MAX_OBJECT {
            return Err(Failure::new(
                Code::ProtocolError,
                format!("object {} says it has {length} bytes, and {MAX_OBJECT} is the limit", id.short()),
            ));
        }
        let length = length as usize;
        if self.gathered.len() < HEADER + length {
            return Ok(None);
        }
        self.gathered.advance(HEADER);
        Ok(Some((id, self.gathered.split_to(length).freeze())))
    }
}

impl Stream for ObjectReader {
    type Item = Result<(ObjectId, Bytes), Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.done {
            match self.record() {
                Ok(Some(object)) => return Poll::Ready(Some(Ok(object))),
                Ok(None) => {}
                Err(failure) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(failure)));
                }
            }
            match ready!(self.bulk.poll_next_unpin(context)) {
                Some(Ok(chunk)) => self.gathered.extend_from_slice(&chunk),
                Some(Err(failure)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(failure)));
                }
                None => {
                    self.done = true;
                    if !self.gathered.is_empty() {
                        let failure = Failure::new(Code::ProtocolError, "a stream of objects ends in the middle of one");
                        return Poll::Ready(Some(Err(failure)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }
}
