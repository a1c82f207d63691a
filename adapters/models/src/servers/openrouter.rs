//! OpenRouter: other models where the first cannot answer, and what a call cost, as it was billed.

use helix_protocol::{ModelDelta, ModelReply, Money, Usage};
use serde_json::{Value, json};

use super::as_chat_completions;
use crate::chat::{ChatCompletions, LengthField, ThinkingField};
use crate::dollars;
use crate::format::{DecodeError, Decoder, Encoded, Format, Turn};
use crate::session::named_within;

/// The longest name of a session that the service takes.
const LONGEST_SESSION: usize = 256;

/// Chat completions of OpenRouter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRouter {
    chat: ChatCompletions,
    fallbacks: Vec<String>,
}

impl OpenRouter {
    /// `fallbacks` are asked in their order where the model of a turn cannot answer.
    pub fn new(fallbacks: Vec<String>) -> Self {
        let chat = ChatCompletions { length: LengthField::MaxTokens, thinking: ThinkingField::Reasoning };
        Self { chat, fallbacks }
    }
}

impl Format for OpenRouter {
    as_chat_completions!(chat);

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        let mut encoded = self.chat.encode(turn);
        if !self.fallbacks.is_empty() {
            let others = self.fallbacks.iter().map(String::as_str).filter(|model| *model != turn.model);
            encoded.body["models"] = [turn.model].into_iter().chain(others).collect();
        }
        encoded.body["usage"] = json!({"include": true});
        let mut say = |field: &str, value: Value| {
            // What a client says itself stands.
            encoded.body.as_object_mut().map(|body| body.entry(field).or_insert(value));
        };
        if turn.capabilities.cache_markers {
            // The service puts the marker itself, at the end of what can be kept; without a word nothing of a Claude's prompt is.
            say("cache_control", json!({"type": "ephemeral"}));
        }
        // Turns of one session go to the same of the many who serve a model, where their prompt is cached.
        if let Some(session) = &turn.request.session {
            say("session_id", json!(named_within(session, LONGEST_SESSION)));
        }
        encoded
    }

    /// Other models, sessions and cache markers are fields of the body.
    fn passes(&self) -> bool {
        false
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Billed { inner: self.chat.decoder(), cost: None })
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        let mut reply = self.chat.decode(body)?;
        reply.usage.cost = cost_in(body).unwrap_or(reply.usage.cost);
        Ok(reply)
    }
}

/// Reads beside the answer what it cost. A credit is a dollar.
struct Billed {
    inner: Box<dyn Decoder>,
    cost: Option<Money>,
}

impl Decoder for Billed {
    fn began(&self) -> bool {
        self.inner.began()
    }

    fn is_complete(&self) -> bool {
        self.inner.is_complete()
    }

    fn push(&mut self, event: Option<&str>, data: &[u8]) -> Result<Vec<ModelDelta>, DecodeError> {
        self.cost = cost_in(data).or(self.cost);
        self.inner.push(event, data)
    }

    fn usage(&self) -> Option<Usage> {
        let usage = self.inner.usage()?;
        Some(Usage { cost: self.cost.unwrap_or(usage.cost), ..usage })
    }

    fn finish(self: Box<Self>) -> Result<ModelReply, DecodeError> {
        let mut reply = self.inner.finish()?;
        reply.usage.cost = self.cost.unwrap_or(reply.usage.cost);
        Ok(reply)
    }
}

fn cost_in(data: &[u8]) -> Option<Money> {
    // Only the last piece of a stream has it; the others are not read twice.
    let has = data.windows(6).any(|window| window == b"\"cost\"");
    let value: Value = has.then(|| serde_json::from_slice(data).ok()).flatten()?;
    let cost = value.pointer("/usage/cost")?.as_f64().filter(|cost| cost.is_finite() && *cost >= 0.0)?;
    Some(dollars(cost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_ports::ModelCapabilities;
    use helix_protocol::{Extra, ModelRequest, WireFormat};

    #[test]
    fn other_models_are_named_after_the_first_and_not_twice() {
        let format = OpenRouter::new(vec!["b/two".to_owned(), "a/one".to_owned()]);
        let (request, capabilities) = (ModelRequest::default(), ModelCapabilities::default());
        let turn =
            Turn { request: &request, model: "a/one", capabilities: &capabilities, max_tokens: 1, temperature: None, stream: true };
        let body = format.encode(&turn).body;
        assert_eq!((&body["models"], &body["usage"]), (&json!(["a/one", "b/two"]), &json!({"include": true})));
    }

    #[test]
    fn a_claudes_prompt_is_cached_and_a_session_stays_where_that_is() {
        let body = |cache_markers: bool, request: &ModelRequest| {
            let capabilities = ModelCapabilities { cache_markers, ..ModelCapabilities::default() };
            let model = "anthropic/claude-sonnet-5-5";
            let turn = Turn { request, model, capabilities: &capabilities, max_tokens: 1, temperature: None, stream: true };
            OpenRouter::new(Vec::new()).encode(&turn).body
        };
        let of = |session: String| ModelRequest { session: Some(session), ..ModelRequest::default() };
        let sent = body(true, &of("task-1".to_owned()));
        assert_eq!((&sent["cache_control"], &sent["session_id"]), (&json!({"type": "ephemeral"}), &json!("task-1")));
        let sent = body(false, &of("x".repeat(257)));
        assert!(sent.get("cache_control").is_none(), "{sent}");
        assert_eq!(sent["session_id"].as_str().map(str::len), Some(64), "a name that is too long is hashed");
        let own = json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}});
        let extra = Extra::of(WireFormat::OpenaiChat, own.as_object().expect("an object").clone());
        let sent = body(true, &ModelRequest { extra, ..ModelRequest::default() });
        assert_eq!(sent["cache_control"]["ttl"], "1h");
    }

    #[test]
    fn a_call_costs_what_was_billed_streamed_or_not() {
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.0125});
        let whole = json!({"model": "b/two", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage});
        let format = OpenRouter::new(Vec::new());
        assert_eq!(format.decode(whole.to_string().as_bytes()).expect("an answer").usage.cost, Money(12_500));
        let mut decoder = format.decoder();
        for event in [json!({"choices": [{"delta": {"content": "x"}}]}), json!({"choices": [], "usage": usage})] {
            decoder.push(None, event.to_string().as_bytes()).expect("an event");
        }
        assert_eq!(decoder.usage().map(|usage| usage.cost), Some(Money(12_500)));
        assert_eq!(decoder.finish().expect("an answer").usage.cost, Money(12_500));
    }
}
