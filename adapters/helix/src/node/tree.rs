//! The whole supervision tree, on one page.
//!
//! ```text
//! helix        one-for-one
//! ├─ cluster   one-for-one    node lease
//! ├─ storage   rest-for-one   content · writer · repositories
//! ├─ models    one-for-one    one actor per provider · router
//! ├─ fleet     rest-for-one   connections (one actor per worker) · provisioner · fleet
//! ├─ tasks     rest-for-one   scheduler · running (one actor per running task) · door
//! └─ http      one-for-one    server
//! ```
//!
//! Addresses are made first and handed around as handles; each incarnation of an actor binds itself to its own. So the branches can
//! name each other although none depends on another, and children start in the order of the page.

use std::sync::Arc;
use std::time::Duration;

use helix_actor_agents::{AgentKind, AgentLimits, AttemptsKind, ExternalKind};
use helix_actor_cluster::ClusterArgs;
use helix_actor_fleet::FleetArgs;
use helix_actor_models::ModelsArgs;
use helix_actor_storage::{ContentUpkeep, StorageArgs};
use helix_actor_tasks::TasksArgs;
use helix_adapter_http::{HttpArgs, NodeInfo};
use helix_config::{BudgetsConfig, Config};
use helix_database::Write;
use helix_kernel::{Address, ChildSpec, Clock, Restart, Strategy, SupervisorHandle, SupervisorSpec};
use helix_messages::{DailyLimits, Events, Fleet, Models, Records, Spending, Takeover, Tasks, Versions};
use helix_objects::{ContentCache, ObjectStore, Pack};
use helix_ports::TaskKind;
use helix_protocol::{Failure, NewEvent, Timestamp};

use super::data_folder::TakenFolder;
use super::providers::providers;
use super::server::{ServerActor, ServerArgs};
use super::stores::Stores;
use super::transports::transports;
use super::web::web;

/// How many live events a slow watcher may be behind before it reads them from the records.
const EVENTS_KEPT: usize = 4_096;
/// How many requests may wait at the door of the tasks branch, and at the router of models.
const MAILBOX: usize = 16_384;
/// Bounds a write: longer than the writer itself has patience with a database that is away.
const WRITE_LIMIT: Duration = Duration::from_secs(45);
/// A node's content is its own so far, so no other node could go on with its tasks.
const TAKEOVER: Takeover = Takeover::Never;
/// Bounds a model call with all its retries.
const MODEL_LIMIT: Duration = Duration::from_secs(3_600);

/// The running tree, and the handles that the node itself uses.
pub struct Tree {
    root: SupervisorHandle,
    records: Records,
    /// Workers.
    pub fleet: Fleet,
    /// Tasks.
    pub tasks: Tasks,
}

