//! One connection: the greeting, then one request after the other.

use std::cell::{Cell, RefCell};
use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use helios_client::{Answer, Hello, LONGEST_LINE, Line, PROTOCOL, RELEASE, Release, Request, Run, Text, Welcome, read_line};
use helix_protocol::{Code, Failure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde::Serialize;
use serde_json::Value;

use crate::commands;
use crate::console::Sink;
use crate::engine::Seat;
use crate::operations;

/// Serves a connection until its client hangs up.
pub fn serve(seat: &Seat, stream: &UnixStream) {
    let session = Session { seat, out: Out::new(stream) };
    if let Err(error) = session.serve() {
        tracing::debug!(%error, "a connection has ended");
    }
}

/// Tells a client that there are too many.
pub fn refuse_crowd(stream: &UnixStream) {
    let failure = Failure::new(Code::Overloaded, "the engine has as many connections as it serves").hint("try again in a moment");
    // A client that has gone needs no answer.
    let _ = Wire { out: &Out::new(stream), id: Value::Null }.answer(Answer::Error(failure));
}

struct Session<'a> {
    seat: &'a Seat,
    out: Out<'a>,
}

impl Session<'_> {
    fn serve(&self) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(16 << 10, self.out.stream);
        let mut line = Vec::new();
        let Some(first) = read_line(&mut reader, &mut line)? else { return Ok(()) };
        if !self.greet(first)? {
            return Ok(());
        }
        loop {
            let line = match read_line(&mut reader, &mut line) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let failure = Failure::new(Code::InvalidRequest, error.to_string()).hint("send less in one request");
                    return self.wire(Value::Null).answer(Answer::Error(failure));
                }
                Err(error) => return Err(error),
            };
            match serde_json::from_slice::<Request>(line) {
                Ok(request) => self.request(request)?,
                Err(error) => self.wire(Value::Null).answer(Answer::Error(malformed("a request", &error)))?,
            }
            if reader.buffer().is_empty() && self.engine_leaves_before_more()? {
                return Ok(());
            }
        }
    }

    /// Waits for the next request or for the engine's leave: a program that has nothing to ask keeps no store from the next engine.
    fn engine_leaves_before_more(&self) -> io::Result<bool> {
        loop {
            let mut watched = [PollFd::new(self.out.stream, PollFlags::IN), PollFd::new(self.seat.engine().wake(), PollFlags::IN)];
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(watched[0].revents().is_empty()),
            }
        }
    }

    /// Answers the greeting; says whether requests may follow.
    fn greet(&self, line: &[u8]) -> io::Result<bool> {
        let hello = match serde_json::from_slice::<Hello>(line) {
            Ok(hello) => hello,
            Err(error) => {
                let failure = malformed("the greeting", &error).hint(format!("begin with {{\"helios\": {PROTOCOL}}}"));
                self.wire(Value::Null).answer(Answer::Error(failure))?;
                return Ok(false);
            }
        };
        let newer = hello.helios > PROTOCOL
            || hello
                .release
                .as_deref()
                .and_then(|text| text.parse::<Release>().ok())
                .is_some_and(|release| release > Release::own());
        let leaving = newer && self.seat.engine().leave_if_alone(self.seat);
        if hello.helios != PROTOCOL && !leaving {
            self.wire(Value::Null).answer(Answer::Error(mismatch(&hello)))?;
            return Ok(false);
        }
        let welcome = Welcome { helios: PROTOCOL, release: RELEASE.to_owned(), pid: std::process::id(), leaving };
        // At once: a client that was not greeted may ask another engine, since nothing was done.
        self.out.add(&welcome)?;
        self.out.send()?;
        Ok(!leaving)
    }

    fn request(&self, request: Request) -> io::Result<()> {
        let mut wire = self.wire(request.id);
        let answer = match request.op.as_str() {
            "run" => match serde_json::from_value::<Run>(Value::Object(request.fields)) {
                Ok(run) => self.run(run, &mut wire),
                Err(error) => Answer::Error(malformed("run", &error)),
            },
            other => catch_unwind(AssertUnwindSafe(|| operations::run(self.seat.engine(), other, request.fields, &mut wire)))
                .unwrap_or_else(|_| Answer::Error(self.own_fault())),
        };
        let answered = wire.answer(answer);
        // Nobody waits for it by now.
        self.seat.engine().make_room();
        answered
    }

    /// Does a command. One that panics is a fault of ours, and is told as one.
    fn run(&self, run: Run, wire: &mut Wire<'_>) -> Answer {
        match catch_unwind(AssertUnwindSafe(|| commands::run(self.seat.engine(), run, wire))) {
            Ok(code) => Answer::Exit(code),
            Err(_) => Answer::Error(self.own_fault()),
        }
    }

    /// What a panic leaves in memory is not known, so the next command gets another engine.
    fn own_fault(&self) -> Failure {
        self.seat.engine().leave();
        Failure::new(Code::Internal, "the engine met a fault of its own and gave the request up")
            .hint("nothing half-done counts; the engine's log says where it was, please report it")
    }

    fn wire(&self, id: Value) -> Wire<'_> {
        Wire { out: &self.out, id }
    }
}

