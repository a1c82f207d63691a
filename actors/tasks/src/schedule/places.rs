//! The workers as the scheduler sees them: what tasks hold of each, and why a task does or does not fit.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};

use helix_messages::{WorkerReason, WorkerView};
use helix_protocol::{Capability, Criticality, Lifecycle, Needs, Sandboxing, WorkerHealth, WorkerId, mib_in_words};

use super::{Content, Waiting};

/// A worker keeps a slot in reserve if it has at least this many.
const RESERVE_FROM: u32 = 4;

/// A worker's store is a cache: what went there longer ago than this may have been dropped.
const REMEMBERED: usize = 1_024;

/// What tasks hold of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    slots: u32,
    cores: u32,
    memory_mib: u64,
    disk_mib: u64,
    gpus: u32,
}

/// The workers with what is taken of them.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    workers: HashMap<WorkerId, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    view: WorkerView,
    held: Held,
    content: Seen,
}

/// What tasks began with and ended with on a worker, so that the next one with the same content comes there too.
#[derive(Clone, Debug, Default)]
struct Seen {
    known: HashSet<Content>,
    /// From what was noted longest ago on.
    order: VecDeque<Content>,
}

impl Seen {
    fn note(&mut self, content: Content) {
        if !self.known.insert(content)
            && let Some(at) = self.order.iter().position(|known| *known == content)
        {
            self.order.remove(at);
        }
        self.order.push_back(content);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Fleet {
    /// Takes the newest view of every worker; what tasks hold stays.
    pub fn replace(&mut self, views: Vec<WorkerView>) {
        let mut old = std::mem::take(&mut self.workers);
        for view in views {
            let place = match old.remove(&view.record.id) {
                Some(place) => Place { view, ..place },
                None => Place { view, held: Held::default(), content: Seen::default() },
            };
            self.workers.insert(place.view.record.id, place);
        }
        // A worker that left the list while tasks still hold it is kept, closed, until they let go.
        for (id, mut place) in old.into_iter().filter(|(_, place)| place.held.slots > 0) {
            (place.view.ready, place.view.lost) = (false, true);
            self.workers.insert(id, place);
        }
    }

    /// A task was given to a worker.
    pub fn take(&mut self, worker: WorkerId, waiting: &Waiting) {
        if let Some(place) = self.workers.get_mut(&worker) {
            let needs = &waiting.needs;
            place.held.slots += 1;
            place.held.cores += needs.cores;
            place.held.memory_mib += needs.memory_mib;
            place.held.disk_mib += needs.disk_mib;
            place.held.gpus += needs.gpus;
            waiting.content.into_iter().for_each(|content| place.content.note(content));
            place.content.note(Content::Task(waiting.task));
        }
    }

    /// A task let a worker go.
    pub fn give_back(&mut self, worker: WorkerId, needs: &Needs) {
        if let Some(place) = self.workers.get_mut(&worker) {
            place.held.slots = place.held.slots.saturating_sub(1);
            place.held.cores = place.held.cores.saturating_sub(needs.cores);
            place.held.memory_mib = place.held.memory_mib.saturating_sub(needs.memory_mib);
            place.held.disk_mib = place.held.disk_mib.saturating_sub(needs.disk_mib);
            place.held.gpus = place.held.gpus.saturating_sub(needs.gpus);
        }
    }

    /// A worker is gone until the fleet says otherwise; what was on it is not there any more.
    pub fn lost(&mut self, worker: WorkerId) {
        if let Some(place) = self.workers.get_mut(&worker) {
            (place.view.ready, place.view.lost) = (false, true);
            place.view.holds.clear();
            place.content = Seen::default();
        }
    }

    /// A worker's newest view.
    pub fn view(&self, worker: WorkerId) -> Option<&WorkerView> {
        self.workers.get(&worker).map(|place| &place.view)
    }

    /// Every worker.
    pub fn views(&self) -> impl Iterator<Item = &WorkerView> {
        self.workers.values().map(|place| &place.view)
    }

    /// Every worker's answer to a task, by name.
    pub fn explain(&self, waiting: &Waiting) -> Vec<WorkerReason> {
        let mut reasons: Vec<WorkerReason> = self
            .workers
            .values()
            .map(|place| {
                let Refusal { reason, lacks } = place.refusal(waiting).unwrap_or_default();
                WorkerReason { worker: place.view.record.name.clone(), reason, lacks }
            })
            .collect();
        reasons.sort_by(|a, b| a.worker.cmp(&b.worker));
        reasons
    }

    pub(super) fn free_slots(&self) -> u32 {
        self.workers
            .values()
            .filter(|place| place.is_open())
            .map(|place| place.view.record.slots.saturating_sub(place.held.slots))
            .sum()
    }

    pub(super) fn best(&self, waiting: &Waiting) -> Option<WorkerId> {
        self.workers
            .values()
            .filter(|place| place.refusal(waiting).is_none())
            .max_by_key(|place| (place.score(waiting), Reverse(place.view.record.id)))
            .map(|place| place.view.record.id)
    }
}

/// Why a task does not go to a worker.
#[derive(Default)]
struct Refusal {
    reason: String,
    /// Capabilities that it lacks, where that is the reason.
    lacks: Vec<Capability>,
}

impl<T: Into<String>> From<T> for Refusal {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), lacks: Vec::new() }
    }
}

