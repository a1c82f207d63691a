//! A repository: names for snapshots, heads, and what was done to them, over any record store.
//!
//! It knows no working folder: what a workspace's files are is a tree's id to it. Every change, whatever it touches, is
//! one batch of the store (objects, names, heads, and the entry of the operation log), checked against what was read
//! before; so a crash leaves the state before the change or the state after it, and nothing else.
//!
//! - `names`, `records`: names with what they may be, and the records' encodings.
//! - `transaction`: the one way anything is written.
//! - `workspaces`, `refs`, `commit`, `live`: heads, branches and tags, commits, trees kept in memory.
//! - `revision`, `history`, `ancestry`: what people call snapshots, and how they descend from each other.
//! - `merging`, `oplog`, `experiments`: merges with their conflicts, the operation log with undo, groups of variants.
//! - `graph`, `blame`, `bisect`: the history drawn, where a line comes from, which snapshot broke something.
//! - `gc`, `mark`, `watch`, `retention`, `purge`: what is alive and for how long, and what names a content.

mod ancestry;
mod batch;
mod bisect;
mod blame;
mod commit;
mod experiments;
mod gc;
mod graph;
mod history;
mod keeps;
mod live;
mod mark;
mod merging;
pub(crate) mod names;
mod oplog;
mod purge;
mod recent;
mod records;
mod refs;
mod retention;
mod revision;
mod short_objects;
#[cfg(feature = "git")]
mod stored;
mod transaction;
mod watch;
mod workspaces;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, RecordChange, RecordStore};
use helix_protocol::{ObjectId, SnapshotId};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::tree::Tree;
use crate::{BranchName, Signature, Snapshot, VersionError};

pub use batch::{Batch, RefExpect};
pub use bisect::BisectStep;
pub use blame::BlameLine;
pub use commit::{CommitRequest, Committed, FilesRequest, Undecided};
pub use experiments::{Closed, Experiment, ScoreVariant, StartExperiment, Variant};
pub use gc::{Alive, CollectOptions, Collected, Fault, Root, RootKind};
pub use graph::{Graph, GraphRow};
pub use history::{History, LogEntry, LogQuery, Merges, Order};
pub use keeps::{Amount, Kept};
pub use live::{FileEdit, LIVE_LIMIT, LiveUse};
pub use merging::{FastForward, MergeKind, MergeOutcome, MergeRequest, PickRequest};
pub use names::{ExperimentName, RefName, VariantName, WorkspaceName};
pub use oplog::{MovedHead, Operation, OperationCause, OperationChange, Undo, Undone};
pub use purge::{PurgePlan, PurgeTarget};
pub use records::{Annotation, ExperimentState, Goal, Head, HeadTarget, Merging, MergingKind, Score, Staged, Unresolved};
pub use refs::{Existing, Tag, Unmerged};
pub use retention::{Expired, Retention};
pub use revision::{Range, Resolved};
#[cfg(feature = "git")]
pub(crate) use stored::StoredSnapshot;
pub use transaction::{Caller, Recorded};
pub use workspaces::{Elsewhere, ResetKind, Start, Switched, Workspace};

use recent::Recent;
#[cfg(feature = "testing")]
pub(crate) use records::fuzz as fuzz_records;
use records::{HeadTarget as Target, OperationRecord, Record, RepositoryRecord, SnapshotRecord, WorkspaceKeys, WorkspaceRecord};
use transaction::Writer;

/// The format this program writes.
const FORMAT: u64 = 1;
/// Decoded snapshots kept in memory.
const KEPT_SNAPSHOTS: usize = 8_192;
/// Depths of snapshots kept in memory.
const KEPT_DEPTHS: usize = 65_536;
/// The key of the repository's own record.
const OWN: &[u8] = b"repository";

/// A repository over a store. Clones are the same repository; every method may be called from any thread.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn RecordStore>,
    own: RepositoryRecord,
    durability: RwLock<Durability>,
    empty_tree: ObjectId,
    writer: Mutex<Writer>,
    snapshots: Mutex<Recent<SnapshotId, Arc<Snapshot>>>,
    depths: Mutex<Recent<SnapshotId, u64>>,
    /// What changes name while a collection runs.
    watched: Mutex<Option<watch::Watched>>,
    /// What was removed on purpose, and perhaps is back; `None` until somebody needs it.
    purged: Mutex<Option<HashSet<ObjectId>>>,
}

/// How a repository is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// The branch that the first commit makes.
    pub branch: BranchName,
    /// Where the first workspace is, as people see it.
    pub root: String,
    /// When a commit counts as made, where it does not say so itself.
    pub durability: Durability,
    /// Who makes it, and when.
    pub who: Signature,
}

