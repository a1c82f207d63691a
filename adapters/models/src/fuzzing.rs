//! What is fed with arbitrary bytes: each format's readers with what must hold of them whatever they are given.
//!
//! An input is read as everything that could have those bytes: a streamed answer, a whole one, and a client's request.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::{StreamExt, stream};
use helix_ports::{AnswerHead, ClientFormat, ModelCapabilities, ProviderError};
use helix_protocol::{Block, Message, ModelReply, ModelRequest, Role, StopReason, Usage, WireFormat, WorkspaceTool};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::anthropic::AnthropicMessages;
use crate::chat::ChatCompletions;
use crate::events::events;
use crate::fault::Faults;
use crate::format::{Format, Framing, Turn};
use crate::forward::{Masked, Meter, copied, masked};
use crate::gemini::Gemini;
use crate::login::{CopilotCredentials, DeviceEndpoint, DeviceLogin, Polled};
use crate::ollama::{Ollama, ResponseEncoder, decode_prompt, encode_response};
use crate::responses::Responses;
use crate::served::{ServedStream, deltas_of};
use crate::{ApiKey, Settings, client_formats};

/// A key that services quote; what is fed has it at places.
const KEY: &str = "sk-a/b";
/// What a service refuses with.
const STATUSES: [u16; 16] = [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 524, 302];

/// Chat completions.
pub fn chat(bytes: &[u8]) {
    read(&ChatCompletions::at(""), bytes);
}

/// OpenAI's responses.
pub fn responses(bytes: &[u8]) {
    read(&Responses, bytes);
}

/// Anthropic's messages.
pub fn anthropic(bytes: &[u8]) {
    read(&AnthropicMessages, bytes);
}

/// Gemini's `generateContent`.
pub fn gemini(bytes: &[u8]) {
    read(&Gemini::default(), bytes);
}

/// Ollama's chat.
pub fn ollama(bytes: &[u8]) {
    read(&Ollama, bytes);
}

/// Ollama's `/api/generate`: a prompt is a conversation like any other, and an answer says what it would say there.
pub fn prompt(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice(bytes) else { return };
    if let Ok(request) = decode_prompt(&body) {
        assert!(request.messages.iter().any(|message| message.role == Role::User), "{body}");
        Ollama.encode(&turn(&request, &ModelCapabilities::default()));
    }
    if let Ok(reply) = Ollama.decode(bytes) {
        let whole = encode_response(&reply, "", 0);
        let mut stream = ResponseEncoder::new(&reply.model, 0);
        let mut lines = stream.start();
        lines.extend(deltas_of(&reply, 5).iter().flat_map(|delta| stream.push(delta)));
        lines.extend(stream.finish(&reply));
        let said: String = lines.iter().filter_map(|line| line.data["response"].as_str()).collect();
        assert_eq!((whole["response"].as_str(), said.as_str()), (Some(text(&reply).as_str()), text(&reply).as_str()), "{whole}");
    }
}

/// Server-sent events: they are the same wherever the bytes are cut.
pub fn sse(bytes: &[u8]) {
    cut(bytes, Framing::Sse);
}

/// Lines: likewise.
pub fn ndjson(bytes: &[u8]) {
    cut(bytes, Framing::Ndjson);
}

fn cut(bytes: &[u8], framing: Framing) {
    let whole = pieces(bytes, framing, bytes.len());
    for size in 1..=bytes.len().min(64) {
        assert_eq!(pieces(bytes, framing, size), whole, "in pieces of {size}");
    }
}

