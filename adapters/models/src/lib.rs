//! Model providers over HTTP.
//!
//! A format is a folder of pure functions, both directions: what a client says and reads, and what a server does ([`chat`],
//! [`responses`], [`anthropic`], [`gemini`], [`ollama`]). [`HttpProvider`] is any of them with a connection, its time limits, and
//! the one decision that matters afterwards: whether a failed call may have been billed. It makes each call once and repeats
//! nothing, except that a key which was refused is renewed and tried again where there are [`Credentials`] that can.

pub mod anthropic;
mod carrying;
pub mod chat;
mod client;
mod connection;
mod credentials;
mod dates;
mod documents;
mod estimate;
mod events;
mod fault;
mod format;
mod forward;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
pub mod gemini;
mod images;
pub mod login;
mod models;
mod numbers;
pub mod ollama;
mod other_models;
mod output;
mod price;
mod provider;
pub mod responses;
mod sealed;
mod served;
pub mod servers;
mod session;
mod settings;
#[cfg(test)]
mod testing;
pub mod thinking;
mod tools;

pub use client::client_formats;
pub use credentials::{Access, Credentials};
pub use estimate::{request_tokens, text_tokens};
pub use format::{DecodeError, Decoder, Encoded, Format, Framing, KeyHeader, Measured, Probe, Turn};
pub use models::{ModelFacts, ModelLookup};
pub use price::{cost, dollars, price_per_million};
pub use provider::HttpProvider;
pub use served::{ServedEvent, ServedStream};
pub use settings::{ApiKey, Settings};
