//! A whole answer in one JSON document, and the parts it shares with streamed ones.

use helix_protocol::{Block, StopReason, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::RAW_ARGUMENTS;
use super::stream::StreamDecoder;
use crate::format::DecodeError;
use helix_protocol::ModelReply;

/// What both an answer and a chunk of one look like. Unknown fields are ignored, and nothing is demanded here: what is
/// missing is judged when the answer is complete.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireAnswer {
    pub model: Option<String>,
    pub choices: Option<Vec<WireChoice>>,
    pub usage: Option<WireUsage>,
    pub error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireChoice {
    pub index: Option<u64>,
    pub delta: Option<WireMessage>,
    pub message: Option<WireMessage>,
    pub finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireMessage {
    pub content: Option<WireContent>,
    pub reasoning_content: Option<String>,
    pub reasoning: Option<String>,
    /// A list, at OpenRouter.
    pub reasoning_details: Option<Value>,
    pub refusal: Option<String>,
    pub tool_calls: Option<Vec<WireCall>>,
}

/// Text, or the list of parts some gateways send instead.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum WireContent {
    Text(String),
    Parts(Vec<WirePart>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WirePart {
    pub text: Option<String>,
}

impl WireContent {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireCall {
    pub index: Option<u64>,
    pub id: Option<String>,
    pub function: Option<WireFunction>,
    /// What Gemini signed the call with, at its OpenAI-compatible service and at ours.
    pub extra_content: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireFunction {
    pub name: Option<String>,
    /// A string by the format; an object from servers that are generous.
    pub arguments: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub prompt_tokens_details: Option<WireUsageDetails>,
    pub completion_tokens_details: Option<WireUsageDetails>,
    /// The name of the cached count at servers that give no details.
    pub prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsageDetails {
    pub cached_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// `None` where the server wrote the field and no numbers into it.
    pub(super) fn into_usage(self) -> Option<Usage> {
        let input_tokens = self.prompt_tokens?;
        let details = self.prompt_tokens_details.unwrap_or_default();
        let cached = details.cached_tokens.or(self.prompt_cache_hit_tokens).unwrap_or(0);
        Some(Usage {
            input_tokens,
            cached_tokens: cached.min(input_tokens),
            output_tokens: self.completion_tokens.unwrap_or(0),
            thinking_tokens: self.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0),
            ..Usage::default()
        })
    }
}

/// An error object inside an answer, or as an error response's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireError {
    /// What it says.
    pub message: String,
    /// Its type or code as a word, where it has one.
    pub kind: String,
    /// Its code as a number, where that is an HTTP status.
    pub status: Option<u16>,
}

impl WireError {
    /// Reads `{"error": …}`, where the inside is an object, a list of one, or just a text.
    pub fn from_body(body: &Value) -> Option<Self> {
        let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
        body.get("error").filter(|error| !error.is_null()).map(Self::from_value)
    }

    pub(super) fn from_value(error: &Value) -> Self {
        if let Some(message) = error.as_str() {
            return Self { message: message.to_owned(), ..Self::default() };
        }
        let word = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let code = error.get("code").cloned().unwrap_or_default();
        let number = code.as_u64().or_else(|| code.as_str().and_then(|code| code.parse().ok()));
        // What decides is in the details at some: a spend limit at Anthropic, a wrong key at Gemini.
        let details = error.get("details");
        let first = details.and_then(Value::as_array).into_iter().flatten().find_map(|detail| detail.get("reason")?.as_str());
        let detail = details.and_then(|details| details.get("error_code")?.as_str()).or(first).unwrap_or_default();
        let kinds = [word("code"), word("type"), word("status"), detail];
        let kinds: Vec<&str> = kinds.into_iter().filter(|kind| !kind.is_empty()).collect();
        // OpenRouter says only that another service refused, and quotes it.
        let quoted = error.pointer("/metadata/raw").and_then(Value::as_str);
        let message = match (word("message"), quoted) {
            ("", _) => error.to_string(),
            (message, Some(quoted)) => format!("{message}: {quoted}"),
            (message, None) => message.to_owned(),
        };
        let status = number.and_then(|number| u16::try_from(number).ok()).filter(|status| (400..600).contains(status));
        Self { message, kind: kinds.join(" "), status }
    }
}

/// Reads a whole answer.
pub fn decode_reply(body: &[u8]) -> Result<ModelReply, DecodeError> {
    let mut decoder = StreamDecoder::default();
    decoder.take(body)?;
    decoder.into_reply()
}

/// The arguments of a call: an object, or the raw text where the model wrote something else.
pub(crate) fn decode_arguments(text: String) -> Value {
    if text.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(object @ Value::Object(_)) => arguments_of(object),
        _ => Value::String(text),
    }
}

/// The same of a value.
pub(crate) fn arguments_of(value: Value) -> Value {
    match value {
        Value::Object(mut object) if object.len() == 1 => match object.remove(RAW_ARGUMENTS) {
            Some(Value::String(raw)) => Value::String(raw),
            Some(other) => Value::Object([(RAW_ARGUMENTS.to_owned(), other)].into_iter().collect()),
            None => Value::Object(object),
        },
        Value::Null => Value::Object(serde_json::Map::new()),
        Value::Object(_) | Value::String(_) => value,
        other => Value::String(other.to_string()),
    }
}

/// Arguments as an object, where a format wants one: what is not one is wrapped.
pub(crate) fn argument_object(input: &Value) -> Value {
    match input {
        Value::Object(_) => input.clone(),
        Value::String(raw) => json!({ RAW_ARGUMENTS: raw }),
        other => json!({ RAW_ARGUMENTS: other.to_string() }),
    }
}

/// Why the model stopped. Calls decide: some servers say `stop` beside them.
pub(super) fn decode_stop(finish: Option<&str>, blocks: &[Block], refused: bool) -> StopReason {
    let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
    match finish {
        Some("length") => StopReason::MaxTokens,
        Some("content_filter") => StopReason::Refusal,
        _ if refused && !calls => StopReason::Refusal,
        Some("stop" | "tool_calls" | "function_call") | None if calls => StopReason::ToolUse,
        Some("stop" | "tool_calls" | "function_call") | None => StopReason::EndTurn,
        Some(other) => StopReason::Other(other.to_owned()),
    }
}
