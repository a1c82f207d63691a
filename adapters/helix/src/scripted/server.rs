//! The HTTP server.

use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Context;
use futures::stream;
use helix_adapter_models::chat::{decode_request, encode_chunks, encode_reply};
use helix_protocol::{Message, ModelRequest, Role, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::answer::Answer;
use super::fault::{Fault, FaultKind, Faults};
use super::log::{Log, LogLine};
use super::transcript::{self, Transcript};

/// Most bytes of a request.
const REQUEST: usize = 64 << 20;

/// A running server. Dropping it does not stop it.
#[derive(Debug)]
pub struct ScriptedServer {
    addr: SocketAddr,
    log: PathBuf,
    faults: Arc<Faults>,
    held: watch::Sender<bool>,
    handle: ServerHandle,
}

/// What the server is started with from the command line.
#[derive(Clone, Debug)]
pub struct ServeArgs {
    /// The transcript's file; the demo's where `None`.
    pub transcript: Option<PathBuf>,
    /// Where to listen.
    pub addr: SocketAddr,
    /// Where the log goes.
    pub log: PathBuf,
}

/// Serves until the process ends. Prints the base URL first.
pub async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let transcript = match &args.transcript {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("{}: the transcript cannot be read", path.display()))?;
            Transcript::parse(&text).with_context(|| path.display().to_string())?
        }
        None => transcript::demo()?,
    };
    let (server, running) = ScriptedServer::prepare(transcript, args.addr, &args.log)?;
    println!("{}", server.base_url());
    running.await.context("the scripted model server")
}

impl ScriptedServer {
    /// Starts a server; port 0 is any free one. Its log is appended to the file `log`.
    pub async fn start(transcript: Transcript, addr: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        let (server, running) = Self::prepare(transcript, addr, log)?;
        tokio::spawn(running);
        Ok(server)
    }

    fn prepare(transcript: Transcript, addr: SocketAddr, log: &Path) -> anyhow::Result<(Self, actix_web::dev::Server)> {
        let faults = Arc::new(Faults::default());
        let (held, hold) = watch::channel(false);
        let log_lines = Arc::new(Log::open(log)?);
        let state = web::Data::new(Scripted { transcript, faults: Arc::clone(&faults), hold, log: log_lines });
        let app = move || {
            App::new()
                .app_data(state.clone())
                .app_data(web::PayloadConfig::new(REQUEST))
                .route("/v1/models", web::get().to(models))
                .route("/v1/chat/completions", web::post().to(complete))
                .route("/admin/faults", web::post().to(order))
                .route("/admin/faults", web::delete().to(clear))
        };
        let server = HttpServer::new(app).workers(1).tcp_nodelay(true).disable_signals().shutdown_timeout(0).bind(addr);
        let server = server.with_context(|| format!("the scripted model server cannot listen on {addr}"))?;
        let addr = server.addrs().first().copied().context("the scripted model server has no address")?;
        let running = server.run();
        Ok((Self { addr, log: log.to_owned(), faults, held, handle: running.handle() }, running))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for a provider.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Makes something go wrong with the next requests.
    pub fn order(&self, fault: Fault) {
        self.faults.order(fault);
    }

    /// Answers nobody until it is let go.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Answers again, whoever waits first.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Stops it; answers that are being sent are cut.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

struct Scripted {
    transcript: Transcript,
    faults: Arc<Faults>,
    hold: watch::Receiver<bool>,
    log: Arc<Log>,
}

async fn models(state: web::Data<Scripted>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"object": "list", "data": [{"id": state.transcript.model, "object": "model"}]}))
}

async fn order(state: web::Data<Scripted>, fault: web::Json<Fault>) -> HttpResponse {
    state.faults.order(fault.into_inner());
    HttpResponse::NoContent().finish()
}

async fn clear(state: web::Data<Scripted>) -> HttpResponse {
    state.faults.clear();
    HttpResponse::NoContent().finish()
}

/// Writes its line when it is dropped, so that an answer that nobody took to its end is in the log as well.
struct Witness {
    log: Arc<Log>,
    line: LogLine,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.line.time = Timestamp::now();
        self.log.write(&self.line);
    }
}

