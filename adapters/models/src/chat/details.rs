//! What a model thought in the words of OpenRouter, `reasoning_details`: texts with signatures, summaries, and what is encrypted.
//! It wants them back as they were, so that a model goes on thinking where it was when it called its tools. Other formats'
//! thinking is given to clients in the same field, which those that know OpenRouter send back.

use helix_protocol::{Block, Extra, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::sealed;

const FORMAT: WireFormat = WireFormat::OpenaiChat;
/// Under this name a block keeps them.
pub(super) const KEPT: &str = "details";
/// The fields that come in pieces.
const IN_PIECES: [&str; 3] = ["text", "summary", "data"];

/// Adds one as it comes in a stream: pieces of one have its type and its index.
pub(super) fn add(details: &mut Vec<Value>, piece: &Value) {
    let Some(fields) = piece.as_object() else { return };
    let same = |field: &str, known: &Value| known.get(field) == piece.get(field);
    // Only of texts come pieces of one behind another.
    match details.last_mut().filter(|known| same("type", known) && same("index", known) && is_text(piece)) {
        Some(Value::Object(known)) => go_on(known, fields),
        _ => details.push(piece.clone()),
    }
}

fn is_text(detail: &Value) -> bool {
    detail.get("type").is_some_and(|kind| kind == "reasoning.text" || kind == "reasoning.summary")
}

fn go_on(known: &mut Map<String, Value>, piece: &Map<String, Value>) {
    for (field, value) in piece {
        match (known.get_mut(field), value) {
            (Some(Value::String(text)), Value::String(more)) if IN_PIECES.contains(&field.as_str()) => text.push_str(more),
            (_, Value::Null) => drop(known.entry(field).or_insert(Value::Null)),
            (_, value) => drop(known.insert(field.clone(), value.clone())),
        }
    }
}

/// What OpenRouter is given back of a thought.
pub(super) fn of_provider(extra: &Option<Box<Extra>>) -> Option<Value> {
    extra_of(extra, FORMAT)?.get(KEPT).cloned()
}

/// What a client is given of a thought.
pub(super) fn for_client(text: &str, extra: &Option<Box<Extra>>) -> Vec<Value> {
    if let Some(Value::Array(details)) = of_provider(extra) {
        return details;
    }
    let packed = sealed::pack(extra, FORMAT);
    packed.map(|packed| json!({"type": "reasoning.text", "text": text, "signature": packed})).into_iter().collect()
}

/// A model's thoughts as a client sends them back.
pub(super) fn decode(details: &[Value], text: Option<(&str, String)>) -> Vec<Block> {
    let foreign = |detail: &Value| {
        let extra = sealed::unpack(detail.get("signature")?.as_str()?)?;
        let text = detail.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Block::Thinking { text, extra: Some(extra) })
    };
    let foreign: Vec<Block> = details.iter().filter_map(foreign).collect();
    if !foreign.is_empty() {
        return foreign;
    }
    let mut extra = Map::new();
    extra.extend(text.as_ref().map(|(field, _)| ("field".to_owned(), json!(field))));
    if !details.is_empty() {
        extra.insert(KEPT.to_owned(), json!(details));
    }
    let text = text.map(|(_, text)| text).unwrap_or_default();
    if extra.is_empty() { Vec::new() } else { vec![Block::Thinking { text, extra: Extra::of(FORMAT, extra) }] }
}
