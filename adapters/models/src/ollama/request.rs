//! A turn as a chat.

use std::collections::HashMap;

use helix_protocol::{Block, Effort, ImageSource, Message, OutputFormat, Role, ToolChoice, ToolSchema, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::chat::{ERROR_PREFIX, RAW_ARGUMENTS};
use crate::format::Turn;
use crate::output::described;
use crate::thinking::{Plan, effort_word, plan};
use crate::tools::{Forcing, carried, sent_choice};

/// The request's body.
pub fn encode_request(turn: &Turn<'_>) -> Value {
    let request = turn.request;
    let mut body = extra_of(&request.extra, WireFormat::Ollama).cloned().unwrap_or_default();
    // Whatever the table says, the format has no way to force a call.
    let forcing = match request.tool_choice {
        ToolChoice::Any | ToolChoice::Named(_) => Forcing::Refused,
        ToolChoice::Auto | ToolChoice::None => Forcing::of(turn),
    };
    let (choice, asked) = sent_choice(request, forcing);
    let names = names_of_calls(&request.messages);
    let mut messages: Vec<Value> = request.messages.iter().flat_map(|message| encode_message(message, &names)).collect();
    let tools: Vec<Value> = carried(&request.tools, WireFormat::Ollama).map(encode_tool).collect();
    if !tools.is_empty() && *choice != ToolChoice::None {
        body.insert("tools".to_owned(), Value::Array(tools));
        messages.extend(asked.map(|asked| json!({"role": "user", "content": asked})));
    }
    body.insert("model".to_owned(), json!(turn.model));
    body.insert("messages".to_owned(), Value::Array(messages));
    body.insert("stream".to_owned(), json!(turn.stream));
    if let Some(think) = encode_thinking(plan(turn)) {
        body.insert("think".to_owned(), think);
    }
    match &request.output {
        OutputFormat::Text => {}
        OutputFormat::JsonObject => drop(body.insert("format".to_owned(), json!("json"))),
        OutputFormat::JsonSchema { schema, description, .. } => {
            drop(body.insert("format".to_owned(), described(schema, description)));
        }
    }
    let options = body.remove("options").and_then(|options| options.as_object().cloned()).unwrap_or_default();
    body.insert("options".to_owned(), Value::Object(encode_options(turn, options)));
    Value::Object(body)
}

fn encode_options(turn: &Turn<'_>, mut options: Map<String, Value>) -> Map<String, Value> {
    let request = turn.request;
    options.insert("num_ctx".to_owned(), json!(turn.capabilities.context_tokens));
    options.insert("num_predict".to_owned(), json!(turn.max_tokens));
    if turn.capabilities.sampling {
        let sampling = request.sampling;
        options.extend(sampling.temperature.or(turn.temperature).map(|value| ("temperature".to_owned(), json!(value))));
        options.extend(sampling.top_p.map(|value| ("top_p".to_owned(), json!(value))));
        options.extend(sampling.top_k.map(|value| ("top_k".to_owned(), json!(value))));
    }
    if !request.stop.is_empty() {
        options.insert("stop".to_owned(), json!(request.stop));
    }
    options
}

/// On, off, or one of the words that the format has.
fn encode_thinking(plan: Plan) -> Option<Value> {
    match plan {
        Plan::Unsaid => None,
        Plan::Off => Some(json!(false)),
        Plan::Free | Plan::Budget(_) => Some(json!(true)),
        Plan::Effort(Effort::Minimal) => Some(json!(effort_word(Effort::Low))),
        Plan::Effort(Effort::Xhigh) => Some(json!(effort_word(Effort::High))),
        Plan::Effort(effort) => Some(json!(effort_word(effort))),
    }
}

fn encode_tool(tool: &ToolSchema) -> Value {
    match (extra_of(&tool.extra, WireFormat::Ollama), &tool.parameters) {
        (Some(fields), Value::Null) => Value::Object(fields.clone()),
        _ => json!({
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }),
    }
}

/// The tool of each call: a result names its tool here, and not its call alone.
fn names_of_calls(messages: &[Message]) -> HashMap<&str, &str> {
    let calls = messages.iter().flat_map(|message| &message.blocks).filter_map(|block| match block {
        Block::ToolUse { id, name, .. } => Some((id.as_str(), name.as_str())),
        _ => None,
    });
    calls.collect()
}

fn encode_message(message: &Message, names: &HashMap<&str, &str>) -> Vec<Value> {
    match message.role {
        Role::System => vec![json!({"role": "system", "content": message.as_text()})],
        Role::Assistant => vec![encode_assistant(message)],
        Role::User => encode_user(message, names),
    }
}

/// Results first, each a message of its own; then text and pictures, those of the results among them.
fn encode_user(message: &Message, names: &HashMap<&str, &str>) -> Vec<Value> {
    let mut encoded = Vec::new();
    let mut pictures = Vec::new();
    for block in &message.blocks {
        match block {
            Block::ToolResult { id, content, images, is_error, .. } => {
                let content = if *is_error { format!("{ERROR_PREFIX}{content}") } else { content.clone() };
                let name = names.get(id.as_str()).copied().unwrap_or_default();
                encoded.push(json!({"role": "tool", "tool_name": name, "tool_call_id": id, "content": content}));
                pictures.extend(images.iter().filter_map(bare));
            }
            Block::Image { image, .. } => pictures.extend(bare(image)),
            Block::Text { .. }
            | Block::Document { .. }
            | Block::Thinking { .. }
            | Block::ToolUse { .. }
            | Block::Unknown { .. } => {}
        }
    }
    let text = message.as_text();
    if !text.is_empty() || !pictures.is_empty() || encoded.is_empty() {
        let mut said = json!({"role": "user", "content": text});
        if !pictures.is_empty() {
            said["images"] = Value::Array(pictures);
        }
        encoded.push(said);
    }
    encoded
}

/// The bytes alone. The server fetches nothing, so a picture elsewhere is left out.
fn bare(image: &ImageSource) -> Option<Value> {
    match image {
        ImageSource::Base64 { data, .. } => Some(json!(data)),
        ImageSource::Url { .. } => None,
    }
}

fn encode_assistant(message: &Message) -> Value {
    let mut encoded = json!({"role": "assistant", "content": message.as_text()});
    let mut thoughts = String::new();
    let mut calls = Vec::new();
    for block in &message.blocks {
        match block {
            // Only what this server thought: another's thoughts are not for it.
            Block::Thinking { text, extra } if extra_of(extra, WireFormat::Ollama).is_some() => thoughts.push_str(text),
            Block::ToolUse { id, name, input, .. } => {
                let arguments = match input {
                    Value::Object(_) => input.clone(),
                    Value::String(raw) => json!({ RAW_ARGUMENTS: raw }),
                    other => json!({ RAW_ARGUMENTS: other.to_string() }),
                };
                calls.push(json!({"id": id, "function": {"name": name, "arguments": arguments}}));
            }
            _ => {}
        }
    }
    if !thoughts.is_empty() {
        encoded["thinking"] = json!(thoughts);
    }
    if !calls.is_empty() {
        encoded["tool_calls"] = Value::Array(calls);
    }
    encoded
}
