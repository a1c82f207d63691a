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

/// The longest of what ends an event.
pub(crate) const LONGEST_END: usize = 3;

fn ends(framing: Framing) -> &'static [&'static [u8]] {
    match framing {
        Framing::Sse => &[b"\n\n", b"\n\r\n", b"\r\r"],
        Framing::Ndjson => &[b"\n"],
    }
}

/// Where the first event in `bytes` ends; `None` where none does.
pub(crate) fn first_event(framing: Framing, bytes: &[u8]) -> Option<usize> {
    let after = |end: &&[u8]| bytes.windows(end.len()).position(|window| window == *end).map(|at| at + end.len());
    ends(framing).iter().filter_map(after).min()
}

/// Where the last event that is whole in `bytes` ends.
pub(crate) fn last_event(framing: Framing, bytes: &[u8]) -> Option<usize> {
    let after = |end: &&[u8]| bytes.windows(end.len()).rposition(|window| window == *end).map(|at| at + end.len());
    ends(framing).iter().filter_map(after).max()
}

/// The events that are whole in `bytes`, which begin where one does, and how many bytes those are.
pub(crate) fn whole_events(framing: Framing, bytes: &[u8]) -> (Vec<WireEvent>, usize) {
    let Some(whole) = last_event(framing, bytes) else { return (Vec::new(), 0) };
    let chunks = stream::iter([Ok(Bytes::copy_from_slice(&bytes[..whole]))]);
    let read = events(chunks, framing, Arc::default()).take_while(|event| future::ready(event.is_ok()));
    let read: Option<Vec<WireEvent>> = read.filter_map(|event| future::ready(event.ok())).collect().now_or_never();
    (read.unwrap_or_default(), whole)
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
    fn an_event_is_known_as_soon_as_it_is_whole() {
        let whole = |framing, bytes: &[u8]| {
            let (events, whole) = whole_events(framing, bytes);
            let datas: Vec<_> = events.iter().map(|event| String::from_utf8_lossy(event.data.trim_ascii()).into_owned()).collect();
            (datas.concat(), whole)
        };
        let body = b": note\n\nevent: a\r\ndata: 1\r\n\r\ndata: 2\n\n";
        let ends = [(0, ""), (8, ""), (29, "1"), (body.len(), "12")];
        for cut in 0..=body.len() {
            let (end, read) = ends.into_iter().rfind(|(end, _)| *end <= cut).expect("the start");
            assert_eq!(whole(Framing::Sse, &body[..cut]), (read.to_owned(), end), "cut at {cut}");
        }
        assert_eq!(whole(Framing::Ndjson, b"\n{\"x\":1}"), (String::new(), 1));
        assert_eq!(whole(Framing::Ndjson, b"\n{\"x\":1}\n"), ("{\"x\":1}".to_owned(), 9));
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
