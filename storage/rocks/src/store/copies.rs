//! For tests: the store as a process leaves it that dies behind a write.

use std::fs;
use std::path::{Path, PathBuf};

use helix_objects::ObjectError;
use parking_lot::Mutex;

use super::{MARK, RocksStore};
use crate::engine::Engine;

/// Where copies go, while some are wanted, and those that were made.
#[derive(Default)]
pub(super) struct Copies {
    folder: Mutex<Option<PathBuf>>,
    made: Mutex<Vec<PathBuf>>,
}

impl Copies {
    /// Called behind a write, by who has the writer's lock.
    pub(super) fn take(&self, store: &Path, engine: &Engine) -> Result<(), ObjectError> {
        let Some(folder) = &*self.folder.lock() else { return Ok(()) };
        let mut made = self.made.lock();
        let copy = folder.join(made.len().to_string());
        fs::create_dir_all(&copy).map_err(|error| ObjectError::io(&copy, error))?;
        engine.copy_to(&copy.join("db"))?;
        for name in ["format", MARK] {
            fs::copy(store.join(name), copy.join(name)).map_err(|error| ObjectError::io(&copy, error))?;
        }
        made.push(copy);
        Ok(())
    }
}

impl RocksStore {
    /// Does something, with a copy of the store in `folder` behind each write. Each is a store that can be opened.
    pub fn with_copies<T>(&self, folder: &Path, act: impl FnOnce() -> T) -> (T, Vec<PathBuf>) {
        *self.copies.folder.lock() = Some(folder.to_owned());
        let outcome = act();
        *self.copies.folder.lock() = None;
        (outcome, std::mem::take(&mut *self.copies.made.lock()))
    }
}
