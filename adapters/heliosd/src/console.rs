//! What a command writes to, and the codes it ends with.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use helix_protocol::{Code, Failure};
use parking_lot::Mutex;
use serde_json::Value;

/// Done.
pub const OK: u8 = 0;
/// Done, and the answer is no: differences, conflicts, a name that is not there.
pub const NO: u8 = 1;
/// It could not be done: git's code.
pub const FATAL: u8 = 128;
/// The command line is wrong: git's code.
pub const USAGE: u8 = 129;
/// Given up by who asked, as the shell tells of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Where a command's output goes.
pub trait Sink {
    /// Standard output.
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Standard error.
    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Whether nobody waits for the command any more.
    fn is_gone(&self) -> bool;
    /// The command has done its work: what it still says may be held back until its exit code is sent.
    fn ends(&mut self) {}
}

/// Output is gathered up to this many bytes before it is sent.
const CHUNK: usize = 32 << 10;

/// What a command is to warn of at its end, from wherever that is found.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds one.
    pub fn add(&self, text: String) {
        self.0.lock().push(text);
    }
}

/// Buffered output. A write that fails says that who asked is gone, and ends the command.
pub struct Console<'a> {
    sink: &'a mut dyn Sink,
    waiting: Vec<u8>,
    warnings: Warnings,
    failing: Option<u8>,
}

impl<'a> Console<'a> {
    /// On a sink.
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self { sink, waiting: Vec::new(), warnings: Warnings::default(), failing: None }
    }

    /// Writes bytes to standard output.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes a line to standard output.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.write(text.as_ref().as_bytes())?;
        self.write(b"\n")
    }

    /// Writes one JSON object as a line to standard output.
    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(value.to_string())
    }

    /// Writes a line to standard error, at once.
    pub fn note(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.flush()?;
        let line = format!("{}\n", text.as_ref());
        self.sink.stderr(line.as_bytes()).map_err(|_| gone())
    }

    /// Writes to standard error without a line's end.
    pub fn aside(&mut self, text: &str) -> Result<(), Failure> {
        self.flush()?;
        self.sink.stderr(text.as_bytes()).map_err(|_| gone())
    }

    /// Sends what is waiting.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.sink.stdout(&mem::take(&mut self.waiting)).map_err(|_| gone())
    }

    /// Where warnings for the command's end go.
    pub fn warnings(&self) -> Warnings {
        self.warnings.clone()
    }

    /// Tells of what is to be warned of, which no longer is.
    pub fn warn(&mut self) -> Result<(), Failure> {
        let warnings = mem::take(&mut *self.warnings.0.lock());
        warnings.iter().try_for_each(|text| self.note(format!("warning: {text}")))
    }

    /// Sends what is waiting, with the exit code that comes next.
    pub fn end(&mut self) -> Result<(), Failure> {
        self.sink.ends();
        self.flush()
    }

    /// Fails where nobody waits for the command any more. To be asked between the steps of long work, before something is changed.
    pub fn check(&self) -> Result<(), Failure> {
        if self.sink.is_gone() { Err(gone()) } else { Ok(()) }
    }

    /// Hands a result on. Where it is a failure the command ends with this code, as git's does, and not with the one of its kind.
    pub fn failing_with<T, E: Into<Failure>>(&mut self, code: u8, result: Result<T, E>) -> Result<T, Failure> {
        result.map_err(|error| {
            self.failing = Some(code);
            error.into()
        })
    }

    /// Tells of a failure as git does, or in JSON, and gives the code to end with.
    pub fn fail(&mut self, failure: &Failure, json: bool) -> u8 {
        let code = match (failure.code, self.failing) {
            (Code::Cancelled, _) => INTERRUPTED,
            (_, Some(code)) => code,
            (Code::InvalidState, None) => NO,
            (_, None) => FATAL,
        };
        let word = if code == NO { "error" } else { "fatal" };
        let told = if json {
            self.note(serde_json::json!({ "error": failure }).to_string())
        } else if failure.hint.is_empty() {
            self.note(format!("{word}: {}", failure.message))
        } else {
            self.note(format!("{word}: {}\nhint: {}", failure.message, failure.hint.replace('\n', "\nhint: ")))
        };
        // Where nobody reads it, the code still says it.
        told.map_or(INTERRUPTED, |()| code)
    }
}

fn gone() -> Failure {
    Failure::new(Code::Cancelled, "who asked does not wait any more")
}

/// The streams of this process.
pub struct OwnStreams;

impl Sink for OwnStreams {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().write_all(bytes)
    }

    fn is_gone(&self) -> bool {
        false
    }
}
