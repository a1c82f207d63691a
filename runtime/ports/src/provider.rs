//! Models behind one trait.

use std::time::Duration;

use async_trait::async_trait;
use helix_protocol::{Failure, ModelDelta, ModelReply, ModelRequest, Money};
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
    /// Written.
    pub output: Money,
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelCapabilities {
    /// Calls tools.
    pub tools: bool,
    /// Can be made to call some tool, or a named one.
    pub forced_tools: bool,
    /// Streams.
    pub streaming: bool,
    /// Tokens of a whole request, answer included.
    pub context_tokens: u64,
    /// Most tokens of an answer.
    pub output_tokens: u64,
}

impl Default for ModelCapabilities {
    fn default() -> Self {
        Self { tools: true, forced_tools: true, streaming: true, context_tokens: 128_000, output_tokens: 16_384 }
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
    },
    /// The call may have been billed: the answer had begun, or nothing is known of it. Its
    /// reservation is charged; repeating it is a decision of the caller.
    #[error("{0}")]
    Uncertain(Failure),
    /// Repeating does not help.
    #[error("{0}")]
    Final(Failure),
}

impl ProviderError {
    /// What to tell a person.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Retryable { failure, .. } | Self::Uncertain(failure) | Self::Final(failure) => failure,
        }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Retryable { failure, .. } | ProviderError::Uncertain(failure) | ProviderError::Final(failure) => failure,
        }
    }
}

/// A service that answers for models. One instance is one base URL with one key.
///
/// It makes each call once: retries, fallback and budgets are the router's. Dropping the future of a
/// call closes its connection.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &str;
    /// One whole answer.
    async fn generate(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError>;
    /// The same answer, its pieces shown as they come. An answer without its terminal event is an error.
    async fn generate_stream(&self, request: &ModelRequest, deltas: DeltaSink) -> Result<ModelReply, ProviderError>;
    /// What it offers.
    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError>;
    /// What is known of a model; defaults for one it does not know.
    fn capabilities(&self, model: Option<&str>) -> ModelCapabilities;
    /// The price of a model, where known.
    fn price(&self, model: Option<&str>) -> Option<TokenPrice>;
    /// Asks it for a sign of life.
    async fn health(&self) -> ProviderHealth;
    /// True where a call would be tried: a key is there and the last check did not fail.
    async fn is_available(&self) -> bool;
    /// Tokens of a request; an upper estimate where the provider has no such call. No network.
    fn count_tokens(&self, request: &ModelRequest) -> u64;
    /// Finishes what is under way and lets connections go.
    async fn close(&self);
}
