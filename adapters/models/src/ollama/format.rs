//! Ollama as a [`Format`].

use helix_ports::{RawCall, RawOperation};
use helix_protocol::{ModelReply, WireFormat};
use serde_json::{Value, json};

use super::{StreamDecoder, encode_request};
use crate::format::{DecodeError, Decoder, Encoded, Format, Framing, Measured, Probe, Turn};

/// A model with no context of its own gets at most so much: memory grows with it, and the server would take whatever is asked.
const USUAL_CONTEXT: u64 = 32_768;

/// Ollama's own protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ollama;

impl Format for Ollama {
    fn wire(&self) -> WireFormat {
        WireFormat::Ollama
    }

    fn framing(&self) -> Framing {
        Framing::Ndjson
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        Encoded { path: "api/chat".to_owned(), headers: Vec::new(), body: encode_request(turn) }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::<StreamDecoder>::default()
    }

    /// A whole answer is a stream of one line.
    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        let mut decoder = StreamDecoder::default();
        decoder.push(None, body)?;
        Box::new(decoder).finish()
    }

    fn models_path(&self) -> &str {
        "api/tags"
    }

    fn decode_models(&self, body: &Value) -> Option<Vec<String>> {
        let entries = body.get("models")?.as_array()?;
        let name = |entry: &Value| Some(entry.get("model").or_else(|| entry.get("name"))?.as_str()?.to_owned());
        Some(entries.iter().filter_map(name).collect())
    }

    fn health_probe(&self) -> Option<Probe> {
        Some(Probe { path: "api/version".to_owned(), body: None })
    }

    fn decode_health(&self, status: u16, body: &Value) -> Result<String, String> {
        match body.get("version").and_then(Value::as_str).filter(|_| status == 200) {
            Some(version) => Ok(format!("ollama {version}")),
            None => Err(format!("the server answered {status} and no version: it is not Ollama, or not under this address")),
        }
    }

    /// Whatever the table says, the format has no way to force a call.
    fn forces_tools(&self, _turn: &Turn<'_>) -> bool {
        false
    }

    fn size_probe(&self, model: &str) -> Option<Probe> {
        Some(Probe { path: "api/show".to_owned(), body: Some(json!({"model": model})) })
    }

    /// The model's length, and the `num_ctx` that it was made with where there is one.
    fn decode_size(&self, _model: &str, body: &Value) -> Option<Measured> {
        let facts = body.get("model_info")?.as_object()?;
        let length = facts.iter().find(|(key, _)| key.ends_with(".context_length"))?.1.as_u64().filter(|length| *length > 0)?;
        let parameters = body.get("parameters").and_then(Value::as_str).unwrap_or_default();
        let set = parameters.lines().find_map(|line| line.trim().strip_prefix("num_ctx")?.trim().parse::<u64>().ok());
        let usual = set.filter(|set| *set > 0).unwrap_or(USUAL_CONTEXT).min(length);
        Some(Measured { usual, most: length })
    }

    fn cuts_silently(&self) -> bool {
        true
    }

    fn raw_path(&self, call: &RawCall) -> Option<String> {
        match call.operation {
            RawOperation::Generate | RawOperation::Stream => Some("api/chat".to_owned()),
            RawOperation::CountTokens => None,
        }
    }
}
