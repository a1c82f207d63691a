//! From the configuration's providers to the ones the models branch runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helix_actor_models::{Limits, ProviderArgs};
use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::chat::{ChatCompletions, ThinkingField};
use helix_adapter_models::gemini::Gemini;
use helix_adapter_models::login::{CopilotCredentials, DeviceEndpoint, OauthCredentials, TokenStore};
use helix_adapter_models::ollama::Ollama;
use helix_adapter_models::responses::Responses;
use helix_adapter_models::servers::{Copilot, LlamaCpp, OpenAi, OpenRouter};
use helix_adapter_models::{ApiKey, HttpProvider, ModelFacts, ModelLookup, Settings, dollars, price_per_million};
use helix_config::{ModelEntry, ModelPrice, ModelTable, ModelsConfig, PriceConfig, ProviderConfig, ProviderKind};
use helix_ports::{ModelCapabilities, TokenPrice};
use helix_protocol::Failure;

/// Where a GitHub token is exchanged for Copilot's.
const GITHUB_API: &str = "https://api.github.com";

/// Every provider, and the name of the one that answers where a task names none.
pub fn providers(config: &ModelsConfig) -> Result<(Vec<ProviderArgs>, String), Failure> {
    let all = config.all_providers(&|name| std::env::var(name).ok());
    let default = config.default_of(&all);
    let table = Arc::new(config.table());
    let providers = all.iter().map(|(name, config)| provider(name, config, &table)).collect::<Result<_, _>>()?;
    Ok((providers, default))
}

fn provider(name: &str, config: &ProviderConfig, table: &Arc<ModelTable>) -> Result<ProviderArgs, Failure> {
    let key = (!config.key_env.is_empty()).then(|| std::env::var(&config.key_env).ok()).flatten();
    let settings = Settings {
        name: name.to_owned(),
        base_url: config.base_url.clone(),
        key_env: config.key_env.clone(),
        key: key.as_deref().and_then(ApiKey::new),
        model: config.model.clone(),
        models: lookup(config, table),
        context_tokens: config.context_tokens,
        max_tokens: config.max_tokens,
        temperature: config.temperature,
        idle_timeout: Duration::from_millis(config.idle_timeout_ms),
        call_timeout: Duration::from_millis(config.call_timeout_ms),
        prices: prices(&config.prices),
        ..Settings::default()
    };
    let by_login = logged_in(name, config, &settings)?;
    let provider = speaking(config, settings)?;
    let provider = match by_login {
        Some(credentials) => provider.with_credentials(credentials),
        None => provider,
    };
    Ok(ProviderArgs {
        provider: Arc::new(provider),
        base_url: config.base_url.clone(),
        model: config.model.clone(),
        limits: Limits::from(config),
    })
}

/// Tokens of logins, as `helix login` keeps them.
pub fn logins() -> Option<TokenStore> {
    TokenStore::of_user(&|name| std::env::var(name).ok())
}

/// Where a provider is logged in to; `None` where it takes a key and nothing else.
pub fn login_endpoint(name: &str, config: &ProviderConfig) -> Option<DeviceEndpoint> {
    let place = config.login_place()?;
    Some(DeviceEndpoint {
        name: name.to_owned(),
        device_url: place.device_url,
        token_url: place.token_url,
        client_id: config.client_id.clone(),
        scope: place.scope,
        // The code host refuses nothing that it does not know, and takes no proof key.
        pkce: config.kind != ProviderKind::Copilot,
    })
}

/// The token of a login, where that is what the provider is called with: a key goes before it, and Copilot exchanges its own.
fn logged_in(name: &str, config: &ProviderConfig, settings: &Settings) -> Result<Option<OauthCredentials>, Failure> {
    if settings.key.is_some() || config.client_id.is_empty() || config.kind == ProviderKind::Copilot {
        return Ok(None);
    }
    let (Some(endpoint), Some(store)) = (login_endpoint(name, config), logins()) else { return Ok(None) };
    OauthCredentials::new(endpoint, store).map(Some)
}

