//! A whole answer, and what it shares with streamed ones.

use helix_protocol::{Block, ModelReply, StopReason, Usage};
use serde_json::Value;

use super::blocks;
use crate::chat::WireError;
use crate::format::DecodeError;

/// Reads a whole answer.
pub fn decode_reply(body: &[u8]) -> Result<ModelReply, DecodeError> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| garbage(&error.to_string()))?;
    if let Some(error) = reported(&answer) {
        return Err(DecodeError::Reported(error));
    }
    let content = answer.get("content").and_then(Value::as_array).ok_or_else(|| garbage("`content` is missing"))?;
    let blocks: Vec<Block> = content.iter().map(decode_block).collect::<Result<_, _>>()?;
    let stop = decode_stop(&answer).ok_or_else(|| garbage("`stop_reason` is missing"))?;
    let mut counters = Counters::default();
    counters.take(answer.get("usage"));
    let usage = counters.usage().unwrap_or(Usage { estimated: true, ..Usage::default() });
    Ok(ModelReply { model: text(&answer, "model"), blocks, stop, usage })
}

/// A block of an answer.
pub(super) fn decode_block(block: &Value) -> Result<Block, DecodeError> {
    blocks::decode(block).map_err(|error| garbage(&error))
}

/// An error where the answer, or an event of it, should be.
pub(super) fn reported(answer: &Value) -> Option<WireError> {
    WireError::from_body(answer)
}

/// Why it stopped; nothing where that is not said.
pub(super) fn decode_stop(answer: &Value) -> Option<StopReason> {
    Some(match answer.get("stop_reason")?.as_str()? {
        "end_turn" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence(text(answer, "stop_sequence")),
        "refusal" => StopReason::Refusal,
        "pause_turn" => StopReason::Pause,
        "model_context_window_exceeded" => StopReason::ContextFull,
        other => StopReason::Other(other.to_owned()),
    })
}

pub(super) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn garbage(reason: &str) -> DecodeError {
    DecodeError::Garbage(format!("not a message: {reason}"))
}

/// The counters as they stand on the wire. In a stream they come several times, each time in full, and not each time all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    /// Of these, to be kept for an hour.
    cache_write_1h: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

impl Counters {
    /// Takes what is said.
    pub(super) fn take(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage else { return };
        let said = |pointer: &str, known: Option<u64>| usage.pointer(pointer).and_then(Value::as_u64).or(known);
        self.input = said("/input_tokens", self.input);
        self.cache_read = said("/cache_read_input_tokens", self.cache_read);
        self.cache_write = said("/cache_creation_input_tokens", self.cache_write);
        self.cache_write_1h = said("/cache_creation/ephemeral_1h_input_tokens", self.cache_write_1h);
        self.output = said("/output_tokens", self.output);
        self.thinking = said("/output_tokens_details/thinking_tokens", self.thinking);
    }

    /// The sums: what is read excludes the cache here, and includes it with us. Nothing where nothing was said.
    pub(super) fn usage(&self) -> Option<Usage> {
        let (input, output) = (self.input?, self.output.unwrap_or(0));
        let (cached, written) = (self.cache_read.unwrap_or(0), self.cache_write.unwrap_or(0));
        Some(Usage {
            input_tokens: input.saturating_add(cached).saturating_add(written),
            cached_tokens: cached,
            cache_write_tokens: written,
            cache_write_1h_tokens: self.cache_write_1h.unwrap_or(0).min(written),
            output_tokens: output,
            thinking_tokens: self.thinking.unwrap_or(0).min(output),
            ..Usage::default()
        })
    }
}
