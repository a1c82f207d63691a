//! The records in one SQLite file.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::{AnyPool, Executor};

use crate::reach::{leave, reach};
use crate::sql::dialect::{Dialect, Sqlite};
use crate::sql::error::failure;
use crate::sql::migrate::{MIGRATIONS, Migration, migrate};
use crate::sql::store::SqlStore;
use crate::{Clock, RecordError};

/// The records in one file, for one node. Every group is on disk when it is answered: write-ahead
/// log, `synchronous=FULL`.
pub type SqliteStore = SqlStore<Sqlite>;

/// Reads that may run at once, beside the one writer.
const READERS: u32 = 4;

const WRITER_SETUP: &str =
    "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";
const READER_SETUP: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON";
/// Reads a page of the file, which is looked at only then.
const PROBE: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; SELECT COUNT(*) FROM sqlite_schema";

impl SqliteStore {
    /// Opens the records at `path`, or makes them. A schema that is older is brought up to date after a
    /// copy was made beside it (`PATH.schema-N`); a newer one is refused with `NewerFormat`.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        Self::open_with_clock(path, Clock::system()).await
    }

    /// Opens the records on another clock.
    pub async fn open_with_clock(path: impl AsRef<Path>, clock: Clock) -> Result<Self, RecordError> {
        Self::open_at(path.as_ref(), clock, MIGRATIONS).await
    }

    pub(crate) async fn open_at(path: &Path, clock: Clock, migrations: &[Migration]) -> Result<Self, RecordError> {
        install_default_drivers();
        let path = absolute(path)?;
        leave(reach(&url(&path, "rwc"), WRITER_SETUP).await.map_err(|error| named(error, &path))?).await;
        let writer = pool(1, WRITER_SETUP, &url(&path, "rwc")).await?;
        if let Err(error) = prepare(&writer, migrations, &path).await {
            writer.close().await;
            return Err(error);
        }
        let readers = pool(READERS, READER_SETUP, &url(&path, "rw")).await?;
        Ok(Self::new(writer, readers, clock))
    }

    /// Sees whether there is a database at `path`, or could be made.
    pub(crate) async fn probe(path: &Path) -> Result<(), RecordError> {
        install_default_drivers();
        let path = absolute(path)?;
        if path.exists() {
            leave(reach(&url(&path, "rw"), PROBE).await.map_err(|error| named(error, &path))?).await;
        }
        Ok(())
    }
}

/// The driver does not say which file it could not use.
fn named(error: RecordError, path: &Path) -> RecordError {
    match error {
        RecordError::Backend(reason) => RecordError::Backend(format!("{}: {reason}", path.display())),
        other => other,
    }
}

async fn prepare(writer: &AnyPool, migrations: &[Migration], path: &Path) -> Result<(), RecordError> {
    let mut connection = writer.acquire().await.map_err(failure)?;
    migrate::<Sqlite>(&mut connection, migrations, Some(path)).await
}

async fn pool(connections: u32, setup: &'static str, url: &str) -> Result<AnyPool, RecordError> {
    let options = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(Sqlite::PING)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(setup).await?;
                Ok(())
            })
        });
    options.connect(url).await.map_err(failure)
}

/// The file's whole path: the folder must exist.
fn absolute(path: &Path) -> Result<PathBuf, RecordError> {
    let absolute = std::path::absolute(path).map_err(|error| RecordError::Backend(format!("{}: {error}", path.display())))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    if folder.is_dir() { Ok(absolute) } else { Err(RecordError::NotFound(format!("folder {} for the records", folder.display()))) }
}

/// The driver's URL of a file. Every byte that could mean something in a URL is escaped.
fn url(path: &Path, mode: &str) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => url.push(char::from(*byte)),
            _ => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
    url.push_str("?mode=");
    url.push_str(mode);
    url
}
