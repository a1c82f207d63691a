//! One command: started, watched, stopped with everything it started, reported.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Secrets;
use helix_protocol::{Code, Failure, RunId};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::processes::{ProcessSet, RUN_MARK, is_child};
use crate::sandbox::{Program, Sandbox, SandboxCommand, Spawned, not_started};
use crate::spool::Spool;

/// Between SIGTERM and SIGKILL of a command that ran out of time.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to die.
pub const DYING: Duration = Duration::from_secs(10);
/// The longest command, in bytes.
const LONGEST: usize = 1 << 20;
/// The kernel gives no program an argument of so many bytes.
const LONGEST_ARGUMENT: usize = 128 * 1024;
/// Runs what its standard input holds, by a descriptor that is closed there, and with the standard input that commands have. `sh`
/// reads it as it would an argument: its first bytes are not taken from it by what it runs.
const FROM_INPUT: &str = "exec 3<&0 </dev/null; . /proc/self/fd/3";
/// What such an input begins with, in the first line, so that lines are numbered as in the command.
const CLOSED: &[u8] = b"exec 3<&-; ";

/// What is run, and where.
#[derive(Debug)]
pub struct CommandLine {
    /// Names it.
    pub run: RunId,
    /// What.
    pub program: Program,
    /// Its standard input; nothing where there is none.
    pub input: Option<OwnedFd>,
    /// Where.
    pub folder: PathBuf,
    /// With these variables and no others.
    pub variables: Vec<(String, String)>,
    /// Masked in its output.
    pub secrets: Secrets,
    /// Stopped after this time.
    pub timeout: Option<Duration>,
    /// In this sandbox.
    pub sandbox: Arc<Sandbox>,
}

/// What runs this text, with its standard input where the text is too long for an argument.
pub fn shell(text: String) -> Result<(Program, Option<OwnedFd>), Failure> {
    let refused = |why: String, hint: &str| Failure::new(Code::InvalidRequest, why).hint(hint);
    if text.contains('\0') {
        return Err(refused("the command has a zero byte".to_owned(), "write it as `printf '\\0'`"));
    }
    if text.len() > LONGEST {
        let why = format!("the command is {} bytes long, and {LONGEST} is the most", text.len());
        return Err(refused(
            why,
            "write what makes it long to a file first, with the write tool for example, and read it from there",
        ));
    }
    if text.len() < LONGEST_ARGUMENT {
        return Ok((Program::Shell(text), None));
    }
    let held = || -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("command", MemfdFlags::CLOEXEC)?);
        file.write_all(CLOSED)?;
        file.write_all(text.as_bytes())?;
        Ok(file.into())
    };
    let held = held().map_err(|error| Failure::io("a long command", &error))?;
    Ok((Program::Shell(FROM_INPUT.to_owned()), Some(held)))
}

/// A command that was started.
enum Started {
    /// By its sandbox.
    Sandboxed(Spawned),
    /// By a sandbox that ended before it could tell: it may run.
    Lost,
}

impl Started {
    /// Sends a signal to the group it leads. What runs in a sandbox could speak for it, and name somebody else's group: only a
    /// child of the sandbox counts.
    fn signal(&self, signal: Signal) {
        let group = match self {
            Self::Sandboxed(spawned) => is_child(spawned.group, spawned.sandbox).then_some(spawned.group),
            Self::Lost => None,
        };
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Its exit code; `None` where its sandbox has ended, which nobody is told of who runs on.
    async fn wait(&mut self) -> Option<i32> {
        match self {
            Self::Sandboxed(spawned) => spawned.wait().await.map(code),
            Self::Lost => None,
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code; 128 + N where signal N ended it.
    Exited(i32),
    /// It ran out of time and was stopped.
    TimedOut,
    /// Somebody stopped it.
    Cancelled,
    /// Its sandbox ended, so it was killed.
    Orphaned,
}

impl Ending {
    /// The exit code as a shell would say it; 124 for a command that ran out of time, as `timeout` does.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::TimedOut => 124,
            Self::Cancelled => 128 + Signal::TERM.as_raw(),
            Self::Orphaned => 128 + Signal::KILL.as_raw(),
        }
    }
}

/// Stops a command from outside.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    asked: CancellationToken,
    grace: Arc<parking_lot::Mutex<Duration>>,
}

