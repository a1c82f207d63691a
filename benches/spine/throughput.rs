//! How many durable tasks a second, through REST, scheduler, link, worker and records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use helix::client::Client;
use helix_adapter_http::api::{CreateTaskRequest, CreatedTasks};
use helix_protocol::{CommandSpec, EventKind, TaskId, TaskSpec, TaskWork};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::raw::Raw;
use crate::report::{Figure, Scale, quantile, readable};
use crate::restate::Restate;
use crate::stage::{Events, Stage};
use crate::weight::cpu_seconds;

/// Tasks under way at once.
pub const IN_FLIGHT: usize = 64;
/// So many times what Restate does.
const GOAL: f64 = 2.0;

/// What of a run counts: what ends after a while of warming up.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    warm_up: Duration,
    measured: Duration,
}

impl Window {
    /// Of a run that stands alone.
    fn alone(scale: Scale) -> Self {
        Self { warm_up: Duration::from_secs(scale.pick(3, 1)), measured: Duration::from_secs(scale.pick(15, 3)) }
    }

    /// Of one of several turns.
    fn turn(scale: Scale) -> Self {
        Self { warm_up: Duration::from_secs(scale.pick(2, 1)), measured: Duration::from_secs(scale.pick(5, 2)) }
    }

    /// Its two ends, of a run that starts at this moment.
    pub fn from(self, started: Instant) -> (Instant, Instant) {
        let from = started + self.warm_up;
        (from, from + self.measured)
    }
}

/// Tasks of one step that does nothing.
pub async fn nothing(stage: &mut Stage, database: &str, raw: &Raw, scale: Scale) -> Result<Vec<Figure>> {
    let run = run(stage, &[], Window::alone(scale)).await?;
    let name = format!("durable one-step no-op tasks, {IN_FLIGHT} in flight, {database}");
    let beside = format!(
        "raw synced inserts: {} /s one each transaction, {} /s by {} (ratio: to the first); tasks made over REST, ends heard over SSE",
        readable(raw.single),
        readable(raw.grouped),
        Raw::GROUP
    );
    let mut figures = vec![Figure::new(name.clone(), run.per_second, "tasks/s").against(beside).beside(raw.single)];
    figures.extend(run.costs(&name));
    Ok(figures)
}

