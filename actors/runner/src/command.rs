//! One command: started, watched, stopped with everything it started, reported.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use helix_protocol::{Failure, RunId};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::masking::Secrets;
use crate::processes::{ProcessSet, RUN_MARK};
use crate::spool::Spool;

/// Between SIGTERM and SIGKILL of a command that ran out of time.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to die.
pub const DYING: Duration = Duration::from_secs(10);

/// What is run, and where.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// Names it.
    pub run: RunId,
    /// For `sh -c`.
    pub command: String,
    /// Where.
    pub folder: PathBuf,
    /// With these variables and no others.
    pub variables: Vec<(String, String)>,
    /// Masked in its output.
    pub secrets: Secrets,
    /// Stopped after this time.
    pub timeout: Option<Duration>,
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
}

impl Ending {
    /// The exit code as a shell would say it; 124 for a command that ran out of time, as `timeout` does.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::TimedOut => 124,
            Self::Cancelled => 128 + Signal::TERM.as_raw(),
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
pub async fn run(line: CommandLine, spool: Arc<Spool>, stopper: &Stopper) -> Result<Ending, Failure> {
    let refuse = |error: std::io::Error| Failure::io(format!("sh in {}", line.folder.display()), &error);
    let (output, input) = std::io::pipe().map_err(refuse)?;
    let both = input.try_clone().map_err(refuse)?;
    // By its path: searching for it would cost a failed start for each folder of PATH.
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(&line.command)
        .current_dir(&line.folder)
        .env_clear()
        .envs(line.variables.iter().map(|(name, value)| (name, value)))
        .env(RUN_MARK, line.run.to_string())
        .stdin(Stdio::null())
        .stdout(both)
        .stderr(input)
        .process_group(0);
    let mut child = command.spawn().map_err(refuse)?;
    // The command keeps its copies of the pipe's writing end; ours must go, or its end would never be seen.
    drop(command);
    let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
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
        status = child.wait() => Ending::Exited(code(status.map_err(refuse)?)),
        () = timeout => Ending::TimedOut,
        () = stopper.asked.cancelled() => Ending::Cancelled,
    };
    if !matches!(ending, Ending::Exited(_)) {
        let grace = if ending == Ending::Cancelled { *stopper.grace.lock() } else { GRACE };
        if let Some(group) = group {
            // It may be frozen: what is to end must be able to hear it.
            let _ = kill_process_group(group, Signal::TERM);
            let _ = kill_process_group(group, Signal::CONT);
        }
        let _ = tokio::time::timeout(grace, child.wait()).await;
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let processes = ProcessSet::of_run(line.run);
        let killed = tokio::task::spawn_blocking(move || processes.kill(DYING)).await;
        if let Ok(Err(left)) = killed {
            tracing::error!(run = %line.run, ?left, "processes do not die");
        }
        child.wait().await.map_err(refuse)?;
    }
    exited.cancel();
    // The pump says when everything the command itself wrote has been spooled.
    let _ = done.await;
    spool.end();
    Ok(ending)
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
