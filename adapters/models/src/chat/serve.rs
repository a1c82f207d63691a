//! The same format from a server's side.

use helix_ports::Extent;
use helix_protocol::{
    Block, Code, Extra, Failure, ImageSource, Message, ModelReply, ModelRequest, OutputFormat, Role, Sampling, StopReason,
    Thinking, ToolChoice, ToolSchema, Usage, WireFormat,
};
use serde_json::{Map, Value, json};

use crate::output::decode_typed;
use crate::served::several;
use crate::thinking::effort_named;
use crate::tools::{signature_of, signed_by_gemini};
use crate::{documents, images, numbers, served};

use super::reply::{WireMessage, decode_arguments};
use super::request::encode_arguments;
use super::{ERROR_PREFIX, details};

/// Fields of a request that have a place in ours, or are the server's own affair. The others are kept as they stand.
const KNOWN: [&str; 18] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "response_format",
    "reasoning_effort",
    "stream",
    "stream_options",
    "n",
    "functions",
    "function_call",
];

/// Reads a request. The error says what is missing, for a 400.
pub fn decode_request(body: &Value) -> Result<ModelRequest, String> {
    let messages = body.get("messages").and_then(Value::as_array).ok_or("`messages` is missing or not a list")?;
    if numbers::positive(body.get("n"), "n")?.is_some_and(|choices| choices > 1) {
        return Err("`n` is above 1; one answer is given to each request".to_owned());
    }
    if body.get("functions").is_some_and(|functions| !functions.is_null()) {
        return Err("`functions` is no longer part of the format; give `tools`".to_owned());
    }
    let mut decoded: Vec<Message> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        decode_message(message, &mut decoded).map_err(|error| format!("messages[{at}]: {error}"))?;
    }
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten().enumerate();
    let tools: Vec<ToolSchema> =
        tools.map(|(at, tool)| decode_tool(tool).map_err(|error| format!("tools[{at}]: {error}"))).collect::<Result<_, _>>()?;
    let (tool_choice, tools) = decode_choice(body.get("tool_choice"), tools)?;
    let limit = |field: &str| numbers::positive(body.get(field), field);
    let (newer, older) = (limit("max_completion_tokens")?, limit("max_tokens")?);
    let number = |field: &str| numbers::number(body.get(field), field);
    let extra: Map<String, Value> = body
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(field, _)| !KNOWN.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    Ok(ModelRequest {
        model: body.get("model").and_then(Value::as_str).map(str::to_owned),
        messages: decoded,
        tools,
        tool_choice,
        parallel_tools: body.get("parallel_tool_calls").and_then(Value::as_bool),
        max_tokens: newer.or(older).unwrap_or(0),
        sampling: Sampling {
            temperature: number("temperature")?,
            top_p: number("top_p")?,
            top_k: numbers::limit(body.get("top_k"), "top_k")?,
        },
        stop: decode_stop_texts(body.get("stop"))?,
        output: decode_output(body.get("response_format"))?,
        thinking: decode_thinking(body.get("reasoning_effort"))?,
        extra: Extra::of(WireFormat::OpenaiChat, extra),
        ..ModelRequest::default()
    })
}

/// A request for several answers as one for a single one, and how many they are.
pub(crate) fn within(body: &Value) -> Option<(Value, Extent)> {
    let answers = several(body.get("n"))?;
    let mut body = body.clone();
    body["n"] = Value::Null;
    Some((body, Extent { answers, ..Extent::default() }))
}

fn decode_stop_texts(stop: Option<&Value>) -> Result<Vec<String>, String> {
    match stop {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(list) => serde_json::from_value(list.clone()).map_err(|_| "`stop` is neither a text nor a list of texts".to_owned()),
    }
}

fn decode_output(said: Option<&Value>) -> Result<OutputFormat, String> {
    match said.filter(|said| !said.is_null()) {
        None => Ok(OutputFormat::Text),
        Some(said) => decode_typed(said, "response_format", |said| &said["json_schema"]),
    }
}

fn decode_thinking(effort: Option<&Value>) -> Result<Thinking, String> {
    match effort {
        None | Some(Value::Null) => Ok(Thinking::Default),
        Some(Value::String(word)) if word == "none" => Ok(Thinking::Off),
        Some(word) => match word.as_str().and_then(effort_named) {
            Some(effort) => Ok(Thinking::Effort(effort)),
            None => Err(format!("`reasoning_effort` {word} is not known; it is none, minimal, low, medium, high, xhigh or max")),
        },
    }
}

