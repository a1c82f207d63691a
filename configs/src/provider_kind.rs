//! Kinds of providers: where each is reached, where its key is, and which of them exist without being configured.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    Config, HarmCategory, LoginConfig, ModelEntry, ModelTable, ModelsConfig, PriceConfig, ProviderConfig, SafetyThreshold,
};

/// What a provider speaks and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Any server that speaks chat completions.
    #[default]
    OpenaiCompatible,
    /// OpenAI's chat completions.
    Openai,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Ollama's own protocol.
    Ollama,
    /// The server of llama.cpp.
    LlamaCpp,
    /// xAI, by responses.
    Xai,
    /// Qwen, by DashScope.
    Qwen,
    /// OpenRouter.
    Openrouter,
    /// GitHub Copilot.
    Copilot,
}

impl ProviderKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::OpenaiCompatible,
        Self::Openai,
        Self::OpenaiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::Ollama,
        Self::LlamaCpp,
        Self::Xai,
        Self::Qwen,
        Self::Openrouter,
        Self::Copilot,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiCompatible => "openai_compatible",
            Self::Openai => "openai",
            Self::OpenaiResponses => "openai_responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::LlamaCpp => "llama_cpp",
            Self::Xai => "xai",
            Self::Qwen => "qwen",
            Self::Openrouter => "openrouter",
            Self::Copilot => "copilot",
        }
    }

    /// The base URL where none is configured.
    pub fn base_url(self) -> &'static str {
        match self {
            Self::OpenaiCompatible | Self::Openai | Self::OpenaiResponses => "https://api.openai.com/v1",
            Self::Anthropic => "https://api.anthropic.com/v1",
            Self::Gemini => "https://generativelanguage.googleapis.com/v1beta",
            Self::Ollama => "http://127.0.0.1:11434",
            Self::LlamaCpp => "http://127.0.0.1:8080/v1",
            Self::Xai => "https://api.x.ai/v1",
            Self::Qwen => "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
            Self::Openrouter => "https://openrouter.ai/api/v1",
            Self::Copilot => "https://api.githubcopilot.com",
        }
    }

    /// The environment variable that holds the key where none is named; empty for servers without keys.
    pub fn key_env(self) -> &'static str {
        match self {
            Self::OpenaiCompatible | Self::Openai | Self::OpenaiResponses => "OPENAI_API_KEY",
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::Gemini => "GEMINI_API_KEY",
            Self::Ollama | Self::LlamaCpp => "",
            Self::Xai => "XAI_API_KEY",
            Self::Qwen => "DASHSCOPE_API_KEY",
            Self::Openrouter => "OPENROUTER_API_KEY",
            Self::Copilot => "GITHUB_TOKEN",
        }
    }

    /// The model of those who name none, so that a key is enough to begin with: of each provider one for daily work with tools, as
    /// its price list of November 2026 has it. Empty where only the person can know what is served.
    pub fn model(self) -> &'static str {
        match self {
            Self::Openai | Self::OpenaiResponses | Self::Copilot => "gpt-6.1-sol",
            Self::Anthropic => "claude-sonnet-5-5",
            Self::Gemini => "gemini-3.8-flash",
            Self::Xai => "grok-4.7",
            Self::Qwen => "qwen3.7-max",
            Self::OpenaiCompatible | Self::Ollama | Self::LlamaCpp | Self::Openrouter => "",
        }
    }

    /// Where it is logged in to where nothing else is configured: the address of codes, that of tokens, and the scope.
    fn login(self) -> Option<[&'static str; 3]> {
        match self {
            Self::Copilot => {
                Some(["https://github.com/login/device/code", "https://github.com/login/oauth/access_token", "read:user"])
            }
            Self::Qwen => Some([
                "https://chat.qwen.ai/api/v1/oauth2/device/code",
                "https://chat.qwen.ai/api/v1/oauth2/token",
                "openid profile email model.completion",
            ]),
            _ => None,
        }
    }

    /// Whether a provider of this kind and name exists where its key is in the environment.
    fn is_found_by_key(self) -> bool {
        !matches!(self, Self::OpenaiCompatible | Self::OpenaiResponses | Self::Ollama | Self::LlamaCpp)
    }
}

/// A provider as it is written: what depends on the kind may be left out.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WrittenProvider {
    kind: ProviderKind,
    base_url: Option<String>,
    key_env: Option<String>,
    model: Option<String>,
    fallback_models: Vec<String>,
    client_id: String,
    login: LoginConfig,
    max_tokens: u32,
    temperature: Option<f64>,
    safety: BTreeMap<HarmCategory, SafetyThreshold>,
    context_tokens: u64,
    idle_timeout_ms: u64,
    call_timeout_ms: u64,
    max_retries: u32,
    concurrency: u32,
    prices: BTreeMap<String, PriceConfig>,
}

