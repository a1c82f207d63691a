//! `helix worker`

mod add;
mod drain;
mod lifecycle;
mod list;
mod remove;
mod show;

use std::collections::BTreeMap;

use clap::Subcommand;
use helix_messages::WorkerView;
use helix_protocol::{Failure, Lifecycle, Resources, Shortage, Timestamp, WorkerHealth, WorkerStatus};

use super::Context;
use super::style::{Style, Table, age, cut, mebibytes};

/// Add, look at, empty and remove the machines that do the work
#[derive(Debug, Subcommand)]
pub(super) enum Worker {
    Add(add::Add),
    List(list::List),
    Show(show::Show),
    /// Give a worker no new tasks; those it holds go on
    #[command(after_help = "Example:\n  helix worker cordon buildbox")]
    Cordon(lifecycle::Named),
    /// Let a worker take tasks again
    #[command(after_help = "Example:\n  helix worker uncordon buildbox")]
    Uncordon(lifecycle::Named),
    Drain(drain::Drain),
    Remove(remove::Remove),
}

impl Worker {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Add(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Cordon(named) => named.set(context, "cordon").await,
            Self::Uncordon(named) => named.set(context, "uncordon").await,
            Self::Drain(command) => command.run(context).await,
            Self::Remove(command) => command.run(context).await,
        }
    }
}

/// Workers as a table; `held` says how many tasks each holds, where that is known.
pub(super) fn table(workers: &[WorkerView], held: Option<&BTreeMap<String, u64>>, now: Timestamp, style: Style) -> String {
    let mut table = Table::new(style, &["WORKER", "STATE", "TASKS", "MACHINE", "FREE MEMORY", "HEARD", "REACHED BY"]);
    for view in workers {
        let record = &view.record;
        let tasks = match held {
            Some(held) => format!("{}/{}", held.get(&record.name).copied().unwrap_or(0), record.slots),
            None => format!("-/{}", record.slots),
        };
        let machine = record
            .facts
            .as_ref()
            .map_or_else(|| "-".to_owned(), |facts| format!("{} {}, {} cores", facts.os, facts.arch, facts.resources.cores));
        let memory = record.facts.as_ref().map_or_else(|| "-".to_owned(), |facts| mebibytes(facts.resources.memory_free_mib));
        let heard = record.last_seen_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(at, now)));
        table.row([
            style.bold(&record.name),
            state(view, style),
            tasks,
            machine,
            memory,
            heard,
            cut(&record.target.to_string(), 60),
        ]);
    }
    table.render()
}

/// One word for connection, health and what the operator wants.
pub(super) fn state(view: &WorkerView, style: Style) -> String {
    let record = &view.record;
    match (record.lifecycle, record.status, record.health) {
        (Lifecycle::Cordoned, ..) => style.yellow("cordoned"),
        (Lifecycle::Draining, ..) => style.yellow("draining"),
        (_, WorkerStatus::Failed, _) => style.red("failed"),
        (_, WorkerStatus::Offline, _) => style.red("offline"),
        (_, WorkerStatus::Inactive, _) => style.yellow("disconnected"),
        _ if !view.ready => style.yellow("not ready"),
        (_, _, WorkerHealth::Degraded | WorkerHealth::Unhealthy) => strained(view, style),
        _ => style.green("ready"),
    }
}

/// What a worker that is under strain is short of. It takes tasks all the same, and a busy processor is no fault.
fn strained(view: &WorkerView, style: Style) -> String {
    let Some(facts) = &view.record.facts else { return style.yellow("degraded") };
    let Resources { cores, load, memory_mib, memory_free_mib, disk_mib, disk_free_mib, .. } = facts.resources;
    #[allow(clippy::cast_precision_loss)]
    let used = |all: u64, free: u64| if all == 0 { 0.0 } else { 1.0 - free as f64 / all as f64 };
    let (memory, disk) = (used(memory_mib, memory_free_mib), used(disk_mib, disk_free_mib));
    let paint = |word: &str| if view.record.health == WorkerHealth::Unhealthy { style.red(word) } else { style.yellow(word) };
    match Shortage::of(memory, disk, load / f64::from(cores.max(1))) {
        Some(Shortage::Memory) => paint("low on memory"),
        Some(Shortage::Disk) => paint("low on disk"),
        Some(Shortage::Processor) => style.yellow("busy"),
        // A heartbeat is late, or the strain has just ended.
        None => style.yellow("degraded"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use helix_protocol::{Capability, Sandboxing, WorkerFacts, WorkerId, WorkerRecord, WorkerTarget};
    use uuid::Uuid;

    use super::*;

    /// A worker for tests of what a person sees.
    pub(crate) fn view(name: &str, connected: bool) -> WorkerView {
        let resources = Resources {
            cores: 8,
            memory_mib: 16_384,
            memory_free_mib: 9_728,
            disk_mib: 512_000,
            disk_free_mib: 99_000,
            ..Resources::default()
        };
        WorkerView {
            record: WorkerRecord {
                id: WorkerId(Uuid::from_u128(u128::from(name.len() as u64))),
                name: name.to_owned(),
                target: if connected {
                    WorkerTarget::Local { folder: "/w".to_owned() }
                } else {
                    WorkerTarget::Ssh { destination: name.to_owned() }
                },
                slots: 4,
                lifecycle: Lifecycle::Open,
                status: if connected { WorkerStatus::Active } else { WorkerStatus::Offline },
                health: if connected { WorkerHealth::Healthy } else { WorkerHealth::Unknown },
                facts: connected.then(|| WorkerFacts {
                    os: "linux".to_owned(),
                    arch: "x86_64".to_owned(),
                    hostname: name.to_owned(),
                    capabilities: vec![Capability("git".to_owned()), Capability("linux".to_owned())],
                    toolchains: Vec::new(),
                    resources,
                    sandbox: Sandboxing { landlock: 7, seccomp: true, namespaces: true, lacks: Vec::new() },
                }),
                reason: String::new(),
                created_at: Timestamp(0),
                last_seen_at: connected.then_some(Timestamp(5_399_000_000)),
                version: 1,
            },
            ready: connected,
            lost: false,
            incarnation: 1,
            pid: Some(12),
            holds: Vec::new(),
        }
    }

    #[test]
    fn a_worker_under_strain_says_what_it_is_short_of() {
        let word = |change: fn(&mut Resources), health| {
            let mut view = view("alpha", true);
            view.record.health = health;
            change(&mut view.record.facts.as_mut().expect("connected").resources);
            state(&view, Style::Plain)
        };
        let (little, much) = (WorkerHealth::Degraded, WorkerHealth::Unhealthy);
        assert_eq!(word(|machine| machine.load = 7.9, much), "busy");
        assert_eq!(word(|machine| machine.memory_free_mib = 900, much), "low on memory");
        assert_eq!(word(|machine| machine.disk_free_mib = 9_000, much), "low on disk");
        assert_eq!(word(|machine| machine.disk_free_mib = 120_000, little), "low on disk");
        assert_eq!(word(|machine| machine.disk_free_mib = 400_000, little), "degraded");
        assert_eq!(word(|_| {}, WorkerHealth::Healthy), "ready");
    }

    #[test]
    fn a_listing_reads_like_this() {
        let mut drained = view("old-laptop", true);
        drained.record.lifecycle = Lifecycle::Draining;
        insta::assert_snapshot!(table(
            &[view("alpha", true), view("buildbox", false), drained],
            None,
            Timestamp(5_400_000_000),
            Style::Plain
        ));
    }
}
