//! Driving one task under one lease: claim, then step after step until something ends it.
//!
//! Runs as work of the task's actor, which may drop it at any await. Whatever it was doing then is safe: everything it decides is
//! one fenced write, and the next owner learns the rest from the records.

mod begin;
mod job;

use std::sync::Arc;
use std::time::Duration;

use helix_database::{Then, Write};
use helix_ports::{StepResult, TaskKind, TurnEnd};
use helix_protocol::link::Request;
use helix_protocol::{
    Code, EventKind, Failure, Message, NewEvent, OnFailure, Question, Role, StepOutcome, StepRecord, Subject, TaskId, TaskRecord,
    TaskWork, Timestamp, WorkerId, ms_in_words,
};
use tokio::time::Instant;

use self::begin::begin;
pub(crate) use self::job::{Boundary, Control, End, Handover, Job};
use crate::commit::{self, Draft, Taken, task_of};
use crate::failing;
use crate::host::{self, Begin, Host, Lease, Running, Workspace, does_nothing};
use crate::machine::Happening;
use crate::replay::Replay;
use crate::retry::{Verdict, verdict};
use crate::shared::{Files, Shared};
use crate::steps::next_ordinal;
use crate::{children, rehearsal, telling};

/// A step that takes longer than this has its task recorded as running before it ends; shorter ones need not.
const SHOW_RUNNING: Duration = Duration::from_millis(250);
/// What ended on its worker while its task's time passed and no node was there has this long to be heard.
const HEARD: Duration = Duration::from_secs(1);
/// How often a claim is repeated that met its own earlier try.
const CLAIMS: u32 = 8;

/// Drives a task to an end.
pub(crate) async fn drive(shared: Arc<Shared>, job: Job, control: Arc<Control>) -> End {
    match Drive::claim(shared, job, control).await {
        Ok(drive) => drive.steps().await,
        Err(failure) => end_of(failure),
    }
}

fn end_of(failure: Failure) -> End {
    match verdict(failure.code) {
        Verdict::Stale => End::Stale,
        Verdict::WorkerGone => End::WorkerGone,
        _ => End::Broken(failure),
    }
}

struct Drive {
    shared: Arc<Shared>,
    control: Arc<Control>,
    kind: Arc<dyn TaskKind>,
    lease: Lease,
    task: TaskRecord,
    /// The head, and the last turn on its line.
    head: Option<StepRecord>,
    turn: Option<StepRecord>,
    files: Files,
    workspace: Workspace,
    /// True until the first step under this lease is committed: only then can the journal have something.
    resumed: bool,
    deadline: Option<Instant>,
}

impl Drive {
    async fn claim(shared: Arc<Shared>, job: Job, control: Arc<Control>) -> Result<Self, Failure> {
        let task = claim(&shared, &job).await?;
        let mut lease = Lease { task: task.id, epoch: task.epoch, worker: job.worker, name: job.name, opened: task.epoch };
        if let Some(previous) = job.previous.filter(|previous| *previous != lease.worker) {
            close(&shared, previous, &task);
        }
        let Some(kind) = shared.kind(task.spec.work.kind()) else {
            let message = format!("this node knows no tasks of kind {:?}", task.spec.work.kind());
            let failure = Failure::new(Code::InvalidRequest, message).hint("start it with the plugin that brings this kind");
            failing::fail_unstarted(&shared, &task, &failure).await?;
            return Err(Failure::new(Code::StaleOwner, "the task has failed"));
        };
        let handover = if does_nothing(&task) { Handover::Open } else { job.handover };
        let (mut head, mut turn, mut files) = begin(&shared, &task, handover).await?;
        let mut workspace = Workspace::Closed;
        if handover == Handover::Adopt {
            match host::adopt(&shared, &lease, files).await {
                Some(opened) => (lease.opened, workspace) = (opened, Workspace::Open(Running::Perhaps)),
                None => (head, turn, files) = begin(&shared, &task, Handover::Open).await?,
            }
        }
        // Only a task that somebody owned before can have a journal.
        let resumed = task.epoch.0 > 1;
        let deadline = deadline(&shared, &task).await?;
        Ok(Self { shared, control, kind, lease, task, head, turn, files, workspace, resumed, deadline })
    }

