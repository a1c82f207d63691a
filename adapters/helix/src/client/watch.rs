//! A node's events, with what was missed while the line was down.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use helix_protocol::{Code, Event, Failure};
use reqwest::Method;
use sse_stream::{Sse, SseStream};

use super::Client;

/// Between two attempts to reach a node that went away.
const PAUSE: Duration = Duration::from_millis(300);
/// The node says something at least this often.
const SILENCE: Duration = Duration::from_secs(60);

/// A subscription. It comes back by itself after the node was away, with what happened meanwhile.
pub struct Watch {
    client: Client,
    task: Option<String>,
    last: Option<u64>,
    blocks: Option<BoxStream<'static, Result<Sse, Failure>>>,
}

impl Watch {
    /// Watches from `after` on (`Some(0)`: everything recorded), or from now on; one task's events or all. Answers once the
    /// node has confirmed, so nothing that happens afterwards is missed.
    pub async fn open(client: &Client, task: Option<&str>, after: Option<u64>) -> Result<Self, Failure> {
        let mut watch = Self { client: client.clone(), task: task.map(str::to_owned), last: after, blocks: None };
        watch.connect().await?;
        Ok(watch)
    }

    /// The next event. `node_unreachable` where the line was cut: call again to wait for the node, after having told somebody.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let Some(blocks) = self.blocks.as_mut() else {
                tokio::time::sleep(PAUSE).await;
                self.connect().await?;
                continue;
            };
            match tokio::time::timeout(SILENCE, blocks.next()).await {
                Ok(Some(Ok(block))) => {
                    if let Some(event) = self.read(block)? {
                        return Ok(event);
                    }
                }
                Ok(Some(Err(_)) | None) | Err(_) => {
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
        let body = self.client.send(request).await?.bytes_stream();
        let blocks = SseStream::from_bytes_stream(body);
        let broken = |error| Failure::new(Code::NodeUnreachable, format!("the node's events are cut: {error}"));
        self.blocks = Some(blocks.map(move |block| block.map_err(broken)).boxed());
        Ok(())
    }

    fn read(&mut self, block: Sse) -> Result<Option<Event>, Failure> {
        if let Some(sequence) = block.id.as_deref().and_then(|id| id.parse().ok()) {
            self.last = Some(sequence);
        }
        let Some(data) = block.data else { return Ok(None) };
        if block.event.as_deref() == Some("failure") {
            return Ok(None);
        }
        serde_json::from_str(&data)
            .map(Some)
            .map_err(|error| Failure::new(Code::Internal, format!("an event of the node is not understood: {error}")))
    }
}
