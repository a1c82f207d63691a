//! One seed's world: nodes and machines as hosts on turmoil's network, tasks, faults, and then peace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use helix_database::{MemoryStore, RecordStore as _, Write};
use helix_protocol::{Lifecycle, NodeId, TaskStatus, Timestamp, WorkerHealth, WorkerRecord, WorkerStatus, WorkerTarget};
use parking_lot::Mutex;

use crate::chance::Chance;
use crate::ending;
use crate::entropy;
use crate::faults::{Cut, Fault, plan};
use crate::machine::Machine;
use crate::models::ModelLog;
use crate::node::{Ground, NodeHost, Wish};
use crate::oracle::{Oracle, TICK};
use crate::records::{Connection, Reached};
use crate::work::{Wanted, wanted};

/// Tasks are made and faults begin within this time.
const TROUBLE: Duration = Duration::from_secs(75);
/// After it everything must have ended within this one.
const PEACE: Duration = Duration::from_secs(400);

/// How a seed ended.
pub struct Outcome {
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
    pub summary: String,
}

/// What is over later.
#[derive(Clone, Debug)]
enum Mending {
    Continue(usize),
    Resume(usize),
    PowerOn(usize),
    NodeOn(usize),
    Links(Vec<(usize, usize)>, Cut),
    Speed,
    Records(usize),
    Open(usize),
    Unpause(usize),
}

struct World {
    sim: turmoil::Sim<'static>,
    records: Arc<MemoryStore>,
    ground: Arc<Ground>,
    nodes: Vec<Arc<NodeHost>>,
    machines: Vec<Arc<Machine>>,
    tasks: Vec<Wanted>,
    mending: Vec<(Duration, Mending)>,
    /// Links, hosts and records that something is wrong with already: one thing at a time.
    busy: BTreeSet<String>,
}

/// Runs a seed to its end.
pub fn simulate(seed: u64) -> Outcome {
    let mut chance = Chance::new(seed);
    let mut world = World::new(seed, &mut chance);
    let wishes: BTreeMap<Duration, Vec<usize>> = world.tasks.iter().enumerate().fold(BTreeMap::new(), |mut wishes, (number, _)| {
        let at = Duration::from_millis(chance.below(45_000));
        wishes.entry(at).or_default().push(number);
        wishes
    });
    let mut wishes: VecDeque<(Duration, usize)> =
        wishes.into_iter().flat_map(|(at, numbers)| numbers.into_iter().map(move |number| (at, number))).collect();
    let mut faults: VecDeque<(Duration, Fault)> =
        plan(&mut chance, world.nodes.len(), world.machines.len(), world.tasks.len()).into();
    while world.sim.elapsed() < TROUBLE {
        let now = world.sim.elapsed();
        while let Some((_, number)) = wishes.pop_front_if(|(at, _)| *at <= now) {
            let spec = Box::new(world.tasks[number].spec.clone());
            world.ground.wishes.lock().push_back(Wish::Create(spec));
        }
        while let Some((_, fault)) = faults.pop_front_if(|(at, _)| *at <= now) {
            world.begin(&fault);
        }
        world.mend(now);
        if let Err(broken) = world.step() {
            return world.outcome(vec![broken]);
        }
    }
    world.make_peace();
    while world.sim.elapsed() < TROUBLE + PEACE {
        if let Err(broken) = world.step() {
            return world.outcome(vec![broken]);
        }
        if world.sim.elapsed().as_millis() % 1_000 == 0 && world.is_over() {
            break;
        }
    }
    let wrong = ending::judge(&world.records, &world.ground, &world.tasks);
    world.outcome(wrong)
}

