//! The same format from a server's side.

use helix_protocol::{
    Code, Effort, Extra, Failure, Message, ModelReply, ModelRequest, OutputFormat, Role, Sampling, StopReason, Thinking,
    ToolChoice, ToolSchema, Usage, WireFormat,
};
use serde_json::{Map, Value, json};

use super::blocks::{self, Reader};
use crate::output::schema_alone;
use crate::thinking::effort_named;
use crate::{numbers, served};

const FORMAT: WireFormat = WireFormat::Anthropic;

/// Fields of a request that have a place in ours, or are the server's own affair. The others are kept as they stand.
const KNOWN: [&str; 11] = [
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "max_tokens",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "stream",
];

/// Reads a request, to be answered or to be counted. The error says what is missing, for a 400.
pub fn decode_request(body: &Value) -> Result<ModelRequest, String> {
    let listed = body.get("messages").and_then(Value::as_array).ok_or("`messages` is missing or not a list")?;
    let mut messages = Vec::with_capacity(listed.len() + 1);
    if let Some(system) = body.get("system").filter(|system| !system.is_null()) {
        let blocks = decode_content(system).map_err(|error| format!("system: {error}"))?;
        messages.push(Message { role: Role::System, blocks });
    }
    for (at, message) in listed.iter().enumerate() {
        messages.push(decode_message(message).map_err(|error| format!("messages[{at}]: {error}"))?);
    }
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten().enumerate();
    let tools = tools.map(|(at, tool)| decode_tool(tool).map_err(|error| format!("tools[{at}]: {error}")));
    let tools: Vec<ToolSchema> = tools.collect::<Result<_, _>>()?;
    let number = |field: &str| numbers::number(body.get(field), field);
    let stop = match body.get("stop_sequences").filter(|stop| !stop.is_null()) {
        None => Vec::new(),
        Some(stop) => serde_json::from_value(stop.clone()).map_err(|_| "`stop_sequences` is not a list of texts")?,
    };
    let choice = body.get("tool_choice");
    let mut extra: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
    extra.retain(|field, _| !KNOWN.contains(&field.as_str()));
    let (thinking, show_thinking) = take_thinking(&mut extra)?;
    let output = take_output(&mut extra)?;
    let session = body.pointer("/metadata/user_id").and_then(Value::as_str).map(str::to_owned);
    Ok(ModelRequest {
        model: body.get("model").and_then(Value::as_str).map(str::to_owned),
        messages,
        tools,
        tool_choice: decode_choice(choice)?,
        parallel_tools: choice.and_then(|choice| choice.get("disable_parallel_tool_use")?.as_bool()).map(|disabled| !disabled),
        max_tokens: numbers::positive(body.get("max_tokens"), "max_tokens")?.unwrap_or(0),
        sampling: Sampling {
            temperature: number("temperature")?,
            top_p: number("top_p")?,
            top_k: numbers::limit(body.get("top_k"), "top_k")?,
        },
        stop,
        output,
        thinking,
        show_thinking,
        session,
        extra: Extra::of(FORMAT, extra),
        ..ModelRequest::default()
    })
}

fn decode_message(message: &Value) -> Result<Message, String> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        Some(other) => return Err(format!("`role` {other:?} is not known; it is user or assistant")),
        None => return Err("`role` is missing".to_owned()),
    };
    let content = message.get("content").ok_or("`content` is missing")?;
    Ok(Message { role, blocks: decode_content(content)? })
}

fn decode_content(content: &Value) -> Result<Vec<helix_protocol::Block>, String> {
    match content {
        Value::String(text) => Ok(vec![helix_protocol::Block::text(text)]),
        Value::Array(blocks) => blocks
            .iter()
            .enumerate()
            .map(|(at, block)| blocks::decode(block).map_err(|error| format!("content[{at}]: {error}")))
            .collect(),
        _ => Err("`content` is neither text nor a list of blocks".to_owned()),
    }
}

/// A tool of the client's, or one of the provider's own, which is kept as it stands.
fn decode_tool(tool: &Value) -> Result<ToolSchema, String> {
    let mut fields = tool.as_object().cloned().ok_or("a tool is an object")?;
    let Some(Value::String(name)) = fields.remove("name") else { return Err("`name` is missing".to_owned()) };
    let own = matches!(fields.get("type").and_then(Value::as_str), None | Some("custom"));
    if !own {
        return Ok(ToolSchema { name, description: String::new(), parameters: Value::Null, extra: Extra::of(FORMAT, fields) });
    }
    let description = match fields.remove("description") {
        Some(Value::String(description)) => description,
        _ => String::new(),
    };
    match fields.remove("input_schema") {
        Some(parameters @ Value::Object(_)) => Ok(ToolSchema { name, description, parameters, extra: Extra::of(FORMAT, fields) }),
        _ => Err("`input_schema` is missing or not a JSON Schema".to_owned()),
    }
}

fn decode_choice(choice: Option<&Value>) -> Result<ToolChoice, String> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(ToolChoice::Auto) };
    match choice.get("type").and_then(Value::as_str) {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("any") => Ok(ToolChoice::Any),
        Some("none") => Ok(ToolChoice::None),
        Some("tool") => match choice.get("name").and_then(Value::as_str) {
            Some(name) => Ok(ToolChoice::Named(name.to_owned())),
            None => Err("`tool_choice.name` is missing".to_owned()),
        },
        _ => Err("`tool_choice.type` is auto, any, tool or none".to_owned()),
    }
}

