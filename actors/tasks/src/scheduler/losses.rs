//! Workers that come, go and come back: adoption, reassignment, leftovers.

use std::sync::Arc;

use helix_database::Write;
use helix_messages::{LostWorker, WorkerView};
use helix_protocol::{Lifecycle, TaskId, TaskRecord, WorkerId};

use super::{AGAIN, Scheduler, SchedulerMsg};
use crate::drive::{Handover, close, read_task};
use crate::machine::Happening;
use crate::schedule::{Assignment, Waiting};
use crate::task::TaskMsg;
use crate::telling;

impl Scheduler {
    /// A worker is back: the tasks it held when the node went away are claimed for it, under the next epoch,
    /// and go on where they are.
    pub(super) fn adopt(&mut self, worker: WorkerId) {
        if !self.loaded || self.closed {
            // What is waiting for it by then is adopted once the records are read; a node that parks begins nothing.
            return;
        }
        let back: Vec<TaskId> = self.adopting.iter().filter(|(_, (_, at))| *at == worker).map(|(task, _)| *task).collect();
        for task in back {
            if let Some((waiting, worker)) = self.adopting.remove(&task) {
                self.fleet.take(worker, &waiting);
                self.begin(Assignment { waiting, worker }, Handover::Adopt);
            }
        }
    }

