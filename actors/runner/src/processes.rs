//! Finding and ending what a task started, wherever it hid.
//!
//! A process may leave its group (`setsid`), its parent (a double fork) and its terminal, but it keeps the environment it was
//! started with, and mostly its working folder. So each command is started with variables naming worker, task and run, and
//! whoever must find everything scans `/proc` for them, again and again until nothing is found. A program may be started
//! without them (`env -i`), and one that lets nobody look at it (`ssh-agent`) shows neither variables nor folder to a worker that
//! is not root. But what starts the commands of a workspace is the parent of whatever is orphaned there, for as long as it lives,
//! and whose child a process is can be read by everybody: what is below it is the task's. Signals go through a pidfd that is opened
//! before all of this is checked once more, so a process id that was reused meanwhile is never hit.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use helix_protocol::{RunId, TaskId};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal};

use crate::sandbox::WORKSPACE;
use crate::workspace::{FILES, TASKS};

/// The variable that names the worker's incarnation.
pub const WORKER_MARK: &str = "HELIX_WORKER";
/// The variable that names the worker's folder.
pub const FOLDER_MARK: &str = "HELIX_FOLDER";
/// The variable that names the task.
pub const TASK_MARK: &str = "HELIX_TASK";
/// The variable that names the run.
pub const RUN_MARK: &str = "HELIX_RUN";
/// The variable that names the task of the process which starts its commands. That process has no [`TASK_MARK`]: it is the
/// workspace's, as the worker is, and nothing that the task runs.
pub const KEEPS_MARK: &str = "HELIX_KEEPS";

/// Between two scans of a search.
const PAUSE: Duration = Duration::from_millis(3);
/// How long what is to be ended may take to stop.
const STOPPING: Duration = Duration::from_secs(1);
/// Between two scans when processes must get on before they can be stopped.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Which processes are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSet {
    /// Those with this variable.
    mark: Option<Vec<u8>>,
    /// Those below something.
    above: Above,
    folder: Option<PathBuf>,
    /// Another worker may have started processes with the same mark: they are not meant.
    of_one_worker: bool,
}

/// Below what a process is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Above {
    /// Something with this variable.
    Marked(Vec<u8>),
    /// The process that asks.
    Oneself,
}

fn variable(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [name.as_bytes(), b"=", value.as_ref()].concat()
}

impl ProcessSet {
    /// Whatever a worker's incarnation started, or whatever works below its folder.
    pub fn of_worker(incarnation: u64, folder: &Path) -> Self {
        Self::marked(variable(WORKER_MARK, incarnation.to_string()), Some(folder.to_owned()))
    }

    /// Whatever any incarnation of a worker started in this folder.
    pub fn of_folder(folder: &Path) -> Self {
        Self::marked(variable(FOLDER_MARK, folder.as_os_str().as_bytes()), Some(folder.join(TASKS)))
    }

    /// Whatever this worker started for a task, or works in its workspace. Another worker of the same machine
    /// may have the task by now.
    pub fn of_task(task: TaskId, workspace: &Path) -> Self {
        let above = Above::Marked(variable(KEEPS_MARK, task.to_string()));
        let marked = Self::marked(variable(TASK_MARK, task.to_string()), Some(workspace.to_owned()));
        Self { above, of_one_worker: true, ..marked }
    }

    /// Whatever one command started.
    pub fn of_run(run: RunId) -> Self {
        Self::marked(variable(RUN_MARK, run.to_string()), None)
    }

    /// Whatever is below the process that asks, and nothing else.
    pub fn below() -> Self {
        Self { mark: None, above: Above::Oneself, folder: None, of_one_worker: false }
    }

    fn marked(mark: Vec<u8>, folder: Option<PathBuf>) -> Self {
        Self { above: Above::Marked(mark.clone()), mark: Some(mark), folder, of_one_worker: false }
    }

    /// Whether a process has a variable, and not from a worker of another folder for the same task.
    fn has(&self, seen: &Seen, mark: &Vec<u8>) -> bool {
        if !seen.marks.contains(mark) {
            return false;
        }
        let (Some(folder), true) = (&self.folder, self.of_one_worker) else { return true };
        let mark = variable(FOLDER_MARK, "");
        let mut folders = seen.marks.iter().filter_map(|variable| variable.strip_prefix(mark.as_slice()));
        folders.next().is_none_or(|of| folder.starts_with(std::ffi::OsStr::from_bytes(of)))
    }

