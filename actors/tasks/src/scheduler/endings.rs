//! Tasks that stop being driven: they ended, wait again, lost their worker, or brought their actor down.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Reply;
use helix_messages::ResumeTask;
use helix_protocol::{Code, Failure, Principal, TaskId, TaskRecord, TaskStatus};

use super::{AGAIN, Running, Scheduler, SchedulerMsg};
use crate::drive::End;
use crate::machine::Happening;
use crate::requests;
use crate::schedule::Waiting;

impl Scheduler {
    pub(super) fn let_go(&mut self, task: TaskId) -> Option<Running> {
        let running = self.running.remove(&task)?;
        self.fleet.give_back(running.worker, &running.waiting.needs);
        Some(running)
    }

    fn is(&self, task: TaskId, serial: u64) -> bool {
        self.running.get(&task).is_some_and(|running| running.serial == serial)
    }

    pub(super) fn ended(&mut self, task: TaskId, serial: u64, end: End) {
        if !self.is(task, serial) {
            return;
        }
        let Some(running) = self.let_go(task) else { return };
        let worker = running.worker;
        if running.changed {
            self.look_again(task, Duration::ZERO);
        }
        match end {
            End::Final(record) => {
                answer_pauses(running.pauses, &record);
                if let Some(parent) = record.spec.parent {
                    self.look_after(parent);
                }
                self.settled(task);
            }
            End::Parked(record) if record.status == TaskStatus::WaitingForInput => {
                self.park_waiting(record, running.pauses);
                self.waits_for_input(task);
            }
            End::Parked(record) => {
                answer_pauses(running.pauses, &record);
                if let (TaskStatus::Paused, Some(principal)) = (record.status, running.resumed) {
                    self.resume(task, principal);
                }
            }
            End::Waiting(record) => {
                let last = Some(worker);
                self.queue.push(Waiting { last, ..self.waiting(&record) });
                self.records.insert(task, record);
                self.keep_pauses(task, running.pauses);
            }
            End::WorkerGone => {
                // The fleet's word, with the proof, comes on its own way and a moment later; a worker that is back by
                // then gets the task again.
                let waiting = Waiting { last: Some(worker), ..running.waiting };
                self.adopting.insert(task, (waiting, worker));
                self.explain_later(task);
                self.keep_pauses(task, running.pauses);
            }
            End::Stale => {
                self.look_again(task, Duration::ZERO);
                self.keep_pauses(task, running.pauses);
            }
            End::Held => {}
            End::Broken(failure) => {
                tracing::error!(%task, "driving the task failed: {failure}");
                self.broken(running, failure.message);
            }
        }
        self.parked();
    }

    /// An actor that ended in order although nobody here stopped it, or was not started any more, went with the tree: no fault of
    /// the task, which stays as it is recorded, for the next node to adopt. Should this scheduler go on after all, it looks again.
    pub(super) fn gone(&mut self, task: TaskId, serial: u64, failure: Option<Failure>) {
        if !self.is(task, serial) {
            return;
        }
        let Some(running) = self.let_go(task) else { return };
        match failure.filter(|failure| failure.code != Code::ShuttingDown) {
            Some(failure) => {
                tracing::error!(%task, "the task's actor failed: {failure}");
                self.broken(running, failure.message);
            }
            None => self.look_again(task, AGAIN),
        }
        self.parked();
    }

    /// A task that was to be parked came to a question first, which parks it as well; but one that is answered by itself would let it
    /// go on.
    fn park_waiting(&mut self, task: Box<TaskRecord>, pauses: Vec<(Principal, Reply<TaskRecord>)>) {
        if pauses.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            let open = requests::open_question(&shared, task.id).await;
            for (principal, reply) in pauses {
                let answer = match &open {
                    Ok(Some(open)) if open.subject.is_answered_by_itself() => requests::pause(&shared, task.id, &principal).await,
                    Ok(_) => Ok((*task).clone()),
                    Err(failure) => Err(failure.clone()),
                };
                let _ = reply.send(answer);
            }
            SchedulerMsg::Nothing
        });
    }

    /// Continues a task that parked although its pause had been taken back.
    fn resume(&mut self, task: TaskId, principal: Principal) {
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            match requests::resume(&shared, task, ResumeTask::default(), &principal).await {
                Ok(task) => SchedulerMsg::Changed(Box::new(task)),
                Err(failure) => {
                    // Somebody else did more with it in the meantime.
                    tracing::debug!(%task, "not resumed: {failure}");
                    SchedulerMsg::LookAgain(task)
                }
            }
        });
    }

    /// A task's actor failed: a retry is used, so that a task which brings its actor down does not do so for ever. Of a node
    /// that stops it is let go as it is: the tree may have taken something away from under it, and the next node sees
    /// whether it fails by itself.
    fn broken(&mut self, running: Running, reason: String) {
        let task = running.waiting.task;
        if self.closed {
            return;
        }
        self.keep_pauses(task, running.pauses);
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            match requests::broken(&shared, task, &reason).await {
                Ok(task) => SchedulerMsg::Changed(Box::new(task)),
                Err(failure) => {
                    tracing::warn!(%task, "the failure could not be recorded: {failure}");
                    SchedulerMsg::LookAgain(task)
                }
            }
        });
    }
}

pub(super) fn answer_pauses(pauses: Vec<(Principal, Reply<TaskRecord>)>, task: &TaskRecord) {
    for (_, reply) in pauses {
        let answer = match task.status {
            TaskStatus::Paused | TaskStatus::WaitingForInput => Ok(task.clone()),
            status => Happening::Pause.check(task.id, status).map(|_| task.clone()),
        };
        let _ = reply.send(answer);
    }
}
