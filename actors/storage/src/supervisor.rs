//! The branch: its children and how they are restarted.
//!
//! Rest-for-one: the cache and the writer stand on the content store (a step names objects), the repositories on all.

use std::sync::Arc;
use std::time::Duration;

use helix_database::RecordStore;
use helix_kernel::{Address, ChildSpec, Strategy, SupervisorSpec};
use helix_messages::{Events, RecordsMsg, VersionsMsg};
use helix_objects::{ContentCache, ObjectStore};

use crate::cache::CacheActor;
use crate::content::{ContentActor, ContentArgs};
use crate::repositories::{RepositoriesActor, RepositoriesArgs};
use crate::upkeep::ContentUpkeep;
use crate::writer::{WriterActor, WriterArgs};

/// How many writes may wait.
const WRITER_MAILBOX: usize = 65_536;
/// How many imports, exports and comparisons may wait.
const REPOSITORIES_MAILBOX: usize = 256;
/// A group that is being written is finished before the writer leaves.
const WRITER_SHUTDOWN: Duration = Duration::from_secs(15);

/// What the branch stands on.
#[derive(Clone)]
pub struct StorageArgs {
    /// The records, open.
    pub records: Arc<dyn RecordStore>,
    /// The content store, open.
    pub objects: Arc<dyn ObjectStore>,
    /// What of it is kept in memory; `None` for a store that is in memory altogether.
    pub cache: Option<Arc<dyn ContentCache>>,
    /// How the content store is kept small; `None` for one that cannot be.
    pub upkeep: Option<ContentUpkeep>,
    /// Larger files of a working folder are not taken in, in bytes.
    pub file_cap_bytes: u64,
    /// Where recorded events are published.
    pub events: Events,
    /// Where the writer is reached.
    pub writer: Address<RecordsMsg>,
    /// Where the repositories are reached.
    pub repositories: Address<VersionsMsg>,
}

impl StorageArgs {
    /// An address for [`StorageArgs::writer`].
    pub fn writer_address() -> Address<RecordsMsg> {
        Address::unbound("writer", WRITER_MAILBOX)
    }

    /// An address for [`StorageArgs::repositories`].
    pub fn repositories_address() -> Address<VersionsMsg> {
        Address::unbound("repositories", REPOSITORIES_MAILBOX)
    }
}

/// The storage branch, ready to be a child of the root.
pub fn branch(args: StorageArgs) -> SupervisorSpec {
    let content = Address::unbound("content", 1);
    let content_args = ContentArgs { objects: Arc::clone(&args.objects), records: Arc::clone(&args.records), upkeep: args.upkeep };
    let writer_args = WriterArgs { records: Arc::clone(&args.records), events: args.events };
    let repositories_args = RepositoriesArgs { records: args.records, objects: args.objects, file_cap_bytes: args.file_cap_bytes };
    let mut spec = SupervisorSpec::new("storage", Strategy::RestForOne)
        .child(ChildSpec::actor("content", &content, move || (ContentActor, content_args.clone())));
    if let Some(cache) = args.cache {
        spec = spec.child(ChildSpec::actor("cache", &Address::unbound("cache", 1), move || (CacheActor, Arc::clone(&cache))));
    }
    spec.child(
        ChildSpec::actor("writer", &args.writer, move || (WriterActor, writer_args.clone())).shutdown_within(WRITER_SHUTDOWN),
    )
    .child(ChildSpec::actor("repositories", &args.repositories, move || (RepositoriesActor, repositories_args.clone())))
}
