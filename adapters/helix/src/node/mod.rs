//! The life of a node: open what must survive, start the tree, serve, park, leave.

mod background;
mod data_folder;
mod process;
pub mod providers;
mod server;
pub mod stores;
mod transports;
mod tree;
mod web;

use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_config::Config;
use helix_kernel::Shutdown;
use helix_messages::{AddWorker, Fleet};
use helix_protocol::{Code, EventKind, Failure, NewEvent, WorkerTarget};

pub use background::start_in_background;
pub use data_folder::DataFolder;
pub use process::NodeProcess;

use stores::Stores;
use tree::Tree;

/// Runs a node until it is told to stop, and stops it in order.
///
/// `ready` is called once the socket answers. Failures: those of the data folder, the database, the content store, and of every
/// child that does not start.
pub async fn up(config: Config, shutdown: Shutdown, ready: impl FnOnce(&DataFolder)) -> Result<(), Failure> {
    let started = Instant::now();
    let taken = DataFolder::locate(&config.server.data)?.take()?;
    if taken.folder.is_open_to_others() {
        let data = taken.folder.root().display();
        tracing::warn!(%data, "other users of this machine may read the data folder; `chmod 700` it");
    }
    let stores = Stores::open(&config, &taken, &shutdown).await?;
    let tree = Tree::start(&config, &taken, &stores).await?;
    tracing::info!(
        node = %taken.node,
        data = %taken.folder.root().display(),
        started_in_ms = started.elapsed().as_millis() as u64,
        "the node is up"
    );
    tree.record(NewEvent::info(EventKind::SystemStartup, "node", format!("node {} is up", taken.node.short()))).await;
    ready(&taken.folder);
    let local = tokio::spawn(add_local_workers(tree.fleet.clone(), config.workers.local, taken.folder.clone()));

    let ended = tokio::select! {
        () = shutdown.requested() => None,
        ended = tree.ended() => Some(ended),
    };
    local.abort();
    let result = match ended {
        // The tree gave up: there is nothing left to park.
        Some(ended) => ended,
        None => park_and_stop(&tree, &config, &shutdown).await,
    };
    stores.close().await;
    drop(taken);
    result
}

/// Parks tasks at their step boundaries and stops the tree, both in reverse order of the start. A second signal skips the waiting.
async fn park_and_stop(tree: &Tree, config: &Config, shutdown: &Shutdown) -> Result<(), Failure> {
    let within = Duration::from_millis(config.server.park_ms);
    tracing::info!(within_ms = config.server.park_ms, "stopping: tasks park at their next step boundary");
    let told = tree.record(NewEvent::info(EventKind::SystemShutdown, "node", "the node is stopping"));
    tokio::select! {
        // Records that do not answer keep nobody who is in a hurry.
        ((), left) = async { tokio::join!(told, tree.tasks.park(within)) } => match left {
            Ok(0) => tracing::info!("every task is parked"),
            Ok(left) => tracing::warn!(left, "tasks were left in the middle of a step: their workers go on, and the next node takes them over"),
            Err(failure) => tracing::warn!(%failure, "tasks could not be parked"),
        },
        () = shutdown.forced() => tracing::warn!("stopping at once"),
    }
    tree.stop().await
}

/// Adds the configured number of workers on this machine, where none was ever added.
async fn add_local_workers(fleet: Fleet, count: u32, folder: DataFolder) {
    let known = match fleet.list().await {
        Ok(known) => known,
        Err(failure) => {
            tracing::warn!(%failure, "the workers cannot be listed");
            return;
        }
    };
    if !known.is_empty() {
        return;
    }
    let additions = (1..=count).map(|number| {
        let name = format!("local-{number}");
        let target = WorkerTarget::Local { folder: folder.workers().join(&name).display().to_string() };
        let worker = AddWorker { name: name.clone(), target, slots: None };
        let fleet = fleet.clone();
        async move {
            if let Err(failure) = fleet.add(worker).await {
                tracing::error!(worker = name, code = %failure.code, %failure, hint = failure.hint, "a local worker could not be added");
            }
        }
    });
    futures::future::join_all(additions).await;
}

/// The failure of a lock that a panicking thread left behind, or of a blocking thread that panicked.
pub(crate) fn panicked(what: &str) -> Failure {
    Failure::new(Code::Internal, format!("{what} panicked"))
}

/// Shared by everything that opens or reads content.
pub(crate) type Content = Arc<helix_objects::Cached<helix_rocks::RocksStore>>;