/// The same beside calls of a handler that journals one step, in turns. Without Restate it is said that nothing was measured.
pub async fn beside_restate(stage: &mut Stage, restate: Option<&Restate>, scale: Scale) -> Result<Figure> {
    let name = format!("durable one-step no-op tasks, {IN_FLIGHT} in flight, SQLite, beside Restate");
    let Some(restate) = restate else {
        return Ok(Figure::new(name, 0.0, "tasks/s").not_measured("Restate is not installed: `scripts/peers.sh restate`"));
    };
    let window = Window::turn(scale);
    let (mut ours, mut theirs, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..scale.pick(9, 3) {
        // Who goes first alternates.
        let (own, other) = if round % 2 == 0 {
            let own = run(stage, &[], window).await?.per_second;
            (own, restate.per_second(window).await?)
        } else {
            let other = restate.per_second(window).await?;
            (run(stage, &[], window).await?.per_second, other)
        };
        ours.push(own);
        theirs.push(other);
        times.push(own / other);
    }
    for values in [&mut ours, &mut theirs, &mut times] {
        values.sort_by(f64::total_cmp);
    }
    let spread = |values: &[f64]| format!("least {}, most {}", readable(quantile(values, 0.0)), readable(quantile(values, 1.0)));
    let against = format!(
        "{}; {}, a handler on its Rust SDK with one `ctx.run` that does nothing, called through its ingress, {IN_FLIGHT} at once: {} /s ({})",
        spread(&ours),
        restate.about,
        readable(quantile(&theirs, 0.5)),
        spread(&theirs)
    );
    let figure = Figure::new(format!("{name}: median of {} turns", ours.len()), quantile(&ours, 0.5), "tasks/s");
    Ok(figure.against(against).times(quantile(&times, 0.5), Some(GOAL)))
}

/// Tasks of one command, `true`, in an empty folder.
pub async fn commands(stage: &mut Stage, database: &str, scale: Scale) -> Result<Vec<Figure>> {
    let run = run(stage, &["true"], Window::alone(scale)).await?;
    let name = format!("command tasks (`true`), {IN_FLIGHT} in flight, {database}");
    let mut figures = vec![Figure::new(name.clone(), run.per_second, "tasks/s")];
    figures.extend(run.costs(&name));
    Ok(figures)
}

/// What a run gave.
struct Run {
    per_second: f64,
    latency: [f64; 2],
    node_ms: f64,
    worker_ms: f64,
}

impl Run {
    fn costs(&self, name: &str) -> [Figure; 4] {
        [
            Figure::new(format!("{name}: request to end heard, p50"), self.latency[0], "ms"),
            Figure::new(format!("{name}: request to end heard, p99"), self.latency[1], "ms"),
            Figure::new(format!("{name}: processor time of the node"), self.node_ms, "ms/task"),
            Figure::new(format!("{name}: processor time of the workers"), self.worker_ms, "ms/task"),
        ]
    }
}

/// Who waits for which task to end. An end may be heard before the answer that names the task.
#[derive(Default)]
struct Ends(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    waiting: HashMap<TaskId, oneshot::Sender<bool>>,
    early: HashSet<TaskId>,
}

impl Ends {
    fn wait(&self, task: TaskId) -> Option<oneshot::Receiver<bool>> {
        let mut heard = self.0.lock();
        if heard.early.remove(&task) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        heard.waiting.insert(task, tell);
        Some(told)
    }

    fn ended(&self, task: TaskId, well: bool) {
        let mut heard = self.0.lock();
        match heard.waiting.remove(&task) {
            Some(tell) => drop(tell.send(well)),
            None => drop(heard.early.insert(task)),
        }
    }
}

async fn run(stage: &mut Stage, commands: &[&str], window: Window) -> Result<Run> {
    let commands = CommandSpec { commands: commands.iter().map(|text| (*text).to_owned()).collect(), artifacts: Vec::new() };
    let spec = TaskSpec::new("bench", TaskWork::Command(commands));
    let request = Arc::new(CreateTaskRequest { spec, import: None, attempts: 1, secrets: Vec::new() });
    let mut pids = Vec::new();
    for worker in stage.workers().await? {
        pids.push(worker.pid.context("the worker gave its process id")?);
    }
    let node = stage.node.pid();
    let workers = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<Result<f64>>();

    stage.events.forget();
    let ends = Arc::new(Ends::default());
    let counted = Arc::new(AtomicU64::new(0));
    let (from, to) = window.from(Instant::now());
    let lanes: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(lane(stage.client.clone(), Arc::clone(&request), Arc::clone(&ends), from, to)))
        .collect();
    let hearing = hear(&mut stage.events, &ends, &counted);
    tokio::pin!(hearing);
    let (mut before, mut after) = (None, None);
    tokio::select! {
        heard = &mut hearing => return Err(heard.expect_err("it ends by a failure only")),
        measured = async {
            tokio::time::sleep_until(from.into()).await;
            before = Some((counted.load(Ordering::Relaxed), cpu_seconds(node)?, workers()?, Instant::now()));
            tokio::time::sleep_until(to.into()).await;
            after = Some((counted.load(Ordering::Relaxed), cpu_seconds(node)?, workers()?, Instant::now()));
            anyhow::Ok(())
        } => measured?,
    }
    let mut latencies = Vec::new();
    let collected = async {
        for lane in lanes {
            latencies.extend(lane.await??);
        }
        anyhow::Ok(())
    };
    tokio::select! {
        heard = &mut hearing => return Err(heard.expect_err("it ends by a failure only")),
        collected = collected => collected?,
    }
    let (before, after) = before.zip(after).context("both ends of the window were seen")?;
    let tasks = (after.0 - before.0) as f64;
    ensure!(tasks > 0.0, "no task ended within {:?}", window.measured);
    latencies.sort_by(f64::total_cmp);
    Ok(Run {
        per_second: tasks / after.3.duration_since(before.3).as_secs_f64(),
        latency: [quantile(&latencies, 0.5), quantile(&latencies, 0.99)],
        node_ms: (after.1 - before.1) * 1e3 / tasks,
        worker_ms: (after.2 - before.2) * 1e3 / tasks,
    })
}

/// Makes one task after the other, each when the one before has ended. Answers the milliseconds of those made within the window.
async fn lane(client: Client, request: Arc<CreateTaskRequest>, ends: Arc<Ends>, from: Instant, to: Instant) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= to {
            return Ok(latencies);
        }
        let created: CreatedTasks = client.post("/tasks", &*request).await?;
        let task = created.tasks.first().context("the node made a task")?.id;
        if let Some(told) = ends.wait(task) {
            ensure!(told.await?, "task {task} did not complete");
        }
        if begun >= from {
            latencies.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
}

async fn hear(events: &mut Events, ends: &Ends, counted: &AtomicU64) -> Result<()> {
    loop {
        let (_, event) = events.next().await?;
        let Some(task) = event.event.task else { continue };
        match event.event.kind {
            EventKind::TaskCompleted => {
                counted.fetch_add(1, Ordering::Relaxed);
                ends.ended(task, true);
            }
            EventKind::TaskFailed => bail!("task {task} failed: {}", event.event.message),
            _ => {}
        }
    }
}
