//! OpenAI's own responses: the service counts what a prompt has, before it is sent.

use helix_ports::RawCall;
use helix_protocol::{ModelReply, WireFormat};
use serde_json::Value;

use crate::format::{DecodeError, Decoder, Encoded, Format, Turn};
use crate::responses::Responses;

/// What of a request is counted; the service refuses any other field there.
const COUNTED: [&str; 7] = ["model", "input", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text"];

/// Responses of OpenAI. Others who serve the format count nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenAi;

impl OpenAi {
    /// True where `base_url` is the service's own.
    pub fn is_at(base_url: &str) -> bool {
        base_url.contains("://api.openai.com")
    }
}

impl Format for OpenAi {
    fn wire(&self) -> WireFormat {
        Responses.wire()
    }

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        Responses.encode(turn)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Responses.decoder()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        Responses.decode(body)
    }

    fn encode_count(&self, turn: &Turn<'_>) -> Option<Encoded> {
        let mut encoded = Responses.encode(turn);
        encoded.body.as_object_mut()?.retain(|field, _| COUNTED.contains(&field.as_str()));
        Some(Encoded { path: "responses/input_tokens".to_owned(), ..encoded })
    }

    fn decode_count(&self, body: &Value) -> Option<u64> {
        body.get("input_tokens")?.as_u64()
    }

    fn raw_path(&self, call: &RawCall) -> Option<String> {
        Responses.raw_path(call)
    }
}

#[cfg(test)]
mod tests {
    use helix_ports::ModelCapabilities;
    use helix_protocol::{Message, ModelRequest, Role, ThinkingControl, WorkspaceTool};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_counted_is_what_is_sent_without_what_makes_no_prompt() {
        let request = ModelRequest {
            messages: vec![Message::text(Role::User, "hi")],
            tools: vec![WorkspaceTool::Read.schema()],
            session: Some("s".to_owned()),
            ..ModelRequest::default()
        };
        let capabilities = ModelCapabilities { thinking: ThinkingControl::Effort, ..ModelCapabilities::default() };
        let turn =
            Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: true };
        let (sent, counted) = (OpenAi.encode(&turn).body, OpenAi.encode_count(&turn).expect("it counts"));
        assert_eq!(counted.path, "responses/input_tokens");
        let fields: Vec<&String> = counted.body.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["model", "input", "tools", "tool_choice"]);
        assert!(fields.iter().all(|field| counted.body[*field] == sent[*field]));
        assert_eq!(OpenAi.decode_count(&json!({"object": "response.input_tokens", "input_tokens": 7})), Some(7));
        assert!(OpenAi::is_at("https://api.openai.com/v1") && !OpenAi::is_at("https://api.x.ai/v1"));
    }
}
