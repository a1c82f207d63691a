//! The sections of helix.yaml, with their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use helix_protocol::link::LeaseTimes;
use helix_protocol::{AgentProgram, AtMost, Environment, Isolation, Network, SecretRef};
use serde::{Deserialize, Serialize};

use crate::provider_kind::WrittenProvider;
use crate::{HarmCategory, ModelEntry, ProviderKind, SafetyThreshold};

/// The whole of helix.yaml.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The node itself.
    pub server: ServerConfig,
    /// Where the records are.
    pub database: DatabaseConfig,
    /// Where content is.
    pub storage: StorageConfig,
    /// Workers and their leases.
    pub workers: WorkersConfig,
    /// How tasks run.
    pub tasks: TasksConfig,
    /// What workspaces carry.
    pub workspace: WorkspaceConfig,
    /// Models.
    pub llm: ModelsConfig,
    /// Agents that people already have.
    pub agents: AgentsConfig,
    /// Models for clients that speak the formats people know.
    pub gateway: GatewayConfig,
    /// The web, for agents that are granted hosts.
    pub web: WebConfig,
    /// Spending limits.
    pub budgets: BudgetsConfig,
    /// Logs.
    pub logging: LoggingConfig,
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where everything the node keeps lies. Empty: `$XDG_DATA_HOME/helix`, else `~/.local/share/helix`.
    pub data: PathBuf,
    /// How long a stopping node waits for tasks to reach a step boundary, in milliseconds.
    pub park_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { data: PathBuf::new(), park_ms: 30_000 }
    }
}

/// Where the records are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host/database`, or `sqlite:/path`. Empty: `records.db` in the data folder.
    /// DATABASE_URL overrides it. A data folder keeps to the database it was first used with. How a PostgreSQL server is spoken to
    /// over a network is said by `?sslmode=`: `prefer`, which holds where nothing is said, encrypts where the server can and believes
    /// any certificate; `require` refuses a server that cannot; `verify-full` asks for a certificate of that host's name as well, by
    /// an authority that this machine trusts or that is in the file of `&sslrootcert=`; `verify-ca` for one of any name; `disable`
    /// never encrypts.
    pub url: String,
}

/// Where content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Memory for compressed content that was read lately, in MiB.
    pub cache_mib: u64,
    /// Between two collections of content that no task and no step names any more, in milliseconds; 0 turns them off.
    pub collect_interval_ms: u64,
    /// How long content that was just taken in is kept although nothing names it yet, in milliseconds: a repository is imported
    /// first, and the task that begins with its files made then.
    pub collect_grace_ms: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { cache_mib: 512, collect_interval_ms: 3_600_000, collect_grace_ms: 600_000 }
    }
}

/// Workers and their leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkersConfig {
    /// How many workers the node starts on its own machine where none was added.
    pub local: u32,
    /// How many tasks a worker holds at once where nothing else was said when it was added; 0 for its number of cores.
    pub slots: u32,
    /// The worker program. Empty: `helix-worker` beside the `helix` program.
    pub program: PathBuf,
    /// Lease times.
    pub lease: LeaseConfig,
    /// How long a connection attempt may take, in milliseconds.
    pub connect_timeout_ms: u64,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self { local: 1, slots: 0, program: PathBuf::new(), lease: LeaseConfig::default(), connect_timeout_ms: 15_000 }
    }
}

/// Lease times, in milliseconds. `heartbeat < suspect < fence < reassign` must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// A worker is suspect after this much silence.
    pub suspect_ms: u64,
    /// A worker freezes its tasks this long after sending its last acknowledged heartbeat.
    pub fence_ms: u64,
    /// Its tasks are reassigned after this much silence.
    pub reassign_ms: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        let times = LeaseTimes::default();
        Self {
            heartbeat_ms: times.heartbeat_ms,
            suspect_ms: times.suspect_ms,
            fence_ms: times.fence_ms,
            reassign_ms: times.reassign_ms,
        }
    }
}

impl From<LeaseConfig> for LeaseTimes {
    fn from(config: LeaseConfig) -> Self {
        Self {
            heartbeat_ms: config.heartbeat_ms,
            suspect_ms: config.suspect_ms,
            fence_ms: config.fence_ms,
            reassign_ms: config.reassign_ms,
        }
    }
}

