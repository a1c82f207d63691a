//! The gateway over the real provider of chat completions, whose server streams an answer as most do:
//! without a word on what it used.

use std::sync::Arc;
use std::time::Duration;

use helix_adapter_models::chat::ChatCompletions;
use helix_adapter_models::servers::{Copilot, OpenRouter};
use helix_adapter_models::{Format, HttpProvider, Settings, price_per_million};
use helix_database::{LedgerFilter, RecordStore};
use helix_messages::DailyLimits;
use helix_ports::Provider;
use helix_protocol::{Budget, CallOutcome, Code, ModelCall, Money, Usage};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::scripted::Served;
use super::{CHAT, chat, send};

/// What the server streams of an answer, its last event aside.
const SAID: &str = concat!(
    "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hello \"}}]}\n\n",
    "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"there\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",",
    "\"function\":{\"name\":\"read\",\"arguments\":\"{\\\"path\\\":\\\"x\\\"}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
);
const DONE: &str = "data: [DONE]\n\n";

/// What a gateway before the model says that gave up waiting.
const LATE: &str = "HTTP/1.1 504 Gateway Timeout\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlate";

/// What a server says that found out too late for a status of its own.
const BUSY: &str = "data: {\"error\":{\"message\":\"busy\",\"code\":429}}\n\n";

/// Requests as they came, heads and bodies.
type Seen = Arc<Mutex<Vec<String>>>;

/// Answers one request: to its end, short of its last event where the prompt says `cut`, with an error where it says `busy`, not at
/// all where it says `late`.
async fn answer(mut stream: TcpStream, seen: Seen) -> std::io::Result<()> {
    let mut request = Vec::new();
    let whole = |request: &[u8]| {
        let at = request.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&request[..at]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
        (request.len() >= at + length).then_some(())
    };
    while whole(&request).is_none() {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    seen.lock().push(String::from_utf8_lossy(&request).into_owned());
    let says = |prompt: &[u8]| request.windows(prompt.len()).any(|window| window == prompt);
    let last = if says(b"\"cut\"") { "" } else { DONE };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let answer = match () {
        () if says(b"\"late\"") => LATE.to_owned(),
        () if says(b"\"busy\"") => format!("{head}{BUSY}"),
        () => format!("{head}{SAID}{last}"),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// A provider of such a server, at a millionth for a token that is read and two for one that is written.
async fn silent_about_usage() -> Arc<dyn Provider> {
    speaking(ChatCompletions::at("")).await.0
}

/// Such a provider of a format, and what its server was sent.
async fn speaking(format: impl Format) -> (Arc<dyn Provider>, Seen) {
    let seen = Seen::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let sent = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&sent)));
        }
    });
    let settings = Settings {
        name: "streams".to_owned(),
        base_url,
        key_env: String::new(),
        prices: [("m".to_owned(), price_per_million(1.0, 1.0, 2.0))].into(),
        ..Settings::default()
    };
    (Arc::new(HttpProvider::new(settings, format).expect("a provider")), seen)
}

/// Asks for a stream, and what of it came.
async fn ask(served: &Served, key: &str, prompt: &str) -> (u16, String) {
    let mut body = chat("streams/m", prompt);
    body["stream"] = json!(true);
    let response = send(served, key, CHAT, &body).await;
    (response.status().as_u16(), response.text().await.expect("a body that ends"))
}

