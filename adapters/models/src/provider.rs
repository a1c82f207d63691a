//! A provider over HTTP: one format, one base URL, one key.

mod by_model;
mod fitting;
mod probing;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use helix_ports::{
    Availability, DeltaSink, ModelCapabilities, ModelInfo, Provider, ProviderError, ProviderHealth, RateLimits, RateWindow,
    RawAnswer, RawCall, TokenPrice,
};
use helix_protocol::{Code, Failure, ModelReply, ModelRequest, Money, ToolChoice, WireFormat};
use parking_lot::{Mutex, RwLock};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::carrying::lost;
use crate::connection::{BodyError, Chunks, authorize, client, endpoint, start_of, whole};
use crate::credentials::StaticKey;
use crate::estimate::block_tokens;
use crate::events::{EventError, events};
use crate::fault::{Faults, Progress, is_page, retry_after, without_key};
use crate::format::{Encoded, Format, Turn};
use crate::{Access, Credentials, ModelFacts, Settings, cost, other_models, request_tokens};
use by_model::ByModel;
use probing::Asked;

/// How long a health check may take: less than its provider's actor waits for it.
const HEALTH: Duration = Duration::from_secs(5);
/// How long nobody is expected where a check found nobody; an answer ends it sooner, whatever it says.
const GONE: Duration = Duration::from_secs(60);
/// No limit is believed for longer: services say when everything is back, and the first of it is back before.
const LONGEST_RESET: Duration = Duration::from_secs(3_600);

/// One base URL with one key. Cheap to share; every call opens or reuses a connection of its own.
pub struct HttpProvider {
    pub(crate) settings: Arc<Settings>,
    pub(crate) format: Arc<dyn Format>,
    credentials: Arc<dyn Credentials>,
    client: RwLock<Client>,
    /// Sizes of models, as far as the server said them.
    measured: ByModel<Asked>,
    health: RwLock<ProviderHealth>,
    /// When the last check found nobody, if it found nobody.
    gone: Mutex<Option<Instant>>,
    /// When anybody answered anything last.
    heard: Mutex<Option<Instant>>,
    /// What the last answer for each model said of its limits, and when. Only of models that answer with limits.
    rate_limits: ByModel<(Instant, RateLimits)>,
}

impl HttpProvider {
    /// A provider over `settings`. Nothing is sent before the first call. Refused with `invalid_config` where the system's
    /// certificates cannot be read or the base URL is not one.
    pub fn new(settings: Settings, format: impl Format) -> Result<Self, Failure> {
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
        let credentials = Arc::new(StaticKey(settings.key.clone()));
        Ok(Self {
            settings: Arc::new(settings),
            format: Arc::new(format),
            credentials,
            client: RwLock::new(client),
            measured: ByModel::default(),
            health,
            gone: Mutex::new(None),
            heard: Mutex::new(None),
            rate_limits: ByModel::default(),
        })
    }

    /// The same provider with keys from elsewhere than the settings.
    pub fn with_credentials(self, credentials: impl Credentials) -> Self {
        Self { credentials: Arc::new(credentials), ..self }
    }

