//! A turn as a chat completions request.

use helix_protocol::{Block, Message, Role, ToolChoice, ToolSchema, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::format::Turn;

use super::{ERROR_PREFIX, RAW_ARGUMENTS};

/// How a server wants the limit on an answer's tokens to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthField {
    /// `max_tokens`: nearly everybody.
    MaxTokens,
    /// `max_completion_tokens`: OpenAI itself, whose newer models refuse the other.
    MaxCompletionTokens,
}

/// The request's body.
pub fn encode_request(turn: &Turn<'_>, length: LengthField) -> Value {
    let request = turn.request;
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(turn.model));
    body.insert("messages".to_owned(), request.messages.iter().flat_map(encode_message).collect());
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(encode_tool).collect();
        body.insert("tools".to_owned(), tools);
        body.insert("tool_choice".to_owned(), encode_choice(&request.tool_choice));
    }
    let length = match length {
        LengthField::MaxTokens => "max_tokens",
        LengthField::MaxCompletionTokens => "max_completion_tokens",
    };
    body.insert(length.to_owned(), json!(turn.max_tokens));
    if let Some(temperature) = request.sampling.temperature.or(turn.temperature) {
        body.insert("temperature".to_owned(), json!(temperature));
    }
    if turn.stream {
        body.insert("stream".to_owned(), json!(true));
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    Value::Object(body)
}

fn encode_tool(tool: &ToolSchema) -> Value {
    json!({"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}})
}

fn encode_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Any => json!("required"),
        ToolChoice::None => json!("none"),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

/// One of our messages is several of theirs where it holds tool results: each is a message of the role `tool`, and they
/// stand before the text, because they must follow the calls at once.
fn encode_message(message: &Message) -> Vec<Value> {
    match message.role {
        Role::System => vec![json!({"role": "system", "content": message.as_text()})],
        Role::Assistant => vec![encode_assistant(message)],
        Role::User => {
            let mut encoded: Vec<Value> = message.blocks.iter().filter_map(encode_result).collect();
            let has_text = message.blocks.iter().any(|block| matches!(block, Block::Text { .. }));
            if has_text || encoded.is_empty() {
                encoded.push(json!({"role": "user", "content": message.as_text()}));
            }
            encoded
        }
    }
}

fn encode_result(block: &Block) -> Option<Value> {
    let Block::ToolResult { id, content, is_error, .. } = block else { return None };
    let content = if *is_error { format!("{ERROR_PREFIX}{content}") } else { content.clone() };
    Some(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

fn encode_assistant(message: &Message) -> Value {
    let mut encoded = Map::new();
    encoded.insert("role".to_owned(), json!("assistant"));
    let mut texts = Vec::new();
    let mut calls = Vec::new();
    for block in &message.blocks {
        match block {
            Block::Text { text, .. } => texts.push(text.as_str()),
            Block::ToolUse { id, name, input, .. } => {
                let arguments = encode_arguments(input);
                calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}));
            }
            Block::Thinking { text, extra } => {
                let field = extra_of(extra, WireFormat::OpenaiChat).and_then(|fields| fields.get("field")?.as_str());
                if let Some(field) = field {
                    encoded.insert(field.to_owned(), json!(text));
                }
            }
            Block::Image { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
        }
    }
    // `content` may only be null beside calls.
    let content = if texts.is_empty() && !calls.is_empty() { Value::Null } else { json!(texts.join("\n")) };
    encoded.insert("content".to_owned(), content);
    if !calls.is_empty() {
        encoded.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Value::Object(encoded)
}

/// Arguments as the string the format wants. Always a JSON object: what is not one is wrapped.
pub(super) fn encode_arguments(input: &Value) -> String {
    match input {
        Value::Object(_) => input.to_string(),
        Value::String(raw) => json!({ RAW_ARGUMENTS: raw }).to_string(),
        other => json!({ RAW_ARGUMENTS: other.to_string() }).to_string(),
    }
}
