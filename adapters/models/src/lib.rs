//! Model providers over HTTP.
//!
//! [`OpenAiCompatible`] speaks the chat completions format to any base URL: OpenAI, a gateway, or a server on
//! this machine. [`chat`] is that format in both directions, as pure functions; [`OpenAiCompatible`] adds the
//! connection, its time limits, and the one decision that matters afterwards: whether a failed call may have
//! been billed. It makes each call once and repeats nothing.

pub mod chat;
mod connection;
mod estimate;
mod fault;
mod price;
mod provider;
mod settings;

pub use estimate::{request_tokens, text_tokens};
pub use price::{cost, price_per_million};
pub use provider::OpenAiCompatible;
pub use settings::{ApiKey, Settings};
