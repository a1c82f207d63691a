//! A turn as a chat completions request.

use helix_protocol::{Block, Message, OutputFormat, Role, ToolChoice, ToolSchema, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::format::Turn;
use crate::output::named_schema;
use crate::thinking::{Plan, effort_word, plan};
use crate::tools::{Forcing, carried, sent_choice, signature_of};
use crate::{documents, images};

use super::{ChatCompletions, ERROR_PREFIX, argument_object, details};

/// How a server wants the limit on an answer's tokens to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthField {
    /// `max_tokens`: nearly everybody.
    MaxTokens,
    /// `max_completion_tokens`: OpenAI itself, whose newer models refuse the other.
    MaxCompletionTokens,
}

/// How a server wants thinking to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkingField {
    /// `reasoning_effort`: OpenAI, and most of those who follow it.
    ReasoningEffort,
    /// `reasoning`, an object: OpenRouter.
    Reasoning,
    /// `enable_thinking` and `thinking_budget`: DashScope.
    EnableThinking,
}

/// The request's body.
pub fn encode_request(turn: &Turn<'_>, server: ChatCompletions) -> Value {
    let request = turn.request;
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(turn.model));
    let mut messages: Vec<Value> = request.messages.iter().flat_map(|message| encode_message(message, server)).collect();
    let tools: Vec<Value> = carried(&request.tools, WireFormat::OpenaiChat).map(encode_tool).collect();
    if !tools.is_empty() {
        body.insert("tools".to_owned(), Value::Array(tools));
        let (choice, asked) = sent_choice(request, Forcing::of(turn));
        body.insert("tool_choice".to_owned(), encode_choice(choice));
        if let Some(parallel) = request.parallel_tools.filter(|_| turn.capabilities.parallel_tools) {
            body.insert("parallel_tool_calls".to_owned(), json!(parallel));
        }
        messages.extend(asked.map(|asked| json!({"role": "user", "content": asked})));
    }
    body.insert("messages".to_owned(), Value::Array(messages));
    let length = match server.length {
        LengthField::MaxTokens => "max_tokens",
        LengthField::MaxCompletionTokens => "max_completion_tokens",
    };
    body.insert(length.to_owned(), json!(turn.max_tokens));
    if turn.capabilities.sampling {
        encode_sampling(turn, &mut body);
    }
    if !request.stop.is_empty() {
        body.insert("stop".to_owned(), json!(request.stop));
    }
    body.extend(encode_output(&request.output).map(|output| ("response_format".to_owned(), output)));
    encode_thinking(plan(turn), server.thinking, &mut body);
    if turn.stream {
        body.insert("stream".to_owned(), json!(true));
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    for (field, value) in extra_of(&request.extra, WireFormat::OpenaiChat).into_iter().flatten() {
        body.entry(field).or_insert_with(|| value.clone());
    }
    Value::Object(body)
}

