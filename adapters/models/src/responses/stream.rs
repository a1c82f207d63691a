//! An answer that comes as typed events.
//!
//! The event that ends an answer holds all of it, and that is what counts; what came before is for showing. Servers that leave the
//! output out of the last event are met too: then the items count as they came, in the order of their places.

use std::collections::BTreeMap;

use helix_protocol::{Block, ModelDelta, ModelReply, Usage};
use serde_json::{Value, json};

use super::items::{blocks_of, word};
use super::reply::{failure_of, reply_of, usage_of};
use crate::chat::WireError;
use crate::fault::excerpt;
use crate::format::{DecodeError, Decoder};

/// Puts an answer together.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    items: BTreeMap<u64, Item>,
    calls: u32,
    /// The number of the last event; a second one with the same is a repetition.
    last: Option<u64>,
    began: bool,
    ended: Option<Value>,
}

/// An item that is coming.
#[derive(Debug, Default)]
struct Item {
    /// As it was announced, and then as it was finished.
    item: Value,
    finished: bool,
    texts: BTreeMap<u64, String>,
    thoughts: BTreeMap<u64, String>,
    arguments: String,
    /// Counts the calls.
    call: Option<u32>,
}

impl Decoder for StreamDecoder {
    fn began(&self) -> bool {
        self.began
    }

    fn is_complete(&self) -> bool {
        self.ended.is_some()
    }

    fn push(&mut self, event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Vec::new());
        }
        let value: Value = serde_json::from_slice(data)
            .map_err(|error| DecodeError::Garbage(format!("not an event of a response ({error}): {:?}", excerpt(data))))?;
        let number = value.get("sequence_number").and_then(Value::as_u64);
        if number.is_some_and(|number| number > 0 && self.last == Some(number)) {
            return Ok(Vec::new());
        }
        self.last = number.or(self.last);
        let kind = match word(&value, "type") {
            "" => event.unwrap_or_default(),
            kind => kind,
        };
        self.take(kind, &value)
    }

    fn usage(&self) -> Option<Usage> {
        usage_of(self.ended.as_ref()?)
    }

    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError> {
        let Some(mut response) = self.ended.filter(Value::is_object) else {
            return Err(DecodeError::Garbage("the response was not ended, or its last event does not hold one".to_owned()));
        };
        let empty = response.get("output").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if empty {
            response["output"] = self.items.into_values().filter_map(Item::into_item).collect();
        }
        reply_of(&response)
    }
}

impl StreamDecoder {
    fn take(&mut self, kind: &str, event: &Value) -> Result<Vec<ModelDelta>, DecodeError> {
        let place = |field: &str| event.get(field).and_then(Value::as_u64).unwrap_or(0);
        let at = place("output_index");
        let text = word(event, "delta");
        match kind {
            "response.output_item.added" => Ok(self.announce(at, event)),
            "response.output_item.done" => Ok(self.end_item(at, event)),
            "response.output_text.delta" | "response.refusal.delta" => {
                self.item(at).texts.entry(place("content_index")).or_default().push_str(text);
                Ok(shown(text, |text| ModelDelta::Text { text }))
            }
            "response.reasoning_summary_text.delta" => Ok(self.think(at, place("summary_index"), "\n\n", text)),
            "response.reasoning_text.delta" => Ok(self.think(at, place("content_index"), "", text)),
            "response.function_call_arguments.delta" => Ok(self.argue(at, text)),
            "response.completed" | "response.incomplete" => {
                self.began = true;
                self.ended = Some(event.get("response").cloned().unwrap_or_default());
                Ok(Vec::new())
            }
            "response.failed" => Err(failure_of(event.get("response").unwrap_or(&Value::Null))),
            "error" => Err(DecodeError::Reported(reported(event))),
            _ if event.get("error").is_some_and(|error| !error.is_null()) => Err(DecodeError::Reported(reported(event))),
            _ => Ok(Vec::new()),
        }
    }

    fn item(&mut self, at: u64) -> &mut Item {
        self.began = true;
        self.items.entry(at).or_default()
    }

