//! The actor of one running task.
//!
//! Parent: the `running` supervisor; temporary, never restarted: when it is gone, the scheduler decides from the records.
//! It owns no state but the work it started ([`drive`](crate::drive)), so it hears at any moment that the task is
//! cancelled or its worker lost.

use std::sync::Arc;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Work};
use helix_protocol::TaskId;
use tokio::task::AbortHandle;

use crate::drive::{Boundary, Control, End, Job, drive};
use crate::scheduler::SchedulerMsg;
use crate::shared::Shared;

/// What a task's actor is told. Sent by the scheduler, but for the last.
pub(crate) enum TaskMsg {
    /// Something is wanted at the next step boundary.
    Wish(Boundary),
    /// Its worker drains no more.
    Stay,
    /// Nobody wants it parked any more.
    GoOn,
    /// Drop everything at once: the task is cancelled, or its worker lost.
    Stop,
    /// The work has ended.
    Ended(Box<End>),
}

pub(crate) struct TaskActor;

pub(crate) struct TaskArgs {
    pub shared: Arc<Shared>,
    pub job: Job,
    pub serial: u64,
    pub scheduler: Address<SchedulerMsg>,
}

pub(crate) struct TaskState {
    _work: Work<TaskMsg>,
    driving: AbortHandle,
    control: Arc<Control>,
    task: TaskId,
    serial: u64,
    scheduler: Address<SchedulerMsg>,
}

impl Actor for TaskActor {
    type Msg = Admitted<TaskMsg>;
    type State = TaskState;
    type Arguments = TaskArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: TaskArgs) -> Result<TaskState, ActorProcessingErr> {
        let TaskArgs { shared, job, serial, scheduler } = args;
        let (task, control) = (job.task, Arc::new(Control::default()));
        let mut work = Work::of(&myself);
        let controlled = Arc::clone(&control);
        let driving = work.start(async move { TaskMsg::Ended(Box::new(drive(shared, job, controlled).await)) });
        Ok(TaskState { _work: work, driving, control, task, serial, scheduler })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut TaskState,
    ) -> Result<(), ActorProcessingErr> {
        match message.take() {
            TaskMsg::Wish(boundary) => state.control.wish(boundary),
            TaskMsg::Stay => state.control.withdraw(|wish| *wish == Boundary::Yield),
            TaskMsg::GoOn => state.control.withdraw(|wish| matches!(wish, Boundary::Pause { .. })),
            TaskMsg::Stop => {
                state.driving.abort();
                myself.stop(None);
            }
            TaskMsg::Ended(end) => {
                // Where the scheduler is not there, it starts anew from the records.
                let _ = state.scheduler.tell(SchedulerMsg::Ended { task: state.task, serial: state.serial, end });
                myself.stop(None);
            }
        }
        Ok(())
    }
}
