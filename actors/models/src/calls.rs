//! One call of one provider: its turn, the circuit, and the call itself, made once.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use helix_messages::{Asking, Circuit};
use helix_ports::{DeltaSink, FaultScope, Provider, ProviderError, RawAnswer, RawCall};
use helix_protocol::{Code, Failure, ModelReply, ModelRequest, Money, Timestamp, Usage};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::Limits;
use crate::bounded::Bounded;
use crate::breaker::{Breaker, Met};

/// How many models of a provider are remembered that failed: clients may name any.
const MODELS: usize = 1_024;

/// A call on its way to its provider. Whoever dropped the other end of `answer` gave it up.
pub(crate) enum Call {
    /// A turn.
    Generate {
        request: Arc<ModelRequest>,
        deltas: Option<DeltaSink>,
        asking: Asking,
        tried: Tried,
        answer: oneshot::Sender<Result<ModelReply, ProviderError>>,
    },
    /// Bytes in the provider's own format.
    Forward { call: RawCall, asking: Asking, tried: Tried, answer: oneshot::Sender<Result<RawAnswer, ProviderError>> },
    /// Tokens of a turn, by the provider's own count.
    Count { request: Arc<ModelRequest>, answer: oneshot::Sender<Result<u64, ProviderError>> },
}

/// What the same call met before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    /// A failure of the provider.
    pub provider: Met,
    /// A failure of the model.
    pub model: Met,
}

