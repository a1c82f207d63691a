//! The whole branch under a paused clock, over providers that do what each test says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use helix_kernel::{Address, SupervisorHandle, start};
use helix_messages::{Models, Quote};
use helix_ports::{
    Availability, DeltaSink, ModelCapabilities, ModelInfo, Provider, ProviderError, ProviderHealth, RawAnswer, RawCall, TokenPrice,
};
use helix_protocol::{Block, Code, Failure, Message, ModelReply, ModelRequest, Money, Role, StopReason, Usage, WireFormat};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{Limits, ModelsArgs, ProviderArgs, branch};

type Answer = Result<(), ProviderError>;

/// Answers as it is told, each call after a second; `Ok` for ever once nothing is left.
struct FakeProvider {
    name: String,
    answers: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<Instant>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    finished: AtomicUsize,
    panics: bool,
}

impl FakeProvider {
    fn new(name: &str, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Self::build(name, answers, false)
    }

    fn build(name: &str, answers: impl IntoIterator<Item = Answer>, panics: bool) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            answers: Mutex::new(answers.into_iter().collect()),
            calls: Mutex::new(Vec::new()),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            panics,
        })
    }

    fn calls(&self) -> usize {
        self.calls.lock().len()
    }

    /// Between the end of a call and the start of the next.
    fn pauses(&self) -> Vec<Duration> {
        self.calls.lock().windows(2).map(|pair| pair[1] - pair[0] - CALL).collect()
    }
}

const CALL: Duration = Duration::from_secs(1);

/// Counts a call for as long as it runs, however it ends.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &str {
        &self.name
    }
    fn format(&self) -> WireFormat {
        WireFormat::OpenaiChat
    }
    async fn generate(&self, _request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        unreachable!("a provider that streams is asked to")
    }
    async fn generate_stream(&self, _request: &ModelRequest, _deltas: DeltaSink) -> Result<ModelReply, ProviderError> {
        self.calls.lock().push(Instant::now());
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most_running.fetch_max(running, Ordering::SeqCst);
        sleep(CALL).await;
        assert!(!self.panics, "told to");
        self.finished.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.lock().pop_front().unwrap_or(Ok(()));
        answer.map(|()| reply(&self.name))
    }
    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        Ok(Vec::new())
    }
    fn capabilities(&self, _model: Option<&str>) -> ModelCapabilities {
        ModelCapabilities::default()
    }
    fn price(&self, _model: Option<&str>) -> Option<TokenPrice> {
        Some(TokenPrice {
            input: Money(1_000_000),
            cached: Money(100_000),
            cache_write: Money(1_000_000),
            output: Money(2_000_000),
        })
    }
    async fn health(&self) -> ProviderHealth {
        ProviderHealth { availability: Availability::Available, latency_ms: Some(1), message: String::new() }
    }
    async fn is_available(&self) -> bool {
        true
    }
    fn estimate_tokens(&self, _request: &ModelRequest) -> u64 {
        500
    }
    async fn forward(&self, _call: RawCall) -> Result<RawAnswer, ProviderError> {
        unreachable!("nobody passes bytes on here")
    }
    async fn close(&self) {}
}

fn reply(name: &str) -> ModelReply {
    let blocks = vec![Block::Text { text: "hello".to_owned(), extra: None }];
    ModelReply { model: name.to_owned(), blocks, stop: StopReason::EndTurn, usage: Usage::default() }
}

fn request(provider: Option<&str>) -> ModelRequest {
    ModelRequest {
        provider: provider.map(str::to_owned),
        messages: vec![Message::text(Role::User, "hi")],
        max_tokens: 100,
        ..ModelRequest::default()
    }
}

