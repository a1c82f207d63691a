//! An answer as chunks, for a client that reads it while it comes.
//!
//! A call is one part here, so it is written when it is complete; texts and thinking are written as they come.

use std::collections::BTreeMap;

use helix_protocol::{Block, Failure, ModelDelta, ModelReply};
use serde_json::{Value, json};

use super::serve::{answer, encode_error, encode_part, finish};
use crate::chat::decode_arguments;
use crate::served::{Sent, ServedEvent, ServedStream, id_of_call};

/// Writes one answer as chunks.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    model: String,
    id: String,
    sent: Sent,
    calls: BTreeMap<u32, OpenCall>,
}

/// A call whose arguments are still coming.
#[derive(Clone, Debug)]
struct OpenCall {
    id: String,
    name: String,
    arguments: String,
}

impl StreamEncoder {
    /// A stream of the answer `id` of `model`; the format says no time.
    pub fn new(model: &str, id: &str, _created: i64) -> Self {
        Self { model: model.to_owned(), id: id.to_owned(), sent: Sent::default(), calls: BTreeMap::new() }
    }

    fn chunk(&self, parts: Vec<Value>) -> Vec<ServedEvent> {
        if parts.is_empty() { Vec::new() } else { vec![ServedEvent::unnamed(answer(&self.model, &self.id, parts))] }
    }

    fn write_whole(&mut self, block: &Block) -> Vec<ServedEvent> {
        match block {
            // The text went out already; what is said besides stands on a part of its own.
            Block::Text { extra, .. } => self.chunk(encode_part(&Block::Text { text: String::new(), extra: extra.clone() })),
            Block::Thinking { extra: None, .. } => Vec::new(),
            Block::Thinking { .. } => {
                let mut parts = encode_part(block);
                parts.iter_mut().for_each(|part| part["text"] = json!(""));
                self.chunk(parts)
            }
            Block::ToolUse { id, .. } => {
                let open = self.calls.iter().find(|(_, call)| call.id == *id).map(|(index, _)| *index);
                match open.and_then(|index| self.calls.remove(&index)) {
                    Some(_) => self.chunk(encode_part(block)),
                    None => Vec::new(),
                }
            }
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {
                self.chunk(encode_part(block))
            }
        }
    }
}

impl ServedStream for StreamEncoder {
    fn start(&mut self) -> Vec<ServedEvent> {
        Vec::new()
    }

    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent> {
        self.sent.note(delta);
        match delta {
            ModelDelta::Text { text } => self.chunk(vec![json!({"text": text})]),
            ModelDelta::Thinking { text } => self.chunk(vec![json!({"text": text, "thought": true})]),
            ModelDelta::ToolUse { index, id, name, .. } => {
                let call = OpenCall { id: id_of_call(id, *index), name: name.clone(), arguments: String::new() };
                self.calls.insert(*index, call);
                Vec::new()
            }
            ModelDelta::ToolInput { index, text } => {
                if let Some(call) = self.calls.get_mut(index) {
                    call.arguments.push_str(text);
                }
                Vec::new()
            }
            ModelDelta::Block { block } => self.write_whole(block),
        }
    }

    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent> {
        let mut events: Vec<ServedEvent> = self.sent.missing(reply).iter().flat_map(|delta| self.push(delta)).collect();
        let open = std::mem::take(&mut self.calls).into_values();
        let parts = open.flat_map(|call| {
            let input = decode_arguments(call.arguments);
            encode_part(&Block::ToolUse { id: call.id, name: call.name, input, extra: None })
        });
        let mut last = answer(&self.model, &self.id, parts.collect());
        finish(&mut last, reply);
        events.push(ServedEvent::unnamed(last));
        events
    }

    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent> {
        vec![ServedEvent::unnamed(encode_error(status, failure))]
    }
}
