//! The common case: an engine listens, takes the command, and its output is text.
//!
//! It is done without the C library, without memory from the heap and without anything that can panic, so that it can run before
//! the C library is set up: see `begin`. Whatever is uncommon is left to the rest of the program, at the latest moment that allows
//! it: before the command is sent nothing has happened, and afterwards the connection is handed over with what was read of it.

use std::cell::UnsafeCell;
use std::env;
use std::ffi::OsString;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connection::{Connection, Progress};
use crate::protocol::{PROTOCOL, RELEASE, is_environment_that_matters};
use crate::system::{self, Address, Descriptor, Hold};

/// A command line with its environment that is longer is uncommon.
const LONGEST_REQUEST: usize = 32 << 10;
/// So is a longer line of an answer: the engine sends output in parts that fit.
const LONGEST_ANSWER: usize = 256 << 10;
/// And a longer path.
const LONGEST_PATH: usize = 4096;

/// As the shell tells of a process that a broken pipe has ended.
const OUTPUT_CLOSED: u8 = 141;

/// What became of the common case.
pub(crate) enum Quick {
    /// The command has ended with this code.
    Done(u8),
    /// Something uncommon has come: the answers are to be read on.
    Open(Rest),
    /// The command was not taken.
    NotAsked,
}

/// A connection in the middle of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// The socket.
    pub(crate) socket: Descriptor,
    /// What was read of it and not understood.
    pub(crate) unread: &'static [u8],
    /// Whether the engine's greeting was read.
    pub(crate) greeted: bool,
}

impl Rest {
    #[allow(unsafe_code)]
    fn connection(self) -> Connection {
        let socket = i32::try_from(self.socket).expect("the kernel's numbers of files are small");
        // SAFETY: the socket was opened by `engine`, and with this value all that is left of it is given away.
        let stream = unsafe { UnixStream::from_raw_fd(socket) };
        Connection::resume(stream, self.unread, if self.greeted { Progress::Greeted } else { Progress::Sent })
    }
}

/// Asks an engine that listens to do the command of this process, unless that was done before `main`. Gives the command's code, or
/// the connection to go on with, or nothing where the command was not taken.
pub fn quick() -> Option<Result<u8, Connection>> {
    #[cfg(before_libc)]
    if let Some(rest) = crate::begin::left_over() {
        return Some(Err(rest.connection()));
    }
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let variables: Vec<Vec<u8>> = env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect();
    match ask(arguments.iter().map(|argument| argument.as_bytes()), variables.iter().map(Vec::as_slice)) {
        Quick::Done(code) => Some(Ok(code)),
        Quick::Open(rest) => Some(Err(rest.connection())),
        Quick::NotAsked => None,
    }
}

/// Room that costs nothing until it is used.
struct Room {
    taken: AtomicBool,
    bytes: UnsafeCell<[u8; LONGEST_ANSWER]>,
}

// SAFETY: the bytes are given away once: see `take_room`.
#[allow(unsafe_code)]
unsafe impl Sync for Room {}

static ROOM: Room = Room { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; LONGEST_ANSWER]) };

#[allow(unsafe_code)]
fn take_room() -> Option<&'static mut [u8]> {
    if ROOM.taken.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: nobody else has had it, and nobody gets it any more.
    Some(unsafe { &mut *ROOM.bytes.get() })
}

/// Asks the engine to do the command that these arguments are, in the environment of these variables, each as `NAME=value`.
/// Only the first call in a process can be answered.
pub(crate) fn ask<'a>(arguments: impl Iterator<Item = &'a [u8]>, variables: impl Iterator<Item = &'a [u8]> + Clone) -> Quick {
    let Some(room) = take_room() else { return Quick::NotAsked };
    let mut line = Line { room, length: 0 };
    let written = write_request(&mut line, arguments, variables.clone());
    let Some(socket) = written.and_then(|()| engine(&variables)) else { return Quick::NotAsked };
    if system::send(socket, line.written()).is_err() {
        system::close(socket);
        return Quick::NotAsked;
    }
    Answers { socket, room: line.room, start: 0, end: 0, greeted: false }.hand_on()
}

fn value<'a>(variables: &(impl Iterator<Item = &'a [u8]> + Clone), name: &str) -> Option<&'a [u8]> {
    variables.clone().find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// A connection to the engine, whose place is as `Place` checks it.
