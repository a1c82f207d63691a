//! The REST and SSE face of a node, over a Unix socket.
//!
//! Everything lies under `/api/v1`; [`api`] has the bodies. An error is an RFC 9457 problem document with our code and hint,
//! everything else a plain resource. The socket answers the user the node runs as, and root.
//!
//! Parent: `http`, one for one, permanent. Nothing survives a restart here and nothing has to: a watcher comes back with the last
//! event's id and is given what it missed out of the records.

pub mod api;
mod body;
mod events;
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

use helix_kernel::SupervisorHandle;
use helix_messages::{Events, Fleet, Models, Records, Tasks, Versions};

pub use api::NodeInfo;
pub use server::serve;

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
    /// Live events.
    pub events: Events,
    /// The root of the tree, which is shown.
    pub tree: SupervisorHandle,
    /// What the node says of itself.
    pub info: NodeInfo,
}
