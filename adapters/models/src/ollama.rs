//! Ollama's own chat, from both sides and without I/O.
//!
//! An answer is a line of JSON for each piece, whole or streamed; the last says `done`. What the format does not have:
//! - A choice of tools: where a call is demanded the model is asked in words, where none is wanted no tools are sent.
//! - A price, a cache that one could ask for, and an error's kind: a line with `error` ends the answer.
//! - A context of its own accord: `num_ctx` is sent with every request, so that the size we count with is the one that holds.

mod format;
mod prompt;
mod request;
mod serve;
mod stream;
#[cfg(test)]
mod tests;

pub use format::Ollama;
pub use prompt::{ResponseEncoder, decode_prompt, describe, encode_response};
pub use request::encode_request;
pub use serve::{StreamEncoder, decode_request, encode_error, encode_reply};
pub use stream::StreamDecoder;
