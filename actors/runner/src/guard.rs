//! The guard: a small process beside the worker that holds the fence's deadline.
//!
//! A worker that is stopped, or hangs, cannot freeze what it started; the guard can. It reads
//! instructions from a pipe: one line per renewal with the deadline as nanoseconds of CLOCK_BOOTTIME.
//! Past the deadline it stops every process of the worker, and again whatever appears; a later deadline
//! lets them go on, whoever stopped them. The pipe's end is the worker's death: the guard kills everything, waits until nothing
//! is left, and leaves. It holds `guard.lock` in the worker's folder while it lives, so the next
//! incarnation can wait until the last one's processes are gone.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use helix_protocol::{Code, Failure};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::processes::ProcessSet;
use crate::workspace::TASKS;

/// The file in a worker's folder that its guard holds.
pub(crate) const GUARD_LOCK: &str = "guard.lock";
/// What the guard says once it holds its lock.
const READY: &[u8] = b"ready\n";
/// How soon it looks again for processes that must not run. Each look that follows takes twice as long, because what is stopped
/// starts nothing: a worker that stays silent for days must not cost its machine anything.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The longest pause between two looks.
const LOOK_SELDOM: Duration = Duration::from_secs(5);

/// Runs the guard's life in this process: `helix-worker guard`.
pub fn run(folder: &Path, incarnation: u64) -> Result<(), Failure> {
    let path = folder.join(GUARD_LOCK);
    let failed = |error: io::Error| Failure::io(path.display(), &error);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    io::stdout().write_all(READY).map_err(failed)?;
    io::stdout().flush().map_err(failed)?;
    let processes = ProcessSet::of_worker(incarnation, &folder.join(TASKS));
    let watched =
        watch(&processes).map_err(|error| Failure::new(Code::Internal, format!("the guard cannot watch the worker: {error}")));
    processes
        .end(Duration::from_secs(3600))
        .map_err(|left| Failure::new(Code::Internal, format!("processes {left:?} cannot be killed")))?;
    drop(lock);
    watched
}

/// Freezes and thaws until the worker's end of the pipe is closed.
fn watch(processes: &ProcessSet) -> io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let input = io::stdin();
    let mut lines = Vec::new();
    let mut deadline: Option<Duration> = None;
    let mut frozen = false;
    let mut pause = LOOK_AGAIN;
    loop {
        let expired = deadline.is_some_and(|deadline| boottime() >= deadline);
        if expired {
            processes.freeze(LOOK_AGAIN);
            pause = if frozen { (pause * 2).min(LOOK_SELDOM) } else { LOOK_AGAIN };
        } else if frozen {
            processes.thaw();
        }
        frozen = expired;
        let mut fds = [PollFd::new(&input, PollFlags::IN), PollFd::new(&timer, PollFlags::IN)];
        let again = Timespec { tv_sec: pause.as_secs().cast_signed(), tv_nsec: pause.subsec_nanos().into() };
        match poll(&mut fds, frozen.then_some(&again)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (said, rang) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if rang {
            let _ = rustix::io::read(&timer, &mut [0; 8]);
        }
        if said {
            let mut piece = [0; 4096];
            let length = input.lock().read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            lines.extend_from_slice(&piece[..length]);
            if let Some(renewed) = last_line(&mut lines) {
                // The last one may have passed without our notice, and with it somebody left to us what they
                // had frozen for a moment.
                frozen |= deadline.is_none_or(|deadline| boottime() >= deadline);
                deadline = Some(renewed);
                let it_value = Timespec { tv_sec: renewed.as_secs().cast_signed(), tv_nsec: renewed.subsec_nanos().into() };
                let at = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
                timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &at)?;
            }
        }
    }
}

/// The newest deadline among the whole lines; a line that is none is passed over.
fn last_line(lines: &mut Vec<u8>) -> Option<Duration> {
    let end = lines.iter().rposition(|byte| *byte == b'\n')?;
    let rest = lines.split_off(end + 1);
    let whole = std::mem::replace(lines, rest);
    let newest = whole.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()).next_back()?;
    Some(Duration::from_nanos(newest))
}

