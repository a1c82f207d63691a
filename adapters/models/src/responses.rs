//! OpenAI's responses, in both directions and without I/O.
//!
//! Everything is stateless: nothing is stored at the server (`store: false`), and what it would have kept for us comes along
//! encrypted (`reasoning.encrypted_content`) and is given back.
//!
//! Where the format says more than our blocks can, the rest lies in a block's `extra`:
//! - An item of reasoning is kept whole under `item`, and goes back unchanged.
//! - A message's own fields are kept under `message`, those of one of its parts under `part`; texts with
//!   equal ones share a message.
//! - A call keeps its item's `id`, and its `arguments` where the model wrote them in other words than we would.
//! - Items of a kind that nobody here knows are [`Block::Unknown`](helix_protocol::Block::Unknown).
//!
//! A failed tool result is marked by a leading `error: `, because the format has no word for it.

mod format;
mod items;
mod reply;
mod request;
mod serve;
mod stream;
mod stream_encoder;
#[cfg(test)]
mod tests;

pub use crate::chat::encode_error;
pub use format::Responses;
pub use reply::decode_reply;
pub use request::encode_request;
pub(crate) use serve::within;
pub use serve::{decode_request, encode_reply};
pub use stream::StreamDecoder;
pub use stream_encoder::StreamEncoder;
