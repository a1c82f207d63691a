//! Items of a conversation and our blocks: what an answer's output and a request's input share.

use helix_protocol::{Block, Extra, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::chat::{decode_arguments, encode_arguments};
use crate::sealed::{opened_id, signed_id};

const FORMAT: WireFormat = WireFormat::OpenaiResponses;

/// What a model's item says, as blocks. An empty item of reasoning is a block too: it carries what the server encrypted.
pub(super) fn blocks_of(item: &Value) -> Vec<Block> {
    match word(item, "type") {
        "message" => texts_of(item),
        "" if item.get("content").is_some() => texts_of(item),
        "reasoning" => vec![Block::Thinking { text: thoughts_of(item), extra: Extra::field(FORMAT, "item", item.clone()) }],
        "function_call" => vec![call_of(item)],
        _ => vec![Block::Unknown { format: FORMAT, block: item.clone() }],
    }
}

fn texts_of(item: &Value) -> Vec<Block> {
    let mut message = item.as_object().cloned().unwrap_or_default();
    let content = message.remove("content").unwrap_or_default();
    for usual in ["type", "role"] {
        message.remove(usual);
    }
    if message.get("status").and_then(Value::as_str) == Some("completed") {
        message.remove("status");
    }
    let parts = match content {
        Value::Array(parts) => parts,
        Value::String(text) => vec![json!({"type": "output_text", "text": text})],
        _ => Vec::new(),
    };
    let block = |part: Value| {
        let mut fields = part.as_object().cloned().unwrap_or_default();
        let field = if word(&part, "type") == "refusal" { "refusal" } else { "text" };
        let Some(Value::String(text)) = fields.remove(field) else {
            return Block::Unknown { format: FORMAT, block: json!({"type": "message", "role": "assistant", "content": [part]}) };
        };
        fields.retain(|name, value| match name.as_str() {
            "type" => field == "refusal",
            // Empty lists say nothing.
            "annotations" | "logprobs" => value.as_array().is_none_or(|list| !list.is_empty()),
            _ => !value.is_null(),
        });
        let mut extra = Map::new();
        if !message.is_empty() {
            extra.insert("message".to_owned(), Value::Object(message.clone()));
        }
        if !fields.is_empty() {
            extra.insert("part".to_owned(), Value::Object(fields));
        }
        Block::Text { text, extra: Extra::of(FORMAT, extra) }
    };
    parts.into_iter().map(block).collect()
}

/// The thoughts that an item shows: their summary, or themselves where the model is open.
fn thoughts_of(item: &Value) -> String {
    let texts = |field: &str| -> Vec<&str> {
        let parts = item.get(field).and_then(Value::as_array).into_iter().flatten();
        parts.filter_map(|part| part.get("text")?.as_str()).collect()
    };
    let summary = texts("summary").join("\n\n");
    if summary.is_empty() { texts("content").concat() } else { summary }
}

fn call_of(item: &Value) -> Block {
    let mut extra = Map::new();
    if let Some(id) = item.get("id").filter(|id| id.is_string()) {
        extra.insert("id".to_owned(), id.clone());
    }
    let written = word(item, "arguments");
    let input = decode_arguments(written.to_owned());
    if input.is_object() && written != encode_arguments(&input) {
        extra.insert("arguments".to_owned(), json!(written));
    }
    let (id, signed) = opened_id(word(item, "call_id"));
    let extra = signed.or_else(|| Extra::of(FORMAT, extra));
    Block::ToolUse { id: id.to_owned(), name: word(item, "name").to_owned(), input, extra }
}

/// Where an answer's items go, and with what besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Back to the server that made them: ids of what it did not store say nothing to it.
    Input,
    /// To a client: every item has an id and a status.
    Output,
}

