//! A node's events, with what was missed while the line was down.
//!
//! A node says where its events stand before it says anything else, and sends a remark every quarter of a minute: who has seen no
//! event yet comes back to the right place, and a line on which nothing happens is no dead one.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use helix_protocol::{Code, Event, Failure};
use reqwest::Method;
use sse_stream::{Sse, SseStream};

use super::Client;

/// Between two attempts to reach a node that went away.
const PAUSE: Duration = Duration::from_millis(300);
/// The node sends some byte at least this often; a remark that keeps the line alive counts, and is no event.
const SILENCE: Duration = Duration::from_secs(60);

/// What a subscription brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// Events alone.
    Events,
    /// What models say as well, as they say it.
    Words,
    /// The same, from a node that tells them: one of an older build may run.
    WordsIfTold,
}

/// A subscription. It comes back by itself after the node was away, with what happened meanwhile.
pub struct Watch {
    client: Client,
    task: Option<String>,
    last: Option<u64>,
    hears: Hears,
    silence: Duration,
    blocks: Option<BoxStream<'static, Result<Sse, Failure>>>,
}

impl Watch {
    /// Watches from `after` on (`Some(0)`: everything recorded), or from now on; one task's events or all. Answers once the
    /// node has confirmed, so nothing that happens afterwards is missed.
    pub async fn open(client: &Client, task: Option<&str>, after: Option<u64>) -> Result<Self, Failure> {
        Self::open_hearing(client, task, after, Hears::Events).await
    }

    /// The same, with what models say where that is asked for.
    pub async fn open_hearing(client: &Client, task: Option<&str>, after: Option<u64>, hears: Hears) -> Result<Self, Failure> {
        Self { client: client.clone(), task: task.map(str::to_owned), last: after, hears, silence: SILENCE, blocks: None }
            .connected()
            .await
    }

    async fn connected(mut self) -> Result<Self, Failure> {
        self.connect().await?;
        Ok(self)
    }

    /// The next event. `node_unreachable` where the line was cut, or why the node cannot go on with it: call again to wait for it,
    /// after having told somebody.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let Some(blocks) = self.blocks.as_mut() else {
                tokio::time::sleep(PAUSE).await;
                self.connect().await?;
                continue;
            };
            match blocks.next().await {
                Some(Ok(block)) => {
                    if let Some(event) = self.read(block)? {
                        return Ok(event);
                    }
                }
                Some(Err(_)) | None => {
                    self.blocks = None;
                    return Err(Failure::new(Code::NodeUnreachable, "the node went away").hint("waiting for it to come back"));
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let mut request = self.client.request(Method::GET, "/events");
        if let Some(task) = &self.task {
            request = request.query(&[("task", task)]);
        }
        if let Some(last) = self.last {
            request = request.query(&[("after", last)]);
        }
        if self.hears != Hears::Events {
            request = request.query(&[("words", "true")]);
        }
        let answer = match self.client.send(request).await {
            Err(failure) if failure.code == Code::InvalidRequest && self.hears == Hears::WordsIfTold => {
                self.hears = Hears::Events;
                return Box::pin(self.connect()).await;
            }
            answer => answer?,
        };
        let body = answer.bytes_stream();
        let mut body = heard(body.map_err(std::io::Error::other).boxed(), self.silence).boxed();
        let broken = |reason: String| Failure::new(Code::NodeUnreachable, format!("the node's events are cut: {reason}"));
        // The node says first where its events stand. Only with that a line can be cut without loss.
        let first = match body.next().await {
            Some(first) => first.map_err(|error| broken(error.to_string()))?,
            None => return Err(broken("it said nothing".to_owned())),
        };
        let blocks = SseStream::from_bytes_stream(futures::stream::iter([Ok(first)]).chain(body));
        let broken = move |error: sse_stream::Error| broken(error.to_string());
        self.blocks = Some(blocks.map(move |block| block.map_err(broken)).boxed());
        Ok(())
    }

    fn read(&mut self, block: Sse) -> Result<Option<Event>, Failure> {
        if let Some(sequence) = block.id.as_deref().and_then(|id| id.parse().ok()) {
            self.last = Some(sequence);
        }
        let Some(data) = block.data else { return Ok(None) };
        let unknown = |error| Failure::new(Code::Internal, format!("an event of the node is not understood: {error}"));
        if block.event.as_deref() == Some("failure") {
            // The node ends the line with it.
            self.blocks = None;
            return Err(serde_json::from_str(&data).unwrap_or_else(unknown));
        }
        serde_json::from_str(&data).map(Some).map_err(unknown)
    }
}

