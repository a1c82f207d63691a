//! Servers that speak chat completions and something of their own besides: [`LlamaCpp`], [`OpenRouter`] and [`Copilot`].
//!
//! Each is [`ChatCompletions`] with what it adds; the rest passes through.

mod copilot;
mod llama_cpp;
mod openrouter;

pub use copilot::Copilot;
pub use llama_cpp::LlamaCpp;
pub use openrouter::OpenRouter;

/// The methods of [`Format`](crate::Format) that a server leaves to chat completions.
macro_rules! as_chat_completions {
    ($chat:ident) => {
        fn wire(&self) -> helix_protocol::WireFormat {
            self.$chat.wire()
        }

        fn decode_models(&self, body: &serde_json::Value) -> Option<Vec<String>> {
            self.$chat.decode_models(body)
        }

        fn raw_path(&self, call: &helix_ports::RawCall) -> Option<String> {
            self.$chat.raw_path(call)
        }
    };
}
pub(crate) use as_chat_completions;
