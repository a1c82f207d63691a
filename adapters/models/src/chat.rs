//! The chat completions format, in both directions and without I/O.
//!
//! [`encode_request`] and [`decode_reply`] / [`StreamDecoder`] are the client's side; [`decode_request`],
//! [`encode_reply`], [`StreamEncoder`] and [`encode_error`] are a server's. What one side writes the other reads back
//! unchanged; the property tests say so.
//!
//! Where the format cannot carry what we have, this is what happens:
//! - Tool arguments that are not a JSON object are kept as a raw string. They go back to the model inside an object
//!   under [`RAW_ARGUMENTS`], because several servers refuse a whole conversation over one malformed argument.
//! - Thinking goes back under the field name it came with, and only to a server that sent it; clients are given what other
//!   providers signed in the field that OpenRouter has for that.
//! - A failed tool result is marked by a leading `error: `.
//! - Pictures of a tool result follow in the user's message after it: a `tool` message holds text.

mod details;
mod format;
mod reply;
mod request;
mod serve;
mod stream;
mod stream_encoder;
#[cfg(test)]
mod tests;

pub use format::ChatCompletions;
pub use reply::{WireError, decode_reply};
pub(crate) use reply::{argument_object, arguments_of, decode_arguments};
pub(crate) use request::encode_arguments;
pub use request::{LengthField, ThinkingField, encode_request};
pub(crate) use serve::within;
pub use serve::{decode_request, encode_error, encode_reply};
pub use stream::StreamDecoder;
pub use stream_encoder::{StreamEncoder, encode_chunks};

/// The key under which malformed arguments are given back to a model.
pub const RAW_ARGUMENTS: &str = "arguments_that_were_not_a_json_object";

/// What a failed tool result begins with on the wire.
pub(crate) const ERROR_PREFIX: &str = "error: ";
