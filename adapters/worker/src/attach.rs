//! The bridge between a byte pipe (an SSH channel, a parent process) and the worker's socket. Its end
//! is silence; only its exit code 20 is a proof of death.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::thread;

use helix_protocol::{Code, Failure};
use serde_json::json;

use crate::folder::{Reached, WorkerFolder};
use crate::line;

const DEAD: u8 = 20;
const BUSY: u8 = 21;
const OTHER: u8 = 22;

/// Bridges until the connection ends.
pub fn run(folder: &WorkerFolder) -> ExitCode {
    let stream = match folder.socket().and_then(|socket| folder.reach(&socket)) {
        Ok(Reached::Connected(stream)) => stream,
        Ok(Reached::Dead) => {
            let message = format!("no worker runs in {}: its socket refuses and its lock is free", folder.path().display());
            return end(DEAD, &json!({"proof": "connection_refused", "message": message}));
        }
        Ok(Reached::Busy) => {
            let message = format!("the worker in {} holds its lock and does not answer", folder.path().display());
            return end(BUSY, &Failure::new(Code::WorkerUnreachable, message).hint("it may be starting or stopping; try again"));
        }
        Err(failure) => return end(OTHER, &failure),
    };
    let ours = match stream.try_clone() {
        Ok(ours) => ours,
        Err(error) => return end(OTHER, &Failure::new(Code::WorkerUnreachable, error.to_string())),
    };
    // Ends with the process: reading standard input cannot be interrupted.
    thread::spawn(move || {
        let _ = pass(&mut io::stdin().lock(), &mut &ours);
        let _ = ours.shutdown(Shutdown::Write);
    });
    let _ = pass(&mut &stream, &mut io::stdout().lock());
    ExitCode::SUCCESS
}

/// Passes bytes on as they come. The standard library's copy would hold lines of output back.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&piece[..length])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn end(code: u8, why: &impl serde::Serialize) -> ExitCode {
    eprintln!("{}", line(why));
    ExitCode::from(code)
}
