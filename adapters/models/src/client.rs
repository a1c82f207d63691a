//! The formats that clients of the gateway speak, as its port wants them.

use std::sync::Arc;

use helix_ports::{AnswerHead, ClientFormat, ClientStream};
use helix_protocol::{Failure, ModelDelta, ModelReply, ModelRequest, WireFormat};
use serde_json::{Value, json};

use crate::served::{ServedEvent, ServedStream};
use crate::{anthropic, chat, gemini, responses};

/// Every format that is served.
pub fn client_formats() -> Vec<Arc<dyn ClientFormat>> {
    let chat = Served {
        wire: WireFormat::OpenaiChat,
        prefix: "chatcmpl-",
        decode: chat::decode_request,
        encode: chat::encode_reply,
        error: chat::encode_error,
        stream: chat_stream,
        count: |tokens| json!({"total_tokens": tokens}),
        models: openai_models,
    };
    let responses = Served {
        wire: WireFormat::OpenaiResponses,
        prefix: "resp_",
        decode: responses::decode_request,
        encode: responses::encode_reply,
        error: responses::encode_error,
        stream: |_, head, id| Box::new(responses::StreamEncoder::new(&head.model, id, head.created)),
        count: |tokens| json!({"object": "response.input_tokens", "input_tokens": tokens}),
        models: openai_models,
    };
    let anthropic = Served {
        wire: WireFormat::Anthropic,
        prefix: "msg_",
        decode: anthropic::decode_request,
        encode: anthropic::encode_reply,
        error: anthropic::encode_error,
        stream: |_, head, id| Box::new(anthropic::StreamEncoder::new(&head.model, id, head.created)),
        count: |tokens| json!({"input_tokens": tokens}),
        models: anthropic_models,
    };
    let gemini = Served {
        wire: WireFormat::Gemini,
        prefix: "",
        // The model stands in the address, and the gateway has it from there.
        decode: |body| gemini::decode_request(body, ""),
        encode: gemini::encode_reply,
        error: gemini::encode_error,
        stream: |_, head, id| Box::new(gemini::StreamEncoder::new(&head.model, id, head.created)),
        count: |tokens| json!({"totalTokens": tokens}),
        models: gemini_models,
    };
    vec![Arc::new(chat), Arc::new(responses), Arc::new(anthropic), Arc::new(gemini)]
}

/// A format's functions.
struct Served {
    wire: WireFormat,
    /// What the ids of its answers begin with.
    prefix: &'static str,
    decode: fn(&Value) -> Result<ModelRequest, String>,
    encode: fn(&ModelReply, &str, i64) -> Value,
    error: fn(u16, &Failure) -> Value,
    stream: fn(&Value, &AnswerHead, &str) -> Box<dyn ServedStream>,
    count: fn(u64) -> Value,
    models: fn(&[String]) -> Value,
}

impl Served {
    fn id(&self, head: &AnswerHead) -> String {
        format!("{}{}", self.prefix, head.id)
    }
}

impl ClientFormat for Served {
    fn wire(&self) -> WireFormat {
        self.wire
    }

    fn decode(&self, body: &Value) -> Result<ModelRequest, String> {
        (self.decode)(body)
    }

    fn encode(&self, reply: &ModelReply, head: &AnswerHead) -> Value {
        (self.encode)(reply, &self.id(head), head.created)
    }

    fn stream(&self, body: &Value, head: &AnswerHead) -> Box<dyn ClientStream> {
        Box::new(Sse((self.stream)(body, head, &self.id(head))))
    }

    fn error(&self, status: u16, failure: &Failure) -> Value {
        (self.error)(status, failure)
    }

    fn count(&self, tokens: u64) -> Value {
        (self.count)(tokens)
    }

    fn models(&self, names: &[String]) -> Value {
        (self.models)(names)
    }
}

/// A stream of a format as server-sent events.
struct Sse(Box<dyn ServedStream>);

fn framed(events: Vec<ServedEvent>) -> String {
    events.iter().map(ServedEvent::to_sse).collect()
}

impl ClientStream for Sse {
    fn start(&mut self) -> String {
        framed(self.0.start())
    }

    fn push(&mut self, delta: &ModelDelta) -> String {
        framed(self.0.push(delta))
    }

    fn finish(&mut self, reply: &ModelReply) -> String {
        let mut text = framed(self.0.finish(reply));
        if let Some(last) = self.0.terminator() {
            text.push_str(&format!("data: {last}\n\n"));
        }
        text
    }

    fn error(&mut self, status: u16, failure: &Failure) -> String {
        framed(self.0.error(status, failure))
    }
}

fn chat_stream(body: &Value, head: &AnswerHead, id: &str) -> Box<dyn ServedStream> {
    let encoder = chat::StreamEncoder::new(&head.model, id, head.created);
    // Strict clients do not expect the chunk with no choices unless they asked for it.
    match body.pointer("/stream_options/include_usage").and_then(Value::as_bool) {
        Some(true) => Box::new(encoder),
        _ => Box::new(encoder.without_usage()),
    }
}

fn openai_models(names: &[String]) -> Value {
    let model = |name: &String| json!({"id": name, "object": "model", "created": 0, "owned_by": "helix"});
    json!({"object": "list", "data": names.iter().map(model).collect::<Vec<_>>()})
}

fn anthropic_models(names: &[String]) -> Value {
    let model = |name: &String| json!({"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"});
    json!({
        "data": names.iter().map(model).collect::<Vec<_>>(),
        "has_more": false,
        "first_id": names.first(),
        "last_id": names.last(),
    })
}

fn gemini_models(names: &[String]) -> Value {
    let methods = ["generateContent", "streamGenerateContent", "countTokens"];
    let model =
        |name: &String| json!({"name": format!("models/{name}"), "displayName": name, "supportedGenerationMethods": methods});
    json!({"models": names.iter().map(model).collect::<Vec<_>>()})
}
