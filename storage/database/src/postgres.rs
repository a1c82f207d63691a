//! The records on a PostgreSQL server.

use std::time::Duration;

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::{AnyPool, query};

use crate::sql::dialect::{Dialect, Postgres};
use crate::sql::error::failure;
use crate::sql::migrate::{MIGRATIONS, migrate};
use crate::sql::store::SqlStore;
use crate::{Clock, RecordError};

/// The records on a server that several nodes may share. The server's clock is the clock.
pub type PostgresStore = SqlStore<Postgres>;

/// A node has one writer; two more connections are for lease renewals that must not wait for it.
const WRITERS: u32 = 3;
/// Reads that may run at once.
const READERS: u32 = 8;
/// How long a lost server is looked for before `Unavailable` is answered.
const PATIENCE: Duration = Duration::from_secs(3);

impl PostgresStore {
    /// Connects to `url` (`postgres://user:password@host:port/database`; a socket's folder goes into
    /// `?host=/folder`) and brings the schema up to date. Connections that are lost later are made
    /// again by themselves.
    pub async fn connect(url: &str) -> Result<Self, RecordError> {
        install_default_drivers();
        let writer = pool(WRITERS, url).await?;
        if let Err(error) = prepare(&writer).await {
            writer.close().await;
            return Err(error);
        }
        Ok(Self::new(writer, pool(READERS, url).await?, Clock::system()))
    }
}

async fn prepare(writer: &AnyPool) -> Result<(), RecordError> {
    let mut connection = writer.acquire().await.map_err(failure)?;
    migrate::<Postgres>(&mut connection, MIGRATIONS, None).await?;
    number_events_after_the_last(&mut connection).await
}

async fn pool(connections: u32, url: &str) -> Result<AnyPool, RecordError> {
    let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE).test_before_acquire(Postgres::PING);
    options.connect(url).await.map_err(failure)
}

/// Transaction numbers start again when a dump is restored into a new server. Then a base is added to
/// them, so that new events still come after all that there are.
async fn number_events_after_the_last(connection: &mut sqlx::AnyConnection) -> Result<(), RecordError> {
    let update = query(
        "UPDATE event_base SET base = last.number + 1 - pg_current_xact_id()::TEXT::BIGINT \
         FROM (SELECT COALESCE(MAX(sequence), 0) / 65536 AS number FROM events) last \
         WHERE last.number >= pg_current_xact_id()::TEXT::BIGINT + event_base.base",
    );
    update.execute(connection).await.map_err(failure)?;
    Ok(())
}
