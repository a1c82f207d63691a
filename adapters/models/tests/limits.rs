//! What headers of answers say of limits: it holds for the model that answered, until its time, and for nothing else.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use helix_adapter_models::HttpProvider;
use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::chat::ChatCompletions;
use helix_ports::{Provider, RateLimits, RateWindow, RawCall, RawOperation};
use helix_protocol::{Message, ModelRequest, Role};
use serde_json::{Value, json};
use support::{Answer, response, serve_by, settings};

/// No request is left for the next so many milliseconds.
fn exhausted(reset_ms: u64) -> RateLimits {
    RateLimits { requests: Some(RateWindow { limit: 9, remaining: 0, reset_ms }), tokens: None }
}

fn headers(reset: &str) -> String {
    format!("x-ratelimit-limit-requests: 9\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: {reset}\r\n")
}

fn asking(model: &str) -> ModelRequest {
    ModelRequest { model: Some(model.to_owned()), messages: vec![Message::text(Role::User, "hi")], ..ModelRequest::default() }
}

/// A provider of a server that answers each request by its path and its model.
async fn chat(answer: fn(&str, &str) -> (&'static str, String)) -> HttpProvider {
    let server = serve_by(move |_, (head, body)| {
        let (status, headers) = answer(head, body["model"].as_str().unwrap_or_default());
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"});
        let said = json!({"choices": [choice], "data": [{"id": "m"}]});
        Answer::Bytes(response(status, &format!("content-type: application/json\r\n{headers}"), &said.to_string()))
    });
    HttpProvider::new(settings(&server.await.base_url), ChatCompletions::at("")).expect("a provider")
}

/// The limits of a model, as if no time had passed since they were told.
fn told(provider: &dyn Provider, model: Option<&str>, reset_ms: u64) -> RateLimits {
    let limits = provider.rate_limits(model);
    let fresh = |window: RateWindow| {
        assert!(window.reset_ms <= reset_ms && reset_ms - window.reset_ms < 10_000, "{window:?}");
        RateWindow { reset_ms, ..window }
    };
    RateLimits { requests: limits.requests.map(fresh), tokens: limits.tokens.map(fresh) }
}

#[tokio::test]
async fn limits_are_the_models_that_answered_and_hold_until_their_time() {
    let provider = chat(|_, model| match model {
        "m" => ("200 OK", headers("1m")),
        "refused" => ("429 Too Many Requests", headers("20s")),
        "called-back" => ("429 Too Many Requests", headers("60s") + "retry-after: 20\r\n"),
        "short" => ("200 OK", headers("1ms")),
        "day" => ("200 OK", headers("24h0m0s")),
        _ => ("200 OK", String::new()),
    });
    let provider = provider.await;
    for model in ["m", "short", "day", "silent"] {
        provider.generate(&asking(model)).await.expect("an answer");
    }
    for model in ["refused", "called-back"] {
        provider.generate(&asking(model)).await.expect_err("a refusal");
        assert_eq!(told(&provider, Some(model), 20_000), exhausted(20_000), "{model}");
    }
    assert_eq!(told(&provider, Some("m"), 60_000), exhausted(60_000));
    assert_eq!(told(&provider, None, 60_000), exhausted(60_000), "it is the provider's own model");
    assert_eq!(told(&provider, Some("day"), 3_600_000), exhausted(3_600_000), "none is believed for longer than an hour");
    tokio::time::sleep(Duration::from_millis(2)).await;
    for model in ["short", "silent", "never-asked"] {
        assert_eq!(provider.rate_limits(Some(model)), RateLimits::default(), "{model}");
    }
}

#[tokio::test]
async fn what_is_no_answer_of_a_model_says_nothing_of_its_limits() {
    let provider = chat(|head, _| match () {
        () if head.contains("get /v1/models") => ("200 OK", String::new()),
        () if head.contains("idempotency-key: failing") => ("500 Internal Server Error", headers("1s")),
        () => ("200 OK", headers("60s")),
    });
    let provider = provider.await;
    provider.generate(&asking("m")).await.expect("an answer");
    provider.models().await.expect("a list");
    provider.health().await;
    let failing = ModelRequest { idempotency_key: Some("failing".to_owned()), ..asking("m") };
    provider.generate(&failing).await.expect_err("a failure");
    assert_eq!(told(&provider, Some("m"), 60_000), exhausted(60_000));
}

#[tokio::test]
async fn counting_tokens_has_limits_of_its_own_and_bytes_that_pass_have_the_models() {
    let server = serve_by(|_, (head, _)| {
        let remaining = if head.contains("count_tokens") { 0 } else { 5 };
        let headers = format!(
            "content-type: application/json\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nanthropic-ratelimit-requests-limit: 9\r\n\
             anthropic-ratelimit-requests-remaining: {remaining}\r\nanthropic-ratelimit-requests-reset: 1994-11-06T08:50:37Z\r\n"
        );
        let said = json!({"input_tokens": 7, "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": "end_turn"});
        Answer::Bytes(response("200 OK", &headers, &said.to_string()))
    });
    let provider = HttpProvider::new(settings(&server.await.base_url), AnthropicMessages).expect("a provider");
    let left = RateLimits { requests: Some(RateWindow { limit: 9, remaining: 5, reset_ms: 60_000 }), tokens: None };
    let pass = async |operation, model: &str| {
        let body: Value = json!({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
        let call = RawCall { operation, model: model.to_owned(), headers: Vec::new(), body: Bytes::from(body.to_string()) };
        let answer = provider.forward(call).await.expect("an answer");
        let _chunks: Vec<_> = answer.body.collect().await;
    };
    pass(RawOperation::Generate, "m").await;
    pass(RawOperation::CountTokens, "m").await;
    provider.count_tokens(&asking("m")).await.expect("a count");
    pass(RawOperation::CountTokens, "other").await;
    assert_eq!(told(&provider, Some("m"), 60_000), left);
    assert_eq!(provider.rate_limits(Some("other")), RateLimits::default());
}
