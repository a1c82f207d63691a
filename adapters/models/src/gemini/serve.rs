//! The same format from a server's side.

use std::collections::VecDeque;

use helix_ports::Extent;
use helix_protocol::{
    Block, Extra, Failure, Message, ModelReply, ModelRequest, OutputFormat, Role, Sampling, StopReason, Thinking, ToolChoice,
    ToolSchema, Usage, WireFormat,
};
use serde_json::{Map, Value, json};

use super::parts::{self, THOUGHT_SIGNATURE, Wanted, camel, camel_name};
use super::request::{JSON, of_model};
use super::schema;
use crate::numbers;
use crate::output::schema_alone;
use crate::sealed;
use crate::served::{self, several};
use crate::thinking::effort_named;

const FORMAT: WireFormat = WireFormat::Gemini;

/// Reads a request to `model`, which stands in the path; to be answered, or to be counted. The error says
/// what is missing, for a 400.
pub fn decode_request(body: &Value, model: &str) -> Result<ModelRequest, String> {
    let inner = body.get("generateContentRequest").or_else(|| body.get("generate_content_request")).unwrap_or(body);
    let mut body: Map<String, Value> = inner.as_object().ok_or("the request is not an object")?.iter().map(camel).collect();
    body.remove("model");
    let mut messages = Vec::new();
    let mut ids = Ids::default();
    if let Some(system) = body.remove("systemInstruction").filter(|system| !system.is_null()) {
        let blocks = decode_parts(&system, &mut ids).map_err(|error| format!("systemInstruction: {error}"))?;
        messages.push(Message { role: Role::System, blocks });
    }
    let contents = match body.remove("contents") {
        Some(Value::Array(contents)) => contents,
        Some(content @ Value::Object(_)) => vec![content],
        _ => return Err("`contents` is missing or not a list".to_owned()),
    };
    for (at, content) in contents.iter().enumerate() {
        let role = match content.get("role").and_then(Value::as_str) {
            Some("model") => Role::Assistant,
            Some("user" | "function" | "") | None => Role::User,
            Some(other) => return Err(format!("contents[{at}]: `role` {other:?} is not known; it is user or model")),
        };
        ids.message = at;
        let blocks = decode_parts(content, &mut ids).map_err(|error| format!("contents[{at}]: {error}"))?;
        messages.push(Message { role, blocks });
    }
    let tools = decode_tools(body.remove("tools"))?;
    let tool_choice = take_choice(&mut body)?;
    let mut generation = match body.remove("generationConfig") {
        Some(Value::Object(fields)) => fields.iter().map(camel).collect(),
        _ => Map::new(),
    };
    let (thinking, show_thinking) = take_thinking(&mut generation)?;
    let output = take_output(&mut generation)?;
    let mut take = |field: &str| generation.remove(field).filter(|value| !value.is_null()).map(unquoted);
    let max_tokens = numbers::positive(take("maxOutputTokens").as_ref(), "maxOutputTokens")?.unwrap_or(0);
    let sampling = Sampling {
        temperature: numbers::number(take("temperature").as_ref(), "temperature")?,
        top_p: numbers::number(take("topP").as_ref(), "topP")?,
        top_k: numbers::limit(take("topK").as_ref(), "topK")?,
    };
    let stop = match take("stopSequences") {
        Some(stop) => serde_json::from_value(stop).map_err(|_| "`stopSequences` is not a list of texts")?,
        None => Vec::new(),
    };
    if numbers::positive(take("candidateCount").as_ref(), "candidateCount")?.is_some_and(|count| count > 1) {
        return Err("`candidateCount` is above 1; one answer is given to each request".to_owned());
    }
    if !generation.is_empty() {
        body.insert("generationConfig".to_owned(), Value::Object(generation));
    }
    let extra = Extra::of(FORMAT, body);
    let request = ModelRequest {
        messages,
        tools,
        tool_choice,
        max_tokens,
        sampling,
        stop,
        output,
        thinking,
        show_thinking,
        extra,
        ..ModelRequest::default()
    };
    Ok(of_model(request, model))
}

/// A request for several answers as one for a single one, and how many they are: the most that it says, in whatever spelling.
pub(crate) fn within(body: &Value) -> Option<(Value, Extent)> {
    let fields = |value: &Value, name: &str| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(field, _)| field).filter(|field| camel_name(field) == name).cloned().collect()
    };
    let counts = |config: String| fields(&body[&config], "candidateCount").into_iter().map(move |count| (config.clone(), count));
    let said: Vec<(String, String)> = fields(body, "generationConfig").into_iter().flat_map(counts).collect();
    let answers = said.iter().filter_map(|(config, count)| several(body[config].get(count))).max()?;
    let mut body = body.clone();
    said.iter().for_each(|(config, count)| body[config][count] = Value::Null);
    Some((body, Extent { answers, ..Extent::default() }))
}

