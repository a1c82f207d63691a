//! An answer as events, for a client that reads it while it comes.
//!
//! One block is open at a time here, and elsewhere calls may overlap: what belongs to another call than the open one waits until
//! that one is written. Arguments are written as they come where they begin like the object that clients read them as; otherwise at
//! the end, wrapped into one.

use std::collections::VecDeque;

use helix_protocol::{Block, Failure, ModelDelta, ModelReply, WireFormat, extra_of};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::blocks::{self, Reader};
use super::serve::{encode_error, encode_stop, encode_usage, message};
use crate::chat::{argument_object, decode_arguments};
use crate::sealed::{self, signed_id};
use crate::served::{Sent, ServedEvent, ServedStream, id_of_call};

/// Writes one answer as events.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    model: String,
    id: String,
    sent: Sent,
    open: Option<Open>,
    /// The number of the open block, or of the next.
    at: u64,
    waiting: VecDeque<ModelDelta>,
}

#[derive(Clone, Debug)]
enum Open {
    Text,
    Thinking,
    Call(OpenCall),
}

#[derive(Clone, Debug)]
struct OpenCall {
    index: u32,
    id: String,
    arguments: String,
    /// Bytes of them that were written.
    written: usize,
}

impl StreamEncoder {
    /// A stream of the answer `id` of `model`; the format says no time.
    pub fn new(model: &str, id: &str, _created: i64) -> Self {
        let (model, id) = (model.to_owned(), id.to_owned());
        Self { model, id, sent: Sent::default(), open: None, at: 0, waiting: VecDeque::new() }
    }

    /// True where a piece must wait for the open call to be complete.
    fn must_wait(&self, delta: &ModelDelta) -> bool {
        let Some(Open::Call(call)) = &self.open else { return !self.waiting.is_empty() };
        let own = match delta {
            ModelDelta::ToolInput { index, .. } => *index == call.index,
            ModelDelta::Block { block: Block::ToolUse { id, .. } } => *id == call.id,
            _ => false,
        };
        !own && (!self.waiting.is_empty() || !call.is_whole())
    }

    /// Writes what waited, as far as nothing is in its way.
    fn resume(&mut self, events: &mut Vec<ServedEvent>) {
        while !matches!(&self.open, Some(Open::Call(call)) if !call.is_whole()) {
            let Some(delta) = self.waiting.pop_front() else { return };
            self.write_with_input(&delta, events);
        }
    }

    /// Writes a piece, and behind the beginning of a call what waits of its arguments.
    fn write_with_input(&mut self, delta: &ModelDelta, events: &mut Vec<ServedEvent>) {
        self.write(delta, events);
        let ModelDelta::ToolUse { index: begun, .. } = delta else { return };
        let of_it = |delta: &ModelDelta| matches!(delta, ModelDelta::ToolInput { index, .. } if index == begun);
        let (input, others): (VecDeque<_>, VecDeque<_>) = self.waiting.drain(..).partition(of_it);
        self.waiting = others;
        for delta in &input {
            self.write(delta, events);
        }
    }

    fn write(&mut self, delta: &ModelDelta, events: &mut Vec<ServedEvent>) {
        match delta {
            ModelDelta::Text { text } => {
                if !matches!(self.open, Some(Open::Text)) {
                    self.begin(Open::Text, json!({"type": "text", "text": ""}), events);
                }
                events.push(self.delta(json!({"type": "text_delta", "text": text})));
            }
            ModelDelta::Thinking { text } => {
                self.begin_thinking(events);
                events.push(self.delta(json!({"type": "thinking_delta", "thinking": text})));
            }
            ModelDelta::ToolUse { index, id, name, extra } => {
                let id = id_of_call(id, *index);
                let block = json!({"type": "tool_use", "id": signed_id(&id, extra), "name": name, "input": {}});
                let call = OpenCall { index: *index, id, arguments: String::new(), written: 0 };
                self.begin(Open::Call(call), block, events);
            }
            ModelDelta::ToolInput { index, text } => {
                let Some(Open::Call(call)) = self.open.as_mut().filter(|open| open.is_call(*index)) else { return };
                call.arguments.push_str(text);
                if call.arguments.trim_start().starts_with('{') {
                    let more = call.arguments[call.written..].to_owned();
                    call.written = call.arguments.len();
                    events.push(self.delta(json!({"type": "input_json_delta", "partial_json": more})));
                }
            }
            ModelDelta::Block { block } => self.write_whole(block, events),
        }
    }

