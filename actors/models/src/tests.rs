//! The whole branch under a paused clock, over providers that do what each test says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use helix_config::{DeploymentConfig, GroupConfig, RoutingStrategy};
use helix_kernel::{Address, SupervisorHandle, start};
use helix_messages::{Circuit, DeploymentCircuit, Models, Quote, Records};
use helix_ports::{
    Availability, DeltaSink, Extent, FaultScope, ModelCapabilities, ModelInfo, Provider, ProviderError, ProviderHealth, RateLimits,
    RawAnswer, RawCall, TokenPrice,
};
use helix_protocol::{
    Block, Code, Failure, JsonOutput, Message, ModelReply, ModelRequest, Money, Most, OutputFormat, Role, Sampling, StopReason,
    Thinking, Usage, WireFormat,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{Limits, ModelsArgs, ProviderArgs, branch};

mod circuits;
mod entries;
mod exhausted;
mod groups;
mod insisting;
mod long;
mod passing;
mod quotes;
mod restarts;

type Answer = Result<(), ProviderError>;

/// Answers as it is told, each call after a second; `Ok` for ever once nothing is left.
struct FakeProvider {
    name: String,
    answers: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<Instant>>,
    asked: Mutex<Vec<ModelRequest>>,
    /// What it says; its usual reply once nothing is left.
    replies: Mutex<VecDeque<ModelReply>>,
    context_tokens: u64,
    /// What its answers say of its limits, and when the last one said it; nothing once nothing is left.
    limits: Mutex<VecDeque<RateLimits>>,
    told: Mutex<Option<(Instant, RateLimits)>>,
    closed: AtomicUsize,
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
        Arc::new(Self::plain(name, answers, panics))
    }

    /// One whose model takes so many tokens.
    fn taking(name: &str, context_tokens: u64, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { context_tokens, ..Self::plain(name, answers, false) })
    }

    fn plain(name: &str, answers: impl IntoIterator<Item = Answer>, panics: bool) -> Self {
        Self {
            name: name.to_owned(),
            answers: Mutex::new(answers.into_iter().collect()),
            calls: Mutex::new(Vec::new()),
            asked: Mutex::new(Vec::new()),
            replies: Mutex::new(VecDeque::new()),
            context_tokens: ModelCapabilities::default().context_tokens,
            limits: Mutex::new(VecDeque::new()),
            told: Mutex::new(None),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            panics,
        }
    }

    /// Its answer, with what that says of its limits.
    fn answer(&self) -> Answer {
        *self.told.lock() = self.limits.lock().pop_front().map(|limits| (Instant::now(), limits));
        self.answers.lock().pop_front().unwrap_or(Ok(()))
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
        if self.name.starts_with("foreign") { WireFormat::Gemini } else { WireFormat::OpenaiChat }
    }
    async fn generate(&self, _request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        unreachable!("a provider that streams is asked to")
    }
    async fn generate_stream(&self, request: &ModelRequest, _deltas: DeltaSink) -> Result<ModelReply, ProviderError> {
        self.calls.lock().push(Instant::now());
        self.asked.lock().push(request.clone());
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most_running.fetch_max(running, Ordering::SeqCst);
        sleep(CALL).await;
        assert!(!self.panics, "told to");
        self.finished.fetch_add(1, Ordering::SeqCst);
        self.answer().map(|()| self.replies.lock().pop_front().unwrap_or_else(|| reply(&self.name)))
    }
    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        Ok(Vec::new())
    }
    fn capabilities(&self, _model: Option<&str>) -> ModelCapabilities {
        let (context_tokens, images) = (self.context_tokens, self.name.starts_with("seeing"));
        let usual = ModelCapabilities::default();
        let output_tokens = if self.name == "verbose" { 4 * usual.output_tokens } else { usual.output_tokens };
        let json_output = if self.name == "wordy" { JsonOutput::None } else { usual.json_output };
        ModelCapabilities { context_tokens, images, output_tokens, json_output, ..usual }
    }
    /// A `thinker` cannot be forced while it thinks.
    fn keeps_tool_choice(&self, _model: Option<&str>, request: &ModelRequest) -> bool {
        !self.name.starts_with("thinker") || request.thinking == Thinking::Default
    }
    /// The format of a `mute` has a word for texts alone.
    fn carries(&self, request: &ModelRequest) -> bool {
        let mut blocks = request.messages.iter().flat_map(|message| &message.blocks);
        !self.name.starts_with("mute") || blocks.all(|block| matches!(block, Block::Text { .. }))
    }
    /// Nobody knows what one that is `unpriced` costs.
    fn price(&self, _model: Option<&str>) -> Option<TokenPrice> {
        if self.name == "free" {
            return Some(TokenPrice::default());
        }
        (self.name != "unpriced").then_some(TokenPrice {
            input: Money(1_000_000),
            cached: Money(100_000),
            cache_write: Money(1_000_000),
            cache_write_1h: Money(3_000_000),
            output: Money(2_000_000),
        })
    }
    fn price_at(&self, model: Option<&str>, input_tokens: u64) -> Option<TokenPrice> {
        let price = self.price(model)?;
        let double = |money: Money| Money(2 * money.0);
        match self.name == "dear-when-long" && input_tokens >= 500 {
            true => Some(TokenPrice {
                input: double(price.input),
                cached: double(price.cached),
                cache_write: double(price.cache_write),
                cache_write_1h: double(price.cache_write_1h),
                output: double(price.output),
            }),
            false => Some(price),
        }
    }
    async fn health(&self) -> ProviderHealth {
        ProviderHealth { availability: Availability::Available, latency_ms: Some(1), message: String::new() }
    }
    fn is_set_up(&self) -> Result<(), Failure> {
        match self.name.starts_with("keyless") {
            true => Err(Failure::new(Code::ModelUnavailable, "there is no key")),
            false => Ok(()),
        }
    }
    /// Nobody was found where one is `gone`.
    fn is_available(&self) -> bool {
        self.is_set_up().is_ok() && self.name != "gone"
    }
    fn estimate_tokens(&self, _model: Option<&str>, _request: &ModelRequest) -> u64 {
        500
    }
    fn passes(&self) -> bool {
        !self.name.starts_with("adding")
    }
    async fn forward(&self, call: RawCall) -> Result<RawAnswer, ProviderError> {
        self.calls.lock().push(Instant::now());
        sleep(CALL).await;
        passing::raw(&self.name, &call, self.answer())
    }
    fn rate_limits(&self, _model: Option<&str>) -> RateLimits {
        self.told.lock().map(|(at, limits)| limits.after(at.elapsed())).unwrap_or_default()
    }
    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
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
        scope: FaultScope::Provider,
    })
}

