//! The same format from a server's side: requests read, answers written.

use helix_protocol::{
    Block, Extra, Failure, ImageSource, Message, ModelDelta, ModelReply, ModelRequest, OutputFormat, Role, Sampling, StopReason,
    Thinking, ToolSchema, Usage, WireFormat,
};
use serde_json::{Map, Value, json};

use crate::chat::{ERROR_PREFIX, RAW_ARGUMENTS};
use crate::dates::instant;
use crate::numbers;
use crate::output::schema_alone;
use crate::sealed::{opened_id, signed_id};
use crate::served::{self, Sent, ServedEvent, ServedStream};
use crate::thinking::effort_named;

/// Fields of a request that have a place in ours, or are the server's own affair. The others are kept as they stand.
const KNOWN: [&str; 6] = ["model", "messages", "tools", "stream", "think", "format"];
/// The same of its `options`. `num_ctx` is one of them: each provider has the size that it counts with.
const KNOWN_OPTIONS: [&str; 6] = ["num_ctx", "num_predict", "temperature", "top_p", "top_k", "stop"];

/// Reads a request. The error says what is missing, for a 400.
pub fn decode_request(body: &Value) -> Result<ModelRequest, String> {
    let messages = body.get("messages").and_then(Value::as_array).ok_or("`messages` is missing or not a list")?;
    let mut reader = Reader::default();
    for (at, message) in messages.iter().enumerate() {
        reader.read(message).map_err(|error| format!("messages[{at}]: {error}"))?;
    }
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten().enumerate();
    let tools = tools.map(|(at, tool)| decode_tool(tool).map_err(|error| format!("tools[{at}]: {error}")));
    let none = Map::new();
    let options = body.get("options").and_then(Value::as_object).unwrap_or(&none);
    let number = |field: &str| numbers::number(options.get(field), &format!("options.{field}"));
    let limit = |field: &str| numbers::limit(options.get(field), &format!("options.{field}"));
    Ok(ModelRequest {
        model: body.get("model").and_then(Value::as_str).map(str::to_owned),
        messages: reader.messages,
        tools: tools.collect::<Result<_, _>>()?,
        // Where it is negative there is to be no limit.
        max_tokens: limit("num_predict")?.unwrap_or(0),
        sampling: Sampling { temperature: number("temperature")?, top_p: number("top_p")?, top_k: limit("top_k")? },
        stop: stop_texts(options.get("stop"))?,
        output: decode_output(body.get("format"))?,
        thinking: decode_thinking(body.get("think"))?,
        extra: Extra::of(WireFormat::Ollama, beside(body, options)),
        ..ModelRequest::default()
    })
}

/// What has no place in ours, options of that kind included.
fn beside(body: &Value, options: &Map<String, Value>) -> Map<String, Value> {
    let left = |fields: &Map<String, Value>, known: &[&str]| -> Map<String, Value> {
        fields
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let mut extra = left(body.as_object().unwrap_or(&Map::new()), &KNOWN);
    extra.remove("options");
    let options = left(options, &KNOWN_OPTIONS);
    if !options.is_empty() {
        extra.insert("options".to_owned(), Value::Object(options));
    }
    extra
}

fn stop_texts(stop: Option<&Value>) -> Result<Vec<String>, String> {
    match stop {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(list) => serde_json::from_value(list.clone()).map_err(|_| "`options.stop` is not a list of texts".to_owned()),
    }
}

fn decode_output(format: Option<&Value>) -> Result<OutputFormat, String> {
    match format {
        None | Some(Value::Null) => Ok(OutputFormat::Text),
        Some(Value::String(word)) if word.is_empty() => Ok(OutputFormat::Text),
        Some(Value::String(word)) if word == "json" => Ok(OutputFormat::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(schema_alone(schema)),
        Some(other) => Err(format!("`format` is {other}; it is json, or a JSON Schema")),
    }
}

fn decode_thinking(think: Option<&Value>) -> Result<Thinking, String> {
    match think {
        None | Some(Value::Null) => Ok(Thinking::Default),
        Some(Value::Bool(false)) => Ok(Thinking::Off),
        Some(Value::Bool(true)) => Ok(Thinking::Adaptive),
        Some(word) => match word.as_str().and_then(effort_named) {
            Some(effort) => Ok(Thinking::Effort(effort)),
            None => Err(format!("`think` is {word}; it is true, false, low, medium, high or max")),
        },
    }
}

fn decode_tool(tool: &Value) -> Result<ToolSchema, String> {
    let function = tool.get("function").ok_or("`function` is missing")?;
    let text = |field: &str| function.get(field).and_then(Value::as_str).map(str::to_owned);
    let parameters = function.get("parameters").filter(|schema| schema.is_object()).cloned();
    Ok(ToolSchema {
        name: text("name").filter(|name| !name.is_empty()).ok_or("`function.name` is missing")?,
        description: text("description").unwrap_or_default(),
        parameters: parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}})),
        extra: None,
    })
}

