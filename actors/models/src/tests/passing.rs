//! Bytes that pass: who is asked for them, what is tried again, and what a client is told where nobody answers.

use bytes::Bytes;
use futures::future::ready;
use futures::{FutureExt, StreamExt, stream};
use helix_ports::RawOperation;
use helix_protocol::ImageSource;

use super::*;

/// An answer of a provider of this name, as a real one's would be. One whose connection is `cut` has none where it fails, and those
/// of a `breaking` one do not come to their end.
pub(super) fn raw(name: &str, call: &RawCall, answer: Answer) -> Result<RawAnswer, ProviderError> {
    let status = match &answer {
        Err(error) if name.starts_with("cut") => return Err(error.clone()),
        Ok(()) => 200,
        Err(ProviderError::Retryable { .. }) => 429,
        Err(ProviderError::Uncertain(_)) => 504,
        Err(ProviderError::Elsewhere(_)) => 401,
        Err(ProviderError::Final(_)) => 413,
    };
    let said = format!("{name} says {status} to {}", String::from_utf8_lossy(&call.body));
    let mut ended = answer.is_ok().then(|| Ok(Usage::default()));
    let mut body = vec![Ok(Bytes::from(said))];
    if answer.is_ok() && name.starts_with("breaking") {
        let error = ProviderError::Uncertain(Failure::new(Code::ModelFailed, "it broke off"));
        body.push(Err(error.clone()));
        ended = Some(Err(error));
    }
    let (fault, body) = (answer.err(), stream::iter(body).boxed());
    Ok(RawAnswer { status, fault, headers: Vec::new(), body, ended: ready(ended).boxed() })
}

/// What a client gets: a status with a body, nothing where its request has to be translated, or an error of ours.
type Told = Result<Option<(u16, String)>, ProviderError>;

/// Asks the group for bytes that are read as `request`.
async fn pass(models: &Models, request: Option<ModelRequest>) -> Told {
    let call = RawCall {
        operation: RawOperation::Generate,
        model: "team".to_owned(),
        headers: Vec::new(),
        body: Bytes::from_static(b"bytes"),
    };
    let Some(mut answer) = models.forward(None, WireFormat::OpenaiChat, call, Box::new(move || request)).await? else {
        return Ok(None);
    };
    let mut body = Vec::new();
    while let Some(chunk) = answer.body.next().await {
        body.extend_from_slice(&chunk.unwrap_or_default());
    }
    // What is learnt of the end is learnt beside the body.
    answer.ended.await;
    Ok(Some((answer.status, String::from_utf8(body).expect("text"))))
}

fn told(status: u16, body: &str) -> Told {
    Ok(Some((status, body.to_owned())))
}

fn overflow() -> Answer {
    Err(ProviderError::Final(Failure::new(Code::ContextOverflow, "too long")))
}

fn uncertain() -> Answer {
    Err(ProviderError::Uncertain(Failure::new(Code::ModelFailed, "it may have been billed")))
}

