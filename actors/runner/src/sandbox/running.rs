//! The worker's side of a sandbox: its process is started, told the policy, and given commands until nobody needs it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use helix_protocol::{Code, Failure};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::namespaces::map_every_id;
use super::policy::Policy;
use super::wire::{LONGEST_LINE, Order, Program, Said, frame, send_length};

/// How long a sandbox may take to stand. It takes milliseconds; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one that said why it does not stand may take to end.
const LAST_WORD: Duration = Duration::from_millis(200);

/// A command for a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxCommand {
    /// What.
    pub program: Program,
    /// Where.
    pub folder: PathBuf,
    /// With these variables and no others.
    pub variables: Vec<(String, String)>,
}

/// A sandbox that stands. Its process, and whatever it says, end with this.
#[derive(Debug)]
pub struct Sandbox {
    policy: Policy,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    runs: Arc<Mutex<Runs>>,
    reader: tokio::task::JoinHandle<()>,
    process: Child,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Runs {
    next: u64,
    over: bool,
    starting: HashMap<u64, oneshot::Sender<Result<Pid, io::Error>>>,
    running: HashMap<u64, oneshot::Sender<ExitStatus>>,
}

/// A command that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its group, led by itself.
    pub group: Pid,
    /// The sandbox's process.
    pub sandbox: u32,
    ended: Told,
}

/// What is told of a command's end, once.
#[derive(Debug)]
enum Told {
    NotYet(oneshot::Receiver<ExitStatus>),
    Ended(Option<ExitStatus>),
}

impl Spawned {
    /// How it ended; `None` where the sandbox itself has ended, and what ran in it must be ended too.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        if let Told::NotYet(ended) = &mut self.ended {
            let status = ended.await.ok();
            self.ended = Told::Ended(status);
        }
        match self.ended {
            Told::Ended(status) => status,
            Told::NotYet(_) => None,
        }
    }
}

impl Sandbox {
    /// Starts `program sandbox` and returns once everything that the policy asks for is on. Refused with `isolation_unavailable`
    /// where something of it is not.
    pub async fn start(program: &Path, policy: Policy, marks: &[(String, String)]) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new(Code::Internal, format!("a sandbox cannot be started: {error}"));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let mut process = Command::new(program)
            .arg("sandbox")
            .env_clear()
            .envs(marks.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let (reader, mut writer) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        let mut lines = Lines(BufReader::new(reader));
        let stands = tokio::time::timeout(PATIENCE, stand(&policy, &mut lines, &mut writer, process.id())).await;
        match stands {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                // One that ended without a word is told by how it ended.
                let ended = tokio::time::timeout(LAST_WORD, process.wait()).await;
                let how = ended.ok().and_then(Result::ok).map_or_else(String::new, |status| format!(" ({status})"));
                let _ = process.kill().await;
                return Err(Failure::new(
                    Code::IsolationUnavailable,
                    format!("the sandbox does not stand, so nothing was run: {reason}{how}"),
                )
                .hint("`helix worker show` says what the worker found when it started; --unsandboxed runs without"));
            }
            Err(_) => {
                let _ = process.kill().await;
                return Err(Failure::new(Code::TimedOut, format!("a sandbox did not stand within {} s", PATIENCE.as_secs())));
            }
        }
        let runs = Arc::new(Mutex::new(Runs::default()));
        let reader = tokio::spawn(listen(lines, Arc::clone(&runs)));
        Ok(Self { policy, writer: tokio::sync::Mutex::new(writer), runs, reader, process })
    }

    /// What it allows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its process; `None` once that has ended.
    pub fn process(&self) -> Option<i32> {
        self.process.id().map(u32::cast_signed)
    }

    /// Whether it takes commands.
    pub fn stands(&self) -> bool {
        !self.runs.lock().over
    }

    /// Starts a command in it. `descriptors` are those of its output and, behind it, of its input where it has one. `None` where
    /// the sandbox ended before it told whether the command runs.
    pub async fn spawn(&self, command: SandboxCommand, descriptors: Vec<OwnedFd>) -> Result<Option<Spawned>, Failure> {
        let SandboxCommand { program, folder, variables } = command;
        let gone =
            || Failure::new(Code::Internal, "the sandbox has ended").hint("run the command again: another one is made for it");
        let (started, ended, order) = {
            let mut runs = self.runs.lock();
            if runs.over {
                return Err(gone());
            }
            runs.next += 1;
            let id = runs.next;
            let (starting, started) = oneshot::channel();
            let (running, ended) = oneshot::channel();
            runs.starting.insert(id, starting);
            runs.running.insert(id, running);
            (started, ended, Order { id, program, folder: folder.clone(), variables })
        };
        {
            let mut writer = self.writer.lock().await;
            send(&mut writer, &order, &descriptors).await.map_err(|_| gone())?;
        }
        // Only what runs in the sandbox may hold it open.
        drop(descriptors);
        match started.await {
            Ok(Ok(group)) => {
                Ok(Some(Spawned { group, sandbox: self.process.id().unwrap_or_default(), ended: Told::NotYet(ended) }))
            }
            Ok(Err(error)) => Err(not_started(&folder, &error)),
            Err(_) => Ok(None),
        }
    }
}

