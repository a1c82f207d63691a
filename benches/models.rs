//! The figures of the gateway: what it adds to a model's answer, beside a bare reverse proxy and the LiteLLM proxy.
//!
//! `make bench-models` builds the release binaries and runs this after the tests that count cache hits, edits and sandboxes.
//! Everything runs on this machine: an upstream in this process that answers after a fixed time, and before it, each a process of
//! its own, a node's gateway, the bare proxy and LiteLLM. They are asked in turns, in one run. Each figure is a JSON line in
//! `target/figures/models.jsonl`; the table is printed, and with `--write` goes into docs/benchmarks.md between its markers.
//! `--quick` runs a few of everything and writes nothing. `--only NAME` (several times) picks parts.

#[path = "models/bare.rs"]
mod bare;
#[path = "models/codec.rs"]
mod codec;
#[path = "../tests/harness/group.rs"]
mod group;
#[path = "models/latency.rs"]
mod latency;
#[path = "../tests/harness/litellm.rs"]
mod litellm;
#[path = "../tests/harness/not_run.rs"]
mod not_run;
#[path = "../tests/harness/peers.rs"]
mod peers;
#[allow(dead_code, reason = "each bench uses a part of it")]
#[path = "report.rs"]
mod report;
#[path = "models/stage.rs"]
mod stage;
#[path = "models/streams.rs"]
mod streams;
#[path = "models/target.rs"]
mod target;
#[path = "models/throughput.rs"]
mod throughput;
#[path = "models/upstream.rs"]
mod upstream;

use anyhow::Result;

use report::{Asked, Bench, Report};
use stage::Stage;

const BENCH: Bench = Bench { name: "models", command: "make bench-models", beside: &[("python3", "--version")] };

/// What `--only` can name.
const PARTS: [&str; 5] = ["latency", "streams", "throughput", "memory", "codec"];

fn main() -> Result<()> {
    // Whoever was first has set it, and that is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    // The bare proxy is this program again, so that it is a process of its own as the others are.
    if let [_, role, upstream] = &std::env::args().collect::<Vec<_>>()[..]
        && role == bare::ROLE
    {
        return bare::serve(upstream);
    }
    let asked = Asked::read(&PARTS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&asked))
}

async fn measure(asked: &Asked) -> Result<()> {
    let mut report = Report::begin(BENCH);
    let scale = asked.scale;
    if ["latency", "streams", "throughput", "memory"].into_iter().any(|part| asked.wants(part)) {
        let stage = Stage::set().await?;
        if asked.wants("latency") {
            report.take(latency::added(&stage, scale).await?);
        }
        if asked.wants("streams") {
            report.take(streams::added(&stage, scale).await?);
        }
        if asked.wants("throughput") {
            report.take(throughput::most(&stage, scale).await?);
        }
        if asked.wants("memory") {
            report.take(stage.memory()?);
        }
        stage.leave().await?;
    }
    if asked.wants("codec") {
        report.take(codec::throughput(scale)?);
    }
    report.end(asked, |_| Ok(String::new()))
}