impl Call {
    /// Answers without a call.
    pub fn refuse(self, error: ProviderError) {
        // An error means that nobody waits any more.
        match self {
            Self::Generate { answer, .. } => drop(answer.send(Err(error))),
            Self::Forward { answer, .. } => drop(answer.send(Err(error))),
            Self::Count { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// What the calls of one provider share.
pub(crate) struct Gate {
    provider: Arc<dyn Provider>,
    turns: Arc<Semaphore>,
    limits: Limits,
    breaker: Mutex<Breaker>,
    /// Of models that fail while the provider answers. A model that answers is forgotten.
    models: Mutex<Bounded<String, Breaker>>,
}

impl Gate {
    pub fn new(provider: Arc<dyn Provider>, limits: Limits) -> Self {
        let breaker = Mutex::new(Breaker::new(limits.failures, limits.cooldown));
        let models = Mutex::new(Bounded::new(MODELS));
        Self { provider, turns: Arc::new(Semaphore::new(limits.concurrency)), limits, breaker, models }
    }

    /// Makes the call and answers it. Given up, its connection closed, once nobody waits for it.
    pub async fn serve(self: Arc<Self>, call: Call) {
        match call {
            Call::Generate { request, deltas, asking, tried, mut answer } => {
                tokio::select! {
                    result = self.generate(&request, deltas, &asking, tried) => drop(answer.send(result)),
                    () = answer.closed() => {}
                }
            }
            Call::Forward { call, asking, tried, mut answer } => {
                tokio::select! {
                    result = Arc::clone(&self).forward(call, &asking, tried) => drop(answer.send(result)),
                    () = answer.closed() => {}
                }
            }
            Call::Count { request, mut answer } => {
                tokio::select! {
                    result = self.provider.count_tokens(&request) => drop(answer.send(result)),
                    () = answer.closed() => {}
                }
            }
        }
    }

    /// Its circuit, for listings; `clock` is the wall clock's present.
    pub fn circuit(&self, clock: Timestamp) -> Circuit {
        self.breaker.lock().circuit(Instant::now(), clock)
    }

    /// Those of its models that are not closed, for listings.
    pub fn circuits_of_models(&self, clock: Timestamp) -> Vec<(String, Circuit)> {
        let now = Instant::now();
        let models = self.models.lock();
        let circuits = models.iter().map(|(model, breaker)| (model.clone(), breaker.circuit(now, clock)));
        circuits.filter(|(_, circuit)| *circuit != Circuit::Closed).collect()
    }

    /// How long nothing may be sent to a model, because it or the whole provider failed in a row.
    pub fn open_for(&self, model: &str) -> Option<Duration> {
        let now = Instant::now();
        let of_model = self.models.lock().peek(&model.to_owned()).and_then(|breaker| breaker.open_for(now));
        of_model.max(self.breaker.lock().open_for(now))
    }

    /// True where a call would wait for its turn.
    pub fn is_full(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// From its turn on a call may be billed.
    async fn turn(&self, model: &str, asking: &Asking) -> Result<OwnedSemaphorePermit, ProviderError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| stopping())?;
        if !asking.begin() {
            return Err(ProviderError::Final(Failure::new(Code::Cancelled, "nobody waits for the call any more")));
        }
        match self.admit(model) {
            Ok(()) => Ok(turn),
            Err((scope, wait)) => {
                let name = match scope {
                    FaultScope::Provider => self.provider.name().to_owned(),
                    FaultScope::Model => format!("{model} of {}", self.provider.name()),
                };
                let message = format!("{name} failed repeatedly and is left alone for {} ms", wait.as_millis());
                let hint = "it is tried again by itself; `helix status` shows its circuit";
                let failure = Failure::new(Code::ModelFailed, message).hint(hint);
                Err(ProviderError::Retryable { failure, retry_after: Some(wait), scope })
            }
        }
    }

    /// Lets a call pass both circuits, or says how long which of them lets none.
    fn admit(&self, model: &str) -> Result<(), (FaultScope, Duration)> {
        let now = Instant::now();
        let mut breaker = self.breaker.lock();
        // The one call that tries a model must not be lost to the provider's circuit.
        if let Some(wait) = breaker.open_for(now) {
            return Err((FaultScope::Provider, wait));
        }
        if let Some(of_model) = self.models.lock().get(&model.to_owned()) {
            of_model.admit(now).map_err(|wait| (FaultScope::Model, wait))?;
        }
        breaker.admit(now).map_err(|wait| (FaultScope::Provider, wait))
    }

    /// Streams wherever it can, watched or not: only a stream shows early that a server has gone silent.
    async fn generate(
        &self,
        request: &ModelRequest,
        deltas: Option<DeltaSink>,
        asking: &Asking,
        tried: Tried,
    ) -> Result<ModelReply, ProviderError> {
        let model = request.model.as_deref().unwrap_or_default();
        let _turn = self.turn(model, asking).await?;
        let result = match self.provider.capabilities(request.model.as_deref()).streaming {
            false => self.provider.generate(request).await,
            true => self.provider.generate_stream(request, deltas.unwrap_or_else(|| mpsc::channel(1).0)).await,
        };
        self.heard(model, result.as_ref().err(), tried);
        result
    }

    /// The turn is over when the answer's body is. That of a refusal ends at once: it is kept while others are asked, and by the
    /// very call that waits for a turn again.
    async fn forward(self: Arc<Self>, call: RawCall, asking: &Asking, tried: Tried) -> Result<RawAnswer, ProviderError> {
        let turn = self.turn(&call.model, asking).await?;
        let model = call.model.clone();
        let answer = self.provider.forward(call).await.inspect_err(|error| self.heard(&model, Some(error), tried))?;
        if answer.fault.is_some() {
            self.heard(&model, answer.fault.as_ref(), tried);
            return Ok(answer);
        }
        self.breaker.lock().began();
        if let Some(of_model) = self.models.lock().get(&model) {
            of_model.began();
        }
        let body = holding(answer.body, turn).boxed();
        Ok(RawAnswer { body, ended: self.followed(model, tried, answer.ended).boxed(), ..answer })
    }

    /// How an answer that passes ends, with what it cost.
    async fn followed(
        self: Arc<Self>,
        model: String,
        tried: Tried,
        ended: impl Future<Output = Option<Result<Usage, ProviderError>>>,
    ) -> Option<Result<Usage, ProviderError>> {
        let ended = ended.await?;
        self.heard(&model, ended.as_ref().err(), tried);
        Some(ended.map(|usage| self.priced(&model, usage)))
    }

    fn priced(&self, model: &str, usage: Usage) -> Usage {
        // Some providers say themselves what a call cost, and they know better.
        match self.provider.price_at(Some(model), usage.input_tokens).filter(|_| usage.cost == Money::ZERO) {
            Some(price) => Usage { cost: price.of(&usage), ..usage },
            None => usage,
        }
    }

    fn heard(&self, model: &str, error: Option<&ProviderError>, tried: Tried) {
        match error {
            None | Some(ProviderError::Final(_) | ProviderError::Elsewhere(_)) => {
                self.breaker.lock().answered();
                self.models.lock().remove(&model.to_owned());
            }
            Some(ProviderError::Retryable { failure, scope: FaultScope::Model, .. }) => {
                self.breaker.lock().answered();
                self.model_failed(model, failure, tried.model);
            }
            Some(error) => {
                let failure = error.failure();
                if self.breaker.lock().failed(Instant::now(), failure, tried.provider) {
                    tracing::warn!(provider = self.provider.name(), %failure, "the provider is left alone for a while");
                }
            }
        }
    }

    fn model_failed(&self, model: &str, failure: &Failure, met: Met) {
        let (mut models, key) = (self.models.lock(), model.to_owned());
        if models.peek(&key).is_none() {
            models.put(key.clone(), Breaker::new(self.limits.failures, self.limits.cooldown), 1);
        }
        if models.get(&key).is_some_and(|breaker| breaker.failed(Instant::now(), failure, met)) {
            tracing::warn!(provider = self.provider.name(), model, %failure, "the model is left alone for a while");
        }
    }
}

/// The same stream, which keeps `turn` until it has ended or is dropped.
fn holding<T>(
    stream: impl Stream<Item = T> + Send + 'static,
    turn: OwnedSemaphorePermit,
) -> impl Stream<Item = T> + Send + 'static {
    stream.map(move |item| {
        let _turn = &turn;
        item
    })
}

/// The answer where the branch ends before a call was made.
pub(crate) fn stopping() -> ProviderError {
    let failure = Failure::new(Code::ShuttingDown, "the models branch is stopping").hint("try again in a moment");
    ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider }
}
