//! What was answered, a line of JSON for each answer: the witness outside the system.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use helix_protocol::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it ended, in microseconds since 1970.
    pub time: Timestamp,
    /// A hash of the request's body.
    pub request: String,
    /// The request's idempotency key.
    pub key: Option<String>,
    /// The scenario; empty where none fitted.
    pub scenario: String,
    /// The turn, from 0; the recovery of a turn has its number.
    pub turn: usize,
    /// True of a recovery.
    pub recovery: bool,
    /// The HTTP status.
    pub status: u16,
    /// What was made to go wrong.
    pub fault: Option<String>,
    /// What the person said after the first message; answers of tools left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
    /// Whether the model's whole answer was handed over to be sent. Only then was a reply certainly given.
    pub completed: bool,
}

/// Where the lines go.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Mutex<File>,
}

impl Log {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("{}: the log cannot be written", path.display()))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file) })
    }

    /// Appends a line, in one write.
    pub fn write(&self, line: &LogLine) {
        let mut text = serde_json::to_string(line).expect("a line has only texts and numbers");
        text.push('\n');
        if let Err(error) = self.file.lock().write_all(text.as_bytes()) {
            tracing::error!(path = %self.path.display(), %error, "the scripted server's log cannot be written");
        }
    }
}

/// The lines of a log.
pub fn read_log(path: &Path) -> anyhow::Result<Vec<LogLine>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: the log cannot be read", path.display()))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))).collect()
}

/// How many replies were given again although the same call had been answered completely before.
pub fn repeated_replies(lines: &[LogLine]) -> usize {
    let mut given: HashMap<&str, usize> = HashMap::new();
    for key in lines.iter().filter(|line| line.completed).filter_map(|line| line.key.as_deref()) {
        *given.entry(key).or_default() += 1;
    }
    given.values().map(|times| times - 1).sum()
}
