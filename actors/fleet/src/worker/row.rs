//! The worker's row in the records, and what the fleet is told: one write at a time, reports in order.

use std::time::Duration;

use helix_database::Write;
use helix_kernel::Reply;
use helix_messages::{FleetMsg, LostWorker, WorkerView};
use helix_protocol::{EventKind, Failure, NewEvent, Severity, WorkerHealth, WorkerStatus};

use super::{WorkerMsg, WorkerState};

/// How many events are kept for a database that is away.
const EVENTS: usize = 64;
/// A row that could not be written is written again after this time.
const REWRITE: Duration = Duration::from_secs(2);

/// What is reported to the fleet.
pub(super) enum Report {
    Changed(Box<WorkerView>),
    Lost(Box<LostWorker>),
}

/// The row on its way to the database: one write at a time, the newest row with every event since.
#[derive(Default)]
pub(super) struct Row {
    pub changed: bool,
    pub writing: bool,
    pub events: Vec<NewEvent>,
    /// How many of the events are in the write under way.
    pub sent: usize,
    pub asked: Vec<Reply<WorkerView>>,
    pub covered: Vec<Reply<WorkerView>>,
}

impl WorkerState {
    pub(super) fn tell(&mut self, kind: EventKind, severity: Severity, words: &str, detail: serde_json::Value) {
        if self.row.events.len() < EVENTS {
            let message = format!("worker {} {words}", self.args.line.name());
            let event = NewEvent::info(kind, "fleet", message).severity(severity).worker(self.args.line.worker()).detail(detail);
            self.row.events.push(event);
        }
        self.row.changed = true;
    }

    pub(super) fn set_health(&mut self, health: WorkerHealth) {
        if self.view.record.health != health {
            self.view.record.health = health;
            self.row.changed = true;
            self.report();
        }
        self.write_row();
    }

    pub(super) fn set_status(&mut self, status: WorkerStatus, reason: &str) {
        let record = &mut self.view.record;
        if record.status != status || record.reason != reason {
            record.status = status;
            reason.clone_into(&mut record.reason);
            self.row.changed = true;
            self.args.line.show(self.view.clone());
        }
        self.write_row();
    }

    pub(super) fn write_row(&mut self) {
        let nothing_new = !self.row.changed && self.row.asked.is_empty();
        if self.row.writing || nothing_new {
            return;
        }
        self.row.writing = true;
        self.row.changed = false;
        self.row.covered = std::mem::take(&mut self.row.asked);
        let events = self.row.events.clone();
        self.row.sent = events.len();
        let write = Write::Worker { worker: Box::new(self.view.record.clone()), events };
        let records = self.args.records.clone();
        self.work.start(async move { WorkerMsg::Recorded { outcome: records.write(write).await.map(drop) } });
    }

    pub(super) fn recorded(&mut self, outcome: Result<(), Failure>) {
        self.row.writing = false;
        let covered = std::mem::take(&mut self.row.covered);
        match outcome {
            Ok(()) => {
                self.row.events.drain(..self.row.sent);
                self.view.record.version += 1;
                self.args.line.show(self.view.clone());
                if !covered.is_empty() {
                    self.report();
                }
                for reply in covered {
                    // An error means that the asker has gone.
                    let _ = reply.send(Ok(self.view.clone()));
                }
                self.write_row();
            }
            Err(failure) => {
                tracing::warn!(worker = self.args.line.name(), %failure, "the worker's row could not be written; it is tried again");
                self.row.changed = true;
                for reply in covered {
                    let _ = reply.send(Err(failure.clone()));
                }
                self.row.writing = true;
                self.work.start(async {
                    tokio::time::sleep(REWRITE).await;
                    WorkerMsg::Rewrite
                });
            }
        }
    }

    pub(super) fn rewrite(&mut self) {
        self.row.writing = false;
        self.write_row();
    }

    pub(super) fn report(&mut self) {
        self.view.ready = self.link.is_some() && !self.lease.is_suspect() && !self.retired;
        self.args.line.show(self.view.clone());
        self.untold.retain(|report| matches!(report, Report::Lost(_)));
        self.untold.push_back(Report::Changed(Box::new(self.view.clone())));
        self.retell();
    }

    /// Tells the fleet, in order. What it does not take now (it is being restarted) it is told at the next look.
    pub(super) fn retell(&mut self) {
        while let Some(report) = self.untold.front() {
            let message = match report {
                Report::Changed(view) => FleetMsg::ConnectionChanged { view: view.clone() },
                Report::Lost(lost) => FleetMsg::ConnectionLost { lost: lost.clone() },
            };
            if self.args.fleet.tell(message).is_err() {
                break;
            }
            self.untold.pop_front();
        }
    }
}
