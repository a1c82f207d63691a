//! What is known of a worker's machine while it is connected: each heartbeat says what is free of it, and now and then the worker
//! looks at all of it again, because somebody may have installed a program since.

use std::time::Duration;

use helix_kernel::Boottime;
use helix_protocol::link::{Heartbeat, Request, Response};
use helix_protocol::{Code, EventKind, Failure, Resources, Severity, Shortage, WorkerFacts, WorkerHealth};
use serde_json::json;

use super::{WorkerMsg, WorkerState};

/// Its first words know no versions of programs yet: a worker has asked for them by then.
const FIRST: Duration = Duration::from_secs(60);
/// So often the worker is asked to look at its machine again.
const AGAIN: Duration = Duration::from_secs(600);
/// Programs are asked for their versions one after the other, and one that hangs takes three seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// A change of what is free by so many hundredths is worth telling those who choose among workers.
const WORTH_TELLING: u8 = 5;

/// When the machine is to be looked at, and what of it was told last.
#[derive(Default)]
pub(super) struct Looks {
    due: Boottime,
    told: Option<(u8, u8)>,
}

impl Looks {
    /// With a connection.
    pub(super) fn begin(now: Boottime) -> Self {
        Self { due: now.after(FIRST), told: None }
    }

    /// True where memory or disk in use differ enough from what was told last, which they then are.
    fn is_worth_telling(&mut self, beat: &Heartbeat) -> bool {
        let now = (beat.memory_percent, beat.disk_percent);
        let differs = |told: (u8, u8)| told.0.abs_diff(now.0).max(told.1.abs_diff(now.1)) >= WORTH_TELLING;
        let worth = self.told.is_none_or(differs);
        if worth {
            self.told = Some(now);
        }
        worth
    }
}

impl WorkerState {
    pub(super) fn heard(&mut self, beat: &Heartbeat) {
        self.saw();
        self.read_lease();
        let mut cores = 1;
        if let Some(facts) = &mut self.view.record.facts {
            cores = facts.resources.cores;
            free(&mut facts.resources, beat);
        }
        self.args.line.show(self.view.clone());
        if self.looks.is_worth_telling(beat) {
            self.report();
        }
        if let Some(health) = self.health.take(beat, cores) {
            if matches!(health, WorkerHealth::Degraded | WorkerHealth::Unhealthy) {
                let detail = json!({ "load": beat.load, "memory_percent": beat.memory_percent, "disk_percent": beat.disk_percent });
                self.tell(EventKind::WorkerHealthDegraded, Severity::Warning, &strain(beat, cores), detail);
            }
            self.set_health(health);
        }
        if self.now() >= self.looks.due {
            self.look_again();
        }
    }

    fn look_again(&mut self) {
        let Some((connection, link)) = &self.link else { return };
        let (connection, link) = (*connection, link.clone());
        self.looks.due = self.now().after(AGAIN);
        self.work.start(async move {
            let outcome = match link.request(Request::Inspect, PATIENCE).await {
                Ok(Response::Inspected { facts }) => Ok(Box::new(facts)),
                Ok(other) => Err(Failure::new(Code::ProtocolError, format!("a look was answered with {other:?}"))),
                Err(failure) => Err(failure),
            };
            WorkerMsg::Inspected { connection, outcome }
        });
    }

    pub(super) fn inspected(&mut self, outcome: Result<Box<WorkerFacts>, Failure>) {
        match outcome {
            Ok(facts) => {
                let known = self.view.record.facts.as_ref();
                // What is free changes all the time, and heartbeats say it.
                let same = |known: &WorkerFacts| WorkerFacts { resources: facts.resources, ..known.clone() } == *facts;
                self.row.changed |= !known.is_some_and(same);
                self.view.record.facts = Some(*facts);
                self.report();
                self.write_row();
            }
            Err(failure) => tracing::debug!(worker = self.args.line.name(), %failure, "the machine was not looked at again"),
        }
    }
}

/// What a heartbeat says of what is free.
fn free(resources: &mut Resources, beat: &Heartbeat) {
    resources.load = beat.load;
    if let Some(free) = beat.free {
        resources.memory_free_mib = free.memory_mib;
        resources.disk_free_mib = free.disk_mib;
    }
}

/// What a machine is short of, in words.
fn strain(beat: &Heartbeat, cores: u32) -> String {
    let share = |percent: u8| f64::from(percent) / 100.0;
    match Shortage::of(share(beat.memory_percent), share(beat.disk_percent), beat.load / f64::from(cores.max(1))) {
        Some(Shortage::Memory) => format!("has {} % of its memory in use", beat.memory_percent),
        Some(Shortage::Disk) => format!("has {} % of its disk in use", beat.disk_percent),
        Some(Shortage::Processor) | None => format!("is busy (load {:.1} on {cores} cores)", beat.load),
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::link::Free;

    use super::*;

    fn beat(load: f64, memory_percent: u8, disk_percent: u8) -> Heartbeat {
        Heartbeat { sequence: 0, load, memory_percent, disk_percent, free: None }
    }

    #[test]
    fn a_heartbeat_says_what_is_free() {
        let mut resources = Resources { memory_free_mib: 9, disk_free_mib: 9, ..Resources::default() };
        free(&mut resources, &beat(1.5, 30, 40));
        assert_eq!(
            (resources.load, resources.memory_free_mib, resources.disk_free_mib),
            (1.5, 9, 9),
            "an older worker does not say it"
        );
        free(&mut resources, &Heartbeat { free: Some(Free { memory_mib: 700, disk_mib: 120 }), ..beat(0.5, 30, 40) });
        assert_eq!((resources.load, resources.memory_free_mib, resources.disk_free_mib), (0.5, 700, 120));
    }

    #[test]
    fn what_moved_a_little_is_not_told_and_little_by_little_it_is() {
        let mut looks = Looks::default();
        let told: Vec<bool> = [50, 52, 48, 55, 59, 60].map(|memory| looks.is_worth_telling(&beat(0.0, memory, 10))).into();
        assert_eq!(told, [true, false, false, true, false, true]);
    }

    #[test]
    fn what_a_machine_is_short_of_is_named() {
        let said = [beat(4.5, 60, 60), beat(1.0, 92, 60), beat(8.0, 60, 95)].map(|beat| strain(&beat, 4));
        assert_eq!(said, ["is busy (load 4.5 on 4 cores)", "has 92 % of its memory in use", "has 95 % of its disk in use"]);
    }
}
