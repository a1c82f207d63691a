//! A provider that answers by what the last prompt says, and a gateway over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::ready;
use futures::{FutureExt, StreamExt, stream};
use helix_actor_models::{Limits, ModelsArgs, ProviderArgs};
use helix_adapter_http::{GatewayArgs, serve_gateway};
use helix_config::{DeploymentConfig, GroupConfig};
use helix_database::{MemoryStore, RecordStore, Write};
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, ChildSpec, Clock, Shutdown, Strategy, SupervisorHandle, SupervisorSpec};
use helix_messages::{DailyLimits, Models, Records, RecordsMsg, Spending};
use helix_ports::{
    Availability, DeltaSink, FaultScope, ModelCapabilities, ModelInfo, Provider, ProviderError, ProviderHealth, RateLimits,
    RateWindow, RawAnswer, RawCall, RawOperation, TokenPrice,
};
use helix_protocol::{
    Block, Code, Failure, GatewayKey, ModelDelta, ModelReply, ModelRequest, Money, Role, StopReason, Usage, WireFormat,
};
use serde_json::json;

/// What clients are told at the end of a plain answer.
pub const GREETING: &str = "hello from the model";

/// Answers by the last text of the conversation.
pub struct Scripted {
    name: &'static str,
    format: WireFormat,
    /// Turns under way.
    pub running: Arc<AtomicUsize>,
    /// Pieces of a flood that were taken from the provider.
    pub flooded: Arc<AtomicUsize>,
}

/// How long it thinks unseen where the prompt says `ponder`.
pub const PONDERING: Duration = Duration::from_millis(2_500);

