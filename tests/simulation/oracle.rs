//! The judge outside: it sees what the records applied, what they answered, and every effect on every machine, and shares no
//! code with what it judges.
//!
//! What must hold at every instant is judged when it happens; what must hold in the end is judged in [`ending`](crate::ending).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_database::{Applied, Write};
use helix_protocol::{Epoch, NodeId, StepId, TaskId, TaskRecord, WorkerId};
use parking_lot::Mutex;

/// Hosts take turns within a tick, so what two of them did may be told in the wrong order by one tick at most.
pub const TICK: Duration = Duration::from_millis(10);

/// A task as the judge knows it.
#[derive(Default)]
struct Known {
    epoch: Epoch,
    /// Every owner there was: its epoch, its worker, and when it became one.
    claims: Vec<(Epoch, WorkerId, Duration)>,
    /// The node that drove it last.
    node: Option<NodeId>,
    /// Steps in the order of their commits.
    steps: Vec<StepId>,
    /// The last effect of all.
    effect: Option<(Epoch, WorkerId, Duration)>,
}

#[derive(Default)]
struct State {
    trace: Vec<String>,
    tasks: BTreeMap<TaskId, Known>,
    names: BTreeMap<TaskId, String>,
    workers: BTreeMap<WorkerId, String>,
    acknowledged: BTreeSet<(TaskId, StepId)>,
    /// Events that each node recorded since it began and has told nobody yet.
    untold: BTreeMap<String, BTreeSet<u64>>,
    wrong: Vec<String>,
    now: Duration,
    counts: Counts,
}

/// How much happened in a world, so that it can be seen that something did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// What was done in workspaces.
    pub effects: u64,
    /// Tasks that went to another worker.
    pub moved: u64,
    /// Tasks that went to another node.
    pub taken_over: u64,
    /// Workspaces that a node found again, with the step in the making.
    pub adopted: u64,
}

/// The judge.
#[derive(Default)]
pub struct Oracle(Mutex<State>);

impl State {
    fn now(&mut self) -> Duration {
        self.now = self.now.max(turmoil::sim_elapsed().unwrap_or(self.now));
        turmoil::sim_elapsed().unwrap_or(self.now)
    }

    fn tell(&mut self, who: &str, what: &str) {
        let now = self.now();
        self.trace.push(format!("{:>9.3} {who}: {what}", now.as_secs_f64()));
    }

    fn wrong(&mut self, what: String) {
        self.tell("JUDGE", &what);
        self.wrong.push(what);
    }

    fn name(&self, task: TaskId) -> String {
        self.names.get(&task).cloned().unwrap_or_else(|| "a task".to_owned())
    }

    fn worker(&self, worker: WorkerId) -> String {
        self.workers.get(&worker).cloned().unwrap_or_else(|| "a worker".to_owned())
    }
}

impl Oracle {
    pub fn name_worker(&self, worker: WorkerId, name: &str) {
        self.0.lock().workers.insert(worker, name.to_owned());
    }

    /// The simulation's time between two ticks.
    pub fn at(&self, now: Duration) {
        self.0.lock().now = now;
    }

    pub fn tell(&self, who: &str, what: &str) {
        self.0.lock().tell(who, what);
    }

    /// Tells something of a task.
    pub fn tell_of(&self, who: &str, task: TaskId, what: &str) {
        let mut state = self.0.lock();
        let name = state.name(task);
        state.tell(who, &format!("{name} {what}"));
    }

    pub fn trace(&self) -> Vec<String> {
        self.0.lock().trace.clone()
    }

    pub fn wrong(&self) -> Vec<String> {
        self.0.lock().wrong.clone()
    }

    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// A worker went on with a step where it was.
    pub fn adopted(&self, host: &str, task: TaskId, epoch: Epoch) {
        self.0.lock().counts.adopted += 1;
        self.tell_of(host, task, &format!("is adopted under {epoch}"));
    }

    /// Steps whose commit was answered.
    pub fn acknowledged(&self, task: TaskId) -> Vec<StepId> {
        self.0.lock().acknowledged.iter().filter(|(of, _)| *of == task).map(|(_, step)| *step).collect()
    }

