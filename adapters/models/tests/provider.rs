//! The provider against a server on the loopback that answers with exactly the bytes each test gives it.

mod support;

use std::sync::Arc;
use std::time::Duration;

use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::chat::{ChatCompletions, decode_request, encode_chunks, encode_reply};
use helix_adapter_models::ollama::Ollama;
use helix_adapter_models::responses::Responses;
use helix_adapter_models::servers::{LlamaCpp, OpenAi, OpenRouter};
use helix_adapter_models::{HttpProvider, ModelFacts, ModelLookup, Settings, price_per_million};
use helix_ports::{Availability, ModelCapabilities, Provider, ProviderError};
use helix_protocol::{
    Block, Code, Extra, JsonOutput, Message, ModelDelta, ModelReply, ModelRequest, Money, OutputFormat, Role, StopReason, Thinking,
    ThinkingControl, ToolChoice, ToolSchema, Usage, WireFormat, WorkspaceTool,
};
use serde_json::{Value, json};
use support::{Answer, EVENTS, Server, events, json_response, judged, response, serve, serve_by};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

fn settings(server: &Server) -> Settings {
    let prices = [("small".to_owned(), price_per_million(1.0, 0.5, 2.0))].into();
    Settings { model: "small".to_owned(), prices, ..support::settings(&server.base_url) }
}

fn request() -> ModelRequest {
    ModelRequest {
        messages: vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "go")],
        tools: vec![WorkspaceTool::Read.schema(), WorkspaceTool::Shell.schema()],
        max_tokens: 100,
        idempotency_key: Some("key-1".to_owned()),
        ..ModelRequest::default()
    }
}

/// A reply with everything in it, as the provider completes it.
fn reply() -> ModelReply {
    ModelReply {
        model: "small".to_owned(),
        blocks: vec![
            Block::Thinking {
                text: "hm, ä".to_owned(),
                extra: Extra::field(WireFormat::OpenaiChat, "field", json!("reasoning_content")),
            },
            Block::Text { text: "I look.".to_owned(), extra: None },
            Block::ToolUse { id: "a".to_owned(), name: "read".to_owned(), input: json!({"path": "x"}), extra: None },
            Block::ToolUse { id: "b".to_owned(), name: "shell".to_owned(), input: json!({"command": "ls"}), extra: None },
        ],
        stop: StopReason::ToolUse,
        usage: Usage {
            input_tokens: 1_000,
            cached_tokens: 400,
            output_tokens: 50,
            thinking_tokens: 7,
            cost: Money(900),
            ..Usage::default()
        },
    }
}

fn stream_of(reply: &ModelReply) -> Vec<String> {
    let mut datas: Vec<String> = encode_chunks(reply, "id", 1, 3).iter().map(Value::to_string).collect();
    datas.push("[DONE]".to_owned());
    datas
}

async fn stream(settings: Settings) -> (Result<ModelReply, ProviderError>, Vec<ModelDelta>) {
    let provider = HttpProvider::new(settings, ChatCompletions::at("")).expect("a provider");
    let (sink, mut deltas) = mpsc::channel(1_000);
    let result = provider.generate_stream(&request(), sink).await;
    let mut shown = Vec::new();
    while let Some(delta) = deltas.recv().await {
        shown.push(delta);
    }
    (result, shown)
}

async fn stream_answer(answer: Answer) -> Result<ModelReply, ProviderError> {
    let server = serve(vec![answer]).await;
    stream(settings(&server)).await.0
}

