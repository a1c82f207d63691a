//! The version store's figures, each beside git in the same run, on folders of the same content. Single commands take turns with
//! git's, pair by pair: 40 of them, and 11 of an import or an export, as the figure's name says. What sixteen agents commit, what a
//! store packs to and how long that takes is measured once for each tool, one after the other.
//!
//! `make bench-helios` builds the release binaries and runs this. Each figure is a JSON line in `target/figures/helios.jsonl`; the
//! table is printed, and with `--write` goes into docs/benchmarks.md, with plots in docs/plots. A ratio says how many times less
//! helios takes: the median over the pairs of git's time divided by helios's, or of the two values where each is measured once.
//! `--quick` measures a few of everything and writes nothing; `--only NAME` (several times) picks parts.

#[path = "helios/agents.rs"]
mod agents;
#[path = "helios/commands.rs"]
mod commands;
#[path = "helios/history.rs"]
mod history;
#[path = "helios/least.rs"]
mod least;
#[path = "helios/memory.rs"]
mod memory;
#[path = "helios/pairs.rs"]
mod pairs;
#[path = "helios/plots.rs"]
mod plots;
#[path = "helios/process.rs"]
mod process;
#[allow(dead_code, reason = "each bench uses a part of it")]
#[path = "report.rs"]
mod report;
#[path = "helios/size.rs"]
mod size;
#[path = "helios/tools.rs"]
mod tools;

use anyhow::{Result, bail};

use report::{Asked, Bench, Report};
use tools::Stage;

const BENCH: Bench = Bench { name: "helios", command: "make bench-helios", beside: &[("git", "--version")] };

/// The parts, in the order in which they run.
const PARTS: [&str; 8] = ["process", "commit", "status", "moves", "agents", "history", "memory", "size"];

fn main() -> Result<()> {
    let asked = Asked::read(&PARTS)?;
    let scale = asked.scale;
    let mut report = Report::begin(BENCH);
    let mut failed = Vec::new();
    for part in PARTS.into_iter().filter(|part| asked.wants(part)) {
        let stage = Stage::new()?;
        let figures = match part {
            "process" => process::library(&stage, scale),
            "commit" => commands::commit(&stage, scale),
            "status" => commands::status(&stage, scale),
            "moves" => commands::moves(&stage, scale),
            "agents" => agents::side_by_side(&stage, scale),
            "history" => history::there_and_back(&stage, scale),
            "memory" => memory::of_the_engine(&stage, scale),
            _ => size::after_packing(&stage, scale),
        };
        match figures {
            Ok(figures) => report.take(figures),
            Err(error) => {
                eprintln!("{part} could not be measured: {error:#}");
                failed.push(part);
            }
        }
    }
    if !failed.is_empty() {
        // A table without them would read as if nothing were missing.
        report.print();
        bail!("not measured, so nothing is written: {}", failed.join(", "));
    }
    report.end(&asked, |figures| plots::write(figures, &report::root().join("docs")))
}