fn busy(retry_after: Option<u64>) -> Answer {
    Err(ProviderError::Retryable {
        failure: Failure::new(Code::ModelFailed, "busy"),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

async fn models(providers: &[&Arc<FakeProvider>], limits: Limits) -> (Models, SupervisorHandle) {
    let address = Address::unbound("models", 1_000);
    let providers = providers
        .iter()
        .map(|provider| ProviderArgs {
            provider: Arc::clone(provider) as Arc<dyn Provider>,
            base_url: "http://test/v1".to_owned(),
            model: "small".to_owned(),
            limits,
        })
        .collect();
    let handle = start(branch(ModelsArgs { providers, default: "a".to_owned(), address: address.clone() })).await.expect("starts");
    (Models::new(address, Duration::from_secs(3_600)), handle)
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_provider_it_names_or_to_the_default_one() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = models(&[&a, &b], Limits::default()).await;
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    assert_eq!(models.generate(request(Some("b")), None).await, Ok(reply("b")));
    match models.generate(request(Some("c")), None).await {
        Err(ProviderError::Final(failure)) => {
            assert_eq!(failure.hint, "name one of a, b, or describe it under `llm.providers` of helix.yaml")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_retryable_failure_is_repeated_with_growing_pauses_and_never_before_the_provider_wants() {
    let a = FakeProvider::new("a", [busy(None), busy(None), busy(Some(7)), busy(Some(0))]);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    let pauses = a.pauses();
    let within = |at: usize, least: u64, most: u64| {
        let pause = pauses[at];
        assert!(pause >= Duration::from_millis(least) && pause <= Duration::from_millis(most), "pause {at}: {pause:?}");
    };
    within(0, 250, 510);
    within(1, 500, 1_010);
    within(2, 7_000, 7_710);
    assert!(pauses[3] < Duration::from_millis(10), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_last_error_and_others_are_not_repeated_at_all() {
    let limits = Limits { retries: 2, failures: 100, ..Limits::default() };
    let a = FakeProvider::new("a", [busy(None), busy(None), busy(Some(3))]);
    let (handle, _tree) = models(&[&a], limits).await;
    assert_eq!(handle.generate(request(None), None).await.map(drop), busy(Some(3)));
    assert_eq!(a.calls(), 3);
    let failure = Failure::new(Code::ModelFailed, "cut");
    for error in [ProviderError::Uncertain(failure.clone()), ProviderError::Final(failure)] {
        let a = FakeProvider::new("a", [Err(error.clone())]);
        let (handle, _tree) = models(&[&a], limits).await;
        assert_eq!(handle.generate(request(None), None).await, Err(error));
        assert_eq!(a.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_wants_us_back_much_later_is_given_up_at_once() {
    let a = FakeProvider::new("a", [busy(Some(3_000))]);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    assert_eq!(models.generate(request(None), None).await.map(drop), busy(Some(3_000)));
    assert_eq!(a.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_circuit_opens_after_failures_in_a_row_and_a_single_call_tries_after_the_cooldown() {
    let limits = Limits { retries: 0, failures: 2, cooldown: Duration::from_secs(30), ..Limits::default() };
    let a = FakeProvider::new("a", [busy(None), busy(None), Ok(())]);
    let (models, _handle) = models(&[&a], limits).await;
    for _ in 0..2 {
        assert_eq!(models.generate(request(None), None).await.map(drop), busy(None));
    }
    match models.generate(request(None), None).await {
        Err(ProviderError::Retryable { retry_after: Some(after), .. }) => assert!(after <= limits.cooldown, "{after:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.calls(), 2, "nothing is sent while it is open");
    sleep(limits.cooldown).await;
    let (first, second) = tokio::join!(models.generate(request(None), None), models.generate(request(None), None));
    assert_eq!([first.is_ok(), second.is_ok()].iter().filter(|ok| **ok).count(), 1, "one tries, the other is told to wait");
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")), "it is closed again");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_during_a_call_is_waited_for_by_that_call() {
    let limits = Limits { retries: 4, failures: 2, cooldown: Duration::from_secs(30), ..Limits::default() };
    let a = FakeProvider::new("a", [busy(None), busy(None)]);
    let (models, _handle) = models(&[&a], limits).await;
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    assert!(a.pauses()[1] >= limits.cooldown, "{:?}", a.pauses());
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_run_at_once_than_allowed_and_too_many_waiting_are_refused() {
    let limits = Limits { concurrency: 2, waiting: 3, ..Limits::default() };
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], limits).await;
    let answers = futures::future::join_all((0..8).map(|_| models.generate(request(None), None))).await;
    assert_eq!(a.most_running.load(Ordering::SeqCst), 2);
    let refused = |answer: &&Result<ModelReply, ProviderError>| matches!(answer, Err(ProviderError::Retryable { failure, .. }) if failure.code == Code::Overloaded);
    assert_eq!(answers.iter().filter(refused).count(), 3);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_waits_for_is_given_up() {
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    let waiting = tokio::time::timeout(CALL / 4, models.generate(request(None), None)).await;
    assert!(waiting.is_err());
    sleep(CALL / 2).await;
    assert_eq!(a.running.load(Ordering::SeqCst), 0, "its future was dropped");
    sleep(CALL).await;
    assert_eq!(a.finished.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_actor_that_dies_leaves_its_calls_uncertain_and_comes_back() {
    let a = FakeProvider::build("a", [], true);
    let (models, handle) = models(&[&a], Limits::default()).await;
    let answer = models.generate(request(None), None).await;
    assert!(matches!(answer, Err(ProviderError::Uncertain(_))), "{answer:?}");
    sleep(Duration::from_secs(10)).await;
    let tree = handle.tree().await.expect("a tree");
    let names: Vec<(&str, u64)> = tree.children.iter().map(|child| (child.name.as_str(), child.restarts)).collect();
    assert_eq!(names, [("provider:a", 1), ("router", 0)]);
    let answer = models.generate(request(None), None).await;
    assert_eq!(a.calls(), 2, "the new incarnation makes calls: {answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quote_is_the_prompt_at_the_full_price_and_the_longest_answer() {
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    let quote = Quote { provider: "a".to_owned(), model: "small".to_owned(), tokens: 600, money: Money(700) };
    assert_eq!(models.quote(request(None)).await, Ok(quote));
    assert_eq!(models.quote(request(Some("x"))).await.expect_err("unknown").code, Code::ModelUnavailable);
    assert_eq!(a.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_provider_is_listed_with_its_health() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = models(&[&a, &b], Limits::default()).await;
    let list = models.list().await.expect("a list");
    let shown: Vec<(&str, Availability)> = list.iter().map(|view| (view.name.as_str(), view.health.availability)).collect();
    assert_eq!(shown, [("a", Availability::Available), ("b", Availability::Available)]);
}
