//! What follows a failed step: retry, end, question, and what becomes of its files.
//!
//! - `rollback`: nothing of the step stays but its journal, so that a retry repeats no paid call. When the task ends with it, a
//!   step of outcome *failed* records the exit reports and the spend, on the files of the step before.
//! - `keep`: the files become a *failed* step, and the retry makes the turn again from them.
//! - `fork`: the files become a *failed* step of a new, paused task; the task itself goes on as with `rollback`.
//!
//! A step whose model call nobody takes before a person has mended something is not the end of its task, which parks and asks.

use std::sync::Arc;
use std::time::Duration;

use helix_database::{StatusChange, Then, Write};
use helix_ports::ProviderError;
use helix_protocol::{
    AttemptId, Code, ExitReport, Failure, NewStep, OnFailure, Principal, Spend, StepId, StepOutcome, Subject, TaskId, TaskRecord,
    ms_in_words,
};

use crate::commit::{self, Draft, Taken, task_of};
use crate::day;
use crate::drive::{End, keeps_files, new_question, untouched};
use crate::host::Host;
use crate::machine::Happening;
use crate::retry::{Verdict, verdict};
use crate::shared::Shared;
use crate::telling::{self, Next};

/// Space is looked for as often as the retry of this number would be made.
const SPACE: u32 = 3;
/// Models are asked again after this time, however long they want to be left alone: a limit may be raised, a server mended.
const UNSERVED: Duration = Duration::from_secs(900);
/// How the reason of a task begins that no model answers at present.
const FOR_A_MODEL: &str = "waiting for a model, ";

/// Deals with a step that failed. `late`: the whole task's time is over, so nothing is tried again.
pub(crate) async fn step_failed(host: &mut Host, failure: Failure, late: bool) -> Result<End, Failure> {
    let verdict = verdict(failure.code);
    // Where nothing is tried again, the failed step says itself how long it took.
    if verdict != Verdict::Stale && !late {
        host.note_time().await?;
    }
    match verdict {
        Verdict::Stale => return Ok(End::Stale),
        Verdict::WorkerGone => return Ok(End::WorkerGone),
        Verdict::OutOfBudget => return ask_for_budget(host, &failure).await,
        Verdict::NextDay => return day::ask(host, &failure).await,
        Verdict::Retry | Verdict::NoSpace | Verdict::Unserved | Verdict::Final => {}
    }
    host.stop_running().await;
    let allowed = matches!(verdict, Verdict::NoSpace | Verdict::Unserved) || host.task.retries < host.task.spec.allowed_retries();
    let retry = verdict != Verdict::Final && !host.is_paid_silence && !late && allowed;
    if !retry && !late && waits_for_a_person(host, &failure) {
        return ask_to_mend(host, &failure).await;
    }
    let exits = host.take_exits();
    let taken = keep(host, &failure).await?;
    let taken = match (host.task.spec.on_failure, taken) {
        (OnFailure::Fork, Some(taken)) => {
            fork_files(host, &taken, &exits, &failure).await?;
            None
        }
        (_, taken) => taken,
    };
    let task = if retry { try_again(host, taken, exits, &failure).await? } else { fail(host, taken, exits, &failure).await? };
    Ok(if retry { End::Waiting(Box::new(task)) } else { End::Final(Box::new(task)) })
}

/// The failed step's files, where they are to be kept and can be had.
async fn keep(host: &mut Host, failure: &Failure) -> Result<Option<Taken>, Failure> {
    let opened = matches!(host.workspace, crate::host::Workspace::Open(_));
    // Keeping files takes the space that there is not.
    let room = verdict(failure.code) != Verdict::NoSpace;
    if !keeps_files(host.task.spec.on_failure) || !opened || !room {
        return Ok(None);
    }
    match commit::take(host, Some(helix_ports::SnapshotNote::Artifacts(Vec::new())), &failure.message).await {
        Ok(taken) => Ok(Some(taken)),
        Err(lost) if matches!(verdict(lost.code), Verdict::Stale | Verdict::WorkerGone) => Err(lost),
        Err(lost) => {
            tracing::warn!(task = %host.lease.task, "the failed step's files could not be kept: {lost}");
            Ok(None)
        }
    }
}

async fn try_again(host: &Host, taken: Option<Taken>, exits: Vec<ExitReport>, failure: &Failure) -> Result<TaskRecord, Failure> {
    let (retries, delay, reason) = next_try(host, failure);
    let mut change = Happening::TryAgain.change(host.lease.task, Some(host.lease.epoch), reason);
    change.hint.clone_from(&failure.hint);
    change.retries = Some(retries);
    change.not_before = Some(Some(host.shared.now().after(delay)));
    let wait = match verdict(failure.code) {
        Verdict::Unserved => "it waits for a model and asks again in",
        Verdict::NoSpace => "it waits for space and tries again in",
        _ => "tried again in",
    };
    let what = format!("{wait} {}", delay_in_words(delay));
    let event = telling::step_failed(host.lease.task, host.ordinal, failure, Next::Again(&what));
    match taken {
        Some(taken) => commit_failed(host, taken, exits, failure, change, vec![event]).await,
        None => task_of(host.shared.write(Write::Status { change: Box::new(change), events: vec![event] }).await?),
    }
}

