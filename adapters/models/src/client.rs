//! The formats that clients of the gateway speak, as its port wants them.

use std::sync::Arc;

use helix_ports::{AnswerHead, ClientFormat, ClientStream, Extent, ModelCapabilities};
use helix_protocol::{Failure, ModelDelta, ModelReply, ModelRequest, WireFormat};
use serde_json::{Value, json};

use crate::served::{ServedEvent, ServedStream};
use crate::{Framing, anthropic, chat, gemini, ollama, responses};

/// Every format that is served.
pub fn client_formats() -> Vec<Arc<dyn ClientFormat>> {
    let chat = Served {
        wire: WireFormat::OpenaiChat,
        prefix: "chatcmpl-",
        framing: Framing::Sse,
        decode: chat::decode_request,
        within: chat::within,
        encode: chat::encode_reply,
        error: chat::encode_error,
        stream: chat_stream,
        count: |tokens| json!({"total_tokens": tokens}),
        model: openai_model,
        models: openai_models,
        describe: None,
        prompts: Prompts::Unknown,
    };
    let responses = Served {
        wire: WireFormat::OpenaiResponses,
        prefix: "resp_",
        framing: Framing::Sse,
        decode: responses::decode_request,
        within: responses::within,
        encode: responses::encode_reply,
        error: responses::encode_error,
        stream: |_, head, id| Box::new(responses::StreamEncoder::new(&head.model, id, head.created)),
        count: |tokens| json!({"object": "response.input_tokens", "input_tokens": tokens}),
        model: openai_model,
        models: openai_models,
        describe: None,
        prompts: Prompts::Unknown,
    };
    let anthropic = Served {
        wire: WireFormat::Anthropic,
        prefix: "msg_",
        framing: Framing::Sse,
        decode: anthropic::decode_request,
        within: |_| None,
        encode: anthropic::encode_reply,
        error: anthropic::encode_error,
        stream: |_, head, id| Box::new(anthropic::StreamEncoder::new(&head.model, id, head.created)),
        count: |tokens| json!({"input_tokens": tokens}),
        model: anthropic_model,
        models: anthropic_models,
        describe: None,
        prompts: Prompts::Unknown,
    };
    let gemini = Served {
        wire: WireFormat::Gemini,
        prefix: "",
        framing: Framing::Sse,
        // The model stands in the address, and the gateway has it from there.
        decode: |body| gemini::decode_request(body, ""),
        within: gemini::within,
        encode: gemini::encode_reply,
        error: gemini::encode_error,
        stream: |_, head, id| Box::new(gemini::StreamEncoder::new(&head.model, id, head.created)),
        count: |tokens| json!({"totalTokens": tokens}),
        model: gemini_model,
        models: gemini_models,
        describe: None,
        prompts: Prompts::Unknown,
    };
    // The format has no address for counting.
    let count: fn(u64) -> Value = |tokens| json!({"prompt_eval_count": tokens});
    let prompts = Served {
        wire: WireFormat::Ollama,
        prefix: "",
        framing: Framing::Ndjson,
        decode: ollama::decode_prompt,
        within: |_| None,
        encode: ollama::encode_response,
        error: ollama::encode_error,
        stream: |_, head, _| Box::new(ollama::ResponseEncoder::new(&head.model, head.created)),
        count,
        model: ollama_model,
        models: ollama_models,
        describe: None,
        prompts: Prompts::AreThese,
    };
    let ollama = Served {
        wire: WireFormat::Ollama,
        prefix: "",
        framing: Framing::Ndjson,
        decode: ollama::decode_request,
        within: |_| None,
        encode: ollama::encode_reply,
        error: ollama::encode_error,
        stream: |_, head, _| Box::new(ollama::StreamEncoder::new(&head.model, head.created)),
        count,
        model: ollama_model,
        models: ollama_models,
        describe: Some(ollama::describe),
        prompts: Prompts::By(Arc::new(prompts)),
    };
    vec![Arc::new(chat), Arc::new(responses), Arc::new(anthropic), Arc::new(gemini), Arc::new(ollama)]
}