impl Default for WrittenProvider {
    fn default() -> Self {
        let usual = ProviderConfig::default();
        Self {
            kind: usual.kind,
            base_url: None,
            key_env: None,
            model: None,
            fallback_models: usual.fallback_models,
            client_id: usual.client_id,
            login: usual.login,
            max_tokens: usual.max_tokens,
            temperature: usual.temperature,
            safety: usual.safety,
            context_tokens: usual.context_tokens,
            idle_timeout_ms: usual.idle_timeout_ms,
            call_timeout_ms: usual.call_timeout_ms,
            max_retries: usual.max_retries,
            concurrency: usual.concurrency,
            prices: usual.prices,
        }
    }
}

impl From<WrittenProvider> for ProviderConfig {
    fn from(written: WrittenProvider) -> Self {
        Self {
            kind: written.kind,
            base_url: written.base_url.unwrap_or_else(|| written.kind.base_url().to_owned()),
            key_env: written.key_env.unwrap_or_else(|| written.kind.key_env().to_owned()),
            model: written.model.unwrap_or_else(|| written.kind.model().to_owned()),
            fallback_models: written.fallback_models,
            client_id: written.client_id,
            login: written.login,
            max_tokens: written.max_tokens,
            temperature: written.temperature,
            safety: written.safety,
            context_tokens: written.context_tokens,
            idle_timeout_ms: written.idle_timeout_ms,
            call_timeout_ms: written.call_timeout_ms,
            max_retries: written.max_retries,
            concurrency: written.concurrency,
            prices: written.prices,
        }
    }
}

impl ProviderConfig {
    /// A provider of this kind with nothing else said.
    pub fn of(kind: ProviderKind) -> Self {
        WrittenProvider { kind, ..WrittenProvider::default() }.into()
    }

    /// Where it is logged in to; `None` where a key is all there is.
    pub fn login_place(&self) -> Option<LoginConfig> {
        let [device_url, token_url, scope] = self.kind.login().unwrap_or_default();
        let or = |written: &String, usual: &str| if written.is_empty() { usual.to_owned() } else { written.clone() };
        let place = LoginConfig {
            device_url: or(&self.login.device_url, device_url),
            token_url: or(&self.login.token_url, token_url),
            scope: or(&self.login.scope, scope),
        };
        (!place.device_url.is_empty() && !place.token_url.is_empty()).then_some(place)
    }

    /// What is known of one of its models: the table, and over it what the provider itself is configured to take. The sizes are
    /// always there.
    pub fn model_entry(&self, table: &ModelTable, model: &str) -> ModelEntry {
        let mut entry = table.of(self.kind.name(), model);
        if self.context_tokens > 0 {
            entry.context_tokens = Some(self.context_tokens);
        }
        if self.max_tokens > 0 {
            entry.output_tokens = Some(self.max_tokens.into());
        }
        entry
    }
}