/// How tasks run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TasksConfig {
    /// How many tasks the node drives at once.
    pub max_concurrent_tasks: u32,
    /// How often a step that could not be made is tried again where the task does not say. A command that ends with another exit
    /// code than 0 has answered: that is not tried again.
    pub max_retries: u32,
    /// The first retry's backoff in milliseconds; it doubles up to `retry_backoff_most_ms`, with full jitter.
    pub retry_backoff_ms: u64,
    /// The longest backoff, in milliseconds.
    pub retry_backoff_most_ms: u64,
    /// A long command's workspace is snapshotted this often, in milliseconds.
    pub snapshot_interval_ms: u64,
    /// Most bytes of a tool's answer.
    pub output_bytes: u32,
    /// How long a tool's command may take where its call does not say, in milliseconds.
    pub tool_timeout_ms: u64,
    /// How far commands are kept apart from their machine where the task does not say: `read_only`, `workspace`,
    /// or `full` for no sandbox.
    pub isolation: Isolation,
    /// Whether commands that a model chooses may use the network where the task does not say: `none` or `host`.
    pub network: Network,
    /// The same for command tasks, whose commands a person typed.
    pub command_network: Network,
    /// Folders outside of workspaces that sandboxed commands may write too, for example `~/.cargo`.
    pub writable: Vec<String>,
    /// What a repository's `helix.project.yaml` may name as sources of secrets, each word for word: `env:NPM_TOKEN`,
    /// `file:/home/me/token`. `helix run --secret VARIABLE` allows one for one task.
    pub secrets: Vec<String>,
}

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            max_concurrent_tasks: 256,
            max_retries: 3,
            retry_backoff_ms: 1_000,
            retry_backoff_most_ms: 60_000,
            snapshot_interval_ms: 300_000,
            output_bytes: 32 * 1024,
            tool_timeout_ms: 120_000,
            isolation: Isolation::Workspace,
            network: Network::None,
            command_network: Network::Host,
            writable: Vec::new(),
            secrets: Vec::new(),
        }
    }
}

/// What workspaces carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkspaceConfig {
    /// Files larger than this are named, and neither carried by a step nor taken in with a repository unless committed, in bytes.
    pub file_cap_bytes: u64,
}

impl Default for WorkspaceConfig {
    fn default() -> Self {
        Self { file_cap_bytes: 64 * 1024 * 1024 }
    }
}

/// Models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// The provider of tasks that name none. Empty: the only one configured, or `openai`.
    pub default_provider: String,
    /// Providers by name. One of each kind exists without being named where its key is in the environment: `openai`, `anthropic`,
    /// `gemini`, `xai`, `qwen`, `openrouter`, `copilot`.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Groups of deployments by name. A group can be named wherever a provider can.
    pub groups: BTreeMap<String, GroupConfig>,
    /// A file of entries that are laid over the capability table. Empty: none.
    pub models_file: PathBuf,
    /// More such entries; they are laid over the file's. `docs/models.md` has the keys.
    pub models: Vec<ModelEntry>,
    /// What `models_file` holds, once it was read.
    #[serde(skip)]
    pub(crate) file_models: Vec<ModelEntry>,
}

/// In which order the deployments of a group are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingStrategy {
    /// The one whose price for the request is least; one without a price comes last.
    Cost,
    /// The one that answered fastest lately.
    Latency,
    /// The one whose calls failed least lately.
    #[default]
    Availability,
    /// One after the other.
    RoundRobin,
    /// By chance, each as often as its weight says.
    Weighted,
}

/// A group: deployments of which any can answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Who is asked first: `cost`, `latency`, `availability`, `round_robin` or `weighted`.
    pub strategy: RoutingStrategy,
    /// Each with `provider`, `model` (empty: the provider's own) and `weight` (default 1).
    pub deployments: Vec<DeploymentConfig>,
    /// Asked in this order where nobody of the group can answer: other groups, providers, or `provider/model`.
    pub fallbacks: Vec<String>,
    /// How long a session stays with the deployment that answered it last, so that its prompt cache is used, in milliseconds.
    pub affinity_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { strategy: RoutingStrategy::default(), deployments: Vec::new(), fallbacks: Vec::new(), affinity_ms: 3_600_000 }
    }
}

