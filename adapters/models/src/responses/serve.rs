//! The same format from a server's side.

use helix_ports::Extent;
use helix_protocol::{
    Block, Extra, ImageSource, Message, ModelReply, ModelRequest, OutputFormat, Role, Sampling, StopReason, Thinking, ToolChoice,
    ToolSchema, Usage, WireFormat,
};
use serde_json::{Map, Value, json};

use super::items::{Direction, blocks_of, items_of, word};
use super::request::is_part;
use crate::chat::ERROR_PREFIX;
use crate::output::decode_typed;
use crate::sealed::{self, opened_id};
use crate::thinking::effort_named;
use crate::{documents, images, numbers, served};

const FORMAT: WireFormat = WireFormat::OpenaiResponses;

/// Fields of a request that have a place in ours, or are the server's own affair. The others are kept as they stand.
const KNOWN: [&str; 14] = [
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_output_tokens",
    "temperature",
    "top_p",
    "reasoning",
    "prompt_cache_key",
    "stream",
    "stream_options",
    "store",
];

/// What a server with a memory could do, and this one cannot.
const STORED: [(&str, &str); 3] = [
    ("previous_response_id", "nothing is stored here; send the whole conversation as `input`"),
    ("conversation", "nothing is stored here; send the whole conversation as `input`"),
    ("prompt", "no prompts are stored here; send the text as `instructions`"),
];

/// Reads a request. The error says what is missing, for a 400.
pub fn decode_request(body: &Value) -> Result<ModelRequest, String> {
    let said = |field: &str| body.get(field).filter(|value| !value.is_null());
    for (field, advice) in STORED {
        if said(field).is_some() {
            return Err(format!("`{field}` is given, but {advice}"));
        }
    }
    if said("background").is_some_and(|background| background == true) {
        return Err("`background` is given, but answers are made while you wait; leave it out".to_owned());
    }
    let mut messages = Vec::new();
    if let Some(instructions) = said("instructions") {
        let text = instructions.as_str().ok_or("`instructions` is not a text")?;
        messages.push(Message::text(Role::System, text));
    }
    match said("input") {
        Some(Value::String(text)) => messages.push(Message::text(Role::User, text)),
        Some(Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                decode_item(item, &mut messages).map_err(|error| format!("input[{at}]: {error}"))?;
            }
        }
        _ => return Err("`input` is missing, or neither a text nor a list of items".to_owned()),
    }
    let tools = said("tools").and_then(Value::as_array).into_iter().flatten().enumerate();
    let tools: Vec<ToolSchema> =
        tools.map(|(at, tool)| decode_tool(tool).map_err(|error| format!("tools[{at}]: {error}"))).collect::<Result<_, _>>()?;
    let (tool_choice, tools) = decode_choice(said("tool_choice"), tools)?;
    let number = |field: &str| numbers::number(said(field), field);
    let mut extra: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
    extra.retain(|field, value| !KNOWN.contains(&field.as_str()) && !value.is_null());
    let output = take_output(&mut extra)?;
    let reasoning = said("reasoning");
    Ok(ModelRequest {
        model: said("model").and_then(Value::as_str).map(str::to_owned),
        messages,
        tools,
        tool_choice,
        parallel_tools: said("parallel_tool_calls").and_then(Value::as_bool),
        max_tokens: numbers::positive(said("max_output_tokens"), "max_output_tokens")?.unwrap_or(0),
        sampling: Sampling { temperature: number("temperature")?, top_p: number("top_p")?, top_k: None },
        output,
        thinking: decode_effort(reasoning)?,
        show_thinking: reasoning.is_some_and(|reasoning| reasoning.get("summary").is_some_and(|summary| !summary.is_null())),
        session: said("prompt_cache_key").and_then(Value::as_str).map(str::to_owned),
        extra: Extra::of(FORMAT, extra),
        ..ModelRequest::default()
    })
}