impl Repository {
    /// Makes a repository in a store that has none. Fails with `Exists` where it has one.
    pub fn create(store: Arc<dyn RecordStore>, options: CreateOptions) -> Result<Self, VersionError> {
        let CreateOptions { branch, root, durability, who } = options;
        let own = RepositoryRecord { format: FORMAT, branch: branch.clone(), durability, made: who.time };
        let (name, empty) = (WorkspaceName::main(), Tree::default().encode());
        let workspace = WorkspaceRecord { root, made: who.time, head: Target::Branch(branch) };
        let made = |family, key: Bytes, value: Bytes| RecordChange { family, key, expect: Expect::Absent, value: Some(value) };
        let first = OperationRecord {
            time: who.time,
            who: who.name,
            workspace: name.to_string(),
            verb: "init".to_owned(),
            text: "made the repository".to_owned(),
            cause: records::Cause::Itself,
            changes: Vec::new(),
        };
        let changes = [
            made(Family::Settings, Bytes::from_static(OWN), own.encode()),
            made(Family::Workspaces, WorkspaceKeys(&name).head(), workspace.encode()),
            made(Family::Oplog, oplog::key(1), first.encode()),
        ];
        match store.commit(std::slice::from_ref(&empty), &changes, durability) {
            Err(helix_objects::ObjectError::Moved { .. }) => {
                Err(VersionError::Exists { kind: "repository", name: "in this store".to_owned() })
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Self::over(store, own)),
        }
    }

    /// Opens the repository of a store. Fails with `Unknown` where it has none, with `NewerFormat` where a newer version wrote it.
    pub fn open(store: Arc<dyn RecordStore>) -> Result<Self, VersionError> {
        let Some(bytes) = store.record(Family::Settings, OWN)? else {
            return Err(VersionError::Unknown { kind: "repository", name: "in this store".to_owned(), nearest: None });
        };
        let own = RepositoryRecord::of(Family::Settings, OWN, &bytes)?;
        if own.format > FORMAT {
            return Err(VersionError::NewerFormat { found: own.format, known: FORMAT });
        }
        Ok(Self::over(store, own))
    }

    fn over(store: Arc<dyn RecordStore>, own: RepositoryRecord) -> Self {
        let inner = Inner {
            store,
            durability: RwLock::new(own.durability),
            own,
            empty_tree: Tree::default().encode().id(),
            writer: Mutex::default(),
            snapshots: Mutex::new(Recent::new(KEPT_SNAPSHOTS)),
            depths: Mutex::new(Recent::new(KEPT_DEPTHS)),
            watched: Mutex::new(None),
            purged: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The store underneath.
    pub fn store(&self) -> &Arc<dyn RecordStore> {
        &self.inner.store
    }

    /// When a commit counts as made, where it does not say so itself.
    pub fn durability(&self) -> Durability {
        *self.inner.durability.read()
    }

    /// Changes when a commit counts as made, where it does not say so itself; on disk when it returns.
    pub fn set_durability(&self, durability: Durability) -> Result<(), VersionError> {
        let mut now = self.inner.durability.write();
        let own = RepositoryRecord { durability, ..self.inner.own.clone() };
        let key = Bytes::from_static(OWN);
        let change = RecordChange { family: Family::Settings, key, expect: Expect::Anything, value: Some(own.encode()) };
        self.store().commit(&[], &[change], Durability::Group)?;
        *now = durability;
        Ok(())
    }

    /// The branch the repository was made with.
    pub fn first_branch(&self) -> &BranchName {
        &self.inner.own.branch
    }

    /// The tree of a folder that holds nothing. The store has it from the beginning.
    pub fn empty_tree(&self) -> ObjectId {
        self.inner.empty_tree
    }

    /// A snapshot, from memory where it was read before.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Arc<Snapshot>, VersionError> {
        if let Some(snapshot) = self.inner.snapshots.lock().get(&id) {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(Snapshot::load(&**self.store(), id)?);
        self.inner.snapshots.lock().put(id, snapshot.clone());
        Ok(snapshot)
    }

    /// Whether the store has a snapshot of this id.
    pub fn has_snapshot(&self, id: SnapshotId) -> Result<bool, VersionError> {
        match self.snapshot(id) {
            Ok(_) => Ok(true),
            Err(VersionError::Object(helix_objects::ObjectError::Missing(_)) | VersionError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets how many bytes of trees and contents are kept in memory for the workspaces (L0).
    pub fn set_live_limit(&self, bytes: usize) {
        self.writer().live.set_limit(bytes);
    }

    /// Bytes of trees and contents that are kept in memory for the workspaces (L0). `None` while somebody writes.
    pub fn live_bytes(&self) -> Option<usize> {
        self.inner.writer.try_lock().map(|writer| writer.live.bytes())
    }

    /// Each workspace's tree that is in memory (L0); none of them while somebody writes.
    pub fn live_uses(&self) -> Vec<LiveUse> {
        self.inner.writer.try_lock().map_or_else(Vec::new, |writer| writer.live.uses())
    }

    /// Lets go of a workspace's tree and contents in memory (L0), which are in the store, unless somebody writes.
    pub fn let_go_of_tree(&self, workspace: &WorkspaceName) {
        if let Some(mut writer) = self.inner.writer.try_lock() {
            writer.live.forget(workspace);
        }
    }

    /// Lets go of contents that are kept in memory (L0), for when nobody uses the repository: they are in the store.
    pub fn rest(&self) {
        self.writer().live.forget_contents();
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.inner.writer.lock()
    }

    fn remember(&self, id: SnapshotId, snapshot: Arc<Snapshot>, record: SnapshotRecord) {
        self.inner.snapshots.lock().put(id, snapshot);
        self.inner.depths.lock().put(id, record.depth);
    }
}

#[cfg(test)]
mod tests;
