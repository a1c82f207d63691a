//! Calls with keys: joined where they run, answered from what is kept where they have ended.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_kernel::Secrets;
use helix_protocol::link::{Response, ToolLimits};
use helix_protocol::{CallKey, Code, Epoch, Failure, Isolation, RunId, STILL_RUNS, TaskId, ToolCall, ToolOutcome};
use tokio::sync::oneshot;

use super::running::{Command, Ran};
use super::{Answer, Engine, blocking};
use crate::calls::{Begun, Keep};
use crate::confine::Confined;
use crate::tools::{self, Arguments, OutputArguments, ShellArguments, StopArguments, shorten};
use crate::workspace::{Opening, Workspace};

/// A command in the background that ends within this time is answered for as an ended one.
const EARLY: Duration = Duration::from_millis(500);
/// Between SIGTERM and SIGKILL for a command in the background.
const STOPPING: Duration = Duration::from_secs(2);
/// The exit code with which a shell says that there is no such program.
const NO_SUCH_PROGRAM: i32 = 127;

impl Engine {
    pub(super) async fn call_run(self: &Arc<Self>, task: TaskId, epoch: Epoch, key: CallKey, command: Command) -> Answer {
        let (workspace, opening) = self.workspace(task, epoch)?;
        let (engine, opened, run_key) = (Arc::clone(self), Arc::clone(&workspace), key.clone());
        let result = self.once(task, key, async move {
            let report = engine.run_command(&opened, opening, &run_key, command).await?.report;
            Ok(Response::Ran { report })
        });
        self.answer_of(result.await, &workspace, epoch)
    }

    pub(super) async fn call_tool(self: &Arc<Self>, task: TaskId, epoch: Epoch, call: ToolCall, limits: ToolLimits) -> Answer {
        let (workspace, opening) = self.workspace(task, epoch)?;
        let (engine, opened) = (Arc::clone(self), Arc::clone(&workspace));
        let result = self.once(task, call.key.clone(), async move {
            let start = Instant::now();
            let masks = opened.state.lock().masks.clone();
            let outcome = match engine.tool(&opened, opening, &call, limits).await {
                Ok(outcome) => outcome,
                Err(failure) if is_for_the_model(failure.code) => ToolOutcome::error(words(&failure)),
                Err(failure) => return Err(failure),
            };
            // A stale owner's tool may have met the next owner's files.
            opened.check_opening(opening)?;
            Ok(Response::Tool { outcome: within(outcome, &masks, limits, start.elapsed()) })
        });
        self.answer_of(result.await, &workspace, epoch)
    }

    /// A result is told to the workspace's owner while the lease lasts. It is kept all the same: the call was done.
    pub(super) fn answer_of(&self, result: Answer, workspace: &Workspace, epoch: Epoch) -> Answer {
        let response = result?;
        workspace.check(epoch)?;
        self.lease.check()?;
        Ok(response)
    }

