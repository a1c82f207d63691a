//! The rules of tasks: making, claiming, changing their state, and what that does to those that wait.

use std::borrow::Cow;
use std::sync::Arc;

use helix_protocol::{
    AttemptId, Base, Epoch, Event, EventKind, Money, NewEvent, NodeId, Principal, ProjectId, Severity, TaskId, TaskRecord,
    TaskSpec, TaskStatus, Timestamp, WorkerId,
};

use super::events::{about, record};
use crate::rows::{Change, Guard, Holder, Rows, TaskRow};
use crate::{Applied, RecordError, StatusChange};

/// A task to be made.
pub(super) struct Request<'a> {
    pub id: TaskId,
    pub attempt: AttemptId,
    pub spec: &'a TaskSpec,
    pub principal: &'a Principal,
    pub project: ProjectId,
    pub paused: Option<&'a str>,
}

/// Who takes which task.
pub(super) struct Claim {
    pub task: TaskId,
    pub expected: Epoch,
    pub node: NodeId,
    pub worker: WorkerId,
}

pub(super) async fn create(
    rows: &mut dyn Rows,
    request: Request<'_>,
    key: Option<&str>,
    now: Timestamp,
) -> Result<Applied, RecordError> {
    let owner = request.principal.owner;
    if let Some(key) = key
        && let Some(made) = rows.task_of_key(owner, key).await?
    {
        let row = existing(rows, made).await?;
        return if *row.asked == *request.spec {
            Ok(task(row, Vec::new()))
        } else {
            Err(RecordError::IdempotencyConflict(key.to_owned()))
        };
    }
    let dependencies = dependencies(request.spec);
    let stands_alone = dependencies.is_empty() && request.spec.fork_of.is_none();
    // What it stands on may have changed since it was made, so a repetition is looked for before that is looked at. Where it stands
    // on nothing, the insertion finds out.
    if !stands_alone && let Some(row) = rows.task(request.id).await? {
        return made_before(row, &request);
    }
    let mut unmet = Vec::new();
    for dependency in &dependencies {
        let needed = existing(rows, *dependency).await?.record;
        if needed.status != TaskStatus::Completed {
            unmet.push((needed.id, needed.status));
        }
    }
    let status = match request.paused {
        None => waits_for(&unmet)?,
        Some(_) => TaskStatus::Paused,
    };
    let steps = match request.spec.fork_of {
        Some(step) => rows.step_place(step).await?.ok_or_else(|| RecordError::NotFound(format!("step {step}")))?.ordinal,
        None => 0,
    };
    let events = told_of(&request);
    let record_of = first_record(&request, status, steps, now);
    let row = TaskRow { record: record_of, asked: Arc::new(request.spec.clone()), events: events.len() as u64, needed: false };
    if !rows.insert_task(&row, &dependencies).await? {
        return made_before(existing(rows, request.id).await?, &request);
    }
    if let Some(key) = key {
        rows.remember_key(owner, key, request.id, now).await?;
    }
    let events = record(rows, &events, Some(&row), now).await?;
    Ok(task(row, events))
}

fn told_of(request: &Request<'_>) -> Vec<NewEvent> {
    let actor = &request.principal.actor;
    let created = NewEvent::info(EventKind::TaskCreated, actor, &request.spec.title)
        .task(request.id)
        .detail(serde_json::json!({ "kind": request.spec.work.kind(), "sandbox": request.spec.environment.sandbox() }));
    let paused = request.paused.map(|reason| NewEvent::info(EventKind::TaskPaused, actor, reason).task(request.id));
    [created].into_iter().chain(paused).collect()
}

/// The same creation again, or another one under its id.
fn made_before(row: TaskRow, request: &Request<'_>) -> Result<Applied, RecordError> {
    let same = *row.asked == *request.spec && row.record.owner == request.principal.owner;
    if same {
        Ok(task(row, Vec::new()))
    } else {
        Err(RecordError::Conflict(format!("task {} exists and was asked for in other words", request.id)))
    }
}

/// Everything that must complete first: what was named, and the task whose files it starts from.
fn dependencies(spec: &TaskSpec) -> Vec<TaskId> {
    let mut all = spec.depends_on.clone();
    if let Base::Task { task } = spec.base {
        all.push(task);
    }
    all.sort();
    all.dedup();
    all
}

