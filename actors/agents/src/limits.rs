//! What the agent must know of the models it runs on: how large they are, and what they are called.
//!
//! Only what is configured counts, and never what a server said a moment ago: a step that is made again must decide as it did.

use std::collections::BTreeMap;

use helix_config::{GroupConfig, ModelNames, ModelTable, ModelsConfig, ProviderConfig, ProviderKind};

/// Most tokens asked for where nobody configured a limit.
const MOST_ASKED: u32 = 32_000;
/// What a server on one's own machine is asked to take where nobody configured it, however much its model could.
const USUAL_OF_SERVERS: u64 = 32_768;

/// Sizes of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Tokens of a whole request, answer included.
    pub context_tokens: u64,
}

impl ModelLimits {
    /// Those of a provider's model, by the capability table where the provider's configuration says nothing.
    fn of(provider: &ProviderConfig, table: &ModelTable, model: &str) -> Self {
        let entry = provider.model_entry(table, model);
        let context_tokens = match entry.context_tokens.unwrap_or(128_000) {
            known if provider.context_tokens == 0 && is_server(provider.kind) => known.min(USUAL_OF_SERVERS),
            known => known,
        };
        // An answer's most is reserved before each call, and few turns come near what the largest models can write.
        let most = if provider.max_tokens > 0 { u32::MAX } else { MOST_ASKED };
        let output = u32::try_from(entry.output_tokens.unwrap_or(4_096)).unwrap_or(u32::MAX);
        // At least half is left for what is asked, or nothing could be.
        let half = u32::try_from(context_tokens / 2).unwrap_or(u32::MAX);
        Self { max_tokens: output.min(most).min(half), context_tokens }
    }

    /// Tokens that a conversation may have.
    pub fn room(self) -> u64 {
        self.context_tokens.saturating_sub(u64::from(self.max_tokens))
    }
}

/// True of servers that take as much as they were set up for, and cut silently what is more.
fn is_server(kind: ProviderKind) -> bool {
    matches!(kind, ProviderKind::Ollama | ProviderKind::LlamaCpp)
}

/// What is known of every model that a task can name.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentLimits {
    providers: BTreeMap<String, ProviderConfig>,
    groups: BTreeMap<String, GroupConfig>,
    table: ModelTable,
    names: ModelNames,
    /// Who answers tasks that name nobody.
    default: String,
}

impl AgentLimits {
    /// From the configuration, and the providers that exist because `env` has their keys.
    pub fn new(config: &ModelsConfig, env: &impl Fn(&str) -> Option<String>) -> Self {
        let providers = config.all_providers(env);
        let default = config.default_of(&providers);
        let models = providers.iter().map(|(name, provider)| (name.clone(), provider.model.clone())).collect();
        let names = ModelNames::new(models, &config.groups, default.clone());
        Self { providers, groups: config.groups.clone(), table: config.table(), names, default }
    }

    /// The limits of a task's model. The router gives a turn to a deployment that it fits, so a group takes what its largest takes.
    pub fn of(&self, provider: Option<&str>, model: Option<&str>) -> ModelLimits {
        let deployments = self.deployments(provider, model);
        let limits = || deployments.iter().map(|(provider, model)| ModelLimits::of(provider, &self.table, model));
        let unknown = || ModelLimits::of(&ProviderConfig::default(), &self.table, "");
        let (Some(max_tokens), Some(context_tokens)) =
            (limits().map(|limits| limits.max_tokens).min(), limits().map(|limits| limits.context_tokens).max())
        else {
            return unknown();
        };
        ModelLimits { max_tokens, context_tokens }
    }

    /// Whether a task's model takes pictures; of a group, whether any of its deployments does, to which the router gives them.
    pub fn takes_pictures(&self, provider: Option<&str>, model: Option<&str>) -> bool {
        let takes = |(provider, model): (&ProviderConfig, &str)| provider.model_entry(&self.table, model).images == Some(true);
        self.deployments(provider, model).into_iter().any(takes)
    }

