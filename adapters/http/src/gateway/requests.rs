//! One handler for each address: what it asks for, and the way every request takes.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use helix_messages::{Asking, OnBehalf, Payers};
use helix_ports::{AnswerHead, ClientFormat, RawOperation};
use helix_protocol::{Code, Failure, Message, ModelCallId, ModelRequest, Money, Most, Role, Spent, TaskId, Timestamp, WireFormat};
use serde_json::Value;

use super::answer::{refusal, whole};
use super::conversation::session;
use super::document::{Document, invalid};
use super::keys::{Caller, Refusal, Reservation};
use super::{Access, Gateway, array, passing, streaming};

/// How long a day is.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A request that was let in and read.
pub(crate) struct Asked {
    pub format: Arc<dyn ClientFormat>,
    pub operation: RawOperation,
    pub caller: Option<Caller>,
    /// The name that the client gave.
    pub model: String,
    pub headers: Vec<(String, String)>,
    pub bytes: Bytes,
    pub body: Arc<Document>,
    pub session: Option<String>,
    /// The client takes an answer that an equal request had.
    pub reuse: bool,
    pub head: AnswerHead,
    /// What was set aside for it, under its entry in the ledger, and whether somebody is asked.
    pub set_aside: Option<(ModelCallId, Spent, Asking)>,
}

impl Asked {
    /// Gives up what was sent, once it is read.
    pub fn let_go(&mut self) {
        (self.bytes, self.body) = (Bytes::new(), Arc::default());
    }
}

/// By this header, `true`, a client takes kept answers.
const REUSE: &str = "x-helix-reuse";

/// What an address says beside the body.
struct Address {
    wire: WireFormat,
    operation: Option<RawOperation>,
    model: Option<String>,
}

/// POST /v1/chat/completions
pub(crate) async fn chat(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let address = Address { wire: WireFormat::OpenaiChat, operation: None, model: None };
    serve(&gateway, **access, &request, body, address).await
}

/// POST /v1/responses
pub(crate) async fn responses(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let address = Address { wire: WireFormat::OpenaiResponses, operation: None, model: None };
    serve(&gateway, **access, &request, body, address).await
}

/// POST /v1/responses/input_tokens
pub(crate) async fn input_tokens(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let address = Address { wire: WireFormat::OpenaiResponses, operation: Some(RawOperation::CountTokens), model: None };
    serve(&gateway, **access, &request, body, address).await
}

/// POST /v1/messages
pub(crate) async fn messages(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let address = Address { wire: WireFormat::Anthropic, operation: None, model: None };
    serve(&gateway, **access, &request, body, address).await
}

/// POST /v1/messages/count_tokens
pub(crate) async fn count_tokens(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let address = Address { wire: WireFormat::Anthropic, operation: Some(RawOperation::CountTokens), model: None };
    serve(&gateway, **access, &request, body, address).await
}

/// POST /v1/models/MODEL:generateContent and its like.
pub(crate) async fn gemini(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    called: web::Path<String>,
    body: web::Payload,
) -> HttpResponse {
    let called = unescaped(&called);
    let (model, method) = called.rsplit_once(':').unwrap_or((&called, ""));
    let operation = match method {
        "generateContent" => RawOperation::Generate,
        "streamGenerateContent" => RawOperation::Stream,
        "countTokens" => RawOperation::CountTokens,
        other => {
            let failure = Failure::new(Code::NotFound, format!("there is no method {other:?} of models here"))
                .hint("there are generateContent, streamGenerateContent and countTokens");
            return refusal(gateway.format(WireFormat::Gemini).map(|format| &**format), &Refusal::new(404, failure));
        }
    };
    let address = Address { wire: WireFormat::Gemini, operation: Some(operation), model: Some(model.to_owned()) };
    let response = serve(&gateway, **access, &request, body, address).await;
    match operation {
        RawOperation::Stream if !array::asks_for_events(&request) => array::as_array(response),
        _ => response,
    }
}

/// A model's name in an address, of which some clients escape more than they have to.
pub(crate) fn unescaped(called: &str) -> String {
    called.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/")
}

/// POST /api/chat
pub(crate) async fn ollama(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let address = Address { wire: WireFormat::Ollama, operation: None, model: None };
    serve(&gateway, **access, &request, body, address).await
}

