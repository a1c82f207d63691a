//! An answer, whole or in pieces: a piece looks like a whole answer with a part of its content.
//!
//! There is no event that ends a stream. A stream that ended after a reason to finish was complete; one that ended before was cut.

use std::collections::HashSet;

use helix_protocol::{Block, ModelDelta, ModelReply, StopReason, Usage};
use serde_json::Value;

use super::parts::{self, Wanted};
use crate::chat::{WireError, encode_arguments};
use crate::format::{DecodeError, Decoder};

/// Puts an answer together.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    model: String,
    response: String,
    blocks: Vec<Block>,
    ids: HashSet<String>,
    calls: u32,
    finish: Option<String>,
    blocked: bool,
    usage: Option<Usage>,
    began: bool,
}

/// Reads a whole answer.
pub fn decode_reply(body: &[u8]) -> Result<ModelReply, DecodeError> {
    let mut decoder = StreamDecoder::default();
    decoder.take(body)?;
    decoder.into_reply()
}

impl Decoder for StreamDecoder {
    fn began(&self) -> bool {
        self.began
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn ends_with_stream(&self) -> bool {
        self.finish.is_some() || self.blocked
    }

    fn push(&mut self, _event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        self.take(data)
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError> {
        (*self).into_reply()
    }
}

impl StreamDecoder {
    fn take(&mut self, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        let answer: Value = serde_json::from_slice(data).map_err(|error| garbage(&error.to_string()))?;
        if let Some(error) = WireError::from_body(&answer) {
            return Err(DecodeError::Reported(error));
        }
        let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        for (kept, said) in [(&mut self.model, text("modelVersion")), (&mut self.response, text("responseId"))] {
            if kept.is_empty() {
                *kept = said;
            }
        }
        // The counters are of the whole answer so far.
        self.usage = answer.get("usageMetadata").and_then(decode_usage).or(self.usage);
        if answer.pointer("/promptFeedback/blockReason").is_some_and(Value::is_string) {
            self.blocked = true;
            self.began = true;
        }
        let candidates = answer.get("candidates").and_then(Value::as_array).into_iter().flatten();
        let mut shown = Vec::new();
        for candidate in candidates.filter(|candidate| candidate.get("index").and_then(Value::as_u64).unwrap_or(0) == 0) {
            self.began = true;
            for part in candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten() {
                self.take_part(part, &mut shown)?;
            }
            if let Some(reason) = candidate.get("finishReason").and_then(Value::as_str) {
                self.finish = Some(reason.to_owned());
            }
        }
        Ok(shown)
    }

    fn take_part(&mut self, part: &Value, shown: &mut Vec<ModelDelta>) -> Result<(), DecodeError> {
        let (calls, response, usage) = (self.calls, &self.response, self.usage);
        let mut id = |wanted: Wanted<'_>| match wanted {
            Wanted::Call { name, input } => made_id(response, calls, name, input, usage),
            Wanted::Answered { name } => name.to_owned(),
        };
        let mut block = parts::decode(part, &mut id).map_err(|error| garbage(&error))?;
        // A call told twice is one; another one under the same id has an id made for it.
        if matches!(block, Block::ToolUse { .. }) && self.blocks.contains(&block) {
            return Ok(());
        }
        if let Block::ToolUse { id, .. } = &mut block
            && !self.ids.insert(id.clone())
        {
            *id = format!("{id}_{calls}");
            self.ids.insert(id.clone());
        }
        match &block {
            Block::Text { text, .. } if !text.is_empty() => shown.push(ModelDelta::Text { text: text.clone() }),
            Block::Thinking { text, .. } if !text.is_empty() => shown.push(ModelDelta::Thinking { text: text.clone() }),
            Block::ToolUse { id, name, input, extra } => {
                let index = self.calls;
                self.calls += 1;
                shown.push(ModelDelta::ToolUse { index, id: id.clone(), name: name.clone(), extra: extra.clone() });
                shown.push(ModelDelta::ToolInput { index, text: encode_arguments(input) });
            }
            _ => {}
        }
        match (self.blocks.last_mut(), block) {
            // Pieces of one text. One that is signed stands alone: its signature is for itself.
            (Some(Block::Text { text: known, extra: None }), Block::Text { text, extra: None })
            | (Some(Block::Thinking { text: known, extra: None }), Block::Thinking { text, extra: None }) => known.push_str(&text),
            (_, Block::Text { text, extra: None } | Block::Thinking { text, extra: None }) if text.is_empty() => {}
            (_, block @ (Block::Text { extra: None, .. } | Block::Thinking { extra: None, .. })) => self.blocks.push(block),
            (_, block) => {
                shown.push(ModelDelta::Block { block: block.clone() });
                self.blocks.push(block);
            }
        }
        Ok(())
    }

    fn into_reply(self) -> Result<ModelReply, DecodeError> {
        let calls = self.blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
        let stop = match self.finish.as_deref() {
            None if self.blocked => StopReason::Refusal,
            None => return Err(garbage("it has no candidate that finished")),
            Some("STOP") if calls => StopReason::ToolUse,
            Some("STOP") => StopReason::EndTurn,
            Some("MAX_TOKENS" | "CONTINUATION") => StopReason::MaxTokens,
            Some(reason) if is_refusal(reason) => StopReason::Refusal,
            Some(reason) => StopReason::Other(reason.to_owned()),
        };
        let usage = self.usage.unwrap_or(Usage { estimated: true, ..Usage::default() });
        Ok(ModelReply { model: self.model, blocks: self.blocks, stop, usage })
    }
}

/// Reasons of filters, of which there are more every year.
fn is_refusal(reason: &str) -> bool {
    let filters = ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "MODEL_ARMOR"];
    filters.contains(&reason) || (reason.starts_with("IMAGE_") && filters.iter().any(|filter| reason.ends_with(filter)))
}

/// The id of a call that has none: the same whenever this answer is read, another in the next answer.
fn made_id(response: &str, index: u32, name: &str, input: &Value, usage: Option<Usage>) -> String {
    if !response.is_empty() {
        return format!("call_{response}_{index}");
    }
    // Without an id of the answer, what it says and how long its prompt was stand for it (FNV-1a).
    let prompt = usage.map_or(0, |usage| usage.input_tokens);
    let said = format!("{index} {prompt} {name} {input}");
    let hash = said.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("call_{hash:016x}_{index}")
}

fn decode_usage(usage: &Value) -> Option<Usage> {
    let count = |field: &str| usage.get(field).and_then(Value::as_u64);
    let input = count("promptTokenCount")?.saturating_add(count("toolUsePromptTokenCount").unwrap_or(0));
    let thinking = count("thoughtsTokenCount").unwrap_or(0);
    Some(Usage {
        input_tokens: input,
        cached_tokens: count("cachedContentTokenCount").unwrap_or(0).min(input),
        output_tokens: count("candidatesTokenCount").unwrap_or(0).saturating_add(thinking),
        thinking_tokens: thinking,
        ..Usage::default()
    })
}

fn garbage(reason: &str) -> DecodeError {
    DecodeError::Garbage(format!("not generated content: {reason}"))
}