/// Takes what the text shall be out of the rest; what else is said of it stays there.
fn take_output(extra: &mut Map<String, Value>) -> Result<OutputFormat, String> {
    let Some(Value::Object(text)) = extra.get_mut("text") else { return Ok(OutputFormat::Text) };
    let format = text.remove("format").filter(|format| !format.is_null());
    if text.is_empty() {
        extra.remove("text");
    }
    format.map_or(Ok(OutputFormat::Text), |format| decode_typed(&format, "text.format", |format| format))
}

/// A request that goes on from what its service keeps as one that begins.
pub(crate) fn within(body: &Value) -> Option<(Value, Extent)> {
    let goes_on = |field: &str| body.get(field).is_some_and(|value| !value.is_null());
    STORED.iter().find(|(field, _)| goes_on(field))?;
    let mut body = body.clone();
    let fields = body.as_object_mut()?;
    STORED.iter().for_each(|(field, _)| drop(fields.remove(*field)));
    fields.entry("input").or_insert_with(|| json!(""));
    Some((body, Extent { goes_on: true, ..Extent::default() }))
}

fn decode_effort(reasoning: Option<&Value>) -> Result<Thinking, String> {
    match reasoning.and_then(|reasoning| reasoning.get("effort")).filter(|effort| !effort.is_null()) {
        None => Ok(Thinking::Default),
        Some(word) if word == "none" => Ok(Thinking::Off),
        Some(word) => {
            word.as_str().and_then(effort_named).map(Thinking::Effort).ok_or_else(|| {
                format!("`reasoning.effort` {word} is not known; it is none, minimal, low, medium, high, xhigh or max")
            })
        }
    }
}

/// A function, or a tool of the provider's own, which is kept as it stands.
fn decode_tool(tool: &Value) -> Result<ToolSchema, String> {
    let mut fields = tool.as_object().cloned().ok_or("a tool is an object")?;
    let kind = word(tool, "type").to_owned();
    if kind != "function" {
        let name = tool.get("name").and_then(Value::as_str).unwrap_or(&kind).to_owned();
        return Ok(ToolSchema { name, description: String::new(), parameters: Value::Null, extra: Extra::of(FORMAT, fields) });
    }
    fields.remove("type");
    let Some(Value::String(name)) = fields.remove("name") else { return Err("`name` is missing".to_owned()) };
    let description = match fields.remove("description") {
        Some(Value::String(description)) => description,
        _ => String::new(),
    };
    let parameters = match fields.remove("parameters") {
        Some(Value::Object(schema)) => Value::Object(schema),
        Some(Value::Null) | None => json!({"type": "object", "properties": {}}),
        Some(_) => return Err("`parameters` is not a JSON Schema".to_owned()),
    };
    fields.retain(|field, value| if field == "strict" { value == true } else { !value.is_null() });
    Ok(ToolSchema { name, description, parameters, extra: Extra::of(FORMAT, fields) })
}

/// The choice, and the tools that it leaves: no other format can be told that only some of them may be called.
fn decode_choice(choice: Option<&Value>, tools: Vec<ToolSchema>) -> Result<(ToolChoice, Vec<ToolSchema>), String> {
    let name = |choice: &Value| choice.get("name").and_then(Value::as_str).map(str::to_owned);
    let Some(choice) = choice else { return Ok((ToolChoice::Auto, tools)) };
    if let Some(said) = choice.as_str() {
        return match said {
            "auto" => Ok((ToolChoice::Auto, tools)),
            "required" => Ok((ToolChoice::Any, tools)),
            "none" => Ok((ToolChoice::None, tools)),
            other => Err(format!("`tool_choice` {other:?} is not known; it is auto, required, none, or an object")),
        };
    }
    match word(choice, "type") {
        "function" | "custom" => Ok((ToolChoice::Named(name(choice).ok_or("`tool_choice.name` is missing")?), tools)),
        "allowed_tools" => {
            let allowed = choice.get("tools").and_then(Value::as_array).ok_or("`tool_choice.tools` is missing")?;
            let allowed: Vec<String> =
                allowed.iter().filter_map(|tool| name(tool).or_else(|| Some(word(tool, "type").to_owned()))).collect();
            let left: Vec<ToolSchema> = tools.into_iter().filter(|tool| allowed.contains(&tool.name)).collect();
            if left.is_empty() {
                return Err("`tool_choice` allows no tool that is given".to_owned());
            }
            let required = word(choice, "mode") == "required";
            Ok((if required { ToolChoice::Any } else { ToolChoice::Auto }, left))
        }
        // One of the provider's own tools, by its kind.
        kind if !kind.is_empty() => Ok((ToolChoice::Named(kind.to_owned()), tools)),
        _ => Err("`tool_choice` has no `type`".to_owned()),
    }
}

