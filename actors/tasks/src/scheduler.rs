//! The scheduler: what waits, which worker is free, who drives what.
//!
//! Parent: the tasks branch (rest-for-one, so that with it every task's actor starts anew). Permanent. Nothing here survives a
//! restart and nothing must: it begins by reading the records. A task they call active under this node is *adopted*: it waits for
//! its own worker to show up for as long as one lease, then it goes elsewhere.

mod endings;
mod listing;
mod losses;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Boottime, ChildSpec, Reply, Restart, SupervisorHandle, Work};
use helix_messages::{LostWorker, WorkerReason, WorkerView};
use helix_protocol::{Code, Failure, Lifecycle, Principal, TaskId, TaskRecord, TaskStatus, WorkerId};
use tokio::task::AbortHandle;

use self::endings::answer_pauses;
use crate::drive::{Boundary, End, Handover, Job, close, read_task};
use crate::failing::longest_wait;
use crate::schedule::{Assignment, Fleet, Queue, Waiting, assign};
use crate::shared::Shared;
use crate::task::{TaskActor, TaskArgs, TaskMsg};
use crate::{children, day, requests};

/// Messages that may wait for one task's actor.
const TASK_MAILBOX: usize = 64;
/// After something that should not have happened, the task is looked at again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// What the scheduler is told. Sent by the door (`tasks`), by task actors and by itself.
pub(crate) enum SchedulerMsg {
    /// A task as it is recorded now: new, resumed, answered, freed. What is to be done follows from its state.
    Changed(Box<TaskRecord>),
    /// The records at the start.
    Loaded(Result<(Vec<TaskRecord>, Vec<WorkerView>), Failure>),
    /// The fleet as it is now.
    FleetChanged(Vec<WorkerView>),
    /// A worker is gone.
    WorkerLost(LostWorker),
    /// What the operator wants of a worker.
    Lifecycle { worker: WorkerId, lifecycle: Lifecycle },
    /// A task was cancelled in the records: what runs is stopped.
    Cancelled(Box<TaskRecord>),
    /// Park a task at its next boundary.
    Pause { task: TaskId, principal: Principal, reply: Reply<TaskRecord> },
    /// Park it no more, where it has not come to that boundary. Answers whether anybody wanted it.
    GoOn { task: TaskId, principal: Principal, reply: Reply<bool> },
    /// Who wants a task parked at its next boundary.
    WhoPauses { task: TaskId, reply: Reply<Option<String>> },
    /// Every worker's answer to a task.
    Explain { task: Box<TaskRecord>, reply: Reply<Vec<WorkerReason>> },
    /// The node stops.
    Park { within: Duration, reply: Reply<u64> },
    /// A task's work has ended.
    Ended { task: TaskId, serial: u64, end: Box<End> },
    /// A task's actor is gone; with a failure where it did not end in order.
    Gone { task: TaskId, serial: u64, failure: Option<Failure> },
    /// A task as the records have it after it lost its worker and found no other.
    Stranded { record: Box<TaskRecord>, lost: LostWorker },
    /// A task lost its worker some time ago: if the fleet has said nothing of it, it goes on all the same.
    Unexplained(TaskId),
    /// Read a task again after a while.
    LookAgain(TaskId),
    /// A task that waits for its own was looked after: what is to be known of it and of them.
    Family(Vec<TaskRecord>),
    /// What waits by the records, a while after they were read last.
    Listed(Result<Vec<TaskRecord>, Failure>),
    /// Somebody's time has come.
    Due,
    /// One lease after the start: who is not back is not waited for any longer.
    LeaseOver,
    /// The time to reach a step boundary is over.
    ParkOver,
    /// Work that leaves nothing to do.
    Nothing,
}

pub(crate) struct SchedulerActor;

pub(crate) struct SchedulerArgs {
    pub shared: Arc<Shared>,
    pub address: Address<SchedulerMsg>,
    pub running: SupervisorHandle,
}

/// A task that is driven.
struct Running {
    serial: u64,
    waiting: Waiting,
    worker: WorkerId,
    address: Address<TaskMsg>,
    pauses: Vec<(Principal, Reply<TaskRecord>)>,
    /// Who took these back: the task may have come to its boundary by then.
    resumed: Option<Principal>,
    /// It was told that its worker drains.
    leaves: bool,
    /// Somebody changed the task while it was driven: the records show its end before its actor tells of it, and may have been
    /// changed again by then.
    changed: bool,
}

