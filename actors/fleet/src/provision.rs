//! Adding and removing workers: slow work (uploads, logins) that never stands in anybody's way.
//!
//! Parent: `fleet`. Restart: permanent. Nothing survives a restart: an addition that was under way is asked for again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use helix_database::{TaskFilter, Write};
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Reply, Work};
use helix_messages::{AddWorker, FleetMsg, LostWorker, WorkerView};
use helix_ports::{ConnectError, DeathProof};
use helix_protocol::{
    Code, EventKind, Failure, Lifecycle, NewEvent, TaskStatus, Timestamp, WorkerHealth, WorkerId, WorkerRecord, WorkerStatus,
    WorkerTarget,
};
use serde_json::json;

use crate::directory::Directory;
use crate::line::Line;
use crate::worker::WorkerMsg;

/// A worker that has just been started listens within this time, or not at all.
const LISTENS: Duration = Duration::from_secs(5);
/// Between two looks whether it does.
const KNOCK: Duration = Duration::from_millis(20);
/// How long a connection's actor may take for a message.
const QUICK: Duration = Duration::from_secs(10);
/// Between two attempts at a write.
const REWRITE: Duration = Duration::from_secs(2);
/// What can be done about tasks that name the worker.
const PINNED: &str =
    "wait for their end, or cancel them; with `--force` they stay as they are, and no other worker ever takes them";

/// What the provisioner is asked, and how its work ended.
pub(crate) enum ProvisionMsg {
    /// As `FleetMsg::Add`. Sent by the fleet.
    Add { worker: Box<AddWorker>, reply: Reply<WorkerView> },
    /// As `FleetMsg::Remove`. Sent by the fleet.
    Remove { worker: WorkerId, force: bool, reply: Reply<()> },
    /// An addition ended. Whoever asked is told once its address is free again.
    Added { target: WorkerTarget, view: Result<Box<WorkerView>, Failure>, reply: Reply<WorkerView> },
    /// A removal ended, as an addition does.
    Removed { target: WorkerTarget, done: Result<(), Failure>, reply: Reply<()> },
}

/// What the actor is started with, each time anew.
#[derive(Clone)]
pub(crate) struct ProvisionerArgs {
    pub directory: Arc<Directory>,
    /// Slots of a worker for which nothing was said; 0 for its number of cores.
    pub slots: u32,
    /// After this long a worker that cannot be reached has fenced itself.
    pub reassign: Duration,
}

/// Most tasks that a refusal names.
const SHOWN: usize = 5;

/// The actor.
pub(crate) struct ProvisionerActor;

pub(crate) struct ProvisionerState {
    args: ProvisionerArgs,
    work: Work<ProvisionMsg>,
    busy: HashSet<WorkerTarget>,
}

impl Actor for ProvisionerActor {
    type Msg = Admitted<ProvisionMsg>;
    type State = ProvisionerState;
    type Arguments = ProvisionerArgs;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, args: ProvisionerArgs) -> Result<ProvisionerState, ActorProcessingErr> {
        Ok(ProvisionerState { args, work: Work::of(&me), busy: HashSet::new() })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut ProvisionerState,
    ) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ProvisionMsg::Add { worker, reply } => state.add(*worker, reply),
            ProvisionMsg::Remove { worker, force, reply } => state.remove(worker, force, reply),
            ProvisionMsg::Added { target, view, reply } => {
                state.busy.remove(&target);
                answer(reply, view.map(|view| *view));
            }
            ProvisionMsg::Removed { target, done, reply } => {
                state.busy.remove(&target);
                answer(reply, done);
            }
        }
        Ok(())
    }
}

impl ProvisionerState {
    fn add(&mut self, worker: AddWorker, reply: Reply<WorkerView>) {
        let record = new_record(worker, self.args.directory.dialler().clock.wall());
        let target = record.target.clone();
        if let Err(failure) = self.args.directory.check_new(&record).and_then(|()| self.begin(&target)) {
            return answer(reply, Err(failure));
        }
        let args = self.args.clone();
        self.work.start(async move {
            let view = args.add(record).await.map(Box::new);
            ProvisionMsg::Added { target, view, reply }
        });
    }

    fn remove(&mut self, worker: WorkerId, force: bool, reply: Reply<()>) {
        let line = match self.args.directory.line(worker) {
            Ok(line) => line,
            Err(failure) => return answer(reply, Err(failure)),
        };
        let target = line.view().record.target;
        if let Err(failure) = self.begin(&target) {
            return answer(reply, Err(failure));
        }
        let args = self.args.clone();
        self.work.start(async move {
            let done = args.remove(&line, force).await;
            ProvisionMsg::Removed { target, done, reply }
        });
    }