fn decode_item(item: &Value, messages: &mut Vec<Message>) -> Result<(), String> {
    match word(item, "type") {
        "message" | "" => decode_message(item, messages),
        "function_call_output" => {
            let (id, _) = opened_id(item.get("call_id").and_then(Value::as_str).ok_or("`call_id` is missing")?);
            let id = id.to_owned();
            let (content, images) = decode_output(item.get("output"))?;
            let (content, is_error) = match content.strip_prefix(ERROR_PREFIX) {
                Some(rest) => (rest.to_owned(), true),
                None => (content, false),
            };
            push_user(messages, vec![Block::ToolResult { id, content, images, is_error, extra: None }]);
            Ok(())
        }
        "item_reference" => Err("an `item_reference` names an item that is stored nowhere; send the item itself".to_owned()),
        "reasoning" => {
            push_assistant(messages, vec![decode_reasoning(item)]);
            Ok(())
        }
        // What a client answers to a tool of the provider's own, or gives along with its words, such as further tools.
        kind if kind.ends_with("_output") || matches!(word(item, "role"), "system" | "developer" | "user") => {
            push_user(messages, vec![Block::Unknown { format: FORMAT, block: item.clone() }]);
            Ok(())
        }
        _ => {
            push_assistant(messages, blocks_of(item));
            Ok(())
        }
    }
}

fn decode_message(item: &Value, messages: &mut Vec<Message>) -> Result<(), String> {
    match word(item, "role") {
        "system" | "developer" => {
            let (text, _) = decode_output(item.get("content"))?;
            messages.push(Message::text(Role::System, text));
        }
        "user" => push_user(messages, served::decode_parts(item.get("content"), decode_part)?),
        "assistant" => push_assistant(messages, blocks_of(item)),
        "" => return Err("`role` is missing".to_owned()),
        other => return Err(format!("`role` {other:?} is not known")),
    }
    Ok(())
}

/// Results in a row, and what the user says after them, are one message of ours.
fn push_user(messages: &mut Vec<Message>, blocks: Vec<Block>) {
    let goes_on = |last: &&mut Message| last.role == Role::User && matches!(last.blocks.last(), Some(Block::ToolResult { .. }));
    match messages.last_mut().filter(goes_on) {
        Some(last) => last.blocks.extend(blocks),
        None => messages.push(Message { role: Role::User, blocks }),
    }
}

fn push_assistant(messages: &mut Vec<Message>, blocks: Vec<Block>) {
    match messages.last_mut().filter(|last| last.role == Role::Assistant) {
        Some(last) => last.blocks.extend(blocks),
        None => messages.push(Message { role: Role::Assistant, blocks }),
    }
}

fn decode_part(part: &Value) -> Result<Block, String> {
    let mut fields = part.as_object().cloned().ok_or("a part is an object")?;
    fields.remove("type");
    match word(part, "type") {
        "input_text" | "output_text" | "text" => match fields.remove("text") {
            Some(Value::String(text)) => Ok(Block::Text { text, extra: Extra::of(FORMAT, fields) }),
            _ => Err("`text` is missing".to_owned()),
        },
        "input_image" => match fields.remove("image_url") {
            Some(Value::String(url)) => Ok(Block::Image { image: images::from_url(&url)?, extra: Extra::of(FORMAT, fields) }),
            // By the id of a file at the provider.
            _ => Ok(Block::Unknown { format: FORMAT, block: part.clone() }),
        },
        "input_file" => match documents::take_file(&mut fields) {
            Some((name, data)) => {
                Ok(Block::Document { name, media_type: documents::PDF.to_owned(), data, extra: Extra::of(FORMAT, fields) })
            }
            // At the provider, elsewhere, or of another kind.
            None => Ok(Block::Unknown { format: FORMAT, block: part.clone() }),
        },
        _ if is_part(part) => Ok(Block::Unknown { format: FORMAT, block: part.clone() }),
        "" => Err("`type` is missing".to_owned()),
        other => Err(format!("a part {other:?} is not known")),
    }
}