/// Reads messages in order: calls may have no id, and a result may name its tool alone.
#[derive(Default)]
struct Reader {
    messages: Vec<Message>,
    /// Calls whose result has not come: id and tool.
    open: Vec<(String, String)>,
    calls: usize,
}

impl Reader {
    fn read(&mut self, message: &Value) -> Result<(), String> {
        let role = message.get("role").and_then(Value::as_str).ok_or("`role` is missing")?;
        let content = match message.get("content") {
            None | Some(Value::Null) => "",
            Some(content) => content.as_str().ok_or("`content` is not a text")?,
        };
        match role {
            "system" => self.messages.push(Message::text(Role::System, content)),
            "user" => {
                let mut blocks = vec![Block::text(content)];
                blocks.extend(pictures(message)?.into_iter().map(|image| Block::Image { image, extra: None }));
                self.of_user(blocks);
            }
            "assistant" => {
                let blocks = self.said(message, content)?;
                self.messages.push(Message { role: Role::Assistant, blocks });
            }
            "tool" => {
                let result = self.result(message, content)?;
                self.of_user(vec![result]);
            }
            other => return Err(format!("`role` {other:?} is not known")),
        }
        Ok(())
    }

    /// Results in a row, and what the user says after them, are one message of ours.
    fn of_user(&mut self, blocks: Vec<Block>) {
        let ends_in_result = |message: &Message| matches!(message.blocks.last(), Some(Block::ToolResult { .. }));
        match self.messages.last_mut().filter(|last| last.role == Role::User && ends_in_result(last)) {
            Some(last) => last.blocks.extend(blocks),
            None => self.messages.push(Message { role: Role::User, blocks }),
        }
    }

    fn said(&mut self, message: &Value, content: &str) -> Result<Vec<Block>, String> {
        let mut blocks = Vec::new();
        if let Some(text) = message.get("thinking").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            let extra = Extra::field(WireFormat::Ollama, "field", json!("thinking"));
            blocks.push(Block::Thinking { text: text.to_owned(), extra });
        }
        if !content.is_empty() {
            blocks.push(Block::text(content));
        }
        self.open.clear();
        for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let text = |at: &str| call.pointer(at).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
            let name = text("/function/name").ok_or("a call has no `function.name`")?;
            let id = text("/id").unwrap_or_else(|| format!("call_{}", self.calls));
            let (id, extra) = opened_id(&id);
            let id = id.to_owned();
            self.calls += 1;
            let arguments = call.pointer("/function/arguments").cloned().unwrap_or_else(|| json!({}));
            let input = match arguments.get(RAW_ARGUMENTS).and_then(Value::as_str) {
                Some(raw) => json!(raw),
                None => arguments,
            };
            self.open.push((id.clone(), name.clone()));
            blocks.push(Block::ToolUse { id, name, input, extra });
        }
        Ok(blocks)
    }

    /// Of the open calls the one of its id, else the first of its tool, else the first.
    fn result(&mut self, message: &Value, content: &str) -> Result<Block, String> {
        let text = |field: &str| message.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let tool = text("tool_name").or_else(|| text("name"));
        let id = text("tool_call_id").map(|id| opened_id(id).0);
        let fits = |(open, name): &(String, String)| match (id, tool) {
            (Some(id), _) => open == id,
            (None, Some(tool)) => name == tool,
            (None, None) => true,
        };
        let at = self.open.iter().position(fits);
        let id = at.map(|at| self.open.remove(at).0).or_else(|| id.map(str::to_owned));
        let id = id.ok_or_else(|| format!("no call is open that a result of {:?} could be of", tool.unwrap_or_default()))?;
        let (content, is_error) = match content.strip_prefix(ERROR_PREFIX) {
            Some(rest) => (rest.to_owned(), true),
            None => (content.to_owned(), false),
        };
        Ok(Block::ToolResult { id, content, images: pictures(message)?, is_error, extra: None })
    }
}

/// Bare bytes: what kind of picture they are they say themselves.
fn pictures(message: &Value) -> Result<Vec<ImageSource>, String> {
    let picture = |(at, data): (usize, &Value)| {
        let data = data.as_str().ok_or_else(|| format!("images[{at}] is not base64"))?;
        // The first bytes of each kind, as base64 writes them.
        let kinds = [("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp")];
        let kind = kinds.iter().find(|(begin, _)| data.starts_with(begin));
        let (_, media_type) = kind.ok_or_else(|| format!("images[{at}] is neither PNG, JPEG, GIF nor WebP in base64"))?;
        Ok(ImageSource::Base64 { media_type: (*media_type).to_owned(), data: data.to_owned() })
    };
    message.get("images").and_then(Value::as_array).into_iter().flatten().enumerate().map(picture).collect()
}