/// A format's functions.
struct Served {
    wire: WireFormat,
    /// What the ids of its answers begin with.
    prefix: &'static str,
    /// How an answer in pieces is cut.
    framing: Framing,
    decode: fn(&Value) -> Result<ModelRequest, String>,
    /// A request that goes beyond what is read as one that does not, and how far it goes.
    within: fn(&Value) -> Option<(Value, Extent)>,
    encode: fn(&ModelReply, &str, i64) -> Value,
    error: fn(u16, &Failure) -> Value,
    stream: fn(&Value, &AnswerHead, &str) -> Box<dyn ServedStream>,
    count: fn(u64) -> Value,
    model: fn(&str) -> Value,
    models: fn(&[String]) -> Value,
    describe: Option<fn(&ModelCapabilities) -> Value>,
    prompts: Prompts,
}

/// Where a format takes a prompt in place of a conversation.
enum Prompts {
    /// Nowhere.
    Unknown,
    /// At the address of this other one.
    By(Arc<dyn ClientFormat>),
    /// Here.
    AreThese,
}

impl Served {
    fn id(&self, head: &AnswerHead) -> String {
        format!("{}{}", self.prefix, head.id)
    }
}

/// True where a cache marker asks for an hour, wherever in a request it stands.
fn asks_for_an_hour(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(field, value)| (field == "ttl" && value == "1h") || asks_for_an_hour(value)),
        Value::Array(values) => values.iter().any(asks_for_an_hour),
        _ => false,
    }
}

impl ClientFormat for Served {
    fn wire(&self) -> WireFormat {
        self.wire
    }

    fn decode(&self, body: &Value) -> Result<ModelRequest, String> {
        (self.decode)(body)
    }

    fn measure(&self, body: &Value) -> (Option<ModelRequest>, Extent) {
        let (request, extent) = match (self.within)(body) {
            Some((within, extent)) => ((self.decode)(&within).ok(), extent),
            None => ((self.decode)(body).ok(), Extent::default()),
        };
        (request, Extent { hour_in_cache: asks_for_an_hour(body), ..extent })
    }

    fn encode(&self, reply: &ModelReply, head: &AnswerHead) -> Value {
        (self.encode)(reply, &self.id(head), head.created)
    }

    fn stream(&self, body: &Value, head: &AnswerHead) -> Box<dyn ClientStream> {
        Box::new(Written { stream: (self.stream)(body, head, &self.id(head)), framing: self.framing })
    }

    /// Ollama streams unless it is told not to.
    fn wants_pieces(&self, body: &Value) -> bool {
        body.get("stream").and_then(Value::as_bool).unwrap_or(self.framing == Framing::Ndjson)
    }

    fn stream_type(&self) -> &'static str {
        match self.framing {
            Framing::Sse => "text/event-stream; charset=utf-8",
            Framing::Ndjson => "application/x-ndjson",
        }
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

    fn model(&self, name: &str) -> Value {
        (self.model)(name)
    }

    fn describe(&self, capabilities: &ModelCapabilities) -> Option<Value> {
        self.describe.map(|describe| describe(capabilities))
    }

    fn prompts(&self) -> Option<Arc<dyn ClientFormat>> {
        match &self.prompts {
            Prompts::By(format) => Some(Arc::clone(format)),
            Prompts::Unknown | Prompts::AreThese => None,
        }
    }

    /// A provider is asked with conversations.
    fn passes(&self) -> bool {
        !matches!(self.prompts, Prompts::AreThese)
    }
}

/// A stream of a format as its bytes.
struct Written {
    stream: Box<dyn ServedStream>,
    framing: Framing,
}

impl Written {
    fn framed(&self, events: &[ServedEvent]) -> String {
        let framed = |event: &ServedEvent| match self.framing {
            Framing::Sse => event.to_sse(),
            Framing::Ndjson => format!("{}\n", event.data),
        };
        events.iter().map(framed).collect()
    }
}

impl ClientStream for Written {
    fn start(&mut self) -> String {
        let events = self.stream.start();
        self.framed(&events)
    }

    fn push(&mut self, delta: &ModelDelta) -> String {
        let events = self.stream.push(delta);
        self.framed(&events)
    }

