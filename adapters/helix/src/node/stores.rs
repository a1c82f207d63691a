//! Opening and closing what must survive: the records and the content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_config::Config;
use helix_database::{RecordError, RecordStore};
use helix_objects::{Cached, ObjectError};
use helix_protocol::{Code, Failure};
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
    /// Opens both, and holds the content store's recovered mark against what the records acknowledged. The lease comes between: the records
    /// of another node that runs say nothing about this one's content.
    pub async fn open(config: &Config, taken: &TakenFolder) -> Result<Self, Failure> {
        let records = open_records(config, &taken.folder).await?;
        helix_actor_cluster::take(&*records, taken.node).await?;
        let content = async { open_content(config, &taken.folder, records.acknowledged_store_sequence().await?).await };
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
