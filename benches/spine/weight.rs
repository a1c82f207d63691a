//! What it weighs: memory of node and worker, the size of the worker's program, and the processor time of a process.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use helix_protocol::{CommandSpec, EventKind, TaskSpec, TaskWork};

use crate::report::{Figure, Scale};
use crate::stage;
use crate::stage::{LONG, Stage};

/// How many tasks are held.
const TASKS: usize = 200;
const MIB: f64 = 1024.0;

/// Memory idle, and while [`TASKS`] tasks each run a command.
pub async fn idle_and_full(stage: &mut Stage, scale: Scale) -> Result<Vec<Figure>> {
    let settle = Duration::from_secs(scale.pick(3, 1));
    tokio::time::sleep(settle).await;
    let mut figures = memory(stage, "idle").await?;
    stage.events.forget();
    let mut waiting = HashSet::new();
    for _ in 0..TASKS {
        let commands = CommandSpec { commands: vec![LONG.to_owned()], artifacts: Vec::new() };
        waiting.insert(stage.create(TaskSpec::new("hold", TaskWork::Command(commands)), None).await?.tasks[0].id);
    }
    let held: Vec<_> = waiting.iter().copied().collect();
    while !waiting.is_empty() {
        let (_, event) = stage.events.next().await?;
        match (event.event.kind, event.event.task) {
            (EventKind::ToolStarted, Some(task)) => drop(waiting.remove(&task)),
            (EventKind::TaskFailed, Some(task)) => bail!("task {task} failed: {}", event.event.message),
            _ => {}
        }
    }
    tokio::time::sleep(settle).await;
    figures.extend(memory(stage, &format!("{TASKS} tasks on three workers, a command running in each")).await?);
    for task in held {
        stage.cancel(task).await?;
    }
    Ok(figures)
}

/// The size of the worker's program.
pub fn program_size() -> Result<Figure> {
    let beside = stage::worker_program();
    let target = beside.parent().and_then(Path::parent).context("the program is in a profile's folder")?;
    let dist = target.join("dist/helix-worker");
    let (path, which) = match dist.exists() {
        true => (dist, "static and stripped, from `make dist`"),
        false => (beside, "this run's own, not the static one of `make dist`"),
    };
    Ok(Figure::new("size of helix-worker", size(&path)? / MIB / MIB, "MiB").against(which))
}

fn size(path: &PathBuf) -> Result<f64> {
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64)
}

async fn memory(stage: &Stage, when: &str) -> Result<Vec<Figure>> {
    let mut figures = vec![
        Figure::new(format!("memory of the node, {when}"), pss(stage.node.pid())?, "MiB")
            .against(format!("PSS; RSS {:.1} MiB", rss(stage.node.pid())?)),
    ];
    let mut workers = Vec::new();
    for worker in stage.workers().await? {
        let pid = worker.pid.context("the worker gave its process id")?;
        workers.push((pss(pid)?, rss(pid)?));
    }
    workers.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (pss, rss) = workers.pop().context("there are workers")?;
    let name = format!("memory of a worker, the largest of three, {when}");
    figures.push(Figure::new(name, pss, "MiB").against(format!("PSS; RSS {rss:.1} MiB")));
    Ok(figures)
}

/// MiB in memory, pages shared with other processes counted by their share.
fn pss(pid: u32) -> Result<f64> {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// MiB in memory.
fn rss(pid: u32) -> Result<f64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn field(path: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / MIB)
}

/// Processor time of a process so far, user and system.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The program's name is in brackets and may hold spaces.
    let (_, fields) = text.rsplit_once(") ").with_context(|| format!("{path} is not understood"))?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).with_context(|| path.clone())?.parse()?) };
    // Linux counts in hundredths of a second on every architecture (USER_HZ, proc(5)).
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
