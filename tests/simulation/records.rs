//! The records as one node reaches them: the shared store in memory, behind a connection that has faults,
//! and under the judge's eyes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use helix_database::{
    Applied, Descendant, EventFilter, LedgerFilter, MemoryStore, NodeLease, RecordError, RecordStore, TaskFilter, Write,
};
use helix_protocol::{
    AttemptId, Checkpoint, Event, GatewayKey, JournalEntry, ModelCall, Money, NodeId, ObjectId, Payer, Question, QuestionId,
    RecordsId, Remark, Spent, StepId, StepRecord, StepSummary, TaskId, TaskRecord, Timestamp, WorkerRecord,
};
use parking_lot::Mutex;

use crate::oracle::Oracle;

/// What becomes of a node's questions to the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    #[default]
    Stands,
    /// Nothing arrives.
    Away,
    /// Everything happens, and every other answer is lost.
    Deaf,
    /// Everything takes so long.
    Slow(Duration),
}

/// One node's way to the records.
pub struct Reached {
    pub store: Arc<MemoryStore>,
    pub host: String,
    pub oracle: Arc<Oracle>,
    pub connection: Mutex<Connection>,
    deaf: Mutex<u64>,
    /// Writes whose node died while they were on their way, and when they arrive.
    strays: Mutex<Vec<(Duration, Vec<Write>)>>,
}

/// Writes on their way. If nobody waits for them any more, they arrive all the same.
struct OnTheirWay<'a> {
    to: &'a Reached,
    group: Option<Vec<Write>>,
}

impl Drop for OnTheirWay<'_> {
    fn drop(&mut self) {
        if let (Some(group), Some(now)) = (self.group.take(), turmoil::sim_elapsed()) {
            self.to.strays.lock().push((now + STRAYING, group));
        }
    }
}

/// How long a write is on its way whose node has died.
const STRAYING: Duration = Duration::from_secs(14);

impl Reached {
    pub fn new(store: Arc<MemoryStore>, host: &str, oracle: Arc<Oracle>) -> Self {
        Self {
            store,
            host: host.to_owned(),
            oracle,
            connection: Mutex::default(),
            deaf: Mutex::default(),
            strays: Mutex::default(),
        }
    }

