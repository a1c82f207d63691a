//! How long the commit of a step takes: from `Records::write` to its answer, through the writer's actor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use helix_actor_storage::StorageArgs;
use helix_database::{Applied, RecordStore, Write};
use helix_kernel::{Strategy, SupervisorHandle, SupervisorSpec};
use helix_messages::{Events, Records};
use helix_objects::MemoryStore;
use helix_protocol::{AttemptId, CommandSpec, NodeId, Principal, ProjectId, TaskId, TaskRecord, TaskSpec, TaskWork, WorkerId};

use crate::raw::Table;
use crate::report::{Figure, Scale, quantile, readable};
use crate::step::Content;

const LIMIT: Duration = Duration::from_secs(60);
/// Raw inserts and commits take turns, so that both see the same moments of the disk.
const TURNS: usize = 10;

/// p50 and p99 of each kind of step, with one task at a time and with 64 at once, beside raw inserts of the same
/// bytes, as many each transaction as commits may share one.
pub async fn latency(database: &str, url: &str, raw: &mut Table, scale: Scale) -> Result<Vec<Figure>> {
    let store = helix_database::open(url).await?;
    let (root, records) = writer(store).await?;
    let mut figures = Vec::new();
    for content in [Content::Empty, Content::Agent] {
        for (tasks, steps) in [(1, scale.pick(100, 5)), (64, scale.pick(10, 1))] {
            let run = run(&records, raw, content, Load { tasks, steps }).await?;
            let name = format!("commit of {} on {database}, {tasks} at once", content.name());
            figures.extend(run.figures(&name));
        }
    }
    root.shutdown().await?;
    Ok(figures)
}

/// So many tasks at once, each with so many steps in a turn.
#[derive(Clone, Copy)]
struct Load {
    tasks: usize,
    steps: usize,
}

/// Microseconds, sorted.
struct Run {
    commits: Vec<f64>,
    raw: Vec<f64>,
    content: Content,
    tasks: usize,
    bytes: usize,
}

impl Run {
    fn figures(&self, name: &str) -> Vec<Figure> {
        let figure = |(share, word): (f64, &str)| {
            let (commit, raw) = (quantile(&self.commits, share), quantile(&self.raw, share));
            let against = format!(
                "from Records::write to its answer{}; raw synced inserts of its {} bytes, {}, in turns: {} ms",
                self.content.holds(),
                self.bytes,
                if self.tasks == 1 { "one each transaction".to_owned() } else { format!("{} each transaction", self.tasks) },
                readable(raw / 1e3)
            );
            let name = format!("{name}: {word} of {}", self.commits.len());
            Figure::new(name, commit / 1e3, "ms").against(against).times(raw / commit, None)
        };
        [(0.5, "p50"), (0.99, "p99")].into_iter().map(figure).collect()
    }
}

async fn run(records: &Records, raw: &mut Table, content: Content, load: Load) -> Result<Run> {
    let mut tasks = Vec::new();
    for _ in 0..load.tasks {
        tasks.push(claimed(records).await?);
    }
    let (step, _) = content.step_on(tasks.first().context("there are tasks")?);
    let body = serde_json::to_vec(&step)?;
    let mut run = Run { commits: Vec::new(), raw: Vec::new(), content, tasks: load.tasks, bytes: body.len() };
    for _ in 0..TURNS {
        for _ in 0..load.steps {
            let begun = Instant::now();
            raw.insert(load.tasks, &body).await?;
            run.raw.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        // Made before the first is committed: making them is not what is measured.
        let lines: Vec<_> = tasks.iter_mut().map(|task| line(task, content, load.steps)).collect();
        let lanes: Vec<_> = lines.into_iter().map(|line| tokio::spawn(lane(records.clone(), line))).collect();
        for lane in lanes {
            run.commits.extend(lane.await??);
        }
    }
    run.commits.sort_by(f64::total_cmp);
    run.raw.sort_by(f64::total_cmp);
    Ok(run)
}

/// The database's one writer, and who asks it.
async fn writer(store: Arc<dyn RecordStore>) -> Result<(SupervisorHandle, Records)> {
    let args = StorageArgs {
        records: Arc::clone(&store),
        objects: Arc::new(MemoryStore::default()),
        cache: None,
        upkeep: None,
        file_cap_bytes: 64 << 20,
        events: Events::new(1_024),
        writer: StorageArgs::writer_address(),
        repositories: StorageArgs::repositories_address(),
    };
    let records = Records::new(args.writer.clone(), store, LIMIT);
    let tree = SupervisorSpec::new("bench", Strategy::OneForOne)
        .child(helix_kernel::ChildSpec::supervisor(helix_actor_storage::branch(args)));
    Ok((helix_kernel::start(tree).await?, records))
}

/// A new task that runs.
async fn claimed(records: &Records) -> Result<TaskRecord> {
    let spec = Box::new(TaskSpec::new("commit", TaskWork::Command(CommandSpec::default())));
    let principal = Principal::local("bench");
    let (id, attempt, project) = (TaskId::new(), AttemptId::new(), ProjectId::DEFAULT);
    let created =
        records.write(Write::CreateTask { id, attempt, spec, principal, project, idempotency_key: None, paused: None }).await?;
    let (node, worker, expected) = (NodeId::new(), WorkerId::new(), task_of(created)?.epoch);
    let claim = Write::Claim { task: id, expected, node, worker, events: Vec::new() };
    task_of(records.write(claim).await?)
}

/// The next steps of a task, each on the one before, and the task as it is after them.
fn line(task: &mut TaskRecord, content: Content, steps: usize) -> Vec<Write> {
    let mut line = Vec::with_capacity(steps);
    for _ in 0..steps {
        let (step, events) = content.step_on(task);
        (task.head, task.steps) = (Some(step.id), step.ordinal);
        line.push(Write::Commit { step: Box::new(step), then: None, events });
    }
    line
}

/// Commits one step after the other; answers the microseconds of each.
async fn lane(records: Records, line: Vec<Write>) -> Result<Vec<f64>> {
    let mut micros = Vec::with_capacity(line.len());
    for write in line {
        let begun = Instant::now();
        records.write(write).await?;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(micros)
}

fn task_of(applied: Applied) -> Result<TaskRecord> {
    match applied {
        Applied::Task { task, .. } | Applied::Step { task, .. } => Ok(*task),
        Applied::Done { .. } => bail!("the answer has no task"),
    }
}
