//! An answer that comes as events.
//!
//! The grammar is strict, and so is the reading: a block begins once, is added to while it is open, and ends; an event that does
//! not fit is an error and not a guess, because half of a tool call is worse than none.

use std::collections::BTreeMap;

use helix_protocol::{Block, ModelDelta, ModelReply, StopReason, Usage};
use serde_json::{Map, Value};

use super::reply::{Counters, decode_block, decode_stop, garbage, reported, text};
use crate::chat::decode_arguments;
use crate::format::{DecodeError, Decoder};

/// Puts an answer together.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    model: String,
    blocks: BTreeMap<u64, Block>,
    open: BTreeMap<u64, OpenBlock>,
    calls: u32,
    stop: Option<StopReason>,
    counters: Counters,
    began: bool,
    complete: bool,
}

/// A block that has begun and not ended.
#[derive(Debug)]
struct OpenBlock {
    fields: Map<String, Value>,
    /// The arguments as they were written; nothing where none came in pieces.
    arguments: String,
    /// Which call it is, where it is one of ours to run.
    call: Option<u32>,
}

impl Decoder for StreamDecoder {
    fn began(&self) -> bool {
        self.began
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn push(&mut self, event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        let data: Value = serde_json::from_slice(data).map_err(|error| garbage(&error.to_string()))?;
        let kind = data.get("type").and_then(Value::as_str).or(event).unwrap_or_default();
        match kind {
            "message_start" => self.start(&data),
            "content_block_start" => self.start_block(&data),
            "content_block_delta" => self.add(&data),
            "content_block_stop" => self.stop_block(&data),
            "message_delta" => {
                self.counters.take(data.get("usage"));
                self.stop = data.get("delta").and_then(decode_stop).or_else(|| self.stop.take());
                Ok(Vec::new())
            }
            "message_stop" => self.end(),
            "error" => Err(DecodeError::Reported(reported(&data).unwrap_or_default())),
            // Pings, and whatever comes to be added: the format says that clients pass over it.
            _ => Ok(Vec::new()),
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.counters.usage()
    }

    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError> {
        if !self.complete {
            return Err(garbage("the stream ended without message_stop"));
        }
        let stop = self.stop.ok_or_else(|| garbage("the stream ended without a stop reason"))?;
        let usage = self.counters.usage().unwrap_or(Usage { estimated: true, ..Usage::default() });
        Ok(ModelReply { model: self.model, blocks: self.blocks.into_values().collect(), stop, usage })
    }
}

impl StreamDecoder {
    fn start(&mut self, data: &Value) -> Result<Vec<ModelDelta>, DecodeError> {
        if self.began {
            return Err(garbage("the message began twice"));
        }
        self.began = true;
        let message = data.get("message").ok_or_else(|| garbage("`message` is missing"))?;
        self.model = text(message, "model");
        self.counters.take(message.get("usage"));
        Ok(Vec::new())
    }

    fn start_block(&mut self, data: &Value) -> Result<Vec<ModelDelta>, DecodeError> {
        let at = index(data)?;
        if self.open.contains_key(&at) || self.blocks.contains_key(&at) {
            return Err(garbage(&format!("block {at} began twice")));
        }
        self.began = true;
        let block = data.get("content_block").and_then(Value::as_object).cloned();
        let fields = block.ok_or_else(|| garbage("`content_block` is missing"))?;
        let word = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut shown = Vec::new();
        let mut call = None;
        match word("type").as_str() {
            "text" => shown.push(ModelDelta::Text { text: word("text") }),
            "thinking" => shown.push(ModelDelta::Thinking { text: word("thinking") }),
            "tool_use" => {
                call = Some(self.calls);
                shown.push(ModelDelta::ToolUse { index: self.calls, id: word("id"), name: word("name"), extra: None });
                self.calls += 1;
            }
            _ => {}
        }
        shown.retain(|delta| !matches!(delta, ModelDelta::Text { text } | ModelDelta::Thinking { text } if text.is_empty()));
        self.open.insert(at, OpenBlock { fields, arguments: String::new(), call });
        Ok(shown)
    }

    fn add(&mut self, data: &Value) -> Result<Vec<ModelDelta>, DecodeError> {
        let at = index(data)?;
        let open = self.open.get_mut(&at).ok_or_else(|| garbage(&format!("block {at} is added to and not open")))?;
        let delta = data.get("delta").and_then(Value::as_object).ok_or_else(|| garbage("`delta` is missing"))?;
        let word = |field: &str| delta.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let shown = match word("type").as_str() {
            "input_json_delta" => {
                let text = word("partial_json");
                open.arguments.push_str(&text);
                match open.call {
                    Some(index) if !text.is_empty() => vec![ModelDelta::ToolInput { index, text }],
                    _ => Vec::new(),
                }
            }
            "text_delta" => vec![ModelDelta::Text { text: word("text") }],
            "thinking_delta" => vec![ModelDelta::Thinking { text: word("thinking") }],
            _ => Vec::new(),
        };
        if !delta.contains_key("partial_json") {
            merge(&mut open.fields, delta);
        }
        Ok(shown)
    }

    fn stop_block(&mut self, data: &Value) -> Result<Vec<ModelDelta>, DecodeError> {
        let at = index(data)?;
        let mut open = self.open.remove(&at).ok_or_else(|| garbage(&format!("block {at} ends and is not open")))?;
        let mut shown = Vec::new();
        if let Some(index) = open.call.filter(|_| open.arguments.is_empty()) {
            // Some servers write the arguments at once, at the beginning.
            let whole = open.fields.get("input").filter(|input| input.as_object().is_some_and(|input| !input.is_empty()));
            shown.extend(whole.map(|input| ModelDelta::ToolInput { index, text: input.to_string() }));
        } else if !open.arguments.is_empty() {
            let input = decode_arguments(std::mem::take(&mut open.arguments));
            open.fields.insert("input".to_owned(), input);
        }
        let block = decode_block(&Value::Object(open.fields))?;
        shown.push(ModelDelta::Block { block: block.clone() });
        self.blocks.insert(at, block);
        Ok(shown)
    }

    fn end(&mut self) -> Result<Vec<ModelDelta>, DecodeError> {
        match self.open.keys().next() {
            Some(at) => Err(garbage(&format!("the message ended and block {at} did not"))),
            None if !self.began => Err(garbage("the message ended before it began")),
            None => {
                self.complete = true;
                Ok(Vec::new())
            }
        }
    }
}

fn index(data: &Value) -> Result<u64, DecodeError> {
    data.get("index").and_then(Value::as_u64).ok_or_else(|| garbage("`index` is missing"))
}

/// Adds a delta to its block: texts grow, lists grow, all else is set. So deltas of kinds that this build does not know reach their
/// block too. A signature comes whole, and a citation is one of a list.
fn merge(fields: &mut Map<String, Value>, delta: &Map<String, Value>) {
    for (field, value) in delta.iter().filter(|(field, _)| *field != "type") {
        match (field.as_str(), value) {
            ("citation", citation) => match fields.get_mut("citations") {
                Some(Value::Array(citations)) => citations.push(citation.clone()),
                _ => drop(fields.insert("citations".to_owned(), Value::Array(vec![citation.clone()]))),
            },
            ("signature", signature) => drop(fields.insert(field.clone(), signature.clone())),
            (_, value) => match (fields.get_mut(field), value) {
                (Some(Value::String(text)), Value::String(more)) => text.push_str(more),
                (Some(Value::Array(list)), Value::Array(more)) => list.extend(more.iter().cloned()),
                _ => drop(fields.insert(field.clone(), value.clone())),
            },
        }
    }
}
