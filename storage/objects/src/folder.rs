//! A store's folder: one owner at a time, and a format version that a newer program raises.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::ObjectError;

/// A store's folder is this process's until the value is dropped. The file `lock` is held with
/// `flock`, so no crash leaves anything to clean up.
#[derive(Debug)]
pub struct StoreLock {
    _held: File,
}

/// A folder that this process owns until the value is dropped. Its file `format` holds the
/// format's number as decimal text.
#[derive(Debug)]
pub struct StoreFolder {
    path: PathBuf,
    format: u32,
    _lock: StoreLock,
}

/// Options that open the file of a name and never what a link of that name leads to. For what is written where
/// others could put a link.
pub fn no_follow() -> OpenOptions {
    let mut options = File::options();
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// As [`fs::write`], never through a link.
pub fn write_no_follow(path: &Path, bytes: &[u8]) -> io::Result<()> {
    no_follow().write(true).create(true).truncate(true).open(path)?.write_all(bytes)
}

impl StoreLock {
    /// Makes the folder where it is missing, and takes it. Fails with `InUse`.
    pub fn take(path: &Path) -> Result<Self, ObjectError> {
        fs::create_dir_all(path).map_err(|error| ObjectError::io(path, error))?;
        let lock_path = path.join("lock");
        let lock = no_follow()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| ObjectError::io(&lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _held: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ObjectError::InUse { path: path.display().to_string() }),
            Err(error) => Err(ObjectError::io(&lock_path, error)),
        }
    }
}

impl StoreFolder {
    /// Makes the folder where it is missing, takes it, and compares its format with `known`, the
    /// newest this program can read. Fails with `InUse` or `NewerFormat`.
    pub fn open(path: &Path, known: u32) -> Result<Self, ObjectError> {
        let mut folder = Self { path: path.to_owned(), format: known, _lock: StoreLock::take(path)? };
        folder.format = folder.check_format(known)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of what is in it: an older one than was asked for where an older program made it.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Marks the folder as one of a newer format, which older programs refuse from then on.
    pub fn raise_format(&mut self, format: u32) -> Result<(), ObjectError> {
        if format > self.format {
            self.write_format(format)?;
            self.format = format;
        }
        Ok(())
    }

    /// Replaces a file of the folder whole: a reader sees the old bytes or the new ones.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        let path = self.path.join(name);
        let draft = self.path.join(format!("{name}.new"));
        let write = || {
            let mut file = no_follow().write(true).create(true).truncate(true).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| ObjectError::io(&path, error))
    }

    fn write_format(&self, format: u32) -> Result<(), ObjectError> {
        self.replace("format", format!("{format}\n").as_bytes())
    }

    fn check_format(&self, known: u32) -> Result<u32, ObjectError> {
        let path = self.path.join("format");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.write_format(known).map(|()| known),
            Err(error) => return Err(ObjectError::io(&path, error)),
        };
        let found: u32 = text.trim().parse().map_err(|_| {
            ObjectError::io(&path, std::io::Error::new(ErrorKind::InvalidData, "the format file does not hold a number"))
        })?;
        if found > known {
            return Err(ObjectError::NewerFormat { path: self.path.display().to_string(), found, known });
        }
        Ok(found)
    }
}
