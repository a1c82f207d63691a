//! A model server that answers from a transcript: the other end of the OpenAI-compatible provider in the demo and in tests.
//!
//! It is a real HTTP server with `/v1/models` and `/v1/chat/completions`, streaming or not. What it says is written in a
//! [`Transcript`]; which turn comes next follows from the request alone, so an agent that was moved to another worker, or
//! whose node was restarted, is answered as if nothing had happened. Its log has one line for each answer, with the
//! request's idempotency key: a key that was answered completely twice is a reply that was paid for twice.

mod answer;
mod fault;
mod log;
mod sample;
mod server;
#[cfg(test)]
mod tests;
mod transcript;

pub use fault::{Fault, FaultKind};
pub use log::{LogLine, read_log, repeated_replies};
pub use sample::{SAMPLE, SampleFile};
pub use server::{ScriptedServer, ServeArgs, serve};
pub use transcript::{DEMO, Transcript, demo};