    /// Has workspaces deleted that a worker holds for tasks which are over or elsewhere.
    pub(super) fn sweep(&mut self, worker: WorkerId) {
        let Some(view) = self.fleet.view(worker) else { return };
        let here = |task: &TaskId| self.running.get(task).is_some_and(|running| running.worker == worker);
        let held: Vec<TaskId> = view.holds.iter().map(|held| held.task).filter(|task| !here(task)).collect();
        if held.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            for task in held {
                if let Ok(record) = read_task(&shared, task).await
                    && (record.status.is_final() || record.worker.is_some_and(|at| at != worker))
                {
                    close(&shared, worker, &record);
                }
            }
            SchedulerMsg::Nothing
        });
    }

    pub(super) fn worker_lost(&mut self, lost: &LostWorker) {
        self.fleet.lost(lost.worker);
        self.swept.remove(&lost.worker);
        let here: Vec<TaskId> =
            self.running.iter().filter(|(_, running)| running.worker == lost.worker).map(|(task, _)| *task).collect();
        for task in here {
            if let Some(running) = self.let_go(task) {
                let _ = running.address.tell(TaskMsg::Stop);
                self.move_on(running.waiting, Some(lost.clone()));
                self.keep_pauses(task, running.pauses);
            }
        }
        let adopted: Vec<TaskId> = self.adopting.iter().filter(|(_, (_, at))| *at == lost.worker).map(|(task, _)| *task).collect();
        for task in adopted {
            if let Some((waiting, _)) = self.adopting.remove(&task) {
                self.move_on(waiting, Some(lost.clone()));
            }
        }
        self.schedule();
        self.record_waiting(lost);
    }

    /// The task goes elsewhere, before everybody who waits for a first worker.
    pub(super) fn move_on(&mut self, waiting: Waiting, lost: Option<LostWorker>) {
        let task = waiting.task;
        self.records.remove(&task);
        if let Some(lost) = lost {
            self.losses.insert(task, lost);
        }
        self.queue.push(Waiting { lost: true, last: None, not_before: None, ..waiting });
    }

    /// Those who found no other worker at once are recorded as waiting for one. Their loss stays known: a claim
    /// that is faster tells of it.
    pub(super) fn record_waiting(&mut self, lost: &LostWorker) {
        let stranded: Vec<TaskId> = self
            .losses
            .iter()
            .filter(|(task, loss)| loss.worker == lost.worker && self.queue.get(**task).is_some())
            .map(|(task, _)| *task)
            .collect();
        for task in stranded {
            let (shared, lost) = (Arc::clone(&self.shared), lost.clone());
            self.work.start(async move {
                match read_task(&shared, task).await {
                    Ok(record) => SchedulerMsg::Stranded { record: Box::new(record), lost },
                    Err(_) => SchedulerMsg::Nothing,
                }
            });
        }
    }

    /// Records that a task waits for a worker, if it still does. A claim that overtakes this has raised the epoch, and one that
    /// comes after it meets the raised epoch and reads again.
    pub(super) fn stranded(&mut self, record: &TaskRecord, lost: &LostWorker) {
        if self.queue.get(record.id).is_none() || !record.status.is_active() {
            return;
        }
        let reason = format!("{} is lost and no other worker is free", lost.name);
        let change = Happening::LoseWorker.change(record.id, Some(record.epoch), reason);
        let write = Write::Status { change: Box::new(change), events: vec![telling::reassigned(record.id, lost)] };
        let (shared, task) = (Arc::clone(&self.shared), record.id);
        self.work.start(async move {
            if let Err(failure) = shared.write(write).await {
                // Claimed, cancelled or paused in between: then there is nothing to record.
                tracing::debug!(%task, "not recorded as waiting: {failure}");
            }
            SchedulerMsg::Nothing
        });
    }

    pub(super) fn lifecycle(&mut self, worker: WorkerId, lifecycle: Lifecycle) {
        for running in self.running.values_mut().filter(|running| running.worker == worker) {
            running.heed(lifecycle);
        }
    }

    /// A while ago a task's worker was gone from under it, and the fleet has said nothing of it yet.
    pub(super) fn unexplained(&mut self, task: TaskId) {
        let Some((_, worker)) = self.adopting.get(&task) else { return };
        match self.fleet.view(*worker) {
            Some(view) if view.ready => self.adopt(*worker),
            // Its lease runs: it comes back, or is lost.
            Some(view) if !view.lost => {}
            None if !self.lease_passed => {}
            _ => {
                if let Some((waiting, _)) = self.adopting.remove(&task) {
                    self.move_on(waiting, None);
                }
            }
        }
    }

    /// One lease has passed since the start: what was lost before that never comes back, and of it the fleet has no word.
    pub(super) fn lease_over(&mut self) {
        self.lease_passed = true;
        self.give_up(|view| view.is_none_or(|view| view.lost));
    }

    /// Workers that the fleet knows no more are waited for in vain. Of those that it has just given up its word, with the
    /// proof, comes a moment later.
    pub(super) fn give_up_unknown(&mut self) {
        self.give_up(|view| view.is_none());
        let lost = |at: &WorkerId| self.fleet.view(*at).is_some_and(|view| view.lost);
        let unexplained: Vec<TaskId> = self.adopting.iter().filter(|(_, (_, at))| lost(at)).map(|(task, _)| *task).collect();
        unexplained.into_iter().for_each(|task| self.explain_later(task));
    }

    /// Looks a moment later whether the fleet has said what became of a task's worker.
    pub(super) fn explain_later(&mut self, task: TaskId) {
        self.work.start(async move {
            tokio::time::sleep(AGAIN).await;
            SchedulerMsg::Unexplained(task)
        });
    }

    /// Moves on what waits for a worker in vain. Only what the fleet has given up, or does not know: any other may be granted its
    /// lease at this very moment, which thaws what it holds, and the fleet's word on it, that it is back or lost, is on its way.
    fn give_up(&mut self, in_vain: impl Fn(Option<&WorkerView>) -> bool) {
        let in_vain = |at: WorkerId| in_vain(self.fleet.view(at));
        let vain: Vec<TaskId> = self.adopting.iter().filter(|(_, (_, at))| in_vain(*at)).map(|(task, _)| *task).collect();
        for task in vain {
            let Some((waiting, worker)) = self.adopting.remove(&task) else { continue };
            tracing::info!(%task, %worker, "the worker did not come back within one lease");
            let name = self.fleet.view(worker).map_or_else(|| worker.short(), |view| view.record.name.clone());
            let silent_ms = self.shared.args.lease.reassign_ms;
            let proof = helix_ports::DeathProof::LeaseExpired { silent_ms };
            self.move_on(waiting, Some(LostWorker { worker, name, incarnation: 0, proof, silent_ms }));
        }
    }
}
