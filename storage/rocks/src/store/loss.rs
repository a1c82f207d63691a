//! What a store lost of what it had acknowledged.

use std::path::Path;

use helix_objects::{Mark, ObjectError};

use crate::RocksOptions;
use crate::engine::{Engine, Head};

/// Acknowledged writes that were not there any more when a store was opened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How far writes are there.
    pub recovered: Mark,
    /// How far they were acknowledged; `None` where the file that says so was damaged or gone.
    pub acknowledged: Option<Mark>,
}

impl Loss {
    pub(super) fn between(found: Found, acknowledged: Option<Mark>) -> Option<Self> {
        let recovered = found.recovered(acknowledged);
        let lost = found.is_cut || acknowledged.is_none_or(|acknowledged| recovered < acknowledged);
        lost.then_some(Self { recovered, acknowledged })
    }
}

/// What a look at a database finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) head: Head,
    /// It can only be opened without what is behind a damage of its log, and has tables that are newer.
    pub(super) is_cut: bool,
}

impl Found {
    /// How far all writes are there.
    fn recovered(self, acknowledged: Option<Mark>) -> Mark {
        let found = Mark(self.head.ordinal);
        match acknowledged {
            // The head may be one of the newer tables, with writes missing before it.
            Some(Mark(acknowledged)) if self.is_cut => found.min(Mark(acknowledged.saturating_sub(1))),
            _ => found,
        }
    }

    /// Refuses what is less than was acknowledged.
    pub(super) fn complete(self, acknowledged: Mark) -> Result<(), ObjectError> {
        match Loss::between(self, Some(acknowledged)) {
            Some(Loss { recovered, .. }) => Err(ObjectError::LostWrites { recovered, acknowledged }),
            None => Ok(()),
        }
    }
}

/// What is there, without changing anything.
pub(super) fn look(database: &Path, options: &RocksOptions) -> Result<Found, ObjectError> {
    if !database.join("CURRENT").exists() {
        return Ok(Found::default());
    }
    let (engine, is_cut) = match Engine::open_read_only(database, options) {
        Ok(engine) => (engine, false),
        Err(error) => match Engine::open_read_only_cut(database, options) {
            Ok(Some(engine)) => (engine, true),
            Ok(None) | Err(_) => return Err(error),
        },
    };
    Ok(Found { head: engine.head()?, is_cut })
}
