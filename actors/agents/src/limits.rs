//! What the agent must know of the models it runs on.

use std::collections::BTreeMap;

use helix_config::{ModelTable, ModelsConfig, ProviderConfig};

/// Most tokens asked for where nobody configured a limit.
const MOST_ASKED: u32 = 32_000;

/// Sizes of one provider's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Tokens of a whole request, answer included.
    pub context_tokens: u64,
}

impl ModelLimits {
    /// Those of the provider's own model, by the capability table where the provider's configuration says nothing.
    fn of(provider: &ProviderConfig, table: &ModelTable) -> Self {
        let entry = provider.model_entry(table, &provider.model);
        let output = entry.output_tokens.unwrap_or(4_096);
        // An answer's most is reserved before each call, and few turns come near what the largest models can write.
        let most = if provider.max_tokens > 0 { u32::MAX } else { MOST_ASKED };
        Self {
            max_tokens: u32::try_from(output).unwrap_or(u32::MAX).min(most),
            context_tokens: entry.context_tokens.unwrap_or(128_000),
        }
    }

    /// Tokens that a conversation may have.
    pub fn room(self) -> u64 {
        self.context_tokens.saturating_sub(u64::from(self.max_tokens))
    }
}

/// Sizes by provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Of tasks that name no provider.
    pub default: ModelLimits,
    /// Of the others.
    pub providers: BTreeMap<String, ModelLimits>,
    /// The models of tasks that name none, by provider; under the empty name that of tasks that name no provider either.
    pub models: BTreeMap<String, String>,
}

impl AgentLimits {
    /// The limits of a task's models.
    pub fn of(&self, provider: Option<&str>) -> ModelLimits {
        provider.and_then(|name| self.providers.get(name)).copied().unwrap_or(self.default)
    }

    /// The model that a task runs on, as far as the configuration says; empty where it does not.
    pub fn model<'a>(&'a self, provider: Option<&str>, model: Option<&'a str>) -> &'a str {
        model.or_else(|| self.models.get(provider.unwrap_or_default()).map(String::as_str)).unwrap_or_default()
    }

    /// From the configuration. `default` is the name of the provider of tasks that name none.
    pub fn new(config: &ModelsConfig, default: &str) -> Self {
        let table = config.table();
        let mut providers: BTreeMap<String, ModelLimits> =
            config.providers.iter().map(|(name, provider)| (name.clone(), ModelLimits::of(provider, &table))).collect();
        // The router gives a turn to a deployment that it fits, so a group takes what its largest takes.
        let groups = config.groups.iter().filter_map(|(name, group)| {
            let limits = || group.deployments.iter().filter_map(|one| providers.get(&one.provider));
            let max_tokens = limits().map(|limits| limits.max_tokens).min()?;
            let context_tokens = limits().map(|limits| limits.context_tokens).max()?;
            Some((name.clone(), ModelLimits { max_tokens, context_tokens }))
        });
        let groups: Vec<_> = groups.collect();
        providers.extend(groups);
        let usual = || ModelLimits::of(&ProviderConfig::default(), &table);
        let mut models: BTreeMap<String, String> =
            config.providers.iter().map(|(name, provider)| (name.clone(), provider.model.clone())).collect();
        if let Some(model) = models.get(default).cloned() {
            models.insert(String::new(), model);
        }
        let default = providers.get(default).copied().unwrap_or_else(usual);
        Self { default, providers, models }
    }
}