fn encode_sampling(turn: &Turn<'_>, body: &mut Map<String, Value>) {
    let sampling = turn.request.sampling;
    if let Some(temperature) = sampling.temperature.or(turn.temperature) {
        body.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(top_p) = sampling.top_p {
        body.insert("top_p".to_owned(), json!(top_p));
    }
    // Not OpenAI's, which refuses it; the servers that follow it know it.
    if let Some(top_k) = sampling.top_k {
        body.insert("top_k".to_owned(), json!(top_k));
    }
}

fn encode_output(output: &OutputFormat) -> Option<Value> {
    match output {
        OutputFormat::Text => None,
        OutputFormat::JsonObject => Some(json!({"type": "json_object"})),
        OutputFormat::JsonSchema { name, description, schema, strict } => {
            Some(json!({"type": "json_schema", "json_schema": named_schema(name, description, schema, *strict)}))
        }
    }
}

fn encode_thinking(plan: Plan, field: ThinkingField, body: &mut Map<String, Value>) {
    let said = match (field, plan) {
        (_, Plan::Unsaid) => return,
        (ThinkingField::ReasoningEffort, Plan::Off) => ("reasoning_effort", json!("none")),
        (ThinkingField::ReasoningEffort, Plan::Effort(effort)) => ("reasoning_effort", json!(effort_word(effort))),
        (ThinkingField::ReasoningEffort, Plan::Free | Plan::Budget(_)) => return,
        (ThinkingField::Reasoning, Plan::Off) => ("reasoning", json!({"enabled": false})),
        (ThinkingField::Reasoning, Plan::Free) => ("reasoning", json!({"enabled": true})),
        (ThinkingField::Reasoning, Plan::Budget(tokens)) => ("reasoning", json!({"max_tokens": tokens})),
        (ThinkingField::Reasoning, Plan::Effort(effort)) => ("reasoning", json!({"effort": effort_word(effort)})),
        (ThinkingField::EnableThinking, plan) => {
            if let Plan::Budget(tokens) = plan {
                body.insert("thinking_budget".to_owned(), json!(tokens));
            }
            ("enable_thinking", json!(plan != Plan::Off))
        }
    };
    body.insert(said.0.to_owned(), said.1);
}

fn encode_tool(tool: &ToolSchema) -> Value {
    let extra = extra_of(&tool.extra, WireFormat::OpenaiChat);
    if let (Some(fields), Value::Null) = (extra, &tool.parameters)
        && fields.contains_key("type")
    {
        return Value::Object(fields.clone());
    }
    let mut function = extra.cloned().unwrap_or_default();
    function.insert("name".to_owned(), json!(tool.name));
    function.insert("description".to_owned(), json!(tool.description));
    function.insert("parameters".to_owned(), tool.parameters.clone());
    json!({"type": "function", "function": function})
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
fn encode_message(message: &Message, server: ChatCompletions) -> Vec<Value> {
    match message.role {
        Role::System => vec![json!({"role": "system", "content": message.as_text()})],
        Role::Assistant => vec![encode_assistant(message, server)],
        Role::User => {
            let mut encoded: Vec<Value> = message.blocks.iter().filter_map(encode_result).collect();
            if let Some(content) = encode_content(&message.blocks).or_else(|| encoded.is_empty().then(|| json!(""))) {
                encoded.push(json!({"role": "user", "content": content}));
            }
            encoded
        }
    }
}

/// What the user says: one text where it is text alone, because not every server takes parts.
fn encode_content(blocks: &[Block]) -> Option<Value> {
    let mut parts = Vec::new();
    let mut texts = Vec::new();
    for block in blocks {
        match block {
            Block::Text { text, extra } => {
                texts.push(text.as_str());
                parts.push(encode_part("text", json!(text), extra_of(extra, WireFormat::OpenaiChat)));
            }
            Block::Image { image, extra } => {
                let mut url = extra_of(extra, WireFormat::OpenaiChat).cloned().unwrap_or_default();
                url.insert("url".to_owned(), json!(images::to_url(image)));
                parts.push(encode_part("image_url", Value::Object(url), None));
            }
            Block::Document { name, media_type, data, extra } => {
                let mut part = extra_of(extra, WireFormat::OpenaiChat).cloned().unwrap_or_default();
                let mut file = part.remove("file").and_then(|file| file.as_object().cloned()).unwrap_or_default();
                file.extend(documents::to_file(name, media_type, data));
                parts.push(encode_part("file", Value::Object(file), Some(&part)));
            }
            Block::ToolResult { images, .. } => {
                parts.extend(images.iter().map(|image| encode_part("image_url", json!({"url": images::to_url(image)}), None)))
            }
            Block::Unknown { format: WireFormat::OpenaiChat, block } => parts.push(block.clone()),
            Block::Thinking { .. } | Block::ToolUse { .. } | Block::Unknown { .. } => {}
        }
    }
    let plain = parts.len() == texts.len() && parts.iter().all(|part| part.as_object().is_some_and(|part| part.len() == 2));
    match (parts.is_empty(), plain) {
        (true, _) => None,
        (false, true) => Some(json!(texts.join("\n"))),
        (false, false) => Some(Value::Array(parts)),
    }
}

fn encode_part(kind: &str, value: Value, extra: Option<&Map<String, Value>>) -> Value {
    let mut part = extra.cloned().unwrap_or_default();
    part.insert("type".to_owned(), json!(kind));
    part.insert(kind.to_owned(), value);
    Value::Object(part)
}

fn encode_result(block: &Block) -> Option<Value> {
    let Block::ToolResult { id, content, is_error, .. } = block else { return None };
    let content = if *is_error { format!("{ERROR_PREFIX}{content}") } else { content.clone() };
    Some(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

fn encode_assistant(message: &Message, server: ChatCompletions) -> Value {
    let mut encoded = Map::new();
    encoded.insert("role".to_owned(), json!("assistant"));
    let mut texts = Vec::new();
    let mut calls = Vec::new();
    for block in &message.blocks {
        match block {
            Block::Text { text, .. } => texts.push(text.as_str()),
            Block::ToolUse { id, name, input, extra } => {
                let function = json!({"name": name, "arguments": encode_arguments(input)});
                let mut call = json!({"id": id, "type": "function", "function": function});
                if let Some(signature) = signature_of(extra) {
                    call["extra_content"] = signature;
                }
                calls.push(call);
            }
            Block::Thinking { text, extra } => {
                let field = extra_of(extra, WireFormat::OpenaiChat).and_then(|fields| fields.get("field")?.as_str());
                if let Some(field) = field {
                    encoded.insert(field.to_owned(), json!(text));
                }
                let details = details::of_provider(extra).filter(|_| server.thinking == ThinkingField::Reasoning);
                encoded.extend(details.map(|details| ("reasoning_details".to_owned(), details)));
            }
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
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
pub(crate) fn encode_arguments(input: &Value) -> String {
    if input.is_object() { input.to_string() } else { argument_object(input).to_string() }
}
