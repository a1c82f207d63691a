//! How long the commit of a step takes: from `Records::write` to its answer, through the writer's actor, on SQLite.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use helix_actor_storage::StorageArgs;
use helix_database::{Applied, Write};
use helix_kernel::{Strategy, SupervisorSpec};
use helix_messages::{Events, Records};
use helix_objects::MemoryStore;
use helix_protocol::{
    AttemptId, CommandSpec, NewStep, NodeId, ObjectId, Principal, ProjectId, SnapshotId, Spend, StepId, StepOutcome, TaskId,
    TaskRecord, TaskSpec, TaskWork, Timestamp, WorkerId,
};

use crate::report::{Figure, Scale, quantile};

const LIMIT: Duration = Duration::from_secs(60);

/// p50 and p99, with one task at a time and with 64 at once.
pub async fn latency(scale: Scale) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let store = helix_database::open(&format!("sqlite:{}", folder.path().join("records.db").display())).await?;
    let args = StorageArgs {
        records: Arc::clone(&store),
        objects: Arc::new(MemoryStore::default()),
        upkeep: None,
        file_cap_bytes: 64 << 20,
        events: Events::new(1_024),
        writer: StorageArgs::writer_address(),
        repositories: StorageArgs::repositories_address(),
    };
    let records = Records::new(args.writer.clone(), store, LIMIT);
    let tree = SupervisorSpec::new("bench", Strategy::OneForOne)
        .child(helix_kernel::ChildSpec::supervisor(helix_actor_storage::branch(args)));
    let root = helix_kernel::start(tree).await?;
    let mut figures = Vec::new();
    for (tasks, steps) in [(1, scale.pick(1_000, 50)), (64, scale.pick(100, 5))] {
        let lanes: Vec<_> = (0..tasks).map(|_| tokio::spawn(lane(records.clone(), steps))).collect();
        let mut micros = Vec::new();
        for lane in lanes {
            micros.extend(lane.await??);
        }
        micros.sort_by(f64::total_cmp);
        for (share, word) in [(0.5, "p50"), (0.99, "p99")] {
            let name = format!("step commit on SQLite, {tasks} at once: {word} of {}", micros.len());
            let against = "from Records::write to its answer: writer, transaction, sync";
            figures.push(Figure::new(name, quantile(&micros, share) / 1e3, "ms").against(against));
        }
    }
    root.shutdown().await?;
    Ok(figures)
}

/// Commits one step after the other on a task of its own; answers each commit's microseconds.
async fn lane(records: Records, steps: usize) -> Result<Vec<f64>> {
    let spec = Box::new(TaskSpec::new("commit", TaskWork::Command(CommandSpec::default())));
    let principal = Principal::local("bench");
    let (id, attempt, project) = (TaskId::new(), AttemptId::new(), ProjectId::DEFAULT);
    let created =
        records.write(Write::CreateTask { id, attempt, spec, principal, project, idempotency_key: None, paused: None }).await?;
    let (node, worker, expected) = (NodeId::new(), WorkerId::new(), task_of(created)?.epoch);
    let claim = Write::Claim { task: id, expected, node, worker, events: Vec::new() };
    let mut task = task_of(records.write(claim).await?)?;
    let mut micros = Vec::with_capacity(steps);
    for _ in 0..steps {
        let write = Write::Commit { step: Box::new(step_on(&task)), then: None, events: Vec::new() };
        let begun = Instant::now();
        let applied = records.write(write).await?;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
        task = task_of(applied)?;
    }
    Ok(micros)
}

fn task_of(applied: Applied) -> Result<TaskRecord> {
    match applied {
        Applied::Task { task, .. } | Applied::Step { task, .. } => Ok(*task),
        Applied::Done { .. } => bail!("the answer has no task"),
    }
}

fn step_on(task: &TaskRecord) -> NewStep {
    let tree = ObjectId([7; 32]);
    NewStep {
        id: StepId::new(),
        task: task.id,
        epoch: task.epoch,
        attempt: task.attempt,
        parent: task.head,
        ordinal: task.steps + 1,
        outcome: StepOutcome::Continue,
        summary: "a step".to_owned(),
        tree,
        snapshot: SnapshotId(tree),
        store_sequence: 0,
        changes: Vec::new(),
        skipped: Vec::new(),
        torn: Vec::new(),
        messages: Vec::new(),
        long_messages: None,
        exits: Vec::new(),
        artifacts: Vec::new(),
        heard: Vec::new(),
        asked: Vec::new(),
        spend: Spend::default(),
        worker: task.worker,
        confinement: None,
        started_at: Timestamp::now(),
    }
}
