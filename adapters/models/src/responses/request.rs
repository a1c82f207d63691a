//! A turn as a request.

use helix_protocol::{
    Block, ImageSource, Message, OutputFormat, Role, ThinkingControl, ToolChoice, ToolSchema, WireFormat, extra_of,
};
use serde_json::{Map, Value, json};

use super::items::{Direction, items_of};
use crate::chat::ERROR_PREFIX;
use crate::format::Turn;
use crate::output::named_schema;
use crate::session::named_within;
use crate::thinking::{Plan, effort_word, plan};
use crate::tools::{Forcing, carried, sent_choice};
use crate::{documents, images};

/// The longest `prompt_cache_key` that OpenAI takes.
const LONGEST_CACHE_KEY: usize = 64;

/// The request's body.
pub fn encode_request(turn: &Turn<'_>) -> Value {
    let request = turn.request;
    let mut body = extra_of(&request.extra, WireFormat::OpenaiResponses).cloned().unwrap_or_default();
    let (choice, asked) = sent_choice(request, Forcing::of(turn));
    let mut input: Vec<Value> = request.messages.iter().flat_map(encode_message).collect();
    input.extend(asked.map(|asked| message("user", vec![json!({"type": "input_text", "text": asked})])));
    body.insert("model".to_owned(), json!(turn.model));
    body.insert("input".to_owned(), Value::Array(input));
    body.insert("store".to_owned(), json!(false));
    // A model that does not think refuses to encrypt what it has not thought.
    if turn.capabilities.thinking != ThinkingControl::None {
        include_encrypted(&mut body);
    }
    let tools: Vec<Value> = carried(&request.tools, WireFormat::OpenaiResponses).map(encode_tool).collect();
    if !tools.is_empty() {
        body.insert("tools".to_owned(), Value::Array(tools));
        body.insert("tool_choice".to_owned(), encode_choice(choice));
        if let Some(parallel) = request.parallel_tools.filter(|_| turn.capabilities.parallel_tools) {
            body.insert("parallel_tool_calls".to_owned(), json!(parallel));
        }
    }
    body.insert("max_output_tokens".to_owned(), json!(turn.max_tokens));
    if turn.capabilities.sampling {
        let sampling = request.sampling;
        body.extend(sampling.temperature.or(turn.temperature).map(|value| ("temperature".to_owned(), json!(value))));
        body.extend(sampling.top_p.map(|value| ("top_p".to_owned(), json!(value))));
    }
    encode_text(&request.output, &mut body);
    encode_thinking(turn, &mut body);
    if let Some(session) = &request.session {
        // Requests with one key go to one machine, whose cache has the conversation.
        body.entry("prompt_cache_key").or_insert_with(|| json!(named_within(session, LONGEST_CACHE_KEY)));
    }
    if turn.stream {
        body.insert("stream".to_owned(), json!(true));
    }
    Value::Object(body)
}

/// Asks for what lets the conversation go on without the server's memory; whatever else a client wants included stays.
fn include_encrypted(body: &mut Map<String, Value>) {
    const ENCRYPTED: &str = "reasoning.encrypted_content";
    let include = body.entry("include").or_insert_with(|| json!([]));
    match include {
        Value::Array(list) if !list.iter().any(|entry| entry == ENCRYPTED) => list.push(json!(ENCRYPTED)),
        Value::Array(_) => {}
        other => *other = json!([ENCRYPTED]),
    }
}

/// Beside whatever else a client says of the text.
fn encode_text(output: &OutputFormat, body: &mut Map<String, Value>) {
    let format = match output {
        OutputFormat::Text => return,
        OutputFormat::JsonObject => json!({"type": "json_object"}),
        OutputFormat::JsonSchema { name, description, schema, strict } => {
            let mut format = named_schema(name, description, schema, *strict);
            format.insert("type".to_owned(), json!("json_schema"));
            Value::Object(format)
        }
    };
    let text = body.entry("text").or_insert_with(|| json!({}));
    if !text.is_object() {
        *text = json!({});
    }
    text["format"] = format;
}