/// A function, or a tool of the provider's own, which is kept as it stands.
fn decode_tool(tool: &Value) -> Result<ToolSchema, String> {
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or("function");
    if kind != "function" {
        let fields = tool.as_object().cloned().unwrap_or_default();
        let name = tool.pointer(&format!("/{kind}/name")).and_then(Value::as_str).unwrap_or(kind).to_owned();
        let extra = Extra::of(WireFormat::OpenaiChat, fields);
        return Ok(ToolSchema { name, description: String::new(), parameters: Value::Null, extra });
    }
    let mut function = tool.get("function").and_then(Value::as_object).cloned().ok_or("`function` is missing")?;
    let Some(Value::String(name)) = function.remove("name") else { return Err("`function.name` is missing".to_owned()) };
    let description = match function.remove("description") {
        Some(Value::String(description)) => description,
        _ => String::new(),
    };
    // A function without parameters may leave them out.
    let parameters = match function.remove("parameters") {
        Some(Value::Object(schema)) => Value::Object(schema),
        Some(Value::Null) | None => json!({"type": "object", "properties": {}}),
        Some(_) => return Err("`function.parameters` is not a JSON Schema".to_owned()),
    };
    Ok(ToolSchema { name, description, parameters, extra: Extra::of(WireFormat::OpenaiChat, function) })
}

/// The choice, and the tools that it leaves: no other format can be told that only some of them may be called.
fn decode_choice(choice: Option<&Value>, tools: Vec<ToolSchema>) -> Result<(ToolChoice, Vec<ToolSchema>), String> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok((ToolChoice::Auto, tools)) };
    if let Some(said) = choice.as_str() {
        return Ok((choice_named(said, "tool_choice")?, tools));
    }
    if choice.get("type").is_none_or(|kind| kind != "allowed_tools") {
        let name = name_of(choice).ok_or("`tool_choice` names no tool")?;
        return Ok((ToolChoice::Named(name.to_owned()), tools));
    }
    let allowed = choice.get("allowed_tools").ok_or("`tool_choice.allowed_tools` is missing")?;
    let names = allowed.get("tools").and_then(Value::as_array).ok_or("`tool_choice.allowed_tools.tools` is missing")?;
    let names: Vec<&str> = names.iter().filter_map(name_of).collect();
    let left: Vec<ToolSchema> = tools.into_iter().filter(|tool| names.contains(&tool.name.as_str())).collect();
    if left.is_empty() {
        return Err("`tool_choice` allows no tool that is given".to_owned());
    }
    let mode = allowed.get("mode").and_then(Value::as_str).unwrap_or("auto");
    Ok((choice_named(mode, "tool_choice.allowed_tools.mode")?, left))
}

fn choice_named(word: &str, at: &str) -> Result<ToolChoice, String> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "required" => Ok(ToolChoice::Any),
        "none" => Ok(ToolChoice::None),
        other => Err(format!("`{at}` {other:?} is not known; it is auto, required or none")),
    }
}

/// The name of a tool stands beside its kind, under that.
fn name_of(tool: &Value) -> Option<&str> {
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or("function");
    tool.get(kind)?.get("name")?.as_str()
}

/// Tool messages in a row, and what the user says after them, are one message of ours.
fn decode_message(message: &Value, decoded: &mut Vec<Message>) -> Result<(), String> {
    let role = message.get("role").and_then(Value::as_str).ok_or("`role` is missing")?;
    let content = message.get("content");
    match role {
        "system" | "developer" => match decode_result(content)? {
            (text, images) if images.is_empty() => decoded.push(Message::text(Role::System, text)),
            _ => return Err("only texts can stand here".to_owned()),
        },
        "user" => push_user(decoded, served::decode_parts(content, decode_part)?),
        "tool" => {
            let id = message.get("tool_call_id").and_then(Value::as_str).ok_or("`tool_call_id` is missing")?.to_owned();
            let (text, images) = decode_result(content)?;
            let (content, is_error) = match text.strip_prefix(ERROR_PREFIX) {
                Some(rest) => (rest.to_owned(), true),
                None => (text, false),
            };
            push_user(decoded, vec![Block::ToolResult { id, content, images, is_error, extra: None }]);
        }
        "assistant" => decoded.push(Message { role: Role::Assistant, blocks: decode_assistant(message)? }),
        other => return Err(format!("`role` {other:?} is not known")),
    }
    Ok(())
}

fn push_user(decoded: &mut Vec<Message>, blocks: Vec<Block>) {
    match decoded.last_mut().filter(|last| last.role == Role::User && ends_in_result(last)) {
        Some(last) => last.blocks.extend(blocks),
        None => decoded.push(Message { role: Role::User, blocks }),
    }
}

/// A text, or the texts and pictures of a list of parts.
fn decode_result(content: Option<&Value>) -> Result<(String, Vec<ImageSource>), String> {
    let (mut texts, mut pictures) = (String::new(), Vec::new());
    let part = |part: &Value| match part.get("type") {
        // Some leave it out where there is only one kind.
        None => Ok(Block::text(part.get("text").and_then(Value::as_str).ok_or("`type` is missing")?)),
        Some(_) => decode_part(part),
    };
    for block in served::decode_parts(content, part)? {
        match block {
            Block::Text { text, .. } => texts.push_str(&text),
            Block::Image { image, .. } => pictures.push(image),
            _ => return Err("only texts and images can stand here".to_owned()),
        }
    }
    Ok((texts, pictures))
}

