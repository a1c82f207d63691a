//! The router of model calls.

use std::time::Duration;

use helix_kernel::{Address, Reply};
use helix_ports::{DeltaSink, ModelInfo, ProviderError, ProviderHealth};
use helix_protocol::{Failure, ModelReply, ModelRequest, Money};
use serde::{Deserialize, Serialize};

/// The most a call can cost: what is reserved before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Who would answer.
    pub provider: String,
    /// With which model.
    pub model: String,
    /// In tokens: the request's, by an upper estimate, and the longest answer's.
    pub tokens: u64,
    /// In money by the price table; zero where no price is known.
    pub money: Money,
}

/// A provider as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub base_url: String,
    /// How it is doing.
    pub health: ProviderHealth,
    /// What it offers, as last asked.
    pub models: Vec<ModelInfo>,
}

/// What the router can be asked.
pub enum ModelsMsg {
    /// Answers a turn, after retries where they are allowed. The answer's `Ok` may be an error that says whether the call
    /// may have been billed. Sent by task actors.
    Generate {
        /// The turn.
        request: Box<ModelRequest>,
        /// Where pieces of the answer are shown.
        deltas: Option<DeltaSink>,
        /// The answer.
        reply: Reply<Result<ModelReply, ProviderError>>,
    },
    /// What a turn can cost at most. Refused with `model_unavailable` where nobody would answer it.
    Quote {
        /// The turn.
        request: Box<ModelRequest>,
        /// The answer.
        reply: Reply<Quote>,
    },
    /// Every provider, with its health. Sent by the HTTP face and by `doctor`.
    List {
        /// The answer.
        reply: Reply<Vec<ProviderView>>,
    },
}

/// The models branch.
#[derive(Clone, Debug)]
pub struct Models {
    address: Address<ModelsMsg>,
    timeout: Duration,
}

impl Models {
    /// A handle. `timeout` bounds a whole call with its retries.
    pub fn new(address: Address<ModelsMsg>, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// One turn. A failure of the branch itself (it restarts, its mailbox is full) is reported as uncertain only
    /// where the call may have been made.
    pub async fn generate(&self, request: ModelRequest, deltas: Option<DeltaSink>) -> Result<ModelReply, ProviderError> {
        let request = Box::new(request);
        let answer = self.address.ask(self.timeout, |reply| ModelsMsg::Generate { request, deltas, reply }).await;
        match answer {
            Ok(result) => result,
            Err(failure) if failure.code == helix_protocol::Code::Overloaded => {
                Err(ProviderError::Retryable { failure, retry_after: None })
            }
            Err(failure) if failure.code == helix_protocol::Code::ModelUnavailable => Err(ProviderError::Final(failure)),
            Err(failure) => Err(ProviderError::Uncertain(failure)),
        }
    }

    /// What a turn can cost at most.
    pub async fn quote(&self, request: ModelRequest) -> Result<Quote, Failure> {
        let request = Box::new(request);
        self.address.ask(Duration::from_secs(10), |reply| ModelsMsg::Quote { request, reply }).await
    }

    /// Every provider.
    pub async fn list(&self) -> Result<Vec<ProviderView>, Failure> {
        self.address.ask(Duration::from_secs(10), |reply| ModelsMsg::List { reply }).await
    }
}