    fn keep_alive(&mut self) -> String {
        match (self.framing, self.stream.ping()) {
            (_, Some(ping)) => self.framed(&[ping]),
            // A comment, which readers of events skip.
            (Framing::Sse, None) => ": keep-alive\n\n".to_owned(),
            (Framing::Ndjson, None) => String::new(),
        }
    }

    fn finish(&mut self, reply: &ModelReply) -> String {
        let events = self.stream.finish(reply);
        let mut text = self.framed(&events);
        if let Some(last) = self.stream.terminator() {
            text.push_str(&format!("data: {last}\n\n"));
        }
        text
    }

    fn error(&mut self, status: u16, failure: &Failure) -> String {
        let events = self.stream.error(status, failure);
        self.framed(&events)
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

fn openai_model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "helix"})
}

fn openai_models(names: &[String]) -> Value {
    json!({"object": "list", "data": all(names, openai_model)})
}

fn anthropic_model(name: &str) -> Value {
    json!({"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"})
}

fn anthropic_models(names: &[String]) -> Value {
    json!({"data": all(names, anthropic_model), "has_more": false, "first_id": names.first(), "last_id": names.last()})
}

fn gemini_model(name: &str) -> Value {
    let methods = ["generateContent", "streamGenerateContent", "countTokens"];
    json!({"name": format!("models/{name}"), "displayName": name, "supportedGenerationMethods": methods})
}

fn gemini_models(names: &[String]) -> Value {
    json!({"models": all(names, gemini_model)})
}

/// What Ollama says of a model that lies on its disk; what the node does not know of it is empty.
fn ollama_model(name: &str) -> Value {
    let details = json!({"format": "", "family": "", "families": null, "parameter_size": "", "quantization_level": ""});
    json!({"name": name, "model": name, "modified_at": "1970-01-01T00:00:00Z", "size": 0, "digest": "", "details": details})
}

fn ollama_models(names: &[String]) -> Value {
    json!({"models": all(names, ollama_model)})
}

