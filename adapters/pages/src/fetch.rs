//! One address, through its redirections.

use std::net::{IpAddr, SocketAddr};

use helix_ports::WebPage;
use helix_protocol::{Code, Failure};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION};

use crate::grant::{host_of, judge};
use crate::{Limits, Lookup, body, client, text, unreachable};

/// Redirections in a row.
const REDIRECTIONS: usize = 5;

/// Gets a page; see [`helix_ports::WebAccess::fetch`].
pub(crate) async fn fetch(url: &str, hosts: &[String], lookup: &Lookup, limits: Limits) -> Result<WebPage, Failure> {
    let mut url = Url::parse(url).map_err(|error| {
        Failure::new(Code::InvalidRequest, format!("{url:?} is not an address: {error}"))
            .hint("give one such as https://docs.rs/tokio")
    })?;
    for _ in 0..=REDIRECTIONS {
        let response = ask(&url, hosts, lookup).await?;
        let Some(next) = redirection(&url, &response)? else { return page(&url, response, limits).await };
        url = next;
    }
    Err(Failure::new(Code::InvalidRequest, format!("more than {REDIRECTIONS} redirections in a row, the last to {url}"))
        .hint("ask for the page where it is now"))
}

/// Asks for exactly this address, at addresses that were judged.
async fn ask(url: &Url, hosts: &[String], lookup: &Lookup) -> Result<reqwest::Response, Failure> {
    let host = host_of(url, hosts)?;
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => look_up(&host, lookup).await?,
    };
    for address in &addresses {
        judge(&host, *address, hosts)?;
    }
    let judged: Vec<SocketAddr> = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
    // The client knows these addresses for any name and asks nobody else. It keeps no connection, so none outlives its judgement.
    let client = client().dns_resolver(Judged(judged)).build().map_err(|error| unreachable(url.as_str(), &error))?;
    let accepted = "text/html, text/markdown, text/plain, application/json;q=0.9, */*;q=0.1";
    client.get(url.clone()).header(ACCEPT, accepted).send().await.map_err(|error| unreachable(url.as_str(), &error))
}

/// Knows nothing but addresses that were judged.
struct Judged(Vec<SocketAddr>);

impl Resolve for Judged {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

async fn look_up(host: &str, lookup: &Lookup) -> Result<Vec<IpAddr>, Failure> {
    let failed = |reason: String| {
        Failure::new(Code::WebUnreachable, format!("the name {host} could not be looked up: {reason}"))
            .hint("check how it is written")
    };
    match lookup(host.to_owned()).await {
        Ok(addresses) if addresses.is_empty() => Err(failed("it has no address".to_owned())),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Where an answer sends on to.
fn redirection(url: &Url, response: &reqwest::Response) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(target) = header(response.headers(), LOCATION) else { return Ok(None) };
    let next = url.join(target).map_err(|error| {
        Failure::new(Code::InvalidRequest, format!("{url} sends on to {target:?}, which is not an address: {error}"))
    })?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(Failure::new(Code::InvalidRequest, format!("{url} sends on to {next}, which is not encrypted"))
            .hint("ask for that address itself if you want it as it is"));
    }
    Ok(Some(next))
}

async fn page(url: &Url, response: reqwest::Response, limits: Limits) -> Result<WebPage, Failure> {
    let status = response.status().as_u16();
    let kind = header(response.headers(), CONTENT_TYPE).unwrap_or_default().to_owned();
    // Refused before it is read: what it is will not change.
    text::can_show(url.as_str(), &kind)?;
    if let Some(coding) = header(response.headers(), CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let message = format!("{url} is sent compressed ({coding}) although that was not asked for");
        return Err(Failure::new(Code::InvalidRequest, message).hint("look for the same elsewhere"));
    }
    let body = body(response, url.as_str(), limits.bytes).await?;
    let named = url.clone();
    // A large page keeps a thread busy for a while.
    let shown = tokio::task::spawn_blocking(move || text::text_of(named.as_str(), &kind, &body)).await;
    let text = shown.map_err(|_| Failure::new(Code::InvalidRequest, format!("{url} could not be made text")))??;
    Ok(WebPage { status, text })
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}
