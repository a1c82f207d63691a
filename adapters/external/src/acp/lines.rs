//! The agent's output line by line: its messages, and what it prints besides.

use super::wire::Incoming;
use crate::transcript::cut;

/// Lines that are no message before the first that is one; then this is no agent.
const GARBAGE: usize = 64;
/// The most of a line that is shown, in bytes.
const SHOWN: usize = 4_000;

/// What a line is.
#[derive(Debug)]
pub enum Line {
    Message(Box<Incoming>),
    /// No message, as it is shown; it is not empty.
    Printed(String),
    Blank,
}

/// The lines so far.
#[derive(Debug, Default)]
pub struct Lines {
    understood: bool,
    garbage: usize,
}

impl Lines {
    /// Reads one, with or without its end.
    pub fn read(&mut self, line: &[u8]) -> Line {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Line::Blank;
        }
        match serde_json::from_slice(line) {
            Ok(message) => {
                self.understood = true;
                Line::Message(message)
            }
            Err(_) => {
                self.garbage += 1;
                Line::Printed(cut(String::from_utf8_lossy(line).trim_end(), SHOWN).to_owned())
            }
        }
    }

    /// True once so much came that is no message that none is to be expected.
    pub fn are_no_agents(&self) -> bool {
        !self.understood && self.garbage >= GARBAGE
    }
}
