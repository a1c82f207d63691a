//! A whole answer, as a document of its own or inside the event that ends a stream.

use helix_protocol::{Block, ModelReply, StopReason, Usage};
use serde_json::Value;

use super::items::{blocks_of, word};
use crate::chat::WireError;
use crate::fault::excerpt;
use crate::format::DecodeError;

/// Reads a whole answer.
pub fn decode_reply(body: &[u8]) -> Result<ModelReply, DecodeError> {
    let response: Value = serde_json::from_slice(body)
        .map_err(|error| DecodeError::Garbage(format!("not a response ({error}): {:?}", excerpt(body))))?;
    if let Some(error) = WireError::from_body(&response) {
        return Err(DecodeError::Reported(error));
    }
    if response.get("output").is_none_or(|output| !output.is_array()) {
        return Err(DecodeError::Garbage(format!("a response without output: {:?}", excerpt(body))));
    }
    reply_of(&response)
}

/// The answer in a response that has ended.
pub(super) fn reply_of(response: &Value) -> Result<ModelReply, DecodeError> {
    match word(response, "status") {
        "failed" => return Err(failure_of(response)),
        "queued" | "in_progress" => {
            return Err(DecodeError::Garbage("the response is still being made, and nothing else was asked for".to_owned()));
        }
        _ => {}
    }
    let items = response.get("output").and_then(Value::as_array).into_iter().flatten();
    let blocks: Vec<Block> = items.flat_map(blocks_of).collect();
    Ok(ModelReply {
        model: word(response, "model").to_owned(),
        stop: stop_of(response, &blocks),
        usage: usage_of(response).unwrap_or(Usage { estimated: true, ..Usage::default() }),
        blocks,
    })
}

/// Why a failed response failed.
pub(super) fn failure_of(response: &Value) -> DecodeError {
    let error = WireError::from_body(response);
    DecodeError::Reported(
        error.unwrap_or_else(|| WireError { message: "it failed and does not say why".to_owned(), ..WireError::default() }),
    )
}

fn stop_of(response: &Value, blocks: &[Block]) -> StopReason {
    let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
    let refusal = |block: &Block| match block {
        Block::Text { extra, .. } => {
            let part = super::items::field(extra, "part");
            part.is_some_and(|part| word(part, "type") == "refusal")
        }
        _ => false,
    };
    let reason = response.pointer("/incomplete_details/reason").and_then(Value::as_str);
    match (word(response, "status"), reason) {
        (_, Some("max_output_tokens")) => StopReason::MaxTokens,
        (_, Some("content_filter")) => StopReason::Refusal,
        (_, Some(other)) => StopReason::Other(other.to_owned()),
        ("incomplete", None) => StopReason::Other("incomplete".to_owned()),
        ("cancelled", None) => StopReason::Other("cancelled".to_owned()),
        _ if calls => StopReason::ToolUse,
        _ if blocks.iter().any(refusal) => StopReason::Refusal,
        _ => StopReason::EndTurn,
    }
}

/// `None` where nothing was said of it.
pub(super) fn usage_of(response: &Value) -> Option<Usage> {
    let usage = response.get("usage").filter(|usage| usage.is_object())?;
    let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    let input_tokens = count("/input_tokens")?;
    let cached_tokens = count("/input_tokens_details/cached_tokens").unwrap_or(0).min(input_tokens);
    let written = count("/input_tokens_details/cache_write_tokens").unwrap_or(0);
    let output_tokens = count("/output_tokens").unwrap_or(0);
    Some(Usage {
        input_tokens,
        cached_tokens,
        cache_write_tokens: written.min(input_tokens - cached_tokens),
        output_tokens,
        thinking_tokens: count("/output_tokens_details/reasoning_tokens").unwrap_or(0).min(output_tokens),
        ..Usage::default()
    })
}