/// JSON of this format may have a number as a text.
fn unquoted(value: Value) -> Value {
    let number = value.as_str().and_then(|text| text.parse::<serde_json::Number>().ok());
    number.map_or(value, Value::Number)
}

/// Makes ids for calls that have none, and finds the call that a result answers: the first of its tool that was not answered yet.
#[derive(Debug, Default)]
struct Ids {
    message: usize,
    made: usize,
    open: VecDeque<(String, String)>,
}

impl Ids {
    fn of(&mut self, wanted: Wanted<'_>) -> String {
        match wanted {
            Wanted::Call { .. } => {
                self.made += 1;
                format!("call_{}_{}", self.message, self.made)
            }
            Wanted::Answered { name } => {
                let at = self.open.iter().position(|(open, _)| open == name);
                at.and_then(|at| self.open.remove(at)).map_or_else(|| name.to_owned(), |(_, id)| id)
            }
        }
    }
}

fn decode_parts(content: &Value, ids: &mut Ids) -> Result<Vec<Block>, String> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Block::text(text)]);
    }
    let parts = match content.get("parts") {
        Some(Value::Array(parts)) => parts.as_slice(),
        Some(part @ Value::Object(_)) => std::slice::from_ref(part),
        _ => return Err("`parts` is missing or not a list".to_owned()),
    };
    let mut blocks = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().enumerate() {
        let block = parts::decode(part, &mut |wanted| ids.of(wanted)).map_err(|error| format!("parts[{at}]: {error}"))?;
        match &block {
            Block::ToolUse { id, name, .. } => ids.open.push_back((name.clone(), id.clone())),
            Block::ToolResult { id, .. } => ids.open.retain(|(_, open)| open != id),
            _ => {}
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// The functions, and the provider's own tools, which are kept as they stand.
fn decode_tools(tools: Option<Value>) -> Result<Vec<ToolSchema>, String> {
    let mut decoded = Vec::new();
    let tools = tools.as_ref().and_then(Value::as_array).into_iter().flatten().enumerate();
    for (at, tool) in tools {
        let tool: Map<String, Value> = tool.as_object().ok_or("a tool is an object")?.iter().map(camel).collect();
        for (field, value) in tool.into_iter().filter(|(_, value)| !value.is_null()) {
            if field != "functionDeclarations" {
                let extra = Extra::field(FORMAT, &field, value);
                decoded.push(ToolSchema { name: field, description: String::new(), parameters: Value::Null, extra });
                continue;
            }
            for declared in value.as_array().into_iter().flatten() {
                decoded.push(decode_function(declared).map_err(|error| format!("tools[{at}]: {error}"))?);
            }
        }
    }
    Ok(decoded)
}

fn decode_function(declared: &Value) -> Result<ToolSchema, String> {
    let mut fields: Map<String, Value> = declared.as_object().ok_or("a function is an object")?.iter().map(camel).collect();
    let Some(Value::String(name)) = fields.remove("name") else { return Err("`name` of a function is missing".to_owned()) };
    let description = match fields.remove("description") {
        Some(Value::String(description)) => description,
        _ => String::new(),
    };
    let reduced = fields.remove("parameters");
    let parameters = match (fields.get_mut("parametersJsonSchema"), reduced) {
        // Only that it was written so is kept beside it.
        (Some(whole), _) => whole.take(),
        (None, Some(schema @ Value::Object(_))) => schema::to_json_schema(schema),
        (None, _) => json!({"type": "object", "properties": {}}),
    };
    Ok(ToolSchema { name, description, parameters, extra: Extra::of(FORMAT, fields) })
}

/// Takes the choice of tools out of the rest. What ours cannot say stays there and goes back as it stands.
fn take_choice(body: &mut Map<String, Value>) -> Result<ToolChoice, String> {
    let Some(Value::Object(config)) = body.get("toolConfig") else { return Ok(ToolChoice::Auto) };
    let config: Map<String, Value> = config.iter().map(camel).collect();
    let Some(Value::Object(calling)) = config.get("functionCallingConfig") else { return Ok(ToolChoice::Auto) };
    let calling: Map<String, Value> = calling.iter().map(camel).collect();
    let names: Vec<&str> =
        calling.get("allowedFunctionNames").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let (choice, is_whole) = match (calling.get("mode").and_then(Value::as_str), names.as_slice()) {
        (None | Some("AUTO" | "MODE_UNSPECIFIED"), []) => (ToolChoice::Auto, true),
        (Some("NONE"), _) => (ToolChoice::None, true),
        (Some("ANY"), []) => (ToolChoice::Any, true),
        (Some("ANY"), [name]) => (ToolChoice::Named((*name).to_owned()), true),
        (Some("ANY"), _) => (ToolChoice::Any, false),
        (None | Some("AUTO" | "VALIDATED" | "MODE_UNSPECIFIED"), _) => (ToolChoice::Auto, false),
        (Some(mode), _) => {
            return Err(format!("the function calling mode {mode} is not known; it is AUTO, ANY, NONE or VALIDATED"));
        }
    };
    if is_whole && config.len() == 1 {
        body.remove("toolConfig");
    }
    Ok(choice)
}

/// Takes what the text shall be out of the rest.
fn take_output(generation: &mut Map<String, Value>) -> Result<OutputFormat, String> {
    let mut take = |field: &str| generation.remove(field).filter(|value| !value.is_null());
    let kind = take("responseMimeType");
    let schema = take("responseJsonSchema").or_else(|| take("responseSchema").map(schema::to_json_schema));
    match (kind.as_ref().and_then(Value::as_str), schema) {
        (Some(JSON), None) => Ok(OutputFormat::JsonObject),
        (Some(JSON), Some(schema @ Value::Object(_))) => Ok(schema_alone(&schema)),
        (Some(JSON), Some(_)) => Err("the schema of the answer is not an object".to_owned()),
        (None | Some("" | "text/plain"), None) => Ok(OutputFormat::Text),
        (None | Some("" | "text/plain"), Some(_)) => Err(format!("a schema of the answer needs the `responseMimeType` {JSON}")),
        (Some(other), _) => Err(format!(
            "`responseMimeType` {other:?} has no counterpart in the format of the model that is asked; it is {JSON} there"
        )),
    }
}

fn take_thinking(generation: &mut Map<String, Value>) -> Result<(Thinking, bool), String> {
    let Some(Value::Object(config)) = generation.remove("thinkingConfig") else { return Ok((Thinking::Default, false)) };
    let config: Map<String, Value> = config.iter().map(camel).collect();
    let shown = config.get("includeThoughts").and_then(Value::as_bool).unwrap_or(false);
    let budget = config.get("thinkingBudget").cloned().map(unquoted);
    let budget = numbers::whole(budget.as_ref(), "thinkingBudget")?;
    let thinking = match (config.get("thinkingLevel").and_then(Value::as_str), budget) {
        (Some("THINKING_LEVEL_UNSPECIFIED"), _) | (None, None) => Thinking::Default,
        (Some(level), _) => Thinking::Effort(
            effort_named(level)
                .ok_or_else(|| format!("`thinkingLevel` {level} is not known; it is MINIMAL, LOW, MEDIUM or HIGH"))?,
        ),
        (None, Some(0)) => Thinking::Off,
        (None, Some(..0)) => Thinking::Adaptive,
        (None, Some(tokens)) => Thinking::Budget(u32::try_from(tokens).unwrap_or(u32::MAX)),
    };
    Ok((thinking, shown))
}

/// A whole answer. `id` names it; the format says no time.
pub fn encode_reply(reply: &ModelReply, id: &str, _created: i64) -> Value {
    let parts: Vec<Value> = reply.blocks.iter().flat_map(encode_part).collect();
    let mut answer = answer(&reply.model, id, parts);
    finish(&mut answer, reply);
    answer
}

/// A part for a client. A call carries its id, which a result then names, and another provider's thought what that wants back.
pub(super) fn encode_part(block: &Block) -> Vec<Value> {
    if let (Block::Thinking { text, .. }, Some(packed)) = (block, sealed::pack_base64(block, FORMAT)) {
        return vec![json!({"text": text, "thought": true, THOUGHT_SIGNATURE: packed})];
    }
    let mut encoded = parts::encode(block, &|_| None);
    if let Block::ToolUse { id, .. } = block {
        encoded.iter_mut().for_each(|part| part["functionCall"]["id"] = json!(id));
    }
    encoded
}

/// An answer that has not finished.
pub(super) fn answer(model: &str, id: &str, parts: Vec<Value>) -> Value {
    json!({
        "candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}],
        "modelVersion": model,
        "responseId": id,
    })
}

/// Says why it finished and what it used.
pub(super) fn finish(answer: &mut Value, reply: &ModelReply) {
    let is_word = |reason: &str| !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let reason = match &reply.stop {
        StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence(_) | StopReason::Pause => "STOP",
        StopReason::MaxTokens | StopReason::ContextFull => "MAX_TOKENS",
        StopReason::Refusal => "SAFETY",
        StopReason::Other(reason) if is_word(reason) => reason,
        StopReason::Other(_) => "OTHER",
    };
    answer["candidates"][0]["finishReason"] = json!(reason);
    answer["usageMetadata"] = encode_usage(&reply.usage);
}

fn encode_usage(usage: &Usage) -> Value {
    json!({
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
        "candidatesTokenCount": usage.output_tokens.saturating_sub(usage.thinking_tokens),
        "thoughtsTokenCount": usage.thinking_tokens,
        "totalTokenCount": usage.total_tokens(),
    })
}

/// A refusal. `status` is the response's.
pub fn encode_error(status: u16, failure: &Failure) -> Value {
    let word = match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        400..=498 => "INVALID_ARGUMENT",
        501 => "UNIMPLEMENTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": served::sentence(failure), "status": word}})
}