    pub(crate) fn faults(&self) -> Faults<'_> {
        Faults { settings: &self.settings }
    }

    /// What to call with. An error where a key is wanted and there is none.
    async fn access(&self) -> Result<Access, ProviderError> {
        let access = self.credentials.access().await?;
        let lacks_key = access.key.is_none() && !self.settings.key_env.is_empty();
        if lacks_key { Err(self.faults().no_key()) } else { Ok(access) }
    }

    /// A request to `path` with the key and the format's headers.
    fn request(&self, method: Method, access: &Access, path: &str) -> RequestBuilder {
        let base_url = access.base_url.as_deref().unwrap_or(&self.settings.base_url);
        let call = self.client.read().request(method, endpoint(base_url, path));
        let call = authorize(access.key.as_ref(), self.format.key_header(), call);
        self.format.headers().into_iter().fold(call, |call, (name, value)| call.header(name, value))
    }

    /// The same, to be posted.
    pub(crate) fn post(&self, access: &Access, path: &str) -> RequestBuilder {
        self.request(Method::POST, access, path)
    }

    /// Sends what `call` makes of the key, and once more with another key where the first was refused and there is one.
    pub(crate) async fn send_renewing(
        &self,
        call: impl Fn(&Access) -> RequestBuilder,
    ) -> Result<(Response, Access), ProviderError> {
        let access = self.access().await?;
        let response = self.send(call(&access)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok((response, access));
        }
        match self.credentials.renew(&access).await? {
            Some(access) => Ok((self.send(call(&access)).await?, access)),
            None => Ok((response, access)),
        }
    }

    /// Sends a request and waits for its status, whatever it is.
    pub(crate) async fn send(&self, call: RequestBuilder) -> Result<Response, ProviderError> {
        let idle = self.settings.connect_timeout + self.settings.idle_timeout;
        match tokio::time::timeout(idle, call.send()).await {
            Err(_) => Err(self.faults().silent("did not begin to answer", idle)),
            Ok(Err(error)) => Err(self.faults().transport(error)),
            Ok(Ok(response)) => {
                *self.heard.lock() = Some(Instant::now());
                Ok(response)
            }
        }
    }

    fn was_heard_since(&self, instant: Instant) -> bool {
        self.heard.lock().is_some_and(|heard| heard >= instant)
    }

    /// Keeps what an answer for `model` says of its limits. Other refusals than of too many requests say nothing of them.
    pub(crate) fn note_limits(&self, model: &str, response: &Response) {
        if !response.status().is_success() && response.status() != StatusCode::TOO_MANY_REQUESTS {
            return;
        }
        let limits = self.format.rate_limits(response.headers());
        // Who says when to come back may have something left by then, and everything later.
        let longest = retry_after(response.headers()).map_or(LONGEST_RESET, |after| after.min(LONGEST_RESET));
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let believed = |window: RateWindow| RateWindow { reset_ms: window.reset_ms.min(longest), ..window };
        let limits = RateLimits { requests: limits.requests.map(believed), tokens: limits.tokens.map(believed) };
        if limits == RateLimits::default() {
            self.rate_limits.remove(model);
        } else {
            self.rate_limits.put(model, (Instant::now(), limits));
        }
    }

    /// Sends a request and waits for its status, whatever it is.
    async fn ask(&self, encoded: Encoded, request: &ModelRequest, accept: &str) -> Result<(Response, Access), ProviderError> {
        let body = Bytes::from(serde_json::to_vec(&encoded.body).expect("a JSON value can be written"));
        let named = replacing(encoded.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let call = |access: &Access| {
            let call = self.post(access, &encoded.path).header(ACCEPT, accept).header(CONTENT_TYPE, "application/json");
            let call = call.body(body.clone());
            let call = call.headers(named.clone());
            match &request.idempotency_key {
                Some(key) => call.header("idempotency-key", key),
                None => call,
            }
        };
        self.send_renewing(call).await
    }

    /// A refusal as an error.
    async fn success(&self, response: Response, access: &Access) -> Result<Response, ProviderError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = start_of(response, self.settings.idle_timeout).await;
        Err(self.refusal(status, &headers, &body, access))
    }

    /// What a refusal means. `body` may be cut.
    pub(crate) fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], access: &Access) -> ProviderError {
        // The settings' own key is masked where faults are judged; a token is not among the settings.
        match &access.key {
            Some(key) => self.faults().status(status, headers, key.mask(&String::from_utf8_lossy(body)).as_bytes()),
            None => self.faults().status(status, headers, body),
        }
    }

    fn facts(&self, model: Option<&str>) -> ModelFacts {
        self.settings.models.of(model.unwrap_or(&self.settings.model))
    }

    async fn ask_turn(&self, request: &ModelRequest, stream: bool) -> Result<(Response, Access), ProviderError> {
        let model = request.model.as_deref().unwrap_or(&self.settings.model);
        self.measure(model).await;
        let capabilities = self.capabilities(Some(model));
        let turn = self.turn(request, model, &capabilities, stream);
        if !self.keeps_output(Some(model), request) {
            return Err(self.faults().no_such_output(model, &request.output));
        }
        if let Some(lost) = lost(request, self.format.wire()).filter(|lost| lost.needed) {
            return Err(self.faults().not_carried(&lost.what));
        }
        if let Some(field) = other_models::of_request(request, self.format.wire()) {
            return Err(self.faults().other_models(&field));
        }
        self.fits(&turn).await?;
        let accept = if stream { "text/event-stream" } else { "application/json" };
        let (response, access) = self.ask(self.format.encode(&turn), request, accept).await?;
        self.note_limits(model, &response);
        Ok((self.success(response, &access).await?, access))
    }

    fn turn<'a>(
        &'a self,
        request: &'a ModelRequest,
        model: &'a str,
        capabilities: &'a ModelCapabilities,
        stream: bool,
    ) -> Turn<'a> {
        let max_tokens = match request.max_tokens {
            0 => u32::try_from(capabilities.output_tokens).unwrap_or(u32::MAX),
            asked => asked,
        };
        Turn { request, model, capabilities, max_tokens, temperature: self.settings.temperature, stream }
    }

    async fn read_whole(&self, response: Response) -> Result<ModelReply, ProviderError> {
        let body = whole(response, self.settings.idle_timeout, self.settings.answer_bytes).await;
        let body = body.map_err(|error| self.body_fault(error))?;
        if is_page(&body) {
            return Err(self.faults().page(&body));
        }
        self.format.decode(&body).map_err(|error| self.faults().decode(error, Progress::Nothing))
    }

    async fn read_stream(&self, response: Response, deltas: &DeltaSink) -> Result<ModelReply, ProviderError> {
        let held = Arc::new(AtomicUsize::new(0));
        let chunks = Chunks::new(response, self.settings.idle_timeout, self.settings.event_bytes, Arc::clone(&held));
        let (chunks, start) = remembering_the_start(chunks);
        let mut events = events(chunks, self.format.framing(), held);
        let mut decoder = self.format.decoder();
        let mut total = 0usize;
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| self.event_fault(error))?;
            total += event.bytes;
            if total > self.settings.answer_bytes {
                return Err(self.body_fault(BodyError::TooLarge(self.settings.answer_bytes)));
            }
            let progress = if decoder.began() { Progress::Began } else { Progress::Nothing };
            let shown = decoder.push(event.name.as_deref(), &event.data);
            for delta in shown.map_err(|error| self.faults().decode(error, progress))? {
                // Nobody looks any more: the reply is still wanted.
                drop(deltas.send(delta).await);
            }
            if decoder.is_complete() {
                // Reading to the end, which is here, lets the connection be used again.
                tokio::spawn(tokio::time::timeout(Duration::from_secs(1), events.for_each(|_| std::future::ready(()))));
                return decoder.finish().map_err(|error| self.faults().decode(error, Progress::Began));
            }
        }
        // A page without a type is a page all the same, and nobody charges for one.
        if total == 0 && is_page(&start.lock()) {
            return Err(self.faults().page(&start.lock()));
        }
        if decoder.ends_with_stream() {
            return decoder.finish().map_err(|error| self.faults().decode(error, Progress::Began));
        }
        Err(self.faults().unended())
    }

    fn event_fault(&self, error: EventError) -> ProviderError {
        match error {
            EventError::Body(error) => self.body_fault(error),
            EventError::Framing(reason) => ProviderError::Uncertain(self.faults().cut(&reason)),
        }
    }

    fn body_fault(&self, error: BodyError) -> ProviderError {
        self.faults().body(error)
    }

    /// The judgement of a body that somebody else reads.
    pub(crate) fn judge(&self) -> impl Fn(BodyError) -> ProviderError + Send + 'static {
        let settings = Arc::clone(&self.settings);
        move |error| Faults { settings: &settings }.body(error)
    }

    /// Fills in what the provider left out, and the price.
    fn complete(&self, request: &ModelRequest, mut reply: ModelReply) -> ModelReply {
        let model = request.model.as_deref().unwrap_or(&self.settings.model);
        if reply.model.is_empty() {
            reply.model = model.to_owned();
        }
        if reply.usage.estimated {
            reply.usage.input_tokens = self.estimate_tokens(Some(model), request);
            reply.usage.output_tokens = reply.blocks.iter().map(block_tokens).sum();
        }
        let price = self.price_at(Some(model), reply.usage.input_tokens);
        // Some providers say themselves what a call cost, and they know better.
        if let Some(price) = price.filter(|_| reply.usage.cost == Money::ZERO) {
            reply.usage.cost = cost(&reply.usage, price);
        }
        reply
    }

    /// One call within its whole time. The last outcome is remembered as the provider's health.
    async fn call(&self, request: &ModelRequest, deltas: Option<&DeltaSink>) -> Result<ModelReply, ProviderError> {
        let limit = self.settings.call_timeout;
        let began = Instant::now();
        let work = async {
            let (response, access) = self.ask_turn(request, deltas.is_some()).await?;
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
            let answer = match deltas.filter(|_| !kind.starts_with("application/json")) {
                _ if kind.starts_with("text/html") => {
                    Err(self.faults().page(&start_of(response, self.settings.idle_timeout).await))
                }
                Some(deltas) => self.read_stream(response, deltas).await,
                // Asked to stream or not, this server answers in one piece.
                None => self.read_whole(response).await,
            };
            answer.map_err(|error| without_key(access.key.as_ref(), error))
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
            // The request's fault, which says nothing of the provider; what is not sent because of its address is the provider's.
            Some(ProviderError::Final(failure)) if failure.code != Code::InvalidConfig => return,
            Some(error) => (Availability::Degraded, error.failure().message.clone()),
        };
        let latency_ms = u64::try_from(took.as_millis()).ok();
        *self.health.write() = ProviderHealth { availability, latency_ms, message };
    }

    async fn list(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        let call = |access: &Access| self.request(Method::GET, access, self.format.models_path());
        let (response, access) = self.send_renewing(call).await?;
        let response = self.success(response, &access).await?;
        let listing = self.json(response, &access).await?;
        let names = self.format.decode_models(&listing).ok_or_else(|| self.page(listing.to_string().as_bytes(), &access))?;
        Ok(names.iter().map(|name| self.info(name)).collect())
    }

    /// The provider's own count of a prompt.
    async fn count(&self, encoded: Encoded, request: &ModelRequest) -> Result<u64, ProviderError> {
        let (response, access) = self.ask(encoded, request, "application/json").await?;
        let answer = self.json(self.success(response, &access).await?, &access).await?;
        self.format.decode_count(&answer).ok_or_else(|| self.page(answer.to_string().as_bytes(), &access))
    }

    async fn json(&self, response: Response, access: &Access) -> Result<Value, ProviderError> {
        let body = whole(response, self.settings.idle_timeout, self.settings.answer_bytes).await;
        let body = body.map_err(|error| self.body_fault(error))?;
        serde_json::from_slice(&body).map_err(|_| self.page(&body, access))
    }

    /// Something else where an answer should be.
    fn page(&self, start: &[u8], access: &Access) -> ProviderError {
        without_key(access.key.as_ref(), self.faults().page(start))
    }

    fn info(&self, name: &str) -> ModelInfo {
        ModelInfo { name: name.to_owned(), capabilities: self.capabilities(Some(name)), price: self.price(Some(name)) }
    }
}

