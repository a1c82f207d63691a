//! The router of model calls.

use std::time::Duration;

use helix_kernel::{Address, Reply};
use helix_ports::{DeltaSink, Extent, FaultScope, ModelCapabilities, ModelInfo, ProviderError, ProviderHealth, RawAnswer, RawCall};
use helix_protocol::{
    Code, Failure, KeyId, ModelCallId, ModelReply, ModelRequest, Most, OwnerId, ProjectId, Spent, TaskId, Timestamp, WireFormat,
};
use serde::{Deserialize, Serialize};

use crate::Asking;

/// The most a call can cost, whoever of those that may answer it does: what is reserved before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Who is asked first.
    pub provider: String,
    /// With which model.
    pub model: String,
    /// In tokens, the request's by an upper estimate and the longest answer's; in money by the price table.
    pub most: Most,
    /// What the model that is asked first can do.
    pub capabilities: ModelCapabilities,
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
    /// Its own circuit, and after it those of its models that are not closed.
    #[serde(default)]
    pub circuits: Vec<DeploymentCircuit>,
}

/// Whether the router sends calls to a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentCircuit {
    /// `provider` for everything that it serves, `provider/model` for one of its models.
    pub deployment: String,
    /// As listings show it: `state`, and beside it the fields of an [`Outage`] where it is not closed.
    #[serde(flatten)]
    pub circuit: Circuit,
}

/// The state of a circuit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Circuit {
    /// Calls pass.
    Closed,
    /// None passes: it failed too often in a row, or asked to be left alone.
    Open(Outage),
    /// One call at a time tries whether it is back.
    HalfOpen(Outage),
    /// Whoever else may answer is asked before it: it refused our key, lacks the model, or has no credit left.
    AskedLast(Outage),
}

impl Circuit {
    /// Since when and why; `None` where it is closed.
    pub fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Closed => None,
            Self::Open(outage) | Self::HalfOpen(outage) | Self::AskedLast(outage) => Some(outage),
        }
    }
}

/// A circuit that is not closed. Times are the wall clock's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When it was taken out of service.
    pub since: Timestamp,
    /// From then on a call may pass as usual (`asked_last`) or try. It has passed where the next call is to try.
    pub next_try_at: Timestamp,
    /// How the call before it failed.
    pub failure: Failure,
}

/// Whom a call is written down for in the ledger.
#[derive(Clone, Debug)]
pub struct OnBehalf {
    /// Who pays.
    pub owner: OwnerId,
    /// For which project.
    pub project: ProjectId,
    /// Who asks: a program or a user.
    pub actor: String,
    /// For which task.
    pub task: Option<TaskId>,
    /// For which of its steps.
    pub step: Option<u64>,
    /// With which key of the gateway.
    pub key: Option<KeyId>,
    /// The most that the call can use, the entry of the ledger that says so on disk while somebody is asked, and whether somebody
    /// is. `None` where no limit is about the call, or where a journal has its reservation.
    pub set_aside: Option<(ModelCallId, Spent, Asking)>,
}

impl Default for OnBehalf {
    fn default() -> Self {
        Self {
            owner: OwnerId::LOCAL,
            project: ProjectId::DEFAULT,
            actor: "node".to_owned(),
            task: None,
            step: None,
            key: None,
            set_aside: None,
        }
    }
}

/// Reads a request whose bytes pass, where there is a choice of who is asked; `None` for what cannot be read.
pub type ReadRequest = Box<dyn FnOnce() -> Option<ModelRequest> + Send>;

/// What the router can be asked.
pub enum ModelsMsg {
    /// Answers a turn, after retries where they are allowed. The answer's `Ok` may be an error that says whether the call
    /// may have been billed. Sent by task actors.
    Generate {
        /// For whom.
        on_behalf: OnBehalf,
        /// The turn.
        request: Box<ModelRequest>,
        /// Where pieces of the answer are shown.
        deltas: Option<DeltaSink>,
        /// The answer.
        reply: Reply<Result<ModelReply, ProviderError>>,
    },
    /// Passes bytes of a client's own format on to a provider that speaks it; the call's model is the name the client gave. `None`
    /// where the request has to be translated instead. Sent by the gateway.
    Forward {
        /// For whom.
        on_behalf: OnBehalf,
        /// Whose conversation it is.
        session: Option<String>,
        /// The format of the bytes.
        format: WireFormat,
        /// The bytes.
        call: Box<RawCall>,
        /// What they ask, where that matters.
        read: ReadRequest,
        /// The answer.
        reply: Reply<Result<Option<RawAnswer>, ProviderError>>,
    },
    /// Counts a turn's tokens as whoever would answer it counts them. Sent by the gateway.
    Count {
        /// The turn.
        request: Box<ModelRequest>,
        /// The answer.
        reply: Reply<Result<u64, ProviderError>>,
    },
    /// Names that a client may give as its model. Sent by the gateway.
    Offered {
        /// The answer.
        reply: Reply<Vec<String>>,
    },
    /// What a turn can cost at most. Refused with `model_unavailable` where nobody would answer it.
    Quote {
        /// The turn.
        request: Box<ModelRequest>,
        /// What it asks beyond that.
        extent: Extent,
        /// The answer.
        reply: Reply<Quote>,
    },
    /// Answers once the calls for a task are in the ledger. Sent by task actors before a turn of an external agent is charged.
    FlushLedger {
        /// Whose calls.
        task: TaskId,
        /// The answer.
        reply: Reply<()>,
    },
    /// Every provider, with its health. Sent by the HTTP face and by `doctor`.
    List {
        /// The answer.
        reply: Reply<Vec<ProviderView>>,
    },
    /// The circuit of every provider, and after it those of its models that are not closed. Asks nobody. Sent by the HTTP face.
    Circuits {
        /// The answer.
        reply: Reply<Vec<DeploymentCircuit>>,
    },
}