/// A group of these, asked in this order.
async fn team(providers: &[&Arc<FakeProvider>], limits: Limits) -> (Models, SupervisorHandle) {
    let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
    grouped(providers, group(RoutingStrategy::Cost, &names, &[]), limits).await
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_billed_is_asked_of_nobody_else_and_passes_as_it_came() {
    let (a, b) = (FakeProvider::new("a", [uncertain()]), FakeProvider::new("b", []));
    let (models, _handle) = team(&[&a, &b], Limits::default()).await;
    assert_eq!(pass(&models, None).await, told(504, "a says 504 to bytes"));
    assert_eq!((a.calls(), b.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_before_is_not_told_of_a_call_that_may_have_been_billed() {
    let (a, b) = (FakeProvider::new("a", [busy(Some(60))]), FakeProvider::new("cut", [uncertain()]));
    let (models, _handle) = team(&[&a, &b], Limits::default()).await;
    assert!(matches!(pass(&models, None).await, Err(ProviderError::Uncertain(_))));
    assert_eq!((a.calls(), b.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_billed_is_tried_again_when_the_provider_wants_and_its_last_word_passes() {
    let a = FakeProvider::new("a", [busy(Some(7))]);
    let (models, _handle) = team(&[&a], Limits::default()).await;
    assert_eq!(pass(&models, None).await, told(200, "a says 200 to bytes"));
    assert!(a.pauses()[0] >= Duration::from_secs(7), "{:?}", a.pauses());

    let limits = Limits { retries: 0, ..Limits::default() };
    let (a, b) = (FakeProvider::new("a", [refused()]), FakeProvider::new("b", [busy(None)]));
    let (models, _handle) = team(&[&a, &b], limits).await;
    assert_eq!(pass(&models, None).await, told(429, "b says 429 to bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_kept_takes_no_turn_from_the_call_that_comes_after_it() {
    let a = FakeProvider::new("a", [busy(None)]);
    let (models, _handle) = team(&[&a], Limits { concurrency: 1, ..Limits::default() }).await;
    let passed = tokio::time::timeout(Duration::from_secs(60), pass(&models, None)).await;
    assert_eq!(passed.expect("it waits for no turn that it has itself"), told(200, "a says 200 to bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_not_passed_to_a_model_that_takes_none() {
    let picture = Block::Image { image: ImageSource::Url { url: "https://example.org/a".to_owned() }, extra: None };
    let seen = Message { role: Role::User, blocks: vec![picture] };
    let with_picture = ModelRequest { messages: vec![seen], ..request(None) };
    let (seeing, blind) = (FakeProvider::new("seeing", [busy(Some(3_000))]), FakeProvider::new("blind", []));
    let (models, _handle) = team(&[&seeing, &blind], Limits::default()).await;
    assert_eq!(pass(&models, Some(with_picture)).await, Ok(None), "it is told of the picture in a translation");
    assert_eq!((seeing.calls(), blind.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_our_key_is_not_shown_to_a_client() {
    let a = FakeProvider::new("a", [refused()]);
    let (models, _handle) = team(&[&a], Limits::default()).await;
    match pass(&models, None).await {
        Err(ProviderError::Elsewhere(failure)) => assert_eq!(failure.message, "the key is refused"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_one_is_passed_to_a_larger_one_and_translated_for_a_larger_one_of_another_format() {
    let (a, b) = (FakeProvider::taking("a", 8_000, [overflow()]), FakeProvider::taking("b", 9_000, []));
    let (models, _handle) = team(&[&a, &b], Limits::default()).await;
    assert_eq!(pass(&models, Some(request(None))).await, told(200, "b says 200 to bytes"));
    assert_eq!((a.calls(), b.calls()), (1, 1));

    for (takes, translated) in [(9_000, true), (8_000, false)] {
        let (a, b) = (FakeProvider::taking("a", 8_000, [overflow()]), FakeProvider::taking("foreign", takes, []));
        let (models, _handle) = team(&[&a, &b], Limits::default()).await;
        let expected = if translated { Ok(None) } else { told(413, "a says 413 to bytes") };
        assert_eq!(pass(&models, Some(request(None))).await, expected, "the other takes {takes}");
        assert_eq!((a.calls(), b.calls()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_picture_passes_to_whoever_takes_it() {
    let picture = Block::Image { image: ImageSource::Url { url: "https://example.org/a".to_owned() }, extra: None };
    let seen = Message { role: Role::User, blocks: vec![picture] };
    let with_picture = ModelRequest { messages: vec![seen], ..request(None) };
    for (asked, by) in [(with_picture, "seeing"), (request(None), "a")] {
        let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("seeing", []));
        let (models, _handle) = team(&[&a, &b], Limits::default()).await;
        assert_eq!(pass(&models, Some(asked)).await, told(200, &format!("{by} says 200 to bytes")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_whoever_has_a_word_for_all_of_it_and_to_nobody_else_before() {
    let document = Block::Document { name: String::new(), media_type: String::new(), data: String::new(), extra: None };
    let with_document = ModelRequest { messages: vec![Message { role: Role::User, blocks: vec![document] }], ..request(None) };
    for (asked, by) in [(with_document, "b"), (request(None), "mute")] {
        let (a, b) = (FakeProvider::new("mute", []), FakeProvider::new("b", []));
        let (models, _handle) = team(&[&a, &b], Limits::default()).await;
        assert_eq!(pass(&models, Some(asked)).await, told(200, &format!("{by} says 200 to bytes")));
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_do_not_pass_to_a_provider_of_their_format_that_adds_to_them() {
    let a = FakeProvider::new("adding", []);
    let (models, _handle) = team(&[&a], Limits::default()).await;
    assert_eq!(pass(&models, None).await, Ok(None));
    assert_eq!(a.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_wait_for_nobody_of_their_format_while_one_of_another_can_answer() {
    let (a, b) = (FakeProvider::new("a", [busy(Some(60))]), FakeProvider::new("foreign", []));
    let (models, _handle) = team(&[&a, &b], Limits::default()).await;
    let began = Instant::now();
    assert_eq!(pass(&models, Some(request(None))).await, Ok(None), "it is translated");
    assert_eq!((a.calls(), began.elapsed()), (1, CALL));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_ask_for_a_longer_answer_than_a_model_writes_do_not_pass_to_it_where_there_is_a_choice() {
    let most = u32::try_from(ModelCapabilities::default().output_tokens).expect("a number");
    let long = ModelRequest { max_tokens: most + 1, ..request(None) };
    let (verbose, b) = (FakeProvider::new("verbose", [busy(Some(3_000))]), FakeProvider::new("b", []));
    let team = group(RoutingStrategy::RoundRobin, &["verbose", "b"], &[]);
    let (models, _handle) = grouped(&[&verbose, &b], team, Limits::default()).await;
    assert_eq!(pass(&models, Some(long)).await, Ok(None), "it is asked for less in a translation");
    assert_eq!((verbose.calls(), b.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn answers_that_break_off_on_their_way_by_open_the_circuit_and_count_as_failures() {
    let (a, b) = (FakeProvider::new("breaking", []), FakeProvider::new("b", [busy(None), busy(None), busy(None)]));
    let limits = Limits { failures: 2, retries: 0, ..Limits::default() };
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Availability, &["breaking", "b"], &[]), limits).await;
    assert_eq!(pass(&models, None).await, told(200, "breaking says 200 to bytes"));
    assert_eq!((a.calls(), b.calls()), (1, 0));
    assert_eq!(pass(&models, None).await, told(200, "breaking says 200 to bytes"), "the other is busy");
    assert_eq!((a.calls(), b.calls()), (2, 1), "it is asked after one that failed less");
    assert_eq!(pass(&models, None).await, told(429, "b says 429 to bytes"), "the circuit of the other is open");
    assert_eq!((a.calls(), b.calls()), (2, 2));
}
