//! Messages as a [`Format`].

use std::time::{SystemTime, UNIX_EPOCH};

use helix_ports::{RateLimits, RateWindow, RawCall, RawOperation};
use helix_protocol::{ModelReply, OutputFormat, WireFormat};
use reqwest::header::{DATE, HeaderMap};
use serde_json::Value;

use super::request::{encode_prompt, forcing, samples};
use super::{StreamDecoder, decode_reply, encode_request};
use crate::dates::{http_date_ms, rfc3339_ms};
use crate::format::{DecodeError, Decoder, Encoded, Format, KeyHeader, Turn};
use crate::tools::Forcing;

/// The version of the API that is spoken.
const VERSION: &str = "2026-10-21";

/// The version that still takes sampling settings, for turns and models that have some.
const SAMPLING_VERSION: &str = "2023-06-01";

/// The header that says so.
const VERSION_HEADER: &str = "anthropic-version";

/// Anthropic's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnthropicMessages;

impl Format for AnthropicMessages {
    fn wire(&self) -> WireFormat {
        WireFormat::Anthropic
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::Bearer
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![(VERSION_HEADER, VERSION.to_owned())]
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        let headers = if samples(turn) { vec![(VERSION_HEADER, SAMPLING_VERSION.to_owned())] } else { Vec::new() };
        Encoded { path: "messages".to_owned(), headers, body: encode_request(turn) }
    }

    fn forces_tools(&self, turn: &Turn<'_>) -> bool {
        forcing(turn) == Forcing::Possible
    }

    /// There is no JSON without a schema.
    fn has_output(&self, output: &OutputFormat) -> bool {
        *output != OutputFormat::JsonObject
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::<StreamDecoder>::default()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        decode_reply(body)
    }

    fn encode_count(&self, turn: &Turn<'_>) -> Option<Encoded> {
        let path = "messages/count_tokens".to_owned();
        Some(Encoded { path, headers: Vec::new(), body: Value::Object(encode_prompt(turn)) })
    }

    fn decode_count(&self, body: &Value) -> Option<u64> {
        body.get("input_tokens")?.as_u64()
    }

    fn models_path(&self) -> &str {
        "models?limit=1000"
    }

    fn raw_path(&self, call: &RawCall) -> Option<String> {
        Some(match call.operation {
            RawOperation::Generate | RawOperation::Stream => "messages".to_owned(),
            RawOperation::CountTokens => "messages/count_tokens".to_owned(),
        })
    }

    fn rate_limits(&self, headers: &HeaderMap) -> RateLimits {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        // By the server's own clock where it shows it: ours may be off.
        let now = text(DATE.as_str())
            .and_then(http_date_ms)
            .or_else(|| i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis()).ok());
        let window = |what: &str| {
            let part = |part: &str| text(&format!("anthropic-ratelimit-{what}-{part}"));
            let reset = part("reset").and_then(rfc3339_ms).zip(now).map_or(0, |(reset, now)| reset.saturating_sub(now).max(0));
            let (limit, remaining) = (part("limit")?.parse().ok()?, part("remaining")?.parse().ok()?);
            Some(RateWindow { limit, remaining, reset_ms: reset.unsigned_abs() })
        };
        RateLimits { requests: window("requests"), tokens: window("tokens").or_else(|| window("input-tokens")) }
    }
}
