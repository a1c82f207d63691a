//! Lines that a person types while a task is followed.
//!
//! The terminal is read by a thread that looks before it reads: a process in the background that read from its
//! terminal would be stopped.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

/// Longest line; what is longer is cut there.
const LINE_BYTES: usize = 32 * 1024;
/// How often a thread that nobody listens to any more notices that.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Lines from standard input, without their ends and without empty ones.
#[derive(Debug)]
pub(super) struct Typed {
    lines: mpsc::Receiver<String>,
}

impl Typed {
    /// What is typed at the terminal; `None` where standard input is something else, which is not ours to use up.
    pub fn at_terminal() -> Option<Self> {
        std::io::stdin().is_terminal().then(Self::from_stdin)
    }

    /// The lines of standard input, whatever it is.
    pub fn from_stdin() -> Self {
        let (sender, lines) = mpsc::channel(16);
        std::thread::spawn(move || read(&sender));
        Self { lines }
    }

    /// The next line. After the last one it waits for ever.
    pub async fn next(&mut self) -> String {
        match self.lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

/// Reads until the input ends or nobody listens.
fn read(lines: &mpsc::Sender<String>) {
    let stdin = std::io::stdin();
    let (mut pending, mut buffer) = (Vec::new(), [0; 4_096]);
    while !lines.is_closed() {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut ready, Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) if !is_in_front() => {
                std::thread::sleep(std::time::Duration::from_millis(200));
                continue;
            }
            Ok(_) => {}
            Err(_) => return,
        }
        match rustix::io::read(stdin.as_fd(), &mut buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(read) if read > 0 => {
                pending.extend_from_slice(&buffer[..read]);
                if !told(&mut pending, lines) {
                    return;
                }
            }
            _ => {
                pending.push(b'\n');
                told(&mut pending, lines);
                return;
            }
        }
    }
}

/// True unless standard input is a terminal that another process group has.
fn is_in_front() -> bool {
    let stdin = std::io::stdin();
    rustix::termios::tcgetpgrp(&stdin).map_or(true, |group| group == rustix::process::getpgrp())
}

/// Hands the whole lines over; false where nobody takes them.
fn told(pending: &mut Vec<u8>, lines: &mpsc::Sender<String>) -> bool {
    for line in whole_lines(pending) {
        if lines.blocking_send(line).is_err() {
            return false;
        }
    }
    true
}

/// Takes the whole lines out of what was read.
fn whole_lines(pending: &mut Vec<u8>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(end) = pending.iter().position(|byte| *byte == b'\n').or((pending.len() > LINE_BYTES).then_some(LINE_BYTES)) {
        let line: Vec<u8> = pending.drain(..=end.min(pending.len() - 1)).collect();
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        lines.extend((!text.is_empty()).then_some(text));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_trimmed_and_never_empty() {
        let mut pending = b"  first \n\n \nsecond\nthi".to_vec();
        assert_eq!(whole_lines(&mut pending), ["first", "second"]);
        assert_eq!(pending, b"thi");
        pending.extend_from_slice(b"rd\n");
        assert_eq!(whole_lines(&mut pending), ["third"]);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut pending = vec![b'a'; LINE_BYTES + 10];
        let lines = whole_lines(&mut pending);
        assert_eq!((lines.len(), lines[0].len(), pending.len()), (1, LINE_BYTES + 1, 9));
    }
}
