//! GitHub Copilot: a GitHub token is exchanged for one that is good for half an hour and says where the service is.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use helix_ports::ProviderError;
use helix_protocol::{Code, Failure};
use reqwest::Client;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde_json::Value;

use super::device::{ask, token_client};
use super::lease::{Good, Held, Lease, Source, wall};
use super::oauth::{not_logged_in, unbilled};
use super::store::{Stamp, StoredToken, TokenStore};
use crate::{Access, ApiKey, Credentials};

/// A token without a word about its age is replaced after so long.
const USUAL: Duration = Duration::from_secs(25 * 60);

/// Short-lived tokens of one GitHub account.
#[derive(Debug)]
pub struct CopilotCredentials {
    name: String,
    github: Option<ApiKey>,
    store: Option<TokenStore>,
    exchange_url: String,
    client: Client,
    held: Held,
}

impl CopilotCredentials {
    /// For the provider `name`: by `github`, or else by the login in `store`. `host` is
    /// `https://api.github.com`, or a company's own.
    pub fn new(name: &str, github: Option<ApiKey>, store: Option<TokenStore>, host: &str) -> Result<Self, Failure> {
        let exchange_url = format!("{}/copilot_internal/v2/token", host.trim_end_matches('/'));
        let client = token_client(&exchange_url)?;
        Ok(Self { name: name.to_owned(), github, store, exchange_url, client, held: Held::default() })
    }

    fn github(&self) -> Result<ApiKey, ProviderError> {
        if let Some(key) = &self.github {
            return Ok(key.clone());
        }
        let stored = match &self.store {
            Some(store) => store.load(&self.name).map_err(ProviderError::Elsewhere)?,
            None => None,
        };
        let key = stored.and_then(|token| ApiKey::new(&token.access));
        key.ok_or_else(|| ProviderError::Elsewhere(not_logged_in(&self.name)))
    }

    async fn exchange(&self) -> Result<Lease, ProviderError> {
        let stamp = self.stamp();
        let github = self.github()?;
        let header = HeaderValue::from_str(&format!("token {}", github.expose())).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let header = header.map_err(|_| ProviderError::Elsewhere(not_logged_in(&self.name)))?;
        let call = self.client.get(&self.exchange_url).header(AUTHORIZATION, header).header(ACCEPT, "application/json");
        let call = call.header("editor-version", concat!("helix/", env!("CARGO_PKG_VERSION")));
        let answer = ask(&self.name, call).await.map_err(unbilled)?;
        self.lease_of(&answer, &github, stamp)
    }

    /// What calls would be made with by an answer; for fuzzing.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn access_in(&self, answer: &Value, github: &ApiKey) -> Result<(Access, bool), ProviderError> {
        let lease = self.lease_of(answer, github, None)?;
        Ok((Access { key: Some(lease.key.clone()), base_url: lease.base_url.clone() }, lease.is_fresh(Instant::now(), wall())))
    }

    fn lease_of(&self, answer: &Value, github: &ApiKey, stamp: Option<Stamp>) -> Result<Lease, ProviderError> {
        let Some(key) = answer.get("token").and_then(Value::as_str).and_then(ApiKey::new) else {
            let said = answer.pointer("/error_details/message").or_else(|| answer.get("message")).and_then(Value::as_str);
            let said = github.mask(said.unwrap_or("it gave no token"));
            let failure = Failure::new(Code::ModelRefused, format!("GitHub gives no token for {}: {said}", self.name));
            return Err(ProviderError::Elsewhere(
                failure.hint(format!("the account needs Copilot; run `helix login {}` if it has it", self.name)),
            ));
        };
        let seconds = |field: &str| answer.get(field).and_then(Value::as_u64);
        // The span is as long on any clock; the hour of expiry only on one that is right.
        let by_hour =
            answer.get("expires_at").and_then(Value::as_i64).and_then(|expiry| u64::try_from(expiry.saturating_sub(wall())).ok());
        let time = seconds("refresh_in").or(by_hour).filter(|time| *time > 0).map_or(USUAL, Duration::from_secs);
        let base_url = answer.pointer("/endpoints/api").and_then(Value::as_str).map(str::to_owned);
        Ok(Lease { key, base_url, good: Good::For { given: Instant::now(), time }, stamp, unsaved: None })
    }
}

impl Source for CopilotCredentials {
    /// Of no file where the account's own token is configured.
    fn stamp(&self) -> Option<Stamp> {
        self.store.as_ref().filter(|_| self.github.is_none())?.stamp(&self.name)
    }

    /// What is kept is the account's own token, with which no call is made.
    fn kept(&self) -> Result<Option<Lease>, ProviderError> {
        Ok(None)
    }

    fn save_again(&self, _lease: &mut Lease) {}

    async fn fetch(&self, _unsaved: Option<StoredToken>) -> Result<Lease, ProviderError> {
        self.exchange().await
    }
}

#[async_trait]
impl Credentials for CopilotCredentials {
    async fn access(&self) -> Result<Access, ProviderError> {
        self.held.access(self).await
    }

    async fn renew(&self, refused: &Access) -> Result<Option<Access>, ProviderError> {
        self.held.renew(refused, self).await.map(Some)
    }

    fn is_ready(&self, _key_env: &str) -> bool {
        self.github().is_ok()
    }
}