/// Takes what is said of thinking out of the rest, and whether it is to be shown. Kinds that this build does not know stay there.
fn take_thinking(extra: &mut Map<String, Value>) -> Result<(Thinking, bool), String> {
    let thinking = extra.get("thinking").cloned().unwrap_or_default();
    let display = thinking.get("display").and_then(Value::as_str);
    let (wanted, shown) = match thinking.get("type").and_then(Value::as_str) {
        Some("enabled") => {
            let budget = numbers::positive(thinking.get("budget_tokens"), "thinking.budget_tokens")?;
            let budget = budget.ok_or("`thinking.budget_tokens` is missing")?;
            (Thinking::Budget(budget), display != Some("omitted"))
        }
        Some("adaptive") => (Thinking::Adaptive, display == Some("summarized")),
        Some("disabled") => (Thinking::Off, false),
        _ => (Thinking::Default, false),
    };
    if wanted != Thinking::Default {
        extra.remove("thinking");
    }
    // Depth in words says more than that it thinks at all, and less than a budget.
    if !matches!(wanted, Thinking::Default | Thinking::Adaptive) {
        return Ok((wanted, shown));
    }
    match take_effort(extra)? {
        Some(effort) => Ok((Thinking::Effort(effort), shown)),
        None => Ok((wanted, shown)),
    }
}

/// Takes what the text shall be out of the rest, from where it stands or once stood.
fn take_output(extra: &mut Map<String, Value>) -> Result<OutputFormat, String> {
    let old = extra.remove("output_format");
    let config = extra.get_mut("output_config").and_then(Value::as_object_mut);
    let format = config.and_then(|config| config.remove("format")).or(old).filter(|format| !format.is_null());
    if extra.get("output_config").and_then(Value::as_object).is_some_and(Map::is_empty) {
        extra.remove("output_config");
    }
    let Some(format) = format else { return Ok(OutputFormat::Text) };
    match (format.get("type").and_then(Value::as_str), format.get("schema")) {
        (Some("json_schema"), Some(schema @ Value::Object(_))) => Ok(schema_alone(schema)),
        (Some("json_schema"), _) => Err("the `schema` of `output_config.format` is missing or not an object".to_owned()),
        _ => Err("`output_config.format` has the type json_schema or is left out".to_owned()),
    }
}

fn take_effort(extra: &mut Map<String, Value>) -> Result<Option<Effort>, String> {
    let Some(output) = extra.get_mut("output_config").and_then(Value::as_object_mut) else { return Ok(None) };
    let Some(word) = output.remove("effort").filter(|word| !word.is_null()) else { return Ok(None) };
    if output.is_empty() {
        extra.remove("output_config");
    }
    match word.as_str().and_then(effort_named) {
        Some(effort) => Ok(Some(effort)),
        None => Err(format!("`output_config.effort` {word} is not known; it is low, medium, high, xhigh or max")),
    }
}

/// A whole answer. `id` names it; the format says no time.
pub fn encode_reply(reply: &ModelReply, id: &str, _created: i64) -> Value {
    let content: Vec<Value> = reply.blocks.iter().filter_map(|block| blocks::encode(block, Reader::Client)).collect();
    let mut message = message(&reply.model, id, content, encode_usage(&reply.usage));
    let (reason, sequence) = encode_stop(&reply.stop);
    message["stop_reason"] = json!(reason);
    message["stop_sequence"] = json!(sequence);
    message
}

/// A message that has not stopped.
pub(super) fn message(model: &str, id: &str, content: Vec<Value>, usage: Value) -> Value {
    json!({
        "id": id, "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    })
}

/// The reason and the text that stopped it.
pub(super) fn encode_stop(stop: &StopReason) -> (&str, Option<&str>) {
    match stop {
        StopReason::EndTurn => ("end_turn", None),
        StopReason::ToolUse => ("tool_use", None),
        StopReason::MaxTokens => ("max_tokens", None),
        StopReason::StopSequence(text) => ("stop_sequence", Some(text)),
        StopReason::Refusal => ("refusal", None),
        StopReason::Pause => ("pause_turn", None),
        StopReason::ContextFull => ("model_context_window_exceeded", None),
        StopReason::Other(other) => (other, None),
    }
}

/// The counters: what is read excludes the cache here.
pub(super) fn encode_usage(usage: &Usage) -> Value {
    let input = usage.input_tokens.saturating_sub(usage.cached_tokens).saturating_sub(usage.cache_write_tokens);
    let mut encoded = json!({
        "input_tokens": input,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
    });
    if usage.thinking_tokens > 0 {
        encoded["output_tokens_details"] = json!({"thinking_tokens": usage.thinking_tokens});
    }
    encoded
}

/// A refusal. `status` is the response's.
pub fn encode_error(status: u16, failure: &Failure) -> Value {
    let kind = match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    let message = served::sentence(failure);
    // The words that clients of this format look for before they shorten a conversation.
    let message = if failure.code == Code::ContextOverflow { format!("prompt is too long: {message}") } else { message };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}