    fn begin(&mut self, target: &WorkerTarget) -> Result<(), Failure> {
        if self.busy.insert(target.clone()) {
            return Ok(());
        }
        Err(Failure::new(Code::InvalidState, format!("a worker at {target} is being added or removed already"))
            .hint("wait until that has ended; `helix worker list` shows it"))
    }
}

impl ProvisionerArgs {
    async fn add(&self, mut record: WorkerRecord) -> Result<WorkerView, Failure> {
        let dialler = self.directory.dialler();
        dialler.start(&record.target).await.map_err(in_the_way)?;
        let line = Arc::new(Line::new(record.clone()));
        let dialled = self.knock(&line, &record.target).await?;
        let cores = dialled.welcome.facts.resources.cores.max(1);
        record.slots = [record.slots, self.slots, cores].into_iter().find(|slots| *slots > 0).unwrap_or(1);
        record.facts = Some(dialled.welcome.facts.clone());
        self.directory.records().write(Write::Worker { worker: Box::new(record.clone()), events: Vec::new() }).await?;
        record.version = 1;
        let line = Arc::new(Line::new(record));
        // The number is the connection's, so the line that counts on starts above it.
        line.count_from(dialled.number);
        self.directory.employ(Arc::clone(&line), dialler.clock.boottime(), Some(dialled)).await?;
        tokio::time::timeout(dialler.limit, line.connected()).await.map_err(|_| {
            Failure::new(Code::WorkerUnreachable, format!("worker {} was added, and its connection ended at once", line.name()))
                .hint("`helix worker show` says how it is; it is tried again by itself")
        })?;
        Ok(line.view())
    }

    /// Connects to a process that has just been started.
    async fn knock(&self, line: &Line, target: &WorkerTarget) -> Result<crate::dial::Dialled, Failure> {
        let deadline = tokio::time::Instant::now() + LISTENS;
        loop {
            match self.directory.dialler().dial(line, target).await {
                Ok(dialled) => return Ok(dialled),
                Err(ConnectError::Dead(_)) if tokio::time::Instant::now() < deadline => tokio::time::sleep(KNOCK).await,
                Err(error) => return Err(in_the_way(error)),
            }
        }
    }

    async fn remove(&self, line: &Arc<Line>, force: bool) -> Result<(), Failure> {
        if !force {
            self.refuse_while_used(line).await?;
        }
        line.address().ask(QUICK, |reply| WorkerMsg::Retire { retired: true, reply }).await?;
        let target = line.view().record.target;
        let proof = match self.take_down(line, &target).await {
            Ok(()) | Err(ConnectError::Dead(_)) => DeathProof::WaitStatus { status: "stopped and removed".to_owned() },
            Err(ConnectError::Unreachable(failure) | ConnectError::Refused(failure))
                if force || failure.code == Code::AnotherWorker =>
            {
                tracing::warn!(worker = line.name(), %failure, "the worker is forgotten, and what was installed there stays");
                // Its tasks may go elsewhere only once it has fenced itself.
                tokio::time::timeout(self.reassign * 2, line.lost()).await.map_err(|_| still_alive(line))?;
                DeathProof::LeaseExpired { silent_ms: u64::try_from(self.reassign.as_millis()).unwrap_or(u64::MAX) }
            }
            Err(ConnectError::Unreachable(failure) | ConnectError::Refused(failure)) => {
                line.address().ask(QUICK, |reply| WorkerMsg::Retire { retired: false, reply }).await?;
                return Err(failure.clone().hint(format!("{}; `--force` forgets it all the same", failure.hint)));
            }
        };
        let lost = LostWorker {
            worker: line.worker(),
            name: line.name().to_owned(),
            incarnation: line.view().incarnation,
            proof,
            silent_ms: 0,
        };
        let record = line.view().record;
        if let Err(failure) = self.directory.dismiss(line).await {
            tracing::warn!(worker = line.name(), %failure, "its connection did not end in order");
        }
        let event = NewEvent::info(EventKind::WorkerLifecycleChanged, "fleet", format!("worker {} was removed", line.name()))
            .worker(line.worker())
            .detail(json!({ "lifecycle": "removed" }));
        self.forget(line, event).await;
        self.directory.fleet().tell(FleetMsg::ConnectionLost { lost: Box::new(lost) })?;
        let gone = WorkerView { record, ready: false, lost: true, incarnation: 0, pid: None, holds: Vec::new() };
        self.directory.fleet().tell(FleetMsg::ConnectionChanged { view: Box::new(gone) })
    }