fn engine<'a>(variables: &(impl Iterator<Item = &'a [u8]> + Clone)) -> Option<Descriptor> {
    if value(variables, "HELIOS_NO_ENGINE").is_some_and(|value| !matches!(value, b"" | b"0")) {
        return None;
    }
    let user = system::effective_user();
    let mut path = [0; 128];
    let mut line = Line { room: &mut path, length: 0 };
    match value(variables, "XDG_RUNTIME_DIR") {
        Some(runtime) if runtime.first() == Some(&b'/') => {
            line.push(runtime)?;
            line.push(b"/helios")?;
        }
        Some(_) => return None,
        None => {
            line.push(b"/tmp/helios-")?;
            line.push_number(user)?;
        }
    }
    let length = line.length;
    line.push(b"\0")?;
    let found = system::look_at(line.written()).ok()?;
    const FOLDER: u16 = 0o040_000;
    if found.mode & 0o170_000 != FOLDER || found.user != user || found.mode & 0o077 != 0 {
        return None;
    }
    line.length = length;
    line.push(b"/engine.sock")?;
    system::connect(&Address::new(line.written())?).ok()
}

/// Writes the greeting and the request; none where something in it is uncommon.
fn write_request<'a>(
    line: &mut Line<'_>,
    arguments: impl Iterator<Item = &'a [u8]>,
    variables: impl Iterator<Item = &'a [u8]> + Clone,
) -> Option<()> {
    line.push(b"{\"helios\":")?;
    line.push_number(PROTOCOL)?;
    line.push(b",\"release\":")?;
    line.push_text(RELEASE.as_bytes())?;
    line.push(b"}\n{\"op\":\"run\",\"argv\":[")?;
    for (place, argument) in arguments.enumerate() {
        // It takes the whole environment.
        if place == 0 && argument == b"bisect" {
            return None;
        }
        line.separate(place)?;
        line.push_text(argument)?;
    }
    line.push(b"],\"cwd\":")?;
    let mut folder = [0; LONGEST_PATH];
    line.push_text(system::current_folder(&mut folder).ok()?)?;
    line.push(b",\"env\":{")?;
    let mut count = 0;
    for variable in variables.clone() {
        let Some(cut) = variable.iter().position(|byte| *byte == b'=') else { continue };
        let (Some(name), Some(value)) = (variable.get(..cut), variable.get(cut + 1..)) else { continue };
        if std::str::from_utf8(name).is_ok_and(is_environment_that_matters) {
            line.separate(count)?;
            line.push_text(name)?;
            line.push(b":")?;
            line.push_text(value)?;
            count += 1;
        }
    }
    line.push(b"}")?;
    let columns = system::columns(1);
    let plain = value(&variables, "NO_COLOR").is_some_and(|value| !value.is_empty());
    line.push(b",\"columns\":")?;
    line.push_number(columns.unwrap_or(0).into())?;
    line.push(if columns.is_some() && !plain { b",\"colour\":true" } else { b",\"colour\":false" })?;
    match value(&variables, "TZ") {
        // The engine knows the time of this machine.
        None => {}
        Some(b"" | b"UTC" | b"UTC0" | b"Etc/UTC") => line.push(b",\"offset_minutes\":0")?,
        Some(_) => return None,
    }
    line.push(b"}\n")
}

/// A text that grows; none from each of these where it would grow too long.
struct Line<'r> {
    room: &'r mut [u8],
    length: usize,
}

impl Line<'_> {
    fn written(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len()).filter(|end| *end <= LONGEST_REQUEST)?;
        let to = self.room.get_mut(self.length..end)?;
        to.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.length = end;
        Some(())
    }

    fn separate(&mut self, place: usize) -> Option<()> {
        if place == 0 { Some(()) } else { self.push(b",") }
    }

    fn push_number(&mut self, number: u32) -> Option<()> {
        if number >= 10 {
            self.push_number(number / 10)?;
        }
        self.push(&[b'0' + (number % 10) as u8])
    }

    /// A JSON text; none for bytes that are none.
    fn push_text(&mut self, text: &[u8]) -> Option<()> {
        std::str::from_utf8(text).ok()?;
        self.push(b"\"")?;
        for byte in text {
            match byte {
                b'"' => self.push(b"\\\"")?,
                b'\\' => self.push(b"\\\\")?,
                0x20.. => self.push(&[*byte])?,
                control => {
                    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
                    self.push(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 15)])?;
                }
            }
        }
        self.push(b"\"")
    }
}

/// What the engine says, as far as it was read.
struct Answers {
    socket: Descriptor,
    room: &'static mut [u8],
    start: usize,
    end: usize,
    greeted: bool,
}

