//! The scheduler: which waiting task goes to which worker.
//!
//! Order among the waiting: tasks that lost their worker by criticality, then everybody by priority, criticality and age. A worker
//! fits where it is ready and open, has what the task needs and a free slot; one of four slots or more keeps one in reserve for
//! tasks of criticality high and above. Among workers that fit, the one that holds the task's own workspace wins, then one that has
//! the same content, then the one with most room.

mod places;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use helix_kernel::Boottime;
use helix_protocol::{Base, Capability, Criticality, Needs, Sandboxing, SnapshotId, TaskId, TaskRecord, WorkerId};

pub use places::Fleet;

/// What a task begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// A repository's files.
    Snapshot(SnapshotId),
    /// What another task ended with.
    Task(TaskId),
}

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
    /// Not before this time, on the clock that nobody can set.
    pub not_before: Option<Boottime>,
    /// What it begins with: workers that had it before have most of it still.
    pub content: Option<Content>,
    /// Where it was last: its workspace may still be there.
    pub last: Option<WorkerId>,
}

impl Waiting {
    /// A task as the records have it, not to begin before `not_before`.
    pub fn of(record: &TaskRecord, not_before: Option<Boottime>) -> Self {
        Self {
            task: record.id,
            needs: needs(record),
            priority: record.spec.priority.weight(),
            criticality: record.spec.criticality,
            lost: false,
            not_before,
            content: match &record.spec.base {
                Base::Snapshot { snapshot, .. } => Some(Content::Snapshot(*snapshot)),
                Base::Task { task } => Some(Content::Task(*task)),
                Base::Empty => None,
            },
            last: record.worker,
        }
    }

    fn rank(&self) -> Rank {
        let urgent = if self.lost { Some(self.criticality) } else { None };
        (Reverse(urgent), Reverse(self.priority), Reverse(self.criticality), self.task)
    }
}

/// What a worker must have: what the task names, and a sandbox where its commands run in one.
fn needs(record: &TaskRecord) -> Needs {
    let mut needs = record.spec.needs.clone();
    let sandbox = Capability(Sandboxing::CAPABILITY.to_owned());
    if record.spec.environment.isolation().is_sandboxed() && !needs.capabilities.contains(&sandbox) {
        needs.capabilities.push(sandbox);
    }
    needs
}

/// Smaller is earlier. Ids sort by age.
type Rank = (Reverse<Option<Criticality>>, Reverse<i64>, Reverse<Criticality>, TaskId);

/// Tasks that wait, in their order.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    order: BTreeMap<Rank, Waiting>,
    ranks: HashMap<TaskId, Rank>,
    due: BTreeSet<(Boottime, TaskId)>,
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
    pub fn next_due(&self, now: Boottime) -> Option<Boottime> {
        let later = (Bound::Excluded((now, TaskId(uuid::Uuid::max()))), Bound::Unbounded);
        self.due.range(later).next().map(|(due, _)| *due)
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
pub fn assign(queue: &mut Queue, fleet: &mut Fleet, now: Boottime, most: usize) -> Vec<Assignment> {
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
        fleet.take(worker, waiting);
        placed.push(Assignment { waiting: waiting.clone(), worker });
        free -= 1;
    }
    for assignment in &placed {
        queue.remove(assignment.waiting.task);
    }
    placed
}
