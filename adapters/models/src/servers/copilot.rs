//! GitHub Copilot: a private interface that speaks chat completions and bills requests that a person began, not those of an agent.

use helix_protocol::{Block, ModelReply, ModelRequest, Role};
use serde_json::Value;

use super::as_chat_completions;
use crate::chat::{ChatCompletions, LengthField, ThinkingField};
use crate::format::{DecodeError, Decoder, Encoded, Format, Measured, Probe, Turn};

/// Chat completions of GitHub Copilot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copilot {
    chat: ChatCompletions,
    integration: String,
}

impl Default for Copilot {
    /// The service answers integrations that it knows; this is the one that chat clients name.
    fn default() -> Self {
        Self::new("vscode-chat")
    }
}

impl Copilot {
    /// `integration` is the id under which the service knows its clients.
    pub fn new(integration: &str) -> Self {
        let chat = ChatCompletions { length: LengthField::MaxTokens, thinking: ThinkingField::ReasoningEffort };
        Self { chat, integration: integration.to_owned() }
    }
}

impl Format for Copilot {
    as_chat_completions!(chat);

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![
            ("editor-version", concat!("helix/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("copilot-integration-id", self.integration.clone()),
        ]
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        let mut encoded = self.chat.encode(turn);
        encoded.headers.push(("x-initiator", initiator(turn.request).to_owned()));
        if has_pictures(turn.request) {
            encoded.headers.push(("copilot-vision-request", "true".to_owned()));
        }
        encoded
    }

    /// What is billed depends on who began a request, and that is said in a header.
    fn passes(&self) -> bool {
        false
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        self.chat.decoder()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        self.chat.decode(body)
    }

    fn size_probe(&self, _model: &str) -> Option<Probe> {
        Some(Probe { path: self.models_path().to_owned(), body: None })
    }

    /// What a prompt may have is less than what prompt and answer may, and is taken for both: it is what the service refuses by.
    fn decode_size(&self, model: &str, body: &Value) -> Option<Measured> {
        let entry = body.get("data")?.as_array()?.iter().find(|entry| entry.get("id").is_some_and(|id| id == model))?;
        let limits = entry.pointer("/capabilities/limits")?;
        let said = ["max_prompt_tokens", "max_context_window_tokens"].map(|limit| limits.get(limit).and_then(Value::as_u64));
        let size = said.into_iter().flatten().filter(|size| *size > 0).min()?;
        Some(Measured { usual: size, most: size })
    }
}

/// Who began this request: an agent where it goes on after its own calls.
fn initiator(request: &ModelRequest) -> &'static str {
    let last = request.messages.iter().rev().find(|message| message.role != Role::System);
    let by_person = last.is_none_or(|message| {
        message.role == Role::User && !message.blocks.iter().any(|block| matches!(block, Block::ToolResult { .. }))
    });
    if by_person { "user" } else { "agent" }
}

fn has_pictures(request: &ModelRequest) -> bool {
    let blocks = request.messages.iter().flat_map(|message| &message.blocks);
    blocks.into_iter().any(|block| match block {
        Block::Image { .. } => true,
        Block::ToolResult { images, .. } => !images.is_empty(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_ports::ModelCapabilities;
    use helix_protocol::{ImageSource, Message};
    use serde_json::json;

    fn headers(messages: Vec<Message>) -> Vec<(&'static str, String)> {
        let (request, capabilities) = (ModelRequest { messages, ..ModelRequest::default() }, ModelCapabilities::default());
        let turn =
            Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 1, temperature: None, stream: true };
        Copilot::default().encode(&turn).headers
    }

    #[test]
    fn each_models_size_is_the_lesser_that_the_list_of_models_says() {
        let entry = |id: &str, limits: Value| json!({"id": id, "capabilities": {"family": id, "limits": limits}});
        let list = json!({"data": [
            entry("haiku", json!({"max_context_window_tokens": 144_000, "max_output_tokens": 16_000, "max_prompt_tokens": 128_000})),
            entry("old", json!({"max_context_window_tokens": 16_384})),
            entry("odd", json!({"max_context_window_tokens": 100_000, "max_prompt_tokens": 0})),
            entry("silent", json!({})),
            json!({"id": "bare"}),
        ]});
        let size = |model| Copilot::default().decode_size(model, &list).map(|size| size.usual);
        assert_eq!(
            ["haiku", "old", "odd", "silent", "bare", "absent"].map(size),
            [Some(128_000), Some(16_384), Some(100_000), None, None, None]
        );
        assert_eq!(Copilot::default().decode_size("haiku", &json!({"error": "no"})), None);
    }

    #[test]
    fn a_person_begins_and_an_agent_goes_on() {
        let result =
            |images| Block::ToolResult { id: "a".to_owned(), content: String::new(), images, is_error: false, extra: None };
        assert_eq!(headers(vec![Message::text(Role::User, "go")]), [("x-initiator", "user".to_owned())]);
        let goes_on = Message { role: Role::User, blocks: vec![result(Vec::new())] };
        assert_eq!(headers(vec![Message::text(Role::User, "go"), goes_on]), [("x-initiator", "agent".to_owned())]);
        let seen =
            Message { role: Role::User, blocks: vec![result(vec![ImageSource::Url { url: "https://example.org/a".to_owned() }])] };
        assert_eq!(headers(vec![seen])[1], ("copilot-vision-request", "true".to_owned()));
    }
}