    fn is_below(&self, seen: &Seen, all: &Everything) -> bool {
        let mut parent = seen.stat.parent;
        // No longer than there are processes: ids that were reused while they were looked at could make a circle.
        for _ in 0..=all.len() {
            match (&self.above, all.get(&parent)) {
                (Above::Oneself, _) if parent == own_pid() => return true,
                (Above::Marked(mark), Some(above)) if self.has(above, mark) => return true,
                (_, Some(above)) => parent = above.stat.parent,
                (_, None) => return false,
            }
        }
        false
    }

    /// `workspaces`: those that are meant, as [`workspaces`](Self::workspaces) has them.
    fn is(&self, seen: &Seen, all: &Everything, workspaces: &[Identity]) -> bool {
        if self.mark.as_ref().is_some_and(|mark| self.has(seen, mark)) || self.is_below(seen, all) {
            return true;
        }
        if seen.workspace.is_some_and(|workspace| workspaces.contains(&workspace)) {
            // The sandbox's own process belongs to the workspace as the worker does. It alone is the worker's child.
            return !self.of_one_worker || seen.stat.parent != own_pid();
        }
        let (Some(folder), Some(cwd)) = (&self.folder, &seen.cwd) else { return false };
        // A deleted folder is shown with " (deleted)" behind it; its beginning still tells.
        let works_there = cwd.starts_with(folder)
            || cwd.as_os_str().as_bytes().starts_with(&[folder.as_os_str().as_bytes(), b" (deleted)"].concat());
        // Somebody who looks around in a workspace from a terminal is not meant.
        works_there && !seen.stat.has_terminal
    }

    /// The workspace that is meant, or all that a worker keeps in its folder of tasks.
    fn workspaces(&self) -> Vec<Identity> {
        match &self.folder {
            None => Vec::new(),
            Some(folder) if self.of_one_worker => identity(folder).into_iter().collect(),
            Some(folder) => {
                let tasks = fs::read_dir(folder).into_iter().flatten().flatten();
                tasks.filter_map(|task| identity(&task.path().join(FILES))).collect()
            }
        }
    }

    /// Everything that runs and is meant, this process and what is already dead aside.
    pub fn find(&self) -> Vec<Process> {
        let (all, workspaces) = (everything(), self.workspaces());
        let fitting = all.values().filter(|seen| self.is(seen, &all, &workspaces));
        fitting
            .filter_map(|seen| {
                // The pidfd is opened only for what seems to fit, and then it must fit again.
                let pidfd = match pidfd_open(Pid::from_raw(seen.pid)?, PidfdFlags::empty()) {
                    Ok(pidfd) => Some(pidfd),
                    // Before Linux 5.3; a reused process id is then as unlikely as anywhere.
                    Err(Errno::NOSYS) => None,
                    Err(_) => return None,
                };
                let again = Seen::look(seen.pid, &mut Vec::new())?;
                let Stat { state, parent, started, .. } = again.stat;
                let still = started == seen.stat.started && self.is(&again, &all, &workspaces);
                (still && !matches!(state, b'Z' | b'X' | b'x')).then_some(Process { pid: seen.pid, state, parent, pidfd })
            })
            .collect()
    }

    /// Sends a signal to everything that is found now; how many it were.
    pub fn signal(&self, signal: Signal) -> usize {
        self.find().iter().filter(|process| process.send(signal).is_ok()).count()
    }

    /// Kills until nothing is found any more. Gives the process ids that would not die within `patience`.
    pub fn kill(&self, patience: Duration) -> Result<(), Vec<i32>> {
        let start = Instant::now();
        loop {
            let found = self.find();
            if found.is_empty() {
                return Ok(());
            }
            for process in &found {
                // One that is gone is not found again, and one of another user's may end by itself.
                let _ = process.send(Signal::KILL);
            }
            if start.elapsed() > patience {
                return Err(found.iter().map(|process| process.pid).collect());
            }
            thread::sleep(PAUSE);
        }
    }

    /// As `kill`, where the processes are among them below which the others are found: all of them are stopped first, so that
    /// nothing is orphaned by their death that was not found before it.
    pub fn end(&self, patience: Duration) -> Result<(), Vec<i32>> {
        self.freeze(STOPPING.min(patience));
        self.kill(patience)
    }