/// The provider in the format of its kind.
fn speaking(config: &ProviderConfig, settings: Settings) -> Result<HttpProvider, Failure> {
    match config.kind {
        ProviderKind::OpenaiResponses if OpenAi::is_at(&config.base_url) => HttpProvider::new(settings, OpenAi),
        ProviderKind::OpenaiResponses | ProviderKind::Xai => HttpProvider::new(settings, Responses),
        ProviderKind::Ollama => HttpProvider::new(settings, Ollama),
        ProviderKind::LlamaCpp => HttpProvider::new(settings, LlamaCpp::at(&config.base_url)),
        ProviderKind::Openrouter => HttpProvider::new(settings, OpenRouter::new(config.fallback_models.clone())),
        ProviderKind::Copilot => {
            let credentials = CopilotCredentials::new(&settings.name, settings.key.clone(), logins(), GITHUB_API)?;
            Ok(HttpProvider::new(settings, Copilot::default())?.with_credentials(credentials))
        }
        ProviderKind::Qwen => {
            let format = ChatCompletions { thinking: ThinkingField::EnableThinking, ..ChatCompletions::at(&config.base_url) };
            HttpProvider::new(settings, format)
        }
        ProviderKind::Anthropic => HttpProvider::new(settings, AnthropicMessages),
        ProviderKind::Gemini => {
            let safety = config.safety.iter().map(|(category, threshold)| (category.wire(), threshold.wire()));
            HttpProvider::new(settings, Gemini::with_safety(safety.collect()))
        }
        ProviderKind::OpenaiCompatible | ProviderKind::Openai => HttpProvider::new(settings, ChatCompletions::at(&config.base_url)),
    }
}

fn prices(configured: &BTreeMap<String, PriceConfig>) -> BTreeMap<String, TokenPrice> {
    let price = |price: &PriceConfig| price_per_million(price.input, price.cached, price.output);
    configured.iter().map(|(model, found)| (model.clone(), price(found))).collect()
}

/// What the capability table says of a provider's models.
fn lookup(config: &ProviderConfig, table: &Arc<ModelTable>) -> ModelLookup {
    let (kind, table) = (config.kind, Arc::clone(table));
    ModelLookup::new(move |model| {
        let knows_size = table.knows_size(kind.name(), model);
        ModelFacts { knows_size, ..facts(&table.of(kind.name(), model)) }
    })
}

fn facts(entry: &ModelEntry) -> ModelFacts {
    let usual = ModelCapabilities::default();
    let capabilities = ModelCapabilities {
        tools: entry.tools.unwrap_or(usual.tools),
        forced_tools: entry.forced_tools.unwrap_or(usual.forced_tools),
        parallel_tools: entry.parallel_tools.unwrap_or(usual.parallel_tools),
        streaming: entry.streaming.unwrap_or(usual.streaming),
        images: entry.images.unwrap_or(usual.images),
        sampling: entry.sampling.unwrap_or(usual.sampling),
        json_output: entry.json_output.unwrap_or(usual.json_output),
        thinking: entry.thinking.unwrap_or(usual.thinking),
        efforts: entry.efforts.clone().unwrap_or(usual.efforts),
        least_budget: entry.least_budget.unwrap_or(usual.least_budget),
        cache_markers: entry.cache_markers.unwrap_or(usual.cache_markers),
        cache_least: entry.cache_least.unwrap_or(usual.cache_least),
        context_tokens: entry.context_tokens.unwrap_or(usual.context_tokens),
        output_tokens: entry.output_tokens.unwrap_or(usual.output_tokens),
        image_tokens: entry.image_tokens.unwrap_or(usual.image_tokens),
    };
    let long_price = entry.long_price.map(|long| (long.above, price(&long.price)));
    ModelFacts { capabilities, price: entry.price.as_ref().map(price), long_price, ..ModelFacts::default() }
}

fn price(price: &ModelPrice) -> TokenPrice {
    let cache_write = price.cache_write.unwrap_or(price.input);
    TokenPrice {
        input: dollars(price.input),
        cached: dollars(price.cached.unwrap_or(price.input)),
        cache_write: dollars(cache_write),
        cache_write_1h: dollars(price.cache_write_1h.unwrap_or(cache_write)),
        output: dollars(price.output),
    }
}
