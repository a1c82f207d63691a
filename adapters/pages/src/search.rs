//! Searching at the endpoint that the node's owner configured. It is theirs, so it may be anywhere; what it
//! finds is not fetched here.

use helix_ports::WebHit;
use helix_protocol::{Code, Failure};
use serde::Deserialize;

use crate::{Limits, body, client, unreachable};

/// So many hits are told.
pub(crate) const HITS: usize = 10;

/// What answers searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// SearXNG's JSON: `GET URL/search?q=…&format=json`.
    Searxng,
    /// Brave's API: `GET URL/res/v1/web/search?q=…`.
    Brave,
}

/// Where searches go.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is asked.
    pub kind: EndpointKind,
    /// Its base URL.
    pub url: String,
    /// The key, where it wants one.
    pub key: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's to print.
        f.debug_struct("Endpoint").field("kind", &self.kind).field("url", &self.url).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    results: Vec<Found>,
    web: Web,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Web {
    results: Vec<Found>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    title: Option<String>,
    url: Option<String>,
    #[serde(alias = "description")]
    content: Option<String>,
}

/// Asks; see [`helix_ports::WebAccess::search`].
pub(crate) async fn search(endpoint: &Endpoint, query: &str, limits: Limits) -> Result<Vec<WebHit>, Failure> {
    let query = query.trim();
    if query.is_empty() {
        return Err(Failure::new(Code::InvalidRequest, "there is nothing to search for").hint("say it in `query`"));
    }
    let client = client().build().map_err(|error| unreachable("the search", &error))?;
    let base = endpoint.url.trim_end_matches('/');
    let request = match endpoint.kind {
        EndpointKind::Searxng => client.get(format!("{base}/search")).query(&[("q", query), ("format", "json")]),
        EndpointKind::Brave => client.get(format!("{base}/res/v1/web/search")).query(&[("q", query), ("count", "10")]),
    };
    let request = match (&endpoint.key, endpoint.kind) {
        (Some(key), EndpointKind::Brave) => request.header("x-subscription-token", key),
        (Some(key), EndpointKind::Searxng) => request.bearer_auth(key),
        (None, _) => request,
    };
    let response = request.send().await.map_err(|error| unreachable("the search", &error.without_url()))?;
    let status = response.status();
    let body = body(response, "the search's answer", limits.bytes).await?;
    if !status.is_success() {
        let hint = match (status.as_u16(), endpoint.kind) {
            (403, EndpointKind::Searxng) => {
                "the node's owner has to allow the format json in SearXNG's settings (`search.formats`)"
            }
            (401 | 403, _) => "the node's owner has to look at the key (`web.search_key_env`)",
            (429, _) => "too many searches; try later",
            _ => "the node's owner has to look at `web.search_url`",
        };
        return Err(Failure::new(Code::WebUnreachable, format!("the search answered {status}")).hint(hint));
    }
    read(&body)
}

/// What an answer found.
pub(crate) fn read(body: &[u8]) -> Result<Vec<WebHit>, Failure> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        Failure::new(Code::WebUnreachable, format!("the search's answer is not understood: {error}"))
            .hint("the node's owner has to look at `web.search` and `web.search_url`")
    })?;
    Ok(hits(answer))
}

fn hits(answer: Answer) -> Vec<WebHit> {
    let found = answer.results.into_iter().chain(answer.web.results);
    let hit = |found: Found| {
        let url = found.url.filter(|url| !url.is_empty())?;
        Some(WebHit { title: plain(&found.title.unwrap_or_default()), url, excerpt: plain(&found.content.unwrap_or_default()) })
    };
    found.filter_map(hit).take(HITS).collect()
}

/// Excerpts mark what was found with tags, and write some characters as entities.
fn plain(text: &str) -> String {
    if !text.contains(['<', '&']) {
        return text.to_owned();
    }
    html2text::config::plain_no_decorate()
        .string_from_read(text.as_bytes(), 10_000)
        .map_or_else(|_| text.to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_answers_are_read_and_their_markup_is_gone() {
        let hit = |title: &str| WebHit { title: title.to_owned(), url: "https://a".to_owned(), excerpt: "a < b".to_owned() };
        for (json, title) in [
            (
                r#"{"results": [{"title": "A", "url": "https://a", "content": "a &lt; <strong>b</strong>", "score": 1}, {"title": "no address"}]}"#,
                "A",
            ),
            (
                r#"{"web": {"results": [{"title": "B", "url": "https://a", "description": "a &lt; <b>b</b>"}]}, "type": "search"}"#,
                "B",
            ),
        ] {
            assert_eq!(hits(serde_json::from_str(json).expect("an answer")), [hit(title)]);
        }
        assert_eq!(hits(serde_json::from_str("{}").expect("an answer")), []);
    }

    #[test]
    fn a_key_is_not_printed() {
        let endpoint = Endpoint { kind: EndpointKind::Brave, url: "u".to_owned(), key: Some("s3cret".to_owned()) };
        assert!(!format!("{endpoint:?}").contains("s3cret"));
    }
}
