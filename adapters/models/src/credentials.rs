//! Keys that may change while a provider lives.

use std::fmt;

use async_trait::async_trait;
use helix_ports::ProviderError;

use crate::ApiKey;

/// What a call is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The key, where one is needed.
    pub key: Option<ApiKey>,
    /// Where the service is, in place of the configured base URL.
    pub base_url: Option<String>,
}

/// Gives a provider the key of each call.
///
/// A key that was refused with 401 is renewed once, and the call repeated: nothing was billed. That is also how a clock that jumped
/// over a token's expiry is recovered from.
#[async_trait]
pub trait Credentials: fmt::Debug + Send + Sync + 'static {
    /// What to call with now. May fetch a token where the last one is nearly used up.
    async fn access(&self) -> Result<Access, ProviderError>;
    /// `refused` was not accepted. Another key, or `None` where there is none to be had.
    async fn renew(&self, refused: &Access) -> Result<Option<Access>, ProviderError>;
    /// True where a key is there, or can be had without a person. `key_env` is the variable that should hold it; empty for a server
    /// without keys.
    fn is_ready(&self, key_env: &str) -> bool;
}

/// A key out of the environment: it is what it is.
#[derive(Clone, Debug)]
pub(crate) struct StaticKey(pub Option<ApiKey>);

#[async_trait]
impl Credentials for StaticKey {
    async fn access(&self) -> Result<Access, ProviderError> {
        Ok(Access { key: self.0.clone(), base_url: None })
    }

    async fn renew(&self, _refused: &Access) -> Result<Option<Access>, ProviderError> {
        Ok(None)
    }

    fn is_ready(&self, key_env: &str) -> bool {
        key_env.is_empty() || self.0.is_some()
    }
}
