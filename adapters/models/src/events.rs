//! A streamed body as events, whatever frames them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, future, stream};
use sse_stream::SseByteStream;

use crate::connection::BodyError;
use crate::format::Framing;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireEvent {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Its data, not empty.
    pub data: Vec<u8>,
    /// Bytes that were read for it.
    pub bytes: usize,
}

/// Why there is no further event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    #[error("{0}")]
    Body(BodyError),
    #[error("{0}")]
    Framing(String),
}

/// The events of `chunks`. `held` counts the bytes read since the last event, and is set back with each, so that whoever
/// reads the chunks can refuse an event without end.
pub(crate) fn events<S>(chunks: S, framing: Framing, held: Arc<AtomicUsize>) -> BoxStream<'static, Result<WireEvent, EventError>>
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static,
{
    match framing {
        Framing::Sse => sse(chunks, held),
        Framing::Ndjson => lines(chunks, held),
    }
}

/// The first event of a stream that begins so; nothing while it is not whole.
pub(crate) fn first_event(framing: Framing, start: &[u8]) -> Option<WireEvent> {
    let after = |end: &[u8]| start.windows(end.len()).rposition(|window| window == end).map(|at| at + end.len());
    let whole = match framing {
        Framing::Sse => [&b"\n\n"[..], b"\n\r\n", b"\r\r"].into_iter().filter_map(after).max(),
        Framing::Ndjson => after(b"\n"),
    };
    let chunks = stream::iter([Ok(Bytes::copy_from_slice(&start[..whole?]))]);
    events(chunks, framing, Arc::default()).next().now_or_never()??.ok()
}

fn sse<S>(chunks: S, held: Arc<AtomicUsize>) -> BoxStream<'static, Result<WireEvent, EventError>>
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static,
{
    // Some servers leave out the blank line after the last event; what was whole shall count.
    let chunks = chunks.chain(stream::once(future::ready(Ok(Bytes::from_static(b"\n\n")))));
    let events = SseByteStream::new(chunks).map(move |event| match event {
        Ok(event) => {
            let bytes = held.swap(0, Ordering::Relaxed);
            Ok(WireEvent { name: event.event, data: event.data.unwrap_or_default().into_bytes(), bytes })
        }
        Err(sse_stream::Error::Body(cause)) => Err(match cause.downcast::<BodyError>() {
            Ok(error) => EventError::Body(*error),
            Err(cause) => EventError::Framing(cause.to_string()),
        }),
        Err(other) => Err(EventError::Framing(other.to_string())),
    });
    events.filter(|event| future::ready(event.as_ref().map_or(true, |event| !event.data.is_empty()))).boxed()
}

/// Lines; the last may lack its end.
fn lines<S>(chunks: S, held: Arc<AtomicUsize>) -> BoxStream<'static, Result<WireEvent, EventError>>
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static,
{
    let state = Some((chunks, Vec::<u8>::new()));
    let lines = stream::unfold((state, held), |(state, held)| async move {
        let (mut chunks, mut buffer) = state?;
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let rest = buffer.split_off(end + 1);
                let line = std::mem::replace(&mut buffer, rest);
                let bytes = held.swap(buffer.len(), Ordering::Relaxed).saturating_sub(buffer.len());
                return Some((Ok(WireEvent { name: None, data: line, bytes }), (Some((chunks, buffer)), held)));
            }
            match chunks.next().await {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Some((Err(EventError::Body(error)), (None, held))),
                None if buffer.is_empty() => return None,
                None => {
                    let bytes = held.swap(0, Ordering::Relaxed);
                    return Some((Ok(WireEvent { name: None, data: buffer, bytes }), (None, held)));
                }
            }
        }
    });
    lines.filter(|event| future::ready(event.as_ref().map_or(true, |event| !event.data.trim_ascii().is_empty()))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(framing: Framing, body: &'static [u8], piece: usize) -> Vec<(Option<String>, String)> {
        let chunks = stream::iter(body.chunks(piece).map(|chunk| Ok(Bytes::from_static(chunk))));
        let events = events(chunks, framing, Arc::default());
        let read = events.map(|event| event.expect("an event"));
        let read = read.map(|event| (event.name, String::from_utf8_lossy(&event.data).trim().to_owned()));
        futures::executor::block_on(read.collect())
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let body = b"event: a\ndata: {\"x\":1}\n\n: note\n\ndata: 2\n\ndata: last";
        let expected = vec![(Some("a".to_owned()), "{\"x\":1}".to_owned()), (None, "2".to_owned()), (None, "last".to_owned())];
        for piece in 1..body.len() {
            assert_eq!(all(Framing::Sse, body, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn the_first_event_is_known_as_soon_as_it_is_whole() {
        let first = |framing, start: &[u8]| first_event(framing, start).map(|event| event.data.trim_ascii().to_vec());
        let body = b": note\n\nevent: a\r\ndata: 1\r\n\r\ndata: 2\n\n";
        let whole = body.windows(4).position(|window| window == b"\r\n\r\n").expect("an end") + 4;
        for end in 0..body.len() {
            let expected = (end >= whole).then(|| b"1".to_vec());
            assert_eq!(first(Framing::Sse, &body[..end]), expected, "cut at {end}");
        }
        assert_eq!(first(Framing::Ndjson, b"\n{\"x\":1}"), None);
        assert_eq!(first(Framing::Ndjson, b"\n{\"x\":1}\n"), Some(b"{\"x\":1}".to_vec()));
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_are_cut() {
        let body = b"{\"x\":1}\n\n{\"y\":2}\r\n{\"z\":3}";
        let expected: Vec<_> = ["{\"x\":1}", "{\"y\":2}", "{\"z\":3}"].map(|line| (None, line.to_owned())).to_vec();
        for piece in 1..body.len() {
            assert_eq!(all(Framing::Ndjson, body, piece), expected, "pieces of {piece}");
        }
    }
}