/// The bytes of a body, which breaks off where none came for so long.
fn heard(body: BoxStream<'static, std::io::Result<Bytes>>, silence: Duration) -> impl Stream<Item = std::io::Result<Bytes>> {
    futures::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(silence, body.next()).await {
            Ok(bytes) => bytes.map(|bytes| (bytes, Some(body))),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use helix_protocol::{EventId, EventKind, NewEvent, Timestamp};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    /// Much shorter than the silence of these tests.
    const REMARK: Duration = Duration::from_millis(50);

    fn told(sequence: u64) -> Event {
        let event = NewEvent::info(EventKind::SystemStartup, "node", "the node is up");
        Event { id: EventId::new(), sequence, task_sequence: 0, schema: 1, at: Timestamp(0), event }
    }

    /// Takes a watcher in, whose request it answers with, and lets it read the beginning of an answer.
    async fn accept(listener: &UnixListener) -> (UnixStream, String) {
        let (mut line, _) = listener.accept().await.expect("a client comes");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(line.read_u8().await.expect("it asks"));
        }
        line.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await.expect("it listens");
        let request = String::from_utf8(request).expect("HTTP is text");
        (line, request.lines().next().unwrap_or_default().to_owned())
    }

    async fn write(line: &mut UnixStream, text: &str) {
        line.write_all(text.as_bytes()).await.expect("it listens");
    }

    fn block(event: &Event) -> String {
        format!("id: {}\ndata: {}\n\n", event.sequence, serde_json::to_string(event).expect("plain data"))
    }

    #[tokio::test]
    async fn a_quiet_line_stands_as_long_as_remarks_come_and_a_silent_one_is_made_anew_after_what_was_seen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("the path is free");
        let served = tokio::spawn(async move {
            let (mut line, first) = accept(&listener).await;
            write(&mut line, ": watching\nid: 7\n\n").await;
            for _ in 0..40 {
                tokio::time::sleep(REMARK).await;
                write(&mut line, ": keep-alive\n\n").await;
            }
            // Now nothing more, on a line that stands.
            let (mut again, second) = accept(&listener).await;
            write(&mut again, &block(&told(8))).await;
            (first, second, again)
        });
        let client = Client::new(&socket).expect("a client");
        let silence = 20 * REMARK;
        let watch = Watch { client, task: None, last: None, hears: Hears::Words, silence, blocks: None };
        let mut watch = watch.connected().await.expect("it is answered");
        let started = tokio::time::Instant::now();
        let cut = watch.next().await.expect_err("the line fell silent");
        assert_eq!(cut.code, Code::NodeUnreachable);
        assert!(started.elapsed() >= 40 * REMARK + silence, "given up after {:?} although remarks came", started.elapsed());
        let event = watch.next().await.expect("it came back");
        assert_eq!(event.sequence, 8);
        let (first, second, _line) = served.await.expect("it served");
        assert_eq!(first, "GET /api/v1/events?words=true HTTP/1.1");
        assert_eq!(second, "GET /api/v1/events?after=7&words=true HTTP/1.1", "it had seen no event, and knew where it began");
    }

    #[tokio::test]
    async fn what_the_node_says_it_failed_for_is_told_and_the_line_made_anew() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("the path is free");
        let failure = Failure::new(Code::DatabaseUnavailable, "the database does not answer").hint("see that it runs");
        let text = serde_json::to_string(&failure).expect("plain data");
        let served = tokio::spawn(async move {
            let (mut line, _) = accept(&listener).await;
            write(&mut line, &format!(": watching\n\nevent: failure\ndata: {text}\n\n")).await;
            drop(line);
            let (mut again, second) = accept(&listener).await;
            write(&mut again, &block(&told(8))).await;
            (second, again)
        });
        let client = Client::new(&socket).expect("a client");
        let mut watch = Watch::open(&client, None, Some(7)).await.expect("it is answered");
        assert_eq!(watch.next().await, Err(failure));
        assert_eq!(watch.next().await.expect("it came back").sequence, 8);
        let (second, _line) = served.await.expect("it served");
        assert_eq!(second, "GET /api/v1/events?after=7 HTTP/1.1");
    }
}
