//! The file in which RocksDB notes its options.
//!
//! It repeats every option of every family, is never read, and with 75 KB is larger than many a packed store. Only a copy of the
//! database asks for it. So it is kept compressed in memory and is on disk only while a copy is made.

use std::fs;
use std::path::{Path, PathBuf};

use helix_objects::ObjectError;

#[derive(Debug)]
pub(super) struct OptionsFile {
    path: PathBuf,
    frame: Vec<u8>,
    length: usize,
}

impl OptionsFile {
    /// Takes the newest one out of the database's folder, and removes all others.
    pub(super) fn take(database: &Path) -> Result<Option<Self>, ObjectError> {
        let failed = |error| ObjectError::io(database, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(database).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"OPTIONS-")) {
                found.push(path);
            }
        }
        // Their numbers have six digits at least, so the order of names is that of age.
        found.sort();
        let newest = found.last().map(|path| {
            let text = fs::read(path)?;
            Ok(Self { path: path.clone(), frame: zstd::bulk::compress(&text, 3)?, length: text.len() })
        });
        let newest = newest.transpose().map_err(failed)?;
        for path in &found {
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(newest)
    }

    /// Has it on disk during `act`.
    pub(super) fn with<T>(&self, act: impl FnOnce() -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        let failed = |error| ObjectError::io(&self.path, error);
        let text = zstd::bulk::decompress(&self.frame, self.length).map_err(failed)?;
        fs::write(&self.path, text).map_err(failed)?;
        let outcome = act();
        fs::remove_file(&self.path).map_err(failed)?;
        outcome
    }
}