/// A line that is understood.
enum Answer<'l> {
    Welcome,
    /// Output to a file, as a JSON text without its quotes.
    Output(Descriptor, &'l [u8]),
    Exit(u8),
}

impl Answers {
    /// Hands the output on until the command has ended, or something uncommon comes.
    fn hand_on(mut self) -> Quick {
        system::hold_pipe_signal(Hold::Begin);
        loop {
            let unread = self.room.get(self.start..self.end).unwrap_or_default();
            let Some(length) = unread.iter().position(|byte| *byte == b'\n') else {
                match self.read_more() {
                    Ok(true) => continue,
                    Ok(false) | Err(_) if !self.greeted && self.start == self.end => return self.not_taken(),
                    Ok(false) | Err(_) => return self.give_over(),
                }
            };
            let line = unread.get(..length).unwrap_or_default();
            match understand(line, self.greeted) {
                Some(Answer::Welcome) => self.greeted = true,
                Some(Answer::Output(to, text)) => {
                    if write_text(to, text).is_err() {
                        return Quick::Done(OUTPUT_CLOSED);
                    }
                }
                Some(Answer::Exit(code)) => return Quick::Done(code),
                None => return self.give_over(),
            }
            self.start += length + 1;
        }
    }

    /// False at the end, and where there is no room.
    fn read_more(&mut self) -> Result<bool, usize> {
        if self.start > 0 {
            self.room.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let free = self.room.get_mut(self.end..).unwrap_or_default();
        let read = if free.is_empty() { 0 } else { system::read(self.socket, free)? };
        self.end += read;
        Ok(read > 0)
    }

    fn not_taken(self) -> Quick {
        system::hold_pipe_signal(Hold::End);
        system::close(self.socket);
        Quick::NotAsked
    }

    fn give_over(self) -> Quick {
        system::hold_pipe_signal(Hold::End);
        let room: &'static [u8] = self.room;
        let unread = room.get(self.start..self.end).unwrap_or_default();
        Quick::Open(Rest { socket: self.socket, unread, greeted: self.greeted })
    }
}

/// The common lines, as the engine writes them.
fn understand(line: &[u8], greeted: bool) -> Option<Answer<'_>> {
    if !greeted {
        let rest = line.strip_prefix(b"{\"helios\":1,")?;
        let leaving = rest.windows(9).any(|part| part == b"\"leaving\"");
        return (!leaving).then_some(Answer::Welcome);
    }
    if let Some(code) = line.strip_prefix(b"{\"exit\":").and_then(|rest| rest.strip_suffix(b"}")) {
        return std::str::from_utf8(code).ok()?.parse().ok().map(Answer::Exit);
    }
    let (to, text) = match line.strip_prefix(b"{\"stdout\":\"") {
        Some(rest) => (1, rest),
        None => (2, line.strip_prefix(b"{\"stderr\":\"")?),
    };
    let text = text.strip_suffix(b"\"}")?;
    is_plain(text).then_some(Answer::Output(to, text))
}

/// Whether every escape is one that [`unescaped`] knows, and no quote is in it that has none.
fn is_plain(mut text: &[u8]) -> bool {
    while let Some((byte, rest)) = text.split_first() {
        text = match byte {
            b'"' => return false,
            b'\\' => match unescaped(rest) {
                Some((_, rest)) => rest,
                None => return false,
            },
            _ => rest,
        };
    }
    true
}

/// The byte that is meant by what follows a backslash, and the rest.
fn unescaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (byte, rest) = text.split_first()?;
    let meant = match byte {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        b'"' | b'\\' | b'/' => *byte,
        b'u' => {
            let (digits, rest) = rest.split_at_checked(4)?;
            let number = u8::from_str_radix(std::str::from_utf8(digits.strip_prefix(b"00")?).ok()?, 16).ok()?;
            // Above are characters of several bytes.
            return (number < 0x80).then_some((number, rest));
        }
        _ => return None,
    };
    Some((meant, rest))
}

