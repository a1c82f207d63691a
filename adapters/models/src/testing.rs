//! What the tests of the formats share: an answer over a wire that may be cut, and conversations to send.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use helix_protocol::{Block, Message, ModelDelta, ModelReply, Role};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::chat::WireError;
use crate::events::events;
use crate::format::{DecodeError, Format};
use crate::served::deltas_of;
use crate::{ServedEvent, ServedStream};

/// Reads a streamed answer as a provider does, in pieces of `piece` bytes; what was shown comes with it. An answer that is not
/// whole is an error.
pub(crate) fn read(format: &dyn Format, body: &[u8], piece: usize) -> Result<(ModelReply, Vec<ModelDelta>), String> {
    let chunks: Vec<Bytes> = body.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect();
    let mut events = events(stream::iter(chunks.into_iter().map(Ok)), format.framing(), Arc::default());
    let mut decoder = format.decoder();
    let mut shown = Vec::new();
    while let Some(event) = futures::executor::block_on(events.next()) {
        let event = event.map_err(|error| error.to_string())?;
        shown.extend(decoder.push(event.name.as_deref(), &event.data).map_err(|error| error.to_string())?);
        if decoder.is_complete() {
            break;
        }
    }
    if !decoder.is_complete() && !decoder.ends_with_stream() {
        return Err("cut".to_owned());
    }
    Ok((decoder.finish().map_err(|error| error.to_string())?, shown))
}

/// The error that a streamed answer tells in its midst, and what it showed before.
pub(crate) fn reported(format: &dyn Format, body: &[u8]) -> (Vec<ModelDelta>, WireError) {
    let chunks = stream::iter([Ok(Bytes::copy_from_slice(body))]);
    let mut events = events(chunks, format.framing(), Arc::default());
    let mut decoder = format.decoder();
    let mut shown = Vec::new();
    while let Some(event) = futures::executor::block_on(events.next()) {
        let event = event.expect("an event");
        match decoder.push(event.name.as_deref(), &event.data) {
            Ok(deltas) => shown.extend(deltas),
            Err(DecodeError::Reported(error)) => return (shown, error),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("no error is told, and shown is {shown:?}")
}

/// Pieces of an answer as they are shown, each kind by its text.
pub(crate) fn text(text: &str) -> ModelDelta {
    ModelDelta::Text { text: text.to_owned() }
}

pub(crate) fn thinking(text: &str) -> ModelDelta {
    ModelDelta::Thinking { text: text.to_owned() }
}

pub(crate) fn tool_use(index: u32, id: &str, name: &str) -> ModelDelta {
    ModelDelta::ToolUse { index, id: id.to_owned(), name: name.to_owned(), extra: None }
}

pub(crate) fn tool_input(index: u32, text: &str) -> ModelDelta {
    ModelDelta::ToolInput { index, text: text.to_owned() }
}

/// Events as the bytes of a body.
pub(crate) fn body_of(events: &[ServedEvent]) -> Vec<u8> {
    events.iter().map(ServedEvent::to_sse).collect::<String>().into_bytes()
}

/// An answer as a provider shows it in pieces, written by an encoder.
pub(crate) fn served(encoder: &mut dyn ServedStream, reply: &ModelReply, piece: usize) -> Vec<ServedEvent> {
    let mut events = encoder.start();
    events.extend(deltas_of(reply, piece).iter().flat_map(|delta| encoder.push(delta)));
    events.extend(encoder.finish(reply));
    events
}

/// Cuts `body` at every byte: what is read then is an error, or all of it.
pub(crate) fn never_shorter(format: &dyn Format, body: &[u8]) {
    let (whole, _) = read(format, body, body.len()).expect("the whole answer");
    let mut refused = 0;
    for end in 0..body.len() {
        match read(format, &body[..end], 7) {
            Ok((reply, _)) => assert_eq!(reply, whole, "cut at {end}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > body.len() / 2, "only {refused} of {} cuts were noticed", body.len());
}

/// Arguments as models write them.
pub(crate) fn arguments() -> impl Strategy<Value = Value> {
    let object = proptest::collection::btree_map(".{0,8}", ".{0,12}", 0..3).prop_map(|map| json!(map));
    let raw = "[a-z{\\[\" ]{1,12}".prop_filter("an object or blank is not raw", |text| {
        !text.trim().is_empty() && !serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
    });
    prop_oneof![object, raw.prop_map(Value::String)]
}

/// A conversation of these turns of the assistant, each answered by the results of its calls or by a word.
pub(crate) fn conversation(turns: Vec<(Vec<Block>, String)>) -> Vec<Message> {
    let mut messages = vec![Message::text(Role::System, "s"), Message::text(Role::User, "u")];
    for (blocks, content) in turns {
        let result = |block: &Block| match block {
            Block::ToolUse { id, .. } => Some(Block::ToolResult {
                id: id.clone(),
                content: content.clone(),
                images: Vec::new(),
                is_error: content.len() % 2 == 1,
                extra: None,
            }),
            _ => None,
        };
        let results: Vec<Block> = blocks.iter().filter_map(result).collect();
        messages.push(Message { role: Role::Assistant, blocks });
        let next = if results.is_empty() { vec![Block::text(format!("more {content}"))] } else { results };
        messages.push(Message { role: Role::User, blocks: next });
    }
    messages
}
