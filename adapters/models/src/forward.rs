//! Passing a client's bytes on to a provider of the same format, and the answer's bytes back.
//!
//! Nothing is changed on the way, except that our key is taken out of what reports an error. The beginning is held until it is
//! known to be no error. A copy of the answer is read beside it, only to learn how it ends and what was used: by the answer's own
//! word, or by an estimate of what was asked and answered where it came to its regular end without one.

mod masking;
mod meter;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::ready;
use futures::{FutureExt, Stream, StreamExt, stream};
use helix_ports::{ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{Code, Failure};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use tokio::time::{Instant, timeout_at};

use crate::connection::{BodyError, Chunks, ENOUGH, OF_AN_ERROR, until};
use crate::events::whole_events;
use crate::fault::{Progress, is_page, without_key};
use crate::format::DecodeError;
use crate::provider::{HttpProvider, replacing};
use crate::{Access, ApiKey, other_models};
pub(crate) use masking::{Masked, masked};
pub(crate) use meter::{Meter, copied};

/// Headers of an answer that pass beside its limits.
const PASSED: [&str; 6] = ["content-type", "retry-after", "retry-after-ms", "x-should-retry", "request-id", "x-request-id"];

/// How long a stream is held back whose events say nothing of the model's yet: a client wants a sign of life before long.
const HELD: Duration = Duration::from_secs(1);

/// Sends the bytes; see [`helix_ports::Provider::forward`].
pub(crate) async fn forward(provider: &HttpProvider, call: RawCall) -> Result<RawAnswer, ProviderError> {
    let Some(path) = provider.format.raw_path(&call).filter(|_| provider.format.passes()) else {
        let failure = Failure::new(Code::InvalidRequest, format!("{} takes no such request as it is", provider.settings.name));
        return Err(ProviderError::Final(failure.hint("ask in another format; it is translated then")));
    };
    if let Some(field) = other_models::of_bytes(&call.body) {
        return Err(provider.faults().other_models(&field));
    }
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
    let fault = fault.map(|fault| without_key(access.key.as_ref(), fault));
    let chunks = stream::iter(begun).map(Ok).chain(chunks);
    let (judge, keys) = (provider.judge(), keys(provider, &access));
    if fault.is_some() {
        let body = masked(keys, Masked::All, chunks.map(move |chunk| chunk.map_err(&judge))).boxed();
        return Ok(RawAnswer { status: status.as_u16(), fault, headers, body, ended: ready(None).boxed() });
    }
    let (mut copy, copied) = copied();
    let ended = match call.operation {
        RawOperation::CountTokens => ready(None).boxed(),
        RawOperation::Generate | RawOperation::Stream => {
            let (format, settings) = (Arc::clone(&provider.format), Arc::clone(&provider.settings));
            let read = Meter { format, settings, asked: call.body }.read(streams, copied);
            read.map(move |ended| Some(ended?.map_err(|error| without_key(access.key.as_ref(), error)))).boxed()
        }
    };
    let chunks = chunks.map(move |chunk| Some(chunk.map_err(&judge))).chain(stream::iter([None]));
    let body = chunks.filter_map(move |next| ready(copy.pass(next)));
    // A document that is an error is none of those that come here.
    let body = match streams {
        true => masked(keys, Masked::Errors(provider.format.framing()), body).boxed(),
        false => body.boxed(),
    };
    Ok(RawAnswer { status: status.as_u16(), fault: None, headers, body, ended })
}

/// The chunks that say whether an answer is one, and what it is where it is none: a stream's up to where the model begins to speak,
/// a document's up to its end, and no more than an error is long. An error of its own where they do not come.
async fn beginning(
    provider: &HttpProvider,
    streams: bool,
    chunks: &mut (impl Stream<Item = Result<Bytes, BodyError>> + Unpin),
) -> Result<(Vec<Bytes>, Option<ProviderError>), ProviderError> {
    let (mut begun, mut start, mut read) = (Vec::new(), Vec::new(), 0);
    let (mut decoder, mut held) = (provider.format.decoder(), None);
    let reported = |error| match error {
        DecodeError::Reported(_) => Some(provider.faults().decode(error, Progress::Nothing)),
        DecodeError::Garbage(_) => None,
    };
    let mut ended = false;
    while !ended && start.len() < ENOUGH {
        let next = match held {
            None => Ok(chunks.next().await),
            Some(until) => timeout_at(until, chunks.next()).await,
        };
        match next {
            Err(_) => return Ok((begun, None)),
            Ok(Some(chunk)) => {
                let chunk = chunk.map_err(provider.judge())?;
                start.extend_from_slice(&chunk);
                begun.push(chunk);
            }
            Ok(None) => {
                ended = true;
                // Some servers leave out the blank line after the last event.
                start.extend_from_slice(b"\n\n");
            }
        }
        if !streams {
            continue;
        }
        let (events, whole) = whole_events(provider.format.framing(), &start[read..]);
        read += whole;
        for event in &events {
            let pushed = decoder.push(event.name.as_deref(), &event.data);
            if pushed.is_err() || decoder.began() || decoder.is_complete() {
                return Ok((begun, pushed.err().and_then(reported)));
            }
            held = held.or_else(|| Some(Instant::now() + HELD));
        }
    }
    let fault = match ended && held.is_none() {
        true if is_page(&start) => Some(provider.faults().page(&start)),
        true => provider.format.decode(&start).err().and_then(reported),
        false => None,
    };
    Ok((begun, fault))
}

/// The keys that no client may see.
fn keys(provider: &HttpProvider, access: &Access) -> Vec<ApiKey> {
    let configured = provider.settings.key.iter().filter(|key| access.key.as_ref() != Some(*key));
    access.key.iter().chain(configured).cloned().collect()
}

/// What is no answer, judged as where it is read here, and its bytes as they came but for our key.
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
        true => without_key(access.key.as_ref(), provider.faults().page(&start)),
        false => provider.refusal(status, &all, &start, access),
    };
    let judge = provider.judge();
    let body = stream::iter(read).chain(chunks).map(move |chunk| chunk.map_err(&judge));
    let body = masked(keys(provider, access), Masked::All, body);
    RawAnswer { status: status.as_u16(), fault: Some(fault), headers, body: body.boxed(), ended: ready(None).boxed() }
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