#[tokio::test]
async fn a_streamed_answer_is_put_together_priced_and_shown_as_it_comes() {
    let server = serve(vec![Answer::Bytes(events(&stream_of(&reply())))]).await;
    let (result, shown) = stream(settings(&server)).await;
    assert_eq!(result, Ok(reply()));
    let text: String =
        shown.iter().filter_map(|delta| if let ModelDelta::Text { text } = delta { Some(text.as_str()) } else { None }).collect();
    assert_eq!(text, "I look.");
    assert!(shown.contains(&ModelDelta::ToolUse { index: 1, id: "b".to_owned(), name: "shell".to_owned(), extra: None }));

    let (head, body) = server.requests.lock().await[0].clone();
    assert!(head.starts_with("post /v1/chat/completions "));
    assert!(head.contains("\r\nauthorization: bearer sk-test\r\n"));
    assert!(head.contains("\r\nidempotency-key: key-1\r\n"));
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
    let expected = ModelRequest { model: Some("small".to_owned()), idempotency_key: None, ..request() };
    assert_eq!(decode_request(&body), Ok(expected));
}

#[tokio::test]
async fn a_whole_answer_is_the_same_answer_whether_asked_for_or_not() {
    let body = encode_reply(&reply(), "id", 1).to_string();
    let answer = Answer::Bytes(response("200 OK", "content-type: application/json\r\n", &body));
    let server = serve(vec![answer.clone()]).await;
    let provider = HttpProvider::new(settings(&server), ChatCompletions::at("")).expect("a provider");
    assert_eq!(provider.generate(&request()).await, Ok(reply()));
    assert_eq!(stream_answer(answer).await, Ok(reply()));
    assert!(provider.is_available());
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_is_uncertain_and_never_a_shorter_answer() {
    let bytes = events(&stream_of(&ModelReply { blocks: reply().blocks[1..3].to_vec(), ..reply() }));
    let whole = bytes.len() - "\n\n".len();
    let answers = (1..whole).map(|end| Answer::Bytes(bytes[..end].to_vec())).collect();
    let server = serve(answers).await;
    let provider = HttpProvider::new(settings(&server), ChatCompletions::at("")).expect("a provider");
    for end in 1..whole {
        let (sink, _deltas) = mpsc::channel(1_000);
        let result = provider.generate_stream(&request(), sink).await;
        assert!(matches!(result, Err(ProviderError::Uncertain(_))), "cut at byte {end} of {whole}: {result:?}");
    }
    assert!(stream_answer(Answer::Bytes(bytes[..whole].to_vec())).await.is_ok(), "the last blank line is not missed");
}

#[tokio::test]
async fn a_chunked_stream_that_loses_its_connection_is_uncertain() {
    let datas = stream_of(&reply());
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for data in &datas[..datas.len() / 2] {
        let event = format!("data: {data}\n\n");
        bytes.extend(format!("{:x}\r\n{event}\r\n", event.len()).into_bytes());
    }
    assert_eq!(judged(stream_answer(Answer::Bytes(bytes)).await), ("uncertain", Code::ModelFailed));
}

#[tokio::test]
async fn a_server_that_never_answers_or_stops_in_the_middle_is_uncertain_after_the_idle_time() {
    let begun = events(&stream_of(&reply())[..4]);
    for sent in [Vec::new(), begun] {
        let server = serve(vec![Answer::Silence(sent)]).await;
        let quick = Duration::from_millis(60);
        let settings = Settings { connect_timeout: quick, idle_timeout: quick, ..settings(&server) };
        assert_eq!(judged(stream(settings).await.0), ("uncertain", Code::ModelFailed));
    }
}

#[tokio::test]
async fn a_429_says_when_to_come_back_where_the_server_did() {
    for (headers, expected) in [("retry-after: 7\r\n", Some(Duration::from_secs(7))), ("", None)] {
        let answer = Answer::Bytes(response("429 Too Many Requests", headers, r#"{"error":{"message":"slow down"}}"#));
        match stream_answer(answer).await {
            Err(ProviderError::Retryable { failure, retry_after, .. }) => {
                assert_eq!(failure.message, "test answered 429: slow down");
                assert_eq!(retry_after, expected);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn every_other_fault_has_its_kind_and_code() {
    let json = "content-type: application/json\r\n";
    let html = "content-type: text/html\r\n";
    let cases = [
        (response("500 Internal Server Error", "", "boom"), ("retryable", Code::ModelFailed)),
        (response("401 Unauthorized", json, r#"{"error":{"message":"no"}}"#), ("elsewhere", Code::ModelRefused)),
        (response("404 Not Found", html, "<html>"), ("elsewhere", Code::ModelRefused)),
        (response("413 Payload Too Large", "", ""), ("final", Code::ContextOverflow)),
        (response("200 OK", html, "<!doctype html><p>log in"), ("elsewhere", Code::ModelGarbage)),
        (response("200 OK", "", "\n<!doctype html><p>log in, untyped"), ("elsewhere", Code::ModelGarbage)),
        (response("200 OK", json, "<html>mislabelled"), ("elsewhere", Code::ModelGarbage)),
        (response("200 OK", json, "{]"), ("uncertain", Code::ModelGarbage)),
        (response("200 OK", json, "{}"), ("uncertain", Code::ModelGarbage)),
        (response("200 OK", json, r#"{"error":{"message":"busy","code":429}}"#), ("retryable", Code::ModelFailed)),
        (response("200 OK", json, r#"{"error":{"message":"strange"}}"#), ("uncertain", Code::ModelFailed)),
        (events(&[r#"{"error":{"message":"no","type":"invalid_request_error"}}"#.to_owned()]), ("final", Code::ModelRefused)),
        (events(&["nonsense".to_owned()]), ("uncertain", Code::ModelGarbage)),
        (events(&["[DONE]".to_owned()]), ("uncertain", Code::ModelGarbage)),
        (b"not http at all\r\n\r\n".to_vec(), ("uncertain", Code::ModelFailed)),
    ];
    for (bytes, expected) in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(judged(stream_answer(Answer::Bytes(bytes)).await), expected, "{shown}");
    }
}

#[tokio::test]
async fn an_error_after_the_answer_began_is_uncertain_whatever_it_says() {
    let mut datas = stream_of(&reply())[..4].to_vec();
    datas.push(r#"{"error":{"message":"busy","code":429}}"#.to_owned());
    assert_eq!(judged(stream_answer(Answer::Bytes(events(&datas))).await), ("uncertain", Code::ModelFailed));
}

#[tokio::test]
async fn an_endless_event_is_given_up_at_the_limit() {
    let mut bytes = format!("{EVENTS}data: ").into_bytes();
    bytes.extend(std::iter::repeat_n(b'x', 200_000));
    let server = serve(vec![Answer::Silence(bytes)]).await;
    let result = stream(Settings { event_bytes: 64 * 1024, ..settings(&server) }).await.0;
    let failure = result.expect_err("too large").failure().clone();
    assert_eq!(failure.message, "test broke off: its answer is larger than the limit of 65536 bytes");
}

#[tokio::test]
async fn a_server_that_is_not_there_was_certainly_not_billed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    drop(listener);
    let server = Server { base_url, requests: Arc::default() };
    let provider = HttpProvider::new(settings(&server), ChatCompletions::at("")).expect("a provider");
    assert_eq!(judged(provider.generate(&request()).await), ("retryable", Code::ModelFailed));
    assert_eq!(provider.health().await.availability, Availability::Unavailable);
    assert!(!provider.is_available());
}

#[tokio::test]
async fn a_server_that_refuses_its_list_is_there_all_the_same() {
    let server = serve(vec![Answer::Bytes(response("403 Forbidden", "content-type: application/json\r\n", "{}"))]).await;
    let provider = HttpProvider::new(settings(&server), ChatCompletions::at("")).expect("a provider");
    assert_eq!(provider.health().await.availability, Availability::Unavailable);
    assert!(provider.is_available(), "a key for calls may list nothing");
}

#[tokio::test]
async fn without_a_key_nothing_is_sent_and_the_hint_names_the_variable() {
    let server = serve(vec![Answer::Bytes(Vec::new())]).await;
    let failure = match stream(Settings { key: None, ..settings(&server) }).await.0 {
        Err(ProviderError::Elsewhere(failure)) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure.code, Code::ModelUnavailable);
    assert!(failure.hint.contains("TEST_KEY"), "{}", failure.hint);
    assert!(server.requests.lock().await.is_empty());
}

#[tokio::test]
async fn usage_that_is_missing_is_estimated_above_nothing_and_flagged() {
    let mut datas = stream_of(&reply());
    datas.retain(|data| !data.contains("\"choices\":[]"));
    let usage = stream_answer(Answer::Bytes(events(&datas))).await.expect("an answer").usage;
    assert!(usage.estimated && usage.input_tokens > 0 && usage.output_tokens > 0 && usage.cost > Money::ZERO, "{usage:?}");
}

#[tokio::test]
async fn models_are_listed_with_their_prices() {
    let body = r#"{"object":"list","data":[{"id":"small"},{"id":"large"}]}"#;
    let server = serve(vec![Answer::Bytes(response("200 OK", "content-type: application/json\r\n", body))]).await;
    let provider = HttpProvider::new(settings(&server), ChatCompletions::at("")).expect("a provider");
    let models = provider.models().await.expect("a list");
    let priced: Vec<(&str, bool)> = models.iter().map(|model| (model.name.as_str(), model.price.is_some())).collect();
    assert_eq!(priced, [("small", true), ("large", false)]);
    assert_eq!(provider.health().await.availability, Availability::Available);
}

#[tokio::test]
async fn an_answer_that_neither_model_nor_format_can_be_held_to_is_not_asked_for() {
    let server = serve(vec![json_response("200 OK", &json!({}))]).await;
    let held_to = |json_output| {
        let capabilities = ModelCapabilities { json_output, ..ModelCapabilities::default() };
        let models = ModelLookup::new(move |_| ModelFacts { capabilities: capabilities.clone(), ..ModelFacts::default() });
        Settings { models, ..settings(&server) }
    };
    let anthropic = HttpProvider::new(held_to(JsonOutput::Schema), AnthropicMessages).expect("a provider");
    let chat = |json_output| HttpProvider::new(held_to(json_output), ChatCompletions::at("")).expect("a provider");
    let (name, description, schema) = (String::new(), String::new(), json!({"type": "object"}));
    let schema = OutputFormat::JsonSchema { name, description, schema, strict: false };
    for (provider, output, said) in [
        (&anthropic, &OutputFormat::JsonObject, "answers in JSON only by a schema"),
        (&chat(JsonOutput::None), &OutputFormat::JsonObject, "cannot be held to JSON"),
        (&chat(JsonOutput::None), &schema, "cannot be held to JSON"),
        (&chat(JsonOutput::Object), &schema, "cannot be held to a schema"),
    ] {
        let error = provider.generate(&ModelRequest { output: output.clone(), ..request() }).await.expect_err("refused");
        assert!(error.failure().message.contains(said), "{error}");
        assert_eq!(judged::<()>(Err(error)), ("final", Code::InvalidRequest));
    }
    assert!(server.requests.lock().await.is_empty());
    let held = [
        (&chat(JsonOutput::Object), OutputFormat::JsonObject),
        (&chat(JsonOutput::None), OutputFormat::Text),
        (&anthropic, schema),
    ];
    for (provider, output) in held {
        assert!(provider.keeps_output(None, &ModelRequest { output, ..request() }));
    }
}

#[tokio::test]
async fn what_a_format_has_no_word_for_is_not_asked_for_and_what_it_can_do_without_is_left_out() {
    let (model, stop) = ("m".to_owned(), StopReason::EndTurn);
    let reply = ModelReply { model, blocks: vec![Block::text("ok")], stop, usage: Usage::default() };
    let answer = encode_reply(&reply, "id", 1);
    let server = serve(vec![json_response("200 OK", &answer)]).await;
    let provider = HttpProvider::new(settings(&server), ChatCompletions::at("")).expect("a provider");
    let file = json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}});
    let block = Block::Unknown { format: WireFormat::Anthropic, block: file };
    let asked = ModelRequest { messages: vec![Message { role: Role::User, blocks: vec![block] }], ..request() };
    let search = ToolSchema {
        name: "web_search".to_owned(),
        description: String::new(),
        parameters: Value::Null,
        extra: Extra::field(WireFormat::Anthropic, "type", json!("web_search_20250305")),
    };
    let searching = ModelRequest { tools: vec![search.clone()], ..request() };
    for (asked, said) in [(asked, "a block `document` of Anthropic's messages"), (searching, "the tool `web_search`")] {
        assert!(!provider.carries(&asked));
        let error = provider.generate(&asked).await.expect_err("refused");
        assert!(error.failure().message.starts_with(said), "{error}");
        assert_eq!(judged::<()>(Err(error)), ("final", Code::InvalidRequest));
    }
    assert!(server.requests.lock().await.is_empty());
    let beside = ModelRequest { tools: vec![search, WorkspaceTool::Read.schema()], ..request() };
    assert!(!provider.carries(&beside) && provider.carries(&request()));
    provider.generate(&beside).await.expect("an answer");
    assert_eq!(server.requests.lock().await[0].1["tools"].as_array().map(Vec::len), Some(1));
}

/// A prompt of 3,000 words: at least 3,000 tokens, and some 6,000 by the upper estimate.
fn long() -> ModelRequest {
    ModelRequest { messages: vec![Message::text(Role::User, "lorem ".repeat(3_000))], max_tokens: 100, ..ModelRequest::default() }
}

#[tokio::test]
async fn a_prompt_near_the_limit_is_counted_by_the_provider_and_one_beyond_it_is_not_sent() {
    for (counted, sent) in [(5_001, false), (4_999, true)] {
        let server = serve_by(move |_, (head, _)| match head.contains("count_tokens") {
            true => json_response("200 OK", &json!({"input_tokens": counted})),
            false => json_response("529 Overloaded", &json!({})),
        })
        .await;
        let provider = HttpProvider::new(Settings { context_tokens: 5_000, ..settings(&server) }, AnthropicMessages);
        let error = judged(provider.expect("a provider").generate(&long()).await);
        let asked = server.requests.lock().await.len();
        let expected = if sent { (("retryable", Code::ModelFailed), 2) } else { (("final", Code::ContextOverflow), 1) };
        assert_eq!((error, asked), expected, "{counted}");
    }
}

#[tokio::test]
async fn a_prompt_far_below_the_limit_is_sent_without_a_count_and_so_is_one_that_cannot_be_counted() {
    let server = serve(vec![json_response("529 Overloaded", &json!({}))]).await;
    for (context_tokens, requests) in [(100_000, 1), (5_000, 3)] {
        let provider = HttpProvider::new(Settings { context_tokens, ..settings(&server) }, AnthropicMessages);
        assert_eq!(judged(provider.expect("a provider").generate(&long()).await), ("retryable", Code::ModelFailed));
        assert_eq!(server.requests.lock().await.len(), requests);
    }
}

#[tokio::test]
async fn what_a_server_says_it_takes_is_not_overrun_and_one_that_cuts_silently_is_believed_sooner() {
    let server = serve_by(|_, (head, _)| match (head.starts_with("get /props"), head.contains("/api/show")) {
        (true, _) => json_response("200 OK", &json!({"default_generation_settings": {"n_ctx": 4_000}})),
        (_, true) => json_response("200 OK", &json!({"model_info": {"x.context_length": 4_000}})),
        _ => json_response("503 Service Unavailable", &json!({})),
    })
    .await;
    let settings = Settings { context_tokens: 0, ..settings(&server) };
    let words = |count: usize| ModelRequest { messages: vec![Message::text(Role::User, "lorem ".repeat(count))], ..long() };
    let llama = HttpProvider::new(settings.clone(), LlamaCpp::at(&server.base_url)).expect("a provider");
    let ollama = HttpProvider::new(settings, Ollama).expect("a provider");
    let told = |error: ProviderError| error.failure().message.clone();
    // A word with its space has six bytes: one token at least, and likely one and a half.
    assert_eq!(
        told(llama.generate(&words(4_002)).await.expect_err("too long")),
        "the conversation has 4002 tokens, and small of test takes 4000: nothing was sent"
    );
    assert_eq!(
        told(ollama.generate(&words(2_668)).await.expect_err("too long")),
        "the conversation has 4002 tokens, and small of test takes 4000: nothing was sent"
    );
    for sent in [llama.generate(&words(3_999)).await, ollama.generate(&words(2_666)).await] {
        assert_eq!(judged(sent), ("retryable", Code::ModelFailed));
    }
}

#[tokio::test]
async fn a_size_that_is_configured_is_not_overrun_where_nobody_counts() {
    let server = serve(vec![json_response("503 Service Unavailable", &json!({}))]).await;
    let settings = Settings { context_tokens: 4_000, ..settings(&server) };
    let provider = HttpProvider::new(settings, ChatCompletions::at(&server.base_url)).expect("a provider");
    let words = |count: usize| ModelRequest { messages: vec![Message::text(Role::User, "lorem ".repeat(count))], ..long() };
    assert_eq!(judged(provider.generate(&words(4_002)).await), ("final", Code::ContextOverflow));
    assert_eq!(judged(provider.generate(&words(3_999)).await), ("retryable", Code::ModelFailed), "it may fit");
}

#[tokio::test]
async fn two_million_tokens_are_measured_here_and_refused_before_a_byte_of_them_is_sent() {
    let server = serve(vec![json_response("503 Service Unavailable", &json!({}))]).await;
    let knowing = |knows_size| {
        let capabilities = ModelCapabilities { context_tokens: 1_000_000, ..ModelCapabilities::default() };
        ModelLookup::new(move |_| ModelFacts { capabilities: capabilities.clone(), knows_size, ..ModelFacts::default() })
    };
    let of_table = |knows_size| Settings { context_tokens: 0, models: knowing(knows_size), ..settings(&server) };
    // Twelve megabytes of words: two million tokens, however they are counted.
    let vast = ModelRequest { messages: vec![Message::text(Role::User, "lorem ".repeat(2_000_000))], ..long() };
    let formats: [fn(Settings) -> HttpProvider; 5] = [
        |settings| HttpProvider::new(settings, ChatCompletions::at("")).expect("a provider"),
        |settings| HttpProvider::new(settings, Responses).expect("a provider"),
        |settings| HttpProvider::new(settings, OpenAi).expect("a provider"),
        |settings| HttpProvider::new(settings, OpenRouter::new(Vec::new())).expect("a provider"),
        |settings| HttpProvider::new(settings, AnthropicMessages).expect("a provider"),
    ];
    for provider in formats {
        let error = provider(of_table(true)).generate(&vast).await.expect_err("it is too long");
        let expected = "the conversation has 2000000 tokens, and small of test takes 1000000: nothing was sent";
        assert_eq!((error.failure().code, error.failure().message.as_str()), (Code::ContextOverflow, expected));
    }
    assert!(server.requests.lock().await.is_empty());
    // Of a model that nobody knows the size is a guess, and nothing is refused for that.
    assert_eq!(judged(formats[0](of_table(false)).generate(&vast).await), ("retryable", Code::ModelFailed));
}

#[tokio::test]
async fn openai_counts_what_may_be_too_long_and_where_the_format_is_served_by_others_nobody_does() {
    for (counted, sent) in [(5_001, false), (4_999, true)] {
        let server = serve_by(move |_, (head, _)| match head.contains("/responses/input_tokens") {
            true => json_response("200 OK", &json!({"object": "response.input_tokens", "input_tokens": counted})),
            false => json_response("503 Service Unavailable", &json!({})),
        })
        .await;
        let settings = Settings { context_tokens: 5_000, ..settings(&server) };
        let provider = HttpProvider::new(settings.clone(), OpenAi).expect("a provider");
        let expected = if sent { (("retryable", Code::ModelFailed), 2) } else { (("final", Code::ContextOverflow), 1) };
        let error = judged(provider.generate(&long()).await);
        assert_eq!((error, server.requests.lock().await.len()), expected, "{counted}");
        assert_eq!(provider.count_tokens(&long()).await.expect("a count"), counted);
        let other = HttpProvider::new(settings, Responses).expect("a provider");
        assert_eq!(other.count_tokens(&long()).await.expect("an estimate"), other.estimate_tokens(None, &long()));
    }
}

#[tokio::test]
async fn whether_a_choice_of_tools_is_kept_depends_on_format_model_and_thinking() {
    let server = serve(Vec::new()).await;
    let models = |forced_tools| {
        let capabilities = ModelCapabilities { forced_tools, thinking: ThinkingControl::Budget, ..ModelCapabilities::default() };
        ModelLookup::new(move |_| ModelFacts { capabilities: capabilities.clone(), ..ModelFacts::default() })
    };
    let settings = |forced| Settings { models: models(forced), max_tokens: 10_000, ..settings(&server) };
    let anthropic = |forced| HttpProvider::new(settings(forced), AnthropicMessages).expect("a provider");
    let chat = HttpProvider::new(settings(true), ChatCompletions::at("")).expect("a provider");
    let ollama = HttpProvider::new(settings(true), Ollama).expect("a provider");
    let asks = |tool_choice, thinking| ModelRequest { tool_choice, thinking, max_tokens: 0, ..request() };
    let thinks = asks(ToolChoice::Any, Thinking::Budget(2_000));
    let forced = asks(ToolChoice::Any, Thinking::Default);
    let free = asks(ToolChoice::Auto, Thinking::Budget(2_000));
    let kept = |provider: &HttpProvider| [&forced, &thinks, &free].map(|request| provider.keeps_tool_choice(None, request));
    assert_eq!(kept(&anthropic(true)), [true, false, true]);
    assert_eq!(kept(&anthropic(false)), [false, false, true]);
    assert_eq!(kept(&chat), [true, true, true]);
    assert_eq!(kept(&ollama), [false, false, true], "its format has no word for it");
}

#[tokio::test]
async fn a_provider_that_is_closed_lets_its_connections_go_and_connects_anew_for_a_later_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("bound"));
    let body = encode_reply(&reply(), "id", 1).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let accept = async || {
        let (mut line, _) = listener.accept().await.expect("it connects");
        let mut asked = [0; 65_536];
        assert!(line.read(&mut asked).await.expect("it asks") > 0);
        line.write_all(answer.as_bytes()).await.expect("it listens");
        line
    };
    let prices = [("small".to_owned(), price_per_million(1.0, 0.5, 2.0))].into();
    let settings = Settings { model: "small".to_owned(), prices, ..support::settings(&base_url) };
    let provider = HttpProvider::new(settings, ChatCompletions::at("")).expect("a provider");
    let asked = request();
    let (first, mut line) = tokio::join!(provider.generate(&asked), accept());
    assert_eq!(first, Ok(reply()));
    let open = tokio::time::timeout(Duration::from_millis(200), line.read_u8()).await;
    assert!(open.is_err(), "kept for the next call: {open:?}");
    provider.close().await;
    // One that nobody uses is kept for four seconds.
    let ended = tokio::time::timeout(Duration::from_secs(2), line.read_u8()).await.expect("it is let go");
    assert_eq!(ended.map_err(|error| error.kind()), Err(std::io::ErrorKind::UnexpectedEof));
    let (later, _line) = tokio::join!(provider.generate(&asked), accept());
    assert_eq!(later, Ok(reply()));
}
