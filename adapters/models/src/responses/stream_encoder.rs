//! An answer as typed events, for a client that reads it while it comes.

use std::collections::BTreeMap;

use helix_protocol::{Block, Extra, Failure, ModelDelta, ModelReply};
use serde_json::{Value, json};

use super::items::{Direction, call_item, field, message_item, part_of, reasoning_item};
use super::serve::{encode_reply, foreign_reasoning, unfinished};
use crate::chat::encode_error;
use crate::sealed::signed_id;
use crate::served::{Sent, ServedEvent, ServedStream, id_of_call};

/// Writes one answer as events.
#[derive(Debug)]
pub struct StreamEncoder {
    model: String,
    id: String,
    created: i64,
    /// Numbers the events.
    sequence: u64,
    /// Numbers the items.
    next: u64,
    open: Option<Open>,
    calls: BTreeMap<u32, OpenCall>,
    sent: Sent,
}

/// A text or a thought that is being written.
#[derive(Debug)]
struct Open {
    kind: Kind,
    at: u64,
    id: String,
    text: String,
    extra: Option<Box<Extra>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

#[derive(Debug)]
struct OpenCall {
    at: u64,
    id: String,
    /// As the provider has it.
    made_id: String,
    /// As the client has it.
    call_id: String,
    name: String,
    arguments: String,
    extra: Option<Box<Extra>>,
}

impl StreamEncoder {
    /// An answer of `model`. `id` names it; `created` is in seconds since 1970.
    pub fn new(model: &str, id: &str, created: i64) -> Self {
        Self {
            model: model.to_owned(),
            id: id.to_owned(),
            created,
            sequence: 0,
            next: 0,
            open: None,
            calls: BTreeMap::new(),
            sent: Sent::default(),
        }
    }

    fn event(&mut self, kind: &'static str, mut fields: Value) -> ServedEvent {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        ServedEvent { name: Some(kind), data: fields }
    }

    fn place(&mut self, prefix: &str) -> (u64, String) {
        let at = self.next;
        self.next += 1;
        (at, format!("{prefix}_{}_{at}", self.id))
    }

    fn begin(&mut self, kind: Kind) -> Vec<ServedEvent> {
        let mut events = self.close_all();
        let (at, id) = self.place(if kind == Kind::Text { "msg" } else { "rs" });
        let (item, part, added) = match kind {
            Kind::Text => (
                json!({"type": "message", "id": id, "status": "in_progress", "role": "assistant", "content": []}),
                json!({"type": "output_text", "text": "", "annotations": []}),
                "response.content_part.added",
            ),
            Kind::Thinking => (
                json!({"type": "reasoning", "id": id, "summary": []}),
                json!({"type": "summary_text", "text": ""}),
                "response.reasoning_summary_part.added",
            ),
        };
        events.push(self.event("response.output_item.added", json!({"output_index": at, "item": item})));
        let index = index_field(kind);
        events.push(self.event(added, json!({"item_id": id, "output_index": at, index: 0, "part": part})));
        self.open = Some(Open { kind, at, id, text: String::new(), extra: None });
        events
    }

    fn write(&mut self, kind: Kind, text: &str) -> Vec<ServedEvent> {
        let goes_on = self.open.as_ref().is_some_and(|open| open.kind == kind && open.extra.is_none());
        let mut events = if goes_on { Vec::new() } else { self.begin(kind) };
        let Some(open) = &mut self.open else { return events };
        open.text.push_str(text);
        let (at, id) = (open.at, open.id.clone());
        let (name, mut fields) = match kind {
            Kind::Text => ("response.output_text.delta", json!({"logprobs": []})),
            Kind::Thinking => ("response.reasoning_summary_text.delta", json!({})),
        };
        fields["item_id"] = json!(id);
        fields["output_index"] = json!(at);
        fields[index_field(kind)] = json!(0);
        fields["delta"] = json!(text);
        events.push(self.event(name, fields));
        events
    }

    fn call(&mut self, index: u32, id: &str, name: &str, extra: &Option<Box<Extra>>) -> Vec<ServedEvent> {
        let mut events = self.close_open();
        let (at, item_id) = self.place("fc");
        let id = id_of_call(id, index);
        let call_id = signed_id(&id, extra);
        let mut item = call_item(&call_id, name, "", &None, Direction::Output, &item_id);
        item["status"] = json!("in_progress");
        events.push(self.event("response.output_item.added", json!({"output_index": at, "item": item})));
        let call = OpenCall { at, id: item_id, made_id: id, call_id, name: name.to_owned(), arguments: String::new(), extra: None };
        self.calls.insert(index, call);
        events
    }

    fn argue(&mut self, index: u32, text: &str) -> Vec<ServedEvent> {
        let Some(call) = self.calls.get_mut(&index) else { return Vec::new() };
        call.arguments.push_str(text);
        let fields = json!({"item_id": call.id, "output_index": call.at, "delta": text});
        vec![self.event("response.function_call_arguments.delta", fields)]
    }

