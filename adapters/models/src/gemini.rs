//! Gemini's `generateContent`, in both directions and without I/O.
//!
//! [`encode_request`] and [`decode_reply`] / [`StreamDecoder`] are the client's side; [`decode_request`], [`encode_reply`],
//! [`StreamEncoder`] and [`encode_error`] are a server's.
//!
//! Where the format cannot carry what we have, this is what happens:
//! - Its calls often have no id. They are given one that is the same whenever the same answer is read, and differs between answers.
//! - A result names its tool, which is looked up by the id of the call.
//! - A call that lost its signature, because another provider made it, is marked as one not to be checked.
//! - Schemas of tools are reduced to the part of JSON Schema that it reads.
//! - Pictures of a tool result follow the result as parts of their own.

mod format;
mod parts;
mod reply;
mod request;
mod schema;
mod serve;
mod stream_encoder;
#[cfg(test)]
mod tests;

pub use format::Gemini;
pub use reply::{StreamDecoder, decode_reply};
pub use request::encode_request;
pub(crate) use serve::within;
pub use serve::{decode_request, encode_error, encode_reply};
pub use stream_encoder::StreamEncoder;