impl Place {
    fn is_open(&self) -> bool {
        self.view.ready && self.view.record.lifecycle == Lifecycle::Open
    }

    /// Why the task does not go here; `None` where it could.
    fn refusal(&self, waiting: &Waiting) -> Option<Refusal> {
        let (record, needs) = (&self.view.record, &waiting.needs);
        if needs.worker.is_some_and(|only| only != record.id) {
            return Some("the task asks for another worker".into());
        }
        if !self.view.ready {
            return Some(if record.reason.is_empty() {
                "it is not connected".into()
            } else {
                format!("it is not ready: {}", record.reason).into()
            });
        }
        match record.lifecycle {
            Lifecycle::Open => {}
            Lifecycle::Cordoned => return Some("it is cordoned".into()),
            Lifecycle::Draining => return Some("it is draining".into()),
        }
        let lacks = self.lacks(needs);
        if !lacks.is_empty() {
            let words: Vec<String> = lacks.iter().map(|wanted| self.in_words(wanted)).collect();
            return Some(Refusal { reason: format!("it has no {}", words.join(", no ")), lacks });
        }
        self.scarce(needs).or_else(|| self.full(waiting.criticality)).map(Refusal::from)
    }

    /// What the machine does not have at all.
    fn lacks(&self, needs: &Needs) -> Vec<Capability> {
        let facts = self.view.record.facts.as_ref();
        let missing = |wanted: &&Capability| !facts.is_some_and(|facts| facts.capabilities.contains(wanted));
        needs.capabilities.iter().filter(missing).cloned().collect()
    }

    /// A capability that it lacks, with the reason where it is known.
    fn in_words(&self, wanted: &Capability) -> String {
        let sandbox = self.view.record.facts.as_ref().map_or(&[][..], |facts| &facts.sandbox.lacks);
        match wanted.0.as_str() {
            Sandboxing::CAPABILITY if !sandbox.is_empty() => format!("sandbox ({})", sandbox.join("; ")),
            word => word.to_owned(),
        }
    }

    /// What the machine does not have free.
    fn scarce(&self, needs: &Needs) -> Option<String> {
        let none = helix_protocol::Resources::default();
        let facts = self.view.record.facts.as_ref();
        let has = facts.map_or(&none, |facts| &facts.resources);
        let cores = has.cores.saturating_sub(self.held.cores);
        if needs.cores > cores {
            return Some(format!("{cores} of its {} cores are free, {} are needed", has.cores, needs.cores));
        }
        let gpus = has.gpus.saturating_sub(self.held.gpus);
        if needs.gpus > gpus {
            return Some(format!("{gpus} of its {} GPUs are free, {} are needed", has.gpus, needs.gpus));
        }
        let memory = has.memory_free_mib.min(has.memory_mib.saturating_sub(self.held.memory_mib));
        if needs.memory_mib > memory {
            return Some(format!("{} of its memory are free, {} are needed", mib_in_words(memory), mib_in_words(needs.memory_mib)));
        }
        let disk = has.disk_free_mib.min(has.disk_mib.saturating_sub(self.held.disk_mib));
        (needs.disk_mib > disk)
            .then(|| format!("{} of its disk are free, {} are needed", mib_in_words(disk), mib_in_words(needs.disk_mib)))
    }

    fn full(&self, criticality: Criticality) -> Option<String> {
        let slots = self.view.record.slots;
        let reserve = u32::from(slots >= RESERVE_FROM && criticality < Criticality::High);
        if self.held.slots >= slots {
            return Some(format!("all its {slots} slots are taken"));
        }
        (self.held.slots + reserve >= slots).then(|| format!("its last of {slots} slots is kept for tasks of high criticality"))
    }

    /// Greater is better.
    fn score(&self, waiting: &Waiting) -> (bool, bool, bool, u32) {
        let own = self.view.holds.iter().any(|held| held.task == waiting.task) || waiting.last == Some(self.view.record.id);
        let healthy = self.view.record.health != WorkerHealth::Unhealthy;
        let content = waiting.content.is_some_and(|content| self.content.known.contains(&content));
        // Room in thousandths, so that a small empty machine and a large half-full one compare.
        let slots = self.view.record.slots.max(1);
        let room = slots.saturating_sub(self.held.slots) * 1000 / slots;
        // Content is worth a transfer, not a crowd: it counts while more than half of the worker is free.
        (own, healthy, content && room > 500, room)
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::TaskId;

    use super::*;

    #[test]
    fn what_was_seen_long_ago_is_forgotten_and_nothing_else() {
        let contents: Vec<Content> = (0..=REMEMBERED).map(|_| Content::Task(TaskId::new())).collect();
        let mut seen = Seen::default();
        let again = contents[0];
        contents[..REMEMBERED].iter().chain([&again, &contents[REMEMBERED]]).for_each(|content| seen.note(*content));
        assert!(!seen.known.contains(&contents[1]), "it was noted longest ago");
        let kept = contents.iter().filter(|content| **content != contents[1]);
        assert!(kept.clone().all(|content| seen.known.contains(content)));
        assert_eq!((seen.order.len(), seen.known.len()), (REMEMBERED, kept.count()));
    }
}
