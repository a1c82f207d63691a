//! Models behind one trait.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use helix_protocol::{
    Effort, Failure, JsonOutput, ModelDelta, ModelReply, ModelRequest, Money, ThinkingControl, ToolChoice, Usage, WireFormat,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Where the pieces of a streamed answer go. Bounded: a slow reader slows the stream. A closed one is ignored.
pub type DeltaSink = mpsc::Sender<ModelDelta>;

/// Price of a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenPrice {
    /// Read, not from the cache.
    pub input: Money,
    /// Read from the cache.
    pub cached: Money,
    /// Written into the cache.
    pub cache_write: Money,
    /// Written into the cache for an hour.
    pub cache_write_1h: Money,
    /// Written.
    pub output: Money,
}

impl TokenPrice {
    /// What `usage` costs, rounded up to the next millionth of a dollar.
    pub fn of(&self, usage: &Usage) -> Money {
        let cached = usage.cached_tokens.min(usage.input_tokens);
        let written = usage.cache_write_tokens.min(usage.input_tokens - cached);
        let plain = usage.input_tokens - cached - written;
        let hour = usage.cache_write_1h_tokens.min(written);
        let writes = [(written - hour, self.cache_write), (hour, self.cache_write_1h)];
        let others = [(plain, self.input), (cached, self.cached), (usage.output_tokens, self.output)];
        let millionths: i128 = others.iter().chain(&writes).map(|(tokens, price)| i128::from(*tokens) * i128::from(price.0)).sum();
        Money(i64::try_from((millionths + 999_999).div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }
}

/// What a model can do: data, one entry of the capability table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelCapabilities {
    /// Calls tools.
    pub tools: bool,
    /// Can be made to call some tool, or a named one, at least while it does not think. Where not, it is asked to in words
    /// and its answer is checked.
    pub forced_tools: bool,
    /// Calls several tools at once.
    pub parallel_tools: bool,
    /// Streams.
    pub streaming: bool,
    /// Takes pictures.
    pub images: bool,
    /// Takes temperature and its like. Where not, they are left out.
    pub sampling: bool,
    /// What it can be held to in the text of an answer.
    pub json_output: JsonOutput,
    /// How its thinking is asked for.
    pub thinking: ThinkingControl,
    /// The efforts that it knows, least first.
    pub efforts: Vec<Effort>,
    /// Least tokens of a thinking budget.
    pub least_budget: u32,
    /// Takes cache markers in the request. Where not, its cache works by itself or not at all.
    pub cache_markers: bool,
    /// A prefix shorter than this is not cached, in tokens.
    pub cache_least: u32,
    /// Tokens of a whole request, answer included.
    pub context_tokens: u64,
    /// Most tokens of an answer.
    pub output_tokens: u64,
    /// Most tokens that a picture counts.
    pub image_tokens: u64,
}

impl Default for ModelCapabilities {
    fn default() -> Self {
        Self {
            tools: true,
            forced_tools: true,
            parallel_tools: true,
            streaming: true,
            images: false,
            sampling: true,
            json_output: JsonOutput::Schema,
            thinking: ThinkingControl::None,
            efforts: Vec::new(),
            least_budget: 1_024,
            cache_markers: false,
            cache_least: 1_024,
            context_tokens: 128_000,
            output_tokens: 16_384,
            image_tokens: 16_384,
        }
    }
}

/// A model a provider offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name in requests.
    pub name: String,
    /// What it can do.
    pub capabilities: ModelCapabilities,
    /// What it costs, where known.
    pub price: Option<TokenPrice>,
}

/// Whether a provider can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It answers.
    Available,
    /// It answered with errors lately.
    Degraded,
    /// It does not answer.
    Unavailable,
    /// It was never asked.
    Unknown,
}

/// How a provider is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// In a word.
    pub availability: Availability,
    /// Round trip of the last check, in milliseconds.
    pub latency_ms: Option<u64>,
    /// The last error, for people.
    pub message: String,
}

