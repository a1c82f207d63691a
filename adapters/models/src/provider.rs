//! A provider that speaks chat completions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use helix_ports::{Availability, DeltaSink, ModelCapabilities, ModelInfo, Provider, ProviderError, ProviderHealth, TokenPrice};
use helix_protocol::{Code, Failure, ModelReply, ModelRequest};
use parking_lot::RwLock;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response};
use sse_stream::SseByteStream;

use crate::chat::{LengthField, RequestShape, StreamDecoder, decode_reply, encode_request};
use crate::connection::{BodyError, Chunks, authorize, client, endpoint, start_of, whole};
use crate::estimate::block_tokens;
use crate::fault::{Faults, Progress, is_page};
use crate::{Settings, cost, request_tokens};

/// How long a health check may take.
const HEALTH: Duration = Duration::from_secs(10);

/// One base URL with one key. Cheap to share; every call opens or reuses a connection of its own.
#[derive(Debug)]
pub struct OpenAiCompatible {
    settings: Settings,
    client: Client,
    health: RwLock<ProviderHealth>,
}

impl OpenAiCompatible {
    /// A provider over `settings`. Nothing is sent before the first call. Refused with `invalid_config` where the system's
    /// certificates cannot be read or the base URL is not one.
    pub fn new(settings: Settings) -> Result<Self, Failure> {
        let faults = Faults { settings: &settings };
        let client = client(&settings).map_err(|error| faults.transport(error))?;
        let parsed =
            reqwest::Url::parse(&settings.base_url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !parsed {
            let failure = Failure::new(
                Code::InvalidConfig,
                format!("the base URL of the provider {} is not an http or https URL", settings.name),
            );
            return Err(failure.hint("write it like https://api.openai.com/v1 or http://127.0.0.1:8080/v1"));
        }
        let health = RwLock::new(ProviderHealth { availability: Availability::Unknown, latency_ms: None, message: String::new() });
        Ok(Self { settings, client, health })
    }

    fn faults(&self) -> Faults<'_> {
        Faults { settings: &self.settings }
    }

    fn lacks_key(&self) -> bool {
        !self.settings.key_env.is_empty() && self.settings.key.is_none()
    }

    /// Sends the turn and waits for the status; a refusal is an error.
    async fn ask(&self, request: &ModelRequest, stream: bool) -> Result<Response, ProviderError> {
        if self.lacks_key() {
            return Err(self.faults().no_key());
        }
        let length = match self.settings.base_url.contains("://api.openai.com") {
            true => LengthField::MaxCompletionTokens,
            false => LengthField::MaxTokens,
        };
        let shape = RequestShape { model: &self.settings.model, stream, length, temperature: self.settings.temperature };
        let mut call = authorize(&self.settings, self.client.post(endpoint(&self.settings, "chat/completions")))
            .header(ACCEPT, if stream { "text/event-stream" } else { "application/json" })
            .json(&encode_request(request, &shape));
        if let Some(key) = &request.idempotency_key {
            call = call.header("idempotency-key", key);
        }
        let idle = self.settings.connect_timeout + self.settings.idle_timeout;
        let response = match tokio::time::timeout(idle, call.send()).await {
            Err(_) => return Err(self.faults().silent("did not begin to answer", idle)),
            Ok(Err(error)) => return Err(self.faults().transport(error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = start_of(response, self.settings.idle_timeout).await;
        Err(self.faults().status(status, &headers, &body))
    }

    async fn read_whole(&self, response: Response) -> Result<ModelReply, ProviderError> {
        let body = whole(response, self.settings.idle_timeout, self.settings.answer_bytes).await;
        let body = body.map_err(|error| self.body_fault(error))?;
        if is_page(&body) {
            return Err(self.faults().page(&body));
        }
        decode_reply(&body).map_err(|error| self.faults().decode(error, Progress::Nothing))
    }

    async fn read_stream(&self, response: Response, deltas: &DeltaSink) -> Result<ModelReply, ProviderError> {
        let held = Arc::new(AtomicUsize::new(0));
        let chunks = Chunks::new(response, self.settings.idle_timeout, self.settings.event_bytes, Arc::clone(&held));
        // Some servers leave out the blank line after the last event; what was whole shall count.
        let chunks = chunks.chain(futures::stream::once(std::future::ready(Ok(Bytes::from_static(b"\n\n")))));
        let mut events = SseByteStream::new(chunks);
        let mut decoder = StreamDecoder::default();
        let mut total = 0usize;
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| self.event_fault(error))?;
            total += held.swap(0, Ordering::Relaxed);
            if total > self.settings.answer_bytes {
                return Err(self.body_fault(BodyError::TooLarge(self.settings.answer_bytes)));
            }
            let Some(data) = event.data.filter(|data| !data.is_empty()) else { continue };
            if data.trim() == "[DONE]" {
                // Reading to the end, which is here, lets the connection be used again.
                tokio::spawn(tokio::time::timeout(Duration::from_secs(1), events.for_each(|_| std::future::ready(()))));
                return decoder.finish().map_err(|error| self.faults().decode(error, Progress::Began));
            }
            let progress = if decoder.began() { Progress::Began } else { Progress::Nothing };
            for delta in decoder.push(data.as_bytes()).map_err(|error| self.faults().decode(error, progress))? {
                // Nobody looks any more: the reply is still wanted.
                drop(deltas.send(delta).await);
            }
        }
        Err(ProviderError::Uncertain(self.faults().cut("the stream ended without its terminal event")))
    }

    fn event_fault(&self, error: sse_stream::Error) -> ProviderError {
        match error {
            sse_stream::Error::Body(cause) => match cause.downcast::<BodyError>() {
                Ok(error) => self.body_fault(*error),
                Err(cause) => ProviderError::Uncertain(self.faults().cut(&cause.to_string())),
            },
            other => ProviderError::Uncertain(self.faults().cut(&other.to_string())),
        }
    }

    fn body_fault(&self, error: BodyError) -> ProviderError {
        match error {
            BodyError::Idle(limit) => self.faults().silent("sent nothing more", limit),
            BodyError::Cut(error) => ProviderError::Uncertain(self.faults().cut(&error.without_url().to_string())),
            BodyError::TooLarge(_) => ProviderError::Uncertain(self.faults().cut(&format!("its answer is {error}"))),
        }
    }

    /// Fills in what the provider left out, and the price.
    fn complete(&self, request: &ModelRequest, mut reply: ModelReply) -> ModelReply {
        let model = request.model.as_deref().unwrap_or(&self.settings.model);
        if reply.model.is_empty() {
            reply.model = model.to_owned();
        }
        if reply.usage.estimated {
            reply.usage.input_tokens = request_tokens(request);
            reply.usage.output_tokens = reply.blocks.iter().map(block_tokens).sum();
        }
        if let Some(price) = self.price(Some(model)) {
            reply.usage.cost = cost(&reply.usage, price);
        }
        reply
    }

    /// One call within its whole time. The last outcome is remembered as the provider's health.
    async fn call(&self, request: &ModelRequest, deltas: Option<&DeltaSink>) -> Result<ModelReply, ProviderError> {
        let limit = self.settings.call_timeout;
        let began = Instant::now();
        let work = async {
            let response = self.ask(request, deltas.is_some()).await?;
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
            if kind.starts_with("text/html") {
                return Err(self.faults().page(&start_of(response, self.settings.idle_timeout).await));
            }
            match deltas.filter(|_| !kind.starts_with("application/json")) {
                Some(deltas) => self.read_stream(response, deltas).await,
                // Asked to stream or not, this server answers in one piece.
                None => self.read_whole(response).await,
            }
        };
        let result = match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map(|reply| self.complete(request, reply)),
            Err(_) => Err(self.faults().silent("did not finish its answer", limit)),
        };
        self.remember(result.as_ref().err(), began.elapsed());
        result
    }

