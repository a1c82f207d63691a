//! The REST and SSE face of a node over a Unix socket, and the gateway for clients of models, there and over TCP.
//!
//! Everything lies under `/api/v1`; [`api`] has the bodies. An error is an RFC 9457 problem document with our code and hint,
//! everything else a plain resource. The socket answers the user the node runs as, and root.
//!
//! Parent: `http`, one for one, permanent. Nothing survives a restart here and nothing has to: a watcher comes back with the last
//! event's id and is given what it missed out of the records.

pub mod api;
mod artifacts;
mod attempts;
mod body;
mod events;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
mod gateway;
mod intake;
mod peer;
mod problem;
mod rebase;
mod resolve;
mod routes;
mod running;
mod server;
mod session;
mod system;
mod task_actions;
mod task_reads;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use helix_kernel::SupervisorHandle;
use helix_messages::{Events, Fleet, Models, Records, Spending, Tasks, Versions};
use helix_ports::ClientFormat;

pub use api::NodeInfo;
pub use gateway::GatewayArgs;
pub use server::{serve, serve_gateway};

/// Whom the routes ask.
#[derive(Clone)]
pub struct HttpArgs {
    /// The tasks branch.
    pub tasks: Tasks,
    /// The fleet branch.
    pub fleet: Fleet,
    /// The models branch.
    pub models: Models,
    /// The node's repositories.
    pub versions: Versions,
    /// The records.
    pub records: Records,
    /// What owners and projects may spend in a day.
    pub spending: Spending,
    /// Live events.
    pub events: Events,
    /// The root of the tree, which is shown.
    pub tree: SupervisorHandle,
    /// What the node says of itself.
    pub info: NodeInfo,
    /// Sources of secrets that project files may name.
    pub secrets: Vec<String>,
    /// The formats that clients of the gateway may speak.
    pub formats: Vec<Arc<dyn ClientFormat>>,
    /// Where the gateway listens over TCP too.
    pub gateway: Option<SocketAddr>,
    /// Largest request of the gateway, in bytes.
    pub gateway_bytes: usize,
}