/// The one entry of the ledger once `ended` is true of it: a call that a limit is about is entered before it is made, too.
async fn entry(served: &Served, ended: impl Fn(&ModelCall) -> bool) -> ModelCall {
    for _ in 0..100 {
        let calls = served.store.ledger(LedgerFilter { limit: 10, ..LedgerFilter::default() }).await.expect("memory answers");
        if let [call] = &calls[..]
            && ended(call)
        {
            return call.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no such call is in the ledger");
}

/// Enough for the most that one call can use, 25 tokens in and 50 out, after one that used what was said; not for the most of two.
const BUDGET: Budget = Budget { money: Some(Money(125 + 81)), tokens: None };

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ended_without_a_word_on_usage_passes_untouched_and_is_settled_on_an_estimate() {
    let served = Served::over(DailyLimits::default(), vec![silent_about_usage().await]).await;
    let key = served.key(|key| key.budget = BUDGET).await;
    assert_eq!(ask(&served, &key, "hi").await, (200, format!("{SAID}{DONE}")));

    let call = entry(&served, |call| call.outcome != CallOutcome::Uncertain).await;
    // The prompt is 25 by the estimate that a reservation is made with; the text is 4 and the call 24.
    let used = Usage { input_tokens: 25, output_tokens: 28, cost: Money(81), estimated: true, ..Usage::default() };
    assert_eq!((call.outcome, call.code, call.usage), (CallOutcome::Answered, None, used));
    assert_eq!((call.provider.as_str(), call.model.as_str()), ("streams", "m"));
    for _ in 0..100 {
        // The key learns of it a moment after the ledger does.
        if ask(&served, &key, "hi").await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the key was charged with more than was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_cut_stays_uncertain_and_counts_in_full() {
    let served = Served::over(DailyLimits::default(), vec![silent_about_usage().await]).await;
    let key = served.key(|key| key.budget = BUDGET).await;
    assert_eq!(ask(&served, &key, "cut").await, (200, SAID.to_owned()));

    let call = entry(&served, |call| call.code.is_some()).await;
    let most = Usage { input_tokens: 75, cost: Money(125), estimated: true, ..Usage::default() };
    assert_eq!((call.outcome, call.code, call.usage), (CallOutcome::Uncertain, Some(Code::ModelFailed), most));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ask(&served, &key, "hi").await.0, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_may_have_been_billed_passes_as_it_came_counts_in_full_and_asks_not_to_be_repeated() {
    let served = Served::over(DailyLimits::default(), vec![silent_about_usage().await]).await;
    let key = served.key(|key| key.budget = BUDGET).await;
    let refused = send(&served, &key, CHAT, &chat("streams/m", "late")).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["x-should-retry"].to_str().ok()), (504, Some("false")));
    assert_eq!(refused.text().await.expect("a body"), "late");

    let call = entry(&served, |call| call.code.is_some()).await;
    let most = Usage { input_tokens: 76, cost: Money(126), estimated: true, ..Usage::default() };
    assert_eq!((call.outcome, call.code, call.usage), (CallOutcome::Uncertain, Some(Code::ModelFailed), most));
    assert_eq!(ask(&served, &key, "hi").await.0, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_came_as_an_answer_is_none_and_costs_nothing() {
    let served = Served::over(DailyLimits::default(), vec![silent_about_usage().await]).await;
    let key = served.key(|key| key.budget = BUDGET).await;
    for _ in 0..2 {
        let (status, told) = ask(&served, &key, "busy").await;
        assert!(status == 503 && told.contains("busy"), "{status} {told}");
    }
    assert_eq!(ask(&served, &key, "hi").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_copilot_and_openrouter_are_told_besides_reaches_them_from_clients_that_speak_their_format_too() {
    let (copilot, seen) = speaking(Copilot::default()).await;
    let served = Served::over(DailyLimits::default(), vec![copilot]).await;
    let key = served.key(|_| {}).await;
    assert_eq!(ask(&served, &key, "hi").await.0, 200);
    let asked = seen.lock().pop().expect("it was asked");
    assert!(asked.starts_with("POST ") && asked.contains("\r\nx-initiator: user\r\n"), "{asked}");

    let (openrouter, seen) = speaking(OpenRouter::new(vec!["spare".to_owned()])).await;
    let served = Served::over(DailyLimits::default(), vec![openrouter]).await;
    let key = served.key(|_| {}).await;
    assert_eq!(ask(&served, &key, "hi").await.0, 200);
    let sent = seen.lock().pop().expect("it was asked");
    assert!(sent.contains(r#""models":["m","spare"]"#) && sent.contains(r#""session_id":"#), "{sent}");
}
