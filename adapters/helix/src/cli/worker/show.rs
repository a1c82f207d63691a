//! `helix worker show`

use clap::Args;
use helix_messages::WorkerView;
use helix_protocol::{Failure, Timestamp};

use super::state;
use crate::cli::Context;
use crate::cli::style::{Style, Table, age, mebibytes};
use crate::client::segment;

/// Show everything known of a worker
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  helix worker show buildbox\n\n`helix worker list --help` says what each state means.")]
pub(in crate::cli) struct Show {
    /// Its name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    worker: String,
}

impl Show {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let view: WorkerView = context.client()?.get(&format!("/workers/{}", segment(&self.worker))).await?;
        context.print(&view, |view| render(view, Timestamp::now(), context.style))
    }
}

fn render(view: &WorkerView, now: Timestamp, style: Style) -> String {
    let record = &view.record;
    let mut table = Table::bare();
    let mut row = |key: &str, value: String| table.row([style.dim(key), value]);
    row("worker", format!("{} ({})", style.bold(&record.name), record.id));
    row("state", state(view, style));
    if !record.reason.is_empty() {
        row("why", record.reason.clone());
    }
    row("reached by", record.target.to_string());
    row("slots", record.slots.to_string());
    row("process", view.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()));
    row("heard", record.last_seen_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(at, now))));
    if let Some(facts) = &record.facts {
        let resources = &facts.resources;
        row(
            "machine",
            format!("{}: {} {}, {} cores, load {:.2}", facts.hostname, facts.os, facts.arch, resources.cores, resources.load),
        );
        row("memory", format!("{} free of {}", mebibytes(resources.memory_free_mib), mebibytes(resources.memory_mib)));
        row("disk", format!("{} free of {}", mebibytes(resources.disk_free_mib), mebibytes(resources.disk_mib)));
        if resources.gpus > 0 {
            row("gpus", resources.gpus.to_string());
        }
        let words: Vec<&str> = facts.capabilities.iter().map(|capability| capability.0.as_str()).collect();
        row("has", words.join(" "));
        row("sandbox", facts.sandbox.to_string());
        for tool in &facts.toolchains {
            row("", format!("{}: {}", tool.name, tool.version));
        }
    }
    for holding in &view.holds {
        row("holds", format!("task {} at epoch {}", holding.task.short(), holding.epoch));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::worker::tests::view;

    #[test]
    fn a_worker_reads_like_this() {
        insta::assert_snapshot!(render(&view("alpha", true), Timestamp(5_400_000_000), Style::Plain));
    }
}
