//! What every part of the branch works with.

use std::sync::Arc;
use std::time::Duration;

use helix_config::{GatewayConfig, LeaseConfig, TasksConfig, WorkspaceConfig};
use helix_database::{Applied, Write};
use helix_kernel::{Address, Clock};
use helix_messages::{Events, Fleet, Models, Payers, Records, SetAside, Spending, Takeover, TasksMsg, Versions};
use helix_objects::{Durability, Mark, ObjectStore};
use helix_ports::TaskKind;
use helix_protocol::{Base, Code, Failure, Money, Most, NodeId, ObjectId, SnapshotId, TaskRecord, Timestamp};
use helix_versions::{Signature, Snapshot};
use tokio::sync::OnceCell;

use crate::calls::Calls;
use crate::retry::Backoff;

/// What the branch is started with.
#[derive(Clone)]
pub struct TasksArgs {
    /// This node.
    pub node: NodeId,
    /// Where requests arrive; bound by the branch.
    pub address: Address<TasksMsg>,
    /// The records.
    pub records: Records,
    /// The content.
    pub objects: Arc<dyn ObjectStore>,
    /// What compares trees.
    pub versions: Versions,
    /// The workers.
    pub fleet: Fleet,
    /// The models.
    pub models: Models,
    /// Where live events are shown.
    pub events: Events,
    /// Kinds of tasks beside the built-in `command`.
    pub kinds: Vec<Arc<dyn TaskKind>>,
    /// How tasks run.
    pub tasks: TasksConfig,
    /// What workspaces carry.
    pub workspace: WorkspaceConfig,
    /// Where the gateway is, for agents that reach models through it.
    pub gateway: GatewayConfig,
    /// What owners and projects may spend in a day.
    pub spending: Spending,
    /// Lease times: for one lease after its start, the node reassigns nothing for silence.
    pub lease: LeaseConfig,
    /// What becomes of tasks that another node left behind.
    pub takeover: Takeover,
    /// The time.
    pub clock: Clock,
}

/// The arguments, with what is made of them once.
pub(crate) struct Shared {
    pub args: TasksArgs,
    pub backoff: Backoff,
    /// Model calls under way: they outlive their owner.
    pub calls: Calls,
    empty: OnceCell<Files>,
}

/// Files as a step names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub tree: ObjectId,
    pub snapshot: SnapshotId,
    /// The store's sequence that covers them.
    pub sequence: u64,
}

/// The pause between two attempts at something that is away for the moment.
const AWAY_FIRST: Duration = Duration::from_millis(20);
const AWAY_MOST: Duration = Duration::from_secs(2);

/// True of failures that say nothing about the request: whoever should do it is away, or has too much to do.
pub(crate) fn is_away(code: Code) -> bool {
    matches!(code, Code::DatabaseUnavailable | Code::TimedOut | Code::Overloaded | Code::ShuttingDown | Code::DiskFull)
}

/// Pauses that grow.
pub(crate) struct Pauses {
    backoff: Backoff,
    count: u32,
}

impl Pauses {
    pub fn new() -> Self {
        Self { backoff: Backoff { first: AWAY_FIRST, most: AWAY_MOST }, count: 0 }
    }

    pub async fn pause(&mut self) {
        let delay = self.backoff.delay(self.count, 0.5 + rand::random::<f64>() / 2.0);
        self.count = self.count.saturating_add(1);
        tokio::time::sleep(delay).await;
    }
}

impl Shared {
    pub fn new(args: TasksArgs) -> Self {
        let first = Duration::from_millis(args.tasks.retry_backoff_ms);
        let most = Duration::from_millis(args.tasks.retry_backoff_most_ms);
        Self { args, backoff: Backoff { first, most }, calls: Calls::default(), empty: OnceCell::new() }
    }

    /// True of a task that this node may go on with: its own, nobody's, or that of a node whose lease has passed to this one.
    pub fn may_drive(&self, task: &TaskRecord) -> bool {
        let ours = task.node.is_none_or(|node| node == self.args.node);
        ours || self.args.takeover == Takeover::AfterLease
    }

    pub fn now(&self) -> Timestamp {
        self.args.clock.wall()
    }

    pub fn kind(&self, name: &str) -> Option<Arc<dyn TaskKind>> {
        self.args.kinds.iter().find(|kind| kind.name() == name).cloned()
    }

    /// Writes, and goes on trying while the records are away: every write may be repeated.
    pub async fn write(&self, write: Write) -> Result<Applied, Failure> {
        let mut pauses = Pauses::new();
        loop {
            match self.args.records.write(write.clone()).await {
                Err(failure) if is_away(failure.code) => {
                    tracing::debug!(code = %failure.code, "the records are away: {failure}");
                    pauses.pause().await;
                }
                answer => return answer,
            }
        }
    }

