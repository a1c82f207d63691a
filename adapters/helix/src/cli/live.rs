//! What the command of a followed task writes, shown while it runs.
//!
//! Output is read from the worker beside the events. Whatever of it could not be had (a command that was over at once, a worker
//! that went away) is taken from the committed step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_adapter_http::api::{LogPage, LogRun, RunOutput};
use helix_protocol::{Event, EventKind, Failure, RunId, StepOutcome, TaskId};
use tokio::sync::mpsc;

use super::Context;
use super::context::out;
use super::style::grouped;
use crate::client::Client;

/// How long the end of a command's output is waited for once the command has ended.
const REST: Duration = Duration::from_secs(5);

/// Between two tries to read it where it cannot be had.
const AGAIN: Duration = Duration::from_millis(100);

/// The output of one task's commands.
pub(super) struct Live<'a> {
    context: &'a Context,
    client: &'a Client,
    task: TaskId,
    run: Option<RunId>,
    pieces: Option<mpsc::Receiver<RunOutput>>,
    /// True once the command whose pieces come has ended.
    over: Arc<AtomicBool>,
    /// How much of the command's output was shown, in bytes.
    shown: u64,
    line_ended: bool,
}

impl<'a> Live<'a> {
    /// Of a task whose events are about to be seen from the first on.
    pub fn new(context: &'a Context, client: &'a Client, task: TaskId) -> Self {
        Self { context, client, task, run: None, pieces: None, over: Arc::default(), shown: 0, line_ended: true }
    }

    /// Shows the next piece. Waits for ever where no command runs.
    pub async fn next(&mut self) -> Result<(), Failure> {
        let Some(pieces) = &mut self.pieces else { return std::future::pending().await };
        match pieces.recv().await {
            Some(piece) => self.show(&piece),
            None => {
                self.pieces = None;
                Ok(())
            }
        }
    }

    /// Shows what belongs before the event's line, and ends a line that the command left open.
    pub async fn before(&mut self, event: &Event) -> Result<(), Failure> {
        if event.event.task == Some(self.task) && ends_a_command(event) {
            self.over.store(true, Ordering::Relaxed);
            let rest = async {
                while self.pieces.is_some() {
                    self.next().await?;
                }
                Ok::<(), Failure>(())
            };
            // What comes later than that is in the step.
            tokio::time::timeout(REST, rest).await.unwrap_or(Ok(()))?;
            self.pieces = None;
            if event.event.kind == EventKind::StepCompleted {
                self.fill(event).await?;
            }
        }
        if std::mem::replace(&mut self.line_ended, true) { Ok(()) } else { out("\n") }
    }

    /// Begins to read where the event is the beginning of a command.
    pub fn after(&mut self, event: &Event) {
        let detail = &event.event.detail;
        let begins = event.event.kind == EventKind::ToolStarted && event.event.task == Some(self.task) && detail["tool"] == "run";
        let run = serde_json::from_value::<RunId>(detail["input"]["run"].clone()).ok().filter(|_| begins);
        let Some(run) = run else { return };
        // A command that goes on after its worker was away is the one that was shown so far.
        if self.run.replace(run) != Some(run) {
            self.shown = 0;
        }
        let (sender, pieces) = mpsc::channel(16);
        self.over = Arc::default();
        tokio::spawn(read(self.client.clone(), self.task, run, self.shown, sender, Arc::clone(&self.over)));
        self.pieces = Some(pieces);
    }

    fn show(&mut self, piece: &RunOutput) -> Result<(), Failure> {
        self.shown = piece.next;
        self.write(&piece.text)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        if !text.is_empty() {
            self.line_ended = text.ends_with('\n');
        }
        self.context.show_content(text)
    }

    /// Shows what the committed step has of the command and nobody has seen.
    async fn fill(&mut self, event: &Event) -> Result<(), Failure> {
        let detail = &event.event.detail;
        let is_turn =
            serde_json::from_value(detail["outcome"].clone()).is_ok_and(|outcome: StepOutcome| outcome != StepOutcome::Unfinished);
        let (Some(run), Some(ordinal), true) = (self.run, detail["ordinal"].as_u64(), is_turn) else { return Ok(()) };
        let after = ordinal.saturating_sub(1).to_string();
        let path = format!("/tasks/{}/log", self.task);
        // Nobody is the worse for it where it cannot be had: `helix task log` has it later.
        let Ok(page) = self.client.query::<LogPage>(&path, &[("after", &after)]).await else { return Ok(()) };
        let runs = page.steps.into_iter().filter(|step| step.ordinal == ordinal).flat_map(|step| step.runs);
        for ended in runs.filter(|ended| ended.run == run) {
            let (hidden, rest) = unseen(&ended, self.shown);
            if hidden > 0 {
                let short = self.task.short();
                self.context.say(&format!("… {} bytes before this; `helix task log {short} --whole` shows them", grouped(hidden)));
            }
            self.write(rest)?;
        }
        self.run = None;
        Ok(())
    }
}

/// What of a command's output was not shown: how many bytes nobody will see here, and the text behind them.
fn unseen(run: &LogRun, shown: u64) -> (u64, &str) {
    let begins = run.output_bytes.saturating_sub(run.output.len() as u64);
    let seen = usize::try_from(shown.saturating_sub(begins)).unwrap_or(usize::MAX);
    (begins.saturating_sub(shown), run.output.get(seen..).unwrap_or_default())
}

fn ends_a_command(event: &Event) -> bool {
    match event.event.kind {
        EventKind::ToolFinished => event.event.detail["tool"] == "run",
        kind => matches!(
            kind,
            EventKind::StepCompleted
                | EventKind::StepFailed
                | EventKind::TaskCompleted
                | EventKind::TaskFailed
                | EventKind::TaskCancelled
                | EventKind::TaskReassigned
        ),
    }
}

/// Reads a command's output until it ends, or until nobody wants it; once the command is `over`, until it cannot be had.
async fn read(client: Client, task: TaskId, run: RunId, mut offset: u64, pieces: mpsc::Sender<RunOutput>, over: Arc<AtomicBool>) {
    let (path, run) = (format!("/tasks/{task}/log"), run.to_string());
    loop {
        let from = offset.to_string();
        let Ok(output) = client.query::<RunOutput>(&path, &[("run", &run), ("offset", &from)]).await else {
            if over.load(Ordering::Relaxed) || pieces.is_closed() {
                return;
            }
            // It is told of before its worker knows it, and its worker may be away for a while.
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        offset = output.next;
        let ended = output.ended;
        if pieces.send(output).await.is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let run = |output: &str, output_bytes| LogRun {
            run: RunId::new(),
            command: "make".to_owned(),
            exit_code: 0,
            output: output.to_owned(),
            output_bytes,
            cut: output_bytes > output.len() as u64,
            object: None,
        };
        assert_eq!(unseen(&run("one\ntwo\n", 8), 0), (0, "one\ntwo\n"));
        assert_eq!(unseen(&run("one\ntwo\n", 8), 4), (0, "two\n"));
        assert_eq!(unseen(&run("one\ntwo\n", 8), 8), (0, ""));
        assert_eq!(unseen(&run("end\n", 100), 0), (96, "end\n"));
        assert_eq!(unseen(&run("end\n", 100), 98), (0, "d\n"));
    }
}