/// The size of a piece of a flood.
pub const PIECE: usize = 16 * 1024;

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    pub fn new(name: &'static str, format: WireFormat) -> Self {
        Self { name, format, running: Arc::default(), flooded: Arc::default() }
    }

    fn answer(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        let last = request.messages.last().filter(|message| message.role == Role::User);
        let prompt = last.map(helix_protocol::Message::as_text).unwrap_or_default();
        let images = last.map_or(0, |last| last.blocks.iter().filter(|block| matches!(block, Block::Image { .. })).count());
        let result = last.and_then(|last| {
            last.blocks.iter().find_map(|block| match block {
                Block::ToolResult { content, .. } => Some(content.clone()),
                _ => None,
            })
        });
        let failure = |code| Failure::new(code, "the script says so");
        let text = |text: String| (vec![Block::text(text)], StopReason::EndTurn);
        let (blocks, stop) = match prompt.as_str() {
            _ if result.is_some() => text(format!("the tool said {}", result.unwrap_or_default())),
            _ if images > 0 => text(format!("{images} picture")),
            "refuse" => return Err(ProviderError::Final(failure(Code::ModelRefused))),
            "overflow" => return Err(ProviderError::Final(failure(Code::ContextOverflow))),
            "busy" | "later" => {
                // Whoever says when to come back is not asked before, by nobody.
                let retry_after = (prompt == "later").then_some(Duration::from_secs(600));
                let scope = FaultScope::Provider;
                return Err(ProviderError::Retryable { failure: failure(Code::ModelFailed), retry_after, scope });
            }
            "cut" => return Err(ProviderError::Uncertain(failure(Code::ModelFailed))),
            "weather" => {
                let call = |id: &str, city: &str| Block::ToolUse {
                    id: id.to_owned(),
                    name: request.tools.first().map_or("none", |tool| &tool.name).to_owned(),
                    input: json!({"city": city}),
                    extra: None,
                };
                (vec![Block::text("let me look"), call("call_1", "Oslo"), call("call_2", "Rome")], StopReason::ToolUse)
            }
            _ => text(GREETING.to_owned()),
        };
        let usage = Usage { input_tokens: 11, cached_tokens: 4, output_tokens: 7, cost: Money(25), ..Usage::default() };
        Ok(ModelReply { model: request.model.clone().unwrap_or_default(), blocks, stop, usage })
    }
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &str {
        self.name
    }
    fn format(&self) -> WireFormat {
        self.format
    }
    async fn generate(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        self.answer(request)
    }
    async fn generate_stream(&self, request: &ModelRequest, deltas: DeltaSink) -> Result<ModelReply, ProviderError> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.running));
        let prompt = request.messages.last().map(helix_protocol::Message::as_text).unwrap_or_default();
        if prompt.starts_with("ponder") {
            tokio::time::sleep(PONDERING).await;
        }
        if prompt == "ponder in vain" {
            return Err(ProviderError::Final(Failure::new(Code::ModelRefused, "the script says so")));
        }
        let reply = self.answer(request)?;
        let mut calls = 0;
        for block in &reply.blocks {
            match block {
                Block::Text { text, .. } => {
                    for piece in text.split_inclusive(' ') {
                        drop(deltas.send(ModelDelta::Text { text: piece.to_owned() }).await);
                    }
                }
                Block::ToolUse { id, name, input, .. } => {
                    let (id, name) = (id.clone(), name.clone());
                    drop(deltas.send(ModelDelta::ToolUse { index: calls, id, name, extra: None }).await);
                    let arguments = input.to_string();
                    let (one, other) = arguments.split_at(4);
                    for text in [one, other] {
                        drop(deltas.send(ModelDelta::ToolInput { index: calls, text: text.to_owned() }).await);
                    }
                    calls += 1;
                }
                _ => {}
            }
        }
        if request.messages.last().is_some_and(|last| last.as_text() == "flood") {
            let text = "x".repeat(PIECE);
            // As fast as it is taken, and not a piece faster.
            while deltas.send(ModelDelta::Text { text: text.clone() }).await.is_ok() {
                self.flooded.fetch_add(1, Ordering::SeqCst);
            }
            std::future::pending::<()>().await;
        }
        if request.messages.last().is_some_and(|last| last.as_text() == "break") {
            return Err(ProviderError::Uncertain(Failure::new(Code::ModelFailed, "the script breaks off")));
        }
        let endless = request.messages.last().is_some_and(|last| last.as_text() == "endless");
        if !endless {
            return Ok(reply);
        }
        loop {
            drop(deltas.send(ModelDelta::Text { text: "more ".to_owned() }).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        Ok(Vec::new())
    }
    fn capabilities(&self, _model: Option<&str>) -> ModelCapabilities {
        ModelCapabilities { images: true, ..ModelCapabilities::default() }
    }
    /// Nobody knows what `another` costs, and `free` costs nothing.
    fn price(&self, _model: Option<&str>) -> Option<TokenPrice> {
        let one = Money(if self.name == "free" { 0 } else { 1_000_000 });
        (self.name != "another").then_some(TokenPrice {
            input: one,
            cached: one,
            cache_write: one,
            cache_write_1h: one,
            output: Money(2 * one.0),
        })
    }
    async fn health(&self) -> ProviderHealth {
        ProviderHealth { availability: Availability::Available, latency_ms: None, message: String::new() }
    }
    fn estimate_tokens(&self, _model: Option<&str>, _request: &ModelRequest) -> u64 {
        42
    }
    /// Answers with the very bytes it was sent, so that a test can see whether they changed.
    async fn forward(&self, call: RawCall) -> Result<RawAnswer, ProviderError> {
        let used = Usage { input_tokens: 5, output_tokens: 3, ..Usage::default() };
        if self.name == "events" && call.operation == RawOperation::Stream {
            let pieces = GREETING.split_inclusive(' ').map(|text| {
                let answer = json!({"candidates": [{"content": {"parts": [{"text": text}]}}]});
                Ok(bytes::Bytes::from(format!("data: {answer}\r\n\r\n")))
            });
            let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
            let body = stream::iter(pieces.collect::<Vec<_>>()).boxed();
            return Ok(RawAnswer { status: 200, fault: None, headers, body, ended: ready(Some(Ok(used))).boxed() });
        }
        let echoed =
            json!({"model": call.model, "operation": format!("{:?}", call.operation), "sent": String::from_utf8_lossy(&call.body)});
        let body = bytes::Bytes::from(echoed.to_string());
        let ended = ready((call.operation != RawOperation::CountTokens).then_some(Ok(used))).boxed();
        let headers =
            vec![("content-type".to_owned(), "application/json".to_owned()), ("x-request-id".to_owned(), "r1".to_owned())];
        Ok(RawAnswer { status: 200, fault: None, headers, body: stream::iter([Ok(body)]).boxed(), ended })
    }
    /// An `exhausted` one has used its limits up.
    fn rate_limits(&self, _model: Option<&str>) -> RateLimits {
        let nothing = RateWindow { limit: 1, remaining: 0, reset_ms: 60_000 };
        RateLimits { requests: (self.name == "exhausted").then_some(nothing), tokens: None }
    }
    async fn close(&self) {}
}

/// Applies writes as the writer does.
struct Writer;

impl Actor for Writer {
    type Msg = Admitted<RecordsMsg>;
    type State = Arc<MemoryStore>;
    type Arguments = Arc<MemoryStore>;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, store: Arc<MemoryStore>) -> Result<Arc<MemoryStore>, ActorProcessingErr> {
        Ok(store)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        store: &mut Arc<MemoryStore>,
    ) -> Result<(), ActorProcessingErr> {
        if let RecordsMsg::Write { write, reply } = message.take() {
            let answer = store.apply(vec![*write]).await.expect("memory answers").remove(0);
            let _ = reply.send(answer.map_err(Failure::from));
        }
        Ok(())
    }
}

