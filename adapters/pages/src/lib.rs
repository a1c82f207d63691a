//! Pages of the web as text: the node's implementation of the port [`WebAccess`].
//!
//! - `grant` is pure: which hosts and addresses a task may reach.
//! - `fetch` follows one address through its redirections. Each is held against the grant, its name is looked up once, and the
//!   connection is made to the very addresses that were judged, so a name that answers differently a moment later changes nothing.
//! - `text` makes text of what came.
//! - `search` asks the endpoint that the node's owner configured.
//!
//! No proxy of the environment is used: it would look names up itself, after they were judged.

mod fetch;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
mod grant;
mod search;
mod text;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use helix_ports::{WebAccess, WebHit, WebPage};
use helix_protocol::{Code, Failure};

pub use search::{Endpoint, EndpointKind};

/// Looks a name up.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// How much a fetch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For everything: names, connections, redirections and the body.
    pub time: Duration,
    /// Of a body.
    pub bytes: usize,
}

/// The way to the web.
pub struct Pages {
    limits: Limits,
    lookup: Lookup,
    endpoint: Option<Endpoint>,
}

impl Pages {
    /// With the names that this machine knows.
    pub fn new(limits: Limits, endpoint: Option<Endpoint>) -> Self {
        let lookup: Lookup = Arc::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address: SocketAddr| address.ip()).collect())
            })
        });
        Self { limits, lookup, endpoint }
    }

    /// The same with names from elsewhere.
    pub fn with_lookup(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// Bounds work that a far end can draw out.
    async fn within<T>(&self, what: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.limits.time, work).await.unwrap_or_else(|_| {
            let message = format!("{what} took longer than {} s", self.limits.time.as_secs_f64());
            Err(Failure::new(Code::TimedOut, message).hint("try another page, or raise `web.timeout_ms`"))
        })
    }
}

#[async_trait]
impl WebAccess for Pages {
    async fn fetch(&self, url: &str, hosts: &[String]) -> Result<WebPage, Failure> {
        self.within(&format!("getting {url}"), fetch::fetch(url, hosts, &self.lookup, self.limits)).await
    }

    fn can_search(&self) -> bool {
        self.endpoint.is_some()
    }

    async fn search(&self, query: &str) -> Result<Vec<WebHit>, Failure> {
        let Some(endpoint) = &self.endpoint else {
            return Err(Failure::new(Code::InvalidRequest, "this node has nothing to search with")
                .hint("its owner can set `web.search_url`, or `web.search: brave` with a key"));
        };
        self.within("the search", search::search(endpoint, query, self.limits)).await
    }
}

/// A client with nothing of the environment in it, and no redirection of its own accord.
fn client() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    // Whoever was first has set it, and that is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let agent = concat!("helix/", env!("CARGO_PKG_VERSION"));
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).user_agent(agent).pool_max_idle_per_host(0)
}

/// A body up to a limit.
async fn body(mut response: reqwest::Response, what: &str, limit: usize) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        Failure::new(Code::FileTooLarge, format!("{what} is larger than {limit} bytes"))
            .hint("ask for a smaller page, or raise `web.page_kib`")
    };
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(what, &error))? {
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A connection that could not be made, or broke.
fn unreachable(what: &str, error: &reqwest::Error) -> Failure {
    // The error's own words end where it matters: the reason is in its source.
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    Failure::new(Code::WebUnreachable, format!("{what} could not be reached: {reason}")).hint("check the address, or try later")
}
