//! Passing a client's bytes on to a provider of the same format, and the answer's bytes back.
//!
//! Nothing is changed on the way. The beginning is held until it is known to be no error. A copy of the answer is read beside it, only to
//! learn what was used: by the answer's own word, or by an estimate of what was asked and answered where it came to its regular end
//! without one.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use helix_ports::{ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{Code, Failure, ModelReply, Usage};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::connection::{BodyError, Chunks, ENOUGH, OF_AN_ERROR, until};
use crate::estimate::block_tokens;
use crate::events::{events, first_event};
use crate::fault::{Progress, is_page};
use crate::format::{DecodeError, Format};
use crate::provider::{HttpProvider, replacing};
use crate::{Access, client_formats, request_tokens, text_tokens};

/// Headers of an answer that pass beside its limits.
const PASSED: [&str; 6] = ["content-type", "retry-after", "retry-after-ms", "x-should-retry", "request-id", "x-request-id"];

/// Sends the bytes; see [`helix_ports::Provider::forward`].
pub(crate) async fn forward(provider: &HttpProvider, call: RawCall) -> Result<RawAnswer, ProviderError> {
    let Some(path) = provider.format.raw_path(&call).filter(|_| provider.format.passes()) else {
        let failure = Failure::new(Code::InvalidRequest, format!("{} takes no such request as it is", provider.settings.name));
        return Err(ProviderError::Final(failure.hint("ask in another format; it is translated then")));
    };
    // A client that names a version of the format gets that one.
    let named = replacing(call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let ask = |access: &Access| {
        let request = provider.post(access, &path).header(CONTENT_TYPE, "application/json").body(call.body.clone());
        request.headers(named.clone())
    };
    let limit = provider.settings.call_timeout;
    let deadline = Instant::now() + limit;
    let sent = timeout_at(deadline, provider.send_renewing(ask)).await;
    let (response, access) = sent.map_err(|_| provider.faults().silent("did not begin to answer", limit))??;
    if call.operation != RawOperation::CountTokens {
        let model = if call.model.is_empty() { &provider.settings.model } else { &call.model };
        provider.note_limits(model, &response);
    }
    let (status, headers) = (response.status(), passed(response.headers()));
    if !status.is_success() || is(&headers, "text/html") {
        return Ok(refused(provider, response, &access, deadline).await);
    }
    // Asked to stream or not, some servers answer in one piece.
    let streams = call.operation == RawOperation::Stream && !is(&headers, "application/json");
    // One limit for the whole body; a single event cannot be larger than all of them.
    let chunks = Chunks::new(response, provider.settings.idle_timeout, provider.settings.answer_bytes, Arc::default());
    let mut chunks = until(deadline, limit, chunks).boxed().fuse();
    let (begun, fault) = beginning(provider, streams, &mut chunks).await?;
    let chunks = stream::iter(begun).map(Ok).chain(chunks);
    let judge = provider.judge();
    if fault.is_some() {
        let body = chunks.map(move |chunk| chunk.map_err(&judge)).boxed();
        return Ok(RawAnswer { status: status.as_u16(), fault, headers, body, usage: oneshot::channel().1 });
    }
    let (copy, copied) = mpsc::unbounded_channel();
    let (told, usage) = oneshot::channel();
    if call.operation != RawOperation::CountTokens {
        let meter = Meter { format: Arc::clone(&provider.format), asked: call.body, limit: provider.settings.answer_bytes };
        tokio::spawn(meter.read(streams, copied, told));
    }
    let body = chunks.map(move |chunk| {
        let chunk = chunk.map_err(&judge)?;
        // Whoever read for the usage has ended; the answer passes all the same.
        drop(copy.send(chunk.clone()));
        Ok(chunk)
    });
    Ok(RawAnswer { status: status.as_u16(), fault: None, headers, body: body.boxed(), usage })
}

/// The chunks that say whether an answer is one, and what it is where it is none: a stream's up to its first event, a document's up to its
/// end or as much as no error is long. An error of its own where they do not come.
async fn beginning(
    provider: &HttpProvider,
    streams: bool,
    chunks: &mut (impl Stream<Item = Result<Bytes, BodyError>> + Unpin),
) -> Result<(Vec<Bytes>, Option<ProviderError>), ProviderError> {
    let (mut begun, mut start) = (Vec::new(), Vec::new());
    let reported = |error| match error {
        DecodeError::Reported(_) => Some(provider.faults().decode(error, Progress::Nothing)),
        DecodeError::Garbage(_) => None,
    };
    let mut ended = false;
    while !ended && start.len() < ENOUGH {
        match chunks.next().await {
            Some(chunk) => {
                let chunk = chunk.map_err(provider.judge())?;
                start.extend_from_slice(&chunk);
                begun.push(chunk);
            }
            None => {
                ended = true;
                // Some servers leave out the blank line after the last event.
                start.extend_from_slice(b"\n\n");
            }
        }
        if streams && let Some(event) = first_event(provider.format.framing(), &start) {
            let pushed = provider.format.decoder().push(event.name.as_deref(), &event.data);
            return Ok((begun, pushed.err().and_then(reported)));
        }
    }
    let fault = match ended {
        true if is_page(&start) => Some(provider.faults().page(&start)),
        true => provider.format.decode(&start).err().and_then(reported),
        false => None,
    };
    Ok((begun, fault))
}

/// What is no answer, judged as where it is read here, and its bytes as they came.
async fn refused(provider: &HttpProvider, response: Response, access: &Access, deadline: Instant) -> RawAnswer {
    let (status, all, headers) = (response.status(), response.headers().clone(), passed(response.headers()));
    let idle = provider.settings.idle_timeout.min(OF_AN_ERROR);
    // Fused: a refusal that ends within what is read of it is asked for more all the same.
    let chunks = Chunks::new(response, idle, provider.settings.answer_bytes, Arc::default());
    let mut chunks = until(deadline, provider.settings.call_timeout, chunks).boxed().fuse();
    let (mut start, mut read) = (Vec::new(), Vec::new());
    while start.len() < ENOUGH
        && let Some(chunk) = chunks.next().await
    {
        start.extend_from_slice(chunk.as_deref().unwrap_or_default());
        read.push(chunk);
    }
    let fault = match status.is_success() {
        true => provider.faults().page(&start),
        false => provider.refusal(status, &all, &start, access),
    };
    let judge = provider.judge();
    let body = stream::iter(read).chain(chunks).map(move |chunk| chunk.map_err(&judge));
    RawAnswer { status: status.as_u16(), fault: Some(fault), headers, body: body.boxed(), usage: oneshot::channel().1 }
}

fn passed(headers: &HeaderMap) -> Vec<(String, String)> {
    let passes = |name: &str| PASSED.contains(&name) || name.contains("ratelimit");
    let of = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter(|(name, _)| passes(name.as_str())).filter_map(of).collect()
}

fn is(headers: &[(String, String)], kind: &str) -> bool {
    headers.iter().any(|(name, value)| name == CONTENT_TYPE.as_str() && value.starts_with(kind))
}

fn received(copied: mpsc::UnboundedReceiver<Bytes>) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static {
    Box::pin(stream::unfold(copied, |mut copied| async move { Some((Ok(copied.recv().await?), copied)) }))
}

/// Reads what an answer used.
struct Meter {
    format: Arc<dyn Format>,
    /// The request, as it was sent.
    asked: Bytes,
    /// Most bytes of an answer.
    limit: usize,
}

impl Meter {
    /// Reads the copy to its end and says what was used. Silent where the answer was cut: then nobody knows.
    async fn read(self, streams: bool, copied: mpsc::UnboundedReceiver<Bytes>, told: oneshot::Sender<Usage>) {
        let chunks = received(copied);
        let usage = if streams { self.of_stream(chunks).await } else { self.of_document(chunks).await };
        if let Some(usage) = usage {
            // Nobody asks what it cost.
            let _ = told.send(usage);
        }
    }

    async fn of_stream(&self, chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static) -> Option<Usage> {
        let mut decoder = self.format.decoder();
        let mut events = events(chunks, self.format.framing(), Arc::new(AtomicUsize::new(0)));
        while !decoder.is_complete()
            && let Some(Ok(event)) = events.next().await
        {
            decoder.push(event.name.as_deref(), &event.data).ok()?;
        }
        if !decoder.is_complete() && !decoder.ends_with_stream() {
            return None;
        }
        // Some formats say what was used only where a client asks for it.
        match decoder.usage() {
            Some(usage) if !usage.estimated => Some(usage),
            _ => decoder.finish().ok().map(|reply| self.used(&reply)),
        }
    }

    async fn of_document(
        &self,
        mut chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static,
    ) -> Option<Usage> {
        let mut body = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            if body.len() + chunk.len() > self.limit {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        self.format.decode(&body).ok().map(|reply| self.used(&reply))
    }

    /// What a whole answer says it used, else an upper estimate of what was asked and what can be seen of the answer. What a model thought
    /// and did not show is in no estimate.
    fn used(&self, reply: &ModelReply) -> Usage {
        if !reply.usage.estimated {
            return reply.usage;
        }
        let asked: Value = serde_json::from_slice(&self.asked).unwrap_or_default();
        let client = client_formats().into_iter().find(|client| client.wire() == self.format.wire());
        let (request, extent) = client.map(|client| client.measure(&asked)).unwrap_or_default();
        let unread = || text_tokens(&String::from_utf8_lossy(&self.asked));
        let input_tokens = request.as_ref().map_or_else(unread, request_tokens);
        let seen: u64 = reply.blocks.iter().map(block_tokens).sum();
        // Of several answers to one request the first is read; the others are taken to be as long.
        Usage { input_tokens, output_tokens: seen * extent.answers, ..reply.usage }
    }
}
