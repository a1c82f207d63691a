//! An answer as chunks, for a client that reads it while it comes.

use helix_protocol::{Block, Failure, ModelDelta, ModelReply};
use serde_json::{Value, json};

use super::details;
use super::serve::{encode_call, encode_error, encode_usage, finish};
use crate::served::{Sent, ServedEvent, ServedStream, deltas_of, id_of_call};
use crate::tools::signature_of;

/// Writes one answer as chunks.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    model: String,
    id: String,
    created: i64,
    usage: UsageChunk,
    sent: Sent,
}

/// Whether the last chunk says what was used. Clients ask for it by `stream_options.include_usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UsageChunk {
    Sent,
    LeftOut,
}

impl StreamEncoder {
    /// A stream of the answer `id` of `model`; `created` is in seconds since 1970.
    pub fn new(model: &str, id: &str, created: i64) -> Self {
        Self { model: model.to_owned(), id: id.to_owned(), created, usage: UsageChunk::Sent, sent: Sent::default() }
    }

    /// The same without the chunk that says what was used.
    pub fn without_usage(self) -> Self {
        Self { usage: UsageChunk::LeftOut, ..self }
    }

    fn chunk(&self, choices: Value, usage: Value) -> ServedEvent {
        ServedEvent::unnamed(json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices, "usage": usage,
        }))
    }

    fn delta(&self, delta: Value) -> ServedEvent {
        self.chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null)
    }
}

impl ServedStream for StreamEncoder {
    fn start(&mut self) -> Vec<ServedEvent> {
        vec![self.delta(json!({"role": "assistant", "content": ""}))]
    }

    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent> {
        self.sent.note(delta);
        let delta = match delta {
            ModelDelta::Text { text } => json!({"content": text}),
            ModelDelta::Thinking { text } => json!({"reasoning_content": text}),
            ModelDelta::ToolUse { index, id, name, .. } => {
                json!({"tool_calls": [encode_call(*index as usize, &id_of_call(id, *index), name, "")]})
            }
            ModelDelta::ToolInput { index, text } => {
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            }
            ModelDelta::Block { block: Block::ToolUse { id, extra, .. } } => {
                let (Some(signature), Some(index)) = (signature_of(extra), self.sent.call_of(id)) else { return Vec::new() };
                json!({"tool_calls": [{"index": index, "extra_content": signature}]})
            }
            ModelDelta::Block { block: Block::Thinking { text, extra } } => match details::for_client(text, extra) {
                thoughts if thoughts.is_empty() => return Vec::new(),
                thoughts => json!({"reasoning_details": thoughts}),
            },
            // Other signatures and blocks of other formats have no place here.
            ModelDelta::Block { .. } => return Vec::new(),
        };
        vec![self.delta(delta)]
    }

    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent> {
        let mut events: Vec<ServedEvent> = self.sent.missing(reply).iter().flat_map(|delta| self.push(delta)).collect();
        events.push(self.chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish(&reply.stop)}]), Value::Null));
        if self.usage == UsageChunk::Sent {
            events.push(self.chunk(json!([]), encode_usage(&reply.usage)));
        }
        events
    }

    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent> {
        vec![ServedEvent::unnamed(encode_error(status, failure))]
    }

    fn terminator(&self) -> Option<&'static str> {
        Some("[DONE]")
    }
}

/// The answer as the data of its events, `[DONE]` excluded. Texts and arguments are cut into pieces of `piece` characters.
pub fn encode_chunks(reply: &ModelReply, id: &str, created: i64, piece: usize) -> Vec<Value> {
    let mut encoder = StreamEncoder::new(&reply.model, id, created);
    let mut events = encoder.start();
    events.extend(deltas_of(reply, piece).iter().flat_map(|delta| encoder.push(delta)));
    events.extend(encoder.finish(reply));
    events.into_iter().map(|event| event.data).collect()
}