/// A text, or the texts and pictures of a list of parts.
fn decode_output(output: Option<&Value>) -> Result<(String, Vec<ImageSource>), String> {
    let mut texts: Vec<String> = Vec::new();
    let mut pictures = Vec::new();
    for block in served::decode_parts(output, decode_part)? {
        match block {
            Block::Text { text, .. } => texts.push(text),
            Block::Image { image, .. } => pictures.push(image),
            _ => return Err("only texts and images can stand here".to_owned()),
        }
    }
    Ok((texts.join("\n"), pictures))
}

/// Another format's thought, with the words that its provider wants back, in the place where this format has something encrypted.
pub(super) fn foreign_reasoning(text: &str, extra: &Option<Box<Extra>>, id: &str) -> Option<Box<Extra>> {
    let packed = sealed::pack(extra, FORMAT)?;
    let item = json!({
        "type": "reasoning", "id": id, "summary": [{"type": "summary_text", "text": text}], "encrypted_content": packed,
    });
    Extra::field(FORMAT, "item", item)
}

/// A thought as it came back, the other format's words unpacked.
fn decode_reasoning(item: &Value) -> Block {
    let packed = sealed::unpack(word(item, "encrypted_content"));
    let mut blocks = blocks_of(item);
    match (packed, blocks.pop()) {
        (Some(extra), Some(Block::Thinking { text, .. })) => Block::Thinking { text, extra: Some(extra) },
        (_, Some(block)) => block,
        (_, None) => Block::Thinking { text: String::new(), extra: None },
    }
}

/// A whole answer. `id` names it; `created` is in seconds since 1970.
pub fn encode_reply(reply: &ModelReply, id: &str, created: i64) -> Value {
    let mut blocks = reply.blocks.clone();
    for (at, block) in blocks.iter_mut().enumerate() {
        if let Block::Thinking { text, extra } = block
            && let Some(packed) = foreign_reasoning(text, extra, &format!("rs_{id}_{at}"))
        {
            *extra = Some(packed);
        }
    }
    let mut response = unfinished(&reply.model, id, created);
    let reason = match &reply.stop {
        StopReason::MaxTokens | StopReason::ContextFull => Some("max_output_tokens"),
        StopReason::Refusal if !refuses_in_words(&reply.blocks) => Some("content_filter"),
        _ => None,
    };
    response["status"] = json!(if reason.is_some() { "incomplete" } else { "completed" });
    response["incomplete_details"] = reason.map_or(Value::Null, |reason| json!({"reason": reason}));
    response["output"] = Value::Array(items_of(&blocks, Direction::Output, id));
    response["usage"] = encode_usage(&reply.usage);
    response
}

/// The response as it is before it says anything.
pub(super) fn unfinished(model: &str, id: &str, created: i64) -> Value {
    json!({
        "id": id, "object": "response", "created_at": created, "status": "in_progress", "model": model, "output": [],
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "parallel_tool_calls": true,
        "previous_response_id": null, "store": false, "temperature": null, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_p": null, "truncation": "disabled", "usage": null,
    })
}

fn refuses_in_words(blocks: &[Block]) -> bool {
    blocks.iter().any(|block| match block {
        Block::Text { extra, .. } => super::items::field(extra, "part").is_some_and(|part| word(part, "type") == "refusal"),
        _ => false,
    })
}

fn encode_usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.total_tokens(),
    })
}