    /// Stops the worker and deletes what was made for it. Where another worker of this node answers, all that is there is that
    /// one's.
    async fn take_down(&self, line: &Line, target: &WorkerTarget) -> Result<(), ConnectError> {
        let dialler = self.directory.dialler();
        if !line.is_connected()
            && let Err(ConnectError::Refused(failure)) = dialler.dial(line, target).await
            && failure.code == Code::AnotherWorker
        {
            return Err(ConnectError::Refused(failure));
        }
        dialler.transport(target).map_err(ConnectError::Refused)?.remove(target).await
    }

    /// Has the records forget the worker, however long they are away: nothing of it is left, and a row that stayed would have it
    /// installed again by the next node.
    async fn forget(&self, line: &Line, event: NewEvent) {
        let write = Write::RemoveWorker { worker: line.worker(), events: vec![event] };
        while let Err(failure) = self.directory.records().write(write.clone()).await {
            tracing::warn!(worker = line.name(), %failure, "the worker is removed, and its row is not yet; it is tried again");
            tokio::time::sleep(REWRITE).await;
        }
    }

    async fn refuse_while_used(&self, line: &Line) -> Result<(), Failure> {
        let status = TaskStatus::ALL.into_iter().filter(|status| !status.is_final()).collect();
        let tasks = self.directory.records().read().tasks(TaskFilter { status, limit: None }).await?;
        let refused = |what: String| Failure::new(Code::InvalidState, format!("worker {} {what}", line.name()));
        let pinned: Vec<String> =
            tasks.iter().filter(|task| task.spec.needs.worker == Some(line.worker())).map(|task| task.id.short()).collect();
        match &pinned[..] {
            [] => {}
            [one] => return Err(refused(format!("is still needed: task {one} is to run on it and on no other")).hint(PINNED)),
            some => {
                let (shown, more) = (some[..some.len().min(SHOWN)].join(", "), if some.len() > SHOWN { ", …" } else { "" });
                let what = format!("is still needed: {} tasks are to run on it and on no other: {shown}{more}", some.len());
                return Err(refused(what).hint(PINNED));
            }
        }
        let held = tasks.iter().filter(|task| task.status.is_active() && task.worker == Some(line.worker())).count();
        if held == 0 {
            return Ok(());
        }
        let (name, plural) = (line.name(), if held == 1 { "" } else { "s" });
        let first = match line.view().record.lifecycle {
            Lifecycle::Draining => format!("it drains, and `helix worker drain {name}` waits for that"),
            Lifecycle::Open | Lifecycle::Cordoned => format!("drain it first: `helix worker drain {name}`"),
        };
        Err(refused(format!("holds {held} task{plural}"))
            .hint(format!("{first}; or `--force`, and what it holds goes on elsewhere from its last step")))
    }
}

fn still_alive(line: &Line) -> Failure {
    Failure::new(Code::InvalidState, format!("worker {} still answers its heartbeats, so it cannot be forgotten", line.name()))
        .hint("stop it first: `helix-worker stop` on its machine")
}

fn new_record(worker: AddWorker, now: Timestamp) -> WorkerRecord {
    let name = if worker.name.is_empty() { name_of(&worker.target) } else { worker.name };
    WorkerRecord {
        id: WorkerId::new(),
        name,
        target: worker.target,
        slots: worker.slots.unwrap_or(0),
        lifecycle: Lifecycle::Open,
        status: WorkerStatus::Inactive,
        health: WorkerHealth::Unknown,
        facts: None,
        reason: String::new(),
        created_at: now,
        last_seen_at: None,
        version: 0,
    }
}

fn name_of(target: &WorkerTarget) -> String {
    match target {
        WorkerTarget::Local { folder } => folder.trim_end_matches('/').rsplit('/').next().unwrap_or("local").to_owned(),
        WorkerTarget::Ssh { destination } => destination.clone(),
        WorkerTarget::Russh { host, .. } => host.clone(),
    }
}

fn in_the_way(error: ConnectError) -> Failure {
    match error {
        ConnectError::Unreachable(failure) | ConnectError::Refused(failure) => failure,
        ConnectError::Dead(proof) => Failure::new(Code::InstallFailed, format!("the worker was started and has ended: {proof}"))
            .hint("its log in the worker's folder says why"),
    }
}

/// Answers. An error means that the asker has gone, which is its right.
fn answer<T>(reply: Reply<T>, result: Result<T, Failure>) {
    let _ = reply.send(result);
}