/// How far a failure that passes reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    /// Everything that the provider serves: no connection to it can be made, or its server fails.
    Provider,
    /// The model that was asked: its limits are used up, or it is overloaded or loading. The provider answers for others.
    Model,
}

/// Why a call brought no reply. The distinction decides what may be done next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The request can be repeated and was certainly not billed: it never left, or was refused with 429 or 5xx
    /// before an answer began.
    #[error("{failure}")]
    Retryable {
        /// What happened.
        failure: Failure,
        /// The provider said when to come back.
        retry_after: Option<Duration>,
        /// How far the failure reaches.
        scope: FaultScope,
    },
    /// The call may have been billed: the answer had begun, or nothing is known of it. Its
    /// reservation is charged; repeating it is a decision of the caller.
    #[error("{0}")]
    Uncertain(Failure),
    /// This provider cannot serve it, now or later, and was not billed: its key is refused, the model is gone, its credit is spent.
    /// Another provider may.
    #[error("{0}")]
    Elsewhere(Failure),
    /// Repeating does not help, here or elsewhere: the request itself is refused.
    #[error("{0}")]
    Final(Failure),
}

impl ProviderError {
    /// What to tell a person.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Retryable { failure, .. } | Self::Uncertain(failure) | Self::Elsewhere(failure) | Self::Final(failure) => failure,
        }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Retryable { failure, .. }
            | ProviderError::Uncertain(failure)
            | ProviderError::Elsewhere(failure)
            | ProviderError::Final(failure) => failure,
        }
    }
}

/// How much more may be asked of a model, as the headers of its last answer said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimits {
    /// Requests.
    pub requests: Option<RateWindow>,
    /// Tokens.
    pub tokens: Option<RateWindow>,
}

impl RateLimits {
    /// The same, `passed` later: what is back by then limits nothing.
    pub fn after(self, passed: Duration) -> Self {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let later =
            |window: RateWindow| (passed < window.reset_ms).then(|| RateWindow { reset_ms: window.reset_ms - passed, ..window });
        Self { requests: self.requests.and_then(later), tokens: self.tokens.and_then(later) }
    }

    /// How long nothing more may be asked; `None` where something is left of each limit.
    pub fn exhausted_for(&self) -> Option<Duration> {
        let exhausted = [self.requests, self.tokens].into_iter().flatten().filter(|window| window.remaining == 0);
        exhausted.map(|window| Duration::from_millis(window.reset_ms)).max().filter(|wait| !wait.is_zero())
    }

