//! Picks a store by its URL.

use std::path::Path;
use std::sync::Arc;

use crate::{MemoryStore, PostgresStore, RecordError, RecordStore, SqliteStore};

/// Opens the records that `url` names: `sqlite:/path/to/file`, `postgres://user@host/database`
/// (`postgresql://` too), or `memory:` for records that end with the process.
pub async fn open(url: &str) -> Result<Arc<dyn RecordStore>, RecordError> {
    match url.split_once(':') {
        Some(("memory", _)) => Ok(Arc::new(MemoryStore::new())),
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(Path::new(path.strip_prefix("//").unwrap_or(path))).await?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::connect(url).await?)),
        _ => Err(unknown(url)),
    }
}

/// Sees whether the records that `url` names can be reached, and changes nothing: a file that does not exist yet is not made.
/// Fails as [`open`] would.
pub async fn probe(url: &str) -> Result<(), RecordError> {
    match url.split_once(':') {
        Some(("memory", _)) => Ok(()),
        Some(("sqlite", path)) => SqliteStore::probe(Path::new(path.strip_prefix("//").unwrap_or(path))).await,
        Some(("postgres" | "postgresql", _)) => PostgresStore::probe(url).await,
        _ => Err(unknown(url)),
    }
}

fn unknown(url: &str) -> RecordError {
    RecordError::NotFound(format!("kind of records that is written {:?}", url.split(':').next().unwrap_or_default()))
}
