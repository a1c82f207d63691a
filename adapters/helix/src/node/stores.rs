//! Opening and closing what must survive: the records and the content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_config::Config;
use helix_database::{RecordError, RecordStore};
use helix_kernel::Shutdown;
use helix_objects::{Cached, ObjectError, ObjectStore};
use helix_protocol::{Code, Failure, ObjectId, RecordsId};
use helix_rocks::RocksStore;

use super::data_folder::{DataFolder, TakenFolder};
use super::{Content, panicked};

/// How long a node waits at its start for a database that does not answer yet.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// Both stores, open.
pub struct Stores {
    /// Who owns a task, which step is its head, what was spent.
    pub records: Arc<dyn RecordStore>,
    /// Files.
    pub content: Content,
}

impl Stores {
    /// Opens both, and holds the content store's recovered mark against what the records acknowledged. The lease comes between: the
    /// records of another node that runs say nothing about this one's content. Refused with `invalid_config` where the content is
    /// other records'. Whoever wants the node to stop need not wait for the database.
    pub async fn open(config: &Config, taken: &TakenFolder, shutdown: &Shutdown) -> Result<Self, Failure> {
        let records = tokio::select! {
            opened = open_records(config, &taken.folder) => opened?,
            () = shutdown.requested() => return Err(Failure::new(Code::ShuttingDown, "the node was stopped before its records were open")),
        };
        helix_actor_cluster::take(&*records, taken.node).await?;
        let content = async {
            let content = open_content(config, &taken.folder, records.acknowledged_store_sequence().await?).await?;
            let id = belonging(&*records, &content, &taken.folder).await?;
            taken.folder.note_records(records.identify(id).await?)?;
            Ok::<_, Failure>(content)
        };
        match content.await {
            Ok(content) => Ok(Self { records, content }),
            Err(failure) => {
                // Another node need not wait for the lease to run out.
                let _ = records.renew_node(taken.node, 0).await;
                Err(failure)
            }
        }
    }

    /// Writes what is buffered. Failures are logged: the process ends anyway, and what was acknowledged is durable already.
    pub async fn close(self) {
        if let Err(failure) = self.records.close().await {
            tracing::error!(%failure, "the records did not close cleanly");
        }
        let content = self.content;
        match tokio::task::spawn_blocking(move || content.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => tracing::error!(%failure, "the content store did not close cleanly"),
            Err(_) => tracing::error!("closing the content store panicked"),
        }
    }
}

