//! A model server that answers after a fixed time and remembers when: what lies outside of its own time was added
//! by whoever is in between.
//!
//! A call says in its prompt which it is and what it wants (`call-7 hold-50 pieces-0`), so nothing in between
//! has to pass a header on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use helix_adapter_models::chat::{encode_chunks, encode_reply};
use helix_protocol::{Block, ModelReply, StopReason, Usage};
use parking_lot::Mutex;

/// Between two pieces of a stream.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a connection may rest: longer than anything here.
const KEPT: Duration = Duration::from_secs(3_600);
/// Characters of a piece.
const PIECE: usize = 8;

/// The text of a piece.
pub fn piece(number: usize) -> String {
    format!("tok{number:04} ")
}

/// When the server had what it was asked, and when each piece of its answer was ready.
#[derive(Clone, Debug)]
pub struct Held {
    /// The request was there.
    pub arrived: Instant,
    /// Each piece was handed over; an answer that is not streamed is one.
    pub sent: Vec<Instant>,
}

type Book = Arc<Mutex<HashMap<u64, Held>>>;

/// The running server.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    book: Book,
    handle: ServerHandle,
}

impl Upstream {
    /// Starts it on a thread of its own.
    pub fn start() -> Result<Self> {
        let book = Book::default();
        let noted = web::Data::new(Arc::clone(&book));
        let app = move || {
            App::new()
                .app_data(noted.clone())
                .app_data(web::PayloadConfig::new(64 << 20))
                .route("/v1/models", web::get().to(models))
                .route("/v1/chat/completions", web::post().to(complete))
        };
        // A connection that it closes as somebody takes it up again would fail that call.
        let server = HttpServer::new(app).workers(1).keep_alive(KEPT).tcp_nodelay(true);
        let server = server.disable_signals().shutdown_timeout(0).bind(("127.0.0.1", 0))?;
        let address = server.addrs().first().copied().context("the upstream has no address")?;
        let running = server.run();
        let handle = running.handle();
        tokio::spawn(running);
        Ok(Self { address, book, handle })
    }

    /// What it noted of a call; once.
    pub fn held(&self, call: u64) -> Result<Held> {
        self.book.lock().remove(&call).with_context(|| format!("call {call} never reached the upstream"))
    }

    /// Ends it.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

async fn models() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({"object": "list", "data": [{"id": "fixed", "object": "model"}]}))
}

/// The number behind a word in the bytes.
fn number(body: &[u8], word: &str) -> u64 {
    let text = String::from_utf8_lossy(body);
    let behind = text.split_once(word).map_or("", |(_, behind)| behind);
    let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    behind[..end].parse().unwrap_or(0)
}

async fn complete(book: web::Data<Book>, body: Bytes) -> HttpResponse {
    let arrived = Instant::now();
    let (call, hold, pieces) = (number(&body, "call-"), number(&body, "hold-"), number(&body, "pieces-"));
    let text: String = (0..pieces.max(1)).map(|at| piece(at as usize)).collect();
    let usage = Usage { input_tokens: 20, output_tokens: pieces.max(1), ..Usage::default() };
    let reply = ModelReply { model: "fixed".to_owned(), blocks: vec![Block::text(text)], stop: StopReason::EndTurn, usage };
    if hold > 0 {
        tokio::time::sleep(Duration::from_millis(hold)).await;
    }
    let book = Arc::clone(&book);
    book.lock().insert(call, Held { arrived, sent: Vec::with_capacity(pieces.max(1) as usize) });
    if pieces == 0 {
        let body = encode_reply(&reply, "chatcmpl-1", 0).to_string();
        note(&book, call);
        return HttpResponse::Ok().content_type("application/json").body(body);
    }
    let chunks = encode_chunks(&reply, "chatcmpl-1", 0, PIECE).into_iter().map(|chunk| chunk.to_string());
    let events: Vec<String> = chunks.chain(["[DONE]".to_owned()]).map(|data| format!("data: {data}\n\n")).collect();
    let body = stream::unfold((events.into_iter(), 0), move |(mut events, mut pieces)| {
        let book = Arc::clone(&book);
        async move {
            let event = events.next()?;
            if event.contains("\"tok") {
                if pieces > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                pieces += 1;
                note(&book, call);
            }
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(event)), (events, pieces)))
        }
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(body)
}

fn note(book: &Book, call: u64) {
    if let Some(held) = book.lock().get_mut(&call) {
        held.sent.push(Instant::now());
    }
}