    /// Stops everything, and returns once nothing runs, or after `patience`.
    ///
    /// A process that called `vfork` sleeps uninterruptibly until its child has called `exec`, so a child
    /// that was stopped between the two holds its parent where no stop arrives: such a child is let go
    /// and stopped again behind its `exec`.
    pub fn freeze(&self, patience: Duration) -> Frozen {
        let start = Instant::now();
        let mut pause = PAUSE;
        loop {
            let (stopped, mut running): (Vec<Process>, Vec<Process>) =
                self.find().into_iter().partition(|process| matches!(process.state, b'T' | b't'));
            if running.is_empty() {
                return Frozen::Whole;
            }
            // What is another user's by now is not waited for.
            running.retain(|process| process.send(Signal::STOP) != Err(Errno::PERM));
            if running.is_empty() {
                return Frozen::Partly;
            }
            if running.iter().all(|process| process.state == b'D') {
                let awaited = |child: &&Process| running.iter().any(|process| process.pid == child.parent);
                for child in stopped.iter().filter(awaited) {
                    // One that is gone holds nobody.
                    let _ = child.send(Signal::CONT);
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if start.elapsed() > patience {
                return Frozen::Partly;
            }
            thread::sleep(pause);
        }
    }

    /// Lets everything go on.
    pub fn thaw(&self) -> usize {
        self.signal(Signal::CONT)
    }
}

/// What tells whose a process is.
#[derive(Debug)]
struct Seen {
    pid: i32,
    stat: Stat,
    /// Its variables that may be ours.
    marks: Vec<Vec<u8>>,
    cwd: Option<PathBuf>,
    /// What lies where a sandbox has its workspace, of a process that sees other files than this one.
    workspace: Option<Identity>,
}

/// Device and number of a folder: the same by whatever name it is seen.
type Identity = (u64, u64);

fn identity(folder: &Path) -> Option<Identity> {
    fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

impl Seen {
    /// Reads it, through a buffer that is used again. Of a process that is not to be looked at there is its [`Stat`] alone.
    fn look(pid: i32, environment: &mut Vec<u8>) -> Option<Self> {
        let process = of_process(pid);
        let stat = Stat::of(pid)?;
        environment.clear();
        // Without the length that a file of /proc does not have and the standard library would ask for.
        let _ = fs::File::open(process.join("environ")).and_then(|file| file.take(u64::MAX).read_to_end(environment));
        let variables = environment.split(|byte| *byte == 0);
        let marks = variables.filter(|variable| variable.starts_with(b"HELIX_")).map(<[u8]>::to_vec).collect();
        let cwd = fs::read_link(process.join("cwd")).ok();
        let sees_others = view_of(&process).is_some_and(|view| Some(&view) != own_view().as_ref());
        // The link leads into the process' own view.
        let workspace = sees_others.then(|| identity(&process.join("root").join(WORKSPACE.trim_start_matches('/')))).flatten();
        Some(Self { pid, stat, marks, cwd, workspace })
    }
}

/// Processes as they were, by their ids.
type Everything = HashMap<i32, Seen>;

/// Every process of the machine, this one and the first aside, as it was after this was called.
///
/// Looking at one costs some 30 µs, there may be hundreds, and each command of each task ends with a look. So whoever waits for a
/// look that has begun before they asked shares the next one with all others who do.
fn everything() -> Arc<Everything> {
    static LATEST: Mutex<Option<(Instant, Arc<Everything>)>> = Mutex::new(None);
    let asked = Instant::now();
    let mut latest = LATEST.lock();
    if let Some((begun, seen)) = &*latest
        && *begun >= asked
    {
        return Arc::clone(seen);
    }
    let begun = Instant::now();
    let own = own_pid();
    let mut environment = Vec::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| ![own, 1].contains(pid));
    let mut seen: Everything = pids.filter_map(|pid| Some((pid, Seen::look(pid, &mut environment)?))).collect();
    find_new_parents(&mut seen);
    let seen = Arc::new(seen);
    *latest = Some((begun, Arc::clone(&seen)));
    seen
}

/// A process whose parent ended while everything was looked at has another one by now.
fn find_new_parents(seen: &mut Everything) {
    let own = own_pid();
    let known = |seen: &Everything, parent: i32| parent <= 1 || parent == own || seen.contains_key(&parent);
    let orphans: Vec<i32> = seen.values().filter(|process| !known(seen, process.stat.parent)).map(|process| process.pid).collect();
    for pid in orphans {
        if let (Some(now), Some(process)) = (Stat::of(pid), seen.get_mut(&pid))
            && now.started == process.stat.started
        {
            process.stat = now;
        }
    }
}

/// How far freezing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// Nothing runs.
    Whole,
    /// Something would not stop in time.
    Partly,
}

/// A process that was found.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its state as `/proc` has it: `R`, `S`, `D`, `T` …
    pub state: u8,
    parent: i32,
    pidfd: Option<OwnedFd>,
}

