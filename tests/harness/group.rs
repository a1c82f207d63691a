//! Processes that are measured or tested beside ours: started in a group of their own, weighed, and ended with all their children.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// A process with its children. Dropping it kills them.
#[derive(Debug)]
pub struct Group(pub Child);

impl Group {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        Ok(Self(command.process_group(0).spawn().with_context(|| program.display().to_string())?))
    }

    /// MiB in memory of all of them, pages that they share counted once.
    pub fn memory(&self) -> Result<f64> {
        let mut sum = 0.0;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            // The program's name is in brackets and may hold spaces.
            let group = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(2)?.parse::<u32>().ok());
            if group == Some(self.0.id()) {
                sum += memory(pid)?;
            }
        }
        Ok(sum)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // That they are gone already is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// MiB in memory of a process, pages shared with others counted by their share.
pub fn memory(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("{path} has no Pss"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
