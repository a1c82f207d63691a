//! What the disk and the database give without anything of ours: plain inserts of a small row, each transaction synced.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use crate::report::Scale;

/// A row's payload in bytes.
const PAYLOAD: usize = 512;

/// Rows per second.
pub struct Raw {
    /// One row each transaction.
    pub single: f64,
    /// [`Raw::GROUP`] rows each transaction.
    pub grouped: f64,
}

impl Raw {
    /// Rows of a grouped transaction.
    pub const GROUP: usize = 64;
}

/// SQLite in WAL mode with `synchronous=FULL`, one connection.
pub async fn sqlite(scale: Scale) -> Result<Raw> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new().filename(folder.path().join("raw.db")).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await?;
    sqlx::query("CREATE TABLE raw (id INTEGER PRIMARY KEY, body BLOB NOT NULL)").execute(&mut connection).await?;
    let raw = Raw {
        single: sqlite_rows(&mut connection, 1, scale).await?,
        grouped: sqlite_rows(&mut connection, Raw::GROUP, scale).await?,
    };
    connection.close().await?;
    Ok(raw)
}

/// PostgreSQL with `fsync` and `synchronous_commit`, one connection.
pub async fn postgres(url: &str, scale: Scale) -> Result<Raw> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("CREATE TABLE raw (id BIGSERIAL PRIMARY KEY, body BYTEA NOT NULL)").execute(&mut connection).await?;
    let raw = Raw {
        single: postgres_rows(&mut connection, 1, scale).await?,
        grouped: postgres_rows(&mut connection, Raw::GROUP, scale).await?,
    };
    connection.close().await?;
    Ok(raw)
}

fn window(scale: Scale) -> Duration {
    Duration::from_secs(scale.pick(4, 1))
}

async fn sqlite_rows(connection: &mut SqliteConnection, group: usize, scale: Scale) -> Result<f64> {
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < window(scale) {
        let mut transaction = connection.begin().await?;
        for _ in 0..group {
            sqlx::query("INSERT INTO raw (body) VALUES ($1)").bind(vec![7_u8; PAYLOAD]).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        rows += group;
    }
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

async fn postgres_rows(connection: &mut PgConnection, group: usize, scale: Scale) -> Result<f64> {
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < window(scale) {
        let mut transaction = connection.begin().await?;
        for _ in 0..group {
            sqlx::query("INSERT INTO raw (body) VALUES ($1)").bind(vec![7_u8; PAYLOAD]).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        rows += group;
    }
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}
