//! What one step is made with: journalled model calls, tools and commands in a workspace, all bound to one lease.
//!
//! The workspace is opened while the kind does its first thinking, or when it is first needed by a task that does nothing at all.
//! While a command runs, its workspace is snapshotted on a timer: see [`crate::steps`] for what becomes of those steps.

mod commands;
mod models;
mod words;
mod workspace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use helix_database::Write;
use helix_kernel::Boottime;
use helix_ports::{ChildEnd, ProviderError, SnapshotNote, StepHost};
use helix_protocol::link::{Request, Response, ToolLimits};
use helix_protocol::{
    AgentTurn, AskedModel, Budget, CallKey, Code, Epoch, ExitReport, Failure, JournalBody, JournalEntry, Message, ModelReply,
    ModelRequest, ModelTraffic, Question, Remark, RemarkId, Role, SnapshotId, Spent, StepId, StepRecord, TaskId, TaskRecord,
    TaskSpec, TaskWork, Timestamp, ToolCall, ToolOutcome, TurnReport, WorkerId, WorkspaceTool,
};

pub(crate) use self::models::has_asked;
pub(crate) use self::workspace::{Running, Workspace, adopt};

use self::workspace::request_worker;
use crate::budget;
use crate::replay::Replay;
use crate::retry::{Verdict, verdict};
use crate::shared::{Files, Shared};
use crate::{children, gateway, rehearsal, said, telling};

/// Between SIGTERM and SIGKILL for a command that is given up.
const GRACE_MS: u64 = 2_000;

/// How often the time that a step takes is noted while its task's time-out passes, and the least between two notes: so much of it
/// does not count where an owner dies.
const NOTES: u32 = 20;
const NOTE_LEAST: Duration = Duration::from_millis(100);

/// The lease under which everything is done.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub task: TaskId,
    pub epoch: Epoch,
    pub worker: WorkerId,
    pub name: String,
    /// The epoch under which the workspace was opened: this one, or where it was adopted an earlier owner's.
    pub opened: Epoch,
}

/// One step being made.
pub(crate) struct Host {
    pub shared: Arc<Shared>,
    pub lease: Lease,
    pub task: TaskRecord,
    /// The last turn.
    pub turn: Option<StepRecord>,
    /// The head: the last turn, or an unfinished or failed step after it.
    pub parent: Option<StepId>,
    /// The head's ordinal, for an unfinished step.
    pub turns: u64,
    pub ordinal: u64,
    /// What the step starts from.
    pub files: Files,
    /// What it started from, where other files took the place of those.
    pub began_with: Option<Files>,
    pub workspace: Workspace,
    pub replay: Replay,
    /// Said by a person since the last turn; committed in front of the step's own messages.
    pub said: Vec<Message>,
    /// Which remarks are among it.
    pub heard: Vec<RemarkId>,
    /// What models were asked so far.
    pub asked: Vec<AskedModel>,
    begun: Boottime,
    /// How long earlier owners made it.
    earlier: Duration,
    /// When the time it takes was last noted.
    noted: Boottime,
    /// Why the last call of a model was not answered, if it was not.
    pub unanswered: Option<ProviderError>,
    calls: u64,
    note: Option<SnapshotNote>,
    exits: Vec<ExitReport>,
    running: Option<CallKey>,
    /// The files of the last unfinished step of this turn.
    kept: Option<Files>,
    broken: Option<Failure>,
    /// An agent fell silent that may have asked its model: another try would pay for the same once more, and be as silent.
    pub is_paid_silence: bool,
}

/// What a step is begun with.
pub(crate) struct Begin {
    pub lease: Lease,
    pub task: TaskRecord,
    pub turn: Option<StepRecord>,
    pub parent: Option<StepId>,
    pub turns: u64,
    pub ordinal: u64,
    pub files: Files,
    pub workspace: Workspace,
    pub replay: Replay,
    pub said: Vec<Message>,
    pub earlier: Duration,
}

