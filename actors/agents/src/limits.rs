//! What the agent must know of the models it runs on.

use std::collections::BTreeMap;

use helix_config::{ModelsConfig, ProviderConfig};

/// Sizes of one provider's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Tokens of a whole request, answer included.
    pub context_tokens: u64,
}

impl From<&ProviderConfig> for ModelLimits {
    fn from(config: &ProviderConfig) -> Self {
        Self { max_tokens: config.max_tokens, context_tokens: config.context_tokens }
    }
}

/// Sizes by provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Of tasks that name no provider.
    pub default: ModelLimits,
    /// Of the others.
    pub providers: BTreeMap<String, ModelLimits>,
}

impl AgentLimits {
    /// The limits of a task's models.
    pub fn of(&self, provider: Option<&str>) -> ModelLimits {
        provider.and_then(|name| self.providers.get(name)).copied().unwrap_or(self.default)
    }

    /// From the configuration. `default` is the name of the provider of tasks that name none.
    pub fn new(config: &ModelsConfig, default: &str) -> Self {
        let providers: BTreeMap<String, ModelLimits> =
            config.providers.iter().map(|(name, provider)| (name.clone(), provider.into())).collect();
        let default = providers.get(default).copied().unwrap_or_else(|| (&ProviderConfig::default()).into());
        Self { default, providers }
    }
}
