//! Responses as a [`Format`].

use helix_ports::{RawCall, RawOperation};
use helix_protocol::{ModelReply, WireFormat};

use super::{StreamDecoder, decode_reply, encode_request};
use crate::format::{DecodeError, Decoder, Encoded, Format, Turn};

/// Responses, as OpenAI and xAI serve them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Responses;

impl Format for Responses {
    fn wire(&self) -> WireFormat {
        WireFormat::OpenaiResponses
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        Encoded { path: "responses".to_owned(), headers: Vec::new(), body: encode_request(turn) }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::<StreamDecoder>::default()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        decode_reply(body)
    }

    fn raw_path(&self, call: &RawCall) -> Option<String> {
        match call.operation {
            RawOperation::Generate | RawOperation::Stream => Some("responses".to_owned()),
            RawOperation::CountTokens => None,
        }
    }
}
