//! Processes of this machine: signals, states, and who works below a folder.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// Sends a signal; a process that has ended by itself is no fault.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The letter of a process' state in /proc; `None` where it is gone or waits only to be buried.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat[stat.rfind(')')? + 2..].chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(state)
}

/// A process that works below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub pid: u32,
    /// Its state's letter.
    pub state: char,
    /// What it was started with.
    pub line: String,
}

/// Where a sandbox shows a workspace, and the variable by which a command of a worker names that worker's folder.
const SANDBOXED: (&str, &str) = ("/run/workspace", "HELIX_FOLDER=");

/// Every process whose working folder lies below `folder`. Of one in a sandbox its worker's folder does, or is
/// what `folder` lies below.
pub fn processes_in(folder: &Path) -> Vec<Seen> {
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let is_of_worker = |process: &Path| {
        let variables = std::fs::read(process.join("environ")).unwrap_or_default();
        let variables = String::from_utf8_lossy(&variables);
        let worker = variables.split('\0').find_map(|variable| variable.strip_prefix(SANDBOXED.1)).map(Path::new);
        worker.is_some_and(|worker| worker.starts_with(&folder) || folder.starts_with(worker))
    };
    let look = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let place = std::fs::read_link(entry.path().join("cwd")).ok()?;
        let is_there = place.starts_with(&folder) || (place.starts_with(SANDBOXED.0) && is_of_worker(&entry.path()));
        let state = is_there.then(|| state_of(pid))??;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(Seen { pid, state, line: String::from_utf8_lossy(&line).replace('\0', " ") })
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(look).collect()
}

/// Kills every process that works below `folder` or was started with a path in it: what a test that panicked
/// left on "another machine".
pub fn end_everything_in(folder: &Path) {
    let name = folder.display().to_string();
    let named = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(&name).then_some(pid)
    };
    let named = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(named);
    let working = processes_in(folder).into_iter().map(|seen| seen.pid);
    for pid in named.chain(working).filter(|pid| *pid != std::process::id()).collect::<Vec<_>>() {
        send(pid, Signal::KILL);
    }
}

/// Ends the worker in a folder and everything it runs.
pub fn stop_worker(folder: &Path) {
    let mut stop = Command::new(super::worker_program());
    stop.args(["stop", "--folder"]).arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = stop.status();
}