/// What a model said, as items. `name` makes ids for those that have none.
pub(super) fn items_of(blocks: &[Block], direction: Direction, name: &str) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut shared: Option<Value> = None;
    for block in blocks {
        let at = items.len();
        if let Block::Text { text, extra } = block {
            let (message, part) = (field(extra, "message"), part_of(text, extra));
            match items.last_mut().filter(|_| message.is_some() && shared.as_ref() == message) {
                Some(last) => {
                    if let Some(content) = last.get_mut("content").and_then(Value::as_array_mut) {
                        content.push(part);
                    }
                }
                None => items.push(message_item(message, part, direction, &format!("msg_{name}_{at}"))),
            }
            shared = message.cloned();
            continue;
        }
        shared = None;
        match block {
            Block::Thinking { text, extra } => items.extend(reasoning_item(text, extra, direction, &format!("rs_{name}_{at}"))),
            Block::ToolUse { id, name: tool, input, extra } => {
                let id = if direction == Direction::Output { signed_id(id, extra) } else { id.clone() };
                items.push(call_item(&id, tool, &arguments_of(input, extra), extra, direction, &format!("fc_{name}_{at}")));
            }
            Block::Unknown { format: FORMAT, block } => items.push(block.clone()),
            Block::Text { .. }
            | Block::Image { .. }
            | Block::Document { .. }
            | Block::ToolResult { .. }
            | Block::Unknown { .. } => {}
        }
    }
    items
}

/// A message of the model.
pub(super) fn message_item(message: Option<&Value>, part: Value, direction: Direction, id: &str) -> Value {
    let mut item = message.and_then(Value::as_object).cloned().unwrap_or_default();
    item.insert("type".to_owned(), json!("message"));
    item.insert("role".to_owned(), json!("assistant"));
    if direction == Direction::Output {
        item.entry("id").or_insert_with(|| json!(id));
        item.entry("status").or_insert_with(|| json!("completed"));
    }
    item.insert("content".to_owned(), json!([part]));
    Value::Object(item)
}

/// A text as a part of a message.
pub(super) fn part_of(text: &str, extra: &Option<Box<Extra>>) -> Value {
    let mut part = field(extra, "part").and_then(Value::as_object).cloned().unwrap_or_default();
    if part.get("type").and_then(Value::as_str) == Some("refusal") {
        part.insert("refusal".to_owned(), json!(text));
        return Value::Object(part);
    }
    part.insert("type".to_owned(), json!("output_text"));
    part.insert("text".to_owned(), json!(text));
    part.entry("annotations").or_insert_with(|| json!([]));
    Value::Object(part)
}

/// An item of reasoning. Another provider's thoughts mean nothing to this one's models, and an item that holds no thought names one
/// that was not stored; a client may see both.
pub(super) fn reasoning_item(text: &str, extra: &Option<Box<Extra>>, direction: Direction, id: &str) -> Option<Value> {
    match (field(extra, "item"), direction) {
        (Some(item), Direction::Input) => holds_thought(item).then(|| item.clone()),
        (Some(item), Direction::Output) => Some(item.clone()),
        (None, Direction::Input) => None,
        (None, Direction::Output) => {
            Some(json!({"type": "reasoning", "id": id, "summary": [{"type": "summary_text", "text": text}]}))
        }
    }
}

/// True where an item holds what the model thought, encrypted or open, and not only a summary of it.
fn holds_thought(item: &Value) -> bool {
    let is_open = item.get("content").and_then(Value::as_array).is_some_and(|content| !content.is_empty());
    is_open || !word(item, "encrypted_content").is_empty()
}

/// A call.
pub(super) fn call_item(
    call_id: &str,
    name: &str,
    arguments: &str,
    extra: &Option<Box<Extra>>,
    direction: Direction,
    id: &str,
) -> Value {
    let mut item = json!({"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments});
    match (field(extra, "id"), direction) {
        (Some(known), _) => item["id"] = known.clone(),
        (None, Direction::Output) => item["id"] = json!(id),
        (None, Direction::Input) => {}
    }
    if direction == Direction::Output {
        item["status"] = json!("completed");
    }
    item
}

/// A call's arguments in the model's own words where they are known: the server's cache goes by the bytes.
pub(super) fn arguments_of(input: &Value, extra: &Option<Box<Extra>>) -> String {
    let written = field(extra, "arguments").and_then(Value::as_str);
    let same = |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|parsed| parsed == *input);
    written.filter(same).map_or_else(|| encode_arguments(input), str::to_owned)
}

pub(super) fn field<'a>(extra: &'a Option<Box<Extra>>, name: &str) -> Option<&'a Value> {
    extra_of(extra, FORMAT)?.get(name)
}

pub(super) fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
