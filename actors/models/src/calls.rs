//! One call of one provider: its turn, the circuit, and the call itself, made once.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use helix_messages::{Asking, Circuit};
use helix_ports::{DeltaSink, Provider, ProviderError, RawAnswer, RawCall};
use helix_protocol::{Code, Failure, ModelReply, ModelRequest, Money, Timestamp, Usage};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::Limits;
use crate::breaker::Breaker;

/// A call on its way to its provider. Whoever dropped the other end of `answer` gave it up.
pub(crate) enum Call {
    /// A turn.
    Generate {
        request: Arc<ModelRequest>,
        deltas: Option<DeltaSink>,
        asking: Asking,
        answer: oneshot::Sender<Result<ModelReply, ProviderError>>,
    },
    /// Bytes in the provider's own format.
    Forward { call: RawCall, asking: Asking, answer: oneshot::Sender<Result<RawAnswer, ProviderError>> },
    /// Tokens of a turn, by the provider's own count.
    Count { request: Arc<ModelRequest>, answer: oneshot::Sender<Result<u64, ProviderError>> },
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
    breaker: Mutex<Breaker>,
}

impl Gate {
    pub fn new(provider: Arc<dyn Provider>, limits: Limits) -> Self {
        let breaker = Mutex::new(Breaker::new(limits.failures, limits.cooldown));
        Self { provider, turns: Arc::new(Semaphore::new(limits.concurrency)), breaker }
    }

    /// Makes the call and answers it. Given up, its connection closed, once nobody waits for it.
    pub async fn serve(self: Arc<Self>, call: Call) {
        match call {
            Call::Generate { request, deltas, asking, mut answer } => {
                tokio::select! {
                    result = self.generate(&request, deltas, &asking) => drop(answer.send(result)),
                    () = answer.closed() => {}
                }
            }
            Call::Forward { call, asking, mut answer } => {
                tokio::select! {
                    result = Arc::clone(&self).forward(call, &asking) => drop(answer.send(result)),
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

    /// How long nothing may be sent because it failed in a row.
    pub fn open_for(&self) -> Option<Duration> {
        self.breaker.lock().open_for(Instant::now())
    }

    /// True where a call would wait for its turn.
    pub fn is_full(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// From its turn on a call may be billed.
    async fn turn(&self, asking: &Asking) -> Result<OwnedSemaphorePermit, ProviderError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| stopping())?;
        if !asking.begin() {
            return Err(ProviderError::Final(Failure::new(Code::Cancelled, "nobody waits for the call any more")));
        }
        if let Err(wait) = self.breaker.lock().admit(Instant::now()) {
            let name = self.provider.name();
            let failure =
                Failure::new(Code::ModelFailed, format!("{name} failed repeatedly and is left alone for {} ms", wait.as_millis()))
                    .hint("it is tried again by itself; `helix status` shows its circuit");
            return Err(ProviderError::Retryable { failure, retry_after: Some(wait) });
        }
        Ok(turn)
    }

    /// Streams wherever it can, watched or not: only a stream shows early that a server has gone silent.
    async fn generate(
        &self,
        request: &ModelRequest,
        deltas: Option<DeltaSink>,
        asking: &Asking,
    ) -> Result<ModelReply, ProviderError> {
        let _turn = self.turn(asking).await?;
        let result = match self.provider.capabilities(request.model.as_deref()).streaming {
            false => self.provider.generate(request).await,
            true => self.provider.generate_stream(request, deltas.unwrap_or_else(|| mpsc::channel(1).0)).await,
        };
        self.heard(result.as_ref().err());
        result
    }

    /// The turn is over when the answer's body is. That of a refusal ends at once: it is kept while others are asked, and by the very call
    /// that waits for a turn again.
    async fn forward(self: Arc<Self>, call: RawCall, asking: &Asking) -> Result<RawAnswer, ProviderError> {
        let turn = self.turn(asking).await?;
        let model = call.model.clone();
        let answer = self.provider.forward(call).await.inspect_err(|error| self.heard(Some(error)))?;
        if answer.fault.is_some() {
            self.heard(answer.fault.as_ref());
            return Ok(answer);
        }
        self.breaker.lock().began();
        let body = holding(answer.body, turn).boxed();
        Ok(RawAnswer { body, ended: self.followed(model, answer.ended).boxed(), ..answer })
    }

    /// How an answer that passes ends, with what it cost.
    async fn followed(
        self: Arc<Self>,
        model: String,
        ended: impl Future<Output = Option<Result<Usage, ProviderError>>>,
    ) -> Option<Result<Usage, ProviderError>> {
        let ended = ended.await?;
        self.heard(ended.as_ref().err());
        Some(ended.map(|usage| self.priced(&model, usage)))
    }

    fn priced(&self, model: &str, usage: Usage) -> Usage {
        // Some providers say themselves what a call cost, and they know better.
        match self.provider.price_at(Some(model), usage.input_tokens).filter(|_| usage.cost == Money::ZERO) {
            Some(price) => Usage { cost: price.of(&usage), ..usage },
            None => usage,
        }
    }

    fn heard(&self, error: Option<&ProviderError>) {
        match error {
            None | Some(ProviderError::Final(_) | ProviderError::Elsewhere(_)) => self.breaker.lock().answered(),
            Some(error) => self.failed(error.failure()),
        }
    }

    fn failed(&self, failure: &Failure) {
        if self.breaker.lock().failed(Instant::now(), failure) {
            tracing::warn!(provider = self.provider.name(), %failure, "the provider is left alone for a while");
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
    ProviderError::Retryable { failure, retry_after: None }
}
