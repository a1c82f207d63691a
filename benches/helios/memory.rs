//! How much memory the engine takes: for each agent that commits, and when nobody asks it for anything.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::report::{Figure, Scale};
use crate::tools::{Stage, root, text, twins};

const AGENTS: usize = 16;
/// A repository that nobody has asked about for ten seconds rests.
const REST: Duration = Duration::from_secs(13);

/// Megabytes of the engine's process that are resident.
fn resident(stage: &Stage) -> Result<f64> {
    let process = fs::read_to_string(stage.folder("run")?.join("helios/engine.lock"))?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.trim()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel says how much is resident")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// Of an engine that begins, of sixteen agents' commits in workspaces of 1,000 files, and after large groups were unpacked.
pub fn of_the_engine(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let (helios, _) = twins(stage, "memory", 1_000)?;
    helios.stop_engine()?;
    helios.run(&["status"])?;
    let fresh = resident(stage)?;
    let folders: Vec<_> = (0..AGENTS).map(|agent| root(&helios).with_file_name(format!("agent{agent}"))).collect();
    for (agent, folder) in folders.iter().enumerate() {
        helios.run(&["workspace", "add", &folder.display().to_string(), "-b", &format!("agent{agent}")])?;
    }
    for round in 0..scale.pick(50, 3) {
        for (agent, folder) in folders.iter().enumerate() {
            fs::write(folder.join("solution.py"), text(agent, round + 1))?;
            helios.at(folder).run(&["commit", "-m", "next", "--work", "."])?;
        }
    }
    let active = resident(stage)?;

    // Versions of a large text are packed as one group, and reading one of them unpacks it whole.
    for version in 0..5 {
        let line = |at: usize| format!("line {at} of version {}\n", if at % 97 == version { version } else { 0 });
        fs::write(root(&helios).join("large"), (0..scale.pick(500_000, 50_000)).map(line).collect::<String>())?;
        helios.run(&["commit", "-m", "next", "--work", "."])?;
    }
    helios.run(&["gc", "--aggressive"])?;
    helios.run(&["checkout", "HEAD~3"])?;
    let unpacked = resident(stage)?;
    thread::sleep(REST);
    let idle = resident(stage)?;
    Ok(vec![
        Figure::new("engine's memory: one repository of 1,000 files was looked at", fresh, "MB").at_most(100.0),
        Figure::new(format!("engine's memory: for each of {AGENTS} agents that commit"), (active - fresh) / AGENTS as f64, "MB")
            .at_most(20.0),
        Figure::new("engine's memory: a large group was unpacked", unpacked, "MB"),
        Figure::new(format!("engine's memory: {} s after that", REST.as_secs()), idle, "MB").at_most(100.0),
    ])
}
