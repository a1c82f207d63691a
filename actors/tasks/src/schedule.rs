//! The scheduler: which waiting task goes to which worker.
//!
//! Order among the waiting: tasks that lost their worker by criticality, then everybody by priority, criticality and age. A worker
//! fits where it is ready and open, has what the task needs and a free slot; one of four slots or more keeps one in reserve for
//! tasks of criticality high and above. Among workers that fit, the one that holds the task's own workspace wins, then one that has
//! the same content, then the one with most room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use helix_messages::{WorkerReason, WorkerView};
use helix_protocol::{Base, Criticality, Lifecycle, Needs, SnapshotId, TaskId, TaskRecord, Timestamp, WorkerHealth, WorkerId};

/// A worker keeps a slot in reserve if it has at least this many.
const RESERVE_FROM: u32 = 4;

/// A task that waits for a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Which.
    pub task: TaskId,
    /// What a worker must have.
    pub needs: Needs,
    /// For the order.
    pub priority: i64,
    /// For the order among those that lost their worker, and for the reserve.
    pub criticality: Criticality,
    /// True where it lost its worker: before everybody who waits for a first one.
    pub lost: bool,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// Its first content: workers that had it before have most of it still.
    pub content: Option<SnapshotId>,
    /// Where it was last: its workspace may still be there.
    pub last: Option<WorkerId>,
}

impl Waiting {
    /// A task as the records have it.
    pub fn of(record: &TaskRecord) -> Self {
        Self {
            task: record.id,
            needs: record.spec.needs.clone(),
            priority: record.spec.priority.weight(),
            criticality: record.spec.criticality,
            lost: false,
            not_before: record.not_before,
            content: match &record.spec.base {
                Base::Snapshot { snapshot, .. } => Some(*snapshot),
                Base::Empty | Base::Task { .. } => None,
            },
            last: record.worker,
        }
    }

    fn rank(&self) -> Rank {
        let urgent = if self.lost { Some(self.criticality) } else { None };
        (Reverse(urgent), Reverse(self.priority), Reverse(self.criticality), self.task)
    }
}

/// Smaller is earlier. Ids sort by age.
type Rank = (Reverse<Option<Criticality>>, Reverse<i64>, Reverse<Criticality>, TaskId);

/// Tasks that wait, in their order.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    order: BTreeMap<Rank, Waiting>,
    ranks: HashMap<TaskId, Rank>,
    due: BTreeSet<(Timestamp, TaskId)>,
}

impl Queue {
    /// Lets a task wait. One that waits already takes its new place.
    pub fn push(&mut self, waiting: Waiting) {
        self.remove(waiting.task);
        let rank = waiting.rank();
        self.ranks.insert(waiting.task, rank);
        self.due.extend(waiting.not_before.map(|due| (due, waiting.task)));
        self.order.insert(rank, waiting);
    }

    /// Takes a task out.
    pub fn remove(&mut self, task: TaskId) -> Option<Waiting> {
        let waiting = self.ranks.remove(&task).and_then(|rank| self.order.remove(&rank))?;
        if let Some(due) = waiting.not_before {
            self.due.remove(&(due, task));
        }
        Some(waiting)
    }

    /// A task that waits.
    pub fn get(&self, task: TaskId) -> Option<&Waiting> {
        self.ranks.get(&task).and_then(|rank| self.order.get(rank))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True where nobody waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.order.values()
    }

    /// The earliest time at which somebody who has to wait until then may go.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let later = (Bound::Excluded((now, TaskId(uuid::Uuid::max()))), Bound::Unbounded);
        self.due.range(later).next().map(|(due, _)| *due)
    }
}

/// What tasks hold of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    slots: u32,
    cores: u32,
    memory_mib: u64,
    disk_mib: u64,
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
    /// What tasks began with here, so that the next one with the same content comes here too.
    content: HashSet<SnapshotId>,
}

