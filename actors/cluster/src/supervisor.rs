//! The branch: one actor, which is not started again by the branch itself, because a lease that was lost concerns the whole node.

use std::sync::Arc;

use helix_database::RecordStore;
use helix_kernel::{Address, ChildSpec, Restart, Strategy, SupervisorSpec};
use helix_messages::Takeover;
use helix_protocol::NodeId;

use crate::lease::{LeaseActor, LeaseArgs};

/// What the branch stands on.
#[derive(Clone)]
pub struct ClusterArgs {
    /// The records, open.
    pub records: Arc<dyn RecordStore>,
    /// This node.
    pub node: NodeId,
    /// Whether the next holder goes on with this node's tasks.
    pub takeover: Takeover,
}

/// The cluster branch, ready to be the first child of the root, and a significant one: everything else stands on the lease, and a
/// node that has lost it ends.
pub fn branch(args: ClusterArgs) -> SupervisorSpec {
    let start = move || {
        let ClusterArgs { records, node, takeover } = args.clone();
        (LeaseActor, LeaseArgs { records, node, takeover })
    };
    SupervisorSpec::new("cluster", Strategy::OneForOne)
        .child(ChildSpec::actor("node lease", &Address::unbound("node lease", 1), start).restart(Restart::Significant))
}
