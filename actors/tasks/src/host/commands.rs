//! What runs in the workspace until it ends: commands, and the turns of agents that people already have.

use std::sync::Arc;
use std::time::Duration;

use helix_protocol::link::{Request, Response};
use helix_protocol::{
    AgentTurn, CallKey, Code, Epoch, ExitReport, Failure, JournalBody, ModelTraffic, RunId, Spend, Spent, TurnReport,
};

use super::{Host, request_worker, unexpected};
use crate::retry::{Verdict, verdict};
use crate::{commit, gateway, telling};

/// Longer than anything is waited for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Host {
    /// A command, to its end.
    pub(super) async fn run_command(&mut self, command: &str, timeout_ms: Option<u64>) -> Result<ExitReport, Failure> {
        let (key, run) = self.next_run().await?;
        let (task, epoch) = (self.lease.task, self.lease.epoch);
        let request = Request::Run { task, epoch, key: key.clone(), run, command: command.to_owned(), timeout_ms };
        let answer = self.watched(command, key, run, request).await?;
        let Response::Ran { report } = answer else { return Err(unexpected("run a command", &answer)) };
        self.exits.push(report.clone());
        Ok(report)
    }

    /// A turn of an agent, with a way to models for as long as it takes.
    pub(super) async fn take_turn(
        &mut self,
        mut turn: AgentTurn,
        traffic: ModelTraffic,
    ) -> Result<(TurnReport, ExitReport), Failure> {
        let (key, run) = self.next_run().await?;
        if traffic == ModelTraffic::Gateway {
            let access = gateway::access(&self.shared, &self.task, self.ordinal, self.lease.worker, self.charged()).await;
            turn.gateway = Some(self.remember(access)?);
            self.shared.args.spending.note(self.lease.task, None);
        }
        let (task, epoch, shown) = (self.lease.task, self.lease.epoch, format!("agent {}", turn.agent));
        let request = Request::Turn { task, epoch, key: key.clone(), run, turn: Box::new(turn) };
        let mut answer = self.watched(&shown, key.clone(), run, request).await;
        let mut asked_nothing = false;
        if traffic == ModelTraffic::Gateway {
            let spend = self.settle_turn(key).await?;
            // An agent whose last call was refused has not done what it was asked, whatever it made of that.
            if let Some(refused) = self.shared.args.spending.take_refusal(self.lease.task) {
                return self.remember(Err(gateway::refused(refused)));
            }
            // A turn that was adopted has asked under an earlier owner, and its gateway was away meanwhile.
            let is_own = self.lease.opened == self.lease.epoch;
            asked_nothing = is_own && spend.model_calls == 0;
            answer = answer.map_err(|failure| if asked_nothing { not_started(failure) } else { failure });
        }
        self.is_paid_silence = !asked_nothing && answer.as_ref().is_err_and(|failure| failure.code == Code::TimedOut);
        let answer = answer?;
        let Response::Turned { turn, report } = answer else { return Err(unexpected("have an agent take a turn", &answer)) };
        self.exits.push(report.clone());
        Ok((*turn, report))
    }

    /// The key and the run of what is started next, in a workspace that is there.
    async fn next_run(&mut self) -> Result<(CallKey, RunId), Failure> {
        let ready = self.ready().await;
        self.remember(ready)?;
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        self.starts_something();
        let key = helix_ports::StepHost::next_call(self);
        let run = run_id(&key, self.lease.opened);
        Ok((key, run))
    }

    /// Waits for something that runs in the workspace, shown as `command`. The workspace's files are kept on a timer meanwhile.
    async fn watched(&mut self, command: &str, key: CallKey, run: RunId, request: Request) -> Result<Response, Failure> {
        let (shared, task, worker) = (Arc::clone(&self.shared), self.lease.task, self.lease.worker);
        let input = serde_json::json!({"command": command, "run": run});
        shared.args.events.show(telling::tool_started(task, worker, "run", &input));
        let began = tokio::time::Instant::now();
        self.running = Some(key);
        let ran = request_worker(&shared, worker, request);
        tokio::pin!(ran);
        let interval = Duration::from_millis(self.shared.args.tasks.snapshot_interval_ms.max(1));
        let notes = self.notes_every().unwrap_or(NEVER);
        let now = tokio::time::Instant::now();
        let (mut snapshot, mut note) = (now + interval, now + notes);
        let answer = loop {
            tokio::select! {
                answer = &mut ran => break answer,
                () = tokio::time::sleep_until(snapshot) => {
                    self.keep_unfinished().await?;
                    snapshot = tokio::time::Instant::now() + interval;
                }
                () = tokio::time::sleep_until(note) => {
                    self.note_time().await?;
                    note = tokio::time::Instant::now() + notes;
                }
            }
        };
        self.running = None;
        let is_error = match &answer {
            Ok(Response::Ran { report }) => report.exit_code != 0,
            answer => answer.is_err(),
        };
        let duration = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.args.events.show(telling::tool_finished(task, worker, "run", is_error, duration));
        self.remember(answer)
    }

    /// What the task was charged so far.
    fn charged(&self) -> Spent {
        let Spend { money, tokens, .. } = self.replay.spend();
        Spent { money: self.task.spent + money, tokens: self.task.tokens + tokens }
    }

    /// Ends the turn's way to models, however the turn ended, and charges what it spent, which is answered.
    async fn settle_turn(&mut self, call: CallKey) -> Result<Spend, Failure> {
        let task = self.lease.task;
        gateway::forget(&self.shared, task).await?;
        let began = self.shared.now().before(self.took_here());
        let spend = gateway::uncharged(&self.shared, task, self.charged(), began).await?;
        if self.broken.is_none() && spend != Spend::default() {
            self.journal(JournalBody::Charged { call, spend }).await?;
        }
        Ok(spend)
    }

    /// Takes the files of the command that runs as an unfinished step. What goes wrong here costs a snapshot and not the command,
    /// unless somebody else owns the task by now.
    async fn keep_unfinished(&mut self) -> Result<(), Failure> {
        match commit::unfinished(self, self.kept).await {
            Ok(kept) => self.kept = kept,
            Err(failure) if verdict(failure.code) == Verdict::Stale => return self.remember(Err(failure)),
            Err(failure) => {
                tracing::warn!(task = %self.lease.task, "the running command's files could not be snapshotted: {failure}")
            }
        }
        Ok(())
    }
}

/// An agent that failed and has asked its model nothing did so for a reason that another try would meet again: an option, a
/// login, a file that is missing.
fn not_started(failure: Failure) -> Failure {
    let code = if failure.code == Code::AgentFailed { Code::AgentNotStarted } else { failure.code };
    Failure { code, ..failure }
}

/// The run that a key has in a workspace: the same however often it is asked for, another one once the workspace was opened anew.
fn run_id(key: &CallKey, opened: Epoch) -> RunId {
    let mut hash = blake3::Hasher::new();
    hash.update(key.0.as_bytes());
    hash.update(&opened.0.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    RunId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
