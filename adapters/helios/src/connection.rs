//! A connection to an engine that runs.

use std::io::{self, BufReader, Write};
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

/// A connection to an engine that has not been greeted yet.
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connects to the engine that listens there.
    pub fn open(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).map(|stream| Self { stream })
    }

    /// Greets and sends one command in one write, and hands its output on until it has ended. Dropping the connection, or the end
    /// of this process, cancels what runs.
    pub fn run(self, run: &Run, streams: &mut impl Streams) -> Outcome {
        let fields = match serde_json::to_value(run) {
            Ok(Value::Object(fields)) => fields,
            _ => unreachable!("a run is an object"),
        };
        let request = Request { id: Value::Null, op: "run".to_owned(), fields };
        let mut lines = encode(&Hello { helios: PROTOCOL, release: Some(RELEASE.to_owned()) });
        lines.extend(encode(&request));
        if let Err(error) = (&self.stream).write_all(&lines) {
            // A full answer may be waiting although the engine has hung up, but one that left has said nothing.
            return if is_gone(&error) { Outcome::NotTaken } else { Outcome::Lost(error) };
        }
        let mut stream = BufReader::with_capacity(64 << 10, &self.stream);
        let mut line = Vec::new();
        match read_line(&mut stream, &mut line) {
            Ok(Some(bytes)) => match serde_json::from_slice::<Welcome>(bytes) {
                Ok(welcome) if welcome.leaving => return Outcome::NotTaken,
                Ok(_) => {}
                Err(_) => match serde_json::from_slice::<Line>(bytes) {
                    Ok(Line { answer: Answer::Error(failure), .. }) => return Outcome::Refused(failure),
                    _ => return Outcome::Refused(not_understood(bytes)),
                },
            },
            Ok(None) => return Outcome::NotTaken,
            Err(error) if is_gone(&error) => return Outcome::NotTaken,
            Err(error) => return Outcome::Lost(error),
        }
        loop {
            let bytes = match read_line(&mut stream, &mut line) {
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