/// How many retries are used then, how long it waits, and why.
fn next_try(host: &Host, failure: &Failure) -> (u32, Duration, String) {
    let (used, backoff) = (host.task.retries, &host.shared.backoff);
    if verdict(failure.code) == Verdict::NoSpace {
        let delay = backoff.delay(SPACE, 0.5 + rand::random::<f64>() / 2.0);
        return (used, delay, format!("waiting for space on {}: {}", host.lease.name, telling::reason(failure)));
    }
    if verdict(failure.code) == Verdict::Unserved {
        let again = match host.unanswered {
            Some(ProviderError::Retryable { retry_after, .. }) => retry_after,
            _ => None,
        };
        let delay = again.map_or(backoff.most, |again| again.min(UNSERVED));
        return (used, delay, format!("{FOR_A_MODEL}asked again in {}: {}", delay_in_words(delay), telling::reason(failure)));
    }
    let reason = format!("retry {} of {}: {}", used + 1, host.task.spec.allowed_retries(), telling::reason(failure));
    (used + 1, backoff.delay(used, rand::random()), reason)
}

async fn fail(host: &Host, taken: Option<Taken>, exits: Vec<ExitReport>, failure: &Failure) -> Result<TaskRecord, Failure> {
    let mut change = Happening::Fail.change(host.lease.task, Some(host.lease.epoch), telling::reason(failure));
    change.hint.clone_from(&failure.hint);
    // A commit counts as progress and would give the retries back that were used before; this one is none.
    change.retries = Some(host.task.retries);
    let events =
        vec![telling::step_failed(host.lease.task, host.ordinal, failure, Next::Ends), telling::failed(host.lease.task, failure)];
    let taken = taken.unwrap_or_else(|| untouched(host));
    commit_failed(host, taken, exits, failure, change, events).await
}

async fn commit_failed(
    host: &Host,
    taken: Taken,
    exits: Vec<ExitReport>,
    failure: &Failure,
    change: StatusChange,
    events: Vec<helix_protocol::NewEvent>,
) -> Result<TaskRecord, Failure> {
    let changed = taken.files != host.files;
    let draft = Draft {
        outcome: StepOutcome::Failed,
        summary: first_line(failure),
        messages: Vec::new(),
        heard: Vec::new(),
        asked: Vec::new(),
        exits,
        spend: host.replay.spend(),
        then: Some(Then::Status(change)),
        events,
    };
    let (_, task) = commit::step(host, taken, draft).await?;
    if changed {
        commit::unpin(&host.shared, host.lease.task, host.lease.epoch).await;
    }
    Ok(task)
}