/// POST /api/generate: a prompt in place of a conversation.
pub(crate) async fn ollama_prompt(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let Some(format) = gateway.format(WireFormat::Ollama).and_then(|format| format.prompts()) else {
        return unspoken(WireFormat::Ollama);
    };
    let address = Address { wire: WireFormat::Ollama, operation: None, model: None };
    serve_as(&gateway, **access, &request, body, address, format).await
}

/// POST /api/show: what a model can do.
pub(crate) async fn ollama_show(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let Some(format) = gateway.format(WireFormat::Ollama).cloned() else { return unspoken(WireFormat::Ollama) };
    let shown = async {
        let caller = admit(&gateway, **access, &request).await?;
        let bytes = gateway.bodies.read(body).await?;
        let body = document(&gateway, &bytes).await?;
        let named = ["model", "name"].iter().find_map(|field| body.get(*field)?.as_str()).filter(|name| !name.is_empty());
        let model = named.ok_or_else(|| invalid("`model` is missing".to_owned()))?.to_owned();
        if let Some(caller) = &caller {
            caller.may_ask(&model)?;
        }
        let (models, asked) = (gateway.models.clone(), ModelRequest { model: Some(model), ..ModelRequest::default() });
        let quote = gateway.run(async move { models.quote(asked).await }).await;
        let quote = quote.map_err(|failure| super::answer::refused(&helix_ports::ProviderError::Final(failure)))?;
        Ok(format.describe(&quote.capabilities))
    };
    match shown.await {
        Ok(Some(described)) => HttpResponse::Ok().json(described),
        Ok(None) => unspoken(WireFormat::Ollama),
        Err(refused) => refusal(Some(&*format), &refused),
    }
}

/// GET /api/version: by which clients of Ollama know that it is one.
pub(crate) async fn ollama_version() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// The way of every request: let in, read, passed on or translated, and answered.
async fn serve(
    gateway: &web::Data<Gateway>,
    access: Access,
    request: &HttpRequest,
    body: web::Payload,
    address: Address,
) -> HttpResponse {
    let Some(format) = gateway.format(address.wire).cloned() else { return unspoken(address.wire) };
    serve_as(gateway, access, request, body, address, format).await
}

async fn serve_as(
    gateway: &web::Data<Gateway>,
    access: Access,
    request: &HttpRequest,
    body: web::Payload,
    address: Address,
    format: Arc<dyn ClientFormat>,
) -> HttpResponse {
    let answered = async {
        let asked = read(gateway, access, request, body, address, Arc::clone(&format)).await?;
        answer(gateway, asked).await
    };
    answered.await.unwrap_or_else(|refused| refusal(Some(&*format), &refused))
}

pub(crate) fn unspoken(wire: WireFormat) -> HttpResponse {
    let failure = Failure::new(Code::NotFound, format!("this node does not speak the format {wire:?}"));
    refusal(None, &Refusal::new(404, failure))
}

pub(crate) async fn admit(gateway: &Gateway, access: Access, request: &HttpRequest) -> Result<Option<Caller>, Refusal> {
    let secret = secret(request);
    if access == Access::Local && secret.as_ref().is_none_or(|secret| !secret.starts_with("helix-")) {
        // The kernel has said who this is; clients that insist on a key may send anything.
        return Ok(None);
    }
    gateway.keys.caller(secret.as_deref(), Timestamp::now()).await.map(Some)
}

/// The key, wherever the client's format puts it.
fn secret(request: &HttpRequest) -> Option<String> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
    let query = || request.query_string().split('&').find_map(|pair| pair.strip_prefix("key="));
    bearer.or_else(|| header("x-api-key")).or_else(|| header("x-goog-api-key")).or_else(query).map(|key| key.trim().to_owned())
}

