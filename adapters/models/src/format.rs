//! What a provider's format is: the call it makes of a turn, and the answer it reads back. No I/O.
//!
//! A new format is a folder with an implementation of [`Format`]; connection, limits, health and the judgement of faults are
//! [`HttpProvider`](crate::HttpProvider)'s and the same for all.

use helix_ports::{ModelCapabilities, RateLimits, RateWindow, RawCall};
use helix_protocol::{ModelDelta, ModelReply, ModelRequest, OutputFormat, Usage, WireFormat};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::chat::WireError;

/// Why bytes are not an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The server put an error where the answer, or the rest of it, should be.
    #[error("the model server reported: {}", .0.message)]
    Reported(WireError),
    /// These bytes are not of the format.
    #[error("{0}")]
    Garbage(String),
}

/// How the pieces of a streamed answer are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON document a line.
    Ndjson,
}

/// The header that carries the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `authorization: Bearer …`
    Bearer,
    /// The key alone in a header of this name.
    Named(&'static str),
}

/// A turn with what its encoding depends on.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// What is asked.
    pub request: &'a ModelRequest,
    /// The model that is asked; the provider's default where the request names none.
    pub model: &'a str,
    /// What that model can do.
    pub capabilities: &'a ModelCapabilities,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// The temperature where the request names none.
    pub temperature: Option<f64>,
    /// Whether the answer shall come in pieces.
    pub stream: bool,
}

/// A turn as an HTTP request.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Under the base URL, without a leading slash.
    pub path: String,
    /// Headers beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Value,
}

/// A question to a server about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Under the base URL; from the root of the server where it begins with a slash.
    pub path: String,
    /// Posted where there is one, else the path is fetched.
    pub body: Option<Value>,
}

/// How large a model is, as its server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Tokens of a whole request that it takes as it is set up.
    pub usual: u64,
    /// As many as it could be set up to take.
    pub most: u64,
}

/// Reads an answer that comes in pieces.
pub trait Decoder: Send {
    /// True once the model has said something: from then on the answer is certainly being paid for.
    fn began(&self) -> bool;
    /// True once the event that ends an answer has come. What follows it is not read.
    fn is_complete(&self) -> bool;
    /// True where the end of the stream would end the answer, in formats that have no event for it: the
    /// model has said why it stops.
    fn ends_with_stream(&self) -> bool {
        false
    }
    /// Takes one event, and says what of it can be shown. `event` is the name that server-sent events may have.
    fn push(&mut self, event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError>;
    /// What has been used so far, as far as it was said.
    fn usage(&self) -> Option<Usage>;
    /// The answer. Its usage is zero and flagged as an estimate where the server sent none. An error where nothing came.
    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError>;
}

/// One format.
pub trait Format: Send + Sync + 'static {
    /// Its name.
    fn wire(&self) -> WireFormat;
    /// How its streams are cut.
    fn framing(&self) -> Framing {
        Framing::Sse
    }
    /// Where the key goes.
    fn key_header(&self) -> KeyHeader {
        KeyHeader::Bearer
    }
    /// Headers that every call of this format has.
    fn headers(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The turn as a request.
    fn encode(&self, turn: &Turn<'_>) -> Encoded;
    /// True where the turn's model can be made to call a tool, as the turn is encoded; where not, `encode` asks for it in words.
    fn forces_tools(&self, turn: &Turn<'_>) -> bool {
        turn.capabilities.forced_tools
    }
    /// False where the format cannot say what the text of an answer shall be.
    fn has_output(&self, _output: &OutputFormat) -> bool {
        true
    }
    /// A reader of a streamed answer.
    fn decoder(&self) -> Box<dyn Decoder>;
    /// A whole answer in one document.
    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError>;
    /// The request that counts a turn's tokens, where there is one.
    fn encode_count(&self, _turn: &Turn<'_>) -> Option<Encoded> {
        None
    }
    /// The count in its answer.
    fn decode_count(&self, _body: &Value) -> Option<u64> {
        None
    }
    /// Where the models are listed, under the base URL.
    fn models_path(&self) -> &str {
        "models"
    }
    /// Their names, for most formats the `id` of each entry of `data`; `None` where the document is not a list of models.
    fn decode_models(&self, body: &Value) -> Option<Vec<String>> {
        let entries = body.get("data")?.as_array()?;
        Some(entries.iter().filter_map(|entry| Some(entry.get("id")?.as_str()?.to_owned())).collect())
    }
    /// What to ask for a sign of life; `None` where listing the models is the only way.
    fn health_probe(&self) -> Option<Probe> {
        None
    }
    /// What its answer says, for people; the error says why the server cannot be used. `status` is the HTTP one.
    fn decode_health(&self, _status: u16, _body: &Value) -> Result<String, String> {
        Ok(String::new())
    }
    /// What to ask a healthy server for how busy it is.
    fn load_probe(&self) -> Option<Probe> {
        None
    }
    /// What its answer says, for people.
    fn decode_load(&self, _body: &Value) -> Option<String> {
        None
    }
    /// What to ask for the size of a model, where the server knows it.
    fn size_probe(&self, _model: &str) -> Option<Probe> {
        None
    }
    /// The size of `model` in its answer.
    fn decode_size(&self, _model: &str, _body: &Value) -> Option<Measured> {
        None
    }
    /// True of servers that leave out, without a word, what of a prompt they do not take.
    fn cuts_silently(&self) -> bool {
        false
    }
    /// False where a request carries more than its format has, which depends on the turn: then a client's bytes
    /// do not pass as they are.
    fn passes(&self) -> bool {
        true
    }
    /// Where a raw call goes, under the base URL; `None` where the format has no such operation.
    fn raw_path(&self, call: &RawCall) -> Option<String>;
    /// What an answer's headers say of limits.
    fn rate_limits(&self, headers: &HeaderMap) -> RateLimits {
        let window = |what: &str| {
            let number = |part: &str| text(headers, &format!("x-ratelimit-{part}-{what}")).and_then(|value| value.parse().ok());
            let reset_ms = text(headers, &format!("x-ratelimit-reset-{what}")).and_then(span_ms).unwrap_or(0);
            Some(RateWindow { limit: number("limit")?, remaining: number("remaining")?, reset_ms })
        };
        RateLimits { requests: window("requests"), tokens: window("tokens") }
    }
}

const YEAR_MS: f64 = 365.0 * 86_400_000.0;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A span such as `1m2.5s`, `250ms` or `6h0m` in milliseconds; a bare number is seconds. What is longer than a year is no span:
/// some servers write the time of the day here.
fn span_ms(span: &str) -> Option<u64> {
    let mut total = 0.0;
    let mut rest = span;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        total += number
            * match &rest[end..unit_end] {
                "ms" => 1.0,
                "s" | "" => 1_000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                "d" => 86_400_000.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (total <= YEAR_MS && !span.is_empty()).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_and_without_units() {
        for (span, expected) in [
            ("1m2.5s", Some(62_500)),
            ("250ms", Some(250)),
            ("6h0m", Some(21_600_000)),
            ("3", Some(3_000)),
            ("1795867200", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(span_ms(span), expected, "{span}");
        }
    }
}