/// The state of a task that could begin but for these, which it needs and which have not completed.
fn waits_for(unmet: &[(TaskId, TaskStatus)]) -> Result<TaskStatus, RecordError> {
    match unmet.iter().find(|(_, status)| status.is_final()) {
        Some((needs, status)) => Err(RecordError::DependencyEnded { needs: *needs, status: *status }),
        None if unmet.is_empty() => Ok(TaskStatus::Pending),
        None => Ok(TaskStatus::WaitingForDependencies),
    }
}

fn first_record(request: &Request<'_>, status: TaskStatus, steps: u64, now: Timestamp) -> TaskRecord {
    TaskRecord {
        id: request.id,
        owner: request.principal.owner,
        project: request.project,
        spec: request.spec.clone(),
        status,
        reason: request.paused.unwrap_or_default().to_owned(),
        hint: String::new(),
        epoch: Epoch::default(),
        attempt: request.attempt,
        head: request.spec.fork_of,
        steps,
        node: None,
        worker: None,
        retries: 0,
        not_before: None,
        spent: Money::ZERO,
        tokens: 0,
        created_at: now,
        updated_at: now,
        finished_at: None,
        version: 1,
    }
}

pub(super) async fn claim(rows: &mut dyn Rows, claim: Claim, events: &[NewEvent], now: Timestamp) -> Result<Applied, RecordError> {
    let free = [TaskStatus::Pending, TaskStatus::WaitingForWorker, TaskStatus::Assigned, TaskStatus::Running];
    let guard = Guard::status(|status| free.contains(&status)).epoch(Some(claim.expected));
    let change = Change {
        fence: true,
        status: Some(TaskStatus::Assigned),
        reason: Some(String::new()),
        holder: Holder::Is(claim.node, claim.worker),
        events: about(events, claim.task),
        ..Change::default()
    };
    if let Some(row) = rows.change_task(claim.task, &guard, &change, now).await? {
        let events = record(rows, events, Some(&row), now).await?;
        return Ok(task(row, events));
    }
    let row = existing(rows, claim.task).await?;
    let ours = row.record.epoch == claim.expected.next()
        && row.record.status.is_active()
        && (row.record.node, row.record.worker) == (Some(claim.node), Some(claim.worker));
    if ours { Ok(task(row, Vec::new())) } else { Err(guard.refusal(&row.record)) }
}

pub(super) async fn status(
    rows: &mut dyn Rows,
    change: &StatusChange,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<Applied, RecordError> {
    let row = existing(rows, change.task).await?;
    let change = going_on(rows, change).await?;
    if repeats(&change, &row.record) {
        return Ok(task(row, Vec::new()));
    }
    let (row, events) = transition(rows, &change, events, actor_of(events), now).await?;
    Ok(task(row, events))
}

/// The change, led to where a task that goes on has to wait again.
async fn going_on<'a>(rows: &mut dyn Rows, change: &'a StatusChange) -> Result<Cow<'a, StatusChange>, RecordError> {
    if !change.goes_on() {
        return Ok(Cow::Borrowed(change));
    }
    let mut change = change.clone();
    match rows.open_question(change.task).await? {
        Some(question) => {
            (change.to, change.reason, change.hint) = (TaskStatus::WaitingForInput, question.text, String::new());
        }
        None => change.to = waits_for(&rows.unmet_dependencies(change.task).await?)?,
    }
    Ok(Cow::Owned(change))
}

/// Changes the state and does what that means for those that wait.
pub(super) async fn transition(
    rows: &mut dyn Rows,
    change: &StatusChange,
    events: &[NewEvent],
    actor: &str,
    now: Timestamp,
) -> Result<(TaskRow, Vec<Event>), RecordError> {
    let guard = Guard::status(|status| admits(change, status)).epoch(change.epoch);
    let row_change = Change { events: about(events, change.task), ..change_of(change, now) };
    let Some(row) = rows.change_task(change.task, &guard, &row_change, now).await? else {
        return Err(guard.refusal(&existing(rows, change.task).await?.record));
    };
    let mut recorded = record(rows, events, Some(&row), now).await?;
    tell_waiting(rows, change, &row, actor, now, &mut recorded).await?;
    Ok((row, recorded))
}

/// Whether a task in this state may be changed so.
pub(super) fn admits(change: &StatusChange, status: TaskStatus) -> bool {
    if change.from.is_empty() { !status.is_final() } else { change.from.contains(&status) }
}

/// What a change of the state does to the row.
pub(super) fn change_of(change: &StatusChange, now: Timestamp) -> Change {
    Change {
        fence: change.fence,
        status: Some(change.to),
        reason: Some(change.reason.clone()),
        hint: change.hint.clone(),
        holder: if change.to.is_active() { Holder::Unchanged } else { Holder::Nobody },
        retries: change.retries,
        not_before: change.not_before,
        budget: change.budget,
        finished_at: Some(change.to.is_final().then_some(now)),
        ..Change::default()
    }
}