    /// Reads, and goes on trying while the records are away.
    pub async fn read<T, F>(&self, read: impl Fn(Records) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, helix_database::RecordError>>,
    {
        let mut pauses = Pauses::new();
        loop {
            match read(self.args.records.clone()).await.map_err(Failure::from) {
                Err(failure) if is_away(failure.code) => pauses.pause().await,
                answer => return answer,
            }
        }
    }

    /// Lets a call of a task in where the day's limits of its owner and its project allow it; waits while the records are away.
    pub async fn admit(&self, task: &TaskRecord, most: Most) -> Result<SetAside, Failure> {
        let (payers, mut pauses) = (Payers { owner: task.owner, project: task.project }, Pauses::new());
        loop {
            match self.args.spending.admit_for(task.id, payers, most).await {
                Err(failure) if is_away(failure.code) => pauses.pause().await,
                answer => return answer,
            }
        }
    }

    /// Refuses where nothing is left of the day of a task's owner or project.
    pub async fn has_some_left(&self, task: &TaskRecord) -> Result<(), Failure> {
        self.admit(task, Most { money: Some(Money(1)), tokens: 1 }).await.map(SetAside::free)
    }

    /// Works on the content store, off the runtime's threads where it may wait for a disk.
    pub async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn ObjectStore) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.args.objects.never_blocks() {
            return work(&*self.args.objects);
        }
        let store = Arc::clone(&self.args.objects);
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        done.unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("work on the content store ended early: {error}"))))
    }

    /// Writes to the content store, and goes on trying while its disk is full: content may be written twice.
    pub async fn put<T: Send + 'static>(
        &self,
        write: impl Fn(&dyn ObjectStore) -> Result<T, Failure> + Clone + Send + 'static,
    ) -> Result<T, Failure> {
        let mut pauses = Pauses::new();
        loop {
            match self.on_store(write.clone()).await {
                Err(failure) if failure.code == Code::DiskFull => {
                    tracing::warn!("waiting for space: {failure}");
                    pauses.pause().await;
                }
                answer => return answer,
            }
        }
    }

    /// The files a task begins with.
    pub async fn base(&self, task: &TaskRecord) -> Result<Files, Failure> {
        match &task.spec.base {
            Base::Empty => self.empty.get_or_try_init(|| self.write_empty()).await.copied(),
            Base::Snapshot { snapshot, .. } => self.files_of(*snapshot).await,
            Base::Task { task: base } => self.last_files_of(*base).await,
        }
    }

    /// The files of a snapshot that was taken in, which synced it.
    pub async fn files_of(&self, snapshot: SnapshotId) -> Result<Files, Failure> {
        let tree = self.on_store(move |store| Ok(Snapshot::load(store, snapshot)?.tree)).await?;
        Ok(Files { tree, snapshot, sequence: 0 })
    }

    async fn last_files_of(&self, task: helix_protocol::TaskId) -> Result<Files, Failure> {
        let lacks = || {
            Failure::new(Code::InvalidState, format!("task {} has no step whose files could be taken over", task.short()))
                .hint("`helix task steps` shows what it has")
        };
        let record = self.read(|records| async move { records.read().task(task).await }).await?.ok_or_else(lacks)?;
        let head = record.head.ok_or_else(lacks)?;
        let step = self.read(|records| async move { records.read().step(head).await }).await?.ok_or_else(lacks)?.step;
        Ok(Files { tree: step.tree, snapshot: step.snapshot, sequence: step.store_sequence })
    }

    async fn write_empty(&self) -> Result<Files, Failure> {
        self.put(|store| {
            // A collection keeps the two whether anything names them or not.
            let (tree, snapshot) = (helix_versions::empty_tree(), helix_versions::empty_snapshot());
            let files = (tree.id(), SnapshotId(snapshot.id()));
            let Mark(sequence) = store.put(&[tree, snapshot], Durability::Group)?;
            Ok(Files { tree: files.0, snapshot: files.1, sequence })
        })
        .await
    }
}

/// The snapshot object of a step.
pub(crate) fn snapshot(
    tree: ObjectId,
    parent: Option<SnapshotId>,
    time: Timestamp,
    message: &str,
    metadata: &[(&str, String)],
) -> Snapshot {
    let signature = Signature { name: "helix".to_owned(), email: "helix@localhost".to_owned(), time, offset_minutes: 0 };
    Snapshot {
        tree,
        parents: parent.into_iter().collect(),
        author: signature.clone(),
        committer: signature,
        message: message.to_owned(),
        metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }
}
