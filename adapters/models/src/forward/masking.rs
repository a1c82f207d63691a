//! Taking a key out of bytes that pass.
//!
//! Providers like to quote the key in a refusal. What may be the beginning of one at the end of a chunk waits for the next, so that
//! a key is found however the bytes are cut; everything else passes as it came.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use helix_ports::ProviderError;
use serde_json::Value;

use crate::ApiKey;
use crate::events::{LONGEST_END, first_event, last_event, whole_events};
use crate::format::Framing;
use crate::settings::MASK;

/// An event that is longer is taken for an error without being read.
const LONGEST_READ: usize = 64 * 1024;

/// Where keys are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masked {
    /// Everywhere: the body is a refusal.
    All,
    /// In events that report an error: what else a stream says is the model's, and a key may be a word.
    Errors(Framing),
}

/// The same chunks without `keys`.
pub(crate) fn masked<S>(
    keys: Vec<ApiKey>,
    masked: Masked,
    chunks: S,
) -> impl Stream<Item = Result<Bytes, ProviderError>> + Send + use<S>
where
    S: Stream<Item = Result<Bytes, ProviderError>> + Send,
{
    let mut masker = Masker { keys: keys.iter().flat_map(ApiKey::written).collect(), masked, event: Vec::new(), passed: 0 };
    let pass = move |next: Option<Result<Bytes, ProviderError>>| {
        let passing = match next {
            Some(Ok(chunk)) => [Some(Ok(masker.push(chunk))), None],
            Some(Err(error)) => [Some(Ok(masker.end())), Some(Err(error))],
            None => [Some(Ok(masker.end())), None],
        };
        stream::iter(passing.into_iter().flatten().filter(|chunk| chunk.as_ref().map_or(true, |chunk| !chunk.is_empty())))
    };
    chunks.map(Some).chain(stream::iter([None])).flat_map(pass)
}

struct Masker {
    /// The keys, in every way in which they may be written.
    keys: Vec<Vec<u8>>,
    masked: Masked,
    /// What is not decided: of a refusal what may be the beginning of a key, of a stream the event that goes on.
    event: Vec<u8>,
    /// So much of it has passed.
    passed: usize,
}

impl Masker {
    /// What passes now that `chunk` has come.
    fn push(&mut self, chunk: Bytes) -> Bytes {
        let waits = self.event.len() > self.passed;
        if !waits && self.find(&chunk).is_none() && self.begun(&chunk) == 0 {
            self.note(&chunk);
            return chunk;
        }
        self.event.extend_from_slice(&chunk);
        let mut out = Vec::new();
        match self.masked {
            Masked::All => {
                let all = std::mem::take(&mut self.event);
                let rest = self.mask(&all, &mut out);
                let (decided, begun) = rest.split_at(rest.len() - self.begun(rest));
                out.extend_from_slice(decided);
                self.event = begun.to_vec();
            }
            Masked::Errors(framing) => self.push_events(framing, &mut out),
        }
        out.into()
    }

    fn push_events(&mut self, framing: Framing, out: &mut Vec<u8>) {
        while let Some(end) = first_event(framing, &self.event) {
            let rest = self.event.split_off(end);
            let event = std::mem::replace(&mut self.event, rest);
            let passed = self.passed.min(end);
            self.passed -= passed;
            self.tell(framing, &event, passed, out);
        }
        let waiting = &self.event[self.passed..];
        let passes = match self.find(waiting) {
            Some(_) if waiting.len() > LONGEST_READ => {
                let rest = self.mask(waiting, out);
                out.extend_from_slice(rest);
                self.passed = self.event.len();
                return;
            }
            Some((at, _)) => at,
            None => waiting.len() - self.begun(waiting),
        };
        out.extend_from_slice(&waiting[..passes]);
        self.passed += passes;
    }

    /// What waited, at the end of the body.
    fn end(&mut self) -> Bytes {
        let (event, passed) = (std::mem::take(&mut self.event), std::mem::take(&mut self.passed));
        let mut out = Vec::new();
        match self.masked {
            Masked::All => out.extend_from_slice(&event),
            Masked::Errors(framing) => self.tell(framing, &event, passed, &mut out),
        }
        out.into()
    }

    /// The rest of an event, masked where it holds a key and reports an error.
    fn tell(&self, framing: Framing, event: &[u8], passed: usize, out: &mut Vec<u8>) {
        let rest = &event[passed..];
        let rest = if self.find(rest).is_some() && reports_error(framing, event) { self.mask(rest, out) } else { rest };
        out.extend_from_slice(rest);
    }

    /// Remembers what passed of an event that goes on.
    fn note(&mut self, chunk: &[u8]) {
        let Masked::Errors(framing) = self.masked else { return };
        // The end of an event may lie across two chunks.
        let from = self.event.len().saturating_sub(LONGEST_END - 1);
        self.event.extend_from_slice(chunk);
        if let Some(end) = last_event(framing, &self.event[from..]) {
            drop(self.event.drain(..from + end));
        } else if self.event.len() > LONGEST_READ {
            drop(self.event.drain(..self.event.len() - LONGEST_END));
        }
        self.passed = self.event.len();
    }

