//! Bad input and bad luck, for every format that this crate speaks as a client: what each fault comes to,
//! and what a person is told.

mod support;

use std::time::Duration;

use helix_adapter_models::anthropic::{self, AnthropicMessages};
use helix_adapter_models::chat::{ChatCompletions, encode_chunks};
use helix_adapter_models::gemini::{self, Gemini};
use helix_adapter_models::ollama::Ollama;
use helix_adapter_models::responses::{self, Responses};
use helix_adapter_models::servers::{Copilot, LlamaCpp};
use helix_adapter_models::{HttpProvider, ServedStream, Settings};
use helix_ports::{Availability, Provider, ProviderError};
use helix_protocol::{Block, Code, Failure, Message, ModelReply, ModelRequest, Role, StopReason, Usage};
use serde_json::{Value, json};
use support::{
    Answer, EVENTS, Server, events, json_response, judged, lines, response, serve_by, serve_plain, serve_untrusted, settings,
};
use tokio::sync::mpsc;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Chat,
    Responses,
    Ollama,
    Anthropic,
    Gemini,
}

const PEERS: [Peer; 5] = [Peer::Chat, Peer::Responses, Peer::Ollama, Peer::Anthropic, Peer::Gemini];

impl Peer {
    fn provider(self, settings: Settings) -> Result<HttpProvider, Failure> {
        match self {
            Self::Chat => HttpProvider::new(settings, ChatCompletions::at("")),
            Self::Responses => HttpProvider::new(settings, Responses),
            Self::Ollama => HttpProvider::new(settings, Ollama),
            Self::Anthropic => HttpProvider::new(settings, AnthropicMessages),
            Self::Gemini => HttpProvider::new(settings, Gemini::default()),
        }
    }

    /// The answer as this peer streams it, and how many bytes at its end say nothing more.
    fn stream(self) -> (Vec<u8>, usize) {
        let reply = reply();
        match self {
            Self::Chat => {
                let chunks = encode_chunks(&reply, "id", 1, 4);
                let datas: Vec<String> = chunks.iter().map(Value::to_string).chain(["[DONE]".to_owned()]).collect();
                (events(&datas), 2)
            }
            Self::Responses => (whole(responses::StreamEncoder::new("m", "r", 1), &reply), 2),
            Self::Anthropic => (whole(anthropic::StreamEncoder::new("m", "r", 1), &reply), 2),
            Self::Gemini => (whole(gemini::StreamEncoder::new("m", "r", 1), &reply), 2),
            Self::Ollama => (
                lines(&[
                    json!({"model": "m", "message": {"content": "I look."}, "done": false}),
                    json!({"model": "m", "message": {"content": "", "tool_calls": [
                        {"id": "a", "function": {"name": "read", "arguments": {"path": "x"}}}]}, "done": false}),
                    json!({"model": "m", "done": true, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4}),
                ]),
                1,
            ),
        }
    }

    /// A stream of this peer with these bytes in it.
    fn framed(self, data: &str) -> Vec<u8> {
        match self {
            Self::Chat | Self::Responses | Self::Anthropic | Self::Gemini => events(&[data.to_owned()]),
            Self::Ollama => {
                let mut bytes = lines(&[]);
                bytes.extend(format!("{data}\n").into_bytes());
                bytes
            }
        }
    }
}

/// The whole answer as a server of ours streams it.
fn whole(mut encoder: impl ServedStream, reply: &ModelReply) -> Vec<u8> {
    let served = encoder.start().into_iter().chain(encoder.finish(reply));
    let body: String = served.map(|event| event.to_sse()).collect();
    format!("{EVENTS}{body}").into_bytes()
}

fn reply() -> ModelReply {
    ModelReply {
        model: "m".to_owned(),
        blocks: vec![
            Block::text("I look."),
            Block::ToolUse { id: "a".to_owned(), name: "read".to_owned(), input: json!({"path": "x"}), extra: None },
        ],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 9, output_tokens: 4, ..Usage::default() },
    }
}

fn request() -> ModelRequest {
    ModelRequest { messages: vec![Message::text(Role::User, "go")], max_tokens: 100, ..ModelRequest::default() }
}

