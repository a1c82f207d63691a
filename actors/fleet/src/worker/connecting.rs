//! Coming to a connection: dials, starts of the worker's process, pauses between them, and what a welcome means.

use std::sync::Arc;
use std::time::Duration;

use helix_database::RecordError;
use helix_kernel::Boottime;
use helix_link::{Event, Link, LinkHandle};
use helix_messages::Records;
use helix_ports::{ConnectError, DeathProof};
use helix_protocol::link::{Holding, Request, Welcome};
use helix_protocol::{Code, EventKind, Failure, Lifecycle, Severity, TaskRecord, WorkerId, WorkerStatus};
use serde_json::json;

use super::machine::Looks;
use super::{WorkerMsg, WorkerState, pump};
use crate::backoff::{Attempts, Leased, Starts};
use crate::dial::Dialled;
use crate::lease::Lease;
use crate::line::Connected;

/// How long a worker that was given up may take to end what it ran.
const RELEASE: Duration = Duration::from_secs(60);

impl WorkerState {
    pub(super) fn now(&self) -> Boottime {
        self.args.dialler.clock.boottime()
    }

    /// Starts an errand; one that still runs is given up.
    fn run(&mut self, errand: impl Future<Output = WorkerMsg> + Send + 'static) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        self.running = Some(self.work.start(errand));
    }

    pub(super) fn dial(&mut self) {
        if self.retired {
            return;
        }
        self.errand += 1;
        let (errand, dialler, line) = (self.errand, self.args.dialler.clone(), Arc::clone(&self.args.line));
        let target = self.view.record.target.clone();
        self.run(async move {
            let outcome = dialler.dial(&line, &target).await.map(Box::new);
            WorkerMsg::Dialled { errand, outcome }
        });
    }

    fn dial_after(&mut self, pause: Duration) {
        self.errand += 1;
        let errand = self.errand;
        self.run(async move {
            tokio::time::sleep(pause).await;
            WorkerMsg::Due { errand }
        });
    }

    /// Starts the worker's process, after a pause where that was needed often.
    fn start_process(&mut self) {
        if self.retired {
            return;
        }
        let now = self.now();
        let pause = self.starts.take(now);
        if self.starts.too_many() {
            let reason = format!("its process ended {} times within {} s", Starts::MOST, Starts::PERIOD.as_secs());
            self.set_status(WorkerStatus::Failed, &reason);
        }
        self.errand += 1;
        let (errand, dialler, target) = (self.errand, self.args.dialler.clone(), self.view.record.target.clone());
        self.run(async move {
            tokio::time::sleep(pause).await;
            let outcome = dialler.start(&target).await;
            WorkerMsg::Started { errand, outcome }
        });
    }

    pub(super) fn started(&mut self, outcome: Result<(), ConnectError>) {
        match outcome {
            Ok(()) => self.dial(),
            // A death found while starting is found again by the next dial.
            Err(ConnectError::Dead(_)) => self.dial_soon(),
            Err(ConnectError::Unreachable(failure)) => {
                self.set_status(WorkerStatus::Offline, &failure.message);
                self.dial_soon();
            }
            Err(ConnectError::Refused(failure)) => {
                self.set_status(WorkerStatus::Failed, &failure.message);
                self.dial_after(Attempts::long(rand::random()));
            }
        }
    }

    fn dial_soon(&mut self) {
        let leased = if self.lease.is_over() { Leased::Over } else { Leased::Runs };
        let pause = self.attempts.pause(leased, rand::random());
        self.dial_after(pause);
    }