/// A whole answer. `created` is in seconds since 1970.
pub fn encode_reply(reply: &ModelReply, _id: &str, created: i64) -> Value {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for block in &reply.blocks {
        match block {
            Block::Text { text: more, .. } => text.push_str(more),
            Block::Thinking { text: more, .. } => thinking.push_str(more),
            Block::ToolUse { id, name, input, extra } => calls.push(encode_call(&signed_id(id, extra), name, input)),
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
        }
    }
    let mut message = json!({"role": "assistant", "content": text});
    if !thinking.is_empty() {
        message["thinking"] = json!(thinking);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    let mut line = line(&reply.model, created, message);
    end(&mut line, &reply.stop, &reply.usage);
    line
}

fn encode_call(id: &str, name: &str, input: &Value) -> Value {
    let arguments = match input {
        Value::Object(_) => input.clone(),
        Value::String(raw) => json!({ RAW_ARGUMENTS: raw }),
        other => json!({ RAW_ARGUMENTS: other.to_string() }),
    };
    json!({"id": id, "function": {"name": name, "arguments": arguments}})
}

fn line(model: &str, created: i64, message: Value) -> Value {
    json!({"model": model, "created_at": instant(created), "message": message, "done": false})
}

/// Makes a line the last. The durations are there because clients count with them; the node has not measured them.
fn end(line: &mut Value, stop: &StopReason, usage: &Usage) {
    let reason = match stop {
        StopReason::MaxTokens | StopReason::ContextFull => "length",
        StopReason::Other(other) => other,
        _ => "stop",
    };
    let fields = json!({
        "done": true, "done_reason": reason, "total_duration": 0, "load_duration": 0, "prompt_eval_duration": 0, "eval_duration": 0,
        "prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens,
    });
    if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
}

/// A refusal, or what breaks an answer off.
pub fn encode_error(_status: u16, failure: &Failure) -> Value {
    json!({"error": served::sentence(failure)})
}

/// Writes one answer line by line. A call goes out whole, so its pieces are kept until the next piece is another's.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    model: String,
    created: i64,
    sent: Sent,
    call: Option<(u32, String, String, String)>,
}

impl StreamEncoder {
    /// A stream of an answer of `model`; `created` is in seconds since 1970.
    pub fn new(model: &str, created: i64) -> Self {
        Self { model: model.to_owned(), created, sent: Sent::default(), call: None }
    }

    fn said(&self, message: Value) -> ServedEvent {
        ServedEvent::unnamed(line(&self.model, self.created, message))
    }

    /// The call that was collected so far.
    fn collected(&mut self) -> Option<ServedEvent> {
        let (_, id, name, arguments) = self.call.take()?;
        let input = match serde_json::from_str::<Value>(&arguments) {
            Ok(input @ Value::Object(_)) => input,
            _ if arguments.trim().is_empty() => json!({}),
            _ => Value::String(arguments),
        };
        Some(self.said(json!({"role": "assistant", "content": "", "tool_calls": [encode_call(&id, &name, &input)]})))
    }
}

impl ServedStream for StreamEncoder {
    fn start(&mut self) -> Vec<ServedEvent> {
        Vec::new()
    }

    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent> {
        self.sent.note(delta);
        let mut lines = Vec::new();
        match delta {
            ModelDelta::ToolInput { index, text } => {
                if let Some((_, _, _, arguments)) = self.call.as_mut().filter(|(open, ..)| open == index) {
                    arguments.push_str(text);
                }
                return lines;
            }
            _ => lines.extend(self.collected()),
        }
        match delta {
            ModelDelta::Text { text } => lines.push(self.said(json!({"role": "assistant", "content": text}))),
            ModelDelta::Thinking { text } => {
                lines.push(self.said(json!({"role": "assistant", "content": "", "thinking": text})));
            }
            ModelDelta::ToolUse { index, id, name, extra } => {
                let id = signed_id(&served::id_of_call(id, *index), extra);
                self.call = Some((*index, id, name.clone(), String::new()));
            }
            // Signatures and blocks of other formats have no place here.
            ModelDelta::ToolInput { .. } | ModelDelta::Block { .. } => {}
        }
        lines
    }

    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent> {
        let mut lines: Vec<ServedEvent> = self.sent.missing(reply).iter().flat_map(|delta| self.push(delta)).collect();
        lines.extend(self.collected());
        let mut last = line(&self.model, self.created, json!({"role": "assistant", "content": ""}));
        end(&mut last, &reply.stop, &reply.usage);
        lines.push(ServedEvent::unnamed(last));
        lines
    }

    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent> {
        vec![ServedEvent::unnamed(encode_error(status, failure))]
    }
}