fn malformed(what: &str, error: &serde_json::Error) -> Failure {
    Failure::new(Code::InvalidRequest, format!("{what} cannot be read: {error}"))
        .hint("docs/helios-protocol.md describes each line")
}

fn mismatch(hello: &Hello) -> Failure {
    let theirs = hello.release.as_deref().unwrap_or("unknown");
    let message =
        format!("the client (release {theirs}) speaks protocol {}, the engine (release {RELEASE}) {PROTOCOL}", hello.helios);
    let hint = if hello.helios > PROTOCOL {
        "the engine has work to finish: try again in a moment, or `helios engine stop`"
    } else {
        "install the client of the engine's release, or stop the engine with `helios engine stop` of that release"
    };
    Failure::new(Code::VersionMismatch, message).hint(hint)
}

/// Lines for a client.
struct Out<'a> {
    stream: &'a UnixStream,
    waiting: RefCell<Vec<u8>>,
    /// The command has done its work; what it still says goes with its end.
    ending: Cell<bool>,
}

/// So much does not wait, whatever it is.
const MOST_WAITING: usize = 64 << 10;
/// A command's output goes in pieces of so many bytes: however they are written, a line is far shorter than the longest.
const PIECE: usize = 1 << 20;

impl<'a> Out<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        Self { stream, waiting: RefCell::default(), ending: Cell::new(false) }
    }

    /// Adds a line; false where nobody could read it, because it is too long.
    fn add(&self, value: &impl Serialize) -> io::Result<bool> {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.len();
        serde_json::to_writer(&mut *waiting, value).map_err(io::Error::other)?;
        let fits = (waiting.len() - before) as u64 <= LONGEST_LINE;
        if fits {
            waiting.push(b'\n');
        } else {
            waiting.truncate(before);
            waiting.shrink_to(MOST_WAITING);
        }
        Ok(fits)
    }

    fn send(&self) -> io::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        let mut stream = self.stream;
        let sent = stream.write_all(&waiting);
        waiting.clear();
        sent
    }
}

/// The way back to a client.
pub struct Wire<'a> {
    out: &'a Out<'a>,
    id: Value,
}

impl Wire<'_> {
    /// Sends one answer.
    pub fn answer(&mut self, answer: Answer) -> io::Result<()> {
        let is_last = matches!(answer, Answer::Exit(_) | Answer::Ok(_) | Answer::Error(_));
        let is_result = matches!(answer, Answer::Ok(_));
        if !self.out.add(&Line { id: self.id.clone(), answer })? {
            if !is_result {
                // The request's id alone is nearly that long.
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer is longer than a line may be"));
            }
            let failure =
                Failure::new(Code::InvalidRequest, format!("the answer is longer than a line may be ({LONGEST_LINE} bytes)"))
                    .hint("ask for less of it: `read_file` takes `offset` and `length`, `log` takes `limit`");
            return self.answer(Answer::Error(failure));
        }
        if is_last {
            self.out.ending.set(false);
        } else if self.out.ending.get() && self.out.waiting.borrow().len() < MOST_WAITING {
            return Ok(());
        }
        self.out.send()
    }
}

impl Sink for Wire<'_> {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.answer(Answer::Stdout(Text::new(piece))))
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.answer(Answer::Stderr(Text::new(piece))))
    }

    fn ends(&mut self) {
        self.out.ending.set(true);
    }

    fn is_gone(&self) -> bool {
        let mut waited = [PollFd::new(self.out.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut waited, Some(&now)).is_ok_and(|ready| ready > 0) && waited[0].revents().contains(PollFlags::HUP)
    }
}
