//! Chat completions as a [`Format`].

use helix_ports::{RawCall, RawOperation};
use helix_protocol::{ModelReply, WireFormat};

use super::{LengthField, StreamDecoder, ThinkingField, decode_reply, encode_request};
use crate::format::{DecodeError, Decoder, Encoded, Format, Turn};

/// Chat completions, as one server wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatCompletions {
    /// The name of the limit on an answer's tokens.
    pub length: LengthField,
    /// How thinking is asked for.
    pub thinking: ThinkingField,
}

impl ChatCompletions {
    /// As the server at `base_url` wants them.
    pub fn at(base_url: &str) -> Self {
        let is_at = |host: &str| base_url.contains(host);
        let length = if is_at("://api.openai.com") { LengthField::MaxCompletionTokens } else { LengthField::MaxTokens };
        let thinking = match () {
            () if is_at("://openrouter.ai") => ThinkingField::Reasoning,
            () if is_at("://dashscope") => ThinkingField::EnableThinking,
            () => ThinkingField::ReasoningEffort,
        };
        Self { length, thinking }
    }
}

impl Format for ChatCompletions {
    fn wire(&self) -> WireFormat {
        WireFormat::OpenaiChat
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        Encoded { path: "chat/completions".to_owned(), headers: Vec::new(), body: encode_request(turn, *self) }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::<StreamDecoder>::default()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        decode_reply(body)
    }

    fn raw_path(&self, call: &RawCall) -> Option<String> {
        match call.operation {
            RawOperation::Generate | RawOperation::Stream => Some("chat/completions".to_owned()),
            RawOperation::CountTokens => None,
        }
    }
}
