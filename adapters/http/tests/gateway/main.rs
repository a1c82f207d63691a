//! The gateway over a scripted provider: what every client meets, and the official clients themselves (`clients`).

mod clients;
#[path = "../../../../tests/harness/not_run.rs"]
mod not_run;
mod passing;
#[path = "../../../../tests/harness/peers.rs"]
mod peers;
mod routing;
mod scripted;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use helix_database::{LedgerFilter, RecordStore};
use helix_messages::{DailyLimits, Payers, Spending};
use helix_protocol::{
    Budget, CallOutcome, Code, GatewayKey, Money, OwnerId, Payer, ProjectId, Spent, TaskId, Timestamp, Usage, WireFormat,
};
use scripted::{GREETING, PIECE, PONDERING, Scripted, Served};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn post(served: &Served, key: &str, path: &str, body: &Value) -> (u16, Value) {
    let response = send(served, key, path, body).await;
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

async fn send(served: &Served, key: &str, path: &str, body: &Value) -> reqwest::Response {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::new().post(format!("http://{}{path}", served.address)).bearer_auth(key).json(body);
    request.send().await.expect("the gateway answers")
}

fn chat(model: &str, prompt: &str) -> Value {
    json!({"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": prompt}]})
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_answered_and_the_error_is_in_the_clients_format() {
    let served = Served::start().await;
    let (status, error) = post(&served, "wrong", CHAT, &chat("coder", "hi")).await;
    assert_eq!(status, 401);
    assert!(error["error"]["message"].as_str().expect("a message").contains("not known"), "{error}");
    let expired = served.key(|key| key.expires_at = Some(Timestamp(1))).await;
    assert_eq!(post(&served, &expired, CHAT, &chat("coder", "hi")).await.0, 401);
    let revoked = served.key(|key| key.revoked_at = Some(Timestamp(1))).await;
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    let (status, error) = post(&served, &revoked, CHAT, &chat("coder", "hi")).await;
    assert_eq!(status, 401);
    assert!(error["error"]["message"].as_str().expect("a message").contains("revoked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_its_models_its_rate_and_its_budget() {
    let served = Served::start().await;
    let narrow = served.key(|key| key.models = vec!["coder".to_owned()]).await;
    let slow = served.key(|key| key.requests_per_minute = Some(1)).await;
    // 42 tokens in at 1 and 50 out at 2 millionths: 142 are reserved, 25 are used.
    let poor = served.key(|key| key.budget = Budget { money: Some(Money(160)), tokens: None }).await;
    let ask = |key: String, model: &'static str| {
        let served = &served;
        async move { post(served, &key, CHAT, &chat(model, "hi")).await.0 }
    };
    assert_eq!([ask(narrow.clone(), "coder").await, ask(narrow, "translated/scripted-1").await], [200, 403]);
    assert_eq!([ask(slow.clone(), "coder").await, ask(slow, "coder").await], [200, 429]);
    assert_eq!([ask(poor.clone(), "coder").await, ask(poor, "coder").await], [200, 402]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_counts_against_the_day_of_its_owner_whatever_the_key_and_a_project_has_its_own() {
    // 142 millionths are reserved for a call, 25 are used; see above.
    let day = |money: i64| Budget { money: Some(Money(money)), tokens: None };
    let served = Served::limited(DailyLimits { owner: day(170), project: Budget::default() }).await;
    let (one, other) = (served.key(|_| {}).await, served.key(|_| {}).await);
    assert_eq!(post(&served, &one, CHAT, &chat("coder", "hi")).await.0, 200);
    assert_eq!(post(&served, &other, CHAT, &chat("coder", "hi")).await.0, 200, "25 are spent, and 142 fit");
    let refused = send(&served, &one, CHAT, &chat("coder", "hi")).await;
    assert_eq!(refused.status(), 402);
    let wait = refused.headers()["retry-after"].to_str().expect("a number").parse::<u64>().expect("a number");
    assert!((1..=86_400).contains(&wait), "until midnight UTC");
    let error: Value = refused.json().await.expect("JSON");
    assert!(error["error"]["message"].as_str().expect("a message").contains("today's limit for all tasks and keys"), "{error}");

    let project = ProjectId::new();
    let served = Served::limited(DailyLimits { owner: Budget::default(), project: day(150) }).await;
    let (theirs, ours) = (served.key(|key| key.project = project).await, served.key(|_| {}).await);
    let ask = async |key: &str| post(&served, key, CHAT, &chat("coder", "hi")).await.0;
    assert_eq!([ask(&theirs).await, ask(&theirs).await, ask(&ours).await], [200, 402, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_is_charged_in_full_before_it_is_made_so_that_a_node_that_dies_does_not_forget_it() {
    let day = Budget { money: Some(Money(1_000)), tokens: None };
    let served = Served::limited(DailyLimits { owner: day, project: Budget::default() }).await;
    let key = served.key(|_| {}).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (address, secret) = (served.address, key.clone());
    let asking = tokio::spawn(async move {
        let request = reqwest::Client::new().post(format!("http://{address}{CHAT}")).bearer_auth(secret);
        let mut body = chat("coder", "endless");
        body["stream"] = json!(true);
        request.json(&body).send().await?.text().await
    });
    let charged = async || {
        let payer = Payer::Owner(OwnerId::LOCAL);
        served.store.spent_since(payer, Timestamp(0)).await.expect("memory answers").0
    };
    for _ in 0..500 {
        if served.running.load(Ordering::SeqCst) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(served.running.load(Ordering::SeqCst), 1, "the provider was asked");
    assert_eq!(charged().await, Money(142));
    // The same records under another node, which never heard of the call.
    let next = Spending::new(
        served.records.clone(),
        DailyLimits { owner: day, project: Budget::default() },
        helix_kernel::Clock::system(),
    );
    let payers = Payers { owner: OwnerId::LOCAL, project: ProjectId::DEFAULT };
    let admit = async |money| next.admit(payers, Spent { money: Money(money), tokens: 0 }.into()).await;
    assert!(admit(1_000 - 142 + 1).await.is_err() && admit(1_000 - 142).await.is_ok());
    asking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_anybody_is_asked_pays_nothing() {
    // 142 millionths are reserved for a call: enough for one that used nothing and one more, and not after one that counts in full.
    let day = Budget { money: Some(Money(170)), tokens: None };
    for format in [WireFormat::Ollama, WireFormat::OpenaiChat] {
        let limits = DailyLimits { owner: day, project: Budget::default() };
        let served = Served::over(limits, vec![Arc::new(Scripted::new("exhausted", format))]).await;
        let key = served.key(|key| key.budget = day).await;
        for stream in [false, true] {
            let mut body = chat("exhausted/m", "hi");
            body["stream"] = json!(stream);
            let left = tokio::time::timeout(Duration::from_millis(500), send(&served, &key, CHAT, &body)).await;
            assert!(left.is_err(), "it waits for the limits: {left:?}");
        }
        let calls = entered(&served, 2).await;
        let told: Vec<_> = calls.iter().map(|call| (call.outcome, call.code, call.usage)).collect();
        assert_eq!(told, [(CallOutcome::Failed, Some(Code::Cancelled), Usage::default()); 2], "{format:?}");
        let payer = Payer::Owner(OwnerId::LOCAL);
        assert_eq!(served.store.spent_since(payer, Timestamp(0)).await, Ok((Money::ZERO, 0)));
        assert_eq!(post(&served, &key, CHAT, &chat("coder", "hi")).await.0, 200, "all of the key's and of the day is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_read_costs_nothing() {
    // Enough for the most that one such request could use, and not for that of two.
    let day = Budget { money: Some(Money(40_000)), tokens: None };
    let served = Served::limited(DailyLimits { owner: day, project: Budget::default() }).await;
    let key = served.key(|key| key.budget = day).await;
    for _ in 0..3 {
        let body = json!({"model": "coder", "prompt": "hi", "raw": true});
        let answer = post(&served, &key, "/api/generate", &body).await;
        assert_eq!(answer.0, 400, "{answer:?}");
    }
    assert_eq!(post(&served, &key, CHAT, &chat("coder", "hi")).await.0, 200, "all of the day is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_unread_is_set_aside_for_every_answer_and_for_all_of_a_conversation_that_is_kept_elsewhere() {
    let kept = Arc::new(Scripted::new("kept", WireFormat::OpenaiResponses));
    let served = Served::over(DailyLimits::default(), vec![kept]).await;
    let ask = async |money: i64, path: &str, body: Value| {
        let key = served.key(|key| key.budget = Budget { money: Some(Money(money)), tokens: None }).await;
        post(&served, &key, path, &body).await.0
    };
    // 42 tokens in at 1, and three answers of 50 at 2 millionths.
    let mut three = chat("same/passed-1", "hi");
    three["n"] = json!(3);
    assert_eq!([ask(341, CHAT, three.clone()).await, ask(342, CHAT, three).await], [402, 200]);
    // The model takes 128,000.
    let goes_on = |field: &str| json!({"model": "kept/m", "input": "hi", "max_output_tokens": 50, field: "x_1"});
    for field in ["previous_response_id", "conversation", "prompt"] {
        let (short, enough) = (128_099, 128_100);
        let path = "/v1/responses";
        assert_eq!([ask(short, path, goes_on(field)).await, ask(enough, path, goes_on(field)).await], [402, 200], "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_request_for_responses_are_counted_whoever_would_answer_it() {
    let kept = Arc::new(Scripted::new("kept", WireFormat::OpenaiResponses));
    let served = Served::over(DailyLimits::default(), vec![kept]).await;
    let key = served.key(|_| {}).await;
    for model in ["coder", "kept/m"] {
        let counted = post(&served, &key, "/v1/responses/input_tokens", &json!({"model": model, "input": "hi"})).await;
        assert_eq!(counted, (200, json!({"object": "response.input_tokens", "input_tokens": 42})), "{model}");
    }
    let (status, error) = post(&served, &key, "/v1/responses/input_tokens", &json!({"model": "coder"})).await;
    assert!(status == 400 && error["error"]["message"].as_str().is_some_and(|said| said.contains("`input`")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_price_passes_until_a_limit_is_reached_and_one_that_is_free_goes_on() {
    let little = Budget { money: Some(Money(30)), tokens: None };
    let day = |owner, project| DailyLimits { owner, project };
    let nothing = Budget::default();
    for (limits, budget, daily) in [
        (day(little, nothing), nothing, nothing),
        (day(nothing, little), nothing, nothing),
        (day(nothing, nothing), little, nothing),
        (day(nothing, nothing), nothing, little),
    ] {
        let served = Served::over(limits, vec![Arc::new(Scripted::new("free", WireFormat::OpenaiChat))]).await;
        let key = served.key(|key| (key.budget, key.daily) = (budget, daily)).await;
        let ask = async |model: &str| post(&served, &key, CHAT, &chat(model, "hi")).await.0;
        // Nobody knows before that an answer costs 25.
        let unpriced = "another/scripted-2";
        assert_eq!([ask(unpriced).await, ask(unpriced).await, ask(unpriced).await], [200, 200, 402], "{limits:?} {budget:?}");
        assert_eq!([ask("free/m").await, ask("free/m").await, ask("coder").await], [200, 200, 402], "{limits:?} {budget:?}");
    }
    let served = Served::start().await;
    // 92 tokens are set aside for a call, which uses 18.
    let narrow = served.key(|key| key.budget = Budget { money: None, tokens: Some(100) }).await;
    let ask = async || post(&served, &narrow, CHAT, &chat("another/scripted-2", "hi")).await.0;
    assert_eq!([ask().await, ask().await], [200, 402]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_told_whether_the_last_call_of_its_agent_was_refused() {
    let day = Budget { money: Some(Money(170)), tokens: None };
    let served = Served::limited(DailyLimits { owner: day, project: Budget::default() }).await;
    let task = TaskId::new();
    let of_task = served.key(|key| key.task = Some(task)).await;
    let ask = async || post(&served, &of_task, CHAT, &chat("coder", "hi")).await.0;
    assert_eq!([ask().await, ask().await], [200, 200]);
    assert_eq!(served.spending.take_refusal(task), None);
    assert_eq!(ask().await, 402);
    let refused = served.spending.take_refusal(task).expect("it was refused");
    assert_eq!((refused.code, served.spending.take_refusal(task)), (Code::DayLimitReached, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_untouched_where_both_sides_speak_the_same_and_only_the_name_changes_where_it_is_ours() {
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let body = chat("passed-1", "hi");
    let (status, answer) = post(&served, &key, CHAT, &body).await;
    assert_eq!((status, &answer["model"], &answer["operation"]), (200, &json!("passed-1"), &json!("Generate")));
    assert_eq!(answer["sent"], json!(body.to_string()));
    let (_, answer) = post(&served, &key, CHAT, &chat("same/passed-1", "hi")).await;
    assert_eq!(answer["sent"], json!(body.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_passes_and_is_translated_as_a_small_one_is() {
    let served = Served::start().await;
    let key = served.key(|key| key.budget = Budget { money: Some(Money(1_000_000)), tokens: None }).await;
    let large = |model: &str| {
        let mut body = chat(model, "hi");
        body["messages"].as_array_mut().expect("messages").insert(0, json!({"role": "system", "content": "x".repeat(900_000)}));
        body
    };
    for _ in 0..3 {
        let (status, answer) = post(&served, &key, CHAT, &large("passed-1")).await;
        assert!(status == 200 && answer["sent"] == json!(large("passed-1").to_string()), "{status}");
        let (status, answer) = post(&served, &key, CHAT, &large("coder")).await;
        assert_eq!((status, &answer["choices"][0]["message"]["content"]), (200, &json!(GREETING)));
        let mut body = large("coder");
        (body["stream"], body["stream_options"]) = (json!(true), json!({"include_usage": true}));
        let told = send(&served, &key, CHAT, &body).await.text().await.expect("text");
        assert!(told.contains("total_tokens") && told.ends_with("data: [DONE]\n\n"), "{told}");
    }
    let mut vast = large("passed-1");
    vast["metadata"] = json!(vec![json!([]); 40_000]);
    let (status, answer) = post(&served, &key, CHAT, &vast).await;
    assert!(status == 200 && answer["sent"] == json!(vast.to_string()), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_fields_can_be_read_in_two_ways_reaches_nobody() {
    let served = Served::start().await;
    let key = served.key(|key| key.models = vec!["passed-1".to_owned(), "coder".to_owned()]).await;
    for model in ["passed-1", "coder"] {
        for twice in [r#""Model":"big","#, r#""model":"big","#, r#""max_tokens":9,"Max_Tokens":9,"#, r#""N":9,"#] {
            let body = chat(model, "hi").to_string().replacen('{', &format!("{{{twice}"), 1);
            let _ = rustls::crypto::ring::default_provider().install_default();
            let request = reqwest::Client::new().post(format!("http://{}{CHAT}", served.address)).bearer_auth(&key).body(body);
            let answer = request.send().await.expect("the gateway answers");
            let (status, error) = (answer.status(), answer.json::<Value>().await.expect("JSON"));
            assert!(status == 400 && error["error"]["message"].as_str().is_some_and(|said| said.contains("field")), "{error}");
        }
        assert_eq!(post(&served, &key, CHAT, &chat(model, "hi")).await.0, 200);
    }
}

/// The ledger's entries once there are so many, the last first.
async fn entered(served: &Served, count: usize) -> Vec<helix_protocol::ModelCall> {
    for _ in 0..100 {
        let calls = served.store.ledger(LedgerFilter { limit: 10, ..LedgerFilter::default() }).await.expect("memory answers");
        if calls.len() >= count {
            return calls;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there are no {count} calls in the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_request_at_temperature_0_is_answered_once_where_the_client_takes_kept_answers() {
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let ask = |model: &'static str, temperature: f64, reuse: &'static str| {
        let (address, key) = (served.address, key.clone());
        async move {
            let body = json!({"temperature": temperature, "model": model, "messages": [{"role": "user", "content": "hi"}]});
            let request = reqwest::Client::new().post(format!("http://{address}{CHAT}")).bearer_auth(key);
            let response = request.header("x-helix-reuse", reuse).json(&body).send().await.expect("the gateway answers");
            let answer: Value = response.json().await.expect("JSON");
            answer["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
        }
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Whoever speaks the client's own format is asked in the internal form then, or nothing could be kept.
    for model in ["coder", "passed-1"] {
        assert_eq!([ask(model, 0.0, "true").await, ask(model, 0.0, "true").await], [GREETING, GREETING]);
    }
    assert_eq!([ask("coder", 0.5, "true").await, ask("coder", 0.0, "false").await], [GREETING, GREETING]);
    let calls = entered(&served, 6).await;
    let told: Vec<(CallOutcome, i64)> = calls.iter().rev().map(|call| (call.outcome, call.usage.cost.0)).collect();
    let (made, kept) = ((CallOutcome::Answered, 25), (CallOutcome::Reused, 0));
    assert_eq!(told, [made, kept, made, kept, made, made]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_in_the_ledger_with_what_it_used() {
    let served = Served::start().await;
    let task = helix_protocol::TaskId::new();
    let of_a_turn = |key: &mut GatewayKey| (key.task, key.step) = (Some(task), Some(3));
    let key = served.key(of_a_turn).await;
    post(&served, &key, CHAT, &chat("coder", "hi")).await;
    post(&served, &key, CHAT, &chat("coder", "refuse")).await;
    post(&served, &key, CHAT, &chat("passed-1", "hi")).await;
    let calls = entered(&served, 3).await;
    let told: Vec<(&str, u64, i64, CallOutcome)> = calls
        .iter()
        .rev()
        .map(|call| (call.provider.as_str(), call.usage.total_tokens(), call.usage.cost.0, call.outcome))
        .collect();
    assert_eq!(
        told,
        [
            ("translated", 18, 25, CallOutcome::Answered),
            ("translated", 0, 0, CallOutcome::Failed),
            ("same", 8, 11, CallOutcome::Answered)
        ]
    );
    assert!(calls.iter().all(|call| call.actor == "test" && call.key.is_some()));
    assert!(calls.iter().all(|call| (call.task, call.step) == (Some(task), Some(3))), "{calls:?}");
    assert_eq!(served.store.ledger_spent(LedgerFilter::default()).await, Ok(Spent { money: Money(36), tokens: 26 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_the_call() {
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let mut body = chat("coder", "endless");
    body["stream"] = json!(true);
    let response = send(&served, &key, CHAT, &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut stream = response.bytes_stream();
    assert!(stream.next().await.expect("a piece").is_ok());
    assert_eq!(served.running.load(Ordering::SeqCst), 1);
    drop(stream);
    for _ in 0..100 {
        if served.running.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the call goes on although nobody reads it");
}

/// How many pieces the provider was rid of once that no longer changes.
async fn settled(served: &Served) -> usize {
    let mut before = usize::MAX;
    for _ in 0..100 {
        let now = served.flooded.load(Ordering::SeqCst);
        if now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    panic!("the provider is read on and on, {before} pieces so far, although nobody takes them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_reading_of_its_provider_and_one_that_reads_on_lets_it_go_on() {
    // What sockets of the loopback and the channels between may hold, by far; a gateway that does not wait passes it in a second.
    const HELD: usize = 64 << 20;
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let mut body = chat("coder", "flood");
    body["stream"] = json!(true);
    let body = body.to_string();
    let mut client = tokio::net::TcpStream::connect(served.address).await.expect("it listens");
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + &body).as_bytes()).await.expect("sent");
    client.read_exact(&mut [0; 1]).await.expect("the answer begins");

    let held = settled(&served).await;
    assert!(held > 0 && held * PIECE < HELD, "{held} pieces of {PIECE} bytes are held");
    let mut taken = vec![0; 8 << 20];
    client.read_exact(&mut taken).await.expect("it goes on");
    let more = settled(&served).await;
    let moved = (more - held) * PIECE;
    assert!((4 << 20..HELD).contains(&moved), "8 MiB were taken here, and {moved} bytes there");
    assert_eq!(served.running.load(Ordering::SeqCst), 1);
    drop(client);
    for _ in 0..100 {
        if served.running.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the call goes on although its client has gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_terminal_event_and_says_the_whole_answer() {
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let mut body = chat("coder", "hi");
    body["stream"] = json!(true);
    let text = send(&served, &key, CHAT, &body).await.text().await.expect("text");
    let events: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let said: String = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(said, GREETING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_while_the_model_thinks_unseen_and_what_fails_then_is_an_event() {
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    for (path, sign, last) in [(CHAT, ": keep-alive\n\n", "[DONE]"), ("/v1/messages", "event: ping\n", "message_stop")] {
        for (prompt, end) in [("ponder", last), ("ponder in vain", "the script says so")] {
            let mut body = chat("coder", prompt);
            body["stream"] = json!(true);
            let asked = std::time::Instant::now();
            let response = send(&served, &key, path, &body).await;
            assert_eq!(response.status(), 200);
            let mut stream = response.bytes_stream();
            let first = stream.next().await.expect("a piece").expect("read");
            assert!(asked.elapsed() < PONDERING, "{:?}", asked.elapsed());
            assert!(String::from_utf8_lossy(&first).contains(sign), "{first:?}");
            let rest: Vec<_> = stream.map(|piece| piece.expect("read")).collect().await;
            let rest = String::from_utf8_lossy(&rest.concat()).into_owned();
            assert!(rest.contains(end) && asked.elapsed() >= PONDERING, "{path} {prompt}: {rest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_gemini_gets_an_array_where_it_does_not_ask_for_events() {
    let served = Served::over(DailyLimits::default(), vec![Arc::new(Scripted::new("events", WireFormat::Gemini))]).await;
    let key = served.key(|_| {}).await;
    let body = |prompt: &str| json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
    let ask = async |path: &str, prompt: &str| {
        let response = send(&served, &key, &format!("/v1beta/models/{path}"), &body(prompt)).await;
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        (response.status().as_u16(), kind, response.text().await.expect("text"))
    };
    let said = |text: &str| -> String {
        let pieces: Vec<Value> = serde_json::from_str(text).expect("an array");
        assert!(pieces.len() > 1, "{text}");
        pieces.iter().filter_map(|piece| piece["candidates"][0]["content"]["parts"][0]["text"].as_str()).collect()
    };
    for prompt in ["hi", "ponder"] {
        // Translated, and passing.
        for model in ["coder", "events/m"] {
            let (status, kind, text) = ask(&format!("{model}:streamGenerateContent"), prompt).await;
            assert_eq!((status, kind.as_str(), said(&text).as_str()), (200, "application/json; charset=UTF-8", GREETING), "{text}");
            let (status, kind, text) = ask(&format!("{model}:streamGenerateContent?alt=sse"), prompt).await;
            assert!(status == 200 && kind.starts_with("text/event-stream") && text.contains("data: {"), "{kind} {text}");
        }
    }
    let (status, _, text) = ask("coder:streamGenerateContent", "refuse").await;
    let refused: Value = serde_json::from_str(&text).expect("an array");
    assert_eq!((status, &refused[0]["error"]["code"]), (400, &json!(400)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_model_of_the_list_is_described_in_the_format_of_whoever_asks_and_what_is_not_served_is_said_in_it() {
    let served = Served::start().await;
    let (key, narrow) = (served.key(|_| {}).await, served.key(|key| key.models = vec!["coder".to_owned()]).await);
    let ask = async |key: &str, header: Option<(&str, &str)>, path: &str| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut request = reqwest::Client::new().get(format!("http://{}{path}", served.address)).bearer_auth(key);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("the gateway answers");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    };
    let anthropic = Some(("anthropic-version", "2023-06-01"));
    for name in ["coder", "same/passed-1", "same%2Fpassed-1", "passed-1"] {
        let written = name.replace("%2F", "/");
        let (status, model) = ask(&key, None, &format!("/v1/models/{name}")).await;
        assert_eq!((status, &model["id"], &model["object"]), (200, &json!(written), &json!("model")), "{model}");
        let (status, model) = ask(&key, anthropic, &format!("/v1/models/{name}")).await;
        assert_eq!((status, &model["id"], &model["type"]), (200, &json!(written), &json!("model")), "{model}");
        let (status, model) = ask(&key, None, &format!("/v1beta/models/{name}")).await;
        assert_eq!((status, &model["name"]), (200, &json!(format!("models/{written}"))), "{model}");
    }
    assert_eq!([ask(&narrow, None, "/v1/models/coder").await.0, ask(&narrow, None, "/v1/models/passed-1").await.0], [200, 404]);
    assert_eq!(ask("wrong", None, "/v1/models/coder").await.0, 401);

    let hint = "POST /v1/chat/completions";
    for path in ["/v1/models/none", "/v1/embeddings", CHAT] {
        let (status, error) = ask(&key, None, path).await;
        let message = error["error"]["message"].as_str().expect("a message");
        assert_eq!((status, &error["error"]["type"]), (404, &json!("not_found_error")), "{error}");
        assert_eq!(message.contains(hint), path != "/v1/models/none", "{message}");
        let (status, error) = ask(&key, anthropic, path).await;
        assert_eq!((status, &error["type"], &error["error"]["type"]), (404, &json!("error"), &json!("not_found_error")), "{error}");
    }
    let (status, error) = ask(&key, None, "/v1beta/files").await;
    assert_eq!((status, &error["error"]["status"]), (404, &json!("NOT_FOUND")), "{error}");
    let (status, error) = ask(&key, None, "/api/ps").await;
    assert!(status == 404 && error["error"].as_str().is_some_and(|said| said.contains(hint)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_is_too_large_is_refused_by_name() {
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let (status, error) = post(&served, &key, CHAT, &json!({"messages": []})).await;
    assert_eq!((status, error["error"]["message"].as_str()), (400, Some("`model` is missing")));
    let (status, error) = post(&served, &key, CHAT, &json!({"model": "coder"})).await;
    assert_eq!(status, 400);
    assert!(error["error"]["message"].as_str().expect("a message").contains("`messages`"), "{error}");
    let (status, _) = post(&served, &key, CHAT, &chat("coder", &"x".repeat(2 << 20))).await;
    assert_eq!(status, 413);
    let response = send(&served, &key, CHAT, &chat("coder", "cut")).await;
    assert_eq!((response.status().as_u16(), response.headers()["x-should-retry"].to_str().ok()), (502, Some("false")));
    let response = send(&served, &key, CHAT, &chat("coder", "later")).await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().ok()), (503, Some("600")));
    let left_alone = send(&served, &key, CHAT, &chat("coder", "hi")).await;
    assert_eq!(left_alone.status().as_u16(), 503, "it is not asked before its time");
}