impl Host {
    pub fn new(shared: Arc<Shared>, begin: Begin) -> Self {
        let Begin { lease, task, turn, parent, turns, ordinal, files, workspace, replay, said, earlier } = begin;
        let begun = shared.args.clock.boottime();
        Self {
            shared,
            lease,
            task,
            turn,
            parent,
            turns,
            ordinal,
            files,
            began_with: None,
            workspace,
            replay,
            said,
            heard: Vec::new(),
            asked: Vec::new(),
            begun,
            earlier,
            noted: begun,
            unanswered: None,
            calls: 0,
            note: None,
            exits: Vec::new(),
            running: None,
            kept: None,
            broken: None,
            is_paid_silence: false,
        }
    }

    /// When the step began, on the wall clock as it is set now: how long a step took counts towards its task's time-out, and a
    /// clock that was set meanwhile must not. What earlier owners took of the time-out counts as if it had been just before.
    pub fn started_at(&self) -> Timestamp {
        self.shared.now().before(self.took())
    }

    /// How long the step has been made, by all its owners.
    fn took(&self) -> Duration {
        self.earlier + self.took_here()
    }

    /// How long it has been made by this one.
    fn took_here(&self) -> Duration {
        self.shared.args.clock.boottime().since(self.begun)
    }

    /// How often the time is noted that the step takes; `None` where its task has all the time there is.
    fn notes_every(&self) -> Option<Duration> {
        self.task.spec.timeout_ms.map(|limit| (Duration::from_millis(limit) / NOTES).max(NOTE_LEAST))
    }

    /// Notes how long the step has taken, where its task has a time-out: its next owner has only the rest.
    pub async fn note_time(&mut self) -> Result<(), Failure> {
        if self.notes_every().is_none() {
            return Ok(());
        }
        self.noted = self.shared.args.clock.boottime();
        let used_ms = u64::try_from(self.took().as_millis()).unwrap_or(u64::MAX);
        match self.append(JournalBody::Timed { used_ms, at: self.shared.now() }).await {
            // A note that is missing costs a little of the limit, and not the step.
            Err(failure) if verdict(failure.code) != Verdict::Stale => {
                tracing::warn!(task = %self.lease.task, "the time that the step takes is not noted: {failure}");
                Ok(())
            }
            noted => noted,
        }
    }

    /// Hears what people said to the task while it ran: what its first owner heard, where the step is made again; else all that is
    /// unheard, and that it is just this is journalled before anything answers to it.
    pub async fn hear(&mut self) -> Result<(), Failure> {
        let task = self.lease.task;
        let remarks = self.shared.read(|records| async move { records.read().remarks(task).await }).await?;
        let decided = self.replay.heard().map(<[RemarkId]>::to_vec);
        let hears = |remark: &Remark| match &decided {
            Some(heard) => heard.contains(&remark.id),
            None => remark.step.is_none(),
        };
        let remarks: Vec<Remark> = remarks.into_iter().filter(hears).collect();
        self.heard = remarks.iter().map(|remark| remark.id).collect();
        if decided.is_none() && !self.heard.is_empty() {
            self.journal(JournalBody::Heard { remarks: self.heard.clone() }).await?;
        }
        self.said.extend(remarks.into_iter().map(|remark| Message::text(Role::User, remark.text)));
        Ok(())
    }

    /// What the task has spent by itself, with what is set aside for calls of this step that are under way.
    fn spent(&self) -> Spent {
        Spent { money: self.task.spent, tokens: self.task.tokens }.plus(self.replay.committed())
    }

    /// What its own tasks hold of its budget, as the records say: nothing where it has none to hold of.
    async fn held(&self) -> Result<Spent, Failure> {
        if self.task.spec.budget == Budget::default() || !self.task.spec.work.makes_tasks() {
            return Ok(Spent::default());
        }
        let task = self.lease.task;
        let below = self.shared.read(|records| async move { records.read().descendants(task).await }).await?;
        Ok(helix_database::held(task, &below))
    }

    /// What went wrong between node and worker or records, whatever the kind made of it.
    pub fn broken(&mut self) -> Option<Failure> {
        self.broken.take()
    }

    /// Commands that ended, for a step whose kind gave no result.
    pub fn take_exits(&mut self) -> Vec<ExitReport> {
        std::mem::take(&mut self.exits)
    }

    pub fn take_note(&mut self) -> Option<SnapshotNote> {
        self.note.take()
    }

