//! The schema: applied from files, refused where it is newer than this version knows.

use std::path::{Path, PathBuf};

use helix_protocol::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, query, raw_sql};

use super::columns::get;
use super::dialect::Dialect;
use super::error::failure;
use crate::RecordError;

/// One change of the schema. A migration that was released is never edited. What the columns of JSON hold is of the schema's format
/// too: a value that a program before it could not read comes with a migration, so that such a program refuses the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// Counts from 1 without a gap.
    pub version: i64,
    /// What it is about.
    pub name: &'static str,
    /// Its statements, the same for both databases.
    pub sql: &'static str,
}

/// Every migration, oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "spine", sql: include_str!("../../migrations/0001_spine.sql") },
    Migration { version: 2, name: "long messages", sql: include_str!("../../migrations/0002_long_messages.sql") },
    Migration { version: 3, name: "gateway", sql: include_str!("../../migrations/0003_gateway.sql") },
    Migration { version: 4, name: "remarks", sql: include_str!("../../migrations/0004_remarks.sql") },
    Migration { version: 5, name: "spend of projects", sql: include_str!("../../migrations/0005_spend_of_projects.sql") },
    Migration { version: 6, name: "notes of steps", sql: include_str!("../../migrations/0006_notes_of_steps.sql") },
    Migration { version: 7, name: "hints", sql: include_str!("../../migrations/0007_hints.sql") },
    Migration { version: 8, name: "id of the records", sql: include_str!("../../migrations/0008_records_id.sql") },
    Migration { version: 9, name: "subjects of questions", sql: include_str!("../../migrations/0009_subjects.sql") },
    Migration { version: 10, name: "limits of a day", sql: include_str!("../../migrations/0010_limits_of_a_day.sql") },
    Migration { version: 11, name: "parents", sql: include_str!("../../migrations/0011_parents.sql") },
];

/// Brings the schema to the newest of `migrations`. With `file`, an existing database that has to be
/// changed is first copied beside itself.
pub(crate) async fn migrate<D: Dialect>(
    connection: &mut AnyConnection,
    migrations: &[Migration],
    file: Option<&Path>,
) -> Result<(), RecordError> {
    if let Some(file) = file {
        let found = prepare::<D>(connection).await?;
        let known = newest(migrations);
        if (1..known).contains(&found) {
            keep_copy(connection, file, found).await?;
        }
    }
    let mut transaction = connection.begin_with(D::BEGIN).await.map_err(failure)?;
    let found = prepare::<D>(&mut transaction).await?;
    let known = newest(migrations);
    if found > known {
        return Err(RecordError::NewerFormat { found, known });
    }
    for migration in migrations.iter().filter(|migration| migration.version > found) {
        raw_sql(migration.sql).execute(&mut *transaction).await.map_err(failure)?;
        let insert = query("INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)");
        let insert = insert.bind(migration.version).bind(migration.name).bind(Timestamp::now().0);
        insert.execute(&mut *transaction).await.map_err(failure)?;
        tracing::info!(version = migration.version, name = migration.name, "the schema of the records was migrated");
    }
    transaction.commit().await.map_err(failure)
}

/// The version of the schema after `migrations`.
pub(crate) fn newest(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, |migration| migration.version)
}

/// Makes sure that there is a table of versions, and answers the version found.
async fn prepare<D: Dialect>(connection: &mut AnyConnection) -> Result<i64, RecordError> {
    if let Some(lock) = D::MIGRATION_LOCK {
        raw_sql(lock).execute(&mut *connection).await.map_err(failure)?;
    }
    let table =
        "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)";
    raw_sql(table).execute(&mut *connection).await.map_err(failure)?;
    let select = query("SELECT COALESCE(MAX(version), 0) AS version FROM schema_migrations");
    get(&select.fetch_one(&mut *connection).await.map_err(failure)?, "version")
}

/// Copies the database whole. A copy of the same schema that is there already is left alone: it is
/// the older one, made before the first attempt.
async fn keep_copy(connection: &mut AnyConnection, file: &Path, found: i64) -> Result<(), RecordError> {
    let copy = copy_path(file, found);
    if copy.exists() {
        return Ok(());
    }
    let quoted = copy.display().to_string().replace('\'', "''");
    raw_sql(AssertSqlSafe(format!("VACUUM INTO '{quoted}'"))).execute(&mut *connection).await.map_err(failure)?;
    tracing::info!(copy = %copy.display(), schema = found, "kept a copy of the records before migrating them");
    Ok(())
}

/// Where the copy of a database of this schema is kept.
pub(crate) fn copy_path(file: &Path, found: i64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".schema-{found}"));
    PathBuf::from(name)
}
