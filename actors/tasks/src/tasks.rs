//! The door of the branch: every request arrives here, is carried out on the records, and the scheduler is told.
//!
//! Parent: the tasks branch, after the scheduler and the running tasks. Permanent. It keeps nothing: requests that are under way
//! when it ends are answered by their askers' time-outs, and may be repeated.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Reply};
use helix_messages::{ResumeTask, TaskWhy, TasksMsg};
use helix_protocol::{Capability, Failure, Principal, Sandboxing, Subject, TaskId, TaskRecord, TaskStatus};
use tokio::task::JoinSet;

use crate::children::waited_for;
use crate::drive::read_task;
use crate::failing::waits_for_a_model;
use crate::requests::open_question;
use crate::scheduler::SchedulerMsg;
use crate::shared::Shared;
use crate::{rehearsal, requests};

const QUICK: Duration = Duration::from_secs(10);

pub(crate) struct TasksActor;

pub(crate) struct DoorArgs {
    pub shared: Arc<Shared>,
    pub scheduler: Address<SchedulerMsg>,
}

pub(crate) struct Door {
    shared: Arc<Shared>,
    scheduler: Address<SchedulerMsg>,
    /// Requests under way; dropped with the actor.
    work: JoinSet<()>,
}

impl Actor for TasksActor {
    type Msg = Admitted<TasksMsg>;
    type State = Door;
    type Arguments = DoorArgs;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: DoorArgs) -> Result<Door, ActorProcessingErr> {
        Ok(Door { shared: args.shared, scheduler: args.scheduler, work: JoinSet::new() })
    }

    async fn handle(&self, _myself: ActorRef<Self::Msg>, message: Self::Msg, door: &mut Door) -> Result<(), ActorProcessingErr> {
        while door.work.try_join_next().is_some() {}
        let shared = Arc::clone(&door.shared);
        match message.take() {
            TasksMsg::Create { create, reply } => door.change(reply, async move { requests::create(&shared, *create).await }),
            TasksMsg::Fork { fork, reply } => door.change(reply, async move { requests::fork(&shared, *fork).await }),
            TasksMsg::Cancel { task, principal, reply } => {
                door.cancel(reply, async move { requests::cancel(&shared, task, &principal).await })
            }
            TasksMsg::Pause { task, principal, reply } => door.forward(SchedulerMsg::Pause { task, principal, reply }),
            TasksMsg::Resume { task, resume, principal, reply } => {
                let scheduler = door.scheduler.clone();
                door.change(reply, async move { go_on(&shared, &scheduler, task, resume, &principal).await });
            }
            TasksMsg::Retry { task, retry, principal, reply } => {
                door.change(reply, async move { requests::retry(&shared, task, retry, &principal).await });
            }
            TasksMsg::Checkpoint { task, step, name, reply } => {
                door.work.spawn(async move { drop(reply.send(requests::checkpoint(&shared, task, step, name).await)) });
            }
            TasksMsg::Rollback { task, step, principal, reply } => {
                door.change(reply, async move { requests::rollback(&shared, task, step, &principal).await });
            }
            TasksMsg::Answer { question, answer, principal, reply } => {
                door.change(reply, async move { requests::answer(&shared, question, answer, &principal).await });
            }
            TasksMsg::Say { say, principal, reply } => {
                door.work.spawn(async move { drop(reply.send(requests::say(&shared, say, &principal).await)) });
            }
            TasksMsg::Replay { task, reply } => {
                door.work.spawn(async move { drop(reply.send(rehearsal::replay(&shared, task).await)) });
            }
            TasksMsg::Why { task, reply } => {
                let scheduler = door.scheduler.clone();
                door.work.spawn(async move { drop(reply.send(why(&shared, &scheduler, task).await)) });
            }
            TasksMsg::FleetChanged { workers } => door.forward(SchedulerMsg::FleetChanged(workers)),
            TasksMsg::WorkerLost { lost } => door.forward(SchedulerMsg::WorkerLost(lost)),
            TasksMsg::WorkerLifecycle { worker, lifecycle } => door.forward(SchedulerMsg::Lifecycle { worker, lifecycle }),
            TasksMsg::Park { within, reply } => door.forward(SchedulerMsg::Park { within, reply }),
        }
        Ok(())
    }
}

