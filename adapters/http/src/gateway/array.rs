//! Gemini's answers in pieces as one JSON array: what its clients read where they do not ask for server-sent events (`alt=sse`).
//!
//! Providers are always asked for events, so an answer that passes and one that is translated are written anew alike. A document,
//! such as a refusal, is the array's only element.

use std::error::Error;
use std::pin::Pin;

use actix_web::body::{BodyStream, BoxBody, MessageBody};
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

/// True where the address asks for server-sent events.
pub(crate) fn asks_for_events(request: &HttpRequest) -> bool {
    request.query_string().split('&').any(|pair| matches!(pair, "alt=sse" | "$alt=sse" | "%24alt=sse"))
}

/// The same answer as an array. What is neither events nor JSON stays as it is.
pub(crate) fn as_array(response: HttpResponse) -> HttpResponse {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let writer = match () {
        () if kind.starts_with("text/event-stream") => Writer::Events(Events::default()),
        () if kind.starts_with("application/json") => Writer::Document(Document::Awaited),
        () => return response,
    };
    response.map_body(|head, mut body| {
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        let chunks = stream::poll_fn(move |context| Pin::new(&mut body).poll_next(context));
        BoxBody::new(BodyStream::new(written(chunks, writer)))
    })
}

fn written(
    chunks: impl Stream<Item = Result<Bytes, Box<dyn Error>>> + Unpin,
    writer: Writer,
) -> impl Stream<Item = Result<Bytes, Box<dyn Error>>> {
    stream::unfold(Some((chunks, writer)), |state| async move {
        let (mut chunks, mut writer) = state?;
        match chunks.next().await {
            Some(Ok(chunk)) => Some((Ok(writer.push(&chunk)), Some((chunks, writer)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Ok(writer.finish()), None)),
        }
    })
}

/// The array of an answer that came in these pieces.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn array_of<'a>(pieces: impl Iterator<Item = &'a [u8]>, of_events: bool) -> Vec<u8> {
    let mut writer = if of_events { Writer::Events(Events::default()) } else { Writer::Document(Document::Awaited) };
    let mut array: Vec<u8> = pieces.flat_map(|piece| writer.push(&Bytes::copy_from_slice(piece))).collect();
    array.extend(writer.finish());
    array
}

enum Writer {
    Events(Events),
    Document(Document),
}

impl Writer {
    fn push(&mut self, chunk: &Bytes) -> Bytes {
        match self {
            Self::Events(events) => events.push(chunk).into(),
            Self::Document(document) => document.push(chunk),
        }
    }

    fn finish(&mut self) -> Bytes {
        match self {
            Self::Events(events) => events.finish().into(),
            Self::Document(Document::Wrapped) => Bytes::from_static(b"]"),
            Self::Document(Document::Awaited | Document::Untouched) => Bytes::new(),
        }
    }
}

/// A document that becomes an element.
enum Document {
    /// Nothing came yet.
    Awaited,
    Wrapped,
    /// It is an array already.
    Untouched,
}

impl Document {
    fn push(&mut self, chunk: &Bytes) -> Bytes {
        let first = chunk.trim_ascii_start().first();
        match (&self, first) {
            (Self::Awaited, Some(b'[')) => *self = Self::Untouched,
            (Self::Awaited, Some(_)) => {
                *self = Self::Wrapped;
                return [b"[", &chunk[..]].concat().into();
            }
            _ => {}
        }
        chunk.clone()
    }
}

/// Events whose data become elements.
#[derive(Default)]
struct Events {
    /// The line that is still coming.
    line: Vec<u8>,
    /// Data of the event that is still coming.
    data: Vec<u8>,
    begun: bool,
    elements: usize,
}

impl Events {
    fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.read(line.trim_ascii_end(), &mut text);
            }
        }
        text
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        let line = std::mem::take(&mut self.line);
        self.read(line.trim_ascii_end(), &mut text);
        // Some servers leave out the blank line after the last event.
        self.read(b"", &mut text);
        self.begin(&mut text);
        text.push(b']');
        text
    }

    fn read(&mut self, line: &[u8], text: &mut Vec<u8>) {
        if let Some(data) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(data.trim_ascii_start());
        } else if line.starts_with(b":") {
            // A sign of life is one here as well: space between elements.
            self.begin(text);
            text.push(b'\n');
        } else if line.is_empty() && !self.data.is_empty() {
            self.begin(text);
            if self.elements > 0 {
                text.extend_from_slice(b",\r\n");
            }
            self.elements += 1;
            text.append(&mut self.data);
        }
    }

    fn begin(&mut self, text: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            text.push(b'[');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn through(of_events: bool, text: &str, size: usize) -> String {
        String::from_utf8(array_of(text.as_bytes().chunks(size), of_events)).expect("text")
    }

    #[test]
    fn events_are_elements_however_they_are_cut_and_signs_of_life_are_space() {
        let events =
            ": keep-alive\n\ndata: {\"a\":\"ä\"}\r\n\r\n: keep-alive\n\nevent: x\ndata: {\"b\":\ndata: 2}\n\ndata:{\"c\":3}";
        for size in 1..events.len() {
            let text = through(true, events, size);
            let read: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{size}: {error}: {text}"));
            assert_eq!(read, json!([{"a": "ä"}, {"b": 2}, {"c": 3}]), "{size}");
        }
        assert_eq!(through(true, ": keep-alive\n\n", 4), "[\n]");
        assert_eq!(through(true, "", 4), "[]");
    }

    #[test]
    fn a_document_is_the_only_element_and_an_array_stays_one() {
        for (document, expected) in [(" {\"error\":1}", "[ {\"error\":1}]"), ("\n[{\"a\":1}]", "\n[{\"a\":1}]"), ("", "")] {
            for size in 1..8 {
                let text = through(false, document, size);
                assert_eq!(text.split_whitespace().collect::<String>(), expected.split_whitespace().collect::<String>(), "{size}");
            }
        }
    }
}
