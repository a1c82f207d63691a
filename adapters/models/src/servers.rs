//! Servers that speak a format that many serve, and something of their own besides: [`LlamaCpp`], [`OpenRouter`] and [`Copilot`] with
//! chat completions, [`OpenAi`] with responses.
//!
//! Each is the format with what it adds; the rest passes through.

mod copilot;
mod llama_cpp;
mod openai;
mod openrouter;

pub use copilot::Copilot;
pub use llama_cpp::LlamaCpp;
pub use openai::OpenAi;
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
