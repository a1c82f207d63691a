//! The binary `helios`: hands its arguments to the engine, its output to the terminal.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use helios_client::{Connection, Outcome, Place, Run, Started, Streams, Text, caller, exec_one_shot, find_engine, start_engine};
use helix_protocol::Code;

/// How long an engine that is being started, or has just left, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client that the engine has no room for stays away.
const CROWD: Duration = Duration::from_millis(50);

/// git's code for what could not be done.
const FATAL: u8 = 128;

/// The output cannot be written: as the shell tells of a process that a broken pipe has ended.
const OUTPUT_CLOSED: u8 = 141;

struct Terminal;

impl Streams for Terminal {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().write_all(bytes)
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let begun = match helios_client::quick() {
        Some(Ok(code)) => return code.into(),
        Some(Err(connection)) => Some(connection),
        None => None,
    };
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let begun = None;
    let run = match caller(std::env::args_os().skip(1)) {
        Ok(run) => run,
        Err(error) => return fatal(&format!("the current folder cannot be told: {error}"), "change to a folder that exists"),
    };
    let alone = std::env::var_os("HELIOS_NO_ENGINE").is_some_and(|value| !value.is_empty() && value != "0");
    let reason = if alone {
        "HELIOS_NO_ENGINE is set".to_owned()
    } else {
        match through_engine(&run, begun) {
            Ok(code) => return code,
            Err(reason) => reason,
        }
    };
    let program = find_engine();
    let error = exec_one_shot(&program, std::env::args_os().skip(1));
    let message = format!("{} cannot be run: {error}; and no engine can be used: {reason}", program.display());
    fatal(&message, "install heliosd beside helios, or name it in HELIOS_ENGINE")
}

/// The command's code, or why there is no engine to ask. Goes on with a command that was begun, where one was.
fn through_engine(run: &Run, mut begun: Option<Connection>) -> Result<ExitCode, String> {
    let place = Place::find().map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let connection = match begun.take().map_or_else(|| Connection::open(&place.socket()), Ok) {
            Ok(connection) => connection,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                if is_about_engine(&run.argv) {
                    return Err("none runs".to_owned());
                }
                start(&find_engine())?;
                match Connection::open(&place.socket()) {
                    Ok(connection) => connection,
                    // The engine that has the lock is only about to listen, or about to leave.
                    Err(error) => {
                        if started.elapsed() > PATIENCE {
                            return Err(format!("the engine does not answer: {error}"));
                        }
                        sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(100));
                        continue;
                    }
                }
            }
            Err(error) => return Err(format!("{}: {error}", place.socket().display())),
        };
        match connection.run(run, &mut Terminal) {
            Outcome::Exit(code) => return Ok(code.into()),
            // So many are connected at once: nothing was done yet.
            Outcome::Refused(failure) if failure.code == Code::Overloaded && started.elapsed() < PATIENCE => sleep(CROWD),
            Outcome::Refused(failure) => return Ok(fatal(&failure.message, &failure.hint)),
            Outcome::OutputClosed(_) => return Ok(OUTPUT_CLOSED.into()),
            Outcome::NotTaken if started.elapsed() > PATIENCE => return Err("engines keep leaving".to_owned()),
            Outcome::NotTaken => sleep(pause),
            Outcome::Lost(error) => {
                let message = format!("the engine is gone in the middle of the command: {error}");
                return Ok(fatal(
                    &message,
                    "what was acknowledged is kept; `helios log -n 3` shows whether this was; then try again",
                ));
            }
        }
    }
}

/// Whether a command looks after the engine: none is started only to be told of, or to be stopped.
fn is_about_engine(argv: &[Text]) -> bool {
    let mut words = argv.iter().map(Text::as_bytes);
    loop {
        match words.next() {
            Some(b"--json") => {}
            Some(b"-C") => drop(words.next()),
            verb => return verb == Some(b"engine"),
        }
    }
}

fn start(program: &Path) -> Result<(), String> {
    match start_engine(program) {
        Ok(Started::Ready) => Ok(()),
        Ok(Started::Failed(reason)) => Err(reason),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

fn fatal(message: &str, hint: &str) -> ExitCode {
    let hint = if hint.is_empty() { String::new() } else { format!("hint: {hint}\n") };
    // Where nobody reads it, the exit code still tells.
    let _ = io::stderr().write_all(format!("fatal: {message}\n{hint}").as_bytes());
    FATAL.into()
}