impl Running {
    /// Tells the task's actor what the operator wants of its worker, where that has changed.
    fn heed(&mut self, lifecycle: Lifecycle) {
        let leaves = lifecycle == Lifecycle::Draining;
        let message = if leaves { TaskMsg::Wish(Boundary::Yield) } else { TaskMsg::Stay };
        // One that starts at this moment hears the fleet's next word.
        if self.leaves != leaves && self.address.tell(message).is_ok() {
            self.leaves = leaves;
        }
    }
}

pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    address: Address<SchedulerMsg>,
    supervisor: SupervisorHandle,
    work: Work<SchedulerMsg>,
    queue: Queue,
    fleet: Fleet,
    running: HashMap<TaskId, Running>,
    /// Records of tasks that wait and have not changed since, to spare a read when they start.
    records: HashMap<TaskId, Box<TaskRecord>>,
    /// Workers that tasks have lost, until they are claimed elsewhere.
    losses: HashMap<TaskId, LostWorker>,
    /// Waiting to hear of their worker: active under this node when it started, or gone from under their actor a moment ago.
    adopting: HashMap<TaskId, (Waiting, WorkerId)>,
    /// Tasks by the task they wait for.
    dependents: HashMap<TaskId, Vec<TaskId>>,
    /// What waits for the day to turn, once for each task, and whether it does not wait.
    days: HashMap<TaskId, (AbortHandle, bool)>,
    /// Worker processes whose leftovers were looked through.
    swept: HashMap<WorkerId, u64>,
    serial: u64,
    loaded: bool,
    /// One lease has passed since the start.
    lease_passed: bool,
    due: Option<Boottime>,
    parking: Option<Reply<u64>>,
    closed: bool,
}

