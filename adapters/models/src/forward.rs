//! Passing a client's bytes on to a provider of the same format, and the answer's bytes back.
//!
//! Nothing is decoded on the way. A copy of the answer is read beside it, only to learn what was used.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use helix_ports::{ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{Code, Failure, Usage};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use tokio::sync::{mpsc, oneshot};

use crate::Access;
use crate::connection::{BodyError, Chunks};
use crate::events::events;
use crate::format::Format;
use crate::provider::{HttpProvider, replacing};

/// Headers of an answer that pass beside its limits.
const PASSED: [&str; 6] = ["content-type", "retry-after", "retry-after-ms", "x-should-retry", "request-id", "x-request-id"];

/// Sends the bytes; see [`helix_ports::Provider::forward`].
pub(crate) async fn forward(provider: &HttpProvider, call: RawCall) -> Result<RawAnswer, ProviderError> {
    let Some(path) = provider.format.raw_path(&call) else {
        let failure = Failure::new(Code::InvalidRequest, format!("{} has no such operation", provider.settings.name));
        return Err(ProviderError::Final(failure.hint("ask in another format; it is translated then")));
    };
    // A client that names a version of the format gets that one.
    let named = replacing(call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let ask = |access: &Access| {
        let request = provider.post(access, &path).header(CONTENT_TYPE, "application/json").body(call.body.clone());
        request.headers(named.clone())
    };
    let (response, _) = provider.send_renewing(ask).await?;
    let (status, headers) = (response.status(), passed(response.headers()));
    // One limit for the whole body; a single event cannot be larger than all of them.
    let chunks = Chunks::new(response, provider.settings.idle_timeout, provider.settings.answer_bytes, Arc::default());
    let (copy, copied) = mpsc::unbounded_channel();
    let (told, usage) = oneshot::channel();
    if status.is_success() && call.operation != RawOperation::CountTokens {
        tokio::spawn(read_usage(Arc::clone(&provider.format), call.operation, copied, told, provider.settings.answer_bytes));
    }
    let judge = provider.judge();
    let body = chunks.map(move |chunk| {
        let chunk = chunk.map_err(&judge)?;
        // Whoever read for the usage has ended; the answer passes all the same.
        drop(copy.send(chunk.clone()));
        Ok(chunk)
    });
    Ok(RawAnswer { status: status.as_u16(), headers, body: body.boxed(), usage })
}

fn passed(headers: &HeaderMap) -> Vec<(String, String)> {
    let passes = |name: &str| PASSED.contains(&name) || name.contains("ratelimit");
    let of = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter(|(name, _)| passes(name.as_str())).filter_map(of).collect()
}

/// Reads the copy to its end and says what was used. Silent where the answer was cut: then nobody knows.
async fn read_usage(
    format: Arc<dyn Format>,
    operation: RawOperation,
    copied: mpsc::UnboundedReceiver<Bytes>,
    told: oneshot::Sender<Usage>,
    limit: usize,
) {
    let chunks = received(copied);
    let usage = match operation {
        RawOperation::Stream => of_stream(&*format, chunks).await,
        RawOperation::Generate | RawOperation::CountTokens => of_document(&*format, chunks, limit).await,
    };
    if let Some(usage) = usage {
        // Nobody asks what it cost.
        let _ = told.send(usage);
    }
}

fn received(copied: mpsc::UnboundedReceiver<Bytes>) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static {
    Box::pin(stream::unfold(copied, |mut copied| async move { Some((Ok(copied.recv().await?), copied)) }))
}

async fn of_stream(
    format: &dyn Format,
    chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static,
) -> Option<Usage> {
    let mut decoder = format.decoder();
    let mut events = events(chunks, format.framing(), Arc::new(AtomicUsize::new(0)));
    while let Some(Ok(event)) = events.next().await {
        decoder.push(event.name.as_deref(), &event.data).ok()?;
        if decoder.is_complete() {
            return decoder.usage();
        }
    }
    decoder.ends_with_stream().then(|| decoder.usage()).flatten()
}

async fn of_document(
    format: &dyn Format,
    mut chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static,
    limit: usize,
) -> Option<Usage> {
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        if body.len() + chunk.len() > limit {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    format.decode(&body).ok().map(|reply| reply.usage)
}