impl Fleet {
    /// Takes the newest view of every worker; what tasks hold stays.
    pub fn replace(&mut self, views: Vec<WorkerView>) {
        let mut old = std::mem::take(&mut self.workers);
        for view in views {
            let place = match old.remove(&view.record.id) {
                Some(place) => Place { view, ..place },
                None => Place { view, held: Held::default(), content: HashSet::new() },
            };
            self.workers.insert(place.view.record.id, place);
        }
        // A worker that left the list while tasks still hold it is kept, closed, until they let go.
        for (id, mut place) in old.into_iter().filter(|(_, place)| place.held.slots > 0) {
            place.view.ready = false;
            self.workers.insert(id, place);
        }
    }

    /// A task was given to a worker.
    pub fn take(&mut self, worker: WorkerId, needs: &Needs, content: Option<SnapshotId>) {
        if let Some(place) = self.workers.get_mut(&worker) {
            place.held.slots += 1;
            place.held.cores += needs.cores;
            place.held.memory_mib += needs.memory_mib;
            place.held.disk_mib += needs.disk_mib;
            place.content.extend(content);
        }
    }

    /// A task let a worker go.
    pub fn give_back(&mut self, worker: WorkerId, needs: &Needs) {
        if let Some(place) = self.workers.get_mut(&worker) {
            place.held.slots = place.held.slots.saturating_sub(1);
            place.held.cores = place.held.cores.saturating_sub(needs.cores);
            place.held.memory_mib = place.held.memory_mib.saturating_sub(needs.memory_mib);
            place.held.disk_mib = place.held.disk_mib.saturating_sub(needs.disk_mib);
        }
    }

    /// A worker is gone until the fleet says otherwise; what was on it is not there any more.
    pub fn lost(&mut self, worker: WorkerId) {
        if let Some(place) = self.workers.get_mut(&worker) {
            place.view.ready = false;
            place.view.holds.clear();
            place.content.clear();
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
            .map(|place| WorkerReason {
                worker: place.view.record.name.clone(),
                reason: place.refusal(waiting).unwrap_or_default(),
            })
            .collect();
        reasons.sort_by(|a, b| a.worker.cmp(&b.worker));
        reasons
    }

    fn free_slots(&self) -> u32 {
        self.workers
            .values()
            .filter(|place| place.is_open())
            .map(|place| place.view.record.slots.saturating_sub(place.held.slots))
            .sum()
    }

    fn best(&self, waiting: &Waiting) -> Option<WorkerId> {
        self.workers
            .values()
            .filter(|place| place.refusal(waiting).is_none())
            .max_by_key(|place| (place.score(waiting), Reverse(place.view.record.id)))
            .map(|place| place.view.record.id)
    }
}

impl Place {
    fn is_open(&self) -> bool {
        self.view.ready && self.view.record.lifecycle == Lifecycle::Open
    }

    /// Why the task does not go here, in words; `None` where it could.
    fn refusal(&self, waiting: &Waiting) -> Option<String> {
        let (record, needs) = (&self.view.record, &waiting.needs);
        if needs.worker.is_some_and(|only| only != record.id) {
            return Some("the task asks for another worker".to_owned());
        }
        if !self.view.ready {
            return Some(if record.reason.is_empty() {
                "it is not connected".to_owned()
            } else {
                format!("it is not ready: {}", record.reason)
            });
        }
        match record.lifecycle {
            Lifecycle::Open => {}
            Lifecycle::Cordoned => return Some("it is cordoned".to_owned()),
            Lifecycle::Draining => return Some("it is draining".to_owned()),
        }
        self.lack(needs).or_else(|| self.full(waiting.criticality))
    }