/// Does what a task's new state, which its row has, means for those that wait for it.
pub(super) async fn tell_waiting(
    rows: &mut dyn Rows,
    change: &StatusChange,
    row: &TaskRow,
    actor: &str,
    now: Timestamp,
    recorded: &mut Vec<Event>,
) -> Result<(), RecordError> {
    match change.to {
        _ if !row.needed => Ok(()),
        TaskStatus::Completed => free_waiting(rows, change.task, actor, now, recorded).await,
        TaskStatus::Failed | TaskStatus::Cancelled => fail_waiting(rows, change.task, actor, now, recorded).await,
        _ => Ok(()),
    }
}

/// On whose behalf the consequences of a change are recorded.
pub(super) fn actor_of(events: &[NewEvent]) -> &str {
    events.first().map_or("node", |event| event.actor.as_str())
}

/// Whether the task already is as the change wants it, made under the same epoch: then this is the
/// same change, whose answer was lost. A change that fences without saying which epoch it saw cannot
/// be told from a new one, except where it ends the task.
fn repeats(change: &StatusChange, task: &TaskRecord) -> bool {
    let epoch = match change.epoch {
        Some(epoch) => task.epoch == if change.fence { epoch.next() } else { epoch },
        None => !change.fence || change.to.is_final(),
    };
    epoch
        && task.status == change.to
        && (&task.reason, &task.hint) == (&change.reason, &change.hint)
        && change.retries.is_none_or(|retries| retries == task.retries)
        && change.not_before.is_none_or(|not_before| not_before == task.not_before)
        && change.budget.is_none_or(|budget| budget == task.spec.budget)
}

/// Lets those go that waited for `completed` and now wait for nothing.
async fn free_waiting(
    rows: &mut dyn Rows,
    completed: TaskId,
    actor: &str,
    now: Timestamp,
    recorded: &mut Vec<Event>,
) -> Result<(), RecordError> {
    for waiting in rows.waiting_for(completed).await? {
        if rows.unmet_dependencies(waiting).await?.is_empty() {
            let event = NewEvent::info(EventKind::TaskResumed, actor, "everything it waited for has completed").task(waiting);
            let change = Change { status: Some(TaskStatus::Pending), reason: Some(String::new()), events: 1, ..Change::default() };
            recorded.extend(change_waiting(rows, waiting, change, event, now).await?);
        }
    }
    Ok(())
}

/// Fails those that waited for `ended`, and those that waited for them.
async fn fail_waiting(
    rows: &mut dyn Rows,
    ended: TaskId,
    actor: &str,
    now: Timestamp,
    recorded: &mut Vec<Event>,
) -> Result<(), RecordError> {
    let mut ended = vec![ended];
    while let Some(task) = ended.pop() {
        let reason = format!("task {task}, which it needs, did not complete");
        for waiting in rows.waiting_for(task).await? {
            let event = NewEvent::info(EventKind::TaskFailed, actor, &reason).severity(Severity::Error).task(waiting);
            let change = Change {
                status: Some(TaskStatus::Failed),
                reason: Some(reason.clone()),
                hint: format!(
                    "`helix task retry {}` tries that one again, then `helix task retry {}` this one",
                    task.short(),
                    waiting.short()
                ),
                finished_at: Some(Some(now)),
                events: 1,
                ..Change::default()
            };
            recorded.extend(change_waiting(rows, waiting, change, event, now).await?);
            ended.push(waiting);
        }
    }
    Ok(())
}

async fn change_waiting(
    rows: &mut dyn Rows,
    waiting: TaskId,
    change: Change,
    event: NewEvent,
    now: Timestamp,
) -> Result<Vec<Event>, RecordError> {
    let guard = Guard::status(|status| status == TaskStatus::WaitingForDependencies);
    match rows.change_task(waiting, &guard, &change, now).await? {
        Some(row) => record(rows, &[event], Some(&row), now).await,
        None => Ok(Vec::new()),
    }
}

/// A task that has to be there.
pub(super) async fn existing(rows: &mut dyn Rows, id: TaskId) -> Result<TaskRow, RecordError> {
    rows.task(id).await?.ok_or_else(|| RecordError::NotFound(format!("task {id}")))
}

/// The answer that shows a task.
pub(super) fn task(row: TaskRow, events: Vec<Event>) -> Applied {
    Applied::Task { task: Box::new(row.record), events }
}
