//! The records on a PostgreSQL server.

use std::time::Duration;

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::{AnyPool, Executor, Row, query};

use crate::reach::{leave, reach};
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
/// What a server is asked to see whether it answers.
const SIGN_OF_LIFE: &str = "SELECT 1";
/// Long texts are compressed with LZ4 where the server was built with it and nobody has said how they are to be: what it does by itself
/// takes half of the time of a group of agents' steps.
const LONG_TEXTS: &str = "SELECT set_config(name, 'lz4', false) FROM pg_settings \
     WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals)";
/// The oldest version that is taken, as the server numbers it: the contract is held on no older one.
const OLDEST: i64 = 150_000;

impl PostgresStore {
    /// Connects to `url` (`postgres://user:password@host:port/database`; a socket's folder goes into
    /// `?host=/folder`) and brings the schema up to date. Connections that are lost later are made
    /// again by themselves.
    pub async fn connect(url: &str) -> Result<Self, RecordError> {
        install_default_drivers();
        leave(reach(url, SIGN_OF_LIFE).await?).await;
        let writer = pool(WRITERS, url).await?;
        if let Err(error) = prepare(&writer).await {
            writer.close().await;
            return Err(error);
        }
        Ok(Self::new(writer, pool(READERS, url).await?, Clock::system()))
    }

    /// Sees whether the server lets us in and is new enough.
    pub(crate) async fn probe(url: &str) -> Result<(), RecordError> {
        install_default_drivers();
        let mut connection = reach(url, SIGN_OF_LIFE).await?;
        let judged = judge_server(&mut connection).await;
        leave(connection).await;
        judged
    }
}

async fn judge_server(connection: &mut sqlx::AnyConnection) -> Result<(), RecordError> {
    let version = query("SELECT current_setting('server_version_num')::BIGINT AS number").fetch_one(connection);
    judge(version.await.map_err(failure)?.try_get("number").map_err(failure)?)
}

async fn prepare(writer: &AnyPool) -> Result<(), RecordError> {
    let mut connection = writer.acquire().await.map_err(failure)?;
    judge_server(&mut connection).await?;
    migrate::<Postgres>(&mut connection, MIGRATIONS, None).await?;
    number_events_after_the_last(&mut connection).await
}

/// Refuses a server that is too old before anything of it is changed.
fn judge(version: i64) -> Result<(), RecordError> {
    if version >= OLDEST {
        return Ok(());
    }
    let (found, needed) = (version / 10_000, OLDEST / 10_000);
    Err(RecordError::Backend(format!("the server is PostgreSQL {found}, and {needed} or newer is needed")))
}

async fn pool(connections: u32, url: &str) -> Result<AnyPool, RecordError> {
    let options = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(Postgres::PING)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(LONG_TEXTS).await?;
                Ok(())
            })
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_by_its_version() {
        assert_eq!([150_000, 150_018, 180_001].map(judge), [Ok(()), Ok(()), Ok(())]);
        let refusal = judge(140_022).expect_err("too old").to_string();
        assert!(refusal.contains("PostgreSQL 14, and 15 or newer"), "{refusal}");
    }
}
