//! What an error of the driver means for the writer.

use crate::RecordError;

/// The words of the one error that the store itself answers by trying the group again.
const CLASH: &str = "another node's writes got in the way; try again";

/// The SQLSTATEs of a transaction that lost against another and would succeed if repeated:
/// serialization failure, deadlock, and a row that somebody else inserted first.
const CLASHES: [&str; 3] = ["40001", "40P01", "23505"];

/// The two ways SQLite says that there is no room: a write that found none, and the shared-memory
/// file that could not grow.
const SQLITE_FULL: [&str; 2] = ["13", "4874"];

/// The failure that the driver's error is.
pub(crate) fn failure(error: sqlx::Error) -> RecordError {
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            let code: &str = &code;
            if CLASHES.contains(&code) {
                clash()
            } else if SQLITE_FULL.contains(&code) || code == "53100" {
                RecordError::DiskFull(database.message().to_owned())
            } else if away(code) {
                RecordError::Unavailable(database.message().to_owned())
            } else {
                RecordError::Backend(database.message().to_owned())
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => RecordError::Unavailable(error.to_string()),
        _ => RecordError::Backend(error.to_string()),
    }
}

/// Codes of a database that is busy, stopping, starting, out of connections or gone. Class 08 is the
/// connection's, class 57P the operator's; 5 and 6 (with their extended forms) are SQLite's BUSY and LOCKED.
fn away(code: &str) -> bool {
    let sqlite = code.parse::<u32>().is_ok_and(|number| code.len() < 5 && matches!(number & 0xff, 5 | 6));
    sqlite || code.starts_with("08") || code.starts_with("57P") || code == "53300"
}

/// The error of a group that has to be tried again.
pub(crate) fn clash() -> RecordError {
    RecordError::Unavailable(CLASH.to_owned())
}

/// Whether the group has to be tried again.
pub(crate) fn is_clash(error: &RecordError) -> bool {
    matches!(error, RecordError::Unavailable(message) if message == CLASH)
}

/// Whether an error of one member ends the whole group: the transaction cannot go on.
pub(crate) fn ends_the_group(error: &RecordError) -> bool {
    matches!(error, RecordError::Unavailable(_) | RecordError::DiskFull(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_database_is_away_and_a_syntax_error_is_not() {
        let codes = ["5", "517", "6", "57P01", "08006", "1", "42601", "11"];
        assert_eq!(codes.map(away), [true, true, true, true, true, false, false, false]);
    }
}
