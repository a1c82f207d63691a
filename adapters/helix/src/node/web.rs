//! From the configuration to the way to the web that agents have.

use std::sync::Arc;
use std::time::Duration;

use helix_adapter_pages::{Endpoint, EndpointKind, Limits, Pages};
use helix_config::{SearchKind, WebConfig};
use helix_ports::WebAccess;

/// Where Brave answers.
const BRAVE: &str = "https://api.search.brave.com";

/// The way to the web. What may be reached is each task's own grant.
pub fn web(config: &WebConfig) -> Arc<dyn WebAccess> {
    let limits = Limits {
        time: Duration::from_millis(config.timeout_ms),
        bytes: usize::try_from(config.page_kib << 10).unwrap_or(usize::MAX),
    };
    Arc::new(Pages::new(limits, endpoint(config)))
}

fn endpoint(config: &WebConfig) -> Option<Endpoint> {
    let (kind, usual) = match config.search {
        SearchKind::None => return None,
        SearchKind::Searxng => (EndpointKind::Searxng, ""),
        SearchKind::Brave => (EndpointKind::Brave, BRAVE),
    };
    let url = if config.search_url.is_empty() { usual } else { &config.search_url };
    let key = (!config.search_key_env.is_empty()).then(|| std::env::var(&config.search_key_env).ok()).flatten();
    if key.is_none() && !config.search_key_env.is_empty() {
        tracing::warn!(variable = config.search_key_env, "the search's key is not in the environment; web_search is off");
        return None;
    }
    Some(Endpoint { kind, url: url.to_owned(), key })
}