    /// What the machine does not have at all, or not free.
    fn lack(&self, needs: &Needs) -> Option<String> {
        let none = helix_protocol::Resources::default();
        let facts = self.view.record.facts.as_ref();
        let missing = |wanted: &&helix_protocol::Capability| !facts.is_some_and(|facts| facts.capabilities.contains(wanted));
        let lacks: Vec<String> = needs.capabilities.iter().filter(missing).map(ToString::to_string).collect();
        if !lacks.is_empty() {
            return Some(format!("it has no {}", lacks.join(", no ")));
        }
        let has = facts.map_or(&none, |facts| &facts.resources);
        let cores = has.cores.saturating_sub(self.held.cores);
        if needs.cores > cores {
            return Some(format!("{cores} of its {} cores are free, {} are needed", has.cores, needs.cores));
        }
        let memory = has.memory_free_mib.min(has.memory_mib.saturating_sub(self.held.memory_mib));
        if needs.memory_mib > memory {
            return Some(format!("{memory} MiB of its memory are free, {} are needed", needs.memory_mib));
        }
        let disk = has.disk_free_mib.min(has.disk_mib.saturating_sub(self.held.disk_mib));
        (needs.disk_mib > disk).then(|| format!("{disk} MiB of its disk are free, {} are needed", needs.disk_mib))
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
        let content = waiting.content.is_some_and(|content| self.content.contains(&content));
        // Room in thousandths, so that a small empty machine and a large half-full one compare.
        let slots = self.view.record.slots.max(1);
        let room = slots.saturating_sub(self.held.slots) * 1000 / slots;
        // Content is worth a transfer, not a crowd: it counts while more than half of the worker is free.
        (own, healthy, content && room > 500, room)
    }
}

/// A task that goes to a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Which.
    pub waiting: Waiting,
    /// Where.
    pub worker: WorkerId,
}

/// Takes as many tasks out of the queue as can be placed now, at most `most`, and marks what they take.
pub fn assign(queue: &mut Queue, fleet: &mut Fleet, now: Timestamp, most: usize) -> Vec<Assignment> {
    let mut free = fleet.free_slots();
    if queue.is_empty() || free == 0 || most == 0 {
        return Vec::new();
    }
    let mut placed = Vec::new();
    // Needs that nobody met a moment ago are not met by the next task either: nothing becomes free in between.
    let mut hopeless: Vec<(Needs, Criticality)> = Vec::new();
    for waiting in queue.order.values() {
        if free == 0 || placed.len() == most {
            break;
        }
        let early = waiting.not_before.is_some_and(|due| due > now);
        if early || hopeless.iter().any(|(needs, most)| *needs == waiting.needs && waiting.criticality <= *most) {
            continue;
        }
        let Some(worker) = fleet.best(waiting) else {
            hopeless.push((waiting.needs.clone(), waiting.criticality));
            continue;
        };
        fleet.take(worker, &waiting.needs, waiting.content);
        placed.push(Assignment { waiting: waiting.clone(), worker });
        free -= 1;
    }
    for assignment in &placed {
        queue.remove(assignment.waiting.task);
    }
    placed
}