impl Actor for SchedulerActor {
    type Msg = Admitted<SchedulerMsg>;
    type State = Scheduler;
    type Arguments = SchedulerArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: SchedulerArgs) -> Result<Scheduler, ActorProcessingErr> {
        let SchedulerArgs { shared, address, running } = args;
        let mut work = Work::of(&myself);
        work.start(listing::load(Arc::clone(&shared)));
        let lease = Duration::from_millis(shared.args.lease.reassign_ms);
        work.start(async move {
            tokio::time::sleep(lease).await;
            SchedulerMsg::LeaseOver
        });
        Ok(Scheduler {
            shared,
            address,
            supervisor: running,
            work,
            queue: Queue::default(),
            fleet: Fleet::default(),
            running: HashMap::new(),
            records: HashMap::new(),
            losses: HashMap::new(),
            adopting: HashMap::new(),
            dependents: HashMap::new(),
            days: HashMap::new(),
            swept: HashMap::new(),
            serial: 0,
            loaded: false,
            lease_passed: false,
            due: None,
            parking: None,
            closed: false,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Scheduler,
    ) -> Result<(), ActorProcessingErr> {
        match message.take() {
            SchedulerMsg::Changed(task) => state.changed(task),
            SchedulerMsg::Loaded(Ok((tasks, views))) => state.loaded(tasks, views),
            SchedulerMsg::Loaded(Err(failure)) => return Err(failure.into()),
            SchedulerMsg::FleetChanged(views) => state.fleet_changed(views),
            SchedulerMsg::WorkerLost(lost) => state.worker_lost(&lost),
            SchedulerMsg::Lifecycle { worker, lifecycle } => state.lifecycle(worker, lifecycle),
            SchedulerMsg::Cancelled(task) => state.cancelled(&task),
            SchedulerMsg::Pause { task, principal, reply } => state.pause(task, principal, reply),
            SchedulerMsg::GoOn { task, principal, reply } => state.go_on(task, principal, reply),
            SchedulerMsg::WhoPauses { task, reply } => state.who_pauses(task, reply),
            SchedulerMsg::Explain { task, reply } => state.explain(&task, reply),
            SchedulerMsg::Park { within, reply } => state.park(within, reply),
            SchedulerMsg::Ended { task, serial, end } => state.ended(task, serial, *end),
            SchedulerMsg::Gone { task, serial, failure } => state.gone(task, serial, failure),
            SchedulerMsg::Stranded { record, lost } => state.stranded(&record, &lost),
            SchedulerMsg::Unexplained(task) => state.unexplained(task),
            SchedulerMsg::LookAgain(task) => state.look_again(task, AGAIN),
            SchedulerMsg::Family(tasks) => tasks.into_iter().for_each(|task| state.changed(Box::new(task))),
            SchedulerMsg::Listed(listed) => state.listed(listed),
            SchedulerMsg::Due => state.due = None,
            SchedulerMsg::LeaseOver => state.lease_over(),
            SchedulerMsg::ParkOver => state.park_over(),
            SchedulerMsg::Nothing => return Ok(()),
        }
        state.schedule();
        Ok(())
    }
}

impl Scheduler {
    /// Gives out what can be given out now.
    fn schedule(&mut self) {
        if !self.loaded || self.closed {
            return;
        }
        let now = self.shared.args.clock.boottime();
        let most = self.shared.args.tasks.max_concurrent_tasks as usize;
        let room = most.saturating_sub(self.running.len());
        for assignment in assign(&mut self.queue, &mut self.fleet, now, room) {
            self.begin(assignment, Handover::Open);
        }
        self.set_alarm(now);
    }

    fn set_alarm(&mut self, now: Boottime) {
        let next = self.queue.next_due(now);
        if let Some(next) = next
            && self.due.is_none_or(|due| next < due)
        {
            self.due = Some(next);
            let wait = next.since(now);
            self.work.start(async move {
                tokio::time::sleep(wait).await;
                SchedulerMsg::Due
            });
        }
    }

    /// Starts the actor of a task that was placed.
    fn begin(&mut self, assignment: Assignment, handover: Handover) {
        let Assignment { waiting, worker } = assignment;
        let task = waiting.task;
        self.wait_for_no_day(task);
        self.serial += 1;
        let serial = self.serial;
        let name = self.fleet.view(worker).map(|view| view.record.name.clone()).unwrap_or_default();
        let (record, lost) = (self.records.remove(&task), self.losses.remove(&task));
        let job = Job { task, record, worker, name, lost, previous: waiting.last, handover };
        let address = Address::unbound(format!("task {}", task.short()), TASK_MAILBOX);
        let child = self.child(task, serial, job, &address);
        let running =
            Running { serial, waiting, worker, address, pauses: Vec::new(), resumed: None, leaves: false, changed: false };
        self.running.insert(task, running);
        let supervisor = self.supervisor.clone();
        self.work.start(async move {
            match supervisor.start_child(child).await {
                Ok(()) => SchedulerMsg::Nothing,
                Err(failure) => SchedulerMsg::Gone { task, serial, failure: Some(failure) },
            }
        });
    }

    fn child(&self, task: TaskId, serial: u64, job: Job, address: &Address<TaskMsg>) -> ChildSpec {
        let (shared, scheduler) = (Arc::clone(&self.shared), self.address.clone());
        let told = self.address.clone();
        let start = move || {
            let args = TaskArgs { shared: Arc::clone(&shared), job: job.clone(), serial, scheduler: scheduler.clone() };
            (TaskActor, args)
        };
        ChildSpec::actor(format!("task {}.{serial}", task.short()), address, start)
            .restart(Restart::Temporary)
            .shutdown_within(Duration::from_secs(2))
            .when_gone(move |failure| {
                let _ = told.tell(SchedulerMsg::Gone { task, serial, failure });
            })
    }

    /// Takes note of a task's newest record.
    fn changed(&mut self, task: Box<TaskRecord>) {
        if let Some(running) = self.running.get_mut(&task.id) {
            running.changed = true;
            return;
        }
        if self.records.get(&task.id).is_some_and(|known| known.version > task.version) {
            // An older note that was overtaken.
            return;
        }
        match task.status {
            TaskStatus::Pending | TaskStatus::WaitingForWorker => self.wait(task),
            TaskStatus::WaitingForDependencies => self.depend(&task),
            TaskStatus::Assigned | TaskStatus::Running if self.shared.may_drive(&task) => {
                // Ours and driven by nobody: it goes on where it is, and where its worker is lost wherever there is room.
                if !self.adopting.contains_key(&task.id) && self.queue.get(task.id).is_none() {
                    let waiting = self.waiting(&task);
                    // One that the fleet has not told of is not lost before a lease has passed.
                    let runs = |at: &WorkerId| self.fleet.view(*at).map_or(!self.lease_passed, |view| !view.lost);
                    match task.worker.filter(runs) {
                        Some(worker) => {
                            self.adopting.insert(task.id, (waiting, worker));
                            if self.fleet.view(worker).is_some_and(|view| view.ready) {
                                self.adopt(worker);
                            }
                        }
                        None => self.move_on(waiting, None),
                    }
                }
            }
            status => {
                self.queue.remove(task.id);
                self.records.remove(&task.id);
                if status == TaskStatus::WaitingForInput {
                    self.waits_for_input(task.id);
                } else if let Some(parent) = task.spec.parent.filter(|_| status.is_final()) {
                    self.look_after(parent);
                }
            }
        }
    }

    /// A task that waits, with its time on the clock that nobody can set. The records have it on the wall clock: whatever
    /// that was set to meanwhile, no retry waits longer than the longest backoff, and nothing for a model longer than
    /// that may take.
    fn waiting(&self, task: &TaskRecord) -> Waiting {
        let shared = &self.shared;
        let most = longest_wait(&task.reason, Duration::from_millis(shared.args.tasks.retry_backoff_most_ms));
        let left = task.not_before.map(|due| due.since(shared.now()).min(most)).filter(|left| !left.is_zero());
        Waiting::of(task, left.map(|left| shared.args.clock.boottime().after(left)))
    }

    fn wait(&mut self, task: Box<TaskRecord>) {
        let mut waiting = self.waiting(&task);
        waiting.lost = task.status == TaskStatus::WaitingForWorker;
        // The records forget the worker of a task that waits; its workspace may be there all the same.
        waiting.last = waiting.last.or_else(|| self.queue.get(task.id).and_then(|known| known.last));
        self.queue.push(waiting);
        self.records.insert(task.id, task);
    }

    fn depend(&mut self, task: &TaskRecord) {
        for wanted in &task.spec.depends_on {
            let waiting = self.dependents.entry(*wanted).or_default();
            if !waiting.contains(&task.id) {
                waiting.push(task.id);
            }
        }
        // Its last dependency may have completed between its record and this note.
        self.look_again(task.id, Duration::ZERO);
    }

    /// Reads a task after a while and takes note of it, unless it still waits for others.
    fn look_again(&mut self, task: TaskId, after: Duration) {
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            tokio::time::sleep(after).await;
            match read_task(&shared, task).await {
                Ok(task) if task.status != TaskStatus::WaitingForDependencies => SchedulerMsg::Changed(Box::new(task)),
                Ok(_) => SchedulerMsg::Nothing,
                Err(failure) if failure.code == Code::NotFound => SchedulerMsg::Nothing,
                Err(failure) => {
                    tracing::warn!(%task, "the task could not be read: {failure}");
                    SchedulerMsg::LookAgain(task)
                }
            }
        });
    }

    /// A task is parked with a question, which may be one that this node answers.
    fn waits_for_input(&mut self, task: TaskId) {
        self.look_after(task);
        self.wait_for_the_day(task);
    }

    /// Looks after a task that may wait for tasks of its own: those that it has just made are scheduled, and it goes on where one
    /// of them has ended.
    fn look_after(&mut self, parent: TaskId) {
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            match children::look_after(&shared, parent).await {
                Ok(tasks) => SchedulerMsg::Family(tasks),
                Err(failure) => {
                    tracing::warn!(task = %parent, "the tasks that it waits for could not be read: {failure}");
                    SchedulerMsg::LookAgain(parent)
                }
            }
        });
    }

    /// Lets a task that may wait at a limit of the day go on once it has turned; at once where it waited under a node before this.
    fn wait_for_the_day(&mut self, task: TaskId) {
        // What does not wait and is not done goes on so.
        let begun = self.days.get(&task).is_some_and(|(waiting, at_once)| *at_once && !waiting.is_finished());
        let (shared, at_once) = (Arc::clone(&self.shared), begun || !self.loaded);
        // Whoever is stopped here with an answer on its way leaves a task that is listed before long.
        self.wait_for_no_day(task);
        let waiting = self.work.start(async move {
            match day::wait(&shared, task, at_once).await {
                Ok(Some(task)) => SchedulerMsg::Changed(Box::new(task)),
                Ok(None) => SchedulerMsg::Nothing,
                Err(failure) => {
                    tracing::warn!(%task, "whether it waits for the day could not be read: {failure}");
                    SchedulerMsg::LookAgain(task)
                }
            }
        });
        self.days.insert(task, (waiting, at_once));
    }

    fn wait_for_no_day(&mut self, task: TaskId) {
        if let Some((waiting, _)) = self.days.remove(&task) {
            waiting.abort();
        }
    }

    /// A task reached a final state: whoever waited for it is looked at.
    fn settled(&mut self, task: TaskId) {
        self.wait_for_no_day(task);
        self.shared.calls.give_up(task);
        // Of an agent's last call nobody will ask how it fared.
        self.shared.args.spending.note(task, None);
        for dependent in self.dependents.remove(&task).unwrap_or_default() {
            self.look_again(dependent, Duration::ZERO);
        }
    }

    fn fleet_changed(&mut self, views: Vec<WorkerView>) {
        self.fleet.replace(views);
        let ready: Vec<(WorkerId, u64)> =
            self.fleet.views().filter(|view| view.ready).map(|view| (view.record.id, view.incarnation)).collect();
        for (worker, incarnation) in ready {
            self.adopt(worker);
            if self.loaded && self.swept.insert(worker, incarnation) != Some(incarnation) {
                self.sweep(worker);
            }
        }
        if self.lease_passed {
            self.give_up_unknown();
        }
        let draining: HashSet<WorkerId> =
            self.fleet.views().filter(|view| view.record.lifecycle == Lifecycle::Draining).map(|view| view.record.id).collect();
        for running in self.running.values_mut() {
            running.heed(if draining.contains(&running.worker) { Lifecycle::Draining } else { Lifecycle::Open });
        }
    }

    fn cancelled(&mut self, task: &TaskRecord) {
        self.queue.remove(task.id);
        self.records.remove(&task.id);
        self.losses.remove(&task.id);
        let at = self.adopting.remove(&task.id).map(|(_, worker)| worker);
        let running = self.let_go(task.id);
        if let Some(worker) = running.as_ref().map(|running| running.worker).or(at) {
            close(&self.shared, worker, task);
        }
        if let Some(running) = running {
            let _ = running.address.tell(TaskMsg::Stop);
            answer_pauses(running.pauses, task);
        }
        if let Some(parent) = task.spec.parent {
            self.look_after(parent);
        }
        self.settled(task.id);
    }

    fn pause(&mut self, task: TaskId, principal: Principal, reply: Reply<TaskRecord>) {
        if let Some(running) = self.running.get_mut(&task) {
            let boundary = Boundary::Pause { actor: principal.actor.clone() };
            running.pauses.push((principal, reply));
            running.resumed = None;
            // An actor that has just ended answers with its end.
            let _ = running.address.tell(TaskMsg::Wish(boundary));
            return;
        }
        self.queue.remove(task);
        self.records.remove(&task);
        self.adopting.remove(&task);
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            let answer = requests::pause(&shared, task, &principal).await;
            let refused = answer.is_err();
            let _ = reply.send(answer);
            // What could not be parked goes on as it was, and so does what was resumed in the meantime.
            match (refused, read_task(&shared, task).await) {
                (_, Ok(task)) => SchedulerMsg::Changed(Box::new(task)),
                (true, Err(_)) => SchedulerMsg::LookAgain(task),
                (false, Err(_)) => SchedulerMsg::Nothing,
            }
        });
    }

    fn go_on(&mut self, task: TaskId, principal: Principal, reply: Reply<bool>) {
        let Some(running) = self.running.get_mut(&task).filter(|running| !running.pauses.is_empty()) else {
            let _ = reply.send(Ok(false));
            return;
        };
        let _ = running.address.tell(TaskMsg::GoOn);
        for (_, pause) in running.pauses.drain(..) {
            let message = format!("task {} goes on: {} has resumed it", task.short(), principal.actor);
            let _ = pause.send(Err(Failure::new(Code::InvalidState, message).hint("pause it again to park it all the same")));
        }
        running.resumed = Some(principal);
        let _ = reply.send(Ok(true));
    }

    fn who_pauses(&self, task: TaskId, reply: Reply<Option<String>>) {
        let pauses = self.running.get(&task).and_then(|running| running.pauses.first());
        let _ = reply.send(Ok(pauses.map(|(principal, _)| principal.actor.clone())));
    }

    /// Whoever wanted to park a task that has just lost its actor is heard by the next way.
    fn keep_pauses(&mut self, task: TaskId, pauses: Vec<(Principal, Reply<TaskRecord>)>) {
        for (principal, reply) in pauses {
            self.pause(task, principal, reply);
        }
    }

    fn explain(&self, task: &TaskRecord, reply: Reply<Vec<WorkerReason>>) {
        let waiting = self.queue.get(task.id).cloned().unwrap_or_else(|| self.waiting(task));
        let _ = reply.send(Ok(self.fleet.explain(&waiting)));
    }

    fn park(&mut self, within: Duration, reply: Reply<u64>) {
        self.closed = true;
        for running in self.running.values() {
            let _ = running.address.tell(TaskMsg::Wish(Boundary::Park));
        }
        self.parking = Some(reply);
        self.work.start(async move {
            tokio::time::sleep(within).await;
            SchedulerMsg::ParkOver
        });
        self.parked();
    }

    fn parked(&mut self) {
        if self.running.is_empty()
            && let Some(reply) = self.parking.take()
        {
            let _ = reply.send(Ok(0));
        }
    }

    fn park_over(&mut self) {
        if let Some(reply) = self.parking.take() {
            let _ = reply.send(Ok(self.running.len() as u64));
        }
    }
}
