//! A connection to an engine that runs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use helix_protocol::{Code, Failure};
use serde_json::Value;

use crate::protocol::{Answer, Hello, Line, PROTOCOL, RELEASE, Request, Run, Welcome, read_line};

/// Where the output of a command goes.
pub trait Streams {
    /// Standard output.
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Standard error.
    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// How a command that was sent has ended.
#[derive(Debug)]
pub enum Outcome {
    /// With this code.
    Exit(u8),
    /// The engine refused it as a whole.
    Refused(Failure),
    /// The engine left before it took the command: nothing was done, and another one may be asked.
    NotTaken,
    /// The engine is gone in the middle of it.
    Lost(io::Error),
    /// The output cannot be written any more.
    OutputClosed(io::Error),
}

/// A connection to an engine, for one command.
pub struct Connection {
    stream: UnixStream,
    /// What was read of it already.
    unread: &'static [u8],
    progress: Progress,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing was sent.
    Begun,
    /// Greeting and command were sent.
    Sent,
    /// The engine has greeted.
    Greeted,
}

impl Connection {
    /// Connects to the engine that listens there.
    pub fn open(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).map(|stream| Self { stream, unread: &[], progress: Progress::Begun })
    }

    /// One in the middle of a command.
    pub(crate) fn resume(stream: UnixStream, unread: &'static [u8], progress: Progress) -> Self {
        Self { stream, unread, progress }
    }

    /// Greets and sends one command in one write where that was not done, and hands its output on until it has ended. Dropping the
    /// connection, or the end of this process, cancels what runs.
    pub fn run(self, run: &Run, streams: &mut impl Streams) -> Outcome {
        if self.progress == Progress::Begun
            && let Err(error) = self.send(run)
        {
            // A full answer may be waiting although the engine has hung up, but one that left has said nothing.
            return if is_gone(&error) { Outcome::NotTaken } else { Outcome::Lost(error) };
        }
        let mut answers = BufReader::with_capacity(64 << 10, self.unread.chain(&self.stream));
        let mut line = Vec::new();
        if self.progress != Progress::Greeted
            && let Some(outcome) = not_welcome(&mut answers, &mut line)
        {
            return outcome;
        }
        loop {
            let bytes = match read_line(&mut answers, &mut line) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Outcome::Lost(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Outcome::Lost(error),
            };
            let written = match serde_json::from_slice::<Line>(bytes).map(|line| line.answer) {
                Ok(Answer::Stdout(text)) => streams.stdout(text.as_bytes()),
                Ok(Answer::Stderr(text)) => streams.stderr(text.as_bytes()),
                Ok(Answer::Exit(code)) => return Outcome::Exit(code),
                Ok(Answer::Error(failure)) => return Outcome::Refused(failure),
                Ok(Answer::Event(_) | Answer::Ok(_)) | Err(_) => return Outcome::Refused(not_understood(bytes)),
            };
            if let Err(error) = written {
                return Outcome::OutputClosed(error);
            }
        }
    }

    fn send(&self, run: &Run) -> io::Result<()> {
        let fields = match serde_json::to_value(run) {
            Ok(Value::Object(fields)) => fields,
            _ => unreachable!("a run is an object"),
        };
        let request = Request { id: Value::Null, op: "run".to_owned(), fields };
        let mut lines = encode(&Hello { helios: PROTOCOL, release: Some(RELEASE.to_owned()) });
        lines.extend(encode(&request));
        (&self.stream).write_all(&lines)
    }
}

/// Reads the greeting; gives the outcome where it is none.
fn not_welcome(answers: &mut impl BufRead, line: &mut Vec<u8>) -> Option<Outcome> {
    match read_line(answers, line) {
        Ok(Some(bytes)) => match serde_json::from_slice::<Welcome>(bytes) {
            Ok(welcome) if welcome.leaving => Some(Outcome::NotTaken),
            Ok(_) => None,
            Err(_) => match serde_json::from_slice::<Line>(bytes) {
                Ok(Line { answer: Answer::Error(failure), .. }) => Some(Outcome::Refused(failure)),
                _ => Some(Outcome::Refused(not_understood(bytes))),
            },
        },
        Ok(None) => Some(Outcome::NotTaken),
        Err(error) if is_gone(&error) => Some(Outcome::NotTaken),
        Err(error) => Some(Outcome::Lost(error)),
    }
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("texts and numbers are JSON");
    line.push(b'\n');
    line
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn not_understood(line: &[u8]) -> Failure {
    let start: String = String::from_utf8_lossy(line).chars().take(80).collect();
    Failure::new(Code::ProtocolError, format!("the engine answered what this client does not understand: {start}"))
        .hint("client and engine must be of the same release: `helios engine stop`, then try again")
}