    pub(super) fn not_connected(&mut self, error: ConnectError) {
        tracing::debug!(worker = self.args.line.name(), %error, "no connection");
        match error {
            ConnectError::Dead(proof) => {
                if self.lease.end() {
                    self.lose(proof);
                }
                self.start_process();
            }
            ConnectError::Unreachable(failure) => {
                let status = if self.lease.is_over() { WorkerStatus::Offline } else { WorkerStatus::Inactive };
                self.set_status(status, &failure.message);
                self.dial_soon();
            }
            // The program is gone, or of another version: putting it there does no harm, and a start is idempotent.
            ConnectError::Refused(failure) if failure.code == Code::InstallFailed => {
                self.set_status(WorkerStatus::Failed, &failure.message);
                self.start_process();
            }
            ConnectError::Refused(failure) => {
                self.set_status(WorkerStatus::Failed, &failure.message);
                self.dial_after(Attempts::long(rand::random()));
            }
        }
    }

    pub(super) fn connected(&mut self, dialled: Dialled) {
        if !dialled.welcome.holds.is_empty() {
            // Its lease may have ended while it was looked through.
            if self.has_moved_on(&dialled.welcome) {
                return self.release(dialled, Held::Lost);
            }
            if self.view.incarnation == 0 && !dialled.looked_through {
                return self.release(dialled, Held::AsRecorded);
            }
        }
        if self.may_be_renewed(&dialled.welcome) {
            return self.renew(dialled);
        }
        let Dialled { number, link, welcome, .. } = dialled;
        let replaced = self.view.incarnation != 0 && self.view.incarnation != welcome.incarnation;
        if replaced && self.lease.end() {
            self.lose(DeathProof::Replaced);
        }
        self.lease = Lease::begin(self.args.dialler.lease, self.now());
        self.attempts = Attempts::default();
        self.errand += 1;
        self.link = Some((number, link.handle.clone()));
        self.view.incarnation = welcome.incarnation;
        self.view.pid = Some(welcome.pid);
        self.view.holds = welcome.holds;
        self.view.record.facts = Some(welcome.facts);
        self.looks = Looks::begin(self.now());
        self.saw();
        self.args.line.up(Connected { number, link: link.handle.clone() });
        let pump = pump(number, link.incoming, link.handle, self.me.clone());
        self.work.start(pump);
        let detail = json!({ "incarnation": welcome.incarnation, "pid": welcome.pid, "build": welcome.build });
        self.tell(EventKind::WorkerConnected, Severity::Info, "is connected", detail);
        self.set_status(self.connected_status(), "");
        self.report();
    }

    /// True where this very process was given up, and what it holds is for tasks that have gone elsewhere since.
    fn has_moved_on(&self, welcome: &Welcome) -> bool {
        let same = self.view.incarnation == 0 || self.view.incarnation == welcome.incarnation;
        same && self.lease.is_over()
    }

    /// Has everything ended that a worker runs for tasks it has lost. Until then nothing grants it a new lease: a grant thaws what
    /// its fence froze, and that must not go on beside what runs elsewhere by now, or soon will.
    fn release(&mut self, mut dialled: Dialled, held: Held) {
        self.errand += 1;
        let (errand, records, worker) = (self.errand, self.args.records.clone(), self.view.record.id);
        self.run(async move {
            let link = dialled.link.handle.clone();
            let outcome = match close_lost(&records, worker, &link, std::mem::take(&mut dialled.welcome.holds), held).await {
                Ok(kept) => {
                    dialled.welcome.holds = kept;
                    dialled.looked_through = true;
                    Ok(Box::new(dialled))
                }
                Err(error) => {
                    link.abort();
                    Err(error)
                }
            };
            WorkerMsg::Dialled { errand, outcome }
        });
    }

    /// True of a process of an older build that holds nothing, unless a start has just brought that same build.
    fn may_be_renewed(&self, welcome: &Welcome) -> bool {
        is_older(&welcome.build, env!("CARGO_PKG_VERSION"))
            && welcome.holds.is_empty()
            && self.renewed.as_ref() != Some(&welcome.build)
    }