    fn announce(&mut self, at: u64, event: &Value) -> Vec<ModelDelta> {
        let item = event.get("item").cloned().unwrap_or_default();
        let begins = word(&item, "type") == "function_call" && self.item(at).call.is_none();
        let next = self.calls;
        let known = self.item(at);
        if !known.finished {
            known.item = item;
        }
        if !begins {
            return Vec::new();
        }
        known.call = Some(next);
        let begun = ModelDelta::ToolUse {
            index: next,
            id: word(&known.item, "call_id").to_owned(),
            name: word(&known.item, "name").to_owned(),
            extra: None,
        };
        self.calls += 1;
        vec![begun]
    }

    fn think(&mut self, at: u64, part: u64, between: &str, text: &str) -> Vec<ModelDelta> {
        let thoughts = &mut self.item(at).thoughts;
        let is_next = !thoughts.is_empty() && !thoughts.contains_key(&part);
        thoughts.entry(part).or_default().push_str(text);
        let text = if is_next { format!("{between}{text}") } else { text.to_owned() };
        shown(&text, |text| ModelDelta::Thinking { text })
    }

    fn argue(&mut self, at: u64, text: &str) -> Vec<ModelDelta> {
        let item = self.item(at);
        item.arguments.push_str(text);
        // Arguments of a call that was never announced are shown when it is finished.
        item.call.map_or_else(Vec::new, |index| shown(text, |text| ModelDelta::ToolInput { index, text }))
    }

    /// The item is whole. What of it no event showed is shown now.
    fn end_item(&mut self, at: u64, event: &Value) -> Vec<ModelDelta> {
        if self.items.get(&at).is_some_and(|item| item.finished) {
            return Vec::new();
        }
        let mut deltas = self.announce(at, event);
        let known = self.item(at);
        known.item = event.get("item").cloned().unwrap_or_default();
        known.finished = true;
        let (spoke, thought, argued) = (!known.texts.is_empty(), !known.thoughts.is_empty(), !known.arguments.is_empty());
        for block in blocks_of(&known.item) {
            match &block {
                Block::Text { text, .. } if !spoke => deltas.extend(shown(text, |text| ModelDelta::Text { text })),
                Block::Thinking { text, .. } if !thought => deltas.extend(shown(text, |text| ModelDelta::Thinking { text })),
                Block::ToolUse { .. } if !argued => {
                    let index = known.call.unwrap_or_default();
                    deltas.extend(shown(word(&known.item, "arguments"), |text| ModelDelta::ToolInput { index, text }));
                }
                _ => {}
            }
            let is_more = match &block {
                Block::Text { extra, .. } | Block::Thinking { extra, .. } | Block::ToolUse { extra, .. } => extra.is_some(),
                _ => true,
            };
            deltas.extend(is_more.then_some(ModelDelta::Block { block }));
        }
        deltas
    }
}

impl Item {
    /// The item as it was finished, or out of its pieces.
    fn into_item(self) -> Option<Value> {
        let mut item = self.item;
        if self.finished {
            return Some(item);
        }
        if item.is_null() && self.texts.is_empty() {
            return None;
        }
        match word(&item, "type") {
            "" | "message" => {
                let parts: Vec<Value> = self.texts.into_values().map(|text| json!({"type": "output_text", "text": text})).collect();
                Some(json!({"type": "message", "role": "assistant", "content": parts}))
            }
            "function_call" => {
                item["arguments"] = json!(self.arguments);
                Some(item)
            }
            _ => Some(item),
        }
    }
}

fn shown(text: &str, delta: impl Fn(String) -> ModelDelta) -> Vec<ModelDelta> {
    if text.is_empty() { Vec::new() } else { vec![delta(text.to_owned())] }
}

/// An error event, which says it of itself or of a field.
fn reported(event: &Value) -> WireError {
    WireError::from_body(event).or_else(|| WireError::from_body(&json!({ "error": event }))).unwrap_or_default()
}