impl World {
    fn new(seed: u64, chance: &mut Chance) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(TROUBLE + PEACE + TROUBLE)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(60))
            .enable_random_order()
            .build();
        let oracle = Arc::new(Oracle::default());
        let told = Arc::new(Mutex::new(Duration::ZERO));
        let clock = helix_database::Clock::new(move || {
            let mut latest = told.lock();
            *latest = turmoil::sim_elapsed().map_or(*latest, |now| now.max(*latest));
            Timestamp(entropy::NEW_YEAR_2026 * 1_000_000).after(*latest)
        });
        let records = Arc::new(MemoryStore::with_clock(clock));
        let ground = Arc::new(Ground {
            objects: Arc::default(),
            models: ModelLog::default(),
            oracle: Arc::clone(&oracle),
            wishes: Mutex::default(),
            snapshot_interval_ms: chance.between(500, 5_000),
        });
        let nodes: Vec<_> = (1..=chance.between(2, 3)).map(|number| node(number, &ground, &records)).collect();
        let machines: Vec<_> = (1..=chance.between(2, 4)).map(|number| machine(number, &oracle, chance)).collect();
        for machine in &machines {
            let write = Write::Worker { worker: Box::new(row(machine)), events: Vec::new() };
            let applied = records.apply(vec![write]).now_or_never().expect("memory answers at once").expect("it is there");
            assert!(applied[0].is_ok(), "{applied:?}");
            let host = Arc::clone(machine);
            sim.host(machine.name.as_str(), move || Arc::clone(&host).run());
        }
        for node in &nodes {
            let host = Arc::clone(node);
            sim.host(node.name.as_str(), move || Arc::clone(&host).run());
        }
        let tasks = (1..=chance.between(4, 12)).map(|number| wanted(chance, usize::try_from(number).expect("few"))).collect();
        Self { sim, records, ground, nodes, machines, tasks, mending: Vec::new(), busy: BTreeSet::new() }
    }

    fn step(&mut self) -> Result<(), String> {
        let stepped = self.sim.step().map(drop).map_err(|error| format!("a host ended: {error}"));
        let now = self.sim.elapsed();
        self.ground.oracle.at(now);
        for node in &self.nodes {
            node.records.let_strays_arrive(now);
        }
        stepped
    }

    fn tell(&self, what: &str) {
        self.ground.oracle.tell("FAULT", what);
    }

    fn outcome(&self, wrong: Vec<String>) -> Outcome {
        let counts = self.ground.oracle.counts();
        let (nodes, machines, tasks) = (self.nodes.len(), self.machines.len(), self.tasks.len());
        let summary = format!("{nodes} nodes, {machines} workers, {tasks} tasks, {counts:?}, {} s", self.sim.elapsed().as_secs());
        Outcome { trace: self.ground.oracle.trace(), wrong, summary }
    }

    /// True once every task has ended. What is parked is resumed.
    fn is_over(&self) -> bool {
        let tasks = ending::tasks(&self.records);
        if self.sim.elapsed().as_secs() % 20 == 0 {
            for task in tasks.values().filter(|task| task.status == TaskStatus::Paused) {
                self.ground.wishes.lock().push_back(Wish::Resume(task.id));
            }
            for wanted in self.tasks.iter().filter(|wanted| !tasks.contains_key(&wanted.spec.title)) {
                self.ground.wishes.lock().push_back(Wish::Create(Box::new(wanted.spec.clone())));
            }
        }
        tasks.len() == self.tasks.len() && tasks.values().all(|task| task.status.is_final())
    }
}

/// Faults.
impl World {
    fn later(&mut self, lasts: Duration, mending: Mending) {
        self.mending.push((self.sim.elapsed() + lasts, mending));
    }

    /// False where something else is wrong with it already.
    fn take(&mut self, what: &str) -> bool {
        self.busy.insert(what.to_owned())
    }

    fn begin(&mut self, fault: &Fault) {
        if self.try_begin(fault) {
            self.tell(&format!("{fault:?}"));
        }
    }

