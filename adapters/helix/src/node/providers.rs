//! From the configuration's providers to the ones the models branch runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helix_actor_models::{Limits, ProviderArgs};
use helix_adapter_models::chat::ChatCompletions;
use helix_adapter_models::{ApiKey, HttpProvider, Settings, price_per_million};
use helix_config::{ModelsConfig, PriceConfig, ProviderConfig};
use helix_ports::TokenPrice;
use helix_protocol::Failure;

/// The provider that exists without being configured.
const DEFAULT_PROVIDER: &str = "openai";

/// Every provider, and the name of the one that answers where a task names none.
pub fn providers(config: &ModelsConfig) -> Result<(Vec<ProviderArgs>, String), Failure> {
    let mut configured = config.providers.clone();
    if configured.is_empty() {
        configured.insert(DEFAULT_PROVIDER.to_owned(), ProviderConfig::default());
    }
    let default = match (config.default_provider.as_str(), configured.keys().next()) {
        ("", Some(only)) if configured.len() == 1 => only.clone(),
        ("", _) => DEFAULT_PROVIDER.to_owned(),
        (named, _) => named.to_owned(),
    };
    let providers = configured.iter().map(|(name, config)| provider(name, config)).collect::<Result<_, _>>()?;
    Ok((providers, default))
}

fn provider(name: &str, config: &ProviderConfig) -> Result<ProviderArgs, Failure> {
    let key = (!config.key_env.is_empty()).then(|| std::env::var(&config.key_env).ok()).flatten();
    let settings = Settings {
        name: name.to_owned(),
        base_url: config.base_url.clone(),
        key_env: config.key_env.clone(),
        key: key.as_deref().and_then(ApiKey::new),
        model: config.model.clone(),
        context_tokens: config.context_tokens,
        max_tokens: config.max_tokens,
        temperature: config.temperature,
        idle_timeout: Duration::from_millis(config.idle_timeout_ms),
        call_timeout: Duration::from_millis(config.call_timeout_ms),
        prices: prices(&config.prices),
        ..Settings::default()
    };
    let format = ChatCompletions::at(&config.base_url);
    Ok(ProviderArgs {
        provider: Arc::new(HttpProvider::new(settings, format)?),
        base_url: config.base_url.clone(),
        model: config.model.clone(),
        limits: Limits::from(config),
    })
}

fn prices(configured: &BTreeMap<String, PriceConfig>) -> BTreeMap<String, TokenPrice> {
    let price = |price: &PriceConfig| price_per_million(price.input, price.cached, price.output);
    configured.iter().map(|(model, found)| (model.clone(), price(found))).collect()
}