    /// The model that a task runs on, as far as the configuration says; empty where it does not.
    pub fn model<'a>(&'a self, provider: Option<&'a str>, model: Option<&'a str>) -> &'a str {
        self.deployments(provider, model).first().map_or(model.unwrap_or_default(), |(_, model)| model)
    }

    /// What the node's gateway is asked for where a task names no model: the default provider's own, or the default group;
    /// empty where there is neither.
    pub fn default_name(&self) -> &str {
        let own = self.providers.get(&self.default).map(|provider| provider.model.as_str());
        own.unwrap_or_else(|| self.groups.get_key_value(&self.default).map_or("", |(name, _)| name))
    }

    /// Who may answer.
    fn deployments<'a>(&'a self, provider: Option<&'a str>, model: Option<&'a str>) -> Vec<(&'a ProviderConfig, &'a str)> {
        let (name, model) = self.names.meant(provider, model);
        if let Some(group) = self.groups.get(name) {
            let all = self.of_group(group);
            let named: Vec<_> = all.iter().copied().filter(|(_, own)| model == Some(*own)).collect();
            return if named.is_empty() { all } else { named };
        }
        self.providers.get(name).map(|found| (found, model.unwrap_or(found.model.as_str()))).into_iter().collect()
    }

    fn of_group<'a>(&'a self, group: &'a GroupConfig) -> Vec<(&'a ProviderConfig, &'a str)> {
        let of = |one: &'a helix_config::DeploymentConfig| {
            let provider = self.providers.get(&one.provider)?;
            Some((provider, if one.model.is_empty() { provider.model.as_str() } else { one.model.as_str() }))
        };
        group.deployments.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use helix_config::DeploymentConfig;

    use super::*;
    use crate::families::{Dialect, Family};

    fn by_key(variable: &'static str) -> impl Fn(&str) -> Option<String> {
        move |name| (name == variable).then(|| "a key".to_owned())
    }

    #[test]
    fn a_provider_that_exists_by_its_key_alone_has_its_models_sizes_and_family() {
        let limits = AgentLimits::new(&ModelsConfig::default(), &by_key("ANTHROPIC_API_KEY"));
        assert_eq!(limits.of(None, None), ModelLimits { max_tokens: 32_000, context_tokens: 1_000_000 });
        assert_eq!(Family::of(limits.model(None, None)).name, "anthropic");
        let limits = AgentLimits::new(&ModelsConfig::default(), &by_key("OPENAI_API_KEY"));
        assert_eq!(limits.of(None, None), ModelLimits { max_tokens: 32_000, context_tokens: 1_050_000 });
        assert_eq!(Family::of(limits.model(None, None)).edit, Dialect::ApplyPatch);
        // The same model, where a service passes it on that takes less.
        let limits = AgentLimits::new(&ModelsConfig::default(), &by_key("GITHUB_TOKEN"));
        assert_eq!(limits.of(None, None), ModelLimits { max_tokens: 16_000, context_tokens: 128_000 });
    }

    #[test]
    fn a_model_that_a_task_names_has_its_own_sizes() {
        let limits = AgentLimits::new(&ModelsConfig::default(), &by_key("ANTHROPIC_API_KEY"));
        let small = ModelLimits { max_tokens: 4_096, context_tokens: 200_000 };
        assert_eq!(limits.of(None, Some("claude-3-haiku-20240307")), small);
        assert_eq!(limits.of(Some("anthropic"), Some("claude-3-haiku-20240307")), small);
        assert_eq!(limits.of(None, Some("anthropic/claude-3-haiku-20240307")), small);
        assert_eq!(limits.model(None, Some("anthropic/claude-3-haiku-20240307")), "claude-3-haiku-20240307");
    }

    #[test]
    fn a_group_takes_what_its_largest_deployment_takes_and_asks_what_its_least_gives() {
        let deployment = |model: &str| DeploymentConfig {
            provider: "anthropic".to_owned(),
            model: model.to_owned(),
            ..DeploymentConfig::default()
        };
        let deployments = ["claude-3-haiku-20240307", ""].map(deployment).to_vec();
        let group = GroupConfig { deployments, ..GroupConfig::default() };
        let mut config = ModelsConfig::default();
        config.groups.insert("coder".to_owned(), group);
        let limits = AgentLimits::new(&config, &by_key("ANTHROPIC_API_KEY"));
        for named in [limits.of(Some("coder"), None), limits.of(None, Some("coder"))] {
            assert_eq!(named, ModelLimits { max_tokens: 4_096, context_tokens: 1_000_000 });
        }
        assert_eq!(limits.of(Some("coder"), Some("claude-3-haiku-20240307")).context_tokens, 200_000);
    }

    #[test]
    fn a_server_of_ones_own_leaves_room_for_a_conversation_before_it_says_how_much_it_takes() {
        let provider = |kind, context_tokens| ProviderConfig { context_tokens, ..ProviderConfig::of(kind) };
        for (kind, model) in
            [(ProviderKind::Ollama, "qwen3:8b"), (ProviderKind::Ollama, "gpt-oss:20b"), (ProviderKind::LlamaCpp, "")]
        {
            let of = |context_tokens| {
                let mut config = ModelsConfig::default();
                config.providers.insert("here".to_owned(), provider(kind, context_tokens));
                AgentLimits::new(&config, &|_| None).of(None, Some(model))
            };
            assert_eq!(of(0).context_tokens, USUAL_OF_SERVERS, "{kind:?} {model}");
            assert!(of(0).room() >= USUAL_OF_SERVERS / 2 && of(4_096).room() >= 2_048, "{kind:?} {model}");
            assert_eq!(of(65_536).context_tokens, 65_536);
        }
    }
}