    /// True where a request of so many tokens is beyond what is left. One that is larger than the whole
    /// limit is not held against it.
    pub fn is_short_of(&self, tokens: u64) -> bool {
        self.tokens.is_some_and(|window| window.remaining < tokens.min(window.limit))
    }
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWindow {
    /// In all.
    pub limit: u64,
    /// Of these, left.
    pub remaining: u64,
    /// Until they are all back, in milliseconds.
    pub reset_ms: u64,
}

/// What a client asks in the provider's own format; its bytes pass untouched.
#[derive(Clone, Debug)]
pub struct RawCall {
    /// What is asked for.
    pub operation: RawOperation,
    /// The model, for formats that have it in the path.
    pub model: String,
    /// Headers of the format that pass, such as `anthropic-beta`; lower case. Never credentials.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// What a raw call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawOperation {
    /// A whole answer.
    Generate,
    /// An answer in pieces.
    Stream,
    /// The tokens of a request.
    CountTokens,
}

/// The provider's own answer, not yet read.
pub struct RawAnswer {
    /// Its status, as it came.
    pub status: u16,
    /// What it means where it is no answer: the same that a call would have failed with whose answer is read here. Whoever tries no
    /// further can pass the answer as it came all the same.
    pub fault: Option<ProviderError>,
    /// Headers that pass, `content-type` among them.
    pub headers: Vec<(String, String)>,
    /// The body as it comes, within the provider's limits of time and size. Reading slowly slows the provider.
    pub body: BoxStream<'static, Result<Bytes, ProviderError>>,
    /// How the body ends: with what the answer used, read on the way by, or why it broke off. `None` where the answer is a refusal,
    /// where whoever takes it leaves before its end, and where nobody can say what it used. Nothing is learnt before it is polled.
    pub ended: BoxFuture<'static, Option<Result<Usage, ProviderError>>>,
}

/// A service that answers for models. One instance is one base URL with one key.
///
/// It makes each call once: retries, fallback and budgets are the router's. Dropping the future of a
/// call closes its connection.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &str;
    /// The format it speaks.
    fn format(&self) -> WireFormat;
    /// One whole answer.
    async fn generate(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError>;
    /// The same answer, its pieces shown as they come. An answer without its terminal event is an error.
    async fn generate_stream(&self, request: &ModelRequest, deltas: DeltaSink) -> Result<ModelReply, ProviderError>;
    /// What it offers.
    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError>;
    /// What is known of a model; defaults for one it does not know.
    fn capabilities(&self, model: Option<&str>) -> ModelCapabilities;
    /// True where `model` certainly keeps to the request's choice of tools as it would be asked here. Where not, the choice is only
    /// said to it in words, and its answer has to be checked: some cannot be forced, some not while they think.
    fn keeps_tool_choice(&self, model: Option<&str>, request: &ModelRequest) -> bool {
        matches!(request.tool_choice, ToolChoice::Auto | ToolChoice::None) || self.capabilities(model).forced_tools
    }
    /// True where `model` can be held to what the request says of its answer's text. Where not, nothing is sent.
    fn keeps_output(&self, model: Option<&str>, request: &ModelRequest) -> bool {
        request.output.needs() <= self.capabilities(model).json_output
    }
    /// True where all that the request holds can be said in the provider's format. Where not, what can be done without is left out,
    /// and nothing is sent where something else is lost: a file that only another provider has, or the only tools.
    fn carries(&self, _request: &ModelRequest) -> bool {
        true
    }
    /// The price of a model, where known.
    fn price(&self, model: Option<&str>) -> Option<TokenPrice>;
    /// The price of a request with so many input tokens: some models cost more where they are asked much at once.
    fn price_at(&self, model: Option<&str>, _input_tokens: u64) -> Option<TokenPrice> {
        self.price(model)
    }
    /// Asks it for a sign of life.
    async fn health(&self) -> ProviderHealth;
    /// Refused with `model_unavailable` where no call can be made before somebody sets something up, a key for one. No network.
    fn is_set_up(&self) -> Result<(), Failure> {
        Ok(())
    }
    /// False where a call is likely to be for nothing: no key is there, or a check found nobody a moment ago. Such a one is asked
    /// last. No network.
    fn is_available(&self) -> bool {
        self.is_set_up().is_ok()
    }
    /// Most tokens that a request is likely to be for a model. No network.
    fn estimate_tokens(&self, model: Option<&str>, request: &ModelRequest) -> u64;
    /// Tokens of a request by the provider's own count; the estimate where it has no such call.
    async fn count_tokens(&self, request: &ModelRequest) -> Result<u64, ProviderError> {
        Ok(self.estimate_tokens(request.model.as_deref(), request))
    }
    /// False where requests carry what depends on each of them and is not the client's to say: then bytes cannot pass as they are.
    fn passes(&self) -> bool {
        true
    }
    /// Passes a request of the provider's own format on, and its answer back, byte by byte. Refused where a client's format is not
    /// the provider's, or where bytes do not pass: look at [`format`](Self::format) and [`passes`](Self::passes) first. A refusal
    /// is an answer with a `fault`; an error means that none came.
    async fn forward(&self, call: RawCall) -> Result<RawAnswer, ProviderError>;
    /// What the last answer of `model` said of its limits, as of now. Counting tokens has limits of its own, which are not told.
    fn rate_limits(&self, _model: Option<&str>) -> RateLimits {
        RateLimits::default()
    }
    /// Lets go of the connections that no call uses; calls under way end as they would, and later ones connect anew.
    async fn close(&self);
}
