//! The worker's log: a file that begins anew when it is large, the last one kept beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use helix_protocol::{Code, Failure};
use tracing_subscriber::EnvFilter;

/// A log file's size, in bytes, at which another is begun.
const LARGE: u64 = 8 * 1024 * 1024;

/// Logs to a file from now on, panics too.
pub fn init(path: PathBuf) -> Result<(), Failure> {
    let file = Rotating::open(path.clone()).map_err(|error| Failure::io(path.display(), &error))?;
    let filter = EnvFilter::try_from_env(helix_kernel::telemetry::VARIABLE).unwrap_or_else(|_| EnvFilter::new("ractor=warn,info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .try_init()
        .map_err(|error| Failure::new(Code::Internal, format!("the log cannot be set up: {error}")))?;
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    Ok(())
}

struct Rotating {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Rotating {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length })
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension("log.1"))?;
        *self = Self::open(std::mem::take(&mut self.path))?;
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.length > LARGE {
            self.rotate()?;
        }
        self.length += line.len() as u64;
        self.file.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_set_aside_and_another_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("worker.log");
        let mut log = Rotating::open(path.clone()).expect("a log");
        log.length = LARGE + 1;
        log.write_all(b"new").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert!(path.with_extension("log.1").exists());
    }
}
