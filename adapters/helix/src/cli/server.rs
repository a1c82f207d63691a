//! `--base-url`: a model server that no configuration file names.
//!
//! Model servers belong to the node: it holds the keys and counts the calls. So the URL goes to a node that is being started, and a
//! node that runs already is asked whether it knows the server.

use helix_adapter_http::api::ProviderList;
use helix_protocol::{Code, Failure};

use crate::client::Client;

/// What a node that is started for this server finds in its environment.
/// Refused with `invalid_request` where it is no address: the node would refuse it too, and not start.
pub(super) fn variables(url: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::new(Code::InvalidRequest, format!("--base-url is {url:?}"))
            .hint("it must be an http:// or https:// address, usually ending in /v1"));
    }
    let mut variables = vec![("OPENAI_BASE_URL", url.to_owned())];
    if std::env::var_os("OPENAI_API_KEY").is_none_or(|key| key.is_empty()) {
        // The provider insists on a key; a server without any takes whatever comes.
        variables.push(("OPENAI_API_KEY", "none".to_owned()));
    }
    Ok(variables)
}

/// The running node's name for the server.
pub(super) async fn provider(client: &Client, url: &str) -> Result<String, Failure> {
    let known: ProviderList = client.get("/models").await?;
    let same = |other: &str| other.trim_end_matches('/') == url.trim_end_matches('/');
    match known.providers.into_iter().find(|provider| same(&provider.base_url)) {
        Some(provider) => Ok(provider.name),
        None => Err(Failure::new(Code::InvalidRequest, format!("the running node has no model server at {url}")).hint(
            "`helix down`, then this again; or name it for good below llm.providers in helix.yaml, restart the node, and use --provider",
        )),
    }
}