    /// Something was done in a workspace on a machine, under an epoch.
    pub fn effect(&self, worker: WorkerId, task: TaskId, epoch: Epoch, what: &str) {
        let mut state = self.0.lock();
        let now = state.now();
        state.counts.effects += 1;
        let (name, host) = (state.name(task), state.worker(worker));
        state.tell(&host, &format!("{name} under {epoch}: {what}"));
        let known = state.tasks.entry(task).or_default();
        let elsewhere = known.claims.iter().find(|(by, at, since)| *by > epoch && *at != worker && now > *since + TICK).copied();
        let before = known.effect.replace((epoch, worker, now));
        if let Some((by, at, since)) = elsewhere {
            let other = state.worker(at);
            state.wrong(format!(
                "{host} works on {name} under epoch {epoch}, which {other} was given under epoch {by} {:?} before",
                now.saturating_sub(since)
            ));
        }
        if let Some((newer, at, _)) = before
            && newer > epoch
        {
            let other = state.worker(at);
            state.wrong(format!("{host} works on {name} under epoch {epoch} after {other} did under epoch {newer}"));
        }
    }

    /// The records applied a write, or refused it.
    pub fn applied(&self, host: &str, write: &Write, applied: &Applied) {
        let mut state = self.0.lock();
        match applied {
            Applied::Task { task, events } => state.task(host, write, task, events.is_empty()),
            Applied::Step { step, task, events } => {
                let (id, epoch) = (step.step.id, step.step.epoch);
                let known = state.tasks.entry(task.id).or_default();
                let (seen, last, owner) = (known.steps.contains(&id), known.steps.last().copied(), known.epoch);
                if !seen {
                    known.steps.push(id);
                }
                let name = state.name(task.id);
                if !seen {
                    let (ordinal, outcome) = (step.step.ordinal, step.step.outcome);
                    state.tell(host, &format!("{name} step {ordinal} {outcome:?} under {epoch}"));
                    if step.step.parent != last {
                        state.wrong(format!("{name}: a step was committed beside the head"));
                    }
                    if epoch != owner {
                        state.wrong(format!("{name}: a step of epoch {epoch} was committed while the owner's was {owner}"));
                    }
                }
                if seen && !events.is_empty() {
                    state.wrong(format!("{name}: a step was committed twice"));
                }
                state.task(host, write, task, true);
            }
            Applied::Done { .. } => {}
        }
    }

    /// The answer to a write has reached its node.
    pub fn answered(&self, applied: &Applied) {
        if let Applied::Step { step, task, .. } = applied {
            self.0.lock().acknowledged.insert((task.id, step.step.id));
        }
    }

    /// A node begins: what it had no time to tell before is read by whoever comes back to watch.
    pub fn begins(&self, host: &str) {
        self.0.lock().untold.remove(host);
    }

    /// A node's writes were applied, whether or not it hears of it.
    pub fn recorded(&self, host: &str, applied: &Applied) {
        let sequences = applied.events().iter().map(|event| event.sequence);
        self.0.lock().untold.entry(host.to_owned()).or_default().extend(sequences);
    }

    /// A node told whoever watches of an event: of all before it, it has told already.
    pub fn told(&self, host: &str, sequence: u64) {
        let mut state = self.0.lock();
        let Some(untold) = state.untold.get_mut(host) else { return };
        untold.remove(&sequence);
        if let Some(missing) = untold.first().copied().filter(|missing| *missing < sequence) {
            untold.remove(&missing);
            state.wrong(format!("{host} told of event {sequence} and not of event {missing}"));
        }
    }
}

impl State {
    fn task(&mut self, host: &str, write: &Write, task: &TaskRecord, repeated: bool) {
        let now = self.now();
        self.names.entry(task.id).or_insert_with(|| task.spec.title.clone());
        let name = self.name(task.id);
        let known = self.tasks.entry(task.id).or_default();
        let before = known.epoch;
        known.epoch = before.max(task.epoch);
        let mut claimed = None;
        if let (Write::Claim { worker, node, .. }, false) = (write, repeated) {
            let moved = known.claims.last().is_some_and(|(_, before, _)| before != worker);
            let taken_over = known.node.replace(*node).is_some_and(|before| before != *node);
            self.counts.moved += u64::from(moved);
            self.counts.taken_over += u64::from(taken_over);
            known.claims.push((task.epoch, *worker, now));
            claimed = Some(*worker);
        }
        if task.epoch < before {
            self.wrong(format!("{name}: its epoch went from {before} to {}", task.epoch));
        }
        if let Some(worker) = claimed {
            if task.epoch <= before {
                self.wrong(format!("{name}: a claim left its epoch at {before}"));
            }
            let worker = self.worker(worker);
            self.tell(host, &format!("{name} is claimed for {worker} under {}", task.epoch));
        } else if !repeated {
            self.tell(host, &format!("{name} is {}", task.status));
        }
    }
}