    fn try_begin(&mut self, fault: &Fault) -> bool {
        match *fault {
            Fault::WorkerKilled { machine } => self.machines[machine].kill(),
            Fault::WorkerStopped { machine, lasts } => {
                self.machines[machine].conditions.send_modify(|now| now.stopped = true);
                self.later(lasts, Mending::Continue(machine));
            }
            Fault::MachineSuspended { machine, lasts } => {
                let links = self.links(None, Some(machine));
                if !self.cut(&links, Cut::Held) {
                    return false;
                }
                self.machines[machine].conditions.send_modify(|now| now.suspended = true);
                self.later(lasts, Mending::Links(links, Cut::Held));
                self.later(lasts, Mending::Resume(machine));
            }
            Fault::MachineCrashed { machine, lasts } => {
                let name = self.machines[machine].name.clone();
                if !self.take(&name) {
                    return false;
                }
                self.machines[machine].kill();
                self.sim.crash(name.as_str());
                self.later(lasts, Mending::PowerOn(machine));
            }
            Fault::NodeCrashed { node, lasts } => {
                let name = self.nodes[node].name.clone();
                if !self.take(&name) {
                    return false;
                }
                self.sim.crash(name.as_str());
                self.later(lasts, Mending::NodeOn(node));
            }
            Fault::NodeStopped { node } => *self.nodes[node].leaving.lock() = true,
            Fault::Network { node, machine, cut, lasts } => return self.cut_for(self.links(node, Some(machine)), cut, lasts),
            Fault::NodeAlone { node, cut, lasts } => return self.cut_for(self.links(Some(node), None), cut, lasts),
            Fault::Slow { most, lasts } => {
                if !self.take("speed") {
                    return false;
                }
                self.sim.set_max_message_latency(most);
                self.later(lasts, Mending::Speed);
            }
            Fault::RecordsAway { node, lasts } => return self.records_are(node, Connection::Away, lasts),
            Fault::AnswersLost { node, lasts } => return self.records_are(node, Connection::Deaf, lasts),
            Fault::RecordsSlow { node, by, lasts } => return self.records_are(node, Connection::Slow(by), lasts),
            Fault::ClockSet { node, micros } => *self.nodes[node].wrong_by.lock() = micros,
            Fault::Drained { machine, lasts } => {
                self.ground.wishes.lock().push_back(Wish::Lifecycle(self.machines[machine].worker, Lifecycle::Draining));
                self.later(lasts, Mending::Open(machine));
            }
            Fault::Paused { task, lasts } => {
                let Some(record) = self.record(task) else { return false };
                self.ground.wishes.lock().push_back(Wish::Pause(record));
                self.later(lasts, Mending::Unpause(task));
            }
        }
        true
    }

    fn record(&self, task: usize) -> Option<helix_protocol::TaskId> {
        ending::tasks(&self.records).get(&self.tasks[task].spec.title).map(|task| task.id)
    }

    fn records_are(&mut self, node: usize, connection: Connection, lasts: Duration) -> bool {
        if !self.take(&format!("records of {node}")) {
            return false;
        }
        *self.nodes[node].records.connection.lock() = connection;
        self.later(lasts, Mending::Records(node));
        true
    }

    /// Between these nodes and these machines, or all of them.
    fn links(&self, node: Option<usize>, machine: Option<usize>) -> Vec<(usize, usize)> {
        let nodes = node.map_or(0..self.nodes.len(), |node| node..node + 1);
        let machines = machine.map_or(0..self.machines.len(), |machine| machine..machine + 1);
        nodes.flat_map(|node| machines.clone().map(move |machine| (node, machine))).collect()
    }

    fn cut_for(&mut self, links: Vec<(usize, usize)>, cut: Cut, lasts: Duration) -> bool {
        let done = self.cut(&links, cut);
        if done {
            self.later(lasts, Mending::Links(links, cut));
        }
        done
    }

    fn cut(&mut self, links: &[(usize, usize)], cut: Cut) -> bool {
        let names: Vec<String> = links.iter().map(|(node, machine)| format!("link {node} {machine}")).collect();
        if names.iter().any(|name| self.busy.contains(name)) {
            return false;
        }
        self.busy.extend(names);
        for (node, machine) in links {
            let (node, machine) = (self.nodes[*node].name.as_str(), self.machines[*machine].name.as_str());
            match cut {
                Cut::Both => self.sim.partition(node, machine),
                Cut::FromNode => self.sim.partition_oneway(node, machine),
                Cut::FromWorker => self.sim.partition_oneway(machine, node),
                Cut::Held => self.sim.hold(node, machine),
            }
        }
        true
    }

