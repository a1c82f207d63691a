//! Reading a copy of an answer that passes, to learn how it ends and what it used.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use helix_ports::ProviderError;
use helix_protocol::{ModelReply, Usage};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::connection::BodyError;
use crate::estimate::block_tokens;
use crate::events::events;
use crate::fault::{Faults, Progress};
use crate::format::{DecodeError, Format};
use crate::{Settings, client_formats, request_tokens, text_tokens};

/// A copy of a body, made while it passes.
pub(crate) struct Copy {
    chunks: mpsc::UnboundedSender<Bytes>,
    end: Option<oneshot::Sender<Result<(), ProviderError>>>,
}

/// The other side of a [`Copy`].
pub(crate) struct Copied {
    chunks: mpsc::UnboundedReceiver<Bytes>,
    /// How the body ended. Nothing comes where whoever took it left before.
    end: oneshot::Receiver<Result<(), ProviderError>>,
}

/// A copy to be made, and to be read.
pub(crate) fn copied() -> (Copy, Copied) {
    let ((chunks, copied), (end, ended)) = (mpsc::unbounded_channel(), oneshot::channel());
    (Copy { chunks, end: Some(end) }, Copied { chunks: copied, end: ended })
}

impl Copy {
    /// Copies what comes next of the body, `None` being its end. That whoever reads the copy has enough of it is no reason to stop.
    pub fn pass(&mut self, next: Option<Result<Bytes, ProviderError>>) -> Option<Result<Bytes, ProviderError>> {
        let end = match &next {
            Some(Ok(chunk)) => {
                drop(self.chunks.send(chunk.clone()));
                return next;
            }
            Some(Err(error)) => Err(error.clone()),
            None => Ok(()),
        };
        if let Some(told) = self.end.take() {
            drop(told.send(end));
        }
        next
    }
}

/// What can be read of an answer.
enum Read {
    Used(Usage),
    /// The provider said itself that it broke off.
    BrokeOff(ProviderError),
    /// Its end is missing.
    Unfinished,
    /// It is in words that are not known here, and a client may know.
    Unreadable,
}

/// Reads how an answer ends.
pub(crate) struct Meter {
    pub format: Arc<dyn Format>,
    pub settings: Arc<Settings>,
    /// The request, as it was sent.
    pub asked: Bytes,
}

impl Meter {
    /// Reads the copy to its end; see [`helix_ports::RawAnswer::ended`].
    pub async fn read(self, streams: bool, copied: Copied) -> Option<Result<Usage, ProviderError>> {
        let chunks = stream::unfold(copied.chunks, |mut chunks| async move { Some((Ok(chunks.recv().await?), chunks)) }).boxed();
        let read = if streams { self.of_stream(chunks).await } else { self.of_document(chunks).await };
        match read {
            Read::Used(usage) => return Some(Ok(usage)),
            Read::BrokeOff(error) => return Some(Err(error)),
            Read::Unfinished | Read::Unreadable => {}
        }
        match copied.end.await.ok()? {
            Ok(()) if matches!(read, Read::Unreadable) => None,
            Ok(()) => Some(Err(self.faults().unended())),
            Err(error) => Some(Err(error)),
        }
    }

    fn faults(&self) -> Faults<'_> {
        Faults { settings: &self.settings }
    }

    fn unread(&self, error: DecodeError) -> Read {
        match error {
            DecodeError::Reported(_) => Read::BrokeOff(self.faults().decode(error, Progress::Began)),
            DecodeError::Garbage(_) => Read::Unreadable,
        }
    }

    async fn of_stream(&self, chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static) -> Read {
        let mut decoder = self.format.decoder();
        let mut events = events(chunks, self.format.framing(), Arc::new(AtomicUsize::new(0)));
        while !decoder.is_complete()
            && let Some(Ok(event)) = events.next().await
        {
            if let Err(error) = decoder.push(event.name.as_deref(), &event.data) {
                return self.unread(error);
            }
        }
        if !decoder.is_complete() && !decoder.ends_with_stream() {
            return Read::Unfinished;
        }
        // Some formats say what was used only where a client asks for it.
        match decoder.usage() {
            Some(usage) if !usage.estimated => Read::Used(usage),
            _ => decoder.finish().map_or_else(|error| self.unread(error), |reply| Read::Used(self.used(&reply))),
        }
    }

    async fn of_document(&self, mut chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static) -> Read {
        let mut body = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            if body.len() + chunk.len() > self.settings.answer_bytes {
                return Read::Unreadable;
            }
            body.extend_from_slice(&chunk);
        }
        self.format.decode(&body).map_or_else(|error| self.unread(error), |reply| Read::Used(self.used(&reply)))
    }

    /// What a whole answer says it used, else an upper estimate of what was asked and what can be seen of the answer. What a model
    /// thought and did not show is in no estimate.
    fn used(&self, reply: &ModelReply) -> Usage {
        if !reply.usage.estimated {
            return reply.usage;
        }
        let asked: Value = serde_json::from_slice(&self.asked).unwrap_or_default();
        let client = client_formats().into_iter().find(|client| client.wire() == self.format.wire());
        let (request, extent) = client.map(|client| client.measure(&asked)).unwrap_or_default();
        let unread = || text_tokens(&String::from_utf8_lossy(&self.asked));
        let model = asked.get("model").and_then(Value::as_str).unwrap_or(&self.settings.model);
        let image_tokens = self.settings.models.of(model).capabilities.image_tokens;
        let input_tokens = request.as_ref().map_or_else(unread, |request| request_tokens(request, image_tokens));
        let seen: u64 = reply.blocks.iter().map(block_tokens).sum();
        // Of several answers to one request the first is read; the others are taken to be as long.
        Usage { input_tokens, output_tokens: seen * extent.answers, ..reply.usage }
    }
}