    /// Writes `bytes` into `out` up to behind the last key, with something else in the place of each, and gives what is left.
    fn mask<'a>(&self, mut bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        while let Some((at, length)) = self.find(bytes) {
            out.extend_from_slice(&bytes[..at]);
            out.extend_from_slice(MASK.as_bytes());
            bytes = &bytes[at + length..];
        }
        bytes
    }

    /// Where the first key stands, and how long it is.
    fn find(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let first = |key: &Vec<u8>| Some((position(bytes, key)?, key.len()));
        self.keys.iter().filter_map(first).min_by_key(|(at, _)| *at)
    }

    /// How many bytes at the end may be the beginning of a key.
    fn begun(&self, bytes: &[u8]) -> usize {
        let begun = |key: &Vec<u8>| (1..key.len()).rev().find(|length| bytes.ends_with(&key[..*length])).unwrap_or(0);
        self.keys.iter().map(begun).max().unwrap_or(0)
    }
}

fn position(bytes: &[u8], key: &[u8]) -> Option<usize> {
    let first = key.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        if bytes[from + at..].starts_with(key) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// What cannot be read is taken for one.
fn reports_error(framing: Framing, event: &[u8]) -> bool {
    let (events, _) = whole_events(framing, &[event, b"\n\n"].concat());
    events.iter().any(|event| {
        let data = event.data.trim_ascii();
        let Ok(data) = serde_json::from_slice::<Value>(data) else { return data != b"[DONE]" };
        let has = |at: &str| data.pointer(at).is_some_and(|error| !error.is_null());
        event.name.as_deref() == Some("error")
            || data.get("type").is_some_and(|kind| kind == "error")
            || ["/error", "/response/error", "/choices/0/error", "/0/error"].into_iter().any(has)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(masked: Masked, body: &[u8], piece: usize) -> String {
        let keys = ApiKey::new("not-needed").into_iter().chain(ApiKey::new("aab/c")).collect();
        let chunks = stream::iter(body.chunks(piece).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>());
        let told = super::masked(keys, masked, chunks).map(|chunk| chunk.expect("a chunk"));
        let told: Vec<Bytes> = futures::executor::block_on(told.collect());
        String::from_utf8(told.concat()).expect("text")
    }

    #[test]
    fn a_key_is_found_however_a_refusal_is_cut() {
        let body = r#"{"error":"aaab/c, aab\/c not-needed aabnot-need aab"}"#;
        for piece in 1..=body.len() {
            let masked = told(Masked::All, body.as_bytes(), piece);
            assert_eq!(masked, r#"{"error":"a[key], [key] [key] aabnot-need aab"}"#, "pieces of {piece}");
        }
    }

    #[test]
    fn a_stream_is_masked_where_it_reports_an_error_and_nowhere_else_however_it_is_cut() {
        let sse = "data: {\"choices\":[{\"delta\":{\"content\":\"not-needed\"}}]}\n\n: not-needed\n\nevent: error\r\ndata: {\"x\":\"not-needed\"}\r\n\r\n\
                   data: {\"error\":{\"message\":\"aab/c\"},\"x\":\"not-needed\"}\n\ndata: {\"response\":{\"error\":null},\"x\":\"aab/c\"}\n\n\
                   data: not-needed\n\ndata: {\"error\":\"not-needed\"}";
        let expected = "data: {\"choices\":[{\"delta\":{\"content\":\"not-needed\"}}]}\n\n: not-needed\n\nevent: error\r\ndata: {\"x\":\"[key]\"}\r\n\r\n\
                        data: {\"error\":{\"message\":\"[key]\"},\"x\":\"[key]\"}\n\ndata: {\"response\":{\"error\":null},\"x\":\"aab/c\"}\n\n\
                        data: [key]\n\ndata: {\"error\":\"[key]\"}";
        let lines = "{\"message\":\"not-needed\"}\n{\"error\":\"not-needed\"}\n{\"error\":\"aab/c";
        for piece in 1..=sse.len() {
            assert_eq!(told(Masked::Errors(Framing::Sse), sse.as_bytes(), piece), expected, "pieces of {piece}");
            let masked = told(Masked::Errors(Framing::Ndjson), lines.as_bytes(), piece);
            assert_eq!(masked, "{\"message\":\"not-needed\"}\n{\"error\":\"[key]\"}\n{\"error\":\"[key]", "pieces of {piece}");
        }
    }

    #[test]
    fn chunks_without_a_key_pass_as_they_are_and_at_once() {
        let mut masker =
            Masker { keys: vec![b"not-needed".to_vec()], masked: Masked::Errors(Framing::Sse), event: Vec::new(), passed: 0 };
        for chunk in ["data: {\"x\":", "1}\n\ndata", ": 2\n\n", "data: 3"] {
            let chunk = Bytes::from(chunk);
            assert_eq!(masker.push(chunk.clone()).as_ptr(), chunk.as_ptr());
        }
        assert_eq!(masker.push(Bytes::from(" no")), " ");
        assert_eq!(masker.push(Bytes::from("n\n\n")), "non\n\n");
        assert!(masker.end().is_empty());
    }
}