/// Headers that take the place of the format's own of the same name. What is no header is left out.
pub(crate) fn replacing<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    headers.filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))).collect()
}

#[async_trait]
impl Provider for HttpProvider {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn format(&self) -> WireFormat {
        self.format.wire()
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

    fn capabilities(&self, model: Option<&str>) -> ModelCapabilities {
        let mut capabilities = self.facts(model).capabilities;
        if self.settings.context_tokens > 0 {
            capabilities.context_tokens = self.settings.context_tokens;
        }
        if self.settings.max_tokens > 0 {
            capabilities.output_tokens = u64::from(self.settings.max_tokens);
        }
        if let Some(size) = self.told_size(model.unwrap_or(&self.settings.model)) {
            capabilities.context_tokens = match self.settings.context_tokens {
                0 => size.usual,
                configured => configured.min(size.most),
            };
        }
        capabilities
    }

    fn keeps_tool_choice(&self, model: Option<&str>, request: &ModelRequest) -> bool {
        let capabilities = self.capabilities(model);
        let turn = self.turn(request, model.unwrap_or(&self.settings.model), &capabilities, false);
        matches!(request.tool_choice, ToolChoice::Auto | ToolChoice::None) || self.format.forces_tools(&turn)
    }

    fn keeps_output(&self, model: Option<&str>, request: &ModelRequest) -> bool {
        self.format.has_output(&request.output) && request.output.needs() <= self.capabilities(model).json_output
    }

