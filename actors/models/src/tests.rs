//! The whole branch under a paused clock, over providers that do what each test says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use helix_config::{DeploymentConfig, GroupConfig, RoutingStrategy};
use helix_kernel::{Address, SupervisorHandle, TreeNode, start};
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
mod insisting;
mod long;
mod passing;

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
async fn a_provider_actor_that_dies_leaves_its_calls_uncertain_and_comes_back() {
    let a = FakeProvider::build("a", [], true);
    let (models, handle) = models(&[&a], Limits::default()).await;
    let answer = models.generate(request(None), None).await;
    assert!(matches!(answer, Err(ProviderError::Uncertain(_))), "{answer:?}");
    sleep(Duration::from_secs(10)).await;
    let tree = handle.tree().await.expect("a tree");
    assert_eq!(restarts(&tree), [("providers", 0), ("provider:a", 1), ("router", 0)]);
    let answer = models.generate(request(None), None).await;
    assert_eq!(a.calls(), 2, "the new incarnation makes calls: {answer:?}");
}

/// How often each child was restarted, with those of branches behind them.
fn restarts(tree: &TreeNode) -> Vec<(&str, u64)> {
    tree.children.iter().flat_map(|child| [vec![(child.name.as_str(), child.restarts)], restarts(child)].concat()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_again_and_again_takes_nobody_along() {
    let (bad, good) = (FakeProvider::build("bad", [], true), FakeProvider::new("good", []));
    let (models, handle) = models(&[&bad, &good], Limits::default()).await;
    let began = Instant::now();
    for _ in 0..20 {
        let _ = models.generate(request(Some("bad")), None).await;
        assert_eq!(models.generate(request(Some("good")), None).await, Ok(reply("good")));
        sleep(Duration::from_secs(1)).await;
    }
    let tree = handle.tree().await.expect("a tree");
    let [("providers", 0), ("provider:bad", times), ("provider:good", 0), ("router", 0)] = restarts(&tree)[..] else {
        panic!("{tree:?}");
    };
    assert!(times > 5, "{times} in {:?}: it was tried again, more than another branch would bear", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_provider_is_closed_with_the_branch() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (_models, handle) = models(&[&a, &b], Limits::default()).await;
    handle.shutdown().await.expect("it ends");
    assert_eq!([&a, &b].map(|provider| provider.closed.load(Ordering::SeqCst)), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_quote_is_the_prompt_at_the_full_price_and_the_longest_answer() {
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    let capabilities = a.capabilities(None);
    let most = Most { money: Some(Money(700)), tokens: 600 };
    let quote = Quote { provider: "a".to_owned(), model: "small".to_owned(), most, capabilities };
    assert_eq!(models.quote(request(None)).await, Ok(quote));
    assert_eq!(models.quote(request(Some("x"))).await.expect_err("unknown").code, Code::ModelUnavailable);
    assert_eq!(a.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_free_is_quoted_as_nothing_and_is_told_from_what_may_cost_nobody_knows_how_much() {
    let each = ["free", "unpriced", "a"].map(|name| FakeProvider::new(name, []));
    for (deployments, money) in [
        (vec!["free"], Some(Money(0))),
        (vec!["unpriced"], None),
        (vec!["free", "unpriced"], None),
        (vec!["unpriced", "free"], None),
        (vec!["free", "a"], Some(Money(700))),
        (vec!["a", "unpriced"], Some(Money(700))),
    ] {
        let team = group(RoutingStrategy::Cost, &deployments, &[]);
        let (models, _handle) = grouped(&each.each_ref(), team, Limits::default()).await;
        let quote = models.quote(request(Some("team"))).await.expect("a quote");
        assert_eq!(quote.most, Most { money, tokens: 600 }, "{deployments:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_answers_are_quoted_each_and_a_conversation_that_goes_on_elsewhere_as_all_that_the_model_takes() {
    let a = FakeProvider::taking("a", 8_000, []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    for (extent, tokens, money) in [
        (Extent { answers: 3, ..Extent::default() }, 500 + 3 * 100, 500 + 3 * 200),
        (Extent { goes_on: true, ..Extent::default() }, 8_000 + 100, 8_000 + 200),
        (Extent { hour_in_cache: true, ..Extent::default() }, 500 + 100, 3 * 500 + 200),
    ] {
        let quote = models.quote_passing(request(None), extent).await.expect("a quote");
        assert_eq!(quote.most, Most { money: Some(Money(money)), tokens }, "{extent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_quoted_where_one_deployment_is_set_up_and_refused_where_none_is() {
    let (keyless, a) = (FakeProvider::new("keyless", []), FakeProvider::new("a", []));
    let (models, _handle) = models(&[&keyless, &a], Limits::default()).await;
    assert_eq!(models.quote(request(Some("keyless"))).await.expect_err("no key").message, "there is no key");
    let team = group(RoutingStrategy::Cost, &["keyless", "a"], &[]);
    let (models, _handle) = grouped(&[&keyless, &a], team, Limits::default()).await;
    assert!(models.quote(request(Some("team"))).await.is_ok());
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

#[tokio::test(start_paused = true)]
async fn a_dead_provider_does_not_stop_what_its_neighbour_can_serve() {
    let (a, b) = (FakeProvider::new("a", vec![busy(None); 100]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::RoundRobin, &["a", "b"], &[]), Limits::default()).await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
    }
    assert!(began.elapsed() < Duration::from_secs(40), "no backoff is waited for: {:?}", began.elapsed());
    assert!(a.calls() < 10, "its circuit opened: {}", a.calls());
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_key_or_that_a_check_found_gone_is_asked_last() {
    for name in ["keyless", "gone"] {
        let (away, b) = (FakeProvider::new(name, []), FakeProvider::new("b", [refused()]));
        let team = group(RoutingStrategy::RoundRobin, &[name, "b"], &[]);
        let (models, _handle) = grouped(&[&away, &b], team, Limits::default()).await;
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply(name)), "it may be back");
        assert_eq!((away.calls(), b.calls()), (1, 1));
        let (away, b) = (FakeProvider::new(name, []), FakeProvider::new("b", []));
        let team = group(RoutingStrategy::RoundRobin, &[name, "b"], &[]);
        let (models, _handle) = grouped(&[&away, &b], team, Limits::default()).await;
        for _ in 0..4 {
            assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
        }
        assert_eq!(away.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_where_the_group_is_refused_or_away_for_long() {
    for answer in [refused(), busy(Some(100))] {
        let (a, b) = (FakeProvider::new("a", [answer]), FakeProvider::new("b", []));
        let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a"], &["b"]), Limits::default()).await;
        let began = Instant::now();
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
        assert_eq!((a.calls(), began.elapsed()), (1, CALL * 2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_format_of_one_cannot_say_is_asked_of_its_neighbour_and_refused_where_nobody_can() {
    let unsaid = || Err(ProviderError::Final(Failure::new(Code::InvalidRequest, "it has no word for this")));
    for (answer, expected) in [(Ok(()), Ok(reply("b"))), (unsaid(), unsaid().map(|()| reply("b")))] {
        let (a, b) = (FakeProvider::new("a", [unsaid()]), FakeProvider::new("b", [answer]));
        let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
        assert_eq!(models.generate(request(Some("team")), None).await, expected);
        assert_eq!((a.calls(), b.calls()), (1, 1));
    }
    let (a, b) = (FakeProvider::new("a", [unsaid()]), FakeProvider::new("b", [busy(Some(3_000))]));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    let later = models.generate(request(Some("team")), None).await.expect_err("the other is busy");
    assert!(matches!(later, ProviderError::Retryable { retry_after: Some(_), .. }), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_wants_to_be_left_alone_is_not_asked_before_its_time() {
    let (a, b) = (FakeProvider::new("a", [busy(Some(60))]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    for _ in 0..3 {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
    }
    assert_eq!(a.calls(), 1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("a")));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_began_is_not_asked_for_again_by_anybody() {
    let cut = Err(ProviderError::Uncertain(Failure::new(Code::ModelFailed, "cut")));
    let (a, b) = (FakeProvider::new("a", [cut]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    match models.generate(request(Some("team")), None).await {
        Err(ProviderError::Uncertain(failure)) => assert!(failure.hint.contains("not repeated"), "{failure:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((a.calls(), b.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_answers_it_is_said_who_was_asked_and_when_it_is_worth_another_try() {
    let limits = Limits { retries: 0, ..Limits::default() };
    let (a, b) = (FakeProvider::new("a", [refused()]), FakeProvider::new("b", [busy(Some(90))]));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a"], &["b"]), limits).await;
    match models.generate(request(Some("team")), None).await {
        Err(ProviderError::Retryable { failure, retry_after: Some(after), .. }) => {
            assert_eq!(failure.code, Code::NoModelAnswers);
            let said = "nobody who could answer does at present: a/small: the key is refused; b/small: busy";
            assert_eq!(failure.message, said);
            assert!(after >= Duration::from_secs(90) && after < Duration::from_secs(100), "{after:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn where_everybody_refuses_before_something_is_mended_each_way_to_mend_it_is_told_once() {
    let refusing = |name: &str, hint: &str| {
        let failure = Failure::new(Code::ModelRefused, format!("{name} refuses")).hint(hint);
        FakeProvider::new(name, [Err(ProviderError::Elsewhere(failure))])
    };
    let (a, b, c) = (refusing("a", "set A_KEY"), refusing("b", "set A_KEY"), refusing("c", "add credit at c"));
    let groups = group(RoutingStrategy::Cost, &["a", "b"], &["c"]);
    let (models, _handle) = grouped(&[&a, &b, &c], groups, Limits::default()).await;
    match models.generate(request(Some("team")), None).await {
        Err(ProviderError::Elsewhere(failure)) => {
            assert!(
                ["a/small: a refuses", "b/small: b refuses", "c/small: c refuses"].iter().all(|it| failure.message.contains(it))
            );
            assert_eq!((failure.code, failure.hint.as_str()), (Code::ModelRefused, "set A_KEY; or add credit at c"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_alone_and_away_is_nobodys_answer_in_its_own_words() {
    let limits = Limits { retries: 0, ..Limits::default() };
    let a = FakeProvider::new("a", [busy(Some(90)), refused()]);
    let (models, _handle) = models(&[&a], limits).await;
    assert_away(models.generate(request(None), None).await, Some(90));
    sleep(Duration::from_secs(100)).await;
    // What does not pass is still its own: nothing is gained by waiting.
    assert!(matches!(models.generate(request(None), None).await, Err(ProviderError::Elsewhere(_))));
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_whoever_answered_it_last() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::RoundRobin, &["a", "b"], &[]), Limits::default()).await;
    let of = |session: &str| ModelRequest { session: Some(session.to_owned()), ..request(Some("team")) };
    let first = models.generate(of("one"), None).await.expect("answered");
    for _ in 0..5 {
        assert_eq!(models.generate(of("one"), None).await.as_ref(), Ok(&first));
    }
    let mut both = std::collections::BTreeSet::new();
    for number in 0..4 {
        both.insert(models.generate(of(&number.to_string()), None).await.expect("answered").model);
    }
    assert_eq!(both.len(), 2, "other sessions go round");
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_round_by_its_own_new_conversations_and_by_nothing_else() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let named = |name: &str| {
        let team = group(RoutingStrategy::RoundRobin, &["a", "b"], &[]);
        team.into_iter().map(move |(_, group)| (name.to_owned(), group)).collect::<Vec<_>>()
    };
    let (models, _handle) = grouped(&[&a, &b], [named("team"), named("other")].concat(), Limits::default()).await;
    let of = |name: &str, session: &str| ModelRequest { session: Some(session.to_owned()), ..request(Some(name)) };
    for (at, by) in ["a", "b", "a", "b"].into_iter().enumerate() {
        for name in ["team", "other"] {
            models.count(request(Some(name))).await.expect("counted");
            for _ in 0..2 {
                let answer = models.generate(of(name, &at.to_string()), None).await;
                assert_eq!(answer, Ok(reply(by)), "conversation {at} of {name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_others_fall_back_to_goes_round_as_well() {
    let (a, b, c) = (FakeProvider::new("a", [busy(Some(3_000))]), FakeProvider::new("b", []), FakeProvider::new("c", []));
    let team = group(RoutingStrategy::Cost, &["a"], &["spare"]);
    let spare = group(RoutingStrategy::RoundRobin, &["b", "c"], &[]);
    let spare = spare.into_iter().map(|(_, group)| ("spare".to_owned(), group)).collect();
    let (models, _handle) = grouped(&[&a, &b, &c], [team, spare].concat(), Limits::default()).await;
    for by in ["b", "c", "b", "c"] {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply(by)));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_are_each_given_a_turn_of_their_own() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::RoundRobin, &["a", "b"], &[]), Limits::default()).await;
    futures::future::join_all((0..8).map(|_| models.generate(request(Some("team")), None))).await;
    assert_eq!((a.calls(), b.calls()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn an_equal_request_at_temperature_0_is_answered_once_where_that_is_allowed() {
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    let sampling = Sampling { temperature: Some(0.0), ..Sampling::default() };
    let same = ModelRequest { reuse: true, sampling, ..request(None) };
    for _ in 0..3 {
        assert_eq!(models.generate(same.clone(), None).await, Ok(reply("a")));
    }
    assert_eq!(a.calls(), 1);
    models.generate(ModelRequest { reuse: false, ..same }, None).await.expect("answered");
    assert_eq!(a.calls(), 2);
}
