//! Anthropic's messages, in both directions and without I/O.
//!
//! [`encode_request`] and [`decode_reply`] / [`StreamDecoder`] are the client's side; [`decode_request`], [`encode_reply`],
//! [`StreamEncoder`] and [`encode_error`] are a server's.
//!
//! Where the format cannot carry what we have, this is what happens:
//! - Thinking of another provider has no signature that this one would accept, so it is left out.
//! - Empty texts, which it refuses, are left out, and so is a message that has nothing else.
//! - Arguments that are not a JSON object go inside one, as in [`crate::chat`].
//! - A standing instruction in the midst of a conversation is said by the user.

mod blocks;
mod cache;
mod format;
mod reply;
mod request;
mod serve;
mod stream;
mod stream_encoder;
#[cfg(test)]
mod tests;

pub(crate) use blocks::decode as decode_block;
pub use format::AnthropicMessages;
pub use reply::decode_reply;
pub use request::encode_request;
pub use serve::{decode_request, encode_error, encode_reply};
pub use stream::StreamDecoder;
pub use stream_encoder::StreamEncoder;
