//! The HTTP side of a provider: the client, its requests, and reading bodies within limits of time and size.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Response, Url};
use tokio::time::{Instant, timeout_at};

use crate::format::KeyHeader;
use crate::{ApiKey, Settings};

/// Reading a body did not go well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection ended in the middle.
    #[error("{0}")]
    Cut(reqwest::Error),
    /// Nothing came for the idle time.
    #[error("silent for {} ms", .0.as_millis())]
    Idle(Duration),
    /// The whole call took longer than allowed.
    #[error("not whole within {} ms", .0.as_millis())]
    Late(Duration),
    /// It is larger than allowed.
    #[error("larger than the limit of {0} bytes")]
    TooLarge(usize),
}

/// How long a connection that nobody uses is kept. A server that closes one while it is taken up again fails that call, which may
/// have been billed, so this is less than what it keeps: a provider's a minute and more.
const KEPT: Duration = Duration::from_secs(60);
/// The same of a server without TLS, which somebody runs: llama.cpp's and those on uvicorn (vLLM, LiteLLM) keep theirs for five
/// seconds.
const KEPT_PLAIN: Duration = Duration::from_secs(4);

/// A client for one base URL.
pub(crate) fn client(settings: &Settings) -> Result<Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    // An error means that somebody installed one before, which is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let url = Url::parse(&settings.base_url).ok();
    let mut builder = Client::builder()
        .user_agent(concat!("helix/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(KEPT)
        .tcp_nodelay(true);
    // A machine without certificates can still use a server that needs none.
    if url.as_ref().is_some_and(|url| url.scheme() == "http") {
        builder = builder.tls_certs_only(std::iter::empty()).pool_idle_timeout(KEPT_PLAIN);
    }
    // A proxy has no way to this machine's loopback.
    if url.as_ref().and_then(Url::host_str).is_some_and(is_loopback) {
        builder = builder.no_proxy();
    }
    builder.build()
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The key's header, marked so that no debugging output shows it.
pub(crate) fn authorize(key: Option<&ApiKey>, header: KeyHeader, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let Some(key) = key else { return request };
    let (name, value) = match header {
        KeyHeader::Bearer => (AUTHORIZATION.as_str(), format!("Bearer {}", key.expose())),
        KeyHeader::Named(name) => (name, key.expose().to_owned()),
    };
    match HeaderValue::from_str(&value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            request.header(name, value)
        }
        Err(_) => request,
    }
}

/// `path` under the base URL; from the root of the server where it begins with a slash.
pub(crate) fn endpoint(base_url: &str, path: &str) -> String {
    match (path.strip_prefix('/'), Url::parse(base_url)) {
        (Some(_), Ok(url)) => format!("{}{path}", url.origin().ascii_serialization()),
        _ => format!("{}/{}", base_url.trim_end_matches('/'), path.trim_start_matches('/')),
    }
}

/// The body's chunks, each within the idle time, together within `limit` bytes since `counter` was last set to 0.
pub(crate) struct Chunks {
    inner: Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>,
}

impl Chunks {
    pub fn new(response: Response, idle: Duration, limit: usize, counter: Arc<AtomicUsize>) -> Self {
        let bytes = Box::pin(response.bytes_stream());
        let inner = futures::stream::unfold(Some((bytes, counter)), move |state| async move {
            let (mut bytes, counter) = state?;
            match tokio::time::timeout(idle, bytes.next()).await {
                Err(_) => Some((Err(BodyError::Idle(idle)), None)),
                Ok(None) => None,
                Ok(Some(Err(error))) => Some((Err(BodyError::Cut(error)), None)),
                Ok(Some(Ok(chunk))) => {
                    let held = counter.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
                    if held > limit {
                        return Some((Err(BodyError::TooLarge(limit)), None));
                    }
                    Some((Ok(chunk), Some((bytes, counter))))
                }
            }
        });
        Self { inner: Box::pin(inner) }
    }
}

/// The same chunks until `deadline`, which is `limit` after the call began.
pub(crate) fn until<S>(deadline: Instant, limit: Duration, chunks: S) -> impl Stream<Item = Result<Bytes, BodyError>> + Send
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + Unpin,
{
    futures::stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        match timeout_at(deadline, chunks.next()).await {
            Ok(chunk) => Some((chunk?, Some(chunks))),
            Err(_) => Some((Err(BodyError::Late(limit)), None)),
        }
    })
}

impl Stream for Chunks {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(context)
    }
}

/// A whole body.
pub(crate) async fn whole(response: Response, idle: Duration, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut chunks = Chunks::new(response, idle, limit, Arc::default());
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk?);
    }
    Ok(body)
}

/// As many bytes of an error's body as are worth reading.
pub(crate) const ENOUGH: usize = 16 * 1024;
/// How long the next of them are waited for.
pub(crate) const OF_AN_ERROR: Duration = Duration::from_secs(5);

/// As much of an error's body as is worth showing; what cannot be read is left out.
pub(crate) async fn start_of(response: Response, idle: Duration) -> Vec<u8> {
    let mut chunks = Chunks::new(response, idle.min(OF_AN_ERROR), usize::MAX, Arc::default());
    let mut body = Vec::new();
    while body.len() < ENOUGH
        && let Some(Ok(chunk)) = chunks.next().await
    {
        body.extend_from_slice(&chunk);
    }
    body
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_a_persons_server_is_about_to_close_is_not_taken_up_again() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("bound"));
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("it listens");
                    }
                });
            }
        });
        let client = client(&Settings { base_url: base_url.clone(), ..Settings::default() }).expect("a client");
        let ask = async || client.get(&base_url).send().await.expect("answered").text().await.expect("whole");
        assert_eq!([ask().await, ask().await], ["ok", "ok"]);
        assert_eq!(accepted.load(Ordering::Relaxed), 1, "one that was just used is used again");
        tokio::time::sleep(KEPT_PLAIN + Duration::from_millis(300)).await;
        assert_eq!(ask().await, "ok");
        assert_eq!(accepted.load(Ordering::Relaxed), 2);
    }
}
