//! What one provider is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use helix_ports::TokenPrice;

use crate::ModelLookup;

/// What stands in a key's place.
pub(crate) const MASK: &str = "[key]";

/// A key that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; `None` where `text` is blank, which is how an unset variable often looks.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The key itself, for the one header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without the key: providers like to quote it in their refusals.
    pub(crate) fn mask(&self, text: &str) -> String {
        let masked = text.replace(&self.0, MASK);
        if self.0.contains('/') { masked.replace(&self.escaped(), MASK) } else { masked }
    }

    /// The ways in which a JSON document may write it.
    pub(crate) fn written(&self) -> impl Iterator<Item = Vec<u8>> {
        let escaped = self.0.contains('/').then(|| self.escaped().into_bytes());
        std::iter::once(self.0.clone().into_bytes()).chain(escaped)
    }

    /// Some write each slash with a backslash before it.
    fn escaped(&self) -> String {
        self.0.replace('/', "\\/")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([hidden])")
    }
}

/// One base URL with one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its name in the configuration.
    pub name: String,
    /// The base URL, `/v1` included.
    pub base_url: String,
    /// The environment variable that should hold the key; empty for a server without keys. Only for what people are told.
    pub key_env: String,
    /// The key, where one was found.
    pub key: Option<ApiKey>,
    /// The model of requests that name none.
    pub model: String,
    /// What is known of its models.
    pub models: ModelLookup,
    /// Tokens of a whole request that the models take; 0 for what is known of each.
    pub context_tokens: u64,
    /// Most tokens of an answer; 0 for what is known of each model.
    pub max_tokens: u32,
    /// Sampling temperature of requests that name none.
    pub temperature: Option<f64>,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long a call may take without a byte arriving.
    pub idle_timeout: Duration,
    /// How long a whole call may take.
    pub call_timeout: Duration,
    /// Most bytes of one streamed event.
    pub event_bytes: usize,
    /// Most bytes of a whole answer.
    pub answer_bytes: usize,
    /// Prices by model; they win over what is known of it.
    pub prices: BTreeMap<String, TokenPrice>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "openai".to_owned(),
            base_url: "https://api.openai.com/v1".to_owned(),
            key_env: "OPENAI_API_KEY".to_owned(),
            key: None,
            model: String::new(),
            models: ModelLookup::default(),
            context_tokens: 128_000,
            max_tokens: 4_096,
            temperature: None,
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            call_timeout: Duration::from_secs(900),
            event_bytes: 4 << 20,
            answer_bytes: 64 << 20,
            prices: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let settings = Settings { key: ApiKey::new(" sk-secret\n"), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("secret"));
        let key = settings.key.expect("a key");
        assert_eq!(key.expose(), "sk-secret");
        assert_eq!(key.mask("wrong key sk-secret!"), "wrong key [key]!");
    }

    #[test]
    fn a_blank_key_is_no_key() {
        assert_eq!(ApiKey::new("  "), None);
    }
}
