//! Bytes that pass to a server and back: they stay as they are, a refusal is judged as where it is read here, and what was used
//! is learnt on the way by.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::chat::ChatCompletions;
use helix_adapter_models::gemini::Gemini;
use helix_adapter_models::ollama::Ollama;
use helix_adapter_models::responses::Responses;
use helix_adapter_models::servers::{Copilot, OpenRouter};
use helix_adapter_models::{Access, ApiKey, Credentials, HttpProvider, Settings};
use helix_ports::{Provider, ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{Code, Extra, ModelRequest, Usage, WireFormat};
use serde_json::{Value, json};
use support::{Answer, EVENTS, Server, events, json_response, judged, lines, response, serve, settings};

/// Makes a provider of a server.
type Making = fn(&Server) -> HttpProvider;

fn chat(server: &Server) -> HttpProvider {
    HttpProvider::new(settings(&server.base_url), ChatCompletions::at("")).expect("a provider")
}

fn call(operation: RawOperation, body: &Value) -> RawCall {
    RawCall { operation, model: "m".to_owned(), headers: Vec::new(), body: Bytes::from(body.to_string()) }
}

fn asked() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
}

/// The whole body, and what it used.
async fn read(answer: RawAnswer) -> (String, Option<Usage>) {
    let chunks: Vec<_> = answer.body.map(|chunk| chunk.expect("a chunk")).collect().await;
    (String::from_utf8(chunks.concat()).expect("text"), answer.ended.await.and_then(Result::ok))
}

/// A server that refuses: what that means, and the status and the body that pass.
async fn refusal(
    provider: impl Fn(&Server) -> HttpProvider,
    status: &str,
    headers: &str,
    body: &str,
) -> (ProviderError, u16, String) {
    let server = serve(vec![Answer::Bytes(response(status, headers, body))]).await;
    let answer = provider(&server).forward(call(RawOperation::Generate, &asked())).await.expect("an answer");
    let (status, fault) = (answer.status, answer.fault.clone().expect("a fault"));
    let (body, used) = read(answer).await;
    assert_eq!(used, None);
    (fault, status, body)
}

#[tokio::test]
async fn a_refusal_passes_as_it_came_and_is_judged_by_the_rules_of_calls_that_are_read_here() {
    let spent = r#"{"error":{"message":"no","code":"insufficient_quota"}}"#;
    let long = r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#;
    for (status, headers, body, expected) in [
        ("504 Gateway Timeout", "", "late", ("uncertain", Code::ModelFailed)),
        ("524 A Timeout Occurred", "", "late", ("uncertain", Code::ModelFailed)),
        ("429 Too Many Requests", "", "{}", ("retryable", Code::ModelFailed)),
        ("429 Too Many Requests", "", spent, ("elsewhere", Code::ModelRefused)),
        ("503 Service Unavailable", "x-should-retry: false\r\n", "", ("elsewhere", Code::ModelFailed)),
        ("400 Bad Request", "x-should-retry: true\r\n", "{}", ("retryable", Code::ModelRefused)),
        ("400 Bad Request", "", long, ("final", Code::ContextOverflow)),
        ("413 Payload Too Large", "", "", ("final", Code::ContextOverflow)),
        ("401 Unauthorized", "", "{}", ("elsewhere", Code::ModelRefused)),
        ("302 Found", "", "", ("elsewhere", Code::ModelGarbage)),
        ("200 OK", "content-type: text/html\r\n", "<html>", ("elsewhere", Code::ModelGarbage)),
    ] {
        let (fault, passed, told) = refusal(chat, status, headers, body).await;
        assert_eq!(judged::<()>(Err(fault)), expected, "{status} {headers} {body}");
        assert_eq!((passed.to_string().as_str(), told.as_str()), (&status[..3], body));
    }
}