/// Why a command could not be started in a folder.
pub fn not_started(folder: &Path, error: &io::Error) -> Failure {
    match Errno::from_io_error(error) {
        // The text alone is short enough.
        Some(Errno::TOOBIG) => Failure::new(Code::InvalidRequest, "the variables of the command are longer than the system takes")
            .hint("the project's `environment` and `secrets` are among them: put long ones into files"),
        _ => Failure::io(format!("sh in {}", folder.display()), error),
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.reader.abort();
        self.runs.lock().end();
    }
}

impl Runs {
    fn hear(&mut self, said: Said) -> Result<(), Unheard> {
        match said {
            Said::Started { id, pid } => {
                let pid = Some(pid).filter(|pid| *pid > 1).and_then(Pid::from_raw).ok_or(Unheard)?;
                let starting = self.starting.remove(&id).ok_or(Unheard)?;
                let _ = starting.send(Ok(pid));
            }
            Said::Refused { id, errno } => {
                self.running.remove(&id);
                let starting = self.starting.remove(&id).ok_or(Unheard)?;
                let _ = starting.send(Err(io::Error::from_raw_os_error(errno)));
            }
            Said::Ended { id, status } => {
                let running = self.running.remove(&id).ok_or(Unheard)?;
                let _ = running.send(ExitStatus::from_raw(status));
            }
            Said::NeedsIds | Said::Ready | Said::Failed { .. } => return Err(Unheard),
        }
        Ok(())
    }

    /// Whoever waits learns that nothing more comes.
    fn end(&mut self) {
        self.over = true;
        self.starting.clear();
        self.running.clear();
    }
}

/// A sandbox said something that makes no sense: it is not ours any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unheard;

struct Lines(BufReader<OwnedReadHalf>);

impl Lines {
    /// The next thing it says; `None` at its end, and where it talks nonsense.
    async fn next(&mut self) -> Option<Said> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(LONGEST_LINE).read_until(b'\n', &mut line).await;
        if read.is_err() || line.last() != Some(&b'\n') {
            return None;
        }
        serde_json::from_slice(&line).ok()
    }
}

async fn listen(mut lines: Lines, runs: Arc<Mutex<Runs>>) {
    while let Some(said) = lines.next().await {
        if runs.lock().hear(said).is_err() {
            tracing::warn!("a sandbox's process talks nonsense and is given up");
            break;
        }
    }
    runs.lock().end();
}

async fn stand(policy: &Policy, lines: &mut Lines, writer: &mut OwnedWriteHalf, process: Option<u32>) -> Result<(), String> {
    let broken = |error: io::Error| format!("its process does not listen: {error}");
    send(writer, policy, &[]).await.map_err(broken)?;
    loop {
        match lines.next().await {
            Some(Said::Ready) => return Ok(()),
            Some(Said::NeedsIds) => {
                let child = process.ok_or("its process has ended")?;
                map_every_id(child).map_err(|error| format!("its ids cannot be mapped: {error}"))?;
                send(writer, &(), &[]).await.map_err(broken)?;
            }
            Some(Said::Failed { reason }) => return Err(reason),
            Some(Said::Started { .. } | Said::Refused { .. } | Said::Ended { .. }) | None => {
                return Err("its process ended while it was made".to_owned());
            }
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, value: &impl serde::Serialize, descriptors: &[OwnedFd]) -> io::Result<()> {
    let (length, text) = frame(value);
    let socket: &UnixStream = writer.as_ref();
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    socket.async_io(Interest::WRITABLE, || send_length(socket, length, &descriptors)).await?;
    writer.write_all(&text).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_taken_over_sandbox_says_is_not_believed() {
        let mut runs = Runs::default();
        let (starting, mut started) = oneshot::channel();
        runs.starting.insert(1, starting);
        for said in [
            Said::Started { id: 2, pid: 100 },
            Said::Started { id: 1, pid: 1 },
            Said::Started { id: 1, pid: -1 },
            Said::Ended { id: 1, status: 0 },
            Said::Ready,
        ] {
            assert_eq!(runs.hear(said.clone()), Err(Unheard), "{said:?}");
        }
        assert!(started.try_recv().is_err());
        assert_eq!(runs.hear(Said::Started { id: 1, pid: 100 }), Ok(()));
        assert_eq!(started.try_recv().expect("told").expect("started").as_raw_nonzero().get(), 100);
    }
}
