//! What the worker and the process that drives an agent say to each other, over the socket that is that process' standard input.
//!
//! `helix-worker agent` runs as a command of the workspace, in its sandbox, and the agent is its child: what fences, freezes,
//! cancels and cleans up commands does so to agents. It is told one turn and answers with one report. Where the turn has access to
//! the gateway, it listens on the sandbox's loopback and hands the far end of every connection over here, because the sandbox has
//! no network that would lead there.
//!
//! Either way a frame is a four-byte big-endian length with its descriptors, then JSON. Whatever runs in the workspace could speak
//! for that process, so the worker believes nothing of it but the report, and connects to nothing but the turn's own gateway.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use helix_protocol::{AgentTurn, Failure, TurnReport};
use serde::{Deserialize, Serialize};

use crate::sandbox::{frame, receive, send_length};

/// What the driving process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// Somebody connected to the gateway's address; the far end comes along.
    Connected,
    /// The turn is over.
    Done(Result<Box<TurnReport>, Failure>),
}

/// The driving process' end.
pub struct TurnLine {
    socket: Mutex<UnixStream>,
}

impl TurnLine {
    /// Takes the turn from standard input, and leaves nothing there for the agent.
    pub fn take() -> io::Result<(Self, AgentTurn)> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        let (turn, _) = receive::<AgentTurn>(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((Self { socket: Mutex::new(socket) }, turn))
    }

    /// A connection to the gateway.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        self.say(&Said::Connected, Some(far.into()))?;
        Ok(near)
    }

    /// Ends the turn.
    pub fn done(&self, report: Result<TurnReport, Failure>) -> io::Result<()> {
        self.say(&Said::Done(report.map(Box::new)), None)
    }

    fn say(&self, said: &Said, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tell(&socket, said, descriptor)
    }
}

/// Sends one frame over a blocking socket.
pub(crate) fn tell(mut socket: &UnixStream, what: &impl Serialize, descriptor: Option<OwnedFd>) -> io::Result<()> {
    let (length, text) = frame(what);
    let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
    send_length(socket, length, &descriptors)?;
    socket.write_all(&text)
}