    /// Runs `work` unless it runs or has run under this key, and waits for its result. The work goes on when the asker leaves.
    pub(super) async fn once(
        self: &Arc<Self>,
        task: TaskId,
        key: CallKey,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Answer {
        let (waiter, result) = oneshot::channel();
        let begun = self.calls.lock().begin(task, &key, waiter);
        match begun {
            Begun::Kept(_, result) => return result,
            Begun::Joined => {}
            Begun::Start => {
                let engine = Arc::clone(self);
                tokio::spawn(async move {
                    // In a task of its own: a panic in it is a result, too.
                    let result = tokio::spawn(work).await;
                    let result = result.unwrap_or_else(|error| {
                        Err(Failure::new(Code::Internal, format!("the call failed within the worker: {error}")))
                    });
                    let keep = match &result {
                        Ok(_) => Keep::Result,
                        Err(failure) if matches!(failure.code, Code::LeaseExpired | Code::StaleOwner) => Keep::Refusal,
                        Err(_) => Keep::Nothing,
                    };
                    let waiters = engine.calls.lock().finish(task, &key, result.clone(), keep);
                    for waiter in waiters {
                        let _ = waiter.send(result.clone());
                    }
                });
            }
        }
        result.await.unwrap_or_else(|_| Err(Failure::new(Code::ShuttingDown, "the worker is stopping")))
    }

    async fn tool(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        opening: Opening,
        call: &ToolCall,
        limits: ToolLimits,
    ) -> Result<ToolOutcome, Failure> {
        let limit = limits.output_bytes as usize;
        match tools::parse(call)? {
            Arguments::Shell(arguments) if arguments.background => self.start(workspace, opening, arguments, limit).await,
            Arguments::Shell(arguments) => self.shell(workspace, opening, &call.key, arguments, limits).await,
            Arguments::ReadOutput(arguments) => self.page(&arguments, limit).await,
            Arguments::Stop(arguments) => self.stop_background(workspace, &arguments, limit).await,
            arguments => {
                let changes = matches!(arguments, Arguments::Write(_) | Arguments::Edit(_) | Arguments::ApplyPatch(_));
                let _gate = workspace.gate.read().await;
                let _files = workspace.files.read().await;
                workspace.check_opening(opening)?;
                self.lease.check()?;
                if changes {
                    let mut state = workspace.state.lock();
                    if state.environment.isolation() == Isolation::ReadOnly {
                        return Err(Failure::new(
                            Code::InvalidToolCall,
                            "the task's isolation level is read-only: no file may be written",
                        )
                        .hint("say in the answer what should be changed"));
                    }
                    state.clean = false;
                }
                let workspace = Arc::clone(workspace);
                blocking(move || {
                    let confined = Confined::open(&workspace.root())?;
                    match arguments {
                        Arguments::Read(arguments) => tools::read(&confined, &arguments, limit),
                        Arguments::Write(arguments) => tools::write(&confined, &arguments),
                        Arguments::Edit(arguments) => tools::edit(&confined, &arguments),
                        Arguments::ApplyPatch(arguments) => tools::apply_patch(&confined, &arguments),
                        Arguments::Grep(arguments) => tools::grep(&confined, &arguments),
                        Arguments::Glob(arguments) => tools::glob(&confined, &arguments),
                        Arguments::Todo(arguments) => tools::todo(&workspace.todo(), &arguments),
                        Arguments::Shell(_) | Arguments::ReadOutput(_) | Arguments::Stop(_) => unreachable!("answered above"),
                    }
                })
                .await
            }
        }
    }

    async fn shell(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        opening: Opening,
        key: &CallKey,
        arguments: ShellArguments,
        limits: ToolLimits,
    ) -> Result<ToolOutcome, Failure> {
        let run = RunId::new();
        let timeout_ms = arguments.timeout_s.map_or(limits.timeout_ms, |seconds| seconds.saturating_mul(1000));
        let command = Command::shell(run, arguments.command, Some(timeout_ms));
        let Ran { report, spool } = self.run_command(workspace, opening, key, command).await?;
        let limit = limits.output_bytes as usize;
        let mut notes = match report.exit_code {
            0 => String::new(),
            124 => format!("\n[stopped with everything it started after {timeout_ms} ms]"),
            NO_SUCH_PROGRAM => "\n[exit code 127, program_missing: this worker has no program of that name]".to_owned(),
            code => format!("\n[exit code {code}]"),
        };
        let room = limit.saturating_sub(notes.len());
        let kept = spool.progress().kept;
        let text = if kept <= room as u64 {
            String::from_utf8_lossy(&spool.whole()?).into_owned()
        } else {
            // The beginning and the end, without the middle being read.
            let more = format!("read_output with run {run} pages all {kept} bytes");
            let half = room.saturating_sub(more.len() + 64) / 2;
            let (head, _) = spool.read(0, half)?;
            let (tail, _) = spool.read(kept - half as u64, half)?;
            let (head, tail) = (String::from_utf8_lossy(&head).into_owned(), String::from_utf8_lossy(&tail).into_owned());
            notes = format!("{notes}\n");
            format!("{head}\n[{} bytes left out: {more}]\n{tail}", kept - 2 * half as u64)
        };
        let truncated = kept > room as u64;
        let silent = if text.is_empty() && notes.is_empty() { "[no output]" } else { "" };
        let content = format!("{text}{silent}{}", notes.trim_end());
        let is_error = report.exit_code != 0;
        Ok(ToolOutcome { is_error, exit_code: Some(report.exit_code), truncated, ..ToolOutcome::ok(content) })
    }

    /// Starts a command and leaves it running. It holds the workspace as every command does, so it is ended, with everything it
    /// started, before the workspace is opened anew or closed.
    async fn start(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        opening: Opening,
        arguments: ShellArguments,
        limit: usize,
    ) -> Result<ToolOutcome, Failure> {
        let run = RunId::new();
        let timeout_ms = arguments.timeout_s.map(|seconds| seconds.saturating_mul(1000));
        let command = Command::shell(run, arguments.command, timeout_ms);
        let (engine, opened) = (Arc::clone(self), Arc::clone(workspace));
        let mut running =
            tokio::spawn(
                async move { engine.run_command(&opened, opening, &background_key(run), command).await.map(|ran| ran.report) },
            );
        // What fails at once is told at once.
        match tokio::time::timeout(EARLY, &mut running).await {
            Err(_) => {
                let page =
                    self.page(&OutputArguments { run, offset: 0, limit: None, wait_s: 0 }, limit.saturating_sub(200)).await?;
                let content = format!("runs in the background as run {run}; its output so far:\n{}", page.content);
                Ok(ToolOutcome::ok(content))
            }
            Ok(Ok(Ok(report))) => {
                let text = shorten(report.tail, limit.saturating_sub(200), "").text;
                let content = format!("ended at once with exit code {} as run {run}:\n{text}", report.exit_code);
                let is_error = report.exit_code != 0;
                Ok(ToolOutcome { is_error, exit_code: Some(report.exit_code), ..ToolOutcome::ok(content) })
            }
            Ok(Ok(Err(failure))) => Err(failure),
            Ok(Err(error)) => Err(Failure::new(Code::Internal, format!("the command's keeper ended: {error}"))),
        }
    }

    async fn stop_background(
        &self,
        workspace: &Arc<Workspace>,
        arguments: &StopArguments,
        limit: usize,
    ) -> Result<ToolOutcome, Failure> {
        let run = arguments.run;
        if !workspace.stop(&background_key(run), STOPPING) {
            return Err(Failure::new(Code::NotFound, format!("no run {run} is in the background"))
                .hint("it has ended, or its workspace was moved; `read_output` may still have its output"));
        }
        let spool = self.spools.find(run)?;
        let end = spool.until_ended(2 * STOPPING).await;
        let text = shorten(spool.tail(), limit.saturating_sub(200), "").text;
        let ended = if end { "stopped" } else { "was told to stop and has not ended yet" };
        Ok(ToolOutcome::ok(format!("run {run} {ended}; its output ended with:\n{text}")))
    }

    async fn page(&self, arguments: &OutputArguments, limit: usize) -> Result<ToolOutcome, Failure> {
        let spool = self.spools.find(arguments.run)?;
        let wanted = arguments.limit.unwrap_or(usize::MAX).min(limit.saturating_sub(100));
        let (data, ended) = spool.wait_read(arguments.offset, wanted, Duration::from_secs(arguments.wait_s)).await?;
        let next = arguments.offset + data.len() as u64;
        let end = match (ended, data.is_empty()) {
            (true, _) => format!("[the end, at byte {next}]"),
            (false, true) => format!("[nothing more yet at byte {next}{STILL_RUNS}"),
            (false, false) => format!("[go on with offset {next}]"),
        };
        Ok(ToolOutcome { truncated: !ended, ..ToolOutcome::ok(format!("{}\n{end}", String::from_utf8_lossy(&data))) })
    }
}

/// The key of a run in the background: no call of a step has it, so it does not end with one.
fn background_key(run: RunId) -> CallKey {
    CallKey(format!("background-{run}"))
}

/// A tool's answer as the node gets it: masked, within its limit, with its time.
fn within(outcome: ToolOutcome, masks: &Secrets, limits: ToolLimits, took: Duration) -> ToolOutcome {
    let cut = shorten(masks.mask(outcome.content), limits.output_bytes as usize, "");
    ToolOutcome {
        content: cut.text,
        truncated: outcome.truncated || cut.truncated,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        ..outcome
    }
}

/// Failures a model can do something about; the others are the node's.
fn is_for_the_model(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidToolCall
            | Code::InvalidRequest
            | Code::PathEscapes
            | Code::FileNotFound
            | Code::FileUnreadable
            | Code::FileTooLarge
            | Code::EditNotFound
            | Code::EditAmbiguous
            | Code::NotFound
    )
}

fn words(failure: &Failure) -> String {
    let hint = if failure.hint.is_empty() { String::new() } else { format!("\n{}", failure.hint) };
    format!("{}: {}{hint}", failure.code, failure.message)
}