#[tokio::test]
async fn the_time_a_provider_names_is_read_from_a_date_and_from_the_details_of_an_error() {
    let wait = |fault: ProviderError| match fault {
        ProviderError::Retryable { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    };
    let dated = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
    let (fault, ..) = refusal(chat, "429 Too Many Requests", dated, "{}").await;
    assert_eq!(wait(fault), Some(Duration::from_secs(30)));
    let gemini = |server: &Server| HttpProvider::new(settings(&server.base_url), Gemini::default()).expect("a provider");
    let delayed = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"slow","details":[{"retryDelay":"1.5s"}]}}"#;
    let (fault, ..) = refusal(gemini, "429 Too Many Requests", "", delayed).await;
    assert_eq!(wait(fault), Some(Duration::from_millis(1_500)));
}

#[tokio::test]
async fn a_refusal_larger_than_what_is_read_of_it_passes_whole_but_for_the_key() {
    let body = |key: &str| format!("{key} {} {key}", "x".repeat(100_000));
    let (fault, _, told) = refusal(chat, "500 Internal Server Error", "", &body("sk-test")).await;
    assert_eq!(told, body("[key]"));
    assert!(!fault.failure().message.contains("sk-test"), "{fault}");
}

#[tokio::test]
async fn a_key_or_a_token_that_a_refusal_quotes_is_masked_whatever_its_status_and_however_it_is_cut() {
    let anthropic: Making = |server| HttpProvider::new(settings(&server.base_url), AnthropicMessages).expect("made");
    let gemini: Making = |server| HttpProvider::new(settings(&server.base_url), Gemini::default()).expect("made");
    let logged_in: Making = |server| {
        let settings = Settings { key: None, ..settings(&server.base_url) };
        HttpProvider::new(settings, ChatCompletions::at("")).expect("made").with_credentials(Login)
    };
    for provider in [chat as Making, anthropic, gemini, logged_in] {
        for status in ["400 Bad Request", "404 Not Found", "413 Too Large", "422 No", "429 Too Many", "503 Busy", "302 Found"] {
            let quoted = |key: &str| format!(r#"{{"error":{{"message":"upstream failed for key Bearer {key}"}}}}"#);
            let (fault, _, told) = refusal(provider, status, "", &quoted("sk-test")).await;
            assert_eq!(told, quoted("[key]"), "{status}");
            assert!(!format!("{fault:?}").contains("sk-test"), "{fault:?}");
        }
    }
    let bytes = response("429 Too Many", "", r#"{"error":"sk-test"}"#);
    let server = serve(vec![Answer::Drip(bytes, Duration::from_micros(100))]).await;
    let answer = chat(&server).forward(call(RawOperation::Generate, &asked())).await.expect("an answer");
    assert_eq!(read(answer).await.0, r#"{"error":"[key]"}"#);
}

#[tokio::test]
async fn a_key_in_an_error_in_the_midst_of_a_stream_is_masked_and_what_the_model_says_is_not() {
    let said = json!({"choices": [{"index": 0, "delta": {"content": "sk-test"}}]}).to_string();
    let error = |key: &str| json!({"error": {"message": format!("no more for {key}"), "code": 429}}).to_string();
    let logged_in: Making = |server| {
        let settings = Settings { key: None, ..settings(&server.base_url) };
        HttpProvider::new(settings, ChatCompletions::at("")).expect("made").with_credentials(Login)
    };
    for provider in [chat as Making, logged_in] {
        let body = format!("data: {said}\n\ndata: {}\n\n", error("sk-test"));
        let bytes = format!("{EVENTS}{body}").into_bytes();
        for sent in [Answer::Bytes(bytes.clone()), Answer::Drip(bytes, Duration::from_micros(100))] {
            let server = serve(vec![sent]).await;
            let answer = provider(&server).forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
            assert_eq!(answer.fault, None);
            let chunks: Vec<_> = answer.body.map(|chunk| chunk.expect("a chunk")).collect().await;
            let expected = format!("data: {said}\n\ndata: {}\n\n", error("[key]"));
            assert_eq!(String::from_utf8(chunks.concat()).expect("text"), expected);
            let ended = format!("{:?}", answer.ended.await);
            assert!(ended.contains("[key]") && !ended.contains("sk-test"), "{ended}");
        }
    }
}

/// A token that stands in no settings.
#[derive(Debug)]
struct Login;

#[async_trait::async_trait]
impl Credentials for Login {
    async fn access(&self) -> Result<Access, ProviderError> {
        Ok(Access { key: ApiKey::new("sk-test"), base_url: None })
    }

    async fn renew(&self, _refused: &Access) -> Result<Option<Access>, ProviderError> {
        Ok(None)
    }

    fn is_ready(&self, _key_env: &str) -> bool {
        true
    }
}

#[tokio::test]
async fn a_success_that_carries_an_error_is_judged_as_where_it_is_read_here_and_passes_as_it_came() {
    let [anthropic, responses, gemini, ollama]: [Making; 4] = [
        |server| HttpProvider::new(settings(&server.base_url), AnthropicMessages).expect("a provider"),
        |server| HttpProvider::new(settings(&server.base_url), Responses).expect("a provider"),
        |server| HttpProvider::new(settings(&server.base_url), Gemini::default()).expect("a provider"),
        |server| HttpProvider::new(settings(&server.base_url), Ollama).expect("a provider"),
    ];
    let busy = r#"{"error":{"message":"busy","code":429}}"#;
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    let failed = r#"{"type":"error","code":"rate_limit_exceeded","message":"m"}"#;
    let json = |body: &str| response("200 OK", "content-type: application/json\r\n", body);
    let stream = |body: &str| format!("{EVENTS}{body}").into_bytes();
    let unavailable = r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"m"}}"#;
    for (provider, bytes, expected) in [
        (chat as Making, json(busy), ("retryable", Code::ModelFailed)),
        (chat, json(r#"{"error":{"message":"strange"}}"#), ("uncertain", Code::ModelFailed)),
        (chat, json(r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#), ("final", Code::ContextOverflow)),
        (chat, json("<html>mislabelled"), ("elsewhere", Code::ModelGarbage)),
        (chat, stream(&format!(": wait\n\ndata: {busy}\n\n")), ("retryable", Code::ModelFailed)),
        (chat, stream(&format!("data: {busy}")), ("retryable", Code::ModelFailed)),
        (chat, stream(busy), ("retryable", Code::ModelFailed)),
        (anthropic, json(overloaded), ("retryable", Code::ModelFailed)),
        (anthropic, stream(&format!("event: error\ndata: {overloaded}\n\n")), ("retryable", Code::ModelFailed)),
        (responses, stream(&format!("event: error\ndata: {failed}\n\n")), ("retryable", Code::ModelFailed)),
        (gemini, json(&format!("[{unavailable}]")), ("retryable", Code::ModelFailed)),
        (ollama, lines(&[json!({"error": "model runner has stopped"})]), ("uncertain", Code::ModelFailed)),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let server = serve(vec![Answer::Bytes(bytes)]).await;
        let answer = provider(&server).forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
        assert_eq!(judged::<()>(answer.fault.clone().map_or(Ok(()), Err)), expected, "{shown}");
        let (body, used) = read(answer).await;
        assert!(shown.ends_with(&body) && !body.is_empty(), "{body}");
        assert_eq!(used, None);
    }
}

#[tokio::test]
async fn how_an_answer_ends_is_told_unless_whoever_took_it_left() {
    let said = json!({"choices": [{"index": 0, "delta": {"content": "x"}}]}).to_string();
    let busy = json!({"error": {"message": "busy", "code": 429}}).to_string();
    let unread = json!({"choices": "of another kind"}).to_string();
    let failed = ("uncertain", Code::ModelFailed);
    for (datas, stays, expected) in [
        (vec![said.clone()], true, Some(failed)),
        (vec![said.clone(), busy], true, Some(failed)),
        (vec![said.clone(), unread], true, None),
        (vec![said], false, None),
    ] {
        let server = serve(vec![Answer::Bytes(events(&datas))]).await;
        let mut answer = chat(&server).forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
        answer.body.next().await.expect("a chunk").expect("of the answer");
        while stays && let Some(chunk) = answer.body.next().await {
            chunk.expect("a chunk");
        }
        drop(answer.body);
        assert_eq!(answer.ended.await.map(judged), expected, "{datas:?}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_before_the_model_speaks_is_none_however_many_events_say_that_it_began() {
    let made: Making = |server| HttpProvider::new(settings(&server.base_url), Responses).expect("a provider");
    let event = |kind: &str| json!({"type": kind, "response": {"id": "r", "status": "in_progress"}}).to_string();
    let failed = json!({"type": "error", "code": "rate_limit_exceeded", "message": "m"}).to_string();
    let bytes = events(&[event("response.created"), event("response.in_progress"), failed]);
    let server = serve(vec![Answer::Drip(bytes, Duration::from_micros(100))]).await;
    let answer = made(&server).forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
    assert_eq!(judged::<()>(answer.fault.map_or(Ok(()), Err)), ("retryable", Code::ModelFailed));

    // A model that thinks for long before it speaks is not held back for long.
    let server = serve(vec![Answer::Silence(events(&[event("response.created")]))]).await;
    let mut answer = made(&server).forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
    assert_eq!(answer.fault, None);
    let first = answer.body.next().await.expect("a chunk").expect("of the answer");
    assert!(String::from_utf8_lossy(&first).contains("response.created"));
}

#[tokio::test]
async fn a_stream_is_held_until_the_model_speaks_and_no_longer() {
    let said = json!({"choices": [{"index": 0, "delta": {"content": "hello"}}]}).to_string();
    let server =
        serve(vec![Answer::Silence(events(&[said.clone(), r#"{"error":{"message":"busy","code":429}}"#.to_owned()]))]).await;
    let mut answer = chat(&server).forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
    assert_eq!(answer.fault, None, "what comes later is the client's to read");
    let first = answer.body.next().await.expect("a chunk").expect("of the answer");
    assert!(String::from_utf8_lossy(&first).starts_with(&format!("data: {said}")));
}

#[tokio::test]
async fn an_answer_that_drips_on_is_given_up_when_a_calls_time_is_over() {
    let said = json!({"choices": [{"index": 0, "delta": {"content": "x"}}]}).to_string();
    let bytes = events(&vec![said; 200]);
    let server = serve(vec![Answer::Drip(bytes, Duration::from_millis(2))]).await;
    let settings = Settings { call_timeout: Duration::from_millis(500), ..settings(&server.base_url) };
    let provider = HttpProvider::new(settings, ChatCompletions::at("")).expect("a provider");
    let answer = provider.forward(call(RawOperation::Stream, &asked())).await.expect("an answer");
    let chunks: Vec<_> = answer.body.collect().await;
    let last = chunks.last().cloned().expect("a chunk").map(drop);
    match &last {
        Err(ProviderError::Uncertain(failure)) => assert_eq!(failure.message, "test did not finish its answer within 500 ms"),
        other => panic!("{other:?}"),
    }
    assert_eq!(answer.ended.await.map(|ended| ended.map(drop)), Some(last));
}

#[tokio::test]
async fn an_answer_that_says_nothing_of_what_it_used_is_estimated_once_it_has_come_to_its_regular_end() {
    let said = json!({"model": "m", "choices": [{"index": 0, "delta": {"content": "hello there"}, "finish_reason": "stop"}]});
    let whole = json!({"model": "m", "choices": [{"message": {"content": "hello there"}, "finish_reason": "stop"}]});
    let counted = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}});
    let stream = |datas: &[&Value], end: &str| {
        let datas: Vec<String> = datas.iter().map(|data| data.to_string()).chain([end.to_owned()]).collect();
        Answer::Bytes(events(&datas))
    };
    // 16 and 8 frame the prompt and its message, and "hi" is 1; "hello there" is 4.
    let estimate = Usage { input_tokens: 25, output_tokens: 4, estimated: true, ..Usage::default() };
    let exact = Usage { input_tokens: 9, output_tokens: 3, ..Usage::default() };
    let (one, three) = (asked(), json!({"n": 3, "messages": [{"role": "user", "content": "hi"}]}));
    let several = Usage { output_tokens: 12, ..estimate };
    for (name, asked, answer, expected) in [
        ("ended", &one, stream(&[&said], "[DONE]"), Some(estimate)),
        ("three answers", &three, stream(&[&said], "[DONE]"), Some(several)),
        ("counted", &one, stream(&[&said, &counted], "[DONE]"), Some(exact)),
        ("cut", &one, stream(&[&said], "{\"choices\""), None),
        ("in one piece", &one, json_response("200 OK", &whole), Some(estimate)),
    ] {
        let server = serve(vec![answer]).await;
        let answer = chat(&server).forward(call(RawOperation::Stream, asked)).await.expect("an answer");
        assert_eq!(answer.fault, None);
        assert_eq!(read(answer).await.1, expected, "{name}");
        assert_eq!(server.requests.lock().await[0].1, *asked, "{name}");
    }
}

#[tokio::test]
async fn a_request_that_names_models_beside_its_own_is_sent_to_nobody_passing_or_read() {
    let server = serve(vec![json_response("200 OK", &json!({}))]).await;
    let mut asked = asked();
    asked["models"] = json!(["openai/gpt-5-pro"]);
    let passed = chat(&server).forward(call(RawOperation::Generate, &asked)).await.map(|answer| answer.status);
    let extra = json!({"models": ["openai/gpt-5-pro"]}).as_object().cloned().expect("an object");
    let request = ModelRequest { extra: Extra::of(WireFormat::OpenaiChat, extra), ..ModelRequest::default() };
    let openrouter = HttpProvider::new(settings(&server.base_url), OpenRouter::new(vec!["b/two".to_owned()])).expect("a provider");
    let read = openrouter.generate(&request).await.map(|_| 200);
    for refused in [passed, read] {
        let error = refused.expect_err("refused");
        assert!(error.failure().message.starts_with("`models` names models"), "{error}");
        assert_eq!(judged::<()>(Err(error)), ("final", Code::InvalidRequest));
    }
    assert!(server.requests.lock().await.is_empty());
}

#[tokio::test]
async fn headers_of_the_format_pass_and_name_the_version_that_the_client_wants() {
    let server = serve(vec![json_response("200 OK", &json!({}))]).await;
    let provider = HttpProvider::new(settings(&server.base_url), AnthropicMessages).expect("a provider");
    let headers = vec![("anthropic-version".to_owned(), "2099-01-01".to_owned())];
    let call = RawCall { headers, ..call(RawOperation::Generate, &asked()) };
    provider.forward(call).await.expect("an answer");
    let head = server.requests.lock().await[0].0.clone();
    assert_eq!(head.matches("anthropic-version: 2099-01-01").count(), 1, "{head}");
    assert_eq!(head.matches("anthropic-version").count(), 1, "{head}");
}

#[tokio::test]
async fn servers_that_are_told_more_than_the_format_has_take_no_bytes_as_they_are() {
    let server = serve(vec![json_response("200 OK", &json!({}))]).await;
    let copilot = HttpProvider::new(settings(&server.base_url), Copilot::default()).expect("a provider");
    let openrouter = HttpProvider::new(settings(&server.base_url), OpenRouter::new(Vec::new())).expect("a provider");
    assert!(chat(&server).passes());
    for provider in [copilot, openrouter] {
        assert!(!provider.passes());
        let refused = provider.forward(call(RawOperation::Generate, &asked())).await.map(|answer| answer.status);
        assert_eq!(judged(refused), ("final", Code::InvalidRequest));
    }
    assert!(server.requests.lock().await.is_empty());
}