    /// Stops what still runs, for a step that is given up.
    pub async fn stop_running(&mut self) {
        if let Some(key) = self.running.take() {
            let cancel = Request::Cancel { task: self.lease.task, epoch: self.lease.epoch, key, grace_ms: GRACE_MS };
            // A worker that cannot be told is lost, and what it runs with it.
            let _ = self.shared.args.fleet.request(self.lease.worker, cancel, Some(Duration::from_millis(2 * GRACE_MS))).await;
            if matches!(self.task.spec.work, TaskWork::External(_))
                && let Err(failure) = gateway::forget(&self.shared, self.lease.task).await
            {
                tracing::warn!(task = %self.lease.task, "keys of a turn that was given up end by themselves: {failure}");
            }
        }
    }

    fn remember<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &answer
            && self.broken.is_none()
            && matches!(verdict(failure.code), Verdict::Stale | Verdict::WorkerGone | Verdict::OutOfBudget | Verdict::NextDay)
        {
            self.broken = Some(failure.clone());
        }
        answer
    }

    async fn ask_worker(&mut self, request: Request) -> Result<Response, Failure> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let answer = request_worker(&self.shared, self.lease.worker, request).await;
        self.remember(answer)
    }

    async fn journal(&mut self, body: JournalBody) -> Result<(), Failure> {
        self.append(body).await?;
        let since = self.shared.args.clock.boottime().since(self.noted);
        if self.notes_every().is_some_and(|every| since >= every) { self.note_time().await } else { Ok(()) }
    }

    async fn append(&mut self, body: JournalBody) -> Result<(), Failure> {
        let entry = JournalEntry {
            task: self.lease.task,
            attempt: self.task.attempt,
            sequence: self.replay.next(),
            ordinal: self.ordinal,
            epoch: self.lease.epoch,
            body,
        };
        let written = self.shared.write(Write::Journal(Box::new(entry.clone()))).await;
        self.remember(written)?;
        self.replay.apply(entry.sequence, &entry.body);
        Ok(())
    }
}

/// The key of a call: the same for every owner that makes the same step again.
pub(crate) fn call_key(task: &TaskRecord, ordinal: u64, call: u64) -> CallKey {
    let mut hash = blake3::Hasher::new();
    hash.update(task.id.0.as_bytes());
    hash.update(task.attempt.0.as_bytes());
    hash.update(&ordinal.to_be_bytes());
    hash.update(&call.to_be_bytes());
    CallKey(hash.finalize().to_hex().to_string())
}

fn unexpected(asked: &str, answer: &Response) -> Failure {
    Failure::new(Code::ProtocolError, format!("the worker answered a request to {asked} with {answer:?}"))
}

#[async_trait]
impl StepHost for Host {
    fn task(&self) -> &TaskRecord {
        &self.task
    }

    fn head(&self) -> Option<&StepRecord> {
        self.turn.as_ref()
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }

    async fn conversation(&mut self) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        if let Some(head) = self.parent {
            let line = self.shared.read(|records| async move { records.read().conversation(head).await }).await?;
            for step in line {
                messages.extend(said::by(&self.shared, step).await?);
            }
        }
        messages.extend(self.said.iter().cloned());
        Ok(messages)
    }

    async fn model(&mut self, request: ModelRequest) -> Result<ModelReply, Failure> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let call = self.next_call();
        let reply = match self.replay.reply(&call) {
            Some(reply) => reply.clone(),
            None => self.ask_model(call, request.clone()).await?,
        };
        self.asked.push(rehearsal::asked(&request, &reply));
        Ok(reply)
    }

    async fn has_rested(&mut self, least: Duration) -> Result<bool, Failure> {
        if let Some(decided) = self.replay.rested() {
            return Ok(decided);
        }
        let Some(asked_at) = self.asked_at().await? else { return Ok(false) };
        let rest = self.shared.now().since(asked_at);
        if rest < least {
            return Ok(false);
        }
        let ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        self.journal(JournalBody::Rested { ms }).await?;
        Ok(true)
    }

    async fn tool(&mut self, call: ToolCall) -> Result<ToolOutcome, Failure> {
        let ready = self.ready().await;
        self.remember(ready)?;
        let (task, worker, tool) = (self.lease.task, self.lease.worker, call.name.clone());
        self.shared.args.events.show(telling::tool_started(task, worker, &tool, &call.input));
        let tasks = &self.shared.args.tasks;
        let limits = ToolLimits { output_bytes: tasks.output_bytes, timeout_ms: tasks.tool_timeout_ms };
        if WorkspaceTool::by_name(&tool).is_none_or(WorkspaceTool::starts_processes) {
            self.starts_something();
        }
        self.running = Some(call.key.clone());
        let answer = self.ask_worker(Request::Tool { task, epoch: self.lease.epoch, call, limits }).await?;
        self.running = None;
        let Response::Tool { outcome } = answer else { return Err(unexpected("run a tool", &answer)) };
        self.shared.args.events.show(telling::tool_finished(task, worker, &tool, outcome.is_error, outcome.duration_ms));
        Ok(outcome)
    }

    async fn run(&mut self, command: &str, timeout_ms: Option<u64>) -> Result<ExitReport, Failure> {
        self.run_command(command, timeout_ms).await
    }

    async fn turn(&mut self, turn: AgentTurn, traffic: ModelTraffic) -> Result<(TurnReport, ExitReport), Failure> {
        self.take_turn(turn, traffic).await
    }

    async fn effect(
        &mut self,
        call: &ToolCall,
        work: BoxFuture<'static, Result<ToolOutcome, Failure>>,
    ) -> Result<ToolOutcome, Failure> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if let Some(outcome) = self.replay.outcome(&call.key) {
            return Ok(outcome.clone());
        }
        let (task, worker) = (self.lease.task, self.lease.worker);
        self.shared.args.events.show(telling::tool_started(task, worker, &call.name, &call.input));
        self.journal(JournalBody::Intended { call: call.key.clone(), tool: call.name.clone() }).await?;
        let began = tokio::time::Instant::now();
        let mut outcome = work.await?;
        outcome.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.journal(JournalBody::Resulted { call: call.key.clone(), outcome: outcome.clone() }).await?;
        self.shared.args.events.show(telling::tool_finished(task, worker, &call.name, outcome.is_error, outcome.duration_ms));
        Ok(outcome)
    }

    async fn questions(&mut self) -> Result<Vec<Question>, Failure> {
        let task = self.lease.task;
        let mut questions = self.shared.read(|records| async move { records.read().questions(task).await }).await?;
        questions.reverse();
        Ok(questions)
    }

    async fn child(&mut self, name: &str, spec: TaskSpec, shares: u32) -> Result<TaskId, Failure> {
        let id = children::id(&self.task, name);
        if children::is_made(&self.shared, id).await? {
            return Ok(id);
        }
        let share = budget::share(self.task.spec.budget, self.spent().plus(self.held().await?), shares);
        let budget = self.remember(share)?;
        children::make(&self.shared, &self.task, id, TaskSpec { budget, ..spec }).await
    }

    async fn child_end(&mut self, task: TaskId) -> Result<Option<ChildEnd>, Failure> {
        children::end(&self.shared, task).await
    }

    async fn cancel_child(&mut self, task: TaskId) -> Result<(), Failure> {
        children::cancel(&self.shared, &self.task, task).await
    }

    async fn patches(&mut self, snapshot: SnapshotId) -> Result<String, Failure> {
        children::patches(&self.shared, &self.task, self.files.tree, snapshot).await
    }

    async fn take_files(&mut self, snapshot: SnapshotId) -> Result<(), Failure> {
        self.began_with.get_or_insert(self.files);
        self.files = self.shared.files_of(snapshot).await?;
        // What is opened next holds these; nothing of the step's own files is asked for any more.
        self.workspace = Workspace::Closed;
        Ok(())
    }

    fn next_call(&mut self) -> CallKey {
        let key = call_key(&self.task, self.ordinal, self.calls);
        self.calls += 1;
        key
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        self.ask_worker(Request::Ping).await.map(drop)
    }

    fn note(&mut self, note: SnapshotNote) {
        self.note = Some(note);
    }
}

/// True of a task that certainly touches no file in a workspace, so that its workspace is not opened ahead.
pub(crate) fn does_nothing(task: &TaskRecord) -> bool {
    match &task.spec.work {
        TaskWork::Command(spec) => spec.commands.is_empty(),
        // It takes the files of others.
        TaskWork::Attempts(_) => true,
        _ => false,
    }
}