    /// Lets those strays arrive whose time has come. Nobody hears the answer.
    pub fn let_strays_arrive(&self, now: Duration) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut *self.strays.lock()).into_iter().partition(|(at, _)| *at <= now);
        *self.strays.lock() = later;
        for (_, group) in due {
            let answers = self.store.apply(group.clone()).now_or_never().expect("nobody else has the tables between two ticks");
            self.note(&group, &answers.expect("memory answers"));
        }
    }

    fn note(&self, group: &[Write], answers: &[Result<Applied, RecordError>]) {
        for (write, answer) in group.iter().zip(answers) {
            if let Ok(applied) = answer {
                self.oracle.applied(&self.host, write, applied);
            }
        }
    }

    /// On the way there.
    async fn go(&self) -> Result<(), RecordError> {
        let connection = *self.connection.lock();
        let pause = match connection {
            Connection::Slow(pause) => pause,
            Connection::Away => Duration::from_millis(200),
            _ => Duration::from_millis(1),
        };
        tokio::time::sleep(pause).await;
        if *self.connection.lock() == Connection::Away { Err(away()) } else { Ok(()) }
    }

    /// On the way back.
    async fn come(&self) -> Result<(), RecordError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match *self.connection.lock() {
            Connection::Away => Err(away()),
            Connection::Deaf => {
                let mut count = self.deaf.lock();
                *count += 1;
                if count.is_multiple_of(2) { Err(away()) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, RecordError>>) -> Result<T, RecordError> {
        self.go().await?;
        let answer = question.await;
        self.come().await?;
        answer
    }
}

fn away() -> RecordError {
    RecordError::Unavailable("the connection to the records is cut".to_owned())
}

#[async_trait]
impl RecordStore for Reached {
    async fn apply(&self, group: Vec<Write>) -> Result<Vec<Result<Applied, RecordError>>, RecordError> {
        let mut way = OnTheirWay { to: self, group: Some(group) };
        let arrived = self.go().await;
        let group = way.group.take().expect("it was put there");
        arrived?;
        let answers = self.store.apply(group.clone()).await?;
        self.note(&group, &answers);
        for applied in answers.iter().flatten() {
            self.oracle.recorded(&self.host, applied);
        }
        self.come().await?;
        for applied in answers.iter().flatten() {
            self.oracle.answered(applied);
        }
        Ok(answers)
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, RecordError> {
        self.ask(self.store.task(id)).await
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskRecord>, RecordError> {
        self.ask(self.store.tasks(filter)).await
    }

    async fn tasks_like(&self, digits: &str) -> Result<Vec<TaskId>, RecordError> {
        self.ask(self.store.tasks_like(digits)).await
    }

    async fn dependents(&self, task: TaskId) -> Result<Vec<TaskRecord>, RecordError> {
        self.ask(self.store.dependents(task)).await
    }

    async fn descendants(&self, task: TaskId) -> Result<Vec<Descendant>, RecordError> {
        self.ask(self.store.descendants(task)).await
    }

    async fn step(&self, id: StepId) -> Result<Option<StepRecord>, RecordError> {
        self.ask(self.store.step(id)).await
    }

    async fn lineage(&self, head: StepId) -> Result<Vec<StepSummary>, RecordError> {
        self.ask(self.store.lineage(head)).await
    }

    async fn conversation(&self, head: StepId) -> Result<Vec<StepRecord>, RecordError> {
        self.ask(self.store.conversation(head)).await
    }

    async fn steps(&self, task: TaskId) -> Result<Vec<StepSummary>, RecordError> {
        self.ask(self.store.steps(task)).await
    }

    async fn journal(&self, attempt: AttemptId, above_ordinal: u64) -> Result<Vec<JournalEntry>, RecordError> {
        self.ask(self.store.journal(attempt, above_ordinal)).await
    }

    async fn checkpoints(&self, task: TaskId) -> Result<Vec<Checkpoint>, RecordError> {
        self.ask(self.store.checkpoints(task)).await
    }

    async fn question(&self, id: QuestionId) -> Result<Option<Question>, RecordError> {
        self.ask(self.store.question(id)).await
    }

    async fn questions(&self, task: TaskId) -> Result<Vec<Question>, RecordError> {
        self.ask(self.store.questions(task)).await
    }

    async fn remarks(&self, task: TaskId) -> Result<Vec<Remark>, RecordError> {
        self.ask(self.store.remarks(task)).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, RecordError> {
        self.ask(self.store.workers()).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, RecordError> {
        self.ask(self.store.events(filter)).await
    }

    async fn newest_event(&self) -> Result<u64, RecordError> {
        self.ask(self.store.newest_event()).await
    }

    async fn spent_since(&self, payer: Payer, since: Timestamp) -> Result<(Money, u64), RecordError> {
        self.ask(self.store.spent_since(payer, since)).await
    }

    async fn gateway_keys(&self) -> Result<Vec<GatewayKey>, RecordError> {
        self.ask(self.store.gateway_keys()).await
    }

    async fn ledger(&self, filter: LedgerFilter) -> Result<Vec<ModelCall>, RecordError> {
        self.ask(self.store.ledger(filter)).await
    }

    async fn ledger_spent(&self, filter: LedgerFilter) -> Result<Spent, RecordError> {
        self.ask(self.store.ledger_spent(filter)).await
    }

    async fn acknowledged_store_sequence(&self) -> Result<u64, RecordError> {
        self.ask(self.store.acknowledged_store_sequence()).await
    }

    async fn id(&self) -> Result<Option<RecordsId>, RecordError> {
        self.ask(self.store.id()).await
    }

    async fn identify(&self, id: RecordsId) -> Result<RecordsId, RecordError> {
        self.ask(self.store.identify(id)).await
    }

    async fn named_content(&self) -> Result<HashSet<ObjectId>, RecordError> {
        self.ask(self.store.named_content()).await
    }

    async fn renew_node(&self, node: NodeId, ttl_ms: u64) -> Result<Option<NodeLease>, RecordError> {
        self.ask(self.store.renew_node(node, ttl_ms)).await
    }

    async fn now(&self) -> Result<Timestamp, RecordError> {
        self.ask(self.store.now()).await
    }

    async fn close(&self) -> Result<(), RecordError> {
        Ok(())
    }
}