impl Config {
    /// The environment variables that hold keys: those that are named, and each kind's own.
    pub fn key_variables(&self) -> BTreeSet<String> {
        let named = self.llm.providers.values().map(|provider| provider.key_env.as_str()).chain([self.web.search_key_env.as_str()]);
        let all = named.chain(ProviderKind::ALL.into_iter().map(|kind| kind.key_env()));
        all.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

impl ModelsConfig {
    /// The provider that exists without a key and without being configured, so that a person is told which key is missing.
    pub const DEFAULT_PROVIDER: &str = "openai";

    /// Every provider: those that are configured, one of each kind whose key `env` holds, and the default one where it is a kind.
    pub fn all_providers(&self, env: &impl Fn(&str) -> Option<String>) -> BTreeMap<String, ProviderConfig> {
        let mut providers = self.providers.clone();
        let has_key = |kind: &ProviderKind| env(kind.key_env()).is_some_and(|key| !key.trim().is_empty());
        for kind in ProviderKind::ALL.into_iter().filter(|kind| kind.is_found_by_key()).filter(has_key) {
            providers.entry(kind.name().to_owned()).or_insert_with(|| ProviderConfig::of(kind));
        }
        if let Some(kind) = ProviderKind::ALL.into_iter().find(|kind| kind.name() == self.default_provider) {
            providers.entry(kind.name().to_owned()).or_insert_with(|| ProviderConfig::of(kind));
        }
        if providers.is_empty() {
            providers.insert(Self::DEFAULT_PROVIDER.to_owned(), ProviderConfig::of(ProviderKind::Openai));
        }
        providers
    }

    /// The provider that answers where a task names none: the one named, else the only one configured, else `openai`, else the
    /// first that there is.
    pub fn default_of(&self, providers: &BTreeMap<String, ProviderConfig>) -> String {
        if !self.default_provider.is_empty() {
            return self.default_provider.clone();
        }
        let only = if self.providers.len() == 1 { self.providers.keys().next() } else { None };
        let usual = || providers.keys().find(|name| *name == Self::DEFAULT_PROVIDER).or_else(|| providers.keys().next());
        only.or_else(usual).cloned().unwrap_or_else(|| Self::DEFAULT_PROVIDER.to_owned())
    }

    /// The capability table with what the configuration lays over it.
    pub fn table(&self) -> ModelTable {
        ModelTable::built_in().clone().with(self.file_models.clone()).with(self.models.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_place_and_key_unless_others_are_named() {
        let config = Config::parse(
            "llm:\n  providers:\n    a: {kind: anthropic}\n    b: {kind: anthropic, key_env: \"\", base_url: \"http://127.0.0.1:1/v1\"}\n    c: {}\n",
            "helix.yaml",
        )
        .expect("right");
        let place = |name: &str| {
            let provider = &config.llm.providers[name];
            (provider.base_url.as_str(), provider.key_env.as_str())
        };
        assert_eq!(place("a"), ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"));
        assert_eq!(place("b"), ("http://127.0.0.1:1/v1", ""));
        assert_eq!(place("c"), ("https://api.openai.com/v1", "OPENAI_API_KEY"));
        let model = |name: &str| config.llm.providers[name].model.as_str();
        assert_eq!((model("a"), model("c")), (ProviderKind::Anthropic.model(), ""));
    }

    #[test]
    fn who_sets_nothing_but_a_key_has_a_model_that_the_table_knows() {
        let config = ModelsConfig::default();
        for kind in ProviderKind::ALL.into_iter().filter(|kind| kind.is_found_by_key() && *kind != ProviderKind::Openrouter) {
            let providers = config.all_providers(&|name| (name == kind.key_env()).then(|| "a key".to_owned()));
            let provider = &providers[&config.default_of(&providers)];
            assert_eq!(provider.kind, kind);
            let entry = provider.model_entry(&config.table(), &provider.model);
            assert_eq!(entry.tools, Some(true), "{entry:?}");
            match kind {
                // It passes on models that take more than it does.
                ProviderKind::Copilot => assert_eq!(entry.context_tokens, Some(128_000)),
                _ => assert!(entry.context_tokens.is_some_and(|tokens| tokens > 128_000), "{entry:?}"),
            }
            // Qwen's prices depend on the region, and Copilot's on the subscription.
            assert!(entry.price.is_some() || matches!(kind, ProviderKind::Copilot | ProviderKind::Qwen), "{entry:?}");
        }
    }

    #[test]
    fn every_variable_that_holds_a_key_is_told() {
        let text = "llm:\n  providers:\n    mine: {key_env: MY_LLM}\n    here: {key_env: \"\"}\nweb: {search_key_env: MY_SEARCH}\n";
        let told = Config::parse(text, "helix.yaml").expect("right").key_variables();
        assert!(["MY_LLM", "MY_SEARCH", "OPENAI_API_KEY", "GITHUB_TOKEN"].iter().all(|name| told.contains(*name)), "{told:?}");
        assert!(!told.contains(""));
    }

    #[test]
    fn a_login_is_where_the_kind_has_it_unless_another_place_is_named() {
        let place = |kind, login| ProviderConfig { login, ..ProviderConfig::of(kind) }.login_place();
        assert_eq!(place(ProviderKind::Openai, LoginConfig::default()), None);
        let device_url = "https://example.org/device".to_owned();
        let half = LoginConfig { device_url: device_url.clone(), ..LoginConfig::default() };
        assert_eq!(place(ProviderKind::Openai, half.clone()), None, "codes alone give no token");
        let at_github = place(ProviderKind::Copilot, half).expect("the kind has a place");
        assert_eq!((at_github.device_url, at_github.scope.as_str()), (device_url, "read:user"));
        assert_eq!(at_github.token_url, "https://github.com/login/oauth/access_token");
        assert!(place(ProviderKind::Qwen, LoginConfig::default()).is_some());
    }

    #[test]
    fn a_configuration_that_is_written_out_reads_back_the_same() {
        let text = "llm:\n  providers:\n    a: {kind: gemini, model: m}\n  models:\n  - {model: m, images: true}\n";
        let config = Config::parse(text, "helix.yaml").expect("right");
        assert_eq!(Config::parse(&config.to_yaml(), "again"), Ok(config));
    }

    #[test]
    fn a_key_in_the_environment_is_a_provider() {
        let env = |name: &str| matches!(name, "XAI_API_KEY" | "ANTHROPIC_API_KEY").then(|| "k".to_owned());
        let config = ModelsConfig::default();
        let providers = config.all_providers(&env);
        assert_eq!(providers.keys().collect::<Vec<_>>(), ["anthropic", "xai"]);
        assert_eq!(config.default_of(&providers), "anthropic");
        let none = config.all_providers(&|_: &str| None);
        assert_eq!(none.keys().collect::<Vec<_>>(), ["openai"]);
        assert_eq!(config.default_of(&none), "openai");
    }

    #[test]
    fn a_wrong_kind_is_refused_with_the_nearest() {
        let failure = Config::parse("llm: {providers: {a: {kind: antropic}}}\n", "helix.yaml").expect_err("no such kind");
        assert!(failure.hint.starts_with("did you mean anthropic?"), "{}", failure.hint);
    }

    #[test]
    fn what_the_provider_is_configured_to_take_wins_over_the_table() {
        let provider = ProviderConfig { context_tokens: 7, ..ProviderConfig::of(ProviderKind::Anthropic) };
        let entry = provider.model_entry(ModelTable::built_in(), "claude-opus-5");
        assert_eq!((entry.context_tokens, entry.output_tokens), (Some(7), Some(128_000)));
    }
}