/// Events up to the first that cannot be told from the next, which is `None`.
fn pieces(bytes: &[u8], framing: Framing, size: usize) -> Vec<Option<(Option<String>, Vec<u8>)>> {
    let chunks: Vec<_> = bytes.chunks(size.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let events = events(stream::iter(chunks), framing, Arc::default());
    let told = events.map(|event| event.ok().map(|event| (event.name, event.data)));
    let mut told: Vec<_> = futures::executor::block_on(told.collect());
    let end = told.iter().position(Option::is_none).map_or(told.len(), |error| error + 1);
    told.truncate(end);
    told
}

fn key() -> ApiKey {
    ApiKey::new(KEY).expect("it is one")
}

/// The body of a refusal, its status by the first byte: the key is in none of what a person is told, and a call is charged for where
/// nobody knows whether it was made, and nowhere else.
pub fn refusal(bytes: &[u8]) {
    let (kind, body) = bytes.split_first().map_or((0, bytes), |(kind, body)| (usize::from(*kind), body));
    let status = STATUSES[kind % STATUSES.len()];
    let settings = Settings { name: "p".to_owned(), key: Some(key()), ..Settings::default() };
    let code = StatusCode::from_u16(status).expect("a status");
    let error = Faults { settings: &settings }.status(code, &HeaderMap::new(), body);
    let failure = error.failure();
    assert!(!failure.message.contains(KEY) && !failure.hint.contains(KEY), "{failure:?}");
    assert!(failure.message.chars().count() < 600, "{failure:?}");
    assert_eq!(matches!(error, ProviderError::Uncertain(_)), matches!(status, 504 | 524), "{status}: {error:?}");
}

/// An answer that passes, its format by the first byte: what is read of its end and what passes of it are the same however it is cut,
/// and a refusal passes without the key.
pub fn passing(bytes: &[u8]) {
    let (kind, body) = bytes.split_first().map_or((0, bytes), |(kind, body)| (usize::from(*kind), body));
    let format: Arc<dyn Format> = format(WIRES[kind % WIRES.len()]).into();
    let framing = format.framing();
    let pieces = |size: usize| body.chunks(size.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>();
    let pass = |how: Masked, size: usize| {
        let passed = masked(vec![key()], how, stream::iter(pieces(size))).map(|chunk| chunk.expect("every chunk came"));
        futures::executor::block_on(passed.collect::<Vec<Bytes>>()).concat()
    };
    let read = |streams: bool, size: usize| {
        let (mut copy, copied) = copied();
        for chunk in pieces(size).into_iter().map(Some).chain([None]) {
            let _ = copy.pass(chunk);
        }
        drop(copy);
        let (format, settings) = (Arc::clone(&format), Arc::new(Settings::default()));
        let meter = Meter { format, settings, asked: Bytes::from_static(b"{}") };
        futures::executor::block_on(meter.read(streams, copied))
    };
    let told = |size: usize| (pass(Masked::All, size), pass(Masked::Errors(framing), size), read(true, size), read(false, size));
    let whole = told(body.len());
    assert!(!whole.0.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "{:?}", String::from_utf8_lossy(&whole.0));
    for size in [1, 3, 64] {
        assert_eq!(told(size), whole, "in pieces of {size}");
    }
}

/// What a login server answers: whatever it says, somebody waits no longer than a day and does not ask without a pause, a token is
/// not empty, and what a person is told is short and without the account's own token.
pub fn login(bytes: &[u8]) {
    const DAY: u64 = 86_400;
    static SERVERS: LazyLock<(DeviceLogin, CopilotCredentials)> = LazyLock::new(|| {
        let endpoint = DeviceEndpoint::github("p", "http://127.0.0.1:1", "client");
        let login = DeviceLogin::new(endpoint).expect("an address");
        (login, CopilotCredentials::new("p", Some(key()), None, "http://127.0.0.1:1").expect("an address"))
    });
    let Some(answer) = serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object) else { return };
    let (login, copilot) = &*SERVERS;
    match login.invited(&answer, None) {
        Ok(invitation) => {
            let times = [invitation.interval.as_secs(), invitation.expires_in.as_secs()];
            assert!(times[0] > 0 && times.iter().all(|seconds| *seconds <= DAY), "{times:?}");
        }
        Err(failure) => assert!(failure.message.chars().count() < 400, "{failure:?}"),
    }
    match login.polled(&answer) {
        Ok(Polled::Granted(token)) => assert!(!token.access.is_empty(), "{answer}"),
        Ok(Polled::Pending | Polled::SlowDown) => {}
        Err(failure) => assert!(failure.message.chars().count() < 400, "{failure:?}"),
    }
    match copilot.access_in(&answer, &key()) {
        Ok((access, is_fresh)) => assert!(access.key.is_some() && is_fresh, "{answer}"),
        Err(error) => assert!(!error.failure().message.contains(KEY), "{error:?}"),
    }
}

/// A list of models, in the form of each service: what is read of it, served to a client of that form, is read as the same.
pub fn model_list(bytes: &[u8]) {
    let Ok(list) = serde_json::from_slice::<Value>(bytes) else { return };
    for wire in WIRES {
        let format = format(wire);
        let Some(names) = format.decode_models(&list) else { continue };
        let served = client(wire).models(&names);
        assert_eq!(format.decode_models(&served), Some(names), "{wire:?}: {list} served as {served}");
    }
}

const WIRES: [WireFormat; 5] =
    [WireFormat::OpenaiChat, WireFormat::OpenaiResponses, WireFormat::Anthropic, WireFormat::Gemini, WireFormat::Ollama];

fn client(wire: WireFormat) -> Arc<dyn ClientFormat> {
    client_formats().into_iter().find(|client| client.wire() == wire).expect("every format is served")
}

fn read(format: &dyn Format, bytes: &[u8]) {
    let client = client(format.wire());
    let mut decoder = format.decoder();
    let framed = pieces(bytes, format.framing(), bytes.len()).into_iter().flatten();
    for (name, data) in framed {
        if decoder.is_complete() || decoder.push(name.as_deref(), &data).is_err() {
            break;
        }
    }
    if (decoder.is_complete() || decoder.ends_with_stream())
        && let Ok(reply) = decoder.finish()
    {
        served(format, &*client, &reply);
    }
    if let Ok(reply) = format.decode(bytes) {
        served(format, &*client, &reply);
    }
    let asked = serde_json::from_slice(bytes).ok().and_then(|body| client.decode(&body).ok());
    if let Some(request) = asked {
        let capabilities = ModelCapabilities::default();
        format.encode(&turn(&request, &capabilities));
    }
}

/// An answer that was read is served whole and in pieces as one that says the same.
fn served(format: &dyn Format, client: &dyn ClientFormat, reply: &ModelReply) {
    let document = client.encode(reply, &head(reply)).to_string();
    if let Ok(again) = format.decode(document.as_bytes()) {
        assert_eq!(text(&again), text(reply), "served as {document}");
    }
    let mut decoder = format.decoder();
    let written = streamed(client, reply);
    for (name, data) in pieces(written.as_bytes(), format.framing(), 7).into_iter().flatten() {
        if !decoder.is_complete() && decoder.push(name.as_deref(), &data).is_err() {
            return;
        }
    }
    assert!(decoder.is_complete() || decoder.ends_with_stream(), "a stream without an end: {written}");
    if let Ok(again) = decoder.finish() {
        assert_eq!(text(&again), text(reply), "streamed as {written}");
    }
}

fn streamed(client: &dyn ClientFormat, reply: &ModelReply) -> String {
    let mut stream = client.stream(&json!({}), &head(reply));
    let mut written = stream.start();
    for delta in deltas_of(reply, 5) {
        written.push_str(&stream.push(&delta));
    }
    written + &stream.finish(reply)
}

fn head(reply: &ModelReply) -> AnswerHead {
    AnswerHead { id: "1".to_owned(), created: 1_700_000_000, model: reply.model.clone() }
}

fn text(reply: &ModelReply) -> String {
    let texts = reply.blocks.iter().filter_map(|block| match block {
        Block::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn turn<'a>(request: &'a ModelRequest, capabilities: &'a ModelCapabilities) -> Turn<'a> {
    Turn { request, model: "m", capabilities, max_tokens: 2_000, temperature: None, stream: true }
}

fn format(wire: WireFormat) -> Box<dyn Format> {
    match wire {
        WireFormat::OpenaiChat => Box::new(ChatCompletions::at("")),
        WireFormat::OpenaiResponses => Box::new(Responses),
        WireFormat::Anthropic => Box::new(AnthropicMessages),
        WireFormat::Gemini => Box::<Gemini>::default(),
        WireFormat::Ollama => Box::new(Ollama),
    }
}

/// Real encodings of a format, from which mutations begin: an answer in pieces, a whole one, and a request.
pub fn examples(wire: WireFormat) -> Vec<String> {
    let format = format(wire);
    let call =
        |id: &str| Block::ToolUse { id: id.to_owned(), name: "read".to_owned(), input: json!({"path": "ä.rs"}), extra: None };
    let reply = ModelReply {
        model: "m".to_owned(),
        blocks: vec![Block::Thinking { text: "hm".to_owned(), extra: None }, Block::text("I look: \"ä\"\n"), call("a"), call("b")],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 11, cached_tokens: 4, output_tokens: 7, ..Usage::default() },
    };
    let result = Block::ToolResult { id: "a".to_owned(), content: "x".to_owned(), images: Vec::new(), is_error: true, extra: None };
    let request = ModelRequest {
        messages: vec![
            Message::text(Role::System, "be brief"),
            Message::text(Role::User, "look"),
            Message { role: Role::Assistant, blocks: vec![Block::text("I look"), call("a")] },
            Message { role: Role::User, blocks: vec![result] },
        ],
        tools: vec![WorkspaceTool::Read.schema()],
        stop: vec!["END".to_owned()],
        ..ModelRequest::default()
    };
    let client = client(wire);
    let capabilities = ModelCapabilities::default();
    let asked = format.encode(&turn(&request, &capabilities)).body.to_string();
    vec![streamed(&*client, &reply), client.encode(&reply, &head(&reply)).to_string(), asked]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_say_is_read() {
        for quoting in [r#"{"error":{"message":"no sk-a/b"}}"#, r#"{"error":{"message":"no sk-a\/b"}}"#] {
            let settings = Settings { key: Some(key()), ..Settings::default() };
            let code = StatusCode::UNAUTHORIZED;
            let error = Faults { settings: &settings }.status(code, &HeaderMap::new(), quoting.as_bytes());
            assert!(error.failure().message.ends_with(": no [key]"), "{error:?}");
            let passed = masked(vec![key()], Masked::All, stream::iter([Ok(Bytes::from(quoting))]));
            let passed: Vec<Bytes> = futures::executor::block_on(passed.map(|chunk| chunk.expect("it came")).collect());
            assert_eq!(passed.concat(), br#"{"error":{"message":"no [key]"}}"#);
        }
        let lists = [r#"{"data":[{"id":"m"}]}"#, r#"{"models":[{"name":"models/m"}]}"#, r#"{"models":[{"model":"m"}]}"#];
        for (wire, list) in [WireFormat::Anthropic, WireFormat::Gemini, WireFormat::Ollama].into_iter().zip(lists) {
            model_list(list.as_bytes());
            let list = serde_json::from_str(list).expect("JSON");
            assert_eq!(format(wire).decode_models(&list), Some(vec!["m".to_owned()]));
        }
    }

    #[test]
    fn every_example_is_read() {
        for wire in
            [WireFormat::OpenaiChat, WireFormat::OpenaiResponses, WireFormat::Anthropic, WireFormat::Gemini, WireFormat::Ollama]
        {
            let [stream, whole, request] = &examples(wire)[..] else { panic!("three examples") };
            let target = match wire {
                WireFormat::OpenaiChat => chat,
                WireFormat::OpenaiResponses => responses,
                WireFormat::Anthropic => anthropic,
                WireFormat::Gemini => gemini,
                WireFormat::Ollama => ollama,
            };
            for example in [stream, whole, request] {
                target(example.as_bytes());
            }
            // Else the promises above would hold of nothing.
            let format = format(wire);
            let mut decoder = format.decoder();
            for (name, data) in pieces(stream.as_bytes(), format.framing(), 3).into_iter().flatten() {
                if !decoder.is_complete() {
                    decoder.push(name.as_deref(), &data).expect("an event");
                }
            }
            for reply in [decoder.finish(), format.decode(whole.as_bytes())] {
                assert_eq!(reply.as_ref().map(text), Ok("I look: \"ä\"\n".to_owned()), "{wire:?}");
            }
            let body = serde_json::from_str(request).expect("JSON");
            assert!(client(wire).decode(&body).is_ok(), "{wire:?}: {request}");
        }
    }
}