    /// A block is complete. Writes of it what its pieces did not bring.
    fn write_whole(&mut self, block: &Block, events: &mut Vec<ServedEvent>) {
        match block {
            Block::Text { extra, .. } => {
                if !matches!(self.open, Some(Open::Text)) {
                    return;
                }
                let citations = extra_of(extra, WireFormat::Anthropic).and_then(|fields| fields.get("citations")?.as_array());
                let citations = citations.into_iter().flatten();
                events.extend(citations.map(|citation| self.delta(json!({"type": "citations_delta", "citation": citation}))));
                self.close(events);
            }
            Block::Thinking { text, extra } => {
                let fields = extra_of(extra, WireFormat::Anthropic);
                if fields.is_some_and(|fields| fields.contains_key("data")) {
                    return self.write_block(block, events);
                }
                // What comes late of a thought that went out is too late: a thought of its own would stand where it does not belong.
                let packed = || {
                    let is_in_time = text.is_empty() || matches!(self.open, Some(Open::Thinking));
                    sealed::pack(extra, WireFormat::Anthropic).filter(|_| is_in_time).map(Value::String)
                };
                if let Some(signature) = fields.and_then(|fields| fields.get("signature").cloned()).or_else(packed) {
                    self.begin_thinking(events);
                    events.push(self.delta(json!({"type": "signature_delta", "signature": signature})));
                }
                if matches!(self.open, Some(Open::Thinking)) {
                    self.close(events);
                }
            }
            Block::ToolUse { id, .. } => {
                if matches!(&self.open, Some(Open::Call(call)) if call.id == *id) {
                    self.close(events);
                }
            }
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {
                self.write_block(block, events);
            }
        }
    }

    /// A block that has no pieces.
    fn write_block(&mut self, block: &Block, events: &mut Vec<ServedEvent>) {
        self.close(events);
        if let Some(block) = blocks::encode(block, Reader::Client) {
            events.push(self.beginning(block));
            events.push(self.ending());
        }
    }

    fn begin_thinking(&mut self, events: &mut Vec<ServedEvent>) {
        if !matches!(self.open, Some(Open::Thinking)) {
            self.begin(Open::Thinking, json!({"type": "thinking", "thinking": "", "signature": ""}), events);
        }
    }

    fn begin(&mut self, open: Open, block: Value, events: &mut Vec<ServedEvent>) {
        self.close(events);
        events.push(self.beginning(block));
        self.open = Some(open);
    }

    fn close(&mut self, events: &mut Vec<ServedEvent>) {
        let Some(open) = self.open.take() else { return };
        if let Open::Call(call) = open
            && call.written < call.arguments.len()
            && !call.arguments.trim().is_empty()
        {
            let object = argument_object(&decode_arguments(call.arguments)).to_string();
            events.push(self.delta(json!({"type": "input_json_delta", "partial_json": object})));
        }
        events.push(self.ending());
    }

    fn beginning(&self, block: Value) -> ServedEvent {
        event("content_block_start", json!({"type": "content_block_start", "index": self.at, "content_block": block}))
    }

    fn delta(&self, delta: Value) -> ServedEvent {
        event("content_block_delta", json!({"type": "content_block_delta", "index": self.at, "delta": delta}))
    }

    fn ending(&mut self) -> ServedEvent {
        let ending = event("content_block_stop", json!({"type": "content_block_stop", "index": self.at}));
        self.at += 1;
        ending
    }
}

impl Open {
    fn is_call(&self, wanted: u32) -> bool {
        matches!(self, Self::Call(call) if call.index == wanted)
    }
}

impl OpenCall {
    fn is_whole(&self) -> bool {
        serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

fn event(name: &'static str, data: Value) -> ServedEvent {
    ServedEvent { name: Some(name), data }
}

impl ServedStream for StreamEncoder {
    fn start(&mut self) -> Vec<ServedEvent> {
        // Nobody knows yet what was read; the end says so.
        let message = message(&self.model, &self.id, Vec::new(), json!({"input_tokens": 0, "output_tokens": 0}));
        vec![event("message_start", json!({"type": "message_start", "message": message}))]
    }

    fn ping(&self) -> Option<ServedEvent> {
        Some(event("ping", json!({"type": "ping"})))
    }

    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent> {
        self.sent.note(delta);
        if self.must_wait(delta) {
            self.waiting.push_back(delta.clone());
            return Vec::new();
        }
        let mut events = Vec::new();
        self.write(delta, &mut events);
        self.resume(&mut events);
        events
    }

    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent> {
        let mut events: Vec<ServedEvent> = self.sent.missing(reply).iter().flat_map(|delta| self.push(delta)).collect();
        self.close(&mut events);
        while let Some(delta) = self.waiting.pop_front() {
            self.write_with_input(&delta, &mut events);
        }
        self.close(&mut events);
        let (reason, sequence) = encode_stop(&reply.stop);
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let usage = encode_usage(&reply.usage);
        events.push(event("message_delta", json!({"type": "message_delta", "delta": delta, "usage": usage})));
        events.push(event("message_stop", json!({"type": "message_stop"})));
        events
    }

    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent> {
        vec![event("error", encode_error(status, failure))]
    }
}