    fn carries(&self, request: &ModelRequest) -> bool {
        lost(request, self.format.wire()).is_none()
    }

    fn price(&self, model: Option<&str>) -> Option<TokenPrice> {
        let configured = self.settings.prices.get(model.unwrap_or(&self.settings.model)).copied();
        configured.or_else(|| self.facts(model).price)
    }

    fn price_at(&self, model: Option<&str>, input_tokens: u64) -> Option<TokenPrice> {
        let configured = self.settings.prices.get(model.unwrap_or(&self.settings.model)).copied();
        configured.or_else(|| self.facts(model).price_at(input_tokens))
    }

    async fn health(&self) -> ProviderHealth {
        let began = Instant::now();
        let sign = match self.format.health_probe() {
            Some(probe) => self.probe_health(&probe).await,
            None => self.models().await.map(|_| String::new()).map_err(|error| error.failure().message.clone()),
        };
        let latency_ms = u64::try_from(began.elapsed().as_millis()).ok();
        let health = match sign {
            Ok(message) => ProviderHealth { availability: Availability::Available, latency_ms, message },
            Err(message) => ProviderHealth { availability: Availability::Unavailable, latency_ms: None, message },
        };
        if health.availability == Availability::Available && !self.settings.model.is_empty() {
            self.measure(&self.settings.model).await;
        }
        // A server that refuses its list, or this key, is there; one that says of itself that it cannot be used is not.
        let says_so = self.format.health_probe().is_some() && health.availability == Availability::Unavailable;
        *self.gone.lock() = (says_so || !self.was_heard_since(began)).then(Instant::now);
        *self.health.write() = health.clone();
        health
    }