impl Door {
    /// Carries a change out, tells the scheduler, answers.
    fn change(&mut self, reply: Reply<TaskRecord>, change: impl Future<Output = Result<TaskRecord, Failure>> + Send + 'static) {
        self.carry_out(reply, change, SchedulerMsg::Changed);
    }

    fn cancel(&mut self, reply: Reply<TaskRecord>, change: impl Future<Output = Result<TaskRecord, Failure>> + Send + 'static) {
        self.carry_out(reply, change, SchedulerMsg::Cancelled);
    }

    fn carry_out(
        &mut self,
        reply: Reply<TaskRecord>,
        change: impl Future<Output = Result<TaskRecord, Failure>> + Send + 'static,
        tell: fn(Box<TaskRecord>) -> SchedulerMsg,
    ) {
        let (scheduler, change) = (self.scheduler.clone(), Box::pin(change));
        self.work.spawn(async move {
            let answer = change.await;
            if let Ok(task) = &answer {
                // A scheduler that is starting anew reads the records.
                let _ = scheduler.tell(tell(Box::new(task.clone())));
            }
            let _ = reply.send(answer);
        });
    }

    fn forward(&self, message: SchedulerMsg) {
        // Refused only while the scheduler starts anew: a reply port that is dropped answers its asker.
        if let Err(failure) = self.scheduler.tell(message) {
            tracing::debug!("the scheduler did not take a message: {failure}");
        }
    }
}

/// Continues a parked task, or takes back the pause of one that has not come to its step boundary.
async fn go_on(
    shared: &Shared,
    scheduler: &Address<SchedulerMsg>,
    task: TaskId,
    resume: ResumeTask,
    principal: &Principal,
) -> Result<TaskRecord, Failure> {
    let record = read_task(shared, task).await?;
    let by = principal.clone();
    if record.status.is_active()
        && resume == ResumeTask::default()
        && scheduler.ask(QUICK, |reply| SchedulerMsg::GoOn { task, principal: by, reply }).await?
    {
        return read_task(shared, task).await;
    }
    requests::resume(shared, task, resume, principal).await
}

async fn why(shared: &Shared, scheduler: &Address<SchedulerMsg>, task: TaskId) -> Result<TaskWhy, Failure> {
    let record = read_task(shared, task).await?;
    let mut waits_for = Vec::new();
    for dependency in &record.spec.depends_on {
        waits_for.push((*dependency, read_task(shared, *dependency).await?.status));
    }
    let status = record.status;
    let asked = if status == TaskStatus::WaitingForInput { open_question(shared, task).await? } else { None };
    let asked = asked.map(|question| question.subject);
    let own = if let Some(Subject::Children { tasks }) = &asked { tasks.as_slice() } else { &[] };
    let mut asks = Vec::new();
    for &task in own {
        let status = read_task(shared, task).await?.status;
        waits_for.push((task, status));
        // One that waits for tasks of its own asks nobody.
        if status == TaskStatus::WaitingForInput && waited_for(shared, task).await?.is_none() {
            asks.push(task);
        }
    }
    let mut reason = reason(&record);
    let waits = matches!(status, TaskStatus::Pending | TaskStatus::WaitingForWorker);
    // Workers have no part in what a model is waited for.
    let workers = if waits && !waits_for_a_model(&record) {
        scheduler.ask(QUICK, |reply| SchedulerMsg::Explain { task: Box::new(record.clone()), reply }).await?
    } else {
        Vec::new()
    };
    if waits && record.reason.is_empty() && workers.is_empty() {
        "there is no worker".clone_into(&mut reason);
    }
    let removed = waits && names_no_worker(shared, &record).await?;
    if removed {
        "the only worker it may run on was removed".clone_into(&mut reason);
    }
    let pauses =
        if status.is_active() { scheduler.ask(QUICK, |reply| SchedulerMsg::WhoPauses { task, reply }).await? } else { None };
    if let Some(actor) = &pauses {
        reason.push_str(&format!("; it parks at its next step boundary, as {actor} wants"));
    }
    let is_sandbox = |lacked: &Capability| lacked.0 == Sandboxing::CAPABILITY;
    let lacks_sandbox = workers.iter().any(|worker| worker.lacks.iter().any(is_sandbox));
    let mut next = match &asked {
        Some(Subject::Children { .. }) => for_own(&asks),
        _ if removed => vec![format!("`helix task cancel {}`, and run it again on another worker", task.short())],
        asked => next(&record, asked.as_ref(), lacks_sandbox),
    };
    if pauses.is_some() {
        next.pop();
        next.push(format!("`helix task resume {}` takes the pause back", record.id.short()));
    }
    Ok(TaskWhy { status, reason, waits_for, workers, next })
}

