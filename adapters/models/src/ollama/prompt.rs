//! The format's older address, `/api/generate`: a prompt in place of a conversation; and `/api/show`, which
//! says what a model can do.
//!
//! Models are asked with conversations everywhere else, so a prompt is read as one of a single message. What only a model on the
//! same machine can do (raw prompts, templates, text in the middle, tokens of an earlier answer) is refused and not passed over.

use helix_ports::ModelCapabilities;
use helix_protocol::{Failure, ModelDelta, ModelReply, ModelRequest, ThinkingControl};
use serde_json::{Map, Value, json};

use super::serve::{StreamEncoder, decode_request, encode_reply};
use crate::served::{ServedEvent, ServedStream};

/// Fields that make a message, and those whose value asks for what is not there.
const OF_THE_MESSAGE: [&str; 3] = ["prompt", "system", "images"];
const ONLY_LOCAL: [&str; 6] = ["suffix", "template", "raw", "context", "logprobs", "width"];

/// Reads a request with a prompt. The error says what is missing, for a 400.
pub fn decode_prompt(body: &Value) -> Result<ModelRequest, String> {
    let fields = body.as_object().ok_or("the body is no object")?;
    if let Some(field) = ONLY_LOCAL.iter().find(|field| fields.get(**field).is_some_and(asks)) {
        return Err(format!("`{field}` is not served here: models are asked with conversations; /api/chat takes one"));
    }
    let text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| format!("`{field}` is not a text")),
    };
    let (prompt, system) = (text("prompt")?, text("system")?);
    if prompt.is_empty() {
        return Err("`prompt` is missing: there is no model here to be loaded without one".to_owned());
    }
    let mut user = json!({"role": "user", "content": prompt});
    if let Some(images) = fields.get("images").filter(|images| asks(images)) {
        user["images"] = images.clone();
    }
    let said = (!system.is_empty()).then(|| json!({"role": "system", "content": system}));
    let left = fields.iter().filter(|(name, _)| !OF_THE_MESSAGE.contains(&name.as_str()) && !ONLY_LOCAL.contains(&name.as_str()));
    let mut chat: Map<String, Value> = left.map(|(name, value)| (name.clone(), value.clone())).collect();
    chat.insert("messages".to_owned(), said.into_iter().chain([user]).collect());
    decode_request(&Value::Object(chat))
}

/// False of what clients send where they want nothing.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        _ => true,
    }
}

/// A whole answer. `created` is in seconds since 1970.
pub fn encode_response(reply: &ModelReply, id: &str, created: i64) -> Value {
    as_response(encode_reply(reply, id, created))
}

/// A line of a conversation as one of this address.
fn as_response(mut line: Value) -> Value {
    let Some(fields) = line.as_object_mut() else { return line };
    let Some(mut message) = fields.remove("message") else { return line };
    fields.insert("response".to_owned(), message["content"].take());
    if let Some(thinking) = message.get_mut("thinking") {
        fields.insert("thinking".to_owned(), thinking.take());
    }
    line
}

/// Writes one answer line by line.
#[derive(Clone, Debug)]
pub struct ResponseEncoder(StreamEncoder);

impl ResponseEncoder {
    /// A stream of an answer of `model`; `created` is in seconds since 1970.
    pub fn new(model: &str, created: i64) -> Self {
        Self(StreamEncoder::new(model, created))
    }
}

fn all_as_responses(events: Vec<ServedEvent>) -> Vec<ServedEvent> {
    events.into_iter().map(|event| ServedEvent { data: as_response(event.data), ..event }).collect()
}

impl ServedStream for ResponseEncoder {
    fn start(&mut self) -> Vec<ServedEvent> {
        all_as_responses(self.0.start())
    }

    fn push(&mut self, delta: &ModelDelta) -> Vec<ServedEvent> {
        all_as_responses(self.0.push(delta))
    }

    fn finish(&mut self, reply: &ModelReply) -> Vec<ServedEvent> {
        all_as_responses(self.0.finish(reply))
    }

    fn error(&mut self, status: u16, failure: &Failure) -> Vec<ServedEvent> {
        self.0.error(status, failure)
    }
}

/// What a model can do, as far as the node knows. What describes files on a disk is empty.
pub fn describe(capabilities: &ModelCapabilities) -> Value {
    let able = [
        ("completion", true),
        ("tools", capabilities.tools),
        ("vision", capabilities.images),
        ("thinking", capabilities.thinking != ThinkingControl::None),
    ];
    let able: Vec<&str> = able.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    json!({
        "modelfile": "", "parameters": "", "template": "", "license": "",
        "modified_at": "1970-01-01T00:00:00Z",
        "details": {"parent_model": "", "format": "", "family": "", "families": null, "parameter_size": "", "quantization_level": ""},
        "model_info": {"general.architecture": "helix", "helix.context_length": capabilities.context_tokens},
        "capabilities": able,
    })
}

#[cfg(test)]
mod tests {
    use helix_protocol::{Block, Role, StopReason, Usage};

    use super::*;

    #[test]
    fn a_prompt_is_a_conversation_of_one_message_and_its_answer_has_the_names_of_this_address() {
        let body = json!({"model": "m", "prompt": "hi", "system": "be brief", "context": [], "suffix": "", "raw": false,
            "stream": false, "options": {"num_predict": 9}, "think": true, "format": {"type": "object"}});
        let request = decode_prompt(&body).expect("read");
        let texts: Vec<(Role, String)> = request.messages.iter().map(|message| (message.role, message.as_text())).collect();
        assert_eq!(texts, [(Role::System, "be brief".to_owned()), (Role::User, "hi".to_owned())]);
        assert_eq!(request.max_tokens, 9);
        let as_chat = json!({"model": "m", "stream": false, "options": {"num_predict": 9}, "think": true, "format": {"type": "object"},
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]});
        assert_eq!(request, decode_request(&as_chat).expect("read"));

        let blocks = vec![Block::Thinking { text: "hm".to_owned(), extra: None }, Block::text("yes")];
        let usage = Usage { input_tokens: 3, output_tokens: 2, ..Usage::default() };
        let reply = ModelReply { model: "m".to_owned(), blocks, stop: StopReason::EndTurn, usage };
        let whole = encode_response(&reply, "", 0);
        assert_eq!((&whole["response"], &whole["thinking"], &whole["done"]), (&json!("yes"), &json!("hm"), &json!(true)));
        assert!(whole.get("message").is_none() && whole["eval_count"] == 2, "{whole}");
        let mut stream = ResponseEncoder::new("m", 0);
        let mut lines = stream.push(&ModelDelta::Text { text: "ye".to_owned() });
        lines.extend(stream.finish(&reply));
        let said: String = lines.iter().filter_map(|line| line.data["response"].as_str()).collect();
        assert_eq!(said, "yes");
        assert_eq!(lines.last().map(|line| line.data["done"].clone()), Some(json!(true)));
    }

    #[test]
    fn what_only_a_model_on_the_same_machine_can_do_is_refused() {
        for (field, value) in
            [("raw", json!(true)), ("suffix", json!("}")), ("context", json!([1])), ("template", json!("{{ .Prompt }}"))]
        {
            let body = json!({"model": "m", "prompt": "hi", field: value});
            let refused = decode_prompt(&body).expect_err("refused");
            assert!(refused.contains(field) && refused.contains("/api/chat"), "{refused}");
        }
        assert!(decode_prompt(&json!({"model": "m"})).expect_err("nothing to say").contains("`prompt`"));
        assert!(decode_prompt(&json!({"model": "m", "prompt": 7})).is_err());
    }
}
