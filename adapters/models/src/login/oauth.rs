//! A token that was logged in for, refreshed in time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use helix_ports::{FaultScope, ProviderError};
use helix_protocol::{Code, Failure};
use reqwest::Client;
use serde_json::Value;

use super::device::{DeviceEndpoint, post_form, refusal, token_client, token_in};
use super::lease::{Good, Held, Lease, Source};
use super::store::{Stamp, StoredToken, TokenStore};
use crate::{Access, ApiKey, Credentials};

/// The token of one login.
#[derive(Debug)]
pub struct OauthCredentials {
    endpoint: DeviceEndpoint,
    store: TokenStore,
    client: Client,
    held: Held,
}

impl OauthCredentials {
    /// The login of `endpoint` in `store`.
    pub fn new(endpoint: DeviceEndpoint, store: TokenStore) -> Result<Self, Failure> {
        let client = token_client(&endpoint.token_url)?;
        Ok(Self { endpoint, store, client, held: Held::default() })
    }

    fn stored(&self) -> Result<StoredToken, ProviderError> {
        let token = self.store.load(&self.endpoint.name).map_err(ProviderError::Elsewhere)?;
        token.ok_or_else(|| ProviderError::Elsewhere(not_logged_in(&self.endpoint.name)))
    }

    fn lease_of(&self, token: &StoredToken, good: Good, stamp: Option<Stamp>) -> Result<Lease, ProviderError> {
        let key = ApiKey::new(&token.access).ok_or_else(|| ProviderError::Elsewhere(not_logged_in(&self.endpoint.name)))?;
        Ok(Lease { key, base_url: None, good, stamp, unsaved: None })
    }
}

impl Source for OauthCredentials {
    fn stamp(&self) -> Option<Stamp> {
        self.store.stamp(&self.endpoint.name)
    }

    fn kept(&self) -> Result<Option<Lease>, ProviderError> {
        // Before it is read: one that is saved in between is read the next time.
        let stamp = self.stamp();
        let token = self.stored()?;
        self.lease_of(&token, token.expires_at.map_or(Good::UntilRefused, Good::Until), stamp).map(Some)
    }

    fn save_again(&self, lease: &mut Lease) {
        let Some(token) = &lease.unsaved else { return };
        // It was told once that it cannot be saved.
        if let Ok(stamp) = self.store.save(&self.endpoint.name, token) {
            (lease.stamp, lease.unsaved) = (Some(stamp), None);
            tracing::info!(provider = self.endpoint.name, "the new token is saved");
        }
    }

    async fn fetch(&self, unsaved: Option<StoredToken>) -> Result<Lease, ProviderError> {
        let before = self.stamp();
        let old = unsaved.map_or_else(|| self.stored(), Ok)?;
        let name = &self.endpoint.name;
        let Some(refresh) = old.refresh.as_deref() else { return Err(ProviderError::Elsewhere(not_logged_in(name))) };
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", self.endpoint.client_id.as_str())];
        let answer: Value = post_form(&self.client, name, &self.endpoint.token_url, &form).await.map_err(unbilled)?;
        let Some(token) = token_in(&answer, Some(refresh)) else {
            return Err(ProviderError::Elsewhere(
                refusal(name, &answer, "it gave no token").hint(format!("run `helix login {name}` again")),
            ));
        };
        let time = answer.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs);
        let good = time.map_or(Good::UntilRefused, |time| Good::For { given: Instant::now(), time });
        let mut lease = self.lease_of(&token, good, before)?;
        // The one before may be void by now: what is not on the disk is held all the same.
        match self.store.save(name, &token) {
            Ok(stamp) => lease.stamp = Some(stamp),
            Err(failure) => {
                tracing::warn!(provider = name, %failure, "a new token is only in memory: a node that ends now loses the login");
                lease.unsaved = Some(token);
            }
        }
        Ok(lease)
    }
}

#[async_trait]
impl Credentials for OauthCredentials {
    async fn access(&self) -> Result<Access, ProviderError> {
        self.held.access(self).await
    }

    async fn renew(&self, refused: &Access) -> Result<Option<Access>, ProviderError> {
        self.held.renew(refused, self).await.map(Some)
    }

    fn is_ready(&self, _key_env: &str) -> bool {
        self.store.load(&self.endpoint.name).is_ok_and(|token| token.is_some())
    }
}

pub(super) fn not_logged_in(name: &str) -> Failure {
    Failure::new(Code::ModelUnavailable, format!("nobody is logged in to {name}")).hint(format!("run `helix login {name}`"))
}

/// A failure before any model was asked.
pub(super) fn unbilled(failure: Failure) -> ProviderError {
    match failure.code {
        Code::ModelFailed => ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider },
        _ => ProviderError::Elsewhere(failure),
    }
}