/// Whether the task is to run on a worker that there is no more.
async fn names_no_worker(shared: &Shared, record: &TaskRecord) -> Result<bool, Failure> {
    let Some(only) = record.spec.needs.worker else { return Ok(false) };
    Ok(shared.args.records.read().workers().await?.iter().all(|worker| worker.id != only))
}

fn reason(record: &TaskRecord) -> String {
    if !record.reason.is_empty() {
        return record.reason.clone();
    }
    let text = match record.status {
        TaskStatus::Pending => "it waits for a worker that fits and is free",
        TaskStatus::WaitingForDependencies => "tasks it depends on have not completed",
        TaskStatus::Assigned => "a worker was given to it and its first step is being made",
        TaskStatus::Running => "its steps are being made",
        TaskStatus::Paused => "somebody parked it",
        TaskStatus::WaitingForInput => "it asked a question",
        TaskStatus::WaitingForWorker => "it lost its worker and no other is free",
        TaskStatus::Completed => "it reached its end",
        TaskStatus::Failed => "it ended without success",
        TaskStatus::Cancelled => "somebody gave it up",
    };
    text.to_owned()
}

/// What to do about a task that waits for tasks of its own, of which these ask.
fn for_own(asks: &[TaskId]) -> Vec<String> {
    if asks.is_empty() {
        return vec!["nobody has to answer: it goes on when one of them has ended".to_owned()];
    }
    asks.iter().map(|task| format!("`helix task answer {}` shows what that one asks, and answers it", task.short())).collect()
}

fn next(record: &TaskRecord, asked: Option<&Subject>, lacks_sandbox: bool) -> Vec<String> {
    let id = record.id.short();
    match record.status {
        TaskStatus::Pending if waits_for_a_model(record) => vec![
            "`helix status` shows the models that are left alone, since when, and when they are asked again".to_owned(),
            "`helix explain no_model_answers` says more".to_owned(),
        ],
        TaskStatus::Pending | TaskStatus::WaitingForWorker => {
            let mut next = vec!["`helix worker list` shows every worker".to_owned(), "`helix worker add` adds one".to_owned()];
            if lacks_sandbox {
                next.push("where no worker can give its sandbox, cancel it and run it again with --unsandboxed".to_owned());
            }
            next
        }
        TaskStatus::WaitingForDependencies => vec!["wait for the tasks above, or cancel it".to_owned()],
        TaskStatus::Assigned | TaskStatus::Running => {
            vec![format!("`helix attach {id}` shows it live"), format!("`helix task pause {id}` parks it")]
        }
        TaskStatus::Paused => vec![format!("`helix task resume {id}`")],
        TaskStatus::WaitingForInput if asked == Some(&Subject::Model) => {
            vec![format!("mend what it names, then `helix task resume {id}`: it goes on from its last step")]
        }
        TaskStatus::WaitingForInput if matches!(asked, Some(Subject::Day { .. })) => vec![
            format!("`helix task answer {id} yes` lets it go on today, over the limit; else it goes on after midnight UTC"),
            "`helix status` shows what was spent today".to_owned(),
            "`helix explain day_limit_reached` says more".to_owned(),
        ],
        TaskStatus::WaitingForInput => {
            vec![format!("`helix task show {id}` has the question; `helix task answer {id} ANSWER` answers it")]
        }
        TaskStatus::Failed if !record.hint.is_empty() => vec![record.hint.clone()],
        TaskStatus::Failed | TaskStatus::Cancelled => vec![format!("`helix task retry {id}` goes on from its last step")],
        TaskStatus::Completed => vec![format!("`helix task export {id}` writes its work as a git branch")],
    }
}
