//! helix.yaml and the project file.
//!
//! One struct per section. The doc comment of a field is its manual: `docs/configuration.md` is made from them. Every field has a
//! default, an unknown key is refused with the nearest known one, and units are in the names.

mod agents_table;
mod environment;
mod loader;
#[cfg(test)]
mod manual;
mod model_table;
mod names;
mod provider_kind;
mod refusal;
mod safety;
mod sections;
mod validate;

pub use agents_table::{AGENT_TABLE, check_program};
pub use environment::{changes_a_node, nearest_variable, unread};
pub use loader::{Loaded, Source};
pub use model_table::{LongPrice, MODEL_TABLE, ModelEntry, ModelPrice, ModelTable};
pub use names::ModelNames;
pub use provider_kind::ProviderKind;
pub use safety::{HarmCategory, SafetyThreshold};
pub use sections::{
    AgentsConfig, BudgetsConfig, Config, DatabaseConfig, DeploymentConfig, GatewayConfig, GroupConfig, LeaseConfig, LogFormat,
    LoggingConfig, LoginConfig, ModelsConfig, PriceConfig, ProjectFile, ProviderConfig, RoutingStrategy, SearchKind, ServerConfig,
    StorageConfig, TasksConfig, WebConfig, WorkersConfig, WorkspaceConfig,
};

/// `defaults/helix.yaml`: every key with its meaning and its default. Equal to [`Config::default`].
pub const DEFAULTS: &str = include_str!("../defaults/helix.yaml");
