//! The fleet branch.
//!
//! Rest-for-one: the fleet's face stands on the provisioner and both on the connections, so that if the connections
//! fail as a whole they are all opened anew, while a restart of the face touches no connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use helix_config::WorkersConfig;
use helix_kernel::{Address, Backoff, ChildSpec, Clock, Intensity, Strategy, SupervisorSpec};
use helix_messages::{Fleet, FleetMsg, Records, Tasks};
use helix_objects::ObjectStore;
use helix_ports::WorkerTransport;
use helix_protocol::NodeId;
use helix_protocol::link::LeaseTimes;

use crate::dial::{Dialler, Lines};
use crate::directory::Directory;
use crate::fleet::{FleetActor, FleetActorArgs};
use crate::provision::{ProvisionerActor, ProvisionerArgs};

/// How many messages may wait for the fleet's face.
const FLEET_MAILBOX: usize = 65_536;
/// How many additions and removals may wait.
const PROVISIONER_MAILBOX: usize = 256;
/// One actor that fails again and again does not take a thousand others with it.
const CONNECTION_FAILURES: Intensity = Intensity { restarts: 200, period: Duration::from_secs(30) };

/// What the fleet stands on.
#[derive(Clone)]
pub struct FleetArgs {
    /// Where the fleet is reached: made by whoever wires the tree, so that tasks can hold it before the fleet runs.
    pub address: Address<FleetMsg>,
    /// The records.
    pub records: Records,
    /// The node's content.
    pub objects: Arc<dyn ObjectStore>,
    /// Whom losses and changes are told to.
    pub tasks: Tasks,
    /// Ways to reach workers; the first that serves a target is used.
    pub transports: Vec<Arc<dyn WorkerTransport>>,
    /// This node.
    pub node: NodeId,
    /// The section of the configuration: lease times, slots, the connection time-out.
    pub config: WorkersConfig,
    /// The clocks.
    pub clock: Clock,
}

impl FleetArgs {
    /// An address for [`FleetArgs::address`] and [`Fleet::new`].
    pub fn unbound_address() -> Address<FleetMsg> {
        Address::unbound("fleet", FLEET_MAILBOX)
    }

    /// The handle through which the fleet is asked.
    pub fn handle(&self) -> Fleet {
        Fleet::new(self.address.clone())
    }
}

/// The branch. One lease of adoption grace counts from its first start, not from this call: in between the node may have waited for
/// its own lease, and a worker that it has not looked at yet has not been silent.
pub fn branch(args: FleetArgs) -> SupervisorSpec {
    let lease = LeaseTimes::from(args.config.lease);
    let connections = SupervisorSpec::new("connections", Strategy::OneForOne).intensity(CONNECTION_FAILURES);
    let dialler = Dialler {
        node: args.node,
        lease,
        clock: args.clock.clone(),
        limit: Duration::from_millis(args.config.connect_timeout_ms),
        transports: args.transports.clone(),
        lines: Lines::default(),
    };
    let directory = Arc::new(Directory::new(connections.handle(), dialler, args.records.clone(), args.address.clone()));
    let provisioner = Address::unbound("provisioner", PROVISIONER_MAILBOX);

    let provisioner_args = ProvisionerArgs {
        directory: Arc::clone(&directory),
        slots: args.config.slots,
        reassign: Duration::from_millis(lease.reassign_ms),
    };
    let (clock, begun) = (args.clock.clone(), OnceLock::new());
    let (face, objects, tasks) = (provisioner.clone(), args.objects, args.tasks);
    let fleet_args = move || FleetActorArgs {
        directory: Arc::clone(&directory),
        provisioner: face.clone(),
        objects: Arc::clone(&objects),
        tasks: tasks.clone(),
        since: *begun.get_or_init(|| clock.boottime()),
    };

    SupervisorSpec::new("fleet", Strategy::RestForOne)
        .child(ChildSpec::supervisor(connections))
        .child(ChildSpec::actor("provisioner", &provisioner, move || (ProvisionerActor, provisioner_args.clone())))
        .child(
            ChildSpec::actor("fleet", &args.address, move || (FleetActor, fleet_args()))
                .backoff(Backoff { first: Duration::from_millis(10), most: Duration::from_secs(5) }),
        )
}