#[cfg(test)]
mod tests {
    use helix_protocol::link::Holding;
    use helix_protocol::{Capability, Epoch, ObjectId, Resources, WorkerFacts, WorkerRecord, WorkerStatus, WorkerTarget};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn worker(name: &str, slots: u32) -> WorkerView {
        let facts = WorkerFacts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            hostname: name.to_owned(),
            capabilities: vec![Capability("git".to_owned())],
            toolchains: Vec::new(),
            resources: Resources {
                cores: 8,
                memory_mib: 1000,
                memory_free_mib: 800,
                disk_mib: 100,
                disk_free_mib: 90,
                ..Default::default()
            },
        };
        WorkerView {
            record: WorkerRecord {
                id: WorkerId::new(),
                name: name.to_owned(),
                target: WorkerTarget::Ssh { destination: name.to_owned() },
                slots,
                lifecycle: Lifecycle::Open,
                status: WorkerStatus::Active,
                health: WorkerHealth::Healthy,
                facts: Some(facts),
                reason: String::new(),
                created_at: NOW,
                last_seen_at: None,
                version: 1,
            },
            ready: true,
            incarnation: 1,
            pid: None,
            holds: Vec::new(),
        }
    }

    fn task() -> Waiting {
        Waiting {
            task: TaskId::new(),
            needs: Needs::default(),
            priority: 5,
            criticality: Criticality::Normal,
            lost: false,
            not_before: None,
            content: None,
            last: None,
        }
    }

    fn fleet(views: &[WorkerView]) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.replace(views.to_vec());
        fleet
    }

    fn queue(tasks: &[Waiting]) -> Queue {
        let mut queue = Queue::default();
        tasks.iter().cloned().for_each(|task| queue.push(task));
        queue
    }

    fn placed(queue: &mut Queue, fleet: &mut Fleet) -> Vec<(TaskId, WorkerId)> {
        assign(queue, fleet, NOW, usize::MAX).into_iter().map(|one| (one.waiting.task, one.worker)).collect()
    }

    #[test]
    fn who_lost_a_worker_goes_first_by_criticality_and_the_rest_by_priority_then_age() {
        let old = task();
        let urgent = Waiting { priority: 20, ..task() };
        let lost = Waiting { lost: true, ..task() };
        let critical = Waiting { lost: true, criticality: Criticality::Critical, ..task() };
        let young = task();
        let order: Vec<TaskId> =
            queue(&[young.clone(), lost.clone(), old.clone(), urgent.clone(), critical.clone()]).iter().map(|w| w.task).collect();
        assert_eq!(order, [critical.task, lost.task, urgent.task, old.task, young.task]);
    }

    #[test]
    fn the_reserve_is_for_high_criticality() {
        let machine = worker("a", 4);
        let mut fleet = fleet(std::slice::from_ref(&machine));
        let tasks: Vec<Waiting> = (0..5).map(|_| task()).collect();
        let mut queue = queue(&tasks);
        assert_eq!(placed(&mut queue, &mut fleet).len(), 3);
        let reasons = fleet.explain(&tasks[3]);
        assert_eq!(reasons[0].reason, "its last of 4 slots is kept for tasks of high criticality");
        let high = Waiting { criticality: Criticality::High, ..task() };
        queue.push(high.clone());
        assert_eq!(placed(&mut queue, &mut fleet), [(high.task, machine.record.id)]);
        assert_eq!(fleet.explain(&high)[0].reason, "all its 4 slots are taken");
    }

    #[test]
    fn each_worker_says_in_words_why_it_is_not_the_one() {
        let closed = WorkerView { ready: false, ..worker("away", 1) };
        let mut cordoned = worker("cordoned", 1);
        cordoned.record.lifecycle = Lifecycle::Cordoned;
        let fleet = fleet(&[closed, cordoned, worker("plain", 1)]);
        let reasons = |waiting: &Waiting| fleet.explain(waiting).into_iter().map(|one| one.reason).collect::<Vec<_>>();
        assert_eq!(reasons(&task()), ["it is not connected", "it is cordoned", ""]);
        let needs = |needs: Needs| Waiting { needs, ..task() };
        let cuda =
            needs(Needs { capabilities: vec![Capability("git".to_owned()), Capability("cuda".to_owned())], ..Needs::default() });
        assert_eq!(reasons(&cuda)[2], "it has no cuda");
        assert_eq!(reasons(&needs(Needs { cores: 9, ..Needs::default() }))[2], "8 of its 8 cores are free, 9 are needed");
        assert_eq!(
            reasons(&needs(Needs { memory_mib: 900, ..Needs::default() }))[2],
            "800 MiB of its memory are free, 900 are needed"
        );
        assert_eq!(reasons(&needs(Needs { disk_mib: 91, ..Needs::default() }))[2], "90 MiB of its disk are free, 91 are needed");
        assert_eq!(
            reasons(&needs(Needs { worker: Some(WorkerId::new()), ..Needs::default() }))[2],
            "the task asks for another worker"
        );
    }

    #[test]
    fn the_worker_that_holds_the_workspace_wins_and_equal_ones_share() {
        let (one, mut two) = (worker("one", 3), worker("two", 3));
        let mine = task();
        let tree = ObjectId([1; 32]);
        two.holds.push(Holding { task: mine.task, epoch: Epoch(1), tree, calls: Vec::new() });
        let mut fleet = fleet(&[one.clone(), two.clone()]);
        let (second, third) = (task(), task());
        let got = placed(&mut queue(&[mine.clone(), second.clone(), third.clone()]), &mut fleet);
        assert_eq!(got[0], (mine.task, two.record.id));
        assert_eq!(got[1], (second.task, one.record.id), "the emptier one");
        let count = |worker: WorkerId| got.iter().filter(|(_, at)| *at == worker).count();
        assert_eq!(
            (count(one.record.id), count(two.record.id)),
            (if got[2].1 == one.record.id { 2 } else { 1 }, if got[2].1 == one.record.id { 1 } else { 2 })
        );
    }

    #[test]
    fn a_task_comes_to_the_content_while_there_is_room() {
        let content = Some(SnapshotId(ObjectId([7; 32])));
        let mut fleet = fleet(&[worker("one", 4), worker("two", 4)]);
        let tasks: Vec<Waiting> = (0..3).map(|_| Waiting { content, ..task() }).collect();
        let got = placed(&mut queue(&tasks), &mut fleet);
        assert_eq!(got[0].1, got[1].1, "three quarters of it are free");
        assert_ne!(got[1].1, got[2].1, "half of it is taken, and the other machine is idle");
    }

    #[test]
    fn a_retry_waits_for_its_time() {
        let later = Waiting { not_before: Some(Timestamp(NOW.0 + 5)), ..task() };
        let mut queue = queue(std::slice::from_ref(&later));
        let mut fleet = fleet(&[worker("one", 1)]);
        assert_eq!(assign(&mut queue, &mut fleet, NOW, 9), []);
        assert_eq!(queue.next_due(NOW), Some(Timestamp(NOW.0 + 5)));
        assert_eq!(assign(&mut queue, &mut fleet, Timestamp(NOW.0 + 5), 9).len(), 1);
        assert_eq!(queue.next_due(NOW), None);
    }

    fn any_task() -> impl Strategy<Value = Waiting> {
        (0_i64..3, 0_u8..4, any::<bool>(), 0_u32..4, prop::option::of(0_i64..2_000)).prop_map(
            |(priority, criticality, lost, cores, due)| {
                let all = [Criticality::Low, Criticality::Normal, Criticality::High, Criticality::Critical];
                Waiting {
                    priority,
                    criticality: all[usize::from(criticality)],
                    lost,
                    needs: Needs { cores, ..Needs::default() },
                    not_before: due.map(Timestamp),
                    ..task()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_is_placed_beyond_what_a_worker_has_and_nobody_who_fits_is_left(
            tasks in prop::collection::vec(any_task(), 0..40), slots in prop::collection::vec(0_u32..7, 0..5), most in 0_usize..20,
        ) {
            let views: Vec<WorkerView> = slots.iter().enumerate().map(|(n, slots)| worker(&n.to_string(), *slots)).collect();
            let (mut queue, mut fleet) = (queue(&tasks), fleet(&views));
            let placed = assign(&mut queue, &mut fleet, NOW, most);
            prop_assert_eq!(placed.len() + queue.len(), tasks.len());
            prop_assert!(placed.len() <= most);
            for view in &views {
                let here: Vec<&Assignment> = placed.iter().filter(|one| one.worker == view.record.id).collect();
                prop_assert!(here.len() as u32 <= view.record.slots);
                prop_assert!(here.iter().map(|one| one.waiting.needs.cores).sum::<u32>() <= 8);
                prop_assert!(here.iter().all(|one| one.waiting.not_before.is_none_or(|due| due <= NOW)));
            }
            if placed.len() < most {
                for left in queue.iter().filter(|left| left.not_before.is_none_or(|due| due <= NOW)) {
                    prop_assert!(fleet.explain(left).iter().all(|one| !one.reason.is_empty()), "{:?} fits", left);
                }
            }
        }

        #[test]
        fn what_is_given_back_can_be_taken_again(tasks in prop::collection::vec(any_task(), 0..40)) {
            let view = worker("one", 6);
            let (mut queue, mut fleet) = (queue(&tasks), fleet(std::slice::from_ref(&view)));
            let first = assign(&mut queue, &mut fleet, NOW, usize::MAX);
            for one in &first {
                fleet.give_back(one.worker, &one.waiting.needs);
                queue.push(one.waiting.clone());
            }
            let second = assign(&mut queue, &mut fleet, NOW, usize::MAX);
            let ids = |placed: &[Assignment]| placed.iter().map(|one| one.waiting.task).collect::<Vec<_>>();
            prop_assert_eq!(ids(&first), ids(&second));
        }
    }
}