    fn mend(&mut self, now: Duration) {
        let (due, later) = std::mem::take(&mut self.mending).into_iter().partition(|(at, _)| *at <= now);
        self.mending = later;
        let due: Vec<(Duration, Mending)> = due;
        for (_, mending) in due {
            self.tell(&format!("over: {mending:?}"));
            self.mend_one(mending);
        }
    }

    fn mend_one(&mut self, mending: Mending) {
        match mending {
            Mending::Continue(machine) => self.machines[machine].conditions.send_modify(|now| now.stopped = false),
            Mending::Resume(machine) => self.machines[machine].conditions.send_modify(|now| now.suspended = false),
            Mending::PowerOn(machine) => {
                let name = self.machines[machine].name.clone();
                self.sim.bounce(name.as_str());
                self.busy.remove(&name);
            }
            Mending::NodeOn(node) => {
                let name = self.nodes[node].name.clone();
                self.sim.bounce(name.as_str());
                self.busy.remove(&name);
            }
            Mending::Links(links, cut) => {
                for (node, machine) in links {
                    self.busy.remove(&format!("link {node} {machine}"));
                    let (node, machine) = (self.nodes[node].name.as_str(), self.machines[machine].name.as_str());
                    match cut {
                        Cut::Held => self.sim.release(node, machine),
                        _ => self.sim.repair(node, machine),
                    }
                }
            }
            Mending::Speed => {
                self.busy.remove("speed");
                self.sim.set_max_message_latency(Duration::from_millis(60));
            }
            Mending::Records(node) => {
                self.busy.remove(&format!("records of {node}"));
                *self.nodes[node].records.connection.lock() = Connection::Stands;
            }
            Mending::Open(machine) => {
                self.ground.wishes.lock().push_back(Wish::Lifecycle(self.machines[machine].worker, Lifecycle::Open));
            }
            Mending::Unpause(task) => {
                if let Some(task) = self.record(task) {
                    self.ground.wishes.lock().push_back(Wish::Resume(task));
                }
            }
        }
    }

    /// Everything is mended, and nothing more goes wrong.
    fn make_peace(&mut self) {
        self.tell("from here on nothing goes wrong");
        for (_, mending) in std::mem::take(&mut self.mending) {
            self.mend_one(mending);
        }
        for machine in &self.machines {
            self.ground.wishes.lock().push_back(Wish::Lifecycle(machine.worker, Lifecycle::Open));
        }
    }
}

fn node(number: u64, ground: &Arc<Ground>, records: &Arc<MemoryStore>) -> Arc<NodeHost> {
    let (name, id) = (format!("node{number}"), NodeId::new());
    let reached = Arc::new(Reached::new(Arc::clone(records), &name, Arc::clone(&ground.oracle)));
    Arc::new(NodeHost {
        name,
        node: id,
        ground: Arc::clone(ground),
        records: reached,
        wrong_by: Mutex::default(),
        leaving: Mutex::default(),
    })
}

fn machine(number: u64, oracle: &Arc<Oracle>, chance: &mut Chance) -> Arc<Machine> {
    let started = Duration::from_millis(chance.between(1_000, 100_000_000));
    let drift = i64::try_from(chance.below(41)).expect("small") - 20;
    Arc::new(Machine::new(&format!("worker{number}"), Arc::clone(oracle), started, drift))
}

fn row(machine: &Machine) -> WorkerRecord {
    WorkerRecord {
        id: machine.worker,
        name: machine.name.clone(),
        target: WorkerTarget::Local { folder: machine.name.clone() },
        slots: 3,
        lifecycle: Lifecycle::Open,
        status: WorkerStatus::Inactive,
        health: WorkerHealth::Unknown,
        facts: None,
        reason: String::new(),
        created_at: Timestamp(0),
        last_seen_at: None,
        version: 0,
    }
}
