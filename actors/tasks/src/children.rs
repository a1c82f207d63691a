//! Tasks that a task made: found again by name, waited for without a worker, given up with it.
//!
//! A task that waits for its own is parked by a question that nobody has to answer: its subject names them, and this node answers it
//! once one of them has ended. So waiting survives whatever a question survives. A task that was made and a task that ended are
//! both looked for when their parent parks and when the node starts; nothing depends on a message that may be lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helix_database::Write;
use helix_messages::{DiffTrees, FileDiff, LineToExport, TasksMsg};
use helix_ports::ChildEnd;
use helix_protocol::{
    AttemptId, Base, Code, Failure, Message, ObjectId, Principal, Question, QuestionId, Role, SnapshotId, Subject, TaskId,
    TaskRecord, TaskSpec, TaskStatus,
};

use crate::commit::task_of;
use crate::drive::read_task;
use crate::shared::Shared;
use crate::{requests, said, telling};

const QUICK: Duration = Duration::from_secs(10);

/// Whether there is such a task.
pub(crate) async fn is_made(shared: &Shared, id: TaskId) -> Result<bool, Failure> {
    Ok(shared.read(|records| async move { records.read().task(id).await }).await?.is_some())
}

/// Makes a task of `parent`'s own.
pub(crate) async fn make(shared: &Shared, parent: &TaskRecord, id: TaskId, mut spec: TaskSpec) -> Result<TaskId, Failure> {
    spec.parent = Some(parent.id);
    spec.max_retries.get_or_insert(shared.args.tasks.max_retries);
    let write = Write::CreateTask {
        id,
        attempt: AttemptId::new(),
        spec: Box::new(spec),
        principal: Principal { owner: parent.owner, actor: telling::NODE.to_owned() },
        project: parent.project,
        idempotency_key: None,
        paused: None,
    };
    match shared.write(write).await {
        // An owner before this one has just made it, with the share that it saw.
        Err(failure) if failure.code == Code::InvalidState && is_made(shared, id).await? => Ok(id),
        made => task_of(made?).map(|task| task.id),
    }
}

/// The same for every owner that makes the same step again; another one on another line of steps.
pub(crate) fn id(parent: &TaskRecord, name: &str) -> TaskId {
    let mut hash = blake3::Hasher::new();
    hash.update(b"child");
    hash.update(parent.id.0.as_bytes());
    hash.update(parent.attempt.0.as_bytes());
    hash.update(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    TaskId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// How a task has ended, if it has.
pub(crate) async fn end(shared: &Shared, task: TaskId) -> Result<Option<ChildEnd>, Failure> {
    let record = read_task(shared, task).await?;
    if !record.status.is_final() {
        return Ok(None);
    }
    let mut end = ChildEnd {
        status: record.status,
        reason: record.reason.clone(),
        answer: String::new(),
        snapshot: None,
        changed: Vec::new(),
    };
    let Some(head) = record.head else { return Ok(Some(end)) };
    let line = shared.read(|records| async move { records.read().conversation(head).await }).await?;
    for step in line.into_iter().filter(|step| step.step.task == task) {
        end.snapshot = Some(step.step.snapshot);
        end.changed.extend(step.step.changes.iter().map(|change| change.path.clone()));
        let messages = said::by(shared, step).await?;
        let answer = messages.iter().rfind(|message| message.role == Role::Assistant).map(Message::as_text);
        end.answer = answer.filter(|answer| !answer.is_empty()).unwrap_or(end.answer);
    }
    end.changed.sort();
    end.changed.dedup();
    Ok(Some(end))
}

/// What a snapshot changes of a tree that `task` had, as far as an export of the task would have it.
pub(crate) async fn patches(shared: &Shared, task: &TaskRecord, tree: ObjectId, snapshot: SnapshotId) -> Result<String, Failure> {
    let export = match &task.spec.base {
        Base::Snapshot { git_commit, repository, .. } => LineToExport {
            repository: repository.as_ref().map(PathBuf::from),
            parent: git_commit.clone(),
            ..LineToExport::default()
        },
        Base::Empty | Base::Task { .. } => LineToExport::default(),
    };
    let trees = DiffTrees { from: Some(tree), to: snapshot.0, export, all: false };
    let files = shared.args.versions.diff(trees).await?;
    Ok(files.into_iter().filter(|file| !file.left_out).map(for_a_model).collect())
}

/// A patch without the bytes of a file that is no text: they say nothing to a model.
fn for_a_model(file: FileDiff) -> String {
    match file.before_bytes() {
        Some(head) => format!("{head}\nbinary files differ\n"),
        None => file.patch,
    }
}

/// Gives a task up, unless it has ended.
pub(crate) async fn cancel(shared: &Shared, parent: &TaskRecord, task: TaskId) -> Result<(), Failure> {
    if read_task(shared, task).await?.status.is_final() {
        return Ok(());
    }
    let principal = Principal { owner: parent.owner, actor: telling::NODE.to_owned() };
    let cancelled = shared.args.address.ask(QUICK, |reply| TasksMsg::Cancel { task, principal, reply }).await;
    match cancelled {
        // It may have ended in between.
        Err(failure) if failure.code == Code::InvalidState => Ok(()),
        other => other.map(drop),
    }
}

/// What a task that waits for these says.
pub(crate) fn question(tasks: &[TaskId]) -> String {
    let names: Vec<String> = tasks.iter().map(TaskId::short).collect();
    format!("waits for its own tasks: {}", names.join(", "))
}

/// Refuses an answer of a person's to a question that nobody has to answer.
pub(crate) fn check_asks_a_person(question: &Question) -> Result<(), Failure> {
    let Subject::Children { .. } = question.subject else { return Ok(()) };
    let task = question.task.short();
    Err(Failure::new(Code::InvalidState, format!("task {task} waits for tasks of its own, not for an answer"))
        .hint(format!("`helix task why {task}` says how they stand, and which of them ask")))
}

/// The tasks that a parked task waits for, with its question.
pub(crate) async fn waited_for(shared: &Shared, parent: TaskId) -> Result<Option<(QuestionId, Vec<TaskId>)>, Failure> {
    let questions = shared.read(|records| async move { records.read().questions(parent).await }).await?;
    Ok(questions.into_iter().find(Question::is_open).and_then(|question| match &question.subject {
        Subject::Children { tasks } => Some((question.id, tasks.clone())),
        _ => None,
    }))
}

/// Looks after a task that may wait for its own: answers with those that the scheduler has to know of, and with the task itself
/// once one of them has ended.
pub(crate) async fn look_after(shared: &Arc<Shared>, parent: TaskId) -> Result<Vec<TaskRecord>, Failure> {
    let Some((question, tasks)) = waited_for(shared, parent).await? else { return Ok(Vec::new()) };
    let mut known = Vec::new();
    for task in tasks {
        known.push(read_task(shared, task).await?);
    }
    let ended = known.iter().any(|task| task.status.is_final());
    known.retain(|task| task.status == TaskStatus::Pending);
    if ended {
        let principal = Principal { owner: question_owner(shared, parent).await?, actor: telling::NODE.to_owned() };
        known.push(requests::record_answer(shared, question, "ended".to_owned(), &principal).await?);
    }
    Ok(known)
}

async fn question_owner(shared: &Shared, task: TaskId) -> Result<helix_protocol::OwnerId, Failure> {
    read_task(shared, task).await.map(|task| task.owner)
}