async fn read(
    gateway: &Gateway,
    access: Access,
    request: &HttpRequest,
    payload: web::Payload,
    address: Address,
    format: Arc<dyn ClientFormat>,
) -> Result<Asked, Refusal> {
    let caller = admit(gateway, access, request).await?;
    let bytes = gateway.bodies.read(payload).await?;
    let body = Arc::new(document(gateway, &bytes).await?);
    let named = body.get("model").and_then(Value::as_str).map(str::to_owned);
    let model =
        address.model.or(named).filter(|model| !model.is_empty()).ok_or_else(|| invalid("`model` is missing".to_owned()))?;
    if let Some(caller) = &caller {
        caller.may_ask(&model)?;
    }
    let usual = if format.wants_pieces(&body) { RawOperation::Stream } else { RawOperation::Generate };
    let operation = address.operation.unwrap_or(usual);
    let now = Timestamp::now();
    let head = AnswerHead { id: uuid::Uuid::now_v7().simple().to_string(), created: now.0 / 1_000_000, model: model.clone() };
    let session = {
        let (caller, body) = (caller.clone(), Arc::clone(&body));
        gateway.work(bytes.len(), move || session(caller.as_ref(), &body)).await?
    };
    let reuse = request.headers().get(REUSE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    Ok(Asked { format, operation, caller, model, headers: passed(request), bytes, body, session, reuse, head, set_aside: None })
}

/// Reads a body.
pub(crate) async fn document(gateway: &Gateway, bytes: &Bytes) -> Result<Document, Refusal> {
    let (room, bytes) = (gateway.bodies.room.clone(), bytes.clone());
    gateway.work(bytes.len(), move || Document::read(&bytes, &room)).await?
}

/// Headers that belong to a format and pass with its bytes.
fn passed(request: &HttpRequest) -> Vec<(String, String)> {
    let passes = |name: &str| name.starts_with("anthropic-") || name == "openai-beta";
    let of = |(name, value): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    request.headers().iter().filter(|(name, _)| passes(name.as_str())).filter_map(of).collect()
}

async fn answer(gateway: &web::Data<Gateway>, mut asked: Asked) -> Result<HttpResponse, Refusal> {
    let reservation = reserve(gateway, &mut asked).await?;
    // Answers are kept in the internal form, so bytes that pass unread have none.
    let (reservation, asked) = if may_be_kept(gateway, &asked).await {
        (reservation, asked)
    } else {
        match passing::pass(gateway, asked, reservation).await? {
            passing::Passed::Answered(response) => return Ok(response),
            passing::Passed::NotSpoken(asked, reservation) => (reservation, *asked),
        }
    };
    let request = match decode(gateway, &asked).await {
        Ok(request) => request,
        Err(refusal) => {
            // Nobody was asked.
            if let Some(reservation) = reservation {
                reservation.free();
            }
            return Err(refusal);
        }
    };
    match asked.operation {
        RawOperation::CountTokens => {
            let models = gateway.models.clone();
            let counted = gateway.run(async move { Ok(models.count(request).await) }).await;
            let tokens = counted.map_err(|failure| Refusal::new(503, failure))?.map_err(|error| super::answer::refused(&error))?;
            Ok(HttpResponse::Ok().json(asked.format.count(tokens)))
        }
        RawOperation::Generate => whole(gateway, asked, request, reservation).await,
        RawOperation::Stream => streaming::stream(gateway, asked, request, reservation).await,
    }
}

/// True where the client takes a kept answer and the request can have one.
async fn may_be_kept(gateway: &Gateway, asked: &Asked) -> bool {
    let certain = |request: ModelRequest| request.sampling.temperature == Some(0.0);
    asked.reuse && asked.operation != RawOperation::CountTokens && decode(gateway, asked).await.is_ok_and(certain)
}

async fn decode(gateway: &Gateway, asked: &Asked) -> Result<ModelRequest, Refusal> {
    let (format, body) = (Arc::clone(&asked.format), Arc::clone(&asked.body));
    let decoded = gateway.work(asked.bytes.len(), move || format.decode(&body)).await?;
    Ok(named(asked, decoded.map_err(invalid)?))
}

/// The request with what stands beside its body.
fn named(asked: &Asked, request: ModelRequest) -> ModelRequest {
    let (model, session) = (Some(asked.model.clone()), asked.session.clone());
    ModelRequest { provider: None, model, session, reuse: asked.reuse, ..request }
}

/// Sets aside the most that the call can use, where its key, its owner or its project has a limit, and
/// tells its task how that went.
async fn reserve(gateway: &Gateway, asked: &mut Asked) -> Result<Option<Reservation>, Refusal> {
    let caller = asked.caller.clone().filter(|caller| !caller.is_unlimited());
    if (caller.is_none() && !gateway.spending.is_limited()) || asked.operation == RawOperation::CountTokens {
        return Ok(None);
    }
    let of_tokens = gateway.spending.limits().are_of_tokens() || caller.as_ref().is_some_and(Caller::is_limited_in_tokens);
    // A provider may bill a call whose price nobody knew before: what it says is charged all the same.
    let unreserved = gateway.unreserved(&asked.model).filter(|_| !of_tokens);
    let most = match unreserved {
        Some(most) => most,
        None => most(gateway, asked).await?,
    };
    let refusal = match set_aside(gateway, asked, caller.as_ref(), most).await {
        Ok(reservation) => {
            let known = most.known();
            if caller.as_ref().is_some_and(|caller| caller.is_concerned(known)) || gateway.spending.concerns(known) {
                asked.set_aside = Some((ModelCallId::new(), known, reservation.asking.clone()));
            }
            note(gateway, asked, None);
            return Ok(Some(reservation));
        }
        Err(refusal) => refusal,
    };
    if refusal.status == 402 {
        note(gateway, asked, Some(refusal.failure.clone()));
    }
    Err(refusal)
}

/// The most that a call can use.
async fn most(gateway: &Gateway, asked: &Asked) -> Result<Most, Refusal> {
    let (format, body) = (Arc::clone(&asked.format), Arc::clone(&asked.body));
    let (read, extent) = gateway.work(asked.bytes.len(), move || format.measure(&body)).await?;
    let (models, request) = (gateway.models.clone(), read.map_or_else(|| unread(asked), |request| named(asked, request)));
    let quote = gateway.run(async move { models.quote_passing(request, extent).await }).await;
    let quote = quote.map_err(|failure| super::answer::refused(&helix_ports::ProviderError::Final(failure)))?;
    if quote.most.known().money == Money::ZERO && quote.most.tokens > 0 {
        gateway.note_unreserved(&asked.model, quote.most.money);
    }
    Ok(quote.most)
}

async fn set_aside(gateway: &Gateway, asked: &Asked, caller: Option<&Caller>, most: Most) -> Result<Reservation, Refusal> {
    let (spending, now) = (gateway.spending.clone(), Timestamp::now());
    let OnBehalf { owner, project, .. } = on_behalf(asked);
    let payers = Payers { owner, project };
    let admitted = match task_of(asked) {
        Some(task) => gateway.run(async move { spending.admit_for(task, payers, most).await }).await,
        None => gateway.run(async move { spending.admit(payers, most).await }).await,
    };
    let of_day = admitted.map_err(|failure| match failure.code {
        Code::DayLimitReached => {
            let left = now.day_start().after(DAY).since(now);
            Refusal { status: 402, failure, retry_after: Some(left) }
        }
        _ => Refusal::new(503, failure),
    })?;
    match caller.map(|caller| caller.reserve(most, now)).transpose() {
        Ok(of_key) => Ok(Reservation::new(of_key, of_day)),
        Err(refusal) => {
            of_day.free();
            Err(refusal)
        }
    }
}

/// The end of an agent's turn asks how its last call fared.
fn note(gateway: &Gateway, asked: &Asked, refused: Option<Failure>) {
    if let Some(task) = task_of(asked) {
        gateway.spending.note(task, refused);
    }
}

/// Whose agent asks, where one does.
fn task_of(asked: &Asked) -> Option<TaskId> {
    asked.caller.as_ref().and_then(|caller| caller.key.task)
}

/// A request that passes though it cannot be read here: all of it is taken for text.
fn unread(asked: &Asked) -> ModelRequest {
    let text = String::from_utf8_lossy(&asked.bytes).into_owned();
    ModelRequest { model: Some(asked.model.clone()), messages: vec![Message::text(Role::User, text)], ..ModelRequest::default() }
}

/// Whom a call is written down for.
pub(crate) fn on_behalf(asked: &Asked) -> OnBehalf {
    match &asked.caller {
        Some(caller) => OnBehalf {
            owner: caller.key.owner,
            project: caller.key.project,
            actor: caller.key.name.clone(),
            task: caller.key.task,
            step: caller.key.step,
            key: Some(caller.key.id),
            set_aside: asked.set_aside.clone(),
        },
        None => OnBehalf { actor: "gateway".to_owned(), set_aside: asked.set_aside.clone(), ..OnBehalf::default() },
    }
}