    /// What a complete block has besides goes to the item that is open for it; blocks that no piece brought are items of their own.
    fn complete(&mut self, block: &Block) -> Vec<ServedEvent> {
        match block {
            Block::Text { text, extra } => self.attach(Kind::Text, text, extra),
            Block::Thinking { text, extra } => self.attach(Kind::Thinking, text, extra),
            Block::ToolUse { id, extra, .. } => {
                if let Some(call) = self.calls.values_mut().find(|call| call.made_id == *id) {
                    call.extra.clone_from(extra);
                }
                Vec::new()
            }
            Block::Unknown { format: helix_protocol::WireFormat::OpenaiResponses, block } => {
                let mut events = self.close_all();
                let (at, _) = self.place("item");
                events.push(self.event("response.output_item.added", json!({"output_index": at, "item": block})));
                events.push(self.event("response.output_item.done", json!({"output_index": at, "item": block})));
                events
            }
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => Vec::new(),
        }
    }

    fn attach(&mut self, kind: Kind, text: &str, extra: &Option<Box<Extra>>) -> Vec<ServedEvent> {
        let is_open = self.open.as_ref().is_some_and(|open| open.kind == kind && open.text == text && open.extra.is_none());
        // Reasoning that shows nothing is an item all the same: it carries what the server encrypted.
        let mut events = if is_open || !text.is_empty() { Vec::new() } else { self.begin(kind) };
        if let Some(open) = self.open.as_mut().filter(|open| open.kind == kind) {
            open.extra.clone_from(extra);
            events.extend(self.close_open());
        }
        events
    }

    fn close_all(&mut self) -> Vec<ServedEvent> {
        let mut events = self.close_open();
        for call in std::mem::take(&mut self.calls).into_values() {
            let arguments = if call.arguments.is_empty() { "{}" } else { call.arguments.as_str() };
            let fields = json!({"item_id": call.id, "output_index": call.at, "name": call.name, "arguments": arguments});
            events.push(self.event("response.function_call_arguments.done", fields));
            let item = call_item(&call.call_id, &call.name, arguments, &call.extra, Direction::Output, &call.id);
            events.push(self.event("response.output_item.done", json!({"output_index": call.at, "item": item})));
        }
        events
    }

    fn close_open(&mut self) -> Vec<ServedEvent> {
        let Some(open) = self.open.take() else { return Vec::new() };
        let Open { kind, at, id, text, extra } = open;
        let index = index_field(kind);
        let (text_done, part_done, part, item) = match kind {
            Kind::Text => {
                let part = part_of(&text, &extra);
                let item = message_item(field(&extra, "message"), part.clone(), Direction::Output, &id);
                ("response.output_text.done", "response.content_part.done", part, Some(item))
            }
            Kind::Thinking => {
                let part = json!({"type": "summary_text", "text": text});
                let extra = foreign_reasoning(&text, &extra, &id).or(extra);
                let item = reasoning_item(&text, &extra, Direction::Output, &id);
                ("response.reasoning_summary_text.done", "response.reasoning_summary_part.done", part, item)
            }
        };
        let mut done = json!({"item_id": id, "output_index": at, index: 0, "text": text});
        if kind == Kind::Text {
            done["logprobs"] = json!([]);
        }
        let events = vec![
            self.event(text_done, done),
            self.event(part_done, json!({"item_id": id, "output_index": at, index: 0, "part": part})),
        ];
        let last = item.map(|item| self.event("response.output_item.done", json!({"output_index": at, "item": item})));
        events.into_iter().chain(last).collect()
    }
}

impl ServedStream for StreamEncoder {
    fn start(&mut self) -> Vec<ServedEvent> {
        let response = unfinished(&self.model, &self.id, self.created);
        let created = self.event("response.created", json!({"response": response}));
        let under_way = self.event("response.in_progress", json!({"response": response}));
        vec![created, under_way]
    }

    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent> {
        self.sent.note(delta);
        match delta {
            ModelDelta::Text { text } => self.write(Kind::Text, text),
            ModelDelta::Thinking { text } => self.write(Kind::Thinking, text),
            ModelDelta::ToolUse { index, id, name, extra } => self.call(*index, id, name, extra),
            ModelDelta::ToolInput { index, text } => self.argue(*index, text),
            ModelDelta::Block { block } => self.complete(block),
        }
    }

    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent> {
        let mut events: Vec<ServedEvent> = self.sent.missing(reply).iter().flat_map(|delta| self.push(delta)).collect();
        events.extend(self.close_all());
        let response = encode_reply(reply, &self.id, self.created);
        let kind = if response["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
        events.push(self.event(kind, json!({"response": response})));
        events
    }

    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent> {
        let error = encode_error(status, failure)["error"].take();
        let mut response = unfinished(&self.model, &self.id, self.created);
        response["status"] = json!("failed");
        response["error"] = json!({"code": error["code"], "message": error["message"]});
        vec![self.event("response.failed", json!({"response": response}))]
    }
}

fn index_field(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "content_index",
        Kind::Thinking => "summary_index",
    }
}
