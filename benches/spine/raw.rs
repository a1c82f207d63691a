//! What the disk and the database give without anything of ours: plain inserts over one connection, each transaction synced.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use crate::report::Scale;

/// A small row's payload in bytes.
const PAYLOAD: usize = 512;

/// Small rows per second.
pub struct Raw {
    /// One row each transaction.
    pub single: f64,
    /// [`Raw::GROUP`] rows each transaction.
    pub grouped: f64,
}

impl Raw {
    /// Rows of a grouped transaction.
    pub const GROUP: usize = 64;

    /// Inserts for some seconds.
    pub async fn measure(table: &mut Table, scale: Scale) -> Result<Self> {
        Ok(Self { single: rows(table, 1, scale).await?, grouped: rows(table, Self::GROUP, scale).await? })
    }
}

async fn rows(table: &mut Table, group: usize, scale: Scale) -> Result<f64> {
    let window = Duration::from_secs(scale.pick(4, 1));
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < window {
        table.insert(group, &[7; PAYLOAD]).await?;
        rows += group;
    }
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// A table of one column beside its key.
pub enum Table {
    /// In WAL mode with `synchronous=FULL`, in a folder of its own.
    Sqlite { connection: SqliteConnection, _folder: tempfile::TempDir },
    /// With `fsync` and `synchronous_commit`.
    Postgres(PgConnection),
}

impl Table {
    /// In a new file.
    pub async fn sqlite() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = SqliteConnectOptions::new().filename(folder.path().join("raw.db")).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let mut connection = options.connect().await?;
        sqlx::query("CREATE TABLE raw (id INTEGER PRIMARY KEY, body BLOB NOT NULL)").execute(&mut connection).await?;
        Ok(Self::Sqlite { connection, _folder: folder })
    }

    /// In an empty database.
    pub async fn postgres(url: &str) -> Result<Self> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query("CREATE TABLE raw (id BIGSERIAL PRIMARY KEY, body BYTEA NOT NULL)").execute(&mut connection).await?;
        Ok(Self::Postgres(connection))
    }

    /// One transaction of so many rows.
    pub async fn insert(&mut self, rows: usize, body: &[u8]) -> Result<()> {
        const INSERT: &str = "INSERT INTO raw (body) VALUES ($1)";
        match self {
            Self::Sqlite { connection, .. } => {
                let mut transaction = connection.begin().await?;
                for _ in 0..rows {
                    sqlx::query(INSERT).bind(body.to_vec()).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
            }
            Self::Postgres(connection) => {
                let mut transaction = connection.begin().await?;
                for _ in 0..rows {
                    sqlx::query(INSERT).bind(body.to_vec()).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
            }
        }
        Ok(())
    }
}