impl Tree {
    /// Declares and starts it.
    pub async fn start(config: &Config, taken: &TakenFolder, stores: &Stores) -> Result<Self, Failure> {
        let clock = Clock::system();
        let events = Events::new(EVENTS_KEPT);
        let storage = StorageArgs {
            records: Arc::clone(&stores.records),
            objects: Arc::clone(&stores.content) as Arc<dyn ObjectStore>,
            cache: Some(Arc::clone(&stores.content) as Arc<dyn ContentCache>),
            upkeep: Some(ContentUpkeep {
                store: Arc::clone(&stores.content) as Arc<dyn Pack>,
                interval: Duration::from_millis(config.storage.collect_interval_ms),
                grace: Duration::from_millis(config.storage.collect_grace_ms),
            }),
            file_cap_bytes: config.workspace.file_cap_bytes,
            events: events.clone(),
            writer: StorageArgs::writer_address(),
            repositories: StorageArgs::repositories_address(),
        };
        let models_address = Address::unbound("router", MAILBOX);
        let tasks_address = Address::unbound("tasks", MAILBOX);
        let fleet_address = FleetArgs::unbound_address();

        let records = Records::new(storage.writer.clone(), Arc::clone(&stores.records), WRITE_LIMIT);
        let spending = Spending::new(records.clone(), daily_limits(&config.budgets), clock.clone());
        let versions = Versions::new(storage.repositories.clone());
        let models = Models::new(models_address.clone(), MODEL_LIMIT);
        let tasks = Tasks::new(tasks_address.clone());
        let fleet = Fleet::new(fleet_address.clone());

        let (providers, default) = providers(&config.llm)?;
        let limits = AgentLimits::new(&config.llm, &|name| std::env::var(name).ok());
        let agent: Arc<dyn TaskKind> = Arc::new(AgentKind::new(limits.clone()).with_web(web(&config.web)));
        let external: Arc<dyn TaskKind> = Arc::new(ExternalKind::new(&config.agents, limits.clone()));
        let attempts: Arc<dyn TaskKind> = Arc::new(AttemptsKind::new(limits));
        let fleet_args = FleetArgs {
            address: fleet_address,
            records: records.clone(),
            objects: Arc::clone(&stores.content) as Arc<dyn ObjectStore>,
            tasks: tasks.clone(),
            transports: transports(config, taken.node, taken.folder.root())?,
            node: taken.node,
            config: config.workers.clone(),
            clock: clock.clone(),
        };
        let tasks_args = TasksArgs {
            node: taken.node,
            address: tasks_address,
            records: records.clone(),
            objects: Arc::clone(&stores.content) as Arc<dyn ObjectStore>,
            versions: versions.clone(),
            fleet: fleet.clone(),
            models: models.clone(),
            events: events.clone(),
            kinds: vec![agent, external, attempts],
            tasks: config.tasks.clone(),
            workspace: config.workspace.clone(),
            gateway: config.gateway.clone(),
            spending: spending.clone(),
            lease: config.workers.lease,
            takeover: TAKEOVER,
            clock,
        };

        let groups = config.llm.groups.clone().into_iter().collect();
        let models_args = ModelsArgs { providers, groups, default, records: Some(records.clone()), address: models_address };
        let cluster = ClusterArgs { records: Arc::clone(&stores.records), node: taken.node, takeover: TAKEOVER };
        let branches = SupervisorSpec::new("helix", Strategy::OneForOne)
            .child(ChildSpec::supervisor(helix_actor_cluster::branch(cluster)).restart(Restart::Significant))
            .child(ChildSpec::supervisor(helix_actor_storage::branch(storage)))
            .child(ChildSpec::supervisor(helix_actor_models::branch(models_args)))
            .child(ChildSpec::supervisor(helix_actor_fleet::branch(fleet_args)))
            .child(ChildSpec::supervisor(helix_actor_tasks::branch(tasks_args)));
        let http = HttpArgs {
            tasks: tasks.clone(),
            fleet: fleet.clone(),
            models,
            versions,
            records: records.clone(),
            spending,
            events,
            tree: branches.handle(),
            info: info(taken, config),
            secrets: config.tasks.secrets.clone(),
            formats: helix_adapter_models::client_formats(),
            gateway: config.gateway.listen.parse().ok(),
            gateway_bytes: usize::try_from(config.gateway.body_mib << 20).unwrap_or(usize::MAX),
        };
        let root = helix_kernel::start(branches.child(ChildSpec::supervisor(server(taken, http)))).await?;
        Ok(Self { root, records, fleet, tasks })
    }

    /// Records an event of the node itself. A database that is away is no reason not to start or stop.
    pub async fn record(&self, event: NewEvent) {
        if let Err(failure) = self.records.write(Write::Events(vec![event])).await {
            tracing::warn!(%failure, "an event of the node could not be recorded");
        }
    }

    /// Waits until the root has given up.
    pub async fn ended(&self) -> Result<(), Failure> {
        self.root.ended().await
    }

    /// Stops every branch, the last started first.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.root.shutdown().await
    }
}

fn daily_limits(budgets: &BudgetsConfig) -> DailyLimits {
    DailyLimits {
        owner: DailyLimits::of(budgets.daily_usd, budgets.daily_tokens),
        project: DailyLimits::of(budgets.project_daily_usd, budgets.project_daily_tokens),
    }
}

fn server(taken: &TakenFolder, http: HttpArgs) -> SupervisorSpec {
    let socket = taken.folder.socket();
    let start = move || (ServerActor, ServerArgs { socket: socket.clone(), http: http.clone() });
    SupervisorSpec::new("http", Strategy::OneForOne).child(ChildSpec::actor("server", &Address::unbound("server", 1), start))
}

fn info(taken: &TakenFolder, config: &Config) -> NodeInfo {
    let database = if config.database.url.starts_with("postgres") { "postgresql" } else { "sqlite" };
    NodeInfo {
        node: taken.node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        data: taken.folder.root().to_owned(),
        database: database.to_owned(),
        started_at: Timestamp::now(),
    }
}