fn decode_part(part: &Value) -> Result<Block, String> {
    let mut fields = part.as_object().cloned().ok_or("a part is an object")?;
    match fields.get("type").and_then(Value::as_str) {
        Some("text") => {
            fields.remove("type");
            match fields.remove("text") {
                Some(Value::String(text)) => Ok(Block::Text { text, extra: Extra::of(WireFormat::OpenaiChat, fields) }),
                _ => Err("`text` is missing".to_owned()),
            }
        }
        Some("image_url") => {
            let mut image = match fields.remove("image_url") {
                Some(Value::Object(image)) => image,
                Some(Value::String(url)) => [("url".to_owned(), Value::String(url))].into_iter().collect(),
                _ => return Err("`image_url` is missing".to_owned()),
            };
            let Some(Value::String(url)) = image.remove("url") else { return Err("`image_url.url` is missing".to_owned()) };
            Ok(Block::Image { image: images::from_url(&url)?, extra: Extra::of(WireFormat::OpenaiChat, image) })
        }
        Some("file") => {
            let mut file = fields.remove("file").and_then(|file| file.as_object().cloned()).ok_or("`file` is missing")?;
            let Some((name, data)) = documents::take_file(&mut file) else {
                // At the provider, or of another kind.
                return Ok(Block::Unknown { format: WireFormat::OpenaiChat, block: part.clone() });
            };
            fields.remove("type");
            if !file.is_empty() {
                fields.insert("file".to_owned(), Value::Object(file));
            }
            let extra = Extra::of(WireFormat::OpenaiChat, fields);
            Ok(Block::Document { name, media_type: documents::PDF.to_owned(), data, extra })
        }
        Some(_) => Ok(Block::Unknown { format: WireFormat::OpenaiChat, block: part.clone() }),
        None => Err("`type` is missing".to_owned()),
    }
}

fn ends_in_result(message: &Message) -> bool {
    matches!(message.blocks.last(), Some(Block::ToolResult { .. }))
}

fn decode_assistant(message: &Value) -> Result<Vec<Block>, String> {
    let wire: WireMessage = serde_json::from_value(message.clone()).map_err(|error| error.to_string())?;
    let mut blocks = Vec::new();
    let thoughts = [("reasoning_content", wire.reasoning_content), ("reasoning", wire.reasoning)];
    let mut thoughts = thoughts.into_iter().filter_map(|(field, text)| Some((field, text?)));
    let first = thoughts.next();
    let kept = wire.reasoning_details.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    blocks.extend(details::decode(kept, first));
    blocks.extend(thoughts.filter(|_| kept.is_empty()).flat_map(|thought| details::decode(&[], Some(thought))));
    if let Some(content) = wire.content {
        blocks.push(Block::Text { text: content.into_text(), extra: None });
    }
    for call in wire.tool_calls.into_iter().flatten() {
        let function = call.function.unwrap_or_default();
        let arguments = match function.arguments {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        blocks.push(Block::ToolUse {
            id: call.id.unwrap_or_default(),
            name: function.name.unwrap_or_default(),
            input: decode_arguments(arguments),
            extra: call.extra_content.as_ref().and_then(signed_by_gemini),
        });
    }
    Ok(blocks)
}

/// A whole answer. `id` names it; `created` is in seconds since 1970.
pub fn encode_reply(reply: &ModelReply, id: &str, created: i64) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    let mut text: Option<String> = None;
    let (mut calls, mut thoughts) = (Vec::new(), Vec::new());
    for block in &reply.blocks {
        match block {
            Block::Text { text: more, .. } => text.get_or_insert_default().push_str(more),
            Block::Thinking { text, extra } => {
                if !text.is_empty() {
                    message.insert("reasoning_content".to_owned(), json!(text));
                }
                thoughts.extend(details::for_client(text, extra));
            }
            Block::ToolUse { id, name, input, extra } => {
                let mut call = encode_call(calls.len(), id, name, &encode_arguments(input));
                if let Some(signature) = signature_of(extra) {
                    call["extra_content"] = signature;
                }
                calls.push(call);
            }
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
        }
    }
    message.insert("content".to_owned(), json!(text));
    if !thoughts.is_empty() {
        message.insert("reasoning_details".to_owned(), Value::Array(thoughts));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    let choice = json!({"index": 0, "message": message, "finish_reason": finish(&reply.stop)});
    let usage = encode_usage(&reply.usage);
    json!({"id": id, "object": "chat.completion", "created": created, "model": reply.model, "choices": [choice], "usage": usage})
}

/// A refusal. `status` is the response's.
pub fn encode_error(status: u16, failure: &Failure) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    // The word that clients of this format look for.
    let code = if failure.code == Code::ContextOverflow { "context_length_exceeded" } else { failure.code.as_str() };
    json!({"error": {"message": served::sentence(failure), "type": kind, "param": null, "code": code}})
}

pub(super) fn encode_call(index: usize, id: &str, name: &str, arguments: &str) -> Value {
    json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

pub(super) fn finish(stop: &StopReason) -> &str {
    match stop {
        StopReason::EndTurn | StopReason::StopSequence(_) | StopReason::Pause => "stop",
        StopReason::ToolUse => "tool_calls",
        StopReason::MaxTokens | StopReason::ContextFull => "length",
        StopReason::Refusal => "content_filter",
        StopReason::Other(other) => other,
    }
}

pub(super) fn encode_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens(),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
    })
}