fn boottime() -> Duration {
    helix_link::boot_clock()()
}

/// How the guard's process is started.
#[derive(Clone, Debug)]
pub struct GuardCommand {
    /// The program: the worker's own.
    pub program: PathBuf,
    /// The worker's folder.
    pub folder: PathBuf,
    /// The worker's incarnation.
    pub incarnation: u64,
}

/// The worker's side: keeps a guard running and tells it the deadline.
#[derive(Debug)]
pub struct Guard {
    deadlines: mpsc::UnboundedSender<Duration>,
    latest: Arc<Mutex<Option<Duration>>>,
}

impl Guard {
    /// Starts a guard and returns once it holds its lock, so what an earlier incarnation started is gone.
    pub async fn start(command: GuardCommand) -> Result<Self, Failure> {
        let (deadlines, receiver) = mpsc::unbounded_channel();
        let latest = Arc::new(Mutex::new(None));
        let first = spawn(&command).await?;
        tokio::spawn(keep(command, first, receiver, Arc::clone(&latest)));
        Ok(Self { deadlines, latest })
    }

    /// The lease ends at this reading of CLOCK_BOOTTIME.
    pub fn renew(&self, until: Duration) {
        *self.latest.lock() = Some(until);
        let _ = self.deadlines.send(until);
    }
}

struct Running {
    child: tokio::process::Child,
    input: tokio::process::ChildStdin,
}

async fn spawn(command: &GuardCommand) -> Result<Running, Failure> {
    let refuse = |reason: String| Failure::new(Code::Internal, format!("the guard does not start: {reason}"));
    let mut child = tokio::process::Command::new(&command.program)
        .arg("guard")
        .arg("--folder")
        .arg(&command.folder)
        .arg("--incarnation")
        .arg(command.incarnation.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Its own group: a signal meant for the worker's must not reach it.
        .process_group(0)
        .current_dir("/")
        .spawn()
        .map_err(|error| refuse(format!("{}: {error}", command.program.display())))?;
    let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(refuse("its pipes are missing".to_owned()));
    };
    let mut said = [0; READY.len()];
    match tokio::time::timeout(Duration::from_secs(30), output.read_exact(&mut said)).await {
        Ok(Ok(_)) if said == READY => Ok(Running { child, input }),
        Ok(_) => Err(refuse("it ended at once".to_owned())),
        Err(_) => Err(refuse("an earlier one still holds its lock: something it watches cannot be killed".to_owned())),
    }
}

/// Passes deadlines on, and starts another guard where one is gone.
async fn keep(
    command: GuardCommand,
    mut running: Running,
    mut deadlines: mpsc::UnboundedReceiver<Duration>,
    latest: Arc<Mutex<Option<Duration>>>,
) {
    loop {
        tokio::select! {
            deadline = deadlines.recv() => {
                let Some(deadline) = deadline else { return };
                let line = format!("{}\n", deadline.as_nanos());
                if running.input.write_all(line.as_bytes()).await.is_ok() {
                    continue;
                }
            }
            _ = running.child.wait() => {}
        }
        tracing::error!("the guard is gone; another one is started");
        let _ = running.child.start_kill();
        running = loop {
            match respawn(&command, &latest).await {
                Ok(running) => break running,
                Err(failure) => tracing::error!(%failure, "no guard"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
    }
}

/// Another guard for the same commands: it learns the deadline at once.
async fn respawn(command: &GuardCommand, latest: &Mutex<Option<Duration>>) -> Result<Running, Failure> {
    let mut running = spawn(command).await?;
    let deadline = *latest.lock();
    if let Some(deadline) = deadline {
        let line = format!("{}\n", deadline.as_nanos());
        running
            .input
            .write_all(line.as_bytes())
            .await
            .map_err(|error| Failure::new(Code::Internal, format!("the new guard does not listen: {error}")))?;
    }
    Ok(running)
}