    async fn steps(mut self) -> End {
        loop {
            match self.boundary().await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(failure) => return end_of(failure),
            }
            match self.step().await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(failure) => return end_of(failure),
            }
        }
    }

    /// Does what is wanted between two steps.
    async fn boundary(&mut self) -> Result<Option<End>, Failure> {
        let boundary = self.control.get();
        if boundary == Boundary::Park {
            return Ok(Some(End::Held));
        }
        let Some((happening, reason, event)) = self.leaving(&boundary) else { return Ok(None) };
        let change = happening.change(self.task.id, Some(self.lease.epoch), reason);
        let write = Write::Status { change: Box::new(change), events: vec![event] };
        let task = task_of(self.shared.write(write).await?)?;
        Ok(Some(left(task)))
    }

    fn leaving(&self, boundary: &Boundary) -> Option<(Happening, String, NewEvent)> {
        let task = self.task.id;
        match boundary {
            Boundary::GoOn | Boundary::Park => None,
            Boundary::Yield => {
                let event = telling::yielded(task, self.lease.worker, &self.lease.name);
                Some((Happening::Yield, format!("{} is draining", self.lease.name), event))
            }
            Boundary::Pause { actor } => {
                let event = telling::by(EventKind::TaskPaused, task, actor, "paused at a step boundary", serde_json::Value::Null);
                Some((Happening::Pause, format!("paused by {actor}"), event))
            }
        }
    }

    /// Makes one step and commits it.
    async fn step(&mut self) -> Result<Option<End>, Failure> {
        let mut host = self.host().await?;
        if !does_nothing(&self.task) {
            host.open_ahead();
        }
        let made = self.make(&mut host).await;
        let made = match (host.broken(), made) {
            // What the lease or the budget refused counts, whatever the kind made of it.
            (Some(failure), _) => Err(failure),
            (None, made) => made,
        };
        match made {
            Ok(result) => self.commit(host, result).await,
            Err(failure) => {
                let end = failing::step_failed(&mut host, failure, self.is_late()).await?;
                if let End::Final(task) = &end {
                    close(&self.shared, self.lease.worker, task);
                }
                Ok(Some(end))
            }
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    async fn host(&mut self) -> Result<Host, Failure> {
        let at = |step: &StepRecord| (step.step.ordinal, step.step.outcome);
        let ordinal = next_ordinal(self.head.as_ref().map(at));
        let mut entries = Vec::new();
        let (mut said, mut earlier) = (Vec::new(), Duration::ZERO);
        if self.resumed {
            let (attempt, before) = (self.task.attempt, ordinal - 1);
            entries = self.shared.read(|records| async move { records.read().journal(attempt, before).await }).await?;
            said = said_since(&self.shared, &self.task, self.turn.as_ref()).await?;
        }
        let replay = Replay::read(ordinal, &entries, |call| self.shared.calls.has(call));
        if self.resumed {
            self.shared.calls.keep_open(self.lease.task, |call| replay.is_reserved(call));
        }
        if let Some((used, at)) = replay.timed() {
            earlier = self.made_earlier(used, at);
        }
        let begin = Begin {
            lease: self.lease.clone(),
            task: self.task.clone(),
            turn: self.turn.clone(),
            parent: self.head.as_ref().map(|head| head.step.id),
            turns: self.turn.as_ref().map_or(0, |turn| turn.step.ordinal),
            ordinal,
            files: self.files,
            workspace: std::mem::replace(&mut self.workspace, Workspace::Closed),
            replay,
            said,
            earlier,
        };
        let mut host = Host::new(Arc::clone(&self.shared), begin);
        // What is said before the first turn is heard by the next one: a conversation begins with what the task is.
        if self.kind.hears() && self.turn.is_some() {
            host.hear().await?;
        }
        host.note_time().await?;
        Ok(host)
    }

    /// How long earlier owners made the step, of which the task has the rest. While a command ran on where it
    /// is, all the time counts.
    fn made_earlier(&mut self, used: Duration, at: Timestamp) -> Duration {
        let runs_on = matches!(self.task.spec.work.attempted(), TaskWork::Command(_) | TaskWork::External(_));
        let adopted = runs_on && matches!(self.workspace, Workspace::Open(_));
        let earlier = if adopted { used + self.shared.now().since(at) } else { used };
        let now = Instant::now();
        self.deadline = self.deadline.map(|deadline| {
            let deadline = deadline.checked_sub(earlier).unwrap_or(now);
            if adopted { deadline.max(now + HEARD) } else { deadline }
        });
        earlier
    }

    /// Lets the kind make its step, within the task's time. A long one has its task recorded as running meanwhile.
    async fn make(&self, host: &mut Host) -> Result<StepResult, Failure> {
        let (shared, task, epoch) = (Arc::clone(&self.shared), self.task.id, self.lease.epoch);
        let shown = self.task.status == helix_protocol::TaskStatus::Running;
        let kind = Arc::clone(&self.kind);
        let step = kind.step(host);
        tokio::pin!(step);
        let running = async {
            if shown {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SHOW_RUNNING).await;
            let change = Happening::Step.change(task, Some(epoch), "");
            // Refused where the step was faster or the owner is stale: both show elsewhere.
            let _ = shared.args.records.write(Write::Status { change: Box::new(change), events: Vec::new() }).await;
            std::future::pending::<()>().await;
        };
        tokio::pin!(running);
        let late = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            made = &mut step => made,
            () = late => {
                let limit = self.task.spec.timeout_ms.unwrap_or_default();
                Err(Failure::new(Code::TimedOut, format!("the task ran for longer than its limit of {}", ms_in_words(limit)))
                    .hint(format!("`helix task fork {}` goes on from its last step with all the time again", self.task.id.short())))
            }
            () = &mut running => unreachable!("it never ends by itself"),
        }
    }

    async fn commit(&mut self, mut host: Host, result: StepResult) -> Result<Option<End>, Failure> {
        let note = host.take_note();
        let taken = match commit::take(&mut host, note, &result.summary).await {
            Ok(taken) => taken,
            Err(failure) => return failing::step_failed(&mut host, failure, false).await.map(Some),
        };
        let changed = taken.files != self.files;
        let (then, events) = self.consequence(&result.end);
        let outcome = match &result.end {
            TurnEnd::Continue | TurnEnd::Ask { .. } | TurnEnd::Await { .. } => StepOutcome::Continue,
            TurnEnd::Finished => StepOutcome::Finished,
            TurnEnd::Failed(_) => StepOutcome::Failed,
        };
        let (mut messages, heard) = (std::mem::take(&mut host.said), std::mem::take(&mut host.heard));
        messages.extend(result.messages);
        let asked = rehearsal::kept(std::mem::take(&mut host.asked), &messages);
        let StepResult { summary, exits, .. } = result;
        let spend = host.replay.spend();
        let files = taken.files;
        let draft = Draft { outcome, summary, messages, heard, asked, exits, spend, then, events };
        let (step, task) = commit::step(&host, taken, draft).await?;
        if changed {
            commit::unpin(&self.shared, self.lease.task, self.lease.epoch).await;
        }
        self.workspace = std::mem::replace(&mut host.workspace, Workspace::Closed);
        self.task = task;
        self.files = files;
        self.head = Some(step.clone());
        self.turn = Some(step);
        self.resumed = false;
        Ok(self.ended())
    }

    /// What the commit brings with it, so that no crash falls between the two.
    fn consequence(&self, end: &TurnEnd) -> (Option<Then>, Vec<NewEvent>) {
        let (task, epoch) = (self.task.id, Some(self.lease.epoch));
        let status = |happening: Happening, reason: String| Some(Then::Status(happening.change(task, epoch, reason)));
        match end {
            TurnEnd::Continue => match self.leaving(&self.control.get()) {
                Some((happening, reason, event)) => (status(happening, reason), vec![event]),
                None => (None, Vec::new()),
            },
            TurnEnd::Finished => (status(Happening::Finish, String::new()), vec![telling::completed(task)]),
            TurnEnd::Failed(failure) => {
                let mut change = Happening::Fail.change(task, epoch, telling::reason(failure));
                change.hint.clone_from(&failure.hint);
                (Some(Then::Status(change)), vec![telling::failed(task, failure)])
            }
            TurnEnd::Await { tasks } => {
                let subject = Subject::Children { tasks: tasks.clone() };
                let question = new_question(&self.shared, task, subject, &children::question(tasks), &[]);
                let event = telling::asked(task, &question);
                (Some(Then::Ask(question)), vec![event])
            }
            TurnEnd::Ask { subject, question, choices } => {
                let question = new_question(&self.shared, task, subject.clone(), question, choices);
                let event = telling::asked(task, &question);
                (Some(Then::Ask(question)), vec![event])
            }
        }
    }

    fn ended(&mut self) -> Option<End> {
        if self.task.status.is_active() {
            return None;
        }
        let opened = !matches!(self.workspace, Workspace::Closed);
        if self.task.status.is_final() && opened {
            close(&self.shared, self.lease.worker, &self.task);
        }
        Some(left(self.task.clone()))
    }
}

