//! What the records say is there to be done: read whole at the start, and looked through now and then.

use std::sync::Arc;
use std::time::Duration;

use helix_database::TaskFilter;
use helix_messages::WorkerView;
use helix_protocol::{Failure, TaskRecord, TaskStatus};

use super::{Scheduler, SchedulerMsg};
use crate::shared::Shared;

/// Between two looks. Nothing but the writes of a node that died waits for it.
const LIST_AGAIN: Duration = Duration::from_secs(60);

/// Reads the tasks of these states.
async fn tasks_that_are(shared: &Shared, status: Vec<TaskStatus>) -> Result<Vec<TaskRecord>, Failure> {
    let filter = TaskFilter { status, limit: None };
    let read = shared.read(|records| {
        let filter = filter.clone();
        async move { records.read().tasks(filter).await }
    });
    read.await
}

pub(super) async fn load(shared: Arc<Shared>) -> SchedulerMsg {
    use TaskStatus::{Assigned, Pending, Running, WaitingForDependencies, WaitingForInput, WaitingForWorker};
    let status = vec![Pending, WaitingForDependencies, WaitingForInput, WaitingForWorker, Assigned, Running];
    let tasks = match tasks_that_are(&shared, status).await {
        Ok(tasks) => tasks,
        Err(failure) => return SchedulerMsg::Loaded(Err(failure)),
    };
    // A fleet that is not there yet reports by itself once it is.
    let views = shared.args.fleet.list().await.unwrap_or_default();
    SchedulerMsg::Loaded(Ok((tasks, views)))
}

impl Scheduler {
    pub(super) fn loaded(&mut self, tasks: Vec<TaskRecord>, views: Vec<WorkerView>) {
        for task in tasks {
            if self.running.contains_key(&task.id) || self.queue.get(task.id).is_some() {
                // Told of before the records were read.
                continue;
            }
            match (task.status.is_active(), task.worker) {
                (true, Some(worker)) if self.shared.may_drive(&task) => {
                    self.adopting.insert(task.id, (self.waiting(&task), worker));
                }
                (true, None) => self.move_on(self.waiting(&task), None),
                (true, Some(_)) => tracing::info!(task = %task.id, "another node drives the task"),
                (false, _) => self.changed(Box::new(task)),
            }
        }
        self.loaded = true;
        self.list_later();
        if !views.is_empty() {
            self.fleet_changed(views);
        }
    }

    /// Reads after a while what waits by the records.
    ///
    /// Who makes a task tells this scheduler of it, but a node that died may have had one on its way to the records, where it
    /// arrives after its successor has read them. Nobody was told that it was made, and it must not wait forever.
    fn list_later(&mut self) {
        use TaskStatus::{Pending, WaitingForDependencies, WaitingForWorker};
        let shared = Arc::clone(&self.shared);
        self.work.start(async move {
            tokio::time::sleep(LIST_AGAIN).await;
            SchedulerMsg::Listed(tasks_that_are(&shared, vec![Pending, WaitingForDependencies, WaitingForWorker]).await)
        });
    }

    pub(super) fn listed(&mut self, listed: Result<Vec<TaskRecord>, Failure>) {
        match listed {
            Ok(tasks) => {
                for task in tasks {
                    let driven = self.running.contains_key(&task.id) || self.adopting.contains_key(&task.id);
                    if driven || self.queue.get(task.id).is_some() {
                        continue;
                    }
                    match task.status {
                        TaskStatus::WaitingForDependencies => self.depend(&task),
                        // It may have been done since it was read.
                        _ => self.look_again(task.id, Duration::ZERO),
                    }
                }
            }
            Err(failure) => tracing::warn!("the tasks that wait could not be read: {failure}"),
        }
        self.list_later();
    }
}