impl Process {
    fn send(&self, signal: Signal) -> Result<(), Errno> {
        match (&self.pidfd, Pid::from_raw(self.pid)) {
            (Some(pidfd), _) => pidfd_send_signal(pidfd, signal),
            (None, Some(pid)) => kill_process(pid, signal),
            (None, None) => Err(Errno::SRCH),
        }
    }
}

/// Whether a process is a living child of another.
pub fn is_child(pid: Pid, parent: u32) -> bool {
    Stat::of(pid.as_raw_nonzero().get()).is_some_and(|stat| stat.parent == parent.cast_signed())
}

/// What `/proc/PID/stat` says, which everybody may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: i32,
    has_terminal: bool,
    /// In the kernel's ticks since the machine started: with the id it names a process for ever.
    started: u64,
}

impl Stat {
    /// `None` of a process that is gone.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read(of_process(pid).join("stat")).ok()?;
        // The name is in parentheses and may hold anything, so counting starts at the last closing one.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(stat.get(end + 2..)?).ok()?.split(' ').collect();
        let state = fields.first()?.bytes().next()?;
        Some(Self {
            state,
            parent: fields.get(1)?.parse().ok()?,
            has_terminal: *fields.get(4)? != "0",
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// The mount namespace of a process, by the name that the kernel gives it.
fn view_of(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

fn own_view() -> &'static Option<PathBuf> {
    static OWN: LazyLock<Option<PathBuf>> = LazyLock::new(|| view_of(Path::new("/proc/self")));
    &OWN
}

fn of_process(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_detached_grandchild_is_found_frozen_thawed_and_killed() {
        let run = RunId::new();
        let mut child = Command::new("sh")
            .args(["-c", "setsid sh -c 'cd /; sleep 300' & setsid sleep 300 & echo; wait"])
            .env(RUN_MARK, run.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let processes = ProcessSet::of_run(run);
        let start = Instant::now();
        while processes.find().len() < 4 && start.elapsed() < Duration::from_secs(10) {
            thread::yield_now();
        }
        assert_eq!(processes.freeze(Duration::from_secs(10)), Frozen::Whole);
        assert!(processes.find().iter().all(|process| process.state == b'T'));
        assert!(processes.thaw() >= 3);
        assert_eq!(processes.kill(Duration::from_secs(10)), Ok(()));
        assert!(processes.find().is_empty());
        child.wait().expect("killed");
    }

    #[test]
    fn what_another_worker_started_for_the_same_task_is_left_alone() {
        let task = TaskId::new();
        let start = |folder: &str| {
            let mut command = Command::new("sleep");
            command.arg("300").current_dir("/").env(TASK_MARK, task.to_string()).env(FOLDER_MARK, folder);
            command.spawn().expect("sleep starts")
        };
        let (mut ours, mut theirs) = (start("/workers/here"), start("/workers/there"));
        // A name that begins like the other is another folder.
        let mut alike = start("/workers/her");
        let processes = ProcessSet::of_task(task, Path::new("/workers/here/tasks/t"));
        let seen = Instant::now();
        while processes.find().is_empty() && seen.elapsed() < Duration::from_secs(10) {
            thread::yield_now();
        }
        assert_eq!(processes.find().iter().map(|process| process.pid.cast_unsigned()).collect::<Vec<_>>(), [ours.id()]);
        assert_eq!(processes.kill(Duration::from_secs(10)), Ok(()));
        ours.wait().expect("killed");
        for other in [&mut theirs, &mut alike] {
            assert_eq!(other.try_wait().expect("a child"), None, "it runs on");
            other.kill().expect("ours to end");
            other.wait().expect("killed");
        }
    }

    #[test]
    fn a_shell_caught_between_fork_and_exec_is_frozen_whole() {
        let run = RunId::new();
        let mut child = Command::new("sh")
            .args(["-c", "while :; do /bin/true; done"])
            .env(RUN_MARK, run.to_string())
            .spawn()
            .expect("sh starts");
        let processes = ProcessSet::of_run(run);
        for _ in 0..50 {
            assert_eq!(processes.freeze(Duration::from_secs(10)), Frozen::Whole);
            processes.thaw();
        }
        assert_eq!(processes.kill(Duration::from_secs(10)), Ok(()));
        child.wait().expect("killed");
    }
}
