//! What is fed with arbitrary bytes: the readers of pages and of what searches find.

use crate::search::{HITS, read};
use crate::text::{can_show, text_of};

/// What a server says of what it sends.
const TYPES: [&str; 6] =
    ["text/html", "text/html; charset=iso-8859-1", "text/html; charset=\"utf-16le\"", "text/plain", "", "application/pdf"];

/// A page, its content type by the first byte. Whatever is shown as text is text, of a type that may be shown.
pub fn page(bytes: &[u8]) {
    let (kind, body) = bytes.split_first().map_or((0, bytes), |(kind, body)| (usize::from(*kind), body));
    let content_type = TYPES[kind % TYPES.len()];
    let shown = text_of("http://a.example/", content_type, body);
    if let Ok(text) = shown {
        assert!(!text.contains('\0') && can_show("http://a.example/", content_type).is_ok(), "{content_type}: {text:?}");
    }
}

/// What a search answers: each hit has an address, and there are no more than are told.
pub fn hits(bytes: &[u8]) {
    if let Ok(hits) = read(bytes) {
        assert!(hits.len() <= HITS && hits.iter().all(|hit| !hit.url.is_empty()), "{hits:?}");
    }
}