fn encode_thinking(turn: &Turn<'_>, body: &mut Map<String, Value>) {
    let effort = match plan(turn) {
        Plan::Effort(effort) => Some(effort_word(effort)),
        Plan::Off => Some("none"),
        Plan::Unsaid | Plan::Free | Plan::Budget(_) => None,
    };
    let summary = turn.request.show_thinking && turn.capabilities.thinking != ThinkingControl::None;
    if effort.is_none() && !summary {
        return;
    }
    let reasoning = body.entry("reasoning").or_insert_with(|| json!({}));
    if !reasoning.is_object() {
        *reasoning = json!({});
    }
    if let Some(effort) = effort {
        reasoning["effort"] = json!(effort);
    }
    if summary && reasoning.get("summary").is_none_or(Value::is_null) {
        reasoning["summary"] = json!("auto");
    }
}

fn encode_tool(tool: &ToolSchema) -> Value {
    let extra = extra_of(&tool.extra, WireFormat::OpenaiResponses);
    if let (Some(fields), Value::Null) = (extra, &tool.parameters) {
        return Value::Object(fields.clone());
    }
    let mut function = extra.cloned().unwrap_or_default();
    function.insert("type".to_owned(), json!("function"));
    function.insert("name".to_owned(), json!(tool.name));
    function.insert("description".to_owned(), json!(tool.description));
    function.insert("parameters".to_owned(), tool.parameters.clone());
    // Strict is the default here, and demands schemas that few tools have.
    function.entry("strict").or_insert_with(|| json!(false));
    Value::Object(function)
}

fn encode_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Any => json!("required"),
        ToolChoice::None => json!("none"),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    }
}

/// One of our messages is as many items as it has calls, results and thoughts.
fn encode_message(said: &Message) -> Vec<Value> {
    match said.role {
        Role::System => vec![message("system", vec![json!({"type": "input_text", "text": said.as_text()})])],
        Role::Assistant => items_of(&said.blocks, Direction::Input, ""),
        Role::User => encode_user(&said.blocks),
    }
}

fn encode_user(blocks: &[Block]) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut parts = Vec::new();
    for block in blocks {
        match block {
            Block::Text { text, extra } => {
                let mut part = extra_of(extra, WireFormat::OpenaiResponses).cloned().unwrap_or_default();
                part.insert("type".to_owned(), json!("input_text"));
                part.insert("text".to_owned(), json!(text));
                parts.push(Value::Object(part));
            }
            Block::Image { image, extra } => {
                let mut part = extra_of(extra, WireFormat::OpenaiResponses).cloned().unwrap_or_default();
                part.insert("type".to_owned(), json!("input_image"));
                part.insert("image_url".to_owned(), json!(images::to_url(image)));
                parts.push(Value::Object(part));
            }
            Block::Document { name, media_type, data, extra } => {
                let mut part = extra_of(extra, WireFormat::OpenaiResponses).cloned().unwrap_or_default();
                part.insert("type".to_owned(), json!("input_file"));
                part.extend(documents::to_file(name, media_type, data));
                parts.push(Value::Object(part));
            }
            Block::ToolResult { id, content, images, is_error, .. } => {
                flush(&mut items, &mut parts);
                let output = encode_output(content, images, *is_error);
                items.push(json!({"type": "function_call_output", "call_id": id, "output": output}));
            }
            Block::Unknown { format: WireFormat::OpenaiResponses, block } => match is_part(block) {
                true => parts.push(block.clone()),
                false => {
                    flush(&mut items, &mut parts);
                    items.push(block.clone());
                }
            },
            Block::Thinking { .. } | Block::ToolUse { .. } | Block::Unknown { .. } => {}
        }
    }
    flush(&mut items, &mut parts);
    items
}

/// True for parts of a message, which are named after their direction; items are not.
pub(super) fn is_part(block: &Value) -> bool {
    block.get("type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("input_"))
}

fn flush(items: &mut Vec<Value>, parts: &mut Vec<Value>) {
    if !parts.is_empty() {
        items.push(message("user", std::mem::take(parts)));
    }
}

fn message(role: &str, parts: Vec<Value>) -> Value {
    json!({"type": "message", "role": role, "content": parts})
}

fn encode_output(content: &str, pictures: &[ImageSource], is_error: bool) -> Value {
    let text = if is_error { format!("{ERROR_PREFIX}{content}") } else { content.to_owned() };
    if pictures.is_empty() {
        return json!(text);
    }
    let images = pictures.iter().map(|image| json!({"type": "input_image", "image_url": images::to_url(image)}));
    [json!({"type": "input_text", "text": text})].into_iter().chain(images).collect()
}