    fn is_set_up(&self) -> Result<(), Failure> {
        if self.credentials.is_ready(&self.settings.key_env) {
            return Ok(());
        }
        Err(self.faults().no_key().failure().clone())
    }

    fn is_available(&self) -> bool {
        let gone = *self.gone.lock();
        let expected = gone.is_none_or(|since| self.was_heard_since(since) || since.elapsed() >= GONE);
        expected && self.is_set_up().is_ok()
    }

    fn estimate_tokens(&self, model: Option<&str>, request: &ModelRequest) -> u64 {
        request_tokens(request, self.facts(model).capabilities.image_tokens)
    }

    async fn count_tokens(&self, request: &ModelRequest) -> Result<u64, ProviderError> {
        let model = request.model.as_deref().unwrap_or(&self.settings.model);
        let capabilities = self.capabilities(Some(model));
        match self.format.encode_count(&self.turn(request, model, &capabilities, false)) {
            Some(encoded) => self.count(encoded, request).await,
            None => Ok(self.estimate_tokens(Some(model), request)),
        }
    }

    fn passes(&self) -> bool {
        self.format.passes()
    }

    async fn forward(&self, call: RawCall) -> Result<RawAnswer, ProviderError> {
        crate::forward::forward(self, call).await
    }

    fn rate_limits(&self, model: Option<&str>) -> RateLimits {
        let known = self.rate_limits.get(model.unwrap_or(&self.settings.model));
        known.map(|(heard, limits)| limits.after(heard.elapsed())).unwrap_or_default()
    }

    /// Calls end with their futures, and idle connections with the client, so there is nothing to wait for.
    async fn close(&self) {
        // Connections that wait to be used again go with their client.
        if let Ok(fresh) = client(&self.settings) {
            *self.client.write() = fresh;
        }
    }
}

/// The same chunks, and what the first of them hold: a stream without an event is told from a page by it.
fn remembering_the_start(chunks: Chunks) -> (impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin, Arc<Mutex<Vec<u8>>>) {
    const START: usize = 1_024;
    let start = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&start);
    let chunks = chunks.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            let mut kept = kept.lock();
            let room = START.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(&chunk[..room]);
        }
    });
    (chunks, start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ChatCompletions;

    #[test]
    fn nobody_is_expected_for_a_while_where_a_check_found_nobody_or_until_one_answers() {
        let settings = Settings { key_env: String::new(), ..Settings::default() };
        let provider = HttpProvider::new(settings, ChatCompletions::at("")).expect("a provider");
        assert!(provider.is_available());
        let (now, before) = (Instant::now(), Instant::now().checked_sub(GONE).expect("the machine runs for longer"));
        for (gone, is_available) in [(now, false), (before, true)] {
            *provider.gone.lock() = Some(gone);
            assert_eq!(provider.is_available(), is_available);
        }
        (*provider.gone.lock(), *provider.heard.lock()) = (Some(now), Some(before));
        assert!(!provider.is_available(), "an answer of before counts for nothing");
        *provider.heard.lock() = Some(Instant::now());
        assert!(provider.is_available());
    }

    #[test]
    fn what_is_refused_for_its_own_sake_says_nothing_of_a_providers_health() {
        let provider = HttpProvider::new(Settings::default(), ChatCompletions::at("")).expect("a provider");
        let health = || provider.health.read().availability;
        let failure = |code| Failure::new(code, "no");
        let refusals = [Code::ModelRefused, Code::InvalidRequest, Code::ContextOverflow].map(failure).map(ProviderError::Final);
        let fails = [ProviderError::Elsewhere(failure(Code::ModelRefused)), ProviderError::Uncertain(failure(Code::ModelFailed))];
        for before in [None, Some(&fails[0]), Some(&fails[1])] {
            provider.remember(before, Duration::ZERO);
            let known = health();
            assert_eq!(known, if before.is_none() { Availability::Available } else { Availability::Degraded });
            for refusal in &refusals {
                provider.remember(Some(refusal), Duration::ZERO);
                assert_eq!(health(), known, "{refusal:?} after {before:?}");
            }
        }
        provider.remember(None, Duration::ZERO);
        provider.remember(Some(&ProviderError::Final(failure(Code::InvalidConfig))), Duration::ZERO);
        assert_eq!(health(), Availability::Degraded, "its address is its own");
    }
}