/// A server that answers turns with `answers`, one after the other, and the questions about itself that come
/// before them with nothing.
async fn upstream(answers: Vec<Answer>) -> Server {
    let turns = std::sync::atomic::AtomicUsize::new(0);
    serve_by(move |_, (head, _)| {
        if head.starts_with("post /v1/api/show") {
            return json_response("404 Not Found", &json!({"error": "unknown here"}));
        }
        let at = turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        answers[usize::min(at, answers.len() - 1)].clone()
    })
    .await
}

async fn turn(provider: &HttpProvider) -> Result<ModelReply, ProviderError> {
    let (sink, mut shown) = mpsc::channel(1_000);
    let asked = request();
    let (result, ()) = tokio::join!(provider.generate_stream(&asked, sink), async { while shown.recv().await.is_some() {} });
    result
}

async fn answer(peer: Peer, answer: Answer) -> Result<ModelReply, ProviderError> {
    let server = upstream(vec![answer]).await;
    turn(&peer.provider(settings(&server.base_url)).expect("a provider")).await
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_is_uncertain_and_never_a_shorter_answer() {
    // Chat's are cut in `provider`.
    for peer in PEERS.into_iter().filter(|peer| *peer != Peer::Chat) {
        let (bytes, idle) = peer.stream();
        let whole = bytes.len() - idle;
        // From the first byte of the body on: cut before, there is no answer at all, which `provider` tests.
        let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let server = upstream((body..whole).map(|end| Answer::Bytes(bytes[..end].to_vec())).collect()).await;
        let provider = peer.provider(settings(&server.base_url)).expect("a provider");
        for end in body..whole {
            let result = turn(&provider).await;
            assert!(matches!(result, Err(ProviderError::Uncertain(_))), "{peer:?} cut at {end} of {whole}: {result:?}");
        }
        let result = answer(peer, Answer::Bytes(bytes[..whole].to_vec())).await.expect("an answer");
        assert_eq!((result.stop, result.usage), (StopReason::ToolUse, reply().usage), "{peer:?}");
    }
}

/// The answer with one of its events told twice, and with two neighbours in the other order.
fn shuffled(peer: Peer) -> Vec<(String, Vec<u8>)> {
    let (bytes, _) = peer.stream();
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let (head, body) = bytes.split_at(body);
    let end = if peer == Peer::Ollama { "\n" } else { "\n\n" };
    let text = String::from_utf8(body.to_vec()).expect("text");
    let events: Vec<&str> = text.split_inclusive(end).collect();
    let with = |events: Vec<&str>| [head, events.concat().as_bytes()].concat();
    let twice = (0..events.len()).map(|at| (format!("event {at} twice"), with([&events[..=at], &events[at..]].concat())));
    let swapped = (1..events.len()).map(|at| {
        let mut events = events.clone();
        events.swap(at - 1, at);
        (format!("event {at} before the one before it"), with(events))
    });
    twice.chain(swapped).collect()
}

#[tokio::test]
async fn events_told_twice_or_in_another_order_never_make_a_call_up_or_make_it_twice() {
    for peer in PEERS {
        for (how, bytes) in shuffled(peer) {
            match answer(peer, Answer::Bytes(bytes)).await {
                Err(ProviderError::Uncertain(failure)) => assert!(!failure.message.is_empty(), "{peer:?} {how}"),
                Err(other) => panic!("{peer:?} {how}: {other:?}"),
                Ok(reply) => {
                    let calls = reply.blocks.iter().filter_map(|block| match block {
                        Block::ToolUse { name, input, .. } => Some((name.as_str(), input)),
                        _ => None,
                    });
                    let calls: Vec<_> = calls.collect();
                    // Arguments that are no object stay a text, which the model is told.
                    let right =
                        |(name, input): &(&str, &Value)| *name == "read" && (**input == json!({"path": "x"}) || input.is_string());
                    assert!(calls.len() <= 1 && calls.iter().all(right), "{peer:?} {how}: {calls:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_of_the_format_is_uncertain_garbage() {
    for peer in PEERS {
        for data in ["{]", "nonsense", "[1,2", "{\"choices\": 3, \"message\": 3}"] {
            let result = answer(peer, Answer::Bytes(peer.framed(data))).await;
            let (kind, code) = judged(result);
            assert_eq!(kind, "uncertain", "{peer:?} {data}");
            assert!(matches!(code, Code::ModelGarbage | Code::ModelFailed), "{peer:?} {data} {code:?}");
        }
    }
}

#[tokio::test]
async fn an_event_without_end_is_given_up_at_the_limit() {
    for peer in PEERS {
        let mut bytes = peer.framed("x");
        bytes.truncate(bytes.len() - if peer == Peer::Ollama { 1 } else { 2 });
        bytes.extend(std::iter::repeat_n(b'x', 200_000));
        let server = upstream(vec![Answer::Silence(bytes)]).await;
        let settings = Settings { event_bytes: 64 * 1024, ..settings(&server.base_url) };
        let failure = turn(&peer.provider(settings).expect("a provider")).await.expect_err("too large").failure().clone();
        assert_eq!(failure.message, "test broke off: its answer is larger than the limit of 65536 bytes", "{peer:?}");
    }
}

/// What becomes of a fault, and how what a person is told to do begins.
type Outcome = (&'static str, Code, &'static str);

const REPEATED: &str = "the call is repeated by itself";
const KEY: &str = "set TEST_KEY to a key that 127.0.0.1";
const SPENT: &str = "the account at 127.0.0.1";
const TOO_LONG: &str = "name a model with a larger context";
const BILLED: &str = "the call may have been billed; ";

fn holds<T: std::fmt::Debug>(result: Result<T, ProviderError>, (kind, code, hint): Outcome, what: &str) {
    let told = result.as_ref().expect_err("an error").failure().hint.clone();
    assert_eq!(judged(result), (kind, code), "{what}");
    assert!(told.starts_with(hint), "{what}: {told}");
}

#[tokio::test]
async fn every_status_has_an_outcome_that_a_person_can_act_on() {
    let error = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
    let (refused, failed) = (Code::ModelRefused, Code::ModelFailed);
    let spend_limit = json!({"type": "error", "error": {
        "type": "rate_limit_error", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}}});
    let cases: [(&str, Value, Outcome); 18] = [
        ("401 Unauthorized", error("authentication_error", "no"), ("elsewhere", refused, KEY)),
        ("402 Payment Required", error("billing_error", "no"), ("elsewhere", refused, SPENT)),
        ("403 Forbidden", error("permission_error", "no"), ("elsewhere", refused, KEY)),
        ("404 Not Found", error("not_found_error", "model: gone"), ("elsewhere", refused, "check the model's name")),
        ("408 Request Timeout", json!({}), ("retryable", failed, REPEATED)),
        ("413 Payload Too Large", error("request_too_large", "no"), ("final", Code::ContextOverflow, TOO_LONG)),
        ("429 Too Many Requests", error("rate_limit_error", "slow"), ("retryable", failed, REPEATED)),
        ("429 Too Many Requests", error("insufficient_quota", "spent"), ("elsewhere", refused, SPENT)),
        ("429 Too Many Requests", spend_limit, ("elsewhere", refused, SPENT)),
        ("500 Internal Server Error", json!({}), ("retryable", failed, REPEATED)),
        ("504 Gateway Timeout", json!({}), ("uncertain", failed, "a gateway gave up waiting")),
        ("529 Overloaded", error("overloaded_error", "busy"), ("retryable", failed, REPEATED)),
        (
            "400 Bad Request",
            error("invalid_request_error", "prompt is too long: 3 tokens"),
            ("final", Code::ContextOverflow, TOO_LONG),
        ),
        (
            "400 Bad Request",
            error("exceed_context_size_error", "the request exceeds the available context size"),
            ("final", Code::ContextOverflow, TOO_LONG),
        ),
        (
            "400 Bad Request",
            error("INVALID_ARGUMENT", "The input token count exceeds the maximum number of tokens allowed"),
            ("final", Code::ContextOverflow, TOO_LONG),
        ),
        (
            "400 Bad Request",
            error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            ("elsewhere", refused, SPENT),
        ),
        (
            "400 Bad Request",
            error("Arrearage", "Access denied, please make sure your account is in good standing."),
            ("elsewhere", refused, SPENT),
        ),
        (
            "400 Bad Request",
            error("invalid_request_error", "bad schema"),
            ("final", refused, "the provider cannot take this request"),
        ),
    ];
    for peer in PEERS {
        for (status, body, expected) in &cases {
            let what = format!("{peer:?} {status} {body}");
            holds(answer(peer, json_response(status, body)).await, *expected, &what);
        }
    }
}

#[tokio::test]
async fn a_429_says_when_to_come_back_where_the_server_did() {
    for peer in PEERS {
        for (headers, expected) in
            [("retry-after: 7\r\n", Some(7_000)), ("retry-after-ms: 50\r\nretry-after: 7\r\n", Some(50)), ("", None)]
        {
            match answer(peer, Answer::Bytes(response("429 Too Many Requests", headers, "{}"))).await {
                Err(ProviderError::Retryable { retry_after, failure, .. }) => {
                    assert_eq!(retry_after, expected.map(Duration::from_millis), "{peer:?} {headers:?}");
                    assert_eq!((failure.code, failure.hint.as_str()), (Code::ModelFailed, REPEATED), "{peer:?}");
                }
                other => panic!("{peer:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_success_that_carries_an_error_is_the_error() {
    for peer in PEERS {
        // Anthropic says in the event itself that it is one.
        let kind = if peer == Peer::Anthropic { r#""type":"error","# } else { "" };
        let spent = peer.framed(&format!(r#"{{{kind}"error":{{"message":"no","type":"insufficient_quota"}}}}"#));
        holds(answer(peer, Answer::Bytes(spent)).await, ("elsewhere", Code::ModelRefused, SPENT), &format!("{peer:?}"));
        let odd = peer.framed(&format!(r#"{{{kind}"error":"model runner has stopped"}}"#));
        holds(answer(peer, Answer::Bytes(odd)).await, ("uncertain", Code::ModelFailed, BILLED), &format!("{peer:?}"));
    }
}

#[tokio::test]
async fn one_byte_a_moment_ends_at_the_limit_of_the_whole_call() {
    for peer in PEERS {
        let server = upstream(vec![Answer::Drip(peer.stream().0, Duration::from_millis(20))]).await;
        let quick = Settings { call_timeout: Duration::from_millis(400), ..settings(&server.base_url) };
        let result = turn(&peer.provider(quick).expect("a provider")).await;
        holds(result, ("uncertain", Code::ModelFailed, BILLED), &format!("{peer:?}"));
    }
}

#[tokio::test]
async fn an_answer_of_nothing_is_one_and_no_answer_is_an_error() {
    for (peer, nothing) in [
        (Peer::Chat, r#"{"choices":[{"index":0,"message":{"content":""},"finish_reason":"stop"}]}"#),
        (Peer::Responses, r#"{"status":"completed","output":[]}"#),
        (Peer::Ollama, r#"{"message":{"content":""},"done":true,"done_reason":"stop"}"#),
        (Peer::Anthropic, r#"{"type":"message","content":[],"stop_reason":"end_turn","usage":{}}"#),
        (Peer::Gemini, r#"{"candidates":[{"content":{"parts":[],"role":"model"},"finishReason":"STOP"}]}"#),
    ] {
        let json = "content-type: application/json\r\n";
        let reply = answer(peer, Answer::Bytes(response("200 OK", json, nothing))).await.expect("an answer");
        assert_eq!((reply.blocks, reply.stop), (Vec::new(), StopReason::EndTurn), "{peer:?}");
        for body in ["", "{}", "null"] {
            let result = answer(peer, Answer::Bytes(response("200 OK", json, body))).await;
            assert_eq!(judged(result), ("uncertain", Code::ModelGarbage), "{peer:?} {body:?}");
        }
    }
}

#[tokio::test]
async fn unknown_ends_and_arguments_that_are_no_json_are_kept_as_they_are() {
    let call = |arguments: Value| json!([{"id": "a", "type": "function", "function": {"name": "read", "arguments": arguments}}]);
    for (peer, body) in [
        (
            Peer::Chat,
            json!({"choices": [{"index": 0, "message": {"tool_calls": call(json!("{\"path\": \"x"))}, "finish_reason": "odd"}]}),
        ),
        (
            Peer::Responses,
            json!({"status": "incomplete", "incomplete_details": {"reason": "odd"}, "output": [
            {"type": "function_call", "call_id": "a", "name": "read", "arguments": "{\"path\": \"x"}]}),
        ),
        (Peer::Ollama, json!({"message": {"tool_calls": call(json!("{\"path\": \"x"))}, "done": true, "done_reason": "odd"})),
        (
            Peer::Anthropic,
            json!({"type": "message", "stop_reason": "odd", "usage": {}, "content": [
            {"type": "tool_use", "id": "a", "name": "read", "input": "{\"path\": \"x"}]}),
        ),
        (
            Peer::Gemini,
            json!({"candidates": [{"finishReason": "odd", "content": {"parts": [
            {"functionCall": {"id": "a", "name": "read", "args": "{\"path\": \"x"}}]}}]}),
        ),
    ] {
        let reply = answer(peer, json_response("200 OK", &body)).await.expect("an answer");
        // What a format says besides of a call, such as whose id it is, is no part of this.
        let [Block::ToolUse { id, name, input, .. }] = reply.blocks.as_slice() else { panic!("{peer:?}: {:?}", reply.blocks) };
        assert_eq!((id.as_str(), name.as_str(), input), ("a", "read", &json!("{\"path\": \"x")), "{peer:?}");
        assert_eq!(reply.stop, StopReason::Other("odd".to_owned()), "{peer:?}");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_secured_is_not_tried_again() {
    let expected = ("elsewhere", Code::ModelFailed, "no secure connection to 127.0.0.1:");
    for peer in PEERS {
        let plain = format!("https://127.0.0.1:{}/v1", serve_plain().await);
        for base_url in [plain, format!("https://127.0.0.1:{}/v1", serve_untrusted())] {
            let provider = peer.provider(settings(&base_url)).expect("a provider");
            holds(provider.generate(&request()).await, expected, &format!("{peer:?} {base_url}"));
            holds(turn(&provider).await, expected, &format!("{peer:?} {base_url}, streamed"));
        }
    }
}

#[tokio::test]
async fn a_name_that_is_none_was_certainly_not_billed() {
    let expected = ("retryable", Code::ModelFailed, "check the name nowhere.invalid and the network");
    for peer in PEERS {
        // A name that by RFC 6761 never resolves.
        let provider = peer.provider(settings("http://nowhere.invalid/v1")).expect("a provider");
        holds(turn(&provider).await, expected, &format!("{peer:?}"));
        assert_eq!(provider.health().await.availability, Availability::Unavailable, "{peer:?}");
    }
}

#[tokio::test]
async fn ollama_is_asked_for_its_version_its_models_and_their_sizes() {
    let server = serve_by(|_, (head, body)| match head.split(' ').nth(1) {
        Some("/v1/api/version") => json_response("200 OK", &json!({"version": "0.13.5"})),
        Some("/v1/api/tags") => json_response("200 OK", &json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]})),
        Some("/v1/api/show") => {
            assert_eq!(body["model"], "m");
            json_response("200 OK", &json!({"model_info": {"qwen3.context_length": 40_960}, "parameters": "num_ctx 16384"}))
        }
        _ => Answer::Bytes(Peer::Ollama.stream().0),
    })
    .await;
    let asked = Settings { context_tokens: 0, key_env: String::new(), key: None, ..settings(&server.base_url) };
    let provider = Peer::Ollama.provider(asked.clone()).expect("a provider");
    let health = provider.health().await;
    assert_eq!((health.availability, health.message.as_str()), (Availability::Available, "ollama 0.13.5"));
    assert_eq!(provider.capabilities(None).context_tokens, 16_384);
    assert_eq!(provider.models().await.expect("a list")[0].name, "qwen3:8b");
    turn(&provider).await.expect("an answer");
    let sent = server.requests.lock().await.last().expect("a request").1.clone();
    assert_eq!(sent["options"]["num_ctx"], 16_384);
    // What is configured holds, as far as the model goes.
    for (configured, expected) in [(8_000, 8_000), (1_000_000, 40_960)] {
        let provider = Peer::Ollama.provider(Settings { context_tokens: configured, ..asked.clone() }).expect("a provider");
        turn(&provider).await.expect("an answer");
        assert_eq!(provider.capabilities(None).context_tokens, expected);
    }
}

#[tokio::test]
async fn a_server_that_did_not_say_a_models_size_is_asked_again_after_a_while_and_not_at_once() {
    let shown = std::sync::atomic::AtomicUsize::new(0);
    let server = serve_by(move |_, (head, _)| {
        if !head.starts_with("post /v1/api/show") {
            return Answer::Bytes(Peer::Ollama.stream().0);
        }
        match shown.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => json_response("404 Not Found", &json!({"error": "model 'm' not found"})),
            1 => json_response("500 Internal Server Error", &json!({"error": "boom"})),
            2 => json_response("200 OK", &json!({})),
            _ => json_response("200 OK", &json!({"model_info": {"x.context_length": 4_096}})),
        }
    })
    .await;
    let asked = Settings { context_tokens: 0, key_env: String::new(), key: None, ..settings(&server.base_url) };
    let provider = Peer::Ollama.provider(asked).expect("a provider");
    let probes = async || server.requests.lock().await.iter().filter(|(head, _)| head.contains("/api/show")).count();
    for times in 1..=4 {
        for _ in 0..2 {
            turn(&provider).await.expect("an answer");
        }
        assert_eq!(probes().await, times);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
    }
    assert_eq!(provider.capabilities(None).context_tokens, 4_096);
    turn(&provider).await.expect("an answer");
    assert_eq!(probes().await, 4, "it is known");
    let long = ModelRequest { model: Some("x".repeat(1_000)), ..request() };
    provider.generate_stream(&long, mpsc::channel(100).0).await.expect("an answer");
    assert_eq!(probes().await, 4, "no model has such a name");
}

#[tokio::test]
async fn llama_cpp_is_asked_from_the_root_of_its_server_for_health_slots_and_size() {
    let loaded = std::sync::atomic::AtomicBool::new(false);
    let server = serve_by(move |_, (head, _)| match head.split(' ').nth(1) {
        Some("/health") if !loaded.swap(true, std::sync::atomic::Ordering::Relaxed) => {
            json_response("503 Service Unavailable", &json!({"error": {"code": 503, "message": "Loading model"}}))
        }
        Some("/health") => json_response("200 OK", &json!({"status": "ok"})),
        Some("/slots") => json_response("200 OK", &json!([{"id": 0, "is_processing": true}, {"id": 1}])),
        Some("/props") => json_response("200 OK", &json!({"default_generation_settings": {"n_ctx": 12_288}, "total_slots": 2})),
        other => panic!("{other:?}"),
    })
    .await;
    let asked = Settings { context_tokens: 0, key_env: String::new(), key: None, ..settings(&server.base_url) };
    let provider = HttpProvider::new(asked, LlamaCpp::at(&server.base_url)).expect("a provider");
    let health = provider.health().await;
    assert_eq!(
        (health.availability, health.message.as_str()),
        (Availability::Unavailable, "the server answered 503: Loading model")
    );
    assert!(!provider.is_available());
    let health = provider.health().await;
    assert_eq!((health.availability, health.message.as_str()), (Availability::Available, "1 of 2 slots busy"));
    assert_eq!(provider.capabilities(None).context_tokens, 12_288);
}

#[tokio::test]
async fn copilot_is_asked_for_its_models_sizes_and_asked_again_where_it_did_not_answer() {
    let server = serve_by(|nth, (head, _)| match (head.starts_with("get /v1/models"), nth) {
        (true, 0) => json_response("503 Service Unavailable", &json!({})),
        (true, _) => {
            let limits = json!({"max_context_window_tokens": 144_000, "max_prompt_tokens": 3_000, "max_output_tokens": 16_000});
            json_response("200 OK", &json!({"data": [{"id": "m", "capabilities": {"limits": limits}}]}))
        }
        _ => Answer::Bytes(Peer::Chat.stream().0),
    })
    .await;
    let asked = Settings { context_tokens: 0, ..settings(&server.base_url) };
    let provider = HttpProvider::new(asked, Copilot::default()).expect("a provider");
    let before = provider.capabilities(None).context_tokens;
    turn(&provider).await.expect("an answer");
    assert_eq!(provider.capabilities(None).context_tokens, before, "it could not say");
    turn(&provider).await.expect("an answer");
    assert_eq!((provider.capabilities(None).context_tokens, server.requests.lock().await.len()), (3_000, 4));
    let long = ModelRequest {
        messages: vec![Message::text(Role::User, "lorem ".repeat(3_002))],
        max_tokens: 100,
        ..ModelRequest::default()
    };
    assert_eq!(judged(provider.generate(&long).await), ("final", Code::ContextOverflow));
    assert_eq!(server.requests.lock().await.len(), 4, "it is not sent, and the size is known");
}
