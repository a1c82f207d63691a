//! Generated content as a [`Format`].

use helix_ports::{RawCall, RawOperation};
use helix_protocol::{ModelReply, WireFormat};
use serde_json::{Value, json};

use super::request::{encode_count, model_path};
use super::{StreamDecoder, decode_reply, encode_request};
use crate::format::{DecodeError, Decoder, Encoded, Format, KeyHeader, Turn};

/// Gemini's `generateContent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gemini {
    /// What is refused as harmful: categories with their thresholds, as the service names them. A request that says
    /// it itself is left alone.
    safety: Vec<(&'static str, &'static str)>,
}

impl Gemini {
    /// The same with thresholds of safety, by category.
    pub fn with_safety(safety: Vec<(&'static str, &'static str)>) -> Self {
        Self { safety }
    }
}

impl Format for Gemini {
    fn wire(&self) -> WireFormat {
        WireFormat::Gemini
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::Named("x-goog-api-key")
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        let operation = if turn.stream { RawOperation::Stream } else { RawOperation::Generate };
        let mut body = encode_request(turn);
        if let Some(fields) = body.as_object_mut().filter(|_| !self.safety.is_empty()) {
            let settings = self.safety.iter().map(|(category, threshold)| json!({"category": category, "threshold": threshold}));
            fields.entry("safetySettings").or_insert_with(|| settings.collect());
        }
        Encoded { path: path(turn.model, operation), headers: Vec::new(), body }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::<StreamDecoder>::default()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        decode_reply(body)
    }

    fn encode_count(&self, turn: &Turn<'_>) -> Option<Encoded> {
        let path = path(turn.model, RawOperation::CountTokens);
        Some(Encoded { path, headers: Vec::new(), body: encode_count(turn) })
    }

    fn decode_count(&self, body: &Value) -> Option<u64> {
        body.get("totalTokens")?.as_u64()
    }

    fn models_path(&self) -> &str {
        "models?pageSize=1000"
    }

    fn decode_models(&self, body: &Value) -> Option<Vec<String>> {
        let names = body.get("models")?.as_array()?.iter().filter_map(|model| model.get("name")?.as_str());
        Some(names.map(|name| name.strip_prefix("models/").unwrap_or(name).to_owned()).collect())
    }

    fn raw_path(&self, call: &RawCall) -> Option<String> {
        Some(path(&call.model, call.operation))
    }
}

fn path(model: &str, operation: RawOperation) -> String {
    let operation = match operation {
        RawOperation::Generate => "generateContent",
        RawOperation::Stream => "streamGenerateContent?alt=sse",
        RawOperation::CountTokens => "countTokens",
    };
    format!("{}:{operation}", model_path(model))
}