async fn complete(state: web::Data<Scripted>, http: HttpRequest, body: Bytes) -> HttpResponse {
    let mut hasher = DefaultHasher::new();
    hasher.write(&body);
    let request_hash = format!("{:016x}", hasher.finish());
    let key = http.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let line = LogLine {
        time: Timestamp::default(),
        request: request_hash.clone(),
        key,
        scenario: String::new(),
        turn: 0,
        recovery: false,
        status: 400,
        fault: None,
        said: Vec::new(),
        completed: false,
    };
    let mut witness = Witness { log: Arc::clone(&state.log), line };
    let parsed: Result<Value, String> = serde_json::from_slice(&body).map_err(|error| error.to_string());
    let (value, request) = match parsed.and_then(|value| decode_request(&value).map(|request| (value, request))) {
        Ok(parsed) => parsed,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, &reason, None),
    };
    let Some(scenario) = state.transcript.scenario(&request) else {
        return refusal(StatusCode::BAD_REQUEST, "no scenario of the transcript fits the first user message", None);
    };
    let answer = Answer::to(&state.transcript, scenario, &request);
    witness.line.said = said(&request);
    let own = scenario.turns.get(answer.turn).map_or(&[][..], |turn| turn.faults.as_slice());
    let fault = state.faults.next(&scenario.name, answer.turn, own);
    witness.line.scenario.clone_from(&scenario.name);
    (witness.line.turn, witness.line.recovery, witness.line.status) = (answer.turn, answer.recovery, 200);
    witness.line.fault =
        fault.as_ref().and_then(|fault| serde_json::to_value(fault).ok()?.get("kind")?.as_str().map(str::to_owned));
    match &fault {
        Some(FaultKind::Status { status, retry_after_s }) => {
            witness.line.status = *status;
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return refusal(status, "a fault that was ordered", *retry_after_s);
        }
        Some(FaultKind::Garbage) => return HttpResponse::Ok().content_type("application/json").body("{\"choices\": [{]"),
        Some(FaultKind::Page) => {
            return HttpResponse::Ok().content_type("text/html").body("<!doctype html><title>not a model</title>");
        }
        Some(FaultKind::ErrorObject) => return HttpResponse::Ok().json(error_object("a fault that was ordered", Some(503))),
        Some(FaultKind::Hang) => {
            // Ends when the client closes the connection.
            let held = stream::once(async move {
                let _witness = witness;
                std::future::pending::<Result<Bytes, std::io::Error>>().await
            });
            return HttpResponse::Ok().content_type("text/event-stream").streaming(held);
        }
        Some(FaultKind::Cut { .. } | FaultKind::Drip { .. }) | None => {}
    }
    // Who holds it is gone where this fails, and nobody holds it then.
    let _ = state.hold.clone().wait_for(|held| !held).await;
    sleep(Duration::from_millis(answer.delay_ms)).await;
    let created = Timestamp::now().0 / 1_000_000;
    let id = format!("scripted-{request_hash}");
    let (cut, pause) = match fault {
        Some(FaultKind::Cut { after }) => (Some(after), state.transcript.chunk_ms),
        Some(FaultKind::Drip { every_ms }) => (None, every_ms),
        _ => (None, state.transcript.chunk_ms),
    };
    if value.get("stream") == Some(&Value::Bool(true)) {
        let pieces = encode_chunks(&answer.reply, &id, created, state.transcript.piece).into_iter().map(|chunk| chunk.to_string());
        let events: Vec<String> = pieces.chain(["[DONE]".to_owned()]).map(|data| format!("data: {data}\n\n")).collect();
        return streamed(events, cut, Duration::from_millis(pause), witness);
    }
    let body = encode_reply(&answer.reply, &id, created).to_string();
    match cut {
        Some(_) => streamed(vec![body[..body.len() / 2].to_owned(), String::new()], Some(1), Duration::ZERO, witness),
        None => {
            witness.line.completed = true;
            HttpResponse::Ok().content_type("application/json").body(body)
        }
    }
}

/// What the person said after the first message.
fn said(request: &ModelRequest) -> Vec<String> {
    let texts = request.messages.iter().filter(|message| message.role == Role::User).map(Message::as_text);
    texts.filter(|text| !text.is_empty()).skip(1).collect()
}

/// Sends events one by one. One that is cut ends in an error, which closes the connection without the end of the body.
fn streamed(events: Vec<String>, cut: Option<usize>, pause: Duration, witness: Witness) -> HttpResponse {
    let last = events.len() - 1;
    let body = stream::unfold((events.into_iter().enumerate(), Some(witness)), move |(mut events, mut witness)| async move {
        let (at, event) = events.next()?;
        if cut.is_some_and(|after| at >= after) {
            witness.take()?;
            return Some((Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)), (events, None)));
        }
        if at > 0 && !pause.is_zero() {
            sleep(pause).await;
        }
        if at == last
            && let Some(mut witness) = witness.take()
        {
            witness.line.completed = true;
        }
        Some((Ok(Bytes::from(event)), (events, witness)))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(body)
}

fn refusal(status: StatusCode, message: &str, retry_after_s: Option<f64>) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if let Some(seconds) = retry_after_s {
        response.insert_header(("retry-after", seconds.to_string()));
    }
    response.json(error_object(message, None))
}

fn error_object(message: &str, code: Option<u16>) -> Value {
    json!({"error": {"message": message, "type": "scripted", "code": code}})
}