async fn open_records(config: &Config, folder: &DataFolder) -> Result<Arc<dyn RecordStore>, Failure> {
    let url = records_url(config, folder);
    let started = Instant::now();
    loop {
        match helix_database::open(&url).await {
            Ok(records) => return Ok(records),
            Err(RecordError::Unavailable(reason)) if started.elapsed() < DATABASE_PATIENCE => {
                tracing::warn!(reason, "the database does not answer yet");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(unreached(error)),
        }
    }
}

/// Where the records are.
pub fn records_url(config: &Config, folder: &DataFolder) -> String {
    match config.database.url.as_str() {
        "" => format!("sqlite:{}", folder.records().display()),
        url => url.to_owned(),
    }
}

/// What a person can do about records that a node cannot be started on.
pub fn unreached(error: RecordError) -> Failure {
    match error {
        RecordError::NotFound(what) => Failure::new(Code::InvalidConfig, format!("database.url: there is no {what}")).hint(
            "make the folder, or correct database.url of helix.yaml or DATABASE_URL; empty means records.db in the data folder",
        ),
        RecordError::Unavailable(_) => Failure::from(error).hint(
            "start the database, or correct database.url of helix.yaml or DATABASE_URL; a node that starts waits for it for 30 s",
        ),
        RecordError::Backend(_) => Failure::from(error).hint(
            "correct database.url of helix.yaml or DATABASE_URL; a damaged file is restored from a backup, or moved out of the way",
        ),
        other => other.into(),
    }
}

async fn open_content(config: &Config, folder: &DataFolder, acknowledged: u64) -> Result<Content, Failure> {
    let path = folder.content();
    let cache_bytes = usize::try_from(config.storage.cache_mib)
        .ok()
        .and_then(|mib| mib.checked_mul(1024 * 1024))
        .ok_or_else(|| Failure::new(Code::InvalidConfig, "storage.cache_mib does not fit this machine's memory"))?;
    let opened = tokio::task::spawn_blocking(move || -> Result<Content, Failure> {
        let rocks = RocksStore::open(&path).map_err(refused)?;
        rocks.verify_acknowledged(helix_objects::Mark(acknowledged)).map_err(refused)?;
        Ok(Arc::new(Cached::new(rocks, cache_bytes)))
    });
    opened.await.map_err(|_| panicked("opening the content store"))?
}

/// Which records the folder's content belongs to, where they are these: a collection drops what its records do not name, so no
/// others may look after it. A folder that has not noted any, and records without an id, are of a version before there were ids:
/// they belong together unless the records name nothing of what the content holds.
async fn belonging(records: &dyn RecordStore, content: &Content, folder: &DataFolder) -> Result<RecordsId, Failure> {
    let (noted, found) = (folder.noted_records()?, records.id().await?);
    let ours = match (noted, found) {
        (Some(noted), Some(found)) if noted == found => true,
        _ if is_empty(content)? => true,
        (Some(_), Some(_)) => false,
        (None, _) | (_, None) => {
            let named = records.named_content().await?.into_iter().filter(|id| !always_there().contains(id)).collect::<Vec<_>>();
            content.missing(&named)?.len() < named.len()
        }
    };
    if ours {
        return Ok(found.or(noted).unwrap_or_else(RecordsId::new));
    }
    let content = folder.content();
    let message =
        format!("{} holds files of tasks that are in another database than the one this node is to use", content.display());
    Err(Failure::new(Code::InvalidConfig, message).hint(format!(
        "set database.url of helix.yaml or DATABASE_URL to that database (empty means {}), or name another folder with --data; to begin \
         anew in this one, move {} out of the way",
        folder.records().display(),
        content.display()
    )))
}

/// What every task that begins with nothing names.
fn always_there() -> [ObjectId; 2] {
    [helix_versions::empty_tree().id(), helix_versions::empty_snapshot().id()]
}

fn is_empty(content: &Content) -> Result<bool, ObjectError> {
    let held = always_there().len() - content.missing(&always_there())?.len();
    Ok(content.stats()?.objects == held as u64)
}

/// What a person can do about a store that lost what it had acknowledged.
fn refused(error: ObjectError) -> Failure {
    let lost = matches!(error, ObjectError::LostWrites { .. } | ObjectError::Unmarked { .. });
    let failure = Failure::from(error);
    if lost {
        failure.hint(
            "restore the folder `content` from its backup; if these records are another data folder's, start the node on that one",
        )
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use helix_database::{MemoryStore, Write};
    use helix_objects::{Durability, NewObject, ObjectStore as _};
    use helix_protocol::{AttemptId, Base, CommandSpec, Principal, ProjectId, SnapshotId, TaskId, TaskSpec, TaskWork};

    use super::*;

    /// A folder with content of one file.
    struct Used(tempfile::TempDir, Content);

    impl Used {
        const FILE: &[u8] = b"a file of some task";

        fn new() -> Self {
            let temp = tempfile::tempdir().expect("a temporary folder");
            let content = Self::open(temp.path());
            let file = NewObject::new(Bytes::from_static(Self::FILE));
            content.put(&[helix_versions::empty_tree(), file], Durability::NoSync).expect("there is space");
            Self(temp, content)
        }

        fn unused() -> Self {
            let temp = tempfile::tempdir().expect("a temporary folder");
            let content = Self::open(temp.path());
            content.put(&[helix_versions::empty_tree()], Durability::NoSync).expect("there is space");
            Self(temp, content)
        }

        fn open(path: &Path) -> Content {
            Arc::new(Cached::new(RocksStore::open(&path.join("content")).expect("nobody else has it"), 1 << 20))
        }

        fn folder(&self) -> DataFolder {
            DataFolder::locate(self.0.path()).expect("a named folder")
        }

        async fn belonging(&self, records: &MemoryStore) -> Result<RecordsId, Failure> {
            belonging(records, &self.1, &self.folder()).await
        }
    }

    /// Records with a task that names an object.
    async fn naming(object: &[u8]) -> MemoryStore {
        let records = MemoryStore::new();
        let base = Base::Snapshot { snapshot: SnapshotId(helix_objects::hash(object)), git_commit: None, repository: None };
        let spec = TaskSpec { base, ..TaskSpec::new("a task", TaskWork::Command(CommandSpec::default())) };
        let creation = Write::CreateTask {
            id: TaskId::new(),
            attempt: AttemptId::new(),
            spec: Box::new(spec),
            principal: Principal::local("cli"),
            project: ProjectId::DEFAULT,
            idempotency_key: None,
            paused: None,
        };
        records.apply(vec![creation]).await.expect("memory answers").remove(0).expect("it is taken");
        records
    }

    fn is_refused(outcome: Result<RecordsId, Failure>) -> bool {
        outcome.is_err_and(|failure| failure.code == Code::InvalidConfig && failure.hint.contains("DATABASE_URL"))
    }

    #[tokio::test]
    async fn content_is_looked_after_by_the_records_that_were_noted_and_by_no_others() {
        let used = Used::new();
        let (first, second) = (naming(Used::FILE).await, naming(Used::FILE).await);
        let id = used.belonging(&first).await.expect("both are of an older version");
        first.identify(id).await.expect("memory answers");
        used.folder().note_records(id).expect("the folder is writable");
        assert_eq!(used.belonging(&first).await, Ok(id));
        second.identify(RecordsId::new()).await.expect("memory answers");
        assert!(is_refused(used.belonging(&second).await));
        assert!(is_refused(used.belonging(&MemoryStore::new()).await), "records that have just been made");
        assert_eq!(used.belonging(&naming(Used::FILE).await).await, Ok(id), "a backup of before there were ids");
    }

    #[tokio::test]
    async fn content_without_a_note_is_taken_by_records_that_name_some_of_it() {
        let used = Used::new();
        let records = naming(Used::FILE).await;
        let id = records.identify(RecordsId::new()).await.expect("memory answers");
        assert_eq!(used.belonging(&records).await, Ok(id));
        assert!(is_refused(used.belonging(&MemoryStore::new()).await));
        assert!(is_refused(used.belonging(&naming(b"another file").await).await));
    }

    #[tokio::test]
    async fn a_folder_without_content_takes_any_records() {
        let unused = Used::unused();
        unused.folder().note_records(RecordsId::new()).expect("the folder is writable");
        let records = naming(b"a file").await;
        let id = records.identify(RecordsId::new()).await.expect("memory answers");
        assert_eq!(unused.belonging(&records).await, Ok(id));
        unused.belonging(&MemoryStore::new()).await.expect("there is nothing that could be lost");
    }
}