    fn remember(&self, error: Option<&ProviderError>, took: Duration) {
        let (availability, message) = match error {
            None => (Availability::Available, String::new()),
            // The request's fault, not the provider's.
            Some(ProviderError::Final(failure)) if failure.code == Code::ContextOverflow => {
                (Availability::Available, String::new())
            }
            Some(error) => (Availability::Degraded, error.failure().message.clone()),
        };
        let latency_ms = u64::try_from(took.as_millis()).ok();
        *self.health.write() = ProviderHealth { availability, latency_ms, message };
    }

    async fn list(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        if self.lacks_key() {
            return Err(self.faults().no_key());
        }
        let call = authorize(&self.settings, self.client.get(endpoint(&self.settings, "models")));
        let response = call.send().await.map_err(|error| self.faults().transport(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let body = start_of(response, self.settings.idle_timeout).await;
            return Err(self.faults().status(status, &headers, &body));
        }
        let body = whole(response, self.settings.idle_timeout, self.settings.answer_bytes).await;
        let body = body.map_err(|error| self.body_fault(error))?;
        let listing: serde_json::Value = serde_json::from_slice(&body).map_err(|_| self.faults().page(&body))?;
        let entries = listing.get("data").and_then(serde_json::Value::as_array).ok_or_else(|| self.faults().page(&body))?;
        let names = entries.iter().filter_map(|entry| entry.get("id").and_then(serde_json::Value::as_str));
        Ok(names.map(|name| self.info(name)).collect())
    }

    fn info(&self, name: &str) -> ModelInfo {
        ModelInfo { name: name.to_owned(), capabilities: self.capabilities(Some(name)), price: self.price(Some(name)) }
    }
}

#[async_trait]
impl Provider for OpenAiCompatible {
    fn name(&self) -> &str {
        &self.settings.name
    }

    async fn generate(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        self.call(request, None).await
    }

    async fn generate_stream(&self, request: &ModelRequest, deltas: DeltaSink) -> Result<ModelReply, ProviderError> {
        self.call(request, Some(&deltas)).await
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        let limit = HEALTH.min(self.settings.idle_timeout);
        match tokio::time::timeout(limit, self.list()).await {
            Ok(result) => result,
            Err(_) => Err(self.faults().silent("did not list its models", limit)),
        }
    }

    fn capabilities(&self, _model: Option<&str>) -> ModelCapabilities {
        ModelCapabilities {
            context_tokens: self.settings.context_tokens,
            output_tokens: u64::from(self.settings.max_tokens),
            ..ModelCapabilities::default()
        }
    }

    fn price(&self, model: Option<&str>) -> Option<TokenPrice> {
        self.settings.prices.get(model.unwrap_or(&self.settings.model)).copied()
    }

    async fn health(&self) -> ProviderHealth {
        let began = Instant::now();
        let health = match self.models().await {
            Ok(_) => ProviderHealth {
                availability: Availability::Available,
                latency_ms: u64::try_from(began.elapsed().as_millis()).ok(),
                message: String::new(),
            },
            Err(error) => ProviderHealth {
                availability: Availability::Unavailable,
                latency_ms: None,
                message: error.failure().message.clone(),
            },
        };
        *self.health.write() = health.clone();
        health
    }

    async fn is_available(&self) -> bool {
        !self.lacks_key() && self.health.read().availability != Availability::Unavailable
    }

    fn count_tokens(&self, request: &ModelRequest) -> u64 {
        request_tokens(request)
    }

    /// Calls end with their futures, and idle connections with the client, so there is nothing to wait for.
    async fn close(&self) {}
}
