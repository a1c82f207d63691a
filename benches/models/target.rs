//! What is asked: the upstream itself, or something before it, in a format that it speaks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::upstream::{Upstream, piece};

/// Longer than any call takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers close a connection that has rested for five seconds, as it may while others have their turns: it is given up before.
pub const RESTING: Duration = Duration::from_secs(2);

/// The model that everybody has.
pub const FIXED: &str = "fixed";

static CALLS: AtomicU64 = AtomicU64::new(1);

/// In which format it is asked. The upstream speaks chat completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaking {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages, so that request and answer have to be translated.
    Messages,
}

/// One of those that are measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// What the table calls it.
    pub name: &'static str,
    /// `http://HOST:PORT`
    pub base: String,
    /// The key that it wants.
    pub key: String,
    /// The model that it is asked for.
    pub model: &'static str,
    /// The format that it is asked in.
    pub speaking: Speaking,
    /// Its own connections.
    pub client: reqwest::Client,
}

/// What a call took.
#[derive(Clone, Debug)]
pub struct Took {
    /// All of it but the time that the upstream held it, in milliseconds.
    pub outside: f64,
}

/// What the pieces of a stream took.
#[derive(Clone, Debug)]
pub struct TookInPieces {
    /// From the request to the first piece, without the upstream's own time, in milliseconds.
    pub first: f64,
    /// Each piece from the upstream's hand to the client's, in milliseconds.
    pub pieces: Vec<f64>,
}

impl Target {
    /// One of these, asked for [`FIXED`].
    pub fn new(name: &'static str, base: impl Into<String>, key: impl Into<String>, speaking: Speaking) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).pool_idle_timeout(RESTING).build()?;
        Ok(Self { name, base: base.into(), key: key.into(), model: FIXED, speaking, client })
    }

    fn body(&self, call: u64, hold: Duration, pieces: usize) -> Value {
        let prompt = format!("call-{call} hold-{} pieces-{pieces}", hold.as_millis());
        json!({"model": self.model, "max_tokens": 64, "stream": pieces > 0, "messages": [{"role": "user", "content": prompt}]})
    }

    async fn send(&self, call: u64, hold: Duration, pieces: usize) -> Result<reqwest::Response> {
        let path = match self.speaking {
            Speaking::Chat => "/v1/chat/completions",
            Speaking::Messages => "/v1/messages",
        };
        let body = self.body(call, hold, pieces).to_string();
        let request = self.client.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {}", self.key)).header("anthropic-version", "2023-06-01");
        let response = request.body(body).send().await.with_context(|| self.name)?;
        let status = response.status();
        if !status.is_success() {
            let said = response.text().await.unwrap_or_default();
            anyhow::bail!("{} answered {status}: {said}", self.name);
        }
        Ok(response)
    }

    /// One whole answer.
    pub async fn ask(&self, upstream: &Upstream, hold: Duration) -> Result<Took> {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let begin = Instant::now();
        let text = self.send(call, hold, 0).await?.text().await?;
        let end = Instant::now();
        ensure!(text.contains(piece(0).trim_end()), "{} answered something else: {text}", self.name);
        let held = upstream.held(call)?;
        let sent = *held.sent.first().context("the upstream answered")?;
        Ok(Took { outside: millis(end - begin) - millis(sent - held.arrived) })
    }

    /// One answer in pieces.
    pub async fn listen(&self, upstream: &Upstream, hold: Duration, pieces: usize) -> Result<TookInPieces> {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let begin = Instant::now();
        let mut stream = self.send(call, hold, pieces).await?.bytes_stream();
        let (mut text, mut from, mut heard) = (String::new(), 0, Vec::with_capacity(pieces));
        while let Some(bytes) = stream.next().await {
            let now = Instant::now();
            text.push_str(&String::from_utf8_lossy(&bytes?));
            while let Some(at) = text[from..].find(piece(heard.len()).trim_end()) {
                from += at + 7;
                heard.push(now);
            }
        }
        let held = upstream.held(call)?;
        ensure!(
            heard.len() == pieces && held.sent.len() == pieces,
            "{} brought {} of {pieces} pieces, the upstream sent {}: {text}",
            self.name,
            heard.len(),
            held.sent.len()
        );
        let first = millis(heard[0] - begin) - millis(held.sent[0] - held.arrived);
        let delays = heard.iter().zip(&held.sent).map(|(heard, sent)| millis(*heard - *sent));
        Ok(TookInPieces { first, pieces: delays.collect() })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