/// Writes a text that [`is_plain`].
fn write_text(to: Descriptor, mut text: &[u8]) -> Result<(), usize> {
    let mut room = [0_u8; 4096];
    while !text.is_empty() {
        let mut length = 0;
        for place in &mut room {
            let Some((byte, rest)) = text.split_first() else { break };
            (*place, text) = match byte {
                b'\\' => unescaped(rest).unwrap_or((b'?', rest)),
                _ => (*byte, rest),
            };
            length += 1;
        }
        system::write(to, room.get(..length).unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::protocol::{Answer as Said, Line as SaidLine, Run, Text, Welcome};

    fn request(arguments: &[&[u8]], variables: &[&[u8]]) -> Option<String> {
        let mut room = vec![0; LONGEST_REQUEST];
        let mut line = Line { room: &mut room, length: 0 };
        write_request(&mut line, arguments.iter().copied(), variables.iter().copied())?;
        Some(String::from_utf8(line.written().to_vec()).expect("JSON is text"))
    }

    fn run(line: &str) -> Run {
        let mut fields = serde_json::from_str::<Value>(line.lines().nth(1).expect("a request")).expect("it is JSON");
        assert_eq!(fields.as_object_mut().expect("an object").remove("op"), Some("run".into()));
        serde_json::from_value(fields).expect("a run")
    }

    fn output(answer: Said) -> Option<Vec<u8>> {
        let line = serde_json::to_vec(&SaidLine { id: Value::Null, answer }).expect("it is JSON");
        let Some(Answer::Output(_, text)) = understand(&line, true) else { return None };
        let (mut rest, mut bytes) = (text, Vec::new());
        while let Some((byte, tail)) = rest.split_first() {
            let (byte, tail) = if *byte == b'\\' { unescaped(tail).expect("it is plain") } else { (*byte, tail) };
            bytes.push(byte);
            rest = tail;
        }
        Some(bytes)
    }

    #[test]
    fn a_request_is_the_one_that_the_rest_of_the_program_would_send() {
        let variables: [&[u8]; 4] = [b"HOME=/root", b"PATH=/bin", b"HELIOS_AUTHOR_NAME=A \"b\"\n", b"TZ=UTC"];
        let line = request(&[b"commit", b"-m", "ä\t\\".as_bytes()], &variables).expect("nothing is uncommon");
        let own = crate::caller(["commit", "-m", "ä\t\\"].into_iter().map(Into::into)).expect("there is a folder");
        let env = [("HOME", "/root"), ("HELIOS_AUTHOR_NAME", "A \"b\"\n")];
        let env = env.map(|(name, value)| (name.to_owned(), Text::new(value.as_bytes()))).into_iter().collect();
        assert_eq!(run(&line), Run { env, offset_minutes: Some(0), ..own });
        assert_eq!(line.lines().next(), Some(format!("{{\"helios\":{PROTOCOL},\"release\":\"{RELEASE}\"}}").as_str()));
    }

    #[test]
    fn what_is_uncommon_is_not_asked() {
        assert!(request(&[b"status"], &[]).is_some());
        assert!(request(&[b"bisect", b"run"], &[]).is_none(), "it takes the whole environment");
        assert!(request(&[b"add", b"\xff"], &[]).is_none(), "these bytes are no text");
        assert!(request(&[b"log"], &[b"TZ=Europe/Zurich"]).is_none(), "the C library knows the time there");
        assert!(request(&[&vec![b'x'; LONGEST_REQUEST]], &[]).is_none());
    }

    #[test]
    fn the_greeting_and_the_end_are_understood_and_what_is_uncommon_is_not() {
        let welcome = |leaving| Welcome { helios: PROTOCOL, release: RELEASE.to_owned(), pid: 7, leaving };
        let line = |leaving| serde_json::to_vec(&welcome(leaving)).expect("it is JSON");
        assert!(matches!(understand(&line(false), false), Some(Answer::Welcome)));
        assert!(understand(&line(true), false).is_none());
        assert!(matches!(understand(b"{\"exit\":128}", true), Some(Answer::Exit(128))));
        for other in
            ["{\"exit\":256}", "{\"error\":{}}", "{\"stdout\":{\"base64\":\"/w==\"}}", "{\"stdout\":\"a\",\"b\":\"c\"}", ""]
        {
            assert!(understand(other.as_bytes(), true).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn output_comes_out_as_it_was_written(text in ".{0,40}") {
            prop_assert_eq!(output(Said::Stdout(Text::Utf8(text.clone()))), Some(text.into_bytes()));
        }

        #[test]
        fn any_line_is_understood_or_not_and_never_a_panic(line in prop::collection::vec(any::<u8>(), 0..60), greeted in any::<bool>()) {
            let _ = understand(&line, greeted);
            let quoted = [b"{\"stdout\":\"".as_slice(), &line, b"\"}"].concat();
            if let Some(Answer::Output(_, text)) = understand(&quoted, true) {
                prop_assert!(is_plain(text));
            }
        }
    }
}