/// One model at one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeploymentConfig {
    /// A provider's name.
    pub provider: String,
    /// The model; empty for the provider's own.
    pub model: String,
    /// Its share where the strategy is `weighted`; 0 is asked only where no other can answer.
    pub weight: u32,
}

impl Default for DeploymentConfig {
    fn default() -> Self {
        Self { provider: String::new(), model: String::new(), weight: 1 }
    }
}

/// One provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenProvider")]
pub struct ProviderConfig {
    /// `openai_compatible`, `openai`, `openai_responses`, `anthropic`, `gemini`, `ollama`, `llama_cpp`, `xai`, `qwen`,
    /// `openrouter` or `copilot`: what it speaks, and what holds where the keys below say nothing.
    pub kind: ProviderKind,
    /// The base URL, `/v1` included where the service has it. Absent: that of the kind. OPENAI_BASE_URL overrides that of
    /// `openai`.
    pub base_url: String,
    /// The environment variable that holds the key; empty for a server without keys. Absent: that of the kind.
    pub key_env: String,
    /// The model of tasks that name none. Absent: that of the kind, where it has one.
    pub model: String,
    /// Models that OpenRouter asks where the first cannot answer.
    pub fallback_models: Vec<String>,
    /// The client id that `helix login NAME` logs in with.
    pub client_id: String,
    /// Where it is logged in to. `copilot` and `qwen` have a place of their own; a key in the environment goes before a login.
    pub login: LoginConfig,
    /// Most tokens of an answer. 0: as the capability table has it.
    pub max_tokens: u32,
    /// 0 to 2; absent leaves it to the provider.
    pub temperature: Option<f64>,
    /// What Gemini refuses: `off`, `none`, `high`, `medium` or `low` by `harassment`, `hate`, `sexual`, `dangerous` and
    /// `jailbreak`; what is not named is left to the service.
    pub safety: BTreeMap<HarmCategory, SafetyThreshold>,
    /// Tokens of a whole request that the models take. 0: as the capability table has it.
    pub context_tokens: u64,
    /// How long a call may take without a byte arriving, in milliseconds.
    pub idle_timeout_ms: u64,
    /// How long a whole call may take, in milliseconds.
    pub call_timeout_ms: u64,
    /// How often a call that was certainly not billed is repeated.
    pub max_retries: u32,
    /// Calls at once.
    pub concurrency: u32,
    /// Prices by model, in US dollars per million tokens; they win over the capability table. 0 says that a model is free. For one
    /// without a price no money is set aside before a call, and none is made once a limit of money is reached.
    pub prices: BTreeMap<String, PriceConfig>,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        let kind = ProviderKind::default();
        Self {
            kind,
            base_url: kind.base_url().to_owned(),
            key_env: kind.key_env().to_owned(),
            model: String::new(),
            fallback_models: Vec::new(),
            client_id: String::new(),
            login: LoginConfig::default(),
            max_tokens: 0,
            temperature: None,
            safety: BTreeMap::new(),
            context_tokens: 0,
            idle_timeout_ms: 120_000,
            call_timeout_ms: 900_000,
            max_retries: 4,
            concurrency: 16,
            prices: BTreeMap::new(),
        }
    }
}

/// Where a token is had by device flow (RFC 8628). Empty: as the kind has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginConfig {
    /// The address that gives codes. Empty: that of the kind, where it has one.
    pub device_url: String,
    /// The address that gives tokens, and refreshes them. Empty: that of the kind.
    pub token_url: String,
    /// What the token shall be good for. Empty: what the kind asks for.
    pub scope: String,
}

/// US dollars per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriceConfig {
    /// Read.
    pub input: f64,
    /// Read from the provider's cache; 0 counts as `input`.
    pub cached: f64,
    /// Written.
    pub output: f64,
}