fn first_line(failure: &Failure) -> String {
    failure.message.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Parks the task at its last step and asks for money. The journal stays, so what was paid for is not paid again.
async fn ask_for_budget(host: &Host, failure: &Failure) -> Result<End, Failure> {
    let text = format!("out of budget: {}; raise the budget?", failure.message);
    park(host, Subject::Budget, &text, &["yes".to_owned(), "no".to_owned()]).await
}

/// True where nobody who could answer the step's model call takes it before a person has mended something: a key, an account, the
/// name of a model, an address.
fn waits_for_a_person(host: &Host, failure: &Failure) -> bool {
    // What the step failed with may be something else than its last call.
    let refused = matches!(&host.unanswered, Some(ProviderError::Elsewhere(refused)) if refused == failure);
    refused || failure.code == Code::ModelUnavailable
}

/// Parks the task at its last step and says what is to be mended. The journal stays, as above.
async fn ask_to_mend(host: &Host, failure: &Failure) -> Result<End, Failure> {
    let hint = if failure.hint.is_empty() { String::new() } else { format!("; {}", failure.hint) };
    let text = format!("no model takes its calls: {}{hint}. Is it mended?", telling::reason(failure));
    park(host, Subject::Model, &text, &["yes".to_owned()]).await
}

/// Parks the task at its last step with a question.
pub(crate) async fn park(host: &Host, subject: Subject, text: &str, choices: &[String]) -> Result<End, Failure> {
    let question = new_question(&host.shared, host.lease.task, subject, text, choices);
    let events = vec![telling::asked(host.lease.task, &question)];
    let write = Write::Ask { question: Box::new(question), epoch: host.lease.epoch, events };
    Ok(End::Parked(Box::new(task_of(host.shared.write(write).await?)?)))
}

/// True of a task that waits until a model answers again.
pub(crate) fn waits_for_a_model(task: &TaskRecord) -> bool {
    task.reason.starts_with(FOR_A_MODEL)
}

/// The longest that a task waits for this reason; `backoff` is the longest wait for a retry.
pub(crate) fn longest_wait(reason: &str, backoff: Duration) -> Duration {
    if reason.starts_with(FOR_A_MODEL) { backoff.max(UNSERVED) } else { backoff }
}

/// A delay as people say it: from ten seconds on in whole ones.
pub(crate) fn delay_in_words(delay: Duration) -> String {
    let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    ms_in_words(if ms < 10_000 { ms } else { ms / 1_000 * 1_000 })
}

/// Fails a task that no step was begun for.
pub(crate) async fn fail_unstarted(shared: &Shared, task: &TaskRecord, failure: &Failure) -> Result<TaskRecord, Failure> {
    let change = Happening::Fail.change(task.id, Some(task.epoch), telling::reason(failure));
    let events = vec![telling::failed(task.id, failure)];
    task_of(shared.write(Write::Status { change: Box::new(change), events }).await?)
}

/// Makes a task that continues `step`, paused. Making it again is harmless.
pub(crate) async fn fork_parked(shared: &Arc<Shared>, task: &TaskRecord, step: StepId, why: &str) -> Result<TaskRecord, Failure> {
    let reason = format!("keeps the files of task {}: {why}", task.id.short());
    create_fork(shared, task, Some(step), format!("on-failure:{step}"), reason).await
}

/// It is paused from the first, so that whoever reads the records in between does not drive it: its work would be done twice.
async fn create_fork(
    shared: &Shared,
    task: &TaskRecord,
    step: Option<StepId>,
    key: String,
    reason: String,
) -> Result<TaskRecord, Failure> {
    let mut spec = task.spec.clone();
    spec.title = format!("{} (files of a failed step)", task.spec.title);
    if spec.fork_of != step {
        spec.fork_files = None;
    }
    spec.fork_of = step;
    spec.parent = None;
    spec.depends_on = Vec::new();
    let create = Write::CreateTask {
        id: TaskId::new(),
        attempt: AttemptId::new(),
        spec: Box::new(spec),
        principal: Principal { owner: task.owner, actor: telling::NODE.to_owned() },
        project: task.project,
        idempotency_key: Some(key),
        paused: Some(reason),
    };
    task_of(shared.write(create).await?)
}

/// Puts the failed step's files into a new task: a *failed* step of its own line, whose parent is this task's head.
async fn fork_files(host: &Host, taken: &Taken, exits: &[ExitReport], failure: &Failure) -> Result<(), Failure> {
    let task = &host.task;
    let key = format!("on-failure:{}:{}:{}", task.attempt, host.ordinal, host.lease.epoch);
    let reason = format!("keeps the files of task {}, whose step {} failed", task.id.short(), host.ordinal);
    let forked = create_fork(&host.shared, task, host.parent, key, reason.clone()).await?;
    let Taken { files, changes, skipped, torn, artifacts, confinement, .. } = taken.clone();
    let step = NewStep {
        id: StepId::new(),
        task: forked.id,
        epoch: forked.epoch,
        attempt: forked.attempt,
        parent: forked.spec.fork_of,
        ordinal: host.ordinal,
        outcome: StepOutcome::Failed,
        summary: first_line(failure),
        tree: files.tree,
        snapshot: files.snapshot,
        store_sequence: files.sequence,
        changes,
        skipped,
        torn,
        messages: Vec::new(),
        long_messages: None,
        exits: exits.to_vec(),
        artifacts,
        heard: Vec::new(),
        asked: Vec::new(),
        spend: Spend::default(),
        worker: Some(host.lease.worker),
        confinement,
        started_at: host.started_at(),
    };
    // Nobody owns it: with the step it stays paused, as it was made.
    let then = Some(Box::new(Then::Status(Happening::Pause.change(forked.id, Some(forked.epoch), reason))));
    let committed = host.shared.write(Write::Commit { step: Box::new(step), then, events: Vec::new() }).await;
    match committed {
        // It has its step already, or somebody took it up.
        Err(failure) if matches!(failure.code, Code::StaleOwner | Code::InvalidState) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waits_as_long_as_its_reason_says_and_no_retry_longer_than_a_backoff() {
        let minute = Duration::from_secs(60);
        assert_eq!(longest_wait("retry 1 of 3: it failed", minute), minute);
        assert_eq!(longest_wait(&format!("{FOR_A_MODEL}asked again in 10 min: busy"), minute), UNSERVED);
    }
}
