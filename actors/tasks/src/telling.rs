//! The events this branch records and shows, each built in one place.

use helix_messages::LostWorker;
use helix_protocol::{Code, EventKind, Failure, NewEvent, NewStep, Remark, Severity, SkipReason, SkippedFile, TaskId, WorkerId};
use serde_json::{Value, json};

/// What is written as the actor of what the node does by itself.
pub(crate) const NODE: &str = "node";

fn about(kind: EventKind, task: TaskId, message: impl Into<String>) -> NewEvent {
    NewEvent::info(kind, NODE, message).task(task)
}

/// A worker was chosen, and the first step under it begins.
pub(crate) fn claimed(task: TaskId, epoch: u64, worker: WorkerId, name: &str) -> [NewEvent; 2] {
    let detail = json!({"epoch": epoch, "worker": name});
    [
        about(EventKind::TaskAssigned, task, format!("assigned to {name} under epoch {epoch}"))
            .worker(worker)
            .detail(detail.clone()),
        about(EventKind::TaskStarted, task, format!("started on {name}")).worker(worker).detail(detail),
    ]
}

/// A worker is gone, and the task goes on elsewhere.
pub(crate) fn reassigned(task: TaskId, lost: &LostWorker) -> NewEvent {
    let message = format!("{} is lost ({}); the task goes on elsewhere from its last step", lost.name, lost.proof);
    let detail = json!({"worker": lost.name, "proof": lost.proof.to_string(), "silent_ms": lost.silent_ms});
    about(EventKind::TaskReassigned, task, message).worker(lost.worker).severity(Severity::Warning).detail(detail)
}

/// A task leaves its worker at a step boundary.
pub(crate) fn yielded(task: TaskId, worker: WorkerId, name: &str) -> NewEvent {
    let detail = json!({"worker": name, "proof": "drained", "silent_ms": 0});
    about(EventKind::TaskReassigned, task, format!("moves away from {name}, which is draining")).worker(worker).detail(detail)
}

/// A step was committed.
pub(crate) fn step_completed(step: &NewStep, name: &str, logical_bytes: Option<u64>) -> NewEvent {
    let detail = json!({
        "step": step.id, "ordinal": step.ordinal, "snapshot": step.snapshot, "files_changed": step.changes.len(),
        "tokens": step.spend.tokens, "money": step.spend.money, "epoch": step.epoch, "worker": name, "outcome": step.outcome,
        "skipped": left_out(&step.skipped), "torn": step.torn.len(), "artifacts": step.artifacts.len(),
        "logical_bytes": logical_bytes, "sandbox": step.confinement.map(|on| on.to_string()),
    });
    let event = about(EventKind::StepCompleted, step.task, format!("step {}: {}", step.ordinal, step.summary)).detail(detail);
    match step.worker {
        Some(worker) => event.worker(worker),
        None => event,
    }
}

/// How many files a step does not carry. Caches are none of its: the project named them.
fn left_out(skipped: &[SkippedFile]) -> usize {
    skipped.iter().filter(|file| file.reason != SkipReason::Cache).count()
}

/// What follows a failed step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next<'a> {
    /// It is made again; in these words.
    Again(&'a str),
    /// The task ends.
    Ends,
}

/// A step failed.
pub(crate) fn step_failed(task: TaskId, ordinal: u64, failure: &Failure, next: Next<'_>) -> NewEvent {
    let (what_now, again) = match next {
        Next::Again(what_now) => (what_now, true),
        Next::Ends => ("the task ends with it", false),
    };
    let next = again.then_some(what_now);
    let detail = json!({"code": failure.code, "message": failure.message, "ordinal": ordinal, "ends": !again, "next": next});
    about(EventKind::StepFailed, task, format!("step {ordinal} failed ({}); {what_now}", failure.code))
        .severity(Severity::Warning)
        .detail(detail)
}

/// The task is complete.
pub(crate) fn completed(task: TaskId) -> NewEvent {
    about(EventKind::TaskCompleted, task, "completed")
}

/// The task has failed.
pub(crate) fn failed(task: TaskId, failure: &Failure) -> NewEvent {
    let detail = json!({"code": failure.code, "message": failure.message});
    about(EventKind::TaskFailed, task, failure.message.clone()).severity(Severity::Error).detail(detail)
}

/// The task asks.
pub(crate) fn asked(task: TaskId, question: &helix_protocol::Question) -> NewEvent {
    let detail = json!({"question": question.id, "subject": question.subject, "text": question.text, "choices": question.choices});
    about(EventKind::TaskAsked, task, question.text.clone()).severity(Severity::Warning).detail(detail)
}

/// A person said something to the task.
pub(crate) fn said(remark: &Remark) -> NewEvent {
    let detail = json!({"remark": remark.id, "text": remark.text});
    NewEvent::info(EventKind::TaskSaid, &remark.actor, first_line(&remark.text)).task(remark.task).detail(detail)
}

fn first_line(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().chars().take(200).collect()
}

/// What somebody did to a task.
pub(crate) fn by(kind: EventKind, task: TaskId, actor: &str, message: impl Into<String>, detail: Value) -> NewEvent {
    NewEvent::info(kind, actor, message).task(task).detail(detail)
}

/// A tool call began. Shown, not kept.
pub(crate) fn tool_started(task: TaskId, worker: WorkerId, tool: &str, input: &Value) -> NewEvent {
    about(EventKind::ToolStarted, task, format!("{tool} began")).worker(worker).detail(json!({"tool": tool, "input": input}))
}

/// A tool call ended. Shown, not kept.
pub(crate) fn tool_finished(task: TaskId, worker: WorkerId, tool: &str, is_error: bool, duration_ms: u64) -> NewEvent {
    let detail = json!({"tool": tool, "is_error": is_error, "duration_ms": duration_ms});
    about(EventKind::ToolFinished, task, format!("{tool} ended")).worker(worker).detail(detail)
}

/// A model call began. Shown, not kept.
pub(crate) fn model_called(task: TaskId, provider: &str, model: &str) -> NewEvent {
    about(EventKind::ModelCalled, task, format!("{model} is asked")).detail(json!({"provider": provider, "model": model}))
}

/// Words of a model's answer. Shown, not kept.
pub(crate) fn model_said(task: TaskId, step: u64, offset: u64, text: &str) -> NewEvent {
    about(EventKind::ModelSaid, task, "").detail(json!({"step": step, "offset": offset, "text": text}))
}

/// An answer of which words were shown comes to no end. Shown, not kept.
pub(crate) fn model_broke_off(task: TaskId, step: u64, offset: u64) -> NewEvent {
    let detail = json!({"step": step, "offset": offset, "text": "", "broken_off": true});
    about(EventKind::ModelSaid, task, "the answer broke off").detail(detail)
}

/// A model answered. Shown, not kept.
pub(crate) fn model_replied(task: TaskId, model: &str, tokens: u64, money: helix_protocol::Money) -> NewEvent {
    about(EventKind::ModelReplied, task, format!("{model} answered")).detail(json!({"tokens": tokens, "money": money}))
}

/// A failure in one line, for a task's reason.
pub(crate) fn reason(failure: &Failure) -> String {
    if failure.code == Code::CommandFailed { failure.message.clone() } else { format!("{} ({})", failure.message, failure.code) }
}
