//! GET /events: what was recorded, from any place on, then what happens; with `?words=true` what models say meanwhile, too.

use std::io::Write as _;

use actix::Addr;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::StreamExt;
use helix_kernel::Shutdown;
use helix_messages::{EventFilter, Events, Records};
use helix_protocol::{Event, Failure, TaskId};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::body::invalid;
use crate::problem::Problem;
use crate::resolve;
use crate::server::Node;
use crate::session::{End, Frame, Session};

/// A frame this large is sent without looking for more.
const FRAME: usize = 32 * 1024;
/// How many events are read from the records at once.
const PAGE: u32 = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    after: Option<u64>,
    task: Option<String>,
    #[serde(default)]
    words: bool,
}

/// A watcher. `Last-Event-ID` (a browser's way) wins over `?after=`; with neither, only what happens from now on. Such
/// a one is told first where that is, as a block with an id and no data: should its line be cut before the first
/// event, it misses none either.
pub(crate) async fn watch(node: web::Data<Node>, query: web::Query<Query>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let last = match request.headers().get("last-event-id") {
        Some(value) => {
            let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            Some(parsed.ok_or_else(|| invalid("Last-Event-ID is not an event's sequence".to_owned()))?)
        }
        None => query.after,
    };
    let task = match query.task.clone() {
        Some(text) => {
            let records = node.args.records.clone();
            Some(node.run(async move { resolve::task(&records, &text).await }).await?.id)
        }
        None => None,
    };
    let (session, mut frames) = Session::open();
    // Watching begins before the replay, so nothing falls between the two.
    let live = node.args.events.watch();
    let words = query.words.then(|| node.args.events.listen());
    let (last, begins) = match last {
        Some(last) => (Some(last), Begins::After),
        None => (node.args.events.published(), Begins::Now),
    };
    let feed = Feed {
        session,
        records: node.args.records.clone(),
        events: node.args.events.clone(),
        task,
        last,
        words,
        frame: Vec::new(),
        shutdown: node.shutdown.clone(),
    };
    node.start(feed.run(live, begins));
    let body = futures::stream::poll_fn(move |context| frames.poll_recv(context)).map(Ok::<_, actix_web::Error>);
    Ok(HttpResponse::Ok().content_type("text/event-stream").insert_header((CACHE_CONTROL, "no-store")).streaming(body))
}

/// Where a watcher begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// After the event that it named: what was recorded since comes first.
    After,
    /// With what happens from now on.
    Now,
}

/// Brings events to one session.
struct Feed {
    session: Addr<Session>,
    records: Records,
    events: Events,
    task: Option<TaskId>,
    /// The sequence of the last event given, or after which to begin; `None` until something recorded is known.
    last: Option<u64>,
    /// What models say, where the watcher asked for it. What it is too slow for it misses: the words say where they stand.
    words: Option<broadcast::Receiver<Event>>,
    /// Blocks that are sent together: a watcher of a busy node costs one hop and one write for all that happened meanwhile.
    frame: Vec<u8>,
    shutdown: Shutdown,
}

/// The session has ended: nobody reads any more.
struct Gone;

impl Feed {
    async fn run(mut self, live: broadcast::Receiver<Event>, begins: Begins) {
        let shutdown = self.shutdown.clone();
        let session = self.session.clone();
        tokio::select! {
            _ = self.feed(live, begins) => {}
            () = shutdown.requested() => {}
        }
        session.do_send(End);
    }

    async fn feed(&mut self, mut live: broadcast::Receiver<Event>, begins: Begins) -> Result<(), Gone> {
        // Headers go out with the first bytes; a watcher wants to know that it watches.
        let place = self.last.filter(|_| begins == Begins::Now).map_or_else(String::new, |last| format!("id: {last}\n"));
        self.send(Bytes::from(format!(": watching\n{place}\n"))).await?;
        if begins == Begins::After {
            self.replay().await?;
        }
        loop {
            let event = tokio::select! {
                event = live.recv() => event,
                words = next(self.words.as_mut()) => {
                    self.show(&words);
                    self.say().await?;
                    self.flush().await?;
                    continue;
                }
            };
            // What was said before the event comes before it.
            self.say().await?;
            let mut lagged = match event {
                Ok(event) => {
                    self.show(&event);
                    false
                }
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return Ok(()),
            };
            while !lagged && self.frame.len() < FRAME {
                match live.try_recv() {
                    Ok(event) => {
                        self.say().await?;
                        self.show(&event);
                    }
                    Err(TryRecvError::Lagged(_)) => lagged = true,
                    // What ended is found by the next wait.
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            self.flush().await?;
            if lagged {
                // Those not kept are lost to this watcher; those kept are read again.
                live = self.events.watch();
                if self.last.is_some() {
                    self.replay().await?;
                }
            }
        }
    }

    /// Adds an event to the frame, if it is new and the watcher's.
    fn show(&mut self, event: &Event) {
        if event.sequence > 0 {
            if self.last.is_some_and(|last| event.sequence <= last) {
                return;
            }
            self.last = Some(event.sequence);
        }
        if self.task.is_none() || event.event.task == self.task {
            add(&mut self.frame, event);
        }
    }

    /// Adds what models have said so far.
    async fn say(&mut self) -> Result<(), Gone> {
        let waiting = self.words.as_ref().map_or(0, broadcast::Receiver::len);
        for _ in 0..waiting {
            match self.words.as_mut().map(broadcast::Receiver::try_recv) {
                Some(Ok(words)) => self.show(&words),
                Some(Err(TryRecvError::Lagged(_))) => {}
                Some(Err(TryRecvError::Empty | TryRecvError::Closed)) | None => break,
            }
            if self.frame.len() >= FRAME {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = Bytes::from(std::mem::take(&mut self.frame));
        self.send(frame).await
    }

    async fn replay(&mut self) -> Result<(), Gone> {
        loop {
            let filter = EventFilter { after: self.last.unwrap_or(0), task: self.task, limit: PAGE };
            match self.records.read().events(filter).await {
                Ok(page) => {
                    for event in &page {
                        self.show(event);
                        if self.frame.len() >= FRAME {
                            self.flush().await?;
                        }
                    }
                    self.flush().await?;
                    if page.len() < PAGE as usize {
                        return Ok(());
                    }
                }
                Err(error) => {
                    // The watcher is told and comes back with its last id.
                    let failure = Failure::from(error);
                    tracing::warn!(code = failure.code.as_str(), %failure, "events cannot be read");
                    let text = serde_json::to_string(&failure).expect("a failure is plain data");
                    self.send(Bytes::from(format!("event: failure\ndata: {text}\n\n"))).await?;
                    return Err(Gone);
                }
            }
        }
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.session.send(Frame(bytes)).await.map_err(|_| Gone)
    }
}

/// The next words; never any where nobody asked for them.
async fn next(words: Option<&mut broadcast::Receiver<Event>>) -> Event {
    let Some(words) = words else { return std::future::pending().await };
    loop {
        match words.recv().await {
            Ok(words) => return words,
            Err(RecvError::Lagged(_)) => {}
            // The node ends, which the events tell.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Adds an event's block. One that is not kept has no id, so that a watcher's last id stays one the records know.
fn add(frame: &mut Vec<u8>, event: &Event) {
    let written = "a vector takes everything";
    if event.sequence > 0 {
        writeln!(frame, "id: {}", event.sequence).expect(written);
    }
    write!(frame, "event: {}\ndata: ", event.event.kind.as_str()).expect(written);
    serde_json::to_writer(&mut *frame, event).expect("an event is plain data");
    frame.extend_from_slice(b"\n\n");
}
