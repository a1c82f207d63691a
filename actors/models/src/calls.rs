//! One call from its arrival to its answer: its turn, the circuit, and the only retry loop there is.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Reply;
use helix_ports::{DeltaSink, Provider, ProviderError};
use helix_protocol::{Code, Failure, ModelReply, ModelRequest};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use crate::Limits;
use crate::breaker::Breaker;

/// How often it is looked whether somebody still waits for an answer.
const LISTENING: Duration = Duration::from_millis(250);

/// Where a call's answer goes, until it is answered.
pub(crate) type Unanswered = Mutex<Option<Reply<Result<ModelReply, ProviderError>>>>;

/// A call on its way. The reply can be taken once: by whoever makes the call, or by who could not hand it over.
#[derive(Clone)]
pub(crate) struct Call {
    pub request: Arc<ModelRequest>,
    pub deltas: Option<DeltaSink>,
    pub reply: Arc<Unanswered>,
}

impl Call {
    /// Answers, if nobody did.
    pub fn answer(&self, result: Result<ModelReply, ProviderError>) {
        if let Some(reply) = self.reply.lock().take() {
            // An error means that nobody waits any more.
            drop(reply.send(Ok(result)));
        }
    }

    /// Ends when nobody waits for the answer any more.
    async fn abandoned(&self) {
        loop {
            sleep(LISTENING).await;
            if self.reply.lock().as_ref().is_none_or(Reply::is_closed) {
                return;
            }
        }
    }
}

/// What the calls of one provider share.
pub(crate) struct Gate {
    provider: Arc<dyn Provider>,
    limits: Limits,
    turns: Semaphore,
    breaker: Mutex<Breaker>,
}

impl Gate {
    pub fn new(provider: Arc<dyn Provider>, limits: Limits) -> Self {
        let turns = Semaphore::new(limits.concurrency);
        let breaker = Mutex::new(Breaker::new(limits.failures, limits.cooldown));
        Self { provider, limits, turns, breaker }
    }

    /// Makes the call and answers it. Given up, its connection closed, once nobody waits for it.
    pub async fn serve(&self, call: Call) {
        tokio::select! {
            result = self.attempt(&call) => call.answer(result),
            () = call.abandoned() => tracing::debug!(provider = self.provider.name(), "nobody waits for the call any more"),
        }
    }

    async fn attempt(&self, call: &Call) -> Result<ModelReply, ProviderError> {
        let mut retries = 0;
        loop {
            let result = self.once(call).await;
            let Err(ProviderError::Retryable { failure, retry_after }) = result else { return result };
            let wait = self.wait(retries, retry_after);
            if retries >= self.limits.retries || retry_after.is_some_and(|after| after > self.limits.patience) {
                return Err(ProviderError::Retryable { failure, retry_after });
            }
            retries += 1;
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(provider = self.provider.name(), retries, wait_ms, %failure, "a model call is repeated");
            sleep(wait).await;
        }
    }

    /// One call, its turn taken only while it is made.
    async fn once(&self, call: &Call) -> Result<ModelReply, ProviderError> {
        let _turn = self.turns.acquire().await.map_err(|_| stopping())?;
        if let Err(wait) = self.breaker.lock().admit(Instant::now()) {
            let name = self.provider.name();
            let failure =
                Failure::new(Code::ModelFailed, format!("{name} failed repeatedly and is left alone for {} ms", wait.as_millis()))
                    .hint("it is tried again by itself; `helix doctor` shows its health");
            return Err(ProviderError::Retryable { failure, retry_after: Some(wait) });
        }
        let result = self.ask(call).await;
        let mut breaker = self.breaker.lock();
        match &result {
            Ok(_) | Err(ProviderError::Final(_) | ProviderError::Elsewhere(_)) => breaker.answered(),
            Err(error) => {
                if breaker.failed(Instant::now()) {
                    tracing::warn!(provider = self.provider.name(), error = %error.failure(), "the provider is left alone for a while");
                }
            }
        }
        result
    }

    /// Streams wherever it can, watched or not: only a stream shows early that a server has gone silent.
    async fn ask(&self, call: &Call) -> Result<ModelReply, ProviderError> {
        if !self.provider.capabilities(call.request.model.as_deref()).streaming {
            return self.provider.generate(&call.request).await;
        }
        let deltas = call.deltas.clone().unwrap_or_else(|| mpsc::channel(1).0);
        self.provider.generate_stream(&call.request, deltas).await
    }

    /// Backoff with jitter, and never earlier than the provider wants.
    fn wait(&self, retries: u32, retry_after: Option<Duration>) -> Duration {
        let doubled = self.limits.backoff_first.saturating_mul(2u32.saturating_pow(retries.min(16)));
        let backoff = doubled.min(self.limits.backoff_most);
        let jittered = backoff.mul_f64(rand::random_range(0.5..=1.0));
        match retry_after {
            // A little later each, so that all who were told the same do not return at once.
            Some(after) => after.mul_f64(rand::random_range(1.0..=1.1)).max(after),
            None => jittered,
        }
    }
}

/// The answer where the branch ends before a call was made.
pub(crate) fn stopping() -> ProviderError {
    let failure = Failure::new(Code::ShuttingDown, "the models branch is stopping").hint("try again in a moment");
    ProviderError::Retryable { failure, retry_after: None }
}