impl Stopper {
    /// SIGTERM now, SIGKILL after `grace`.
    pub fn stop(&self, grace: Duration) {
        *self.grace.lock() = grace;
        self.asked.cancel();
    }
}

/// Runs a command to its end. Its output goes to `spool` as it comes.
pub async fn run(mut line: CommandLine, spool: Arc<Spool>, stopper: &Stopper) -> Result<Ending, Failure> {
    let folder = line.folder.clone();
    let refuse = |error: io::Error| not_started(&folder, &error);
    let stdin = line.input.take();
    let (output, input) = std::io::pipe().map_err(refuse)?;
    let mut started = start(&line, input, stdin).await?.map_or(Started::Lost, Started::Sandboxed);
    let output = pipe::Receiver::from_owned_fd(output.into()).map_err(refuse)?;
    let exited = CancellationToken::new();
    let (drained, done) = tokio::sync::oneshot::channel();
    tokio::spawn(pump(output, line.secrets.clone(), Arc::clone(&spool), exited.clone(), drained));

    let timeout = async {
        match line.timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let ending = tokio::select! {
        code = started.wait() => code.map_or(Ending::Orphaned, Ending::Exited),
        () = timeout => Ending::TimedOut,
        () = stopper.asked.cancelled() => Ending::Cancelled,
    };
    if !matches!(ending, Ending::Exited(_)) {
        let grace = if ending == Ending::Cancelled { *stopper.grace.lock() } else { GRACE };
        started.signal(Signal::TERM);
        // It may be frozen: what is to end must be able to hear it.
        started.signal(Signal::CONT);
        let _ = tokio::time::timeout(grace, started.wait()).await;
        started.signal(Signal::KILL);
        let processes = ProcessSet::of_run(line.run);
        let killed = tokio::task::spawn_blocking(move || processes.kill(DYING)).await;
        if let Ok(Err(left)) = killed {
            tracing::error!(run = %line.run, ?left, "processes do not die");
        }
        // A sandbox that does not say that it is gone is not believed to hold it.
        let _ = tokio::time::timeout(DYING, started.wait()).await;
    }
    exited.cancel();
    // The pump says when everything the command itself wrote has been spooled.
    let _ = done.await;
    spool.end();
    Ok(ending)
}

async fn start(line: &CommandLine, input: std::io::PipeWriter, stdin: Option<OwnedFd>) -> Result<Option<Spawned>, Failure> {
    let mut variables = line.variables.clone();
    variables.push((RUN_MARK.to_owned(), line.run.to_string()));
    let command = SandboxCommand { program: line.program.clone(), folder: line.folder.clone(), variables };
    let descriptors = std::iter::once(OwnedFd::from(input)).chain(stdin).collect();
    line.sandbox.spawn(command, descriptors).await
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Moves output from the pipe to the spool until everybody who could write has gone. `drained` is told once the
/// command has ended and the pipe was found empty after that: whatever still comes is not the command's own.
async fn pump(
    output: pipe::Receiver,
    secrets: Secrets,
    spool: Arc<Spool>,
    exited: CancellationToken,
    drained: tokio::sync::oneshot::Sender<()>,
) {
    let mut masked = secrets.stream();
    let mut piece = vec![0; 64 * 1024];
    let mut drained = Some(drained);
    loop {
        let over = exited.is_cancelled();
        // Once the command has ended the pipe itself is asked: what the runtime knows of it may be a little behind.
        let read = if over && drained.is_some() {
            rustix::io::read(&output, &mut piece).map_err(std::io::Error::from)
        } else {
            output.try_read(&mut piece)
        };
        match read {
            Ok(0) => break,
            Ok(length) => spool.append(&masked.push(&piece[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if over && let Some(drained) = drained.take() {
                    spool.append(&masked.finish());
                    let _ = drained.send(());
                    piece.truncate(4096);
                    piece.shrink_to_fit();
                }
                let readable = output.readable();
                tokio::select! {
                    ready = readable => if ready.is_err() { break },
                    () = exited.cancelled(), if drained.is_some() => {}
                }
            }
            Err(_) => break,
        }
    }
    spool.append(&masked.finish());
}