/// A gateway over the branch of models over scripted providers.
pub struct Served {
    pub address: SocketAddr,
    pub store: Arc<MemoryStore>,
    pub running: Arc<AtomicUsize>,
    pub flooded: Arc<AtomicUsize>,
    pub records: Records,
    pub spending: Spending,
    shutdown: Shutdown,
    _tree: SupervisorHandle,
}

impl Served {
    pub async fn start() -> Self {
        Self::limited(DailyLimits::default()).await
    }

    /// With limits for a day.
    pub async fn limited(limits: DailyLimits) -> Self {
        Self::over(limits, Vec::new()).await
    }

    /// With these providers beside the scripted ones.
    pub async fn over(limits: DailyLimits, others: Vec<Arc<dyn Provider>>) -> Self {
        Self::grouping(limits, others, Vec::new()).await
    }

    /// And with these groups.
    pub async fn grouping(limits: DailyLimits, others: Vec<Arc<dyn Provider>>, groups: Vec<(String, GroupConfig)>) -> Self {
        let store = Arc::new(MemoryStore::new());
        let (writer, router) = (Address::unbound("records", 64), Address::unbound("router", 64));
        let records = Records::new(writer.clone(), store.clone(), Duration::from_secs(5));
        let translated = Scripted::new("translated", WireFormat::Ollama);
        let (running, flooded) = (Arc::clone(&translated.running), Arc::clone(&translated.flooded));
        let args = |provider: Arc<dyn Provider>, model: &str| ProviderArgs {
            provider,
            base_url: "http://test".to_owned(),
            model: model.to_owned(),
            limits: Limits { retries: 0, ..Limits::default() },
        };
        let deployed = |provider: &str| DeploymentConfig { provider: provider.to_owned(), ..DeploymentConfig::default() };
        let coder = GroupConfig { deployments: vec![deployed("translated")], ..GroupConfig::default() };
        let mut providers = vec![
            args(Arc::new(translated), "scripted-1"),
            args(Arc::new(Scripted::new("same", WireFormat::OpenaiChat)), "passed-1"),
            // For clients who speak as the first does.
            args(Arc::new(Scripted::new("another", WireFormat::Gemini)), "scripted-2"),
        ];
        providers.extend(others.into_iter().map(|provider| args(provider, "")));
        let models = ModelsArgs {
            providers,
            groups: [vec![("coder".to_owned(), coder)], groups].concat(),
            default: "translated".to_owned(),
            records: Some(records.clone()),
            address: router.clone(),
        };
        let kept = Arc::clone(&store);
        let spec = SupervisorSpec::new("helix", Strategy::OneForOne)
            .child(ChildSpec::actor("records", &writer, move || (Writer, Arc::clone(&kept))))
            .child(ChildSpec::supervisor(helix_actor_models::branch(models)));
        let tree = helix_kernel::start(spec).await.expect("the tree starts");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let spending = Spending::new(records.clone(), limits, Clock::system());
        let args = GatewayArgs {
            models: Models::new(router, Duration::from_secs(60)),
            records: records.clone(),
            spending: spending.clone(),
            formats: helix_adapter_models::client_formats(),
            body_bytes: 1 << 20,
        };
        let shutdown = Shutdown::new();
        tokio::spawn(serve_gateway(listener, args, shutdown.clone()));
        Self { address, store, running, flooded, records, spending, shutdown, _tree: tree }
    }

    /// Records a key and answers what it is.
    pub async fn key(&self, change: impl FnOnce(&mut GatewayKey)) -> String {
        let secret = format!("helix-{}", helix_protocol::KeyId::new());
        let mut key = GatewayKey {
            id: helix_protocol::KeyId::new(),
            name: "test".to_owned(),
            hash: blake3::hash(secret.as_bytes()).to_hex().to_string(),
            owner: helix_protocol::OwnerId::LOCAL,
            project: helix_protocol::ProjectId::DEFAULT,
            task: None,
            step: None,
            models: Vec::new(),
            budget: Default::default(),
            daily: Default::default(),
            requests_per_minute: None,
            created_at: helix_protocol::Timestamp::now(),
            expires_at: None,
            revoked_at: None,
        };
        change(&mut key);
        self.records.write(Write::CreateKey(Box::new(key))).await.expect("the key is taken");
        secret
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}
