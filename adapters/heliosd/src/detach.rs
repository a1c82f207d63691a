//! Leaving the terminal, session and files of who started the engine.

use std::fs::File;
use std::io::{self, Write};

use rustix::process::setsid;
use rustix::stdio::dup2_stdout;

/// Closes every file that was inherited beside the three standard ones. Whoever starts a `helios` with a pipe open would
/// otherwise wait for the engine to end before it sees the pipe's end. To be called before anything is opened.
#[allow(unsafe_code)]
pub fn close_inherited() {
    // SAFETY: it is the first thing this process does, one thread runs, and nothing of ours owns a file beyond the standard ones.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Leaves the session of the terminal, so that neither its end nor its Ctrl-C reaches the engine.
pub fn leave_session() {
    // It fails only for who leads a session already, and then there is nothing to leave.
    let _ = setsid();
}

/// Says one word to who started us, and hangs up.
pub fn say(word: &str) -> io::Result<()> {
    let said = io::stdout().write_all(format!("{word}\n").as_bytes()).and_then(|()| io::stdout().flush());
    dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    // Who started us may be gone, which is no reason not to serve.
    said.or(Ok(()))
}
