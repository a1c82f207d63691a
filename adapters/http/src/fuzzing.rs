//! What is fed with arbitrary bytes: the gateway's reader of bodies, and what makes one array of an answer's events.

use serde_json::Value;

use crate::gateway::{array_of, body_of};

/// More than any input takes.
const ROOM: usize = 64 << 20;

/// A client's body: what is read is what any other reader reads, and what is none is refused as such.
pub fn body(bytes: &[u8]) {
    let plain = serde_json::from_slice::<Value>(bytes);
    match (body_of(bytes, ROOM), plain) {
        (Ok(read), Ok(plain)) => assert_eq!(read, plain),
        (Ok(read), Err(error)) => panic!("{read} was read, which is {error}"),
        (Err(status), plain) => assert!(status == 400 || plain.is_ok(), "{status}"),
    }
}

/// An answer, of events or a document by its first byte: its array is the same wherever the bytes are cut.
pub fn array(bytes: &[u8]) {
    let (kind, answer) = bytes.split_first().map_or((0, bytes), |(kind, answer)| (*kind, answer));
    let of_events = kind % 2 == 1;
    let array = |size: usize| {
        let mut written = array_of(answer.chunks(size.max(1)), of_events);
        // Between the elements of an array, space says nothing.
        written.retain(|byte| !byte.is_ascii_whitespace());
        written
    };
    let whole = array(answer.len());
    assert!(!of_events || (whole.starts_with(b"[") && whole.ends_with(b"]")), "{:?}", String::from_utf8_lossy(&whole));
    for size in 1..=answer.len().min(64) {
        assert_eq!(array(size), whole, "in pieces of {size}");
    }
}
