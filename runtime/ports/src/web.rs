//! The web, for agents that are granted hosts.

use async_trait::async_trait;
use helix_protocol::Failure;

/// A page as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebPage {
    /// The status that the server answered with.
    pub status: u16,
    /// The page; HTML without its markup.
    pub text: String,
}

/// Something a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebHit {
    /// Its title.
    pub title: String,
    /// Where it is.
    pub url: String,
    /// A few words of it.
    pub excerpt: String,
}

/// A way to the web that reaches nothing but what it is told it may.
#[async_trait]
pub trait WebAccess: Send + Sync + 'static {
    /// Gets a page from one of `hosts`; a leading `*.` covers every host below. Every redirection is held against the same list,
    /// and no address of a private network is reached unless `hosts` names it itself. Refused with `invalid_request`.
    async fn fetch(&self, url: &str, hosts: &[String]) -> Result<WebPage, Failure>;

    /// True where the node was given something to search with.
    fn can_search(&self) -> bool;

    /// Searches.
    async fn search(&self, query: &str) -> Result<Vec<WebHit>, Failure>;
}
