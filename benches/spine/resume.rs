//! What a death costs: a worker's, a worker's silence, the node's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use helix_protocol::{
    AgentSpec, Base, CommandSpec, Environment, EventKind, Needs, SnapshotId, TaskId, TaskSpec, TaskWork, WorkerId,
};
use rustix::process::Signal;
use std::time::Instant;

use crate::report::{Figure, Scale, durations};
use crate::stage::{LONG, PATIENCE, PROMPT, Stage, WORKERS, signal};

/// How many files the repository has.
const FILES: usize = 1_000;
/// What a death may cost, in milliseconds.
const GOAL: f64 = 1_000.0;
/// What silence may cost, in milliseconds, with the default lease.
const SILENCE_GOAL: f64 = 12_000.0;
/// Reads every file of a fresh workspace once.
const SETUP: &str = "find . -type f -exec cat {} + | cksum > .setup";

/// Every worker has the repository's content before the kills begin.
pub async fn content_warm(stage: &mut Stage, scale: Scale) -> Result<Vec<Figure>> {
    let snapshot = warmed(stage).await?;
    let (mut millis, mut bare) = (Vec::new(), Vec::new());
    for round in 0..scale.pick(30, 3) {
        let spec = agent(Base::Snapshot { snapshot, git_commit: None, repository: None }, None);
        millis.push(one_kill(stage, spec, None, round).await?);
        let begin = Instant::now();
        files(&stage.path(&format!("bare-{round}")), "bare")?;
        bare.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let name = "worker killed → first tool call of the resumed step, 1,000 files, content warm";
    let mut figures = durations(name, millis, Some(GOAL), "SIGKILL to the event tool.started, heard by a client".to_owned());
    let name = "1,000 such files written in a loop, between these kills";
    figures.extend(durations(name, bare, None, "what the file system takes of the figure above".to_owned()));
    Ok(figures)
}

/// Only the worker that is killed has the content: every file of the repository is new in each round.
pub async fn content_cold(stage: &mut Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut millis = Vec::new();
    for round in 0..scale.pick(20, 2) {
        let repository = repository(stage, &format!("cold-{round}"))?;
        millis.push(one_kill(stage, agent(Base::Empty, None), Some(&repository), round).await?);
    }
    let name = "worker killed → first tool call of the resumed step, 1,000 files, content cold";
    Ok(durations(name, millis, None, "the content is sent from the node to the new worker".to_owned()))
}

/// The workspace is set up anew on the new worker before the first tool call.
pub async fn with_setup(stage: &mut Stage, scale: Scale) -> Result<Vec<Figure>> {
    let snapshot = warmed(stage).await?;
    let mut millis = Vec::new();
    for round in 0..scale.pick(20, 2) {
        let spec = agent(Base::Snapshot { snapshot, git_commit: None, repository: None }, Some(SETUP));
        millis.push(one_kill(stage, spec, None, round).await?);
    }
    let name = "worker killed → first tool call of the resumed step, 1,000 files, content warm, with a setup command";
    Ok(durations(name, millis, None, format!("the setup command `{}`, included", SETUP.replace('|', "\\|"))))
}

/// The worker is stopped, not killed: nothing but its silence tells of it. The lease times are the defaults.
pub async fn after_silence(stage: &mut Stage, scale: Scale) -> Result<Vec<Figure>> {
    let snapshot = warmed(stage).await?;
    let mut millis = Vec::new();
    for _ in 0..scale.pick(3, 1) {
        let spec = agent(Base::Snapshot { snapshot, git_commit: None, repository: None }, None);
        let (task, worker) = in_the_middle(stage, spec, None).await?;
        let pid = stage.pid_of(worker).await?;
        let at = Instant::now();
        signal(pid, Signal::STOP)?;
        let resumed = stage.events.until(task, EventKind::ToolStarted, |event| event.event.worker != Some(worker)).await;
        signal(pid, Signal::CONT)?;
        millis.push(resumed?.0.duration_since(at).as_secs_f64() * 1e3);
        stage.cancel(task).await?;
        stage.workers_ready(WORKERS).await?;
    }
    let name = "worker silent (SIGSTOP) → first tool call of the resumed step, default lease";
    Ok(durations(name, millis, Some(SILENCE_GOAL), "nothing but the lease says that it is gone".to_owned()))
}

/// The node is killed and started again; the task's own commands say when they run.
pub async fn node_killed(stage: &mut Stage, scale: Scale) -> Result<Vec<Figure>> {
    let marks = stage.path("marks");
    let command = format!("date +%s%N >> {}; sleep 0.02", marks.display());
    let commands = CommandSpec { commands: vec![command; 4_000], artifacts: Vec::new() };
    let task = stage.create(TaskSpec::new("mark after mark", TaskWork::Command(commands)), None).await?.tasks[0].id;
    let mut millis = Vec::new();
    for _ in 0..scale.pick(20, 2) {
        mark_after(&marks, nanoseconds()).await?;
        stage.node.kill()?;
        // The worker finishes the command that ran; whatever is marked from here on is the new node's doing.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let start = nanoseconds();
        tokio::task::block_in_place(|| stage.node.start_again())?;
        let first = mark_after(&marks, start).await?;
        millis.push(first.saturating_sub(start) as f64 / 1e6);
    }
    stage.client = stage.node.client()?;
    stage.workers_ready(WORKERS).await?;
    stage.cancel(task).await?;
    let against = "from the start of the new process to the time that the command itself wrote down".to_owned();
    Ok(durations("node killed → first command that the new node has run", millis, Some(GOAL), against))
}

/// Kills the worker in the middle of a step and says after how many milliseconds the step's first tool call began elsewhere.
async fn one_kill(stage: &mut Stage, spec: TaskSpec, import: Option<&Path>, round: u64) -> Result<f64> {
    // A worker that was killed is started again by the node; one more must be there to go on.
    stage.workers_ready(2).await?;
    let (task, worker) = in_the_middle(stage, spec, import).await?;
    let pid = stage.pid_of(worker).await?;
    // Kills fall on different moments of the heartbeat.
    tokio::time::sleep(Duration::from_millis(round * 37 % 200)).await;
    let at = Instant::now();
    signal(pid, Signal::KILL)?;
    let (heard, _) = stage.events.until(task, EventKind::ToolStarted, |_| true).await?;
    stage.cancel(task).await?;
    Ok(heard.duration_since(at).as_secs_f64() * 1e3)
}

/// Starts a task and waits until the command runs in whose middle the worker shall go away.
async fn in_the_middle(stage: &mut Stage, spec: TaskSpec, import: Option<&Path>) -> Result<(TaskId, WorkerId)> {
    stage.events.forget();
    let task = stage.create(spec, import).await?.tasks[0].id;
    let long = |event: &helix_protocol::Event| event.event.detail["input"]["command"].as_str() == Some(LONG);
    let (_, event) = stage.events.until(task, EventKind::ToolStarted, long).await?;
    Ok((task, event.event.worker.context("a tool call has a worker")?))
}

fn agent(base: Base, setup: Option<&str>) -> TaskSpec {
    let work = AgentSpec { max_steps: 60, ..AgentSpec::new(PROMPT) };
    let environment = Environment { setup: setup.map(str::to_owned), ..Environment::default() };
    TaskSpec { base, environment, ..TaskSpec::new("resume", TaskWork::Agent(work)) }
}

/// Takes a new repository in and has every worker open it once.
async fn warmed(stage: &mut Stage) -> Result<SnapshotId> {
    let repository = repository(stage, &format!("warm-{}", nanoseconds()))?;
    stage.workers_ready(WORKERS).await?;
    let mut snapshot = None;
    for worker in stage.workers().await? {
        let commands = CommandSpec { commands: vec!["ls | wc -l".to_owned()], artifacts: Vec::new() };
        let needs = Needs { worker: Some(worker.record.id), ..Needs::default() };
        let mut spec = TaskSpec { needs, ..TaskSpec::new("warm", TaskWork::Command(commands)) };
        let import = match snapshot {
            Some(snapshot) => {
                spec.base = Base::Snapshot { snapshot, git_commit: None, repository: None };
                None
            }
            None => Some(repository.as_path()),
        };
        let created = stage.create(spec, import).await?;
        snapshot = snapshot.or(created.imported.map(|imported| imported.snapshot));
        stage.events.until(created.tasks[0].id, EventKind::TaskCompleted, |_| true).await?;
    }
    snapshot.context("the repository was taken in")
}

/// Writes a git repository of [`FILES`] files of 1 to 8 KiB, no file equal to one of another repository.
fn repository(stage: &Stage, name: &str) -> Result<PathBuf> {
    let root = stage.path(name);
    files(&root, name)?;
    let identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false"];
    for arguments in [&["init", "--quiet"][..], &["add", "--all"], &["commit", "--quiet", "--message", "begin"]] {
        let status = Command::new("git").arg("-C").arg(&root).args(identity).args(arguments).status()?;
        ensure!(status.success(), "git {} failed in {}", arguments.join(" "), root.display());
    }
    Ok(root)
}

/// Writes [`FILES`] files of 1 to 8 KiB.
fn files(root: &Path, name: &str) -> Result<()> {
    for at in 0..FILES {
        let folder = root.join(format!("part-{:02}", at % 25));
        std::fs::create_dir_all(&folder)?;
        let mut text = format!("{name} {at}\n");
        for line in 0..(20 + at * 7919 % 140) {
            writeln!(text, "line {line} of file {at}: {:016x} {name}", (at * 1_000_003 + line) * 2_654_435_761)?;
        }
        std::fs::write(folder.join(format!("file-{at}.txt")), text)?;
    }
    Ok(())
}

/// Waits for the first mark after a moment.
async fn mark_after(marks: &Path, after: u128) -> Result<u128> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(marks).unwrap_or_default();
        if let Some(mark) = text.lines().filter_map(|line| line.parse().ok()).find(|mark| *mark > after) {
            return Ok(mark);
        }
        ensure!(started.elapsed() < PATIENCE, "no command ran within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The wall clock, which `date` reads too.
fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
