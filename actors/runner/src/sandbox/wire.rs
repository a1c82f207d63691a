//! What the worker and a sandbox's process say to each other over the socket between them.
//!
//! To the sandbox: a four-byte big-endian length with the descriptors, then JSON. From it: one JSON value a line. What runs in a
//! sandbox could take its process over, so what it says is bounded and nothing of it is believed beyond the sandbox.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest line a sandbox may say, in bytes.
pub const LONGEST_LINE: u64 = 64 * 1024;
/// The longest thing a sandbox is told, in bytes.
const LONGEST_FRAME: usize = 16 << 20;
/// Descriptors that come with a length, at most.
const DESCRIPTORS: usize = 2;

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// This, by `sh -c`.
    Shell(String),
    /// The worker's own program, with these arguments.
    Own(Vec<String>),
}

impl Program {
    /// What is started, by `own` where it is the worker's.
    pub fn command(&self, own: &Path) -> std::process::Command {
        match self {
            // By its path: searching for it would cost a failed start for each folder of PATH.
            Self::Shell(text) => {
                let mut command = std::process::Command::new("/bin/sh");
                command.arg("-c").arg(text);
                command
            }
            Self::Own(arguments) => {
                let mut command = std::process::Command::new(own);
                command.args(arguments);
                command
            }
        }
    }
}

/// A command for the sandbox; the descriptor of its output comes along, and behind it that of its input where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Names it between the two.
    pub id: u64,
    /// What.
    pub program: Program,
    /// Where.
    pub folder: PathBuf,
    /// With these variables and no others.
    pub variables: Vec<(String, String)>,
}

/// What a sandbox says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It has a user namespace, and needs the ids that only its parent may give it. It goes on when it is told anything.
    NeedsIds,
    /// Everything the policy asks for is on.
    Ready,
    /// It is not, and the process ends.
    Failed {
        /// What could not be done, and why.
        reason: String,
    },
    /// A command was started as the leader of a group of its own.
    Started {
        /// The order's.
        id: u64,
        /// Its process.
        pid: i32,
    },
    /// A command could not be started.
    Refused {
        /// The order's.
        id: u64,
        /// The system's number for why.
        errno: i32,
    },
    /// A command has ended.
    Ended {
        /// The order's.
        id: u64,
        /// Its wait status.
        status: i32,
    },
}

/// A length with what follows it, as bytes.
pub fn frame(value: &impl Serialize) -> ([u8; 4], Vec<u8>) {
    let text = serde_json::to_vec(value).expect("our own types can always be encoded");
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    (length.to_be_bytes(), text)
}

/// Sends a length with descriptors, whole or not at all.
pub fn send_length(socket: impl AsFd, length: [u8; 4], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    match sendmsg(socket, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)? {
        4 => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Takes the next frame with its descriptors; `None` at the end.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    (&mut &*socket).read_exact(&mut length[got..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    (&mut &*socket).read_exact(&mut text)?;
    let value = serde_json::from_slice(&text).map_err(io::Error::other)?;
    Ok(Some((value, descriptors)))
}
