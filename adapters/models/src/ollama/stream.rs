//! An answer line by line.

use helix_protocol::{Block, Extra, ModelDelta, ModelReply, StopReason, Usage, WireFormat};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chat::{RAW_ARGUMENTS, WireError};
use crate::fault::excerpt;
use crate::format::{DecodeError, Decoder};

/// Puts an answer together, its parts in the order in which they came.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    model: String,
    blocks: Vec<Block>,
    calls: u32,
    stop: Option<String>,
    usage: Option<Usage>,
    began: bool,
    complete: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    model: Option<String>,
    message: Option<Said>,
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    id: Option<String>,
    function: Function,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function {
    name: String,
    arguments: Value,
}

impl Decoder for StreamDecoder {
    fn began(&self) -> bool {
        self.began
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn push(&mut self, _event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        let garbage =
            |error: serde_json::Error| DecodeError::Garbage(format!("not a line of a chat ({error}): {:?}", excerpt(data)));
        let value: Value = serde_json::from_slice(data).map_err(garbage)?;
        if let Some(error) = WireError::from_body(&value) {
            return Err(DecodeError::Reported(error));
        }
        let is_line = value.get("message").is_some() || value.get("done").is_some();
        if !is_line {
            return Err(DecodeError::Garbage(format!("neither a message nor the end of one: {:?}", excerpt(data))));
        }
        let line: Line = serde_json::from_value(value).map_err(garbage)?;
        Ok(self.take(line))
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError> {
        if !self.complete {
            return Err(DecodeError::Garbage("the answer does not say that it is done".to_owned()));
        }
        let calls = self.calls > 0;
        let stop = match self.stop.as_deref() {
            Some("length") => StopReason::MaxTokens,
            Some("stop") | None if calls => StopReason::ToolUse,
            Some("stop") | None => StopReason::EndTurn,
            Some(other) => StopReason::Other(other.to_owned()),
        };
        let usage = self.usage.unwrap_or(Usage { estimated: true, ..Usage::default() });
        Ok(ModelReply { model: self.model, blocks: self.blocks, stop, usage })
    }
}

impl StreamDecoder {
    fn take(&mut self, line: Line) -> Vec<ModelDelta> {
        let mut deltas = Vec::new();
        if self.model.is_empty() {
            self.model = line.model.unwrap_or_default();
        }
        let said = line.message.unwrap_or_default();
        if let Some(text) = said.thinking.filter(|text| !text.is_empty()) {
            self.think(&text);
            deltas.push(ModelDelta::Thinking { text });
        }
        if let Some(text) = said.content.filter(|text| !text.is_empty()) {
            self.say(&text);
            deltas.push(ModelDelta::Text { text });
        }
        for call in said.tool_calls.into_iter().flatten() {
            self.call(call, &mut deltas);
        }
        if line.done {
            self.began = true;
            self.complete = true;
            self.stop = line.done_reason;
            self.usage = usage_of(line.prompt_eval_count, line.eval_count);
        }
        deltas
    }

    fn think(&mut self, more: &str) {
        self.began = true;
        if let Some(Block::Thinking { text, .. }) = self.blocks.last_mut() {
            text.push_str(more);
        } else {
            // Marked as this server's, so that it alone is given it back.
            let extra = Extra::field(WireFormat::Ollama, "field", json!("thinking"));
            self.blocks.push(Block::Thinking { text: more.to_owned(), extra });
        }
    }

    fn say(&mut self, more: &str) {
        self.began = true;
        match self.blocks.last_mut() {
            Some(Block::Text { text, .. }) => text.push_str(more),
            _ => self.blocks.push(Block::text(more)),
        }
    }

    /// A call comes whole. Older servers give it no id. One that is told twice under its id is one.
    fn call(&mut self, call: Call, deltas: &mut Vec<ModelDelta>) {
        self.began = true;
        let index = self.calls;
        let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{index}"));
        let input = match call.function.arguments {
            Value::Null => json!({}),
            Value::String(text) => match serde_json::from_str::<Value>(&text) {
                Ok(Value::Object(object)) => Value::Object(object),
                _ => Value::String(text),
            },
            Value::Object(mut object) if object.len() == 1 => match object.remove(RAW_ARGUMENTS) {
                Some(Value::String(raw)) => Value::String(raw),
                Some(other) => json!({ RAW_ARGUMENTS: other }),
                None => Value::Object(object),
            },
            Value::Object(object) => Value::Object(object),
            other => Value::String(other.to_string()),
        };
        let written = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
        let block = Block::ToolUse { id: id.clone(), name: call.function.name.clone(), input, extra: None };
        if self.blocks.contains(&block) {
            return;
        }
        self.calls += 1;
        deltas.push(ModelDelta::ToolUse { index, id, name: call.function.name, extra: None });
        deltas.push(ModelDelta::ToolInput { index, text: written });
        self.blocks.push(block);
    }
}

/// `None` where the server counted nothing. It leaves the prompt out where all of it was in its cache.
fn usage_of(prompt: Option<u64>, written: Option<u64>) -> Option<Usage> {
    if prompt.is_none() && written.is_none() {
        return None;
    }
    Some(Usage {
        input_tokens: prompt.unwrap_or(0),
        output_tokens: written.unwrap_or(0),
        estimated: prompt.is_none() || written.is_none(),
        ..Usage::default()
    })
}
