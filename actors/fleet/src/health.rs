//! How a machine is doing, from its heartbeats: pure.

use helix_protocol::WorkerHealth;
use helix_protocol::link::Heartbeat;

/// So many heartbeats in a row must agree before a change is told.
const AGREE: u32 = 3;

/// The health told last, and the one that is about to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    told: WorkerHealth,
    next: WorkerHealth,
    agreed: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { told: WorkerHealth::Unknown, next: WorkerHealth::Unknown, agreed: 0 }
    }
}

impl Health {
    /// What was told last.
    pub(crate) fn told(&self) -> WorkerHealth {
        self.told
    }

    /// Takes a heartbeat and says the new health where it changed. The first one counts at once; later a
    /// single peak tells nothing.
    pub(crate) fn take(&mut self, beat: &Heartbeat, cores: u32) -> Option<WorkerHealth> {
        let now = judge(beat, cores);
        self.agreed = if now == self.next { self.agreed.saturating_add(1) } else { 1 };
        self.next = now;
        let settled = self.told == WorkerHealth::Unknown || self.agreed >= AGREE;
        (settled && now != self.told).then(|| {
            self.told = now;
            now
        })
    }
}

fn judge(beat: &Heartbeat, cores: u32) -> WorkerHealth {
    let processor = beat.load * 100.0 / f64::from(cores.max(1));
    let worst = processor.max(f64::from(beat.memory_percent)).max(f64::from(beat.disk_percent));
    WorkerHealth::of(worst / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(load: f64, memory_percent: u8, disk_percent: u8) -> Heartbeat {
        Heartbeat { sequence: 0, load, memory_percent, disk_percent, free: None }
    }

    #[test]
    fn the_worst_of_processor_memory_and_disk_decides() {
        let judged =
            [beat(1.0, 70, 70), beat(3.0, 10, 10), beat(0.0, 71, 0), beat(0.0, 0, 91), beat(3.7, 0, 0)].map(|b| judge(&b, 4));
        use WorkerHealth::{Degraded, Healthy, Unhealthy};
        assert_eq!(judged, [Healthy, Degraded, Degraded, Unhealthy, Unhealthy]);
    }

    #[test]
    fn a_single_peak_tells_nothing_and_a_lasting_one_is_told_once() {
        let (calm, busy) = (beat(0.0, 10, 10), beat(0.0, 95, 10));
        let mut health = Health::default();
        let told: Vec<_> = [calm.clone(), busy.clone(), calm, busy.clone(), busy.clone(), busy.clone(), busy]
            .iter()
            .map(|beat| health.take(beat, 4))
            .collect();
        assert_eq!(told, [Some(WorkerHealth::Healthy), None, None, None, None, Some(WorkerHealth::Unhealthy), None]);
    }
}
