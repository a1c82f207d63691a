//! Formats that the gateway's clients speak. No I/O: what was read, and what is to be written.

use std::sync::Arc;

use helix_protocol::{Failure, ModelDelta, ModelReply, ModelRequest, WireFormat};
use serde_json::Value;

use crate::ModelCapabilities;

/// Names an answer in the client's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// Its id, without the prefix that some formats have.
    pub id: String,
    /// In seconds since 1970.
    pub created: i64,
    /// The model, as the client named it.
    pub model: String,
}

/// How far a request goes beyond what is read of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// So many answers are written to it.
    pub answers: u64,
    /// It goes on from what its provider keeps, whose length nobody here knows.
    pub goes_on: bool,
    /// Some of it is written into its provider's cache to be kept for an hour.
    pub hour_in_cache: bool,
}

impl Default for Extent {
    fn default() -> Self {
        Self { answers: 1, goes_on: false, hour_in_cache: false }
    }
}

/// One format, from a server's side.
pub trait ClientFormat: Send + Sync + 'static {
    /// Its name.
    fn wire(&self) -> WireFormat;
    /// Reads a request. The error is for the client: what is missing, or cannot be used.
    fn decode(&self, body: &Value) -> Result<ModelRequest, String>;
    /// What a request can use that passes as it is: what can be read of it, where anything can, and how far it goes beyond that.
    fn measure(&self, body: &Value) -> (Option<ModelRequest>, Extent) {
        (self.decode(body).ok(), Extent::default())
    }
    /// A whole answer.
    fn encode(&self, reply: &ModelReply, head: &AnswerHead) -> Value;
    /// A writer of an answer in pieces; `body` is the request, which may say how.
    fn stream(&self, body: &Value, head: &AnswerHead) -> Box<dyn ClientStream>;
    /// True where the request asks for an answer in pieces.
    fn wants_pieces(&self, body: &Value) -> bool {
        body.get("stream").and_then(Value::as_bool).unwrap_or(false)
    }
    /// The content type of an answer in pieces.
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }
    /// A refusal, for a response of this status.
    fn error(&self, status: u16, failure: &Failure) -> Value;
    /// How many tokens a request is.
    fn count(&self, tokens: u64) -> Value;
    /// The models that can be asked for.
    fn models(&self, names: &[String]) -> Value;
    /// One of them, where it is asked for by its name.
    fn model(&self, name: &str) -> Value;
    /// What one of them can do; `None` where the format has no such address.
    fn describe(&self, _capabilities: &ModelCapabilities) -> Option<Value> {
        None
    }
    /// The format's other address: a prompt in place of a conversation; `None` where there is none.
    fn prompts(&self) -> Option<Arc<dyn ClientFormat>> {
        None
    }
    /// False where its bytes must be read and written anew, even for a provider of the same name.
    fn passes(&self) -> bool {
        true
    }
}

/// Writes one answer in pieces. Called in this order: `start`, `push` for each piece, then `finish` or `error`; between them
/// `keep_alive` at any time.
pub trait ClientStream: Send {
    /// What comes before the first piece, as bytes of the stream.
    fn start(&mut self) -> String;
    /// One piece.
    fn push(&mut self, delta: &ModelDelta) -> String;
    /// A sign of life while no piece comes; empty in formats that have none.
    fn keep_alive(&mut self) -> String;
    /// What no piece brought, and the end.
    fn finish(&mut self, reply: &ModelReply) -> String;
    /// The answer breaks off.
    fn error(&mut self, status: u16, failure: &Failure) -> String;
}
