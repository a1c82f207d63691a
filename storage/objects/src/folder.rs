//! A store's folder: one owner at a time, and a format version that a newer program raises.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::ObjectError;

/// A folder that this process owns until the value is dropped. Its file `lock` is held with
/// `flock`, so no crash leaves anything to clean up; its file `format` holds the format's number
/// as decimal text.
#[derive(Debug)]
pub struct StoreFolder {
    path: PathBuf,
    _lock: File,
}

impl StoreFolder {
    /// Makes the folder where it is missing, takes it, and compares its format with `known`, the
    /// newest this program can read. Fails with `InUse` or `NewerFormat`.
    pub fn open(path: &Path, known: u32) -> Result<Self, ObjectError> {
        fs::create_dir_all(path).map_err(|error| ObjectError::io(path, error))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| ObjectError::io(&lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ObjectError::InUse { path: path.display().to_string() }),
            Err(error) => return Err(ObjectError::io(&lock_path, error)),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.check_format(known)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a file of the folder whole: a reader sees the old bytes or the new ones.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        let path = self.path.join(name);
        let draft = self.path.join(format!("{name}.new"));
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| ObjectError::io(&path, error))
    }

    fn check_format(&self, known: u32) -> Result<(), ObjectError> {
        let path = self.path.join("format");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.replace("format", format!("{known}\n").as_bytes()),
            Err(error) => return Err(ObjectError::io(&path, error)),
        };
        let found: u32 = text.trim().parse().map_err(|_| {
            ObjectError::io(&path, std::io::Error::new(ErrorKind::InvalidData, "the format file does not hold a number"))
        })?;
        if found > known {
            return Err(ObjectError::NewerFormat { path: self.path.display().to_string(), found, known });
        }
        Ok(())
    }
}
