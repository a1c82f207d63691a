//! The branch: `tasks` (rest-for-one) with the scheduler, the running tasks and the door, in this order.
//!
//! When the scheduler fails, the running tasks are stopped with it: it starts from the records, adopts them, and the epoch it
//! raises makes whatever was still under way stale.

use std::sync::Arc;

use helix_kernel::{Address, ChildSpec, Intensity, Strategy, SupervisorSpec};

use crate::command::CommandKind;
use crate::scheduler::{SchedulerActor, SchedulerArgs};
use crate::shared::{Shared, TasksArgs};
use crate::tasks::{DoorArgs, TasksActor};

/// Messages that may wait for the scheduler. Every running task sends it at most two, and the door as many as it admits.
const SCHEDULER_MAILBOX: usize = 65_536;

/// The tasks branch. The kind `command` is always there.
pub fn branch(mut args: TasksArgs) -> SupervisorSpec {
    args.kinds.insert(0, Arc::new(CommandKind));
    let door = args.address.clone();
    let shared = Arc::new(Shared::new(args));
    let scheduler = Address::unbound("scheduler", SCHEDULER_MAILBOX);
    // The children are temporary, so none of them is ever restarted and none can exhaust the supervisor.
    let running = SupervisorSpec::new("running", Strategy::OneForOne).intensity(Intensity::default());
    let handle = running.handle();
    let scheduler_child = {
        let (shared, address) = (Arc::clone(&shared), scheduler.clone());
        ChildSpec::actor("scheduler", &scheduler, move || {
            let args = SchedulerArgs { shared: Arc::clone(&shared), address: address.clone(), running: handle.clone() };
            (SchedulerActor, args)
        })
    };
    let door_child = {
        let (shared, scheduler) = (Arc::clone(&shared), scheduler.clone());
        ChildSpec::actor("door", &door, move || {
            (TasksActor, DoorArgs { shared: Arc::clone(&shared), scheduler: scheduler.clone() })
        })
    };
    SupervisorSpec::new("tasks", Strategy::RestForOne)
        .child(scheduler_child)
        .child(ChildSpec::supervisor(running))
        .child(door_child)
}
