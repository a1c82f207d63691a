//! The same format from a server's side.

use helix_protocol::{
    Block, Extra, Message, ModelReply, ModelRequest, Role, Sampling, StopReason, ToolChoice, ToolSchema, Usage, WireFormat,
};
use serde_json::{Map, Value, json};

use super::ERROR_PREFIX;
use super::reply::{WireContent, WireMessage, decode_arguments};
use super::request::encode_arguments;

/// Reads a request. The error says what is missing, for a 400.
pub fn decode_request(body: &Value) -> Result<ModelRequest, String> {
    let messages = body.get("messages").and_then(Value::as_array).ok_or("`messages` is missing or not a list")?;
    let mut decoded: Vec<Message> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        decode_message(message, &mut decoded).map_err(|error| format!("messages[{at}]: {error}"))?;
    }
    let tools: Vec<ToolSchema> = body
        .get("tools")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(at, tool)| {
            let function = tool.get("function").cloned().unwrap_or_default();
            serde_json::from_value(function).map_err(|error| format!("tools[{at}]: {error}"))
        })
        .collect::<Result<_, _>>()?;
    let limit = body.get("max_completion_tokens").or_else(|| body.get("max_tokens")).and_then(Value::as_u64);
    Ok(ModelRequest {
        model: body.get("model").and_then(Value::as_str).map(str::to_owned),
        messages: decoded,
        tools,
        tool_choice: decode_choice(body.get("tool_choice")),
        max_tokens: limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(0),
        sampling: Sampling { temperature: body.get("temperature").and_then(Value::as_f64), ..Sampling::default() },
        ..ModelRequest::default()
    })
}

fn decode_choice(choice: Option<&Value>) -> ToolChoice {
    match choice {
        Some(Value::String(word)) if word == "required" => ToolChoice::Any,
        Some(Value::String(word)) if word == "none" => ToolChoice::None,
        Some(Value::Object(object)) => object
            .get("function")
            .and_then(|function| function.get("name"))
            .and_then(Value::as_str)
            .map_or(ToolChoice::Auto, |name| ToolChoice::Named(name.to_owned())),
        _ => ToolChoice::Auto,
    }
}

/// Tool messages in a row, and the user's text after them, are one message of ours.
fn decode_message(message: &Value, decoded: &mut Vec<Message>) -> Result<(), String> {
    let role = message.get("role").and_then(Value::as_str).ok_or("`role` is missing")?;
    let content: Option<WireContent> = match message.get("content") {
        Some(content) => serde_json::from_value(content.clone()).map_err(|_| "`content` is neither text nor parts")?,
        None => None,
    };
    let text = content.map(WireContent::into_text);
    match role {
        "system" | "developer" => decoded.push(Message::text(Role::System, text.unwrap_or_default())),
        "user" => {
            let block = Block::Text { text: text.unwrap_or_default(), extra: None };
            match decoded.last_mut().filter(|last| last.role == Role::User && ends_in_result(last)) {
                Some(last) => last.blocks.push(block),
                None => decoded.push(Message { role: Role::User, blocks: vec![block] }),
            }
        }
        "tool" => {
            let id = message.get("tool_call_id").and_then(Value::as_str).ok_or("`tool_call_id` is missing")?.to_owned();
            let text = text.unwrap_or_default();
            let block = match text.strip_prefix(ERROR_PREFIX) {
                Some(rest) => Block::ToolResult { id, content: rest.to_owned(), images: Vec::new(), is_error: true, extra: None },
                None => Block::ToolResult { id, content: text, images: Vec::new(), is_error: false, extra: None },
            };
            match decoded.last_mut().filter(|last| last.role == Role::User && ends_in_result(last)) {
                Some(last) => last.blocks.push(block),
                None => decoded.push(Message { role: Role::User, blocks: vec![block] }),
            }
        }
        "assistant" => decoded.push(Message { role: Role::Assistant, blocks: decode_assistant(message)? }),
        other => return Err(format!("`role` {other:?} is not known")),
    }
    Ok(())
}

fn ends_in_result(message: &Message) -> bool {
    matches!(message.blocks.last(), Some(Block::ToolResult { .. }))
}

fn decode_assistant(message: &Value) -> Result<Vec<Block>, String> {
    let wire: WireMessage = serde_json::from_value(message.clone()).map_err(|error| error.to_string())?;
    let mut blocks = Vec::new();
    for (field, text) in [("reasoning_content", wire.reasoning_content), ("reasoning", wire.reasoning)] {
        if let Some(text) = text {
            blocks.push(Block::Thinking { text, extra: Extra::field(WireFormat::OpenaiChat, "field", json!(field)) });
        }
    }
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
            extra: None,
        });
    }
    Ok(blocks)
}

/// A whole answer. `id` names it; `created` is in seconds since 1970.
pub fn encode_reply(reply: &ModelReply, id: &str, created: i64) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    let mut text: Option<String> = None;
    let mut calls = Vec::new();
    for block in &reply.blocks {
        match block {
            Block::Text { text: more, .. } => text.get_or_insert_default().push_str(more),
            Block::Thinking { text, .. } => drop(message.insert("reasoning_content".to_owned(), json!(text))),
            Block::ToolUse { id, name, input, .. } => calls.push(encode_call(calls.len(), id, name, &encode_arguments(input))),
            Block::Image { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
        }
    }
    message.insert("content".to_owned(), json!(text));
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    let choice = json!({"index": 0, "message": message, "finish_reason": finish(&reply.stop)});
    let usage = encode_usage(&reply.usage);
    json!({"id": id, "object": "chat.completion", "created": created, "model": reply.model, "choices": [choice], "usage": usage})
}

/// The answer as the data of its events, `[DONE]` excluded. Texts and arguments are cut into pieces of `piece` characters.
pub fn encode_chunks(reply: &ModelReply, id: &str, created: i64, piece: usize) -> Vec<Value> {
    let chunk = |choices: Value, usage: Value| json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": reply.model, "choices": choices, "usage": usage});
    let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null);
    let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}))];
    let mut index = 0;
    for block in &reply.blocks {
        match block {
            Block::Text { text, .. } => chunks.extend(pieces(text, piece).map(|text| delta(json!({"content": text})))),
            Block::Thinking { text, .. } => {
                chunks.extend(pieces(text, piece).map(|text| delta(json!({"reasoning_content": text}))));
            }
            Block::ToolUse { id, name, input, .. } => {
                chunks.push(delta(json!({"tool_calls": [encode_call(index, id, name, "")]})));
                let arguments = encode_arguments(input);
                chunks.extend(
                    pieces(&arguments, piece)
                        .map(|text| delta(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}))),
                );
                index += 1;
            }
            Block::Image { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
        }
    }
    chunks.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish(&reply.stop)}]), Value::Null));
    chunks.push(chunk(json!([]), encode_usage(&reply.usage)));
    chunks
}

fn encode_call(index: usize, id: &str, name: &str, arguments: &str) -> Value {
    json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn finish(stop: &StopReason) -> &str {
    match stop {
        StopReason::EndTurn | StopReason::StopSequence(_) | StopReason::Pause => "stop",
        StopReason::ToolUse => "tool_calls",
        StopReason::MaxTokens | StopReason::ContextFull => "length",
        StopReason::Refusal => "content_filter",
        StopReason::Other(other) => other,
    }
}

fn encode_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens(),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
    })
}

/// `text` in pieces of `size` characters, none of them empty.
fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(size.max(1)).map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}
