//! What the formats share on a server's side: a streamed answer as events of the client's format.
//!
//! The pieces that a provider shows are for passing on, and the reply is what counts: [`Sent`] remembers how much of an answer went
//! out, so that the end of a stream can bring whatever no piece brought.

use std::collections::BTreeMap;

use helix_protocol::{Block, Failure, ModelDelta, ModelReply};
use serde_json::Value;

use crate::chat::encode_arguments;

/// A message's content in OpenAI's formats: a text, or parts that each format reads its own way.
pub(crate) fn decode_parts(
    content: Option<&Value>,
    decode_part: impl Fn(&Value) -> Result<Block, String>,
) -> Result<Vec<Block>, String> {
    let parts = match content {
        None | Some(Value::Null) => return Ok(vec![Block::text("")]),
        Some(Value::String(text)) => return Ok(vec![Block::text(text)]),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err("`content` is neither text nor parts".to_owned()),
    };
    parts.iter().enumerate().map(|(at, part)| decode_part(part).map_err(|error| format!("content[{at}]: {error}"))).collect()
}

/// No service writes more answers to one request.
const MOST_ANSWERS: u64 = 128;

/// How many answers are asked for, where they are more than one. A generous server may read more than we do.
pub(crate) fn several(said: Option<&Value>) -> Option<u64> {
    let answers = said.and_then(|said| said.as_f64().or_else(|| said.as_str()?.trim().parse().ok()))?;
    (answers > 1.0).then_some((answers.ceil() as u64).min(MOST_ANSWERS))
}

/// One event for a client.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedEvent {
    /// Its name, in formats whose events have one.
    pub name: Option<&'static str>,
    /// Its data.
    pub data: Value,
}

impl ServedEvent {
    /// An event without a name.
    pub(crate) fn unnamed(data: Value) -> Self {
        Self { name: None, data }
    }

    /// The event as server-sent events frame it.
    pub fn to_sse(&self) -> String {
        match self.name {
            Some(name) => format!("event: {name}\ndata: {}\n\n", self.data),
            None => format!("data: {}\n\n", self.data),
        }
    }
}

/// Writes one answer as a stream of a format. Called in this order: `start`, `push` for every piece, then `finish` or `error`.
pub trait ServedStream: Send {
    /// What comes before the first piece.
    fn start(&mut self) -> Vec<ServedEvent>;
    /// One piece.
    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent>;
    /// The rest of the answer that no piece brought, why it stopped, and what it used.
    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent>;
    /// The answer breaks off. `status` is what the response would have been, had it not begun.
    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent>;
    /// The event that only says that the answer is still coming, in formats that have one.
    fn ping(&self) -> Option<ServedEvent> {
        None
    }
    /// The data of a last event that is not JSON, in formats that have one. Follows `finish`.
    fn terminator(&self) -> Option<&'static str> {
        None
    }
}

/// How much of an answer went out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Bytes of its texts.
    text: usize,
    /// Bytes of its thinking.
    thinking: usize,
    /// Of each call, its id and the bytes of its arguments.
    calls: BTreeMap<u32, (String, usize)>,
    /// Blocks with something besides, or of unknown kinds, in the order of [`kind`].
    wholes: [usize; 4],
}

impl Sent {
    /// Remembers a piece.
    pub(crate) fn note(&mut self, delta: &ModelDelta) {
        match delta {
            ModelDelta::Text { text } => self.text += text.len(),
            ModelDelta::Thinking { text } => self.thinking += text.len(),
            ModelDelta::ToolUse { index, id, .. } => self.calls.entry(*index).or_default().0 = id_of_call(id, *index),
            ModelDelta::ToolInput { index, text } => self.calls.entry(*index).or_default().1 += text.len(),
            ModelDelta::Block { block } => {
                if let Some(kind) = kind(block) {
                    self.wholes[kind] += 1;
                }
            }
        }
    }

    /// Which call has this id.
    pub(crate) fn call_of(&self, wanted: &str) -> Option<u32> {
        self.calls.iter().find(|(_, (id, _))| id == wanted).map(|(index, _)| *index)
    }

    /// The pieces of `reply` that did not go out.
    pub(crate) fn missing(&self, reply: &ModelReply) -> Vec<ModelDelta> {
        let mut missing = Vec::new();
        let (mut text_sent, mut thinking_sent, mut wholes) = (self.text, self.thinking, self.wholes);
        let mut index = 0;
        for block in &reply.blocks {
            match block {
                Block::Text { text, .. } => {
                    let rest = rest(text, &mut text_sent);
                    missing.extend((!rest.is_empty()).then(|| ModelDelta::Text { text: rest.to_owned() }));
                }
                Block::Thinking { text, .. } => {
                    let rest = rest(text, &mut thinking_sent);
                    missing.extend((!rest.is_empty()).then(|| ModelDelta::Thinking { text: rest.to_owned() }));
                }
                Block::ToolUse { id, name, input, extra } => {
                    if !self.calls.contains_key(&index) {
                        missing.push(ModelDelta::ToolUse { index, id: id.clone(), name: name.clone(), extra: extra.clone() });
                    }
                    if self.calls.get(&index).is_none_or(|(_, sent)| *sent == 0) {
                        missing.push(ModelDelta::ToolInput { index, text: encode_arguments(input) });
                    }
                    index += 1;
                }
                Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {}
            }
            if let Some(kind) = kind(block) {
                match wholes[kind].checked_sub(1) {
                    Some(left) => wholes[kind] = left,
                    None => missing.push(ModelDelta::Block { block: block.clone() }),
                }
            }
        }
        missing
    }
}

/// Where a block that pieces do not bring whole is counted.
fn kind(block: &Block) -> Option<usize> {
    match block {
        Block::Text { extra, .. } => extra.is_some().then_some(0),
        Block::Thinking { extra, .. } => extra.is_some().then_some(1),
        Block::ToolUse { extra, .. } => extra.is_some().then_some(2),
        Block::Unknown { .. } | Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } => Some(3),
    }
}

/// What of `text` lies behind the first `sent` bytes, which become fewer by what was skipped. A piece never
/// ends within a character.
fn rest<'a>(text: &'a str, sent: &mut usize) -> &'a str {
    let skipped = (*sent).min(text.len());
    *sent -= skipped;
    text.get(skipped..).unwrap_or_default()
}

/// A reply cut into pieces of `size` characters, as a provider would have shown it.
pub(crate) fn deltas_of(reply: &ModelReply, size: usize) -> Vec<ModelDelta> {
    let mut cut = Vec::new();
    for delta in Sent::default().missing(reply) {
        match delta {
            ModelDelta::Text { text } => cut.extend(pieces(&text, size).map(|text| ModelDelta::Text { text: text.to_owned() })),
            ModelDelta::Thinking { text } => {
                cut.extend(pieces(&text, size).map(|text| ModelDelta::Thinking { text: text.to_owned() }));
            }
            ModelDelta::ToolInput { index, text } => {
                cut.extend(pieces(&text, size).map(|text| ModelDelta::ToolInput { index, text: text.to_owned() }));
            }
            other => cut.push(other),
        }
    }
    cut
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

/// The id of a call that the provider named none for.
pub(crate) fn id_of_call(id: &str, index: u32) -> String {
    if id.is_empty() { format!("call_{index}") } else { id.to_owned() }
}

/// A failure in one sentence, with what can be done about it.
pub(crate) fn sentence(failure: &Failure) -> String {
    if failure.hint.is_empty() { failure.message.clone() } else { format!("{} ({})", failure.message, failure.hint) }
}
