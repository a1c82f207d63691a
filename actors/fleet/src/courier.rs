//! Carries news to the tasks branch, in order and without loss: where it does not take a message at present, the
//! courier waits and tries again, while the newest picture of the fleet replaces older ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use helix_messages::{LostWorker, Tasks, TasksMsg};
use helix_protocol::{Lifecycle, WorkerId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::directory::Directory;

/// How long a refused message waits.
const AGAIN: Duration = Duration::from_millis(20);

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The fleet as it is when this is told.
    Changed,
    /// A worker is gone.
    Lost(Box<LostWorker>),
    /// The operator wants something of a worker.
    Lifecycle(WorkerId, Lifecycle),
}

/// The courier. It ends with its actor.
pub(crate) struct Courier {
    bag: Arc<Bag>,
    task: AbortHandle,
}

#[derive(Default)]
struct Bag {
    news: Mutex<VecDeque<News>>,
    more: Notify,
}

impl Courier {
    /// Starts carrying.
    pub(crate) fn start(directory: Arc<Directory>, tasks: Tasks) -> Self {
        let bag = Arc::new(Bag::default());
        let task = tokio::spawn(carry(Arc::clone(&bag), directory, tasks)).abort_handle();
        Self { bag, task }
    }

    /// Takes news along.
    pub(crate) fn post(&self, news: News) {
        let mut waiting = self.bag.news.lock();
        if news != News::Changed || waiting.back() != Some(&News::Changed) {
            waiting.push_back(news);
        }
        drop(waiting);
        self.bag.more.notify_one();
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(bag: Arc<Bag>, directory: Arc<Directory>, tasks: Tasks) {
    loop {
        let next = bag.news.lock().pop_front();
        let Some(news) = next else {
            bag.more.notified().await;
            continue;
        };
        let message = match &news {
            News::Changed => TasksMsg::FleetChanged { workers: directory.views() },
            News::Lost(lost) => TasksMsg::WorkerLost { lost: (**lost).clone() },
            News::Lifecycle(worker, lifecycle) => TasksMsg::WorkerLifecycle { worker: *worker, lifecycle: *lifecycle },
        };
        if tasks.address().tell(message).is_err() {
            bag.news.lock().push_front(news);
            tokio::time::sleep(AGAIN).await;
        }
    }
}
