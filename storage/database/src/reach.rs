//! One attempt to reach a database, for a reason that a pool of connections keeps to itself: it tries again until its patience
//! ends, and then says that alone.

use std::time::Duration;

use sqlx::{AnyConnection, Connection, Executor};

use crate::RecordError;
use crate::sql::error::failure;

/// How long a server may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection of its own to `url`, prepared by `setup`. `Unavailable` where nobody answers, `Backend`
/// where waiting would not help.
pub(crate) async fn reach(url: &str, setup: &'static str) -> Result<AnyConnection, RecordError> {
    let attempt = async {
        let mut connection = AnyConnection::connect(url).await?;
        connection.execute(setup).await?;
        Ok(connection)
    };
    match tokio::time::timeout(PATIENCE, attempt).await {
        Ok(reached) => reached.map_err(failure),
        Err(_) => Err(RecordError::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// Lets go of a connection that [`reach`] made.
pub(crate) async fn leave(connection: AnyConnection) {
    // It was there, which is all that was asked.
    let _ = connection.close().await;
}