/// The models branch.
#[derive(Clone, Debug)]
pub struct Models {
    address: Address<ModelsMsg>,
    timeout: Duration,
    on_behalf: OnBehalf,
}

impl Models {
    /// A handle. `timeout` bounds a whole call with its retries.
    pub fn new(address: Address<ModelsMsg>, timeout: Duration) -> Self {
        Self { address, timeout, on_behalf: OnBehalf::default() }
    }

    /// The same handle, whose calls are written down for somebody.
    #[must_use]
    pub fn on_behalf(&self, on_behalf: OnBehalf) -> Self {
        Self { on_behalf, ..self.clone() }
    }

    /// One turn. A failure of the branch itself (it restarts, its mailbox is full) is reported as uncertain only
    /// where the call may have been made.
    pub async fn generate(&self, request: ModelRequest, deltas: Option<DeltaSink>) -> Result<ModelReply, ProviderError> {
        let (request, on_behalf) = (Box::new(request), self.on_behalf.clone());
        let answer = self.address.ask(self.timeout, |reply| ModelsMsg::Generate { on_behalf, request, deltas, reply }).await;
        answer.unwrap_or_else(|failure| Err(unanswered(failure)))
    }

    /// Bytes of a client's own format, passed on; `None` where the request has to be translated.
    pub async fn forward(
        &self,
        session: Option<String>,
        format: WireFormat,
        call: RawCall,
        read: ReadRequest,
    ) -> Result<Option<RawAnswer>, ProviderError> {
        let (call, on_behalf) = (Box::new(call), self.on_behalf.clone());
        let forward = |reply| ModelsMsg::Forward { on_behalf, session, format, call, read, reply };
        let answer = self.address.ask(self.timeout, forward).await;
        answer.unwrap_or_else(|failure| Err(unanswered(failure)))
    }

    /// A turn's tokens.
    pub async fn count(&self, request: ModelRequest) -> Result<u64, ProviderError> {
        let request = Box::new(request);
        let answer = self.address.ask(Duration::from_secs(60), |reply| ModelsMsg::Count { request, reply }).await;
        answer.unwrap_or_else(|failure| Err(unanswered(failure)))
    }

    /// Names that a client may give as its model.
    pub async fn offered(&self) -> Result<Vec<String>, Failure> {
        self.address.ask(Duration::from_secs(10), |reply| ModelsMsg::Offered { reply }).await
    }

    /// What a turn can cost at most.
    pub async fn quote(&self, request: ModelRequest) -> Result<Quote, Failure> {
        self.quote_passing(request, Extent::default()).await
    }

    /// What a turn can cost at most whose bytes pass and ask for more than is read of them.
    pub async fn quote_passing(&self, request: ModelRequest, extent: Extent) -> Result<Quote, Failure> {
        let request = Box::new(request);
        self.address.ask(Duration::from_secs(10), |reply| ModelsMsg::Quote { request, extent, reply }).await
    }

    /// Waits until the calls for a task are in the ledger, those that have just ended included; one that goes on is waited for a
    /// few seconds.
    pub async fn flush_ledger(&self, task: TaskId) -> Result<(), Failure> {
        self.address.ask(Duration::from_secs(30), |reply| ModelsMsg::FlushLedger { task, reply }).await
    }

    /// Every provider.
    pub async fn list(&self) -> Result<Vec<ProviderView>, Failure> {
        self.address.ask(Duration::from_secs(10), |reply| ModelsMsg::List { reply }).await
    }

    /// Whether calls are sent to each provider, and to each model that is out of service.
    pub async fn circuits(&self) -> Result<Vec<DeploymentCircuit>, Failure> {
        self.address.ask(Duration::from_secs(10), |reply| ModelsMsg::Circuits { reply }).await
    }
}

/// What a failure of the branch itself means for a call.
fn unanswered(failure: Failure) -> ProviderError {
    match failure.code {
        Code::Overloaded => ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider },
        Code::ModelUnavailable => ProviderError::Final(failure),
        _ => ProviderError::Uncertain(failure),
    }
}