    /// Ends an idle process of an older build and starts one of the program that belongs to this node. One that is busy stays as it
    /// is until it connects without work: the link speaks with the version before.
    fn renew(&mut self, dialled: Dialled) {
        tracing::info!(
            worker = self.args.line.name(),
            build = dialled.welcome.build,
            "an idle worker of an older build is replaced"
        );
        self.renewed = Some(dialled.welcome.build.clone());
        // What comes is another process on purpose, and no loss.
        self.view.incarnation = 0;
        self.errand += 1;
        let (errand, dialler, target) = (self.errand, self.args.dialler.clone(), self.view.record.target.clone());
        self.run(async move {
            let Link { handle, mut incoming } = dialled.link;
            let outcome = match handle.request(Request::Stop { wipe: false }, RELEASE).await {
                Ok(_) => {
                    let ended = async { while !matches!(incoming.next().await, Event::Closed(_)) {} };
                    let _ = tokio::time::timeout(RELEASE, ended).await;
                    dialler.start(&target).await
                }
                Err(failure) => Err(ConnectError::Unreachable(failure)),
            };
            handle.abort();
            WorkerMsg::Started { errand, outcome }
        });
    }

    pub(super) fn connected_status(&self) -> WorkerStatus {
        if self.view.record.lifecycle == Lifecycle::Open { WorkerStatus::Active } else { WorkerStatus::Maintenance }
    }
}

/// Which workspaces of a worker are for tasks that it has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// All: it was given up, and its tasks with it.
    Lost,
    /// Those that the records say it has not: an earlier life of the node gave the task up, or somebody else did.
    AsRecorded,
}

/// Closes what is for tasks that the worker has lost, and answers what is left.
async fn close_lost(
    records: &Records,
    worker: WorkerId,
    link: &LinkHandle,
    holds: Vec<Holding>,
    held: Held,
) -> Result<Vec<Holding>, ConnectError> {
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for holding in holds {
        let record = match records.read().task(holding.task).await {
            Ok(None) => return Err(ConnectError::Refused(strange(&holding))),
            Err(error @ (RecordError::Unavailable(_) | RecordError::DiskFull(_))) => {
                return Err(ConnectError::Unreachable(error.into()));
            }
            Err(error) if held == Held::AsRecorded => return Err(ConnectError::Unreachable(error.into())),
            found => found.ok().flatten().filter(|_| held == Held::AsRecorded),
        };
        // One that rests under the same epoch, for a pause or a retry, was given to nobody since.
        let rests = |task: &TaskRecord| task.worker.is_none() && task.epoch == holding.epoch;
        let has = |task: TaskRecord| !task.status.is_final() && (task.worker == Some(worker) || rests(&task));
        if record.is_some_and(has) { kept.push(holding) } else { lost.push(holding) }
    }
    let closed = futures::future::join_all(lost.into_iter().map(|holding| {
        let close = Request::Close { task: holding.task, epoch: holding.epoch };
        link.request(close, RELEASE)
    }));
    // One that is held under a greater epoch by now is somebody's.
    match closed.await.into_iter().filter_map(Result::err).find(|failure| failure.code != Code::StaleOwner) {
        None => Ok(kept),
        Some(failure) => Err(ConnectError::Unreachable(failure)),
    }
}

/// Why a worker is left alone that works for others.
fn strange(holding: &Holding) -> Failure {
    Failure::new(Code::InvalidState, format!("it holds task {}, which this node's records do not know", holding.task)).hint(
        "another node's work may be in it: remove the worker there, or stop its process and delete its folder if nobody needs it",
    )
}

/// Compares versions by their numbers. What is no version of ours is not older.
fn is_older(build: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> { text.split('.').map(|number| number.parse().ok()).collect() };
    match (numbers(build), numbers(than)) {
        (Some(build), Some(than)) => build < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn builds_are_compared_by_their_numbers() {
        assert!(is_older("0.9.0", "0.10.0") && is_older("0.1.0", "0.1.1") && is_older("0.9.12", "1.0.0"));
        assert!(!is_older("0.10.0", "0.9.0") && !is_older("0.1.0", "0.1.0") && !is_older("a fork", "0.1.0"));
    }
}
