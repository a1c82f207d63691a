//! The figures of the spine, from real processes: what a death costs, what a durable task costs, what it all weighs.
//!
//! `make bench` builds the release binaries and runs this after the kernel's bench. Each figure is a JSON line in
//! `target/figures/spine.jsonl`; the table is printed, and with `--write` goes into docs/benchmarks.md between its markers.
//! `--quick` runs a few of everything and writes nothing. `--only NAME` (several times) picks parts.

#[path = "spine/commit.rs"]
mod commit;
#[allow(dead_code, reason = "each bench uses a part of it")]
#[path = "../tests/harness/group.rs"]
mod group;
#[path = "spine/misses.rs"]
mod misses;
#[path = "../tests/harness/not_run.rs"]
mod not_run;
#[path = "../tests/harness/peers.rs"]
mod peers;
#[path = "spine/raw.rs"]
mod raw;
#[allow(dead_code, reason = "each bench uses a part of it")]
#[path = "report.rs"]
mod report;
#[path = "spine/restate.rs"]
mod restate;
#[path = "spine/resume.rs"]
mod resume;
#[path = "spine/stage.rs"]
mod stage;
#[path = "spine/step.rs"]
mod step;
#[path = "spine/throughput.rs"]
mod throughput;
#[path = "spine/weight.rs"]
mod weight;

use anyhow::Result;
use helix_database::testing::{Durability, TestPostgres};

use raw::{Raw, Table};
use report::{Asked, Bench, Report};
use restate::Restate;
use stage::{Setting, Stage};

const BENCH: Bench = Bench { name: "spine", command: "make bench", beside: &[("psql", "--version")] };

/// What `--only` can name.
const PARTS: [&str; 9] = ["resume", "silent", "node", "memory", "sqlite", "restate", "postgres", "commit", "size"];

fn main() -> Result<()> {
    let asked = Asked::read(&PARTS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&asked))
}

async fn measure(asked: &Asked) -> Result<()> {
    let mut report = Report::begin(BENCH);
    let scale = asked.scale;
    let mut take = |figures| report.take(misses::told(figures));
    // Asked for first, so that nobody waits for minutes to be told that it is missing.
    let restate = if asked.wants("restate") { restate::programs()? } else { None };
    if asked.wants("resume") {
        let mut stage = Stage::set(Setting { slots: 4, ..Setting::default() }).await?;
        take(resume::content_warm(&mut stage, scale).await?);
        take(resume::content_cold(&mut stage, scale).await?);
        take(resume::with_setup(&mut stage, scale).await?);
        stage.leave().await?;
    }
    if asked.wants("silent") {
        let mut stage = Stage::set(Setting { slots: 4, ..Setting::default() }).await?;
        take(resume::after_silence(&mut stage, scale).await?);
        stage.leave().await?;
    }
    if asked.wants("node") {
        let mut stage = Stage::set(Setting { slots: 4, ..Setting::default() }).await?;
        take(resume::node_killed(&mut stage, scale).await?);
        stage.leave().await?;
    }
    if asked.wants("memory") {
        let mut stage = Stage::set(Setting { slots: 70, ..Setting::default() }).await?;
        take(weight::idle_and_full(&mut stage, scale).await?);
        stage.leave().await?;
    }
    if asked.wants("sqlite") {
        let raw = Raw::measure(&mut Table::sqlite().await?, scale).await?;
        let mut stage = Stage::set(Setting { slots: 70, ..Setting::default() }).await?;
        take(throughput::nothing(&mut stage, "SQLite", &raw, scale).await?);
        take(throughput::commands(&mut stage, "SQLite", scale).await?);
        stage.leave().await?;
    }
    if asked.wants("restate") {
        let mut stage = Stage::set(Setting { slots: 70, ..Setting::default() }).await?;
        let restate = match restate {
            Some(programs) => Some(Restate::start(&programs).await?),
            None => None,
        };
        take(vec![throughput::beside_restate(&mut stage, restate.as_ref(), scale).await?]);
        drop(restate);
        stage.leave().await?;
    }
    if asked.wants("postgres") {
        let server = TestPostgres::start(Durability::Synced);
        let raw = Raw::measure(&mut Table::postgres(&server.url(&server.database().await)).await?, scale).await?;
        let database = server.url(&server.database().await);
        let mut stage = Stage::set(Setting { slots: 70, database }).await?;
        take(throughput::nothing(&mut stage, "PostgreSQL", &raw, scale).await?);
        stage.leave().await?;
    }
    if asked.wants("commit") {
        let folder = tempfile::tempdir()?;
        let database = format!("sqlite:{}", folder.path().join("records.db").display());
        take(commit::latency("SQLite", &database, &mut Table::sqlite().await?, scale).await?);
        let server = TestPostgres::start(Durability::Synced);
        let mut raw = Table::postgres(&server.url(&server.database().await)).await?;
        let database = server.url(&server.database().await);
        take(commit::latency("PostgreSQL", &database, &mut raw, scale).await?);
    }
    if asked.wants("size") {
        take(vec![weight::program_size()?]);
    }
    report.end(asked, |_| Ok(String::new()))
}