/// Models for clients that speak the formats people know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where it listens over TCP, for example `127.0.0.1:4141`. Empty: only on the node's own socket. Over TCP every request needs
    /// a key (`docs/gateway.md`), and nothing is encrypted: beyond this machine, put a proxy with TLS in front.
    pub listen: String,
    /// Where agents on other machines' workers reach it, for example `https://models.example.org`. Empty: only
    /// agents on this machine do.
    pub address: String,
    /// Largest request, in MiB.
    pub body_mib: u64,
}

/// Agents that people already have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// Agents by name, beside those that are known already. `docs/agents.md` has the keys of an entry.
    pub programs: BTreeMap<String, AgentProgram>,
    /// How long an agent may take from its start until its session stands, in milliseconds.
    pub start_ms: u64,
    /// How long nothing may be seen of it in the middle of a turn, in milliseconds: neither words on its outputs nor its model's
    /// traffic over the gateway.
    pub silent_ms: u64,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self { programs: BTreeMap::new(), start_ms: 120_000, silent_ms: 1_800_000 }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self { listen: String::new(), address: String::new(), body_mib: 64 }
    }
}

/// What answers searches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchKind {
    /// Nothing.
    #[default]
    None,
    /// SearXNG, or whatever answers as its JSON does.
    Searxng,
    /// Brave's search API.
    Brave,
}

/// The web, for agents that are granted hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// What `web_search` asks: `none`, `searxng` (whose settings must allow the format `json`) or `brave`.
    pub search: SearchKind,
    /// Its base URL. Empty: that of Brave's API; SearXNG has none.
    pub search_url: String,
    /// The environment variable that holds its key; empty for an endpoint without keys.
    pub search_key_env: String,
    /// How long a page or a search may take, redirections included, in milliseconds.
    pub timeout_ms: u64,
    /// Largest page, in KiB.
    pub page_kib: u64,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            search: SearchKind::None,
            search_url: String::new(),
            search_key_env: String::new(),
            timeout_ms: 30_000,
            page_kib: 4_096,
        }
    }
}

/// Spending limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetsConfig {
    /// What all tasks of one owner, and all calls through the gateway, may spend in a UTC day, in US dollars. 0 is no limit.
    pub daily_usd: f64,
    /// The same in tokens. 0 is no limit.
    pub daily_tokens: u64,
    /// What each project may spend in a UTC day (a node has one so far), tasks and calls through the gateway, in US dollars. 0 is no
    /// limit.
    pub project_daily_usd: f64,
    /// The same in tokens. 0 is no limit.
    pub project_daily_tokens: u64,
}

impl Default for BudgetsConfig {
    fn default() -> Self {
        Self { daily_usd: 20.0, daily_tokens: 0, project_daily_usd: 0.0, project_daily_tokens: 0 }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,helix_actor_fleet=debug`. HELIX_LOG overrides it.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

/// `helix.project.yaml` in a repository's root: what commands of its tasks find around them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectFile {
    /// Run once in a fresh workspace, and again when one of `lockfiles` changes.
    pub setup: Option<String>,
    /// Files whose content decides whether `setup` runs again.
    pub lockfiles: Vec<String>,
    /// Folders that steps do not carry, for example `target` or `node_modules`.
    pub caches: Vec<String>,
    /// How many ports each workspace is given.
    pub ports: u16,
    /// Plain variables.
    pub environment: BTreeMap<String, String>,
    /// Secrets by reference: each needs its source in `tasks.secrets` of helix.yaml, or `helix run --secret VARIABLE`.
    pub secrets: Vec<SecretRef>,
    /// The widest sandbox that its commands may have: `read_only` or `workspace`. It cannot be widened here.
    pub isolation: Option<Isolation>,
    /// `none` keeps its commands off the network where the node would grant it. It cannot be granted here.
    pub network: Option<Network>,
    /// A command that must pass before an agent's "done" is believed.
    pub verify: Option<String>,
}

impl From<ProjectFile> for Environment {
    fn from(file: ProjectFile) -> Self {
        Self {
            variables: file.environment,
            secrets: file.secrets,
            setup: file.setup,
            lockfiles: file.lockfiles,
            caches: file.caches,
            ports: file.ports,
            at_most: AtMost { isolation: file.isolation, network: file.network },
            ..Self::default()
        }
    }
}