fn all(names: &[String], model: fn(&str) -> Value) -> Vec<Value> {
    names.iter().map(|name| model(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_own_sign_of_life() {
        let head = AnswerHead { id: "1".to_owned(), created: 0, model: "m".to_owned() };
        for format in client_formats() {
            let expected = match format.wire() {
                WireFormat::Anthropic => "event: ping\ndata: {\"type\":\"ping\"}\n\n",
                WireFormat::Ollama => "",
                _ => ": keep-alive\n\n",
            };
            assert_eq!(format.stream(&json!({}), &head).keep_alive(), expected, "{:?}", format.wire());
        }
    }

    #[test]
    fn what_decoding_refuses_is_measured_without_it_and_how_far_it_goes_is_said() {
        let clients = client_formats();
        let measured = |wire: WireFormat, body: Value| {
            let client = clients.iter().find(|client| client.wire() == wire).expect("it is served");
            let (request, extent) = client.measure(&body);
            (request.expect("it is read").max_tokens, extent)
        };
        let several = |answers| Extent { answers, ..Extent::default() };
        let chat = |n: Value| json!({"messages": [], "max_tokens": 5, "n": n});
        assert_eq!(measured(WireFormat::OpenaiChat, chat(json!(3))), (5, several(3)));
        assert_eq!(measured(WireFormat::OpenaiChat, chat(json!(1))), (5, several(1)));
        assert_eq!(measured(WireFormat::OpenaiChat, chat(json!(1_000_000))), (5, several(128)));
        let counted = json!({"contents": [], "generationConfig": {"maxOutputTokens": 5, "candidateCount": 4}});
        assert_eq!(measured(WireFormat::Gemini, counted), (5, several(4)));
        let counted = json!({"contents": [], "generation_config": {"max_output_tokens": 5, "candidate_count": 4}});
        assert_eq!(measured(WireFormat::Gemini, counted), (5, several(4)));
        for (config, count) in [("generationConfig", "candidate_count"), ("generation_config", "candidateCount")] {
            for said in [json!(100), json!(100.0), json!("100")] {
                let counted = json!({"contents": [], config: {"maxOutputTokens": "5", count: said}});
                assert_eq!(measured(WireFormat::Gemini, counted), (5, several(100)), "{config} {count} {said}");
            }
        }
        let mut both = json!({"contents": [], "generationConfig": {"candidateCount": 1}});
        both["generation_config"] = json!({"maxOutputTokens": 5, "candidateCount": 1, "candidate_count": 3});
        assert_eq!(measured(WireFormat::Gemini, both), (5, several(3)));
        assert_eq!(measured(WireFormat::OpenaiChat, chat(json!(3.0))), (5, several(3)));
        let goes_on = Extent { goes_on: true, ..Extent::default() };
        for field in ["previous_response_id", "conversation", "prompt"] {
            assert_eq!(measured(WireFormat::OpenaiResponses, json!({"max_output_tokens": 5, field: {"id": "x"}})), (5, goes_on));
        }
        for (marker, hour_in_cache) in [(json!({"ttl": "1h"}), true), (json!({"ttl": "5m"}), false), (json!({}), false)] {
            let content = json!([{"type": "text", "text": "x", "cache_control": marker}]);
            let marked = json!({"max_tokens": 5, "messages": [{"role": "user", "content": content}]});
            let extent = Extent { hour_in_cache, ..Extent::default() };
            assert_eq!(measured(WireFormat::Anthropic, marked), (5, extent), "{marker}");
        }
    }

    #[test]
    fn numbers_are_read_however_they_are_written_and_what_is_none_is_refused_by_name() {
        let clients = client_formats();
        let read = |wire: WireFormat, fields: Value| {
            let mut body = json!({"messages": [], "input": "", "contents": []});
            body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
            clients.iter().find(|client| client.wire() == wire).expect("it is served").decode(&body)
        };
        type Put = fn(&str, &Value) -> Value;
        let own: Put = |field, value| json!({field: value});
        let generation: Put = |field, value| json!({"generationConfig": {field: value}});
        let options: Put = |field, value| json!({"options": {field: value}});
        let places: [(WireFormat, Put, &str, &[&str]); 5] = [
            (WireFormat::OpenaiChat, own, "max_tokens", &["temperature", "top_p", "top_k"]),
            (WireFormat::OpenaiResponses, own, "max_output_tokens", &["temperature", "top_p"]),
            (WireFormat::Anthropic, own, "max_tokens", &["temperature", "top_p", "top_k"]),
            (WireFormat::Gemini, generation, "maxOutputTokens", &["temperature", "topP", "topK"]),
            (WireFormat::Ollama, options, "num_predict", &["temperature", "top_p", "top_k"]),
        ];
        for (wire, put, limit, numbers) in places {
            let limited = |value: &Value| read(wire, put(limit, value)).map(|request| request.max_tokens);
            for (value, expected) in [(json!(null), 0), (json!(50), 50), (json!(50.0), 50), (json!(1e12), u32::MAX)] {
                assert_eq!(limited(&value), Ok(expected), "{wire:?} {value}");
            }
            let unlimited = if wire == WireFormat::Ollama { vec![] } else { vec![json!(0), json!(-1)] };
            for value in [json!(50.5), json!("fifty"), json!([50])].into_iter().chain(unlimited) {
                assert!(limited(&value).is_err_and(|error| error.contains(limit)), "{wire:?} {value}");
            }
            for field in numbers {
                assert!(read(wire, put(field, &json!("much"))).is_err_and(|error| error.contains(field)), "{wire:?} {field}");
                assert!(read(wire, put(field, &json!(null))).is_ok(), "{wire:?} {field}");
            }
        }
        for (newer, expected) in [(json!(null), 50), (json!(7.0), 7)] {
            let request = read(WireFormat::OpenaiChat, json!({"max_completion_tokens": newer, "max_tokens": 50}));
            assert_eq!(request.map(|request| request.max_tokens), Ok(expected));
        }
        assert!(read(WireFormat::OpenaiChat, json!({"n": 2.0})).is_err());
    }

    #[test]
    fn one_model_is_told_as_in_the_list() {
        for client in client_formats() {
            let (list, one) = (client.models(&["a".to_owned(), "b".to_owned()]), client.model("b"));
            let listed = list.get("data").or_else(|| list.get("models")).and_then(|list| list.get(1));
            assert_eq!(listed, Some(&one), "{:?}", client.wire());
        }
    }
}