fn left(task: TaskRecord) -> End {
    use helix_protocol::TaskStatus::{Pending, WaitingForWorker};
    match task.status {
        status if status.is_final() => End::Final(Box::new(task)),
        Pending | WaitingForWorker => End::Waiting(Box::new(task)),
        _ => End::Parked(Box::new(task)),
    }
}

pub(crate) fn new_question(shared: &Shared, task: TaskId, subject: Subject, text: &str, choices: &[String]) -> Question {
    Question::new(task, subject, text, choices.to_vec(), shared.now())
}

/// Takes the task for this node and the worker. A claim whose answer was lost, or that an earlier owner of this node made just
/// before it was dropped, is met by claiming again from what the records say.
async fn claim(shared: &Shared, job: &Job) -> Result<TaskRecord, Failure> {
    let node = shared.args.node;
    let mut record = job.record.as_deref().cloned();
    for _ in 0..CLAIMS {
        let seen = match record.take() {
            Some(record) => record,
            None => read_task(shared, job.task).await?,
        };
        if !shared.may_drive(&seen) || !Happening::Claim.from().contains(&seen.status) {
            let message = format!("task {} is {} and not this node's to drive", seen.id.short(), seen.status);
            return Err(Failure::new(Code::StaleOwner, message));
        }
        let epoch = seen.epoch.next();
        // Of one that waits for a worker by the records, they have the loss.
        let lost = job.lost.iter().filter(|_| seen.status.is_active());
        let mut events: Vec<NewEvent> = lost.map(|lost| telling::reassigned(seen.id, lost)).collect();
        events.extend(telling::claimed(seen.id, epoch.0, job.worker, &job.name));
        let write = Write::Claim { task: seen.id, expected: seen.epoch, node, worker: job.worker, events };
        match shared.write(write).await {
            Ok(applied) => return task_of(applied),
            Err(failure) if matches!(failure.code, Code::StaleOwner | Code::InvalidState) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(Code::StaleOwner, format!("task {} changes its owner faster than it can be claimed", job.task.short())))
}

pub(crate) async fn read_task(shared: &Shared, task: TaskId) -> Result<TaskRecord, Failure> {
    let found = shared.read(|records| async move { records.read().task(task).await }).await?;
    found.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no task {}", task.short())))
}

/// When the whole task's time is over: its limit less what its steps took so far. Unfinished ones are part of the step that came of
/// them, or of one that is still being made.
async fn deadline(shared: &Shared, task: &TaskRecord) -> Result<Option<Instant>, Failure> {
    let Some(limit) = task.spec.timeout_ms else { return Ok(None) };
    let id = task.id;
    let steps = shared.read(|records| async move { records.read().steps(id).await }).await?;
    let whole = steps.iter().filter(|step| step.outcome != StepOutcome::Unfinished);
    let used: Duration = whole.map(|step| step.committed_at.since(step.started_at)).sum();
    Ok(Some(Instant::now() + Duration::from_millis(limit).saturating_sub(used)))
}

/// What people answered to the question of the last turn, which has its instant. A fork's new prompt is the kind's to say.
async fn said_since(shared: &Shared, task: &TaskRecord, turn: Option<&StepRecord>) -> Result<Vec<Message>, Failure> {
    let Some(turn) = turn else { return Ok(Vec::new()) };
    let id = task.id;
    let mut questions = shared.read(|records| async move { records.read().questions(id).await }).await?;
    questions.reverse();
    Ok(answers_to(&questions, Some(turn)))
}

/// The answers to the questions of a turn, as messages.
pub(crate) fn answers_to(questions: &[Question], turn: Option<&StepRecord>) -> Vec<Message> {
    let Some(turn) = turn else { return Vec::new() };
    let its = |question: &&Question| question.created_at == turn.committed_at && question.subject == Subject::Conversation;
    let answers = questions.iter().filter(its).filter_map(|question| question.answer.clone());
    answers.map(|answer| Message::text(Role::User, answer)).collect()
}

/// Gives a workspace up, without waiting: a worker that does not hear it is told again when it connects.
pub(crate) fn close(shared: &Arc<Shared>, worker: WorkerId, task: &TaskRecord) {
    let (shared, request) = (Arc::clone(shared), Request::Close { task: task.id, epoch: task.epoch });
    tokio::spawn(async move {
        if let Err(failure) = shared.args.fleet.request(worker, request, Some(Duration::from_secs(60))).await {
            tracing::debug!(%worker, "a workspace was not closed: {failure}");
        }
    });
}

/// The files of `OnFailure::Keep` and `Fork` are snapshotted before they are given up.
pub(crate) fn keeps_files(on_failure: OnFailure) -> bool {
    matches!(on_failure, OnFailure::Keep | OnFailure::Fork)
}

/// What is left of a step that failed: its files where they are kept.
pub(crate) fn untouched(host: &Host) -> Taken {
    Taken::nothing(host.files)
}
