//! An answer that comes in pieces.

use std::collections::{BTreeMap, HashSet};

use helix_protocol::{Block, Extra, ModelDelta, ModelReply, Usage, WireFormat};
use serde_json::{Map, Value, json};

use crate::format::{DecodeError, Decoder};
use crate::tools::signed_by_gemini;

use super::details;
use super::reply::{WireAnswer, WireCall, WireChoice, WireError, WireMessage, decode_arguments, decode_stop};

/// Puts an answer together. A whole answer is a stream of one piece.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    model: Option<String>,
    text: String,
    thinking: String,
    thinking_field: Option<&'static str>,
    /// What the model thought, as OpenRouter wants it back.
    details: Vec<Value>,
    /// Its thinking was told whole.
    thought: bool,
    /// Some of the text came as a refusal.
    refused: bool,
    calls: BTreeMap<u64, PartialCall>,
    /// Which call an index stands for at present; not itself where a server reuses one.
    routes: BTreeMap<u64, u64>,
    /// The call that a fragment without an index goes on with.
    last_call: Option<u64>,
    finish: Option<String>,
    usage: Option<Usage>,
    began: bool,
    complete: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    id: String,
    name: String,
    arguments: String,
    extra: Option<Box<Extra>>,
}

impl Decoder for StreamDecoder {
    fn began(&self) -> bool {
        self.began
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn push(&mut self, _event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        if data.trim_ascii() == b"[DONE]" {
            self.complete = true;
            return Ok(Vec::new());
        }
        self.take(data)
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError> {
        (*self).into_reply()
    }
}

impl StreamDecoder {
    /// Takes the data of one event other than the last.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        let answer: WireAnswer = serde_json::from_slice(data).map_err(|error| DecodeError::Garbage(garbage(data, &error)))?;
        if let Some(error) = answer.error.filter(|error| !error.is_null()) {
            return Err(DecodeError::Reported(WireError::from_value(&error)));
        }
        if self.model.is_none() {
            self.model = answer.model.filter(|model| !model.is_empty());
        }
        if let Some(usage) = answer.usage.and_then(|usage| usage.into_usage()) {
            self.usage = Some(usage);
        }
        let mut deltas = Vec::new();
        let first = |choice: &WireChoice| choice.index.unwrap_or(0) == 0;
        for choice in answer.choices.into_iter().flatten().filter(first) {
            self.began = true;
            if let Some(message) = choice.delta.or(choice.message) {
                self.take_message(message, &mut deltas);
            }
            if choice.finish_reason.is_some() {
                self.finish = choice.finish_reason;
            }
        }
        Ok(deltas)
    }

    fn take_message(&mut self, message: WireMessage, deltas: &mut Vec<ModelDelta>) {
        let thought = match (message.reasoning_content, message.reasoning) {
            (Some(text), _) if !text.is_empty() => Some(("reasoning_content", text)),
            (_, Some(text)) if !text.is_empty() => Some(("reasoning", text)),
            _ => None,
        };
        if let Some((field, text)) = thought {
            self.thinking_field.get_or_insert(field);
            self.thinking.push_str(&text);
            deltas.push(ModelDelta::Thinking { text });
        }
        for detail in message.reasoning_details.as_ref().and_then(Value::as_array).into_iter().flatten() {
            details::add(&mut self.details, detail);
        }
        let text = message.content.map(|content| content.into_text()).unwrap_or_default();
        let calls = message.tool_calls.unwrap_or_default();
        let is_beyond = !text.is_empty() || !calls.is_empty();
        if is_beyond && !self.details.is_empty() && !std::mem::replace(&mut self.thought, true) {
            deltas.extend(self.thinking().map(|block| ModelDelta::Block { block }));
        }
        if !text.is_empty() {
            self.text.push_str(&text);
            deltas.push(ModelDelta::Text { text });
        }
        if let Some(text) = message.refusal.filter(|text| !text.is_empty()) {
            self.refused = true;
            self.text.push_str(&text);
            deltas.push(ModelDelta::Text { text });
        }
        for call in calls {
            self.take_call(call, deltas);
        }
    }

    fn take_call(&mut self, fragment: WireCall, deltas: &mut Vec<ModelDelta>) {
        let id = fragment.id.unwrap_or_default();
        let function = fragment.function.unwrap_or_default();
        let slot = self.slot_of(fragment.index, &id);
        self.last_call = Some(slot);
        if let Some(index) = fragment.index {
            self.routes.insert(index, slot);
        }
        let index = u32::try_from(slot).unwrap_or(u32::MAX);
        let call = self.calls.entry(slot).or_default();
        if call.id.is_empty() {
            call.id = id;
        }
        if let Some(signed) = fragment.extra_content.as_ref().and_then(signed_by_gemini) {
            call.extra = Some(signed);
        }
        // Some servers repeat id and name with every fragment, so the first ones stand.
        if let Some(name) = function.name.filter(|name| call.name.is_empty() && !name.is_empty()) {
            deltas.push(ModelDelta::ToolUse { index, id: call.id.clone(), name: name.clone(), extra: call.extra.clone() });
            call.name = name;
        }
        let more = match function.arguments {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        if !more.is_empty() {
            call.arguments.push_str(&more);
            deltas.push(ModelDelta::ToolInput { index, text: more });
        }
    }

    /// Where a fragment belongs. An index decides, except where it is missing, or is reused for another id: some
    /// gateways number every call 0.
    fn slot_of(&self, index: Option<u64>, id: &str) -> u64 {
        let known = |slot: &u64| self.calls.get(slot).is_some_and(|call| call.id == id);
        if !id.is_empty()
            && let Some(slot) = self.calls.keys().copied().find(known)
        {
            return slot;
        }
        let next = self.calls.keys().next_back().map_or(0, |last| last + 1);
        let slot = match index {
            Some(index) => self.routes.get(&index).copied().unwrap_or(index),
            None => self.last_call.unwrap_or(next),
        };
        let other = |call: &PartialCall| !call.id.is_empty() && !id.is_empty();
        if self.calls.get(&slot).is_some_and(other) { next } else { slot }
    }

    /// What was thought so far.
    fn thinking(&self) -> Option<Block> {
        let mut extra = Map::new();
        extra.extend(self.thinking_field.map(|field| ("field".to_owned(), json!(field))));
        if !self.details.is_empty() {
            extra.insert(details::KEPT.to_owned(), json!(self.details));
        }
        let thought = !self.thinking.is_empty() || !self.details.is_empty();
        thought.then(|| Block::Thinking { text: self.thinking.clone(), extra: Extra::of(WireFormat::OpenaiChat, extra) })
    }

    /// The answer, once its terminal event has come. Its usage is zero and flagged where the server sent none.
    pub(super) fn into_reply(self) -> Result<ModelReply, DecodeError> {
        if !self.began {
            return Err(DecodeError::Garbage("the answer has no choices".to_owned()));
        }
        let mut blocks: Vec<Block> = self.thinking().into_iter().collect();
        if !self.text.is_empty() {
            blocks.push(Block::Text { text: self.text, extra: None });
        }
        let mut ids = HashSet::new();
        for (slot, call) in self.calls {
            let mut id = call.id;
            if id.is_empty() || ids.contains(&id) {
                id = format!("call_{slot}");
            }
            ids.insert(id.clone());
            blocks.push(Block::ToolUse { id, name: call.name, input: decode_arguments(call.arguments), extra: call.extra });
        }
        let stop = decode_stop(self.finish.as_deref(), &blocks, self.refused);
        let usage = self.usage.unwrap_or(Usage { estimated: true, ..Usage::default() });
        Ok(ModelReply { model: self.model.unwrap_or_default(), blocks, stop, usage })
    }
}

fn garbage(data: &[u8], error: &serde_json::Error) -> String {
    let start: String = String::from_utf8_lossy(&data[..data.len().min(120)]).into_owned();
    format!("not a chat completion ({error}): {start:?}")
}
