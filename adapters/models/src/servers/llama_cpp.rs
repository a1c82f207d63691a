//! The server of llama.cpp: it says itself whether its model is loaded, how long a request it takes, and how
//! many of its slots are busy.

use helix_protocol::ModelReply;
use serde_json::Value;

use super::as_chat_completions;
use crate::chat::ChatCompletions;
use crate::format::{DecodeError, Decoder, Encoded, Format, Measured, Probe, Turn};

/// Chat completions of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LlamaCpp {
    chat: ChatCompletions,
}

impl LlamaCpp {
    /// As the server at `base_url` wants them.
    pub fn at(base_url: &str) -> Self {
        Self { chat: ChatCompletions::at(base_url) }
    }
}

impl Format for LlamaCpp {
    as_chat_completions!(chat);

    fn encode(&self, turn: &Turn<'_>) -> Encoded {
        let mut encoded = self.chat.encode(turn);
        // The prefix that the last turn left in a slot is used again.
        encoded.body["cache_prompt"] = Value::Bool(true);
        encoded
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        self.chat.decoder()
    }

    fn decode(&self, body: &[u8]) -> Result<ModelReply, DecodeError> {
        self.chat.decode(body)
    }

    fn health_probe(&self) -> Option<Probe> {
        Some(Probe { path: "/health".to_owned(), body: None })
    }

    fn decode_health(&self, status: u16, body: &Value) -> Result<String, String> {
        if status == 200 {
            return Ok(String::new());
        }
        let said = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("it does not say why");
        Err(format!("the server answered {status}: {said}"))
    }

    fn load_probe(&self) -> Option<Probe> {
        Some(Probe { path: "/slots".to_owned(), body: None })
    }

    /// Some servers are started without slots to be seen; then nothing is said.
    fn decode_load(&self, body: &Value) -> Option<String> {
        let slots = body.as_array().filter(|slots| !slots.is_empty())?;
        let busy = slots.iter().filter(|slot| slot.get("is_processing").and_then(Value::as_bool) == Some(true)).count();
        Some(format!("{busy} of {} slots busy", slots.len()))
    }

    fn size_probe(&self, _model: &str) -> Option<Probe> {
        Some(Probe { path: "/props".to_owned(), body: None })
    }

    /// The size of one slot: the server divides its whole context among them.
    fn decode_size(&self, _model: &str, body: &Value) -> Option<Measured> {
        let size = body.pointer("/default_generation_settings/n_ctx")?.as_u64().filter(|size| *size > 0)?;
        Some(Measured { usual: size, most: size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn health_size_and_slots_are_what_the_server_says() {
        let server = LlamaCpp::at("http://127.0.0.1:8080/v1");
        assert_eq!(server.decode_health(200, &json!({"status": "ok"})), Ok(String::new()));
        let loading = json!({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}});
        assert_eq!(server.decode_health(503, &loading), Err("the server answered 503: Loading model".to_owned()));
        let props = json!({"default_generation_settings": {"n_ctx": 8_192}, "total_slots": 2});
        assert_eq!(server.decode_size("", &props), Some(Measured { usual: 8_192, most: 8_192 }));
        let slots = json!([{"id": 0, "is_processing": true}, {"id": 1, "is_processing": false}]);
        assert_eq!(server.decode_load(&slots).as_deref(), Some("1 of 2 slots busy"));
        assert_eq!(server.decode_load(&json!({"error": "no"})), None);
    }
}