/// The model's limits are used up, and the server does not say until when.
fn limited() -> Answer {
    let failure = Failure::new(Code::ModelFailed, "too many requests");
    Err(ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Model })
}

/// Holds that nobody answers at present, in the only provider's words and with its time where it said one.
fn assert_away(answer: Result<ModelReply, ProviderError>, wanted: Option<u64>) {
    match answer {
        Err(ProviderError::Retryable { failure, retry_after: Some(after), .. }) => {
            assert_eq!((failure.code, failure.message.as_str()), (Code::NoModelAnswers, "busy"));
            assert_eq!(after, wanted.map_or(after, Duration::from_secs));
        }
        other => panic!("{other:?}"),
    }
}

async fn models(providers: &[&Arc<FakeProvider>], limits: Limits) -> (Models, SupervisorHandle) {
    grouped(providers, Vec::new(), limits).await
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_provider_it_names_or_to_the_default_one() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = models(&[&a, &b], Limits::default()).await;
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    assert_eq!(models.generate(request(Some("b")), None).await, Ok(reply("b")));
    match models.generate(request(Some("c")), None).await {
        Err(ProviderError::Final(failure)) => {
            assert_eq!(
                failure.hint,
                "name one of a, b, or describe it under `llm.providers` of helix.yaml, which a node reads when it starts"
            )
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
    assert_away(handle.generate(request(None), None).await, Some(3));
    assert_eq!(a.calls(), 3);
    let failure = Failure::new(Code::ModelFailed, "cut");
    for error in [ProviderError::Uncertain(failure.clone()), ProviderError::Final(failure)] {
        let a = FakeProvider::new("a", [Err(error.clone())]);
        let (handle, _tree) = models(&[&a], limits).await;
        let answer = handle.generate(request(None), None).await.expect_err("it failed");
        assert_eq!(std::mem::discriminant(&answer), std::mem::discriminant(&error));
        assert_eq!(answer.failure().message, error.failure().message);
        assert_eq!(a.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_wants_us_back_much_later_is_given_up_at_once() {
    let a = FakeProvider::new("a", [busy(Some(3_000))]);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    assert_away(models.generate(request(None), None).await, Some(3_000));
    assert_eq!(a.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_circuit_opens_after_failures_in_a_row_and_a_single_call_tries_after_the_cooldown() {
    let limits = Limits { retries: 0, failures: 2, cooldown: Duration::from_secs(30), ..Limits::default() };
    let a = FakeProvider::new("a", [busy(None), busy(None), Ok(())]);
    let (models, _handle) = models(&[&a], limits).await;
    for _ in 0..2 {
        assert_away(models.generate(request(None), None).await, None);
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
    let answers = tokio::join!(models.generate(request(None), None), models.generate(request(None), None));
    assert_eq!(answers, (Ok(reply("a")), Ok(reply("a"))));
    let calls = a.calls.lock();
    assert!(calls[2] - calls[1] >= limits.cooldown, "{calls:?}");
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
async fn every_provider_is_listed_with_its_health() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = models(&[&a, &b], Limits::default()).await;
    let list = models.list().await.expect("a list");
    let shown: Vec<(&str, Availability)> = list.iter().map(|view| (view.name.as_str(), view.health.availability)).collect();
    assert_eq!(shown, [("a", Availability::Available), ("b", Availability::Available)]);
    let closed = |name: &str| [DeploymentCircuit { deployment: name.to_owned(), circuit: Circuit::Closed }];
    assert_eq!([list[0].circuits.as_slice(), &list[1].circuits], [&closed("a"), &closed("b")]);
}

/// Groups over providers `a`, `b`, `c`, each with the model `small`.
async fn grouped(
    providers: &[&Arc<FakeProvider>],
    groups: Vec<(String, GroupConfig)>,
    limits: Limits,
) -> (Models, SupervisorHandle) {
    written_down(providers, groups, limits, None).await
}

/// The same, whose calls are written down.
async fn written_down(
    providers: &[&Arc<FakeProvider>],
    groups: Vec<(String, GroupConfig)>,
    limits: Limits,
    records: Option<Records>,
) -> (Models, SupervisorHandle) {
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
    let args = ModelsArgs { records, providers, groups, default: "a".to_owned(), address: address.clone() };
    let handle = start(branch(args)).await.expect("starts");
    (Models::new(address, Duration::from_secs(3_600)), handle)
}

fn group(strategy: RoutingStrategy, deployments: &[&str], fallbacks: &[&str]) -> Vec<(String, GroupConfig)> {
    let deployment = |name: &&str| DeploymentConfig { provider: (*name).to_owned(), ..DeploymentConfig::default() };
    let deployments = deployments.iter().map(deployment).collect();
    let fallbacks = fallbacks.iter().map(|name| (*name).to_owned()).collect();
    vec![("team".to_owned(), GroupConfig { strategy, deployments, fallbacks, ..GroupConfig::default() })]
}

fn refused() -> Answer {
    Err(ProviderError::Elsewhere(Failure::new(Code::ModelRefused, "the key is refused")))
}
